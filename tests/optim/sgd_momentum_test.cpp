#include "optim/sgd_momentum.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "schedule/schedule.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

// On the loss c w^2 / 2 an update is linear in (w, v), so k updates are a product of k matrices:
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
      // A warmup, then a decay: the rate changes at every update.
      const float lr =
          k < 20 ? 0.02f * static_cast<float>(k + 1) : 0.4f / static_cast<float>(k - 18);
      sgd_momentum(rule, {lr, rule.momentum}, 0, c * w, w, v);
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

// At a constant rate the eigenvalues of that matrix are the roots of z^2 - (1 + m - lr c) z + m.
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
    sgd_momentum(rule, {lr, rule.momentum}, 0, c * w, w, v);
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
    const float taken = sgd_momentum({m, nesterov}, {lr, m}, decay, g, w, v);

    const double decayed = static_cast<double>(g) + static_cast<double>(decay) * w0;
    const double velocity = static_cast<double>(m) * v0 + decayed;
    const double expected = nesterov ? decayed + static_cast<double>(m) * velocity : velocity;
    const double scale = std::fabs(g) + std::fabs(w0) + std::fabs(v0);
    constexpr double rounding = 0x1p-23;
    ASSERT_NEAR(v, velocity, 2 * rounding * scale);
    ASSERT_NEAR(taken, static_cast<double>(lr) * expected, 5 * rounding * scale);
    ASSERT_NEAR(w, static_cast<double>(w0) - static_cast<double>(lr) * expected,
                6 * rounding * scale);
  }
}

TEST(SgdMomentum, TheFirstUpdateIsAPlainStep) {
  for (const float momentum : {0.0f, 0.5f, 0.99f}) {
    float w = 0.75f;
    float v = 0;
    EXPECT_EQ(sgd_momentum({momentum}, {0.5f, momentum}, 0, 0.25f, w, v), 0.125f);
    EXPECT_EQ(v, 0.25f);
    EXPECT_EQ(w, 0.625f);
  }
}

TEST(SgdMomentum, ARateOfZeroMovesTheVelocityAlone) {
  float w = 1.5f;
  float v = 2;
  sgd_momentum({0.5f}, {0, 0.5f}, 0, 3, w, v);
  EXPECT_EQ(w, 1.5f);
  EXPECT_EQ(v, 4.0f);
}

TEST(SgdMomentum, LetsNonFiniteGradientsThrough) {
  for (const float bad : {NAN, INFINITY}) {
    float w = 1;
    float v = 1;
    sgd_momentum({}, {0.1f, 0.9f}, 0, bad, w, v);
    EXPECT_FALSE(std::isfinite(w));
    EXPECT_FALSE(std::isfinite(v));
  }
}

// Recorded from torch.optim.SGD of PyTorch 1.13.0 on the gradient c w + b, with the rate set before
// every update.
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
        sgd_momentum({0.9f, run.nesterov}, {lr, 0.9f}, run.weight_decay, c[i] * w[i] + b[i], w[i],
                     v[i]);
      }
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(w[i], run.weights[i], 2e-6) << run.nesterov << run.weight_decay << i;
      EXPECT_NEAR(v[i], run.velocity[i], 1e-5) << run.nesterov << run.weight_decay << i;
    }
  }
}

// Updates at the given rates, on a gradient that depends on the weight.
struct Weight {
  float w = 0;
  float v = 0;
};
template <class Gradient>
Weight trained(const SgdMomentum& rule, const std::vector<float>& rates, float start,
               const Gradient& gradient) {
  Weight x{start, 0};
  float previous = 0;
  for (const float lr : rates) {
    sgd_momentum(rule, update_scalars(rule, lr, previous, 0, 0), 0, gradient(x.w), x.w, x.v);
    previous = lr;
  }
  return x;
}

std::vector<float> ramp_and_decay(int warmup, int rest, float peak) {
  std::vector<float> rates;
  for (int k = 1; k <= warmup; ++k) {
    rates.push_back(peak * static_cast<float>(k) / static_cast<float>(warmup));
  }
  for (int k = 1; k <= rest; ++k) {
    rates.push_back(peak * (1 - static_cast<float>(k) / static_cast<float>(rest + 1)));
  }
  return rates;
}

constexpr SgdMomentum separate{0.9f, false, false, false};
constexpr SgdMomentum folded{0.9f, false, true, false};
constexpr SgdMomentum corrected{0.9f, false, true, true};

