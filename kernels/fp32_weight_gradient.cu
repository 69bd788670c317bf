// The gradient of 3 x 3 filters in fp32, without tensor cores.
//
// Why this tiling. A thread accumulates 4 x 4 channels for the three taps of a filter row, in 48
// registers, and walks along a strip: for each pixel it loads 4 channels of dy and 4 of x, since
// the other two taps use pixels of x that it still has from the steps before. This is 16 loads of
// 16 bytes for 336 multiply-adds; with the lanes arranged as in the convolution they take 32 clocks
// of shared memory against 84 of arithmetic. 192 threads hold all filters between 32 channels on
// either side and use the same pixels at the same time. Filters of fewer channels have four such
// sets of threads, called slices, which split the strips of a tile and are added up at the end.
//
// A tile of 8 strips at 28 x 28 x 32 is 30 KiB. Each of two blocks per SM has two stages of it,
// which makes 3 warps per scheduler. All threads together compute the pixel positions of a tile two
// tiles ahead: a division per copy would cost a third of the time.
//
// Each block takes an equal, contiguous part of the tiles. Each writes its sums, 10 MB together at
// 32 x 32 channels, and a second kernel adds those up, in the order of the blocks.
#include "async_copy.cuh"
#include "device.cuh"
#include "partial_sums.cuh"
#include "strips.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 192;
constexpr int blocks_per_sm = 2;

/// Layout of a block for the filters between `part` input and `part` output channels. Each slice of
/// its threads holds all of them, each thread one row of taps of 4 x 4 channels. The slices split
/// the strips of a tile.
template <int pixels, int part>
struct Layout {
  static constexpr int columns = Strips<pixels>::columns;
  static constexpr int groups = part / quad;  // of channels
  static constexpr int slice_threads = taps * groups * groups;
  static constexpr int slices = threads / slice_threads;
  static constexpr int strips = part == 32 ? 8 : 16;  // per tile
  static_assert(groups * quad == part && slices * slice_threads <= threads && strips % slices == 0);

  static int tiles(const Strips<pixels>& images) { return ceil_div(images.count, strips); }

  /// Floats of a stage: the segments of x, followed by the strips of dy.
  __host__ __device__ static int stage_size(int segments) {
    return (segments * columns + strips * pixels) * part;
  }
  __host__ __device__ static int list_size(int segments) {
    return segments * columns + strips * (pixels + 1);
  }
  static std::size_t shared_bytes(int segments) {
    return 2 * stage_size(segments) * sizeof(float) + 3 * list_size(segments) * sizeof(int);
  }
};

/// Index lists of a tile, filled before its pixels are copied: the pixels of x and dy, as given by
/// Strips::pixel_in, and the segment above each strip.
template <int pixels, int part>
struct TileList {
  using Block = Layout<pixels, part>;
  int* x;
  int* dy;
  int* above;

  __device__ TileList(int* list, int segments)
      : x(list), dy(x + segments * Block::columns), above(dy + Block::strips * pixels) {}

  __device__ void fill(const Strips<pixels>& images, int first, int strips) const {
    const int top = images.segment_of(first) - images.across;
    const int segments = images.segment_of(first + strips - 1) + images.across + 1 - top;
    for (int i = static_cast<int>(threadIdx.x); i < segments * Block::columns; i += threads) {
      x[i] = images.pixel_in(top + i / Block::columns, i % Block::columns);
    }
    for (int i = static_cast<int>(threadIdx.x); i < strips * pixels; i += threads) {
      dy[i] = images.pixel_in(images.segment_of(first + i / pixels), i % pixels + 1);
    }
    for (int i = static_cast<int>(threadIdx.x); i < strips; i += threads) {
      above[i] = images.segment_of(first + i) - images.across - top;
    }
  }
};

/// Copies `part` channels of `count` pixels.
template <int part>
__device__ void load_pixels(const int* list, int count, const float* from, int channels,
                            float* to) {
  constexpr int quads = part / quad;
  const int at = static_cast<int>(threadIdx.x) % quads * quad;
  for (int i = static_cast<int>(threadIdx.x) / quads; i < count; i += threads / quads) {
    const int pixel = list[i];
    copy_async(shared_address(to + i * part + at), from + (max(pixel, 0) * channels + at),
               pixel >= 0);
  }
}

