#include "train/diagnostics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <sstream>

#include "backend/reference_network.h"
#include "train/checkpoint.h"
#include "train/random_basis.h"
#include "train/replica_options.h"
#include "train/run_files.h"
#include "train/small_run.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// The layers are recorded every third update, the sharpness every fourth, the noise every sixth.
const std::vector<std::string> looking = {
    "diagnostics.layers_every=3 steps",
    "diagnostics.sharpness={every: 4 steps, examples: 50, tolerance: 0.05, iterations: 4}",
    "diagnostics.gradient_noise={every: 6 steps, batches: 3}"};

RunConfig looking_with(const std::vector<std::string>& settings) {
  std::vector<std::string> all = looking;
  all.insert(all.end(), settings.begin(), settings.end());
  return config_of(all);
}

const char* const files[] = {"layers.csv", "activations.csv", "sharpness.csv", "gradients.csv"};

TEST(Diagnostics, ChangeNoBitOfARun) {
  const TemporaryFolder folder;
  const std::vector<std::string> gate = {
      "schedule.warmup.until={train_error_below: 0.7, window: 3 steps}", "seed=4"};
  for (const std::vector<std::string>& more : {augmented, gate}) {
    run_into(folder / "without", config_of(more));
    run_into(folder / "with", looking_with(more));
    for (const char* file : {"metrics.csv", "eval.csv"}) {
      EXPECT_EQ(bytes_of(folder / "without" / file), bytes_of(folder / "with" / file));
    }
    const auto without = read_checkpoint(folder / "without/checkpoints/last.ckpt");
    const auto with = read_checkpoint(folder / "with/checkpoints/last.ckpt");
    for (const auto& [a, b] : {std::pair{&without.state.parameters, &with.state.parameters},
                               std::pair{&without.state.velocity, &with.state.velocity},
                               std::pair{&without.state.statistics, &with.state.statistics}}) {
      ASSERT_EQ(a->size(), b->size());
      for (std::size_t i = 0; i < a->size(); ++i) EXPECT_EQ((*a)[i].values, (*b)[i].values);
    }
    EXPECT_EQ(without.fingerprint, with.fingerprint);
    for (const char* file : files) EXPECT_FALSE(std::filesystem::exists(folder / "without" / file));
    std::filesystem::remove_all(folder / "without");
    std::filesystem::remove_all(folder / "with");
  }
}

TEST(Diagnostics, LookWhereTheyAreToldTo) {
  const TemporaryFolder folder;
  const RunResult result = run_into(folder / "run", looking_with({}));
  const LayerRows layers = read_layers(folder / "run/layers.csv");
  const ActivationRows activations = read_activations(folder / "run/activations.csv");
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  const Network network = build_network(config_of(), {28, 28, 1}, 10);
  ASSERT_EQ(layers.step.size(), 10 * network.parameters.size());
  for (std::size_t i = 0; i < layers.step.size(); ++i) {
    EXPECT_EQ(layers.step[i], 3.0 * static_cast<double>(i / network.parameters.size()));
    EXPECT_EQ(layers.parameter[i], network.parameters[i % network.parameters.size()].name);
  }
  ASSERT_EQ(activations.step.size(), 10 * network.ops.size());
  for (std::size_t i = 0; i < activations.step.size(); ++i) {
    EXPECT_EQ(activations.step[i], 3.0 * static_cast<double>(i / network.ops.size()));
    EXPECT_EQ(activations.layer[i], network.ops[i % network.ops.size()].name);
    EXPECT_GT(activations.largest[i], 0);
    EXPECT_GE(activations.dead[i], 0);
    EXPECT_LE(activations.dead[i], 1);
    EXPECT_GT(activations.change[i], 0);
    EXPECT_LT(activations.change[i], 1);
  }
  const GradientRows gradients = read_gradients(folder / "run/gradients.csv");
  const std::size_t tensors = network.parameters.size() + 1;
  ASSERT_EQ(gradients.step.size(), 5 * tensors);
  for (std::size_t i = 0; i < gradients.step.size(); ++i) {
    EXPECT_EQ(gradients.step[i], 6.0 * static_cast<double>(i / tensors));
    EXPECT_EQ(gradients.parameter[i],
              i % tensors == tensors - 1 ? whole_network : network.parameters[i % tensors].name);
    EXPECT_GT(gradients.noise[i], 0);
    if (gradients.signal[i] > 0) {
      EXPECT_DOUBLE_EQ(gradients.noise_scale[i], 32 * gradients.noise[i] / gradients.signal[i]);
    } else {
      EXPECT_TRUE(std::isnan(gradients.noise_scale[i]));
    }
  }
  EXPECT_THAT(s.step, testing::ElementsAre(0, 4, 8, 12, 16, 20, 24, 28));
  const auto metrics = read_metrics(folder / "run/metrics.csv");
  for (std::size_t i = 0; i < s.step.size(); ++i) {
    EXPECT_EQ(s.lr[i], metrics.lr[4 * i]);
    const bool checked = i == 0 || i == 7;  // the first, and the last of the run
    EXPECT_EQ(std::isnan(s.wide[i]), !checked);
    EXPECT_EQ(std::isnan(s.agrees[i]), !checked);
    EXPECT_EQ(std::isnan(s.random_direction[i]), !checked);
    EXPECT_EQ(s.gradients[i], 1 + s.iterations[i] + (checked ? 4 : 0));
    EXPECT_TRUE(s.iterations[i] >= 1 && s.iterations[i] <= 4);
  }
  EXPECT_EQ(result.initial_sharpness, s.sharpness.front());
  EXPECT_EQ(result.last_sharpness, s.sharpness.back());
  const auto summary = nlohmann::json::parse(bytes_of(folder / "run/summary.json"));
  EXPECT_EQ(summary.at("initial_sharpness"), s.sharpness.front());
  EXPECT_EQ(summary.at("last_sharpness"), s.sharpness.back());
}

