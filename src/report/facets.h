// What tells the runs of a page apart: arms, seeds, the values of a grid.
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

/// What the runs of one line share: a value in which they differ does not switch it off.
void merge_facets(std::vector<int>& facets, const std::vector<int>& of_other);

/// The runs of an arm, in order.
struct RunGroup {
  std::string name;  // of the arm; of a run without one the label, "" if it is the only run
  std::vector<const RunData*> runs;
};

/// The runs for which `has` holds, by arm; a run without an arm is its own group.
std::vector<RunGroup> by_arm(const std::vector<RunData>& runs, const Facets& facets,
                             bool (*has)(const RunData&));

}  // namespace preheat
