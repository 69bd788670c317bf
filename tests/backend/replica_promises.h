// What every backend must guarantee of its replicas.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "backend/backend.h"
#include "config/error.h"
#include "data/epoch_order.h"
#include "same_state.h"
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

ReplicaState without_velocity(ReplicaState state) {
  for (NamedTensor& t : state.velocity) t.values.assign(t.values.size(), 0.0f);
  return state;
}

TEST_P(ReplicaBits, SameSeedSameBitsHoweverTheUpdatesAreGrouped) {
  auto a = replica();
  auto b = replica();
  a->set_epoch_order(order());
  b->set_epoch_order(order());
  a->train(10);
  for (const int n : {1, 4, 2, 3}) {
    b->train(n);
    b->evaluate(*test_);  // must not affect the training
  }
  EXPECT_TRUE(same(a->save(), b->save()));
  const auto x = a->drain();
  const auto y = b->drain();
  ASSERT_EQ(x.size(), 10u);
  ASSERT_EQ(y.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(x[i].step, i);
    EXPECT_EQ(x[i].loss, y[i].loss);
    EXPECT_EQ(x[i].grad_norm, y[i].grad_norm);
    expect_rate(x[i].lr, lr_at(schedule_.lr, i));
  }
  EXPECT_TRUE(a->drain().empty());
}

TEST_P(ReplicaBits, SavedStateGoesOnToTheSameBits) {
  auto whole = replica();
  whole->set_epoch_order(order());
  whole->train(10);
  whole->set_epoch_order(order(1));
  whole->train(10);

  auto first = replica();
  first->set_epoch_order(order());
  first->train(6);
  auto second = replica();
  second->load(first->save());
  second->set_epoch_order(order());
  second->train(4);
  second->set_epoch_order(order(1));
  second->train(10);
  EXPECT_TRUE(same(whole->save(), second->save()));
}

TEST_P(ReplicaTest, ALoadedStateBringsNoRecordsOfEarlierUpdates) {
  auto r = replica();
  const ReplicaState start = r->save();
  train(*r, 0, 2);
  r->train(3);
  r->load(start);
  EXPECT_TRUE(r->drain().empty());
  const std::vector<StepRecord> records = train(*r, 0, 2);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].step, 0);
  EXPECT_EQ(records[1].step, 1);
}

// For a batch too large for any machine. The expected figures are extrapolated from two small ones.
TEST_P(ReplicaBits, TheMemoryThatIsAskedForIsWhatIsTaken) {
  use(R"(
data: {dataset: synthetic, batch_size: 4, train_limit: 40}
model:
  layers:
    - conv: {out: 8, batch_norm: true}
    - max_pool
    - conv: {out: 16, kernel: 1}
    - max_pool: {kernel: 3}
    - linear: {out: 6000, activation: relu}
    - linear: {out: 10}
)");
  const MemoryUse small_batch = replica()->memory();
  config_.data.batch_size *= 2;
  const MemoryUse large_batch = replica()->memory();
  constexpr std::int64_t batch = std::int64_t{1} << 32;
  const std::size_t activations =
      small_batch.activations +
      (batch - 4) / 4 * (large_batch.activations - small_batch.activations);
  // The CPU also holds the initial weights, or packed ones, besides the three arenas.
  const std::size_t parameters = small_batch.parameters * (on_cpu() ? 4 : 3) / 3;
  try {
    backend_->require_memory(network_, batch, config_.train.precision);
    FAIL() << "was let pass";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(),
                HasSubstr(fmt::format("the network needs {} MiB and its activations {} MiB",
                                      parameters >> 20, activations >> 20)));
  }
}

TEST_P(ReplicaTest, TheStepCounterDecidesTheRate) {
  auto r = replica();
  ReplicaState state = r->save();
  for (const std::int64_t step : {3, 0, 21, 6}) {
    state.step.step = step;
    state.step.lr = static_cast<float>(lr_at(schedule_.lr, step));
    r->load(state);
    const auto records = train(*r, step, step + 2);
    ASSERT_EQ(records.size(), 2u);
    EXPECT_EQ(records[0].step, step);
    EXPECT_EQ(records[0].lr, static_cast<float>(lr_at(schedule_.lr, step)));
    expect_rate(records[1].lr, lr_at(schedule_.lr, step + 1));
    expect_rate(r->save().step.lr, lr_at(schedule_.lr, step + 2));
  }
}

