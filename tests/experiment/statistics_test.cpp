#include "experiment/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "config/error.h"

namespace preheat {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

double binomial(int n, int k) {
  double result = 1;
  for (int i = 1; i <= k; ++i) result = result * (n - k + i) / i;
  return result;
}

// P(X <= most) for X ~ Binomial(n, p), term by term.
double tail_up_to(int most, int n, double p) {
  double sum = 0;
  for (int k = 0; k <= most; ++k) {
    sum += binomial(n, k) * std::pow(p, k) * std::pow(1 - p, n - k);
  }
  return sum;
}

TEST(ClopperPearson, MatchesPublishedTables) {
  EXPECT_NEAR(clopper_pearson(0, 5).hi, 0.5218, 5e-5);
  EXPECT_NEAR(clopper_pearson(0, 10).hi, 0.3085, 5e-5);
  EXPECT_NEAR(clopper_pearson(0, 20).hi, 0.1684, 5e-5);
  EXPECT_NEAR(clopper_pearson(0, 30).hi, 0.1157, 5e-5);
  EXPECT_NEAR(clopper_pearson(10, 10).lo, 0.6915, 5e-5);
  EXPECT_NEAR(clopper_pearson(20, 20).lo, 0.8316, 5e-5);
  EXPECT_NEAR(clopper_pearson(19, 20).lo, 0.7513, 5e-5);
  EXPECT_NEAR(clopper_pearson(19, 20).hi, 0.9987, 5e-5);
}

TEST(ClopperPearson, EndsAreExactWhereNoneOrAllFail) {
  for (int n = 1; n <= 200; ++n) {
    EXPECT_EQ(clopper_pearson(0, n).lo, 0);
    EXPECT_EQ(clopper_pearson(n, n).hi, 1);
  }
}

// scipy 1.17.1: beta.ppf(tail, k, n - k + 1) and beta.isf(tail, k + 1, n - k). (Its
// binomtest stops its search at 2e-12.)
TEST(ClopperPearson, MatchesScipy) {
  struct Case {
    int failures, n;
    double confidence, lo, hi;
  };
  constexpr Case cases[] = {
      {1, 3, 0.95, 0.008403758659612643, 0.9057006759497539},
      {2, 5, 0.95, 0.05274495052631693, 0.8533672003653268},
      {1, 10, 0.95, 0.0025285785444617865, 0.4450161170281954},
      {5, 10, 0.95, 0.18708602844739855, 0.8129139715526015},
      {7, 9, 0.95, 0.39990642628368794, 0.9718550265221018},
      {3, 30, 0.95, 0.021117137029722576, 0.2652884504742081},
      {17, 40, 0.95, 0.27042903126886286, 0.5910994195730367},
      {39, 40, 0.95, 0.8684141415172343, 0.9993672550679505},
      {50, 100, 0.95, 0.398321129503301, 0.601678870496699},
      {3, 1000, 0.95, 0.0006190999316495715, 0.008742023238478303},
      {997, 1000, 0.95, 0.9912579767615217, 0.9993809000683505},
      {1234, 5678, 0.95, 0.20666182935671606, 0.22828949043819957},
      {1, 1000000, 0.95, 2.53178076637942e-08, 5.571630655166939e-06},
      {1, 3, 0.9, 0.016952427508441496, 0.8646496378284162},
      {2, 5, 0.9, 0.07644039141232886, 0.8107446225622292},
      {1, 10, 0.9, 0.0051161968918237, 0.3941633024365049},
      {5, 10, 0.9, 0.22244110100812936, 0.7775588989918707},
      {7, 9, 0.9, 0.45035835049338985, 0.9589768324930035},
      {3, 30, 0.9, 0.02781554973974965, 0.23859785729325098},
      {17, 40, 0.9, 0.29184657878614506, 0.5668609107163234},
      {39, 40, 0.9, 0.8868116390552624, 0.9987184894771247},
      {1, 3, 0.99, 0.0016694521863086687, 0.9585998492839568},
      {2, 5, 0.99, 0.022881221375354463, 0.9171708127985232},
      {1, 10, 0.99, 0.0005011285754646344, 0.5442870568996868},
      {5, 10, 0.99, 0.12831055393508328, 0.8716894460649167},
      {7, 9, 0.99, 0.30739364923145623, 0.9878764109193773},
      {3, 30, 0.99, 0.01158781166650271, 0.3203142212855164},
      {17, 40, 0.99, 0.2307905498287123, 0.6373783434032138},
      {39, 40, 0.99, 0.828484671131906, 0.9998746943058258},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.failures << " of " << c.n << " at " << c.confidence);
    // ln Gamma(n) is of the order n ln n, and so is its rounding error.
    const double tolerance = 1e-11 + 1e-14 * c.n;
    const Interval interval = clopper_pearson(c.failures, c.n, c.confidence);
    EXPECT_NEAR(interval.lo, c.lo, tolerance * c.lo);
    EXPECT_NEAR(interval.hi, c.hi, tolerance * c.hi);
  }
}

TEST(ClopperPearson, SolvesItsDefiningEquations) {
  for (const double confidence : {0.5, 0.95, 0.999}) {
    const double tail = (1 - confidence) / 2;
    for (int n = 1; n <= 40; ++n) {
      for (int k = 0; k <= n; ++k) {
        SCOPED_TRACE(testing::Message() << k << " of " << n << " at " << confidence);
        const Interval interval = clopper_pearson(k, n, confidence);
        EXPECT_LT(interval.lo, interval.hi);
        if (k > 0) {
          // P(X >= k) as P(n - X <= n - k), to avoid cancellation.
          EXPECT_NEAR(tail_up_to(n - k, n, 1 - interval.lo), tail, 1e-11 * tail);
        }
        if (k < n) {
          EXPECT_NEAR(tail_up_to(k, n, interval.hi), tail, 1e-11 * tail);
        }
      }
    }
  }
}

TEST(ClopperPearson, FailuresAndSuccessesMirrorEachOther) {
  for (int k = 0; k <= 37; ++k) {
    EXPECT_NEAR(clopper_pearson(k, 37).lo, 1 - clopper_pearson(37 - k, 37).hi, 1e-14);
  }
}

