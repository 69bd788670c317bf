#include "report/run_charts.h"

#include <fmt/format.h>

#include <vector>

#include "config/counted.h"

namespace preheat {
namespace {

// A file that was cut off at the end of a row looks whole, and so does a chart of it.
std::string note_on_lost_rows(const std::vector<RunData>& runs, const Facets& facets) {
  constexpr std::size_t most_named = 12;
  std::vector<std::string> left;
  for (const RunData& run : runs) {
    if (run.updates >= run.updates_done.value_or(0)) continue;
    left.push_back(fmt::format("{}{} of {}", runs.size() == 1 ? "" : facets.label(run) + ": ",
                               run.updates, counted(*run.updates_done, "update")));
  }
  if (left.empty()) return "";
  if (left.size() > most_named) {
    const std::size_t more = left.size() - most_named;
    left.resize(most_named);
    left.push_back("and " + counted(more, "run") + " more");
  }
  return fmt::format("Rows of metrics.csv are lost, and missing in the charts. What is left: {}.",
                     fmt::join(left, "; "));
}

}  // namespace

std::vector<std::string> chart_notes(const std::vector<RunData>& runs, const Facets& facets,
                                     const PhaseMarks& phases) {
  const auto limited = [&](const char* what, std::size_t most,
                           bool (*has)(const RunData&)) -> std::string {
    const std::size_t all = by_arm(runs, facets, has).size();
    if (all <= most) return "";
    const char* arms = facets.by_outcome() ? "cells" : runs.front().arm.empty() ? "runs" : "arms";
    return fmt::format("{}: {} of {} {}, the first.", what, most, all, arms);
  };
  std::vector<std::string> notes = {note_on_lost_rows(runs, facets), phases.note()};
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
