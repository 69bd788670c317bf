#include "experiment/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/error.h"

namespace preheat {
namespace {

using ::testing::HasSubstr;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::array alternatives{Alternative::two_sided, Alternative::increasing,
                                  Alternative::decreasing};

std::string error_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Twice the mean rank of each value, by counting the smaller and the equal ones.
std::vector<int> doubled_ranks(const std::vector<double>& values) {
  std::vector<int> ranks;
  for (const double value : values) {
    int rank = 1;
    for (const double other : values) rank += (other < value ? 2 : 0) + (other == value ? 1 : 0);
    ranks.push_back(rank);
  }
  return ranks;
}

std::vector<double> doubles(const std::vector<int>& values) {
  return {values.begin(), values.end()};
}

// Few values, so that there are ties.
std::vector<double> coarse(std::size_t n, int values, std::mt19937& generator) {
  std::vector<double> result(n);
  std::ranges::generate(result,
                        [&] { return 0.25 * (static_cast<int>(generator() % values) - 2); });
  return result;
}

double binomial(int n, int k) {
  double result = 1;
  for (int i = 1; i <= k; ++i) result = result * (n - k + i) / i;
  return result;
}

// An exact test attains each of its p-values with that probability: among equally likely outcomes,
// a share of p has a p-value of at most p.
void expect_attained(const std::vector<double>& p_values) {
  std::vector<double> sorted = p_values;
  std::ranges::sort(sorted);
  for (const double p : std::set<double>(sorted.begin(), sorted.end())) {
    const auto as_small = std::ranges::upper_bound(sorted, p * (1 + 1e-12)) - sorted.begin();
    EXPECT_NEAR(static_cast<double>(as_small) / static_cast<double>(sorted.size()), p, 1e-12);
  }
}

// Hollander and Wolfe, "Nonparametric statistical methods", 1973, p. 29, Hamilton depression scale
// under a tranquilizer (R's ?wilcox.test: V = 40, one-sided p = 0.01953). Darwin's maize: scipy
// 1.17.1, wilcoxon(method="exact").
TEST(Wilcoxon, MatchesTextbooks) {
  const std::vector<double> before{1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30};
  const std::vector<double> after{0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29};
  std::vector<double> differences(before.size());
  std::ranges::transform(before, after, differences.begin(), std::minus{});
  const SignedRank depression = wilcoxon_signed_rank(differences);
  EXPECT_EQ(depression.n, 9);
  EXPECT_EQ(depression.w_plus, 40);
  EXPECT_EQ(depression.w_minus, 5);
  EXPECT_DOUBLE_EQ(depression.p, 2 * 10 / 512.0);

  const SignedRank maize = wilcoxon_signed_rank(
      std::vector<double>{49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48});
  EXPECT_EQ(maize.w_minus, 24);
  EXPECT_DOUBLE_EQ(maize.p, 0.041259765625);

  // Student's sleep data have a zero and a tie; scipy 1.17.1 enumerates them too.
  const SignedRank sleep =
      wilcoxon_signed_rank(std::vector{1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4});
  EXPECT_EQ(sleep.n, 9);
  EXPECT_EQ(sleep.w_plus, 45);
  EXPECT_DOUBLE_EQ(sleep.p, 0.00390625);
}

// Differences of sizes 1..n whose negative ones have ranks that sum to w.
std::vector<double> with_sum(int n, int w) {
  std::vector<double> differences;
  for (int size = n; size >= 1; --size) {
    differences.push_back(size <= w ? -size : size);
    if (size <= w) w -= size;
  }
  return differences;
}

// Wilcoxon, Wilcox: "Some rapid approximate statistical procedures", 1964, table 2: the largest sum
// that is significant at two-sided 5 % and 1 %, -1 if none is.
TEST(Wilcoxon, MatchesTheTableOfCriticalValues) {
  struct Row {
    int n, at_5, at_1;
  };
  constexpr Row rows[] = {{5, -1, -1},  {6, 0, -1},     {7, 2, -1},    {8, 3, 0},
                          {9, 5, 1},    {10, 8, 3},     {15, 25, 15},  {20, 52, 37},
                          {25, 89, 68}, {30, 137, 109}, {50, 434, 373}};
  for (const Row& row : rows) {
    for (const auto& [critical, level] : {std::pair{row.at_5, 0.05}, {row.at_1, 0.01}}) {
      SCOPED_TRACE(testing::Message() << "n " << row.n << ", " << level);
      if (critical >= 0) {
        const SignedRank result = wilcoxon_signed_rank(with_sum(row.n, critical));
        EXPECT_EQ(result.w_minus, critical);
        EXPECT_LE(result.p, level);
      }
      EXPECT_GT(wilcoxon_signed_rank(with_sum(row.n, critical + 1)).p, level);
    }
  }
}

// All patterns of signs of random sizes, with ties and without; p is counted from them.
TEST(Wilcoxon, IsExact) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (int repetition = 0; repetition < 6; ++repetition) {
    const int n = 5 + repetition;
    std::vector<double> sizes(n);
    std::ranges::generate(
        sizes, [&] { return static_cast<double>(1 + generator() % (repetition < 3 ? 4 : 1000)); });
    const std::vector<int> ranks = doubled_ranks(sizes);
    const int total = n * (n + 1);
    std::map<int, double> patterns_with_sum;
    std::vector<int> sums;
    std::vector<double> p_values;
    for (int signs = 0; signs < 1 << n; ++signs) {
      std::vector<double> differences = sizes;
      int sum = 0;
      for (int i = 0; i < n; ++i) {
        if ((signs >> i & 1) != 0) sum += ranks[i];
        if ((signs >> i & 1) == 0) differences[i] = -differences[i];
      }
      const SignedRank result = wilcoxon_signed_rank(differences);
      ASSERT_EQ(2 * result.w_plus, sum);
      ASSERT_EQ(2 * result.w_minus, total - sum);
      p_values.push_back(result.p);
      sums.push_back(sum);
      ++patterns_with_sum[sum];
    }
    for (std::size_t i = 0; i < sums.size(); ++i) {
      double as_far = 0;
      for (const auto& [sum, patterns] : patterns_with_sum) {
        if (std::abs(2 * sum - total) >= std::abs(2 * sums[i] - total)) as_far += patterns;
      }
      ASSERT_NEAR(p_values[i], as_far / (1 << n), 1e-14);
    }
    expect_attained(p_values);
  }
}

TEST(Wilcoxon, KnowsSignsAndOrderOfSizesOnly) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (int repetition = 0; repetition < 50; ++repetition) {
    std::vector<double> differences = coarse(3 + repetition, 9, generator);
    const SignedRank result = wilcoxon_signed_rank(differences);
    std::ranges::shuffle(differences, generator);
    EXPECT_EQ(wilcoxon_signed_rank(differences).w_plus, result.w_plus);
    for (double& d : differences) d = d * d * d;
    EXPECT_EQ(wilcoxon_signed_rank(differences).w_plus, result.w_plus);
    EXPECT_EQ(wilcoxon_signed_rank(differences).p, result.p);
    for (double& d : differences) d *= -1e-3;
    EXPECT_EQ(wilcoxon_signed_rank(differences).w_minus, result.w_plus);
    EXPECT_EQ(wilcoxon_signed_rank(differences).p, result.p);
    differences.insert(differences.begin(), {0.0, -0.0});
    EXPECT_EQ(wilcoxon_signed_rank(differences).n, result.n);
    EXPECT_EQ(wilcoxon_signed_rank(differences).p, result.p);
  }
}

