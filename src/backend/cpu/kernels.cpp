#include "backend/cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nn/network.h"

// Compiles a function for each level of vector instructions and chooses among them when the program
// starts: a build for any x86-64 machine that runs at native speed. OpenMP regions must stay
// outside of such functions, as their bodies would not be cloned with them.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PREHEAT_SIMD __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define PREHEAT_SIMD
#endif

namespace preheat::cpu {
namespace {

struct Range {
  std::int64_t begin;
  std::int64_t end;
};

Range block_rows(std::int64_t rows, std::int64_t block, std::int64_t blocks) {
  return {rows * block / blocks, rows * (block + 1) / blocks};
}

// Calls work(first element, number of rows) for each thread's share of the rows.
template <class Work>
void over_rows(Matrix size, const Work& work) {
#pragma omp parallel for schedule(static)
  for (std::int64_t block = 0; block < sum_blocks; ++block) {
    const Range r = block_rows(size.rows, block, sum_blocks);
    work(r.begin * size.channels, r.end - r.begin);
  }
}

// The sums of each block, added up in the order of the blocks: sums[block * channels + c].
double total(const double* sums, std::int64_t channels, std::int64_t c) {
  double sum = 0;
  for (std::int64_t block = 0; block < sum_blocks; ++block) sum += sums[block * channels + c];
  return sum;
}

PREHEAT_SIMD void activate_block(std::int64_t n, float slope, float* z) {
  for (std::int64_t i = 0; i < n; ++i) z[i] = z[i] > 0 ? z[i] : slope * z[i];
}

PREHEAT_SIMD void activate_backward_block(std::int64_t n, float slope, const float* y,
                                          const float* extra, float* dy) {
  if (extra == nullptr) {
    for (std::int64_t i = 0; i < n; ++i) dy[i] = y[i] > 0 ? dy[i] : slope * dy[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) {
      const float d = dy[i] + extra[i];
      dy[i] = y[i] > 0 ? d : slope * d;
    }
  }
}

PREHEAT_SIMD void tanh_backward_block(std::int64_t n, const float* y, const float* extra,
                                      float* dy) {
  if (extra == nullptr) {
    for (std::int64_t i = 0; i < n; ++i) dy[i] *= 1 - y[i] * y[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) dy[i] = (dy[i] + extra[i]) * (1 - y[i] * y[i]);
  }
}

// Eight adjacent channels, as floats in memory and as doubles in sums. Explicit vectors, because
// the compiler does not keep an array of sums in registers across a loop over rows.
typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(64), aligned(8), may_alias));
constexpr std::int64_t lanes = 8;

[[gnu::always_inline]] inline Floats& floats(float* p) {
  return *reinterpret_cast<Floats*>(p);
}
[[gnu::always_inline]] inline const Floats& floats(const float* p) {
  return *reinterpret_cast<const Floats*>(p);
}
[[gnu::always_inline]] inline Doubles& doubles(double* p) {
  return *reinterpret_cast<Doubles*>(p);
}

// Rows that are summed for all channels before the next ones: few enough to stay in L1 while the
// loop walks down them with sixteen channels, one cache line, at a time.
constexpr std::int64_t tile_rows = 64;

// Adds the sums over `rows` rows to `sum` and `square`.
[[gnu::always_inline]] inline void add_moments(std::int64_t rows, std::int64_t channels,
                                               const float* x, double* sum, double* square) {
  std::int64_t c = 0;
  for (; c + 2 * lanes <= channels; c += 2 * lanes) {
    Doubles s[2] = {doubles(sum + c), doubles(sum + c + lanes)};
    Doubles q[2] = {doubles(square + c), doubles(square + c + lanes)};
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int half = 0; half < 2; ++half) {
        const Doubles value =
            __builtin_convertvector(floats(x + r * channels + c + half * lanes), Doubles);
        s[half] += value;
        q[half] += value * value;
      }
    }
    for (int half = 0; half < 2; ++half) {
      doubles(sum + c + half * lanes) = s[half];
      doubles(square + c + half * lanes) = q[half];
    }
  }
  for (; c < channels; ++c) {
    double s = sum[c];
    double q = square[c];
    for (std::int64_t r = 0; r < rows; ++r) {
      const double value = x[r * channels + c];
      s += value;
      q += value * value;
    }
    sum[c] = s;
    square[c] = q;
  }
}

