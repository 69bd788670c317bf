// Batch norm, bias, residual, activation and pooling between two convolutions. All of it is bound
// by memory, so each pass reads and writes every tensor once and computes again what it would have
// to read: the sign of z and the place of a maximum come out of x in backward as they did in
// forward. With E elements of x, forward moves 2 E (1.25 E pooled), the moments E; backward's sums
// 2 E (1.25 E) and its second pass 3 E (2.25 E).
#include <cooperative_groups.h>

#include <cfloat>

#include "channel_sums.cuh"

namespace preheat::kernels {
namespace {

// Blocks of the passes that sum nothing: four on each multiprocessor of an H100.
constexpr unsigned most_blocks = 528;
constexpr int rows_per_thread = 4;

// A pack of per-channel floats; every tensor of the arena and every array of moments begins on 256
// bytes.
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

// z = (x - mean) * scale + shift, x - mean apart as a mean far from 0 would cancel otherwise.
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
      inv_std[k] = 0;
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
      for (int k = 0; k < pack; ++k) inv_std[k] = 1.0f / sqrtf(inv_std[k] + norm.epsilon);
    }
#pragma unroll
    for (int k = 0; k < pack; ++k) scale[k] *= inv_std[k];
  }

  __device__ float z(int k, float x) const {
    return fmaf(x - mean[k], scale[k], shift[k]);
  }
  __device__ float xhat(int k, float x) const {
    return (x - mean[k]) * inv_std[k];
  }
};

__device__ float activation(float z, float slope) {
  return z > 0 ? z : slope * z;
}

// A window of the pooling: the rows of x at its four corners, and of the pooled matrix.
struct Window {
  std::int64_t row[4];
  std::int64_t pooled_row = 0;
  bool exists[4];  // a last odd row or column has half a window, which is not pooled
  bool whole = false;

  // `index` counts (height + 1) / 2 x (width + 1) / 2 windows of each image, or only the whole
  // ones.
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

__host__ __device__ std::int64_t windows(const Images& shape, bool only_whole) {
  const int more = only_whole ? 0 : 1;
  return shape.batch * ((shape.height + more) / 2) * ((shape.width + more) / 2);
}

// The maximum of the activations of a window, with its z, its x and its place.
template <int pack>
struct Maximum {
  float y[pack];
  float z[pack];
  float x[pack];
  int at[pack];

  __device__ void take(const Channels<pack>& channels, float slope, int place,
                       const float (&values)[pack]) {
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      const float new_z = channels.z(k, values[k]);
      const float new_y = activation(new_z, slope);
      if (place > 0 && !(new_y > y[k]) && new_y == new_y) continue;
      y[k] = new_y;
      z[k] = new_z;
      x[k] = values[k];
      at[k] = place;
    }
  }
};

template <class T, int pack>
__device__ Maximum<pack> maximum_of(const Channels<pack>& channels, float slope,
                                    const Pack<T, pack> (&raw)[4]) {
  Maximum<pack> maximum;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float values[pack];
    unpack(raw[i], values);
    maximum.take(channels, slope, i, values);
  }
  return maximum;
}

// How the threads of a grid share the rows or windows: as ChannelGrid says.
struct Walk {
  unsigned lanes;
  unsigned rows;  // of a block
  unsigned packs;
  std::int64_t count;  // of rows, or windows
};

// What batch norm keeps of a batch.
struct Moments {
  float* mean;
  float* inv_std;
  float* running_mean;  // null: none are kept
  float* running_var;
  const StepState* state;
  float epsilon;
  float momentum;
};

