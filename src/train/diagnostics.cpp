#include "train/diagnostics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "config/error.h"
#include "train/lanczos.h"
#include "train/replica_options.h"
#include "train/run_files.h"

namespace preheat {
namespace {

// One in so many measurements, and the last of the run, is checked by the wide step and a random
// direction, which together cost nearly as much as a measurement.
constexpr std::int64_t checks_every = 20;

// Of so many images, or as many as a pass has, the outputs of two passes are kept on the host:
// enough to say how far an update moves them.
constexpr std::int64_t change_examples = 256;

// Of the square of the largest singular value. Random weights have many singular values just below
// it, which a larger tolerance takes for it too often (at 1e-3 one in thirty, at this one in a
// thousand). They need 5 to 35 products, trained ones with a few large singular values 7.
constexpr double rank_tolerance = 1e-6;
constexpr std::int64_t max_rank_products = 100;

bool is_due(std::int64_t step, std::int64_t every) {
  return every > 0 && step % every == 0;
}

std::vector<float> arena_of(const Network& network, const std::vector<NamedTensor>& tensors) {
  std::vector<float> arena(network.arena_size, 0.0f);
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    std::ranges::copy(tensors[i].values, arena.data() + network.parameters[i].offset);
  }
  return arena;
}

// The angle in degrees. Unlike the arc cosine, this is accurate for the small angles of updates.
// Kahan 2006, "How futile are mindless assessments of roundoff", section 12.
double angle_between(std::span<const float> a, double norm_a, std::span<const float> b,
                     double norm_b) {
  if (norm_a == 0 || norm_b == 0) return std::numeric_limits<double>::quiet_NaN();
  double difference = 0;
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = double{a[i]} * norm_b;
    const double y = double{b[i]} * norm_a;
    difference += (x - y) * (x - y);
    sum += (x + y) * (x + y);
  }
  constexpr double degrees = 180 / 3.14159265358979323846;
  return 2 * std::atan2(std::sqrt(difference), std::sqrt(sum)) * degrees;
}

}  // namespace

RecordIntervals record_intervals(const RunConfig& config, const RunLength& run) {
  const auto updates = [&](const Length& every, const char* key) {
    return updates_of(every, run, config, key);
  };
  const TrainConfig& train = config.train;
  const DiagnosticsConfig& also = config.diagnostics;
  RecordIntervals every;
  every.evaluation = updates(train.eval_every, "train.eval_every");
  if (train.checkpoint_every) {
    every.checkpoint = updates(*train.checkpoint_every, "train.checkpoint_every");
  }
  if (also.layers_every) every.layers = updates(*also.layers_every, "diagnostics.layers_every");
  if (also.sharpness) {
    every.sharpness = updates(also.sharpness->every, "diagnostics.sharpness.every");
  }
  if (also.gradient_noise) {
    every.gradients = updates(also.gradient_noise->every, "diagnostics.gradient_noise.every");
    const std::int64_t size = config.data.examples_per_pass();
    const std::int64_t there = run.steps_per_epoch * (config.data.batch_size / size);
    if (also.gradient_noise->batches > there) {
      throw ConfigError(config.where("diagnostics.gradient_noise.batches"),
                        fmt::format("{} batches of {} are more than the {} of an epoch",
                                    also.gradient_noise->batches, size, there),
                        there < 2 ? "a smaller data.batch_size" : fmt::format("at most {}", there));
    }
  }
  return every;
}