PREHEAT_SIMD void moments_block(std::int64_t rows, std::int64_t channels, const float* x,
                                double* sum, double* square) {
  std::fill_n(sum, channels, 0.0);
  std::fill_n(square, channels, 0.0);
  for (std::int64_t r = 0; r < rows; r += tile_rows) {
    add_moments(std::min(tile_rows, rows - r), channels, x + r * channels, sum, square);
  }
}

PREHEAT_SIMD void normalize_block(std::int64_t rows, std::int64_t channels, float slope,
                                  BatchNorm norm, const float* __restrict x,
                                  const float* __restrict residual, float* __restrict y) {
  for (std::int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    if (residual == nullptr) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float z = (x[c] - norm.mean[c]) * (norm.inv_std[c] * norm.weight[c]) + norm.bias[c];
        y[c] = z > 0 ? z : slope * z;
      }
    } else {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float z = (x[c] - norm.mean[c]) * (norm.inv_std[c] * norm.weight[c]) +
                        (norm.bias[c] + residual[c]);
        y[c] = z > 0 ? z : slope * z;
      }
      residual += channels;
    }
  }
}

// Stores dz = (dy + extra) activation'(y) and adds the sums of dz and dz xhat. `extra` is null if
// there is no second gradient. `dz` may be `dy`.
template <bool has_extra>
[[gnu::always_inline]] inline void add_gradient_sums(std::int64_t rows, std::int64_t channels,
                                                     float slope, const BatchNorm& norm,
                                                     const float* x, const float* y,
                                                     const float* extra, const float* dy, float* dz,
                                                     double* sum, double* product) {
  std::int64_t c = 0;
  for (; c + 2 * lanes <= channels; c += 2 * lanes) {
    Doubles s[2] = {doubles(sum + c), doubles(sum + c + lanes)};
    Doubles p[2] = {doubles(product + c), doubles(product + c + lanes)};
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int half = 0; half < 2; ++half) {
        const std::int64_t channel = c + half * lanes;
        const std::int64_t at = r * channels + channel;
        Floats d = floats(dy + at);
        if constexpr (has_extra) d += floats(extra + at);
        d = floats(y + at) > 0.0f ? d : slope * d;
        floats(dz + at) = d;
        const Floats xhat =
            (floats(x + at) - floats(norm.mean + channel)) * floats(norm.inv_std + channel);
        const Doubles wide = __builtin_convertvector(d, Doubles);
        s[half] += wide;
        p[half] += wide * __builtin_convertvector(xhat, Doubles);
      }
    }
    for (int half = 0; half < 2; ++half) {
      doubles(sum + c + half * lanes) = s[half];
      doubles(product + c + half * lanes) = p[half];
    }
  }
  for (; c < channels; ++c) {
    double s = sum[c];
    double p = product[c];
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = r * channels + c;
      float d = dy[at];
      if constexpr (has_extra) d += extra[at];
      d = y[at] > 0 ? d : slope * d;
      dz[at] = d;
      const float xhat = (x[at] - norm.mean[c]) * norm.inv_std[c];
      s += double{d};
      p += double{d} * double{xhat};
    }
    sum[c] = s;
    product[c] = p;
  }
}

PREHEAT_SIMD void gradient_sums_block(std::int64_t rows, std::int64_t channels, float slope,
                                      const BatchNorm& norm, const float* x, const float* y,
                                      const float* extra, const float* dy, float* dz, double* sum,
                                      double* product) {
  std::fill_n(sum, channels, 0.0);
  std::fill_n(product, channels, 0.0);
  for (std::int64_t r = 0; r < rows; r += tile_rows) {
    const std::int64_t n = std::min(tile_rows, rows - r);
    const std::int64_t at = r * channels;
    if (extra == nullptr) {
      add_gradient_sums<false>(n, channels, slope, norm, x + at, y + at, nullptr, dy + at, dz + at,
                               sum, product);
    } else {
      add_gradient_sums<true>(n, channels, slope, norm, x + at, y + at, extra + at, dy + at,
                              dz + at, sum, product);
    }
  }
}

// `dx` may be `dz`: each element is read before it is written.
PREHEAT_SIMD void batch_norm_backward_block(std::int64_t rows, std::int64_t channels,
                                            const BatchNorm& norm, float inv_rows,
                                            const float* __restrict d_weight,
                                            const float* __restrict d_bias, const float* x,
                                            const float* dz, float* dx) {
  for (std::int64_t r = 0; r < rows; ++r, x += channels, dz += channels, dx += channels) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < channels; ++c) {
      const float xhat = (x[c] - norm.mean[c]) * norm.inv_std[c];
      const float common = (d_bias[c] + xhat * d_weight[c]) * inv_rows;
      dx[c] = norm.weight[c] * norm.inv_std[c] * (dz[c] - common);
    }
  }
}

