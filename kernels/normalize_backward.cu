// The gradients of batch norm, bias, residual, activation and pooling between two convolutions.
// Memory-bound: for E elements of x the sums move 2 E (1.25 E pooled), the second pass 3 E (2.25
// E).
#include "normalize.cuh"

namespace preheat::kernels {
namespace {

// Resident blocks per SM of an H100, which the register budgets are set for: enough bytes in
// flight, and each pass one wave of blocks that walk the same number of rows.
constexpr unsigned backward_occupancy = 2;
constexpr unsigned sums_occupancy = max_row_blocks / tuned_multiprocessors;
constexpr unsigned max_backward_blocks = backward_occupancy * tuned_multiprocessors;

// What a backward pass has to read. x: for the sign of z, or for xhat.
struct Reads {
  bool x = false;
  bool y = false;
  bool sign = false;  // whether the sign of z is used at all
};

// In the last block of a first pass.
template <int pack>
__device__ void finish_gradients(unsigned packs, const Norm& norm, const float* partials,
                                 SumSpace<pack>& space, float* d_weight, float* d_bias) {
  finish_channels<pack>(packs, gridDim.x, partials, space, [&](std::int64_t c, double a, double b) {
    if (d_bias != nullptr) d_bias[c] = static_cast<float>(a);
    if (d_weight == nullptr) return;
    // The factor of xhat that is constant over a channel.
    const float inv_std =
        norm.inv_std != nullptr ? norm.inv_std[c] : inv_std_of(norm.var[c], norm.epsilon);
    d_weight[c] = static_cast<float>(b * double{inv_std});
  });
}

// sign_of_y is a template parameter to save registers: false needs none for y, true none for the
// terms of z.
template <class T, int pack, bool sign_of_y>
__global__ void __launch_bounds__(channel_threads, sums_occupancy)
    sums_kernel(const ChannelGrid grid, const NormBackward of, Reads reads, const void* y, T* dz,
                float* d_weight, float* d_bias, const SumScratch scratch) {
  __shared__ SumSpace<pack> space;
  const ChannelThread at(grid);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    const Channels<pack> channels(of.norm, at.pack);
    const float slope = of.fusion.slope;
    constexpr int at_once = 2;
    const auto [stride, end, begin] = PackRange(grid, at, of.shape.rows());
    for (std::int64_t first = begin; first < end; first += at_once * stride) {
      Pack<T, pack> values[at_once] = {};
      Pack<T, pack> signs[at_once];
      Pack<T, pack> gradient[at_once];
      Pack<T, pack> more[at_once] = {};
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        const std::int64_t from = first + i * stride;
        if (from >= end) break;
        gradient[i] = read<T, pack>(of.dy, from);
        if (reads.x) values[i] = read<T, pack>(of.x, from);
        if constexpr (sign_of_y) signs[i] = read<T, pack>(y, from);
        if (of.extra != nullptr) more[i] = read<T, pack>(of.extra, from);
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        if (first + i * stride >= end) break;
        float out[pack];
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          const float centered = channels.centered(k, to_float(values[i].value[k]));
          float d = to_float(gradient[i].value[k]) + to_float(more[i].value[k]);
          if (reads.sign) {
            float z;
            if constexpr (sign_of_y) {
              z = to_float(signs[i].value[k]);
            } else {
              z = channels.z(k, centered);
            }
            d = z > 0 ? d : slope * d;
          }
          sum[k] += d;
          product[k] = fmaf(d, centered, product[k]);
          out[k] = d;
        }
        if (dz != nullptr) store<T, pack>(dz, first + i * stride, out);
      }
    }
  }
  if (d_bias == nullptr && d_weight == nullptr) return;
  write_channel_partials<pack>(grid, threadIdx.x, sum, product, space, scratch.partials);
  if (!is_last_block(scratch.counter, gridDim.x * gridDim.y)) return;
  finish_gradients<pack>(grid.packs, of.norm, scratch.partials, space, d_weight, d_bias);
}

// The inputs of the gradient of one window; zeros if they do not exist.
template <class T, int pack>
struct WindowValues {
  Pack<T, pack> x[4] = {};
  Pack<T, pack> dy = {};
  Pack<T, pack> extra = {};

  __device__ WindowValues(const Window& window, unsigned packs, unsigned at,
                          const NormBackward& of) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (window.exists[i]) x[i] = read<T, pack>(of.x, window.row[i] * packs + at);
    }
    if (!window.whole) return;
    dy = read<T, pack>(of.dy, window.pooled_row * packs + at);
    if (of.extra != nullptr) extra = read<T, pack>(of.extra, window.pooled_row * packs + at);
  }
  // The gradient at the maximum: all of dy if z > 0 there, else slope times it.
  __device__ float gradient(int k, float slope, const Maximum& maximum) const {
    const float d = to_float(dy.value[k]) + to_float(extra.value[k]);
    return maximum.positive ? d : slope * d;
  }
};