// Adds up the values and their squares, less the channel's first value.
template <class T, int pack>
__device__ void add_moments(const Walk& walk, const ChannelThread& at, const T* x,
                            float (&sum)[pack], float (&square)[pack]) {
  float first[pack];
  load<T, pack>(x, at.pack, first);
  const std::int64_t stride = std::int64_t{gridDim.x} * walk.rows;
  std::int64_t row = std::int64_t{blockIdx.x} * walk.rows + at.row;
  const auto add = [&](const float(&values)[pack]) {
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      const float d = values[k] - first[k];
      sum[k] += d;
      square[k] = fmaf(d, d, square[k]);
    }
  };
  constexpr int at_once = 4;
  for (; row + (at_once - 1) * stride < walk.count; row += at_once * stride) {
    Pack<T, pack> raw[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[(row + i * stride) * walk.packs + at.pack];
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      float values[pack];
      unpack(raw[i], values);
      add(values);
    }
  }
  for (; row < walk.count; row += stride) {
    float values[pack];
    load<T, pack>(x, row * walk.packs + at.pack, values);
    add(values);
  }
}

struct MeanAndInvStd {
  float mean;
  float inv_std;
};

// Of channel c, from the sums over `rows` rows; with `keeps` into the arrays of the batch and,
// where they move, the running statistics.
template <class T>
__device__ MeanAndInvStd finish_moments(const Moments& moments, bool keeps, std::int64_t rows,
                                        const T* x, unsigned c, double sum, double square) {
  const auto n = static_cast<double>(rows);
  const double shifted = sum / n;
  const double mean = double{to_float(x[c])} + shifted;
  double var = square / n - shifted * shifted;
  if (var < 0) var = 0;  // not max(0, ..), which would turn a NaN into 0
  const MeanAndInvStd result{static_cast<float>(mean),
                             static_cast<float>(1 / sqrt(var + double{moments.epsilon}))};
  if (!keeps) return result;
  moments.mean[c] = result.mean;
  moments.inv_std[c] = result.inv_std;
  if (moments.running_mean == nullptr) return result;
  if (moments.state != nullptr && !updates(*moments.state)) return result;
  // Kept finite, as the running value could never come back from infinity.
  const double unbiased = rows > 1 ? var * n / (n - 1) : var;
  const double kept = unbiased > double{FLT_MAX} ? double{FLT_MAX} : unbiased;
  moments.running_mean[c] += moments.momentum * (result.mean - moments.running_mean[c]);
  moments.running_var[c] += moments.momentum * (static_cast<float>(kept) - moments.running_var[c]);
  return result;
}

template <class T, int pack, bool pooled>
__device__ void forward_phase(const Walk& walk, const ChannelThread& at, const Images& shape,
                              float slope, const Channels<pack>& channels, const T* x,
                              const T* residual, T* y) {
  if constexpr (pooled) {
    const auto count = static_cast<std::uint32_t>(walk.count);
    const std::uint32_t stride = gridDim.x * walk.rows;
    for (std::uint32_t index = blockIdx.x * walk.rows + at.row; index < count; index += stride) {
      const Window window(shape, index, true);
      Pack<T, pack> raw[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[window.row[i] * walk.packs + at.pack];
      }
      const Maximum<pack> maximum = maximum_of<T, pack>(channels, slope, raw);
      store<T, pack>(y, window.pooled_row * walk.packs + at.pack, maximum.y);
    }
  } else {
    const std::int64_t stride = std::int64_t{gridDim.x} * walk.rows;
#pragma unroll 4
    for (std::int64_t row = std::int64_t{blockIdx.x} * walk.rows + at.row; row < walk.count;
         row += stride) {
      const std::int64_t i = row * walk.packs + at.pack;
      float values[pack];
      load<T, pack>(x, i, values);
      float added[pack] = {};
      if (residual != nullptr) load<T, pack>(residual, i, added);
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        values[k] = activation(channels.z(k, values[k]) + added[k], slope);
      }
      store<T, pack>(y, i, values);
    }
  }
}

// What a pass of backward has to read. x: for the sign of z, or for xhat.
struct Reads {
  bool x = false;
  bool y = false;
  bool sign = false;  // of z at all
};

template <class T>
struct Gradients {
  const T* x;
  const T* y;
  const T* dy;
  const T* extra;
  T* dz;
};

