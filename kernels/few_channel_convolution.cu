// Convolutions of images with few channels, the first layer of a network, and their weight
// gradient. Tensor cores would multiply by the zeros that such images are padded with. With one
// channel and a 3 x 3 filter there are 9 multiply-adds per value of y, so plain FMAs keep up with
// the memory traffic of y, provided that each thread does enough work per value it loads.
//
// A block processes one tile of an image at a time. The tile's receptive field in x lies in shared
// memory, as floats and with zeros around the image. A thread computes strips of `band` vertically
// adjacent pixels of y, which share all weights and most of the x they read, for 16 bytes of their
// channels. Consecutive threads take consecutive channels, then consecutive columns, so a warp
// reads and writes y coalesced. In 16 bits a thread also adds what it writes to sums in shared
// memory, where a batch norm follows, and the last block of all takes the moments from them.
#include <algorithm>

#include "batch_moments.cuh"
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr unsigned threads = 256;
constexpr unsigned warp = 32;
constexpr unsigned band = 4;
constexpr unsigned max_columns = 32;  // of y, in a tile
constexpr unsigned forward_blocks = max_convolution_blocks;
constexpr unsigned gradient_blocks = 2 * tuned_multiprocessors;

/// Width in x of the receptive field of `pixels` adjacent pixels of y.
__host__ __device__ constexpr unsigned receptive_field(unsigned pixels, int kernel, int stride) {
  return (pixels - 1) * static_cast<unsigned>(stride) + static_cast<unsigned>(kernel);
}

/// How y is cut into tiles: tiles of few rows if there are few images, so that every block gets
/// some, and enough tiles that the blocks get nearly the same number.
struct Tiling {
  unsigned columns;  // of a tile
  unsigned bands;    // of a tile, vertically
  unsigned across;   // tiles of an image
  unsigned down;
  unsigned tiles;
  Tiling(const FewChannels& c, unsigned min_tiles)
      : columns(ceil_div(c.y.width, ceil_div(c.y.width, max_columns))),
        bands(c.stride == 1 ? 8 : 2),
        across(ceil_div(c.y.width, columns)) {
    const auto cut = [&] {
      down = ceil_div(c.y.height, bands * band);
      tiles = static_cast<unsigned>(c.y.batch) * across * down;
    };
    for (cut(); bands > 1 && tiles < min_tiles; cut()) bands /= 2;
  }
};

/// A block's part of x in shared memory. The row pitch is a compile-time constant, so that a thread
/// reaches everything a strip reads from one address.
template <int kernel, int stride>
struct InputTile {
  static constexpr unsigned pitch = receptive_field(max_columns, kernel, stride);
  float* values;  // [channel][row][pitch]
  unsigned rows;
  __device__ const float* at(unsigned channel, unsigned row, unsigned column) const {
    return values + (channel * rows + row * stride) * pitch + column * stride;
  }
};

__host__ __device__ unsigned input_tile_floats(const FewChannels& c, const Tiling& tiling) {
  return static_cast<unsigned>(c.channels) *
         receptive_field(tiling.bands * band, c.kernel, c.stride) *
         receptive_field(max_columns, c.kernel, c.stride);
}

/// A tile of y.
struct Tile {
  std::int64_t image;
  unsigned row;
  unsigned column;
  unsigned strips;
  __device__ Tile(const FewChannels& c, const Tiling& t, unsigned index)
      : image(index / t.across / t.down),
        row(index / t.across % t.down * t.bands * band),
        column(index % t.across * t.columns) {
    const unsigned bands = (c.y.height - row + band - 1) / band;
    strips = t.columns * (bands < t.bands ? bands : t.bands);
  }

