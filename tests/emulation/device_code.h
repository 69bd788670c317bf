// The emulated device as a kernel's code sees it. translate.py makes every kernel include this.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <source_location>
#include <type_traits>

#include "emulation/accesses.h"
#include "emulation/launch.h"

namespace emulation {

/// The source location of a barrier or of an instruction of a whole warp.
using Site = std::source_location;

/// The position of the thread that is running.
struct Position {
  uint3 thread;
  uint3 block;
  dim3 block_size;
  dim3 grid_size;
};
extern Position here;

/// Waits for all threads of the block. Whether all of them passed true.
bool barrier(bool all, Site site);

/// The bits that lane `from` of the warp passes; if that lane takes no part, wrong ones.
std::uint64_t shuffle(unsigned mask, std::uint64_t bits, unsigned from, Site site);

/// A kernel begins with this if it has launch bounds: `most` threads in a block.
void bound_threads(unsigned most);

/// Declares static shared memory. Every thread of a block calls it before its first use; the first
/// call of a block poisons the memory.
void declare_shared(void* memory, std::size_t size);

void* dynamic_shared_memory();
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(dynamic_shared_memory());
}
unsigned shared_address(const void* memory);

// One function for each PTX instruction. A copy arrives when it is waited for, or at once.
void copy_async(unsigned to, const void* from, unsigned size, unsigned read);
template <unsigned size>
void copy_async(unsigned to, const void* from, unsigned read = size) {
  copy_async(to, from, size, read);
}
void commit_copies();
void wait_for_copies(int groups);
void load_matrices(bool transposed, unsigned* const (&results)[4], unsigned address, Site site);
template <bool transposed>
void load_matrices(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned address,
                   Site site = Site::current()) {
  load_matrices(transposed, {&a, &b, &c, &d}, address, site);
}
void multiply_matrices(bool bf16, float* const (&sums)[4], const unsigned (&a)[4],
                       const unsigned (&b)[2], Site site);
template <class T>
void multiply_matrices(float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1,
                       unsigned a2, unsigned a3, unsigned b0, unsigned b1,
                       Site site = Site::current()) {
  multiply_matrices(std::is_same_v<T, __nv_bfloat16>, {&s0, &s1, &s2, &s3}, {a0, a1, a2, a3},
                    {b0, b1}, site);
}

/// An atomic function: replaces a value, and returns the old one.
template <class T, class Function>
__attribute__((noinline, no_sanitize("thread"))) T replace(T* at, Function value) {
  accesses_atomically(at, sizeof *at, __builtin_return_address(0));
  const T old = *at;
  *at = value(old);
  return old;
}

}  // namespace emulation

#undef __grid_constant__
#define __grid_constant__
#define __CUDA_ARCH__ 900
#define threadIdx (::emulation::here.thread)
#define blockIdx (::emulation::here.block)
#define blockDim (::emulation::here.block_size)
#define gridDim (::emulation::here.grid_size)

using std::isfinite;
using std::max;
using std::min;

inline void __syncthreads(emulation::Site site = emulation::Site::current()) {
  emulation::barrier(true, site);
}
inline int __syncthreads_and(int value, emulation::Site site = emulation::Site::current()) {
  return emulation::barrier(value != 0, site) ? 1 : 0;
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset, unsigned width = 32,
                   emulation::Site site = emulation::Site::current()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  const unsigned lane = threadIdx.x % 32;
  const unsigned from = lane % width + offset < width ? lane + offset : lane;
  return std::bit_cast<T>(
      static_cast<Bits>(emulation::shuffle(mask, std::bit_cast<Bits>(value), from, site)));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes,
                  emulation::Site site = emulation::Site::current()) {
  static_assert(sizeof(T) == 4);
  const unsigned from = threadIdx.x % 32 ^ lanes;
  return std::bit_cast<T>(static_cast<std::uint32_t>(
      emulation::shuffle(mask, std::bit_cast<std::uint32_t>(value), from, site)));
}

// Blocks run one after the other, so the writes of one are complete and visible to the next.
inline void __threadfence() {
  emulation::fence();
}
inline unsigned atomicInc(unsigned* at, unsigned most) {
  return emulation::replace(at, [most](unsigned old) { return old >= most ? 0 : old + 1; });
}
inline int atomicMax(int* at, int value) {
  return emulation::replace(at, [value](int old) { return std::max(old, value); });
}
inline int atomicMin(int* at, int value) {
  return emulation::replace(at, [value](int old) { return std::min(old, value); });
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, const T& value) {
  *to = value;
}

inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline long long __double_as_longlong(double x) {
  return std::bit_cast<long long>(x);
}

inline std::size_t __cvta_generic_to_shared(const void* memory) {
  return emulation::shared_address(memory);
}
inline const void* __cvta_generic_to_global(const void* memory) {
  return memory;
}

/// For a kernel, as in the C++ interface of the runtime.
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
