// The charts of a set of runs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/chart.h"
#include "report/report_data.h"

namespace preheat {

/// What tells runs apart and switches them on and off: each facet with its values. The first facet
/// determines the style of a run.
class Facets {
 public:
  Facets(const std::vector<std::string>& names, const std::vector<RunData>& runs);

  /// The index of the run's value in each facet, in order.
  std::vector<int> indices(const RunData& run) const;

  /// By the value of the first facet.
  Style style(const RunData& run) const;
  std::string label(const RunData& run) const;  // "warmup, seed 3"

  bool by_arm_and_seed() const;

  /// Whether the facets are arm and seed, and an arm has at least five seeds: enough for a median
  /// and a range to say more than that many lines.
  bool has_spreads() const;

  bool by_search() const { return names_.size() > 1 && names_[1] == "trained"; }
  bool by_outcome() const { return !names_.empty() && names_[0] == "outcome"; }
  const std::vector<std::string>& rows() const { return values_.at(0); }  // of the first facet

  /// For report.js: [{"name", "values": [{"label", "color", "pattern", "n"}]}]; colours and run
  /// counts only for the first facet.
  Json json() const;

 private:
  Style style_of_value(std::size_t i) const;

  std::vector<std::string> names_;
  std::vector<std::vector<std::string>> values_;
  std::vector<std::map<std::string, int>> places_;  // of the values
  std::map<std::string, std::size_t> runs_;         // by value of the first facet
};

/// What applies to all charts of the runs, each a paragraph of plain text: what is shaded and
/// marked in them, and what is left out because there are too many runs or arms.
std::vector<std::string> chart_notes(const std::vector<RunData>& runs, const Facets& facets);

/// Loss, accuracy, learning rate and norms over updates. Phases that all runs share are shaded;
/// where the ends of their warmups differ, each arm's is marked.
std::vector<Chart> curve_charts(const std::vector<RunData>& runs, const Facets& facets);

/// Sharpness over updates of the arms that recorded it, with the stability limits of their learning
/// rates; collapsed if there are many.
std::vector<Chart> sharpness_charts(const std::vector<RunData>& runs, const Facets& facets);

/// The effect of updates on each parameter, and the activations of each layer, of the runs whose
/// rows were read; of an arm with several seeds the median. Each arm's are collapsed if there are
/// more than four.
std::vector<Chart> layer_charts(const std::vector<RunData>& runs, const Facets& facets);

}  // namespace preheat
