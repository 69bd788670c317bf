// Where the gradients of activations lie while backward runs.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/network.h"

namespace preheat {

/// Which buffer holds the gradient of each op's output while backward runs. An op's output feeds at
/// most two others (a block's convolution and its shortcut); each writes a buffer of its own, and
/// whoever reads the gradient adds them. Buffers are used again as soon as they have been read.
struct GradientPlan {
  std::vector<int> first;                // slot by op
  std::vector<int> second;               // -1 where only one op reads the output
  std::vector<std::int64_t> slot_sizes;  // in numbers per example

  /// Where `reader` writes its share of the gradient of the output of `op` (-1: the images, which
  /// have none): the first to run in backward, which is the last reader, has the first slot. -1
  /// where there is nothing to write.
  int target(const Network& network, int op, int reader, bool as_residual) const;
};

GradientPlan plan_gradients(const Network& network);

}  // namespace preheat
