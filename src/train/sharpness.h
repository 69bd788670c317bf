// The sharpness of a loss: the eigenvalue of its Hessian that is largest in magnitude, with its
// sign, by the Lanczos method (train/lanczos.h). A Hessian-vector product is a finite difference of
// two gradients,
//   H v = (g(w + e v) - g(w)) / e,   |v| = 1,   |e| a small fraction of |w|,
// which needs no second derivatives from the backend, and one gradient per product once g(w) is
// known. Its error is e T(v, v) / 2, where T is the third derivative. The sign of e alternates, so
// that much of the error cancels if the eigenvector is spread over several Lanczos vectors: two
// thirds from a start at 45 degrees to it, nearly nine tenths from 60 on. From a start within 20
// degrees it is mostly in the first Lanczos vector, and the error of the value is e T(v, v, v) / 2.
// The wide step is a central difference, in which this error cancels, so that the narrow and the
// wide value differ if it is large.
//
// With fp32 gradients and ReLUs, e must not be too small, because of rounding, nor too large,
// because it then steps over kinks: 3e-4 |w| was nearest to float64 on sharp, flat and trained
// networks. If 1e-3 |w| gives a different value, neither can be trusted.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "config/error.h"
#include "nn/network.h"
#include "schedule/schedule.h"

namespace preheat {

/// Writes the gradient of a loss at `weights` into `gradient`, which has the same size.
using GradientFunction =
    std::function<void(std::span<const float> weights, std::span<float> gradient)>;

/// A measurement was asked to stop before its end.
class Stopped : public Error {
 public:
  using Error::Error;
};

/// |e| / |w| of the narrow and the wide step.
inline constexpr double narrow_step = 3e-4;
inline constexpr double wide_step = 1e-3;

/// The Hessian of a loss at given weights, available through its products with vectors.
class Hessian {
 public:
  /// `weights` must outlive it.
  Hessian(GradientFunction gradient, std::span<const float> weights);

  /// H v for a v of norm 1, with e = step |w|; `step` may be negative. Takes one gradient, plus one
  /// in the first call.
  std::vector<float> times(std::span<const float> v, double step = narrow_step);

  /// The curvature v H v along a v of norm 1 by a central difference, in which the third derivative
  /// cancels: v (g(w + e v) - g(w - e v)) / (2 e). Takes two gradients.
  double along(std::span<const float> v, double step = narrow_step);

  /// The number of gradients taken so far.
  std::int64_t gradients() const { return gradients_; }

 private:
  void take_gradient(std::span<const float> v, double distance, std::vector<float>& gradient);

  const GradientFunction gradient_;
  const std::span<const float> weights_;
  const double weight_norm_;
  std::int64_t gradients_ = 0;
  std::vector<float> at_weights_;  // g(w); empty until first needed
  std::vector<float> moved_;
  std::vector<float> above_;
  std::vector<float> below_;
};

/// An Eigenpair of the Hessian; NaN if a gradient was not finite or all weights are zero.
struct Sharpness {
  double value = 0;             // v H v, v the estimated eigenvector
  double residual = 0;          // |H v - value v| / |value|
  std::int64_t iterations = 0;  // products with the narrow step
  // v H v with the wide step; NaN if it was not requested.
  double wide = std::numeric_limits<double>::quiet_NaN();

  /// Whether the two steps agree to within a fifth of `value`.
  bool agrees() const;
};

/// By largest_eigenpair() from `direction`, of norm 1, with `max_iterations` products at most.
/// `checks_step` also measures `wide`.
///
/// Leaves Eigenpair::next in `direction`, as the start at nearby weights. `direction` stays as it
/// was if a gradient was not finite, the value is 0, or taking a gradient throws.
Sharpness measure_sharpness(Hessian& hessian, std::vector<float>& direction, double tolerance,
                            std::int64_t max_iterations, bool checks_step = true);

/// A uniformly random direction of norm 1 in the space of all parameters, as an arena with zero
/// padding.
std::vector<float> random_direction(const Network& network, std::uint64_t seed);

/// Measures the sharpness of a run's loss on the first of its training examples, as
/// diagnostics.sharpness says, or with the defaults of that section.
class SharpnessMeter {
 public:
  /// Throws Error if memory does not suffice, and ConfigError as replica_options() does.
  SharpnessMeter(const RunConfig& config, Backend& backend, const Network& network,
                 const Schedule& schedule, std::shared_ptr<const ResidentDataset> train);

  /// The Hessian at `weights`, an arena (Network::arena_size floats). Both they and this meter must
  /// outlive it. It takes no gradient once wants_stop() is true, and throws Stopped instead.
  Hessian hessian(std::span<const float> weights, std::function<bool()> wants_stop = {});

  /// measure_sharpness() from the direction in which the last call ended, at first from
  /// random_direction() of the run's seed.
  Sharpness measure(Hessian& hessian, bool checks_step);

  /// That direction, an arena.
  const std::vector<float>& direction() const { return direction_; }
  void set_direction(std::vector<float> direction) { direction_ = std::move(direction); }

  MemoryUse memory() const { return probe_->memory(); }

 private:
  SharpnessConfig settings_;
  std::unique_ptr<Probe> probe_;
  std::vector<float> direction_;
};

/// The sharpness at a run's initial weights, without the wide step: bit for bit what the run logs
/// before its first update if it measures it. Throws as SharpnessMeter's constructor does, and
/// Stopped once wants_stop() is true.
Sharpness initial_sharpness(const RunConfig& config, Backend& backend, const Network& network,
                            const Schedule& schedule, std::shared_ptr<const ResidentDataset> train,
                            std::function<bool()> wants_stop = {});

}  // namespace preheat