// Writes a pack of each corner of a window that exists.
template <class T, int pack>
__device__ void store_window(const Window& window, unsigned packs, unsigned at,
                             const Pack<T, pack> (&values)[4], T* to) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (!window.exists[i]) continue;
    reinterpret_cast<Pack<T, pack>*>(to)[window.row[i] * packs + at] = values[i];
  }
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads, sums_occupancy)
    pooled_sums_kernel(const ChannelGrid grid, const NormBackward of, T* dz, float* d_weight,
                       float* d_bias, const SumScratch scratch) {
  __shared__ SumSpace<pack> space;
  const ChannelThread at(grid);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    const Channels<pack> channels(of.norm, at.pack);
    const float slope = of.fusion.slope;
    // Incomplete windows have no gradient; they are visited only if dz is written.
    const bool only_whole = dz == nullptr;
    const auto count = static_cast<std::uint32_t>(windows(of.shape, only_whole));
    const std::uint32_t stride = gridDim.x * grid.rows;
    for (std::uint32_t index = blockIdx.x * grid.rows + at.row; index < count; index += stride) {
      const Window window(of.shape, index, only_whole);
      Pack<T, pack> out[4] = {};
      if (window.whole) {
        const WindowValues<T, pack> values(window, grid.packs, at.pack, of);
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          const Maximum maximum = maximum_of(channels, slope, values.x, k);
          const float d = values.gradient(k, slope, maximum);
          sum[k] += d;
          product[k] = fmaf(d, maximum.centered, product[k]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            out[i].value[k] = from_float<T>(i == maximum.at ? d : 0.0f);
          }
        }
      }
      if (dz == nullptr) continue;
      store_window(window, grid.packs, at.pack, out, dz);
    }
  }
  if (d_bias == nullptr && d_weight == nullptr) return;
  write_channel_partials<pack>(grid, threadIdx.x, sum, product, space, scratch.partials);
  if (!is_last_block(scratch.counter, gridDim.x * gridDim.y)) return;
  finish_gradients<pack>(grid.packs, of.norm, scratch.partials, space, d_weight, d_bias);
}

// dx of one element, from dz and two constants of its channel: d_bias / n, and inv_std d_weight / n
// as the factor of x - mean.
template <int pack>
struct NormGradient {
  float offset[pack];
  float factor[pack];
  bool fixed;

  __device__ NormGradient(const Channels<pack>& channels, unsigned at, bool is_fixed,
                          float inv_rows, const float* d_weight, const float* d_bias)
      : fixed(is_fixed) {
    if (fixed) return;
    load_channels<pack>(d_bias, at, offset);
    load_channels<pack>(d_weight, at, factor);
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      offset[k] *= inv_rows;
      factor[k] *= inv_rows * channels.inv_std[k];
    }
  }
  __device__ float dx(const Channels<pack>& channels, int k, float centered, float dz) const {
    if (fixed) return channels.scale[k] * dz;
    return channels.scale[k] * (dz - fmaf(centered, factor[k], offset[k]));
  }
};

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads, backward_occupancy)
    backward_kernel(const ChannelGrid grid, const NormBackward of, Reads reads, bool fixed,
                    float inv_rows, const float* d_weight, const float* d_bias, T* dx) {
  const ChannelThread at(grid);
  if (!at.works) return;
  const Channels<pack> channels(of.norm, at.pack);
  const float slope = of.fusion.slope;
  const NormGradient<pack> second(channels, at.pack, fixed, inv_rows, d_weight, d_bias);
  constexpr int at_once = 2;
  const auto [stride, end, begin] = PackRange(grid, at, of.shape.rows());
  for (std::int64_t first = begin; first < end; first += at_once * stride) {
    Pack<T, pack> values[at_once] = {};
    Pack<T, pack> gradient[at_once];
    Pack<T, pack> more[at_once] = {};
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      const std::int64_t from = first + i * stride;
      if (from >= end) break;
      gradient[i] = read<T, pack>(of.dy, from);
      if (reads.x) values[i] = read<T, pack>(of.x, from);
      if (of.extra != nullptr) more[i] = read<T, pack>(of.extra, from);
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i * stride >= end) break;
      float out[pack];
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        const float centered = channels.centered(k, to_float(values[i].value[k]));
        float d = to_float(gradient[i].value[k]) + to_float(more[i].value[k]);
        if (reads.sign) d = channels.z(k, centered) > 0 ? d : slope * d;
        out[k] = second.dx(channels, k, centered, d);
      }
      store<T, pack>(dx, first + i * stride, out);
    }
  }
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads, backward_occupancy)
    pooled_backward_kernel(const ChannelGrid grid, const NormBackward of, bool fixed,
                           float inv_rows, const float* d_weight, const float* d_bias, T* dx) {
  const ChannelThread at(grid);
  if (!at.works) return;
  const Channels<pack> channels(of.norm, at.pack);
  const float slope = of.fusion.slope;
  const NormGradient<pack> second(channels, at.pack, fixed, inv_rows, d_weight, d_bias);
  const auto count = static_cast<std::uint32_t>(windows(of.shape, false));
  const std::uint32_t stride = gridDim.x * grid.rows;
  for (std::uint32_t index = blockIdx.x * grid.rows + at.row; index < count; index += stride) {
    const Window window(of.shape, index, false);
    const WindowValues<T, pack> values(window, grid.packs, at.pack, of);
    Pack<T, pack> out[4];
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      const Maximum maximum = maximum_of(channels, slope, values.x, k);
      const float d = values.gradient(k, slope, maximum);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float dz = window.whole && maximum.at == i ? d : 0.0f;
        const float centered = channels.centered(k, to_float(values.x[i].value[k]));
        out[i].value[k] = from_float<T>(second.dx(channels, k, centered, dz));
      }
    }
    store_window(window, grid.packs, at.pack, out, dx);
  }
}

}  // namespace