// Of the weights before its update, on the configured examples, to the configured tolerance.
TEST(Diagnostics, MeasureTheSharpnessAtTheWeightsOfTheUpdate) {
  const TemporaryFolder folder;
  const RunConfig config = config_of(
      {"seed=5", "diagnostics.sharpness={every: 4 steps, examples: 50, tolerance: 0.05}"});
  run_into(folder / "run", config);
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  ASSERT_EQ(run_until(4, folder / "cut", config).steps, 4);
  const ReplicaState at_4 = read_checkpoint(folder / "cut/checkpoints/last.ckpt").state;

  const Dataset images = load_dataset(config.data).train;
  const Network network = build_network(config, images.shape, images.classes);
  const auto probe =
      shared_backend().probe(network, replica_options(config, network, schedule_of(config)),
                             shared_backend().load(images), 50);
  std::vector<float> weights = initial_parameters(network, config.model, 5);
  std::vector<float> direction = random_direction(network, 5);
  for (const std::size_t row : {0, 1}) {
    Hessian hessian([&](std::span<const float> at,
                        std::span<float> gradient) { probe->gradient(at, gradient); },
                    weights);
    const Sharpness expected = measure_sharpness(hessian, direction, 0.05, 30, false);
    EXPECT_EQ(s.sharpness[row], expected.value);
    EXPECT_EQ(s.residual[row], expected.residual);
    EXPECT_EQ(s.iterations[row], static_cast<double>(expected.iterations));
    for (std::size_t i = 0; i < network.parameters.size(); ++i) {
      std::ranges::copy(at_4.parameters[i].values, weights.begin() + network.parameters[i].offset);
    }
  }
}

// On the first images as they are, whatever the order and the augmentation of the run.
TEST(Diagnostics, MeasureTheChangeOfTheOutputsByTheUpdate) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = augmented;
  settings.insert(settings.end(), {"seed=5", "diagnostics.layers_every=3 steps"});
  const RunConfig config = config_of(settings);
  run_into(folder / "run", config);
  const ActivationRows activations = read_activations(folder / "run/activations.csv");

  const Dataset train = load_dataset(config.data).train;
  const Network network = build_network(config, train.shape, train.classes);
  const Normalize& normalize = facts(DatasetName::synthetic).normalize;
  reference::Values images;
  for (std::int64_t i = 0; i < 32 * train.shape.size(); ++i) {
    images.push_back((train.pixels[i] / 255.0 - normalize.mean[0]) / normalize.std[0]);
  }
  const auto outputs_at = [&](std::int64_t step) {
    const auto path = folder / fmt::format("cut-{}", step);
    EXPECT_EQ(run_until(step, path, config).steps, step);
    const ReplicaState state = read_checkpoint(path / "checkpoints/last.ckpt").state;
    reference::Values weights(network.arena_size, 0.0);
    for (std::size_t i = 0; i < network.parameters.size(); ++i) {
      std::ranges::copy(state.parameters[i].values, weights.begin() + network.parameters[i].offset);
    }
    return reference::outputs(network, weights, 32, images);
  };
  const auto before = outputs_at(3);
  const auto after = outputs_at(4);
  for (std::size_t i = 0; i < network.ops.size(); ++i) {
    const double expected = reference::relative_difference(after[i], before[i]);
    EXPECT_GT(expected, 1e-3) << network.ops[i].name;
    EXPECT_EQ(activations.step[network.ops.size() + i], 3);
    EXPECT_NEAR(activations.change[network.ops.size() + i], expected, 2e-3 * expected)
        << network.ops[i].name;
  }
}

