// The second half of a sum that many blocks share: each has left its own, and these are added up.
#pragma once

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int sum_pack = 4;
inline constexpr int sum_lanes = 16;    // packs beside each other
inline constexpr int sum_sharers = 16;  // threads that share the partials of a pack

template <class T>
__global__ void __launch_bounds__(sum_lanes* sum_sharers)
    add_partials_kernel(const float* partials, int blocks, int size, T* sum_of_all) {
  __shared__ float sums[sum_sharers][sum_lanes][sum_pack];
  const int lane = static_cast<int>(threadIdx.x) % sum_lanes;
  const int sharer = static_cast<int>(threadIdx.x) / sum_lanes;
  const std::int64_t at = std::int64_t{blockIdx.x} * sum_lanes + lane;
  float sum[sum_pack] = {};
#pragma unroll 8
  for (int block = sharer; block < blocks; block += sum_sharers) {
    float values[sum_pack];
    load<float, sum_pack>(partials, std::int64_t{block} * (size / sum_pack) + at, values);
#pragma unroll
    for (int k = 0; k < sum_pack; ++k) sum[k] += values[k];
  }
#pragma unroll
  for (int k = 0; k < sum_pack; ++k) sums[sharer][lane][k] = sum[k];
  __syncthreads();
  if (sharer > 0) return;
  for (int other = 1; other < sum_sharers; ++other) {
#pragma unroll
    for (int k = 0; k < sum_pack; ++k) sum[k] += sums[other][lane][k];
  }
  store<T, sum_pack>(sum_of_all, at, sum);
}

/// The sums of `blocks` partials of `size` floats each, a multiple of 64, in a fixed order.
template <class T>
cudaError_t add_partials(const float* partials, int blocks, int size, T* sums,
                         cudaStream_t stream) {
  add_partials_kernel<T><<<size / (sum_pack * sum_lanes), sum_lanes * sum_sharers, 0, stream>>>(
      partials, blocks, size, sums);
  return cudaGetLastError();
}

}  // namespace preheat::kernels
