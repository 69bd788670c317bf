// The charts of runs that are looked at together.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/chart.h"
#include "report/report_data.h"

namespace preheat {

/// What runs can be told apart by, and switched on and off by: each facet with the values it has.
/// The first decides what a run looks like.
class Facets {
 public:
  Facets(const std::vector<std::string>& names, const std::vector<RunData>& runs);

  /// Which of its values the run has, of each facet in turn.
  std::vector<int> indices(const RunData& run) const;

  /// By the value of the first facet.
  Style style(const RunData& run) const;
  std::string label(const RunData& run) const;  // "warmup, seed 3"

  /// Whether runs are told apart by arm and seed, and an arm has five seeds or more: enough for a
  /// median and a range to say more than so many lines.
  bool has_spreads() const;

  bool by_search() const { return names_.size() > 1 && names_[1] == "trained"; }
  bool by_outcome() const { return !names_.empty() && names_[0] == "outcome"; }
  const std::vector<std::string>& rows() const { return values_.at(0); }  // of the first facet

  /// For report.js: [{"name", "values": [{"label", "color", "pattern", "n"}]}]; colours and numbers
  /// of runs of the first only.
  Json json() const;

 private:
  Style style_of_value(std::size_t i) const;

  std::vector<std::string> names_;
  std::vector<std::vector<std::string>> values_;
  std::map<std::string, std::size_t> runs_;  // of each value of the first facet
};

/// Loss, accuracy, learning rate and norms over updates. The phases of a single run are shaded.
std::vector<Chart> curve_charts(const std::vector<RunData>& runs, const Facets& facets);

/// Sharpness over updates of every arm that has any, with what the learning rate can take.
std::vector<Chart> sharpness_charts(const std::vector<RunData>& runs, const Facets& facets);

/// What updates did to each parameter, and the activations of each layer, of the runs whose rows
/// were read: of an arm with several seeds their median.
std::vector<Chart> layer_charts(const std::vector<RunData>& runs, const Facets& facets);

}  // namespace preheat