// Of a linear network under mse, whose gradient at an image x with outputs z is (z - y) x^T and
// z - y: on the first images as they are, without weight decay.
TEST(Diagnostics, MeasureSignalAndNoiseOfTheFirstBatches) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = augmented;
  settings.insert(settings.end(), {"seed=5", "model.layers=[{linear: {out: 10}}]", "loss=mse",
                                   "optimizer.weight_decay=0.5", "optimizer.clip_norm=0.1",
                                   "schedule.base_lr=0.001",
                                   "diagnostics.gradient_noise={every: 6 steps, batches: 5}"});
  const RunConfig config = config_of(settings);
  run_into(folder / "run", config);
  const GradientRows rows = read_gradients(folder / "run/gradients.csv");
  ASSERT_EQ(rows.step.size(), 15u);
  ASSERT_EQ(run_until(6, folder / "cut", config).steps, 6);
  const ReplicaState at_6 = read_checkpoint(folder / "cut/checkpoints/last.ckpt").state;

  const Dataset train = load_dataset(config.data).train;
  const Network network = build_network(config, train.shape, train.classes);
  const Normalize& normalize = facts(DatasetName::synthetic).normalize;
  std::vector<float> weights = initial_parameters(network, config.model, 5);
  constexpr int batches = 5;
  constexpr int batch_size = 32;
  const auto inputs = static_cast<std::size_t>(train.shape.size());
  for (const std::size_t record : {0, 1}) {
    // By batch; the weights first, then the biases.
    std::vector<reference::Values> gradients(batches, reference::Values(10 * inputs + 10));
    for (std::size_t n = 0; n < batches * batch_size; ++n) {
      reference::Values& gradient = gradients[n / batch_size];
      reference::Values x;
      for (std::size_t i = 0; i < inputs; ++i) {
        x.push_back((train.pixels[n * inputs + i] / 255.0 - normalize.mean[0]) / normalize.std[0]);
      }
      for (std::size_t k = 0; k < 10; ++k) {
        const float* w = weights.data() + network.parameters[0].offset + k * inputs;
        double error = weights[network.parameters[1].offset + k] - (train.labels[n] == k ? 1 : 0);
        for (std::size_t i = 0; i < inputs; ++i) error += w[i] * x[i];
        for (std::size_t i = 0; i < inputs; ++i)
          gradient[k * inputs + i] += error * x[i] / batch_size;
        gradient[10 * inputs + k] += error / batch_size;
      }
    }
    // Weights, biases, all.
    const std::pair<std::size_t, std::size_t> ranges[] = {
        {0, 10 * inputs}, {10 * inputs, 10 * inputs + 10}, {0, 10 * inputs + 10}};
    for (std::size_t row = 0; row < 3; ++row) {
      SCOPED_TRACE(fmt::format("step {}, {}", rows.step[3 * record + row],
                               rows.parameter[3 * record + row]));
      double noise = 0;
      double square = 0;
      for (std::size_t k = ranges[row].first; k < ranges[row].second; ++k) {
        double mean = 0;
        for (const reference::Values& g : gradients) mean += g[k] / batches;
        for (const reference::Values& g : gradients)
          noise += std::pow(g[k] - mean, 2) / (batches - 1);
        square += mean * mean;
      }
      const double signal = square - noise / batches;
      EXPECT_EQ(rows.step[3 * record + row], 6.0 * static_cast<double>(record));
      EXPECT_NEAR(rows.noise[3 * record + row], noise, 1e-4 * noise);
      EXPECT_NEAR(rows.signal[3 * record + row], signal, 1e-4 * square);
    }
    for (std::size_t i = 0; i < network.parameters.size(); ++i) {
      std::ranges::copy(at_6.parameters[i].values, weights.begin() + network.parameters[i].offset);
    }
  }
}

TEST(Diagnostics, MeasureTheGradientOfFrozenLayersToo) {
  const TemporaryFolder folder;
  const std::string once = "diagnostics.gradient_noise.every=30 steps";
  run_into(folder / "free", looking_with({once}));
  run_into(folder / "frozen", looking_with({once, "train.stages=[{train_only: ['3.*']}]"}));
  EXPECT_EQ(bytes_of(folder / "free/gradients.csv"), bytes_of(folder / "frozen/gradients.csv"));
}

// Whose probe finds no memory is said, and how to do without.
TEST(Diagnostics, ThatDoNotFitIntoMemoryAreNamed) {
  class Full : public ForwardingBackend {
   public:
    std::unique_ptr<Probe> probe(const Network&, const ReplicaOptions&,
                                 std::shared_ptr<const ResidentDataset>, std::int64_t) override {
      throw OutOfMemory("out of memory: use fewer");
    }
  };
  Full backend;
  for (const auto& [settings, message] :
       {std::pair{looking[0],
                  "the change of the layers' outputs: out of memory: use fewer, or set "
                  "diagnostics.layers_every: null"},
        std::pair{looking[2],
                  "the noise of the gradient: out of memory: use fewer, or set "
                  "diagnostics.gradient_noise: null"}}) {
    const RunConfig config = config_of({settings});
    const ResidentData data = load_data(config.data, backend);
    try {
      const Trainer trainer(config, backend, data);
      FAIL() << "no error";
    } catch (const OutOfMemory& error) {
      EXPECT_STREQ(error.what(), message);
    }
  }
}

// Weights and gradients at least, of each kind's own.
TEST(Diagnostics, SayWhatMemoryTheyTake) {
  const ResidentData data = load_data(config_of().data, shared_backend());
  const auto memory = [&](const std::vector<std::string>& settings) {
    return Trainer(config_of(settings), shared_backend(), data).diagnostics_memory();
  };
  EXPECT_EQ(memory({}), 0u);
  const Network network = build_network(config_of(), data.shape, data.classes);
  std::size_t sum = 0;
  for (const std::string& one : looking) {
    const std::size_t bytes = memory({one});
    EXPECT_GT(bytes, 2 * sizeof(float) * static_cast<std::size_t>(network.parameter_count));
    sum += bytes;
  }
  EXPECT_EQ(memory(looking), sum);
}

TEST(Diagnostics, WhatOnlyFrozenLayersComputeDoesNotChange) {
  const TemporaryFolder folder;
  run_into(folder / "run", looking_with({"train.stages=[{train_only: ['3.*']}]"}));
  const ActivationRows activations = read_activations(folder / "run/activations.csv");
  ASSERT_EQ(activations.change.size(), 40u);
  for (std::size_t i = 0; i < activations.change.size(); ++i) {
    if (i % 4 == 3) {
      EXPECT_GT(activations.change[i], 0);
    } else {
      EXPECT_EQ(activations.change[i], 0);
    }
  }
}

