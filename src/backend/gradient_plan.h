// Buffers for the gradients of activations during backward.
#pragma once

#include <cstdint>
#include <vector>

#include "nn/network.h"

namespace preheat {

/// Which buffer holds the gradient of each op's output during backward. An op's output feeds at
/// most two others (a block's convolution and its shortcut); each writes its own buffer, and the
/// reader of the gradient adds them. Buffers are reused as soon as they have been read.
struct GradientPlan {
  std::vector<int> first;                // slot by op
  std::vector<int> second;               // -1 if only one op reads the output
  std::vector<std::int64_t> slot_sizes;  // in elements per example

  /// Slot that `reader` writes its share of the gradient of `op`'s output to; -1 if there is
  /// nothing to write (`op` -1 stands for the images, which have no gradient). The reader that runs
  /// first in backward, i.e. the last one in forward, has the first slot.
  int target(const Network& network, int op, int reader, bool as_residual) const;
};

GradientPlan plan_gradients(const Network& network);

}  // namespace preheat
