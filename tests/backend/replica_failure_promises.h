// What every backend must guarantee of a replica that fails: what is kept when a number is no
// longer finite, and what is refused.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/replica_fixture.h"
#include "config/error.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

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
  for (const std::int64_t passes : {1, 2}) {
    const auto memory_with = [&](std::int64_t examples_per_pass) {
      config_.data.batch_size = passes * examples_per_pass;
      if (passes > 1) config_.data.micro_batch = examples_per_pass;
      return replica()->memory();
    };
    const MemoryUse small_batch = memory_with(4);
    const MemoryUse large_batch = memory_with(8);
    ReplicaOptions options = replica_options(config_, network_, schedule_);
    constexpr std::int64_t batch = std::int64_t{1} << 32;
    options.batch_size = passes * batch;
    if (passes > 1) options.micro_batch = batch;
    const std::size_t activations =
        small_batch.activations +
        (batch - 4) / 4 * (large_batch.activations - small_batch.activations);
    // The CPU also holds the initial weights, or packed ones.
    const std::size_t parameters =
        small_batch.parameters + (on_cpu() ? sizeof(float) * network_.arena_size : 0);
    try {
      backend_->require_memory(network_, options);
      FAIL() << "was let pass";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(),
                  HasSubstr(fmt::format("the network needs {} MiB and its activations {} MiB",
                                        parameters >> 20, activations >> 20)));
    }
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

}  // namespace
}  // namespace preheat