// Accuracies are hits over the size of the test set, so differences tie, which rounding hides.
TEST(Wilcoxon, RoundingDoesNotBreakTies) {
  const std::vector<int> first{9312, 9280, 9301, 9295, 9333, 9320, 9290, 9310};
  const std::vector<int> second{9300, 9268, 9306, 9290, 9321, 9315, 9302, 9298};
  std::vector<double> hits;
  std::vector<double> accuracies;
  std::set<double> sizes;
  for (std::size_t i = 0; i < first.size(); ++i) {
    hits.push_back(first[i] - second[i]);
    accuracies.push_back(first[i] / 10000.0 - second[i] / 10000.0);
    sizes.insert(std::abs(accuracies.back()));
  }
  ASSERT_GT(sizes.size(), 2);  // without rounding only two: 5 and 12 hits
  EXPECT_EQ(wilcoxon_signed_rank(accuracies).w_plus, wilcoxon_signed_rank(hits).w_plus);
  EXPECT_EQ(wilcoxon_signed_rank(accuracies).p, wilcoxon_signed_rank(hits).p);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector{1.0, -1.0 - 1e-8}).w_minus, 2);
}

// Counted in Python, with integers of any length.
TEST(Wilcoxon, IsExactForHundredsOfDifferences) {
  EXPECT_NEAR(wilcoxon_signed_rank(with_sum(100, 1800)).p, 0.01229976438448247, 1e-15);
  EXPECT_NEAR(wilcoxon_signed_rank(with_sum(500, 56000)).p, 0.040345596054128754, 1e-14);
}

