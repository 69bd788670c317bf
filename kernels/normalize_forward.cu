// Batch norm, bias, residual, activation and pooling between two convolutions. Memory-bound: 2 E
// for E elements of x, 1.25 E pooled.
#include "normalize.cuh"

namespace preheat::kernels {
namespace {

// Resident blocks per SM of an H100, which the register budget is set for: enough bytes in flight,
// and the pass one wave of blocks that walk the same number of rows.
constexpr unsigned forward_occupancy = 3;
constexpr unsigned max_forward_blocks = forward_occupancy * tuned_multiprocessors;

template <class T, int pack, bool has_residual>
__global__ void __launch_bounds__(channel_threads, forward_occupancy)
    forward_kernel(const ChannelGrid grid, std::int64_t rows, float slope, const Norm norm,
                   const T* x, const T* residual, T* y) {
  const ChannelThread at(grid);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  constexpr int at_once = has_residual ? 2 : 4;
  const auto [stride, end, begin] = PackRange(grid, at, rows);
  for (std::int64_t first = begin; first < end; first += at_once * stride) {
    Pack<T, pack> values[at_once];
    Pack<T, pack> added[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i * stride >= end) break;
      values[i] = read<T, pack>(x, first + i * stride);
      if constexpr (has_residual) added[i] = read<T, pack>(residual, first + i * stride);
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i * stride >= end) break;
      float out[pack];
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        float z = channels.z(k, channels.centered(k, to_float(values[i].value[k])));
        if constexpr (has_residual) z += to_float(added[i].value[k]);
        out[k] = activation(z, slope);
      }
      store<T, pack>(y, first + i * stride, out);
    }
  }
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads, forward_occupancy)
    pooled_forward_kernel(const ChannelGrid grid, const Images shape, float slope, const Norm norm,
                          const T* x, T* y) {
  const ChannelThread at(grid);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const auto count = static_cast<std::uint32_t>(windows(shape, true));
  const std::uint32_t stride = gridDim.x * grid.rows;
  for (std::uint32_t index = blockIdx.x * grid.rows + at.row; index < count; index += stride) {
    const Window window(shape, index, true);
    Pack<T, pack> values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = read<T, pack>(x, window.row[i] * grid.packs + at.pack);
    }
    float out[pack];
#pragma unroll
    for (int k = 0; k < pack; ++k) out[k] = maximum_of(channels, slope, values, k).y;
    store<T, pack>(y, window.pooled_row * grid.packs + at.pack, out);
  }
}

}  // namespace

cudaError_t normalize_forward(Element element, const Images& shape, const Fusion& fusion,
                              const Norm& norm, const void* x, const void* residual, void* y,
                              cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  if (fusion.pooled && (!can_pool(shape) || residual != nullptr)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {x, residual, y}, [&]<class T, int pack>() {
    const std::int64_t rows = fusion.pooled ? windows(shape, true) : shape.rows();
    const ChannelGrid g = channel_grid(rows, shape.channels, pack,
                                       fusion.pooled ? 1 : rows_per_thread, max_forward_blocks);
    const dim3 blocks = g.blocks_and_groups();
    if (fusion.pooled) {
      pooled_forward_kernel<T, pack><<<blocks, channel_threads, 0, stream>>>(
          g, shape, fusion.slope, norm, static_cast<const T*>(x), static_cast<T*>(y));
    } else if (residual != nullptr) {
      forward_kernel<T, pack, true><<<blocks, channel_threads, 0, stream>>>(
          g, rows, fusion.slope, norm, static_cast<const T*>(x), static_cast<const T*>(residual),
          static_cast<T*>(y));
    } else {
      forward_kernel<T, pack, false><<<blocks, channel_threads, 0, stream>>>(
          g, rows, fusion.slope, norm, static_cast<const T*>(x), nullptr, static_cast<T*>(y));
    }
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
