#include "experiment/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "config/error.h"

namespace preheat {
namespace {

// The continued fraction of the incomplete beta function (DLMF 8.17.22), evaluated forward by
// Lentz's method as modified by Thompson and Barnett. It converges in O(sqrt(a + b)) terms for
// x < (a + 1) / (a + b + 2).
double beta_fraction(double x, double a, double b) {
  constexpr double tiny = 1e-300;
  constexpr double epsilon = std::numeric_limits<double>::epsilon();
  const auto away_from_zero = [](double v) { return std::abs(v) < tiny ? tiny : v; };

  double c = 1;
  double d = 1 / away_from_zero(1 - (a + b) * x / (a + 1));
  double fraction = d;
  const double most_terms = 100 + 20 * std::sqrt(a + b);
  for (double m = 1; m < most_terms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away_from_zero(1 + even * d);
    c = away_from_zero(1 + even / c);
    fraction *= d * c;
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away_from_zero(1 + odd * d);
    c = away_from_zero(1 + odd / c);
    fraction *= d * c;
    if (std::abs(d * c - 1) <= 2 * epsilon) break;
  }
  return fraction;
}

// I_x(a, b), which is P(X >= a) for X ~ Binomial(a + b - 1, x).
double regularized_incomplete_beta(double x, double a, double b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(x, a, b) / a
                                   : 1 - front * beta_fraction(1 - x, b, a) / b;
}

// The x with I_x(a, b) = p, by bisection down to neighbouring doubles.
double beta_quantile(double p, double a, double b) {
  double lo = 0;
  double hi = 1;
  while (true) {
    const double middle = lo + (hi - lo) / 2;
    if (middle <= lo || middle >= hi) return middle;
    (regularized_incomplete_beta(middle, a, b) < p ? lo : hi) = middle;
  }
}

}  // namespace

Interval clopper_pearson(std::int64_t failures, std::int64_t n, double confidence) {
  if (failures < 0 || failures > n) {
    throw Error(fmt::format("{} failures of {} runs is not a count", failures, n));
  }
  if (!(confidence > 0 && confidence < 1)) {
    throw Error(fmt::format("the confidence is {}; it must be between 0 and 1", confidence));
  }
  const double tail = (1 - confidence) / 2;
  const auto k = static_cast<double>(failures);
  const auto runs = static_cast<double>(n);
  Interval interval;
  if (failures > 0) {
    interval.lo = failures == n ? std::pow(tail, 1 / runs) : beta_quantile(tail, k, runs - k + 1);
  }
  if (failures < n) {
    interval.hi = failures == 0 ? -std::expm1(std::log(tail) / runs)
                                : beta_quantile(1 - tail, k + 1, runs - k);
  }
  return interval;
}

double mcnemar_exact(std::int64_t b, std::int64_t c) {
  if (b < 0 || c < 0) {
    throw Error(fmt::format("{} and {} discordant pairs are not counts", b, c));
  }
  if (b == c) return 1;
  const auto fewer = static_cast<double>(std::min(b, c));
  const auto more = static_cast<double>(std::max(b, c));
  // P(X <= fewer) = P(X >= more), X being symmetric.
  return std::min(1.0, 2 * regularized_incomplete_beta(0.5, more, fewer + 1));
}

}  // namespace preheat
