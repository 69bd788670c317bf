// The second half of a sum over many blocks: adds up the partials that they have left.
#pragma once

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int partial_pack = 4;
inline constexpr int partial_lanes = 16;    // adjacent packs
inline constexpr int partial_sharers = 16;  // threads that split the partials of a pack

template <class T>
__global__ void __launch_bounds__(partial_lanes* partial_sharers)
    add_partials_kernel(const float* partials, int blocks, int size, T* sum_of_all) {
  __shared__ float sums[partial_sharers][partial_lanes][partial_pack];
  const int lane = static_cast<int>(threadIdx.x) % partial_lanes;
  const int reducer = static_cast<int>(threadIdx.x) / partial_lanes;
  const std::int64_t at = std::int64_t{blockIdx.x} * partial_lanes + lane;
  float sum[partial_pack] = {};
#pragma unroll 8
  for (int block = reducer; block < blocks; block += partial_sharers) {
    float values[partial_pack];
    load<float, partial_pack>(partials, std::int64_t{block} * (size / partial_pack) + at, values);
#pragma unroll
    for (int k = 0; k < partial_pack; ++k) sum[k] += values[k];
  }
#pragma unroll
  for (int k = 0; k < partial_pack; ++k) sums[reducer][lane][k] = sum[k];
  __syncthreads();
  if (reducer > 0) return;
  for (int other = 1; other < partial_sharers; ++other) {
#pragma unroll
    for (int k = 0; k < partial_pack; ++k) sum[k] += sums[other][lane][k];
  }
  store<T, partial_pack>(sum_of_all, at, sum);
}

/// The sums of `blocks` partials of `size` floats each, a multiple of 64, in a fixed order.
template <class T>
cudaError_t add_partials(const float* partials, int blocks, int size, T* sums,
                         cudaStream_t stream) {
  add_partials_kernel<T>
      <<<size / (partial_pack * partial_lanes), partial_lanes * partial_sharers, 0, stream>>>(
          partials, blocks, size, sums);
  return cudaGetLastError();
}

}  // namespace preheat::kernels