TEST(RelativeChange, IsThatOfTheNorms) {
  using Values = std::vector<float>;
  EXPECT_DOUBLE_EQ(relative_change(Values{3, 0, -4}, Values{3, 3, -4}), 0.6);
  EXPECT_EQ(relative_change(Values{3, 0, -4}, Values{3, 0, -4}), 0);
  // The squares are beyond any float.
  EXPECT_NEAR(relative_change(Values{3e30f, 4e30f}, Values{3e30f, 1e30f}), 0.6, 1e-6);
  EXPECT_NEAR(relative_change(Values{3e-30f, 4e-30f}, Values{3e-30f, 1e-30f}), 0.6, 1e-6);
}

TEST(RelativeChange, DoesNotExistFromZeroOrOfWhatIsNotFinite) {
  using Values = std::vector<float>;
  for (const auto& [was, is] :
       {std::pair{Values{0, 0}, Values{0, 0}}, std::pair{Values{0, 0}, Values{1, 0}},
        std::pair{Values{1, 0}, Values{INFINITY, 0}}, std::pair{Values{INFINITY, 0}, Values{1, 0}},
        std::pair{Values{1, INFINITY}, Values{1, INFINITY}},
        std::pair{Values{1, 0}, Values{1, NAN}}, std::pair{Values{NAN, 0}, Values{1, 0}}}) {
    EXPECT_TRUE(std::isnan(relative_change(was, is))) << testing::PrintToString(std::pair(was, is));
  }
}

// Whatever the run trains with: what is logged before the first update follows from the network,
// the data, the seed and the settings of the measurement, which are the section's defaults without
// it.
TEST(Diagnostics, BeginAtTheSharpnessOfTheInitialWeights) {
  const TemporaryFolder folder;
  const auto at_start = [](const RunConfig& config) {
    const Dataset images = load_dataset(config.data).train;
    const Network network = build_network(config, images.shape, images.classes);
    return initial_sharpness(config, shared_backend(), network, schedule_of(config),
                             shared_backend().load(images));
  };
  const std::string few =
      "diagnostics.sharpness={every: 30 steps, examples: 50, tolerance: 1e-6, iterations: 4}";
  std::vector<double> logged;
  for (const std::string& settings :
       {few, std::string("diagnostics.sharpness={every: 30 steps}")}) {
    std::vector<std::string> all = augmented;
    all.insert(all.end(), {settings, "seed=3", "optimizer.weight_decay=0.1"});
    const RunResult run = run_into(folder / std::to_string(logged.size()), config_of(all));
    ASSERT_TRUE(run.initial_sharpness);
    logged.push_back(*run.initial_sharpness);
    const Sharpness found = at_start(config_of({settings, "seed=3", "schedule.base_lr=1"}));
    EXPECT_EQ(found.value, logged.back());
    EXPECT_TRUE(std::isnan(found.wide));
  }
  EXPECT_EQ(at_start(config_of({"seed=3"})).value, logged[1]);
  EXPECT_NE(logged[0], logged[1]);
  EXPECT_NE(at_start(config_of({"seed=4"})).value, logged[1]);
}

// The last measurement of a run is checked, also if the next would be due exactly at its end.
TEST(Diagnostics, TheLastOfARunIsChecked) {
  const TemporaryFolder folder;
  run_into(folder / "run", looking_with({"train.length=8 steps"}));
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  EXPECT_THAT(s.step, testing::ElementsAre(0, 4));
  EXPECT_TRUE(std::isfinite(s.wide.back()));
  EXPECT_TRUE(std::isfinite(s.random_direction.back()));
}

TEST(Diagnostics, EveryTwentiethMeasurementIsChecked) {
  const TemporaryFolder folder;
  run_into(folder / "run",
           looking_with({"train.length=43 steps", "diagnostics.sharpness.every=1 step"}));
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  std::vector<double> checked;
  for (std::size_t i = 0; i < s.step.size(); ++i) {
    if (!std::isnan(s.wide[i])) checked.push_back(s.step[i]);
  }
  EXPECT_THAT(checked, testing::ElementsAre(0, 20, 40, 42));
}

// A direction belongs to the network on which it was found.
TEST(Diagnostics, RefuseADirectionOfAnotherNetwork) {
  const TemporaryFolder folder;
  const RunConfig config = looking_with({});
  run_until(6, folder / "run", config);
  const auto path = folder / "run/checkpoints/last.ckpt";
  Checkpoint checkpoint = read_checkpoint(path);
  checkpoint.direction.at(1).name = "another";
  write_checkpoint(path, checkpoint);
  EXPECT_THAT(resume_error(folder / "run", config),
              testing::HasSubstr("the direction of the sharpness belongs to another network"));
}

// The norms over all parameters are the roots of the sums of the squared norms of each.
TEST(Diagnostics, OfTheLayersAddUpToTheMetrics) {
  const TemporaryFolder folder;
  run_into(folder / "run", looking_with({}));
  const LayerRows layers = read_layers(folder / "run/layers.csv");
  const Metrics metrics = read_metrics(folder / "run/metrics.csv");
  const std::size_t n = build_network(config_of(), {28, 28, 1}, 10).parameters.size();
  for (std::size_t look = 1; look < 10; ++look) {
    double update = 0;
    double weight = 0;
    double velocity = 0;
    for (std::size_t i = look * n; i < (look + 1) * n; ++i) {
      update += layers.update_norm[i] * layers.update_norm[i];
      weight += layers.weight_norm[i] * layers.weight_norm[i];
      velocity += layers.velocity_norm[i] * layers.velocity_norm[i];
    }
    const std::size_t step = 3 * look;
    EXPECT_NEAR(std::sqrt(update), metrics.update_norm[step], 1e-3 * metrics.update_norm[step]);
    EXPECT_NEAR(std::sqrt(weight), metrics.weight_norm[step - 1],
                1e-5 * metrics.weight_norm[step - 1]);
    EXPECT_NEAR(metrics.lr[step] * std::sqrt(velocity), metrics.update_norm[step],
                1e-3 * metrics.update_norm[step]);  // w -= lr v
  }
}

