// The moments of a batch, from the sums over it; for a convolution also the sums, as it writes y.
#pragma once

#include <cfloat>

#include "channel_sums.cuh"

namespace preheat::kernels {

/// For the last block, after write_channel_partials of x - shift(channel) and of its square in all
/// of them: the moments of `rows` rows.
template <int pack, class Shift>
__device__ void finish_moments(const BatchMoments& moments, std::int64_t rows, unsigned packs,
                               SumSpace<pack>& space, const Shift& shift) {
  const bool moves =
      moments.running_mean != nullptr && (moments.state == nullptr || is_alive(*moments.state));
  finish_channels<pack>(
      packs, gridDim.x, moments.scratch.partials, space,
      [&](std::int64_t c, double sum, double squares) {
        const auto n = static_cast<double>(rows);
        const double shifted = sum / n;
        const double mean = double{shift(c)} + shifted;
        double var = squares / n - shifted * shifted;
        if (var < 0) var = 0;  // not max(0, ..), which would turn a NaN into 0
        moments.mean[c] = static_cast<float>(mean);
        moments.inv_std[c] = static_cast<float>(1 / sqrt(var + double{moments.epsilon}));
        if (!moves) return;
        // Kept finite, as the running value could never come back from infinity.
        const double unbiased = rows > 1 ? var * n / (n - 1) : var;
        const double kept = unbiased > double{FLT_MAX} ? double{FLT_MAX} : unbiased;
        float& running_mean = moments.running_mean[c];
        float& running_var = moments.running_var[c];
        running_mean += moments.momentum * (static_cast<float>(mean) - running_mean);
        running_var += moments.momentum * (static_cast<float>(kept) - running_var);
      });
}

/// The sums of what each thread of a convolution writes and of its square, in `pack` channels. In
/// shared memory, as the thread has no registers left; neighbouring threads' side by side.
template <int pack>
class WrittenSums {
 public:
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < vectors; ++i) values_[i][threadIdx.x] = float4{};
  }

  /// Adds elements of the thread's channels, as they were rounded for storing them.
  template <class T, int count>
  __device__ void add(const Pack<T, pack> (&written)[count]) {
    float sum[pack];
    float square[pack];
    get(sum, square);
#pragma unroll
    for (int i = 0; i < count; ++i) {
      float values[pack];
      unpack(written[i], values);
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        sum[k] += values[k];
        square[k] = fmaf(values[k], values[k], square[k]);
      }
    }
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      const float(&from)[pack] = i < vectors / 2 ? sum : square;
      const int k = i % (vectors / 2) * 4;
      values_[i][threadIdx.x] = float4{from[k], from[k + 1], from[k + 2], from[k + 3]};
    }
  }

  __device__ void get(float (&sum)[pack], float (&square)[pack]) const {
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      float(&to)[pack] = i < vectors / 2 ? sum : square;
      const int k = i % (vectors / 2) * 4;
      const float4 four = values_[i][threadIdx.x];
      to[k] = four.x;
      to[k + 1] = four.y;
      to[k + 2] = four.z;
      to[k + 3] = four.w;
    }
  }

 private:
  static_assert(pack % 4 == 0);
  static constexpr int vectors = 2 * pack / 4;
  float4 values_[vectors][channel_threads];
};

/// At the end of a convolution: the moments of its y, of `rows` rows, of which a block computes
/// `lanes` packs of `packs`. `thread` as for write_channel_partials. `space` may hold what is no
/// longer needed, `written` included.
template <int pack>
__device__ void finish_written(const BatchMoments& moments, std::int64_t rows, unsigned packs,
                               unsigned lanes, unsigned thread, const WrittenSums<pack>& written,
                               SumSpace<pack>& space) {
  float sum[pack];
  float square[pack];
  written.get(sum, square);
  __syncthreads();  // until `space` has been read
  static_assert(max_convolution_channels / pack <= channel_threads / (2 * pack));
  const ChannelGrid grid{.lanes = lanes, .rows = channel_threads / lanes, .packs = packs};
  write_channel_partials<pack>(grid, thread, sum, square, space, moments.scratch.partials);
  if (!is_last_block(moments.scratch.counter, gridDim.x * gridDim.y)) return;
  finish_moments<pack>(moments, rows, packs, space, [](std::int64_t) { return 0.0f; });
}

}  // namespace preheat::kernels