// The same for constant mean and inv_std.
PREHEAT_SIMD void fixed_norm_backward_block(std::int64_t rows, std::int64_t channels,
                                            const BatchNorm& norm, const float* dz, float* dx) {
  for (std::int64_t r = 0; r < rows; ++r, dz += channels, dx += channels) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < channels; ++c) dx[c] = norm.weight[c] * norm.inv_std[c] * dz[c];
  }
}

// Folds one more element of each window into the maxima of all channels.
PREHEAT_SIMD void take_larger(std::int64_t channels, std::uint8_t position,
                              const float* __restrict x, float* __restrict y,
                              std::uint8_t* __restrict at) {
  for (std::int64_t c = 0; c < channels; ++c) {
    const bool larger = (x[c] > y[c]) | (x[c] != x[c]);
    y[c] = larger ? x[c] : y[c];
    at[c] = larger ? position : at[c];
  }
}

PREHEAT_SIMD void route_gradient(std::int64_t channels, std::uint8_t position,
                                 const float* __restrict dy, const float* __restrict extra,
                                 const std::uint8_t* __restrict at, float* __restrict dx) {
  if (extra == nullptr) {
    for (std::int64_t c = 0; c < channels; ++c) dx[c] = at[c] == position ? dy[c] : 0.0f;
  } else {
    for (std::int64_t c = 0; c < channels; ++c) {
      dx[c] = at[c] == position ? dy[c] + extra[c] : 0.0f;
    }
  }
}

// What a loop does is its template parameters: a branch in it would prevent vectorisation. `norms`
// is null if they are not taken.
template <bool folded, bool nesterov, bool with_norms>
[[gnu::always_inline]] inline void update_values(const SgdMomentum& rule,
                                                 const UpdateScalars& scalars, float weight_decay,
                                                 std::int64_t n, const float* __restrict gradients,
                                                 float* __restrict weights,
                                                 float* __restrict velocity, UpdateNorms* norms) {
  SgdMomentum r = rule;
  r.folded = folded;
  r.nesterov = nesterov;
  const UpdateScalars s = scalars;
  double gradient = 0;
  double taken = 0;
  double weight = 0;
#pragma omp simd reduction(+ : gradient, taken, weight)
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gradients[i];
    float w = weights[i];
    float v = velocity[i];
    const float t = sgd_momentum(r, s, weight_decay, g, w, v);
    weights[i] = w;
    velocity[i] = v;
    if constexpr (with_norms) {
      gradient += double{g} * double{g};
      taken += double{t} * double{t};
      weight += double{w} * double{w};
    }
  }
  if constexpr (with_norms) *norms = {gradient, taken, weight};
}

template <bool folded, bool nesterov>
[[gnu::always_inline]] inline void update_values(const SgdMomentum& rule,
                                                 const UpdateScalars& scalars, float weight_decay,
                                                 std::int64_t n, const float* __restrict gradients,
                                                 float* __restrict weights,
                                                 float* __restrict velocity, UpdateNorms* norms) {
  if (norms != nullptr) {
    update_values<folded, nesterov, true>(rule, scalars, weight_decay, n, gradients, weights,
                                          velocity, norms);
  } else {
    update_values<folded, nesterov, false>(rule, scalars, weight_decay, n, gradients, weights,
                                           velocity, nullptr);
  }
}

PREHEAT_SIMD void update_block(const SgdMomentum& rule, const UpdateScalars& scalars,
                               float lr_scale, float weight_decay, std::int64_t n,
                               const float* __restrict gradients, float* __restrict weights,
                               float* __restrict velocity, UpdateNorms* norms) {
  UpdateScalars s = scalars;
  s.lr *= lr_scale;
  if (rule.folded && rule.nesterov) {
    update_values<true, true>(rule, s, weight_decay, n, gradients, weights, velocity, norms);
  } else if (rule.folded) {
    update_values<true, false>(rule, s, weight_decay, n, gradients, weights, velocity, norms);
  } else if (rule.nesterov) {
    update_values<false, true>(rule, s, weight_decay, n, gradients, weights, velocity, norms);
  } else {
    update_values<false, false>(rule, s, weight_decay, n, gradients, weights, velocity, norms);
  }
}