// The same matrices for the folded form: v' = m v + lr c w, w' = (1 - lr c) w - m v.
TEST(FoldedMomentum, IsAProductOfMatricesOnAQuadratic) {
  const float c = 0.7f;
  const std::vector<float> rates = ramp_and_decay(20, 40, 0.5f);
  long double w = 1.5L;
  long double v = 0;
  for (const float lr : rates) {
    const long double old = w;
    w = (1 - lr * static_cast<long double>(c)) * w - 0.9f * static_cast<long double>(v);
    v = 0.9f * static_cast<long double>(v) + lr * static_cast<long double>(c) * old;
  }
  const Weight x = trained(folded, rates, 1.5f, [&](float weight) { return c * weight; });
  EXPECT_NEAR(x.w, static_cast<double>(w), 2e-6);
  EXPECT_NEAR(x.v, static_cast<double>(v), 2e-6);
}

// Goyal et al. 2017, section 3: with the correction the folded form is the separate one.
TEST(FoldedMomentum, CorrectedItIsTheSeparateForm) {
  const std::vector<float> rates = ramp_and_decay(100, 200, 0.3f);
  for (const bool nesterov : {false, true}) {
    SgdMomentum a = separate;
    SgdMomentum b = corrected;
    a.nesterov = b.nesterov = nesterov;
    const auto gradient = [](float w) { return 0.4f * w + 0.1f * std::sin(3 * w); };
    for (std::size_t n = 1; n <= rates.size(); ++n) {
      const std::vector<float> some(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(n));
      const Weight x = trained(a, some, 2, gradient);
      const Weight y = trained(b, some, 2, gradient);
      ASSERT_NEAR(x.w, y.w, 2e-6) << n;
      ASSERT_NEAR(some.back() * x.v, y.v, 2e-6) << n;
    }
  }
}

// Without the correction the velocity lags behind the rate. With a gradient of 1 and a ramp a t,
// the separate form moves by a t (1 - m^t) / (1 - m) at update t. The folded form, whose velocity
// still has the lower rates of earlier updates, moves by a (t - m (1 - m^t) / (1 - m)) / (1 - m).
// These are the sums of m^j a t and of m^j a (t - j).
TEST(FoldedMomentum, UncorrectedItLagsBehindARamp) {
  const double m = folded.momentum;
  const int n = 100;
  const auto one = [](float) { return 1.0f; };
  double moved[2] = {};
  for (int t = 1; t <= n; ++t) {
    std::vector<float> rates;
    for (int k = 1; k <= t; ++k) rates.push_back(1e-4f * static_cast<float>(k));
    const double a = 1e-4;
    const double geometric = (1 - std::pow(m, t)) / (1 - m);
    moved[0] += a * t * geometric;
    moved[1] += a * (t - m * geometric) / (1 - m);
    ASSERT_NEAR(trained(separate, rates, 0, one).w, -moved[0], 2e-5 * moved[0]) << t;
    ASSERT_NEAR(trained(folded, rates, 0, one).w, -moved[1], 2e-5 * moved[1]) << t;
    ASSERT_NEAR(trained(corrected, rates, 0, one).w, -moved[0], 2e-5 * moved[0]) << t;
  }
}

// docs/schedules.md says how much less far a weight moves in the folded form: its figures, against
// the rule at the rates of a warmup.
TEST(FoldedMomentum, HowFarItLagsBehind) {
  std::string docs = bytes_of(PREHEAT_SOURCE_DIR "/docs/schedules.md");
  std::ranges::replace(docs, '\n', ' ');
  std::smatch stated;
  ASSERT_TRUE(std::regex_search(
      docs, stated,
      std::regex("constant gradient and m = 0\\.9, a ramp of (\\d+) updates moves a weight "
                 "([\\d.]+) % less far \\((\\d+) updates: ([\\d.]+) %; (\\d+): ([\\d.]+) %;")));
  const auto one = [](float) { return 1.0f; };
  for (std::size_t i = 1; i < stated.size(); i += 2) {
    const std::string length = stated[i];
    const RunConfig config = read_config(
        parse_document(fmt::format("schedule: {{base_lr: 1, warmup: {{length: {0} steps}}}}\n"
                                   "train: {{length: {0} steps}}\n",
                                   length),
                       "ramp.yaml"));
    const Schedule schedule = resolve_schedule(config, run_length(config, 1));
    std::vector<float> rates;
    for (std::int64_t k = 0; k < schedule.run.steps; ++k) {
      rates.push_back(static_cast<float>(lr_at(schedule.lr, k)));
    }
    const double less = 1 - trained(folded, rates, 0, one).w / trained(separate, rates, 0, one).w;
    EXPECT_EQ(fmt::format("{:.1f}", 100 * less), stated[i + 1]) << length << " updates";
  }
}

