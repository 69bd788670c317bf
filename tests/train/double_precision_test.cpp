// A run that diverges in fp32 diverges in double precision too, at the same update: the cause is
// the rate, not the arithmetic. The other side is plain loops, with no library and no backend.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "backend/reference_network.h"
#include "data/epoch_order.h"
#include "train/small_run.h"

namespace preheat {
namespace {

constexpr double base_rate = 0.03;
constexpr double momentum = 0.9;
constexpr std::int64_t ramp = 60;
constexpr std::int64_t updates = 80;  // less than an epoch

// The network of configs/sharp-initialisation.yaml, narrower and for smaller images. Its failures
// are overflows, where those of a ReLU network are mostly dead units.
RunConfig sharp(std::uint64_t seed, std::int64_t warmup) {
  constexpr const char* text = R"(
seed: {}
data: {{dataset: synthetic, batch_size: 16, train_limit: 1600}}
model:
  layers:
    - conv: {{out: 8, stride: 2, activation: leaky_relu(0.1)}}
    - conv: {{out: 8, activation: leaky_relu(0.1)}}
    - max_pool
    - conv: {{out: 8, activation: leaky_relu(0.1)}}
    - conv: {{out: 8, activation: leaky_relu(0.1)}}
    - conv: {{out: 8, activation: leaky_relu(0.1)}}
    - conv: {{out: 8, activation: leaky_relu(0.1)}}
    - global_avg_pool
    - linear: {{out: 10}}
  init: {{gain: 1.6}}
optimizer: {{momentum: {}}}
schedule: {{base_lr: {}, warmup: {{length: {} steps}}, decay: {{shape: constant}}}}
train: {{length: {} steps, cpu_threads: 1}}
)";
  return read_config(
      parse_document(fmt::format(text, seed, momentum, base_rate, warmup, updates), "sharp.yaml"));
}

struct Batch {
  reference::Values images;
  std::vector<std::uint8_t> labels;
};

Batch batch_of(const Dataset& data, std::span<const std::uint32_t> examples) {
  const Normalize& normalize = facts(DatasetName::synthetic).normalize;
  Batch batch;
  for (const std::uint32_t example : examples) {
    batch.labels.push_back(data.labels[example]);
    const std::int64_t first = example * data.shape.size();
    for (std::int64_t i = first; i < first + data.shape.size(); ++i) {
      batch.images.push_back((data.pixels[i] / 255.0 - normalize.mean[0]) / normalize.std[0]);
    }
  }
  return batch;
}

struct Losses {
  std::vector<double> values;    // by update
  std::int64_t non_finite = -1;  // the first update whose loss, gradient or weights are; -1: none

  // The first update whose loss is over ten times the first one, -1 if there is none.
  std::int64_t explosion() const {
    const auto is_over = [&](double loss) { return !(loss <= 10 * values[0]); };
    const auto found = std::ranges::find_if(values, is_over);
    return found == values.end() ? -1 : found - values.begin();
  }
};

Losses in_fp32(const RunConfig& config, const ResidentData& data) {
  Losses losses;
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> records) {
    for (const StepRecord& r : records) {
      losses.values.push_back(r.loss);
      if (losses.non_finite < 0 && !r.finite) losses.non_finite = r.step;
    }
  };
  Trainer(config, shared_backend(), data).run(listener, nullptr);
  return losses;
}

bool all_finite(const reference::Values& values) {
  return std::ranges::all_of(values, [](double v) { return std::isfinite(v); });
}