TEST_P(ReplicaTest, RecordsAreWhatTheUpdateDid) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(3);
  const ReplicaState before = r->save();
  r->drain();
  r->train(1);
  const StepRecord record = r->drain().at(0);
  const ReplicaState after = r->save();
  double moved = 0;
  double weight = 0;
  for (std::size_t i = 0; i < after.parameters.size(); ++i) {
    for (std::size_t k = 0; k < after.parameters[i].values.size(); ++k) {
      const double w = after.parameters[i].values[k];
      moved += std::pow(w - double{before.parameters[i].values[k]}, 2);
      weight += w * w;
    }
  }
  EXPECT_NEAR(record.update_norm / std::sqrt(moved), 1, 1e-4);  // the difference is rounded
  expect_norm(record.weight_norm, std::sqrt(weight));
  EXPECT_GT(record.grad_norm, 0);
  EXPECT_TRUE(record.finite);
}

TEST_P(ReplicaTest, EvaluationCountsTheLastShortBatchOnceAndIsTheSameForEveryBatchSize) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(5);
  const ReplicaState state = r->save();
  const Evaluation a = r->evaluate(*test_);  // 7 batches of 8, and 4
  EXPECT_EQ(a.examples, test_data_.size());
  for (const int batch : {9, 25, 80}) {
    config_.data.batch_size = batch;
    auto other = replica();
    other->load(state);
    const Evaluation b = other->evaluate(*test_);
    EXPECT_EQ(b.examples, a.examples);
    EXPECT_NEAR(static_cast<double>(b.correct), static_cast<double>(a.correct), on_cpu() ? 0 : 2);
    EXPECT_NEAR(b.loss / a.loss, 1, 1e-5) << batch;
  }
}

TEST_P(ReplicaTest, AfterAStepThatIsNotFiniteNothingMoves) {
  auto r = replica();
  ReplicaState state = r->save();
  // Close to the largest float, so that the first convolution overflows.
  state.parameters[0].values.assign(state.parameters[0].values.size(), 3e38f);
  r->load(state);
  r->set_epoch_order(order());
  r->train(5);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_FALSE(records[0].finite);
  const ReplicaState after = r->save();
  EXPECT_EQ(after.step.first_non_finite, 0);
  EXPECT_EQ(after.step.step, 0);
  for (std::size_t i = 0; i < state.parameters.size(); ++i) {
    EXPECT_EQ(after.parameters[i].values, state.parameters[i].values);
    EXPECT_EQ(after.velocity[i].values, state.velocity[i].values);
  }
  EXPECT_EQ(r->first_non_finite_tensor(), "activation of 0");
  r->train(3);
  EXPECT_TRUE(r->drain().empty());
}

// Weights, velocities and gradients are finite, and so is the new velocity; only the weight that it
// moves at this rate is not.
TEST_P(ReplicaTest, AnOverflowInTheUpdateItselfIsFound) {
  use(R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model: {layers: [linear: {out: 8}, linear: {out: 8}, linear: {out: 10}]}
optimizer: {momentum: 0.5}
schedule: {base_lr: 4, warmup: {length: 0 steps}, decay: {shape: constant}}
train: {length: 20 steps}
)");
  auto r = replica();
  ReplicaState state = r->save();
  ASSERT_EQ(state.velocity[2].name, "1.linear.weight");
  state.velocity[2].values[3] = std::numeric_limits<float>::max();
  r->load(state);
  r->set_epoch_order(order());
  r->train(3);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_TRUE(std::isfinite(records[0].loss));
  EXPECT_TRUE(std::isfinite(records[0].grad_norm));
  EXPECT_FALSE(records[0].finite);
  const ReplicaState after = r->save();
  EXPECT_EQ(after.step.first_non_finite, 0);
  EXPECT_EQ(after.step.step, 0);
  EXPECT_EQ(r->first_non_finite_tensor(), "1.linear.weight");
  for (const NamedTensor& t : after.velocity) {
    for (const float v : t.values) ASSERT_TRUE(std::isfinite(v)) << t.name;
  }
  for (const NamedTensor& t : after.parameters) {
    const auto lost = std::ranges::count_if(t.values, [](float v) { return !std::isfinite(v); });
    EXPECT_EQ(lost, t.name == "1.linear.weight" ? 1 : 0) << t.name;
  }
}

TEST_P(ReplicaTest, MisuseIsALogicError) {
  auto r = replica();
  EXPECT_THROW(r->train(1), std::logic_error);  // no order yet
  EXPECT_THROW(r->set_epoch_order(std::vector<std::uint32_t>(3)), std::logic_error);
  r->set_epoch_order(order());
  EXPECT_THROW(r->train(11), std::logic_error);  // an epoch has 10 updates
  EXPECT_THROW(r->time_parts(11), std::logic_error);
  r->train(10);
  EXPECT_EQ(r->drain().size(), 10u);            // nothing was done before the refusals
  EXPECT_THROW(r->train(1), std::logic_error);  // the order is of the epoch before

  class Elsewhere : public ResidentDataset {
    std::int64_t size() const override { return 100; }
  };
  const auto elsewhere = std::make_shared<Elsewhere>();
  const ReplicaOptions options = replica_options(config_, network_, schedule_);
  EXPECT_THROW(r->evaluate(*elsewhere), std::logic_error);
  EXPECT_THROW(backend_->probe(network_, options, elsewhere, 10), std::logic_error);
  train_ = elsewhere;
  EXPECT_THROW(replica(), std::logic_error);
}

