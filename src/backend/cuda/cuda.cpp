#include "backend/cuda/cuda.h"

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "config/error.h"

namespace preheat::cuda {
namespace {

[[noreturn]] void fail(std::string_view library, std::string_view name, std::string_view text,
                       const char* call, const char* file, int line) {
  const std::string_view path(file);
  throw Error(fmt::format("{}: {}: {} ({}, {}:{})", library, name, text, call,
                          path.substr(path.find_last_of('/') + 1), line));
}

}  // namespace

void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that the next launch does not report it
  fail("CUDA", cudaGetErrorName(status), cudaGetErrorString(status), call, file, line);
}

void check(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char text[512] = "";
  cudnnGetLastErrorString(text, sizeof text);
  fail("cuDNN", cudnnGetErrorString(status), text, call, file, line);
}

void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail("cuBLAS", cublasLtGetStatusName(status), cublasLtGetStatusString(status), call, file, line);
}

// Allocates from the device's pool, which keeps freed memory: an experiment makes one replica after
// the other, and the driver is slow to hand out memory.
void* allocate(std::size_t bytes) {
  constexpr std::size_t granularity = 256;
  const std::size_t rounded = (bytes + granularity - 1) / granularity * granularity;
  void* memory = nullptr;
  const cudaError_t status = cudaMallocAsync(&memory, rounded, nullptr);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(
        fmt::format("out of GPU memory: {} MiB requested, {} MiB free; lower data.batch_size",
                    rounded >> 20, available_memory() >> 20));
  }
  PREHEAT_CHECK(status);
  PREHEAT_CHECK(cudaStreamSynchronize(nullptr));  // the memory may now be used on any stream
  return memory;
}

std::size_t available_memory() {
  std::size_t free = 0;
  std::size_t total = 0;
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0;
  std::uint64_t used = 0;
  PREHEAT_CHECK(cudaStreamSynchronize(nullptr));  // memory is freed in its order
  PREHEAT_CHECK(cudaMemGetInfo(&free, &total));
  PREHEAT_CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  PREHEAT_CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  PREHEAT_CHECK(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  return free + (reserved - used);
}

void deallocate(void* memory) noexcept {
  cudaFreeAsync(memory, nullptr);
}

Stream make_stream() {
  cudaStream_t stream = nullptr;
  PREHEAT_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  PREHEAT_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

Event make_timer() {
  cudaEvent_t event = nullptr;
  PREHEAT_CHECK(cudaEventCreate(&event));
  return Event(event);
}

std::size_t nodes_of(const Graph& graph) {
  std::size_t nodes = 0;
  PREHEAT_CHECK(cudaGraphGetNodes(graph.get(), nullptr, &nodes));
  return nodes;
}

GraphExec instantiate(const Graph& graph) {
  cudaGraphExec_t exec = nullptr;
  PREHEAT_CHECK(cudaGraphInstantiate(&exec, graph.get(), 0));
  return GraphExec(exec);
}

float milliseconds(const Event& from, const Event& to) {
  float time = 0;
  PREHEAT_CHECK(cudaEventElapsedTime(&time, from.get(), to.get()));
  return time;
}

}  // namespace preheat::cuda