template <class T, int pack>
__device__ void load_gradient(const T* dy, const T* extra, std::int64_t i, float (&d)[pack]) {
  load<T, pack>(dy, i, d);
  if (extra == nullptr) return;
  float more[pack];
  load<T, pack>(extra, i, more);
#pragma unroll
  for (int k = 0; k < pack; ++k) d[k] += more[k];
}

template <class T, int pack, bool pooled>
__device__ void sums_phase(const Walk& walk, const ChannelThread& at, const Images& shape,
                           const Reads& reads, float slope, const Channels<pack>& channels,
                           const Gradients<T>& g, float (&sum)[pack], float (&product)[pack]) {
  if constexpr (pooled) {
    // Windows that are cut off have no gradient; only where it is written out are they visited.
    const bool only_whole = g.dz == nullptr;
    const auto count = static_cast<std::uint32_t>(windows(shape, only_whole));
    const std::uint32_t stride = gridDim.x * walk.rows;
    for (std::uint32_t index = blockIdx.x * walk.rows + at.row; index < count; index += stride) {
      const Window window(shape, index, only_whole);
      float d[pack] = {};
      Maximum<pack> maximum;
      if (window.whole) {
        Pack<T, pack> raw[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          raw[i] =
              reinterpret_cast<const Pack<T, pack>*>(g.x)[window.row[i] * walk.packs + at.pack];
        }
        load_gradient<T, pack>(g.dy, g.extra, window.pooled_row * walk.packs + at.pack, d);
        maximum = maximum_of<T, pack>(channels, slope, raw);
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          d[k] = maximum.z[k] > 0 ? d[k] : slope * d[k];
          sum[k] += d[k];
          product[k] = fmaf(d[k], channels.xhat(k, maximum.x[k]), product[k]);
        }
      }
      if (g.dz == nullptr) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!window.exists[i]) continue;
        float values[pack] = {};
        if (window.whole) {
#pragma unroll
          for (int k = 0; k < pack; ++k) values[k] = maximum.at[k] == i ? d[k] : 0.0f;
        }
        store<T, pack>(g.dz, window.row[i] * walk.packs + at.pack, values);
      }
    }
  } else {
    const std::int64_t stride = std::int64_t{gridDim.x} * walk.rows;
#pragma unroll 2
    for (std::int64_t row = std::int64_t{blockIdx.x} * walk.rows + at.row; row < walk.count;
         row += stride) {
      const std::int64_t i = row * walk.packs + at.pack;
      float values[pack] = {};
      float signs[pack] = {};
      float d[pack];
      if (reads.x) load<T, pack>(g.x, i, values);
      if (reads.y) load<T, pack>(g.y, i, signs);
      load_gradient<T, pack>(g.dy, g.extra, i, d);
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        if (reads.sign) {
          const float z = reads.y ? signs[k] : channels.z(k, values[k]);
          d[k] = z > 0 ? d[k] : slope * d[k];
        }
        sum[k] += d[k];
        product[k] = fmaf(d[k], channels.xhat(k, values[k]), product[k]);
      }
      if (g.dz != nullptr) store<T, pack>(g.dz, i, d);
    }
  }
}

// dx of one element, from dz and what all of a channel's elements share.
template <int pack>
struct Second {
  float d_bias[pack];    // over n
  float d_weight[pack];  // over n
  bool fixed;

  __device__ Second(unsigned at, bool is_fixed, float inv_rows, const float* bias,
                    const float* weight)
      : fixed(is_fixed) {
    if (fixed) return;
    load_channels<pack>(bias, at, d_bias);
    load_channels<pack>(weight, at, d_weight);
#pragma unroll
    for (int k = 0; k < pack; ++k) {
      d_bias[k] *= inv_rows;
      d_weight[k] *= inv_rows;
    }
  }
  __device__ float dx(const Channels<pack>& channels, int k, float x, float dz) const {
    if (fixed) return channels.scale[k] * dz;
    return channels.scale[k] * (dz - fmaf(channels.xhat(k, x), d_weight[k], d_bias[k]));
  }
};

