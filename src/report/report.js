// Draws the charts of a page from its JSON (described in src/report/chart.h), and lets a reader
// switch runs on and off, zoom, and read values. Plain Chart.js, nothing else.
'use strict';
(() => {
  const body = document.body;
  body.dataset.drawn = 0;
  body.dataset.errors = 0;
  window.addEventListener('error', () => { body.dataset.errors = Number(body.dataset.errors) + 1; });
  document.documentElement.classList.add('js');

  const data = JSON.parse(document.getElementById('data').textContent);
  const dashes = [[], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2]];
  const shapes = ['circle', 'triangle', 'rect', 'rectRot', 'star', 'crossRot', 'cross'];
  const thinAbove = 6;  // runs in a chart; more are drawn as thin lines
  const fewPoints = 40;  // of a median: up to here its points are drawn, e.g. a run's evaluations
  const meansAbove = 6;  // runs in a chart; above that only means are shown at first, if there are any

  // The label of the series that a series of means belongs to, or the series' own.
  const owner = (series) => series.of ?? series.label;

  // The median of an arm's seeds, with its band; the seeds themselves are shown on request.
  const isMedian = (series) => series.kind === 'median';
  const hasMedians = (spec) => spec.series.some(isMedian);

  const runsOf = (spec) => new Set(spec.series.filter((s) => !isMedian(s)).map(owner)).size;

  // ---- Words ----------------------------------------------------------------------------------

  const text = (value) => {
    if (value === null || value === undefined) return 'not finite';
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(3);
    return String(Number(value.toPrecision(5)));
  };
  const tick = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(0).replace('e+', 'e');
    return String(Number(value.toPrecision(6)));
  };

  // ---- Colours --------------------------------------------------------------------------------

  let css = getComputedStyle(document.documentElement);
  Chart.defaults.font.family = getComputedStyle(body).fontFamily;
  const variable = (name) => css.getPropertyValue('--' + name).trim();
  const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const withAlpha = (hex, alpha) => `rgba(${channels(hex).join(',')},${alpha})`;

  // "depth:0.25" is a position on a scale from the first layer to the last, "order:0.25" one on a
  // scale of values whose lightness changes monotonically, so that nobody depends on the hues.
  const scales = { depth: ['c0', 'c2', 'c4', 'c1'], order: ['s0', 's1', 's2', 's3'] };
  const colorOf = (name) => {
    const [scale, place] = name.split(':');
    if (place === undefined) return variable(name);
    const stops = scales[scale].map((stop) => channels(variable(stop)));
    const at = Number(place) * (stops.length - 1);
    const i = Math.min(Math.floor(at), stops.length - 2);
    const hex = stops[i].map((low, k) => Math.round(low + (stops[i + 1][k] - low) * (at - i)));
    return '#' + hex.map((c) => c.toString(16).padStart(2, '0')).join('');
  };

  // ---- From a series of the JSON to a dataset of Chart.js -----------------------------------------

  function styled(dataset, runs) {
    const { kind, color, pattern } = dataset.series;
    const ink = colorOf(color);
    const many = runs > thinAbove && kind !== 'median';
    const faint = kind === 'raw' && dataset.hasMeans;
    Object.assign(dataset, {
      borderColor: faint ? withAlpha(ink, many ? 0.16 : 0.32) : many ? withAlpha(ink, 0.7) : ink,
      backgroundColor: ink,
      borderWidth: faint ? 1 : kind === 'limit' ? 1.2 : kind === 'median' ? 2.4 : many ? 1.1 : 1.8,
      borderDash: faint ? [] : dashes[pattern % dashes.length],
      pointStyle: dataset.isMark ? 'crossRot' : shapes[pattern % shapes.length],
      pointBorderColor: ink,
      pointBackgroundColor: dataset.isMark ? ink : withAlpha(ink, 0.85),
      pointBorderWidth: dataset.isMark ? 2.2 : 1,
      pointRadius: dataset.isMark ? 5 : kind === 'dots' ? 5.5 : kind === 'line' ? (many ? 2 : 3)
        : kind === 'median' && dataset.data.length <= fewPoints ? 3 : 0,
    });
  }

  // Where values stop being finite for good the line ends, with a cross at its last height; if it has
  // none, at the chart's largest value.
  function marksOf(series, spec) {
    let end = series.y.length;
    while (end > 0 && series.y[end - 1] === null) --end;
    if (end === series.y.length) return [];
    const largest = () => spec.series.flatMap(({ y }) => y).reduce((a, b) => Math.max(a, b), 1e-9);
    return [{ x: series.x[end], y: Math.min(series.y[end - 1] ?? largest(), spec.cap ?? Infinity) }];
  }

  // Points of a row that would cover each other are moved above and below it.
  function spreadOut(datasets, spec) {
    const place = (x) => (spec.xlog ? Math.log(x) : x);
    const dots = datasets.filter(({ series }) => series.kind === 'dots').flatMap(({ data }) => data);
    const all = dots.map(({ x }) => place(x));
    const near = (Math.max(...all) - Math.min(...all)) * 0.02;
    const taken = {};  // by row and height: the last position
    for (const point of dots.sort((a, b) => place(a.x) - place(b.x))) {
      for (const above of [0, 0.16, -0.16, 0.32, -0.32]) {
        const key = `${point.row} ${above}`;
        if (taken[key] !== undefined && place(point.x) - taken[key] <= near) continue;
        taken[key] = place(point.x);
        point.y = point.row + above;
        break;
      }
    }
  }

  function datasetsOf(spec) {
    const means = new Set(spec.series.filter((s) => s.of).map(owner));
    const datasets = [];
    for (const series of spec.series) {
      // Unparsed data must be sorted by x for Chart.js; lines are, rows and paths are not.
      const sorted = !spec.rows && !spec.path;
      const common = { series, label: series.label, parsing: sorted ? false : {}, normalized: sorted };
      datasets.push({
        ...common,
        data: series.x.map((x, i) => (spec.rows ? { x, y: series.y[i], row: series.y[i] } : { x, y: series.y[i] })),
        showLine: series.kind !== 'dots',
        hasMeans: series.kind === 'raw' && means.has(series.label),
        order: { raw: 2, limit: 3, median: 0 }[series.kind] ?? 1,  // the lowest is drawn on top
        clip: series.kind === 'line' || series.kind === 'dots' ? 6 : 0,
      });
      const marks = series.kind === 'raw' || isMedian(series) ? marksOf(series, spec) : [];
      if (marks.length > 0) {
        const what = isMedian(series) ? 'half are not finite' : 'not finite';
        datasets.push({ ...common, label: `${series.label}: ${what} from here on`, data: marks,
          showLine: false, isMark: true, order: 0, clip: 8 });
      }
    }
    if (spec.rows) spreadOut(datasets, spec);
    return datasets;
  }

  // ---- What is under the pointer ------------------------------------------------------------------

  // The point nearest in x of every series (in the row under the pointer, if there are rows); with
  // many series only the nearest of them.
  Chart.Interaction.modes.nearestOfEach = (chart, event) => {
    const items = [];
    const row = chart.spec.rows && Math.round(chart.scales.y.getValueForPixel(event.y));
    for (const meta of chart.getSortedVisibleDatasetMetas()) {
      const points = meta.data;
      const { series, data: values } = chart.data.datasets[meta.index];
      if (chart.spec.rows && series.kind !== 'dots') continue;
      let best = null;
      let low = 0;
      let high = points.length - 1;
      if (meta.dataset && chart.data.datasets[meta.index].showLine && !chart.spec.path) {
        while (high - low > 1) {  // x is ascending along a line
          const middle = (low + high) >> 1;
          if (points[middle].x < event.x) low = middle; else high = middle;
        }
      }
      for (let i = low; i <= high; ++i) {
        if (points[i].skip || isNaN(points[i].x)) continue;
        if (chart.spec.rows && values[i].row !== row) continue;
        const away = Math.abs(points[i].x - event.x);
        if (best === null || away < best.away) best = { away, i };
      }
      if (best === null || best.away > 40) continue;
      const element = points[best.i];
      items.push({ element, datasetIndex: meta.index, index: best.i,
        distance: Math.hypot(element.x - event.x, element.y - event.y) });
    }
    items.sort((a, b) => a.distance - b.distance);
    return items.length > 8 ? items.slice(0, 1) : items;
  };

  // ---- Phases of the schedule -------------------------------------------------------------------------

  const shading = (list) => ({
    id: 'shading',
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales: { x } } = chart;
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, 0, area.width, area.bottom);
      ctx.clip();
      ctx.font = '11px system-ui, sans-serif';
      ctx.textBaseline = 'bottom';
      let free = area.left;  // where the next name may start
      list.forEach((band, i) => {
        const left = Math.max(x.getPixelForValue(Math.max(band.from, x.min)), area.left);
        const right = Math.min(x.getPixelForValue(Math.min(band.to, x.max)), area.right);
        if (!(right > left)) return;
        ctx.fillStyle = withAlpha(variable('soft'), i % 2 === 0 ? 0.13 : 0.04);
        ctx.fillRect(left, area.top, right - left, area.height);
        ctx.fillStyle = variable('soft');
        // The name of a short phase, such as a warmup, extends into the next, whose own is then
        // dropped.
        const at = Math.max(left, free) + 4;
        const width = ctx.measureText(band.label).width;
        if (at < right && at + width <= area.right) {
          ctx.fillText(band.label, at, area.top - 2);
          free = at + width + 4;
        }
      });
      ctx.restore();
    },
  });

  // Where the warmup of each arm ends, behind the lines, in the arm's colour.
  const isOn = (facets, group) => facets.every((value, facet) => !group.off[facet].has(value));  // -1: any
  const marks = (list, group) => ({
    id: 'marks',
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales: { x } } = chart;
      ctx.save();
      for (const { at, color, pattern, facets } of list) {
        if (!isOn(facets, group) || at < x.min || at > x.max) continue;
        ctx.strokeStyle = colorOf(color);
        ctx.lineWidth = 1.5;
        ctx.setLineDash(dashes[pattern % dashes.length]);
        ctx.beginPath();
        ctx.moveTo(x.getPixelForValue(at), area.top);
        ctx.lineTo(x.getPixelForValue(at), area.bottom);
        ctx.stroke();
      }
      ctx.restore();
    },
  });

  // What is shaded and marked, for readers who cannot see it.
  function backgroundText({ bands = [], marks: lines = [] }) {
    const most = 12;
    const words = [...bands.map(({ label, from, to }) => `${label} from ${from} to ${to}`),
      ...lines.map(({ label }) => label)];
    return (words.length > 0 ? `; ${words.slice(0, most).join(', ')}` : '') +
      (words.length > most ? ` and ${words.length - most} more` : '');
  }

  // ---- From the least to the largest seed of an arm --------------------------------------------------

  const ranges = {
    id: 'ranges',
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales: { x, y } } = chart;
      // A logarithmic axis has no position for 0.
      const height = (value) => {
        const at = y.getPixelForValue(value);
        return Number.isFinite(at) ? Math.min(Math.max(at, -9999), 9999) : area.bottom;
      };
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, area.top, area.width, area.height);
      ctx.clip();
      chart.data.datasets.forEach(({ series, isMark }, i) => {
        if (!isMedian(series) || isMark || !chart.isDatasetVisible(i)) return;
        const there = series.x.map((_, k) => k).filter((k) => series.least[k] !== null);
        ctx.beginPath();
        for (const k of there) ctx.lineTo(x.getPixelForValue(series.x[k]), height(series.largest[k]));
        for (const k of there.reverse()) ctx.lineTo(x.getPixelForValue(series.x[k]), height(series.least[k]));
        ctx.closePath();
        ctx.fillStyle = withAlpha(colorOf(series.color), 0.2);
        ctx.fill();
      });
      ctx.restore();
    },
  };

  // ---- Over the interval of a dot --------------------------------------------------------------------

  const hasBars = ({ kind, least }) => kind === 'dots' && least !== undefined;
  const bars = {
    id: 'bars',
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales: { x, y } } = chart;
      const cap = 4;  // half the height of the ends
      ctx.save();
      ctx.beginPath();
      ctx.rect(area.left, area.top, area.width, area.height);
      ctx.clip();
      ctx.lineWidth = 2;
      chart.data.datasets.forEach(({ series, data: points }, i) => {
        if (!hasBars(series) || !chart.isDatasetVisible(i)) return;
        ctx.strokeStyle = colorOf(series.color);
        ctx.beginPath();
        points.forEach((point, k) => {
          const at = y.getPixelForValue(point.y);
          const ends = [series.least[k], series.largest[k]].map((value) => x.getPixelForValue(value));
          ctx.moveTo(ends[0], at);
          ctx.lineTo(ends[1], at);
          for (const end of ends) {
            ctx.moveTo(end, at - cap);
            ctx.lineTo(end, at + cap);
          }
        });
        ctx.stroke();
      });
      ctx.restore();
    },
  };

  // ---- Charts ---------------------------------------------------------------------------------------------

  function theme(chart) {
    const soft = variable('soft');
    const line = variable('line');
    for (const axis of Object.values(chart.options.scales)) {
      axis.ticks.color = soft;
      axis.grid.color = line;
      axis.grid.borderColor = line;
      axis.title.color = soft;
    }
    Object.assign(chart.options.plugins.tooltip, {
      backgroundColor: variable('panel'), borderColor: variable('line'), borderWidth: 1,
      titleColor: variable('ink'), bodyColor: variable('ink'),
    });
    const runs = runsOf(chart.spec);
    for (const dataset of chart.data.datasets) styled(dataset, runs);
  }

  function axis(title, isLog) {
    return {
      type: isLog ? 'logarithmic' : 'linear',
      title: { display: title !== '', text: title },
      grid: { drawTicks: false },
      ticks: { maxRotation: 0, autoSkipPadding: 14, padding: 6, includeBounds: false,
        callback: (value) => tick(value) },
    };
  }

  // For a logarithmic axis too short for log ticks: spaced by 1, 2 or 5 times a power of ten.
  function evenTicks(min, max) {
    const power = 10 ** Math.floor(Math.log10((max - min) / 3));
    const apart = power * [1, 2, 5, 10].find((lead) => (max - min) / (lead * power) <= 5);
    const ticks = [];
    for (let i = Math.ceil(min / apart); i * apart <= max; ++i) {
      ticks.push({ value: Number((i * apart).toPrecision(10)) });
    }
    return ticks;
  }

  // Powers of ten, and 2 and 5 times them if there are few.
  function logTicks(scale) {
    const decades = Math.log10(scale.max / scale.min);
    const all = scale.ticks;
    scale.ticks = all.filter(({ value }) => {
      const lead = value / 10 ** Math.floor(Math.log10(value) + 1e-9);
      const leads = decades > 3 ? [1] : decades > 0.7 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
      return leads.some((wanted) => Math.abs(lead - wanted) < 1e-6);
    });
    const seen = ({ value }) => value >= scale.min && value <= scale.max;
    if (scale.ticks.filter(seen).length < 2) scale.ticks = evenTicks(scale.min, scale.max);
  }

  // The name of a row, without its middle if it is wider than the part of the chart that Chart.js leaves
  // to names: it would cut off their beginnings.
  function fitted(scale, name) {
    const { ctx, options, maxWidth } = scale;
    ctx.save();
    ctx.font = Chart.helpers.toFont(options.ticks.font).string;
    const widest = maxWidth - options.ticks.padding;
    let text = name;
    for (let kept = name.length - 1; kept > 1 && ctx.measureText(text).width > widest; --kept) {
      const end = Math.floor(kept / 2);
      text = `${name.slice(0, kept - end).trimEnd()}…${name.slice(-end).trimStart()}`;
    }
    ctx.restore();
    return text;
  }

  function setAxis(chart, name, isLog) {
    const spec = chart.spec;
    const made = axis(name === 'x' ? spec.x : spec.y, isLog);
    if (isLog) made.afterBuildTicks = logTicks;
    if (name === 'y' && spec.rows) {
      Object.assign(made, { min: -0.6, max: spec.rows.length - 0.4, reverse: true });
      made.ticks.stepSize = 1;
      made.ticks.autoSkip = false;
      made.afterBuildTicks = (scale) => { scale.ticks = spec.rows.map((_, value) => ({ value })); };
      made.ticks.callback = function callback(value) { return fitted(this, spec.rows[value] ?? ''); };
    }
    if (name === 'y' && spec.span) [made.suggestedMin, made.suggestedMax] = spec.span;
    if (name === 'x' && spec.rows) {
      made.grace = '5%';  // keeps points from hiding behind the row names
      if (!isLog && spec.series.every((series) => series.x.every((x) => x >= 0))) {
        made.afterBuildTicks = (scale) => { scale.ticks = scale.ticks.filter(({ value }) => value >= 0); };
      }
    }
    // Otherwise a logarithmic axis starts at a power of ten, and a linear one at a tick below its span.
    if (name === 'x' && (isLog || spec.xspan) && !sharesSteps(chart)) {
      const all = [...spec.series.flatMap((series) => series.x), ...spec.xspan ?? []];
      // An engine takes only so many arguments, and a chart can have more points.
      const least = all.reduce((a, b) => Math.min(a, b), Infinity);
      const largest = all.reduce((a, b) => Math.max(a, b), -Infinity);
      const more = isLog ? (largest / least) ** 0.04 : 0.04 * (largest - least);
      if (largest > least && !(isLog && least <= 0)) {
        Object.assign(made, chart.whole = isLog ? { min: least / more, max: largest * more }
          : { min: least - more, max: largest + more });
      }
    }
    chart.options.scales[name] = made;
  }

  // Fits the y axis to the visible part of the lines; initially it may be capped.
  function fit(chart) {
    const { spec, range } = chart;
    if (spec.rows) return;
    const y = chart.options.scales.y;
    y.min = y.max = undefined;
    const cap = chart.isCapped ? spec.cap : undefined;
    const isLog = y.type === 'logarithmic';
    // Chart.js gives a logarithmic axis a single decade if there is a value of 0.
    if (range || isLog || hasMedians(spec)) {
      let least = Infinity;
      let largest = -Infinity;
      chart.data.datasets.forEach((dataset, i) => {
        if (!chart.isDatasetVisible(i)) return;
        const take = (x, value) => {
          if (value === null || (isLog && value <= 0)) return;
          if (range && (x < range.min || x > range.max)) return;
          least = Math.min(least, value);
          largest = Math.max(largest, value);
        };
        for (const point of dataset.data) take(point.x, point.y);
        const { x, least: low = [], largest: high = [] } = dataset.series;
        for (const ends of [low, high]) ends.forEach((value, k) => take(x[k], value));
      });
      if (cap !== undefined) largest = Math.min(largest, cap);
      const more = isLog ? (largest / least) ** 0.04 : 0.04 * (largest - least);
      if (largest > least) {
        y.min = isLog ? least / more : least - more;
        y.max = isLog ? largest * more : largest + more;
      }
    }
    if (cap !== undefined && !(y.max < cap)) y.max = cap;
  }

  function refresh(chart) {
    fit(chart);
    chart.update('none');
  }

  const sharesSteps = (chart) => chart.spec.x === 'step';

  function zoom(group, chart, range) {
    for (const other of sharesSteps(chart) ? group.charts.filter(sharesSteps) : [chart]) {
      other.range = range;
      const whole = sharesSteps(other) ? group.steps : other.whole;
      other.options.scales.x.min = (range ?? whole)?.min;
      other.options.scales.x.max = (range ?? whole)?.max;
      refresh(other);
    }
  }

  // Zooms by a factor around the middle, or moves by a share of the visible range; the range stays
  // within the run.
  function step(group, factor, shift) {
    const chart = group.charts.find(sharesSteps);
    const { min, max } = chart.scales.x;
    const isLog = chart.options.scales.x.type === 'logarithmic';
    const place = (value) => (isLog ? Math.log(Math.max(value, group.steps.min)) : value);
    const [first, last, low, high] = [group.steps.min, group.steps.max, min, max].map(place);
    const width = (high - low) * factor;
    if (width >= (last - first) * (1 - 1e-9)) {
      zoom(group, chart, null);
      return;
    }
    const wanted = (low + high - width) / 2 + shift * (high - low);
    const begin = Math.min(Math.max(wanted, first), last - width);
    const ends = [begin, begin + width].map((v) => (isLog ? Math.exp(v) : v));
    zoom(group, chart, { min: ends[0], max: Math.min(ends[1], group.steps.max) });
  }

  function dragToZoom(group, chart, plot) {
    const canvas = chart.canvas;
    let start = null;
    const selection = document.createElement('div');
    selection.className = 'selection';
    const inside = (x) => Math.min(Math.max(x, chart.chartArea.left), chart.chartArea.right);
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      start = inside(event.offsetX);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (start === null) return;
      const now = inside(event.offsetX);
      plot.append(selection);
      Object.assign(selection.style, { left: `${Math.min(start, now)}px`,
        width: `${Math.abs(now - start)}px`, top: `${chart.chartArea.top}px`,
        height: `${chart.chartArea.height}px` });
    });
    const end = (event) => {
      selection.remove();
      if (start === null) return;
      const ends = [start, inside(event.offsetX)].sort((a, b) => a - b);
      start = null;
      if (event.type === 'pointercancel' || ends[1] - ends[0] < 6) return;
      const [min, max] = ends.map((x) => chart.scales.x.getValueForPixel(x));
      zoom(group, chart, { min, max });
    };
    canvas.addEventListener('pointerup', end);
    canvas.addEventListener('pointercancel', end);
    canvas.addEventListener('dblclick', () => zoom(group, chart, null));
  }

  // The dots of all rows, row by row, or the points of all paths, each in its order.
  function dotsInOrder(chart) {
    const { spec } = chart;
    const dots = [];
    for (const { index: datasetIndex, data: points } of chart.getSortedVisibleDatasetMetas()) {
      const { series, data: values } = chart.data.datasets[datasetIndex];
      if (!spec.path && series.kind !== 'dots') continue;
      points.forEach((element, index) => dots.push({ element, datasetIndex, index, row: values[index].row }));
    }
    return spec.path ? dots : dots.sort((a, b) => a.row - b.row || a.element.x - b.element.x);
  }

  // The arrow keys move along the lines, or from dot to dot, as along a path; the point reached is
  // shown, and announced to screen readers.
  function readByKeys(chart, plot) {
    const said = document.createElement('output');
    said.className = 'hidden';
    plot.append(said);
    let at = 0.5;
    let dot = -1;
    const along = (move) => {
      at = Math.min(Math.max(at + 0.02 * move, 0), 1);
      const { left, width, top, height } = chart.chartArea;
      const place = { x: left + at * width, y: top + height / 2 };
      return { place, items: Chart.Interaction.modes.nearestOfEach(chart, place) };
    };
    const toDot = (move) => {
      const dots = dotsInOrder(chart);
      dot = Math.min(Math.max(dot + move, 0), dots.length - 1);
      return { place: dots[dot]?.element ?? { x: 0, y: 0 }, items: dots.slice(dot, dot + 1) };
    };
    chart.canvas.addEventListener('keydown', (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      const { place, items } = chart.spec.rows || chart.spec.path ? toDot(move) : along(move);
      chart.setActiveElements(items);
      chart.tooltip.setActiveElements(items, place);
      chart.update('none');
      said.textContent = items.length === 0 ? ''
        : [...chart.tooltip.title, ...chart.tooltip.body.flatMap((b) => b.lines)].join(', ');
    });
  }

  // "warmup, median of 8: 0.31, from 0.22 to 0.45, 7 finite".
  function medianText({ label, series }, i) {
    const { y, least, largest, finite } = series;
    return `${label}: ${text(y[i])}` +
      (finite[i] === 0 ? '' : `, from ${text(least[i])} to ${text(largest[i])}, ${finite[i]} finite`);
  }

  // "2 of n = 8: 0.25, from 0.0715 to 0.591, no-warmup".
  function rowText({ label, series }, i, { x, row }, spec) {
    const bar = hasBars(series) ? `, from ${text(series.least[i])} to ${text(series.largest[i])}` : '';
    return `${label}: ${text(x)}${bar}, ${spec.rows[row]}`;
  }

  function makeChart(figure, spec, group) {
    const plot = figure.querySelector('.plot');
    const canvas = document.createElement('canvas');
    canvas.tabIndex = 0;
    // Screen readers pass arrow keys on to an application, and keep them for themselves in an image.
    canvas.setAttribute('role', 'application');
    canvas.setAttribute('aria-roledescription', 'chart');
    canvas.setAttribute('aria-label', `${spec.title}: ${spec.series.length} series over ${spec.x}; ` +
      `left and right read values; the numbers are in the table below${backgroundText(spec)}`);
    plot.append(canvas);
    if (spec.rows) plot.style.height = `${Math.max(9, 5 + 1.6 * spec.rows.length)}rem`;
    const chart = new Chart(canvas, {
      type: 'scatter',
      data: { datasets: [] },
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, events: ['mousemove', 'mouseout', 'click', 'touchstart'],
        interaction: { mode: 'nearestOfEach', intersect: false },
        layout: { padding: { top: spec.bands ? 16 : 0 } },  // names of bands, above the lines
        elements: { line: { tension: 0 }, point: { hoverRadius: 5, hitRadius: 0 } },
        scales: { x: axis(spec.x, false), y: axis(spec.y, false) },
        plugins: {
          legend: { display: false },
          tooltip: {
            usePointStyle: true, boxWidth: 9, boxHeight: 9, caretSize: 0,
            callbacks: {
              title: (items) => (items.length === 0 || spec.path ? '' : `${spec.x} ${text(items[0].parsed.x)}`),
              label: ({ dataset, dataIndex, parsed, raw }) => (dataset.isMark ? dataset.label
                : isMedian(dataset.series) ? medianText(dataset, dataIndex)
                : spec.rows ? rowText(dataset, dataIndex, raw, spec)
                : spec.path ? `${dataset.label}: ${spec.y} ${text(parsed.y)} at ${spec.x} ${text(parsed.x)}`
                  : `${dataset.label}: ${text(parsed.y)}`),
            },
          },
        },
      },
      plugins: [shading(spec.bands ?? []), marks(spec.marks ?? [], group), ranges, bars],
    });
    chart.spec = spec;
    chart.isCapped = Number.isFinite(spec.cap) &&
      spec.series.some(({ y, largest = [] }) => [...y, ...largest].some((value) => value > spec.cap));
    setAxis(chart, 'x', spec.xlog === true);
    setAxis(chart, 'y', spec.log === true);
    if (sharesSteps(chart)) Object.assign(chart.options.scales.x, group.steps);
    chart.data.datasets = datasetsOf(spec);
    theme(chart);
    chart.showsEvery = runsOf(spec) <= meansAbove;
    show(chart, group);
    dragToZoom(group, chart, plot);
    readByKeys(chart, plot);
    figure.insertBefore(keysOf(chart, group), plot.nextSibling);
    body.dataset.drawn = Number(body.dataset.drawn) + 1;
    return chart;
  }

  // ---- Buttons -----------------------------------------------------------------------------------------------

  function button(label, act, title = '') {
    const made = document.createElement('button');
    made.type = 'button';
    made.append(...[label].flat());
    if (title !== '') made.title = title;
    made.addEventListener('click', () => act(made));
    return made;
  }

  // A toggle button; `act` receives its state.
  function toggle(label, isOn, act, title) {
    const made = button(label, () => {
      const now = made.getAttribute('aria-pressed') !== 'true';
      made.setAttribute('aria-pressed', now);
      act(now);
    }, title);
    made.setAttribute('aria-pressed', isOn);
    return made;
  }

  // A sample of the line, or of the shape of the points, as drawn in the chart.
  const swatches = [];
  function swatch(color, pattern, isDots, more = '') {
    const made = document.createElement('canvas');
    made.setAttribute('aria-hidden', 'true');
    const draw = () => {
      const ratio = window.devicePixelRatio || 1;
      made.width = 26 * ratio;
      made.height = 12 * ratio;
      made.style.width = '26px';
      made.style.height = '12px';
      const ctx = made.getContext('2d');
      ctx.scale(ratio, ratio);
      ctx.strokeStyle = ctx.fillStyle = colorOf(color);
      ctx.lineWidth = 2;
      if (more === 'band') {
        ctx.globalAlpha = 0.25;
        ctx.fillRect(0, 0, 26, 12);
        ctx.globalAlpha = 1;
      }
      if (isDots) {
        Chart.helpers.drawPoint(ctx, { pointStyle: shapes[pattern % shapes.length], radius: 5, rotation: 0,
          borderWidth: 1.5 }, 13, 6);
      } else {
        ctx.setLineDash(dashes[pattern % dashes.length]);
        ctx.beginPath();
        ctx.moveTo(...(more === 'upright' ? [13, 0] : [0, 6]));
        ctx.lineTo(...(more === 'upright' ? [13, 12] : [26, 6]));
        ctx.stroke();
      }
    };
    draw();
    swatches.push(draw);
    return made;
  }

  // The buttons of one chart: its axes, and its own legend.
  function keysOf(chart, group) {
    const { spec } = chart;
    const keys = document.createElement('div');
    keys.className = 'keys';
    const legend = () => {
      const entries = [];
      for (const { label, of, color, pattern, kind, facets } of spec.series) {
        if (label === '' || of) continue;
        // The seeds of an arm look alike; the controls above the charts show which of them are on.
        const like = facets.length > 0 && entries.find((entry) => entry.facets.length > 0 &&
          entry.color === color && entry.pattern === pattern);
        if (like) like.labels.push(label);
        else entries.push({ labels: [label], color, pattern, kind, facets });
      }
      for (const { labels, color, pattern, kind } of entries) {
        const name = document.createElement('span');
        name.textContent = labels.length === 1 ? labels[0]
          : `${labels[0].split(', ')[0]}, ${labels.length} runs`;
        keys.append(toggle([swatch(color, pattern, kind === 'dots'), name], true, (isOn) => {
          for (const label of labels) (chart.off ??= new Set())[isOn ? 'delete' : 'add'](label);
          show(chart, group);
        }));
      }
    };
    if (!spec.rows) {
      const log = toggle('log', spec.log === true, (isOn) => {
        setAxis(chart, 'y', isOn);
        theme(chart);
        refresh(chart);
      }, 'logarithmic axis of values');
      log.classList.add('switch');
      keys.append(log);
    }
    if (chart.data.datasets.some(({ hasMeans }) => hasMeans)) {
      const every = chart.everyUpdate = toggle('every update', chart.showsEvery, (isOn) => {
        chart.showsEvery = isOn;
        show(chart, group);
      }, 'faint: the values behind the means');
      every.classList.add('switch');
      every.hidden = hasMedians(spec);
      keys.append(every);
    }
    if (chart.isCapped) {
      const whole = toggle('whole range', false, (isOn) => {
        chart.isCapped = !isOn;
        refresh(chart);
      }, 'also show the values outside');
      whole.classList.add('switch');
      keys.append(whole);
    }
    if (!sharesSteps(chart)) {
      keys.append(button('all', () => zoom(group, chart, null), 'the whole chart; or double-click it'));
    }
    if (spec.legend) legend();
    return keys;
  }

  // Shows the series whose values of every facet are on.
  function show(chart, group) {
    chart.data.datasets.forEach((dataset, i) => {
      const { facets } = dataset.series;
      chart.setDatasetVisibility(i, isOn(facets, group) &&
        !(chart.off?.has(owner(dataset.series))) && (chart.showsEvery || !dataset.hasMeans) &&
        (group.eachSeed || isMedian(dataset.series) || !hasMedians(chart.spec)));
    });
    if (hasMedians(chart.spec) && chart.everyUpdate) chart.everyUpdate.hidden = !group.eachSeed;
    refresh(chart);
  }

  const small = (words) => {
    const made = document.createElement('small');
    made.textContent = words;
    return made;
  };

  function keyOf(sample, words) {
    const key = document.createElement('span');
    key.className = 'key';
    key.append(sample, words);
    return key;
  }

  // Shows the seeds behind the medians, and with them `others`, the buttons for individual seeds.
  function eachSeed(group, others) {
    for (const other of others) other.hidden = true;
    const made = toggle('each seed', false, (isOn) => {
      group.eachSeed = isOn;
      for (const other of others) other.hidden = !isOn;
      for (const chart of group.charts) show(chart, group);
    }, 'each seed as a thin line');
    made.classList.add('switch');
    return made;
  }

  function controls(place, section, group) {
    const steps = document.createElement('fieldset');
    const legend = (words) => {
      const made = document.createElement('legend');
      made.textContent = words;
      return made;
    };
    const first = () => group.charts.find(sharesSteps);
    const logSteps = toggle('log', false, (isOn) => {
      group.steps.min = isOn ? 1 : 0;
      for (const chart of group.charts.filter(sharesSteps)) {
        setAxis(chart, 'x', isOn);
        theme(chart);
      }
      zoom(group, first(), null);
    }, 'logarithmic axis of steps');
    logSteps.classList.add('switch');
    steps.append(legend('steps'),
      button('+', () => step(group, 0.5, 0), 'zoom in; or drag across a chart'),
      button('−', () => step(group, 2, 0), 'zoom out'),
      button('←', () => step(group, 1, -0.25), 'earlier'),
      button('→', () => step(group, 1, 0.25), 'later'),
      button('all', () => zoom(group, first(), null), 'the whole run; or double-click a chart'),
      logSteps);
    place.append(steps);
    section.facets.forEach((facet, f) => {
      if (facet.values.length < 2) return;
      const set = document.createElement('fieldset');
      const toggles = facet.values.map((value, v) => {
        const name = document.createElement('span');
        name.textContent = value.label;
        if (value.n > 1) name.append(small(` n = ${value.n}`));
        const label = value.color ? [swatch(value.color, value.pattern, false), name] : [name];
        return toggle(label, true, (isOn) => {
          group.off[f][isOn ? 'delete' : 'add'](v);
          for (const chart of group.charts) show(chart, group);
        });
      });
      const buttons = [...toggles];
      if (toggles.length > 2) {
        const all = (isOn) => {
          facet.values.forEach((_, v) => group.off[f][isOn ? 'delete' : 'add'](v));
          for (const each of toggles) each.setAttribute('aria-pressed', isOn);
          for (const chart of group.charts) show(chart, group);
        };
        buttons.push(button('all', () => all(true)), button('none', () => all(false)));
      }
      set.append(legend(facet.name));
      if (facet.name === 'seed' && group.charts.some(({ spec }) => hasMedians(spec) && runsOf(spec) > 0)) {
        set.append(eachSeed(group, buttons), keyOf(swatch('soft', 0, false, 'band'),
          'median of an arm, and the least and the largest of its seeds'));
      }
      set.append(...buttons);
      if (f === 0 && group.charts.some(({ spec }) => spec.marks)) {
        set.append(keyOf(swatch('soft', 0, false, 'upright'), 'end of warmup'));
      }
      if (facet.values[0].color) set.className = 'looks';
      place.append(set);
    });
  }

  // ---- The page ------------------------------------------------------------------------------------------------

  const groups = data.sections.map((section, s) => {
    const place = document.querySelector(`[data-section="${s}"]`);
    // Updates are counted from 0, evaluations by the updates before them.
    const last = (spec) => Math.max(...spec.series.map(
      ({ x, kind }) => (x.at(-1) ?? 0) + (kind === 'raw' ? 1 : 0)));
    const group = { charts: [], off: section.facets.map(() => new Set()),
      steps: { min: 0, max: Math.max(1, ...section.charts.filter((c) => c.x === 'step').map(last)) } };
    section.charts.forEach((spec, c) => {
      group.charts.push(makeChart(place.querySelector(`[data-chart="${c}"]`), spec, group));
    });
    if (group.charts.some(sharesSteps)) controls(place.querySelector('.controls'), section, group);
    else place.querySelector('.controls').remove();
    return group;
  });

  function retheme() {
    css = getComputedStyle(document.documentElement);
    for (const draw of swatches) draw();
    for (const chart of groups.flatMap((group) => group.charts)) {
      theme(chart);
      chart.resize();
      chart.update('none');
    }
  }
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', retheme);
  for (const [event, isPrint] of [['beforeprint', true], ['afterprint', false]]) {
    window.addEventListener(event, () => {
      document.documentElement.classList.toggle('print', isPrint);
      retheme();
    });
  }
  body.dataset.milliseconds = Math.round(performance.now());
})();
