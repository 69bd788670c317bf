#include "experiment/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "config/error.h"

namespace preheat {
namespace {

using ::testing::HasSubstr;

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
    // ln Gamma(n) is of the order n ln n, and its rounding error with it.
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
          // P(X >= k) as P(n - X <= n - k), so that no digits cancel.
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

// scipy 1.17.1: binomtest(b, b + c).pvalue.
TEST(Mcnemar, MatchesScipy) {
  EXPECT_NEAR(mcnemar_exact(60, 40), 0.05688793364098089, 1e-13);
  EXPECT_NEAR(mcnemar_exact(200, 300), 8.940066542253288e-06, 1e-16);
  EXPECT_NEAR(mcnemar_exact(1500, 1400), 0.06598734966518463, 1e-11);
}

TEST(Mcnemar, RefusesNegativeCounts) {
  EXPECT_THAT(error_of([] { mcnemar_exact(-1, 3); }), HasSubstr("-1 and 3"));
}

}  // namespace
}  // namespace preheat