// 600 differences with ties: scipy 1.17.1, wilcoxon(method="asymptotic", correction=True). Where
// the approximation takes over, it is close to the exact p.
TEST(Wilcoxon, ApproximatesForManyDifferences) {
  std::vector<double> differences(600);
  for (int i = 0; i < 600; ++i) differences[i] = i * 7919 % 1201 - 550;
  const SignedRank result = wilcoxon_signed_rank(differences);
  EXPECT_EQ(result.n, 600);
  EXPECT_EQ(result.w_minus, 75106.5);
  EXPECT_NEAR(result.p, 0.00039824240923595446, 1e-15);
  EXPECT_LT(result.w_minus, result.w_plus);

  for (const int w : {54000, 56000, 62000}) {
    const double exact = wilcoxon_signed_rank(with_sum(500, w)).p;
    const double near = wilcoxon_signed_rank(with_sum(501, w + 250)).p;
    EXPECT_LT(exact, 1);
    EXPECT_NEAR(near / exact, 1, 0.05) << w;
  }
}

TEST(Wilcoxon, TheEdges) {
  for (const auto& differences : {std::vector<double>{}, {0.0}, {0.0, 0.0, -0.0}}) {
    const SignedRank result = wilcoxon_signed_rank(differences);
    EXPECT_EQ(result.n, 0);
    EXPECT_EQ(result.w_plus, 0);
    EXPECT_EQ(result.w_minus, 0);
    EXPECT_EQ(result.p, 1);
  }
  EXPECT_EQ(wilcoxon_signed_rank(std::vector{3.0}).p, 1);
  EXPECT_EQ(wilcoxon_signed_rank(std::vector(10, -0.1)).p, 2 / 1024.0);
  EXPECT_GT(wilcoxon_signed_rank(std::vector(500, 1.0)).p, 0);
  EXPECT_THAT(error_of([] { wilcoxon_signed_rank(std::vector{1.0, nan}); }), HasSubstr("nan"));
  EXPECT_THAT(error_of([] {
                wilcoxon_signed_rank(std::vector{1.0, -infinity});
              }),
              HasSubstr("inf"));
}

// Hollander and Wolfe 1973, p. 187, tuna lightness (R's ?cor.test); scipy 1.17.1: spearmanr, and
// permutation_test(permutation_type="pairings", n_resamples=inf).
TEST(Spearman, MatchesScipy) {
  const std::vector<double> lightness{44.4, 45.9, 41.9, 53.3, 44.7, 44.1, 50.7, 45.2, 60.1};
  const std::vector<double> score{2.6, 3.1, 2.5, 5.0, 3.6, 4.0, 5.2, 2.8, 3.8};
  EXPECT_NEAR(spearman(lightness, score).rho, 0.6, 1e-15);
  EXPECT_NEAR(spearman(lightness, score).p, 0.09679783950617284, 1e-15);
  EXPECT_NEAR(spearman(lightness, score, Alternative::increasing).p, 0.04839891975308642, 1e-15);
  EXPECT_NEAR(spearman(lightness, score, Alternative::decreasing).p, 0.9571373456790123, 1e-15);

  const std::vector<double> x{1, 2, 2, 3, 4, 5, 5};
  const std::vector<double> y{2, 1, 3, 3, 3, 6, 5};
  EXPECT_NEAR(spearman(x, y).rho, 0.8680790595108567, 1e-15);
  EXPECT_NEAR(spearman(x, y).p, 0.01904761904761905, 1e-15);
  EXPECT_NEAR(spearman(x, y, Alternative::increasing).p, 0.009523809523809525, 1e-15);
}

