#include "backend/cuda/condition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace preheat::cuda {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

TEST(Condition, SaysWhatNvidiaSmiReports) {
  const Condition condition =
      parse_condition("1980, 1980, 3201, Enabled, 34, 121.50, 0x0000000000000000\n");
  EXPECT_EQ(condition.text,
            "SM clock 1980 of 1980 MHz, memory 3201 MHz, ECC Enabled, 34 C, 121.50 W, held back by "
            "nothing");
  EXPECT_THAT(condition.clocks, ElementsAre(Pair("SM", 1980), Pair("memory", 3201)));
}

TEST(Condition, NamesEverythingThatHoldsTheClocksBack) {
  EXPECT_THAT(parse_condition("1200, 1980, 3201, Enabled, 90, 700.00, 0x0000000000000024").text,
              EndsWith("held back by power cap and temperature"));
}

TEST(Condition, IsNotTakenForGoodWhereTheDriverDoesNotKnowIt) {
  const Condition condition = parse_condition("[N/A], 1980, 3201, [N/A], 34, [N/A], [N/A]\n");
  EXPECT_THAT(condition.text, EndsWith("what holds them back unknown"));
  EXPECT_THAT(condition.clocks, ElementsAre(Pair("memory", 3201)));
}

TEST(Condition, IsUnknownWithoutNvidiaSmi) {
  for (const char* line : {"", "Field \"clocks_event_reasons.active\" is not a valid field\n"}) {
    EXPECT_THAT(parse_condition(line).text, HasSubstr("nvidia-smi does not report them"));
    EXPECT_THAT(parse_condition(line).clocks, IsEmpty());
  }
}

}  // namespace
}  // namespace preheat::cuda