TEST(FoldedMomentum, ACorrectionAfterARateOfZeroIsNone) {
  const UpdateScalars first = update_scalars(corrected, 0.1f, 0, 0, 0);
  EXPECT_EQ(first.on_velocity, 0.9f);
  const UpdateScalars next = update_scalars(corrected, 0.3f, 0.1f, 0, 0);
  EXPECT_FLOAT_EQ(next.on_velocity, 2.7f);
  EXPECT_EQ(update_scalars(folded, 0.3f, 0.1f, 0, 0).on_velocity, 0.9f);
  EXPECT_EQ(update_scalars(separate, 0.3f, 0.1f, 0, 0).on_velocity, 0.9f);
  // A warmup from 0 and a restart after 0 stay finite.
  const Weight x = trained(corrected, {0, 0.1f, 0.2f, 0, 0.2f}, 1, [](float w) { return w; });
  EXPECT_TRUE(std::isfinite(x.w) && std::isfinite(x.v));
}

TEST(ClipNorm, ScalesTheGradientBeforeTheDecay) {
  EXPECT_EQ(update_scalars(separate, 1, 1, 4, 0).scale, 1.0f);
  EXPECT_EQ(update_scalars(separate, 1, 1, 4, 5).scale, 1.0f);
  EXPECT_EQ(update_scalars(separate, 1, 1, 5, 5).scale, 1.0f);
  EXPECT_EQ(update_scalars(separate, 1, 1, 10, 5).scale, 0.5f);
  float w = 2;
  float v = 0;
  sgd_momentum(separate, {1, 0.9f, 0.5f}, 0.25f, 3, w, v);
  EXPECT_EQ(v, 0.5f * 3 + 0.25f * 2);
}

// Recorded from keras.optimizers.SGD of Keras 3.15.1 and torch.optim.SGD of PyTorch 1.13.0 on the
// gradient c w + b at the same rates: two libraries, two rules.
TEST(FoldedMomentum, EqualsKerasWhereTheSeparateFormEqualsPyTorch) {
  struct Recorded {
    bool is_folded;
    bool nesterov;
    float weights[4];
    float velocity[4];
  };
  const Recorded recorded[] = {
      {true,
       false,
       {-0.178413182f, -0.114786267f, -1.3953383f, -0.011468783f},
       {0.13547942f, -0.241836101f, 0.456276119f, -0.0715062246f}},
      {true,
       true,
       {-0.229226112f, 0.0407992899f, -0.953897238f, -0.0901652277f},
       {0.119223982f, -0.227122426f, 0.303154051f, -0.00450553838f}},
      {false,
       false,
       {-0.336225927f, 0.144223392f, -2.24419713f, -0.0230525825f},
       {2.2652781f, -4.7953167f, -2.10242319f, -2.79780436f}},
      {false,
       true,
       {-0.355331779f, 0.260752261f, -1.46842337f, -0.090762645f},
       {2.08014846f, -4.57505798f, 0.026371479f, -0.145284057f}},
  };
  const std::vector<float> rates = {0.01f, 0.02f, 0.03f, 0.05f, 0.08f, 0.08f, 0.06f, 0.01f};
  const float c[4] = {1.0f, 0.5f, 3.0f, 10.0f};
  const float b[4] = {0.25f, -0.5f, 0.0f, 1.0f};
  const float start[4] = {0.5f, -1.25f, 2.0f, 0.125f};
  for (const Recorded& run : recorded) {
    for (int i = 0; i < 4; ++i) {
      const Weight x = trained({0.9f, run.nesterov, run.is_folded}, rates, start[i],
                               [&](float w) { return c[i] * w + b[i]; });
      EXPECT_NEAR(x.w, run.weights[i], 2e-6) << run.is_folded << run.nesterov << i;
      EXPECT_NEAR(x.v, run.velocity[i], 1e-5) << run.is_folded << run.nesterov << i;
    }
  }
}

}  // namespace
}  // namespace preheat