PREHEAT_SIMD double squares_block(std::int64_t n, const float* values) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += double{values[i]} * double{values[i]};
  return sum;
}

std::int64_t first_of_largest(const float* logits, std::int64_t classes) {
  return std::max_element(logits, logits + classes) - logits;
}

bool all_ordered(const float* logits, std::int64_t classes) {
  return std::none_of(logits, logits + classes, [](float z) { return std::isnan(z); });
}

}  // namespace

void gather(const ImageShape& shape, const std::uint8_t* pixels, std::span<const Pick> picks,
            const float* table, float* batch) {
  const auto examples = static_cast<std::int64_t>(picks.size());
#pragma omp parallel for schedule(static)
  for (std::int64_t n = 0; n < examples; ++n) {
    const Pick& pick = picks[n];
    const std::uint8_t* image = pixels + std::int64_t{pick.example} * shape.size();
    float* out = batch + n * shape.size();
    for (std::int64_t y = 0; y < shape.height; ++y) {
      const std::int64_t from_y = y + pick.augmentation.dy;
      for (std::int64_t x = 0; x < shape.width; ++x) {
        const std::int64_t mirrored = pick.augmentation.flip ? shape.width - 1 - x : x;
        const std::int64_t from_x = mirrored + pick.augmentation.dx;
        const bool inside =
            from_y >= 0 && from_y < shape.height && from_x >= 0 && from_x < shape.width;
        const std::uint8_t* pixel = image + (from_y * shape.width + from_x) * shape.channels;
        for (std::int64_t c = 0; c < shape.channels; ++c) {
          *out++ = inside ? table[c * 256 + pixel[c]] : 0.0f;
        }
      }
    }
  }
}

void activate(Matrix size, float slope, float* z) {
  over_rows(size, [&](std::int64_t at, std::int64_t rows) {
    activate_block(rows * size.channels, slope, z + at);
  });
}

void activate_backward(Matrix size, float slope, const float* y, const float* extra, float* dy) {
  over_rows(size, [&](std::int64_t at, std::int64_t rows) {
    activate_backward_block(rows * size.channels, slope, y + at, extra ? extra + at : nullptr,
                            dy + at);
  });
}

void tanh_backward(Matrix size, const float* y, const float* extra, float* dy) {
  over_rows(size, [=](std::int64_t at, std::int64_t rows) {
    tanh_backward_block(rows * size.channels, y + at, extra ? extra + at : nullptr, dy + at);
  });
}

void batch_norm_statistics(Matrix size, const float* x, float* mean, float* inv_std,
                           float* running_mean, float* running_var, double* sums) {
  double* squares = sums + sum_blocks * size.channels;
#pragma omp parallel for schedule(static)
  for (std::int64_t block = 0; block < sum_blocks; ++block) {
    const Range r = block_rows(size.rows, block, sum_blocks);
    moments_block(r.end - r.begin, size.channels, x + r.begin * size.channels,
                  sums + block * size.channels, squares + block * size.channels);
  }
  const auto n = static_cast<double>(size.rows);
  for (std::int64_t c = 0; c < size.channels; ++c) {
    const double m = total(sums, size.channels, c) / n;
    // Not max(0, ..), which would turn a NaN into 0.
    double var = total(squares, size.channels, c) / n - m * m;
    if (var < 0) var = 0;
    mean[c] = static_cast<float>(m);
    inv_std[c] = static_cast<float>(1 / std::sqrt(var + double{batch_norm_epsilon}));
    // Kept finite, as the running value could never come back from infinity.
    const double unbiased = std::min(size.rows > 1 ? var * n / (n - 1) : var,
                                     double{std::numeric_limits<float>::max()});
    running_mean[c] += batch_norm_momentum * (static_cast<float>(m) - running_mean[c]);
    running_var[c] += batch_norm_momentum * (static_cast<float>(unbiased) - running_var[c]);
  }
}

void batch_norm_frozen(std::int64_t channels, const float* running_mean, const float* running_var,
                       float* mean, float* inv_std) {
  for (std::int64_t c = 0; c < channels; ++c) {
    mean[c] = running_mean[c];
    inv_std[c] =
        static_cast<float>(1 / std::sqrt(double{running_var[c]} + double{batch_norm_epsilon}));
  }
}

void batch_norm_forward(Matrix size, float slope, const BatchNorm& norm, const float* x,
                        const float* residual, float* y) {
  over_rows(size, [&](std::int64_t at, std::int64_t rows) {
    normalize_block(rows, size.channels, slope, norm, x + at, residual ? residual + at : nullptr,
                    y + at);
  });
}