/// What a thread has the sums of: a row of taps between a quad of channels of x and one of dy, over
/// the strips of a slice. In a half-warp adjacent lanes share channels of dy, lanes two apart
/// channels of x.
template <class Block>
struct Share {
  int slice = static_cast<int>(threadIdx.x) / Block::slice_threads;
  int thread = static_cast<int>(threadIdx.x) % Block::slice_threads;
  int r = thread / (Block::groups * Block::groups);
  int lane = thread % (Block::groups * Block::groups);
  int in_group = lane % 2 + lane / 4 % (Block::groups / 2) * 2;
  int out_group = lane / 2 % 2 + lane / (2 * Block::groups) * 2;
};

using Sums = float[quad * taps * quad];  // [out][s][in]

/// Adds the products of a pixel of dy and the pixels of x that the taps shift it to, which begin at
/// `first`.
template <int columns>
__device__ void multiply(const float (&gradient)[quad], const float (&values)[columns][quad],
                         int first, Sums& sums) {
#pragma unroll
  for (int k = 0; k < quad; ++k) {
#pragma unroll
    for (int s = 0; s < taps; ++s) {
#pragma unroll
      for (int c = 0; c < quad; ++c) {
        float& sum = sums[(k * taps + s) * quad + c];
        sum = fmaf(gradient[k], values[first + s][c], sum);
      }
    }
  }
}

/// Writes a thread's sums to [out, 3, 3, in]. The block's channels begin at `first_in` and
/// `first_out`.
template <class Block>
__device__ void write_sums(const Share<Block>& share, const Sums& sums, int first_in, int first_out,
                           int in, float* to) {
#pragma unroll
  for (int k = 0; k < quad; ++k) {
#pragma unroll
    for (int s = 0; s < taps; ++s) {
      const std::int64_t tap =
          ((std::int64_t{first_out} + share.out_group * quad + k) * taps + share.r) * taps + s;
      const float* const four = sums + (k * taps + s) * quad;
      *reinterpret_cast<float4*>(to + tap * in + first_in + share.in_group * quad) =
          float4{four[0], four[1], four[2], four[3]};
    }
  }
}

template <int pixels, int part>
__global__ void __launch_bounds__(threads, blocks_per_sm)
    weight_gradient_kernel(const Strips<pixels> images, int tiles, int segments, int in, int out,
                           const float* x, const float* dy, float* partials) {
#if __CUDA_ARCH__ >= 800
  using Block = Layout<pixels, part>;
  extern __shared__ float4 space[];
  float* const stages = reinterpret_cast<float*>(space);
  const int stage_size = Block::stage_size(segments);
  int* const lists = reinterpret_cast<int*>(stages + 2 * stage_size);

  const int first_in = static_cast<int>(blockIdx.y) % (in / part) * part;
  const int first_out = static_cast<int>(blockIdx.y) / (in / part) * part;
  const int begin = static_cast<int>(std::int64_t{tiles} * blockIdx.x / gridDim.x);
  const int end = static_cast<int>(std::int64_t{tiles} * (blockIdx.x + 1) / gridDim.x);

  // Lists of the current tile, the tile in flight and the one after it.
  const auto list_of = [&](int tile) {
    return TileList<pixels, part>(lists + tile % 3 * Block::list_size(segments), segments);
  };
  const auto strips_of = [&](int tile) {
    return min(Block::strips, images.count - tile * Block::strips);
  };
  const auto note = [&](int tile) {
    if (tile < end) list_of(tile).fill(images, tile * Block::strips, strips_of(tile));
  };
  const auto load_stage = [&](int tile) {
    if (tile < end) {
      const TileList<pixels, part> list = list_of(tile);
      const int strips = strips_of(tile);
      float* const stage = stages + tile % 2 * stage_size;
      const int seen = (list.above[strips - 1] + 2 * images.across + 1) * Block::columns;
      load_pixels<part>(list.x, seen, x + first_in, in, stage);
      load_pixels<part>(list.dy, strips * pixels, dy + first_out, out,
                        stage + segments * Block::columns * part);
    }
    commit_copies();
  };

  const Share<Block> share;
  Sums sums = {};
  note(begin);
  note(begin + 1);
  __syncthreads();
  load_stage(begin);
  for (int tile = begin; tile < end; ++tile) {
    wait_for_copies<0>();
    __syncthreads();  // this tile has arrived, the previous one has been used
    load_stage(tile + 1);
    note(tile + 2);
    const float* const stage = stages + tile % 2 * stage_size;
    const int* const above = list_of(tile).above;
    const int strips = strips_of(tile);
    for (int strip = share.slice; strip < strips; strip += Block::slices) {
      const float* const row = stage +
                               (above[strip] + share.r * images.across) * Block::columns * part +
                               share.in_group * quad;
      const float* const gradients =
          stage + (segments * Block::columns + strip * pixels) * part + share.out_group * quad;
      float values[Block::columns][quad];
      load<float, quad>(row, 0, values[0]);
      load<float, quad>(row, Block::groups, values[1]);
#pragma unroll
      for (int i = 0; i < pixels; ++i) {
        float gradient[quad];
        load<float, quad>(row, (i + 2) * Block::groups, values[i + 2]);
        load<float, quad>(gradients, i * Block::groups, gradient);
        multiply(gradient, values, i, sums);
      }
    }
  }

  add_slices(sums, stages, Block::slices, share.slice, share.thread, Block::slice_threads);
  if (share.slice > 0) return;
  write_sums(share, sums, first_in, first_out, in,
             partials + std::int64_t{blockIdx.x} * out * taps * taps * in);
#endif
}

