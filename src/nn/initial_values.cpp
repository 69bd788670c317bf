#include <cmath>

#include "data/random.h"
#include "nn/network.h"

namespace preheat {

std::vector<float> initial_parameters(const Network& network, const ModelConfig& model,
                                      std::uint64_t seed) {
  std::vector<float> arena(network.arena_size, 0.0f);
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    const Parameter& p = network.parameters[i];
    float* values = arena.data() + p.offset;
    if (p.init == Init::one) {
      for (std::int64_t k = 0; k < p.size; ++k) values[k] = 1.0f;
    }
    if (p.init != Init::random) continue;
    // The variance is 2 / fan_in (He et al. 2015), 1 / fan_in (LeCun et al. 1998) or
    // 2 / (fan_in + fan_out) (Glorot and Bengio 2010). Uniform on [-l, l] has variance l^2 / 3.
    const auto fan_in = static_cast<double>(p.fan_in);
    const auto fan_out = static_cast<double>(p.fan_out);
    double variance = 0;
    bool uniform = false;
    switch (model.init_scheme) {
      case InitScheme::he_uniform:
        uniform = true;
        [[fallthrough]];
      case InitScheme::he_normal:
        variance = 2 / fan_in;
        break;
      case InitScheme::lecun_uniform:
        uniform = true;
        [[fallthrough]];
      case InitScheme::lecun_normal:
        variance = 1 / fan_in;
        break;
      case InitScheme::xavier_uniform:
        uniform = true;
        [[fallthrough]];
      case InitScheme::xavier_normal:
        variance = 2 / (fan_in + fan_out);
        break;
    }
    const double std = model.init_gain * std::sqrt(variance);
    const double limit = model.init_gain * std::sqrt(3 * variance);
    for_words(seed, RandomStream::initial_weights, static_cast<std::uint32_t>(i), p.size,
              [&](std::int64_t k, std::uint32_t word) {
                const double u = unit(word);
                values[k] =
                    static_cast<float>(uniform ? limit * (2 * u - 1) : std * normal_quantile(u));
              });
  }
  return arena;
}

}  // namespace preheat
