// Benches: callers can stop a measurement, parts keep their order.
#include "backend/benches.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "shared_backend.h"

namespace preheat {
namespace {

TEST(Benches, AMeasurementEndsWhereItIsToldTo) {
  struct Enough {};
  Benches& benches = shared_backend().benches();
  int rounds = 0;
  const BetweenRounds third = [&] {
    if (++rounds == 3) throw Enough();
  };
  EXPECT_THROW(benches.time_updates({"small", {1 << 10}}, true, third), Enough);
  EXPECT_EQ(rounds, 3);
  LrSchedule constant;
  constant.steps = 100;
  constant.phase_count = 1;
  constant.phases[0].length = constant.phases[0].span = 100;
  constant.phases[0].from = 1e-3;
  rounds = 0;
  EXPECT_THROW(benches.time_schedules({"small", {1 << 10}}, {{"constant", constant}}, true, third),
               Enough);
  EXPECT_EQ(rounds, 3);
}

// An update moves its parameters, a copy the padding of 64 floats for each of them too.
TEST(Benches, APaddedSetHasTheShareOfACopyThatItsRateIs) {
  const UpdateSet padded{"padded", std::vector<std::int64_t>(1000, 1)};
  const auto rows = shared_backend().benches().time_updates(padded, true, [] {});
  ASSERT_EQ(rows.front().variant, "copy");
  for (const UpdateTiming& row : rows) {
    // Medians of ratios and ratios of medians differ with the machine's load, by far less than 64.
    EXPECT_NEAR(std::log(row.share_of_copy / (row.gigabytes / rows.front().gigabytes)), 0, 3)
        << row.variant;
  }
}

TEST(Benches, MoreMemoryThanThereIsIsAnError) {
  Benches& benches = shared_backend().benches();
  const std::int64_t parameters = std::int64_t{1} << 42;
  EXPECT_THROW(benches.time_updates({"huge", {parameters}}, true, [] {}), OutOfMemory);
}

TEST(Benches, WhatIsOverAnEmptyNodeIsKnownOfRowsInAGraph) {
  UpdateTiming empty;
  empty.microseconds = {0.75, 0.5, 1};
  UpdateTiming row;
  row.microseconds = {3, 2.5, 3.5};
  for (const auto& [way, is_known] : {std::pair(SubmitMode::graph, true),
                                      {SubmitMode::ceiling, true},
                                      {SubmitMode::launches, false},
                                      {SubmitMode::calls, false}}) {
    row.way = way;
    EXPECT_EQ(us_over_empty(row, {empty}), is_known ? std::optional(2.25) : std::nullopt)
        << to_string(way);
    EXPECT_EQ(us_over_empty(row, {}), std::nullopt) << to_string(way);
  }
}

TEST(Benches, PartsAreThoseOfTheStepInOrder) {
  StepParts parts;
  for (const double us : {3.0, 1.0, 2.0}) {
    parts.begin_step();
    parts.add({"forward", "0.conv", "convolution", {10, 20}, 1, us});
    parts.add({"update", "", "update", {5, 0}, 2, 10 * us});
  }
  const std::vector<StepPart> medians = parts.medians();
  ASSERT_EQ(medians.size(), 2u);
  EXPECT_EQ(medians[0].layer, "0.conv");
  EXPECT_EQ(medians[0].microseconds, 2);
  EXPECT_EQ(medians[0].cost.operations, 20);
  EXPECT_EQ(medians[1].microseconds, 20);
  EXPECT_EQ(medians[1].launches, 2);
}

TEST(Benches, PartsOfThePassesOfAStepAreAddedUp) {
  StepParts parts;
  for (const double us : {3.0, 1.0, 2.0}) {
    parts.begin_step();
    for (const double share : {1.0, 0.5}) {
      parts.begin_pass();
      parts.add({"forward", "0.conv", "convolution", {10, 20}, 1, share * us});
      parts.add({"backward", "0.conv", "weight gradient", {30 * share, 0}, 2, us});
    }
    parts.add({"update", "", "update", {5, 0}, 2, 10 * us});
  }
  const std::vector<StepPart> medians = parts.medians();
  ASSERT_EQ(medians.size(), 3u);
  EXPECT_EQ(medians[0].microseconds, 3);
  EXPECT_EQ(medians[0].cost.operations, 40);
  EXPECT_EQ(medians[0].launches, 2);
  EXPECT_EQ(medians[1].work, "weight gradient");
  EXPECT_EQ(medians[1].microseconds, 4);
  EXPECT_EQ(medians[1].cost.bytes, 45);
  EXPECT_EQ(medians[2].microseconds, 20);
  EXPECT_EQ(medians[2].launches, 2);
}

}  // namespace
}  // namespace preheat