// Ramsey: "Critical values for Spearman's rank order correlation", J. Educ. Statist. 14, 1989: the
// smallest rho significant at one-sided 5 % and at two-sided 5 %.
TEST(Spearman, MatchesTheTableOfCriticalValues) {
  struct Row {
    int n;
    double one_sided, two_sided;
  };
  constexpr Row rows[] = {{5, 0.900, 1.000}, {6, 0.829, 0.886}, {7, 0.714, 0.786},
                          {8, 0.643, 0.738}, {9, 0.600, 0.700}, {10, 0.564, 0.648}};
  for (const Row& row : rows) {
    std::vector<int> identity(row.n);
    std::iota(identity.begin(), identity.end(), 1);
    for (const auto& [rho, alternative] : {std::pair{row.one_sided, Alternative::increasing},
                                           {row.two_sided, Alternative::two_sided}}) {
      // rho = 1 - squares / (n (n^2 - 1) / 6), and squares is even.
      const int squares =
          2 * static_cast<int>(std::lround((1 - rho) * row.n * (row.n * row.n - 1) / 12));
      for (const int step : {0, 2}) {
        SCOPED_TRACE(testing::Message() << "n " << row.n << ", rho " << rho << ", step " << step);
        std::vector<int> order = identity;
        const auto distance = [&] {
          return std::inner_product(order.begin(), order.end(), identity.begin(), 0, std::plus{},
                                    [](int a, int b) { return (a - b) * (a - b); });
        };
        while (distance() != squares + step)
          ASSERT_TRUE(std::ranges::next_permutation(order).found);
        const Correlation found = spearman(doubles(identity), doubles(order), alternative);
        if (step == 0) {
          EXPECT_NEAR(found.rho, rho, 6e-4);
          EXPECT_LE(found.p, 0.05);
        } else {
          EXPECT_GT(found.p, 0.05);
        }
      }
    }
  }
}

TEST(Spearman, APerfectOrderHasTheSmallestP) {
  const std::vector<double> x{1, 16, 64, 256, 1024};
  const std::vector<double> rising{-3, 1, 2, 2.5, 7};
  EXPECT_EQ(spearman(x, rising).rho, 1);
  EXPECT_EQ(spearman(x, rising, Alternative::increasing).p, 1 / 120.0);
  EXPECT_EQ(spearman(x, rising, Alternative::decreasing).p, 1);
  EXPECT_EQ(spearman(x, rising).p, 2 / 120.0);
}

// All orders of y; p is counted from them.
TEST(Spearman, IsExact) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (const std::size_t n : {2, 3, 5, 6, 6}) {
    const std::vector<double> x = coarse(n, 7, generator);
    const std::vector<double> y = coarse(n, 6, generator);
    const std::vector<int> x_ranks = doubled_ranks(x);
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::vector<std::vector<double>> orders;
    std::vector<int> products;
    do {
      std::vector<double> ordered;
      for (const std::size_t i : order) ordered.push_back(y[i]);
      const std::vector<int> ranks = doubled_ranks(ordered);
      products.push_back(std::inner_product(ranks.begin(), ranks.end(), x_ranks.begin(), 0));
      orders.push_back(ordered);
    } while (std::ranges::next_permutation(order).found);
    // The mean of the products of doubled ranks.
    const int center = static_cast<int>(n * (n + 1) * (n + 1));
    for (const Alternative alternative : alternatives) {
      std::vector<double> p_values;
      for (std::size_t i = 0; i < orders.size(); ++i) {
        const auto hits = std::ranges::count_if(products, [&](int product) {
          if (alternative == Alternative::increasing) return product >= products[i];
          if (alternative == Alternative::decreasing) return product <= products[i];
          return std::abs(product - center) >= std::abs(products[i] - center);
        });
        p_values.push_back(spearman(x, orders[i], alternative).p);
        ASSERT_NEAR(p_values.back(), static_cast<double>(hits) / static_cast<double>(orders.size()),
                    1e-14);
      }
      expect_attained(p_values);
    }
  }
}

