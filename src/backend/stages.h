// The stages of a run as backends see them: the stage of a step, which updates may be done at once,
// and which parts of the network a stage trains.
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

/// Throws std::logic_error unless the updates `step` .. `step + updates` - 1 lie in one stage and
/// in the epoch `ordered_epoch`, whose order is known (-1: none).
void check_updates(const std::vector<TrainingStage>& stages, std::int64_t steps_per_epoch,
                   std::int64_t ordered_epoch, std::int64_t step, std::int64_t updates);

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