  /// Copies its receptive field of x into shared memory, with several loads of a thread in flight.
  template <class T, int kernel, int stride>
  __device__ void fetch(const FewChannels& c, const T* x,
                        const InputTile<kernel, stride>& seen) const {
    constexpr unsigned pitch = InputTile<kernel, stride>::pitch;
    constexpr unsigned loads_in_flight = 4;
    const int top = static_cast<int>(row * stride) - c.padding;
    const int left = static_cast<int>(column * stride) - c.padding;
    const unsigned cells = seen.rows * pitch;
    for (int channel = 0; channel < c.channels; ++channel) {
      const T* const plane = x + image * c.x.height * c.x.width * c.x.channels + channel;
      float* const to = seen.values + channel * cells;
      for (unsigned first = threadIdx.x; first < cells; first += loads_in_flight * threads) {
        float values[loads_in_flight] = {};
#pragma unroll
        for (unsigned i = 0; i < loads_in_flight; ++i) {
          const unsigned cell = first + i * threads;
          const int x_row = top + static_cast<int>(cell / pitch);
          const int x_column = left + static_cast<int>(cell % pitch);
          if (cell < cells && x_row >= 0 && x_row < c.x.height && x_column >= 0 &&
              x_column < c.x.width) {
            values[i] = to_float(plane[(x_row * c.x.width + x_column) * c.x.channels]);
          }
        }
#pragma unroll
        for (unsigned i = 0; i < loads_in_flight; ++i) {
          const unsigned cell = first + i * threads;
          if (cell < cells) to[cell] = values[i];
        }
      }
    }
  }
};

/// Number of filter weights, without padding channels.
__host__ __device__ unsigned weights_of(const FewChannels& c) {
  return static_cast<unsigned>(c.y.channels * c.kernel * c.kernel * c.channels);
}

/// Where the sums of y begin, in floats: after the weights and the tile, 16-byte aligned.
__host__ __device__ unsigned written_at(const FewChannels& c, const Tiling& tiling) {
  return (weights_of(c) + input_tile_floats(c, tiling) + 3) / 4 * 4;
}

// The weights stay in shared memory: 16 bytes of them serve `band` pixels.
template <class T, int kernel, int stride>
__global__ void __launch_bounds__(threads, 3)
    forward_kernel(const FewChannels shape, const Tiling tiling, const T* x, const T* w, T* y,
                   const BatchMoments moments) {
  constexpr unsigned pack = full_pack<T>;
  extern __shared__ __align__(32) float weights[];  // [channel of x][s][r][channel of y]
  const unsigned weight_count = weights_of(shape);
  const auto outputs = static_cast<unsigned>(shape.y.channels);
  for (unsigned i = threadIdx.x; i < weight_count; i += threads) {
    const unsigned k = i % outputs;
    const unsigned r = i / outputs % kernel;
    const unsigned s = i / outputs / kernel % kernel;
    const unsigned c = i / outputs / (kernel * kernel);
    weights[i] = to_float(w[((k * kernel + r) * kernel + s) * shape.x.channels + c]);
  }
  const InputTile<kernel, stride> seen{weights + weight_count,
                                       receptive_field(tiling.bands * band, kernel, stride)};
  const unsigned packs = outputs / pack;
  const unsigned p = threadIdx.x % packs;
  const unsigned slot = threadIdx.x / packs;
  const unsigned slots = threads / packs;
  auto& written = *reinterpret_cast<WrittenSums<pack>*>(weights + written_at(shape, tiling));
  const bool adds = sizeof(T) == 2 && moments.mean != nullptr;
  if (adds) written.clear();
  for (unsigned t = blockIdx.x; t < tiling.tiles; t += gridDim.x) {
    const Tile tile(shape, tiling, t);
    __syncthreads();  // until the previous tile has been read
    tile.fetch(shape, x, seen);
    __syncthreads();
    for (unsigned strip = slot; slot < slots && strip < tile.strips; strip += slots) {
      const unsigned row = strip / tiling.columns * band;
      const unsigned column = strip % tiling.columns;
      float sums[band][pack] = {};
      unsigned at = p;
      for (unsigned c = 0; c < shape.channels; ++c) {
        const float* from = seen.at(c, row, column);
#pragma unroll
        for (int s = 0; s < kernel; ++s, ++from) {
#pragma unroll
          for (int r = 0; r < kernel; ++r, at += packs) {
            float weight[pack];
            load<float, pack>(weights, at, weight);
#pragma unroll
            for (unsigned j = 0; j < band; ++j) {
              const float value = from[(j * stride + r) * seen.pitch];
#pragma unroll
              for (unsigned k = 0; k < pack; ++k) sums[j][k] = fmaf(value, weight[k], sums[j][k]);
            }
          }
        }
      }
      Pack<T, pack> stored[band] = {};
#pragma unroll
      for (unsigned j = 0; j < band; ++j) {
        const unsigned y_row = tile.row + row + j;
        const unsigned y_column = tile.column + column;
        if (y_row < shape.y.height && y_column < shape.y.width) {
          const std::int64_t pixel =
              (tile.image * shape.y.height + y_row) * shape.y.width + y_column;
          stored[j] = store<T, pack>(y, pixel * packs + p, sums[j]);
        }
      }
      if (adds) written.add(stored);
    }
  }
  if (!adds) return;
  finish_written(moments, shape.y.rows(), packs, packs, threadIdx.x, written,
                 *reinterpret_cast<SumSpace<pack>*>(weights));
}