TEST(Spearman, KnowsOrderOnly) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (int repetition = 0; repetition < 30; ++repetition) {
    const std::size_t n = 2 + repetition % 7;
    const std::vector<double> x = coarse(n, 9, generator);
    const std::vector<double> y = coarse(n, 9, generator);
    const Correlation found = spearman(x, y);
    EXPECT_NEAR(spearman(y, x).rho, found.rho, 1e-15);
    EXPECT_NEAR(spearman(y, x).p, found.p, 1e-14);
    std::vector<double> moved = x;
    for (double& value : moved) value = std::exp(40 * value);
    EXPECT_EQ(spearman(moved, y).rho, found.rho);
    EXPECT_EQ(spearman(moved, y).p, found.p);
    for (double& value : moved) value = -value;
    EXPECT_EQ(spearman(moved, y).rho, -found.rho);
    EXPECT_NEAR(spearman(moved, y, Alternative::increasing).p,
                spearman(x, y, Alternative::decreasing).p, 1e-14);
  }
}

// If x and y have two values each, a random order is a draw from an urn: the number of large y that
// meet a large x is hypergeometric.
TEST(Spearman, RandomOrdersMatchTheUrn) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::vector<double> x(20, 0);
  std::vector<double> y(20, 0);
  std::fill_n(x.begin(), 8, 1.0);
  std::fill_n(y.begin() + 3, 7, 1.0);  // five of the seven meet a large x
  const auto probability = [](int k) {
    return binomial(7, k) * binomial(13, 8 - k) / binomial(20, 8);
  };
  const double rising = probability(5) + probability(6) + probability(7);
  const double falling = 1 - probability(6) - probability(7);
  // As far from the mean of 2.8: five or more, and none.
  const double either = rising + probability(0);
  constexpr int permutations = 20000;
  const auto expect = [&](Alternative alternative, double p) {
    EXPECT_NEAR(spearman(x, y, alternative, permutations, seed).p, p,
                5 * std::sqrt(p * (1 - p) / permutations) + 1.0 / permutations);
  };
  expect(Alternative::increasing, rising);
  expect(Alternative::decreasing, falling);
  expect(Alternative::two_sided, either);
}

// The p of the random orders is from a second implementation of the generator, in Python.
TEST(Spearman, RandomOrdersAreTheSameEverywhere) {
  std::vector<double> x(12);
  std::iota(x.begin(), x.end(), 0.0);
  std::vector<double> y{0.3, 0.1, 0.2, 0.9, 0.4, 0.8, 0.35, 0.7, 0.15, 1.0, 0.6, 0.5};
  EXPECT_NEAR(spearman(x, y).rho, 0.4125874125874127, 1e-15);  // scipy 1.17.1
  EXPECT_DOUBLE_EQ(spearman(x, y, Alternative::increasing, 999, 5).p, 80 / 1000.0);
  EXPECT_DOUBLE_EQ(spearman(x, y, Alternative::two_sided, 999, 5).p, 174 / 1000.0);
  EXPECT_NE(spearman(x, y, Alternative::increasing, 999, 6).p, 80 / 1000.0);
  std::vector<double> blocks = y;
  std::rotate(y.begin(), y.begin() + 3, y.end());
  blocks.insert(blocks.end(), y.begin(), y.end());
  EXPECT_DOUBLE_EQ(page_trend(x, blocks, Alternative::increasing, 999, 5).p, 636 / 1000.0);
  // None of the random orders is as good; the observed order counts as one.
  EXPECT_DOUBLE_EQ(spearman(x, x, Alternative::increasing, 999, 5).p, 1 / 1000.0);
}

TEST(Spearman, TheEdges) {
  for (const auto& [x, y] : {std::pair<std::vector<double>, std::vector<double>>{{}, {}},
                             {{1}, {2}},
                             {{1, 1, 1}, {1, 2, 3}},
                             {{1, 2, 3}, {5, 5, 5}},
                             {std::vector(30, 1.0), std::vector(30, 2.0)}}) {
    for (const Alternative alternative : alternatives) {
      EXPECT_EQ(spearman(x, y, alternative).rho, 0);
      EXPECT_EQ(spearman(x, y, alternative).p, 1);
    }
  }
  const std::vector x{1.0, 2.0, 3.0};
  EXPECT_THAT(error_of([&] { spearman(x, std::vector{1.0}); }),
              HasSubstr("3 values cannot be paired with 1"));
  EXPECT_THAT(error_of([&] { spearman(x, std::vector{1.0, 2.0, nan}); }), HasSubstr("nan"));
  EXPECT_THAT(error_of([&] { spearman(std::vector{1.0, infinity, 0.0}, x); }), HasSubstr("inf"));
  EXPECT_THAT(error_of([&] { spearman(x, x, Alternative::increasing, 0); }),
              HasSubstr("0 permutations are too few"));
}

