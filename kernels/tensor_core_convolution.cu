// Convolutions with 3 x 3 filters at stride 1 and their data gradient, on tensor cores: for each of
// the 9 taps a product of two matrices, x [pixels, in] shifted by the tap times w [in, out].
//
// Why this tiling. These layers are small: in ResNet-20 at batch 128 each reads and writes 1.6 to
// 6.4 MB and multiplies 231 million times, 1 to 2 us of either, so the latency of the prologue and
// an even distribution over the multiprocessors count as much as throughput does.
//
// The filters stay in registers. A warp holds those between 32 input and 16 output channels (or 16
// and 16, or 64 and 8), 72 registers a lane, and goes down the rows of a strip of 16 pixels. It
// loads each row of x once for each column of taps and multiplies it by all three taps of that
// column, whose products belong to three rows of y: their sums, 24 registers, are kept and move up
// by one with each row. So a row of x costs 3 reads of shared memory and not 9. With 32 channels
// either way that is 384 bytes a pixel, which with the 64 that come in take 3.5 clocks of shared
// memory beside 7.3 clocks of tensor cores (1270 multiply-adds of mma.sync a clock). From 64 to 32
// channels, with 8 outputs a warp, it is 13 beside 14.5; there each output has two sums, over half
// of the products each, so that a warp has six independent chains of products in all layouts: two
// warps on a scheduler then keep its tensor core busy.
//
// A block is 8 warps, 32 output channels (or 16) and 32, 64 or 128 columns. A column is one of all
// columns of all images side by side, so that no width leaves lanes empty. Rows of x come through a
// ring buffer of 6 stages. Blocks share the rows of all tiles evenly, in runs of at least 3: on the
// layers of ResNet-20 at batch 128 that makes one or two blocks on each of the 132 multiprocessors
// of an H100, all in one wave, whose filters and rows are all requested before the first wait. A
// run that begins or ends within an image reads one more row of x there, but skips the products
// that belong to other blocks' rows.
//
// The moments of y, where a batch norm follows: a lane adds what it writes to sums in shared
// memory, where the filters were until they came into registers, and the last block of all
// finishes.
//
// The data gradient is the same convolution of dy, with the filters rotated by 180 degrees and
// their channels exchanged. Shared memory holds them as they are in memory and the loads of the
// fragments transpose them.
#include <algorithm>

#include "async_copy.cuh"
#include "batch_moments.cuh"
#include "device.cuh"
#include "image_columns.cuh"
#include "tensor_cores.cuh"

namespace preheat::kernels {
namespace {

constexpr int warp = 32;
constexpr int warps = 8;
constexpr int threads = warps * warp;
constexpr int taps = 3;           // in a row and in a column of a filter
constexpr int strip_pixels = 16;  // that a warp multiplies at a time
constexpr int stages = 6;
constexpr int min_rows = 3;  // of a block

/// How a block is laid out: the filters of its output channels in shared memory, tap by tap, and a
/// ring buffer whose stages are rows of x. In a stage the tile's columns are followed by the column
/// to the right of them, one of zeros that stands for what is outside of an image, and at the end
/// the column to the left, each where its bank conflicts with as few others as can be.
template <int in, int outputs>
struct Layout {
  static constexpr int steps = in / 16;  // products of 16 input channels
  // A warp has two sums of 16 pixels x 8 channels for each row of y: of 16 output channels, or,
  // with 64 input channels, of 8, where each sum takes half the products.
  static constexpr bool halves = in == 64 || in > outputs;
  static constexpr int warp_outputs = halves ? 8 : 16;
  static constexpr int fragments = halves ? steps / 2 : steps;  // of the filters, per tap
  static constexpr int parts = outputs / warp_outputs;
  static constexpr int columns = warps / parts * strip_pixels;
  static constexpr int zero_column = columns + 1;
  static constexpr int left_column = columns + 7;

  static constexpr int tap_bytes = in * outputs * 2;
  // Later the sums of y take the filters' place.
  static constexpr int filter_bytes =
      std::max<int>(taps * taps * tap_bytes, sizeof(WrittenSums<4>));
  static constexpr int stage_bytes = (left_column + 1) * in * 2;
  static constexpr int shared_bytes = filter_bytes + stages * stage_bytes;
  static constexpr int blocks_per_sm = in == 64 ? 1 : 2;  // on a multiprocessor
  static_assert(zero_column < left_column && 16 * fragments == steps * warp_outputs);
  static_assert(sizeof(SumSpace<4>) <= shared_bytes && threads == channel_threads);