cudaError_t normalize_backward_sums(const NormBackward& of, const void* y, void* dz,
                                    float* d_weight, float* d_bias, const SumScratch& scratch,
                                    cudaStream_t stream) {
  const Fusion& fusion = of.fusion;
  if (!is_valid(of.shape)) return cudaErrorInvalidValue;
  if (fusion.pooled && (!can_pool(of.shape) || fusion.residual)) return cudaErrorInvalidValue;
  const bool has_norm = of.norm.weight != nullptr;
  Reads reads;
  reads.sign = fusion.slope != 1;
  reads.y = reads.sign && fusion.residual;
  reads.x = (has_norm && d_weight != nullptr) || (reads.sign && !reads.y);
  if ((reads.y && y == nullptr) || ((reads.x || fusion.pooled) && of.x == nullptr)) {
    return cudaErrorInvalidValue;
  }
  return with_pack(of.element, of.shape.channels, {of.x, y, of.dy, of.extra, dz, scratch.partials},
                   [&]<class T, int pack>() {
                     const std::int64_t rows =
                         fusion.pooled ? windows(of.shape, dz == nullptr) : of.shape.rows();
                     const ChannelGrid g = channel_grid(rows, of.shape.channels, pack,
                                                        fusion.pooled ? 2 : rows_per_thread,
                                                        max_row_blocks, sum_lanes<pack>);
                     const dim3 blocks = g.blocks_and_groups();
                     float* const weight_sums = has_norm ? d_weight : nullptr;
                     if (fusion.pooled) {
                       pooled_sums_kernel<T, pack><<<blocks, channel_threads, 0, stream>>>(
                           g, of, static_cast<T*>(dz), weight_sums, d_bias, scratch);
                     } else {
                       const auto launch = [&]<bool sign_of_y>() {
                         sums_kernel<T, pack, sign_of_y><<<blocks, channel_threads, 0, stream>>>(
                             g, of, reads, y, static_cast<T*>(dz), weight_sums, d_bias, scratch);
                       };
                       reads.y ? launch.template operator()<true>()
                               : launch.template operator()<false>();
                     }
                     return cudaGetLastError();
                   });
}

cudaError_t normalize_backward(const NormBackward& of, bool fixed, const float* d_weight,
                               const float* d_bias, void* dx, cudaStream_t stream) {
  const Fusion& fusion = of.fusion;
  if (!is_valid(of.shape) || of.norm.weight == nullptr) return cudaErrorInvalidValue;
  if (fusion.pooled && !can_pool(of.shape)) return cudaErrorInvalidValue;
  // The first pass has written a residual's dz.
  if (fusion.residual && fusion.slope != 1) return cudaErrorInvalidValue;
  Reads reads;
  reads.sign = fusion.slope != 1;
  reads.x = reads.sign || !fixed;
  if ((reads.x || fusion.pooled) && of.x == nullptr) return cudaErrorInvalidValue;
  const float inv_rows = 1 / static_cast<float>(of.shape.rows());
  return with_pack(
      of.element, of.shape.channels, {of.x, of.dy, of.extra, dx}, [&]<class T, int pack>() {
        const std::int64_t rows = fusion.pooled ? windows(of.shape, false) : of.shape.rows();
        const ChannelGrid g =
            channel_grid(rows, of.shape.channels, pack, fusion.pooled ? 1 : rows_per_thread,
                         max_backward_blocks);
        const dim3 blocks = g.blocks_and_groups();
        if (fusion.pooled) {
          pooled_backward_kernel<T, pack><<<blocks, channel_threads, 0, stream>>>(
              g, of, fixed, inv_rows, d_weight, d_bias, static_cast<T*>(dx));
        } else {
          backward_kernel<T, pack><<<blocks, channel_threads, 0, stream>>>(
              g, of, reads, fixed, inv_rows, d_weight, d_bias, static_cast<T*>(dx));
        }
        return cudaGetLastError();
      });
}

}  // namespace preheat::kernels
