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
  // By op: the slots that hold the gradient of its output. The reader of the output that runs first
  // in backward, i.e. the last one in forward, writes the first.
  std::vector<int> first;
  std::vector<int> second;  // -1 if only one op reads the output
  // By op: the slots that it writes its share of the gradients of what it reads to; -1 if there is
  // nothing to write (the images have no gradient).
  std::vector<int> to_input;
  std::vector<int> to_residual;
  std::vector<std::int64_t> slot_sizes;  // in elements per example
};

GradientPlan plan_gradients(const Network& network);

}  // namespace preheat