  __device__ static unsigned next_stage(unsigned ring, unsigned stage) {
    return stage + stage_bytes == ring + stages * stage_bytes ? ring : stage + stage_bytes;
  }
};

/// Copies the filters of the block's outputs, as rows of channels for each tap: a row for each
/// output, or, for the data gradient, one for each input with the taps in reverse order.
template <class T, int in, int outputs, bool transposed>
__device__ void copy_filters(const T* w, int out, int first_out, unsigned to) {
  using Block = Layout<in, outputs>;
  constexpr int all_taps = taps * taps;
  constexpr int row_channels = transposed ? outputs : in;
  constexpr int tap_chunks = Block::tap_bytes / 16;
  constexpr int at_once = threads / tap_chunks;  // taps
  const int chunk = static_cast<int>(threadIdx.x) % (row_channels / 8);
  const int row = static_cast<int>(threadIdx.x) % tap_chunks / (row_channels / 8);
  const int first_tap = static_cast<int>(threadIdx.x) / tap_chunks;
  const int tap_stride = transposed ? out : in;
  const int at = transposed ? row * all_taps * out + first_out : (first_out + row) * all_taps * in;
  const T* from = w + at + first_tap * tap_stride + chunk * 8;
  to += swizzled_offset<row_channels>(row, chunk);
#pragma unroll
  for (int i = 0; i < all_taps; i += at_once) {
    const int tap = i + first_tap;
    if (tap >= all_taps) break;
    const int to_tap = transposed ? all_taps - 1 - tap : tap;
    copy_async(to + to_tap * Block::tap_bytes, from, true);
    from += at_once * tap_stride;
  }
}

/// Copies the rows of x that a block needs into the ring, ahead of the arithmetic.
template <class T, int in, int outputs>
class Feed {
 public:
  __device__ Feed(const Extent& extent, const T* x, unsigned ring, int first, int end)
      : extent_(extent),
        x_(x),
        ring_(ring),
        stage_(ring),
        rows_(end - first),
        column_(first / extent.height * Block::columns),
        row_(first % extent.height) {
    start();
  }

  /// The next row, as one group of copies, which is empty behind the last row.
  __device__ void copy_row() {
    if (rows_ > 0) {
      --rows_;
      if (row_ == extent_.height) {
        row_ = 0;
        column_ += Block::columns;
        start();
      }
      ++row_;
      if (is_first()) tiles_[0].copy_neighbour(-1, neighbour_inside_, at(Block::left_column));
      if (is_last()) {
        tiles_[copies - 1].copy_neighbour(1, neighbour_inside_, at(Block::columns));
      }
#pragma unroll
      for (int i = 0; i < copies; ++i) {
        if (column(i) < Block::columns) tiles_[i].copy(extent_, at(column(i)));
      }
      stage_ = Block::next_stage(ring_, stage_);
    }
    commit_copies();
  }

 private:
  using Block = Layout<in, outputs>;
  static constexpr int chunks = in / 8;
  static constexpr int copies = ceil_div(Block::columns * chunks, threads);  // of a thread
  __device__ static int column(int copy) {
    return static_cast<int>(threadIdx.x) / chunks + copy * (threads / chunks);
  }
  __device__ static int chunk() {
    return static_cast<int>(threadIdx.x) % chunks;
  }
  __device__ unsigned at(int column) const {
    return stage_ + swizzled_offset<in>(column, chunk());
  }

  // The threads that copy the tile's first or last column also copy the column beside it.
  __device__ static bool is_first() {
    return column(0) == 0;
  }
  __device__ static bool is_last() {
    return column(copies - 1) == Block::columns - 1;
  }

  __device__ void start() {
    int x[copies];
#pragma unroll
    for (int i = 0; i < copies; ++i) {
      x[i] = tiles_[i].start(extent_, x_, column_ + column(i), chunk(), row_);
    }
    const int right = x[copies - 1] + 1;
    neighbour_inside_ = is_first() ? x[0] > 0 : right > 0 && right < extent_.width;
  }

