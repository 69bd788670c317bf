#include "optim/step_state.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "schedule/lr_schedule.h"

namespace preheat {
namespace {

LrSchedule linear(double from, double to, std::int64_t length) {
  LrSchedule schedule;
  schedule.steps = length;
  schedule.phase_count = 1;
  schedule.phases[0] = {
      .shape = Shape::linear, .length = length, .span = length, .from = from, .to = to};
  return schedule;
}

// A constant 0.01 for at most `length` updates, then a line from 1 to 0 over the rest of `steps`.
LrSchedule gated(std::int64_t length, std::int64_t steps, std::int32_t window, std::int64_t above) {
  LrSchedule schedule = linear(0, 0, length);
  schedule.steps = steps;
  schedule.phase_count = 2;
  schedule.phases[0].shape = Shape::constant;
  schedule.phases[0].from = schedule.phases[0].to = 0.01;
  schedule.phases[1] = {.shape = Shape::linear,
                        .begin = length,
                        .length = steps - length,
                        .span = steps - length,
                        .fills_run = true,
                        .from = 1,
                        .to = 0};
  schedule.gate = {window, above};
  return schedule;
}

TEST(StepState, CountsAndTakesTheNextRate) {
  const LrSchedule schedule = linear(0, 0.3, 7);
  StepState state = first_step(schedule);
  EXPECT_EQ(state.previous_lr, 0.0f);
  for (std::int64_t k = 0; k < 7; ++k) {
    EXPECT_TRUE(is_alive(state));
    EXPECT_EQ(state.step, k);
    EXPECT_EQ(state.lr, static_cast<float>(0.3L * static_cast<long double>(k + 1) / 7));
    const float lr = state.lr;
    advance(state, schedule, true, 5);
    EXPECT_EQ(state.previous_lr, lr);
  }
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.first_non_finite, -1);
  EXPECT_EQ(state.gate_opened_at, -1);
}

TEST(StepState, TheRateIsRoundedOnce) {
  const double next = 0.1 + 0x1p-30;  // between two floats
  StepState state;
  advance(state, linear(next, next, 9), true, 0);
  EXPECT_EQ(state.lr, static_cast<float>(next));
}

// After the step of the state is set, advance() gives the rate of the next step: the rate depends
// on nothing else in the state.
TEST(StepState, TheRateFollowsTheStepAlone) {
  const LrSchedule schedule = linear(0, 1, 1000);
  StepState state;
  for (const std::int64_t step : {700, 3, 998, 0}) {
    state.step = step;
    advance(state, schedule, true, 0);
    EXPECT_EQ(state.lr, static_cast<float>(lr_at(schedule, step + 1)));
  }
}

TEST(StepState, StaysAtTheStepThatWasNotFinite) {
  const LrSchedule schedule = linear(0, 1, 16);
  StepState state = first_step(schedule);
  for (int k = 0; k < 5; ++k) advance(state, schedule, true, 0);
  for (int k = 0; k < 4; ++k) {
    advance(state, schedule, k == 2, 0);
    EXPECT_EQ(state.first_non_finite, 5);
    EXPECT_EQ(state.step, 5);
    EXPECT_EQ(state.lr, 6.0f / 16);
    EXPECT_EQ(state.previous_lr, 5.0f / 16);
  }
}

TEST(StepState, TheFirstStepMayBeTheOneThatWasNotFinite) {
  StepState state;
  advance(state, linear(0, 1, 4), false, 0);
  EXPECT_EQ(state.first_non_finite, 0);
  EXPECT_EQ(state.step, 0);
  EXPECT_FALSE(is_alive(state));
}

// The gate against its definition, recomputed from all hits at every update.
TEST(Gate, OpensWhenTheErrorOfTheWindowHasFallen) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  const auto integer = [&](int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random);
  };
  int opened = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int window = integer(1, 40);
    const int length = window + integer(0, 200);
    const int steps = length + integer(1, 100);
    const int batch = integer(1, 64);
    const std::int64_t above = integer(0, window * batch - 1);
    const LrSchedule schedule = gated(length, steps, window, above);
    StepState state = first_step(schedule);
    std::vector<std::int64_t> hits;
    std::int64_t expected = -1;
    for (int step = 0; step < steps; ++step) {
      const double t = expected < 0 ? -1.0 : static_cast<double>(step - expected + 1);
      const double rate = expected >= 0   ? 1 - t / static_cast<double>(steps - expected)
                          : step < length ? 0.01
                                          : 1 - (step - length + 1.0) / (steps - length);
      ASSERT_NEAR(state.lr, rate, 1e-6) << step << " of " << steps;
      // Learning, with noise: hits grow from chance to nearly all.
      const int level = 10 + 90 * step / steps;
      hits.push_back(std::min(batch, integer(0, 2 * batch * level / 100)));
      advance(state, schedule, true, hits.back());
      std::int64_t sum = 0;
      for (int i = 0; i < window && i <= step; ++i) sum += hits[hits.size() - 1 - i];
      const bool may = expected < 0 && step + 1 >= window && step + 1 < length;
      if (may && sum > above) expected = step + 1;
      ASSERT_EQ(state.gate_opened_at, expected) << step;
    }
    opened += expected >= 0 ? 1 : 0;
  }
  EXPECT_GT(opened, 30);
  EXPECT_LT(opened, 290);
}

