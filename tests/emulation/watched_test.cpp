// The emulated device stops at the first wrong access to memory. The kernels here are compiled as
// preheat's are.
#include <gtest/gtest.h>

#include <vector>

#include "emulation/accesses.h"
#include "emulation/device_code.h"

namespace emulation {
namespace {

const bool watched = accesses_are_watched = true;

constexpr unsigned threads = 64;

void copy(const int* from, int* to) {
  const unsigned i = blockIdx.x * threads + threadIdx.x;
  to[i] = from[i];
}

void add_one(int* numbers) {
  ++numbers[blockIdx.x * threads + threadIdx.x];
}

// Each thread reads what another one of its block wrote.
void reverse(int* numbers, bool with_barrier) {
  static int exchange[threads];
  declare_shared(&exchange, sizeof exchange);
  exchange[threadIdx.x] = 0;
  __syncthreads();
  exchange[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  numbers[threadIdx.x] = exchange[threads - 1 - threadIdx.x];
}

// Each thread writes what another one read.
void rotate(int* numbers, bool with_barrier) {
  const int next = numbers[(threadIdx.x + 1) % threads];
  if (with_barrier) __syncthreads();
  numbers[threadIdx.x] = next;
}

void all_write_one(int* numbers) {
  if (threadIdx.x == 0) numbers[0] = 1;
}

void read_half_of_shared_memory(int* numbers) {
  static int half[threads];
  declare_shared(&half, sizeof half);
  if (threadIdx.x < threads / 2) half[threadIdx.x] = 1;
  __syncthreads();
  numbers[threadIdx.x] = half[threadIdx.x];
}

void read_four_at_once(const int* numbers, int* to, int offset) {
  if (threadIdx.x == 0) to[0] = reinterpret_cast<const int4*>(numbers + offset)->w;
}

// The block that counts last reads what the others wrote.
void add_up_in_the_last_block(int* numbers, unsigned* counter, int without) {
  static bool last;
  declare_shared(&last, sizeof last);
  numbers[blockIdx.x * threads + threadIdx.x] = 1;
  if (without != 1) __threadfence();
  if (without != 2) __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  if (without != 3) __threadfence();
  if (threadIdx.x > 0) return;
  for (unsigned i = 1; i < gridDim.x * threads; ++i) numbers[0] += numbers[i];
}

void copy_through_shared_memory(const int* from, int* to, bool waits, bool with_barrier) {
  auto* const space = dynamic_shared<int>();
  const unsigned i = threadIdx.x;
  if (i % 4 == 0) copy_async<16>(shared_address(space + i), from + i, 16);
  commit_copies();
  if (waits) wait_for_copies(0);
  if (with_barrier) __syncthreads();
  to[i] = space[i];
  if (!waits) wait_for_copies(0);
}

class WatchedDeviceDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    for (cudaStream_t* stream : {&a_, &b_}) {
      ASSERT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    }
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
    for (int** numbers : {&x_, &y_, &unwritten_}) {
      ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(numbers), bytes), cudaSuccess);
    }
    for (int* numbers : {x_, y_}) {
      ASSERT_EQ(cudaMemsetAsync(numbers, 0, bytes, a_), cudaSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  }
  void TearDown() override {
    cudaDeviceSynchronize();
    for (int* numbers : {x_, y_, unwritten_}) cudaFree(numbers);
    cudaEventDestroy(event_);
    cudaStreamDestroy(a_);
    cudaStreamDestroy(b_);
  }

  template <class... Parameters>
  void run(unsigned count, void (*kernel)(Parameters...),
           std::type_identity_t<Parameters>... arguments) {
    configure(kernel, count, threads, threads * sizeof(int), a_)(arguments...);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  }

  static constexpr unsigned blocks = 3;
  static constexpr std::size_t bytes = blocks * threads * sizeof(int);
  cudaStream_t a_ = nullptr;
  cudaStream_t b_ = nullptr;
  cudaEvent_t event_ = nullptr;
  int* x_ = nullptr;
  int* y_ = nullptr;
  int* unwritten_ = nullptr;
};

TEST_F(WatchedDeviceDeathTest, FindsAccessesOutsideOfAnAllocation) {
  run(blocks, copy, x_, y_);
  EXPECT_DEATH(run(blocks + 1, copy, x_, y_), "reads outside .* \\(watched_test.cpp:[0-9]+\\)");
  EXPECT_DEATH(run(1, copy, x_, y_ + bytes / sizeof(int) - 1), "writes outside");
  EXPECT_DEATH(run(1, copy, x_, &y_[-1]), "writes outside");
  const int host[threads] = {};
  EXPECT_DEATH(run(1, copy, host, y_), "reads outside");
}

TEST_F(WatchedDeviceDeathTest, FindsWhatWasNeverWritten) {
  EXPECT_DEATH(run(blocks, copy, unwritten_, y_), "reads what was never written");
  EXPECT_DEATH(run(1, read_half_of_shared_memory, y_), "reads what was never written");
  run(blocks, copy, x_, unwritten_);
  run(blocks, copy, unwritten_, y_);
}

TEST_F(WatchedDeviceDeathTest, FindsAccessesThatAreNotAligned) {
  run(1, read_four_at_once, x_, y_, 4);
  EXPECT_DEATH(run(1, read_four_at_once, x_, y_, 2), "misaligned address");
}

TEST_F(WatchedDeviceDeathTest, FindsRacesBetweenThreads) {
  run(1, reverse, y_, true);
  run(1, rotate, y_, true);
  EXPECT_DEATH(run(1, reverse, y_, false), "shared memory that thread [0-9]+ (wrote|read)");
  EXPECT_DEATH(run(1, rotate, y_, false), "device memory that thread [0-9]+ (wrote|read)");
}

TEST_F(WatchedDeviceDeathTest, FindsRacesBetweenBlocks) {
  run(1, all_write_one, x_);
  EXPECT_DEATH(run(2, all_write_one, x_), "writes device memory that thread 0 wrote");
  auto* const counter = reinterpret_cast<unsigned*>(y_);
  run(blocks, add_up_in_the_last_block, x_, counter, 0);
  for (const int without : {1, 2, 3}) {
    EXPECT_DEATH(run(blocks, add_up_in_the_last_block, x_, counter, without),
                 "reads device memory that thread [0-9]+ wrote")
        << without;
  }
}

TEST_F(WatchedDeviceDeathTest, FindsRacesBetweenStreams) {
  const auto in_both = [this](bool with_event) {
    configure(add_one, blocks, threads, 0, a_)(x_);
    cudaEventRecord(event_, a_);
    if (with_event) cudaStreamWaitEvent(b_, event_, 0);
    configure(copy, blocks, threads, 0, b_)(x_, y_);
    cudaDeviceSynchronize();
  };
  for (int i = 0; i < 8; ++i) in_both(true);
  EXPECT_DEATH(in_both(false), "device memory that .* (wrote|reads?)");
  // In a graph, and after it.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  const auto capture = [&](bool joined_before) {
    cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal);
    configure(copy, blocks, threads, 0, a_)(x_, y_);
    cudaEventRecord(event_, a_);
    cudaStreamWaitEvent(b_, event_, 0);
    configure(copy, blocks, threads, 0, b_)(x_, unwritten_);
    cudaEventRecord(event_, b_);
    if (joined_before) cudaStreamWaitEvent(a_, event_, 0);
    configure(add_one, blocks, threads, 0, a_)(x_);
    if (!joined_before) cudaStreamWaitEvent(a_, event_, 0);
    ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  };
  capture(true);
  for (int i = 0; i < 8; ++i) cudaGraphLaunch(exec, a_);
  run(blocks, copy, x_, y_);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  capture(false);
  EXPECT_DEATH(
      {
        cudaGraphLaunch(exec, a_);
        cudaStreamSynchronize(a_);
      },
      "device memory that .* (wrote|reads?)");
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

TEST_F(WatchedDeviceDeathTest, FindsCopiesThatNobodyWaitsFor) {
  run(1, copy_through_shared_memory, x_, y_, true, true);
  EXPECT_DEATH(run(1, copy_through_shared_memory, x_, y_, false, true),
               "what a copy of thread [0-9]+ may be writing");
  EXPECT_DEATH(run(1, copy_through_shared_memory, x_, y_, true, false),
               "shared memory|what a copy|never written");
}

}  // namespace
}  // namespace emulation
