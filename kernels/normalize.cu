// Batch norm, bias, residual, activation and pooling between two convolutions. All of it is bound
// by memory, so each pass reads and writes every tensor once and computes again what it would have
// to read: the sign of z and the place of a maximum come out of x in backward as they did in
// forward. With E elements of x, forward moves 2 E (1.25 E pooled), the moments E; backward's sums
// 2 E (1.25 E) and its second pass 3 E (2.25 E).
#include <cfloat>

#include "channel_sums.cuh"

namespace preheat::kernels {
namespace {

// Blocks of the passes that sum nothing: eight on each multiprocessor of an H100.
constexpr unsigned most_blocks = 1056;
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
__global__ void __launch_bounds__(channel_threads)
    moments_kernel(unsigned lanes, unsigned block_rows, unsigned packs, std::int64_t rows,
                   const T* x, float epsilon, float momentum, const StepState* state, float* mean,
                   float* inv_std, float* running_mean, float* running_var, float* partials,
                   unsigned* counter) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(lanes, block_rows, packs);
  float sum[pack] = {};
  float square[pack] = {};
  if (at.works) {
    float first[pack];
    load<T, pack>(x, at.pack, first);
    const std::int64_t stride = std::int64_t{gridDim.x} * block_rows;
    std::int64_t row = std::int64_t{blockIdx.x} * block_rows + at.row;
    const auto add = [&](const float(&values)[pack]) {
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        const float d = values[k] - first[k];
        sum[k] += d;
        square[k] = fmaf(d, d, square[k]);
      }
    };
    constexpr int at_once = 4;
    for (; row + (at_once - 1) * stride < rows; row += at_once * stride) {
      Pack<T, pack> raw[at_once];
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[(row + i * stride) * packs + at.pack];
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        float values[pack];
        unpack(raw[i], values);
        add(values);
      }
    }
    for (; row < rows; row += stride) {
      float values[pack];
      load<T, pack>(x, row * packs + at.pack, values);
      add(values);
    }
  }
  const auto channels = static_cast<std::int32_t>(packs * pack);
  write_channel_partials<pack>(at, lanes, block_rows, packs, sum, square, shared, partials);
  if (!is_last_block(counter, gridDim.x * gridDim.y)) return;
  const bool moves = running_mean != nullptr && (state == nullptr || updates(*state));
  finish_channels(channels, gridDim.x, partials, [&](unsigned c, double a, double b) {
    const auto n = static_cast<double>(rows);
    const double shifted = a / n;
    const double m = double{to_float(x[c])} + shifted;
    double var = b / n - shifted * shifted;
    if (var < 0) var = 0;  // not max(0, ..), which would turn a NaN into 0
    mean[c] = static_cast<float>(m);
    inv_std[c] = static_cast<float>(1 / sqrt(var + double{epsilon}));
    if (!moves) return;
    // Kept finite, as the running value could never come back from infinity.
    const double unbiased = rows > 1 ? var * n / (n - 1) : var;
    const double kept = unbiased > double{FLT_MAX} ? double{FLT_MAX} : unbiased;
    running_mean[c] += momentum * (static_cast<float>(m) - running_mean[c]);
    running_var[c] += momentum * (static_cast<float>(kept) - running_var[c]);
  });
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    forward_kernel(unsigned lanes, unsigned block_rows, unsigned packs, std::int64_t rows,
                   float slope, const Norm norm, const T* x, const T* residual, T* y) {
  const ChannelThread at(lanes, block_rows, packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const std::int64_t stride = std::int64_t{gridDim.x} * block_rows;
#pragma unroll 4
  for (std::int64_t row = std::int64_t{blockIdx.x} * block_rows + at.row; row < rows;
       row += stride) {
    const std::int64_t i = row * packs + at.pack;
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

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    pooled_forward_kernel(unsigned lanes, unsigned block_rows, unsigned packs, const Images shape,
                          float slope, const Norm norm, const T* x, T* y) {
  const ChannelThread at(lanes, block_rows, packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const auto count = static_cast<std::uint32_t>(windows(shape, true));
  const std::uint32_t stride = gridDim.x * block_rows;
  for (std::uint32_t index = blockIdx.x * block_rows + at.row; index < count; index += stride) {
    const Window window(shape, index, true);
    Pack<T, pack> raw[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[window.row[i] * packs + at.pack];
    }
    Maximum<pack> maximum;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float values[pack];
      unpack(raw[i], values);
      maximum.take(channels, slope, i, values);
    }
    store<T, pack>(y, window.pooled_row * packs + at.pack, maximum.y);
  }
}

// What a pass of backward has to read. x: for the sign of z, or for xhat.
struct Reads {
  bool x = false;
  bool y = false;
  bool sign = false;  // of z at all
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

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    sums_kernel(unsigned lanes, unsigned block_rows, unsigned packs, std::int64_t rows, Reads reads,
                float slope, const Norm norm, const T* x, const T* y, const T* dy, const T* extra,
                T* dz, float* d_weight, float* d_bias, float* partials, unsigned* counter) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(lanes, block_rows, packs);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    const Channels<pack> channels(norm, at.pack);
    const std::int64_t stride = std::int64_t{gridDim.x} * block_rows;
#pragma unroll 2
    for (std::int64_t row = std::int64_t{blockIdx.x} * block_rows + at.row; row < rows;
         row += stride) {
      const std::int64_t i = row * packs + at.pack;
      float values[pack] = {};
      float signs[pack] = {};
      float d[pack];
      if (reads.x) load<T, pack>(x, i, values);
      if (reads.y) load<T, pack>(y, i, signs);
      load_gradient<T, pack>(dy, extra, i, d);
#pragma unroll
      for (int k = 0; k < pack; ++k) {
        if (reads.sign) {
          const float z = reads.y ? signs[k] : channels.z(k, values[k]);
          d[k] = z > 0 ? d[k] : slope * d[k];
        }
        sum[k] += d[k];
        product[k] = fmaf(d[k], channels.xhat(k, values[k]), product[k]);
      }
      if (dz != nullptr) store<T, pack>(dz, i, d);
    }
  }
  if (d_bias == nullptr) return;
  const auto channels = static_cast<std::int32_t>(packs * pack);
  write_channel_partials<pack>(at, lanes, block_rows, packs, sum, product, shared, partials);
  if (!is_last_block(counter, gridDim.x * gridDim.y)) return;
  finish_channels(channels, gridDim.x, partials, [&](unsigned c, double a, double b) {
    d_bias[c] = static_cast<float>(a);
    if (d_weight != nullptr) d_weight[c] = static_cast<float>(b);
  });
}

// The maximum of a window of x with the gradient that goes to it: dy where z > 0 there, else its
// share.
template <class T, int pack>
__device__ Maximum<pack> maximum_of(const Channels<pack>& channels, float slope,
                                    const Window& window, const Pack<T, pack> (&raw)[4]) {
  Maximum<pack> maximum;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float values[pack];
    unpack(raw[i], values);
    maximum.take(channels, slope, i, values);
  }
  return maximum;
}

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    pooled_sums_kernel(unsigned lanes, unsigned block_rows, unsigned packs, const Images shape,
                       float slope, const Norm norm, const T* x, const T* dy, const T* extra, T* dz,
                       float* d_weight, float* d_bias, float* partials, unsigned* counter) {
  __shared__ float shared[2 * pack * channel_threads];
  const ChannelThread at(lanes, block_rows, packs);
  float sum[pack] = {};
  float product[pack] = {};
  if (at.works) {
    const Channels<pack> channels(norm, at.pack);
    // Windows that are cut off have no gradient; only where it is written out are they visited.
    const bool only_whole = dz == nullptr;
    const auto count = static_cast<std::uint32_t>(windows(shape, only_whole));
    const std::uint32_t stride = gridDim.x * block_rows;
    for (std::uint32_t index = blockIdx.x * block_rows + at.row; index < count; index += stride) {
      const Window window(shape, index, only_whole);
      float d[pack] = {};
      Maximum<pack> maximum;
      if (window.whole) {
        Pack<T, pack> raw[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[window.row[i] * packs + at.pack];
        }
        load_gradient<T, pack>(dy, extra, window.pooled_row * packs + at.pack, d);
        maximum = maximum_of<T, pack>(channels, slope, window, raw);
#pragma unroll
        for (int k = 0; k < pack; ++k) {
          d[k] = maximum.z[k] > 0 ? d[k] : slope * d[k];
          sum[k] += d[k];
          product[k] = fmaf(d[k], channels.xhat(k, maximum.x[k]), product[k]);
        }
      }
      if (dz == nullptr) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!window.exists[i]) continue;
        float values[pack] = {};
        if (window.whole) {
#pragma unroll
          for (int k = 0; k < pack; ++k) values[k] = maximum.at[k] == i ? d[k] : 0.0f;
        }
        store<T, pack>(dz, window.row[i] * packs + at.pack, values);
      }
    }
  }
  if (d_bias == nullptr) return;
  const auto channels = static_cast<std::int32_t>(packs * pack);
  write_channel_partials<pack>(at, lanes, block_rows, packs, sum, product, shared, partials);
  if (!is_last_block(counter, gridDim.x * gridDim.y)) return;
  finish_channels(channels, gridDim.x, partials, [&](unsigned c, double a, double b) {
    d_bias[c] = static_cast<float>(a);
    if (d_weight != nullptr) d_weight[c] = static_cast<float>(b);
  });
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

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    backward_kernel(unsigned lanes, unsigned block_rows, unsigned packs, std::int64_t rows,
                    float slope, const Norm norm, bool fixed, float inv_rows, const T* x,
                    const T* dy, const T* extra, const float* d_weight, const float* d_bias,
                    T* dx) {
  const ChannelThread at(lanes, block_rows, packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const Second<pack> second(at.pack, fixed, inv_rows, d_bias, d_weight);
  const std::int64_t stride = std::int64_t{gridDim.x} * block_rows;
#pragma unroll 2
  for (std::int64_t row = std::int64_t{blockIdx.x} * block_rows + at.row; row < rows;
       row += stride) {
    const std::int64_t i = row * packs + at.pack;
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

template <class T, int pack>
__global__ void __launch_bounds__(channel_threads)
    pooled_backward_kernel(unsigned lanes, unsigned block_rows, unsigned packs, const Images shape,
                           float slope, const Norm norm, bool fixed, float inv_rows, const T* x,
                           const T* dy, const T* extra, const float* d_weight, const float* d_bias,
                           T* dx) {
  const ChannelThread at(lanes, block_rows, packs);
  if (!at.works) return;
  const Channels<pack> channels(norm, at.pack);
  const Second<pack> second(at.pack, fixed, inv_rows, d_bias, d_weight);
  const auto count = static_cast<std::uint32_t>(windows(shape, false));
  const std::uint32_t stride = gridDim.x * block_rows;
  for (std::uint32_t index = blockIdx.x * block_rows + at.row; index < count; index += stride) {
    const Window window(shape, index, false);
    Pack<T, pack> raw[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (window.exists[i]) {
        raw[i] = reinterpret_cast<const Pack<T, pack>*>(x)[window.row[i] * packs + at.pack];
      }
    }
    float d[pack] = {};
    Maximum<pack> maximum;
    if (window.whole) {
      load_gradient<T, pack>(dy, extra, window.pooled_row * packs + at.pack, d);
      maximum = maximum_of<T, pack>(channels, slope, window, raw);
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
      store<T, pack>(dx, window.row[i] * packs + at.pack, values);
    }
  }
}

bool is_valid(const Images& shape) {
  return shape.batch > 0 && shape.height > 0 && shape.width > 0 && shape.channels > 0;
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
  return with_pack(element, shape.channels, {x}, [&]<class T, int pack>() {
    const ChannelGrid g =
        channel_grid(shape.rows(), shape.channels, pack, rows_per_thread, most_row_blocks);
    moments_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
        g.lanes, g.rows, shape.channels / pack, shape.rows(), static_cast<const T*>(x), epsilon,
        momentum, state, mean, inv_std, running_mean, running_var, scratch.partials,
        scratch.counter);
    return cudaGetLastError();
  });
}

cudaError_t normalize_forward(Element element, const Images& shape, const Around& around,
                              const Norm& norm, const void* x, const void* residual, void* y,
                              cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || residual != nullptr)) return cudaErrorInvalidValue;
  return with_pack(element, shape.channels, {x, residual, y}, [&]<class T, int pack>() {
    const std::int64_t rows = around.pooled ? windows(shape, true) : shape.rows();
    const ChannelGrid g =
        channel_grid(rows, shape.channels, pack, around.pooled ? 1 : rows_per_thread, most_blocks);
    const unsigned packs = shape.channels / pack;
    if (around.pooled) {
      pooled_forward_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, shape, around.slope, norm, static_cast<const T*>(x),
          static_cast<T*>(y));
    } else {
      forward_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, rows, around.slope, norm, static_cast<const T*>(x),
          static_cast<const T*>(residual), static_cast<T*>(y));
    }
    return cudaGetLastError();
  });
}

