// What the kernels for convolutions in fp32 share: images cut into strips, and sums over slices of
// a block.
//
// A strip is 7 or 8 pixels beside each other in a row: 28, 14 and 7 columns are whole strips of 7,
// powers of two from 8 on whole ones of 8. It comes into shared memory as a segment, with its
// neighbours to the left and the right, zeros where those are outside of the image. Rows of zeros
// lie above and below each image, so what strips see is contiguous in the order of the segments,
// across rows and images, and no tile is left half empty by an image's height.
#pragma once

#include <algorithm>

#include "device.cuh"

namespace preheat::kernels {

inline constexpr int taps = 3;  // in a row and in a column of a filter
inline constexpr int quad = 4;  // channels that are moved together
inline constexpr int max_channels = 256;
// Of a block, static memory included, of which these kernels have none; from 8.0 on.
inline constexpr std::size_t shared_limit = 99 << 10;
inline constexpr int target_blocks = 2 * tuned_multiprocessors;

/// Images cut into strips, which are counted row by row. Their segments are counted with a row of
/// zeros above each image and one below the last.
template <int pixels>
struct Strips {
  static constexpr int columns = pixels + 2;  // that a strip sees

  int height;
  int width;
  int across;  // strips in a row
  int count;

  explicit Strips(const Images& x)
      : height(x.height),
        width(x.width),
        across(ceil_div(x.width, pixels)),
        count(static_cast<int>(x.batch) * x.height * across) {}

  /// The segment around a strip; those above and below it are `across` away.
  __device__ int segment_of(int strip) const {
    return strip + (strip / across / height + 1) * across;
  }

  /// The pixel in a column of a segment, or -1 where there is none. Column 0 is the strip's left
  /// neighbour.
  __device__ int pixel_in(int segment, int column) const {
    const int row = segment / across;
    const int above = row / (height + 1) + 1;  // rows of zeros
    const int x = segment % across * pixels + column - 1;
    const bool outside = row % (height + 1) == 0 || column >= columns || x < 0 || x >= width;
    return outside ? -1 : (row - above) * width + x;
  }

  /// Segments that some consecutive strips see, at most.
  int segments(int strips) const {
    const int rows = ceil_div(strips - 1, across) + 1;
    return strips + across * (2 + ceil_div(rows - 1, height));
  }
};

/// The sums of the first slice become those of all slices. They go through `exchange`, which holds
/// those of half the slices.
template <int count>
__device__ void add_slices(float (&sums)[count], float* exchange, int slices, int slice,
                           int slice_thread, int slice_threads) {
  for (int half = slices / 2; half > 0; half /= 2) {
    float* at = exchange + slice % half * slice_threads + slice_thread;
    __syncthreads();  // what was here has been read
    if (slice >= half && slice < 2 * half) {
#pragma unroll
      for (int i = 0; i < count; ++i) at[i * half * slice_threads] = sums[i];
    }
    __syncthreads();
    if (slice < half) {
#pragma unroll
      for (int i = 0; i < count; ++i) sums[i] += at[i * half * slice_threads];
    }
  }
}

/// Whether channels are whole groups, and pixels and elements can be counted in 32 bits.
inline bool can_be_cut(const Images& x, int out) {
  const auto fits = [](int channels) {
    return channels > 0 && channels % 16 == 0 && channels <= max_channels;
  };
  return fits(x.channels) && fits(out) && x.batch > 0 && x.height > 0 && x.width > 0 &&
         x.rows() < (std::int64_t{1} << 31) / std::max(x.channels, out);
}

/// Calls work.template operator()<pixels>() with the strips that leave less of a row empty.
template <class Work>
auto with_strips(const Images& x, Work&& work) {
  const auto covered = [&](int pixels) { return ceil_div(x.width, pixels) * pixels; };
  return covered(7) < covered(8) ? work.template operator()<7>() : work.template operator()<8>();
}

/// Lets blocks of a kernel have as much shared memory as any shape asks for. Not what a launch
/// needs: it is a property of the kernel, and a smaller launch would take it from a larger one that
/// waits in a graph.
template <class Kernel>
cudaError_t allow_shared_memory(Kernel kernel) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_limit));
}

}  // namespace preheat::kernels
