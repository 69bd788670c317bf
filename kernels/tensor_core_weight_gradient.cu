// The gradient of 3 x 3 filters, on tensor cores: for each of the 9 taps a product of two matrices,
// dy^T [out, pixels] times x [pixels, in], whose pixels are shifted against each other by the tap.
//
// Why this tiling. With 32 channels either way a pixel is 128 bytes and 9216 products. At 3 TB/s a
// multiprocessor of an H100 gets 13 bytes in a clock, so a pixel every 9.6; its tensor cores take
// mma.sync at some 1270 products a clock, a pixel every 7.3. To stay at the rate of memory, shared
// memory (128 bytes a clock) may move no more than its own 9.6 clocks' worth, 1200 bytes a pixel:
// 128 as they come in, and then whatever the warps read.
//
// A warp that holds the sums of 32 x 32 channels for the three taps of one column of the filter
// has 96 sums a lane and goes down the images row by row. Of each row it reads 16 pixels of dy and
// the 16 of x that this column of taps shifts them to, 2 KiB, and keeps the fragments for the next
// row: they give the middle tap by themselves, the upper tap with the row of x before and the lower
// one with the row of dy before. So it reads 128 bytes a pixel, three such warps 384. Without what
// is kept it would be twice that, and with a warp for each tap three times.
//
// 12 warps with 168 registers fill a multiprocessor. They share the columns of the filter, the
// parts of 32 x 32 channels, and what is left of them the pixels: a block covers 64, 32 or 16
// columns at a time. A column is one of all columns of all images beside each other, so that no
// width leaves lanes empty. Rows come through a ring in shared memory; at 32 x 32 channels four
// rows of 8 KiB are under way while one is worked on, where 3 TB/s need some 16 KiB at a latency of
// 700 ns.
//
// The blocks share the steps, a row of a tile each, evenly: one may begin in the middle of an image
// and reads one row more then. Each writes its sums, and a second kernel adds those up, in the
// order of the blocks.
#include "async_copy.cuh"
#include "device.cuh"
#include "image_columns.cuh"
#include "partial_sums.cuh"
#include "tensor_cores.cuh"

namespace preheat::kernels {
namespace {

constexpr int warp = 32;
constexpr int warps = 12;
constexpr int threads = warps * warp;
constexpr int taps = 3;                 // in a row and in a column of a filter
constexpr int part_channels = 32;       // of either side, that a warp has the sums of
constexpr int unit_pixels = 16;         // that a warp multiplies at a time
constexpr int shared_limit = 48 << 10;  // that every device has for every block
constexpr int max_stages = 8;
constexpr std::int64_t max_blocks = tuned_multiprocessors;

// A block's sums make a trip through memory: what 12 steps or so take.
constexpr std::int64_t min_steps = 12;

constexpr int parts(int channels) {
  return channels > part_channels ? channels / part_channels : 1;
}

/// Warps that work on the same pixels.
constexpr int warps_together(int in, int out) {
  return taps * parts(in) * parts(out);
}

constexpr int tile_columns(int in, int out) {
  return warps / warps_together(in, out) * unit_pixels;
}

/// How a block is laid out. A stage of the ring is a row of x, with a column more at either side
/// and one of zeros that stands for what is outside of an image, and behind it a row of dy.
template <int in, int out>
struct Layout {
  static constexpr int in_parts = parts(in);
  static constexpr int out_parts = parts(out);
  static constexpr int roles = warps_together(in, out);
  static constexpr int units = warps / roles;
  static constexpr int in_fragments = in / in_parts / 16;  // of a part
  static constexpr int out_fragments = out / out_parts / 16;

  static constexpr int columns = tile_columns(in, out);
  static constexpr int x_columns = columns + 2;
  static constexpr int zero_column = x_columns;
  static constexpr int x_bytes = (columns + 4) * in * 2;
  static constexpr int stage_bytes = x_bytes + columns * out * 2;
  static constexpr int stages =
      shared_limit / stage_bytes < max_stages ? shared_limit / stage_bytes : max_stages;
  static constexpr int ring_bytes = stages * stage_bytes;

