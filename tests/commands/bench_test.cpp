// What a bench writes that fails before its end, and that it sees a slower kernel.
#include "commands/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <map>
#include <new>

#include "backend/cpu/benches.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_count.h"
#include "config/clock.h"
#include "config/error.h"
#include "shared_backend.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;

class BenchFiles : public testing::Test {
 protected:
  ~BenchFiles() override {
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
  }

  TemporaryFolder folder_;
};

class BenchThatFails : public BenchFiles {
 protected:
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

// The training step's own update, once and twice over, timed as bench update times it and held
// against each other through its file.
TEST_F(BenchFiles, AKernelThatWasSlowedIsSeenAsSlower) {
  const cpu::ThreadCount one_thread(1);
  constexpr std::int64_t n = 1 << 17;
  std::vector<float> weights(n, 0.1f), velocity(n, 0.1f), gradients(n, 0.1f);
  std::vector<cpu::UpdateBlock> blocks;
  cpu::add_update_blocks(0, n, 1, 0, blocks);
  std::vector<cpu::UpdateNorms> partial(blocks.size());
  const auto once = [&] {
    cpu::update({}, update_scalars({}, 1e-3f, 0, 0, 0), blocks, gradients.data(), weights.data(),
                velocity.data(), partial.data());
  };
  const auto twice = [&] {
    once();
    once();
  };
  BenchOptions files;
  files.json = (folder_ / "update.json").string();
  // Writes the file; returns the verdict beside the run that it held before, if asked for.
  const auto report = [&](const std::vector<double>& rounds, const std::string& compare) {
    BenchResults results("update", shared_backend(), files, Earlier(compare, "update"),
                         nlohmann::ordered_json::object());
    results.measure([&] { results.add("update", "us", spread_of(rounds)); });
    const auto json = Json::parse(bytes_of(folder_ / "update.json"));
    return compare.empty() ? "" : json["figures"][0]["change"].get<std::string>();
  };
  // Other work on the machine widens the spreads, which hides a change: then again.
  std::map<std::string, int> slowed;
  std::map<std::string, int> mended;
  const auto start = Clock::now();
  while ((slowed["slower"] == 0 || mended["faster"] == 0) && seconds_since(start) < 60) {
    const auto times = cpu::time_in_turns({once, twice}, 5, 4, [] {});
    report(times[0], "");
    ++slowed[report(times[1], files.json)];
    ++mended[report(times[0], files.json)];
  }
  EXPECT_EQ(slowed["slower"], 1);
  EXPECT_EQ(mended["faster"], 1);
  EXPECT_EQ(slowed["faster"], 0);
  EXPECT_EQ(mended["slower"], 0);
}

TEST_F(BenchThatFails, LeavesAnEarlierFileWhereItHadMeasuredNothing) {
  put_bytes(folder_ / "b.json", "old");
  EXPECT_THROW(bench(false, [] { throw Error("at once"); }), Error);
  EXPECT_EQ(bytes_of(folder_ / "b.json"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b.html"));
}

}  // namespace
}  // namespace preheat