TEST(ClopperPearson, NoRunsSayNothing) {
  EXPECT_EQ(clopper_pearson(0, 0).lo, 0);
  EXPECT_EQ(clopper_pearson(0, 0).hi, 1);
}

std::string error_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(ClopperPearson, RefusesWhatIsNotACount) {
  EXPECT_THAT(error_of([] { clopper_pearson(6, 5); }), HasSubstr("6 failures of 5 runs"));
  EXPECT_THAT(error_of([] { clopper_pearson(-1, 5); }), HasSubstr("-1 failures of 5 runs"));
  EXPECT_THAT(error_of([] { clopper_pearson(1, 5, 1.0); }), HasSubstr("between 0 and 1"));
  EXPECT_THAT(error_of([] { clopper_pearson(1, 5, std::nan("")); }), HasSubstr("between 0 and 1"));
}

TEST(Mcnemar, MatchesClosedForms) {
  EXPECT_NEAR(mcnemar_exact(6, 0), 0.03125, 1e-14);
  EXPECT_NEAR(mcnemar_exact(5, 0), 0.0625, 1e-14);
  EXPECT_NEAR(mcnemar_exact(10, 0), 0.001953125, 1e-15);
  EXPECT_NEAR(mcnemar_exact(19, 0), std::pow(2.0, -18), 1e-18);
  EXPECT_EQ(mcnemar_exact(0, 19), mcnemar_exact(19, 0));
  EXPECT_EQ(mcnemar_exact(0, 0), 1);
  EXPECT_EQ(mcnemar_exact(4, 4), 1);
}

TEST(Mcnemar, MatchesTheBinomialSum) {
  for (int n = 1; n <= 40; ++n) {
    for (int b = 0; b <= n; ++b) {
      const double expected = std::min(1.0, 2 * tail_up_to(std::min(b, n - b), n, 0.5));
      EXPECT_NEAR(mcnemar_exact(b, n - b), expected, 1e-12 * expected) << b << " and " << n - b;
    }
  }
}

// A level may equal the p-value, which then is not below it.
TEST(Mcnemar, IsExactToTheLastBit) {
  for (int n = 1; n <= 53; ++n) EXPECT_EQ(mcnemar_exact(n, 0), std::ldexp(1.0, 1 - n)) << n;
  EXPECT_EQ(mcnemar_exact(2, 6), 2 * (1 + 8 + 28) / 256.0);
  EXPECT_EQ(sign_test(3, 4), (1 + 4) / 16.0);
  // Half of the ways that 53 coins can fall. With 54 coins the sums are no longer exact.
  EXPECT_EQ(sign_test(27, 53), 0.5);
  EXPECT_NEAR(mcnemar_exact(54, 0), std::ldexp(1.0, -53), 1e-28);
}

// scipy 1.17.1: binomtest(b, b + c).pvalue.
TEST(Mcnemar, MatchesScipy) {
  EXPECT_NEAR(mcnemar_exact(60, 40), 0.05688793364098089, 1e-13);
  EXPECT_NEAR(mcnemar_exact(200, 300), 8.940066542253288e-06, 1e-16);
  EXPECT_NEAR(mcnemar_exact(1500, 1400), 0.06598734966518463, 1e-11);
}

TEST(PairedDifferenceOfShares, IsOfTwoClopperPearsonIntervals) {
  const auto expect = [](std::int64_t b, std::int64_t c, std::int64_t n, double lo, double hi) {
    const Interval found = paired_difference_of_shares(b, c, n);
    EXPECT_NEAR(found.lo, lo, 1e-9);
    EXPECT_NEAR(found.hi, hi, 1e-9);
    const Interval mirrored = paired_difference_of_shares(c, b, n);
    EXPECT_NEAR(mirrored.lo, -hi, 1e-9);
    EXPECT_NEAR(mirrored.hi, -lo, 1e-9);
  };
  const double none = 1 - std::pow(0.025, 1.0 / 20);  // the upper bound for 0 of 20 at 95 %
  expect(0, 0, 20, -none, none);
  expect(20, 0, 20, 1 - none - none, 1);
  expect(0, 0, 0, -1, 1);
  EXPECT_THROW(paired_difference_of_shares(3, 2, 4), Error);
  EXPECT_THROW(paired_difference_of_shares(-1, 2, 4), Error);
  EXPECT_THROW(paired_difference_of_shares(1, -1, 4), Error);
  EXPECT_THROW(paired_difference_of_shares(1, 1, 4, 1), Error);
}

// The coverage, summed over all outcomes of n pairs with their probabilities.
TEST(PairedDifferenceOfShares, HoldsItsConfidenceWhateverTheShares) {
  constexpr std::int64_t n = 12;
  for (double p = 0; p <= 1; p += 0.1) {
    for (double q = 0; q <= 1 - p + 1e-9; q += 0.1) {
      double covered = 0;
      for (std::int64_t b = 0; b <= n; ++b) {
        for (std::int64_t c = 0; b + c <= n; ++c) {
          const Interval i = paired_difference_of_shares(b, c, n);
          if (p - q < i.lo - 1e-12 || p - q > i.hi + 1e-12) continue;
          covered += std::tgamma(n + 1) /
                     (std::tgamma(b + 1) * std::tgamma(c + 1) * std::tgamma(n - b - c + 1)) *
                     std::pow(p, b) * std::pow(q, c) *
                     std::pow(std::max(0.0, 1 - p - q), n - b - c);
        }
      }
      EXPECT_GE(covered, 0.90) << p << " " << q;
    }
  }
}

TEST(Mcnemar, RefusesNegativeCounts) {
  EXPECT_THAT(error_of([] { mcnemar_exact(-1, 3); }), HasSubstr("-1 and 3"));
}

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

// How far a share of `trials` may be from its probability p: five standard deviations, which a
// random seed exceeds once in two million.
double five_sigma(double p, int trials) {
  return 5 * std::sqrt(p * (1 - p) / trials);
}

std::vector<double> normals(std::size_t n, double mean, double std, std::mt19937& generator) {
  std::normal_distribution<double> normal(mean, std);
  std::vector<double> values(n);
  std::ranges::generate(values, [&] { return normal(generator); });
  return values;
}

