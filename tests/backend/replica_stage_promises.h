// What every backend must guarantee of the stages of a run and of frozen parameters.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/replica_fixture.h"
#include "same_state.h"
#include "schedule/schedule.h"

namespace preheat {
namespace {

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

}  // namespace
}  // namespace preheat
