// What batch_moments.cu, normalize_forward.cu and normalize_backward.cu share. Each of their passes
// reads and writes every tensor once and recomputes what it would otherwise have to read: backward
// derives the sign of z and the position of a maximum from x, as forward does.
#pragma once

#include "channel_sums.cuh"

namespace preheat::kernels {

inline constexpr int rows_per_thread = 4;

__device__ inline float inv_std_of(float var, float epsilon) {
  return 1.0f / sqrtf(var + epsilon);
}

/// A pack in its storage type: a thread issues all of these loads before it waits for any.
template <class T, int pack>
__device__ Pack<T, pack> read(const void* data, std::int64_t i) {
  return reinterpret_cast<const Pack<T, pack>*>(data)[i];
}

/// A pack of per-channel floats; every tensor of the arena and every array of moments is 256-byte
/// aligned.
template <int pack>
__device__ void load_channels(const float* data, unsigned at, float (&values)[pack]) {
  if constexpr (pack % 4 == 0) {
#pragma unroll
    for (int k = 0; k < pack; k += 4) {
      const float4 four = *reinterpret_cast<const float4*>(data + std::int64_t{at} * pack + k);
      values[k] = four.x;
      values[k + 1] = four.y;
      values[k + 2] = four.z;
      values[k + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int k = 0; k < pack; ++k) values[k] = data[std::int64_t{at} * pack + k];
  }
}

/// z = (x - mean) * scale + shift; x - mean is kept apart, as a mean far from 0 would cancel
/// otherwise. All passes compute z here, so that they agree on every sign and every maximum.
template <int pack>
struct Channels {
  float mean[pack];
  float inv_std[pack];
  float scale[pack];
  float shift[pack];

  __device__ Channels(const Norm& norm, unsigned at) {
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      mean[k] = 0;
      inv_std[k] = 1;
      scale[k] = 1;
      shift[k] = 0;
    }
    if (norm.bias != nullptr) load_channels<pack>(norm.bias, at, shift);
    if (norm.weight == nullptr) return;
    load_channels<pack>(norm.mean, at, mean);
    load_channels<pack>(norm.weight, at, scale);
    if (norm.inv_std != nullptr) {
      load_channels<pack>(norm.inv_std, at, inv_std);
    } else {
      load_channels<pack>(norm.var, at, inv_std);
#pragma unroll
      for (int k = 0; k < pack; ++k) inv_std[k] = inv_std_of(inv_std[k], norm.epsilon);
    }
#pragma unroll
    for (int k = 0; k < pack; ++k) scale[k] *= inv_std[k];
  }

  __device__ float centered(int k, float x) const {
    return x - mean[k];
  }
  __device__ float z(int k, float centered) const {
    return fmaf(centered, scale[k], shift[k]);
  }
};

__device__ inline float activation(float z, float slope) {
  return z > 0 ? z : slope * z;
}

/// The packs of a thread among `rows` rows: begin, begin + stride, ... below end.
struct PackRange {
  std::int64_t stride;
  std::int64_t end;
  std::int64_t begin;

  __device__ PackRange(const ChannelGrid& grid, const ChannelThread& at, std::int64_t rows)
      : stride(std::int64_t{gridDim.x} * grid.rows * grid.packs),
        end(rows * grid.packs),
        begin((std::int64_t{blockIdx.x} * grid.rows + at.row) * grid.packs + at.pack) {}
};

/// A pooling window: the rows of x at its four corners, and its row of the pooled matrix.
struct Window {
  std::int64_t row[4];
  std::int64_t pooled_row = 0;
  bool exists[4];  // an odd last row or column has half a window, which is not pooled
  bool whole = false;

  /// `index` counts (height + 1) / 2 x (width + 1) / 2 windows of each image, or only the whole
  /// ones.
  __device__ Window(const Images& shape, std::uint32_t index, bool only_whole) {
    const std::uint32_t more = only_whole ? 0 : 1;
    const std::uint32_t columns = (shape.width + more) / 2;
    const std::uint32_t rows = (shape.height + more) / 2;
    const std::uint32_t column = index % columns;
    const std::uint32_t above = index / columns;
    const std::uint32_t y = above % rows;
    const std::int64_t image = above / rows;
    const std::int64_t corner = (image * shape.height + 2 * y) * shape.width + 2 * column;
    const bool right = 2 * column + 1 < static_cast<std::uint32_t>(shape.width);
    const bool below = 2 * y + 1 < static_cast<std::uint32_t>(shape.height);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      row[i] = corner + i / 2 * shape.width + i % 2;
      exists[i] = (i % 2 == 0 || right) && (i / 2 == 0 || below);
    }
    whole = right && below;
    pooled_row = (image * (shape.height / 2) + y) * (shape.width / 2) + column;
  }
};

__host__ __device__ inline std::int64_t windows(const Images& shape, bool only_whole) {
  const int more = only_whole ? 0 : 1;
  return shape.batch * ((shape.height + more) / 2) * ((shape.width + more) / 2);
}

/// The maximum of a window's activations, in one channel of a pack.
struct Maximum {
  float y = 0;
  float centered = 0;
  int at = 0;
  bool positive = false;  // whether z > 0
};

template <class T, int pack>
__device__ Maximum maximum_of(const Channels<pack>& channels, float slope,
                              const Pack<T, pack> (&x)[4], int k) {
  Maximum maximum;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float centered = channels.centered(k, to_float(x[i].value[k]));
    const float z = channels.z(k, centered);
    const float y = activation(z, slope);
    if (i > 0 && !(y > maximum.y) && y == y) continue;
    maximum = {y, centered, i, z > 0};
  }
  return maximum;
}

inline bool is_valid(const Images& shape) {
  return shape.batch > 0 && shape.height > 0 && shape.width > 0 && shape.channels > 0;
}

/// Windows are counted in 32 bits.
inline bool can_pool(const Images& shape) {
  return shape.height > 1 && shape.width > 1 && windows(shape, false) < (std::int64_t{1} << 31);
}

}  // namespace preheat::kernels
