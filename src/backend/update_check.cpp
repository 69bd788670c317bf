#include "backend/update_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "config/error.h"
#include "nn/network.h"

namespace preheat {
namespace {

std::vector<float> values(float scale, std::uint32_t seed) {
  std::vector<float> result(update_pattern_size);
  for (float& v : result) {
    seed = seed * 1664525u + 1013904223u;  // Numerical Recipes' generator
    v = scale * (static_cast<float>(seed >> 8) / 8388608.0f - 1);
  }
  return result;
}

}  // namespace

UpdateLayout::UpdateLayout(const UpdateSet& set) {
  for (const std::int64_t n : set.tensors) {
    offsets.push_back(size);
    size += arena_floats(n);
  }
}

UpdatePattern::UpdatePattern()
    : weights(values(0.1f, 1)), velocity(values(0.1f, 2)), gradients(values(0.1f, 3)) {}

void check_update(const UpdateCheck& check, const UpdateSet& set, const UpdateLayout& layout,
                  const UpdatePattern& pattern, const ReadFloats& weights,
                  const ReadFloats& velocity) {
  constexpr std::int64_t most = 1 << 16;  // floats that are checked, at either end
  const UpdateScalars scalars = update_scalars(check.rule, bench_rate, 0, 0, 0);
  const auto check_stretch = [&](std::size_t tensor, std::int64_t from, std::int64_t count) {
    const std::int64_t begin = layout.offsets[tensor] + from;
    const std::vector<float> w = weights(begin, count);
    const std::vector<float> v = velocity(begin, count);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t at = (begin + i) % update_pattern_size;
      const float g = check.gradients_are_zero ? 0 : pattern.gradients[at];
      float expected_w = pattern.weights[at];
      float expected_v = pattern.velocity[at];
      const double largest = std::max({std::abs(expected_w), std::abs(expected_v), std::abs(g)});
      sgd_momentum(check.rule, scalars, bench_decay, g, expected_w, expected_v);
      // Written so that a NaN fails.
      const auto right = [&](float is, float wanted) {
        return std::abs(double{is} - double{wanted}) <= check.bound * largest;
      };
      if (right(w[i], expected_w) && right(v[i], expected_v)) continue;
      throw Error(fmt::format(
          "{} does not compute the update: float {} of tensor {} of {} is weight {:.9g} and "
          "velocity {:.9g}, and should be {:.9g} and {:.9g}",
          check.variant, from + i, tensor, set.name, w[i], v[i], expected_w, expected_v));
    }
  };
  std::int64_t left = most;
  for (std::size_t t = 0; t < set.tensors.size() && left > 0; ++t) {
    const std::int64_t count = std::min(left, set.tensors[t]);
    check_stretch(t, 0, count);
    left -= count;
  }
  const std::int64_t count = std::min(most, set.tensors.back());
  check_stretch(set.tensors.size() - 1, set.tensors.back() - count, count);
}

}  // namespace preheat