// scipy 1.17.1: binomtest(failures, n).proportion_ci(confidence, "wilson").
TEST(Wilson, MatchesScipy) {
  struct Case {
    int failures, n;
    double confidence, lo, hi;
  };
  constexpr Case cases[] = {
      {0, 10, 0.95, 0.0, 0.27753279986288926},
      {1, 10, 0.95, 0.017876213095072896, 0.4041500267952385},
      {5, 10, 0.95, 0.236593090512564, 0.7634069094874361},
      {10, 10, 0.95, 0.7224672001371109, 1.0},
      {19, 20, 0.95, 0.763868806553258, 0.9911185511992047},
      {3, 30, 0.99, 0.02565165729158589, 0.3192352612829028},
      {17, 40, 0.9, 0.30523413698015683, 0.5542688803166618},
      {1234, 5678, 0.95, 0.20679555455958393, 0.2282467599321939},
      {1, 1000000, 0.95, 1.765245767453709e-07, 5.664911804311442e-06},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.failures << " of " << c.n << " at " << c.confidence);
    const Interval interval = wilson(c.failures, c.n, c.confidence);
    EXPECT_NEAR(interval.lo, c.lo, 1e-13 * c.lo);
    EXPECT_NEAR(interval.hi, c.hi, 1e-15 + 1e-13 * c.hi);
  }
}

TEST(Wilson, SolvesItsDefiningEquation) {
  for (const double z : {1.0, 1.959963984540054, 2.5758293035489004}) {
    const double confidence = std::erf(z / std::sqrt(2.0));
    for (int n = 1; n <= 60; ++n) {
      for (int k = 0; k <= n; ++k) {
        SCOPED_TRACE(testing::Message() << k << " of " << n << " at " << confidence);
        const Interval interval = wilson(k, n, confidence);
        const auto distance = [&](double p) {
          return std::abs(static_cast<double>(k) / n - p) - z * std::sqrt(p * (1 - p) / n);
        };
        EXPECT_NEAR(distance(interval.lo), 0, 1e-13);
        EXPECT_NEAR(distance(interval.hi), 0, 1e-13);
        EXPECT_LT(interval.lo, interval.hi);
      }
      EXPECT_EQ(wilson(0, n, confidence).lo, 0);
      EXPECT_EQ(wilson(n, n, confidence).hi, 1);
    }
  }
}

// Clopper and Pearson's interval keeps its confidence for every probability, Wilson's on average.
TEST(Wilson, KeepsItsConfidenceOnAverage) {
  constexpr int n = 12;
  constexpr int points = 3000;
  std::vector<Interval> intervals;
  std::vector<Interval> exact;
  for (int k = 0; k <= n; ++k) {
    intervals.push_back(wilson(k, n, 0.9));
    exact.push_back(clopper_pearson(k, n, 0.9));
  }
  const auto covers = [](const Interval& i, double p) { return i.lo <= p && p <= i.hi; };
  double average = 0;
  double min_exact = 1;
  for (int point = 0; point < points; ++point) {
    const double p = (point + 0.5) / points;
    double coverage = 0;
    double exact_coverage = 0;
    for (int k = 0; k <= n; ++k) {
      const double probability = binomial(n, k) * std::pow(p, k) * std::pow(1 - p, n - k);
      if (covers(intervals[k], p)) coverage += probability;
      if (covers(exact[k], p)) exact_coverage += probability;
    }
    average += coverage / points;
    min_exact = std::min(min_exact, exact_coverage);
  }
  EXPECT_NEAR(average, 0.9, 0.01);
  EXPECT_GE(min_exact, 0.9);
}

TEST(Wilson, TheEdges) {
  EXPECT_EQ(wilson(0, 0).lo, 0);
  EXPECT_EQ(wilson(0, 0).hi, 1);
  EXPECT_THAT(error_of([] { wilson(6, 5); }), HasSubstr("6 failures of 5 runs"));
  EXPECT_THAT(error_of([] { wilson(-1, 5); }), HasSubstr("-1 failures of 5 runs"));
  EXPECT_THAT(error_of([] { wilson(1, 5, 0.0); }), HasSubstr("between 0 and 1"));
  EXPECT_THAT(error_of([] { wilson(1, 5, nan); }), HasSubstr("between 0 and 1"));
}

// Fisher's tea taster (1935): 17 / 35. Twins and convictions (Fisher 1962; R's ?fisher.test says
// 0.0005367241). The rest: scipy 1.17.1, fisher_exact.
TEST(Fisher, MatchesTextbooksAndScipy) {
  struct Case {
    int a, b, c, d;
    double p;
  };
  constexpr Case cases[] = {
      {3, 1, 1, 3, 17.0 / 35},
      {2, 15, 10, 3, 0.0005367241191434358},
      {10, 0, 0, 10, 1.082508822446903e-05},
      {5, 5, 0, 10, 0.032507739938080496},
      {1, 9, 11, 3, 0.0027594561852200836},
      {0, 4, 5, 0, 0.007936507936507934},
      {7, 3, 2, 8, 0.06977851869492736},
      {60, 40, 45, 55, 0.04716548538301931},
      {300, 200, 250, 260, 0.0005081757509899477},
      {1000, 2000, 1500, 2400, 1.1041377194499804e-05},
      {5000, 5000, 4800, 5200, 0.004878795768906845},
      {2000, 10, 1950, 40, 1.2039931473907973e-05},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.a << ' ' << c.b << " / " << c.c << ' ' << c.d);
    EXPECT_NEAR(fisher_exact(c.a, c.b, c.c, c.d), c.p, 1e-10 * c.p);
    // The same for every transposition of the table.
    EXPECT_NEAR(fisher_exact(c.b, c.a, c.d, c.c), c.p, 1e-10 * c.p);
    EXPECT_NEAR(fisher_exact(c.c, c.d, c.a, c.b), c.p, 1e-10 * c.p);
    EXPECT_NEAR(fisher_exact(c.a, c.c, c.b, c.d), c.p, 1e-10 * c.p);
  }
}

