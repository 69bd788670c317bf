// 3 x 3 convolutions in fp32 at stride 1, and their data gradient, without tensor cores: an H100 SM
// does 128 multiply-adds per clock and reads 128 bytes of shared memory, one byte for each.
//
// Why this tiling. A thread accumulates a strip of 7 or 8 pixels for 8 output channels, in 56 or 64
// registers. For one row of the filter and 4 input channels it loads the 9 pixels that the strip
// reads and 8 x 3 filter values, as vectors over the channels: 33 loads of 16 bytes for 672
// multiply-adds. In a half-warp adjacent lanes share a strip and lanes two apart share filters, so
// such a load takes two clocks at 128 bytes (four if lanes shared nothing): 66 clocks of shared
// memory against 168 of arithmetic.
//
// Few pixels leave few threads. 14 x 14 images of 64 channels at batch 128 make 896 such warps for
// the 528 schedulers of an H100, 7 x 7 images 224. So a block can be cut into slices, which split
// the input channels of the same outputs and are added up at the end. There are as many slices as
// it takes for two blocks of 4 warps on every SM, up to four; at 128 registers an SM holds four
// blocks. A block with one slice has a tile of 32 strips x 32 outputs. It reads x about 1.6 times,
// because of the halo, and 4 input channels with their filters take 11 KiB, while the 128 threads
// do 2016 multiply-adds each.
#include "async_copy.cuh"
#include "device.cuh"
#include "strips.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 128;
constexpr int blocks_per_sm = 4;
constexpr int max_slices = 4;
constexpr int thread_outputs = 8;

/// Threads that share a strip, for a block of `outputs` channels.
template <int outputs>
constexpr int groups_of = outputs / thread_outputs;

/// How the work is cut: a block has a number of strips, and each of its slices processes one quad
/// of input channels at a time. In shared memory a quad is its segments, followed by its filters;
/// each slice has two stages of a quad. A list of the segments' pixels follows.
template <int pixels, int outputs>
struct Tiling {
  static constexpr int pitch = Strips<pixels>::columns | 1;  // of segments, in quads of channels
  static constexpr int filters = outputs * taps * taps;

  int slices;
  int strips;
  int segments;

  Tiling(const Strips<pixels>& images, int slices_)
      : slices(slices_),
        strips(threads / groups_of<outputs> / slices),
        segments(images.segments(strips)) {}

  __host__ __device__ int quad_size() const { return segments * pitch + filters; }
  __host__ __device__ int stage_size() const { return slices * quad_size(); }
  std::size_t shared_bytes() const {
    return std::size_t{2} * stage_size() * sizeof(float4) + segments * pitch * sizeof(int);
  }
};

/// Copies a quad of input channels of the listed pixels for each slice into a stage, zeros for
/// those that are not there. Neither this loop nor that over filters is unrolled, so that they take
/// no registers from the sums.
template <int pixels, int outputs>
__device__ void load_pixels(const Tiling<pixels, outputs>& tiling, const int* list, int count,
                            const float* x, int in, int first_in, unsigned stage) {
  const int quad_bytes = tiling.quad_size() * 16;
  const int slice = static_cast<int>(threadIdx.x) % tiling.slices;
  const int channel = first_in + slice * quad;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) / tiling.slices; i < count;
       i += threads / tiling.slices) {
    const int pixel = list[i];
    copy_async(stage + slice * quad_bytes + i * 16, x + (max(pixel, 0) * in + channel), pixel >= 0);
  }
}

/// Copies a quad of input channels of the filters for each slice into a stage, as [rows, 3, 3, 4].
/// Thread `group` of the groups has outputs group * 8 .. group * 8 + 7, in rows group, group +
/// groups, ..., which are in different banks for different groups. The data gradient is a
/// convolution with rotated and transposed filters.
template <bool transposed, int pixels, int outputs>
__device__ void load_filters(const Tiling<pixels, outputs>& tiling, const float* w, int in, int out,
                             int first_in, int first_out, unsigned stage) {
  constexpr int groups = groups_of<outputs>;
  constexpr int all_taps = taps * taps;
  constexpr int pieces = transposed ? quad : 1;
  const int slices = tiling.slices;
  const int quad_bytes = tiling.quad_size() * 16;
  const unsigned to = stage + tiling.segments * tiling.pitch * 16;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < outputs * slices * pieces; i += threads) {
    const int piece = i % pieces;
    const int slice = i / pieces % slices;
    const int row = i / pieces / slices;
    const int c = first_in + slice * quad + piece;
    const int k = first_out + row % groups * thread_outputs + row / groups;
    const unsigned at = to + slice * quad_bytes + row * all_taps * 16 + piece * 4;
#pragma unroll
    for (int tap = 0; tap < all_taps; ++tap) {
      if constexpr (transposed) {
        copy_word_async(at + tap * 16, w + ((c * all_taps + all_taps - 1 - tap) * out + k));
      } else {
        copy_async(at + tap * 16, w + ((k * all_taps + tap) * in + c), true);
      }
    }
  }
}

