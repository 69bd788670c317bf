// What the drawings of a LinePlot have in common: axes with their ticks, and curves as lines
// between the corners (0, 0) and (1, 1) of the plotting area.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/line_plot.h"

namespace preheat {

struct PlotAxis {
  struct Tick {
    double value;
    std::string label;
  };

  double lo = 0;
  double hi = 1;
  bool log = false;
  std::vector<Tick> ticks;

  /// 0 at the lower end, 1 at the upper.
  double at(double value) const;
};

/// The axes that hold all curves and bands, with about `wanted` ticks.
PlotAxis x_axis(const LinePlot& plot, int wanted);
PlotAxis y_axis(const LinePlot& plot, int wanted);

/// The drawn parts of a curve.
struct Trace {
  // Relative to the lower left corner of the plotting area, from 0 to 1.
  struct Point {
    double x;
    double y;
  };
  struct Mark {
    Point point;
    double x;  // of the first value that is not finite
  };
  std::vector<std::vector<Point>> lines;
  std::vector<Mark> marks;
};

/// A plotting area `pixels` wide decides which points of a long curve are left out.
Trace trace(const Curve& curve, const PlotAxis& x, const PlotAxis& y, double pixels);

/// The first curve of each label and colour.
std::vector<const Curve*> legend_of(const LinePlot& plot);

/// The bands whose ends are finite: others cannot be drawn.
std::vector<const Band*> bands_of(const LinePlot& plot);

/// An index into `count` colours or dashes.
inline std::size_t cyclic(int color, std::size_t count) {
  return static_cast<std::size_t>(static_cast<unsigned>(color)) % count;
}

}  // namespace preheat