  const Extent extent_;
  const T* const x_;
  ColumnCopy<T, in> tiles_[copies];
  bool neighbour_inside_ = false;
  const unsigned ring_;
  unsigned stage_;
  int rows_;
  int column_;
  int row_;
};

/// Fills the column of zeros in each stage of the ring.
template <int in, int outputs>
__device__ void clear_zero_columns(uint4* space) {
  using Block = Layout<in, outputs>;
  constexpr int zeros = in / 8;  // chunks in each stage
  static_assert(stages * zeros <= threads);
  if (const int i = static_cast<int>(threadIdx.x); i < stages * zeros) {
    const unsigned at = Block::filter_bytes + i / zeros * Block::stage_bytes +
                        swizzled_offset<in>(Block::zero_column, i % zeros);
    space[at / 16] = uint4{};
  }
}

/// The filters that a warp multiplies by, tap by tap.
template <class Block>
using Filters = Fragment[taps * taps][Block::fragments];

/// Loads those of one part of the block's outputs from shared memory.
template <int in, int outputs, bool transposed>
__device__ void load_filters(unsigned from, int part, int lane,
                             Filters<Layout<in, outputs>>& filters) {
  using Block = Layout<in, outputs>;
#pragma unroll
  for (int tap = 0; tap < taps * taps; ++tap) {
#pragma unroll
    for (int f = 0; f < Block::fragments; ++f) {
      // The lane's row of a quarter. The quarters are 8 outputs x 16 inputs and 8 outputs more, or
      // 8 outputs x 32 inputs.
      const int quarter = lane / 8;
      const int k = part * Block::warp_outputs + (Block::halves ? 0 : quarter / 2 * 8);
      const int c = Block::halves ? f * 32 + quarter * 8 : f * 16 + quarter % 2 * 8;
      const unsigned at = from + tap * Block::tap_bytes;
      if constexpr (transposed) {
        load_transposed(filters[tap][f], at + swizzled_offset<outputs>(c + lane % 8, k / 8));
      } else {
        load(filters[tap][f], at + swizzled_offset<in>(k + lane % 8, c / 8));
      }
    }
  }
}

/// Where in a stage a lane reads a chunk of x for each column of taps, for a pixel of the tile that
/// begins at `column`.
template <int in, int outputs>
__device__ void find_x(const Extent& extent, int column, int pixel, int chunk,
                       unsigned (&x_at)[taps]) {
  using Block = Layout<in, outputs>;
#pragma unroll
  for (int s = 0; s < taps; ++s) {
    const int shifted = (column + pixel) % extent.width + s - 1;
    const bool outside = shifted < 0 || shifted >= extent.width;
    const int neighbour = pixel + s - 1;
    const int at = neighbour < 0 ? Block::left_column : neighbour;
    x_at[s] = swizzled_offset<in>(outside ? Block::zero_column : at, chunk);
  }
}

/// The pixels of y in every eighth column from `column` on, in the first row of their image;
/// negative outside of the images.
template <int count>
__device__ void find_y(const Extent& extent, int column, int (&y_at)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const int of_all = column + 8 * i;
    const int image = of_all / extent.width;
    const int x = of_all % extent.width;
    y_at[i] = of_all < extent.columns ? image * extent.height * extent.width + x : -1;
  }
}

/// A lane's share of the two sums of 16 pixels x 8 channels that its warp has for a row of y.
using RowSums = float[2][4];

/// Multiplies a row of x by the filters, for those of the rows of y above it, level with it and
/// below it that are needed.
template <class T, class Block>
__device__ void multiply_row(unsigned stage, const unsigned (&x_at)[taps],
                             const Filters<Block>& filters, const bool (&needed)[taps],
                             RowSums (&sums)[taps]) {
#pragma unroll
  for (int s = 0; s < taps; ++s) {
    Fragment pixels[Block::steps];
#pragma unroll
    for (int c = 0; c < Block::steps; ++c) load(pixels[c], stage + (x_at[s] ^ c * 32));
#pragma unroll
    for (int f = 0; f < Block::fragments; ++f) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int r = 0; r < taps; ++r) {
          if (needed[r]) {
            multiply_add<T>(sums[r][half], pixels[Block::halves ? 2 * f + half : f],
                            filters[(taps - 1 - r) * taps + s][f], half);
          }
        }
      }
    }
  }
}

/// Makes the sums ready for the next row of x, which begins a row of y.
template <int rows>
__device__ void move_up(RowSums (&sums)[rows]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int r = 0; r < rows; ++r) sums[r][half][i] = r + 1 < rows ? sums[r + 1][half][i] : 0;
    }
  }
}

template <class T>
__device__ unsigned packed(float a, float b) {
  const Pack<T, 2> pack{{from_float<T>(a), from_float<T>(b)}};
  return reinterpret_cast<const unsigned&>(pack);
}