void batch_norm_backward(Matrix size, float slope, const BatchNorm& norm, bool fixed,
                         const float* x, const float* y, const float* extra, float* dy,
                         float* d_residual, float* d_weight, float* d_bias, double* sums) {
  float* dz = d_residual ? d_residual : dy;
  double* products = sums + sum_blocks * size.channels;
#pragma omp parallel for schedule(static)
  for (std::int64_t block = 0; block < sum_blocks; ++block) {
    const Range r = block_rows(size.rows, block, sum_blocks);
    const std::int64_t at = r.begin * size.channels;
    gradient_sums_block(r.end - r.begin, size.channels, slope, norm, x + at, y + at,
                        extra ? extra + at : nullptr, dy + at, dz + at,
                        sums + block * size.channels, products + block * size.channels);
  }
  for (std::int64_t c = 0; c < size.channels; ++c) {
    d_bias[c] = static_cast<float>(total(sums, size.channels, c));
    d_weight[c] = static_cast<float>(total(products, size.channels, c));
  }
  const float inv_rows = 1 / static_cast<float>(size.rows);
  over_rows(size, [&](std::int64_t at, std::int64_t rows) {
    if (fixed) {
      fixed_norm_backward_block(rows, size.channels, norm, dz + at, dy + at);
    } else {
      batch_norm_backward_block(rows, size.channels, norm, inv_rows, d_weight, d_bias, x + at,
                                dz + at, dy + at);
    }
  });
}

void max_pool(const Pooling& p, const float* x, float* y, std::uint8_t* at) {
  const std::int64_t channels = p.in.channels;
#pragma omp parallel for schedule(static)
  for (std::int64_t row = 0; row < p.batch * p.out.height; ++row) {
    const float* top = x + (row / p.out.height * p.in.height + row % p.out.height * p.kernel) *
                               p.in.width * channels;
    for (std::int64_t column = 0; column < p.out.width; ++column) {
      const std::int64_t out = (row * p.out.width + column) * channels;
      const float* corner = top + column * p.kernel * channels;
      std::copy_n(corner, channels, y + out);
      std::fill_n(at + out, channels, std::uint8_t{0});
      for (std::int64_t i = 1; i < p.kernel * p.kernel; ++i) {
        take_larger(channels, static_cast<std::uint8_t>(i),
                    corner + (i / p.kernel * p.in.width + i % p.kernel) * channels, y + out,
                    at + out);
      }
    }
  }
}

void max_pool_backward(const Pooling& p, const float* dy, const float* extra,
                       const std::uint8_t* at, float* dx) {
  const std::int64_t channels = p.in.channels;
#pragma omp parallel for schedule(static)
  for (std::int64_t row = 0; row < p.batch * p.in.height; ++row) {
    const std::int64_t out_y = row % p.in.height / p.kernel;
    const std::int64_t in_window_y = row % p.in.height % p.kernel;
    for (std::int64_t column = 0; column < p.in.width; ++column) {
      float* target = dx + (row * p.in.width + column) * channels;
      const std::int64_t out_x = column / p.kernel;
      if (out_y >= p.out.height || out_x >= p.out.width) {
        std::fill_n(target, channels, 0.0f);
        continue;
      }
      const std::int64_t out =
          ((row / p.in.height * p.out.height + out_y) * p.out.width + out_x) * channels;
      route_gradient(channels,
                     static_cast<std::uint8_t>(in_window_y * p.kernel + column % p.kernel),
                     dy + out, extra ? extra + out : nullptr, at + out, target);
    }
  }
}

void global_avg_pool(std::int64_t batch, std::int64_t positions, std::int64_t channels,
                     const float* x, float* y) {
  const float scale = 1 / static_cast<float>(positions);
#pragma omp parallel for schedule(static)
  for (std::int64_t n = 0; n < batch; ++n) {
    float* out = y + n * channels;
    std::fill_n(out, channels, 0.0f);
    for (std::int64_t p = 0; p < positions; ++p) {
      const float* in = x + (n * positions + p) * channels;
      for (std::int64_t c = 0; c < channels; ++c) out[c] += in[c];
    }
    for (std::int64_t c = 0; c < channels; ++c) out[c] *= scale;
  }
}

