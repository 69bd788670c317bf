// Copies into shared memory that go on beside the arithmetic, one function for each instruction.
// For compute capability 8.0 and later. Shared memory goes by its own addresses of 32 bits.
#pragma once

#include <cuda_runtime.h>

namespace preheat::kernels {

__device__ inline unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

/// Copies 16 bytes, past the first cache; zeros where not `inside`, when nothing is read at `from`.
__device__ inline void copy_async(unsigned to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(inside ? 16 : 0)
               : "memory");
}

/// Copies 4 bytes, through the first cache.
__device__ inline void copy_word_async(unsigned to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to),
               "l"(__cvta_generic_to_global(from))
               : "memory");
}

/// Ends a group of this thread's copies, of which there may be none.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits for this thread's copies, but for the latest `groups` groups.
template <int groups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

/// Whether the current device has these instructions.
inline bool has_async_copies() {
  int device = 0;
  int major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 8;
}

}  // namespace preheat::kernels
