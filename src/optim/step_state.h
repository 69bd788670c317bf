// The state that varies from one update to the next, and its transition. It is all in one struct,
// so that a captured CUDA graph can be replayed with constant kernel arguments.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "schedule/lr_schedule.h"

namespace preheat {

struct StepState {
  std::int64_t step = 0;               // updates completed
  std::int64_t first_non_finite = -1;  // first step with a non-finite loss, gradient or weight
  std::int64_t gate_opened_at = -1;    // as in lr_at
  float lr = 0;           // of update `step`: lr_at(schedule, step, gate_opened_at), rounded once
  float previous_lr = 0;  // of the last update that was applied; 0 before the first
  // Correctly classified training examples: in each of the gate's last `window` updates, as a ring
  // buffer with update u at u % window, and their sum.
  std::int64_t window_correct = 0;
  std::uint32_t hits[max_gate_window] = {};
  float loss_scale = 1;  // multiplies the loss before backward: fp16 gradients would underflow
  std::int32_t updates_at_scale = 0;  // since the loss scale was last changed
};

/// The state before the first update.
PREHEAT_HD inline StepState first_step(const LrSchedule& schedule) {
  StepState state;
  state.lr = static_cast<float>(lr_at(schedule, 0));
  return state;
}

/// Whether the update in progress is applied. From the first non-finite step on, nothing is written
/// any more, so that the state at the failure can be inspected.
PREHEAT_HD inline bool is_alive(const StepState& state) {
  return state.first_non_finite < 0;
}

/// Adds the `correct` examples of the update in progress to the gate's window, and opens the gate
/// if the window's sum is above gate.correct_above, but not before `window` updates have been done
/// nor after the warmup has ended by its length. Updates of the window that ran under another gate
/// count as all wrong.
PREHEAT_HD inline void update_gate(StepState& state, const LrSchedule& schedule,
                                   std::int64_t correct) {
  const Gate& gate = schedule.gate;
  if (gate.window == 0 || state.gate_opened_at >= 0) return;
  const std::int64_t done = state.step + 1;
  if (done >= schedule.phases[0].length) return;
  std::uint32_t& oldest = state.hits[state.step % gate.window];
  state.window_correct += correct - static_cast<std::int64_t>(oldest);
  oldest = static_cast<std::uint32_t>(correct);
  if (done >= gate.window && state.window_correct > gate.correct_above) state.gate_opened_at = done;
}

/// Ends a step with `correct` correctly classified examples. A finite step is counted and the next
/// learning rate computed; the first step that is not finite is recorded and the state then stays.
/// `applied` is false for an update that was skipped because its scaled gradients overflowed: the
/// velocity is still at the rate of the one before, to which momentum correction relates it.
PREHEAT_HD inline void advance(StepState& state, const LrSchedule& schedule, bool finite,
                               std::int64_t correct, bool applied = true) {
  if (!is_alive(state)) return;
  if (!finite) {
    state.first_non_finite = state.step;
    return;
  }
  update_gate(state, schedule, correct);
  ++state.step;
  if (applied) state.previous_lr = state.lr;
  state.lr = static_cast<float>(lr_at(schedule, state.step, state.gate_opened_at));
}

inline constexpr float initial_loss_scale = 65536;
inline constexpr float max_loss_scale = 16777216;
inline constexpr std::int32_t loss_scale_growth_interval = 2000;

/// Dynamic loss scaling (Micikevicius et al. 2018, "Mixed precision training", section 3.2): the
/// scale is halved after a step whose gradients overflowed, and doubled after 2000 steps in a row
/// without overflow. It stays between 1 and max_loss_scale.
PREHEAT_HD inline void update_loss_scale(StepState& state, bool overflowed) {
  if (overflowed) {
    state.loss_scale = state.loss_scale > 1 ? state.loss_scale / 2 : 1;
    state.updates_at_scale = 0;
  } else if (++state.updates_at_scale >= loss_scale_growth_interval) {
    state.loss_scale = state.loss_scale < max_loss_scale ? state.loss_scale * 2 : max_loss_scale;
    state.updates_at_scale = 0;
  }
}

}  // namespace preheat
