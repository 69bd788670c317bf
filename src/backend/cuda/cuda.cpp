#include "backend/cuda/cuda.h"

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "config/error.h"

namespace preheat::cuda {
namespace {

std::string message(std::string_view library, std::string_view name, std::string_view text,
                    const char* call, const char* file, int line) {
  const std::string_view path(file);
  return fmt::format("{}: {}: {} ({}, {}:{})", library, name, text, call,
                     path.substr(path.find_last_of('/') + 1), line);
}

}  // namespace

void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that the next launch does not report it
  const std::string text =
      message("CUDA", cudaGetErrorName(status), cudaGetErrorString(status), call, file, line);
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(text);
  throw Error(text);
}

void check(cudnnStatus_t status, const char* call, const char* file, int line) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char text[512] = "";
  cudnnGetLastErrorString(text, sizeof text);
  throw Error(message("cuDNN", cudnnGetErrorString(status), text, call, file, line));
}

void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(message("cuBLAS", cublasLtGetStatusName(status), cublasLtGetStatusString(status),
                      call, file, line));
}

cudaMemPool_t default_pool() {
  cudaMemPool_t pool = nullptr;
  PREHEAT_CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
  return pool;
}

// Allocates from the device's pool, which keeps freed memory: an experiment makes one replica after
// the other, and the driver is slow to hand out memory. What it keeps may be in pieces too small:
// before an allocation fails, the driver gets them back.
void* allocate(std::size_t bytes) {
  constexpr std::size_t granularity = 256;
  const std::size_t rounded = (bytes + granularity - 1) / granularity * granularity;
  void* memory = nullptr;
  cudaError_t status = cudaMallocAsync(&memory, rounded, nullptr);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    PREHEAT_CHECK(cudaStreamSynchronize(nullptr));  // memory is freed in its order
    PREHEAT_CHECK(cudaMemPoolTrimTo(default_pool(), 0));
    status = cudaMallocAsync(&memory, rounded, nullptr);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(fmt::format("out of GPU memory: {} MiB requested, {} MiB free", rounded >> 20,
                                  available_memory() >> 20));
  }
  PREHEAT_CHECK(status);
  PREHEAT_CHECK(cudaStreamSynchronize(nullptr));  // the memory may now be used on any stream
  return memory;
}

std::size_t available_memory() {
  std::size_t free = 0;
  std::size_t total = 0;
  const cudaMemPool_t pool = default_pool();
  std::uint64_t reserved = 0;
  std::uint64_t used = 0;
  PREHEAT_CHECK(cudaStreamSynchronize(nullptr));  // memory is freed in its order
  PREHEAT_CHECK(cudaMemGetInfo(&free, &total));
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

CudnnHandle make_cudnn_handle() {
  cudnnHandle_t handle = nullptr;
  PREHEAT_CHECK(cudnnCreate(&handle));
  return CudnnHandle(handle);
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
