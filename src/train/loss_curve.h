// The test loss of a run over its training loss: what tells a gap in generalisation from one in
// optimisation.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "train/run_files.h"

namespace preheat {

/// A run with fewer evaluations has no curve worth drawing or comparing.
inline constexpr std::size_t min_curve_evaluations = 3;

/// One entry per evaluation, in their order: after `step` updates, the test loss and the running
/// training loss, which is the mean over the last 50 updates so far, at most a quarter of them
/// (LossHistory): of the batches as they were trained on, and of weights up to that many updates
/// older than those evaluated. It need not fall from one entry to the next.
struct LossCurve {
  std::vector<double> step;
  std::vector<double> train;
  std::vector<double> test;
};

/// The curve of one run. It ends before the first evaluation whose loss is not finite, or that has
/// such a training loss before it.
LossCurve loss_curve(const Metrics& metrics, const Evaluations& evaluations);

/// The test loss where the running training loss is first at or below `train`, with straight lines
/// between evaluations; later crossings do not count. std::nullopt if it never is, or if it is
/// below `train` from the first evaluation on.
std::optional<double> test_loss_at(const LossCurve& curve, double train);

/// The test loss of `a` minus that of `b`, both by test_loss_at() at the smallest running training
/// loss that both reach: the larger of the two curves' smallest. std::nullopt where one of them is,
/// and if a curve has fewer than min_curve_evaluations.
std::optional<double> test_loss_difference(const LossCurve& a, const LossCurve& b);

}  // namespace preheat
