// What a bench writes that fails before its end.
#include "commands/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <new>

#include "config/error.h"
#include "shared_backend.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

class BenchThatFails : public testing::Test {
 protected:
  ~BenchThatFails() override {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
  }

  // Measures one figure, or none, and then calls `then`.
  void bench(bool measures, const std::function<void()>& then) {
    BenchOptions files;
    files.json = (folder_ / "b.json").string();
    files.html = (folder_ / "b.html").string();
    BenchResults results("schedule", shared_backend(), files, Earlier("", "schedule"), {});
    results.json["schedules"] = Json::array();
    results.measure([&] {
      if (measures) results.add("a figure", "us", {2, 1, 3});
      then();
    });
  }

  TemporaryFolder folder_;
};

TEST_F(BenchThatFails, WritesWhatItHadMeasuredAndKeepsItsError) {
  const auto out_of_memory = [] { throw Error("out of memory: 200 replicas need more"); };
  try {
    bench(true, out_of_memory);
    ADD_FAILURE() << "the error is lost";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "out of memory: 200 replicas need more");
  }
  const auto json = Json::parse(bytes_of(folder_ / "b.json"));
  EXPECT_EQ(json["interrupted"], true);
  ASSERT_EQ(json["figures"].size(), 1u);
  EXPECT_EQ(json["figures"][0]["median"], 2);
  EXPECT_THAT(bytes_of(folder_ / "b.html"), HasSubstr("incomplete"));
}

// main() derives the exit code from the type of the exception.
TEST_F(BenchThatFails, ThrowsOnWhatWasThrown) {
  EXPECT_THROW(bench(true,
                     [] {
                       throw ConfigError({"--set a=b", 0, 0, "a"}, "is wrong");
                     }),
               ConfigError);
  EXPECT_THROW(bench(true, [] { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "b.json"));
}

TEST_F(BenchThatFails, LeavesAnEarlierFileWhereItHadMeasuredNothing) {
  put_bytes(folder_ / "b.json", "old");
  EXPECT_THROW(bench(false, [] { throw Error("at once"); }), Error);
  EXPECT_EQ(bytes_of(folder_ / "b.json"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b.html"));
}

}  // namespace
}  // namespace preheat
