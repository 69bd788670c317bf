#include "optim/step_state.h"

#include <gtest/gtest.h>

#include <cmath>

#include "schedule/lr_schedule.h"

namespace preheat {
namespace {

LrSchedule linear(double from, double to, std::int64_t length) {
  LrSchedule schedule;
  schedule.phase_count = 1;
  schedule.phases[0] = {
      .shape = Shape::linear, .begin = 0, .length = length, .from = from, .to = to};
  return schedule;
}

TEST(StepState, CountsAndTakesTheNextRate) {
  const LrSchedule schedule = linear(0, 0.3, 7);
  StepState state;
  state.lr = static_cast<float>(lr_at(schedule, 0));
  for (std::int64_t k = 0; k < 7; ++k) {
    EXPECT_TRUE(updates(state));
    EXPECT_EQ(state.step, k);
    EXPECT_EQ(state.lr, static_cast<float>(0.3L * static_cast<long double>(k + 1) / 7));
    advance(state, true, lr_at(schedule, state.step + 1));
  }
  EXPECT_EQ(state.step, 7);
  EXPECT_EQ(state.first_non_finite, -1);
}

TEST(StepState, TheRateIsRoundedOnce) {
  StepState state;
  const double next = 0.1 + 0x1p-30;  // between two floats
  advance(state, true, next);
  EXPECT_EQ(state.lr, static_cast<float>(next));
}

TEST(StepState, StaysAtTheStepThatWasNotFinite) {
  StepState state;
  for (int k = 0; k < 5; ++k) advance(state, true, 0.5 + k);
  advance(state, false, 99);
  EXPECT_FALSE(updates(state));
  EXPECT_EQ(state.first_non_finite, 5);
  EXPECT_EQ(state.step, 5);
  EXPECT_EQ(state.lr, 4.5f);
  for (int k = 0; k < 3; ++k) advance(state, k % 2 == 0, 77);
  EXPECT_EQ(state.first_non_finite, 5);
  EXPECT_EQ(state.step, 5);
  EXPECT_EQ(state.lr, 4.5f);
}

TEST(StepState, TheFirstStepMayBeTheOneThatWasNotFinite) {
  StepState state;
  advance(state, false, 1);
  EXPECT_EQ(state.first_non_finite, 0);
  EXPECT_EQ(state.step, 0);
  EXPECT_FALSE(updates(state));
}

}  // namespace
}  // namespace preheat
