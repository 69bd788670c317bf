// The charts of a set of runs. There must be a run.
#pragma once

#include <string>
#include <vector>

#include "report/chart.h"
#include "report/facets.h"
#include "report/phase_marks.h"
#include "report/report_data.h"

namespace preheat {

/// The most runs with a line of their own in the chart of gradient norms.
inline constexpr std::size_t max_runs_with_norms = 24;

/// Whether that chart has lines at all: those of so few runs, or the medians of arms.
inline bool has_norms(const std::vector<RunData>& runs, const Facets& facets) {
  return runs.size() <= max_runs_with_norms || facets.by_arm_and_seed();
}

/// The most arms (or cells, or single runs) with a chart of the sharpness.
inline constexpr std::size_t max_sharpness_arms = 24;

/// Whether the run recorded it.
bool has_sharpness(const RunData& run);

/// What applies to all charts of the runs, each a paragraph of plain text: what is shaded and
/// marked in them, what is left out because there are too many runs or arms, and what is missing
/// because metrics.csv has fewer rows than the run did updates.
std::vector<std::string> chart_notes(const std::vector<RunData>& runs, const Facets& facets,
                                     const PhaseMarks& phases);

/// What the charts of the gradient noise scale show.
inline constexpr const char* noise_scale_caption =
    "The batch size at which the gradient's noise is as large as its signal. Without a signal "
    "there "
    "is no value; a median ends, ✕, where half of the seeds have none any more.";

/// Loss, accuracy, learning rate, norms and gradient noise scale; those over updates with the marks
/// of `phases`.
std::vector<Chart> curve_charts(const std::vector<RunData>& runs, const Facets& facets,
                                const PhaseMarks& phases);

/// Sharpness over updates of the arms that recorded it, with the stability limits of their learning
/// rates; collapsed if there are many.
std::vector<Chart> sharpness_charts(const std::vector<RunData>& runs, const Facets& facets);

/// The effect of updates on each parameter, the activations of each layer and how far an update
/// moves them, and the gradient noise scale of each parameter, of the runs whose rows were read; of
/// an arm with several seeds the median. Each arm's are collapsed if there are more than four.
std::vector<Chart> layer_charts(const std::vector<RunData>& runs, const Facets& facets);

}  // namespace preheat
