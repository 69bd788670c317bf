#include "train/gradient_noise.h"

#include <limits>

namespace preheat {

double GradientNoise::scale(std::int64_t batch_size) const {
  return signal > 0 ? static_cast<double>(batch_size) * noise / signal
                    : std::numeric_limits<double>::quiet_NaN();
}

GradientNoise sum_of(std::span<const GradientNoise> parts) {
  GradientNoise sum;
  for (const GradientNoise& part : parts) {
    sum.signal += part.signal;
    sum.noise += part.noise;
  }
  return sum;
}

GradientMoments::GradientMoments(const Network& network)
    : network_(network), mean_(network.arena_size), squares_(network.parameters.size()) {}

void GradientMoments::add(std::span<const float> gradient) {
  const auto n = static_cast<double>(++gradients_);
  for (std::size_t i = 0; i < squares_.size(); ++i) {
    const Parameter& p = network_.parameters[i];
    for (std::int64_t k = p.offset; k < p.offset + p.size; ++k) {
      const double off = double{gradient[k]} - mean_[k];
      mean_[k] += off / n;
      squares_[i] += off * (double{gradient[k]} - mean_[k]);
    }
  }
}

std::vector<GradientNoise> GradientMoments::noise() const {
  const auto n = static_cast<double>(gradients_);
  std::vector<GradientNoise> all;
  for (std::size_t i = 0; i < squares_.size(); ++i) {
    const Parameter& p = network_.parameters[i];
    const double noise = squares_[i] / (n - 1);
    double square = 0;
    for (std::int64_t k = p.offset; k < p.offset + p.size; ++k) square += mean_[k] * mean_[k];
    all.push_back({square - noise / n, noise});
  }
  return all;
}

}  // namespace preheat
