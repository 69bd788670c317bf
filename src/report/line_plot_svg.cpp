#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string_view>

#include "report/label_text.h"
#include "report/line_plot.h"
#include "report/plot_geometry.h"

namespace preheat {
namespace {

// Okabe and Ito's colours, distinguishable with any colour vision; those with the most contrast to
// the background come first.
constexpr std::array<const char*, 7> light_palette{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                   "#e69f00", "#56b4e9", "#000000"};
constexpr std::array<const char*, 7> dark_palette{"#56b4e9", "#e69f00", "#009e73", "#cc79a7",
                                                  "#d55e00", "#f0e442", "#ffffff"};
constexpr std::array<const char*, 5> dashes{"", "7 3", "2 2.5", "9 3 2 3", "14 4"};

std::size_t palette_index(int color) {
  return cyclic(color, light_palette.size());
}

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
  const std::size_t color = palette_index(curve.color);
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
    for (const Trace::Point& point : line) {
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
  for (const Trace::Mark& mark : trace.marks) {
    const std::string cross = fmt::format("M{:.2f} {:.2f}l8 8m0 -8l-8 8", box.x(mark.point.x) - 4,
                                          box.y(mark.point.y) - 4);
    fmt::format_to(std::back_inserter(svg),
                   "<g><title>{}{}not finite at {:g}</title><path class=\"lp-halo\" d=\"{}\"/>"
                   "<path class=\"lp-mark lp-c{}\" d=\"{}\"/></g>\n",
                   escape(curve.label), curve.label.empty() ? "" : ": ", mark.x, cross,
                   palette_index(curve.color), cross);
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
                   palette_index(curve->color), dash_attribute(curve->color), x, top + 10, swatch);
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
std::vector<BandLabel> place_band_labels(const LinePlot& plot, const PlotAxis& x, const Box& box) {
  constexpr std::size_t max_rows = 3;
  std::vector<double> row_ends;
  std::vector<BandLabel> labels;
  for (const Band* band : bands_of(plot)) {
    if (band->label.empty()) continue;
    const double width = character_width * width_of(band->label);
    const double start = std::max(box.left, std::min(box.x(x.at(band->from)), box.right - width));
    auto row = std::ranges::find_if(row_ends, [&](double end) { return end + 8 <= start; });
    if (row == row_ends.end()) {
      if (row_ends.size() == max_rows) continue;  // the band still has its tooltip
      row = row_ends.insert(row_ends.end(), 0);
    }
    *row = start + width;
    labels.push_back({start, static_cast<int>(row - row_ends.begin()), band->label});
  }
  return labels;
}

// Writes the title, the legend and the labels of the bands; returns the y below them.
double write_head(std::string& svg, const LinePlot& plot, const PlotAxis& x, const Box& box) {
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

void write_bands(std::string& svg, const LinePlot& plot, const PlotAxis& x, const Box& box) {
  int index = 0;
  for (const Band* band : bands_of(plot)) {
    const double left = box.x(x.at(band->from));
    fmt::format_to(std::back_inserter(svg),
                   "<rect class=\"lp-band{}\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
                   "height=\"{:.2f}\"><title>{}</title></rect>\n",
                   index++ % 2 == 0 ? " lp-odd" : "", left, box.top,
                   std::max(0.0, box.x(x.at(band->to)) - left), box.height(), escape(band->label));
  }
}

void write_axes(std::string& svg, const PlotAxis& x, const PlotAxis& y, const Box& box) {
  const auto out = std::back_inserter(svg);
  for (const PlotAxis::Tick& tick : y.ticks) {
    const double at = box.y(y.at(tick.value));
    fmt::format_to(out, "<path class=\"lp-grid\" d=\"M{:.2f} {:.2f}H{:.2f}\"/>\n", box.left, at,
                   box.right);
    write_text(svg, box.left - 8, at + 4, "end", "lp-soft", tick.label);
  }
  for (const PlotAxis::Tick& tick : x.ticks) {
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

void write_plot(std::string& svg, const LinePlot& plot, const PlotAxis& x, const PlotAxis& y,
                Box box) {
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

}  // namespace

std::string to_svg(const LinePlot& plot, int width, int height) {
  const PlotAxis y = y_axis(plot, std::max(2, (height - 90) / 40));
  double labels = 0;
  for (const PlotAxis::Tick& tick : y.ticks) {
    labels = std::max(labels, character_width * width_of(tick.label));
  }
  const double left = labels + (plot.y_label.empty() ? 16 : 36);
  const Box box{left, 6, std::max(left + 20, width - 24.0),
                height - (plot.x_label.empty() ? 28.0 : 46.0)};
  const PlotAxis x = x_axis(plot, std::max(2, static_cast<int>(box.width() / 90)));
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" role=\"img\">\n<title>{2}</title>\n",
      width, height, escape(plot.title.empty() ? "plot" : plot.title));
  write_style(svg);
  svg += "<rect class=\"lp-back\" width=\"100%\" height=\"100%\"/>\n";
  write_plot(svg, plot, x, y, box);
  return svg + "</svg>\n";
}

}  // namespace preheat
