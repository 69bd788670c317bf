// What every backend must guarantee of a replica's state: the same bits however a run is cut up,
// records that say what was done, batches and evaluations of the right images.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/replica_fixture.h"
#include "data/epoch_order.h"
#include "same_state.h"
#include "schedule/schedule.h"

namespace preheat {
namespace {

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

}  // namespace
}  // namespace preheat
