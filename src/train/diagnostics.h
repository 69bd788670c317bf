// What a run records in addition to its metrics, if `diagnostics` is configured. It does not affect
// the run: states are only read, and gradients and outputs are computed on probes with memory of
// their own.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/gradient_noise.h"
#include "train/sharpness.h"

namespace preheat {

/// Updates from one record of a kind to the next; 0: there are none.
struct RecordIntervals {
  std::int64_t evaluation = 0;
  std::int64_t checkpoint = 0;
  std::int64_t layers = 0;
  std::int64_t sharpness = 0;
  std::int64_t gradients = 0;
};

/// Throws ConfigError if a configured length rounds to no update, and if an epoch has fewer batches
/// than diagnostics.gradient_noise compares.
RecordIntervals record_intervals(const RunConfig& config, const RunLength& run);

/// What an update did to one parameter. Norms are L2.
struct ParameterRecord {
  std::int64_t step = 0;
  std::string parameter;
  double weight_norm = 0;    // before the update
  double velocity_norm = 0;  // after it
  double update_norm = 0;    // of the actual change of the fp32 weights
  // Between the weights before and after the update, in degrees; NaN if either are all zero.
  double angle = 0;
  double distance = 0;     // of the weights after the update from the initial ones
  double stable_rank = 0;  // before the update
};

/// |W|_F^2 / |W|_2^2 of a tensor as a matrix W with a row per output channel, the first dimension
/// of `shape`: how many directions share its size, from 1 to its rank. Never too small; too large
/// by at most a per cent, or, of one in some thousand matrices, by as much as if the largest
/// singular value were the second. NaN if `shape` has one dimension, all values are zero, or one is
/// not finite. Rudelson and Vershynin 2007, "Sampling from large matrices: an approach through
/// geometric functional analysis".
double stable_rank(std::span<const std::int64_t> shape, std::span<const float> values);

/// What the update between two states did, per parameter. `initial` is the arena of initial
/// weights.
std::vector<ParameterRecord> parameter_records(const Network& network, const ReplicaState& before,
                                               const ReplicaState& after,
                                               std::span<const float> initial);

/// |is - was| / |was| in L2, of arrays of one size; NaN if `was` is all zero or a value of either
/// is not finite.
double relative_change(std::span<const float> was, std::span<const float> is);

/// The loss around the weights before update `step`.
struct SharpnessRecord {
  std::int64_t step = 0;
  float lr = 0;  // of that update
  Sharpness sharpness;
  // The curvature along a fixed random direction, as a control. Like the wide step it is measured
  // only at every twentieth measurement, from the first on, and at the run's last; otherwise NaN.
  double random_direction = std::numeric_limits<double>::quiet_NaN();
  std::int64_t gradients = 0;  // gradient evaluations in total
};

/// The gradients of several batches at the weights before update `step`, with weight decay and
/// clipping left out, in one parameter, frozen or not, or in the whole network.
struct GradientRecord {
  std::int64_t step = 0;
  std::string parameter;  // or whole_network (train/run_files.h)
  GradientNoise noise;
  double scale = 0;  // of the noise, in examples
};

class Diagnostics {
 public:
  /// Throws ConfigError, and Error if memory does not suffice.
  Diagnostics(const RunConfig& config, Backend& backend, const Network& network,
              const Schedule& schedule, std::shared_ptr<const ResidentDataset> train);

  /// Whether update `step` is to be examined.
  bool layers_due(std::int64_t step) const;
  bool sharpness_due(std::int64_t step) const;
  bool gradients_due(std::int64_t step) const;

  /// The next step after `step` at which the weights are needed.
  std::int64_t next_stop(std::int64_t step) const;

  std::vector<ParameterRecord> layers(const ReplicaState& before, const ReplicaState& after) const;

  /// The relative representation change of the update between two states, per op: relative_change()
  /// of its output on the first 256 training examples, or as many as a pass has. Only if layers
  /// are recorded. Kosson et al. 2024, "Analyzing and Reducing the Need for Learning Rate Warmup in
  /// GPT Training".
  std::vector<double> changes(const ReplicaState& before, const ReplicaState& after);

  /// Measures the sharpness, starting from the direction in which the last call ended, at first
  /// from a random one. std::nullopt if wants_stop(), which is asked before each gradient, becomes
  /// true: then that direction is as before, so that the same call gives the same numbers.
  std::optional<SharpnessRecord> measure(const ReplicaState& state,
                                         const std::function<bool()>& wants_stop);

  /// Signal and noise (train/gradient_noise.h) of the gradients of the first
  /// diagnostics.gradient_noise.batches batches of the training set: a record per parameter, and
  /// the last of the whole network. Only if they are recorded.
  std::vector<GradientRecord> gradients(const ReplicaState& state);

  /// The direction of measure(), per parameter: with it a resumed run measures the same numbers.
  /// Empty if sharpness is not measured.
  std::vector<NamedTensor> direction() const;

  /// Throws Error if `direction` is of another network. Does nothing if it is empty or sharpness is
  /// not measured.
  void set_direction(const std::vector<NamedTensor>& direction);

  /// In bytes, of the probes.
  std::size_t memory() const;

 private:
  const Network& network_;
  const RecordIntervals every_;
  const std::int64_t steps_;    // of the run
  std::vector<float> initial_;  // the arena of initial weights
  std::unique_ptr<Probe> layers_probe_;
  std::optional<SharpnessMeter> meter_;
  std::vector<float> random_direction_;
  const std::int64_t batch_size_;  // of a pass
  std::int64_t batches_ = 0;       // whose gradients are compared
  std::unique_ptr<Probe> gradients_probe_;
};

}  // namespace preheat
