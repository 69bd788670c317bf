// The emulated device is as strict as a real one, or stricter.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "emulation/device.h"
#include "emulation/device_code.h"
#include "kernels/launch.h"

namespace emulation {
namespace {

constexpr unsigned threads = 64;

void add_one(int* numbers) {
  ++numbers[blockIdx.x * threads + threadIdx.x];
}

void write_behind(int* numbers, int count) {
  if (threadIdx.x == 0) numbers[count] = 1;
}

void meet_at_two_barriers() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

void wait_in_half_a_warp() {
  if (threadIdx.x % 2 == 0) __shfl_down_sync(0xffffffffu, 1, 1);
}

void say_which_block(int* numbers) {
  numbers[0] = static_cast<int>(blockIdx.x);
}

// Right only with a barrier between the two accesses.
void reverse(int* numbers, bool with_barrier) {
  static int exchange[threads];
  declare_shared(&exchange, sizeof exchange);
  exchange[threadIdx.x] = numbers[threadIdx.x];
  if (with_barrier) __syncthreads();
  numbers[threadIdx.x] = exchange[threads - 1 - threadIdx.x];
}

void take_half_a_block() {
  bound_threads(threads / 2);
}

class EmulatedDevice : public testing::Test {
 protected:
  void SetUp() override {
    for (cudaStream_t* stream : {&a_, &b_}) {
      ASSERT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    }
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&numbers_), sizeof(int) * threads), cudaSuccess);
    // Loads the kernel's code.
    configure(add_one, 1, threads, 0, a_)(numbers_);
    ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  }
  void TearDown() override {
    cudaDeviceSynchronize();
    cudaFree(numbers_);
    cudaEventDestroy(event_);
    cudaStreamDestroy(a_);
    cudaStreamDestroy(b_);
  }

  std::vector<int> values() const {
    std::vector<int> values(threads);
    EXPECT_EQ(
        cudaMemcpyAsync(values.data(), numbers_, sizeof(int) * threads, cudaMemcpyDeviceToHost, b_),
        cudaSuccess);
    return values;
  }

  // How often, of 32 times, a stream sees what another one did before.
  int seen(bool with_event) {
    int times = 0;
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(cudaMemsetAsync(numbers_, 0, sizeof(int) * threads, b_), cudaSuccess);
      cudaStreamSynchronize(b_);
      configure(add_one, 1, threads, 0, a_)(numbers_);
      if (with_event) {
        EXPECT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
        EXPECT_EQ(cudaStreamWaitEvent(b_, event_, 0), cudaSuccess);
      }
      times += values() == std::vector<int>(threads, 1) ? 1 : 0;
      cudaStreamSynchronize(a_);
    }
    return times;
  }

  cudaStream_t a_ = nullptr;
  cudaStream_t b_ = nullptr;
  cudaEvent_t event_ = nullptr;
  int* numbers_ = nullptr;
};

TEST_F(EmulatedDevice, StreamsWaitOnlyWhereTheyAreTold) {
  EXPECT_EQ(seen(true), 32);
  EXPECT_LT(seen(false), 32);
}

TEST_F(EmulatedDevice, CapturesWhatStreamsDo) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  configure(add_one, 1, threads, 0, a_)(numbers_);
  cudaEventRecord(event_, a_);
  cudaStreamWaitEvent(b_, event_, 0);
  configure(add_one, 1, threads, 0, b_)(numbers_);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureUnjoined);

  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureInvalidated);

  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 1), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureInvalidated);

  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  for (int i = 0; i < 3; ++i) configure(add_one, 1, threads, 0, a_)(numbers_);
  ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
  std::size_t nodes = 0;
  EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_EQ(nodes, 3u);
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  cudaMemsetAsync(numbers_, 0, sizeof(int) * threads, b_);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(cudaGraphLaunch(exec, b_), cudaSuccess);
  EXPECT_EQ(values(), std::vector<int>(threads, 6));
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  cudaGetLastError();
}

// CUDA's documentation does not say whether a real device checks again.
TEST_F(EmulatedDevice, RefusesGraphsOfKernelsThatLostTheirSharedMemory) {
  const auto allow = [](int bytes) {
    EXPECT_EQ(cudaFuncSetAttribute(add_one, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
              cudaSuccess);
  };
  allow(60 << 10);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  configure(add_one, 1, threads, 60 << 10, a_)(numbers_);
  ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
  cudaGraphExec_t exec = nullptr;
  allow(20 << 10);
  EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaErrorInvalidValue);
  allow(60 << 10);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  allow(0);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaGetLastError();
}