void global_avg_pool_backward(std::int64_t batch, std::int64_t positions, std::int64_t channels,
                              const float* dy, const float* extra, float* dx) {
  const float scale = 1 / static_cast<float>(positions);
#pragma omp parallel for schedule(static)
  for (std::int64_t n = 0; n < batch; ++n) {
    const float* in = dy + n * channels;
    for (std::int64_t p = 0; p < positions; ++p) {
      float* out = dx + (n * positions + p) * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        out[c] = scale * (extra ? in[c] + extra[n * channels + c] : in[c]);
      }
    }
  }
}

LossResult cross_entropy(std::span<const std::uint8_t> labels, std::int64_t classes,
                         double label_smoothing, const float* logits, float* dlogits) {
  LossResult result;
  const auto examples = static_cast<double>(labels.size());
  const double share = label_smoothing / static_cast<double>(classes);
  for (std::size_t n = 0; n < labels.size(); ++n) {
    const float* z = logits + n * classes;
    const double largest = *std::max_element(z, z + classes);
    double sum = 0;
    double linear = 0;  // sum_k q_k (z_k - largest)
    for (std::int64_t k = 0; k < classes; ++k) {
      const double shifted = double{z[k]} - largest;
      const double q = share + (k == labels[n] ? 1 - label_smoothing : 0);
      sum += std::exp(shifted);
      linear += q == 0 ? 0 : q * shifted;
    }
    result.sum += std::log(sum) - linear;
    const bool ordered = all_ordered(z, classes);
    if (!ordered) result.sum = std::nan("");  // whatever the comparisons above gave
    result.correct += ordered && first_of_largest(z, classes) == labels[n] ? 1 : 0;
    if (dlogits == nullptr) continue;
    for (std::int64_t k = 0; k < classes; ++k) {
      const double q = share + (k == labels[n] ? 1 - label_smoothing : 0);
      const double softmax = std::exp(double{z[k]} - largest) / sum;
      dlogits[n * classes + k] = static_cast<float>((softmax - q) / examples);
    }
  }
  return result;
}

LossResult squared_error(std::span<const std::uint8_t> labels, std::int64_t classes,
                         const float* logits, float* dlogits) {
  LossResult result;
  const auto examples = static_cast<double>(labels.size());
  for (std::size_t n = 0; n < labels.size(); ++n) {
    const float* z = logits + n * classes;
    for (std::int64_t k = 0; k < classes; ++k) {
      const double error = double{z[k]} - (k == labels[n] ? 1.0 : 0.0);
      result.sum += error * error / 2;
      if (dlogits) dlogits[n * classes + k] = static_cast<float>(error / examples);
    }
    result.correct += all_ordered(z, classes) && first_of_largest(z, classes) == labels[n] ? 1 : 0;
  }
  return result;
}

void accumulate_gradients(std::int64_t size, float scale, bool adds, const float* gradients,
                          float* sum) {
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < size; ++i) {
    sum[i] = adds ? sum[i] + scale * gradients[i] : scale * gradients[i];
  }
}

void add_update_blocks(std::int64_t offset, std::int64_t size, float lr_scale, float weight_decay,
                       std::vector<UpdateBlock>& blocks) {
  constexpr std::int64_t block_size = 16384;
  for (std::int64_t at = 0; at < size; at += block_size) {
    blocks.push_back(
        {offset + at, offset + std::min(at + block_size, size), lr_scale, weight_decay});
  }
}

UpdateNorms update(const SgdMomentum& rule, const UpdateScalars& scalars,
                   std::span<const UpdateBlock> blocks, const float* gradients, float* weights,
                   float* velocity, UpdateNorms* partial) {
  const auto count = static_cast<std::int64_t>(blocks.size());
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; ++i) {
    const UpdateBlock& block = blocks[i];
    update_block(rule, scalars, block.lr_scale, block.weight_decay, block.end - block.begin,
                 gradients + block.begin, weights + block.begin, velocity + block.begin,
                 partial == nullptr ? nullptr : &partial[i]);
  }
  UpdateNorms sum;
  if (partial == nullptr) return sum;
  for (std::int64_t i = 0; i < count; ++i) {
    sum.gradient += partial[i].gradient;
    sum.taken += partial[i].taken;
    sum.weight += partial[i].weight;
  }
  return sum;
}

double squared_norm(std::span<const UpdateBlock> blocks, const float* values,
                    UpdateNorms* partial) {
  const auto count = static_cast<std::int64_t>(blocks.size());
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; ++i) {
    partial[i].gradient = squares_block(blocks[i].end - blocks[i].begin, values + blocks[i].begin);
  }
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += partial[i].gradient;
  return sum;
}

}  // namespace preheat::cpu