/// How the threads of a block split the weight gradient: each of `items` threads has a pack of
/// channels of y, a channel of x and as many filter rows as fit into registers, and `slots` such
/// sets of threads split the strips.
struct WorkSplit {
  __host__ __device__ static constexpr int rows(int kernel) { return kernel == 3 ? 3 : 1; }
  unsigned packs;
  unsigned items;
  unsigned slots;
  __host__ __device__ WorkSplit(const FewChannels& c, int pack)
      : packs(static_cast<unsigned>(c.y.channels / pack)),
        items(packs * static_cast<unsigned>(c.channels * (c.kernel / rows(c.kernel)))),
        slots(threads / items) {}
};

/// Adds up the sums of the slots through shared memory, tap by tap, and writes them to the block's
/// partial [out, kernel, kernel, in].
template <int rows, int kernel, unsigned pack>
__device__ void write_partial(const FewChannels& shape, const WorkSplit& shares,
                              const float (&sums)[rows][kernel][pack], float* partial) {
  // Eight adjacent threads add up one sum. One word of padding per row puts their reads into
  // different banks from those of their neighbours.
  constexpr unsigned reducers = 8;
  __shared__ float found[pack][threads + 1];
  const unsigned reducer = threadIdx.x % reducers;
#pragma unroll
  for (int r = 0; r < rows; ++r) {
#pragma unroll
    for (int s = 0; s < kernel; ++s) {
      __syncthreads();  // until the previous tap has been read
#pragma unroll
      for (unsigned k = 0; k < pack; ++k) found[k][threadIdx.x] = sums[r][s][k];
      __syncthreads();
      // The number of sums is a multiple of four: either a whole warp has work or none of it.
      for (unsigned o = threadIdx.x / reducers; o < shares.items * pack; o += threads / reducers) {
        const unsigned item = o / pack;
        float sum = 0;
        for (unsigned i = reducer; i < shares.slots; i += reducers) {
          sum += found[o % pack][i * shares.items + item];
        }
#pragma unroll
        for (unsigned offset = reducers / 2; offset > 0; offset /= 2) {
          sum += __shfl_down_sync(0xffffffffu, sum, offset, reducers);
        }
        const unsigned k = item % shares.packs * pack + o % pack;
        const unsigned c = item / shares.packs % shape.channels;
        const unsigned kernel_row = item / shares.packs / shape.channels * rows + r;
        const unsigned at = ((k * kernel + kernel_row) * kernel + s) * shape.channels + c;
        if (reducer == 0) partial[at] = sum;
      }
    }
  }
}

