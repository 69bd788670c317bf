// The stages of a run as backends see them: which one a step lies in, and what of the network is in
// training there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "nn/network.h"

namespace preheat {

/// No stage: of a replica that has not entered one.
inline constexpr std::size_t no_stage = static_cast<std::size_t>(-1);

/// The index of the stage that update `step` lies in. `stages` are in order and not empty.
std::size_t stage_at(const std::vector<TrainingStage>& stages, std::int64_t step);

/// Throws std::logic_error where an update of `step` .. `step + updates` - 1 lies in another stage.
void check_stage(const std::vector<TrainingStage>& stages, std::int64_t step, std::int64_t updates);

/// What is in training, by op of a network. Backward need go no further down than `lowest`.
struct InTraining {
  /// All of it.
  explicit InTraining(const Network& network);

  /// The parameters that are `trained`, by parameter. With `keep_statistics` a batch norm neither
  /// of whose parameters is among them uses its running statistics, and leaves them.
  InTraining(const Network& network, const std::vector<bool>& trained, bool keep_statistics);

  std::vector<bool> weights;           // the weight or the bias of a convolution or a matrix
  std::vector<bool> fixed_statistics;  // of a batch norm
  int lowest = 0;                      // op; one behind the last where nothing is
};

}  // namespace preheat
