// Signal and noise of the gradient of a batch, from the gradients g_1 .. g_n of n batches of
// different examples at the same weights, with mean m:
//   noise  = sum |g_i - m|^2 / (n - 1),   signal = |m|^2 - noise / n,
// the unbiased estimates of the trace of g's covariance and of |E g|^2. For batches of B examples,
//   noise scale = B noise / signal
// is the "simple noise scale" tr(Sigma) / |G|^2 of McCandlish et al. 2018, "An Empirical Model of
// Large-Batch Training", arXiv:1812.06162, with Sigma the covariance of the gradient of one
// example: the noise of a batch falls as 1 / B, so at this batch size it is as large as the signal.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nn/network.h"

namespace preheat {

/// Both are NaN if a gradient was not finite.
struct GradientNoise {
  double signal = 0;  // at a small signal the estimate may be below 0
  double noise = 0;

  /// The noise scale, in examples, if this is of batches of `batch_size`; NaN unless the signal is
  /// above 0.
  double scale(std::int64_t batch_size) const;
};

/// Signal and noise of disjoint sets of weights together: all are sums over the weights.
GradientNoise sum_of(std::span<const GradientNoise> parts);

/// Mean and squared deviations of gradients, updated with each one, so that none has to be kept.
/// Welford 1962, "Note on a method for calculating corrected sums of squares and products".
class GradientMoments {
 public:
  /// `network` must outlive it.
  explicit GradientMoments(const Network& network);

  /// `gradient` is an arena (Network::arena_size floats).
  void add(std::span<const float> gradient);

  /// By parameter, in the order of Network::parameters; of at least two gradients.
  std::vector<GradientNoise> noise() const;

 private:
  const Network& network_;
  std::int64_t gradients_ = 0;
  std::vector<double> mean_;     // an arena
  std::vector<double> squares_;  // by parameter: sum |g_i - m|^2
};

}  // namespace preheat