// From the same initial weights and in the same order of examples.
Losses in_double(const RunConfig& config, std::int64_t warmup, const Dataset& train) {
  const Network network = build_network(config, train.shape, train.classes);
  const std::vector<float> initial = initial_parameters(network, config.model, config.seed);
  const std::vector<std::uint32_t> order =
      epoch_order(config.seed, 0, static_cast<std::uint32_t>(train.size()));
  reference::Values w(initial.begin(), initial.end());
  reference::Values v(w.size(), 0.0);
  Losses losses;
  for (std::int64_t step = 0; step < updates && losses.non_finite < 0; ++step) {
    const auto size = static_cast<std::size_t>(config.data.batch_size);
    const Batch batch =
        batch_of(train, std::span(order).subspan(static_cast<std::size_t>(step) * size, size));
    reference::Values g(w.size(), 0.0);
    const double loss =
        reference::cross_entropy(network, w, config.data.batch_size, batch.images, batch.labels, g);
    const double rate =
        step < warmup ? base_rate * static_cast<double>(step + 1) / static_cast<double>(warmup)
                      : base_rate;
    for (std::size_t i = 0; i < w.size(); ++i) {
      v[i] = momentum * v[i] + g[i];
      w[i] -= rate * v[i];
    }
    losses.values.push_back(loss);
    if (!std::isfinite(loss) || !all_finite(g) || !all_finite(w)) losses.non_finite = step;
  }
  return losses;
}

TEST(DoublePrecision, TheGradientOfTheReferenceIsThatOfItsLoss) {
  const RunConfig config = sharp(0, 0);
  const Dataset data = load_dataset(config.data).train;
  const Network network = build_network(config, data.shape, data.classes);
  const std::vector<float> initial = initial_parameters(network, config.model, config.seed);
  const std::vector<std::uint32_t> examples = {0, 1, 2, 3};
  const Batch batch = batch_of(data, examples);
  const auto loss_at = [&](const reference::Values& w, reference::Values& gradient) {
    return reference::cross_entropy(network, w, 4, batch.images, batch.labels, gradient);
  };
  reference::Values w(initial.begin(), initial.end());
  reference::Values gradient(w.size(), 0.0);
  reference::Values not_used(w.size(), 0.0);
  loss_at(w, gradient);
  double largest = 0;
  for (const Parameter& p : network.parameters) {
    for (std::int64_t k = 0; k < p.size; k += 1 + p.size / 8) {
      constexpr double h = 1e-6;
      const auto i = static_cast<std::size_t>(p.offset + k);
      const double value = w[i];
      w[i] = value + h;
      const double above = loss_at(w, not_used);
      w[i] = value - h;
      const double below = loss_at(w, not_used);
      w[i] = value;
      EXPECT_NEAR(gradient[i], (above - below) / (2 * h), 1e-6) << p.offset << " + " << k;
      largest = std::max(largest, std::fabs(gradient[i]));
    }
  }
  EXPECT_GT(largest, 0.1);
}

TEST(DoublePrecision, DivergesWhereSinglePrecisionDoes) {
  const RunConfig first = sharp(0, 0);
  const Dataset train = load_dataset(first.data).train;
  const ResidentData data = load_data(first.data, shared_backend());
  int diverged = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    for (const std::int64_t warmup : {std::int64_t{0}, ramp}) {
      SCOPED_TRACE(fmt::format("seed {}, {} updates of warmup", seed, warmup));
      const RunConfig config = sharp(seed, warmup);
      const Losses single = in_fp32(config, data);
      const Losses reference = in_double(config, warmup, train);
      const std::int64_t explosion = reference.explosion();
      if (warmup > 0) {
        EXPECT_EQ(explosion, -1);
      }
      ASSERT_EQ(single.explosion() < 0, explosion < 0);
      ASSERT_EQ(single.non_finite < 0, explosion < 0);
      ASSERT_EQ(reference.non_finite < 0, explosion < 0);
      if (explosion < 0) continue;
      ++diverged;
      EXPECT_LE(std::abs(single.explosion() - explosion), 1);
      for (std::int64_t k = 0; k < std::min(single.explosion(), explosion); ++k) {
        EXPECT_NEAR(single.values[k] / reference.values[k], 1, 0.01) << "update " << k;
      }
      // A double has room for eight times the exponent, but each update multiplies the exponent.
      EXPECT_GE(reference.non_finite, single.non_finite);
      EXPECT_LE(reference.non_finite, 2 * single.non_finite);
    }
  }
  EXPECT_GE(diverged, 5);
}

}  // namespace
}  // namespace preheat