class ParameterRecords : public testing::Test {
 protected:
  // Weights or velocities: every tensor filled by value(tensor, place).
  template <class Value>
  std::vector<NamedTensor> tensors(const Value& value) const {
    std::vector<NamedTensor> result;
    for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
      const Parameter& p = network_.parameters[i];
      result.push_back({p.name, p.shape, {}});
      for (std::int64_t k = 0; k < p.size; ++k) {
        result.back().values.push_back(static_cast<float>(value(i, k)));
      }
    }
    return result;
  }
  std::vector<NamedTensor> random() {
    return tensors([&](std::size_t, std::int64_t) { return normal_(random_); });
  }
  std::vector<float> arena(const std::vector<NamedTensor>& tensors) const {
    std::vector<float> arena(network_.arena_size, 0.0f);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      std::ranges::copy(tensors[i].values, arena.begin() + network_.parameters[i].offset);
    }
    return arena;
  }

  const Network network_ = build_network(config_of(), {28, 28, 1}, 10);
  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::normal_distribution<double> normal_;
};

TEST_F(ParameterRecords, AreWhatLongDoubleSays) {
  ReplicaState before;
  ReplicaState after;
  before.step.step = 41;
  before.parameters = random();
  after.parameters = random();
  before.velocity = random();
  after.velocity = random();
  const std::vector<NamedTensor> initial = random();
  const auto records = parameter_records(network_, before, after, arena(initial));
  ASSERT_EQ(records.size(), network_.parameters.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    long double norms[5] = {};
    long double product = 0;
    for (std::size_t k = 0; k < before.parameters[i].values.size(); ++k) {
      const long double w = before.parameters[i].values[k];
      const long double now = after.parameters[i].values[k];
      const long double values[] = {w, now, after.velocity[i].values[k], now - w,
                                    now - initial[i].values[k]};
      for (int j = 0; j < 5; ++j) norms[j] += values[j] * values[j];
      product += w * now;
    }
    for (long double& n : norms) n = std::sqrt(n);
    const auto near = [](double value, long double expected) {
      EXPECT_NEAR(value, static_cast<double>(expected), 1e-12 * static_cast<double>(expected));
    };
    EXPECT_EQ(records[i].step, 41);
    EXPECT_EQ(records[i].parameter, network_.parameters[i].name);
    near(records[i].weight_norm, norms[0]);
    near(records[i].velocity_norm, norms[2]);
    near(records[i].update_norm, norms[3]);
    near(records[i].distance, norms[4]);
    const std::vector<std::int64_t>& shape = network_.parameters[i].shape;
    if (shape.size() == 1) {
      EXPECT_TRUE(std::isnan(records[i].stable_rank));
    } else {
      EXPECT_EQ(records[i].stable_rank, stable_rank(shape, before.parameters[i].values));
    }
    EXPECT_NEAR(
        records[i].angle,
        static_cast<double>(std::acos(product / norms[0] / norms[1]) * 180 / std::acos(-1.0L)),
        1e-9);
  }
}

// A rotation of two components, by angles from a large one down to what the arc cosine of a double
// cannot tell from zero.
TEST_F(ParameterRecords, KnowSmallAngles) {
  for (const double angle : {1.2, 1e-2, 1e-5, 1e-9, 1e-15}) {
    ReplicaState before;
    ReplicaState after;
    before.parameters = tensors([](std::size_t, std::int64_t k) { return k == 0 ? 3 : 0; });
    after.parameters = tensors([&](std::size_t, std::int64_t k) {
      return k == 0 ? 2 * std::cos(angle) : k == 1 ? 2 * std::sin(angle) : 0;
    });
    before.velocity = after.velocity = before.parameters;
    const auto records = parameter_records(network_, before, after, arena(before.parameters));
    const double degrees = angle * 180 / std::acos(-1.0);
    EXPECT_NEAR(records[0].angle, degrees, 1e-6 * degrees) << angle;
  }
}

TEST_F(ParameterRecords, HaveNoAngleWhereThereIsNoDirection) {
  ReplicaState zero;
  ReplicaState some;
  zero.parameters = zero.velocity = tensors([](std::size_t, std::int64_t) { return 0; });
  some.parameters = some.velocity = random();
  for (const auto& [before, after] :
       {std::pair{&zero, &some}, std::pair{&some, &zero}, std::pair{&zero, &zero}}) {
    for (const auto& r : parameter_records(network_, *before, *after, arena(zero.parameters))) {
      EXPECT_TRUE(std::isnan(r.angle));
      EXPECT_FALSE(std::isnan(r.update_norm));
    }
  }
  for (const auto& r : parameter_records(network_, some, some, arena(some.parameters))) {
    EXPECT_EQ(r.angle, 0);
    EXPECT_EQ(r.update_norm, 0);
    EXPECT_EQ(r.distance, 0);
  }
  some.parameters[0].values[1] = NAN;
  EXPECT_TRUE(
      std::isnan(parameter_records(network_, zero, some, arena(zero.parameters))[0].update_norm));
}

