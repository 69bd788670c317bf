#include "train/sharpness.h"

#include <cmath>
#include <utility>

#include "train/lanczos.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

constexpr double agreement = 0.2;

}  // namespace

Hessian::Hessian(GradientFunction gradient, std::span<const float> weights)
    : gradient_(std::move(gradient)),
      weights_(weights),
      weight_norm_(norm(weights)),
      moved_(weights.size()),
      above_(weights.size()),
      below_(weights.size()) {}

// The gradient at w + distance v.
void Hessian::take_gradient(std::span<const float> v, double distance,
                            std::vector<float>& gradient) {
  for (std::size_t i = 0; i < v.size(); ++i) {
    moved_[i] = static_cast<float>(double{weights_[i]} + distance * double{v[i]});
  }
  gradient_(moved_, gradient);
  ++gradients_;
}

std::vector<float> Hessian::times(std::span<const float> v, double step) {
  if (at_weights_.empty()) {
    at_weights_.resize(weights_.size());
    take_gradient(v, 0, at_weights_);
  }
  const double e = step * weight_norm_;
  take_gradient(v, e, above_);
  std::vector<float> product(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) {
    product[i] = static_cast<float>((double{above_[i]} - double{at_weights_[i]}) / e);
  }
  return product;
}

double Hessian::along(std::span<const float> v, double step) {
  const double e = step * weight_norm_;
  take_gradient(v, e, above_);
  take_gradient(v, -e, below_);
  return (dot(v, above_) - dot(v, below_)) / (2 * e);
}

bool Sharpness::agrees() const {
  return std::fabs(wide - value) <= agreement * std::fabs(value);
}

Sharpness measure_sharpness(Hessian& hessian, std::vector<float>& direction, double tolerance,
                            std::int64_t max_iterations, bool checks_step) {
  const auto times = [&](std::span<const float> v, std::int64_t number) {
    return hessian.times(v, number % 2 == 0 ? narrow_step : -narrow_step);
  };
  Eigenpair found = largest_eigenpair(times, direction, tolerance, max_iterations);
  Sharpness result{found.value, found.residual, found.products};
  if (std::isnan(found.value)) return result;
  if (checks_step) result.wide = hessian.along(found.vector, wide_step);
  if (found.value != 0) direction = std::move(found.next);
  return result;
}

std::vector<float> random_direction(const Network& network, std::uint64_t seed) {
  std::vector<float> direction(network.arena_size, 0.0f);
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    const Parameter& p = network.parameters[i];
    fill_with_normals(seed, RandomStream::sharpness_direction, static_cast<std::uint32_t>(i),
                      std::span(direction).subspan(p.offset, p.size));
  }
  return scaled(direction, 1 / norm(direction));
}

SharpnessMeter::SharpnessMeter(const RunConfig& config, Backend& backend, const Network& network,
                               const Schedule& schedule,
                               std::shared_ptr<const ResidentDataset> train)
    : settings_(config.diagnostics.sharpness.value_or(SharpnessConfig{})),
      probe_(backend.probe(network, replica_options(config, network, schedule), std::move(train),
                           settings_.examples)),
      direction_(random_direction(network, config.seed)) {}

Hessian SharpnessMeter::hessian(std::span<const float> weights, std::function<bool()> wants_stop) {
  return {[this, wants_stop = std::move(wants_stop)](std::span<const float> at,
                                                     std::span<float> gradient) {
            if (wants_stop && wants_stop()) throw Stopped("the measurement was stopped");
            probe_->gradient(at, gradient);
          },
          weights};
}

Sharpness SharpnessMeter::measure(Hessian& hessian, bool checks_step) {
  return measure_sharpness(hessian, direction_, settings_.tolerance, settings_.iterations,
                           checks_step);
}

Sharpness initial_sharpness(const RunConfig& config, Backend& backend, const Network& network,
                            const Schedule& schedule, std::shared_ptr<const ResidentDataset> train,
                            std::function<bool()> wants_stop) {
  SharpnessMeter meter(config, backend, network, schedule, std::move(train));
  const std::vector<float> weights = initial_parameters(network, config.model, config.seed);
  Hessian hessian = meter.hessian(weights, std::move(wants_stop));
  return meter.measure(hessian, false);
}

}  // namespace preheat
