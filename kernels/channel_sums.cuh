// How sums over a batch are laid out: a thread keeps one pack of neighbouring channels, so that
// what belongs to a channel stays in its registers, and walks down the rows. A block adds up its
// threads and writes one partial per channel; the last block adds up the partials. Every order is
// fixed by the sizes.
#pragma once

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int channel_threads = 512;       // of a block
inline constexpr unsigned most_row_blocks = 264;  // two on each multiprocessor of an H100

/// Blocks of `lanes` x `rows` threads, the packs of channels side by side; what is left of the
/// block's channel_threads has no work.
struct ChannelGrid {
  unsigned lanes = 1;   // packs of one row that a block covers
  unsigned rows = 1;    // rows that a block covers at a time
  unsigned groups = 1;  // blocks side by side that cover a row: gridDim.y
  unsigned blocks = 1;  // blocks below each other: gridDim.x
  dim3 grid() const { return {blocks, groups}; }
};

/// `rows_per_thread` at least, where that leaves fewer than `most_blocks`.
inline ChannelGrid channel_grid(std::int64_t rows, std::int32_t channels, int pack,
                                int rows_per_thread, unsigned most_blocks) {
  ChannelGrid g;
  const auto packs = static_cast<unsigned>(channels / pack);
  g.lanes = packs < channel_threads ? packs : channel_threads;
  g.groups = (packs + g.lanes - 1) / g.lanes;
  g.rows = channel_threads / g.lanes;
  const std::int64_t per_block = std::int64_t{g.rows} * rows_per_thread;
  const std::int64_t wanted = (rows + per_block - 1) / per_block;
  g.blocks = wanted < most_blocks ? static_cast<unsigned>(wanted) : most_blocks;
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

/// Adds `a` and `b` of all threads with the same pack and writes them to the partials of this
/// block: partials[(2 * block + which) * channels + channel]. `shared` holds 2 * pack *
/// channel_threads floats. Those of threads without work are 0.
template <int pack>
__device__ void write_channel_partials(const ChannelThread& at, unsigned lanes, unsigned rows,
                                       unsigned packs, const float (&a)[pack],
                                       const float (&b)[pack], float* shared, float* partials) {
  const std::int64_t channels = std::int64_t{packs} * pack;
  float* const sums_of_block = partials + 2 * std::int64_t{blockIdx.x} * channels;
  // Component by component, so that neighbouring threads are in neighbouring banks.
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    shared[(2 * k) * channel_threads + threadIdx.x] = a[k];
    shared[(2 * k + 1) * channel_threads + threadIdx.x] = b[k];
  }
  // Each component is summed up by as many threads as there are for it, each over every so many
  // rows; with few lanes, a power of two, a thread meets one lane only.
  constexpr unsigned sharers = channel_threads / (2 * pack);
  if (lanes <= sharers && lanes <= 32 && (lanes & (lanes - 1)) == 0) {
    __syncthreads();
    const unsigned component = threadIdx.x / sharers;
    const unsigned sharer = threadIdx.x % sharers;
    constexpr unsigned rounds = 2 * pack;
    float sum = 0;
#pragma unroll
    for (unsigned i = 0; i < rounds; ++i) {
      // Begun elsewhere by each component: those of a warp are then in different banks.
      const unsigned place = sharer + sharers * ((i + component) % rounds);
      sum += shared[component * channel_threads + place];
    }
    // The sharers of one lane, a warp's at a time.
    constexpr unsigned group = sharers < 32 ? sharers : 32;
    for (unsigned offset = group / 2; offset >= lanes && offset > 0; offset /= 2) {
      sum += __shfl_down_sync(0xffffffffu, sum, offset, group);
    }
    const unsigned in_group = sharer % group;
    if constexpr (sharers > 32) {
      __syncthreads();
      if (in_group < lanes) shared[threadIdx.x] = sum;
      __syncthreads();
      if (sharer < lanes) {
        for (unsigned other = group; other < sharers; other += group) {
          sum += shared[threadIdx.x + other];
        }
      }
    }
    const unsigned owner = blockIdx.y * lanes + sharer;
    if (sharer < lanes && owner < packs) {
      sums_of_block[(component % 2) * channels + std::int64_t{owner} * pack + component / 2] = sum;
    }
    return;
  }
  // Else halves the rows until one is left; an odd one waits for the next round.
  for (unsigned left = rows; left > 1; left = (left + 1) / 2) {
    const unsigned upper = (left + 1) / 2;
    __syncthreads();
    if (at.row < left / 2) {
#pragma unroll
      for (int k = 0; k < 2 * pack; ++k) {
        float* sum = shared + k * channel_threads + threadIdx.x;
        *sum += sum[upper * lanes];
      }
    }
  }
  if (at.row != 0 || !at.works) return;  // these threads read what they wrote themselves
#pragma unroll
  for (int k = 0; k < pack; ++k) {
    const std::int64_t channel = std::int64_t{at.pack} * pack + k;
    sums_of_block[channel] = shared[(2 * k) * channel_threads + threadIdx.x];
    sums_of_block[channels + channel] = shared[(2 * k + 1) * channel_threads + threadIdx.x];
  }
}

/// In the last block: the sums of the partials of all blocks, channel by channel, handed to
/// finish(channel, sum of a, sum of b) in one thread each. Neighbouring threads share a channel.
template <class Finish>
__device__ void finish_channels(std::int32_t channels, unsigned blocks, const float* partials,
                                const Finish& finish) {
  unsigned sharers = 32;
  while (sharers > 4 && sharers * static_cast<unsigned>(channels) > channel_threads) sharers /= 2;
  const unsigned sharer = threadIdx.x % sharers;
  const unsigned first = threadIdx.x / sharers;
  const unsigned stride = channel_threads / sharers;
  // All threads of a warp stay in the loop together, as they exchange values in it.
  const unsigned rounds = (static_cast<unsigned>(channels) + stride - 1) / stride;
  for (unsigned round = 0; round < rounds; ++round) {
    const unsigned channel = round * stride + first;
    double a = 0;
    double b = 0;
    if (channel < static_cast<unsigned>(channels)) {
      // Several loads under way at a time: what counts here is how long one takes.
      constexpr unsigned at_once = 8;
      for (unsigned block = sharer; block < blocks; block += at_once * sharers) {
        float some_a[at_once];
        float some_b[at_once];
#pragma unroll
        for (unsigned i = 0; i < at_once; ++i) {
          const unsigned here = block + i * sharers;
          const float* const of_block = partials + 2 * std::int64_t{here} * channels + channel;
          some_a[i] = here < blocks ? __ldcg(of_block) : 0.0f;
          some_b[i] = here < blocks ? __ldcg(of_block + channels) : 0.0f;
        }
#pragma unroll
        for (unsigned i = 0; i < at_once; ++i) {
          a += double{some_a[i]};
          b += double{some_b[i]};
        }
      }
    }
    for (unsigned offset = sharers / 2; offset > 0; offset /= 2) {
      a += __shfl_down_sync(0xffffffffu, a, offset, sharers);
      b += __shfl_down_sync(0xffffffffu, b, offset, sharers);
    }
    if (sharer == 0 && channel < static_cast<unsigned>(channels)) finish(channel, a, b);
  }
}

}  // namespace preheat::kernels