  // At the end, the sums of one row of taps of all units but the first.
  static constexpr int row_sums = in_fragments * out_fragments * 8;  // of a lane
  static constexpr int exchange_bytes = (warps - roles) * warp * row_sums * 4;
  static constexpr int shared_bytes = ring_bytes > exchange_bytes ? ring_bytes : exchange_bytes;
  static_assert(x_columns * in / 8 <= threads && columns * out / 8 <= threads);
  static_assert(x_bytes % 128 == 0 && stage_bytes % 128 == 0);

  __device__ static unsigned next_stage(unsigned ring, unsigned stage) {
    return stage + stage_bytes == ring + ring_bytes ? ring : stage + stage_bytes;
  }
};

/// A thread's part in copying the rows of a tile: the same 8 channels of the same column of each.
template <class T, int channels, int columns>
class ColumnLoader {
 public:
  __device__ explicit ColumnLoader(const T* images) : images_(images) {}

  /// The next row is `row`; the first column may be -1.
  __device__ void start(const Extent& extent, int first_column, int row) {
    copy_.start(extent, images_, first_column + column(), chunk(), row);
  }

  __device__ void copy(const Extent& extent, unsigned stage) {
    if (column() >= columns) return;
    copy_.copy(extent, stage + swizzled_offset<channels>(column(), chunk()));
  }

 private:
  static constexpr int chunks = channels / 8;
  __device__ static int column() { return static_cast<int>(threadIdx.x) / chunks; }
  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % chunks; }
  const T* images_;
  ColumnCopy<T, channels> copy_;
};

/// The rows that a block's steps need, which go into the ring ahead of the arithmetic.
template <class T, int in, int out>
class Feed {
 public:
  __device__ Feed(const Extent& extent, const T* x, const T* dy, unsigned ring, int first, int end)
      : extent_(extent),
        x_(x),
        dy_(dy),
        ring_(ring),
        stage_(ring),
        steps_(end - first),
        column_(first / extent.height * Block::columns),
        row_(first % extent.height) {
    start();
  }

  /// The rows of the next step, as one group of copies, which is empty behind the last step.
  __device__ void copy_rows() {
    if (steps_ > 0) {
      --steps_;
      if (row_ == extent_.height) {
        row_ = 0;
        column_ += Block::columns;
        start();
      }
      ++row_;
      x_.copy(extent_, stage_);
      dy_.copy(extent_, stage_ + Block::x_bytes);
      stage_ = Block::next_stage(ring_, stage_);
    }
    commit_copies();
  }

 private:
  using Block = Layout<in, out>;
  __device__ void start() {
    x_.start(extent_, column_ - 1, row_);
    dy_.start(extent_, column_, row_);
  }

