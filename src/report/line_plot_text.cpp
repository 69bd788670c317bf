#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "report/label_text.h"
#include "report/line_plot.h"
#include "report/plot_geometry.h"

namespace preheat {
namespace {

constexpr std::array<const char*, 6> ansi_colors{"\x1b[36m", "\x1b[33m", "\x1b[32m",
                                                 "\x1b[35m", "\x1b[34m", "\x1b[31m"};
constexpr const char* ansi_reset = "\x1b[0m";
// The first arm is drawn in braille, which has the finest resolution, the others with these.
constexpr std::array<const char*, 5> glyphs{"o", "+", "*", "#", "@"};

const char* ansi_color(int color) {
  return ansi_colors[cyclic(color, ansi_colors.size())];
}

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

  void line(Trace::Point from, Trace::Point to, int color) {
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

  void mark(Trace::Point point, int color) {
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
    const char* painted = nullptr;
    for (int column = 0; column < columns_; ++column) {
      const Cell& cell = at(column, row);
      const bool drawn = cell.marked || cell.dots != 0;
      const char* const paint = color && drawn ? ansi_color(cell.color) : nullptr;
      if (paint != painted) text += paint ? paint : ansi_reset;
      painted = paint;
      if (cell.marked) {
        text += "×";
      } else if (!drawn) {
        text += cell.guide ? "┊" : " ";
      } else {
        text += color || cell.color == 0 ? braille(cell.dots) : glyph(cell.color);
      }
    }
    return painted ? text + ansi_reset : text;
  }

 private:
  struct Cell {
    unsigned dots = 0;
    int color = 0;
    bool marked = false;
    bool guide = false;
  };

  double dot_x(Trace::Point point) const { return point.x * (2 * columns_ - 1); }
  double dot_y(Trace::Point point) const { return (1 - point.y) * (4 * rows_ - 1); }

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
  PlotAxis x;

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
      text += fmt::format("{}⠶⠶{} ", ansi_color(curve->color), ansi_reset);
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
  for (const Band* band : bands_of(plot)) {
    any_band = true;
    const int column = layout.column_of(band->from);
    line.put(column, "┊" + std::string(static_cast<std::size_t>(layout.columns), ' '));
    line.put(column + 1, band->label);
  }
  return any_band ? line.text() : "";
}

// The curves, all marks above them, and a guide where a band begins.
Canvas drawn(const LinePlot& plot, const TextLayout& layout, const PlotAxis& y, int rows) {
  Canvas canvas(layout.width, rows);
  for (const Band* band : bands_of(plot)) {
    if (layout.column_of(band->from) > layout.left()) canvas.guide(layout.x.at(band->from));
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
    for (const Trace::Mark& mark : traces[i].marks) canvas.mark(mark.point, plot.curves[i].color);
  }
  return canvas;
}

// The rows of the canvas, to the right of the y axis and its labels.
std::string canvas_lines(const Canvas& canvas, const PlotAxis& y, int gutter, bool color) {
  std::vector<std::string> labels(static_cast<std::size_t>(canvas.rows()));
  for (const PlotAxis::Tick& tick : y.ticks) {
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
  for (const PlotAxis::Tick& tick : layout.x.ticks) {
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

std::string to_text(const LinePlot& plot, int columns, int rows, bool color) {
  rows = std::max(rows, 3);
  const PlotAxis y = y_axis(plot, std::max(2, rows / 3));
  int gutter = 1;
  for (const PlotAxis::Tick& tick : y.ticks) gutter = std::max(gutter, width_of(tick.label) + 1);
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
