#include "experiment/thread_group.h"

#include <gtest/gtest.h>

#include "config/error.h"

namespace preheat {
namespace {

TEST(ThreadGroup, KeepsTheFirstErrorAndTellsTheOthers) {
  std::atomic<bool> failed{false};
  std::atomic<int> told{0};
  ThreadGroup group(failed);
  group.start([] { throw Error("first"); });
  for (int i = 0; i < 3; ++i) {
    group.start([&] {
      while (!failed) std::this_thread::yield();
      ++told;
      throw Error("later");
    });
  }
  const std::exception_ptr failure = group.join();
  EXPECT_EQ(told, 3);
  ASSERT_TRUE(failure);
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "first");
  }
}

TEST(ThreadGroup, WithoutErrorsHasNone) {
  std::atomic<bool> failed{false};
  std::atomic<int> done{0};
  {
    ThreadGroup group(failed);
    for (int i = 0; i < 4; ++i) group.start([&] { ++done; });
    EXPECT_FALSE(group.join());
    group.start([&] { ++done; });  // its end is waited for
  }
  EXPECT_EQ(done, 5);
  EXPECT_FALSE(failed);
}

}  // namespace
}  // namespace preheat
