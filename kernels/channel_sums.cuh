// How sums over a batch are laid out: a thread keeps one pack of neighbouring channels, so that
// what belongs to a channel stays in its registers, and walks down the rows. A block adds up its
// threads and writes one partial per channel; the last block adds up the partials. Every order is
// fixed by the sizes.
#pragma once

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int channel_threads = 256;       // of a block
inline constexpr unsigned most_row_blocks = 264;  // two on each multiprocessor of an H100

/// Channels that a block sums over at most: 128 bytes of a row of 16-bit elements. The partials of
/// all blocks, which one block has to add up, stay few however many channels there are.
inline constexpr int most_sum_channels = 64;

/// Packs of a row that a block covers at most, where it sums.
template <int pack>
inline constexpr unsigned sum_lanes = pack > 1 ? 8 : most_sum_channels;

/// Blocks below each other where `groups` of them are side by side.
inline constexpr unsigned row_blocks(unsigned groups, unsigned most_blocks) {
  return groups < most_blocks ? most_blocks / groups : 1;
}

/// Blocks of `lanes` x `rows` threads, the packs of channels side by side; what is left of the
/// block's channel_threads has no work.
struct ChannelGrid {
  unsigned lanes = 1;   // packs of one row that a block covers
  unsigned rows = 1;    // rows that a block covers at a time
  unsigned groups = 1;  // blocks side by side that cover a row: gridDim.y
  unsigned blocks = 1;  // blocks below each other: gridDim.x
  dim3 grid() const { return {blocks, groups}; }
};

/// `rows_per_thread` at least, where that leaves fewer than `most_blocks` in all.
inline ChannelGrid channel_grid(std::int64_t rows, std::int32_t channels, int pack,
                                int rows_per_thread, unsigned most_blocks,
                                unsigned most_lanes = channel_threads) {
  ChannelGrid g;
  const auto packs = static_cast<unsigned>(channels / pack);
  g.groups = (packs + most_lanes - 1) / most_lanes;
  g.lanes = (packs + g.groups - 1) / g.groups;
  g.rows = channel_threads / g.lanes;
  const std::int64_t per_block = std::int64_t{g.rows} * rows_per_thread;
  const std::int64_t wanted = (rows + per_block - 1) / per_block;
  const unsigned most = row_blocks(g.groups, most_blocks);
  g.blocks = wanted < most ? static_cast<unsigned>(wanted) : most;
  return g;
}

/// Where the thread is.
struct ChannelThread {
  unsigned row;   // of the block
  unsigned pack;  // of a row of the matrix
  bool works;
  __device__ ChannelThread(unsigned lanes, unsigned rows, unsigned packs)
      : row(threadIdx.x / lanes),
        pack(blockIdx.y * lanes + threadIdx.x % lanes),
        works(row < rows && pack < packs) {}
};

/// The shared memory of a block that sums.
template <int pack>
struct SumSpace {
  // 16 more, so that the half warps that read different rows of it find them in different banks.
  float values[2 * pack][channel_threads + 16];
  float totals[channel_threads];
  double parts[channel_threads][pack > 1 ? 4 : 2];
};

/// Adds up `a` and `b` of all threads with the same pack, of at most sum_lanes in a block,
/// and writes them to the partials of this block: partials[(block * channels + channel) * 2 +
/// which]. Those of threads without work are 0.
template <int pack>
__device__ void write_channel_partials(unsigned lanes, unsigned rows, unsigned packs,
                                       const float (&a)[pack], const float (&b)[pack],
                                       SumSpace<pack>& space, float* partials) {
  // A group of threads for each component of a pack, with as many threads for each lane as there is
  // room: two rounds for any number of lanes.
  constexpr unsigned group = channel_threads / (2 * pack);
  static_assert(sum_lanes<pack> <= group);
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    space.values[2 * k][threadIdx.x] = a[k];
    space.values[2 * k + 1][threadIdx.x] = b[k];
  }
  __syncthreads();
  const unsigned sharers = group / lanes;
  const unsigned in_group = threadIdx.x % group;
  float sum = 0;
  if (in_group < sharers * lanes) {
    const float* values = space.values[threadIdx.x / group];
    for (unsigned i = in_group; i < rows * lanes; i += sharers * lanes) sum += values[i];
  }
  space.totals[threadIdx.x] = sum;
  __syncthreads();
  const unsigned component = threadIdx.x % (2 * pack);
  const unsigned lane = threadIdx.x / (2 * pack);
  const unsigned at = blockIdx.y * lanes + lane;
  if (lane >= lanes || at >= packs) return;
  float total = 0;
  for (unsigned i = 0; i < sharers; ++i)
    total += space.totals[component * group + i * lanes + lane];
  partials[(std::int64_t{blockIdx.x} * packs + at) * (2 * pack) + component] = total;
}

/// In the last block: the sums of the partials of all blocks, channel by channel, handed to
/// finish(channel, sum of a, sum of b) in one thread each. A thread reads 16 bytes of partials at a
/// time where it can, and as many threads share a column of them as there are. Reads pass by the
/// first cache, which may have older values.
template <int pack, class Finish>
__device__ void finish_channels(unsigned packs, unsigned blocks, const float* partials,
                                SumSpace<pack>& space, const Finish& finish) {
  constexpr unsigned together = pack > 1 ? 2 : 1;  // channels of a thread
  constexpr unsigned most_sharers = 32;            // whose sums one thread adds up
  const std::int64_t channels = std::int64_t{packs} * pack;
  const auto columns = static_cast<unsigned>(channels / together);
  for (unsigned first = 0; first < columns; first += channel_threads) {
    const unsigned left = columns - first;
    const unsigned width = left < channel_threads ? left : channel_threads;
    const unsigned room = channel_threads / width;
    const unsigned sharers = room < most_sharers ? room : most_sharers;
    const unsigned sharer = threadIdx.x / width;
    const unsigned column = threadIdx.x % width;
    const std::int64_t channel = std::int64_t{first + column} * together;
    if (sharer < sharers) {
      double sums[2 * together] = {};
#pragma unroll 8
      for (unsigned block = sharer; block < blocks; block += sharers) {
        const float* from = partials + (block * channels + channel) * 2;
        if constexpr (together == 2) {
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
      for (unsigned k = 0; k < 2 * together; ++k) space.parts[threadIdx.x][k] = sums[k];
    }
    __syncthreads();
    if (sharer == 0) {
      double sums[2 * together] = {};
      for (unsigned i = 0; i < sharers; ++i) {
#pragma unroll
        for (unsigned k = 0; k < 2 * together; ++k) sums[k] += space.parts[i * width + column][k];
      }
#pragma unroll
      for (unsigned k = 0; k < together; ++k) finish(channel + k, sums[2 * k], sums[2 * k + 1]);
    }
    __syncthreads();  // before `parts` is written again
  }
}

}  // namespace preheat::kernels
