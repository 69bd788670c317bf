// Pooling that cannot be fused with the preceding operation (normalize.cuh): each output element
// belongs to one thread, so only the averages sum across threads.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 256;
constexpr int warp = 32;

unsigned blocks_for(std::int64_t work) {
  return static_cast<unsigned>((work + threads - 1) / threads);
}

__device__ std::int64_t global_thread() {
  return std::int64_t{blockIdx.x} * threads + threadIdx.x;
}

template <class T, int pack>
__global__ void __launch_bounds__(threads)
    max_pool_kernel(const Images shape, std::int32_t kernel, const T* x, T* y, std::uint8_t* at) {
  const std::int32_t packs = shape.channels / pack;
  const std::int32_t columns = shape.width / kernel;
  const std::int32_t rows = shape.height / kernel;
  const std::int64_t thread = global_thread();
  if (thread >= shape.batch * rows * columns * packs) return;
  const std::int64_t p = thread % packs;
  std::int64_t rest = thread / packs;
  const std::int64_t column = rest % columns;
  rest /= columns;
  const std::int64_t row = rest % rows;
  const std::int64_t image = rest / rows;
  const std::int64_t corner = (image * shape.height + row * kernel) * shape.width + column * kernel;
  float largest[pack];
  int place[pack];
  load<T, pack>(x, corner * packs + p, largest);
#pragma unroll
  for (int k = 0; k < pack; ++k) place[k] = 0;
  for (std::int32_t i = 1; i < kernel * kernel; ++i) {
    float values[pack];
    load<T, pack>(x, (corner + i / kernel * shape.width + i % kernel) * packs + p, values);
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      if (values[k] > largest[k] || values[k] != values[k]) {  // NaN is larger than everything
        largest[k] = values[k];
        place[k] = i;
      }
    }
  }
  store<T, pack>(y, thread, largest);
  Pack<std::uint8_t, pack> places;
#pragma unroll
  for (int k = 0; k < pack; ++k) places.value[k] = static_cast<std::uint8_t>(place[k]);
  reinterpret_cast<Pack<std::uint8_t, pack>*>(at)[thread] = places;
}

template <class T, int pack>
__global__ void __launch_bounds__(threads)
    max_pool_backward_kernel(const Images shape, std::int32_t kernel, const T* dy, const T* extra,
                             const std::uint8_t* at, T* dx) {
  const std::int32_t packs = shape.channels / pack;
  const std::int32_t columns = shape.width / kernel;
  const std::int32_t rows = shape.height / kernel;
  const std::int64_t thread = global_thread();
  if (thread >= shape.rows() * packs) return;
  const std::int64_t p = thread % packs;
  std::int64_t rest = thread / packs;
  const std::int64_t x = rest % shape.width;
  rest /= shape.width;
  const std::int64_t y = rest % shape.height;
  const std::int64_t image = rest / shape.height;
  const std::int64_t row = y / kernel;
  const std::int64_t column = x / kernel;
  float values[pack] = {};
  if (row < rows && column < columns) {
    const std::int64_t i = ((image * rows + row) * columns + column) * packs + p;
    const auto here = static_cast<std::uint8_t>(y % kernel * kernel + x % kernel);
    const auto places = reinterpret_cast<const Pack<std::uint8_t, pack>*>(at)[i];
    load<T, pack>(dy, i, values);
    float more[pack] = {};
    if (extra != nullptr) load<T, pack>(extra, i, more);
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      values[k] = places.value[k] == here ? values[k] + more[k] : 0.0f;
    }
  }
  store<T, pack>(dx, thread, values);
}

