// The functions that host and device share, run on the device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/epoch_order.h"
#include "optim/sgd_momentum.h"
#include "optim/step_state.h"
#include "schedule/lr_schedule.h"

namespace preheat {

/// Why no kernel can run here, or "" if one can.
std::string no_device();

/// lr_at of each step, in double. Throws std::runtime_error with CUDA's reason, as all of these do.
std::vector<double> rates_on_device(const LrSchedule& schedule,
                                    const std::vector<std::int64_t>& steps,
                                    std::int64_t gate_opened_at);

/// The state after one call of advance() for each element of `correct`, from `state` on.
StepState advanced_on_device(const LrSchedule& schedule, const StepState& state,
                             const std::vector<std::int64_t>& correct);

struct Weights {
  std::vector<float> w;
  std::vector<float> v;
  std::vector<float> taken;
};

/// One sgd_momentum for each weight.
Weights updated_on_device(const SgdMomentum& rule, const UpdateScalars& scalars, float weight_decay,
                          const std::vector<float>& g, const Weights& before);

/// crop_flip of examples 0 .. n - 1.
std::vector<CropFlip> crops_on_device(std::uint64_t seed, std::uint32_t epoch, std::int32_t padding,
                                      bool flip, std::size_t n);

}  // namespace preheat