// n rankings of k levels whose L is `below` less than the largest possible.
std::vector<double> blocks_with_l(int k, int n, int below) {
  std::vector<double> outcomes;
  for (int block = 0; block < n; ++block) {
    std::vector<int> order(k);
    std::iota(order.begin(), order.end(), 1);
    std::vector<int> best = order;
    int most = 0;
    do {
      int less = 0;
      for (int i = 0; i < k; ++i) less += (i + 1) * (i + 1 - order[i]);
      if (less > most && less <= below) {
        most = less;
        best = order;
      }
    } while (std::ranges::next_permutation(order).found);
    below -= most;
    outcomes.insert(outcomes.end(), best.begin(), best.end());
  }
  return below == 0 ? outcomes : std::vector<double>{};
}

// Page 1963, table 2: the smallest L significant at 5, 1 and 0.1 %; 0 if none is.
TEST(PageTrend, MatchesTheTableOfCriticalValues) {
  struct Row {
    int levels, blocks;
    std::array<int, 3> critical;
  };
  constexpr Row rows[] = {
      {3, 2, {28, 0, 0}},       {3, 3, {41, 42, 0}},      {3, 4, {54, 55, 56}},
      {3, 7, {91, 93, 96}},     {3, 10, {128, 131, 134}}, {3, 12, {153, 156, 160}},
      {4, 2, {58, 60, 0}},      {4, 3, {84, 87, 89}},     {4, 5, {137, 141, 145}},
      {4, 10, {266, 272, 278}}, {5, 2, {103, 106, 109}},  {5, 3, {150, 155, 160}},
      {5, 6, {291, 299, 307}},  {5, 10, {477, 487, 499}}, {6, 2, {166, 173, 178}},
      {6, 5, {397, 409, 420}},  {7, 3, {370, 382, 394}},  {8, 2, {362, 375, 388}},
  };
  constexpr std::array levels_of_p{0.05, 0.01, 0.001};
  for (const Row& row : rows) {
    std::vector<double> levels(row.levels);
    std::iota(levels.begin(), levels.end(), 1.0);
    const int largest = row.blocks * row.levels * (row.levels + 1) * (2 * row.levels + 1) / 6;
    for (std::size_t i = 0; i < levels_of_p.size(); ++i) {
      SCOPED_TRACE(testing::Message()
                   << row.levels << " levels, " << row.blocks << " blocks, " << levels_of_p[i]);
      const auto at = [&](int l) {
        return page_trend(levels, blocks_with_l(row.levels, row.blocks, largest - l),
                          Alternative::increasing);
      };
      const int critical = row.critical[i];
      if (critical > 0) {
        EXPECT_EQ(at(critical).l, critical);
        EXPECT_EQ(at(critical).blocks, row.blocks);
        EXPECT_LE(at(critical).p, levels_of_p[i]);
        EXPECT_GT(at(critical - 1).p, levels_of_p[i]);
        EXPECT_EQ(at(critical - 1).l, critical - 1);
      } else {
        EXPECT_GT(at(largest).p, levels_of_p[i]);
      }
    }
  }
}

// scipy 1.17.1: page_trend_test(outcomes, method="exact"). Its example of ratings has ties, which
// scipy ignores (0.0018): that p is from an enumeration in fractions.
TEST(PageTrend, MatchesScipy) {
  const std::vector<double> outcomes{
      2.041, -2.256, 1.018,  0.332, 0.747, -0.216, -1.72, 0.368, 0.035, 4.523, 0.226, -0.053, 0.319,
      0.232, 0.145,  -0.391, 0.782, 0.361, 1.858,  1.0,   0.024, 1.846, 1.145, 0.395, 1.017};
  const std::vector<double> warmup{1, 16, 64, 256, 1024};
  const PageTrend trend = page_trend(warmup, outcomes, Alternative::increasing);
  EXPECT_EQ(trend.l, 240);
  EXPECT_NEAR(trend.p, 0.09972125012056327, 1e-13);

  const std::vector<double> ratings{3, 4, 3, 2, 2, 4, 3, 3, 5, 1, 3, 2, 2, 3, 2,
                                    2, 4, 5, 1, 2, 4, 3, 4, 4, 2, 4, 5, 1, 3, 4};
  const PageTrend tied = page_trend(std::vector{1.0, 2.0, 3.0}, ratings, Alternative::increasing);
  EXPECT_EQ(tied.l, 133.5);
  EXPECT_NEAR(tied.p, 0.00038421480465376215, 1e-15);
}