// Against binomial coefficients, for every table of up to 9 and 8 runs. And every p that is
// attained is attained with that probability, so no level is exceeded.
TEST(Fisher, IsExact) {
  for (const auto& sizes : {std::array{9, 8}, {5, 5}, {1, 8}, {0, 3}}) {
    const auto first = sizes[0];
    const auto second = sizes[1];
    for (int failures = 0; failures <= first + second; ++failures) {
      const int least = std::max(0, failures - second);
      const int most = std::min(first, failures);
      const auto probability = [&](int a) {
        return binomial(first, a) * binomial(second, failures - a) /
               binomial(first + second, failures);
      };
      for (int a = least; a <= most; ++a) {
        SCOPED_TRACE(testing::Message()
                     << a << " of " << first << " against " << failures - a << " of " << second);
        const double p = fisher_exact(a, first - a, failures - a, second - failures + a);
        double as_improbable = 0;
        double as_small = 0;
        for (int x = least; x <= most; ++x) {
          const double other = fisher_exact(x, first - x, failures - x, second - failures + x);
          if (probability(x) <= probability(a) * (1 + 1e-9)) as_improbable += probability(x);
          if (other <= p * (1 + 1e-9)) as_small += probability(x);
        }
        EXPECT_NEAR(p, as_improbable, 1e-13);
        EXPECT_NEAR(p, as_small, 1e-13);
      }
    }
  }
}

TEST(Fisher, TheEdges) {
  EXPECT_EQ(fisher_exact(0, 0, 0, 0), 1);
  EXPECT_EQ(fisher_exact(0, 0, 3, 4), 1);
  EXPECT_EQ(fisher_exact(0, 3, 0, 4), 1);
  EXPECT_EQ(fisher_exact(5, 5, 5, 5), 1);
  // So improbable that the probability of the table underflows.
  EXPECT_LT(fisher_exact(3000, 0, 0, 3000), 1e-300);
  EXPECT_THAT(error_of([] { fisher_exact(1, 2, -3, 4); }), HasSubstr("1 2 / -3 4"));
}

// The upper tail of five coins is 32, 31, 26, 16, 6, 1 of 32.
TEST(SignTest, IsTheUpperTailOfCoins) {
  const double of_32[] = {32, 31, 26, 16, 6, 1};
  for (std::int64_t k = 0; k <= 5; ++k) EXPECT_NEAR(sign_test(k, 5), of_32[k] / 32, 1e-14) << k;
  EXPECT_EQ(sign_test(0, 0), 1);
  EXPECT_THROW(sign_test(-1, 3), Error);
  EXPECT_THROW(sign_test(4, 3), Error);
}

// statsmodels 0.15.0: multipletests(p, method="holm").
TEST(Holm, MatchesStatsmodels) {
  EXPECT_THAT(holm(std::vector{0.01, 0.04, 0.03, 0.005}),
              Pointwise(DoubleNear(1e-15), {0.03, 0.06, 0.06, 0.02}));
  EXPECT_THAT(holm(std::vector{0.02, 0.02, 0.02}),
              Pointwise(DoubleNear(1e-15), {0.06, 0.06, 0.06}));
  EXPECT_THAT(holm(std::vector{0.0001, 0.5, 0.9, 0.04, 0.04}),
              Pointwise(DoubleNear(1e-15), {0.0005, 1.0, 1.0, 0.16, 0.16}));
  EXPECT_THAT(holm(std::vector{0.3, 0.4, 0.01}), Pointwise(DoubleNear(1e-15), {0.6, 0.6, 0.03}));
}

// Holm's procedure is the closed test that tests every intersection by Bonferroni: the adjusted p
// is the largest over all sets of hypotheses that contain the hypothesis.
TEST(Holm, IsTheClosureOfBonferroni) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(0, 0.4);
  for (int repetition = 0; repetition < 50; ++repetition) {
    std::vector<double> p(1 + generator() % 7);
    std::ranges::generate(p, [&] { return uniform(generator); });
    if (p.size() > 2) p[1] = p[2];
    std::vector<double> expected(p.size());
    for (std::uint32_t set = 1; set < 1U << p.size(); ++set) {
      double smallest = 1;
      for (std::size_t i = 0; i < p.size(); ++i) {
        if ((set >> i & 1) != 0) smallest = std::min(smallest, p[i]);
      }
      const double bonferroni = std::min(1.0, std::popcount(set) * smallest);
      for (std::size_t i = 0; i < p.size(); ++i) {
        if ((set >> i & 1) != 0) expected[i] = std::max(expected[i], bonferroni);
      }
    }
    EXPECT_THAT(holm(p), Pointwise(DoubleNear(1e-15), expected));
  }
}

TEST(Holm, TheEdges) {
  EXPECT_THAT(holm({}), IsEmpty());
  EXPECT_THAT(holm(std::vector{0.3}), ElementsAre(0.3));
  EXPECT_THAT(holm(std::vector{0.0, 1.0}), ElementsAre(0.0, 1.0));
  EXPECT_THAT(error_of([] { holm(std::vector{0.1, 1.5}); }), HasSubstr("1.5 is not a p-value"));
  EXPECT_THAT(error_of([] { holm(std::vector{-0.1}); }), HasSubstr("-0.1 is not a p-value"));
  EXPECT_THAT(error_of([] { holm(std::vector{nan}); }), HasSubstr("nan is not a p-value"));
}

TEST(PairedDifferences, AreFirstLessSecond) {
  EXPECT_THAT(paired_differences(std::vector{3.0, 1.0, 0.5}, std::vector{1.0, 4.0, 0.5}),
              ElementsAre(2, -3, 0));
  EXPECT_THAT(paired_differences({}, {}), IsEmpty());
  EXPECT_THAT(error_of([] {
                paired_differences(std::vector{3.0, 1.0}, std::vector{1.0});
              }),
              HasSubstr("2 values cannot be paired with 1"));
  EXPECT_THAT(error_of([] { paired_differences(std::vector{3.0}, std::vector{nan}); }),
              HasSubstr("nan"));
  EXPECT_THAT(error_of([] { paired_differences(std::vector{infinity}, std::vector{1.0}); }),
              HasSubstr("inf"));
}