template <class T, int pack, bool pooled>
__device__ void backward_phase(const Walk& walk, const ChannelThread& at, const Images& shape,
                               float slope, const Channels<pack>& channels,
                               const Second<pack>& second, const T* x, const T* dy, const T* extra,
                               T* dx) {
  if constexpr (pooled) {
    const auto count = static_cast<std::uint32_t>(windows(shape, false));
    const std::uint32_t stride = gridDim.x * walk.rows;
    for (std::uint32_t index = blockIdx.x * walk.rows + at.row; index < count; index += stride) {
      const Window window(shape, index, false);
      Pack<T, pack> raw[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (window.exists[i]) {
          raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[window.row[i] * walk.packs + at.pack];
        }
      }
      float d[pack] = {};
      Maximum<pack> maximum;
      if (window.whole) {
        load_gradient<T, pack>(dy, extra, window.pooled_row * walk.packs + at.pack, d);
        maximum = maximum_of<T, pack>(channels, slope, raw);
#pragma unroll
        for (int k = 0; k < pack; ++k) d[k] = maximum.z[k] > 0 ? d[k] : slope * d[k];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!window.exists[i]) continue;
        float values[pack];
        unpack(raw[i], values);
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          const float dz = window.whole && maximum.at[k] == i ? d[k] : 0.0f;
          values[k] = second.dx(channels, k, values[k], dz);
        }
        store<T, pack>(dx, window.row[i] * walk.packs + at.pack, values);
      }
    }
  } else {
    const std::int64_t stride = std::int64_t{gridDim.x} * walk.rows;
#pragma unroll 2
    for (std::int64_t row = std::int64_t{blockIdx.x} * walk.rows + at.row; row < walk.count;
         row += stride) {
      const std::int64_t i = row * walk.packs + at.pack;
      float values[pack];
      float d[pack];
      load<T, pack>(x, i, values);
      load_gradient<T, pack>(dy, extra, i, d);
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        if (slope != 1) d[k] = channels.z(k, values[k]) > 0 ? d[k] : slope * d[k];
        d[k] = second.dx(channels, k, values[k], d[k]);
      }
      store<T, pack>(dx, i, d);
    }
  }
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    moments_kernel(const Walk walk, const Moments moments, const T* x, float* partials,
                   unsigned* counter) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(walk.lanes, walk.rows, walk.packs);
  float sum[pack] = {};
  float square[pack] = {};
  if (at.works) add_moments<T, pack>(walk, at, x, sum, square);
  write_channel_partials<pack>(at, walk.lanes, walk.rows, walk.packs, sum, square, shared,
                               partials);
  if (!is_last_block(counter, gridDim.x * gridDim.y)) return;
  finish_channels(walk.packs * pack, gridDim.x, partials, [&](unsigned c, double a, double b) {
    finish_moments(moments, true, walk.count, x, c, a, b);
  });
}

template <class T, int pack, bool pooled>
__global__ void __launch_bounds__(channel_threads)
    forward_kernel(const Walk walk, const Images shape, float slope, const Norm norm, const T* x,
                   const T* residual, T* y) {
  const ChannelThread at(walk.lanes, walk.rows, walk.packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  forward_phase<T, pack, pooled>(walk, at, shape, slope, channels, x, residual, y);
}

template <class T, int pack, bool pooled>
__global__ void __launch_bounds__(channel_threads)
    sums_kernel(const Walk walk, const Images shape, const Reads reads, float slope,
                const Norm norm, const Gradients<T> g, float* d_weight, float* d_bias,
                float* partials, unsigned* counter) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(walk.lanes, walk.rows, walk.packs);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    const Channels<pack> channels(norm, at.pack);
    sums_phase<T, pack, pooled>(walk, at, shape, reads, slope, channels, g, sum, product);
  }
  if (d_bias == nullptr) return;
  write_channel_partials<pack>(at, walk.lanes, walk.rows, walk.packs, sum, product, shared,
                               partials);
  if (!is_last_block(counter, gridDim.x * gridDim.y)) return;
  finish_channels(walk.packs * pack, gridDim.x, partials, [&](unsigned c, double a, double b) {
    d_bias[c] = static_cast<float>(a);
    if (d_weight != nullptr) d_weight[c] = static_cast<float>(b);
  });
}

