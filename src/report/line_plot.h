// Curves over updates, as SVG for a page and as characters for a terminal.
#pragma once

#include <string>
#include <vector>

namespace preheat {

/// A line through (x[i], y[i]); the longer array is truncated. A y that is not finite breaks the
/// line, and an x-shaped mark is drawn at the last finite point before it.
struct Curve {
  std::string label;  // curves of one label and colour share a legend entry; "" has none
  std::vector<double> x;
  std::vector<double> y;
  int color = 0;  // index of an arm: selects colour and dashes
};

/// A named range of the x axis: a phase of the schedule.
struct Band {
  double from = 0;
  double to = 0;
  std::string label;
};

struct LinePlot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_y = false;  // values <= 0 are left out
  std::vector<Curve> curves;
  std::vector<Band> bands;
};

/// A self-contained SVG of `width` x `height` pixels that follows the reader's light or dark theme.
/// Curves of more than 2000 points are thinned to the extremes of every pixel column.
std::string to_svg(const LinePlot& plot, int width = 880, int height = 420);

/// The plot as lines of UTF-8 text, `columns` characters wide, with `rows` lines for the curves.
/// Arms differ by ANSI colours if `color`, else by the character that draws them.
std::string to_text(const LinePlot& plot, int columns = 80, int rows = 16, bool color = false);

}  // namespace preheat
