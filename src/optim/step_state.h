// The state of a step, and how it moves. Everything that varies from one update to the next is in
// here, so that a captured graph can be replayed with constant arguments.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "schedule/lr_schedule.h"

namespace preheat {

struct StepState {
  std::int64_t step = 0;               // updates completed
  std::int64_t first_non_finite = -1;  // the step that met a loss, gradient or weight not finite
  std::int64_t gate_opened_at = -1;    // as lr_at takes it
  float lr = 0;           // of update `step`: lr_at(schedule, step, gate_opened_at), rounded once
  float previous_lr = 0;  // of the update before it; 0 before the first
  // Training examples classified rightly in each of the gate's last `window` updates, update u at
  // u % window, and in all of them.
  std::int64_t window_hits = 0;
  std::uint32_t hits[max_gate_window] = {};
  float loss_scale = 1;  // of the loss before backward: gradients in fp16 would underflow
  std::int32_t updates_at_scale = 0;  // since it last changed
};

/// The state before the first update.
PREHEAT_HD inline StepState first_step(const LrSchedule& schedule) {
  StepState state;
  state.lr = static_cast<float>(lr_at(schedule, 0));
  return state;
}

/// Whether the update in progress is to be applied. From the first step on that met a value which
/// is not finite, nothing is written any more: what blew up stays there to be looked at.
PREHEAT_HD inline bool updates(const StepState& state) {
  return state.first_non_finite < 0;
}

/// Takes the hits of the update in progress into the gate's window and opens the gate where they
/// are enough: not before the run has had a window of updates, and not once the warmup has ended
/// without it. What the window did not see, under a schedule taken up later, counts as wrong.
PREHEAT_HD inline void watch_gate(StepState& state, const LrSchedule& schedule,
                                  std::int64_t correct) {
  const Gate& gate = schedule.gate;
  if (gate.window == 0 || state.gate_opened_at >= 0) return;
  const std::int64_t done = state.step + 1;
  if (done >= schedule.phases[0].length) return;
  std::uint32_t& oldest = state.hits[state.step % gate.window];
  state.window_hits += correct - static_cast<std::int64_t>(oldest);
  oldest = static_cast<std::uint32_t>(correct);
  if (done >= gate.window && state.window_hits > gate.hits_above) state.gate_opened_at = done;
}

/// Ends a step, `correct` of whose examples were classified rightly: either counts it and takes the
/// next learning rate, or marks it as the one that was not finite and stays there for good.
PREHEAT_HD inline void advance(StepState& state, const LrSchedule& schedule, bool finite,
                               std::int64_t correct) {
  if (!updates(state)) return;
  if (!finite) {
    state.first_non_finite = state.step;
    return;
  }
  watch_gate(state, schedule, correct);
  ++state.step;
  state.previous_lr = state.lr;
  state.lr = static_cast<float>(lr_at(schedule, state.step, state.gate_opened_at));
}

inline constexpr float initial_loss_scale = 65536;
inline constexpr float most_loss_scale = 16777216;
inline constexpr std::int32_t updates_until_doubled = 2000;

/// Dynamic loss scaling (Micikevicius et al. 2018, "Mixed precision training", section 3.2): halved
/// after a step whose gradients overflowed, doubled after 2000 in a row that did not.
PREHEAT_HD inline void move_loss_scale(StepState& state, bool overflowed) {
  if (overflowed) {
    state.loss_scale = state.loss_scale > 1 ? state.loss_scale / 2 : 1;
    state.updates_at_scale = 0;
  } else if (++state.updates_at_scale >= updates_until_doubled) {
    state.loss_scale = state.loss_scale < most_loss_scale ? state.loss_scale * 2 : most_loss_scale;
    state.updates_at_scale = 0;
  }
}

}  // namespace preheat
