// The moments of a batch by a pass of their own, memory-bound: E reads for E elements of x.
#include "batch_moments.cuh"

#include "normalize.cuh"

namespace preheat::kernels {
namespace {

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    moments_kernel(const ChannelGrid grid, std::int64_t rows, const T* x,
                   const BatchMoments moments) {
  __shared__ SumSpace<pack> space;
  const ChannelThread at(grid);
  float sum[pack] = {};
  float square[pack] = {};
  if (at.works) {
    float first[pack];
    load<T, pack>(x, at.pack, first);
    const std::int64_t stride = std::int64_t{gridDim.x} * grid.rows;
    std::int64_t row = std::int64_t{blockIdx.x} * grid.rows + at.row;
    // The tail has no loop of its own, as that would wait for one load at a time.
    constexpr int at_once = 4;
    for (; row < rows; row += at_once * stride) {
      Pack<T, pack> raw[at_once];
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        if (row + i * stride < rows)
          raw[i] = read<T, pack>(x, (row + i * stride) * grid.packs + at.pack);
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        if (row + i * stride >= rows) break;
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          const float d = to_float(raw[i].value[k]) - first[k];
          sum[k] += d;
          square[k] = fmaf(d, d, square[k]);
        }
      }
    }
  }
  write_channel_partials<pack>(grid, threadIdx.x, sum, square, space, moments.scratch.partials);
  if (!is_last_block(moments.scratch.counter, gridDim.x * gridDim.y)) return;
  finish_moments<pack>(moments, rows, grid.packs, space,
                       [&](std::int64_t c) { return to_float(x[c]); });
}

}  // namespace

// The more groups of channels there are, the fewer blocks share the rows of each.
std::size_t channel_sums_floats(std::int32_t max_channels) {
  std::size_t most = 0;
  for (std::int32_t channels = 1; channels <= max_channels; ++channels) {
    const auto groups = static_cast<unsigned>((channels - 1) / max_sum_channels + 1);
    const std::size_t floats =
        std::size_t{2} * row_blocks(groups, max_row_blocks) * static_cast<std::size_t>(channels);
    most = std::max(most, floats);
  }
  const int summed = std::min(max_channels, max_convolution_channels);
  return std::max(most, std::size_t{2} * max_convolution_blocks * static_cast<std::size_t>(summed));
}

cudaError_t batch_moments(Element element, const Images& shape, const void* x,
                          const BatchMoments& moments, cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  return with_pack(
      element, shape.channels, {x, moments.scratch.partials}, [&]<class T, int pack>() {
        const ChannelGrid g = channel_grid(shape.rows(), shape.channels, pack, rows_per_thread,
                                           max_row_blocks, sum_lanes<pack>);
        moments_kernel<T, pack><<<g.blocks_and_groups(), channel_threads, 0, stream>>>(
            g, shape.rows(), static_cast<const T*>(x), moments);
        return cudaGetLastError();
      });
}

}  // namespace preheat::kernels
