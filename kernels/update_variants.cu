// Baselines that sgd_momentum is measured against: the same work without its segments, in more
// launches, in more passes, and its memory traffic without any work.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 256;

unsigned blocks_for(std::int64_t size) {
  return static_cast<unsigned>(((size + 3) / 4 + threads - 1) / threads);
}

__device__ std::int64_t four() {
  return std::int64_t{blockIdx.x} * threads + threadIdx.x;
}

__device__ float rate_of(const Rate& rate) {
  if (rate.table != nullptr) return rate.table[rate.state->step];
  return rate.state != nullptr ? rate.state->lr : rate.value;
}

// Calls work(index of the float) for each of this thread's four floats; fewer at the end of an
// array.
template <class Work>
__device__ void over_rest(std::int64_t size, const Work& work) {
  const std::int64_t begin = 4 * four();
  for (std::int64_t i = begin; i < size && i < begin + 4; ++i) work(i);
}

__global__ void __launch_bounds__(threads)
    copy_kernel(const float* from, float* to, std::int64_t size) {
  const std::int64_t i = four();
  if (4 * i + 4 <= size) {
    __stcs(reinterpret_cast<float4*>(to) + i, __ldcs(reinterpret_cast<const float4*>(from) + i));
  } else {
    over_rest(size, [&](std::int64_t k) { to[k] = from[k]; });
  }
}

__global__ void __launch_bounds__(threads)
    traffic_kernel(float* weights, float* velocity, const float* gradients, std::int64_t size) {
  const std::int64_t i = four();
  if (4 * i + 4 > size) return;
  float4* const w = reinterpret_cast<float4*>(weights) + i;
  float4* const v = reinterpret_cast<float4*>(velocity) + i;
  const float4 g = __ldcs(reinterpret_cast<const float4*>(gradients) + i);
  const float4 old_w = __ldcs(w);
  const float4 old_v = __ldcs(v);
  __stcs(w, old_v);
  // The sum keeps the compiler from dropping the load of w.
  __stcs(v, {g.x + old_w.x, g.y + old_w.y, g.z + old_w.z, g.w + old_w.w});
}

__global__ void __launch_bounds__(threads)
    flat_kernel(const SgdMomentum rule, const Rate rate, float weight_decay, std::int64_t size,
                const float* gradients, float* weights, float* velocity) {
  const std::int64_t i = four();
  const UpdateScalars scalars = update_scalars(rule, rate_of(rate), 0, 0, 0);
  if (4 * i + 4 > size) {
    over_rest(size, [&](std::int64_t k) {
      sgd_momentum(rule, scalars, weight_decay, gradients[k], weights[k], velocity[k]);
    });
    return;
  }
  const float4 g4 = reinterpret_cast<const float4*>(gradients)[i];
  const float4 w4 = reinterpret_cast<const float4*>(weights)[i];
  const float4 v4 = reinterpret_cast<const float4*>(velocity)[i];
  const float g[4] = {g4.x, g4.y, g4.z, g4.w};
  float w[4] = {w4.x, w4.y, w4.z, w4.w};
  float v[4] = {v4.x, v4.y, v4.z, v4.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) sgd_momentum(rule, scalars, weight_decay, g[k], w[k], v[k]);
  reinterpret_cast<float4*>(weights)[i] = {w[0], w[1], w[2], w[3]};
  reinterpret_cast<float4*>(velocity)[i] = {v[0], v[1], v[2], v[3]};
}

// to = a * to + b * from
__global__ void __launch_bounds__(threads)
    axpby_kernel(float a, float b, const Rate rate, std::int64_t size, const float* from,
                 float* to) {
  const float factor = b * rate_of(rate);
  const std::int64_t i = four();
  if (4 * i + 4 > size) {
    over_rest(size, [&](std::int64_t k) { to[k] = fmaf(factor, from[k], a * to[k]); });
    return;
  }
  const float4 x = reinterpret_cast<const float4*>(from)[i];
  float4 y = reinterpret_cast<const float4*>(to)[i];
  y = {fmaf(factor, x.x, a * y.x), fmaf(factor, x.y, a * y.y), fmaf(factor, x.z, a * y.z),
       fmaf(factor, x.w, a * y.w)};
  reinterpret_cast<float4*>(to)[i] = y;
}

__global__ void empty_kernel() {}

}  // namespace

cudaError_t copy(const float* from, float* to, std::int64_t size, cudaStream_t stream) {
  copy_kernel<<<blocks_for(size), threads, 0, stream>>>(from, to, size);
  return cudaGetLastError();
}

cudaError_t read_three_write_two(float* weights, float* velocity, const float* gradients,
                                 std::int64_t size, cudaStream_t stream) {
  traffic_kernel<<<blocks_for(size), threads, 0, stream>>>(weights, velocity, gradients, size);
  return cudaGetLastError();
}

cudaError_t update_flat(const SgdMomentum& rule, const Rate& rate, float weight_decay,
                        std::int64_t size, const float* gradients, float* weights, float* velocity,
                        cudaStream_t stream) {
  flat_kernel<<<blocks_for(size), threads, 0, stream>>>(rule, rate, weight_decay, size, gradients,
                                                        weights, velocity);
  return cudaGetLastError();
}

cudaError_t add_decay(float weight_decay, std::int64_t size, const float* weights, float* gradients,
                      cudaStream_t stream) {
  axpby_kernel<<<blocks_for(size), threads, 0, stream>>>(1, weight_decay, Rate{1}, size, weights,
                                                         gradients);
  return cudaGetLastError();
}

cudaError_t add_momentum(float momentum, std::int64_t size, const float* gradients, float* velocity,
                         cudaStream_t stream) {
  axpby_kernel<<<blocks_for(size), threads, 0, stream>>>(momentum, 1, Rate{1}, size, gradients,
                                                         velocity);
  return cudaGetLastError();
}

cudaError_t subtract_scaled(const Rate& rate, std::int64_t size, const float* velocity,
                            float* weights, cudaStream_t stream) {
  axpby_kernel<<<blocks_for(size), threads, 0, stream>>>(1, -1, rate, size, velocity, weights);
  return cudaGetLastError();
}

cudaError_t empty(cudaStream_t stream) {
  empty_kernel<<<1, 32, 0, stream>>>();
  return cudaGetLastError();
}

}  // namespace preheat::kernels
