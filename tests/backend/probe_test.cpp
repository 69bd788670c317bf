// The loss of a network as a function of its weights, and the outputs of its layers, against double
// precision.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "backend/reference_network.h"
#include "config/error.h"
#include "schedule/schedule.h"
#include "train/diagnostics.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

// An image of an odd size, a stride that does not divide it, batch norm, a residual, every
// activation.
constexpr const char* layers = R"(
data: {dataset: synthetic, batch_size: 7}
model:
  layers:
    - conv: {out: 3, activation: leaky_relu(0.1)}
    - conv: {out: 4, stride: 2, batch_norm: true}
    - residual_stage: {blocks: 1, out: 5, stride: 2}
    - conv: {out: 2, kernel: 1, activation: none}
    - linear: {out: 5}
schedule: {base_lr: 0.05, warmup: {length: 1 steps}}
train: {length: 2 steps}
)";

class ProbeTest : public testing::Test {
 protected:
  ProbeTest() {
    data_.shape = {9, 7, 2};
    data_.classes = 5;
    std::uniform_int_distribution<int> byte(0, 255);
    for (std::int64_t i = 0; i < examples * data_.shape.size(); ++i) {
      data_.pixels.push_back(static_cast<std::uint8_t>(byte(random_)));
    }
    for (std::int64_t i = 0; i < examples; ++i) {
      data_.labels.push_back(static_cast<std::uint8_t>(byte(random_) % 5));
    }
    network_ = build_network(config_, data_.shape, data_.classes);
    options_ = replica_options(config_, network_, resolve_schedule(config_, {2, 2}));
    options_.normalize = {{0.3, 0.6}, {0.2, 0.4}};
    options_.seed = seed_;
    resident_ = backend_->load(data_);
    weights_ = initial_parameters(network_, config_.model, seed_);
    std::normal_distribution<float> normal;
    for (const Parameter& p : network_.parameters) {
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
        weights_[i] += 0.1f * normal(random_);
      }
    }
  }

  reference::Values images(std::int64_t count) const {
    reference::Values values;
    for (std::int64_t i = 0; i < count * data_.shape.size(); ++i) {
      const auto& [mean, std] = options_.normalize;
      values.push_back((data_.pixels[i] / 255.0 - mean[i % 2]) / std[i % 2]);
    }
    return values;
  }

  // The mean loss over the first `count` examples.
  double loss(const reference::Values& weights, std::int64_t count) const {
    const reference::Values z = reference::logits(network_, weights, count, images(count));
    double sum = 0;
    for (std::int64_t n = 0; n < count; ++n) {
      double all = 0;
      for (int k = 0; k < 5; ++k) all += std::exp(z[5 * n + k]);
      for (int k = 0; k < 5; ++k) {
        const double hot = k == data_.labels[n] ? 1 : 0;
        if (options_.loss == Loss::mse) {
          sum += std::pow(z[5 * n + k] - hot, 2) / 2;
        } else {
          const double s = options_.label_smoothing;
          sum += (hot * (1 - s) + s / 5) * (std::log(all) - z[5 * n + k]);
        }
      }
    }
    return sum / static_cast<double>(count);
  }

  static constexpr std::int64_t examples = 23;
  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::unique_ptr<Backend> backend_ = make_backend(DeviceChoice::cpu);
  const RunConfig config_ = read_config(parse_document(layers, "probe.yaml"));
  Dataset data_;
  Network network_;
  ReplicaOptions options_;
  std::shared_ptr<ResidentDataset> resident_;
  std::vector<float> weights_;
};

TEST_F(ProbeTest, LossAndGradientAreThoseOfDouble) {
  for (const auto& [kind, smoothing, count] :
       {std::tuple{Loss::cross_entropy, 0.0, 13}, std::tuple{Loss::cross_entropy, 0.2, 23},
        std::tuple{Loss::mse, 0.0, 6}, std::tuple{Loss::cross_entropy, 0.0, 1000}}) {
    SCOPED_TRACE(fmt::format("seed {}, {} examples, {}", seed_, count, to_string(kind)));
    options_.loss = kind;
    options_.label_smoothing = smoothing;
    const auto probe = backend_->probe(network_, options_, resident_, count);
    const std::int64_t used = std::min<std::int64_t>(count, examples);
    std::vector<float> gradient(weights_.size());
    std::vector<bool> inside(weights_.size(), false);
    // A ReLU input within rounding of 0 may fall on the other side in double: retry with other
    // weights.
    double error = 1;
    for (int attempt = 0; attempt < 3 && error > 1e-4; ++attempt) {
      if (attempt > 0) {
        for (float& w : weights_) w *= std::uniform_real_distribution(0.99f, 1.01f)(random_);
      }
      reference::Values w(weights_.begin(), weights_.end());
      const double expected = loss(w, used);
      EXPECT_NEAR(probe->loss(weights_), expected, 1e-5 * expected);
      // Old contents are overwritten, the padding too.
      std::ranges::fill(gradient, 7.0f);
      EXPECT_EQ(probe->gradient(weights_, gradient), probe->loss(weights_));
      double largest = 0;
      double difference = 0;
      for (const Parameter& p : network_.parameters) {
        // All elements of a small tensor, some of a large one.
        const std::int64_t stride = std::max<std::int64_t>(1, p.size / 12);
        for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
          inside[i] = true;
          if ((i - p.offset) % stride != 0) continue;
          constexpr double step = 1e-6;
          const double kept = w[i];
          w[i] = kept + step;
          const double above = loss(w, used);
          w[i] = kept - step;
          const double slope = (above - loss(w, used)) / (2 * step);
          w[i] = kept;
          largest = std::max(largest, std::fabs(slope));
          difference = std::max(difference, std::fabs(gradient[i] - slope));
        }
      }
      error = difference / largest;
    }
    EXPECT_LE(error, 1e-4);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      if (!inside[i]) {
        EXPECT_EQ(gradient[i], 0) << "padding " << i;
      }
    }
  }
}

