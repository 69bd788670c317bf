#include "data/random.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <random>
#include <vector>

namespace preheat {
namespace {

// The normal quantile, by bisection of the distribution function in long double.
long double quantile(long double u) {
  if (u > 0.5L) return -quantile(1 - u);
  long double low = -40;
  long double high = 0;
  for (int i = 0; i < 200; ++i) {
    const long double middle = (low + high) / 2;
    (std::erfc(-middle / std::numbers::sqrt2_v<long double>) / 2 < u ? low : high) = middle;
  }
  return (low + high) / 2;
}

TEST(NormalQuantile, IsTheInverseOfTheDistribution) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  std::vector<double> us = {0x1p-33, 0x1.8p-32, 1e-300, 0.075, 0.0750001,
                            0.49,    0.499999,  1e-11,  0.925};
  for (int i = 0; i < 300; ++i) us.push_back(unit(static_cast<std::uint32_t>(random())));
  for (int i = 0; i < 100; ++i) us.push_back(std::exp(-static_cast<double>(random() % 600) - 0.7));
  for (const double u : us) {
    const auto expected = static_cast<double>(quantile(static_cast<long double>(u)));
    EXPECT_NEAR(normal_quantile(u), expected, 1e-13 * std::fabs(expected)) << fmt::format("{}", u);
  }
}

TEST(NormalQuantile, IsOddAboutOneHalf) {
  EXPECT_EQ(normal_quantile(0.5), 0.0);
  // u and 1 - u are both exact for multiples of 2^-33, the only arguments in use.
  std::mt19937 random(7);
  for (int i = 0; i < 1000; ++i) {
    const double u = unit(static_cast<std::uint32_t>(random()));
    ASSERT_EQ(normal_quantile(u), -normal_quantile(1 - u)) << fmt::format("{}", u);
  }
  EXPECT_NEAR(normal_quantile(0x1p-33), -6.338, 1e-3);  // the largest possible weight, in stds
}

TEST(Words, AreThoseOfTheirPositions) {
  for (const std::int64_t count : {0, 1, 4, 7, 8}) {
    std::int64_t visited = 0;
    for_words(9, RandomStream::initial_weights, 3, count, [&](std::int64_t k, std::uint32_t word) {
      EXPECT_EQ(k, visited++);
      const Random4 words = philox(9, RandomStream::initial_weights, 3, k / 4);
      EXPECT_EQ(word, words.value[k % 4]) << k;
    });
    EXPECT_EQ(visited, count);
  }
}

}  // namespace
}  // namespace preheat