TEST(MeanAndMedian, OfFewValues) {
  EXPECT_EQ(mean(std::vector{4.0}), 4);
  EXPECT_EQ(mean(std::vector{4.0, -1.0, 6.0}), 3);
  EXPECT_EQ(mean(std::vector(11, -0.1)), -0.1);
  EXPECT_EQ(median(std::vector{4.0}), 4);
  EXPECT_EQ(median(std::vector{9.0, 4.0}), 6.5);
  EXPECT_EQ(median(std::vector{9.0, -4.0, 1.0}), 1);
  EXPECT_EQ(median(std::vector{9.0, 2.0, -4.0, 1.0}), 1.5);
  EXPECT_EQ(median(std::vector{1e308, 1.5e308}), 1.25e308);
  EXPECT_THAT(error_of([] { mean({}); }), HasSubstr("0 values are too few"));
  EXPECT_THAT(error_of([] { median({}); }), HasSubstr("0 values are too few"));
  EXPECT_THAT(error_of([] { median(std::vector{1.0, nan}); }), HasSubstr("nan"));
}

// The difference in height of crossed and self-fertilised maize, in eighths of an inch: Darwin
// 1876, tested in Fisher's "The design of experiments" (t = 2.148).
const std::vector<double> darwin{49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48};

// Student's own example, additional hours of sleep (R's ?sleep: t = 4.0621, p = 0.002833, interval
// 0.7001142 to 2.4598858). More digits from scipy 1.17.1: ttest_1samp and confidence_interval.
TEST(PairedT, MatchesTextbooksAndScipy) {
  struct Case {
    std::vector<double> differences;
    double confidence, mean, t, p, lo, hi;
  };
  const std::vector<double> sleep{1.2, 2.4, 1.3, 1.3, 0, 1.0, 1.8, 0.8, 4.6, 1.4};
  const Case cases[] = {
      {sleep, 0.95, 1.58, 4.062127683382037, 0.002832890197384273, 0.7001142367230174,
       2.4598857632769824},
      {sleep, 0.9, 1.58, 4.062127683382037, 0.002832890197384273, 0.866994732970716,
       2.2930052670292835},
      {darwin, 0.95, 314.0 / 15, 2.1479874613311205, 0.049702944021800866, 0.031193318392979563,
       41.83547334827369},
      {darwin, 0.99, 314.0 / 15, 2.1479874613311205, 0.049702944021800866, -8.077655958419331,
       49.944322625086},
      {{-0.327, 0.479},
       0.95,
       0.076,
       0.1885856079404466,
       0.8813363142713174,
       -5.0446005086784025,
       5.196600508678402},
      {{-0.161, 0.022, 0.077},
       0.95,
       -0.062 / 3,
       -0.28727419031663576,
       0.8009320495252736,
       -0.3302019216443089,
       0.28886858831097556},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.differences.size() << " differences");
    const PairedT result = paired_t(c.differences, c.confidence);
    EXPECT_NEAR(result.mean, c.mean, 1e-13);
    EXPECT_NEAR(result.t, c.t, 1e-13 * std::abs(c.t));
    EXPECT_EQ(result.degrees_of_freedom, static_cast<double>(c.differences.size()) - 1);
    EXPECT_NEAR(result.p, c.p, 1e-12 * c.p);
    EXPECT_NEAR(result.interval.lo, c.lo, 1e-11);
    EXPECT_NEAR(result.interval.hi, c.hi, 1e-11);
  }
}

// Differences with the given t: half of them 1 and half -1, shifted.
std::vector<double> with_t(double t, int half) {
  const double error = std::sqrt(1 / (2.0 * half - 1));
  std::vector<double> differences;
  for (int i = 0; i < half; ++i) {
    differences.push_back(t * error + 1);
    differences.push_back(t * error - 1);
  }
  return differences;
}

// Two-sided 5, 1 and 0.1 % points of Student's t: Fisher and Yates, "Statistical tables", table
// III.
TEST(PairedT, MatchesPublishedTables) {
  struct Row {
    int degrees_of_freedom;
    std::array<double, 3> points;
  };
  constexpr std::array levels{0.05, 0.01, 0.001};
  constexpr Row rows[] = {{1, {12.706, 63.657, 636.619}},
                          {3, {3.182, 5.841, 12.924}},
                          {9, {2.262, 3.250, 4.781}},
                          {19, {2.093, 2.861, 3.883}},
                          {29, {2.045, 2.756, 3.659}}};
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < levels.size(); ++i) {
      SCOPED_TRACE(testing::Message() << row.degrees_of_freedom << " degrees, " << levels[i]);
      const int half = (row.degrees_of_freedom + 1) / 2;
      const PairedT result = paired_t(with_t(0, half), 1 - levels[i]);
      const double error = std::sqrt(1.0 / row.degrees_of_freedom);
      EXPECT_NEAR(result.interval.hi / error, row.points[i], 6e-4);
      EXPECT_NEAR(paired_t(with_t(row.points[i], half)).p, levels[i], 1.5e-3 * levels[i]);
    }
  }
}

// One and two degrees of freedom have closed forms; for the rest scipy 1.17.1, 2 t.sf(t, v).
TEST(PairedT, TailsKeepTheirDigits) {
  for (const double t : {1e-7, 0.01, 0.5, 0.9999, 1.0001, 3.0, 40.0, 1e4}) {
    SCOPED_TRACE(t);
    const double cauchy = 2 / std::numbers::pi * std::atan2(1, t);
    EXPECT_NEAR(paired_t(with_t(t, 1)).p, cauchy, 1e-9 * cauchy);
    EXPECT_EQ(paired_t(with_t(t, 1)).p, paired_t(with_t(-t, 1)).p);
  }
  EXPECT_NEAR(paired_t(with_t(1e-3, 3)).p, 0.9992407867721976, 1e-14);
  EXPECT_NEAR(paired_t(with_t(2.5, 100)).p, 0.013227259966507704, 1e-12);
  EXPECT_NEAR(paired_t(with_t(40, 500)).p / 1.242642119627181e-209, 1, 1e-9);
}

