#!/usr/bin/env python3
"""Opens pages in headless Chromium: every chart is drawn, nothing goes wrong, nothing is fetched, and
what a reader does has its effect.

browser_test.py PREHEAT    exits with 77 where there is no Chromium

The runs are made up: what matters is what becomes of their files. With --times the page of 100 runs
of 10,000 updates is opened without virtual time and what it took is printed.
"""

import argparse
import html.parser
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
CONFIG = """name: {name}
seed: {seed}
data: {{dataset: synthetic}}
optimizer: {{momentum: 0.9}}
{more}
"""
OUTCOMES = ["ok", "spiked", "stuck", "non_finite"]


def write_sharpness(folder, steps, updates):
    (folder / "sharpness.csv").write_text(
        "step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,random_direction\n"
        + "".join(f"{s},0.1,{30 - 20 * s / updates},28,0.01,5,10,{int(s % 3 > 0)},0.1\n"
                  for s in steps))


def write_run(folder, seed, updates, outcome="ok", diagnostics=False, name="made-up", warmup=0.1):
    """A run's folder as train/run_folder.h describes it."""
    folder.mkdir(parents=True)
    rng = random.Random(f"{name} {seed} {outcome}")
    (folder / "config.yaml").write_text(CONFIG.format(name=name, seed=seed, more=""))
    end = updates // 2 if outcome == "non_finite" else updates
    rows = []
    warmup = int(warmup * updates)
    for step in range(end):
        rate = 0.1 * min(1, (step + 1) / max(1, warmup))
        loss = 2.3 * math.exp(-3 * step / updates) * (1 + 0.2 * rng.random())
        if outcome == "non_finite":
            loss *= math.exp(40 * max(0, step / end - 0.9))
        last = outcome == "non_finite" and step == end - 1
        skipped = step == 3  # as by the scaling of the loss
        rows.append(f"{step},{step // 100},{'warmup' if step < warmup else 'constant'},{rate:.9g},"
                    f"{'nan' if last else format(loss, '.9g')},{rng.random():.6g},"
                    f"{'inf' if last or skipped else 1 + rng.random()},0.01,12.5")
    (folder / "metrics.csv").write_text(
        "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm\n"
        + "".join(row + "\n" for row in rows))
    (folder / "eval.csv").write_text(
        "step,epoch,test_loss,test_accuracy\n"
        + "".join(f"{s},0,{2 - s / updates},{0.5 + 0.4 * s / updates}\n"
                  for s in range(updates // 4, end + 1, max(1, updates // 4)) if s > 0))
    summary = dict.fromkeys(
        ["gate_opened_at", "first_non_finite_step", "first_non_finite_tensor", "test_loss",
         "final_train_accuracy", "best_test_accuracy", "best_step"])
    summary |= {"name": name, "seed": seed, "outcome": outcome, "interrupted": False, "steps": end,
                "steps_planned": updates, "steps_per_epoch": 100, "final_train_loss": 0.1,
                "test_accuracy": 0.9, "wall_seconds": 1.5, "images_per_second": 1000,
                "parameters": 1234, "memory_bytes": {"data": 1 << 20}, "data": "made up",
                "device": "a device", "library": "a library", "preheat": "0"}
    if outcome == "non_finite":
        summary |= {"first_non_finite_step": end - 1, "first_non_finite_tensor": "loss"}
    (folder / "summary.json").write_text(json.dumps(summary))
    if not diagnostics:
        return
    steps = range(0, end, max(1, updates // 20))
    write_sharpness(folder, steps, updates)
    (folder / "layers.csv").write_text(
        "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance,stable_rank\n"
        + "".join(f"{s},{layer}.conv.weight,{5 + layer},0.5,0.01,0.1,{s * 0.01},{1 + layer / 9}\n"
                  for s in steps for layer in range(30)))
    (folder / "activations.csv").write_text(
        "step,layer,largest,dead,change\n"
        + "".join(f"{s},{layer},{5 + layer},{0.01 * layer},{0.01 + 0.01 * layer}\n"
                  for s in steps for layer in range(3)))
    (folder / "gradients.csv").write_text(
        "step,parameter,signal,noise,noise_scale\n"
        + "".join(f"{s},{name},{1 if s % 7 else -1},{s + 1},{64 * (s + 1) if s % 7 else 'nan'}\n"
                  for s in steps for name in ("0.conv.weight", "1.linear.weight", "all")))


def arm_json(name, overrides, runs):
    failures = sum(outcome in ("stuck", "non_finite") for _, outcome in runs)
    return {"name": name, "overrides": overrides, "n": len(runs), "failures": failures,
            "failure_interval": [0.1, 0.9] if runs else None,
            "runs": [{"seed": s, "outcome": o, "first_non_finite_step": None,
                      "final_train_loss": 0.5, "test_accuracy": 0.9} for s, o in runs]}


def write_compare(folder, seeds, updates, diagnostics=False, loses=True, more_arms=()):
    folder.mkdir(parents=True)
    more = "".join(f", {arm}: {{}}" for arm in ("warm", *more_arms))
    (folder / "config.yaml").write_text(CONFIG.format(
        name="made-up", seed=0,
        more=f"compare: {{seeds: {seeds}, arms: {{cold: {{schedule.base_lr: 1}}{more}}}}}"))
    arms = []
    for arm in ("cold", "warm", *more_arms):
        runs = [(s, "non_finite" if loses and arm == "cold" and s % 2 else "ok") for s in range(seeds)]
        for seed, outcome in runs:
            write_run(folder / arm / str(seed), seed, updates, outcome, diagnostics,
                      warmup=0 if arm == "cold" else 0.1)
        arms.append(arm_json(arm, {}, runs))
    (folder / "compare.json").write_text(json.dumps({
        "arms": arms, "paired": [{"arms": ["cold", "warm"], "mcnemar_p": 0.25}],
        "claims": [{"claim": "failures", "text": "cold <fails>", "verdict": v, "evidence": "1 of 2"}
                   for v in ("PASS", "FAIL", "INCONCLUSIVE")]}))


def write_sweep(folder, updates):
    folder.mkdir(parents=True)
    rates, warmups, forms = [0.1, 0.2, 0.4], ["0 steps", "10 steps"], [False, True]
    (folder / "config.yaml").write_text(CONFIG.format(
        name="map", seed=0,
        more="sweep: {seeds: 2, axes: {schedule.base_lr: [0.1, 0.2, 0.4], "
             "optimizer.nesterov: [false, true], schedule.warmup.length: [0 steps, 10 steps]}}"))
    cells = []
    for rate in rates:
        for nesterov in forms:
            for warmup in warmups:
                name = f"{rate}_{json.dumps(nesterov)}_{warmup.replace(' ', '-')}"
                outcome = OUTCOMES[(rates.index(rate) + warmups.index(warmup)) % 4]
                runs = [(s, outcome if s or outcome != "stuck" else "ok") for s in range(2)]
                for seed, ended in runs:
                    write_run(folder / name / str(seed), seed, updates, ended)
                point = {"schedule.base_lr": rate, "optimizer.nesterov": nesterov,
                         "schedule.warmup.length": warmup}
                cells.append(arm_json(name, point, runs) | {"point": point})
    (folder / "sweep.json").write_text(json.dumps({
        "axes": [{"key": "schedule.base_lr", "values": rates},
                 {"key": "optimizer.nesterov", "values": forms},
                 {"key": "schedule.warmup.length", "values": warmups}],
        "cells": cells,
        "boundaries": [{"point": {"schedule.warmup.length": "0 steps"}, "largest_training": 0.1,
                        "smallest_failing": None, "violations": 0, "sensitivity": 0.25}]}))


def write_find_lr(folder, updates):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(
        name="search", seed=0, more="find_lr: {seeds: 3, first: 0.1}"))
    arms = []
    for arm, best in (("no-warmup", 0.1), ("warmup", 0.4)):
        searches = []
        for seed in range(3):
            tried = []
            for rate in (0.1, 0.2, 0.4, 0.8):
                outcome = "ok" if rate <= best else "non_finite"
                write_run(folder / arm / str(seed) / f"{rate:.4g}", seed, updates, outcome)
                tried.append({"lr": rate, "trained": rate <= best, "outcome": outcome,
                              "final_train_loss": 0.5, "test_accuracy": None,
                              "first_non_finite_step": None})
            searches.append({"seed": seed, "largest": best, "smallest_failing": 2 * best,
                             "violations": 0, "tried": tried})
        arms.append({"name": arm, "overrides": {}, "searches": searches})
    (folder / "find_lr.json").write_text(json.dumps({
        "arms": arms, "critical_rates": [{"seed": s, "rate": 0.2, "sharpness": 40} for s in range(3)],
        "ratios": [{"arms": ["no-warmup", "warmup"], "log2_mean": 2, "interval": [1.5, 2.5],
                    "n": 3}]}))


class Body(html.parser.HTMLParser):
    """The attributes of <body>, and how many canvases stand in charts."""

    def __init__(self):
        super().__init__()
        self.attributes = {}
        self.charts = 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "body":
            self.attributes = attrs
        if tag == "canvas" and attrs.get("role") == "application" and attrs.get("aria-label"):
            self.charts += 1


class Browser:
    def __init__(self, program, scratch):
        self.command = [program, "--headless=new", "--no-sandbox", "--disable-gpu",
                        "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
                        "--enable-logging=stderr", f"--user-data-dir={scratch}"]

    def open(self, page, *options):
        """The document as it is after its scripts have run, and what the console said."""
        done = subprocess.run([*self.command, *options, "--dump-dom", page.as_uri()],
                              capture_output=True, text=True, timeout=120, check=False)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


# Uses every chart as a reader would, and writes what does not work to data-wrong.
USE = """
<script>
(async () => {
  for (const folded of document.querySelectorAll('section > details')) folded.open = true;
  await new Promise((done) => { setTimeout(done, 1000); });  // for their charts to take their sizes
  const wrong = [];
  const expect = (truth, words) => { if (!truth) wrong.push(words); };
  const buttons = (root, words) => [...root.querySelectorAll('button')]
    .filter((button) => button.textContent === words);
  const canvases = [...document.querySelectorAll('canvas[role=application]')];
  const range = (canvas) => {
    const { min, max } = Chart.getChart(canvas).scales.x;
    return [min, max];
  };
  for (const canvas of canvases) {
    const chart = Chart.getChart(canvas);
    const ends = ({ kind, y }) => ['raw', 'median'].includes(kind) && y.at(-1) === null;
    expect(chart.data.datasets.filter(({ isMark }) => isMark).length ===
      chart.spec.series.filter(ends).length, `${chart.spec.title}: a cross where a line ends`);
    const { left, right, top, height } = chart.chartArea;
    // Without what is behind the lines the pixels there are others.
    const behind = [...(chart.spec.bands ?? []).map((band) => [chart.spec.bands, (band.from + band.to) / 2]),
      ...(chart.spec.marks ?? []).map((mark) => [chart.spec.marks, mark.at])];
    for (const [list, at] of behind) {
      const ratio = chart.currentDevicePixelRatio;
      const pixels = () => {
        const copy = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        copy.drawImage(canvas, (2 - chart.scales.x.getPixelForValue(at)) * ratio, -top * ratio);
        return copy.getImageData(0, 0, 4 * ratio, Math.min(height, 100) * ratio).data.join();
      };
      const before = pixels();
      const kept = list.splice(0);
      chart.update('none');
      expect(pixels() !== before, `${chart.spec.title}: a phase or an end of warmup at ${at} is drawn`);
      list.push(...kept);
      chart.update('none');
      expect(canvas.getAttribute('aria-label').includes(kept[0].label), `${chart.spec.title}: and said`);
    }
    for (const series of chart.spec.series.filter((s) => s.kind === 'dots' && s.least)) {
      chart.update('none');
      const before = canvas.toDataURL();
      const kept = series.largest;
      series.largest = series.x;
      chart.update('none');
      expect(canvas.toDataURL() !== before, `${chart.spec.title}: a bar up to ${kept} is drawn`);
      series.largest = kept;
      chart.update('none');
      expect(canvas.toDataURL() === before, `${chart.spec.title}: and again`);
      for (const end of [...series.least, ...series.largest, ...chart.spec.xspan]) {
        const { min, max } = chart.scales.x;
        expect(min < end && end < max, `${chart.spec.title}: ${end} is between ${min} and ${max}`);
      }
    }
    const [min, max] = range(canvas);
    const at = (type, share) => {
      const box = canvas.getBoundingClientRect();
      canvas.dispatchEvent(new PointerEvent(type, { button: 0, pointerId: 1, bubbles: true,
        clientX: box.left + left + share * (right - left), clientY: box.top + top + 5 }));
    };
    canvas.setPointerCapture = () => {};
    at('pointerdown', 0.25);
    at('pointermove', 0.5);
    expect(document.querySelector('.selection'), 'a selection is shown');
    at('pointerup', 0.75);
    const [from, to] = range(canvas);
    expect(from > min && to < max && !document.querySelector('.selection'),
      `${chart.spec.title}: dragging zooms, ${[min, max, from, to]}`);
    canvas.dispatchEvent(new MouseEvent('dblclick'));
    expect(String(range(canvas)) === String([min, max]), `${chart.spec.title}: double-click resets`);
    const near = chart.spec.x === 'step' ? canvas.closest('[data-section]') : canvas.closest('figure');
    at('pointerdown', 0.25);
    at('pointerup', 0.75);
    const all = buttons(near, 'all')[0];
    expect(all, `${chart.spec.title}: a button resets`);
    all?.click();
    expect(String(range(canvas)) === String([min, max]), `${chart.spec.title}: and all is shown`);
    for (let i = 0; i < 60 && !chart.tooltip.opacity; ++i) {
      canvas.dispatchEvent(new KeyboardEvent('keydown', { key: i % 2 ? 'ArrowLeft' : 'ArrowRight' }));
    }
    canvas.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }));
    const said = canvas.parentNode.querySelector('output').textContent;
    const hasPoints = chart.spec.series.some((s) => s.x.length > 1);
    expect(!hasPoints || said.includes(chart.spec.x), `${chart.spec.title}: keys read, "${said}"`);
    if (chart.spec.rows) {
      const dots = chart.spec.series.filter((s) => s.kind === 'dots')
        .flatMap((s) => s.x.map((x, i) => `${s.label}, ${chart.spec.rows[s.y[i]]}`));
      const read = [];
      const press = (key) => canvas.dispatchEvent(new KeyboardEvent('keydown', { key }));
      for (const dot of dots) press('ArrowLeft');
      for (const dot of dots) {
        const [, label, row] = /, (.*): .*, (.*)/.exec(canvas.parentNode.querySelector('output').textContent);
        read.push(`${label}, ${row}`);
        press('ArrowRight');
      }
      expect(String(read.sort()) === String(dots.sort()), `${chart.spec.title}: keys read every dot, ${read}`);
      expect(!chart.spec.series[0].least || /, from [0-9.]+ to [0-9.]+, /.test(said),
        `${chart.spec.title}: and its interval, "${said}"`);
    }
    for (const log of buttons(canvas.closest('figure'), 'log')) {
      const before = chart.scales.y.type;
      log.click();
      expect(chart.scales.y.type !== before, 'log changes the axis');
      log.click();
      expect(chart.scales.y.type === before, 'and back');
    }
    for (const whole of buttons(canvas.closest('figure'), 'whole range')) {
      const before = chart.scales.y.max;
      whole.click();
      expect(chart.scales.y.max > before, `${chart.spec.title}: the whole range is larger`);
    }
  }
  for (const section of document.querySelectorAll('[data-section]')) {
    const chart = Chart.getChart(section.querySelector('canvas[role=application]'));
    const [first, last] = range(chart.canvas);
    for (const plus of buttons(section, '+')) {
      const press = (words) => {
        buttons(section, words)[0].click();
        return range(chart.canvas);
      };
      const isNear = (a, b) => Math.abs(a - b) < 1e-6 * last;
      const [from, to] = press('+');
      expect(from > first && to < last && isNear(to - from, (last - first) / 2), 'plus zooms in');
      for (const [words, end, at] of [['←', 0, first], ['→', 1, last]]) {
        for (let i = 0; i < 5; ++i) press(words);
        const moved = range(chart.canvas);
        expect(isNear(moved[end], at) && isNear(moved[1] - moved[0], to - from),
          `${words} ends at the end of the run and keeps the width, ${moved}`);
      }
      expect(String(press('−')) === String([first, last]), 'minus ends at the whole run');
      expect(String(press('−')) === String([first, last]), 'and stays there');
      plus.click();
      expect(String(press('all')) === String([first, last]), 'all shows the whole run');
    }
    const seeds = buttons(section, 'each seed');
    const isMedian = ({ series }) => series.kind === 'median';
    const visible = (of) => chart.data.datasets.filter((d, i) => chart.isDatasetVisible(i) && of(d)).length;
    for (const each of seeds) {
      expect(visible(isMedian) > 0 && visible((d) => !isMedian(d)) === 0, 'medians come first');
      each.click();
      expect(visible((d) => !isMedian(d)) > 0, 'the seeds by themselves, when asked for');
    }
    for (const every of buttons(chart.canvas.closest('figure'), 'every update')) {
      expect(!every.hidden, 'every update can be seen');
      if (every.getAttribute('aria-pressed') === 'false') every.click();
    }
    for (const set of section.querySelectorAll('fieldset')) {
      for (const button of set.querySelectorAll('button[aria-pressed=true]')) button.click();
      if (set.querySelector('legend').textContent === 'steps') continue;
      const isSeeds = seeds.some((each) => set.contains(each));  // which medians are of all the same
      expect(visible((d) => !isSeeds || !isMedian(d)) === 0, 'nothing is on, nothing is shown');
      for (const button of set.querySelectorAll('button[aria-pressed=false]')) button.click();
      expect(chart.getVisibleDatasetCount() === chart.data.datasets.length, 'all on, all shown');
    }
  }
  window.dispatchEvent(new Event('beforeprint'));
  window.dispatchEvent(new Event('afterprint'));
  document.body.dataset.wrong = [...new Set(wrong)].join('; ');
})();
</script>
"""


# The page in frames of three widths, each of which says what does not fit or was not drawn.
WIDTHS = [360, 768, 1280]
FRAMES = """<!doctype html>
<body data-wrong="" data-said="0">
<script>
window.addEventListener('message', ({ data }) => {
  document.body.dataset.wrong += data;
  document.body.dataset.said = Number(document.body.dataset.said) + 1;
});
</script>
"""
MEASURE = """
<script>
setTimeout(() => {
  const wrong = [];
  const expect = (truth, words) => { if (!truth) wrong.push(`${innerWidth} px: ${words}; `); };
  const root = document.documentElement;
  expect(root.scrollWidth <= root.clientWidth, `the page is ${root.scrollWidth} px wide`);
  const isLight = (color) => color.match(/[0-9]+/g).slice(0, 3).every((channel) => channel > 127);
  const { backgroundColor, color } = getComputedStyle(document.body);
  expect(isLight(backgroundColor) === LIGHT && isLight(color) === !LIGHT, `${color} on ${backgroundColor}`);
  for (const canvas of document.querySelectorAll('canvas[role=application]')) {
    const { title } = Chart.getChart(canvas).spec;
    const small = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    small.drawImage(canvas, 0, 0, 60, 40);
    const drawn = small.getImageData(0, 0, 60, 40).data.filter((value, i) => i % 4 === 3 && value > 0);
    expect(drawn.length > 60, `${title} is blank`);
    expect(canvas.getBoundingClientRect().right <= innerWidth, `${title} is cut off`);
    const { spec, scales: { y } } = Chart.getChart(canvas);
    for (const { label } of spec.rows ? y.ticks : []) {
      y.ctx.font = Chart.helpers.toFont(y.options.ticks.font).string;
      expect(y.ctx.measureText(label).width < y.width, `${title}: the name ${label} is cut off`);
    }
  }
  parent.postMessage(wrong.join(''), '*');
}, 500);
</script>
"""


def check_widths(page, browser):
    """Whether the page fits and its charts are drawn at each width, in light and in dark."""
    problems = []
    for scheme, option in (("light", 1), ("dark", 0)):
        measured = page.with_name(f"{scheme}-{page.name}")
        measure = MEASURE.replace("LIGHT", "true" if scheme == "light" else "false")
        measured.write_text(page.read_text().replace("</body>", measure + "</body>"))
        frames = page.with_name(f"{scheme}-frames-{page.name}")
        frames.write_text(FRAMES + "".join(
            f'<iframe src="{measured.name}" width="{width}" height="900"></iframe>\n'
            for width in WIDTHS) + "</body>\n")
        dom, console = browser.open(frames, "--virtual-time-budget=10000",
                                    f"--blink-settings=preferredColorScheme={option}")
        body = Body()
        body.feed(dom)
        wrong = body.attributes["data-wrong"]
        if wrong or body.attributes["data-said"] != str(len(WIDTHS)) or console:
            problems.append(f"{scheme}, {body.attributes['data-said']} of {len(WIDTHS)} widths: "
                            + "".join([wrong, *console[:1]]))
    print(f"{page.name} at {WIDTHS} px, light and dark"
          + "".join("\n  " + problem for problem in problems))
    return not problems


def drawn_charts(page, browser, least_charts):
    """How many charts the page draws when it is opened, and what is wrong with that."""
    dom, console = browser.open(page, "--virtual-time-budget=8000")
    body = Body()
    body.feed(dom)
    problems = []
    drawn = int(body.attributes.get("data-drawn", -1))
    wanted = page.read_text().count("<figure data-chart=")
    if drawn != wanted or drawn < least_charts or body.charts != drawn:
        problems.append(f"{drawn} of {wanted} charts drawn, {body.charts} canvases, "
                        f"at least {least_charts} expected")
    if body.attributes.get("data-errors") != "0":
        problems.append(f"errors: {body.attributes.get('data-errors')}")
    if console:
        problems.append("the console says: " + console[0])
    return drawn, problems


def check(page, browser, least_charts, behind):
    drawn, problems = drawn_charts(page, browser, least_charts)
    for kind in behind:
        if f'"{kind}":' not in page.read_text():
            problems.append(f"no chart has {kind}")
    outside = re.findall(r'(?:src|href)="([^"]*)"|url\(', page.read_text().split("<script")[0])
    if outside:
        problems.append(f"refers to {outside[0]}")
    used = page.with_name("used-" + page.name)
    used.write_text(page.read_text().replace("</body>", USE + "</body>"))
    dom, console = browser.open(used, "--virtual-time-budget=20000")
    body = Body()
    body.feed(dom)
    wrong = body.attributes.get("data-wrong", "the page was not used to the end")
    if wrong or body.attributes.get("data-errors") != "0" or console:
        problems.append("; ".join([wrong, *console[:1]]))
    print(f"{page.name}: {drawn} charts, {page.stat().st_size / 1e6:.2f} MB"
          + "".join("\n  " + problem for problem in problems))
    return not problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("preheat")
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("SKIPPED: there is no chromium")
        return SKIPPED

    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        browser = Browser(program, root / "browser")

        def page_of(name, *folders):
            page = root / f"{name}.html"
            begin = time.monotonic()
            subprocess.run([arguments.preheat, "report", *folders, "-o", page], check=True,
                           stdout=subprocess.DEVNULL,
                           env=os.environ | {"GOMP_SPINCOUNT": "1000"})
            return page, time.monotonic() - begin

        if arguments.times:
            write_compare(root / "large", 50, 10000, loses=False)
            page, seconds = page_of("large", root / "large")
            print(f"100 runs of 10000 updates: {page.stat().st_size / 1e6:.2f} MB, "
                  f"written in {seconds:.2f} s")
            for _ in range(3):
                dom, _ = browser.open(page)
                body = Body()
                body.feed(dom)
                print(f"opened in {body.attributes['data-milliseconds']} ms, "
                      f"{body.attributes['data-drawn']} charts")
            return 0

        write_run(root / "one", 7, 300, "ok", True, name="one")
        write_run(root / "short", 1, 2, "non_finite", name="short")
        write_run(root / "lost", 2, 90, "non_finite", name="lost")
        write_compare(root / "pair", 3, 200, diagnostics=True)
        write_compare(root / "many", 1, 40, diagnostics=True, more_arms=("a", "b", "c"))
        write_compare(root / "seeds", 6, 900)
        write_compare(root / "names", 2, 40,
                      more_arms=("an-arm-whose-name-is-wider-than-half-of-a-narrow-chart",))
        write_sweep(root / "map", 40)
        write_find_lr(root / "search", 40)
        shaded, marked = ["bands"], ["bands", "marks"]
        shares = [*marked, "xspan", "path"]
        pages = [(page_of("one-run", root / "one"), 12, shaded),
                 (page_of("runs", root / "one", root / "lost", root / "short"), 4, marked),
                 (page_of("compare", root / "pair"), 12, shares),
                 (page_of("many-arms", root / "many"), 41, marked),
                 (page_of("seeds", root / "seeds"), 5, shares),
                 (page_of("sweep", root / "map"), 3, shaded),
                 (page_of("find-lr", root / "search"), 6, shaded),
                 (page_of("mixed", root / "map", root / "one", root / "search", root / "names"), 16,
                  shaded)]
        # Its measurements are more than an engine takes as arguments of a function.
        write_run(root / "measured", 3, 160_000, name="measured")
        write_sharpness(root / "measured", range(160_000), 160_000)
        drawn, problems = drawn_charts(page_of("measured", root / "measured")[0], browser, 6)
        print(f"measured.html: {drawn} charts" + "".join("\n  " + each for each in problems))
        right = [not problems]
        right += [check(page, browser, least, behind) for (page, _), least, behind in pages]
        right.append(check_widths(root / "mixed.html", browser))
        return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