TEST_F(ProbeTest, DependsOnTheWeightsAlone) {
  const auto probe = backend_->probe(network_, options_, resident_, 13);
  std::vector<float> first(weights_.size());
  const double loss = probe->gradient(weights_, first);
  std::vector<float> other = weights_;
  for (float& v : other) v *= 3;
  std::vector<float> ignored(weights_.size());
  EXPECT_NE(probe->gradient(other, ignored), loss);
  std::vector<float> bad = weights_;
  bad[network_.parameters[0].offset] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(probe->gradient(bad, ignored)));
  std::vector<float> again(weights_.size());
  EXPECT_EQ(probe->gradient(weights_, again), loss);
  EXPECT_EQ(again, first);
  // Augmentation, weight decay and frozen parameters affect only a replica.
  ReplicaOptions more = options_;
  more.augment = {2, true};
  more.parameters.front().weight_decay = 1;
  more.stages.front().trained.front() = false;
  EXPECT_EQ(backend_->probe(network_, more, resident_, 13)->gradient(weights_, again), loss);
  EXPECT_EQ(again, first);
}

TEST_F(ProbeTest, OutputsAreThoseOfDouble) {
  const reference::Values w(weights_.begin(), weights_.end());
  for (const std::int64_t count : {13, 1000}) {
    SCOPED_TRACE(fmt::format("seed {}, {} examples", seed_, count));
    const std::int64_t used = std::min(count, examples);
    const auto probe = backend_->probe(network_, options_, resident_, count);
    std::vector<float> first(weights_.size());
    std::vector<float> again(weights_.size());
    const double loss = probe->gradient(weights_, first);
    const auto outputs = probe->outputs(weights_);
    EXPECT_EQ(probe->gradient(weights_, again), loss);
    EXPECT_EQ(again, first);
    EXPECT_EQ(probe->outputs(weights_), outputs);
    const auto expected = reference::outputs(network_, w, used, images(used));
    ASSERT_EQ(outputs.size(), expected.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      ASSERT_EQ(outputs[i].size(), expected[i].size()) << network_.ops[i].name;
      EXPECT_LE(reference::relative_difference(outputs[i], expected[i]), 1e-4)
          << network_.ops[i].name;
    }
  }
}

// As a probe of a dataset that begins there, and back again.
TEST_F(ProbeTest, IsOfTheExamplesThatItIsToldToUse) {
  SCOPED_TRACE(fmt::format("seed {}", seed_));
  constexpr std::int64_t count = 6;
  const auto probe = backend_->probe(network_, options_, resident_, count);
  for (const std::int64_t first : {5, 0, int{examples - count}, 1}) {
    Dataset rest = data_;
    rest.pixels.erase(rest.pixels.begin(), rest.pixels.begin() + first * data_.shape.size());
    rest.labels.erase(rest.labels.begin(), rest.labels.begin() + first);
    const auto other = backend_->probe(network_, options_, backend_->load(rest), count);
    probe->use(first);
    std::vector<float> gradient(weights_.size());
    std::vector<float> expected(weights_.size());
    EXPECT_EQ(probe->gradient(weights_, gradient), other->gradient(weights_, expected));
    EXPECT_EQ(gradient, expected) << first;
    EXPECT_EQ(probe->loss(weights_), other->loss(weights_));
    EXPECT_EQ(probe->outputs(weights_), other->outputs(weights_));
  }
  const double loss = probe->loss(weights_);
  for (const std::int64_t first : {-1, int{examples - count + 1}}) {
    EXPECT_THROW(probe->use(first), std::logic_error);
  }
  EXPECT_EQ(probe->loss(weights_), loss);  // of the batch before
}