// Every block accumulates over a contiguous range of tiles, a thread over every slots-th strip of
// them, in registers.
template <class T, int kernel, int stride>
__global__ void __launch_bounds__(threads, 2)
    gradient_kernel(const FewChannels shape, const Tiling tiling, const T* x, const T* dy,
                    float* partials) {
  constexpr unsigned pack = full_pack<T>;
  constexpr int rows = WorkSplit::rows(kernel);
  extern __shared__ __align__(16) float seen_values[];
  const InputTile<kernel, stride> seen{seen_values,
                                       receptive_field(tiling.bands * band, kernel, stride)};
  const WorkSplit shares(shape, pack);
  const unsigned slot = threadIdx.x / shares.items;
  const unsigned p = threadIdx.x % shares.packs;
  const unsigned rest = threadIdx.x % shares.items / shares.packs;
  const unsigned channel = rest % shape.channels;
  const unsigned first_row = rest / shape.channels * rows;
  const auto first = static_cast<unsigned>(std::int64_t{tiling.tiles} * blockIdx.x / gridDim.x);
  const auto end = static_cast<unsigned>(std::int64_t{tiling.tiles} * (blockIdx.x + 1) / gridDim.x);
  float sums[rows][kernel][pack] = {};
  for (unsigned t = first; t < end; ++t) {
    const Tile tile(shape, tiling, t);
    __syncthreads();  // until the previous tile has been read
    tile.fetch(shape, x, seen);
    __syncthreads();
    for (unsigned strip = slot; slot < shares.slots && strip < tile.strips; strip += shares.slots) {
      const unsigned row = strip / tiling.columns * band;
      const unsigned column = strip % tiling.columns;
      const float* const from = seen.at(channel, row, column) + first_row * seen.pitch;
      Pack<T, pack> packs[band] = {};
#pragma unroll
      for (unsigned j = 0; j < band; ++j) {
        const unsigned y_row = tile.row + row + j;
        const unsigned y_column = tile.column + column;
        if (y_row < shape.y.height && y_column < shape.y.width) {
          const std::int64_t pixel =
              (tile.image * shape.y.height + y_row) * shape.y.width + y_column;
          packs[j] = reinterpret_cast<const Pack<T, pack>*>(dy)[pixel * shares.packs + p];
        }
      }
#pragma unroll
      for (unsigned j = 0; j < band; ++j) {
        float gradient[pack];
        unpack(packs[j], gradient);
#pragma unroll
        for (int r = 0; r < rows; ++r) {
#pragma unroll
          for (int s = 0; s < kernel; ++s) {
            const float value = from[(j * stride + r) * seen.pitch + s];
#pragma unroll
            for (unsigned k = 0; k < pack; ++k) {
              sums[r][s][k] = fmaf(value, gradient[k], sums[r][s][k]);
            }
          }
        }
      }
    }
  }
  write_partial(shape, shares, sums, partials + std::int64_t{blockIdx.x} * weights_of(shape));
}

// Sums the blocks' partials: one lane per weight, the warps split the blocks.
template <class T>
__global__ void __launch_bounds__(warp* warp)
    finish_kernel(const FewChannels shape, unsigned blocks, const float* partials, T* dw) {
  __shared__ float parts[warp][warp];
  const unsigned lane = threadIdx.x % warp;
  const unsigned reducer = threadIdx.x / warp;
  const unsigned weights = weights_of(shape);
  const unsigned at = blockIdx.x * warp + lane;
  float sum = 0;
  if (at < weights) {
#pragma unroll 4
    for (unsigned b = reducer; b < blocks; b += warp)
      sum += partials[std::int64_t{b} * weights + at];
  }
  parts[reducer][lane] = sum;
  __syncthreads();
  if (reducer > 0 || at >= weights) return;
  float total = 0;
  for (unsigned i = 0; i < warp; ++i) total += parts[i][lane];
  const auto channels = static_cast<unsigned>(shape.channels);
  T* const tap = dw + std::int64_t{at / channels} * shape.x.channels;
  tap[at % channels] = from_float<T>(total);
  if (at % channels + 1 < channels) return;
  for (unsigned zero = channels; zero < shape.x.channels; ++zero) tap[zero] = from_float<T>(0);
}

/// Calls work.template operator()<T, kernel, stride>() for the convolution's filter size and
/// stride.
template <class Work>
cudaError_t with_kernel(Element element, const FewChannels& c, Work&& work) {
  return with_type(element, [&]<class T>() {
    if (c.kernel == 3) {
      return c.stride == 1 ? work.template operator()<T, 3, 1>()
                           : work.template operator()<T, 3, 2>();
    }
    return c.stride == 1 ? work.template operator()<T, 5, 1>()
                         : work.template operator()<T, 5, 2>();
  });
}

