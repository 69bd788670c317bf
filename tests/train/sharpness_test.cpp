#include "train/sharpness.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "backend/reference_network.h"
#include "train/random_basis.h"
#include "train/small_run.h"

namespace preheat {
namespace {

using Matrix = std::vector<std::vector<double>>;

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

double dot(const std::vector<float>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class SharpnessTest : public testing::Test {
 protected:
  std::vector<double> random_vector(std::size_t n) {
    std::normal_distribution<double> normal;
    std::vector<double> v(n);
    for (double& x : v) x = normal(random_);
    return v;
  }

  std::vector<float> random_unit(std::size_t n) {
    const std::vector<double> v = random_vector(n);
    std::vector<float> unit;
    for (const double x : v) unit.push_back(static_cast<float>(x / norm(v)));
    return unit;
  }

  // Eigenvalues of which the first is the largest in magnitude, by at least a third.
  std::vector<double> random_spectrum(std::size_t n, double largest) {
    std::uniform_real_distribution<double> share(-0.75, 0.75);
    std::vector<double> values = {largest};
    while (values.size() < n) values.push_back(share(random_) * largest);
    return values;
  }

  const unsigned seed_ = std::random_device{}();
  std::mt19937_64 random_{seed_};
};

// The loss (w - c) H (w - c) / 2 of a matrix with known eigenvalues and eigenvectors (rows).
struct Bowl {
  std::vector<double> values;
  Matrix vectors;
  std::vector<float> weights;
  std::vector<double> centre;

  void gradient(std::span<const float> w, std::span<float> g) const {
    std::vector<double> sum(w.size(), 0.0);
    for (std::size_t k = 0; k < values.size(); ++k) {
      double share = 0;
      for (std::size_t i = 0; i < w.size(); ++i) share += vectors[k][i] * (w[i] - centre[i]);
      for (std::size_t i = 0; i < w.size(); ++i) sum[i] += values[k] * share * vectors[k][i];
    }
    for (std::size_t i = 0; i < w.size(); ++i) g[i] = static_cast<float>(sum[i]);
  }
  Hessian hessian() const {
    return {[this](std::span<const float> w, std::span<float> g) { gradient(w, g); }, weights};
  }
};

class SharpnessOfABowl : public SharpnessTest {
 protected:
  // A start that is not orthogonal to the eigenvectors of the `count` largest eigenvalues: from one
  // that almost is, they would not be found.
  std::vector<float> random_start(const Bowl& b, std::size_t count = 1) {
    while (true) {
      const std::vector<float> start = random_unit(b.values.size());
      double share = 0;
      for (std::size_t k = 0; k < count; ++k) share += std::pow(dot(start, b.vectors[k]), 2);
      if (std::sqrt(share) >= 0.02) return start;
    }
  }

  Bowl bowl(std::vector<double> values) {
    const std::size_t n = values.size();
    Bowl b{std::move(values), random_basis(random_, n, n), random_unit(n), random_vector(n)};
    for (double& c : b.centre) c /= std::sqrt(static_cast<double>(n));
    return b;
  }
};

TEST_F(SharpnessOfABowl, IsItsLargestEigenvalueInMagnitude) {
  for (const std::size_t n : {1, 2, 3, 17, 64}) {
    for (const double largest : {5.0, -5.0, 3e4, 1e-7}) {
      SCOPED_TRACE(fmt::format("seed {}, {} weights, {}", seed_, n, largest));
      const Bowl b = bowl(random_spectrum(n, largest));
      Hessian hessian = b.hessian();
      std::vector<float> direction = random_start(b);
      const Sharpness s = measure_sharpness(hessian, direction, 1e-4, 100);
      EXPECT_NEAR(s.value, largest, 2e-3 * std::fabs(largest));
      EXPECT_LE(2 * s.residual * s.residual, 1e-4);
      EXPECT_NEAR(std::fabs(dot(direction, b.vectors[0])), 1, 1e-3);
      EXPECT_NEAR(norm({direction.begin(), direction.end()}), 1, 1e-5);
      EXPECT_TRUE(s.agrees());
      EXPECT_NEAR(s.wide, s.value, 2e-3 * std::fabs(largest));
      EXPECT_EQ(hessian.gradients(), 1 + s.iterations + 2);
    }
  }
}

TEST_F(SharpnessOfABowl, HasAnEigenvalueAsNearAsTheResidual) {
  for (int trial = 0; trial < 20; ++trial) {
    const Bowl b = bowl(random_vector(12));
    Hessian hessian = b.hessian();
    std::vector<float> direction = random_unit(12);
    const Sharpness s = measure_sharpness(hessian, direction, 1e-12, 1 + trial % 5);
    EXPECT_EQ(s.iterations, 1 + trial % 5);
    double nearest = INFINITY;
    for (const double v : b.values) nearest = std::min(nearest, std::fabs(v - s.value));
    const double noise = 2e-3 * std::fabs(s.value) + 1e-3;
    EXPECT_LE(nearest, s.residual * std::fabs(s.value) + noise) << "seed " << seed_;
  }
}

TEST_F(SharpnessOfABowl, ProductsAreSymmetric) {
  const Bowl b = bowl(random_vector(30));
  Hessian hessian = b.hessian();
  const std::vector<float> u = random_unit(30);
  const std::vector<float> v = random_unit(30);
  const std::vector<float> hu = hessian.times(u);
  const std::vector<float> hv = hessian.times(v);
  double uhv = 0;
  double exact = 0;
  for (std::size_t i = 0; i < 30; ++i) uhv += u[i] * hv[i];
  for (std::size_t k = 0; k < 30; ++k) {
    exact += b.values[k] * dot(u, b.vectors[k]) * dot(v, b.vectors[k]);
  }
  EXPECT_NEAR(uhv, exact, 2e-3);
  EXPECT_NEAR(dot(v, {hu.begin(), hu.end()}), exact, 2e-3);
  EXPECT_NEAR(hessian.along(u), dot(u, {hu.begin(), hu.end()}), 2e-3);
}

TEST_F(SharpnessOfABowl, OfEqualEigenvaluesIsTheirs) {
  SCOPED_TRACE(fmt::format("seed {}", seed_));
  for (const auto& [values, count] : {std::pair{std::vector<double>{5, 5, 5, 1, -2, 0}, 3},
                                      std::pair{std::vector<double>{-4, -4, 1, 0, 0}, 2}}) {
    const double largest = values[0];
    const Bowl b = bowl(values);
    Hessian hessian = b.hessian();
    std::vector<float> direction = random_start(b, count);
    EXPECT_NEAR(measure_sharpness(hessian, direction, 1e-4, 50).value, largest, 1e-2);
  }
  // Of two that differ only in sign, one is found, with a small residual.
  const Bowl b = bowl({6, -6, 1, 2, -3});
  Hessian hessian = b.hessian();
  std::vector<float> direction = random_start(b, 2);
  const Sharpness s = measure_sharpness(hessian, direction, 1e-4, 50);
  EXPECT_NEAR(std::fabs(s.value), 6, 2e-2);
  EXPECT_LE(s.residual, 1e-2);
}

TEST_F(SharpnessOfABowl, OfNoneIsZero) {
  const Bowl b = bowl(std::vector<double>(8, 0.0));
  Hessian hessian = b.hessian();
  const std::vector<float> start = random_unit(8);
  std::vector<float> direction = start;
  const Sharpness s = measure_sharpness(hessian, direction, 0.01, 30);
  EXPECT_EQ(s.value, 0);
  EXPECT_EQ(s.residual, 0);
  EXPECT_EQ(s.iterations, 1);
  EXPECT_EQ(direction, start);
  EXPECT_TRUE(s.agrees());
}

TEST_F(SharpnessOfABowl, StartsFromWhereItEnded) {
  Bowl b = bowl(random_spectrum(60, 7));
  Hessian hessian = b.hessian();
  std::vector<float> direction = random_start(b);
  // At 0.01 one start in eighty ends at another eigenvalue, where the later ones would then begin.
  const Sharpness first = measure_sharpness(hessian, direction, 1e-4, 100);
  ASSERT_NEAR(first.value, 7, 0.01);
  const std::int64_t cold = first.iterations;
  EXPECT_GE(cold, 3);
  EXPECT_EQ(measure_sharpness(hessian, direction, 0.01, 100).iterations, 1);
  // Rotates two eigenvectors a little.
  for (std::size_t i = 0; i < 60; ++i) {
    const double u = b.vectors[0][i];
    const double v = b.vectors[1][i];
    b.vectors[0][i] = std::cos(0.1) * u - std::sin(0.1) * v;
    b.vectors[1][i] = std::sin(0.1) * u + std::cos(0.1) * v;
  }
  Hessian turned = b.hessian();
  const Sharpness warm = measure_sharpness(turned, direction, 0.01, 100);
  EXPECT_LT(warm.iterations, cold);
  EXPECT_NEAR(warm.value, 7, 0.15);
}

// The direction is almost an eigenvector, but no longer that of the largest eigenvalue.
TEST_F(SharpnessOfABowl, AnEigenvalueThatOvertakesIsFoundInTime) {
  std::vector<double> values = random_spectrum(20, 2);
  values[1] = 3;
  const Bowl b = bowl(values);
  Hessian hessian = b.hessian();
  std::vector<float> direction(20);
  for (std::size_t i = 0; i < 20; ++i) {
    direction[i] = static_cast<float>(b.vectors[0][i] + 1e-3 * b.vectors[1][i]);
  }
  EXPECT_NEAR(measure_sharpness(hessian, direction, 0.01, 30).value, 2, 0.02);
  Sharpness s;
  for (int i = 0; i < 20; ++i) s = measure_sharpness(hessian, direction, 0.01, 30);
  EXPECT_NEAR(s.value, 3, 0.03);
}

TEST_F(SharpnessOfABowl, EndsAfterEnoughIterations) {
  // Eigenvalues that are close together, and more weights than directions are kept.
  std::vector<double> values;
  for (int i = 0; i < 150; ++i) values.push_back(1 + 1e-3 * i);
  const Bowl b = bowl(values);
  for (const std::int64_t most : {1, 3, 29, 30, 31, 75}) {
    Hessian hessian = b.hessian();
    std::vector<float> direction = random_unit(150);
    const Sharpness s = measure_sharpness(hessian, direction, 1e-30, most);
    EXPECT_EQ(s.iterations, most);
    EXPECT_EQ(hessian.gradients(), 1 + most + 2);
    EXPECT_LE(s.value, 1.151);
    EXPECT_GE(s.value, most > 25 ? 1.12 : 1.0);
    EXPECT_NEAR(norm({direction.begin(), direction.end()}), 1, 1e-5);
  }
}

TEST_F(SharpnessOfABowl, TheWideStepIsTakenWhereItIsAskedFor) {
  const Bowl b = bowl({3, 1});
  Hessian hessian = b.hessian();
  std::vector<float> direction = random_unit(2);
  const Sharpness s = measure_sharpness(hessian, direction, 0.01, 30, false);
  EXPECT_EQ(hessian.gradients(), 1 + s.iterations);
  EXPECT_TRUE(std::isnan(s.wide));
  EXPECT_FALSE(s.agrees());
}

TEST_F(SharpnessOfABowl, IsNotFiniteWhereAGradientIsNot) {
  const Bowl b = bowl(random_spectrum(10, 4));
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int good : {0, 1, 4}) {
      int asked = 0;
      Hessian hessian(
          [&](std::span<const float> w, std::span<float> g) {
            b.gradient(w, g);
            if (asked++ >= good) g[3] = bad;
          },
          b.weights);
      const std::vector<float> start = random_unit(10);
      std::vector<float> direction = start;
      const Sharpness s = measure_sharpness(hessian, direction, 1e-6, 30);
      EXPECT_TRUE(std::isnan(s.value));
      EXPECT_TRUE(std::isnan(s.wide));
      EXPECT_TRUE(std::isnan(s.residual));
      EXPECT_FALSE(s.agrees());
      EXPECT_EQ(direction, start);
      EXPECT_EQ(s.iterations, std::max(good, 1));  // the first iteration takes two gradients
      EXPECT_EQ(hessian.gradients(), s.iterations + 1);
    }
  }
}

// A loss with third derivatives, which make a product too large on one side and too small on the
// other. Products are taken on alternate sides: the further the start, the more products there are,
// and the more of their errors cancels.
TEST_F(SharpnessOfABowl, ThirdDerivativesCancelFromAStartThatIsNotNear) {
  struct Start {
    double degrees;  // from the eigenvector
    double least;    // of the error, relative to that of one product
    double most;
  };
  for (const Start& start : {Start{0, 0.9, 1.1}, {45, 0.2, 0.55}, {75, 0, 0.25}}) {
    SCOPED_TRACE(fmt::format("seed {}, {} degrees", seed_, start.degrees));
    double one_sided = 0;
    double in_turn = 0;
    double both_sides = 0;
    constexpr int trials = 40;
    for (int trial = 0; trial < trials; ++trial) {
      Bowl b = bowl(random_spectrum(40, 7));
      b.centre.assign(b.weights.begin(), b.weights.end());
      // (u w)^3 c / 6 along a u near the first eigenvector; e c = 1, a seventh of the curvature.
      const double c = 1 / narrow_step;
      const std::vector<double> aside = random_vector(40);
      std::vector<double> u = b.vectors[0];
      for (std::size_t i = 0; i < 40; ++i) u[i] += 0.2 * aside[i] / norm(aside);
      Hessian hessian(
          [&](std::span<const float> w, std::span<float> g) {
            b.gradient(w, g);
            double along = 0;
            for (std::size_t i = 0; i < 40; ++i) along += u[i] * (double{w[i]} - b.centre[i]);
            for (std::size_t i = 0; i < 40; ++i) {
              g[i] += static_cast<float>(c * along * along / 2 * u[i]);
            }
          },
          b.weights);
      const double angle = start.degrees * 3.14159265358979323846 / 180;
      std::vector<double> across = random_vector(40);
      const std::vector<float> first(b.vectors[0].begin(), b.vectors[0].end());
      const double share = dot(first, across);
      for (std::size_t i = 0; i < 40; ++i) across[i] -= share * b.vectors[0][i];
      std::vector<float> direction;
      for (std::size_t i = 0; i < 40; ++i) {
        direction.push_back(static_cast<float>(std::cos(angle) * b.vectors[0][i] +
                                               std::sin(angle) * across[i] / norm(across)));
      }
      const Sharpness s = measure_sharpness(hessian, direction, 1e-2, 30, false);
      in_turn += std::fabs(s.value - 7) / trials;
      const std::vector<float> product = hessian.times(first);
      one_sided += std::fabs(dot(first, {product.begin(), product.end()}) - 7) / trials;
      both_sides += std::fabs(hessian.along(first) - 7) / trials;
    }
    EXPECT_NEAR(one_sided, 0.5, 0.05);
    EXPECT_LT(both_sides, 0.02);
    EXPECT_GE(in_turn, start.least * one_sided);
    EXPECT_LE(in_turn, start.most * one_sided);
  }
}

// One weight of 1 and a loss w^2 / 2 whose gradient jumps by `jump` between the two steps.
TEST(SharpnessAtAKink, DoesNotAgreeWithItself) {
  for (const auto& [share, agrees] : {std::pair{0.19, true}, std::pair{0.21, false}}) {
    const auto jump = static_cast<float>(share * 2 * wide_step);
    const std::vector<float> weights = {1};
    Hessian hessian([&](std::span<const float> w,
                        std::span<float> g) { g[0] = w[0] + (w[0] > 1.0006f ? jump : 0.0f); },
                    weights);
    std::vector<float> direction = {1};
    const Sharpness s = measure_sharpness(hessian, direction, 0.01, 30);
    EXPECT_NEAR(s.value, 1, 1e-3);
    EXPECT_NEAR(s.wide, 1 + share, 2e-3);
    EXPECT_EQ(s.agrees(), agrees);
  }
}

TEST(RandomDirection, IsUniformOnTheSphereOfAllParameters) {
  const RunConfig config = config_of();
  const Network network = build_network(config, {28, 28, 1}, 10);
  const std::vector<float> direction = random_direction(network, 5);
  ASSERT_EQ(static_cast<std::int64_t>(direction.size()), network.arena_size);
  EXPECT_EQ(direction, random_direction(network, 5));
  EXPECT_NE(direction, random_direction(network, 6));
  std::vector<double> inside;
  std::vector<bool> is_inside(direction.size(), false);
  for (const Parameter& p : network.parameters) {
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
      inside.push_back(direction[i]);
      is_inside[i] = true;
    }
  }
  for (std::size_t i = 0; i < direction.size(); ++i) {
    if (!is_inside[i]) {
      EXPECT_EQ(direction[i], 0);
    }
  }
  EXPECT_NEAR(norm(inside), 1, 1e-5);
  // A normal distribution's moments, to five standard errors.
  const auto n = static_cast<double>(inside.size());
  double mean = 0;
  double fourth = 0;
  for (const double v : inside) {
    mean += v * std::sqrt(n) / n;
    fourth += std::pow(v * std::sqrt(n), 4) / n;
  }
  EXPECT_NEAR(mean, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(fourth, 3, 5 * std::sqrt(96 / n));
}

// A network's Hessian, entry by entry, from second differences of its loss in double.
TEST_F(SharpnessTest, OfANetworkIsThatOfItsLossInDouble) {
  const std::int64_t examples = 11;
  Dataset data;
  data.shape = {5, 5, 2};
  data.classes = 3;
  std::uniform_int_distribution<int> byte(0, 255);
  for (std::int64_t i = 0; i < examples * data.shape.size(); ++i) {
    data.pixels.push_back(static_cast<std::uint8_t>(byte(random_)));
  }
  for (std::int64_t i = 0; i < examples; ++i) {
    data.labels.push_back(static_cast<std::uint8_t>(byte(random_) % 3));
  }
  const RunConfig config = read_config(
      parse_document("model: {layers: [{conv: {out: 3, batch_norm: true, activation: none}}, "
                     "{global_avg_pool: }, {linear: {out: 3}}], init: {gain: 2}}\n",
                     "network.yaml"));
  const Network network = build_network(config, data.shape, data.classes);
  ReplicaOptions options;
  options.normalize = {{0.4, 0.6}, {0.3, 0.2}};
  const auto probe =
      shared_backend().probe(network, options, shared_backend().load(data), examples);
  std::vector<float> weights = initial_parameters(network, config.model, seed_);
  std::vector<std::int64_t> places;
  std::normal_distribution<float> normal;
  for (const Parameter& p : network.parameters) {
    for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
      places.push_back(i);
      weights[i] += 0.1f * normal(random_);
    }
  }

