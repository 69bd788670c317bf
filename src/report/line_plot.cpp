#include "report/line_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <string_view>
#include <utility>

#include "report/label_text.h"

namespace preheat {
namespace {

// ---- Axes --------------------------------------------------------------------------------------

struct Tick {
  double value;
  std::string label;
};

struct Axis {
  double lo = 0;
  double hi = 1;
  bool log = false;
  std::vector<Tick> ticks;

  // 0 at the lower end, 1 at the upper.
  double at(double value) const {
    const double v = log ? (std::log(value) - std::log(lo)) / (std::log(hi) - std::log(lo))
                         : (value - lo) / (hi - lo);
    return std::clamp(v, 0.0, 1.0);
  }
};

// Keeps differences of two values from overflowing.
double bounded(double value) {
  return std::clamp(value, -1e300, 1e300);
}

int exponent_of(double value) {
  return static_cast<int>(std::floor(std::log10(std::max(value, 1e-300))));
}

// 1, 2 or 5 times a power of ten, so that at most about `wanted` (or one more) fit into the span.
double nice_step(double span, int wanted) {
  const double rough = span / std::max(wanted, 1);
  const double power = std::pow(10.0, exponent_of(rough));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// All with the same number of digits, in scientific notation if fixed would be mostly zeros.
std::vector<Tick> linear_ticks(double lo, double hi, int wanted) {
  const double step = nice_step(hi - lo, wanted);
  const double largest = std::max(std::abs(lo), std::abs(hi));
  const int step_exponent = exponent_of(step * (1 + 1e-9));
  const bool scientific = largest < 2e-3 || largest >= 1e7;
  const int digits =
      scientific ? std::max(0, exponent_of(largest) - step_exponent) : std::max(0, -step_exponent);
  const double first = std::ceil(lo / step - 1e-9);
  std::vector<Tick> ticks;
  for (int i = 0; (first + i) * step <= hi + 1e-9 * step && i <= 2 * wanted + 2; ++i) {
    const double value = (first + i) * step;
    ticks.push_back({value, first + i == 0 ? "0"
                            : scientific   ? fmt::format("{:.{}e}", value, digits)
                                           : fmt::format("{:.{}f}", value, digits)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double lo, double hi, int wanted) {
  const int first = exponent_of(lo);
  const int last = exponent_of(hi);
  const auto multiples = [&](std::initializer_list<int> factors, int stride) {
    std::vector<Tick> ticks;
    for (int e = first; e <= last; ++e) {
      if (e % stride != 0) continue;
      for (const int factor : factors) {
        const double value = factor * std::pow(10.0, e);
        if (value < lo * (1 - 1e-9) || value > hi * (1 + 1e-9)) continue;
        ticks.push_back({value, value >= 0.99e-3 && value < 1e5 ? fmt::format("{:g}", value)
                                                                : fmt::format("{:.0e}", value)});
      }
    }
    return ticks;
  };
  if (last - first >= 3) return multiples({1}, (last - first) / std::max(wanted, 1) + 1);
  if (auto ticks = multiples({1, 2, 5}, 1); ticks.size() >= 2) return ticks;
  return linear_ticks(lo, hi, wanted);
}

struct Extent {
  double lo = std::numeric_limits<double>::infinity();
  double hi = -std::numeric_limits<double>::infinity();

  void add(double value) {
    lo = std::min(lo, bounded(value));
    hi = std::max(hi, bounded(value));
  }
  bool empty() const { return lo > hi; }
  bool constant() const { return hi - lo <= 1e-9 * std::max(std::abs(lo), std::abs(hi)); }
};

std::size_t points(const Curve& curve) {
  return std::min(curve.x.size(), curve.y.size());
}

bool has_ends(const Band& band) {
  return std::isfinite(band.from) && std::isfinite(band.to);
}

Axis x_axis(const LinePlot& plot, int wanted) {
  Extent extent;
  for (const Curve& curve : plot.curves) {
    for (std::size_t i = 0; i < points(curve); ++i) {
      if (std::isfinite(curve.x[i])) extent.add(curve.x[i]);
    }
  }
  for (const Band& band : plot.bands) {
    if (!has_ends(band)) continue;
    extent.add(band.from);
    extent.add(band.to);
  }
  Axis axis;
  if (!extent.empty()) {
    const double margin = extent.constant() ? std::max(1.0, std::abs(extent.lo)) / 2 : 0;
    axis.lo = extent.lo - margin;
    axis.hi = extent.hi + margin;
  }
  axis.ticks = linear_ticks(axis.lo, axis.hi, wanted);
  return axis;
}

Axis y_axis(const LinePlot& plot, int wanted) {
  Extent extent;
  for (const Curve& curve : plot.curves) {
    for (std::size_t i = 0; i < points(curve); ++i) {
      const double y = curve.y[i];
      if (std::isfinite(y) && (!plot.log_y || y > 0)) extent.add(y);
    }
  }
  Axis axis;
  axis.log = plot.log_y;
  if (axis.log) {
    if (extent.empty()) extent = {0.1, 1};
    // Both ends stay normal numbers whatever the values are.
    const double lo = std::log10(std::max(extent.lo, 1e-300));
    const double hi = std::log10(std::max(extent.hi, 1e-300));
    const double margin = extent.constant() ? 0.5 : 0.04 * (hi - lo);
    axis.lo = std::pow(10.0, std::max(lo - margin, -305.0));
    axis.hi = std::pow(10.0, std::min(hi + std::max(margin, 1e-9), 305.0));
    axis.ticks = log_ticks(axis.lo, axis.hi, wanted);
    return axis;
  }
  if (extent.empty()) extent = {0, 1};
  // Includes zero if it is near: a rate of 0.1 is a length, not a position.
  const bool flat = extent.constant();
  if (extent.lo > 0 && (flat || extent.lo < extent.hi / 2)) extent.lo = 0;
  if (extent.hi < 0 && (flat || extent.hi > extent.lo / 2)) extent.hi = 0;
  if (extent.lo == extent.hi) extent.hi = 1;
  const double margin = 0.05 * (extent.hi - extent.lo);
  axis.lo = extent.lo == 0 ? 0 : extent.lo - margin;
  axis.hi = extent.hi == 0 ? 0 : extent.hi + margin;
  axis.ticks = linear_ticks(axis.lo, axis.hi, wanted);
  return axis;
}

// ---- Curves ------------------------------------------------------------------------------------

// Relative to the lower left corner of the plotting area, from 0 to 1.
struct Point {
  double x;
  double y;
};

struct Mark {
  Point point;
  double x;  // of the first value that is not finite
};

// The drawn parts of a curve.
struct Trace {
  std::vector<std::vector<Point>> lines;
  std::vector<Mark> marks;
};

// Keeps the first, lowest, highest and last of the points that share a pixel column.
std::vector<Point> thin(const std::vector<Point>& line, double pixels) {
  std::vector<Point> kept;
  for (std::size_t begin = 0; begin < line.size();) {
    const double column = std::floor(line[begin].x * pixels);
    std::size_t end = begin + 1;
    while (end < line.size() && std::floor(line[end].x * pixels) == column) ++end;
    std::array<std::size_t, 4> keep{begin, begin, begin, end - 1};
    for (std::size_t i = begin; i < end; ++i) {
      if (line[i].y < line[keep[1]].y) keep[1] = i;
      if (line[i].y > line[keep[2]].y) keep[2] = i;
    }
    std::sort(keep.begin(), keep.end());
    const auto* const last = std::unique(keep.begin(), keep.end());
    std::transform(keep.cbegin(), last, std::back_inserter(kept),
                   [&](std::size_t i) { return line[i]; });
    begin = end;
  }
  return kept;
}

Trace trace(const Curve& curve, const Axis& x, const Axis& y, double pixels) {
  constexpr std::size_t max_points = 2000;
  Trace result;
  std::vector<Point> line;
  Point last{0, 1};
  bool drawn = false;
  bool lost = false;
  const auto finish_line = [&] {
    if (line.empty()) return;
    result.lines.push_back(points(curve) > max_points ? thin(line, pixels) : line);
    line.clear();
  };
  for (std::size_t i = 0; i < points(curve); ++i) {
    const double value = curve.y[i];
    if (!std::isfinite(curve.x[i])) {
      finish_line();
    } else if (!std::isfinite(value)) {
      // A curve without a finite point before the break is marked at the upper edge.
      if (!lost) result.marks.push_back({drawn ? last : Point{x.at(curve.x[i]), 1}, curve.x[i]});
      lost = true;
      finish_line();
    } else {
      lost = false;
      if (y.log && value <= 0) {
        finish_line();
        continue;
      }
      last = {x.at(bounded(curve.x[i])), y.at(bounded(value))};
      drawn = true;
      line.push_back(last);
    }
  }
  finish_line();
  return result;
}

std::vector<const Curve*> legend_of(const LinePlot& plot) {
  std::vector<const Curve*> legend;
  for (const Curve& curve : plot.curves) {
    const bool known = std::any_of(legend.begin(), legend.end(), [&](const Curve* other) {
      return other->label == curve.label && other->color == curve.color;
    });
    if (!curve.label.empty() && !known) legend.push_back(&curve);
  }
  return legend;
}

std::size_t cyclic(int color, std::size_t count) {
  return static_cast<std::size_t>(static_cast<unsigned>(color)) % count;
}

// ---- SVG ---------------------------------------------------------------------------------------

// Okabe and Ito's colours, distinguishable with any colour vision; those with the most contrast to
// the background come first.
constexpr std::array<const char*, 7> light_palette{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                   "#e69f00", "#56b4e9", "#000000"};
constexpr std::array<const char*, 7> dark_palette{"#56b4e9", "#e69f00", "#009e73", "#cc79a7",
                                                  "#d55e00", "#f0e442", "#ffffff"};
constexpr std::array<const char*, 5> dashes{"", "7 3", "2 2.5", "9 3 2 3", "14 4"};

constexpr double text_height = 16;
constexpr double character_width = 6.6;  // of the 12 px text, an upper estimate

struct Box {
  double left = 0;
  double top = 0;
  double right = 0;
  double bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
  double x(double fraction) const { return left + fraction * width(); }
  double y(double fraction) const { return bottom - fraction * height(); }
};

void write_style(std::string& svg) {
  const auto write_theme = [&](const char* background, const char* ink, const char* soft,
                               const auto& palette) {
    fmt::format_to(std::back_inserter(svg),
                   ".lp-back{{fill:{0}}}.lp-text{{fill:{1}}}.lp-soft{{fill:{2}}}"
                   ".lp-axis{{stroke:{2}}}.lp-grid{{stroke:{2};stroke-opacity:.22}}"
                   ".lp-band{{fill:{2}}}.lp-halo{{stroke:{0}}}",
                   background, ink, soft);
    for (std::size_t i = 0; i < palette.size(); ++i) {
      fmt::format_to(std::back_inserter(svg), ".lp-c{0}{{stroke:{1}}}.lp-f{0}{{fill:{1}}}", i,
                     palette[i]);
    }
  };
  svg +=
      "<style>"
      ".lp-text,.lp-soft{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
      ".lp-title{font-size:14px;font-weight:600}"
      ".lp-axis,.lp-grid{stroke-width:1;fill:none;shape-rendering:crispEdges}"
      ".lp-band{fill-opacity:.02}.lp-odd{fill-opacity:.09}"
      ".lp-line,.lp-mark,.lp-halo{fill:none;stroke-linejoin:round;stroke-linecap:round}"
      ".lp-line{stroke-width:2;stroke-linecap:butt}"
      ".lp-mark{stroke-width:2.2}.lp-halo{stroke-width:5;stroke-opacity:.8}";
  write_theme("#ffffff", "#1b1f24", "#5a626b", light_palette);
  svg += "@media (prefers-color-scheme:dark){";
  write_theme("#15181c", "#e8eaed", "#a3abb5", dark_palette);
  svg += "}</style>\n";
}

void write_text(std::string& svg, double x, double y, const char* anchor, const char* style,
                std::string_view text) {
  fmt::format_to(std::back_inserter(svg),
                 "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
                 style, x, y, anchor, escape(text));
}

std::string dash_attribute(int color) {
  const char* const pattern = dashes[cyclic(color, dashes.size())];
  return *pattern == '\0' ? "" : fmt::format(" stroke-dasharray=\"{}\"", pattern);
}

void write_curve(std::string& svg, const Curve& curve, const Trace& trace, const Box& box) {
  const auto out = std::back_inserter(svg);
  const std::size_t color = cyclic(curve.color, light_palette.size());
  svg += "<g>";
  if (!curve.label.empty()) fmt::format_to(out, "<title>{}</title>", escape(curve.label));
  std::string path;
  for (const auto& line : trace.lines) {
    if (line.size() == 1) {
      fmt::format_to(out, "<circle class=\"lp-f{}\" cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"2.5\"/>", color,
                     box.x(line[0].x), box.y(line[0].y));
      continue;
    }
    char command = 'M';
    for (const Point& point : line) {
      fmt::format_to(std::back_inserter(path), "{}{:.2f} {:.2f}", command, box.x(point.x),
                     box.y(point.y));
      command = 'L';
    }
  }
  if (!path.empty()) {
    fmt::format_to(out, "<path class=\"lp-line lp-c{}\"{} d=\"{}\"/>", color,
                   dash_attribute(curve.color), path);
  }
  svg += "</g>\n";
}

// Marks are drawn above all curves, on a halo: they are what a reader looks for.
void write_marks(std::string& svg, const Curve& curve, const Trace& trace, const Box& box) {
  for (const Mark& mark : trace.marks) {
    const std::string cross = fmt::format("M{:.2f} {:.2f}l8 8m0 -8l-8 8", box.x(mark.point.x) - 4,
                                          box.y(mark.point.y) - 4);
    fmt::format_to(std::back_inserter(svg),
                   "<g><title>{}{}not finite at {:g}</title><path class=\"lp-halo\" d=\"{}\"/>"
                   "<path class=\"lp-mark lp-c{}\" d=\"{}\"/></g>\n",
                   escape(curve.label), curve.label.empty() ? "" : ": ", mark.x, cross,
                   cyclic(curve.color, light_palette.size()), cross);
  }
}

// Writes the entries into as many lines as they need; returns the y below them.
double write_legend(std::string& svg, const std::vector<const Curve*>& legend, double left,
                    double right, double top) {
  constexpr double swatch = 26;
  constexpr double gap = 18;
  double x = left;
  for (const Curve* const curve : legend) {
    const double width = swatch + 6 + character_width * width_of(curve->label);
    if (x > left && x + width > right) {
      x = left;
      top += text_height;
    }
    fmt::format_to(std::back_inserter(svg),
                   "<path class=\"lp-line lp-c{}\"{} d=\"M{:.1f} {:.1f}h{}\"/>\n",
                   cyclic(curve->color, light_palette.size()), dash_attribute(curve->color), x,
                   top + 10, swatch);
    write_text(svg, x + swatch + 6, top + 14, "start", "lp-text", curve->label);
    x += width + gap;
  }
  return legend.empty() ? top : top + text_height + 4;
}

struct BandLabel {
  double x;
  int row;
  std::string_view text;
};

// A label starts where its band does, in the first row where it does not overlap another one.
std::vector<BandLabel> place_band_labels(const LinePlot& plot, const Axis& x, const Box& box) {
  constexpr std::size_t max_rows = 3;
  std::vector<double> row_ends;
  std::vector<BandLabel> labels;
  for (const Band& band : plot.bands) {
    if (band.label.empty() || !has_ends(band)) continue;
    const double width = character_width * width_of(band.label);
    const double start = std::max(box.left, std::min(box.x(x.at(band.from)), box.right - width));
    auto row = std::find_if(row_ends.begin(), row_ends.end(),
                            [&](double end) { return end + 8 <= start; });
    if (row == row_ends.end()) {
      if (row_ends.size() == max_rows) continue;  // the band still has its tooltip
      row = row_ends.insert(row_ends.end(), 0);
    }
    *row = start + width;
    labels.push_back({start, static_cast<int>(row - row_ends.begin()), band.label});
  }
  return labels;
}

// Writes the title, the legend and the labels of the bands; returns the y below them.
double write_head(std::string& svg, const LinePlot& plot, const Axis& x, const Box& box) {
  double top = box.top;
  if (!plot.title.empty()) {
    write_text(svg, box.left, top + 18, "start", "lp-text lp-title", plot.title);
    top += 26;
  }
  top = write_legend(svg, legend_of(plot), box.left, box.right, top);
  const std::vector<BandLabel> labels = place_band_labels(plot, x, box);
  for (const BandLabel& label : labels) {
    write_text(svg, label.x, top + 12 + text_height * label.row, "start", "lp-soft", label.text);
  }
  if (!labels.empty()) {
    const int rows = std::ranges::max(labels, {}, &BandLabel::row).row + 1;
    top += text_height * rows + 2;
  }
  return top;
}

void write_bands(std::string& svg, const LinePlot& plot, const Axis& x, const Box& box) {
  int index = 0;
  for (const Band& band : plot.bands) {
    if (!has_ends(band)) continue;
    const double left = box.x(x.at(band.from));
    fmt::format_to(std::back_inserter(svg),
                   "<rect class=\"lp-band{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
                   "height=\"{:.2f}\"><title>{}</title></rect>\n",
                   index++ % 2 == 0 ? " lp-odd" : "", left, box.top,
                   std::max(0.0, box.x(x.at(band.to)) - left), box.height(), escape(band.label));
  }
}

void write_axes(std::string& svg, const Axis& x, const Axis& y, const Box& box) {
  const auto out = std::back_inserter(svg);
  for (const Tick& tick : y.ticks) {
    const double at = box.y(y.at(tick.value));
    fmt::format_to(out, "<path class=\"lp-grid\" d=\"M{:.2f} {:.2f}H{:.2f}\"/>\n", box.left, at,
                   box.right);
    write_text(svg, box.left - 8, at + 4, "end", "lp-soft", tick.label);
  }
  for (const Tick& tick : x.ticks) {
    const double at = box.x(x.at(tick.value));
    fmt::format_to(out, "<path class=\"lp-axis\" d=\"M{:.2f} {:.2f}v5\"/>\n", at, box.bottom);
    write_text(svg, at, box.bottom + 19, "middle", "lp-soft", tick.label);
  }
  fmt::format_to(out, "<path class=\"lp-axis\" d=\"M{:.2f} {:.2f}V{:.2f}H{:.2f}\"/>\n", box.left,
                 box.top, box.bottom, box.right);
}

void write_axis_labels(std::string& svg, const LinePlot& plot, const Box& box) {
  if (!plot.x_label.empty()) {
    write_text(svg, (box.left + box.right) / 2, box.bottom + 37, "middle", "lp-text", plot.x_label);
  }
  if (!plot.y_label.empty()) {
    fmt::format_to(std::back_inserter(svg),
                   "<text class=\"lp-text\" text-anchor=\"middle\" transform=\"translate(16 "
                   "{:.1f}) rotate(-90)\">{}</text>\n",
                   (box.top + box.bottom) / 2, escape(plot.y_label));
  }
}

void write_plot(std::string& svg, const LinePlot& plot, const Axis& x, const Axis& y, Box box) {
  box.top = std::min(write_head(svg, plot, x, box) + 4, box.bottom - 20);
  write_bands(svg, plot, x, box);
  write_axes(svg, x, y, box);
  std::vector<Trace> traces;
  for (const Curve& curve : plot.curves) {
    traces.push_back(trace(curve, x, y, box.width()));
    write_curve(svg, curve, traces.back(), box);
  }
  for (std::size_t i = 0; i < traces.size(); ++i) write_marks(svg, plot.curves[i], traces[i], box);
  write_axis_labels(svg, plot, box);
}

// ---- Terminal ----------------------------------------------------------------------------------

constexpr std::array<const char*, 6> ansi_colors{"\x1b[36m", "\x1b[33m", "\x1b[32m",
                                                 "\x1b[35m", "\x1b[34m", "\x1b[31m"};
constexpr const char* ansi_reset = "\x1b[0m";
// The first arm is drawn in braille, which has the finest resolution, the others with these.
constexpr std::array<const char*, 5> glyphs{"o", "+", "*", "#", "@"};

const char* glyph(int color) {
  return color == 0 ? "⠶" : glyphs[cyclic(color - 1, glyphs.size())];
}

std::string braille(unsigned dots) {
  const unsigned code = 0x2800 + dots;
  return {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
          static_cast<char>(0x80 | (code & 0x3F))};
}

// A grid of cells, each of 2 x 4 braille dots.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), cells_(static_cast<std::size_t>(columns) * rows) {}

  void line(Point from, Point to, int color) {
    const double x0 = dot_x(from);
    const double y0 = dot_y(from);
    const double x1 = dot_x(to);
    const double y1 = dot_y(to);
    const int steps = static_cast<int>(std::ceil(std::max(std::abs(x1 - x0), std::abs(y1 - y0))));
    for (int i = 0; i <= steps; ++i) {
      const double t = steps == 0 ? 0 : static_cast<double>(i) / steps;
      dot(static_cast<int>(std::lround(x0 + t * (x1 - x0))),
          static_cast<int>(std::lround(y0 + t * (y1 - y0))), color);
    }
  }

  void mark(Point point, int color) {
    Cell& cell = at(static_cast<int>(std::lround(dot_x(point))) / 2,
                    static_cast<int>(std::lround(dot_y(point))) / 4);
    cell.color = color;
    cell.marked = true;
  }

  void guide(double x) {
    const int column = static_cast<int>(std::lround(dot_x({x, 0}))) / 2;
    for (int row = 0; row < rows_; ++row) at(column, row).guide = true;
  }

  int rows() const { return rows_; }

  // Colour codes are written only where the colour changes.
  std::string row(int row, bool color) const {
    std::string text;
    int painted = -1;
    for (int column = 0; column < columns_; ++column) {
      const Cell& cell = at(column, row);
      const bool drawn = cell.marked || cell.dots != 0;
      const int paint =
          color && drawn ? static_cast<int>(cyclic(cell.color, ansi_colors.size())) : -1;
      if (paint != painted)
        text += paint < 0 ? ansi_reset : ansi_colors[static_cast<std::size_t>(paint)];
      painted = paint;
      if (cell.marked) {
        text += "×";
      } else if (!drawn) {
        text += cell.guide ? "┊" : " ";
      } else {
        text += color || cell.color == 0 ? braille(cell.dots) : glyph(cell.color);
      }
    }
    return painted < 0 ? text : text + ansi_reset;
  }

 private:
  struct Cell {
    unsigned dots = 0;
    int color = 0;
    bool marked = false;
    bool guide = false;
  };

  double dot_x(Point point) const { return point.x * (2 * columns_ - 1); }
  double dot_y(Point point) const { return (1 - point.y) * (4 * rows_ - 1); }

  std::size_t index(int column, int row) const {
    return static_cast<std::size_t>(row) * columns_ + column;
  }
  Cell& at(int column, int row) { return cells_[index(column, row)]; }
  const Cell& at(int column, int row) const { return cells_[index(column, row)]; }

  void dot(int x, int y, int color) {
    constexpr unsigned bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    Cell& cell = at(x / 2, y / 4);
    if (cell.color != color) cell.dots = 0;
    cell.color = color;
    cell.dots |= bits[y % 4][x % 2];
  }

  int columns_;
  int rows_;
  std::vector<Cell> cells_;
};

// A line of text that labels are placed on; `column` may lie left of it.
class TextLine {
 public:
  explicit TextLine(int columns) : cells_(static_cast<std::size_t>(columns), " ") {}

  void put(int column, std::string_view text) {
    for (const std::string_view c : characters(text)) {
      if (column >= 0 && column < static_cast<int>(cells_.size())) {
        cells_[static_cast<std::size_t>(column)] = c;
      }
      ++column;
    }
  }

  std::string text() const {
    std::string result;
    for (const std::string& cell : cells_) result += cell;
    result.erase(result.find_last_not_of(' ') + 1);
    return result + "\n";
  }

 private:
  std::vector<std::string> cells_;
};

// The parts of a plot from left to right: labels of the y axis, the axis itself, the canvas.
struct TextLayout {
  int columns;
  int gutter;  // columns of the labels
  int width;   // of the canvas
  Axis x;

  int left() const { return gutter + 1; }
  int column_of(double value) const {
    return left() + static_cast<int>(std::lround(x.at(value) * (2 * width - 1))) / 2;
  }
};

std::string legend_lines(const LinePlot& plot, int columns, bool color) {
  std::string text;
  int used = 0;
  for (const Curve* const curve : legend_of(plot)) {
    const int length = 3 + width_of(curve->label);
    if (used > 0) {
      const bool wraps = used + 3 + length > columns;
      text += wraps ? "\n" : "   ";
      used = wraps ? 0 : used + 3;
    }
    used += length;
    if (color) {
      text +=
          fmt::format("{}⠶⠶{} ", ansi_colors[cyclic(curve->color, ansi_colors.size())], ansi_reset);
    } else {
      text += fmt::format("{0}{0} ", glyph(curve->color));
    }
    text += clean(curve->label);
  }
  return used > 0 ? text + "\n" : text;
}

// The label of each band where it begins, which ends what is left of the one before.
std::string band_line(const LinePlot& plot, const TextLayout& layout) {
  TextLine line(layout.columns);
  bool any_band = false;
  for (const Band& band : plot.bands) {
    if (!has_ends(band)) continue;
    any_band = true;
    const int column = layout.column_of(band.from);
    line.put(column, "┊" + std::string(static_cast<std::size_t>(layout.columns), ' '));
    line.put(column + 1, band.label);
  }
  return any_band ? line.text() : "";
}

// The curves, all marks above them, and a guide where a band begins.
Canvas drawn(const LinePlot& plot, const TextLayout& layout, const Axis& y, int rows) {
  Canvas canvas(layout.width, rows);
  for (const Band& band : plot.bands) {
    if (!has_ends(band)) continue;
    if (layout.column_of(band.from) > layout.left()) canvas.guide(layout.x.at(band.from));
  }
  std::vector<Trace> traces;
  for (const Curve& curve : plot.curves) {
    traces.push_back(trace(curve, layout.x, y, 2 * layout.width));
    for (const auto& line : traces.back().lines) {
      for (std::size_t i = 0; i < line.size(); ++i) {
        canvas.line(line[i == 0 ? 0 : i - 1], line[i], curve.color);
      }
    }
  }
  for (std::size_t i = 0; i < traces.size(); ++i) {
    for (const Mark& mark : traces[i].marks) canvas.mark(mark.point, plot.curves[i].color);
  }
  return canvas;
}

// The rows of the canvas, to the right of the y axis and its labels.
std::string canvas_lines(const Canvas& canvas, const Axis& y, int gutter, bool color) {
  std::vector<std::string> labels(static_cast<std::size_t>(canvas.rows()));
  for (const Tick& tick : y.ticks) {
    const auto row = std::lround((1 - y.at(tick.value)) * (4 * canvas.rows() - 1)) / 4;
    labels[static_cast<std::size_t>(row)] = tick.label;
  }
  std::string text;
  for (int row = 0; row < canvas.rows(); ++row) {
    const std::string& label = labels[static_cast<std::size_t>(row)];
    std::string line = fmt::format("{:>{}} {}", label, gutter - 1, label.empty() ? "│" : "┤");
    line += canvas.row(row, color);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string x_axis_lines(const LinePlot& plot, const TextLayout& layout) {
  TextLine axis(layout.columns);
  TextLine numbers(layout.columns);
  axis.put(layout.gutter, "└");
  for (int i = 0; i < layout.width; ++i) axis.put(layout.left() + i, "─");
  int free_from = 0;
  for (const Tick& tick : layout.x.ticks) {
    const int at = layout.column_of(tick.value);
    const int length = width_of(tick.label);
    const int start = std::clamp(at - length / 2, 0, std::max(layout.columns - length, 0));
    axis.put(at, "┬");
    if (start < free_from) continue;
    numbers.put(start, tick.label);
    free_from = start + length + 1;
  }
  if (plot.x_label.empty()) return axis.text() + numbers.text();
  TextLine label(layout.columns);
  const int before = std::max(0, (layout.width - width_of(plot.x_label)) / 2);
  label.put(layout.left() + before, plot.x_label);
  return axis.text() + numbers.text() + label.text();
}

}  // namespace

std::string to_svg(const LinePlot& plot, int width, int height) {
  const Axis y = y_axis(plot, std::max(2, (height - 90) / 40));
  double labels = 0;
  for (const Tick& tick : y.ticks) {
    labels = std::max(labels, character_width * width_of(tick.label));
  }
  const double left = labels + (plot.y_label.empty() ? 16 : 36);
  const Box box{left, 6, std::max(left + 20, width - 24.0),
                height - (plot.x_label.empty() ? 28.0 : 46.0)};
  const Axis x = x_axis(plot, std::max(2, static_cast<int>(box.width() / 90)));
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" role=\"img\">\n<title>{2}</title>\n",
      width, height, escape(plot.title.empty() ? "plot" : plot.title));
  write_style(svg);
  svg += "<rect class=\"lp-back\" width=\"100%\" height=\"100%\"/>\n";
  write_plot(svg, plot, x, y, box);
  return svg + "</svg>\n";
}

std::string to_text(const LinePlot& plot, int columns, int rows, bool color) {
  rows = std::max(rows, 3);
  const Axis y = y_axis(plot, std::max(2, rows / 3));
  int gutter = 1;
  for (const Tick& tick : y.ticks) gutter = std::max(gutter, width_of(tick.label) + 1);
  const int width = std::max(columns - gutter - 1, 10);
  const TextLayout layout{columns, gutter, width, x_axis(plot, std::max(2, width / 12))};
  std::string text;
  if (!plot.title.empty()) text += clean(plot.title, columns) + "\n";
  text += legend_lines(plot, columns, color);
  if (!plot.y_label.empty()) text += clean(plot.y_label, columns) + "\n";
  text += band_line(plot, layout);
  text += canvas_lines(drawn(plot, layout, y, rows), y, gutter, color);
  return text + x_axis_lines(plot, layout);
}

}  // namespace preheat
