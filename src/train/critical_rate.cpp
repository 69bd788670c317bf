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

std::optional<double> critical_rate(Probe& probe, std::span<const float> weights,
                                    const Passes& passes) {
  const auto mean_over_passes = [&](const auto& loss_of_pass) {
    double sum = 0;
    for (std::int64_t pass = 0; pass < passes.count; ++pass) {
      if (passes.count > 1) probe.use(pass * passes.examples);
      sum += loss_of_pass();
    }
    return sum / static_cast<double>(passes.count);
  };
  std::vector<float> gradient_of_pass(weights.size());
  std::vector<double> gradient(weights.size());
  const double loss = mean_over_passes([&] {
    const double loss_of_pass = probe.gradient(weights, gradient_of_pass);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      gradient[i] += double{gradient_of_pass[i]} / static_cast<double>(passes.count);
    }
    return loss_of_pass;
  });
  if (!std::isfinite(loss)) throw NotFinite("the loss is not finite at these weights");
  if (!std::ranges::all_of(gradient, [](double g) { return std::isfinite(g); })) {
    throw NotFinite("the gradient is not finite at these weights");
  }
  std::vector<float> moved(weights.size());
  const auto rises_at = [&](double rate) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      moved[i] = static_cast<float>(double{weights[i]} - rate * gradient[i]);
    }
    const double loss_there = mean_over_passes([&] { return probe.loss(moved); });
    return !(loss_there <= (1 + critical_rise) * loss);  // NaN counts as risen
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
  const ReplicaOptions options = replica_options(config, network, schedule);
  backend.require_memory(network, options.examples_per_pass());
  const auto probe = backend.probe(network, options, std::move(train), options.examples_per_pass());
  return critical_rate(*probe, initial_parameters(network, config.model, config.seed),
                       {options.examples_per_pass(), options.passes()});
}

}  // namespace preheat