TEST(PairedT, HoldsItsLevelAndCovers) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  constexpr int trials = 5000;
  int significant = 0;
  int covered = 0;
  for (int trial = 0; trial < trials; ++trial) {
    significant += paired_t(normals(4, 0, 0.3, generator)).p <= 0.05 ? 1 : 0;
    const Interval interval = paired_t(normals(3, 0.7, 0.3, generator), 0.8).interval;
    covered += interval.lo <= 0.7 && 0.7 <= interval.hi ? 1 : 0;
  }
  EXPECT_NEAR(significant / double{trials}, 0.05, five_sigma(0.05, trials));
  EXPECT_NEAR(covered / double{trials}, 0.8, five_sigma(0.8, trials));
}

TEST(PairedT, TheEdges) {
  const PairedT nothing = paired_t(std::vector{0.0, 0.0, 0.0});
  EXPECT_EQ(nothing.t, 0);
  EXPECT_EQ(nothing.p, 1);
  EXPECT_EQ(nothing.interval.lo, 0);
  EXPECT_EQ(nothing.interval.hi, 0);
  const PairedT equal = paired_t(std::vector(11, -0.1));
  EXPECT_EQ(equal.t, -infinity);
  EXPECT_EQ(equal.p, 0);
  EXPECT_EQ(equal.interval.lo, -0.1);
  EXPECT_EQ(equal.interval.hi, -0.1);
  EXPECT_THAT(error_of([] { paired_t({}); }), HasSubstr("0 values are too few; it takes 2"));
  EXPECT_THAT(error_of([] { paired_t(std::vector{1.0}); }), HasSubstr("1 values are too few"));
  EXPECT_THAT(error_of([] { paired_t(std::vector{1.0, infinity}); }), HasSubstr("inf"));
  EXPECT_THAT(error_of([] { paired_t(std::vector{1.0, 2.0}, 1); }), HasSubstr("between 0 and 1"));
}

// scipy 1.17.1: ttest_1samp(d, -margin, alternative="greater") and (d, margin, "less"); statsmodels
// 0.15.0, DescrStatsW(d).ttost_mean, has the same p.
TEST(Tost, MatchesScipy) {
  const std::vector<double> differences{-0.122, -0.31, 0.295,  0.208, -0.486,
                                        0.804,  0.391, -0.128, 0.371, -0.04};
  const Equivalence narrow = tost(differences, 0.05);
  EXPECT_NEAR(narrow.mean, 0.0983, 1e-15);
  EXPECT_NEAR(narrow.not_inferior_p, 0.12722201259648208, 1e-12);
  EXPECT_NEAR(narrow.not_superior_p, 0.6495006367968668, 1e-12);
  EXPECT_NEAR(narrow.p, 0.6495006367968668, 1e-12);
  const Equivalence wide = tost(differences, 0.3);
  EXPECT_NEAR(wide.not_inferior_p, 0.004846065236975313, 1e-14);
  EXPECT_NEAR(wide.not_superior_p, 0.0660903007395628, 1e-13);
  EXPECT_NEAR(wide.p, 0.0660903007395628, 1e-13);
}

TEST(Tost, IsTheIntervalInsideTheMargin) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  int equivalent = 0;
  for (int trial = 0; trial < 500; ++trial) {
    const std::vector<double> differences = normals(2 + trial % 9, 0.1, 0.3, generator);
    const Interval interval = paired_t(differences, 0.9).interval;
    const Equivalence result = tost(differences, 0.3);
    EXPECT_EQ(result.not_inferior_p<0.05, interval.lo> - 0.3);
    EXPECT_EQ(result.not_superior_p < 0.05, interval.hi < 0.3);
    EXPECT_EQ(result.p<0.05, interval.lo> - 0.3 && interval.hi < 0.3);
    equivalent += result.p < 0.05 ? 1 : 0;
    std::vector<double> mirrored = differences;
    for (double& d : mirrored) d = -d;
    EXPECT_DOUBLE_EQ(tost(mirrored, 0.3).not_inferior_p, result.not_superior_p);
  }
  EXPECT_GT(equivalent, 20);
  EXPECT_LT(equivalent, 480);
}

TEST(Tost, TheEdges) {
  EXPECT_EQ(tost(std::vector{0.0, 0.0}, 0.1).p, 0);
  EXPECT_EQ(tost(std::vector{0.2, 0.2}, 0.1).not_inferior_p, 0);
  EXPECT_EQ(tost(std::vector{0.2, 0.2}, 0.1).not_superior_p, 1);
  EXPECT_EQ(tost(std::vector{0.2, 0.2}, 0.1).p, 1);
  EXPECT_EQ(tost(std::vector{-0.2, -0.2}, 0.1).not_inferior_p, 1);
  EXPECT_THAT(error_of([] { tost(std::vector{1.0}, 1); }), HasSubstr("1 values are too few"));
  EXPECT_THAT(error_of([] { tost(std::vector{1.0, nan}, 1); }), HasSubstr("nan"));
  for (const double margin : {0.0, -0.3, nan, infinity}) {
    EXPECT_THAT(error_of([&] { tost(darwin, margin); }), HasSubstr("it must be above 0"));
  }
}

double standard_deviation(std::span<const double> sample) {
  double squares = 0;
  for (const double value : sample) squares += std::pow(value - mean(sample), 2);
  return std::sqrt(squares / static_cast<double>(sample.size()));
}