TEST_P(ReplicaTest, AStateOfAnotherNetworkIsRefusedByTensor) {
  auto r = replica();
  const auto message = [&](ReplicaState state) -> std::string {
    try {
      r->load(state);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const ReplicaState good = r->save();
  ReplicaState state = good;
  state.parameters[3].shape[0] += 1;
  EXPECT_THAT(message(state), HasSubstr(good.parameters[3].name));
  state = good;
  state.velocity.pop_back();
  EXPECT_THAT(message(state), HasSubstr(good.velocity.back().name));
  state = good;
  state.statistics[0].name = "other";
  EXPECT_THAT(message(state), HasSubstr("other"));
  EXPECT_EQ(message(good), "");
}

// One stage of a run, as configured, and the name prefixes of the parameters it trains.
struct Frozen {
  const char* stage;
  std::vector<std::string> trained;
};
const Frozen frozen_stages[] = {
    {"{train_only: ['4.*']}", {"4."}},                            // the output layer
    {"{train_only: ['2.*']}", {"2."}},                            // in the middle
    {"{train_only: ['0.*', '3.*', '4.*']}", {"0.", "3.", "4."}},  // all but the middle
    {"{train_only: ['?.conv.weight']}",
     {"0.conv.weight", "3.conv.weight"}},  // not the residual stage's
    {"{train_only: ['*.shortcut.*', '0.batch_norm.bias']}",
     {"2.block0.shortcut.", "0.batch_norm.bias"}},
};

TEST_P(ReplicaTest, FrozenParametersKeepTheirBitsWhileOthersMove) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = lived_in(2);
  for (const auto& [stage, trained] : frozen_stages) {
    SCOPED_TRACE(stage);
    auto r =
        replica_with({fmt::format("train.stages=[{}]", stage), "train.length=3 epochs"}, &before);
    train(*r, 2, 5);
    const ReplicaState after = r->save();
    for (std::size_t i = 0; i < before.parameters.size(); ++i) {
      const std::string& name = before.parameters[i].name;
      const bool moves = starts_with_one_of(name, trained);
      EXPECT_EQ(after.parameters[i].values != before.parameters[i].values, moves) << name;
      EXPECT_EQ(after.velocity[i].values != before.velocity[i].values, moves) << name;
    }
  }
}

TEST_P(ReplicaTest, TrainedParametersGetTheUpdateTheyWouldGetWithoutFreezing) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = lived_in(2);
  auto whole = replica_with({}, &before);
  const StepRecord expected_record = train(*whole, 2, 3).at(0);
  const ReplicaState expected = whole->save();
  for (const auto& [stage, trained] : frozen_stages) {
    SCOPED_TRACE(stage);
    auto r =
        replica_with({fmt::format("train.stages=[{}]", stage), "train.length=3 epochs"}, &before);
    const StepRecord record = train(*r, 2, 3).at(0);
    EXPECT_EQ(record.loss, expected_record.loss);
    EXPECT_EQ(record.correct, expected_record.correct);
    const ReplicaState after = r->save();
    for (std::size_t i = 0; i < after.parameters.size(); ++i) {
      const std::string& name = after.parameters[i].name;
      if (!starts_with_one_of(name, trained)) continue;
      EXPECT_EQ(after.parameters[i].values, expected.parameters[i].values) << name;
      EXPECT_EQ(after.velocity[i].values, expected.velocity[i].values) << name;
    }
    // Frozen batch norms still update their statistics, as in training.
    for (std::size_t i = 0; i < after.statistics.size(); ++i) {
      EXPECT_EQ(after.statistics[i].values, expected.statistics[i].values);
      EXPECT_NE(after.statistics[i].values, before.statistics[i].values);
    }
  }
}

TEST_P(ReplicaTest, NormsAreOfTheParametersInTrainingAndOfAllWeights) {
  SCOPED_TRACE(seed_);
  // From zero velocity and without decay, the velocity after an update is its gradient.
  const ReplicaState before = without_velocity(lived_in(2));
  for (const auto& [stage, trained] : frozen_stages) {
    SCOPED_TRACE(stage);
    auto r = replica_with({fmt::format("train.stages=[{}]", stage), "train.length=3 epochs",
                           "optimizer.weight_decay=0"},
                          &before);
    const StepRecord first = train(*r, 2, 3).at(0);
    const ReplicaState after = r->save();
    double gradient = 0;
    for (const NamedTensor& v : after.velocity) {
      if (starts_with_one_of(v.name, trained)) gradient += squared_sum(v.values);
    }
    EXPECT_GT(gradient, 0);
    expect_norm(first.grad_norm, std::sqrt(gradient));
    EXPECT_NEAR(first.update_norm / (double{first.lr} * std::sqrt(gradient)), 1, 1e-6);
    expect_norm(first.weight_norm, weight_norm(after));
    const StepRecord second = train(*r, 3, 4).at(0);
    expect_norm(second.weight_norm, weight_norm(r->save()));
  }
}