// Without its bias the output of the first layer is proportional to its weights, and the batch norm
// of the second takes out the factor.
TEST_F(ProbeTest, OutputsFollowTheWeights) {
  const auto parameter = [&](const char* name) {
    const auto found = std::ranges::find(network_.parameters, name, &Parameter::name);
    return std::span(weights_).subspan(found->offset, found->size);
  };
  std::ranges::fill(parameter("0.conv.bias"), 0.0f);
  const auto probe = backend_->probe(network_, options_, resident_, 13);
  const auto before = probe->outputs(weights_);
  for (float& w : parameter("0.conv.weight")) w *= 2;
  const auto doubled = probe->outputs(weights_);
  EXPECT_NEAR(relative_change(before[0], doubled[0]), 1, 1e-6);
  EXPECT_LT(relative_change(before[1], doubled[1]), 0.01);
  for (float& w : parameter("1.conv.weight")) w = std::numeric_limits<float>::infinity();
  const auto broken = probe->outputs(weights_);
  EXPECT_EQ(relative_change(doubled[0], broken[0]), 0);
  EXPECT_TRUE(std::isnan(relative_change(doubled[1], broken[1])));
}

// That of a replica with as many examples in a pass, which has a velocity besides.
TEST_F(ProbeTest, SaysWhatMemoryItTakes) {
  for (const std::int64_t count : {1, 13}) {
    options_.batch_size = count;
    const MemoryUse replica = backend_->compile(network_, options_, weights_, resident_)->memory();
    const MemoryUse probe = backend_->probe(network_, options_, resident_, count)->memory();
    EXPECT_EQ(2 * replica.parameters, 3 * probe.parameters);
    EXPECT_EQ(probe.activations, replica.activations);
    EXPECT_EQ(probe.workspace, replica.workspace);
    EXPECT_EQ(probe.total(), probe.parameters + probe.activations + probe.workspace);
  }
}

class ActivationsTest : public ProbeTest {
 protected:
  // The layers' records after one step on the first batch, with the examples in order.
  std::vector<ActivationRecord> records() {
    const auto replica = backend_->compile(network_, options_, weights_, resident_);
    std::vector<std::uint32_t> order(examples);
    std::iota(order.begin(), order.end(), 0u);
    replica->set_epoch_order(order);
    replica->train(1);
    return replica->activations();
  }
};

TEST_F(ActivationsTest, AreThoseOfDouble) {
  // One channel of the first layer is dead: its activation is leaky, so its outputs are negative.
  // One of the second layer is held down by its batch norm.
  for (const Parameter& p : network_.parameters) {
    if (p.name == "0.conv.bias") weights_[p.offset + 1] = -100;
    if (p.name == "1.batch_norm.bias") weights_[p.offset + 2] = -100;
  }
  const std::vector<ActivationRecord> records = this->records();
  const auto outputs =
      reference::outputs(network_, {weights_.begin(), weights_.end()}, 7, images(7));
  ASSERT_EQ(records.size(), network_.ops.size());
  double dead_in_all = 0;
  for (std::size_t i = 0; i < records.size(); ++i) {
    SCOPED_TRACE(fmt::format("seed {}, op {}", seed_, network_.ops[i].name));
    EXPECT_EQ(records[i].layer, network_.ops[i].name);
    const auto channels = static_cast<std::size_t>(network_.ops[i].out.channels);
    double largest = 0;
    std::vector<bool> lives(channels, false);
    for (std::size_t k = 0; k < outputs[i].size(); ++k) {
      largest = std::max(largest, std::fabs(outputs[i][k]));
      if (outputs[i][k] > 0) lives[k % channels] = true;
    }
    const auto dead = static_cast<double>(std::ranges::count(lives, false));
    EXPECT_NEAR(records[i].largest, largest, 1e-4 * largest);
    EXPECT_EQ(records[i].dead, dead / static_cast<double>(channels));
    dead_in_all += dead;
  }
  EXPECT_GE(records[0].dead, 1.0 / 3);
  EXPECT_GT(records[0].largest, 5);
  EXPECT_GE(records[1].dead, 1.0 / 4);
  EXPECT_GE(dead_in_all, 2);
}

TEST_F(ActivationsTest, OneThatIsNotANumberMakesTheLargestNone) {
  for (const Parameter& p : network_.parameters) {
    if (p.name == "1.batch_norm.bias") {
      weights_[p.offset] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  const std::vector<ActivationRecord> records = this->records();
  EXPECT_TRUE(std::isfinite(records[0].largest));
  EXPECT_GT(records[0].largest, 0);
  EXPECT_TRUE(std::isnan(records.back().largest));
}

}  // namespace
}  // namespace preheat
