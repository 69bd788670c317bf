// The critical learning rate: the largest rate at which one step of gradient descent does not raise
// the loss of the same batch, found with one gradient and forward passes. A warmup that starts
// there spends no updates on rates that are lower than the network needs.
// Kalra and Barkeshli 2024, "Why warmup the learning rate?", arXiv:2406.09405, section 6.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "backend/backend.h"
#include "config/config.h"
#include "config/error.h"
#include "nn/network.h"
#include "schedule/schedule.h"

namespace preheat {

/// The loss or its gradient is not finite at the weights whose critical rate is searched.
class NotFinite : public Error {
 public:
  using Error::Error;
};

/// The relative rise of the loss that is tolerated, since noise alone causes small rises.
inline constexpr double critical_rise = 0.1;

/// The passes of an update: batches of `examples`, from the first example of the dataset on.
struct Passes {
  std::int64_t examples = 0;  // not used if there is only one
  std::int64_t count = 1;
};

/// The largest rate e, to a factor of 1.05 below it, such that
///   loss(w - e g) <= (1 + critical_rise) loss(w),   g the gradient at w,
/// both of them means over the passes, for each of which the probe is used.
/// Rates are tried from 1e-4 in factors of 2, upwards, or downwards if the loss rises there. Then
/// the interval is bisected. If the loss rises, falls and rises again, the result is the first rise
/// that this finds. A loss that is not finite counts as risen. std::nullopt if the loss rises at
/// none of the rates up to 1e4. Since losses are only compared, the result is one of a fixed set of
/// numbers and the same on every machine, unless a loss is within rounding of the bound.
/// Throws NotFinite if loss or gradient is not finite at `weights`.
std::optional<double> critical_rate(Probe& probe, std::span<const float> weights,
                                    const Passes& passes = {});

/// The critical rate at a run's initial weights, on its first data.batch_size examples in the
/// passes of the run: the gradient is then as noisy as those of the run, and the activations fit
/// wherever the run's do. Throws NotFinite, Error if memory does not suffice, and ConfigError as
/// replica_options() does.
std::optional<double> critical_rate(const RunConfig& config, Backend& backend,
                                    const Network& network, const Schedule& schedule,
                                    std::shared_ptr<const ResidentDataset> train);

}  // namespace preheat
