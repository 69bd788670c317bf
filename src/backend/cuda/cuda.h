// RAII wrappers of CUDA's objects, and its errors as exceptions. Everything is move-only;
// destructors never throw.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "config/error.h"

namespace preheat::cuda {

/// Throws Error with the library, the error's name and text, the call and its location, unless the
/// status is success.
void check(cudaError_t status, const char* call, const char* file, int line);
void check(cudnnStatus_t status, const char* call, const char* file, int line);
void check(cublasStatus_t status, const char* call, const char* file, int line);

#define PREHEAT_CHECK(call) ::preheat::cuda::check((call), #call, __FILE__, __LINE__)

/// `bytes` of device memory. Throws OutOfMemory naming the bytes requested and free.
void* allocate(std::size_t bytes);
void deallocate(void* memory) noexcept;

/// What make() returns. If it throws OutOfMemory, the error ends with the remedy.
template <class Make>
auto with_remedy(const char* remedy, const Make& make) {
  try {
    return make();
  } catch (const OutOfMemory& e) {
    throw OutOfMemory(fmt::format("{}; {}", e.what(), remedy));
  }
}

/// The pool from which allocate() takes memory.
cudaMemPool_t default_pool();

/// Bytes that can be allocated: those that the device has free, and those that its pool keeps.
std::size_t available_memory();

/// An uninitialised array in device memory. Its allocation is rounded up to a multiple of 256
/// bytes, so that any array can be read 16 bytes at a time to its end. Const as a pointer is: the
/// array may change.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size)
      : size_(size), data_(static_cast<T*>(size > 0 ? allocate(size * sizeof(T)) : nullptr)) {}
  T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  struct Free {
    void operator()(T* memory) const noexcept { deallocate(memory); }
  };
  std::size_t size_ = 0;
  std::unique_ptr<T, Free> data_;
};

/// A pinned array in host memory, which the device reads and writes without an intermediate copy.
template <class T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t size) {
    void* memory = nullptr;
    PREHEAT_CHECK(cudaMallocHost(&memory, size * sizeof(T)));
    data_.reset(static_cast<T*>(memory));
  }
  T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* memory) const noexcept { cudaFreeHost(memory); }
  };
  std::unique_ptr<T, Free> data_;
};

/// Owns a handle; `destroy` is called once.
template <class Handle, auto destroy>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != Handle{}) destroy(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != Handle{}; }

 private:
  Handle handle_{};
};

using Stream = Owned<cudaStream_t, &cudaStreamDestroy>;
using Event = Owned<cudaEvent_t, &cudaEventDestroy>;
using Graph = Owned<cudaGraph_t, &cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, &cudaGraphExecDestroy>;
using CudnnHandle = Owned<cudnnHandle_t, &cudnnDestroy>;
using CublasHandle = Owned<cublasLtHandle_t, &cublasLtDestroy>;

Stream make_stream();  // does not synchronise with the default stream
Event make_event();    // for ordering only, without timing
Event make_timer();    // with timing
CudnnHandle make_cudnn_handle();

/// Milliseconds between two events that have completed.
float milliseconds(const Event& from, const Event& to);

/// Captures what `enqueue` puts on the stream into a graph. Throws Error if a call is not allowed
/// during capture.
template <class Enqueue>
Graph capture(const Stream& stream, Enqueue&& enqueue) {
  PREHEAT_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  cudaGraph_t raw = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream.get(), &raw);
    if (raw != nullptr) cudaGraphDestroy(raw);
    cudaGetLastError();
    throw;
  }
  PREHEAT_CHECK(cudaStreamEndCapture(stream.get(), &raw));
  return Graph(raw);
}

std::size_t nodes_of(const Graph& graph);

/// An executable graph.
GraphExec instantiate(const Graph& graph);

/// Copies on the stream. The host memory must stay unchanged until the copy is done; for pageable
/// memory that is on return.
template <class T>
void upload(std::span<const T> from, T* to, const Stream& stream) {
  PREHEAT_CHECK(
      cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream.get()));
}

template <class T>
void download(const T* from, std::span<T> to, const Stream& stream) {
  PREHEAT_CHECK(
      cudaMemcpyAsync(to.data(), from, to.size_bytes(), cudaMemcpyDeviceToHost, stream.get()));
}

template <class T>
void clear(const Buffer<T>& buffer, const Stream& stream) {
  PREHEAT_CHECK(cudaMemsetAsync(buffer.data(), 0, buffer.bytes(), stream.get()));
}

/// Fills a buffer with repetitions of the pattern: one upload, then copies of what is already
/// there.
template <class T>
void fill_with(const std::vector<T>& pattern, const Buffer<T>& buffer, const Stream& stream) {
  std::size_t done = std::min(buffer.size(), pattern.size());
  upload(std::span(pattern).first(done), buffer.data(), stream);
  while (done < buffer.size()) {
    const std::size_t now = std::min(done, buffer.size() - done);
    PREHEAT_CHECK(cudaMemcpyAsync(buffer.data() + done, buffer.data(), now * sizeof(T),
                                  cudaMemcpyDeviceToDevice, stream.get()));
    done += now;
  }
}

inline void wait(const Stream& stream) {
  PREHEAT_CHECK(cudaStreamSynchronize(stream.get()));
}

}  // namespace preheat::cuda
