// What every backend must guarantee of an update in several passes over the network.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "backend/replica_fixture.h"
#include "same_state.h"

namespace preheat {
namespace {

// `state`, with a loss scale at which no gradient overflows, which would skip the update.
ReplicaState without_overflow(ReplicaState state) {
  if (state.step.loss_scale > 1) state.step.loss_scale = 256;
  return state;
}

// Replicas whose batch is a pass compute each of its gradients, with the statistics that the pass
// before has left.
TEST_P(ReplicaBits, AnUpdateInPassesIsByTheMeanOfTheirGradients) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = without_overflow(without_velocity(lived_in(3)));
  for (const auto& [passes, stage] :
       {std::pair{2, "{}"}, std::pair{4, "{}"}, std::pair{4, "{train_only: ['3.*', '4.*']}"}}) {
    const std::vector<std::string> common = {"optimizer.weight_decay=0",
                                             fmt::format("train.stages=[{}]", stage),
                                             "train.length=3 epochs"};
    const auto with = [&](const char* key) {
      std::vector<std::string> settings = common;
      settings.push_back(fmt::format("data.{}={}", key, 8 / passes));
      return settings;
    };
    SCOPED_TRACE(fmt::format("{} passes, stage {}", passes, stage));
    std::vector<std::vector<double>> mean;
    ReplicaState pass_state = before;
    StepRecord expected;
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      pass_state.step.step = 3 * passes + pass;
      auto r = replica_with(with("batch_size"), &pass_state);
      r->set_epoch_order(order());
      r->train(1);
      const StepRecord record = r->drain().at(0);
      expected.loss += record.loss / static_cast<double>(passes);
      expected.correct += record.correct;
      const ReplicaState after = r->save();
      pass_state.statistics = after.statistics;
      mean.resize(after.velocity.size());
      for (std::size_t i = 0; i < mean.size(); ++i) {
        mean[i].resize(after.velocity[i].values.size());
        for (std::size_t k = 0; k < mean[i].size(); ++k) {
          mean[i][k] += double{after.velocity[i].values[k]} / static_cast<double>(passes);
        }
      }
    }
    auto r = replica_with(with("micro_batch"), &before);
    const StepRecord record = train(*r, 3, 4).at(0);
    EXPECT_NEAR(record.loss, expected.loss, 1e-12 * expected.loss);
    EXPECT_EQ(record.correct, expected.correct);
    EXPECT_EQ(record.step, 3);
    const ReplicaState after = r->save();
    EXPECT_TRUE(same_tensors(after.statistics, pass_state.statistics));
    double square = 0;
    for (std::size_t i = 0; i < mean.size(); ++i) {
      SCOPED_TRACE(after.velocity[i].name);
      double largest = 0;
      for (const double g : mean[i]) {
        square += g * g;
        largest = std::max(largest, std::fabs(g));
      }
      for (std::size_t k = 0; k < mean[i].size(); ++k) {
        EXPECT_NEAR(after.velocity[i].values[k], mean[i][k], 1e-6 * largest);
      }
    }
    EXPECT_NEAR(record.grad_norm / std::sqrt(square), 1, 1e-6);
  }
}

// The mean over the batch is the mean over its passes, unless a batch norm takes moments of each.
TEST_P(ReplicaTest, WithoutBatchNormPassesGiveTheUpdateOfTheWholeBatch) {
  constexpr const char* plain = R"(
data: {dataset: synthetic, batch_size: 12, train_limit: 120, augment: {crop_padding: 2, flip: true}}
model:
  layers:
    - conv: {out: 8, activation: leaky_relu(0.1)}
    - max_pool
    - conv: {out: 6, stride: 2}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3, clip_norm: 0.5}
schedule: {base_lr: 0.05, warmup: {length: 4 steps}}
train: {length: 3 epochs}
)";
  use(plain);
  auto whole = replica();
  const std::vector<StepRecord> expected = train(*whole, 0, 12);
  const Evaluation evaluated = whole->evaluate(*test_);
  use(plain, {"data.micro_batch=4"});
  auto r = replica();
  const std::vector<StepRecord> records = train(*r, 0, 12);
  ASSERT_EQ(records.size(), expected.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    EXPECT_NEAR(records[i].loss, expected[i].loss, 1e-4 * expected[i].loss);
    EXPECT_NEAR(records[i].grad_norm, expected[i].grad_norm, 1e-3 * expected[i].grad_norm);
    EXPECT_EQ(records[i].lr, expected[i].lr);
  }
  const ReplicaState a = r->save();
  const ReplicaState b = whole->save();
  EXPECT_LT(distance(a, b), 1e-4 * weight_norm(b));
  EXPECT_GT(distance(a, b), 0);  // in other orders of summation
  EXPECT_NEAR(r->evaluate(*test_).loss, evaluated.loss, 1e-3 * evaluated.loss);
}