  const Extent extent_;
  ColumnLoader<T, in, Block::x_columns> x_;
  ColumnLoader<T, out, Block::columns> dy_;
  const unsigned ring_;
  unsigned stage_;
  int steps_;
  int column_;
  int row_;
};

/// Fills the column of zeros in each stage of the ring.
template <int in, int out>
__device__ void clear_zero_columns(std::uint8_t* space) {
  using Block = Layout<in, out>;
  constexpr int zeros = in / 8;  // pieces in each stage
  for (int i = static_cast<int>(threadIdx.x); i < Block::stages * zeros; i += threads) {
    const unsigned at =
        i / zeros * Block::stage_bytes + swizzled_offset<in>(Block::zero_column, i % zeros);
    *reinterpret_cast<uint4*>(space + at) = uint4{};
  }
}

/// What a warp has the sums of: a column of taps of a part of the channels, over one of the units
/// of 16 columns that a tile is made of.
template <class Block>
struct Share {
  int lane = static_cast<int>(threadIdx.x) % warp;
  int role = static_cast<int>(threadIdx.x) / warp % Block::roles;
  int unit = static_cast<int>(threadIdx.x) / warp / Block::roles;
  int tap = role % taps;
  int first_in = role / taps % Block::in_parts * part_channels;
  int first_out = role / taps / Block::in_parts * part_channels;
};

template <class Block>
using Sums = float[taps][Block::out_fragments][2 * Block::in_fragments][4];

/// Loads fragments of neighbouring channels, transposed. The next 16 channels are at ^ 32.
template <int count>
__device__ void load_fragments(Fragment (&to)[count], unsigned stage, unsigned at) {
#pragma unroll
  for (int i = 0; i < count; ++i) load_transposed(to[i], stage + (at ^ i * 32));
}

/// sums += dy^T x over the pixels of the fragments.
template <class T, int out_fragments, int in_fragments>
__device__ void multiply(float (&sums)[out_fragments][2 * in_fragments][4],
                         const Fragment (&dy)[out_fragments], const Fragment (&x)[in_fragments]) {
#pragma unroll
  for (int k = 0; k < out_fragments; ++k) {
#pragma unroll
    for (int c = 0; c < 2 * in_fragments; ++c) {
      multiply_add<T>(sums[k][c], dy[k], x[c / 2], c % 2);
    }
  }
}

/// The sums of the first unit's warps, once those of the other units are added, to [out, 3, 3, in].
template <int in, int out>
__device__ void write_sums(const Share<Layout<in, out>>& share, Sums<Layout<in, out>>& sums,
                           float* exchange, float* to) {
  using Block = Layout<in, out>;
#pragma unroll
  for (int r = 0; r < taps; ++r) {
    const auto for_all_sums = [&](int unit, auto&& work) {
      const int index = (unit - 1) * Block::roles + share.role;
      float* at = exchange + index * Block::row_sums * warp + share.lane;
#pragma unroll
      for (int k = 0; k < Block::out_fragments; ++k) {
#pragma unroll
        for (int c = 0; c < 2 * Block::in_fragments; ++c) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            work(sums[r][k][c][i], *at);
            at += warp;
          }
        }
      }
    };
    if constexpr (Block::units > 1) {
      __syncthreads();  // what was here has been read
      if (share.unit > 0) {
        for_all_sums(share.unit, [](float mine, float& there) { there = mine; });
      }
      __syncthreads();
    }
    if (share.unit > 0) continue;
    for (int unit = 1; unit < Block::units; ++unit) {
      for_all_sums(unit, [](float& mine, float there) { mine += there; });
    }
#pragma unroll
    for (int k = 0; k < Block::out_fragments; ++k) {
#pragma unroll
      for (int c = 0; c < 2 * Block::in_fragments; ++c) {
#pragma unroll
        for (int below = 0; below < 2; ++below) {
          const int k_at = share.first_out + 16 * k + 8 * below + share.lane / 4;
          const int c_at = share.first_in + 8 * c + share.lane % 4 * 2;
          const float two[2] = {sums[r][k][c][2 * below], sums[r][k][c][2 * below + 1]};
          store<float, 2>(to, (((k_at * taps + r) * taps + share.tap) * in + c_at) / 2, two);
        }
      }
    }
  }
}