std::vector<ParameterRecord> parameter_records(const Network& network, const ReplicaState& before,
                                               const ReplicaState& after,
                                               std::span<const float> initial) {
  std::vector<ParameterRecord> records;
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    const Parameter& p = network.parameters[i];
    const std::vector<float>& was = before.parameters[i].values;
    const std::vector<float>& is = after.parameters[i].values;
    const std::vector<float>& velocity = after.velocity[i].values;
    const float* first = initial.data() + p.offset;
    double squares[5] = {};
    for (std::size_t k = 0; k < was.size(); ++k) {
      const double values[] = {was[k], is[k], velocity[k], double{is[k]} - double{was[k]},
                               double{is[k]} - double{first[k]}};
      for (int j = 0; j < 5; ++j) squares[j] += values[j] * values[j];
    }
    const double norm_before = std::sqrt(squares[0]);
    records.push_back({before.step.step, p.name, norm_before, std::sqrt(squares[2]),
                       std::sqrt(squares[3]),
                       angle_between(was, norm_before, is, std::sqrt(squares[1])),
                       std::sqrt(squares[4]), stable_rank(p.shape, was)});
  }
  return records;
}

double stable_rank(std::span<const std::int64_t> shape, std::span<const float> values) {
  const double square = dot(values, values);
  if (shape.size() < 2 || !(square > 0) || !std::isfinite(square)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const std::size_t rows = static_cast<std::size_t>(shape.front());
  const std::size_t columns = values.size() / rows;
  // W W^T v / |W|_F^2, whose largest eigenvalue is what is asked for, inverted.
  std::vector<double> across(columns);
  const auto times = [&](std::span<const float> v, std::int64_t) {
    std::ranges::fill(across, 0.0);
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = values.data() + r * columns;
      for (std::size_t c = 0; c < columns; ++c) across[c] += double{v[r]} * double{row[c]};
    }
    std::vector<float> product;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = values.data() + r * columns;
      double sum = 0;
      for (std::size_t c = 0; c < columns; ++c) sum += across[c] * double{row[c]};
      product.push_back(static_cast<float>(sum / square));
    }
    return product;
  };
  std::vector<float> start(rows);
  fill_with_normals(0, RandomStream::singular_vector, 0, start);
  start = scaled(start, 1 / norm(start));
  const Eigenpair found =
      largest_eigenpair(times, std::move(start), rank_tolerance, max_rank_products);
  return std::max(1 / found.value, 1.0);  // rounding
}

double relative_change(std::span<const float> was, std::span<const float> is) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < was.size(); ++i) {
    const double moved = double{is[i]} - double{was[i]};
    difference += moved * moved;
    norm += double{was[i]} * double{was[i]};
  }
  // A value that is not finite makes the ratio infinite or NaN.
  const double ratio = std::sqrt(difference / norm);
  return std::isfinite(ratio) ? ratio : std::numeric_limits<double>::quiet_NaN();
}

Diagnostics::Diagnostics(const RunConfig& config, Backend& backend, const Network& network,
                         const Schedule& schedule, std::shared_ptr<const ResidentDataset> train)
    : network_(network),
      every_(record_intervals(config, schedule.run)),
      steps_(schedule.run.steps),
      batch_size_(config.data.examples_per_pass()) {
  const auto probe = [&](std::int64_t examples, const char* what, const char* key) {
    try {
      return backend.probe(network, replica_options(config, network, schedule), train, examples);
    } catch (const OutOfMemory& error) {
      throw OutOfMemory(fmt::format("{}: {}, or set {}: null", what, error.what(), key));
    }
  };
  if (every_.layers > 0) {
    initial_ = initial_parameters(network, config.model, config.seed);
    layers_probe_ = probe(std::min(batch_size_, change_examples),
                          "the change of the layers' outputs", "diagnostics.layers_every");
  }
  if (every_.gradients > 0) {
    batches_ = config.diagnostics.gradient_noise->batches;
    gradients_probe_ =
        probe(batch_size_, "the noise of the gradient", "diagnostics.gradient_noise");
  }
  if (every_.sharpness == 0) return;
  meter_.emplace(config, backend, network, schedule, std::move(train));
  random_direction_ = meter_->direction();  // random as long as nothing has been measured
}

bool Diagnostics::layers_due(std::int64_t step) const {
  return is_due(step, every_.layers);
}

bool Diagnostics::sharpness_due(std::int64_t step) const {
  return is_due(step, every_.sharpness);
}

bool Diagnostics::gradients_due(std::int64_t step) const {
  return is_due(step, every_.gradients);
}

