// The critical learning rate: the largest a step down the gradient may have without raising the
// loss of the same batch, found by forward passes only. Where a warmup starts there, it wastes no
// updates below what the network can take anyway.
// Kalra and Barkeshli 2024, "Why warmup the learning rate?", arXiv:2406.09405, section 6.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "backend/backend.h"
#include "config/config.h"
#include "config/error.h"
#include "nn/network.h"
#include "schedule/schedule.h"

namespace preheat {

/// The loss or its gradient is not finite where a rate was to be found.
class NotFinite : public Error {
 public:
  using Error::Error;
};

/// By how much of itself the loss may rise; noise alone makes small rises.
inline constexpr double critical_rise = 0.1;

/// The largest rate e, to a factor of 1.05 below it, such that
///   loss(w - e g) <= (1 + critical_rise) loss(w),   g the gradient at w,
/// searched from 1e-4 on in factors of 2, then between the two that differ: where the loss rises,
/// falls and rises again, the first rise that these find. A loss that is not finite counts as
/// risen. Nothing where the loss rises at none of them up to 1e4. Since losses are only
/// compared, the answer is one of a fixed set of numbers and the same on every machine, unless a
/// loss lies within rounding of the bound.
/// Throws NotFinite where loss or gradient is not finite at `weights`.
std::optional<double> critical_rate(Probe& probe, std::span<const float> weights);

/// That of a run's initial weights, on the first data.batch_size of its examples: a gradient that
/// is as noisy as those the run will meet, with activations that fit where the run's do. Throws
/// NotFinite, and Error where memory does not suffice.
std::optional<double> critical_rate(const RunConfig& config, Backend& backend,
                                    const Network& network, const Schedule& schedule,
                                    std::shared_ptr<const ResidentDataset> train);

}  // namespace preheat