/// Adds the products of what a tap sees of a row of x and its weights for one output channel, whose
/// sums are `thread_outputs` apart.
template <int pixels>
__device__ void multiply(const float (*values)[quad], const float (&weights)[quad], float* sums) {
#pragma unroll
  for (int c = 0; c < quad; ++c) {
#pragma unroll
    for (int i = 0; i < pixels; ++i) {
      float& sum = sums[i * thread_outputs];
      sum = fmaf(values[i][c], weights[c], sum);
    }
  }
}

/// Writes the sums of a strip to y [images, out], which begins at the thread's first channel.
template <int pixels>
__device__ void write_strip(const float (&sums)[pixels * thread_outputs],
                            const Strips<pixels>& images, int strip, int out, float* y) {
  const int row = strip / images.across;
  const int column = strip % images.across * pixels;
  const std::int64_t pixel = std::int64_t{row} * images.width + column;
  float* const to = y + pixel * out;
#pragma unroll
  for (int i = 0; i < pixels; ++i) {
    if (column + i >= images.width) return;
#pragma unroll
    for (int k = 0; k < thread_outputs; k += quad) {
      const float* const four = sums + i * thread_outputs + k;
      *reinterpret_cast<float4*>(to + std::int64_t{i} * out + k) =
          float4{four[0], four[1], four[2], four[3]};
    }
  }
}

template <int pixels, int outputs, bool transposed>
__global__ void __launch_bounds__(threads, blocks_per_sm)
    convolution_kernel(const Strips<pixels> images, const Tiling<pixels, outputs> tiling, int in,
                       int out, const float* x, const float* w, float* y) {
#if __CUDA_ARCH__ >= 800
  using Block = Tiling<pixels, outputs>;
  constexpr int columns = Strips<pixels>::columns;
  constexpr int groups = groups_of<outputs>;
  extern __shared__ float4 space[];
  int* const pixel_list = reinterpret_cast<int*>(space + 2 * tiling.stage_size());

  const int first = static_cast<int>(blockIdx.x) * tiling.strips;
  const int first_out = static_cast<int>(blockIdx.y) * outputs;
  const int strips = min(tiling.strips, images.count - first);
  const int top = images.segment_of(first) - images.across;
  const int listed =
      (images.segment_of(first + strips - 1) + images.across + 1 - top) * Block::pitch;
  for (int i = static_cast<int>(threadIdx.x); i < listed; i += threads) {
    pixel_list[i] = images.pixel_in(top + i / Block::pitch, i % Block::pitch);
  }
  __syncthreads();

  const int step = tiling.slices * quad;  // channels that are copied and used together
  const auto load_stage = [&](int first_in, const float4* stage) {
    load_pixels(tiling, pixel_list, listed, x, in, first_in, shared_address(stage));
    load_filters<transposed>(tiling, w, in, out, first_in, first_out, shared_address(stage));
    commit_copies();
  };

  // Consecutive lanes vary the group first, then the strip, then the rest of the group, then of the
  // strip.
  const int slice_threads = threads / tiling.slices;
  const int slice = static_cast<int>(threadIdx.x) / slice_threads;
  const int lane = static_cast<int>(threadIdx.x) % slice_threads;
  const int group = lane % 2 + lane / 4 % (groups / 2) * 2;
  const int strip = lane / 2 % 2 + lane / (2 * groups) * 2;
  const int seen = images.segment_of(first + min(strip, strips - 1)) - images.across - top;
  const int x_at = slice * tiling.quad_size() + seen * Block::pitch;
  const int w_at =
      slice * tiling.quad_size() + tiling.segments * Block::pitch + group * taps * taps;

  float sums[pixels * thread_outputs] = {};
  load_stage(0, space);
  int stage = 0;
  for (int next_in = step; next_in <= in; next_in += step) {
    wait_for_copies<0>();
    __syncthreads();  // this stage has arrived, the other one has been read
    const float4* row = space + stage + x_at;
    const float4* filter = space + stage + w_at;
    stage = tiling.stage_size() - stage;
    if (next_in < in) load_stage(next_in, space + stage);
#pragma unroll 1
    for (int r = 0; r < taps; ++r) {
      float values[columns][quad];
#pragma unroll
      for (int i = 0; i < columns; ++i) {
        load<float, quad>(reinterpret_cast<const float*>(row), i, values[i]);
      }
#pragma unroll
      for (int s = 0; s < taps; ++s) {
        // Keeps the compiler from loading filters so far ahead that it runs out of registers.
        asm volatile("" ::: "memory");
#pragma unroll
        for (int k = 0; k < thread_outputs; ++k) {
          float weights[quad];
          load<float, quad>(reinterpret_cast<const float*>(filter), k * groups * taps * taps + s,
                            weights);
          multiply<pixels>(values + s, weights, sums + k);
        }
      }
      row += images.across * Block::pitch;
      filter += taps;
    }
  }

  add_slices(sums, reinterpret_cast<float*>(space), tiling.slices, slice, lane, slice_threads);
  if (slice > 0 || strip >= strips) return;
  write_strip(sums, images, first + strip, out, y + first_out + group * thread_outputs);
#endif
}

