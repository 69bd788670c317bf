#include "train/sharpness.h"

#include <cmath>
#include <limits>
#include <utility>

#include "data/random.h"

namespace preheat {
namespace {

constexpr double agreement = 0.2;

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double norm(std::span<const float> v) {
  return std::sqrt(dot(v, v));
}

std::vector<float> scaled(std::span<const float> v, double factor) {
  std::vector<float> result(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) result[i] = static_cast<float>(factor * double{v[i]});
  return result;
}

// |H v - value v| / |value|
double residual_of(std::span<const float> v, std::span<const float> product, double value) {
  double sum = 0;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const double rest = double{product[i]} - value * double{v[i]};
    sum += rest * rest;
  }
  return sum == 0 ? 0 : std::sqrt(sum) / std::fabs(value);
}

}  // namespace

Hessian::Hessian(GradientFunction gradient, std::span<const float> weights)
    : gradient_(std::move(gradient)),
      weights_(weights),
      weight_norm_(norm(weights)),
      moved_(weights.size()),
      above_(weights.size()),
      below_(weights.size()) {}

std::vector<float> Hessian::times(std::span<const float> v, double step) {
  const double e = step * weight_norm_;
  const auto gradient_at = [&](double distance, std::span<float> gradient) {
    for (std::size_t i = 0; i < v.size(); ++i) {
      moved_[i] = static_cast<float>(double{weights_[i]} + distance * double{v[i]});
    }
    gradient_(moved_, gradient);
    ++gradients_;
  };
  gradient_at(e, above_);
  gradient_at(-e, below_);
  std::vector<float> product(v.size());
  const double scale = 1 / (2 * e);
  for (std::size_t i = 0; i < v.size(); ++i) {
    product[i] = static_cast<float>((double{above_[i]} - double{below_[i]}) * scale);
  }
  return product;
}

double Hessian::along(std::span<const float> v) {
  return dot(v, times(v));
}

bool Sharpness::agrees() const {
  return std::fabs(wide - value) <= agreement * std::fabs(value);
}

Sharpness measure_sharpness(Hessian& hessian, std::vector<float>& direction, double tolerance,
                            std::int64_t most_iterations) {
  Sharpness result;
  std::vector<float> v = direction;
  while (true) {
    const std::vector<float> product = hessian.times(v);
    const double before = std::exchange(result.value, dot(v, product));
    const double length = norm(product);
    ++result.iterations;
    const bool goes_on = length > 0 && std::isfinite(length);
    const bool settled = result.iterations > 1 &&
                         std::fabs(result.value - before) <= tolerance * std::fabs(result.value);
    std::vector<float> next = goes_on ? scaled(product, 1 / length) : direction;
    if (goes_on && !settled && result.iterations < most_iterations) {
      v = std::move(next);
      continue;
    }
    result.residual = residual_of(v, product, result.value);
    result.wide = dot(v, hessian.times(v, wide_step));
    direction = std::move(next);
    return result;
  }
}

std::vector<float> random_direction(const Network& network, std::uint64_t seed) {
  std::vector<float> direction(network.arena_size, 0.0f);
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    const Parameter& p = network.parameters[i];
    for (std::int64_t k = 0; k < p.size; ++k) {
      const Random4 words =
          philox(seed, RandomStream::sharpness_direction, static_cast<std::uint32_t>(i), k / 4);
      direction[p.offset + k] = static_cast<float>(normal_quantile(unit(words.value[k % 4])));
    }
  }
  return scaled(direction, 1 / norm(direction));
}

}  // namespace preheat
