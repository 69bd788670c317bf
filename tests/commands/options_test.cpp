#include "commands/options.h"

#include <gtest/gtest.h>

#include <limits>

namespace preheat {
namespace {

TEST(Texts, OfLosses) {
  EXPECT_EQ(loss_text(0.43214), "0.4321");
  EXPECT_EQ(loss_text(9999), "9999.0000");
  EXPECT_EQ(loss_text(10000), "1.0e+04");
  EXPECT_EQ(loss_text(2.14e25), "2.1e+25");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(loss_text(nan), "nan");
  EXPECT_EQ(loss_text(-nan), "nan");
}

TEST(Texts, OfMemoryDurationsAndAccuracies) {
  EXPECT_EQ(memory_text(12897485), "12.3 MiB");  // 12.3 x 2^20
  EXPECT_EQ(duration_text(0.4), "0:00");
  EXPECT_EQ(duration_text(64.6), "1:05");
  EXPECT_EQ(duration_text(3599), "59:59");
  EXPECT_EQ(duration_text(3599.5), "1:00:00");
  EXPECT_EQ(duration_text(90061), "25:01:01");
  EXPECT_EQ(accuracy_text(0.91234), "91.23 %");
}

}  // namespace
}  // namespace preheat