class StableRank : public testing::Test {
 protected:
  using Vectors = std::vector<std::vector<double>>;

  // The matrix with these singular values and random singular vectors, row by row.
  std::vector<float> matrix(const std::vector<double>& singular_values, std::int64_t rows,
                            std::int64_t columns) {
    const Vectors left = random_basis(random_, singular_values.size(), rows);
    const Vectors right = random_basis(random_, singular_values.size(), columns);
    std::vector<float> values;
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < columns; ++c) {
        double sum = 0;
        for (std::size_t k = 0; k < singular_values.size(); ++k) {
          sum += singular_values[k] * left[k][r] * right[k][c];
        }
        values.push_back(static_cast<float>(sum));
      }
    }
    return values;
  }

  static double rank(std::vector<std::int64_t> shape, const std::vector<float>& values) {
    return stable_rank(shape, values);
  }

  // Never too small, and with rare exceptions not too large.
  void expect_near(double rank, double expected) {
    EXPECT_GE(rank, std::max((1 - 2e-3) * expected, 1.0)) << "seed " << seed_;
    if (rank > 1.01 * expected) ++misses_;
    EXPECT_LE(misses_, 2) << "seed " << seed_ << ": " << rank << " for " << expected;
  }

  const unsigned seed_ = std::random_device{}();
  std::mt19937_64 random_{seed_};
  std::normal_distribution<double> normal_;
  int misses_ = 0;
};

TEST_F(StableRank, IsThatOfTheSingularValues) {
  std::uniform_real_distribution<double> share(0, 0.7);
  for (const auto& [rows, columns] : {std::pair{1, 7}, {7, 1}, {5, 5}, {16, 147}, {130, 33}}) {
    for (const double scale : {1.0, 1e-25, 1e20}) {  // squares of the last two are not in fp32
      std::vector<double> singular_values = {scale};
      while (std::ssize(singular_values) < std::min(rows, columns)) {
        singular_values.push_back(scale * share(random_));
      }
      double squares = 0;
      for (const double s : singular_values) squares += s * s;
      expect_near(rank({rows, columns}, matrix(singular_values, rows, columns)),
                  squares / (scale * scale));
    }
  }
}

// The rows of a convolution's weights are its output channels, whatever follows. Orthonormal rows
// have as many directions of one size as there are rows, copies of a row one.
TEST_F(StableRank, IsBetweenOneAndTheRank) {
  const std::vector<float> basis = matrix(std::vector<double>(6, 3.0), 6, 36);
  EXPECT_NEAR(rank({6, 3, 3, 4}, basis), 6, 1e-4);
  EXPECT_NEAR(rank({6, 36}, basis), 6, 1e-4);
  std::vector<float> copies;
  for (int i = 0; i < 6; ++i) copies.insert(copies.end(), basis.begin(), basis.begin() + 36);
  EXPECT_NEAR(rank({6, 3, 3, 4}, copies), 1, 1e-5);
}

// Random weights have many singular values just below the largest one.
TEST_F(StableRank, IsThatOfRandomWeights) {
  for (const auto& [rows, columns] : {std::pair{10, 128}, {32, 288}, {48, 48}, {130, 33}}) {
    for (int trial = 0; trial < 5; ++trial) {
      std::vector<float> w(static_cast<std::size_t>(rows * columns));
      for (float& x : w) x = static_cast<float>(normal_(random_));
      // Power iteration in double, which comes at worst within 0.871 ln(rows) / 2000 (Kuczynski and
      // Wozniakowski 1992).
      std::vector<double> v(columns);
      for (double& x : v) x = normal_(random_);
      double largest = 0;
      for (int i = 0; i < 2000; ++i) {
        std::vector<double> next(columns, 0.0);
        for (std::int64_t r = 0; r < rows; ++r) {
          const float* row = w.data() + r * columns;
          const double along = std::inner_product(row, row + columns, v.begin(), 0.0);
          for (std::int64_t c = 0; c < columns; ++c) next[c] += along * row[c];
        }
        largest = std::sqrt(std::inner_product(next.begin(), next.end(), next.begin(), 0.0));
        for (std::int64_t c = 0; c < columns; ++c) v[c] = next[c] / largest;
      }
      expect_near(rank({rows, columns}, w),
                  std::inner_product(w.begin(), w.end(), w.begin(), 0.0) / largest);
    }
  }
}

TEST_F(StableRank, IsNotANumberWhereThereIsNone) {
  EXPECT_TRUE(std::isnan(rank({6}, {1, 2, 3, 4, 5, 6})));
  EXPECT_TRUE(std::isnan(rank({2, 3}, std::vector<float>(6, 0.0f))));
  EXPECT_TRUE(std::isnan(rank({2, 3}, {1, 2, 3, NAN, 5, 6})));
  EXPECT_TRUE(std::isnan(rank({2, 3}, {1, 2, 3, INFINITY, 5, 6})));
}

class ResumedDiagnostics : public testing::Test {
 protected:
  ResumedDiagnostics() { run_into(folder_ / "whole", config_); }
  TemporaryFolder folder_;
  const RunConfig config_ = looking_with({"train.checkpoint_every=7 steps"});
};