// The resamples are from a second implementation of the generator, in Python, and the intervals of
// them from scipy 1.17.1: bootstrap(..., n_resamples=0, bootstrap_result=..., method="percentile"
// or "BCa").
TEST(Bootstrap, MatchesScipyOnTheSameResamples) {
  const std::vector<double> skew{0.12, 0.35, 0.02, 1.9, 0.4, 0.07, 0.88, 3.1, 0.25, 0.61, 0.19};
  const auto expect = [](const Bootstrap& found, double estimate, Interval percentile,
                         Interval bca) {
    EXPECT_NEAR(found.estimate, estimate, 1e-12 * std::abs(estimate));
    EXPECT_NEAR(found.percentile.lo, percentile.lo, 1e-12 * std::abs(estimate));
    EXPECT_NEAR(found.percentile.hi, percentile.hi, 1e-12 * std::abs(estimate));
    EXPECT_NEAR(found.bca.lo, bca.lo, 1e-9 * std::abs(estimate));
    EXPECT_NEAR(found.bca.hi, bca.hi, 1e-9 * std::abs(estimate));
  };
  expect(bootstrap(darwin, mean, 2000, 0.95, 7), 314.0 / 15,
         {1.8633333333333393, 38.603333333333346}, {-1.0580308567243575, 36.787006475304});
  expect(bootstrap(skew, mean, 2000, 0.9, 123456789012345), 0.7172727272727273,
         {0.30636363636363634, 1.2027272727272726}, {0.3715867148030168, 1.3563636363636362});
  expect(bootstrap(skew, standard_deviation, 2000, 0.95, 0), 0.9099459615232995,
         {0.19476198655014454, 1.2782231329364473}, {0.31478223654942417, 1.4143291446344712});
  expect(bootstrap(skew, median, 1000, 0.95, 3), 0.35, {0.12, 0.88}, {0.12, 0.88});
}

// All 5^5 resamples are equally likely, so the quantiles are known up to sampling error.
TEST(Bootstrap, PercentilesAreThoseOfEveryResample) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  const std::vector<double> sample = normals(5, 3, 1, generator);
  std::vector<double> all;
  for (int code = 0; code < 3125; ++code) {
    double sum = 0;
    for (int rest = code, i = 0; i < 5; ++i, rest /= 5) sum += sample[rest % 5];
    all.push_back(sum / 5);
  }
  for (const double confidence : {0.5, 0.9}) {
    const Bootstrap result = bootstrap(sample, mean, 20000, confidence, seed);
    const auto share_below = [&](double value) {
      return static_cast<double>(std::ranges::count_if(all, [&](double v) { return v < value; })) /
             3125;
    };
    const double tail = (1 - confidence) / 2;
    // 120 resamples have the mean of the sample, and up to 60 share another mean.
    const double step = 120.0 / 3125;
    const double tolerance = five_sigma(tail, 20000) + step;
    EXPECT_NEAR(share_below(result.percentile.lo), tail, tolerance);
    EXPECT_NEAR(share_below(result.percentile.hi), 1 - tail, tolerance);
  }
}

// The coverage of the intervals. For the mean of n normal values the percentile interval is z times
// a standard deviation with n as its divisor, so it covers P(|T| < z sqrt((n - 1) / n)), 0.9040 for
// n = 10 (scipy 1.17.1: 1 - 2 t.sf(1.959964 sqrt(0.9), 9)); the expanded interval is that of t. For
// exponential values the percentile interval misses far more often on one side than on the other,
// and BCa corrects a part of that.
TEST(Bootstrap, Coverage) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  constexpr int trials = 2000;
  const double sigma = std::sqrt(0.904 * 0.096 / trials);
  int normal_percentile = 0;
  int normal_expanded = 0;
  int normal_bca = 0;
  int too_low[2] = {};
  int too_high[2] = {};
  std::exponential_distribution<double> exponential;
  for (int trial = 0; trial < trials; ++trial) {
    const auto covers = [](Interval i, double value) { return i.lo <= value && value <= i.hi; };
    const Bootstrap normal = bootstrap(normals(10, 2, 1, generator), mean, 400, 0.95, generator());
    normal_percentile += covers(normal.percentile, 2) ? 1 : 0;
    normal_expanded += covers(normal.expanded, 2) ? 1 : 0;
    normal_bca += covers(normal.bca, 2) ? 1 : 0;

    std::vector<double> sample(20);
    std::ranges::generate(sample, [&] { return exponential(generator); });
    const Bootstrap skew = bootstrap(sample, mean, 400, 0.95, generator());
    too_low[0] += skew.percentile.hi < 1 ? 1 : 0;
    too_high[0] += skew.percentile.lo > 1 ? 1 : 0;
    too_low[1] += skew.bca.hi < 1 ? 1 : 0;
    too_high[1] += skew.bca.lo > 1 ? 1 : 0;
  }
  EXPECT_NEAR(normal_percentile / double{trials}, 0.904, 5 * sigma + 0.005);
  EXPECT_NEAR(normal_expanded / double{trials}, 0.95, 5 * std::sqrt(0.95 * 0.05 / trials) + 0.015);
  EXPECT_NEAR(normal_bca / double{trials}, 0.904, 5 * sigma + 0.01);
  // Over 100,000 trials 8.3 % against 1.8 %, and 6.2 % against 3.0 %. The two kinds of interval
  // differ in their verdict on 3.5 % of the samples.
  const double skewed = (too_low[0] - too_high[0]) / double{trials};
  const double corrected = (too_low[1] - too_high[1]) / double{trials};
  EXPECT_NEAR(skewed, 0.066, 5 * std::sqrt(0.101 / trials) + 0.005);
  EXPECT_NEAR(skewed - corrected, 0.034, 5 * std::sqrt(0.035 / trials) + 0.002);
}

// t at 97.5 % with 9 and with 4 degrees of freedom is 2.262157 and 2.776445 in the
// tables; Phi(-sqrt(10/9) t) and Phi(-sqrt(5/4) t) are 0.00855064 and 0.00095410.
TEST(Bootstrap, TheExpandedIntervalIsAPercentileIntervalOfMoreConfidence) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 generator(seed);
  for (const auto& [n, tail] : {std::pair(10, 0.00855064), std::pair(5, 0.00095410)}) {
    const std::vector<double> sample = normals(n, 2, 1, generator);
    const Interval expanded = bootstrap(sample, mean, 4000, 0.95, 7).expanded;
    const Interval wide = bootstrap(sample, mean, 4000, 1 - 2 * tail, 7).percentile;
    EXPECT_NEAR(expanded.lo, wide.lo, 1e-4);
    EXPECT_NEAR(expanded.hi, wide.hi, 1e-4);
  }
}

