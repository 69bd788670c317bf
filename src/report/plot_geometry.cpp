#include "report/plot_geometry.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>

namespace preheat {
namespace {

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
std::vector<PlotAxis::Tick> linear_ticks(double lo, double hi, int wanted) {
  const double step = nice_step(hi - lo, wanted);
  const double largest = std::max(std::abs(lo), std::abs(hi));
  const int step_exponent = exponent_of(step * (1 + 1e-9));
  const bool scientific = largest < 2e-3 || largest >= 1e7;
  const int digits =
      scientific ? std::max(0, exponent_of(largest) - step_exponent) : std::max(0, -step_exponent);
  const double first = std::ceil(lo / step - 1e-9);
  std::vector<PlotAxis::Tick> ticks;
  for (int i = 0; (first + i) * step <= hi + 1e-9 * step && i <= 2 * wanted + 2; ++i) {
    const double value = (first + i) * step;
    ticks.push_back({value, first + i == 0 ? "0"
                            : scientific   ? fmt::format("{:.{}e}", value, digits)
                                           : fmt::format("{:.{}f}", value, digits)});
  }
  return ticks;
}

std::vector<PlotAxis::Tick> log_ticks(double lo, double hi, int wanted) {
  const int first = exponent_of(lo);
  const int last = exponent_of(hi);
  const auto multiples = [&](std::initializer_list<int> factors, int stride) {
    std::vector<PlotAxis::Tick> ticks;
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

// Keeps the first, lowest, highest and last of the points that share a pixel column.
std::vector<Trace::Point> thin(const std::vector<Trace::Point>& line, double pixels) {
  std::vector<Trace::Point> kept;
  for (std::size_t begin = 0; begin < line.size();) {
    const double column = std::floor(line[begin].x * pixels);
    std::size_t end = begin + 1;
    while (end < line.size() && std::floor(line[end].x * pixels) == column) ++end;
    std::array<std::size_t, 4> keep{begin, begin, begin, end - 1};
    for (std::size_t i = begin; i < end; ++i) {
      if (line[i].y < line[keep[1]].y) keep[1] = i;
      if (line[i].y > line[keep[2]].y) keep[2] = i;
    }
    std::ranges::sort(keep);
    const auto* const last = std::unique(keep.begin(), keep.end());
    for (const auto* i = keep.begin(); i != last; ++i) kept.push_back(line[*i]);
    begin = end;
  }
  return kept;
}

}  // namespace

double PlotAxis::at(double value) const {
  const double v = log ? (std::log(value) - std::log(lo)) / (std::log(hi) - std::log(lo))
                       : (value - lo) / (hi - lo);
  return std::clamp(v, 0.0, 1.0);
}

std::vector<const Band*> bands_of(const LinePlot& plot) {
  std::vector<const Band*> bands;
  for (const Band& band : plot.bands) {
    if (std::isfinite(band.from) && std::isfinite(band.to)) bands.push_back(&band);
  }
  return bands;
}

PlotAxis x_axis(const LinePlot& plot, int wanted) {
  Extent extent;
  for (const Curve& curve : plot.curves) {
    for (std::size_t i = 0; i < points(curve); ++i) {
      if (std::isfinite(curve.x[i])) extent.add(curve.x[i]);
    }
  }
  for (const Band* band : bands_of(plot)) {
    extent.add(band->from);
    extent.add(band->to);
  }
  PlotAxis axis;
  if (!extent.empty()) {
    const double margin = extent.constant() ? std::max(1.0, std::abs(extent.lo)) / 2 : 0;
    axis.lo = extent.lo - margin;
    axis.hi = extent.hi + margin;
  }
  axis.ticks = linear_ticks(axis.lo, axis.hi, wanted);
  return axis;
}

PlotAxis y_axis(const LinePlot& plot, int wanted) {
  Extent extent;
  for (const Curve& curve : plot.curves) {
    for (std::size_t i = 0; i < points(curve); ++i) {
      const double y = curve.y[i];
      if (std::isfinite(y) && (!plot.log_y || y > 0)) extent.add(y);
    }
  }
  PlotAxis axis;
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

Trace trace(const Curve& curve, const PlotAxis& x, const PlotAxis& y, double pixels) {
  constexpr std::size_t max_points = 2000;
  Trace result;
  std::vector<Trace::Point> line;
  Trace::Point last{0, 1};
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
      if (!lost) {
        result.marks.push_back({drawn ? last : Trace::Point{x.at(curve.x[i]), 1}, curve.x[i]});
      }
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
    const bool known = std::ranges::any_of(legend, [&](const Curve* other) {
      return other->label == curve.label && other->color == curve.color;
    });
    if (!curve.label.empty() && !known) legend.push_back(&curve);
  }
  return legend;
}

}  // namespace preheat