template <class T, int pack, bool pooled>
__global__ void __launch_bounds__(channel_threads)
    backward_kernel(const Walk walk, const Images shape, float slope, const Norm norm, bool fixed,
                    float inv_rows, const T* x, const T* dy, const T* extra, const float* d_weight,
                    const float* d_bias, T* dx) {
  const ChannelThread at(walk.lanes, walk.rows, walk.packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const Second<pack> second(at.pack, fixed, inv_rows, d_bias, d_weight);
  backward_phase<T, pack, pooled>(walk, at, shape, slope, channels, second, x, dy, extra, dx);
}

// Both passes of a batch norm in one launch: all blocks run at the same time and wait for each
// other in between. What has been read once comes out of the cache the second time, and every block
// adds up the partials for itself, which is faster than one doing it for all and the next launch
// waiting.
template <class T, int pack, bool pooled>
__global__ void __launch_bounds__(channel_threads)
    fused_forward_kernel(const Walk rows, const Walk outputs, const Images shape, float slope,
                         const Norm norm, const Moments moments, const T* x, const T* residual,
                         T* y, float* partials) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(rows.lanes, rows.rows, rows.packs);
  float sum[pack] = {};
  float square[pack] = {};
  if (at.works) add_moments<T, pack>(rows, at, x, sum, square);
  write_channel_partials<pack>(at, rows.lanes, rows.rows, rows.packs, sum, square, shared,
                               partials);
  cooperative_groups::this_grid().sync();
  float* const mean = shared;
  float* const inv_std = shared + pack * channel_threads;
  finish_channels(rows.packs * pack, gridDim.x, partials, [&](unsigned c, double a, double b) {
    const MeanAndInvStd m = finish_moments(moments, blockIdx.x == 0, rows.count, x, c, a, b);
    mean[c] = m.mean;
    inv_std[c] = m.inv_std;
  });
  __syncthreads();
  if (!at.works) return;
  Norm here = norm;
  here.mean = mean;
  here.inv_std = inv_std;
  const Channels<pack> channels(here, at.pack);
  forward_phase<T, pack, pooled>(outputs, at, shape, slope, channels, x, residual, y);
}

template <class T, int pack, bool pooled>
__global__ void __launch_bounds__(channel_threads)
    fused_backward_kernel(const Walk walk, const Images shape, const Reads reads, float slope,
                          const Norm norm, bool fixed, float inv_rows, const Gradients<T> g,
                          float* d_weight, float* d_bias, T* dx, float* partials) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(walk.lanes, walk.rows, walk.packs);
  const Channels<pack> channels(norm, at.works ? at.pack : 0);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    sums_phase<T, pack, pooled>(walk, at, shape, reads, slope, channels, g, sum, product);
  }
  write_channel_partials<pack>(at, walk.lanes, walk.rows, walk.packs, sum, product, shared,
                               partials);
  cooperative_groups::this_grid().sync();
  float* const bias_sums = shared;
  float* const weight_sums = shared + pack * channel_threads;
  finish_channels(walk.packs * pack, gridDim.x, partials, [&](unsigned c, double a, double b) {
    bias_sums[c] = static_cast<float>(a);
    weight_sums[c] = static_cast<float>(b);
    if (blockIdx.x != 0) return;
    d_bias[c] = bias_sums[c];
    d_weight[c] = weight_sums[c];
  });
  __syncthreads();
  if (!at.works) return;
  const Second<pack> second(at.pack, fixed, inv_rows, bias_sums, weight_sums);
  // Each thread meets the elements that it wrote dz of.
  const bool known = g.dz != nullptr;
  backward_phase<T, pack, pooled>(walk, at, shape, known ? 1.0f : slope, channels, second, g.x,
                                  known ? g.dz : g.dy, known ? nullptr : g.extra, dx);
}