TEST_P(ReplicaTest, AStageBeginsWithTheVelocityThereIsOrWithNone) {
  const std::string kept = "train.stages=[{length: 5 steps, train_only: ['4.*']}, {}]";
  const std::string fresh =
      "train.stages=[{length: 5 steps, train_only: ['4.*']}, {velocity: fresh}]";
  const std::string length = "train.length=3 epochs";
  auto with_kept = replica_with({kept, length});
  train(*with_kept, 0, 5);
  const ReplicaState at_boundary = with_kept->save();
  EXPECT_GT(squared_sum(values_of(at_boundary.velocity, "4.linear.weight")), 0);
  train(*with_kept, 5, 6);
  auto with_fresh = replica_with({fresh, length});
  train(*with_fresh, 0, 5);
  ASSERT_TRUE(same(with_fresh->save(), at_boundary));  // no effect before a stage begins
  train(*with_fresh, 5, 6);

  const ReplicaState cleared = without_velocity(at_boundary);
  auto whole = replica_with({}, &at_boundary);
  train(*whole, 5, 6);
  EXPECT_TRUE(same(with_kept->save(), whole->save()));
  whole = replica_with({}, &cleared);
  train(*whole, 5, 6);
  EXPECT_TRUE(same(with_fresh->save(), whole->save()));
  EXPECT_FALSE(same(with_fresh->save(), with_kept->save()));

  // The velocity is cleared only at the boundary, also in a run that was saved and loaded there.
  train(*with_fresh, 6, 8);
  train(*whole, 6, 8);
  EXPECT_TRUE(same(with_fresh->save(), whole->save()));
  const ReplicaState later = with_fresh->save();
  with_fresh->load(at_boundary);  // a second time in one replica
  train(*with_fresh, 5, 8);
  EXPECT_TRUE(same(with_fresh->save(), later));
  auto resumed = replica_with({fresh, length}, &at_boundary);
  train(*resumed, 5, 8);
  EXPECT_TRUE(same(resumed->save(), later));
  train(*with_fresh, 8, 12);
  resumed = replica_with({fresh, length}, &later);
  train(*resumed, 8, 12);
  EXPECT_TRUE(same(resumed->save(), with_fresh->save()));
}

TEST_P(ReplicaTest, StagesThatTrainEverythingAreAsNoStages) {
  auto whole = replica_with({});
  const auto expected = train(*whole, 0, 14);
  auto staged = replica_with(
      {"train.stages=[{length: 3 steps}, {length: 9 steps}, {}]", "train.length=3 epochs"});
  const auto records = train(*staged, 0, 14);
  EXPECT_TRUE(same(staged->save(), whole->save()));
  ASSERT_EQ(records.size(), expected.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].weight_norm, expected[i].weight_norm);
    EXPECT_EQ(records[i].grad_norm, expected[i].grad_norm);
  }
}

TEST_P(ReplicaTest, TheCurveRunsOnOverTheBoundariesOfStages) {
  auto r = replica_with({"train.length=3 epochs",
                         "train.stages=[{length: 4 steps, train_only: ['4.*']}, {length: 13 steps, "
                         "velocity: fresh, train_only: ['2.*'], frozen_batch_norm: fixed}, {}]"});
  const Schedule plain = [&] {
    const RunConfig config = read_config(parse_document(small, "plain"));
    return resolve_schedule(config, {30, 10});
  }();
  const auto records = train(*r, 0, 30);
  ASSERT_EQ(records.size(), 30u);
  for (std::int64_t k = 0; k < 30; ++k) {
    EXPECT_EQ(records[k].step, k);
    expect_rate(records[k].lr, lr_at(plain.lr, k));
    EXPECT_EQ(records[k].phase, k < 7 ? 0 : 1) << k;
  }
}

TEST_P(ReplicaTest, AStageIsNotTrainedPast) {
  auto r = replica_with({"train.length=3 epochs", "train.stages=[{length: 5 steps}, {}]"});
  r->set_epoch_order(order());
  EXPECT_THROW(r->train(6), std::logic_error);
  r->train(5);
  r->train(5);
  EXPECT_EQ(r->drain().size(), 10u);
}

