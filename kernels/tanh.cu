// tanh as a pass of its own: 2 E forward and 3 E backward for E elements. The fused passes
// (normalize.cuh) know only activations that the sign of z tells everything about.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 256;

template <class T, int pack>
__global__ void __launch_bounds__(threads) tanh_kernel(std::int64_t packs, T* y) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= packs) return;
  float values[pack];
  load<T, pack>(y, i, values);
#pragma unroll
  for (int k = 0; k < pack; ++k) values[k] = tanhf(values[k]);
  store<T, pack>(y, i, values);
}

template <class T, int pack>
__global__ void __launch_bounds__(threads)
    tanh_backward_kernel(std::int64_t packs, const T* y, const T* extra, T* dy) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= packs) return;
  float output[pack];
  float values[pack];
  float more[pack] = {};
  load<T, pack>(y, i, output);
  load<T, pack>(dy, i, values);
  if (extra != nullptr) load<T, pack>(extra, i, more);
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    values[k] = (values[k] + more[k]) * fmaf(-output[k], output[k], 1.0f);
  }
  store<T, pack>(dy, i, values);
}

}  // namespace

cudaError_t tanh_forward(Element element, const Images& shape, void* y, cudaStream_t stream) {
  return with_pack(element, shape.channels, {y}, [&]<class T, int pack>() {
    const std::int64_t packs = shape.size() / pack;
    tanh_kernel<T, pack>
        <<<ceil_div(packs, threads), threads, 0, stream>>>(packs, static_cast<T*>(y));
    return cudaGetLastError();
  });
}

cudaError_t tanh_backward(Element element, const Images& shape, const void* y, const void* extra,
                          void* dy, cudaStream_t stream) {
  return with_pack(element, shape.channels, {y, extra, dy}, [&]<class T, int pack>() {
    const std::int64_t packs = shape.size() / pack;
    tanh_backward_kernel<T, pack><<<ceil_div(packs, threads), threads, 0, stream>>>(
        packs, static_cast<const T*>(y), static_cast<const T*>(extra), static_cast<T*>(dy));
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