/// Two lanes with two neighbouring channels each exchange: the even lane gets the four of `first`,
/// the odd lane the four of `second`.
template <class T>
__device__ Pack<T, 4> four_channels(const float (&first)[2], const float (&second)[2]) {
  const unsigned even = packed<T>(first[0], first[1]);
  const unsigned odd = packed<T>(second[0], second[1]);
  const bool is_odd = threadIdx.x % 2 == 1;
  const unsigned other = __shfl_xor_sync(0xffffffffu, is_odd ? even : odd, 1);
  const uint2 four = is_odd ? uint2{other, odd} : uint2{even, other};
  return reinterpret_cast<const Pack<T, 4>&>(four);
}

/// The four channels of pixel `i` of those that the lane writes.
template <class T, class Block>
__device__ Pack<T, 4> written_channels(const RowSums& sums, int i) {
  float first[2];
  float second[2];
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    first[k] = Block::halves ? sums[0][k] + sums[1][k] : sums[0][2 * i + k];
    second[k] = Block::halves ? sums[0][2 + k] + sums[1][2 + k] : sums[1][2 * i + k];
  }
  return four_channels<T>(first, second);
}

template <class T, int in, int outputs, bool transposed>
__global__ void __launch_bounds__(threads, Layout<in, outputs>::blocks_per_sm)
    convolution_kernel(const Extent extent, int rows, int out, const T* x, const T* w, T* y,
                       const BatchMoments moments) {
#if __CUDA_ARCH__ >= 800
  using Block = Layout<in, outputs>;
  extern __shared__ uint4 space[];
  const unsigned filters = shared_address(space);
  const unsigned ring = filters + Block::filter_bytes;

  // Rows of tiles are counted tile by tile. Those of y that the block computes need the rows of x
  // above and below, but in the same tile.
  const int tiles = (extent.columns + Block::columns - 1) / Block::columns;
  const int begin = static_cast<int>(blockIdx.x) * rows;
  const int end = min(begin + rows, tiles * extent.height);
  const int first_row = begin % extent.height == 0 ? begin : begin - 1;
  const int end_row = end % extent.height == 0 ? end : end + 1;
  const int first_out = static_cast<int>(blockIdx.y) * outputs;

  copy_filters<T, in, outputs, transposed>(w, out, first_out, filters);
  commit_copies();
  Feed<T, in, outputs> feed(extent, x, ring, first_row, end_row);
#pragma unroll 1
  for (int i = 0; i < stages - 1; ++i) feed.copy_row();
  clear_zero_columns<in, outputs>(space);

  const int lane = static_cast<int>(threadIdx.x) % warp;
  const int part = static_cast<int>(threadIdx.x) / warp % Block::parts;
  const int strip = static_cast<int>(threadIdx.x) / warp / Block::parts * strip_pixels;

  // Where the lane reads its row of a quarter of x for each column of taps, and which pixels it
  // writes: 4 channels of two pixels, or of one.
  constexpr int written = Block::halves ? 1 : 2;
  const int x_pixel = strip + lane % 16;
  const int y_pixel = strip + lane / 4 + (Block::halves ? lane % 2 * 8 : 0);
  const int y_channel = first_out + part * Block::warp_outputs +
                        (Block::halves ? 0 : lane % 2 * 8) + lane % 4 / 2 * 4;
  int column = first_row / extent.height * Block::columns;
  unsigned x_at[taps];
  int y_at[written];
  const auto enter_tile = [&] {
    find_x<in, outputs>(extent, column, x_pixel, lane / 16, x_at);
    find_y(extent, column + y_pixel, y_at);
  };
  enter_tile();

  wait_for_copies<stages - 1>();
  __syncthreads();  // the filters are there
  Filters<Block> fragments;
  load_filters<in, outputs, transposed>(filters, part, lane, fragments);

  // The filters are in registers; the sums of y take their place.
  auto& sums_of_y = *reinterpret_cast<WrittenSums<4>*>(space);
  const bool adds = !transposed && moments.mean != nullptr;
  if (adds) {
    __syncthreads();
    sums_of_y.clear();
  }

  RowSums sums[taps] = {};  // of the row above, the same one and the one below
  const auto write_row = [&](const RowSums& of_row, int row) {
    Pack<T, 4> stored[written] = {};
#pragma unroll
    for (int i = 0; i < written; ++i) {
      const Pack<T, 4> four = written_channels<T, Block>(of_row, i);
      if (y_at[i] < 0) continue;
      const std::int64_t pixel = y_at[i] + row * extent.width;
      *reinterpret_cast<Pack<T, 4>*>(y + pixel * out + y_channel) = stored[i] = four;
    }
    if (adds) sums_of_y.add(stored);
  };

  int row = first_row % extent.height;
  unsigned stage = ring;
#pragma unroll 1
  for (int at = first_row; at < end_row; ++at) {
    if (row == extent.height) {
      row = 0;
      column += Block::columns;
      enter_tile();
    }
    wait_for_copies<stages - 2>();
    __syncthreads();  // this stage is there, and the one before has been read
    feed.copy_row();

    // Which rows of y this row of x has a part in: for the taps of the filter's last row the one
    // above, for those of its first row the one below.
    const bool needed[taps] = {row > 0 && at > begin, at >= begin && at < end,
                               row + 1 < extent.height && at + 1 < end};
    multiply_row<T, Block>(stage, x_at, fragments, needed, sums);
    if (needed[0]) write_row(sums[0], row - 1);
    if (needed[1] && row + 1 == extent.height) write_row(sums[1], row);
    move_up(sums);
    ++row;
    stage = Block::next_stage(ring, stage);
  }
  if (!adds) return;
  constexpr unsigned lanes = outputs / 4;
  const unsigned strip_row = Block::halves ? lane / 4 * 2 + lane % 2 : lane / 4;
  const unsigned sum_row = strip / written + strip_row;
  finish_written(moments, extent.pixels(), out / 4, lanes,
                 sum_row * lanes + (y_channel - first_out) / 4, sums_of_y,
                 *reinterpret_cast<SumSpace<4>*>(space));
#endif
}