/// The fewest slices that give enough blocks.
template <int pixels, int outputs>
Tiling<pixels, outputs> tiling_of(const Strips<pixels>& images, int out) {
  Tiling<pixels, outputs> tiling(images, 1);
  while (tiling.slices < max_slices &&
         std::int64_t{ceil_div(images.count, tiling.strips)} * (out / outputs) < target_blocks) {
    const Tiling<pixels, outputs> finer(images, 2 * tiling.slices);
    if (finer.shared_bytes() > shared_limit) break;
    tiling = finer;
  }
  return tiling;
}

/// x [images, in] * w -> y [images, out]; w is [out, 3, 3, in], or [in, 3, 3, out] if it is to be
/// rotated and transposed.
template <bool transposed>
cudaError_t convolve(const Images& images, std::int32_t out, const float* x, const float* w,
                     float* y, cudaStream_t stream) {
  return with_strips(images, [&]<int pixels>() {
    const auto launch = [&]<int outputs>() {
      const Strips<pixels> strips(images);
      const auto tiling = tiling_of<pixels, outputs>(strips, out);
      const auto kernel = convolution_kernel<pixels, outputs, transposed>;
      const cudaError_t allowed = allow_shared_memory(kernel);
      if (allowed != cudaSuccess) return allowed;
      const dim3 blocks(ceil_div(strips.count, tiling.strips), out / outputs);
      kernel<<<blocks, threads, tiling.shared_bytes(), stream>>>(strips, tiling, images.channels,
                                                                 out, x, w, y);
      return cudaGetLastError();
    };
    return out % 32 == 0 ? launch.template operator()<32>() : launch.template operator()<16>();
  });
}

}  // namespace

bool fp32_convolution_supports(const Images& x, std::int32_t out) {
  return can_be_cut(x, out) && has_async_copies() && with_strips(x, [&]<int pixels>() {
           const Strips<pixels> strips(x);
           return Tiling<pixels, 16>(strips, 1).shared_bytes() <= shared_limit &&
                  Tiling<pixels, 32>(strips, 1).shared_bytes() <= shared_limit;
         });
}

cudaError_t fp32_convolution(const Images& shape, std::int32_t out, const float* x, const float* w,
                             float* y, cudaStream_t stream) {
  if (!fp32_convolution_supports(shape, out)) return cudaErrorNotSupported;
  if (!is_aligned(x) || !is_aligned(w) || !is_aligned(y)) return cudaErrorInvalidValue;
  return convolve<false>(shape, out, x, w, y, stream);
}

cudaError_t fp32_data_gradient(const Images& shape, std::int32_t out, const float* dy,
                               const float* w, float* dx, cudaStream_t stream) {
  if (!fp32_convolution_supports(shape, out)) return cudaErrorNotSupported;
  if (!is_aligned(dy) || !is_aligned(w) || !is_aligned(dx)) return cudaErrorInvalidValue;
  Images gradient = shape;
  gradient.channels = out;
  return convolve<true>(gradient, shape.channels, dy, w, dx, stream);
}

}  // namespace preheat::kernels
