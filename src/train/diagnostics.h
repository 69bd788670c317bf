// What a run tells of itself beside its metrics, where `diagnostics` asks for it. Looking changes
// nothing: states are read, and gradients are taken on a probe with memory of its own.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/sharpness.h"

namespace preheat {

/// What an update did to one parameter. Norms are L2.
struct ParameterRecord {
  std::int64_t step = 0;
  std::string parameter;
  double weight_norm = 0;    // before the update
  double velocity_norm = 0;  // after it
  double update_norm = 0;    // of the change of the weights, as they are rounded
  // Between the weights before and after it, in degrees; NaN where either are all zero.
  double angle = 0;
  double distance = 0;  // of the weights after it from the initial ones
};

/// By parameter, what the update between two states did. `initial` is an arena.
std::vector<ParameterRecord> parameter_records(const Network& network, const ReplicaState& before,
                                               const ReplicaState& after,
                                               std::span<const float> initial);

/// The loss around the weights before update `step`.
struct SharpnessRecord {
  std::int64_t step = 0;
  float lr = 0;  // of that update
  Sharpness sharpness;
  // The curvature along a direction that stays the same, for control; like the wide step taken at
  // every twentieth measurement, the first among them, and the run's last, and NaN at the others.
  double random_direction = std::numeric_limits<double>::quiet_NaN();
  std::int64_t gradients = 0;  // that all of it took
};

class Diagnostics {
 public:
  /// Throws ConfigError and, where memory does not suffice, Error.
  Diagnostics(const RunConfig& config, Backend& backend, const Network& network,
              const Schedule& schedule, std::shared_ptr<const ResidentDataset> train);

  /// Whether there is to be a look at update `step`.
  bool layers_due(std::int64_t step) const;
  bool sharpness_due(std::int64_t step) const;

  /// The next step, after `step` updates, at which the weights are to be seen.
  std::int64_t next_stop(std::int64_t step) const;

  std::vector<ParameterRecord> layers(const ReplicaState& before, const ReplicaState& after) const;

  /// Starts from the direction that the last call ended with, the first one from a random one.
  SharpnessRecord measure(const ReplicaState& state);

  /// That direction, by parameter: with it a resumed run measures the same numbers. Empty where
  /// sharpness is not asked for.
  std::vector<NamedTensor> direction() const;

  /// Throws Error where it is of another network. One that is empty changes nothing.
  void set_direction(const std::vector<NamedTensor>& direction);

 private:
  const Network& network_;
  const std::int64_t layers_every_;     // 0: never
  const std::int64_t sharpness_every_;  // 0: never
  const std::int64_t steps_;            // of the run
  std::vector<float> initial_;          // weights
  SharpnessConfig sharpness_;
  std::unique_ptr<Probe> probe_;
  std::vector<float> random_direction_;
  std::vector<float> direction_;
};

}  // namespace preheat