/// Calls work.template operator()<pixels, part>() with those that suit the sizes.
template <class Work>
auto with_layout(const Images& x, int out, Work&& work) {
  return with_strips(x, [&]<int pixels>() {
    return x.channels % 32 == 0 && out % 32 == 0 ? work.template operator()<pixels, 32>()
                                                 : work.template operator()<pixels, 16>();
  });
}

/// Blocks along x split the tiles; blocks along y have different parts of the filters.
dim3 blocks_of(const Images& x, int out) {
  return with_layout(x, out, [&]<int pixels, int part>() {
    const int parts = x.channels / part * (out / part);
    const int tiles = Layout<pixels, part>::tiles(Strips<pixels>(x));
    return dim3(std::clamp(target_blocks / parts, 1, tiles), parts);
  });
}

int weights(const Images& x, int out) {
  return out * taps * taps * x.channels;
}

}  // namespace

bool fp32_weight_gradient_supports(const Images& x, std::int32_t out) {
  return can_be_cut(x, out) && has_async_copies() &&
         with_layout(x, out, [&]<int pixels, int part>() {
           using Block = Layout<pixels, part>;
           return Block::shared_bytes(Strips<pixels>(x).segments(Block::strips)) <= shared_limit;
         });
}

std::size_t fp32_weight_gradient_workspace_bytes(const Images& x, std::int32_t out) {
  return sizeof(float) * blocks_of(x, out).x * weights(x, out);
}

cudaError_t fp32_weight_gradient(const Images& shape, std::int32_t out, const float* x,
                                 const float* dy, float* dw, void* workspace, cudaStream_t stream) {
  if (!fp32_weight_gradient_supports(shape, out)) return cudaErrorNotSupported;
  if (!is_aligned(x) || !is_aligned(dy) || !is_aligned(dw) || !is_aligned(workspace)) {
    return cudaErrorInvalidValue;
  }
  auto* const partials = static_cast<float*>(workspace);
  const dim3 blocks = blocks_of(shape, out);
  const cudaError_t status = with_layout(shape, out, [&]<int pixels, int part>() {
    using Block = Layout<pixels, part>;
    const Strips<pixels> strips(shape);
    const int segments = strips.segments(Block::strips);
    const auto kernel = weight_gradient_kernel<pixels, part>;
    const cudaError_t allowed = allow_shared_memory(kernel);
    if (allowed != cudaSuccess) return allowed;
    kernel<<<blocks, threads, Block::shared_bytes(segments), stream>>>(
        strips, Block::tiles(strips), segments, shape.channels, out, x, dy, partials);
    return cudaGetLastError();
  });
  if (status != cudaSuccess) return status;
  return add_partials(partials, static_cast<int>(blocks.x), weights(shape, out), dw, stream);
}

}  // namespace preheat::kernels