cudaError_t normalize_backward_sums(Element element, const Images& shape, const Around& around,
                                    const Norm& norm, const void* x, const void* y, const void* dy,
                                    const void* extra, void* dz, float* d_weight, float* d_bias,
                                    const SumScratch& scratch, cudaStream_t stream) {
  if (!is_valid(shape)) return cudaErrorInvalidValue;
  if (around.pooled && (!can_pool(shape) || around.residual)) return cudaErrorInvalidValue;
  Reads reads;
  reads.sign = around.slope != 1;
  reads.y = reads.sign && around.residual;
  reads.x = norm.weight != nullptr || (reads.sign && !reads.y);
  if ((reads.y && y == nullptr) || ((reads.x || around.pooled) && x == nullptr)) {
    return cudaErrorInvalidValue;
  }
  return with_pack(element, shape.channels, {x, y, dy, extra, dz}, [&]<class T, int pack>() {
    const std::int64_t rows = around.pooled ? windows(shape, dz == nullptr) : shape.rows();
    const ChannelGrid g = channel_grid(rows, shape.channels, pack,
                                       around.pooled ? 2 : rows_per_thread, most_row_blocks);
    const unsigned packs = shape.channels / pack;
    float* const weight_sums = norm.weight != nullptr ? d_weight : nullptr;
    if (around.pooled) {
      pooled_sums_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, shape, around.slope, norm, static_cast<const T*>(x),
          static_cast<const T*>(dy), static_cast<const T*>(extra), static_cast<T*>(dz), weight_sums,
          d_bias, scratch.partials, scratch.counter);
    } else {
      sums_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, rows, reads, around.slope, norm, static_cast<const T*>(x),
          static_cast<const T*>(y), static_cast<const T*>(dy), static_cast<const T*>(extra),
          static_cast<T*>(dz), weight_sums, d_bias, scratch.partials, scratch.counter);
    }
    return cudaGetLastError();
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
    const std::int64_t rows = around.pooled ? windows(shape, false) : shape.rows();
    const ChannelGrid g =
        channel_grid(rows, shape.channels, pack, around.pooled ? 1 : rows_per_thread, most_blocks);
    const unsigned packs = shape.channels / pack;
    if (around.pooled) {
      pooled_backward_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, shape, around.slope, norm, fixed, inv_rows,
          static_cast<const T*>(x), static_cast<const T*>(dy), static_cast<const T*>(extra),
          d_weight, d_bias, static_cast<T*>(dx));
    } else {
      backward_kernel<T, pack><<<g.grid(), channel_threads, 0, stream>>>(
          g.lanes, g.rows, packs, rows, around.slope, norm, fixed, inv_rows,
          static_cast<const T*>(x), static_cast<const T*>(dy), static_cast<const T*>(extra),
          d_weight, d_bias, static_cast<T*>(dx));
    }
    return cudaGetLastError();
  });
}

}  // namespace preheat::kernels