template <class T, int in, int out>
__global__ void __launch_bounds__(threads, 1)
    weight_gradient_kernel(const Extent extent, const T* x, const T* dy, float* partials) {
#if __CUDA_ARCH__ >= 800
  using Block = Layout<in, out>;
  __shared__ alignas(128) std::uint8_t space[Block::shared_bytes];
  const unsigned ring = shared_address(space);

  // A step is a row of a tile. The first one may be there for the sake of the second alone.
  const int steps = (extent.columns + Block::columns - 1) / Block::columns * extent.height;
  const auto begin_of = [&](unsigned block) {
    return static_cast<int>(std::int64_t{steps} * block / gridDim.x);
  };
  const int begin = begin_of(blockIdx.x);
  const int end = begin_of(blockIdx.x + 1);
  const int first = begin % extent.height == 0 ? begin : begin - 1;

  Feed<T, in, out> feed(extent, x, dy, ring, first, end);
  for (int i = 0; i < Block::stages - 1; ++i) feed.copy_rows();
  clear_zero_columns<in, out>(space);

  // Where the lane reads its row of a quarter: dy's go on to the next 8 channels first, x's to the
  // next 8 pixels.
  const Share<Block> share;
  const int dy_pixel = share.unit * unit_pixels + share.lane / 16 * 8 + share.lane % 8;
  const unsigned dy_at =
      Block::x_bytes + swizzled_offset<out>(dy_pixel, share.first_out / 8 + share.lane / 8 % 2);
  const int x_pixel = share.unit * unit_pixels + share.lane % 16;
  int column = first / extent.height * Block::columns + x_pixel;
  unsigned x_at = 0;
  const auto enter_tile = [&] {
    const int shifted = column % extent.width + share.tap - 1;
    const bool outside = shifted < 0 || shifted >= extent.width;
    x_at = swizzled_offset<in>(outside ? Block::zero_column : x_pixel + share.tap,
                               share.first_in / 8 + share.lane / 16);
  };
  enter_tile();

  Sums<Block> sums = {};
  Fragment x_before[Block::in_fragments] = {};
  Fragment dy_before[Block::out_fragments] = {};
  int row = first % extent.height;
  unsigned stage = ring;
  for (int step = first; step < end; ++step) {
    if (row == extent.height) {
      row = 0;
      column += Block::columns;
      enter_tile();
    }
    wait_for_copies<Block::stages - 2>();
    __syncthreads();  // this stage is there, and the one before has been read

    Fragment x_here[Block::in_fragments];
    Fragment dy_here[Block::out_fragments];
    load_fragments(dy_here, stage, dy_at);
    load_fragments(x_here, stage, x_at);
    feed.copy_rows();  // while the fragments are on their way
    if (step >= begin) {
      if (row > 0) {
        multiply<T>(sums[0], dy_here, x_before);
        multiply<T>(sums[2], dy_before, x_here);
      }
      multiply<T>(sums[1], dy_here, x_here);
    }
#pragma unroll
    for (int k = 0; k < Block::out_fragments; ++k) dy_before[k] = dy_here[k];
#pragma unroll
    for (int c = 0; c < Block::in_fragments; ++c) x_before[c] = x_here[c];
    ++row;
    stage = Block::next_stage(ring, stage);
  }
  write_sums<in, out>(share, sums, reinterpret_cast<float*>(space),
                      partials + std::int64_t{blockIdx.x} * out * taps * taps * in);
#endif
}

std::int64_t blocks_for(const Images& x, int out) {
  const std::int64_t columns = tile_columns(x.channels, out);
  const std::int64_t tiles = (x.batch * x.width + columns - 1) / columns;
  const std::int64_t wanted = tiles * x.height / min_steps;
  return wanted < 1 ? 1 : wanted < max_blocks ? wanted : max_blocks;
}

std::int64_t weights(const Images& x, int out) {
  return std::int64_t{out} * taps * taps * x.channels;
}

}  // namespace

std::size_t tensor_core_weight_gradient_workspace_bytes(const Images& x, std::int32_t out) {
  return static_cast<std::size_t>(blocks_for(x, out) * weights(x, out)) * sizeof(float);
}

cudaError_t tensor_core_weight_gradient(Element element, const Images& shape, std::int32_t out,
                                        const void* x, const void* dy, void* dw, void* workspace,
                                        cudaStream_t stream) {
  if (!tensor_cores_support(element, shape, out)) return cudaErrorNotSupported;
  if (!is_aligned(x) || !is_aligned(dy) || !is_aligned(dw) || !is_aligned(workspace)) {
    return cudaErrorInvalidValue;
  }
  const auto blocks = static_cast<unsigned>(blocks_for(shape, out));
  const auto size = static_cast<int>(weights(shape, out));
  const Extent extent(shape);
  auto* const partials = static_cast<float*>(workspace);
  const auto launch = [&]<class T>() {
    const cudaError_t status = with_channels(shape.channels, [&]<int in>() {
      return with_channels(out, [&]<int out_channels>() {
        weight_gradient_kernel<T, in, out_channels><<<blocks, threads, 0, stream>>>(
            extent, static_cast<const T*>(x), static_cast<const T*>(dy), partials);
        return cudaGetLastError();
      });
    });
    if (status != cudaSuccess) return status;
    return add_partials(partials, static_cast<int>(blocks), size, static_cast<T*>(dw), stream);
  };
  return element == Element::bf16 ? launch.template operator()<__nv_bfloat16>()
                                  : launch.template operator()<__half>();
}

}  // namespace preheat::kernels
