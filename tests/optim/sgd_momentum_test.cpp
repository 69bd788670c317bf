#include "optim/sgd_momentum.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace preheat {
namespace {

// On the loss c w^2 / 2 an update is linear in (w, v), so that k updates are a product of k
// matrices:
//   v' = m v + c w,  w' = w - lr v' = (1 - lr c) w - lr m v.
TEST(SgdMomentum, IsAProductOfMatricesOnAQuadratic) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> unit(0.0f, 1.0f);
  for (int trial = 0; trial < 50; ++trial) {
    const float c = 0.1f + 2 * unit(random);
    const float m = 0.95f * unit(random);
    const float start = 2 * unit(random) - 1;
    const SgdMomentum rule{m, false};
    float w = start;
    float v = 0;
    long double product[2][2] = {{1, 0}, {0, 1}};
    for (int k = 0; k < 60; ++k) {
      // A warmup, then a decay: the rate moves at every update.
      const float lr =
          k < 20 ? 0.02f * static_cast<float>(k + 1) : 0.4f / static_cast<float>(k - 18);
      sgd_momentum(rule, lr, 0, c * w, w, v);
      const long double a[2][2] = {{1 - static_cast<long double>(lr) * c, -1.0L * lr * m}, {c, m}};
      long double next[2][2] = {};
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
          for (int l = 0; l < 2; ++l) next[i][j] += a[i][l] * product[l][j];
        }
      }
      std::copy(&next[0][0], &next[0][0] + 4, &product[0][0]);
      ASSERT_NEAR(w, static_cast<double>(product[0][0] * start), 2e-5) << "update " << k;
      ASSERT_NEAR(v, static_cast<double>(product[1][0] * start), 2e-5) << "update " << k;
    }
  }
}

// At a constant rate both eigenvalues of that matrix are the roots of z^2 - (1 + m - lr c) z + m.
TEST(SgdMomentum, OscillatesWithTheEigenvaluesOfTheRecurrence) {
  const SgdMomentum rule{0.81f, false};
  const float c = 1.0f;
  const float lr = 0.1f;  // the roots are a complex pair of modulus sqrt(m) = 0.9
  const double m = rule.momentum;
  const double angle = std::acos((1 + m - static_cast<double>(lr)) / (2 * std::sqrt(m)));
  float w = 1;
  float v = 0;
  // w_k = 0.9^k (cos(k a) + s sin(k a)) with w_1 = 1 - lr.
  const double s =
      ((1 - static_cast<double>(lr)) / std::sqrt(m) - std::cos(angle)) / std::sin(angle);
  for (int k = 1; k <= 40; ++k) {
    sgd_momentum(rule, lr, 0, c * w, w, v);
    EXPECT_NEAR(w, std::pow(m, k / 2.0) * (std::cos(k * angle) + s * std::sin(k * angle)), 1e-6)
        << k;
  }
}

TEST(SgdMomentum, FollowsTheTextbookWithDecayAndNesterov) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> unit(0.0f, 1.0f);
  for (int trial = 0; trial < 20000; ++trial) {
    const bool nesterov = trial % 2 == 1;
    const float m = trial % 5 == 0 ? 0.0f : unit(random);
    const float decay = trial % 3 == 0 ? 0.0f : 0.1f * unit(random);
    const float lr = unit(random);
    const float g = normal(random);
    const float w0 = normal(random);
    const float v0 = normal(random);
    float w = w0;
    float v = v0;
    const float direction = sgd_momentum({m, nesterov}, lr, decay, g, w, v);

    const double decayed = static_cast<double>(g) + static_cast<double>(decay) * w0;
    const double velocity = static_cast<double>(m) * v0 + decayed;
    const double expected = nesterov ? decayed + static_cast<double>(m) * velocity : velocity;
    const double scale = std::fabs(g) + std::fabs(w0) + std::fabs(v0);
    constexpr double rounding = 0x1p-23;
    ASSERT_NEAR(v, velocity, 2 * rounding * scale);
    ASSERT_NEAR(direction, expected, 4 * rounding * scale);
    ASSERT_NEAR(w, static_cast<double>(w0) - static_cast<double>(lr) * expected,
                6 * rounding * scale);
  }
}

TEST(SgdMomentum, TheFirstUpdateIsAPlainStep) {
  for (const float momentum : {0.0f, 0.5f, 0.99f}) {
    float w = 0.75f;
    float v = 0;
    EXPECT_EQ(sgd_momentum({momentum, false}, 0.5f, 0, 0.25f, w, v), 0.25f);
    EXPECT_EQ(v, 0.25f);
    EXPECT_EQ(w, 0.625f);
  }
}

TEST(SgdMomentum, ARateOfZeroMovesTheVelocityAlone) {
  float w = 1.5f;
  float v = 2;
  sgd_momentum({0.5f, false}, 0, 0, 3, w, v);
  EXPECT_EQ(w, 1.5f);
  EXPECT_EQ(v, 4.0f);
}

TEST(SgdMomentum, LetsNonFiniteGradientsThrough) {
  for (const float bad : {NAN, INFINITY}) {
    float w = 1;
    float v = 1;
    sgd_momentum({}, 0.1f, 0, bad, w, v);
    EXPECT_FALSE(std::isfinite(w));
    EXPECT_FALSE(std::isfinite(v));
  }
}

// torch.optim.SGD of PyTorch 1.13.0 on the gradient c w + b, its rate set before every update.
TEST(SgdMomentum, EqualsPyTorch) {
  struct Recorded {
    bool nesterov;
    float weight_decay;
    float weights[4];
    float velocity[4];
  };
  const Recorded recorded[] = {
      {false,
       0.0f,
       {-0.195131481f, -0.108946577f, -1.79714656f, -0.129032433f},
       {2.29136157f, -4.83198357f, -3.11962986f, -5.51670647f}},
      {false,
       0.01f,
       {-0.198491246f, -0.0983245969f, -1.80219269f, -0.128392115f},
       {2.28908873f, -4.85572052f, -3.20824027f, -5.51212406f}},
      {true,
       0.01f,
       {-0.239806145f, 0.031983491f, -1.3134129f, -0.102235742f},
       {2.0589962f, -4.60080147f, -1.7919023f, -0.618934989f}},
  };
  const float c[4] = {1.0f, 0.5f, 3.0f, 10.0f};
  const float b[4] = {0.25f, -0.5f, 0.0f, 1.0f};
  for (const Recorded& run : recorded) {
    float w[4] = {0.5f, -1.25f, 2.0f, 0.125f};
    float v[4] = {};
    for (const float lr : {0.01f, 0.02f, 0.04f, 0.08f, 0.08f, 0.04f, 0.02f, 0.01f}) {
      for (int i = 0; i < 4; ++i) {
        sgd_momentum({0.9f, run.nesterov}, lr, run.weight_decay, c[i] * w[i] + b[i], w[i], v[i]);
      }
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(w[i], run.weights[i], 2e-6) << run.nesterov << run.weight_decay << i;
      EXPECT_NEAR(v[i], run.velocity[i], 1e-5) << run.nesterov << run.weight_decay << i;
    }
  }
}

}  // namespace
}  // namespace preheat