Tiling forward_tiling(const FewChannels& c) {
  return {c, 8 * forward_blocks};
}

std::size_t shared_bytes_with_moments(const FewChannels& c, const Tiling& tiling) {
  constexpr int pack = full_pack<__half>;
  return std::max(written_at(c, tiling) * sizeof(float) + sizeof(WrittenSums<pack>),
                  sizeof(SumSpace<pack>));
}

unsigned fewer(unsigned blocks, unsigned most) {
  return blocks < most ? blocks : most;
}

}  // namespace

bool few_channels_supports(const FewChannels& c) {
  const bool kernel = (c.kernel == 3 || c.kernel == 5) && (c.stride == 1 || c.stride == 2) &&
                      c.padding >= 0 && c.padding < c.kernel;
  const bool channels = c.channels > 0 && c.channels <= 4 && c.channels <= c.x.channels &&
                        c.y.channels > 0 && c.y.channels <= max_convolution_channels &&
                        c.y.channels % 8 == 0;
  const bool images = c.x.batch > 0 && c.x.height > 0 && c.x.width > 0 && c.y.batch == c.x.batch &&
                      c.y.height > 0 && c.y.width > 0;
  constexpr std::int64_t most = std::int64_t{1} << 31;  // limit of what is counted in 32 bits
  // Any tile that a block has enough threads for fits into 48 KiB of shared memory.
  return kernel && channels && images && c.y.rows() < most && c.x.size() / c.x.batch < most &&
         WorkSplit(c, full_pack<float>).slots > 0;
}

bool few_channels_give_moments(Element element, const FewChannels& c) {
  // What a block has without asking for more, less the few bytes of is_last_block().
  constexpr std::size_t max_shared_bytes = (48 << 10) - 32;
  return element != Element::f32 && few_channels_supports(c) &&
         shared_bytes_with_moments(c, forward_tiling(c)) <= max_shared_bytes;
}

cudaError_t few_channels_forward(Element element, const FewChannels& c, const void* x,
                                 const void* w, void* y, const BatchMoments* moments,
                                 cudaStream_t stream) {
  if (!few_channels_supports(c) || !is_aligned(y)) return cudaErrorInvalidValue;
  if (moments != nullptr && !few_channels_give_moments(element, c)) return cudaErrorNotSupported;
  return with_kernel(element, c, [&]<class T, int kernel, int stride>() {
    const Tiling tiling = forward_tiling(c);
    const std::size_t shared = moments != nullptr ? shared_bytes_with_moments(c, tiling)
                                                  : written_at(c, tiling) * sizeof(float);
    forward_kernel<T, kernel, stride>
        <<<fewer(tiling.tiles, forward_blocks), threads, shared, stream>>>(
            c, tiling, static_cast<const T*>(x), static_cast<const T*>(w), static_cast<T*>(y),
            moments != nullptr ? *moments : BatchMoments{});
    return cudaGetLastError();
  });
}

std::size_t few_channels_workspace_bytes(const FewChannels& c) {
  return std::size_t{gradient_blocks} * weights_of(c) * sizeof(float);
}

cudaError_t few_channels_weight_gradient(Element element, const FewChannels& c, const void* x,
                                         const void* dy, void* dw, void* workspace,
                                         cudaStream_t stream) {
  if (!few_channels_supports(c) || !is_aligned(dy)) return cudaErrorInvalidValue;
  return with_kernel(element, c, [&]<class T, int kernel, int stride>() {
    const Tiling tiling(c, 4 * gradient_blocks);
    const unsigned blocks = fewer(tiling.tiles, gradient_blocks);
    auto* const partials = static_cast<float*>(workspace);
    gradient_kernel<T, kernel, stride>
        <<<blocks, threads, input_tile_floats(c, tiling) * sizeof(float), stream>>>(
            c, tiling, static_cast<const T*>(x), static_cast<const T*>(dy), partials);
    finish_kernel<T><<<ceil_div(weights_of(c), warp), warp * warp, 0, stream>>>(
        c, blocks, partials, static_cast<T*>(dw));
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