TEST_P(ReplicaTest, AFrozenBatchNormWithFixedStatisticsIsTheOneOfEvaluation) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = lived_in(4);
  const std::vector<std::string> settings = {
      "train.length=3 epochs", "train.stages=[{train_only: ['4.*'], frozen_batch_norm: fixed}]"};
  auto r = replica_with(settings, &before);
  // The batch of the next update, as a dataset to evaluate.
  Dataset batch{train_data_.shape, train_data_.classes, {}, {}};
  const std::vector<std::uint32_t> examples = order();
  const std::int64_t size = config_.data.batch_size;
  for (std::int64_t i = 4 * size; i < 5 * size; ++i) {
    const auto begin = train_data_.pixels.begin() + examples[i] * train_data_.shape.size();
    batch.pixels.insert(batch.pixels.end(), begin, begin + train_data_.shape.size());
    batch.labels.push_back(train_data_.labels[examples[i]]);
  }
  const Evaluation expected = r->evaluate(*backend_->load(batch));
  const StepRecord record = train(*r, 4, 5).at(0);
  expect_norm(record.loss, expected.loss);
  EXPECT_EQ(record.correct, expected.correct);
  train(*r, 5, 8);
  const ReplicaState after = r->save();
  for (std::size_t i = 0; i < after.statistics.size(); ++i) {
    EXPECT_EQ(after.statistics[i].values, before.statistics[i].values);
  }
  EXPECT_NE(values_of(after.parameters, "4.linear.weight"),
            values_of(before.parameters, "4.linear.weight"));

  auto with_update = replica_with(
      {"train.length=3 epochs", "train.stages=[{train_only: ['4.*'], frozen_batch_norm: update}]"},
      &before);
  EXPECT_GT(std::fabs(train(*with_update, 4, 5).at(0).loss / expected.loss - 1), 1e-3);
}

// Without batch norm, training and evaluation compute the same loss. At a mean of 0 the padding is
// the pixel 0.
TEST_P(ReplicaTest, AnImageIsCroppedAndFlippedAsSeedEpochAndExampleSay) {
  use(R"(
seed: 3
data:
  dataset: synthetic
  batch_size: 32
  train_limit: 320
  normalize: {mean: [0], std: [0.5]}
  augment: {crop_padding: 2, flip: true}
model: {layers: [conv: {out: 8}, max_pool, linear: {out: 10}]}
schedule: {base_lr: 0.05, warmup: {length: 7 steps}}
train: {length: 3 epochs}
)");
  auto r = replica();
  train(*r, 0, 10);
  // The first batch of epoch 1, as a dataset to evaluate.
  Dataset batch{train_data_.shape, train_data_.classes, {}, {}};
  const auto [height, width, channels] = train_data_.shape;
  ASSERT_EQ(channels, 1);
  const std::vector<std::uint32_t> examples = order(1);
  for (std::int64_t i = 0; i < 32; ++i) {
    const CropFlip crop = crop_flip(3, 1, examples[i], 2, true);
    const std::uint8_t* image = train_data_.pixels.data() + examples[i] * height * width;
    for (std::int64_t y = crop.dy; y < height + crop.dy; ++y) {
      for (std::int64_t column = 0; column < width; ++column) {
        const std::int64_t x = (crop.flip ? width - 1 - column : column) + crop.dx;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        batch.pixels.push_back(inside ? image[y * width + x] : std::uint8_t{0});
      }
    }
    batch.labels.push_back(train_data_.labels[examples[i]]);
  }
  const Evaluation expected = r->evaluate(*backend_->load(batch));
  const StepRecord record = train(*r, 10, 11).at(0);
  expect_norm(record.loss, expected.loss);
  EXPECT_EQ(record.correct, expected.correct);
}

TEST_P(ReplicaTest, FixedStatisticsAreThoseOfBatchNormsThatStandStillWhileTheyDo) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = lived_in(2);
  auto r = replica_with(
      {"train.length=3 epochs",
       "train.stages=[{length: 4 steps, train_only: ['2.block0.first.*', '*.conv.weight'], "
       "frozen_batch_norm: fixed}, {}]"},
      &before);
  train(*r, 2, 4);
  const ReplicaState after = r->save();
  for (std::size_t i = 0; i < after.statistics.size(); ++i) {
    const std::string& name = after.statistics[i].name;
    EXPECT_EQ(after.statistics[i].values != before.statistics[i].values,
              name.starts_with("2.block0.first."))
        << name;
  }
  train(*r, 4, 5);  // in the next stage
  const ReplicaState next = r->save();
  for (std::size_t i = 0; i < next.statistics.size(); ++i) {
    EXPECT_NE(next.statistics[i].values, after.statistics[i].values) << next.statistics[i].name;
  }
}