TEST_P(ReplicaBits, PassesGiveTheSameBitsHoweverTheUpdatesAreGroupedAndSaved) {
  const std::vector<std::string> settings = {"data.micro_batch=4"};
  auto whole = replica_with(settings);
  whole->set_epoch_order(order());
  whole->train(10);
  auto eager = replica_with({settings[0], "train.cuda_graph=false"});
  train(*eager, 0, 10);
  EXPECT_TRUE(same(eager->save(), whole->save()));
  auto first = replica_with(settings);
  train(*first, 0, 6);
  const ReplicaState state = first->save();
  auto second = replica_with(settings, &state);
  second->evaluate(*test_);
  second->set_epoch_order(order());
  second->train(4);
  EXPECT_TRUE(same(second->save(), whole->save()));
  auto in_one_pass = replica_with({});
  train(*in_one_pass, 0, 10);
  EXPECT_GT(distance(whole->save(), in_one_pass->save()), 0);  // by its batch norms
}

// The norm is that of the mean, and without the loss scale.
TEST_P(ReplicaBits, TheMeanOverThePassesIsClipped) {
  SCOPED_TRACE(seed_);
  const ReplicaState before = without_overflow(without_velocity(lived_in(2)));
  const std::vector<std::string> settings = {"optimizer.momentum=0", "optimizer.weight_decay=0",
                                             "data.micro_batch=2"};
  auto unclipped = replica_with(settings, &before);
  const StepRecord whole = train(*unclipped, 2, 3).at(0);
  std::vector<std::string> clipping = settings;
  const double clip = whole.grad_norm / 5;
  clipping.push_back(fmt::format("optimizer.clip_norm={}", clip));
  auto clipped = replica_with(clipping, &before);
  const StepRecord record = train(*clipped, 2, 3).at(0);
  EXPECT_NEAR(record.update_norm / (double{record.lr} * clip), 1, 1e-5);
  EXPECT_NEAR(record.grad_norm / whole.grad_norm, 1, 1e-6);
}

TEST_P(ReplicaBits, APassTakesTheMemoryOfItsExamplesAndOneMoreArena) {
  const MemoryUse of_pass = replica_with({"data.batch_size=2"})->memory();
  const MemoryUse whole = replica_with({})->memory();
  const MemoryUse in_passes = replica_with({"data.micro_batch=2"})->memory();
  EXPECT_EQ(in_passes.activations, of_pass.activations);
  EXPECT_LT(in_passes.activations, whole.activations);
  const std::size_t more = in_passes.parameters - of_pass.parameters;
  EXPECT_GE(more, sizeof(float) * network_.arena_size);
  EXPECT_LE(more, sizeof(float) * network_.arena_size * 3 / 2);  // images may be padded
}

// All images are black but one, which the second of four passes has.
TEST_P(ReplicaTest, APassThatIsNotFiniteIsFoundAmongOthers) {
  use(R"(
data: {dataset: synthetic, batch_size: 8, micro_batch: 2, train_limit: 80, normalize: {mean: [0], std: [1]}}
model:
  layers:
    - {name: stem, conv: {out: 8}}
    - linear: {out: 10}
schedule: {base_lr: 0.01, warmup: {length: 0 steps}}
train: {length: 10 steps}
)");
  std::ranges::fill(train_data_.pixels, std::uint8_t{0});
  const std::int64_t size = train_data_.shape.size();
  std::fill_n(train_data_.pixels.begin() + order()[3] * size, size, std::uint8_t{255});
  train_ = backend_->load(train_data_);
  auto r = replica();
  ReplicaState state = r->save();
  ASSERT_EQ(state.parameters[0].name, "stem.conv.weight");
  state.parameters[0].values.assign(state.parameters[0].values.size(), 3e38f);
  r->load(state);
  r->set_epoch_order(order());
  r->train(5);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_FALSE(records[0].finite);
  EXPECT_FALSE(std::isfinite(records[0].loss));
  EXPECT_EQ(r->first_non_finite_tensor(), "activation of stem");
  EXPECT_TRUE(same_tensors(r->save().parameters, state.parameters));
  EXPECT_TRUE(same_tensors(r->save().velocity, state.velocity));
}

TEST_P(ReplicaTest, ThePartsOfAnUpdateInPassesAreThoseOfItsPasses) {
  use(small, {"data.batch_size=2"});
  auto of_pass = replica();
  of_pass->set_epoch_order(order());
  const std::vector<StepPart> expected = of_pass->time_parts(3);
  auto plain = replica_with({"data.micro_batch=2"});
  train(*plain, 0, 3);
  auto r = replica_with({"data.micro_batch=2"});
  r->set_epoch_order(order());
  const std::vector<StepPart> parts = r->time_parts(3);
  EXPECT_TRUE(same(r->save(), plain->save()));
  ASSERT_EQ(parts.size(), expected.size() + 1);
  std::size_t at = 0;
  for (const StepPart& part : parts) {
    SCOPED_TRACE(part.layer + " " + part.work);
    if (part.work == "mean over the passes") {
      EXPECT_EQ(part.cost.bytes,
                (8 + 3 * 12) * (on_cpu() ? network_.parameter_count : network_.arena_size));
      EXPECT_EQ(part.launches, on_cpu() ? 0 : 4);
      continue;
    }
    const StepPart& one = expected[at++];
    EXPECT_EQ(part.work, one.work);
    EXPECT_EQ(part.layer, one.layer);
    const int times = one.pass == "update" ? 1 : 4;
    EXPECT_NEAR(part.cost.bytes, times * one.cost.bytes, 1e-9 * part.cost.bytes);
    EXPECT_EQ(part.cost.operations, times * one.cost.operations);
    EXPECT_EQ(part.launches, times * one.launches);
  }
}

}  // namespace
}  // namespace preheat
