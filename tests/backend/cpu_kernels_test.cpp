#include "backend/cpu/kernels.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "backend/cpu/buffer.h"
#include "nn/network.h"

namespace preheat::cpu {
namespace {

constexpr float guard = 12345.678f;
constexpr std::size_t guards = 16;

// An output poisoned with NaN, with guard words behind it.
class Output {
 public:
  explicit Output(std::size_t n) : size_(n), buffer_(n + guards) {
    std::fill_n(buffer_.data(), n, std::nanf(""));
    std::fill_n(buffer_.data() + n, guards, guard);
  }
  ~Output() {
    for (std::size_t i = 0; i < guards; ++i) EXPECT_EQ(buffer_[size_ + i], guard) << "overrun";
  }
  float* data() { return buffer_.data(); }
  float operator[](std::size_t i) const { return buffer_[i]; }
  void assign(const std::vector<float>& v) { std::copy(v.begin(), v.end(), buffer_.data()); }

 private:
  std::size_t size_;
  Buffer<float> buffer_;
};

class CpuKernels : public testing::Test {
 protected:
  std::vector<float> normals(std::size_t n, float mean = 0) {
    std::normal_distribution<float> normal(mean, 1);
    std::vector<float> v(n);
    for (float& x : v) x = normal(random_);
    return v;
  }

