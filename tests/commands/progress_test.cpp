#include "commands/progress.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <sstream>
#include <thread>

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

Schedule schedule_of(std::int64_t steps) {
  const std::string text = fmt::format("train: {{length: {} steps}}\n", steps);
  const RunConfig config = read_config(parse_document(text, "f.yaml"));
  return resolve_schedule(config, run_length(config, 10));
}

// What a run of 100 updates prints into a pipe, from update `first` on, its loss not a number after
// update `last_finite`.
std::vector<std::string> lines_of(std::int64_t first, std::int64_t last_finite) {
  const Schedule schedule = schedule_of(100);
  testing::internal::CaptureStdout();
  Progress progress("run", schedule, 1, true);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (std::int64_t step = first; step < 100; ++step) {
    StepRecord record;
    record.step = step;
    record.finite = step <= last_finite;
    progress.show(std::vector{record});
    if (!record.finite) break;
  }
  std::istringstream text(testing::internal::GetCapturedStdout());
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

TEST(ProgressInAPipe, IsALineForEachTenthAndForALossThatIsNotFinite) {
  EXPECT_EQ(lines_of(0, 99).size(), 10u);
  EXPECT_THAT(lines_of(0, 21), ElementsAre(StartsWith("run  10%  10/100 "), HasSubstr(" 20/100 "),
                                           HasSubstr(" 23/100 ")));
}

TEST(ProgressInAPipe, OfAResumedRunCountsItsOwnUpdates) {
  // One image, and at least 20 ms.
  const std::vector<std::string> lines = lines_of(99, 99);
  ASSERT_EQ(lines.size(), 1u);
  const std::size_t end = lines[0].find(" images/s");
  ASSERT_NE(end, std::string::npos);
  EXPECT_LE(std::stod(lines[0].substr(lines[0].rfind(' ', end - 1))), 50) << lines[0];
}

}  // namespace
}  // namespace preheat