TEST_F(EmulatedDevice, RefusesWhatIsNotThere) {
  int host[2 * threads] = {};
  EXPECT_EQ(cudaMemcpy(numbers_, host, sizeof host, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host, numbers_, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  cudaGetLastError();
  configure(add_one, dim3(1, 65536), threads, 0, a_)(numbers_);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  configure(add_one, 1, 1025, 0, a_)(numbers_);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  configure(add_one, 1, threads, 49 << 10, a_)(numbers_);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(write_behind, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (99 << 10) + 1),
            cudaErrorInvalidValue);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, std::size_t{1} << 40), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaEventRecord(event_, reinterpret_cast<cudaStream_t>(this)),
            cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

// What an older device does not have is not emulated away.
TEST_F(EmulatedDevice, HasNoTensorCoreKernelsBefore8) {
  using preheat::kernels::Element;
  const preheat::kernels::Images x{2, 4, 4, 32};
  const auto supported = [&] {
    return std::vector<bool>{preheat::kernels::tensor_cores_support(Element::bf16, x, 32),
                             preheat::kernels::fp32_convolution_supports(x, 32),
                             preheat::kernels::fp32_weight_gradient_supports(x, 32)};
  };
  EXPECT_EQ(supported(), std::vector<bool>(3, true));
  major_version = 7;
  EXPECT_EQ(supported(), std::vector<bool>(3, false));
  EXPECT_EQ(preheat::kernels::tensor_core_convolution(Element::bf16, x, 32, numbers_, numbers_,
                                                      numbers_, nullptr, a_),
            cudaErrorNotSupported);
  EXPECT_EQ(preheat::kernels::tensor_core_data_gradient(Element::bf16, x, 32, numbers_, numbers_,
                                                        numbers_, a_),
            cudaErrorNotSupported);
  major_version = 9;
}

TEST_F(EmulatedDevice, ThreadsRunInAnyOrder) {
  int wrong = 0;
  std::vector<int> forward(threads);
  for (unsigned i = 0; i < threads; ++i) forward[i] = static_cast<int>(i);
  const std::vector<int> backward(forward.rbegin(), forward.rend());
  for (const bool with_barrier : {true, false}) {
    for (int i = 0; i < 16; ++i) {
      cudaMemcpyAsync(numbers_, forward.data(), sizeof(int) * threads, cudaMemcpyHostToDevice, b_);
      configure(reverse, 1, threads, 0, b_)(numbers_, with_barrier);
      const bool right = values() == backward;
      EXPECT_TRUE(right || !with_barrier);
      wrong += right ? 0 : 1;
    }
  }
  EXPECT_GT(wrong, 0);
}

TEST_F(EmulatedDevice, BlocksRunInAnyOrder) {
  std::set<int> last;
  for (int i = 0; i < 64; ++i) {
    configure(say_which_block, 3, 1, 0, b_)(numbers_);
    last.insert(values()[0]);
  }
  EXPECT_EQ(last, (std::set<int>{0, 1, 2}));
}

using EmulatedDeviceDeathTest = EmulatedDevice;

TEST_F(EmulatedDeviceDeathTest, StopsAtWhatARealOneWouldNotTell) {
  const auto run = [this](auto kernel, auto... arguments) {
    configure(kernel, 1, threads, 0, a_)(arguments...);
    cudaStreamSynchronize(a_);
    cudaFree(numbers_);
  };
  EXPECT_DEATH(run(write_behind, numbers_, int{threads}), "behind an allocation");
  EXPECT_DEATH(run(meet_at_two_barriers), "different barriers");
  EXPECT_DEATH(run(wait_in_half_a_warp), "wait for each other");
  EXPECT_DEATH(run(take_half_a_block), "launch bounds");
  // 48 KiB of both kinds, with 256 bytes of its own.
  const auto with_shared = [this](std::size_t bytes) {
    configure(reverse, 1, threads, bytes, a_)(numbers_, true);
    cudaStreamSynchronize(a_);
  };
  with_shared((48 << 10) - sizeof(int) * threads);
  EXPECT_DEATH(with_shared((48 << 10) - sizeof(int) * threads + 4), "more shared memory");
  const auto copy_and_free = [this](bool waits) {
    void* host = nullptr;
    ASSERT_EQ(cudaMallocHost(&host, sizeof(int)), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(host, numbers_, sizeof(int), cudaMemcpyDeviceToHost, a_),
              cudaSuccess);
    if (waits) cudaStreamSynchronize(a_);
    cudaFreeHost(host);
    cudaStreamSynchronize(a_);
  };
  copy_and_free(true);
  EXPECT_DEATH(copy_and_free(false), "before it was copied");
}

TEST_F(EmulatedDevice, AProductNeedsItsWorkspace) {
  const int rows = 4;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtCreate(&handle);
  cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, rows, rows, rows);
  cublasLtMatmulPreferenceCreate(&preference);
  const std::uint64_t most = 1 << 20;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                       sizeof most);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  ASSERT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, product, layout, layout, layout, layout,
                                           preference, 1, &result, &found),
            CUBLAS_STATUS_SUCCESS);
  ASSERT_GT(result.workspaceSize, 0u);
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 2 * result.workspaceSize), cudaSuccess);
  cudaMemsetAsync(numbers_, 0, sizeof(int) * threads, a_);
  const auto multiply = [&](std::size_t offset, std::size_t bytes) {
    const float one = 1;
    const float zero = 0;
    return cublasLtMatmul(handle, product, &one, numbers_, layout, numbers_, layout, &zero,
                          numbers_, layout, numbers_, layout, &result.algo,
                          static_cast<char*>(memory) + offset, bytes, a_);
  };
  EXPECT_EQ(multiply(0, result.workspaceSize), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(0, result.workspaceSize - 1), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(128, result.workspaceSize), CUBLAS_STATUS_INVALID_VALUE);
  cudaStreamSynchronize(a_);
  cudaFree(memory);
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(product);
  cublasLtDestroy(handle);
}

}  // namespace
}  // namespace emulation
