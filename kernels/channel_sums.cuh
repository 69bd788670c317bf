// Layout of the sums over a batch: a thread keeps one pack of adjacent channels in registers and
// walks down the rows. A block adds up its threads and writes one partial per channel; the last
// block adds up the partials. The sizes alone determine the order of summation.
#pragma once

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int channel_threads = 256;  // of a block
inline constexpr unsigned max_row_blocks = 2 * tuned_multiprocessors;

/// Most channels that a block sums over: 128 bytes of a row of 16-bit elements. The partials of all
/// blocks, which one block has to add up, stay few whatever the number of channels.
inline constexpr int max_sum_channels = 64;

/// Most blocks and channels of a convolution that adds up its y as well.
inline constexpr unsigned max_convolution_blocks = 3 * tuned_multiprocessors;
inline constexpr int max_convolution_channels = 128;

/// Most packs of a row that a summing block covers.
template <int pack>
inline constexpr unsigned sum_lanes = pack > 1 ? 8 : max_sum_channels;

/// Blocks that split the rows if `groups` blocks are side by side.
inline constexpr unsigned row_blocks(unsigned groups, unsigned max_blocks) {
  return groups < max_blocks ? max_blocks / groups : 1;
}

/// Blocks of `lanes` x `rows` threads, with the packs of channels side by side; the remaining
/// channel_threads of a block have no work.
struct ChannelGrid {
  unsigned lanes = 1;   // packs of one row that a block covers
  unsigned rows = 1;    // rows that a block covers per iteration
  unsigned groups = 1;  // blocks side by side that cover a row: gridDim.y
  unsigned blocks = 1;  // blocks along the rows: gridDim.x
  unsigned packs = 1;   // of a row of the matrix
  dim3 blocks_and_groups() const { return {blocks, groups}; }
};

/// Gives a thread about `rows_per_thread` rows, or more to keep to `max_blocks` blocks in all.
inline ChannelGrid channel_grid(std::int64_t rows, std::int32_t channels, int pack,
                                int rows_per_thread, unsigned max_blocks,
                                unsigned max_lanes = channel_threads) {
  ChannelGrid g;
  g.packs = static_cast<unsigned>(channels / pack);
  g.groups = (g.packs + max_lanes - 1) / max_lanes;
  g.lanes = (g.packs + g.groups - 1) / g.groups;
  g.rows = channel_threads / g.lanes;
  const std::int64_t per_block = std::int64_t{g.rows} * rows_per_thread;
  const std::int64_t wanted = (rows + per_block - 1) / per_block;
  const unsigned most = row_blocks(g.groups, max_blocks);
  g.blocks = wanted < most ? static_cast<unsigned>(wanted) : most;
  return g;
}

/// The position of the calling thread.
struct ChannelThread {
  unsigned row;   // of the block
  unsigned pack;  // of a row of the matrix
  bool works;
  __device__ explicit ChannelThread(const ChannelGrid& grid)
      : row(threadIdx.x / grid.lanes),
        pack(blockIdx.y * grid.lanes + threadIdx.x % grid.lanes),
        works(row < grid.rows && pack < grid.packs) {}
};

/// The shared memory of a summing block.
template <int pack>
struct SumSpace {
  // 16 more, so that half-warps that read different rows hit different banks.
  float values[2 * pack][channel_threads + 16];
  float totals[channel_threads];
  double parts[channel_threads][pack > 1 ? 4 : 2];
};

