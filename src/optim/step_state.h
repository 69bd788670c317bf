// The state of a step, and how it moves. Everything that varies from one update to the next is in
// here, so that a captured graph can be replayed with constant arguments.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace preheat {

struct StepState {
  std::int64_t step = 0;  // updates completed
  std::int64_t first_non_finite =
      -1;        // the step at which a loss, gradient or weight was not finite
  float lr = 0;  // of update `step`: lr_at(schedule, step), rounded once
};

/// Whether the update in progress is to be applied. From the first step on that met a value which
/// is not finite, nothing is written any more: what blew up stays there to be looked at.
PREHEAT_HD inline bool updates(const StepState& state) {
  return state.first_non_finite < 0;
}

/// Ends a step: either counts it and takes the next learning rate, or marks it as the one that was
/// not finite and stays there for good.
PREHEAT_HD inline void advance(StepState& state, bool finite, double next_lr) {
  if (!updates(state)) return;
  if (!finite) {
    state.first_non_finite = state.step;
    return;
  }
  ++state.step;
  state.lr = static_cast<float>(next_lr);
}

}  // namespace preheat
