#include "report/run_charts.h"

#include <fmt/format.h>

#include <vector>

namespace preheat {

std::vector<std::string> chart_notes(const std::vector<RunData>& runs, const Facets& facets,
                                     const PhaseMarks& phases) {
  const auto limited = [&](const char* what, std::size_t most,
                           bool (*has)(const RunData&)) -> std::string {
    const std::size_t all = by_arm(runs, facets, has).size();
    if (all <= most) return "";
    const char* arms = facets.by_outcome() ? "cells" : runs.front().arm.empty() ? "runs" : "arms";
    return fmt::format("{}: {} of {} {}, the first.", what, most, all, arms);
  };
  std::vector<std::string> notes = {phases.note()};
  if (!has_norms(runs, facets)) {
    notes.push_back(fmt::format(
        "Norms of the gradient have no chart, as there are more than {} runs; each run's "
        "metrics.csv has them.",
        max_runs_with_norms));
  }
  notes.push_back(limited("Sharpness", max_sharpness_arms, has_sharpness));
  notes.push_back(
      limited("Layers", max_layer_arms, [](const RunData& run) { return run.has_layers; }));
  std::erase(notes, "");
  return notes;
}

}  // namespace preheat