bool is_valid(const Images& shape) {
  return shape.batch > 0 && shape.height > 0 && shape.width > 0 && shape.channels > 0;
}

struct Grid {
  Walk walk;
  dim3 blocks;
};

Grid grid_of(std::int64_t count, const Images& shape, int pack, int per_thread,
             unsigned most_blocks_below) {
  const ChannelGrid g = channel_grid(count, shape.channels, pack, per_thread, most_blocks_below);
  return {{g.lanes, g.rows, static_cast<unsigned>(shape.channels / pack), count}, g.grid()};
}

Reads reads_of(const Around& around, const Norm& norm) {
  Reads reads;
  reads.sign = around.slope != 1;
  reads.y = reads.sign && around.residual;
  reads.x = norm.weight != nullptr || (reads.sign && !reads.y);
  return reads;
}

template <class Work>
cudaError_t with_pooling(bool pooled, Work&& work) {
  return pooled ? work.template operator()<true>() : work.template operator()<false>();
}

// Where all of it stays in the cache between the passes of one launch. A larger one is read at the
// memory's rate anyway, and faster by more blocks.
bool is_small(Element element, const Images& shape) {
  constexpr std::int64_t most_bytes = std::int64_t{16} << 20;
  return shape.size() * static_cast<std::int64_t>(bytes_of(element)) <= most_bytes;
}

// Blocks of a kernel that the current device runs at the same time, at most as many as there are
// partials; 0 where they cannot wait for each other. Asked once: programs here use one device.
template <class Kernel>
unsigned blocks_together(Kernel kernel) {
  static const unsigned blocks = [&] {
    int device = 0;
    int cooperates = 0;
    int multiprocessors = 0;
    int on_each = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&cooperates, cudaDevAttrCooperativeLaunch, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) !=
            cudaSuccess ||
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&on_each, kernel, channel_threads, 0) !=
            cudaSuccess ||
        cooperates == 0) {
      return 0u;
    }
    const auto all = static_cast<unsigned>(multiprocessors * (on_each > 0 ? 1 : 0));
    return all < most_row_blocks ? all : most_row_blocks;
  }();
  return blocks;
}

template <class Kernel>
cudaError_t launch_together(Kernel kernel, dim3 blocks, void** arguments, cudaStream_t stream) {
  return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), blocks,
                                     dim3(channel_threads), arguments, 0, stream);
}

// Windows are counted in 32 bits.
bool can_pool(const Images& shape) {
  return shape.height > 1 && shape.width > 1 && windows(shape, false) < (std::int64_t{1} << 31);
}

}  // namespace

std::size_t channel_sums_floats(std::int32_t channels) {
  return std::size_t{2} * most_row_blocks * static_cast<std::size_t>(channels);
}

cudaError_t batch_moments(Element element, const Images& shape, const void* x, float epsilon,
                          float momentum, const StepState* state, float* mean, float* inv_std,
                          float* running_mean, float* running_var, const SumScratch& scratch,
                          cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  const Moments moments{mean, inv_std, running_mean, running_var, state, epsilon, momentum};
  return with_pack(element, shape.channels, {x}, [&]<class T, int pack>() {
    const Grid g = grid_of(shape.rows(), shape, pack, rows_per_thread, most_row_blocks);
    moments_kernel<T, pack><<<g.blocks, channel_threads, 0, stream>>>(
        g.walk, moments, static_cast<const T*>(x), scratch.partials, scratch.counter);
    return cudaGetLastError();
  });
}

