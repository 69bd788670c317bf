// The phases of the schedule in charts over updates: shaded where runs share them, and marked where
// the ends of their warmups differ.
#pragma once

#include <string>
#include <vector>

#include "report/chart.h"
#include "report/facets.h"
#include "report/report_data.h"

namespace preheat {

/// Updates from `from` up to, but not including, `to`.
struct PhaseBand {
  std::string name;
  double from = 0;
  double to = 0;
};

/// The updates at which all runs, as far as each goes, are in the same phase. There must be a run.
std::vector<PhaseBand> shared_phases(const std::vector<const RunData*>& runs);

void shade(Chart& chart, const std::vector<PhaseBand>& phases);

/// What the charts of curves show; there must be a run.
class PhaseMarks {
 public:
  PhaseMarks(const std::vector<RunData>& runs, const Facets& facets);

  /// Shades the shared phases, and marks each arm's end of warmup if they differ.
  void draw(Chart& chart) const;

  /// Plain text that says what is shaded and marked; "" if one run explains itself.
  std::string note() const;

 private:
  // The end of the warmup of the runs of an arm, or of a cell's kind.
  struct WarmupEnd {
    std::string arm;  // "" in a grid, whose many cells have few lengths of warmup
    double at = 0;    // updates before it
    Style style;
    std::vector<int> facets;
  };

  static std::vector<WarmupEnd> warmup_ends(const std::vector<RunData>& runs, const Facets& facets);
  std::string words_for_ends() const;

  bool is_one_run_;
  std::vector<PhaseBand> shared_;
  std::vector<WarmupEnd> ends_;  // empty unless runs differ in it
};

}  // namespace preheat