// All orders within all blocks; p is counted from them.
TEST(PageTrend, IsExact) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (const auto& [k, n] : {std::pair{3, 3}, {3, 4}, {4, 2}, {2, 5}}) {
    const std::vector<double> levels = coarse(k, 20, generator);
    const std::vector<int> level_ranks = doubled_ranks(levels);
    // What the blocks so far could have been, and the products with the levels.
    std::vector<std::vector<double>> ways(1);
    std::vector<int> products(1, 0);
    for (int block = 0; block < n; ++block) {
      const std::vector<double> outcome = coarse(k, 5, generator);
      std::vector<std::vector<double>> longer;
      std::vector<int> sums;
      for (std::size_t way = 0; way < ways.size(); ++way) {
        std::vector<int> order(k);
        std::iota(order.begin(), order.end(), 0);
        do {
          std::vector<double> ordered;
          for (const int i : order) ordered.push_back(outcome[i]);
          const std::vector<int> ranks = doubled_ranks(ordered);
          sums.push_back(
              std::inner_product(ranks.begin(), ranks.end(), level_ranks.begin(), products[way]));
          longer.push_back(ways[way]);
          longer.back().insert(longer.back().end(), ordered.begin(), ordered.end());
        } while (std::ranges::next_permutation(order).found);
      }
      ways = std::move(longer);
      products = std::move(sums);
    }
    const int center = n * k * (k + 1) * (k + 1);
    for (const Alternative alternative : alternatives) {
      std::vector<double> p_values;
      for (std::size_t i = 0; i < ways.size(); ++i) {
        const PageTrend trend = page_trend(levels, ways[i], alternative);
        ASSERT_EQ(4 * trend.l, products[i]);
        const auto hits = std::ranges::count_if(products, [&](int product) {
          if (alternative == Alternative::increasing) return product >= products[i];
          if (alternative == Alternative::decreasing) return product <= products[i];
          return std::abs(product - center) >= std::abs(products[i] - center);
        });
        ASSERT_NEAR(trend.p, static_cast<double>(hits) / static_cast<double>(ways.size()), 1e-13);
        p_values.push_back(trend.p);
      }
      expect_attained(p_values);
    }
  }
}

TEST(PageTrend, OneBlockIsSpearman) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (int repetition = 0; repetition < 30; ++repetition) {
    const std::size_t n = 2 + repetition % 11;  // random orders from 11 on
    const std::vector<double> x = coarse(n, 9, generator);
    const std::vector<double> y = coarse(n, 9, generator);
    for (const Alternative alternative : alternatives) {
      const PageTrend trend = page_trend(x, y, alternative, 99, seed);
      EXPECT_EQ(trend.rho, spearman(x, y, alternative, 99, seed).rho);
      EXPECT_EQ(trend.p, spearman(x, y, alternative, 99, seed).p);
    }
  }
}

// Shifting or scaling the outcomes of one seed does not matter, nor does the order of the seeds,
// and a block of equal outcomes leaves p as it is.
TEST(PageTrend, ComparesWithinBlocksOnly) {
  const std::vector levels{1.0, 2.0, 4.0, 8.0};
  std::vector outcomes{0.3, 0.5, 0.4, 0.9, 0.1, 0.2, 0.3, 0.3, 0.8, 0.6, 0.7, 0.9};
  const PageTrend trend = page_trend(levels, outcomes, Alternative::increasing);
  EXPECT_NEAR(trend.rho, (0.8 + 9 / std::sqrt(90.0) + 0.4) / 3, 1e-15);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    outcomes[i] = outcomes[i] * (i < 4 ? 100 : 1) + (i < 8 ? 0 : 1e6);
  }
  std::rotate(outcomes.begin(), outcomes.begin() + 4, outcomes.end());
  const PageTrend moved = page_trend(levels, outcomes, Alternative::increasing);
  EXPECT_EQ(moved.l, trend.l);
  EXPECT_NEAR(moved.p, trend.p, 1e-15);
  EXPECT_NEAR(moved.rho, trend.rho, 1e-15);
  outcomes.insert(outcomes.end(), 4, 0.5);
  const PageTrend longer = page_trend(levels, outcomes, Alternative::increasing);
  EXPECT_EQ(longer.blocks, 4);
  EXPECT_EQ(longer.l, trend.l + 25);
  EXPECT_NEAR(longer.p, trend.p, 1e-15);
  EXPECT_NEAR(longer.rho, trend.rho * 3 / 4, 1e-15);
}

