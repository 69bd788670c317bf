// Whether what a bench times can be believed: slower work is seen as slower.
#include "backend/benches.h"

#include <gtest/gtest.h>

#include "shared_backend.h"

namespace preheat {
namespace {

TEST(Benches, ThreePassesAreSeenToMoveMore) {
  // Far above the caches, where 36 bytes against 20 cannot be hidden.
  const auto rows = shared_backend().benches().time_updates({"large", {1 << 24}}, true);
  double fused = 0;
  double passes = 0;
  for (const UpdateTiming& row : rows) {
    if (row.variant == "fused") fused = row.microseconds.least;
    if (row.variant == "three_pass") passes = row.microseconds.least;
  }
  EXPECT_GT(passes, 1.15 * fused);
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

}  // namespace
}  // namespace preheat