cudaError_t normalize_forward(Element element, const Images& shape, const Around& around,
                              const Norm& norm, const void* x, const void* residual, void* y,
                              cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || residual != nullptr)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {x, residual, y}, [&]<class T, int pack>() {
    return with_pooling(around.pooled, [&]<bool pooled>() {
      const std::int64_t count = pooled ? windows(shape, true) : shape.rows();
      const Grid g = grid_of(count, shape, pack, pooled ? 1 : rows_per_thread, most_blocks);
      forward_kernel<T, pack, pooled><<<g.blocks, channel_threads, 0, stream>>>(
          g.walk, shape, around.slope, norm, static_cast<const T*>(x),
          static_cast<const T*>(residual), static_cast<T*>(y));
      return cudaGetLastError();
    });
  });
}

cudaError_t normalize_backward_sums(Element element, const Images& shape, const Around& around,
                                    const Norm& norm, const void* x, const void* y, const void* dy,
                                    const void* extra, void* dz, float* d_weight, float* d_bias,
                                    const SumScratch& scratch, cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || around.residual)) return cudaErrorInvalidValue;
  const Reads reads = reads_of(around, norm);
  if ((reads.y && y == nullptr) || ((reads.x || around.pooled) && x == nullptr)) {
    return cudaErrorInvalidValue;
  }
  return with_pack(element, shape.channels, {x, y, dy, extra, dz}, [&]<class T, int pack>() {
    return with_pooling(around.pooled, [&]<bool pooled>() {
      const std::int64_t count = pooled ? windows(shape, dz == nullptr) : shape.rows();
      const Grid g = grid_of(count, shape, pack, pooled ? 2 : rows_per_thread, most_row_blocks);
      const Gradients<T> gradients{static_cast<const T*>(x), static_cast<const T*>(y),
                                   static_cast<const T*>(dy), static_cast<const T*>(extra),
                                   static_cast<T*>(dz)};
      sums_kernel<T, pack, pooled><<<g.blocks, channel_threads, 0, stream>>>(
          g.walk, shape, reads, around.slope, norm, gradients,
          norm.weight != nullptr ? d_weight : nullptr, d_bias, scratch.partials, scratch.counter);
      return cudaGetLastError();
    });
  });
}

cudaError_t normalize_backward(Element element, const Images& shape, const Around& around,
                               const Norm& norm, bool fixed, const void* x, const void* dy,
                               const void* extra, const float* d_weight, const float* d_bias,
                               void* dx, cudaStream_t stream) {
  if (!is_valid(shape) || norm.weight == nullptr) return cudaErrorInvalidValue;
  if (around.pooled && !can_pool(shape)) return cudaErrorInvalidValue;
  const float inv_rows = 1 / static_cast<float>(shape.rows());
  return with_pack(element, shape.channels, {x, dy, extra, dx}, [&]<class T, int pack>() {
    return with_pooling(around.pooled, [&]<bool pooled>() {
      const std::int64_t count = pooled ? windows(shape, false) : shape.rows();
      const Grid g = grid_of(count, shape, pack, pooled ? 1 : rows_per_thread, most_blocks);
      backward_kernel<T, pack, pooled><<<g.blocks, channel_threads, 0, stream>>>(
          g.walk, shape, around.slope, norm, fixed, inv_rows, static_cast<const T*>(x),
          static_cast<const T*>(dy), static_cast<const T*>(extra), d_weight, d_bias,
          static_cast<T*>(dx));
      return cudaGetLastError();
    });
  });
}