TEST_F(ResumedDiagnostics, HaveTheSameFilesHoweverTheRunWasCut) {
  // Before and at a record, between two, and where both kinds are due.
  for (const std::int64_t stop : {1, 3, 4, 5, 9, 12, 23}) {
    SCOPED_TRACE(stop);
    const auto path = folder_ / std::to_string(stop);
    ASSERT_TRUE(run_until(stop, path, config_).interrupted);
    resume_in(path, config_);
    expect_same_run(folder_ / "whole", path);
  }
  // Interrupted twice.
  const auto path = folder_ / "twice";
  StopAfter first(2);
  run_into(path, config_, first.listener);
  StopAfter second(13);
  resume_in(path, config_, false, second.listener);
  resume_in(path, config_);
  expect_same_run(folder_ / "whole", path);
}

// At each gradient of the first measurement, which is before update 0, of one that is not checked,
// and of the last.
TEST_F(ResumedDiagnostics, HaveTheSameFilesWhereASharpnessWasBeingMeasured) {
  const SharpnessRows whole = read_sharpness(folder_ / "whole/sharpness.csv");
  for (const std::size_t k : {std::size_t{0}, std::size_t{2}, whole.step.size() - 1}) {
    const auto at = static_cast<std::int64_t>(whole.step[k]);
    for (int gradients = 0; gradients < whole.gradients[k]; ++gradients) {
      SCOPED_TRACE(fmt::format("update {}, {} gradients", at, gradients));
      const auto path = folder_ / fmt::format("{}-{}", at, gradients);
      std::int64_t done = 0;
      int asked = 0;
      RunListener listener;
      listener.on_records = [&](std::span<const StepRecord> r) { done = r.back().step + 1; };
      listener.wants_stop = [&] {
        if (done < at) return false;
        const int after_the_burst = at > 0 ? 1 : 0;
        return asked++ >= after_the_burst + gradients;
      };
      const RunResult cut = run_into(path, config_, listener);
      ASSERT_TRUE(cut.interrupted);
      EXPECT_EQ(cut.steps, at);
      EXPECT_EQ(rows_of(path / "metrics.csv").size(), 1u + static_cast<std::size_t>(at));
      const bool has_rows = std::filesystem::exists(path / "sharpness.csv");
      EXPECT_EQ(has_rows ? read_sharpness(path / "sharpness.csv").step.size() : 0, k);
      EXPECT_FALSE(resume_in(path, config_).interrupted);
      expect_same_run(folder_ / "whole", path);
    }
  }
}

TEST_F(ResumedDiagnostics, HaveTheSameFilesAfterACrash) {
  for (const char* torn : {"18,0.co", "21,0.conv.weight,1,1,1,1,1,1\n24,", "\n18,3,"}) {
    const auto path = folder_ / "crashed";
    crash_after(18, path, config_);
    ASSERT_EQ(read_checkpoint(path / "checkpoints/last.ckpt").state.step.step, 14);
    ASSERT_EQ(read_sharpness(path / "sharpness.csv").step.back(), 16);
    ASSERT_EQ(read_layers(path / "layers.csv").step.back(), 18);
    if (torn[0] != '\n') std::ofstream(path / "layers.csv", std::ios::app) << torn;
    std::ofstream(path / "activations.csv", std::ios::app) << "18,0.co";
    std::ofstream(path / "gradients.csv", std::ios::app) << "24,0.conv.weight,1,1";
    std::ofstream(path / "sharpness.csv", std::ios::app) << "16,0.1,5,5,0.1,3,6,1,0.1\n20,0.1";
    resume_in(path, config_);
    expect_same_run(folder_ / "whole", path);
    std::filesystem::remove_all(path);
  }
}

// Files of older runs lack the last column: where they are continued, it is not a number before.
TEST_F(ResumedDiagnostics, ContinueTheFilesOfAnOlderRun) {
  const auto path = folder_ / "older";
  run_until(13, path, config_);
  const auto without_last_column = [](const std::string& text) {
    std::string cut;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      cut += line.substr(0, line.rfind(',')) + "\n";
    }
    return cut;
  };
  for (const char* file : {"layers.csv", "activations.csv"}) {
    put_bytes(path / file, without_last_column(bytes_of(path / file)));
  }
  resume_in(path, config_);
  const LayerRows layers = read_layers(path / "layers.csv");
  const ActivationRows activations = read_activations(path / "activations.csv");
  const LayerRows whole = read_layers(folder_ / "whole/layers.csv");
  ASSERT_EQ(layers.step, whole.step);
  EXPECT_EQ(layers.distance, whole.distance);
  const auto is_nan = [](double x) { return std::isnan(x); };
  for (std::size_t i = 0; i < layers.step.size(); ++i) {
    const bool is_new = layers.step[i] > 12;
    EXPECT_EQ(is_nan(layers.stable_rank[i]), !is_new || is_nan(whole.stable_rank[i]));
  }
  ASSERT_EQ(activations.step.size(), activations.change.size());
  for (std::size_t i = 0; i < activations.step.size(); ++i) {
    EXPECT_EQ(is_nan(activations.change[i]), activations.step[i] <= 12);
  }
}

