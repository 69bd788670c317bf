// A kernel launch, with its arguments by value.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace emulation {

struct Launch {
  const void* kernel = nullptr;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  std::size_t shared_limit = 0;                                        // for a block, of both kinds
  void (*call)(const void* kernel, void* const* arguments) = nullptr;  // runs one thread
  std::vector<std::size_t> sizes;
  std::vector<std::shared_ptr<std::byte[]>> arguments;  // never written, so copies may share them

  void add(const void* value, std::size_t size) {
    auto bytes = std::make_shared<std::byte[]>(size);
    std::memcpy(bytes.get(), value, size);
    sizes.push_back(size);
    arguments.push_back(std::move(bytes));
  }
};

/// Runs all blocks of a launch, one after the other. One launch at a time.
void run(const Launch& launch);

// Of the thread that is running.
unsigned current_thread();
bool is_on_stack(const void* memory);
/// Its built-in variables, its parameters or a constant of the program.
bool is_constant(const void* memory);

/// Puts a launch on a stream. cudaGetLastError() returns what is wrong with it.
void enqueue(Launch launch, cudaStream_t stream);

template <class... Parameters, std::size_t... i>
void call_kernel(const void* kernel, void* const* arguments, std::index_sequence<i...>) {
  reinterpret_cast<void (*)(Parameters...)>(const_cast<void*>(kernel))(
      *static_cast<std::remove_const_t<Parameters>*>(arguments[i])...);
}

/// kernel<<<grid, block, shared_bytes, stream>>>
template <class... Parameters>
auto configure(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes = 0,
               cudaStream_t stream = nullptr) {
  return [=](std::type_identity_t<Parameters>... arguments) {
    Launch launch;
    launch.kernel = reinterpret_cast<const void*>(kernel);
    launch.grid = grid;
    launch.block = block;
    launch.shared_bytes = shared_bytes;
    launch.call = [](const void* function, void* const* values) {
      call_kernel<Parameters...>(function, values, std::index_sequence_for<Parameters...>{});
    };
    (launch.add(&arguments, sizeof arguments), ...);
    enqueue(std::move(launch), stream);
  };
}

}  // namespace emulation