TEST_P(ReplicaTest, GroupsSetRateAndDecayByParameter) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = without_velocity(lived_in(2));
  // From zero velocity and without decay, the velocity after an update is its gradient.
  auto plain = replica_with({"optimizer.weight_decay=0"}, &before);
  train(*plain, 2, 3);
  const std::vector<NamedTensor> gradients = plain->save().velocity;

  auto r = replica_with({"optimizer.weight_decay=0.02",
                         "optimizer.groups=[{match: '*.bias', lr_scale: 2.5, weight_decay: 0.3}, "
                         "{match: '2.block0.*', lr_scale: 0.5}, {match: 4.linear.weight, lr_scale: "
                         "0}, {match: '?.conv.weight', weight_decay: 0}]"},
                        &before);
  const float lr = train(*r, 2, 3).at(0).lr;
  const ReplicaState after = r->save();
  struct Rule {
    const char* name;
    double lr_scale;
    double decay;
  };
  const Rule rules[] = {
      {"0.conv.weight", 1, 0},
      {"0.batch_norm.weight", 1, 0},  // in no group, and not decayed by default
      {"0.batch_norm.bias", 2.5, 0.3},
      {"2.block0.first.conv.weight", 0.5, 0.02},
      {"2.block0.first.batch_norm.weight", 0.5, 0},
      {"2.block0.first.batch_norm.bias", 2.5, 0.3},  // matches two groups
      {"2.block0.shortcut.conv.weight", 0.5, 0.02},
      {"2.block0.shortcut.batch_norm.weight", 0.5, 0},
      {"2.block0.shortcut.batch_norm.bias", 2.5, 0.3},
      {"2.block0.second.conv.weight", 0.5, 0.02},
      {"2.block0.second.batch_norm.weight", 0.5, 0},
      {"2.block0.second.batch_norm.bias", 2.5, 0.3},
      {"3.conv.weight", 1, 0},
      {"3.conv.bias", 2.5, 0.3},
      {"4.linear.weight", 0, 0.02},
      {"4.linear.bias", 2.5, 0.3},
  };
  ASSERT_EQ(std::size(rules), network_.parameters.size());
  for (const auto& [name, lr_scale, decay] : rules) {
    SCOPED_TRACE(name);
    const auto& w = values_of(before.parameters, name);
    const auto& g = values_of(gradients, name);
    const auto& v = values_of(after.velocity, name);
    const auto& moved = values_of(after.parameters, name);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const double decayed = double{g[i]} + decay * double{w[i]};
      const double size = std::fabs(double{g[i]}) + decay * std::fabs(double{w[i]});
      EXPECT_NEAR(v[i], decayed, 3e-7 * size);
      const double taken = double{lr} * lr_scale * decayed;
      EXPECT_NEAR(moved[i], double{w[i]} - taken,
                  1e-7 * std::fabs(double{w[i]}) + 1e-6 * double{lr} * size);
    }
    EXPECT_EQ(moved != w, lr_scale != 0);
    EXPECT_GT(squared_sum(v), 0);
  }
}

TEST_P(ReplicaTest, AClippedUpdateIsTheGradientsDirectionAtTheNormThatIsAllowed) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = without_velocity(lived_in(2));
  const std::vector<std::string> plain = {"optimizer.momentum=0", "optimizer.weight_decay=0",
                                          "train.length=3 epochs"};
  for (const char* stage : {"{}", "{train_only: ['3.*', '4.*']}"}) {
    SCOPED_TRACE(stage);
    std::vector<std::string> settings = plain;
    settings.push_back(fmt::format("train.stages=[{}]", stage));
    auto unclipped = replica_with(settings, &before);
    const StepRecord whole = train(*unclipped, 2, 3).at(0);
    const ReplicaState gradients = unclipped->save();  // as velocities
    ASSERT_GT(whole.grad_norm, 0.05);

    const double clip = 0.0123;
    settings.push_back(fmt::format("optimizer.clip_norm={}", clip));
    auto clipped = replica_with(settings, &before);
    const StepRecord record = train(*clipped, 2, 3).at(0);
    EXPECT_NEAR(record.update_norm / (double{record.lr} * clip), 1, 1e-6);
    expect_norm(record.grad_norm, whole.grad_norm);  // recorded before clipping
    EXPECT_EQ(record.lr, whole.lr);
    const ReplicaState after = clipped->save();
    for (std::size_t i = 0; i < after.parameters.size(); ++i) {
      for (std::size_t k = 0; k < after.parameters[i].values.size(); ++k) {
        const double w = before.parameters[i].values[k];
        const double g = gradients.velocity[i].values[k];
        const double taken = double{record.lr} * clip / whole.grad_norm * g;
        EXPECT_NEAR(after.parameters[i].values[k], w - taken,
                    1e-7 * std::fabs(w) + 1e-6 * std::fabs(taken));
      }
    }
  }
}

