#include "train/critical_rate.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "config/error.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

constexpr double first_rate = 1e-4;
constexpr double largest_rate = 1e4;
constexpr double precision = 1.05;

}  // namespace

std::optional<double> critical_rate(Probe& probe, std::span<const float> weights) {
  std::vector<float> gradient(weights.size());
  std::vector<float> moved(weights.size());
  const double loss = probe.gradient(weights, gradient);
  if (!std::isfinite(loss)) throw NotFinite("the loss is not finite at these weights");
  if (!std::ranges::all_of(gradient, [](float g) { return std::isfinite(g); })) {
    throw NotFinite("the gradient is not finite at these weights");
  }
  const auto rises_at = [&](double rate) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      moved[i] = static_cast<float>(double{weights[i]} - rate * double{gradient[i]});
    }
    return !(probe.loss(moved) <= (1 + critical_rise) * loss);  // NaN counts as risen
  };
  double low = first_rate;
  while (rises_at(low)) low /= 2;  // ends at the latest when a step changes no weight
  double high = 2 * low;
  if (low == first_rate) {
    for (; high <= largest_rate && !rises_at(high); high *= 2) low = high;
    if (high > largest_rate) return std::nullopt;
  }
  while (high / low > precision) {
    const double middle = std::sqrt(low * high);
    (rises_at(middle) ? high : low) = middle;
  }
  return low;
}

std::optional<double> critical_rate(const RunConfig& config, Backend& backend,
                                    const Network& network, const Schedule& schedule,
                                    std::shared_ptr<const ResidentDataset> train) {
  backend.require_memory(network, config.data.batch_size);
  const auto probe = backend.probe(network, replica_options(config, network, schedule),
                                   std::move(train), config.data.batch_size);
  return critical_rate(*probe, initial_parameters(network, config.model, config.seed));
}

}  // namespace preheat
