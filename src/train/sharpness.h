// The sharpness of a loss: the eigenvalue of its Hessian that is largest in magnitude, with its
// sign, by the method of Lanczos (Golub and Van Loan 2013, "Matrix computations", section 10.1). A
// product with the Hessian is a difference of two gradients,
//   H v = (g(w + e v) - g(w)) / e,   |v| = 1,   |e| a small share of |w|,
// which needs no second derivatives of the backend, and one gradient a product where g(w) is known.
// What it is wrong by is e T(v, v) / 2, T the third derivatives. e is above and below zero in turn,
// so that much of it cancels where the eigenvector is in several of the vectors that Lanczos makes:
// two thirds from a start at 45 degrees to it, nearly nine tenths from 60 on. From a start within
// 20 it is mostly in the first of them, and e T(v, v, v) / 2 is what the value is wrong by. The
// wide step is taken on both sides, which leaves nothing of it, so that the two differ where it is
// large.
//
// With fp32 gradients and ReLUs e can neither be small, for rounding, nor large, for the kinks it
// then steps over: 3e-4 |w| was nearest to float64 on sharp, flat and trained networks, and where
// 1e-3 |w| says something else neither is to be trusted.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "config/config.h"
#include "nn/network.h"

namespace preheat {

/// Writes the gradient of a loss at `weights` into `gradient`, which is as large.
using GradientFunction =
    std::function<void(std::span<const float> weights, std::span<float> gradient)>;

/// e / |w| of a product.
inline constexpr double narrow_step = 3e-4;
inline constexpr double wide_step = 1e-3;

/// The Hessian of a loss at some weights, as its products with vectors.
class Hessian {
 public:
  /// `weights` must outlive it.
  Hessian(GradientFunction gradient, std::span<const float> weights);

  /// H v of a v whose norm is 1, with e = step |w|, which may be negative. Takes one gradient, and
  /// the first call one more.
  std::vector<float> times(std::span<const float> v, double step = narrow_step);

  /// The curvature v H v along a v whose norm is 1, from both sides of the weights, so that no
  /// third derivative is in it: v (g(w + e v) - g(w - e v)) / (2 e). Takes two gradients.
  double along(std::span<const float> v, double step = narrow_step);

  /// How many gradients the products took so far.
  std::int64_t gradients() const { return gradients_; }

 private:
  void take_gradient(std::span<const float> v, double distance, std::vector<float>& gradient);

  const GradientFunction gradient_;
  const std::span<const float> weights_;
  const double weight_norm_;
  std::int64_t gradients_ = 0;
  std::vector<float> at_weights_;  // empty until it is asked for
  std::vector<float> moved_;
  std::vector<float> above_;
  std::vector<float> below_;
};

/// NaN where a gradient was not finite, or where all weights are zero.
struct Sharpness {
  double value = 0;             // v H v of the estimate v of the eigenvector
  double residual = 0;          // |H v - value v| / |value|: some eigenvalue is as near to `value`
  std::int64_t iterations = 0;  // products with the narrow step
  // v H v with the wide step; NaN where it was not asked for.
  double wide = std::numeric_limits<double>::quiet_NaN();

  /// Whether the two steps say the same, to a fifth of `value`.
  bool agrees() const;
};

/// Starts from `direction`, whose norm is 1, and ends where one more step of power iteration would
/// change the value by no more than the tolerance, as a share of it, or after enough iterations.
/// That change is at most twice the residual squared: for v at a small angle a from u1 towards u2,
/// residual = a (1 - l2/l1), and change = a^2 (1 - l2/l1)(1 - (l2/l1)^2). So a start that is still
/// right costs one product.
///
/// Leaves in `direction` the best estimate of the eigenvector, to start from at weights near by; or
/// as it was, where a gradient was not finite or the loss is flat along it.
Sharpness measure_sharpness(Hessian& hessian, std::vector<float>& direction, double tolerance,
                            std::int64_t most_iterations, bool checks_step = true);

/// A direction of norm 1 in the space of all parameters, uniformly random, as an arena whose
/// padding is zero.
std::vector<float> random_direction(const Network& network, std::uint64_t seed);

}  // namespace preheat