TEST(LeastSquaresSlope, IsCovarianceOverVariance) {
  // Around the means 3.5 and 5.25: (5.625 + 6.375 + 1.375 + 13.125) / (6.25 + 2.25 + 0.25 + 12.25).
  EXPECT_NEAR(
      *least_squares_slope(std::vector{1.0, 2.0, 4.0, 7.0}, std::vector{3.0, 1.0, 8.0, 9.0}),
      26.5 / 21, 1e-14);
  EXPECT_FALSE(least_squares_slope(std::vector{2.0, 2.0}, std::vector{1.0, 3.0}));
  EXPECT_THROW(least_squares_slope(std::vector{2.0}, std::vector{1.0, 3.0}), Error);
  EXPECT_THROW(least_squares_slope({}, {}), Error);
}

TEST(Bootstrap, MovesWithItsSample) {
  std::vector<double> moved = darwin;
  for (double& value : moved) value = 256 - 2 * value;
  const Bootstrap a = bootstrap(darwin, median, 500, 0.9, 1);
  const Bootstrap b = bootstrap(moved, median, 500, 0.9, 1);
  EXPECT_EQ(b.estimate, 256 - 2 * a.estimate);
  EXPECT_NEAR(b.percentile.lo, 256 - 2 * a.percentile.hi, 1e-9);
  EXPECT_NEAR(b.percentile.hi, 256 - 2 * a.percentile.lo, 1e-9);
  EXPECT_NEAR(b.bca.lo, 256 - 2 * a.bca.hi, 1e-9);
  EXPECT_NEAR(b.bca.hi, 256 - 2 * a.bca.lo, 1e-9);
}

TEST(Bootstrap, AnotherSeedDrawsOtherResamples) {
  const auto interval = [](std::uint64_t seed) {
    return bootstrap(darwin, mean, 100, 0.9, seed).percentile.lo;
  };
  EXPECT_EQ(interval(1), interval(1));
  EXPECT_NE(interval(1), interval(2));
  EXPECT_NE(interval(1), interval(1 + (std::uint64_t{1} << 32)));
}

TEST(Bootstrap, RowsStayTogether) {
  const std::vector<double> first{0.91, 0.93, 0.90, 0.95, 0.88, 0.97};
  const std::vector<double> second{0.90, 0.91, 0.91, 0.92, 0.85, 0.93};
  std::size_t calls = 0;
  const Bootstrap rows = bootstrap_rows(
      6,
      [&](std::span<const std::size_t> drawn) {
        ++calls;
        EXPECT_TRUE(drawn.size() == 6 || drawn.size() == 5);
        EXPECT_TRUE(std::ranges::is_sorted(drawn));
        EXPECT_LT(drawn.back(), 6);
        double difference = 0;
        for (const std::size_t row : drawn) difference += first[row] - second[row];
        return difference / static_cast<double>(drawn.size());
      },
      1000, 0.95, 3);
  EXPECT_EQ(calls, 1 + 1000 + 6);  // the sample, the replicates, the jackknife
  const Bootstrap pairs = bootstrap(paired_differences(first, second), mean, 1000, 0.95, 3);
  EXPECT_EQ(rows.estimate, pairs.estimate);
  EXPECT_EQ(rows.percentile.lo, pairs.percentile.lo);
  EXPECT_EQ(rows.bca.hi, pairs.bca.hi);
}

// Every replicate has more repeated rows than the sample, which has none: the share of replicates
// below the estimate is 0, and half a replicate takes its place.
TEST(Bootstrap, AnEstimateOutsideItsReplicates) {
  double least = 30;
  const auto repeated = [&](std::span<const std::size_t> rows) {
    double count = 0;
    for (std::size_t i = 1; i < rows.size(); ++i) count += rows[i] == rows[i - 1] ? 1 : 0;
    if (count > 0) least = std::min(least, count);
    return count;
  };
  const Bootstrap result = bootstrap_rows(30, repeated, 1000, 0.95, 2);
  EXPECT_EQ(result.estimate, 0);
  EXPECT_GT(least, 1);
  EXPECT_LT(least, result.percentile.lo);
  EXPECT_NEAR(result.bca.lo, least, 1e-6);
  EXPECT_GE(result.bca.hi, least);
  EXPECT_LT(result.bca.hi, result.percentile.lo);

  // With the most skewed jackknife the correction of the lower end is beyond its pole.
  const auto skew = [&](std::span<const std::size_t> rows) {
    if (rows.size() == 30) return repeated(rows);
    return rows.front() == 1 ? 1e6 : 0.0;
  };
  least = 30;
  const Bootstrap beyond = bootstrap_rows(30, skew, 10000, 0.999, 2);
  EXPECT_EQ(beyond.bca.lo, least);
  EXPECT_LT(beyond.bca.hi, result.percentile.lo);
}

TEST(Bootstrap, TheEdges) {
  const Bootstrap equal = bootstrap(std::vector(7, 0.1), median, 100);
  EXPECT_EQ(equal.percentile.lo, 0.1);
  EXPECT_EQ(equal.percentile.hi, 0.1);
  EXPECT_EQ(equal.bca.lo, 0.1);
  EXPECT_EQ(equal.bca.hi, 0.1);

  const auto error = [](const std::vector<double>& sample, int replicates, double confidence) {
    return error_of([&] { bootstrap(sample, mean, replicates, confidence); });
  };
  EXPECT_THAT(error({}, 100, 0.9), HasSubstr("0 values are too few"));
  EXPECT_THAT(error({1.0}, 100, 0.9), HasSubstr("1 values are too few"));
  EXPECT_THAT(error({1.0, nan}, 100, 0.9), HasSubstr("nan"));
  EXPECT_THAT(error({1.0, 2.0}, 100, 0), HasSubstr("between 0 and 1"));
  EXPECT_THAT(error({1.0, 2.0}, 39, 0.95), HasSubstr("39 replicates are too few"));
  EXPECT_EQ(error({1.0, 2.0}, 40, 0.95), "no error");
  EXPECT_THAT(error({1.0, 2.0}, -1, 0.95), HasSubstr("too few"));
  EXPECT_THAT(error_of([] { bootstrap_rows(1, [](auto) { return 0.0; }); }), HasSubstr("1 rows"));
  EXPECT_THAT(error_of([] { bootstrap(darwin, [](auto) { return nan; }); }),
              HasSubstr("the statistic of a resample is nan"));
}

}  // namespace
}  // namespace preheat