// One warp per image and pack: its lanes split the positions.
template <class T, int pack>
__global__ void __launch_bounds__(threads) average_kernel(const Images shape, const T* x, T* y) {
  const std::int32_t packs = shape.channels / pack;
  const std::int64_t work = global_thread() / warp;
  if (work >= shape.batch * packs) return;  // uniform over a warp
  const std::int32_t positions = shape.height * shape.width;
  const std::int64_t p = work % packs;
  const std::int64_t first = work / packs * positions;
  float sum[pack] = {};
  for (std::int32_t i = static_cast<std::int32_t>(threadIdx.x % warp); i < positions; i += warp) {
    float values[pack];
    load<T, pack>(x, (first + i) * packs + p, values);
#pragma unroll
    for (int k = 0; k < pack; ++k) sum[k] += values[k];
  }
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    for (int offset = warp / 2; offset > 0; offset /= 2) {
      sum[k] += __shfl_down_sync(0xffffffffu, sum[k], offset);
    }
    sum[k] /= static_cast<float>(positions);
  }
  if (threadIdx.x % warp == 0) store<T, pack>(y, work, sum);
}

template <class T, int pack>
__global__ void __launch_bounds__(threads)
    average_backward_kernel(const Images shape, const T* dy, const T* extra, T* dx) {
  const std::int32_t packs = shape.channels / pack;
  const std::int64_t thread = global_thread();
  if (thread >= shape.rows() * packs) return;
  const std::int32_t positions = shape.height * shape.width;
  const std::int64_t i = thread / packs / positions * packs + thread % packs;
  float values[pack];
  float more[pack] = {};
  load<T, pack>(dy, i, values);
  if (extra != nullptr) load<T, pack>(extra, i, more);
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    values[k] = (values[k] + more[k]) / static_cast<float>(positions);
  }
  store<T, pack>(dx, thread, values);
}

bool is_valid(const Images& shape) {
  return shape.batch > 0 && shape.height > 0 && shape.width > 0 && shape.channels > 0 &&
         shape.size() < (std::int64_t{1} << 38);  // blocks of one-element threads fit into a grid
}

// The position in a window is stored in a byte.
constexpr std::int32_t largest_kernel = 16;

bool is_valid(const Images& shape, std::int32_t kernel) {
  return is_valid(shape) && kernel > 0 && kernel <= largest_kernel && kernel <= shape.height &&
         kernel <= shape.width;
}

}  // namespace

cudaError_t max_pool(Element element, const Images& shape, std::int32_t kernel, const void* x,
                     void* y, std::uint8_t* at, cudaStream_t stream) {
  if (!is_valid(shape, kernel)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {x, y, at}, [&]<class T, int pack>() {
    const std::int64_t work =
        shape.batch * (shape.height / kernel) * (shape.width / kernel) * (shape.channels / pack);
    max_pool_kernel<T, pack><<<blocks_for(work), threads, 0, stream>>>(
        shape, kernel, static_cast<const T*>(x), static_cast<T*>(y), at);
    return cudaGetLastError();
  });
}

cudaError_t max_pool_backward(Element element, const Images& shape, std::int32_t kernel,
                              const void* dy, const void* extra, const std::uint8_t* at, void* dx,
                              cudaStream_t stream) {
  if (!is_valid(shape, kernel)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {dy, extra, at, dx}, [&]<class T, int pack>() {
    max_pool_backward_kernel<T, pack><<<blocks_for(shape.size() / pack), threads, 0, stream>>>(
        shape, kernel, static_cast<const T*>(dy), static_cast<const T*>(extra), at,
        static_cast<T*>(dx));
    return cudaGetLastError();
  });
}

cudaError_t global_avg_pool(Element element, const Images& shape, const void* x, void* y,
                            cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {x, y}, [&]<class T, int pack>() {
    const std::int64_t work = shape.batch * (shape.channels / pack) * warp;
    average_kernel<T, pack><<<blocks_for(work), threads, 0, stream>>>(
        shape, static_cast<const T*>(x), static_cast<T*>(y));
    return cudaGetLastError();
  });
}

cudaError_t global_avg_pool_backward(Element element, const Images& shape, const void* dy,
                                     const void* extra, void* dx, cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {dy, extra, dx}, [&]<class T, int pack>() {
    average_backward_kernel<T, pack><<<blocks_for(shape.size() / pack), threads, 0, stream>>>(
        shape, static_cast<const T*>(dy), static_cast<const T*>(extra), static_cast<T*>(dx));
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
