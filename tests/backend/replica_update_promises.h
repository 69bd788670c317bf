// What every backend must guarantee of an update: groups, clipping, the forms of momentum, and the
// gate of the schedule.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "backend/replica_fixture.h"
#include "same_state.h"
#include "schedule/schedule.h"

namespace preheat {
namespace {

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