cudaError_t batch_norm_forward(Element element, const Images& shape, const Around& around,
                               const Norm& norm, float momentum, const StepState* state,
                               float* mean, float* inv_std, float* running_mean, float* running_var,
                               const void* x, const void* residual, void* y,
                               const SumScratch& scratch, cudaStream_t stream) {
  if (!is_valid(shape) || norm.weight == nullptr) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || residual != nullptr)) return cudaErrorInvalidValue;
  Moments moments{mean, inv_std, running_mean, running_var, state, norm.epsilon, momentum};
  cudaError_t status = cudaErrorNotSupported;
  if (is_small(element, shape)) {
    status = with_pack(element, shape.channels, {x, residual, y}, [&]<class T, int pack>() {
      return with_pooling(around.pooled, [&]<bool pooled>() {
        const unsigned most = blocks_together(fused_forward_kernel<T, pack, pooled>);
        Grid g = grid_of(shape.rows(), shape, pack, rows_per_thread, most);
        if (most == 0 || g.blocks.y > 1) return cudaErrorNotSupported;
        Walk outputs = g.walk;
        if (pooled) outputs.count = windows(shape, true);
        Images images = shape;
        float slope = around.slope;
        Norm n = norm;
        auto* typed_x = static_cast<const T*>(x);
        auto* typed_residual = static_cast<const T*>(residual);
        auto* typed_y = static_cast<T*>(y);
        float* partials = scratch.partials;
        void* arguments[] = {&g.walk,  &outputs, &images,         &slope,   &n,
                             &moments, &typed_x, &typed_residual, &typed_y, &partials};
        return launch_together(fused_forward_kernel<T, pack, pooled>, g.blocks, arguments, stream);
      });
    });
  }
  if (status != cudaErrorNotSupported) return status;
  status = batch_moments(element, shape, x, norm.epsilon, momentum, state, mean, inv_std,
                         running_mean, running_var, scratch, stream);
  if (status != cudaSuccess) return status;
  Norm of_batch = norm;
  of_batch.mean = mean;
  of_batch.inv_std = inv_std;
  return normalize_forward(element, shape, around, of_batch, x, residual, y, stream);
}

cudaError_t batch_norm_backward(Element element, const Images& shape, const Around& around,
                                const Norm& norm, bool fixed, const void* x, const void* y,
                                const void* dy, const void* extra, void* dz, float* d_weight,
                                float* d_bias, void* dx, const SumScratch& scratch,
                                cudaStream_t stream) {
  if (!is_valid(shape) || norm.weight == nullptr) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || around.residual)) return cudaErrorInvalidValue;
  cudaError_t status = cudaErrorNotSupported;
  if (is_small(element, shape) && !(around.pooled && dz != nullptr)) {
    status =
        with_pack(element, shape.channels, {x, y, dy, extra, dz, dx}, [&]<class T, int pack>() {
          return with_pooling(around.pooled, [&]<bool pooled>() {
            const unsigned most = blocks_together(fused_backward_kernel<T, pack, pooled>);
            const std::int64_t count = pooled ? windows(shape, false) : shape.rows();
            Grid g = grid_of(count, shape, pack, pooled ? 1 : rows_per_thread, most);
            if (most == 0 || g.blocks.y > 1) return cudaErrorNotSupported;
            Images images = shape;
            Reads reads = reads_of(around, norm);
            float slope = around.slope;
            Norm n = norm;
            bool is_fixed = fixed;
            float inv_rows = 1 / static_cast<float>(shape.rows());
            Gradients<T> gradients{static_cast<const T*>(x), static_cast<const T*>(y),
                                   static_cast<const T*>(dy), static_cast<const T*>(extra),
                                   static_cast<T*>(dz)};
            auto* typed_dx = static_cast<T*>(dx);
            float* partials = scratch.partials;
            void* arguments[] = {&g.walk,   &images,    &reads,    &slope,  &n,        &is_fixed,
                                 &inv_rows, &gradients, &d_weight, &d_bias, &typed_dx, &partials};
            return launch_together(fused_backward_kernel<T, pack, pooled>, g.blocks, arguments,
                                   stream);
          });
        });
  }
  if (status != cudaErrorNotSupported) return status;
  status = normalize_backward_sums(element, shape, around, norm, x, y, dy, extra, dz, d_weight,
                                   d_bias, scratch, stream);
  if (status != cudaSuccess) return status;
  const bool known = dz != nullptr && !around.pooled;
  return normalize_backward(element, shape, known ? Around{} : around, norm, fixed, x,
                            known ? dz : dy, known ? nullptr : extra, d_weight, d_bias, dx, stream);
}

}  // namespace preheat::kernels