  const unsigned seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
  std::mt19937 random_{seed_};
};

struct Moments {
  double mean;
  double var;
};

Moments moments(Matrix size, const std::vector<float>& x, std::int64_t c) {
  Moments m{0, 0};
  for (std::int64_t r = 0; r < size.rows; ++r) m.mean += double{x[r * size.channels + c]};
  m.mean /= static_cast<double>(size.rows);
  for (std::int64_t r = 0; r < size.rows; ++r) {
    m.var += std::pow(double{x[r * size.channels + c]} - m.mean, 2);
  }
  m.var /= static_cast<double>(size.rows);
  return m;
}

const Matrix matrices[] = {{1, 1}, {2, 3}, {33, 16}, {100, 17}, {777, 40}, {31, 64}};

TEST_F(CpuKernels, BatchNormStatistics) {
  for (const Matrix size : matrices) {
    // A mean far from zero would ruin a variance taken from sums in single precision.
    const auto x = normals(size.rows * size.channels, 300);
    Output mean(size.channels);
    Output inv_std(size.channels);
    std::vector<float> running_mean(size.channels, 2.0f);
    std::vector<float> running_var(size.channels, 3.0f);
    Buffer<double> sums(2 * sum_blocks * size.channels);
    batch_norm_statistics(size, x.data(), mean.data(), inv_std.data(), running_mean.data(),
                          running_var.data(), sums.data());
    for (std::int64_t c = 0; c < size.channels; ++c) {
      const Moments m = moments(size, x, c);
      const auto n = static_cast<double>(size.rows);
      EXPECT_NEAR(mean[c], m.mean, 1e-4);
      EXPECT_NEAR(inv_std[c] * std::sqrt(m.var + 1e-5), 1, 1e-4);
      EXPECT_NEAR(running_mean[c], 0.9 * 2 + 0.1 * m.mean, 1e-4);
      EXPECT_NEAR(running_var[c], 0.9 * 3 + 0.1 * m.var * (n > 1 ? n / (n - 1) : 1), 1e-4);
    }
  }
}

// A NaN mean or variance is not treated as 0. A variance too large for a float does not make the
// running variance infinite, from which it could never recover.
TEST_F(CpuKernels, BatchNormStatisticsOfWhatIsNotFiniteOrHuge) {
  const std::vector<float> x = {std::nanf(""), INFINITY, 1e25f, 1, 2, -1e25f};
  Output mean(3);
  Output inv_std(3);
  std::vector<float> running_mean(3, 0.0f);
  std::vector<float> running_var(3, 1.0f);
  Buffer<double> sums(2 * sum_blocks * 3);
  batch_norm_statistics({2, 3}, x.data(), mean.data(), inv_std.data(), running_mean.data(),
                        running_var.data(), sums.data());
  for (int c = 0; c < 2; ++c) {
    EXPECT_TRUE(std::isnan(inv_std[c])) << c;
    EXPECT_TRUE(std::isnan(running_var[c])) << c;
  }
  EXPECT_NEAR(inv_std[2], 1e-25, 1e-30);
  EXPECT_TRUE(std::isfinite(running_var[2]));
}

TEST_F(CpuKernels, BatchNormForwardAndBackward) {
  for (const Matrix size : matrices) {
    for (const float slope : {0.0f, 0.1f, 1.0f}) {
      for (const bool with_residual : {false, true}) {
        for (const bool with_extra : {false, true}) {
          const std::size_t n = size.rows * size.channels;
          const auto x = normals(n, 1);
          const auto residual = normals(n);
          const auto dy = normals(n);
          const auto extra = normals(n);
          const auto weight = normals(size.channels, 1);
          const auto bias = normals(size.channels);
          std::vector<float> mean(size.channels), inv_std(size.channels);
          for (std::int64_t c = 0; c < size.channels; ++c) {
            const Moments m = moments(size, x, c);
            mean[c] = static_cast<float>(m.mean);
            inv_std[c] = static_cast<float>(1 / std::sqrt(m.var + 1e-5));
          }
          const BatchNorm norm{weight.data(), bias.data(), mean.data(), inv_std.data()};
          Output y(n);
          batch_norm_forward(size, slope, norm, x.data(), with_residual ? residual.data() : nullptr,
                             y.data());
          Output gradient(n);
          gradient.assign(dy);
          Output d_residual(n);
          Output d_weight(size.channels);
          Output d_bias(size.channels);
          Buffer<double> sums(2 * sum_blocks * size.channels);
          batch_norm_backward(size, slope, norm, false, x.data(), y.data(),
                              with_extra ? extra.data() : nullptr, gradient.data(),
                              with_residual ? d_residual.data() : nullptr, d_weight.data(),
                              d_bias.data(), sums.data());
          for (std::int64_t c = 0; c < size.channels; ++c) {
            double sum = 0;
            double product = 0;
            std::vector<double> dz(size.rows), xhat(size.rows);
            for (std::int64_t r = 0; r < size.rows; ++r) {
              const std::size_t i = r * size.channels + c;
              xhat[r] = (double{x[i]} - double{mean[c]}) * double{inv_std[c]};
              const double z = xhat[r] * double{weight[c]} + double{bias[c]} +
                               (with_residual ? double{residual[i]} : 0.0);
              EXPECT_NEAR(y[i], z > 0 ? z : double{slope} * z, 1e-5 * (1 + std::fabs(z)));
              const double d = double{dy[i]} + (with_extra ? double{extra[i]} : 0.0);
              dz[r] = y[i] > 0 ? d : double{slope} * d;
              if (with_residual) {
                EXPECT_NEAR(d_residual[i], dz[r], 1e-6 * (1 + std::fabs(d)));
              }
              sum += dz[r];
              product += dz[r] * xhat[r];
            }
            const auto rows = static_cast<double>(size.rows);
            EXPECT_NEAR(d_bias[c], sum, 1e-5 * (1 + rows));
            EXPECT_NEAR(d_weight[c], product, 1e-5 * (1 + rows));
            for (std::int64_t r = 0; r < size.rows; ++r) {
              const double factor = double{weight[c]} * double{inv_std[c]};
              const double dx = factor * (dz[r] - sum / rows - xhat[r] * product / rows);
              EXPECT_NEAR(gradient[r * size.channels + c], dx, 2e-5 * (1 + std::fabs(factor)));
            }
          }
        }
      }
    }
  }
}

TEST_F(CpuKernels, BatchNormFrozenIsReadOffTheRunningStatistics) {
  constexpr std::int64_t channels = 19;
  const auto running_mean = normals(channels, 40);
  auto running_var = normals(channels);
  for (float& v : running_var) v *= v;
  running_var[3] = 0;  // a channel that never varied
  running_var[7] = 1e30f;
  Output mean(channels);
  Output inv_std(channels);
  batch_norm_frozen(channels, running_mean.data(), running_var.data(), mean.data(), inv_std.data());
  for (std::int64_t c = 0; c < channels; ++c) {
    EXPECT_EQ(mean[c], running_mean[c]);
    EXPECT_NEAR(double{inv_std[c]} * std::sqrt(double{running_var[c]} + 1e-5), 1, 1e-7) << c;
  }
}

// With fixed moments in place of the batch's own, no gradient flows through the moments:
// dx = weight inv_std dz. The gradients of weight and bias are the same sums as in training.
TEST_F(CpuKernels, BatchNormBackwardThroughFixedMoments) {
  for (const Matrix size : matrices) {
    for (int variant = 0; variant < 12; ++variant) {
      const float slope = std::array{0.0f, 0.1f, 1.0f}[variant / 4];
      const bool with_residual = (variant & 1) != 0;
      const bool with_extra = (variant & 2) != 0;
      const std::size_t n = size.rows * size.channels;
      const auto x = normals(n, 1);
      const auto residual = normals(n);
      const auto dy = normals(n);
      const auto extra = normals(n);
      const auto weight = normals(size.channels, 1);
      const auto bias = normals(size.channels);
      const auto mean = normals(size.channels, 2);  // not this batch's moments
      auto inv_std = normals(size.channels);
      for (float& v : inv_std) v = 0.5f + std::fabs(v);
      const BatchNorm norm{weight.data(), bias.data(), mean.data(), inv_std.data()};
      Output y(n);
      batch_norm_forward(size, slope, norm, x.data(), with_residual ? residual.data() : nullptr,
                         y.data());
      Output dx(n);
      dx.assign(dy);
      Output d_residual(n);
      Output d_weight(size.channels);
      Output d_bias(size.channels);
      Buffer<double> sums(2 * sum_blocks * size.channels);
      batch_norm_backward(size, slope, norm, true, x.data(), y.data(),
                          with_extra ? extra.data() : nullptr, dx.data(),
                          with_residual ? d_residual.data() : nullptr, d_weight.data(),
                          d_bias.data(), sums.data());
      for (std::int64_t c = 0; c < size.channels; ++c) {
        double sum = 0, product = 0, sizes = 0;
        for (std::int64_t r = 0; r < size.rows; ++r) {
          const std::size_t i = r * size.channels + c;
          const double xhat = (double{x[i]} - double{mean[c]}) * double{inv_std[c]};
          const double z = xhat * double{weight[c]} + double{bias[c]} +
                           (with_residual ? double{residual[i]} : 0.0);
          const double d = double{dy[i]} + (with_extra ? double{extra[i]} : 0.0);
          // If z is within rounding of 0, either side of the kink is right.
          const double dz = (std::fabs(z) < 1e-4 ? y[i] > 0 : z > 0) ? d : double{slope} * d;
          const double expected = double{weight[c]} * double{inv_std[c]} * dz;
          EXPECT_NEAR(dx[i], expected, 1e-6 * (std::fabs(expected) + 1e-3));
          if (with_residual) {
            EXPECT_NEAR(d_residual[i], dz, 1e-6 * (std::fabs(dz) + 1e-3));
          }
          sum += dz;
          product += dz * xhat;
          sizes += std::fabs(dz) * (1 + std::fabs(xhat));
        }
        EXPECT_NEAR(d_bias[c], sum, 1e-6 * sizes);
        EXPECT_NEAR(d_weight[c], product, 1e-6 * sizes);
      }
    }
  }
}

TEST_F(CpuKernels, ActivationsKeepNaN) {
  for (const float slope : {0.0f, 0.1f, 1.0f}) {
    std::vector<float> z = normals(1001);
    z[500] = std::nanf("");
    std::vector<float> y = z;
    activate({7, 143}, slope, y.data());
    for (std::size_t i = 0; i < z.size(); ++i) {
      if (i == 500) {
        EXPECT_TRUE(std::isnan(y[i]));
      } else {
        EXPECT_EQ(y[i], z[i] > 0 ? z[i] : slope * z[i]);
      }
    }
    const auto dy = normals(1001);
    const auto extra = normals(1001);
    std::vector<float> d = dy;
    activate_backward({7, 143}, slope, y.data(), extra.data(), d.data());
    for (std::size_t i = 0; i < z.size(); ++i) {
      const float sum = dy[i] + extra[i];
      EXPECT_EQ(d[i], y[i] > 0 ? sum : slope * sum);
    }
  }
}

TEST_F(CpuKernels, TheGradientOfTanh) {
  std::vector<float> y = normals(1001);
  for (float& v : y) v = std::tanh(v);
  y[17] = 1;
  y[500] = std::nanf("");
  const auto dy = normals(1001);
  const auto extra = normals(1001);
  for (const bool with_extra : {false, true}) {
    std::vector<float> d = dy;
    tanh_backward({7, 143}, y.data(), with_extra ? extra.data() : nullptr, d.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (i == 500) {
        EXPECT_TRUE(std::isnan(d[i]));
        continue;
      }
      const double more = with_extra ? extra[i] : 0.0f;
      // 1 - y^2 cancels: y^2 is rounded before.
      const double error = 3e-7 * (std::fabs(dy[i]) + std::fabs(more));
      EXPECT_NEAR(d[i], (dy[i] + more) * (1 - double{y[i]} * y[i]), error);
    }
  }
}

TEST_F(CpuKernels, MaxPoolAndWhereItsGradientGoes) {
  for (const std::int64_t kernel : {2, 3}) {
    for (const std::int64_t channels : {1, 5, 16, 33}) {
      const ImageShape in{7, 8, channels};
      const ImageShape out{7 / kernel, 8 / kernel, channels};
      const Pooling pooling{3, in, out, kernel};
      auto x = normals(3 * in.size());
      for (float& v : x) v = std::round(v);  // makes maxima tie: the first one wins
      x[10 % x.size()] = std::nanf("");
      x[x.size() / 2] = -INFINITY;
      Output y(3 * out.size());
      std::vector<std::uint8_t> at(3 * out.size(), 99);
      max_pool(pooling, x.data(), y.data(), at.data());
      const auto dy = normals(3 * out.size());
      const auto extra = normals(3 * out.size());
      Output dx(x.size());
      max_pool_backward(pooling, dy.data(), extra.data(), at.data(), dx.data());
      std::vector<float> expected(x.size(), 0.0f);
      for (std::int64_t n = 0; n < 3; ++n) {
        for (std::int64_t oy = 0; oy < out.height; ++oy) {
          for (std::int64_t ox = 0; ox < out.width; ++ox) {
            for (std::int64_t c = 0; c < channels; ++c) {
              std::size_t best = 0;
              bool first = true;
              for (std::int64_t r = 0; r < kernel; ++r) {
                for (std::int64_t s = 0; s < kernel; ++s) {
                  const std::size_t i =
                      ((n * 7 + oy * kernel + r) * 8 + ox * kernel + s) * channels + c;
                  if (first || x[i] > x[best] || std::isnan(x[i])) best = i;
                  first = false;
                }
              }
              const std::size_t o = ((n * out.height + oy) * out.width + ox) * channels + c;
              if (std::isnan(x[best])) {
                EXPECT_TRUE(std::isnan(y[o]));
              } else {
                EXPECT_EQ(y[o], x[best]);
              }
              expected[best] = dy[o] + extra[o];
            }
          }
        }
      }
      for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(dx[i], expected[i]) << i;
    }
  }
}

TEST_F(CpuKernels, GlobalAveragePool) {
  const auto x = normals(3 * 35 * 7);
  Output y(3 * 7);
  global_avg_pool(3, 35, 7, x.data(), y.data());
  const auto dy = normals(3 * 7);
  const auto extra = normals(3 * 7);
  Output dx(x.size());
  global_avg_pool_backward(3, 35, 7, dy.data(), extra.data(), dx.data());
  for (std::int64_t n = 0; n < 3; ++n) {
    for (std::int64_t c = 0; c < 7; ++c) {
      double sum = 0;
      for (std::int64_t p = 0; p < 35; ++p) {
        const std::size_t i = (n * 35 + p) * 7 + c;
        sum += double{x[i]};
        EXPECT_NEAR(dx[i], (double{dy[n * 7 + c]} + double{extra[n * 7 + c]}) / 35, 1e-7);
      }
      EXPECT_NEAR(y[n * 7 + c], sum / 35, 1e-6);
    }
  }
}

// -sum_k q_k log softmax(z)_k, computed from the definition.
long double cross_entropy_of(const float* z, std::int64_t classes, int label, double smoothing) {
  long double sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(static_cast<long double>(z[k]));
  long double loss = 0;
  for (std::int64_t k = 0; k < classes; ++k) {
    const long double q = smoothing / static_cast<long double>(classes) +
                          (k == label ? 1 - static_cast<long double>(smoothing) : 0);
    loss -= q * (static_cast<long double>(z[k]) - std::log(sum));
  }
  return loss;
}

TEST_F(CpuKernels, CrossEntropyAndItsGradient) {
  for (const double smoothing : {0.0, 0.1}) {
    constexpr std::int64_t classes = 7;
    const std::vector<std::uint8_t> labels = {0, 6, 3, 3, 1};
    auto z = normals(labels.size() * classes);
    for (float& v : z) v *= 5;
    Output d(z.size());
    const LossResult result = cross_entropy(labels, classes, smoothing, z.data(), d.data());
    long double expected = 0;
    std::int64_t correct = 0;
    for (std::size_t n = 0; n < labels.size(); ++n) {
      const float* row = z.data() + n * classes;
      expected += cross_entropy_of(row, classes, labels[n], smoothing);
      correct += std::max_element(row, row + classes) - row == labels[n] ? 1 : 0;
      for (std::int64_t k = 0; k < classes; ++k) {
        std::vector<float> up(row, row + classes), down = up;
        up[k] += 0.01f;
        down[k] -= 0.01f;
        const long double slope =
            (cross_entropy_of(up.data(), classes, labels[n], smoothing) -
             cross_entropy_of(down.data(), classes, labels[n], smoothing)) /
            (static_cast<long double>(up[k]) - static_cast<long double>(down[k]));
        EXPECT_NEAR(d[n * classes + k], static_cast<double>(slope) / 5, 2e-6);
      }
    }
    EXPECT_NEAR(result.sum, static_cast<double>(expected), 1e-9);
    EXPECT_EQ(result.correct, correct);
  }
}

TEST_F(CpuKernels, CrossEntropyOfHugeLogitsIsFiniteAndOfNaNIsNot) {
  const std::vector<std::uint8_t> labels = {1};
  const std::vector<float> huge = {3e38f, -3e38f, 0.0f};
  EXPECT_NEAR(cross_entropy(labels, 3, 0, huge.data(), nullptr).sum, 6e38, 1e37);
  const std::vector<float> certain = {-INFINITY, 0.0f, 0.0f};
  EXPECT_NEAR(cross_entropy(labels, 3, 0, certain.data(), nullptr).sum, std::log(2), 1e-12);
  for (int at = 0; at < 3; ++at) {
    std::vector<float> bad = {1.0f, 2.0f, 0.0f};
    bad[at] = std::nanf("");
    EXPECT_EQ(squared_error(labels, 3, bad.data(), nullptr).correct, 0) << at;
    const LossResult result = cross_entropy(labels, 3, 0, bad.data(), nullptr);
    EXPECT_FALSE(std::isfinite(result.sum)) << at;
    EXPECT_EQ(result.correct, 0) << at;
    bad[at] = INFINITY;
    EXPECT_FALSE(std::isfinite(cross_entropy(labels, 3, 0, bad.data(), nullptr).sum)) << at;
  }
}

TEST_F(CpuKernels, SquaredError) {
  const std::vector<std::uint8_t> labels = {2, 0, 1};
  const auto z = normals(9);
  Output d(9);
  const LossResult result = squared_error(labels, 3, z.data(), d.data());
  double sum = 0;
  for (int n = 0; n < 3; ++n) {
    for (int k = 0; k < 3; ++k) {
      const double e = double{z[n * 3 + k]} - (k == labels[n] ? 1 : 0);
      sum += e * e / 2;
      EXPECT_NEAR(d[n * 3 + k], e / 3, 1e-7);
    }
  }
  EXPECT_NEAR(result.sum, sum, 1e-12);
}

TEST_F(CpuKernels, Gather) {
  const ImageShape shape{5, 7, 3};
  std::vector<std::uint8_t> pixels(4 * shape.size());
  for (auto& p : pixels) p = static_cast<std::uint8_t>(random_());
  std::vector<float> table(3 * 256);
  for (int i = 0; i < 3 * 256; ++i) table[i] = static_cast<float>(i) * 0.5f - 100;
  const std::vector<Pick> picks = {
      {3, {}}, {0, {2, -1, true}}, {3, {-2, 2, false}}, {1, {0, 0, true}}};
  Output batch(picks.size() * shape.size());
  gather(shape, pixels.data(), picks, table.data(), batch.data());
  for (std::size_t n = 0; n < picks.size(); ++n) {
    const auto& [example, a] = picks[n];
    // Pad, crop, then mirror, in the order of torchvision's transforms.
    for (std::int64_t y = 0; y < 5; ++y) {
      for (std::int64_t x = 0; x < 7; ++x) {
        const std::int64_t crop_x = a.flip ? 6 - x : x;
        const std::int64_t sy = y + a.dy;
        const std::int64_t sx = crop_x + a.dx;
        for (std::int64_t c = 0; c < 3; ++c) {
          const bool inside = sy >= 0 && sy < 5 && sx >= 0 && sx < 7;
          const float expected =
              inside ? table[c * 256 + pixels[((example * 5 + sy) * 7 + sx) * 3 + c]] : 0.0f;
          EXPECT_EQ(batch[((n * 5 + y) * 7 + x) * 3 + c], expected);
        }
      }
    }
  }
}

// Every form of the rule, with a different rate and decay per block.
TEST_F(CpuKernels, UpdateEqualsTheRuleElementByElement) {
  for (int form = 0; form < 8; ++form) {
    SCOPED_TRACE(form);
    constexpr std::int64_t n = 50001;
    const std::vector<UpdateBlock> blocks = {
        {0, 16384, 1, 1e-2f}, {16384, 16390, 2.5f, 0}, {16448, n, 0, 0.1f}};
    std::vector<UpdateNorms> partial(blocks.size());
    auto w = normals(n);
    auto v = normals(n);
    const auto g = normals(n);
    auto expected_w = w;
    auto expected_v = v;
    double gradient = 0, taken = 0, weight = 0;
    const SgdMomentum rule{0.9f, (form & 1) != 0, (form & 2) != 0, false};
    const UpdateScalars scalars{0.3f, 0.7f, (form & 4) != 0 ? 0.25f : 1.0f};
    for (const UpdateBlock& b : blocks) {
      const UpdateScalars own{scalars.lr * b.lr_scale, scalars.on_velocity, scalars.scale};
      for (std::int64_t i = b.begin; i < b.end; ++i) {
        const double before = expected_w[i];
        sgd_momentum(rule, own, b.weight_decay, g[i], expected_w[i], expected_v[i]);
        gradient += double{g[i]} * double{g[i]};
        taken += (before - expected_w[i]) * (before - expected_w[i]);
        weight += double{expected_w[i]} * double{expected_w[i]};
      }
    }
    auto w_without = w;
    auto v_without = v;
    const UpdateNorms none =
        update(rule, scalars, blocks, g.data(), w_without.data(), v_without.data(), nullptr);
    EXPECT_EQ(w_without, expected_w);
    EXPECT_EQ(v_without, expected_v);
    EXPECT_EQ(none.gradient + none.taken + none.weight, 0);
    const UpdateNorms norms =
        update(rule, scalars, blocks, g.data(), w.data(), v.data(), partial.data());
    EXPECT_EQ(w, expected_w);  // bit for bit, and the gap between the blocks is untouched
    EXPECT_EQ(v, expected_v);
    EXPECT_NEAR(norms.gradient / gradient, 1, 1e-12);
    EXPECT_NEAR(norms.taken / taken, 1, 1e-5);  // the difference of two rounded weights
    EXPECT_NEAR(norms.weight / weight, 1, 1e-12);
    EXPECT_NEAR(squared_norm(blocks, g.data(), partial.data()) / gradient, 1, 1e-12);
  }
}

}  // namespace
}  // namespace preheat::cpu
