// A writer gets in however busy the readers are.
#include "backend/cuda/fair_shared_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace preheat::cuda {
namespace {

// Of eight readers that are nearly always in, there is at every moment one: under std::shared_mutex
// the writer would come in after all of their reads.
TEST(FairSharedMutex, AWriterGetsInBetweenReadersThatOverlap) {
  constexpr int most = 4000;
  FairSharedMutex mutex;
  std::atomic<int> reads{0};
  std::atomic<int> inside{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] {
      while (reads++ < most) {
        const std::shared_lock lock(mutex);
        ++inside;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --inside;
      }
    });
  }
  while (inside < 2 && reads < most) std::this_thread::yield();  // readers may share it
  int reads_before = 0;
  for (int writes = 0; writes < 3; ++writes) {
    const std::unique_lock lock(mutex);
    EXPECT_EQ(inside, 0);
    reads_before = reads;
  }
  EXPECT_LT(reads_before, most);
  reads = most;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace preheat::cuda
