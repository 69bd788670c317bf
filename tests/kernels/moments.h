// Shared by the tests of the kernels that take the moments of a batch: the exact moments, and the
// errors that sums in fp32 may have.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/device_test.h"

namespace preheat::kernels {

inline constexpr double fp32 = 0x1p-24;

/// The terms of a sum (x - mean, inv_std, product, dz), and a random walk of n roundings. A thread
/// adds far fewer than n, so this is generous.
inline double sum_bound(double n) {
  return (16 + std::sqrt(n)) * fp32;
}

/// A running statistic: a difference, a product, a sum, and storing the statistic of the batch.
inline constexpr double running_bound = 4 * fp32;

class Scratch {
 public:
  explicit Scratch(std::int32_t channels)
      : partials_(channel_sums_floats(channels)), counter_(std::vector<unsigned>{0}) {}
  SumScratch get() const { return {partials_.data(), counter_.data()}; }
  unsigned counter() const { return counter_.value(); }

 private:
  Device<float> partials_;
  Device<unsigned> counter_;
};

/// The moments of channel c of x, from sums of x - `shift`.
struct Moments {
  Moments(const Images& shape, const std::vector<float>& x, std::size_t c, double shift) {
    const auto channels = static_cast<std::size_t>(shape.channels);
    const auto n = static_cast<double>(shape.rows());
    for (std::size_t i = c; i < x.size(); i += channels) mean += double{x[i]} / n;
    double shifted = 0;
    double squares = 0;
    for (std::size_t i = c; i < x.size(); i += channels) {
      const double d = double{x[i]} - shift;
      var += (double{x[i]} - mean) * (double{x[i]} - mean) / n;
      shifted += std::abs(d) / n;
      squares += d * d / n;
    }
    unbiased = n > 1 ? var * n / (n - 1) : var;
    mean_error = sum_bound(n) * shifted + fp32 * std::abs(mean) * 1.01;
    var_error = sum_bound(n) * (squares + 2 * shifted * shifted);
  }
  double mean = 0;
  double var = 0;
  double unbiased = 0;
  double mean_error = 0;
  double var_error = 0;
};

/// `run` launches what takes the moments and returns what they are of, [shape]. `shifted`: from
/// sums of differences from the first value. Returns mean and 1 / std, one after the other.
template <class Run>
std::vector<float> expect_moments(std::mt19937& random, const Images& shape, bool shifted,
                                  const Run& run) {
  constexpr float epsilon = 1e-5f;
  constexpr float momentum = 0.1f;
  const auto channels = static_cast<std::size_t>(shape.channels);
  SCOPED_TRACE("channels " + std::to_string(channels) + " rows " + std::to_string(shape.rows()));
  const std::vector<float> running_mean = random_values(random, Element::f32, channels);
  const std::vector<float> running_var = random_values(random, Element::f32, channels, 0.1f, 1);
  const Scratch scratch(shape.channels);
  const Device<float> mean(channels);
  const Device<float> inv_std(channels);
  const Device<float> new_mean(running_mean);
  const Device<float> new_var(running_var);
  const std::vector<float> values =
      run(BatchMoments{mean.data(), inv_std.data(), new_mean.data(), new_var.data(), epsilon,
                       momentum, nullptr, scratch.get()});
  std::vector<double> expected[4];
  std::vector<double> bounds[4];
  for (std::size_t c = 0; c < channels; ++c) {
    const Moments m(shape, values, c, shifted ? double{values[c]} : 0);
    const double stable = m.var + double{epsilon};
    const auto moved = [&](float running, double value) {
      return double{running} + double{momentum} * (value - double{running});
    };
    const double values_of[4] = {m.mean, 1 / std::sqrt(stable), moved(running_mean[c], m.mean),
                                 moved(running_var[c], m.unbiased)};
    // At the lowest variance within the bound.
    const double lowest = std::max(stable - m.var_error, double{epsilon});
    const double errors[4] = {
        m.mean_error, 1 / std::sqrt(lowest) - 1 / std::sqrt(stable) + 2 * fp32 * values_of[1],
        double{momentum} * m.mean_error +
            running_bound * (std::abs(m.mean) + std::abs(double{running_mean[c]})),
        2 * double{momentum} * m.var_error +
            running_bound * (m.unbiased + std::abs(double{running_var[c]}))};
    for (int k = 0; k < 4; ++k) {
      expected[k].push_back(values_of[k]);
      bounds[k].push_back(errors[k]);
    }
  }
  const char* names[] = {"mean", "inv_std", "running mean", "running variance"};
  const Device<float>* arrays[] = {&mean, &inv_std, &new_mean, &new_var};
  for (int k = 0; k < 4; ++k) {
    expect_close(
        arrays[k]->values(), expected[k], [&](std::size_t c) { return bounds[k][c]; }, names[k]);
  }
  EXPECT_EQ(scratch.counter(), 0u);
  std::vector<float> found = mean.values();
  const std::vector<float> inverses = inv_std.values();
  found.insert(found.end(), inverses.begin(), inverses.end());
  return found;
}

}  // namespace preheat::kernels