TEST(Gate, AStepThatIsNotFiniteOpensNothing) {
  const LrSchedule schedule = gated(50, 100, 2, 5);
  StepState state = first_step(schedule);
  advance(state, schedule, true, 1);
  advance(state, schedule, false, 1000);
  EXPECT_EQ(state.gate_opened_at, -1);
  EXPECT_EQ(state.step, 1);
}

TEST(LossScale, IsHalvedByAnOverflowAndNeverBelowOne) {
  StepState state;
  state.loss_scale = initial_loss_scale;
  state.updates_at_scale = 1500;
  for (float expected = initial_loss_scale / 2; expected >= 1; expected /= 2) {
    update_loss_scale(state, true);
    EXPECT_EQ(state.loss_scale, expected);
    EXPECT_EQ(state.updates_at_scale, 0);
  }
  EXPECT_EQ(state.loss_scale, 1.0f);
  update_loss_scale(state, true);
  EXPECT_EQ(state.loss_scale, 1.0f);
}

TEST(LossScale, IsDoubledAfter2000InARowAndNeverAbove2To24) {
  StepState state;
  for (float expected = 1; expected <= 0x1p26f; expected *= 2) {
    for (int k = 0; k < 2000; ++k) {
      ASSERT_EQ(state.loss_scale, std::min(expected, 0x1p24f));
      ASSERT_EQ(state.updates_at_scale, k);
      update_loss_scale(state, false);
    }
  }
}

TEST(LossScale, AnOverflowStartsTheRowAnew) {
  StepState state;
  state.loss_scale = 64;
  for (int k = 0; k < 1999; ++k) update_loss_scale(state, false);
  update_loss_scale(state, true);
  EXPECT_EQ(state.loss_scale, 32.0f);
  for (int k = 0; k < 1999; ++k) update_loss_scale(state, false);
  EXPECT_EQ(state.loss_scale, 32.0f);
  update_loss_scale(state, false);
  EXPECT_EQ(state.loss_scale, 64.0f);
}

// The loss scale is 1 in every precision but fp16: a step without scaling leaves it as it is.
TEST(LossScale, IsNotTheBusinessOfAdvance) {
  const LrSchedule schedule = linear(0, 1, 9);
  StepState state = first_step(schedule);
  EXPECT_EQ(state.loss_scale, 1.0f);
  EXPECT_EQ(state.updates_at_scale, 0);
  state.loss_scale = 64;
  state.updates_at_scale = 1999;
  for (const bool finite : {true, false}) {
    advance(state, schedule, finite, 0);
    EXPECT_EQ(state.loss_scale, 64.0f);
    EXPECT_EQ(state.updates_at_scale, 1999);
  }
}

}  // namespace
}  // namespace preheat