/// Adds up `a` and `b` over all threads with the same pack (at most channel_threads / (2 pack)
/// packs per block) and writes them to this block's partials: partials[(block * channels + channel)
/// * 2 + which]. Threads without work must pass 0. `thread` is the calling thread's index among
/// those threads, row * lanes + its pack among the block's.
template <int pack>
__device__ void write_channel_partials(const ChannelGrid& grid, unsigned thread,
                                       const float (&a)[pack], const float (&b)[pack],
                                       SumSpace<pack>& space, float* partials) {
  // One group of threads for each component of a pack, with as many threads per lane as fit: two
  // rounds for any number of lanes.
  constexpr unsigned group = channel_threads / (2 * pack);
  static_assert(sum_lanes<pack> <= group);
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    space.values[2 * k][thread] = a[k];
    space.values[2 * k + 1][thread] = b[k];
  }
  __syncthreads();
  const unsigned lanes = grid.lanes;
  const unsigned reducers = group / lanes;
  const unsigned in_group = threadIdx.x % group;
  float sum = 0;
  if (in_group < reducers * lanes) {
    const float* values = space.values[threadIdx.x / group];
    for (unsigned i = in_group; i < grid.rows * lanes; i += reducers * lanes) sum += values[i];
  }
  space.totals[threadIdx.x] = sum;
  __syncthreads();
  const unsigned component = threadIdx.x % (2 * pack);
  const unsigned lane = threadIdx.x / (2 * pack);
  const unsigned at = blockIdx.y * lanes + lane;
  if (lane >= lanes || at >= grid.packs) return;
  float total = 0;
  for (unsigned i = 0; i < reducers; ++i)
    total += space.totals[component * group + i * lanes + lane];
  partials[(std::int64_t{blockIdx.x} * grid.packs + at) * (2 * pack) + component] = total;
}

/// For the last block: reduces the partials of all blocks per channel and calls finish(channel, sum
/// of a, sum of b) in one thread each. A thread reads 16 bytes of partials at a time if it can, and
/// as many threads as are available split a column of them. Reads bypass L1, which may hold stale
/// values.
template <int pack, class Finish>
__device__ void finish_channels(unsigned packs, unsigned blocks, const float* partials,
                                SumSpace<pack>& space, const Finish& finish) {
  constexpr unsigned channels_per_thread = pack > 1 ? 2 : 1;
  constexpr unsigned max_reducers = 32;  // whose sums one thread adds up
  const std::int64_t channels = std::int64_t{packs} * pack;
  const auto columns = static_cast<unsigned>(channels / channels_per_thread);
  for (unsigned first = 0; first < columns; first += channel_threads) {
    const unsigned left = columns - first;
    const unsigned width = left < channel_threads ? left : channel_threads;
    const unsigned room = channel_threads / width;
    const unsigned reducers = room < max_reducers ? room : max_reducers;
    const unsigned reducer = threadIdx.x / width;
    const unsigned column = threadIdx.x % width;
    const std::int64_t channel = std::int64_t{first + column} * channels_per_thread;
    if (reducer < reducers) {
      double sums[2 * channels_per_thread] = {};
#pragma unroll 8
      for (unsigned block = reducer; block < blocks; block += reducers) {
        const float* from = partials + (block * channels + channel) * 2;
        if constexpr (channels_per_thread == 2) {
          const float4 four = __ldcg(reinterpret_cast<const float4*>(from));
          sums[0] += double{four.x};
          sums[1] += double{four.y};
          sums[2] += double{four.z};
          sums[3] += double{four.w};
        } else {
          sums[0] += double{__ldcg(from)};
          sums[1] += double{__ldcg(from + 1)};
        }
      }
#pragma unroll
      for (unsigned k = 0; k < 2 * channels_per_thread; ++k) space.parts[threadIdx.x][k] = sums[k];
    }
    __syncthreads();
    if (reducer == 0) {
      double sums[2 * channels_per_thread] = {};
      for (unsigned i = 0; i < reducers; ++i) {
#pragma unroll
        for (unsigned k = 0; k < 2 * channels_per_thread; ++k)
          sums[k] += space.parts[i * width + column][k];
      }
#pragma unroll
      for (unsigned k = 0; k < channels_per_thread; ++k)
        finish(channel + k, sums[2 * k], sums[2 * k + 1]);
    }
    __syncthreads();  // before `parts` is written again
  }
}

}  // namespace preheat::kernels