TEST_P(ReplicaTest, ANormThatIsNotReachedClipsNothing) {
  auto plain = replica_with({});
  auto clipped = replica_with({"optimizer.clip_norm=1e6"});
  const auto expected = train(*plain, 0, 12);
  const auto records = train(*clipped, 0, 12);
  EXPECT_TRUE(same(clipped->save(), plain->save()));
  ASSERT_EQ(records.size(), 12u);
  for (int i = 0; i < 12; ++i) expect_norm(records[i].grad_norm, expected[i].grad_norm);
}

// Zero weights in the first layer make the logits zero, and huge ones above it make the gradient
// overflow in the backward pass: the loss is ln 10, and only the gradient shows the failure.
TEST_P(ReplicaTest, AGradientThatIsNotFiniteIsNotClippedToOneThatIs) {
  const std::string yaml = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model: {layers: [linear: {out: 8}, linear: {out: 8}, linear: {out: 10}]}
schedule: {base_lr: 0.01, warmup: {length: 0 steps}}
train: {length: 20 steps}
)";
  const auto state_of = [](const Replica& r) {
    ReplicaState state = r.save();
    for (NamedTensor& t : state.parameters) {
      const float value = t.name == "0.linear.weight" ? 0.0f : 1e25f;
      if (t.name.ends_with(".weight")) {
        for (float& v : t.values) v = std::copysign(value, v);
      }
    }
    return state;
  };
  use(yaml, {"optimizer.clip_norm=1"});
  auto r = replica();
  const ReplicaState before = state_of(*r);
  r->load(before);
  r->set_epoch_order(order());
  r->train(3);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_NEAR(records[0].loss, std::log(10.0), 1e-6);
  EXPECT_FALSE(std::isfinite(records[0].grad_norm));
  EXPECT_FALSE(records[0].finite);
  expect_huge_norm(records[0].weight_norm, weight_norm(before));
  const ReplicaState after = r->save();
  EXPECT_EQ(after.step.first_non_finite, 0);
  for (std::size_t i = 0; i < after.parameters.size(); ++i) {
    EXPECT_EQ(after.parameters[i].values, before.parameters[i].values);
    EXPECT_EQ(after.velocity[i].values, before.velocity[i].values);
  }
  EXPECT_EQ(r->first_non_finite_tensor(), "gradient of 0.linear.bias");

  // If only the last layer trains, that gradient is not computed.
  use(yaml, {"optimizer.clip_norm=1", "train.stages=[{train_only: ['2.*']}]"});
  r = replica();
  r->load(before);
  r->set_epoch_order(order());
  r->train(3);
  EXPECT_EQ(r->drain().size(), 3u);
  EXPECT_EQ(r->save().step.first_non_finite, -1);

  // If the loss is not finite, the weight norm still covers all weights, the frozen ones included.
  ReplicaState lost = before;
  for (const int i : {0, 2})
    lost.parameters[i].values.assign(lost.parameters[i].values.size(), 1e25f);
  r->load(lost);
  r->set_epoch_order(order());
  r->train(3);
  const auto last = r->drain();
  ASSERT_EQ(last.size(), 1u);
  EXPECT_FALSE(last[0].finite);
  expect_huge_norm(last[0].weight_norm, weight_norm(lost));
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

TEST_P(ReplicaTest, TheNormOfAnUpdateIsHowFarTheWeightsMove) {
  for (const char* form : {"separate", "folded"}) {
    for (const char* nesterov : {"false", "true"}) {
      SCOPED_TRACE(fmt::format("{}, nesterov {}", form, nesterov));
      auto r = replica_with({fmt::format("optimizer.momentum_form={}", form),
                             fmt::format("optimizer.nesterov={}", nesterov)});
      train(*r, 0, 5);
      const ReplicaState before = r->save();
      const StepRecord record = train(*r, 5, 6).at(0);
      EXPECT_NEAR(record.update_norm / distance(r->save(), before), 1, 1e-3);
    }
  }
}

