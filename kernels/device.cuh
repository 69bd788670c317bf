// Shared by the kernels: storage types as floats, 16-byte accesses, and sums in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <initializer_list>

#include "launch.h"

namespace preheat::kernels {

/// Grids are made for the multiprocessors of an H100 on every device, as the order of sums follows
/// from them.
inline constexpr int tuned_multiprocessors = 132;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}

template <class T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

/// n elements, loaded and stored by one instruction.
template <class T, int n>
struct alignas(sizeof(T) * n) Pack {
  T value[n];
};

/// Elements in 16 bytes.
template <class T>
inline constexpr int full_pack = 16 / sizeof(T);

template <class T, int n>
__device__ inline void unpack(const Pack<T, n>& pack, float (&values)[n]) {
#pragma unroll
  for (int k = 0; k < n; ++k) values[k] = to_float(pack.value[k]);
}

/// Pack `i` of an array of packs of n, as floats. Through a copy: elements of a pack in global
/// memory would be loaded one by one.
template <class T, int n>
__device__ inline void load(const T* data, std::int64_t i, float (&values)[n]) {
  const Pack<T, n> pack = reinterpret_cast<const Pack<T, n>*>(data)[i];
  unpack(pack, values);
}

/// Returns what it has stored.
template <class T, int n>
__device__ inline Pack<T, n> store(T* data, std::int64_t i, const float (&values)[n]) {
  Pack<T, n> pack;
#pragma unroll
  for (int k = 0; k < n; ++k) pack.value[k] = from_float<T>(values[k]);
  reinterpret_cast<Pack<T, n>*>(data)[i] = pack;
  return pack;
}

/// a / b rounded up, for non-negative numbers.
constexpr int ceil_div(std::int64_t a, std::int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// Whether a 16-byte access is possible there; also true for null, which is never read.
inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// Whether this block is the last of `blocks` to arrive here; all of its threads get the same
/// answer. What the other blocks wrote before is then visible. The counter returns to 0.
__device__ inline bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

/// The sums over a block of up to 1024 threads (a multiple of 32), in thread 0; undefined in the
/// others.
template <class Number, int n>
__device__ inline void block_sums(Number (&values)[n]) {
  __shared__ Number sums[n][32];
  const auto warp_sums = [&] {
    for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
      for (int k = 0; k < n; ++k) values[k] += __shfl_down_sync(0xffffffffu, values[k], offset);
    }
  };
  warp_sums();
  const unsigned warp = threadIdx.x / 32;
  __syncthreads();  // until an earlier call's sums are read
#pragma unroll
  for (int k = 0; k < n; ++k) {
    if (threadIdx.x % 32 == 0) sums[k][warp] = values[k];
  }
  __syncthreads();
  if (warp > 0) return;
#pragma unroll
  for (int k = 0; k < n; ++k) {
    values[k] = threadIdx.x < blockDim.x / 32 ? sums[k][threadIdx.x] : Number{};
  }
  warp_sums();
}

template <class Number>
__device__ inline Number block_sum(Number value) {
  Number values[] = {value};
  block_sums(values);
  return values[0];
}

/// Calls work.template operator()<T>() with the type that `element` stands for.
template <class Work>
cudaError_t with_type(Element element, Work&& work) {
  switch (element) {
    case Element::f32:
      return work.template operator()<float>();
    case Element::bf16:
      return work.template operator()<__nv_bfloat16>();
    case Element::f16:
      return work.template operator()<__half>();
  }
  return cudaErrorInvalidValue;
}

/// Calls work.template operator()<T, pack>() with 16-byte packs if all rows and pointers are
/// 16-byte aligned, else with packs of one element.
template <class Work>
cudaError_t with_pack(Element element, std::int32_t channels,
                      std::initializer_list<const void*> pointers, Work&& work) {
  return with_type(element, [&]<class T>() {
    bool aligned = channels % full_pack<T> == 0;
    for (const void* p : pointers) aligned = aligned && is_aligned(p);
    return aligned ? work.template operator()<T, full_pack<T>>() : work.template operator()<T, 1>();
  });
}

}  // namespace preheat::kernels
