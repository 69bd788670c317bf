// A chart of a page: what report.js draws, and the table of its numbers.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "experiment/statistics.h"
#include "report/html.h"
#include "report/series.h"

namespace preheat {

/// The look of a series. Colours are names of variables in report.css; dashes and, for points
/// without lines, shapes differ with `pattern` too, so that nobody depends on colours.
struct Style {
  // c0 .. c6, ok, spiked, stuck, non_finite, soft, ink; "depth:0.5" is a position between the first
  // and the last layer, "order:0.5" one between the least and the largest of some values.
  std::string color = "c0";
  int pattern = 0;
};

/// The style of the i-th item of a list.
Style style_of(std::size_t i);

class Chart {
 public:
  enum class Kind {
    raw,     // all values or their extremes, thin
    mean,    // strong
    line,    // with points
    median,  // strong, with a band
    dots,
    limit,  // a threshold: dashed, without facts in the table
  };

  /// All arguments are plain text. `x` and `y` name the axes.
  Chart(std::string title, std::string x, std::string y);

  Chart& log_y();
  Chart& log_x();
  /// x is measured as y is: lines go from point to point in their order, to the left too.
  Chart& path();
  /// The initial upper end of the y axis, if there are larger values.
  Chart& cap_y(double most);
  /// The least range that an axis shows.
  Chart& span_x(double least, double largest);
  Chart& span_y(double least, double largest);
  /// Names for the integer values 0, 1, ... of y.
  Chart& rows(const std::vector<std::string>& names);
  Chart& band(const std::string& name, double from, double to);
  /// A vertical line; `facets` as of a series.
  Chart& mark(const std::string& label, const Style& style, double at,
              const std::vector<int>& facets);
  /// Gives the chart its own legend, for series that the section's facets do not tell apart.
  Chart& legend();
  Chart& caption(const std::string& text);
  /// Puts the chart, with its neighbours of the same `summary`, into a part of the section that is
  /// collapsed by default.
  Chart& fold(std::string summary);
  /// Replaces the facts of the series.
  Chart& numbers(std::string html);

  /// `facets` has one entry per facet of the section: the index of the run's value, or -1 if it has
  /// none of its own. Empty for a series that is always shown.
  void add(const std::string& label, Kind kind, const Style& style, const Points& points,
           const std::vector<int>& facets = {});
  /// The same with its means and a row in the table.
  void add(const std::string& label, const Style& style, const Series& series,
           const std::vector<int>& facets = {}, Kind kind = Kind::raw);

  /// The seeds of an arm as one line, their median, and a band from the least to the largest: about
  /// `most` points of each are drawn, and the row in the table is of all.
  void add(const std::string& label, const Style& style, const SeedSpread& spread, std::size_t most,
           const std::vector<int>& facets);

  /// A dot at x in a row, with a bar over its interval; for a chart with rows.
  void add(const std::string& label, const Style& style, double x, std::size_t row,
           const Interval& bar);

  bool empty() const { return json_.at("series").empty(); }
  const std::string& folded_under() const { return fold_; }  // ""; not folded
  const Json& json() const { return json_; }

  /// The HTML figure; `index` is the chart's index in its section.
  std::string figure(std::size_t index) const;

 private:
  Json json_;
  std::string caption_;
  std::string numbers_;
  std::string fold_;
  std::vector<std::vector<Cell>> facts_;
};

}  // namespace preheat