/// x [images, in] * w -> y [images, out], w being [out, 3, 3, in], or [in, 3, 3, out] where it is
/// rotated and transposed.
template <class T, bool transposed>
cudaError_t convolve(const Images& images, int out, const void* x, const void* w, void* y,
                     const BatchMoments* moments, cudaStream_t stream) {
  return with_channels(images.channels, [&]<int in>() {
    const auto launch = [&]<int outputs>() {
      using Block = Layout<in, outputs>;
      const auto kernel = convolution_kernel<T, in, outputs, transposed>;
      const cudaError_t allowed = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Block::shared_bytes);
      if (allowed != cudaSuccess) return allowed;
      const Extent extent(images);
      const int parts = out / outputs;
      const std::int64_t all_rows =
          std::int64_t{ceil_div(extent.columns, Block::columns)} * images.height;
      const int at_once = tuned_multiprocessors * Block::blocks_per_sm;
      const int rows = std::max(min_rows, ceil_div(all_rows * parts, at_once));
      const dim3 blocks(ceil_div(all_rows, rows), parts);
      kernel<<<blocks, threads, Block::shared_bytes, stream>>>(
          extent, rows, out, static_cast<const T*>(x), static_cast<const T*>(w), static_cast<T*>(y),
          moments != nullptr ? *moments : BatchMoments{});
      return cudaGetLastError();
    };
    return out == 16 ? launch.template operator()<16>() : launch.template operator()<32>();
  });
}

template <bool transposed>
cudaError_t convolve(Element element, const Images& images, int out, const void* x, const void* w,
                     void* y, const BatchMoments* moments, cudaStream_t stream) {
  if (!is_aligned(x) || !is_aligned(w) || !is_aligned(y)) return cudaErrorInvalidValue;
  return element == Element::bf16
             ? convolve<__nv_bfloat16, transposed>(images, out, x, w, y, moments, stream)
             : convolve<__half, transposed>(images, out, x, w, y, moments, stream);
}

}  // namespace

// Pixels are counted in ints.
bool tensor_cores_support(Element element, const Images& x, std::int32_t out) {
  const auto has_tiles = [](std::int32_t channels) {
    return channels == 16 || channels == 32 || channels == 64;
  };
  return element != Element::f32 && has_tiles(x.channels) && has_tiles(out) && x.batch > 0 &&
         x.height > 0 && x.width > 0 && x.rows() < (std::int64_t{1} << 30) && has_async_copies();
}

cudaError_t tensor_core_convolution(Element element, const Images& shape, std::int32_t out,
                                    const void* x, const void* w, void* y,
                                    const BatchMoments* moments, cudaStream_t stream) {
  if (!tensor_cores_support(element, shape, out)) return cudaErrorNotSupported;
  return convolve<false>(element, shape, out, x, w, y, moments, stream);
}

cudaError_t tensor_core_data_gradient(Element element, const Images& shape, std::int32_t out,
                                      const void* dy, const void* w, void* dx,
                                      cudaStream_t stream) {
  if (!tensor_cores_support(element, shape, out)) return cudaErrorNotSupported;
  Images gradient = shape;
  gradient.channels = out;
  return convolve<true>(element, gradient, shape.channels, dy, w, dx, nullptr, stream);
}

}  // namespace preheat::kernels