TEST_P(ReplicaTest, FoldedMomentumIsTheSeparateFormWhereItIsCorrected) {
  const std::string ramp =
      "schedule={base_lr: 0.02, warmup: {length: 20 steps, start_lr: 0.0005}, decay: {shape: "
      "cosine, final_factor: 0.1}}";
  for (const char* nesterov : {"optimizer.nesterov=false", "optimizer.nesterov=true"}) {
    SCOPED_TRACE(nesterov);
    const std::vector<std::string> common = {ramp, nesterov};
    const auto run = [&](std::vector<std::string> settings) {
      settings.insert(settings.end(), common.begin(), common.end());
      auto r = replica_with(settings);
      train(*r, 0, 30);
      return r->save();
    };
    const ReplicaState start = replica_with(common)->save();
    const ReplicaState separate = run({});
    const ReplicaState folded = run({"optimizer.momentum_form=folded"});
    const ReplicaState corrected =
        run({"optimizer.momentum_form=folded", "optimizer.momentum_correction=true"});
    const double travelled = distance(separate, start);
    EXPECT_LT(distance(corrected, separate), 1e-4 * travelled);
    EXPECT_GT(distance(folded, separate), 1e-2 * travelled);
    // v is lr_t times the velocity of the separate form, t being the last update.
    const double lr = corrected.step.previous_lr;
    EXPECT_NEAR(std::sqrt(squared_sum(values_of(corrected.velocity, "4.linear.weight"))) /
                    (lr * std::sqrt(squared_sum(values_of(separate.velocity, "4.linear.weight")))),
                1, 1e-3);
  }
}

TEST_P(ReplicaTest, ACorrectedRunThatIsSavedGoesOnToTheSameBits) {
  const std::vector<std::string> settings = {
      "schedule={base_lr: 0.02, warmup: {length: 20 steps, start_lr: 0.0005}}",
      "optimizer.momentum_form=folded", "optimizer.momentum_correction=true"};
  auto whole = replica_with(settings);
  train(*whole, 0, 20);
  auto first = replica_with(settings);
  train(*first, 0, 13);
  ReplicaState state = first->save();
  expect_rate(state.step.previous_lr, lr_at(schedule_.lr, 12));
  auto second = replica_with(settings, &state);
  train(*second, 13, 20);
  EXPECT_TRUE(same(second->save(), whole->save()));
  state.step.previous_lr *= 0.5f;  // the rate that the correction divides by
  auto other = replica_with(settings, &state);
  train(*other, 13, 20);
  EXPECT_NE(other->save().parameters[0].values, whole->save().parameters[0].values);
}

TEST_P(ReplicaTest, TheGateOpensAtTheUpdateThatTheHitsImply) {
  const std::vector<std::string> settings = {
      "data={dataset: synthetic, batch_size: 32}",
      "model.layers=[{max_pool: {kernel: 4}}, {linear: {out: 10}}]", "train.length=90 steps",
      "train.eval_every=90 steps",
      "schedule={base_lr: 0.05, warmup: {length: 70 steps, until: {train_error_below: 0.8, window: "
      "9 steps}}}"};
  auto r = replica_with(settings);
  r->set_epoch_order(order());
  r->train(90);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 90u);
  std::int64_t opened = -1;
  for (std::int64_t u = 9; u < 70 && opened < 0; ++u) {
    std::int64_t hits = 0;
    for (std::int64_t k = u - 9; k < u; ++k) hits += records[k].correct;
    if (1 - static_cast<double>(hits) / (9 * 32) < 0.8) opened = u;
  }
  ASSERT_GT(opened, 12) << "too early to tell";
  ASSERT_LT(opened, 65) << "too late to tell";
  EXPECT_EQ(r->save().step.gate_opened_at, opened);
  for (std::int64_t k = 0; k < 90; ++k) {
    EXPECT_EQ(records[k].phase, k < opened ? 0 : 1) << k;
    expect_rate(records[k].lr, lr_at(schedule_.lr, k, k < opened ? -1 : opened));
  }
  EXPECT_GT(records[opened].lr, 1.01f * static_cast<float>(lr_at(schedule_.lr, opened)));

  // Saved while the window fills, while it slides, and just before and after the gate opens.
  for (const std::int64_t at : {std::int64_t{4}, opened - 3, opened - 1, opened, opened + 1}) {
    SCOPED_TRACE(at);
    auto first = replica_with(settings);
    first->set_epoch_order(order());
    first->train(at);
    const ReplicaState state = first->save();
    auto second = replica_with(settings, &state);
    second->set_epoch_order(order());
    second->train(90 - at);
    EXPECT_TRUE(same(second->save(), r->save()));
  }
}

// A single hit opens this gate once its window is full, and the first updates have some.
TEST_P(ReplicaTest, TheGateWaitsForAFullWindow) {
  auto r =
      replica_with({"schedule={base_lr: 0.05, warmup: {length: 10 steps, until: "
                    "{train_error_below: 1, window: 6 steps}}}"});
  const auto records = train(*r, 0, 10);
  ASSERT_EQ(records.size(), 10u);
  EXPECT_GT(records[0].correct + records[1].correct + records[2].correct, 0);
  EXPECT_EQ(r->save().step.gate_opened_at, 6);
  for (const StepRecord& record : records) EXPECT_EQ(record.phase, record.step < 6 ? 0 : 1);
}

}  // namespace
}  // namespace preheat
