#include "train/gradient_noise.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "train/small_run.h"

namespace preheat {
namespace {

class GradientNoiseTest : public testing::Test {
 protected:
  // An arena with value(parameter, place) in its tensors, and between them what must not count.
  template <class Value>
  std::vector<float> arena(const Value& value) const {
    std::vector<float> arena(network_.arena_size, 7.0f);
    for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
      const Parameter& p = network_.parameters[i];
      for (std::int64_t k = 0; k < p.size; ++k) {
        arena[p.offset + k] = static_cast<float>(value(i, k));
      }
    }
    return arena;
  }

  const Network network_ = build_network(config_of(), {28, 28, 1}, 10);
  const unsigned seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
  std::mt19937 random_{seed_};
  std::normal_distribution<double> normal_;
};

// Also where the noise is a millionth of the mean, whose square a difference of squares would lose.
TEST_F(GradientNoiseTest, IsWhatLongDoubleSays) {
  struct Case {
    int n;
    double mean;
    double spread;
  };
  for (const Case& c : {Case{2, 0, 1}, Case{3, 0.3, 1}, Case{11, 5, 0.01}, Case{7, 1000, 1e-3}}) {
    SCOPED_TRACE(fmt::format("{} gradients, mean {}, spread {}", c.n, c.mean, c.spread));
    std::vector<std::vector<float>> gradients;
    GradientMoments moments(network_);
    for (int g = 0; g < c.n; ++g) {
      gradients.push_back(
          arena([&](std::size_t, std::int64_t) { return c.mean + c.spread * normal_(random_); }));
      moments.add(gradients.back());
    }
    const std::vector<GradientNoise> found = moments.noise();
    ASSERT_EQ(found.size(), network_.parameters.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      const Parameter& p = network_.parameters[i];
      long double noise = 0;
      long double square = 0;
      for (std::int64_t k = p.offset; k < p.offset + p.size; ++k) {
        long double m = 0;
        for (const auto& g : gradients) m += g[k];
        m /= c.n;
        for (const auto& g : gradients) noise += (g[k] - m) * (g[k] - m) / (c.n - 1);
        square += m * m;
      }
      EXPECT_NEAR(found[i].noise, static_cast<double>(noise), 1e-8 * static_cast<double>(noise));
      EXPECT_NEAR(found[i].signal, static_cast<double>(square - noise / c.n),
                  1e-12 * static_cast<double>(square + noise));
    }
  }
}

// Gaussian gradients with the covariance S = diag(d) + u u^T in each tensor. The estimates are
// those of the trace of S and of |mean|^2 on average over many draws, with the variances
//   noise:  2 tr(S^2) / (n - 1),
//   signal: 2 tr(S^2) / n^2 + 4 mean S mean / n + 2 tr(S^2) / (n^2 (n - 1)),
// since sample mean and sample covariance are independent. An average is further away than five
// times its standard error once in a million.
TEST_F(GradientNoiseTest, IsWithoutBias) {
  const std::vector<float> mean = arena([&](std::size_t i, std::int64_t) {
    return i == 1 ? 0 : normal_(random_) / (1 + static_cast<double>(i));  // a tensor without signal
  });
  const std::vector<float> d =
      arena([&](std::size_t, std::int64_t) { return std::exp(normal_(random_)); });
  const std::vector<float> u = arena([&](std::size_t, std::int64_t) { return normal_(random_); });
  constexpr int draws = 400;
  for (const int n : {2, 5}) {
    std::vector<GradientNoise> sums(network_.parameters.size());
    int without_signal = 0;
    for (int draw = 0; draw < draws; ++draw) {
      GradientMoments moments(network_);
      for (int g = 0; g < n; ++g) {
        std::vector<double> shared;
        for (std::size_t i = 0; i < sums.size(); ++i) shared.push_back(normal_(random_));
        moments.add(arena([&](std::size_t i, std::int64_t k) {
          const std::int64_t at = network_.parameters[i].offset + k;
          return mean[at] + std::sqrt(d[at]) * normal_(random_) + u[at] * shared[i];
        }));
      }
      const std::vector<GradientNoise> found = moments.noise();
      for (std::size_t i = 0; i < sums.size(); ++i) {
        sums[i] = sum_of(std::vector<GradientNoise>{sums[i], found[i]});
      }
      if (found[1].signal <= 0) {
        ++without_signal;
        EXPECT_TRUE(std::isnan(found[1].scale(32)));
      }
    }
    EXPECT_GT(without_signal, draws / 10);
    EXPECT_LT(without_signal, draws);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      const Parameter& p = network_.parameters[i];
      SCOPED_TRACE(fmt::format("{} gradients, {}", n, p.name));
      double trace = 0;
      double square = 0;             // |mean|^2
      double squares[] = {0, 0, 0};  // d d, u d u, u u
      double along[] = {0, 0};       // mean d mean, mean u
      for (std::int64_t k = p.offset; k < p.offset + p.size; ++k) {
        const double m = mean[k];
        const double v = u[k];
        trace += d[k] + v * v;
        square += m * m;
        squares[0] += double{d[k]} * d[k];
        squares[1] += v * d[k] * v;
        squares[2] += v * v;
        along[0] += m * d[k] * m;
        along[1] += m * v;
      }
      const double trace_of_square = squares[0] + 2 * squares[1] + squares[2] * squares[2];
      const double of_noise = 2 * trace_of_square / (n - 1);
      const double of_signal = 2 * trace_of_square / (n * n) +
                               4 * (along[0] + along[1] * along[1]) / n + of_noise / (n * n);
      EXPECT_NEAR(sums[i].noise / draws, trace, 5 * std::sqrt(of_noise / draws));
      EXPECT_NEAR(sums[i].signal / draws, square, 5 * std::sqrt(of_signal / draws));
    }
  }
}

// At the batch size that the scale names, noise and signal are equal: the noise falls as 1 / B.
TEST_F(GradientNoiseTest, HasAScaleInExamples) {
  EXPECT_EQ((GradientNoise{2, 6}).scale(32), 96);
  EXPECT_EQ((GradientNoise{0.5, 0}).scale(32), 0);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const GradientNoise& none :
       {GradientNoise{0, 6}, GradientNoise{-1, 6}, GradientNoise{0, 0}, GradientNoise{nan, nan}}) {
    EXPECT_TRUE(std::isnan(none.scale(32)));
  }
  const GradientNoise sum = sum_of(std::vector<GradientNoise>{{2, 6}, {-1, 0.5}, {0.25, 1}});
  EXPECT_EQ(sum.signal, 1.25);
  EXPECT_EQ(sum.noise, 7.5);
}

TEST_F(GradientNoiseTest, DoesNotExistWhereAGradientIsNotFinite) {
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    for (const int place : {0, 1, 2}) {
      GradientMoments moments(network_);
      for (int g = 0; g < 3; ++g) {
        std::vector<float> gradient =
            arena([&](std::size_t, std::int64_t) { return normal_(random_); });
        if (g == place) gradient[network_.parameters[2].offset + 1] = bad;
        moments.add(gradient);
      }
      const std::vector<GradientNoise> found = moments.noise();
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(std::isnan(found[i].noise), i == 2);
        EXPECT_EQ(std::isnan(found[i].signal), i == 2);
      }
    }
  }
}

}  // namespace
}  // namespace preheat