// A file that was just being made has no header yet, or half of one.
TEST_F(ResumedDiagnostics, AHeaderThatWasBeingWrittenIsNoObstacle) {
  const RunConfig late = looking_with({"diagnostics.layers_every=10 steps"});
  run_into(folder_ / "late", late);
  for (const std::size_t kept : {0, 9}) {
    const auto path = folder_ / fmt::format("kept-{}", kept);
    run_until(1, path, config_of());
    for (const char* file : files)
      put_bytes(path / file, std::string("step,parameter").substr(0, kept));
    put_bytes(path / "activations.csv", std::string(activations_header).substr(0, kept));
    put_bytes(path / "sharpness.csv", std::string(sharpness_header).substr(0, kept));
    EXPECT_EQ(resume_error(path, late), "");
    resume_in(path, late);
    EXPECT_EQ(read_layers(path / "layers.csv").step.front(), 10);
    EXPECT_EQ(read_sharpness(path / "sharpness.csv").step.front(), 4);
    EXPECT_EQ(read_gradients(path / "gradients.csv").step.front(), 6);
  }
}

TEST_F(ResumedDiagnostics, DamagedFilesAreNamed) {
  const auto path = folder_ / "run";
  run_until(13, path, config_);
  for (const char* file : files) {
    const std::string good = bytes_of(path / file);
    put_bytes(path / file, good.substr(5));
    EXPECT_THAT(resume_error(path, config_), AllOf(HasSubstr(file), HasSubstr("has no header")));
    std::string damaged = good;
    damaged[damaged.find(',', damaged.find("\n12,"))] = ';';  // all have rows of update 12
    put_bytes(path / file, damaged);
    EXPECT_THAT(resume_error(path, config_), AllOf(HasSubstr(file), HasSubstr(": is damaged")));
    put_bytes(path / file, good);
  }
  EXPECT_EQ(resume_error(path, config_), "");
}

// Diagnostics do not change a run: they may begin, and end, where a run is resumed.
TEST_F(ResumedDiagnostics, MayBeginAndEndOnTheWay) {
  run_until(13, folder_ / "begins", config_of({"train.checkpoint_every=7 steps"}));
  const RunResult begun = resume_in(folder_ / "begins", config_);
  EXPECT_FALSE(begun.initial_sharpness);
  EXPECT_TRUE(begun.last_sharpness);
  EXPECT_EQ(read_layers(folder_ / "begins/layers.csv").step.front(), 15);
  EXPECT_EQ(read_gradients(folder_ / "begins/gradients.csv").step.front(), 18);
  EXPECT_EQ(bytes_of(folder_ / "begins/metrics.csv"), bytes_of(folder_ / "whole/metrics.csv"));
  StopAfter another(13);
  run_into(folder_ / "ends", config_, another.listener);
  const RunResult ended =
      resume_in(folder_ / "ends", config_of({"train.checkpoint_every=7 steps"}));
  EXPECT_TRUE(ended.initial_sharpness);
  EXPECT_EQ(read_layers(folder_ / "ends/layers.csv").step.back(), 12);
  EXPECT_EQ(read_gradients(folder_ / "ends/gradients.csv").step.back(), 12);
  EXPECT_EQ(bytes_of(folder_ / "ends/metrics.csv"), bytes_of(folder_ / "whole/metrics.csv"));
}

TEST(Diagnostics, OfARunThatDivergesEndWithIt) {
  const TemporaryFolder folder;
  const RunConfig config = config_of({"schedule.base_lr=1e12", "schedule.warmup.length=0 steps",
                                      "diagnostics.layers_every=1 steps",
                                      "diagnostics.sharpness={every: 1 steps, examples: 20}",
                                      "diagnostics.gradient_noise={every: 1 steps, batches: 2}"});
  const RunResult result = run_into(folder / "run", config);
  ASSERT_EQ(result.outcome, Outcome::non_finite);
  const auto last = static_cast<double>(*result.first_non_finite_step);
  const LayerRows layers = read_layers(folder / "run/layers.csv");
  const ActivationRows activations = read_activations(folder / "run/activations.csv");
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  EXPECT_EQ(layers.step.back(), last);
  EXPECT_EQ(activations.step.back(), last);
  EXPECT_EQ(s.step.back(), last);
  EXPECT_EQ(read_gradients(folder / "run/gradients.csv").step.back(), last);
  for (const char* file : files) {
    const std::string text = bytes_of(folder / "run" / file);
    EXPECT_TRUE(text.ends_with('\n'));
    EXPECT_THAT(text, testing::Not(HasSubstr("-nan")));
  }
  // JSON has no NaN.
  const auto summary = nlohmann::json::parse(bytes_of(folder / "run/summary.json"));
  EXPECT_EQ(summary.at("initial_sharpness"), s.sharpness.front());
}

// First the disk is full, then there is a folder in place of the file.
TEST(Diagnostics, ThatCannotBeWrittenAreAnErrorThatNamesTheFile) {
  for (const char* file : files) {
    const TemporaryFolder folder;
    const RunConfig config = looking_with({});
    Trainer trainer = trainer_of(config);
    RunFolder run(folder / "run", config);
    std::filesystem::create_symlink("/dev/full", folder / "run" / file);
    try {
      trainer.run({}, &run);
      FAIL() << file;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(file), HasSubstr("cannot be written")));
    }
    std::filesystem::remove(folder / "run" / file);
    std::filesystem::create_directory(folder / "run" / file);
    try {
      trainer_of(config).run({}, &run);
      FAIL() << file;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("cannot be written"));
    }
  }
}

}  // namespace
}  // namespace preheat