std::int64_t Diagnostics::next_stop(std::int64_t step) const {
  std::int64_t stop = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t every : {every_.layers, every_.sharpness, every_.gradients}) {
    if (every > 0) stop = std::min(stop, (step / every + 1) * every);
  }
  return layers_due(step) ? step + 1 : stop;
}

std::vector<ParameterRecord> Diagnostics::layers(const ReplicaState& before,
                                                 const ReplicaState& after) const {
  return parameter_records(network_, before, after, initial_);
}

std::vector<double> Diagnostics::changes(const ReplicaState& before, const ReplicaState& after) {
  const auto was = layers_probe_->outputs(arena_of(network_, before.parameters));
  const auto is = layers_probe_->outputs(arena_of(network_, after.parameters));
  std::vector<double> changes;
  for (std::size_t i = 0; i < was.size(); ++i) {
    changes.push_back(relative_change(was[i], is[i]));
  }
  return changes;
}

std::optional<SharpnessRecord> Diagnostics::measure(const ReplicaState& state,
                                                    const std::function<bool()>& wants_stop) {
  const std::vector<float> weights = arena_of(network_, state.parameters);
  Hessian hessian = meter_->hessian(weights, wants_stop);
  SharpnessRecord record;
  record.step = state.step.step;
  record.lr = state.step.lr;
  // Chosen by the step, so that a resumed run checks the same measurements.
  const bool is_last = record.step + every_.sharpness >= steps_;
  const bool checks = is_last || is_due(record.step, checks_every * every_.sharpness);
  try {
    // The meter takes its next direction last, when nothing can stop the measurement any more.
    if (checks) record.random_direction = hessian.along(random_direction_);
    record.sharpness = meter_->measure(hessian, checks);
  } catch (const Stopped&) {
    return std::nullopt;
  }
  record.gradients = hessian.gradients();
  return record;
}

std::vector<GradientRecord> Diagnostics::gradients(const ReplicaState& state) {
  const std::vector<float> weights = arena_of(network_, state.parameters);
  std::vector<float> gradient(weights.size());
  GradientMoments moments(network_);
  for (std::int64_t batch = 0; batch < batches_; ++batch) {
    gradients_probe_->use(batch * batch_size_);
    gradients_probe_->gradient(weights, gradient);
    moments.add(gradient);
  }
  std::vector<GradientRecord> records;
  const auto add = [&](std::string_view name, const GradientNoise& noise) {
    records.push_back({state.step.step, std::string(name), noise, noise.scale(batch_size_)});
  };
  const std::vector<GradientNoise> by_parameter = moments.noise();
  for (std::size_t i = 0; i < by_parameter.size(); ++i) {
    add(network_.parameters[i].name, by_parameter[i]);
  }
  add(whole_network, sum_of(by_parameter));
  return records;
}

std::vector<NamedTensor> Diagnostics::direction() const {
  std::vector<NamedTensor> tensors;
  if (!meter_) return tensors;
  for (const Parameter& p : network_.parameters) {
    const float* values = meter_->direction().data() + p.offset;
    tensors.push_back({p.name, p.shape, {values, values + p.size}});
  }
  return tensors;
}

void Diagnostics::set_direction(const std::vector<NamedTensor>& direction) {
  if (direction.empty() || !meter_) return;
  const bool fits = std::ranges::equal(direction, network_.parameters,
                                       [](const NamedTensor& t, const Parameter& p) {
                                         return t.name == p.name && t.shape == p.shape;
                                       });
  if (!fits) throw Error("the direction of the sharpness belongs to another network");
  meter_->set_direction(arena_of(network_, direction));
}

std::size_t Diagnostics::memory() const {
  std::size_t bytes = meter_ ? meter_->memory().total() : 0;
  for (const Probe* probe : {layers_probe_.get(), gradients_probe_.get()}) {
    if (probe != nullptr) bytes += probe->memory().total();
  }
  return bytes;
}

}  // namespace preheat