// More seeds than anyone would run. With two levels it is a sign test.
TEST(PageTrend, ManyBlocks) {
  std::vector<double> outcomes;
  for (int block = 0; block < 1000; ++block) outcomes.insert(outcomes.end(), {1.0, 2.0});
  const double p = page_trend(std::vector{0.0, 1.0}, outcomes, Alternative::increasing).p;
  EXPECT_NEAR(std::log2(p), -1000, 1e-9);

  // More orders than a double can count.
  outcomes.clear();
  for (int block = 0; block < 300; ++block) outcomes.insert(outcomes.end(), {1.0, 2.0, 3.0, 4.0});
  EXPECT_NEAR(page_trend(std::vector{1.0, 2.0, 3.0, 4.0}, outcomes, Alternative::decreasing).p, 1,
              1e-12);

  outcomes.clear();
  for (int block = 0; block < 20; ++block) {
    for (int level = 0; level < 10; ++level) outcomes.push_back(level);
  }
  const std::vector<double> levels(outcomes.begin(), outcomes.begin() + 10);
  EXPECT_NEAR(std::log(page_trend(levels, outcomes, Alternative::increasing).p),
              -20 * std::lgamma(11), 1e-9);
  EXPECT_NEAR(page_trend(levels, outcomes, Alternative::decreasing).p, 1, 1e-12);

  // So many that 1.5, which is 3! over a power of two, to their number is not finite. Their sum is
  // normal: a block's product of scores has the variance 32 and steps of 4.
  outcomes.clear();
  constexpr int blocks = 1800;
  constexpr int rising = 930;
  for (int block = 0; block < blocks; ++block) {
    if (block < rising) {
      outcomes.insert(outcomes.end(), {1.0, 2.0, 3.0});
    } else {
      outcomes.insert(outcomes.end(), {3.0, 2.0, 1.0});
    }
  }
  const double z = (8.0 * (2 * rising - blocks) - 2) / std::sqrt(32.0 * blocks);
  EXPECT_NEAR(page_trend(std::vector{1.0, 2.0, 3.0}, outcomes, Alternative::increasing).p,
              std::erfc(z / std::sqrt(2.0)) / 2, 1e-4);
}

TEST(PageTrend, TheEdges) {
  const PageTrend nothing = page_trend({}, {}, Alternative::increasing);
  EXPECT_EQ(nothing.blocks, 0);
  EXPECT_EQ(nothing.l, 0);
  EXPECT_EQ(nothing.rho, 0);
  EXPECT_EQ(nothing.p, 1);
  const std::vector levels{1.0, 2.0, 3.0};
  EXPECT_EQ(page_trend(levels, {}, Alternative::increasing).p, 1);
  EXPECT_EQ(page_trend(std::vector{2.0, 2.0, 2.0}, levels, Alternative::increasing).p, 1);
  EXPECT_EQ(page_trend(levels, std::vector{5.0, 5.0, 5.0}, Alternative::increasing).p, 1);
  EXPECT_THAT(error_of([&] {
                page_trend(levels, std::vector{1.0, 2.0, 3.0, 4.0}, Alternative::increasing);
              }),
              HasSubstr("4 outcomes are not blocks of 3 levels"));
  EXPECT_THAT(error_of([&] { page_trend({}, levels, Alternative::increasing); }),
              HasSubstr("3 outcomes are not blocks of 0 levels"));
  EXPECT_THAT(error_of([&] {
                page_trend(levels, std::vector{1.0, nan, 3.0}, Alternative::increasing);
              }),
              HasSubstr("nan"));
  EXPECT_THAT(
      error_of([&] {
        page_trend(std::vector{1.0, infinity}, std::vector{1.0, 2.0}, Alternative::increasing);
      }),
      HasSubstr("inf"));
  EXPECT_THAT(error_of([&] { page_trend(levels, levels, Alternative::increasing, 0); }),
              HasSubstr("0 permutations are too few"));
}

}  // namespace
}  // namespace preheat