  reference::Values images;
  for (std::size_t i = 0; i < data.pixels.size(); ++i) {
    const auto& [mean, std] = options.normalize;
    images.push_back((data.pixels[i] / 255.0 - mean[i % 2]) / std[i % 2]);
  }
  reference::Values w(weights.begin(), weights.end());
  const auto loss = [&] {
    const reference::Values z = reference::logits(network, w, examples, images);
    double sum = 0;
    for (std::int64_t n = 0; n < examples; ++n) {
      double all = 0;
      for (int k = 0; k < 3; ++k) all += std::exp(z[3 * n + k]);
      sum += std::log(all) - z[3 * n + data.labels[n]];
    }
    return sum / examples;
  };
  const std::size_t n = places.size();
  Matrix h(n, std::vector<double>(n));
  constexpr double step = 2e-4;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const auto at = [&](double a, double b) {
        w[places[i]] += a * step;
        w[places[j]] += b * step;
        const double l = loss();
        w[places[j]] -= b * step;
        w[places[i]] -= a * step;
        return l;
      };
      h[i][j] = h[j][i] = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / (4 * step * step);
    }
  }
  // Its largest eigenvalue in magnitude: powers of H^2 do not alternate in sign.
  std::vector<double> v = random_vector(n);
  const auto times = [&](const std::vector<double>& x) {
    std::vector<double> y(n, 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) y[i] += h[i][j] * x[j];
    }
    return y;
  };
  double squared = 0;
  for (int i = 0; i < 2000; ++i) {
    const double length = norm(v);
    for (double& x : v) x /= length;
    v = times(times(v));
    squared = norm(v);
  }

  Hessian hessian([&](std::span<const float> x, std::span<float> g) { probe->gradient(x, g); },
                  weights);
  // As in random_start: not orthogonal to v.
  std::vector<float> start;
  double share = 0;
  for (std::uint64_t seed = seed_; std::fabs(share) < 0.02 * squared; ++seed) {
    start = random_direction(network, seed);
    share = 0;
    for (std::size_t i = 0; i < n; ++i) share += start[places[i]] * v[i];
  }
  std::vector<float> direction = start;
  const Sharpness s = measure_sharpness(hessian, direction, 1e-4, 60);
  EXPECT_NEAR(std::fabs(s.value), std::sqrt(squared), 0.02 * std::sqrt(squared))
      << "seed " << seed_;
  EXPECT_TRUE(s.agrees()) << s.value << " " << s.wide;
  // Measured again it is the same: the probe kept nothing of all those batches.
  Hessian again([&](std::span<const float> x, std::span<float> g) { probe->gradient(x, g); },
                weights);
  EXPECT_EQ(measure_sharpness(again, start, 1e-4, 60).value, s.value);
}

}  // namespace
}  // namespace preheat
