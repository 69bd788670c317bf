// The stages of a run as backends see them: the stage of a step, and which parts of the network it
// trains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "nn/network.h"

namespace preheat {

/// The stage of a replica that has not entered one.
inline constexpr std::size_t no_stage = static_cast<std::size_t>(-1);

/// The index of the stage that contains update `step`. `stages` are in order and not empty.
std::size_t stage_at(const std::vector<TrainingStage>& stages, std::int64_t step);

/// Throws std::logic_error if the updates `step` .. `step + updates` - 1 do not lie in one stage.
void check_stage(const std::vector<TrainingStage>& stages, std::int64_t step, std::int64_t updates);

/// What a stage trains, by op of a network. Backward may stop at `lowest`.
struct TrainedOps {
  /// Everything is trained.
  explicit TrainedOps(const Network& network);

  /// The parameters marked in `trained` (by parameter) are trained. With `keep_statistics` a batch
  /// norm without a trained parameter uses its running statistics unchanged.
  TrainedOps(const Network& network, const std::vector<bool>& trained, bool keep_statistics);

  std::vector<bool> weights;           // whether its weight or its bias is trained
  std::vector<bool> fixed_statistics;  // whether its batch norm is fixed
  int lowest = 0;                      // op; one past the last if nothing is trained
};

}  // namespace preheat
