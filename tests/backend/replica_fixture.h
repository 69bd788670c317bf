// The replicas that every backend's promises are tested on, and what their tests compare.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <ostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "data/epoch_order.h"
#include "schedule/schedule.h"
#include "settings.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

using testing::HasSubstr;

// An epoch is 10 updates.
constexpr const char* small = R"(
data: {dataset: synthetic, batch_size: 8, train_limit: 80}
model:
  layers:
    - conv: {out: 8, batch_norm: true}
    - max_pool
    - residual_stage: {blocks: 1, out: 12, stride: 2}
    - conv: {out: 6, activation: leaky_relu(0.1)}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3}
schedule: {base_lr: 0.05, warmup: {length: 7 steps}}
train: {length: 3 epochs}
)";

struct Subject {
  DeviceChoice device;
  const char* precision;
  std::string (*no_device)() = nullptr;  // why there is no such device; "" if there is one
};
void PrintTo(const Subject& subject, std::ostream* out) {
  *out << subject.precision;
}

class ReplicaFixture : public testing::Test {
 protected:
  void begin(const Subject& subject) {
    const std::string reason = subject.no_device == nullptr ? "" : subject.no_device();
    if (!reason.empty()) GTEST_SKIP() << reason;
    backend_ = make_backend(subject.device);
    precision_ = subject.precision;
    use(small);
  }

  void use(const std::string& yaml, const std::vector<std::string>& settings = {}) {
    const Document document =
        with_settings(parse_document(yaml, "test.yaml"), {"train.precision=" + precision_});
    config_ = read_config(with_settings(document, settings));
    TrainTest data = load_dataset(config_.data);
    keep_first(data.test, 60);
    train_data_ = data.train;
    train_ = backend_->load(data.train);
    test_data_ = data.test;
    test_ = backend_->load(data.test);
    network_ = build_network(config_, data.train.shape, data.train.classes);
    schedule_ =
        resolve_schedule(config_, run_length(config_, train_->size() / config_.data.batch_size));
  }

  std::unique_ptr<Replica> replica() const {
    const ReplicaOptions options = replica_options(config_, network_, schedule_);
    return backend_->compile(network_, options,
                             initial_parameters(network_, config_.model, config_.seed), train_);
  }

  // A replica of the small network with these settings, at step 0 or in `state`.
  std::unique_ptr<Replica> replica_with(const std::vector<std::string>& settings,
                                        const ReplicaState* state = nullptr) {
    use(small, settings);
    auto r = replica();
    if (state != nullptr) r->load(*state);
    return r;
  }

  std::vector<std::uint32_t> order(std::uint32_t epoch = 0) const {
    return epoch_order(config_.seed, epoch, static_cast<std::uint32_t>(train_->size()));
  }

  // Trains updates from .. to - 1 of the run, one at a time, and returns their records.
  std::vector<StepRecord> train(Replica& r, std::int64_t from, std::int64_t to) const {
    for (std::int64_t step = from; step < to; ++step) {
      if (step == from || step % 10 == 0) {
        r.set_epoch_order(order(static_cast<std::uint32_t>(step / 10)));
      }
      r.train(1);
    }
    return r.drain();
  }

  // The state after `steps` updates with these settings, plus noise on weights and velocity so that
  // none of them is zero.
  ReplicaState lived_in(std::int64_t steps, const std::vector<std::string>& settings = {}) {
    auto r = replica_with(settings);
    train(*r, 0, steps);
    ReplicaState state = r->save();
    std::mt19937 random(seed_);
    std::normal_distribution<float> normal;
    for (auto* tensors : {&state.parameters, &state.velocity}) {
      for (NamedTensor& t : *tensors) {
        for (float& v : t.values) v += 0.05f * normal(random);
      }
    }
    return state;
  }

  bool on_cpu() const { return backend_->name() == "cpu"; }

  // Norms are summed in double; on a GPU the terms are floats.
  void expect_norm(double norm, double expected) const {
    EXPECT_NEAR(norm / expected, 1, on_cpu() ? 1e-12 : 1e-6);
  }

  // For values whose squares overflow a float, the type in which a GPU squares them.
  void expect_huge_norm(double norm, double expected) const {
    if (on_cpu()) {
      expect_norm(norm, expected);
    } else {
      EXPECT_TRUE(std::isinf(norm)) << norm;
    }
  }

  // A GPU has its own math library, so rates agree only to rounding.
  void expect_rate(float lr, double expected) const {
    if (on_cpu()) {
      EXPECT_EQ(lr, static_cast<float>(expected));
    } else {
      EXPECT_FLOAT_EQ(lr, static_cast<float>(expected));
    }
  }

  std::unique_ptr<Backend> backend_;
  std::string precision_;
  const unsigned seed_ = std::random_device{}();
  RunConfig config_;
  Dataset train_data_;
  Dataset test_data_;
  std::shared_ptr<ResidentDataset> train_;
  std::shared_ptr<ResidentDataset> test_;
  Network network_;
  Schedule schedule_;
};

// ReplicaTest holds in fp32; ReplicaBits, about equal bits, in every precision. A test program
// instantiates both suites with each of its backends.
class ReplicaTest : public ReplicaFixture, public testing::WithParamInterface<Subject> {
 protected:
  void SetUp() override { begin(GetParam()); }
};
class ReplicaBits : public ReplicaTest {};

const std::vector<float>& values_of(const std::vector<NamedTensor>& tensors,
                                    const std::string& name) {
  for (const NamedTensor& t : tensors) {
    if (t.name == name) return t.values;
  }
  throw std::logic_error("no tensor " + name);
}

bool starts_with_one_of(const std::string& name, const std::vector<std::string>& starts) {
  return std::ranges::any_of(starts, [&](const std::string& s) { return name.starts_with(s); });
}

double squared_sum(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * double{v};
  return sum;
}

double weight_norm(const ReplicaState& state) {
  double sum = 0;
  for (const NamedTensor& t : state.parameters) sum += squared_sum(t.values);
  return std::sqrt(sum);
}

double distance(const ReplicaState& a, const ReplicaState& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    for (std::size_t k = 0; k < a.parameters[i].values.size(); ++k) {
      sum += std::pow(double{a.parameters[i].values[k]} - double{b.parameters[i].values[k]}, 2);
    }
  }
  return std::sqrt(sum);
}

ReplicaState without_velocity(ReplicaState state) {
  for (NamedTensor& t : state.velocity) t.values.assign(t.values.size(), 0.0f);
  return state;
}

}  // namespace
}  // namespace preheat
