#include "experiment/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "config/error.h"
#include "data/random.h"

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
  const double max_terms = 100 + 20 * std::sqrt(a + b);
  for (double m = 1; m < max_terms; ++m) {
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

// P(X >= k) for X ~ Binomial(n, 1/2). Exact for n <= 53, so that a p-value equal to a significance
// level compares as equal.
double fair_coin_upper_tail(std::int64_t k, std::int64_t n) {
  constexpr std::int64_t max_exact = std::numeric_limits<double>::digits;
  if (n > max_exact) {
    return regularized_incomplete_beta(0.5, static_cast<double>(k), static_cast<double>(n - k + 1));
  }
  std::uint64_t ways = 1;  // to get i heads, from i = n down
  std::uint64_t sum = 0;
  for (std::int64_t i = n; i >= k; --i) {
    sum += ways;
    ways = ways * static_cast<std::uint64_t>(i) / static_cast<std::uint64_t>(n - i + 1);
  }
  return std::ldexp(static_cast<double>(sum), -static_cast<int>(n));
}

// The point where `below` changes from true to false, to adjacent doubles.
template <class Below>
double bisect(double lo, double hi, const Below& below) {
  while (true) {
    const double middle = lo + (hi - lo) / 2;
    if (middle <= lo || middle >= hi) return middle;
    (below(middle) ? lo : hi) = middle;
  }
}

// The x with I_x(a, b) = p.
double beta_quantile(double p, double a, double b) {
  return bisect(0, 1, [&](double x) { return regularized_incomplete_beta(x, a, b) < p; });
}

// P(|T| >= |t|) for Student's t: I_x(v / 2, 1 / 2) at x = v / (v + t^2) (Abramowitz,
// Stegun 26.7.1). For small t, where x is near 1 and loses digits, by the complement.
double t_two_sided(double t, double v) {
  const double square = t * t;
  return square < 1 ? 1 - regularized_incomplete_beta(square / (v + square), 0.5, v / 2)
                    : regularized_incomplete_beta(v / (v + square), v / 2, 0.5);
}

// P(T >= t).
double t_upper(double t, double v) {
  const double outside = t_two_sided(t, v);
  return t > 0 ? outside / 2 : 1 - outside / 2;
}

// The t >= 0 with P(|T| >= t) = p.
double t_quantile(double p, double v) {
  double hi = 1;
  while (t_two_sided(hi, v) > p) hi *= 2;
  return bisect(0, hi, [&](double t) { return t_two_sided(t, v) > p; });
}

double normal_cdf(double z) {
  return std::erfc(-z / std::sqrt(2.0)) / 2;
}

void check_count(std::int64_t failures, std::int64_t n) {
  if (failures < 0 || failures > n) {
    throw Error(fmt::format("{} failures of {} runs is not a count", failures, n));
  }
}

void check_confidence(double confidence) {
  if (!(confidence > 0 && confidence < 1)) {
    throw Error(fmt::format("the confidence is {}; it must be between 0 and 1", confidence));
  }
}

void check_sample(std::span<const double> sample, std::size_t least) {
  if (sample.size() < least) {
    throw Error(fmt::format("{} values are too few; it takes {}", sample.size(), least));
  }
  for (const double value : sample) {
    if (!std::isfinite(value)) throw Error(fmt::format("{} among the values", value));
  }
}

struct MeanAndError {
  double mean;
  double error;
  double degrees_of_freedom;

  // By how many standard errors the mean is above `value`; the limit if there is no spread.
  double t_above(double value) const { return mean == value ? 0 : (mean - value) / error; }
};

MeanAndError mean_and_error(std::span<const double> sample) {
  check_sample(sample, 2);
  const double m = mean(sample);
  double squares = 0;
  for (const double value : sample) squares += (value - m) * (value - m);
  const auto n = static_cast<double>(sample.size());
  return {m, std::sqrt(squares / (n - 1) / n), n - 1};
}

// Linear interpolation at position level (size - 1): type 7 of Hyndman and Fan.
double quantile_of_sorted(std::span<const double> sorted, double level) {
  const double position = level * static_cast<double>(sorted.size() - 1);
  const auto left = static_cast<std::size_t>(position);
  const std::size_t right = std::min(left + 1, sorted.size() - 1);
  return std::lerp(sorted[left], sorted[right], position - std::floor(position));
}

// Sum u^3 / (6 (sum u^2)^(3/2)), where u is the mean of all leave-one-out statistics minus the
// statistic without one row.
template <class Statistic>
double jackknife_acceleration(std::size_t rows, const Statistic& statistic) {
  std::vector<std::size_t> kept(rows - 1);
  std::vector<double> without(rows);
  for (std::size_t left_out = 0; left_out < rows; ++left_out) {
    for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = i + (i >= left_out ? 1 : 0);
    without[left_out] = statistic(kept);
  }
  const double center = mean(without);
  double squares = 0;
  double cubes = 0;
  for (const double value : without) {
    const double u = center - value;
    squares += u * u;
    cubes += u * u * u;
  }
  return squares == 0 ? 0 : cubes / (6 * std::pow(squares, 1.5));
}

}  // namespace

std::string to_string(const Interval& interval) {
  return fmt::format("[{:.2f}, {:.2f}]", interval.lo, interval.hi);
}

Interval clopper_pearson(std::int64_t failures, std::int64_t n, double confidence) {
  check_count(failures, n);
  check_confidence(confidence);
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

Interval wilson(std::int64_t failures, std::int64_t n, double confidence) {
  check_count(failures, n);
  check_confidence(confidence);
  if (n == 0) return {};
  const auto runs = static_cast<double>(n);
  const double z = normal_quantile((1 - confidence) / 2);
  // The ends solve (n + z^2) p^2 - (2 k + z^2) p + k^2 / n = 0. To avoid cancellation the smaller
  // root is the product of both over the larger, and the upper end is 1 minus the lower end for the
  // successes.
  const auto lower = [&](double k) {
    const double root = std::abs(z) * std::sqrt(z * z + 4 * k * (runs - k) / runs);
    return 2 * k * k / runs / (2 * k + z * z + root);
  };
  const auto k = static_cast<double>(failures);
  return {lower(k), 1 - lower(runs - k)};
}

double mcnemar_exact(std::int64_t b, std::int64_t c) {
  if (b < 0 || c < 0) {
    throw Error(fmt::format("{} and {} discordant pairs are not counts", b, c));
  }
  if (b == c) return 1;
  // P(X <= min(b, c)) = P(X >= max(b, c)), as X is symmetric.
  return std::min(1.0, 2 * fair_coin_upper_tail(std::max(b, c), b + c));
}

Interval paired_difference_of_shares(std::int64_t b, std::int64_t c, std::int64_t n,
                                     double confidence) {
  if (b < 0 || c < 0 || b + c > n) {
    throw Error(fmt::format("{} and {} of {} seeds are not counts", b, c, n));
  }
  if (n == 0) return {-1, 1};
  const Interval first = clopper_pearson(b, n, (1 + confidence) / 2);
  const Interval second = clopper_pearson(c, n, (1 + confidence) / 2);
  return {first.lo - second.hi, first.hi - second.lo};
}

double sign_test(std::int64_t positive, std::int64_t n) {
  check_count(positive, n);
  if (positive == 0) return 1;
  return fair_coin_upper_tail(positive, n);
}

double fisher_exact(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  if (a < 0 || b < 0 || c < 0 || d < 0) {
    throw Error(fmt::format("{} {} / {} {} are not counts", a, b, c, d));
  }
  // Tables with the same margins differ only in x, which is a in the given one.
  const double row = static_cast<double>(a) + static_cast<double>(b);
  const double column = static_cast<double>(a) + static_cast<double>(c);
  const double all = row + static_cast<double>(c) + static_cast<double>(d);
  const double first = std::max(0.0, row + column - all);
  const double last = std::min(row, column);
  // P(x + 1) / P(x).
  const auto ratio = [&](double x) {
    return (row - x) * (column - x) / ((x + 1) * (all - row - column + x + 1));
  };
  // Probabilities relative to the largest, so that those that underflow are negligible.
  const auto index = [&](double x) { return static_cast<std::size_t>(x - first); };
  std::vector<double> weight(index(last) + 1);
  const double mode = std::clamp(std::floor((row + 1) * (column + 1) / (all + 2)), first, last);
  weight[index(mode)] = 1;
  for (double x = mode; x < last; ++x) weight[index(x + 1)] = weight[index(x)] * ratio(x);
  for (double x = mode; x > first; --x) weight[index(x - 1)] = weight[index(x)] / ratio(x - 1);

  const double most = weight[index(static_cast<double>(a))] * (1 + 1e-7);
  double total = 0;
  double extreme = 0;
  for (const double w : weight) {
    total += w;
    if (w <= most) extreme += w;
  }
  return extreme / total;
}

std::vector<double> holm(std::span<const double> p_values) {
  for (const double p : p_values) {
    if (!(p >= 0 && p <= 1)) throw Error(fmt::format("{} is not a p-value", p));
  }
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return p_values[i]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (std::size_t j = 0; j < order.size(); ++j) {
    const auto still_open = static_cast<double>(order.size() - j);
    largest = std::max(largest, std::min(1.0, still_open * p_values[order[j]]));
    adjusted[order[j]] = largest;
  }
  return adjusted;
}

std::vector<double> paired_differences(std::span<const double> first,
                                       std::span<const double> second) {
  if (first.size() != second.size()) {
    throw Error(fmt::format("{} values cannot be paired with {}", first.size(), second.size()));
  }
  check_sample(first, 0);
  check_sample(second, 0);
  std::vector<double> differences(first.size());
  std::ranges::transform(first, second, differences.begin(), std::minus{});
  return differences;
}

double mean(std::span<const double> sample) {
  check_sample(sample, 1);
  // Summing equal values and dividing would round.
  if (std::ranges::adjacent_find(sample, std::not_equal_to{}) == sample.end()) return sample[0];
  return std::accumulate(sample.begin(), sample.end(), 0.0) / static_cast<double>(sample.size());
}

double median(std::span<const double> sample) {
  check_sample(sample, 1);
  return median_with_infinite({sample.begin(), sample.end()});
}

double median_with_infinite(std::vector<double> sample) {
  std::ranges::sort(sample);
  return std::midpoint(sample[(sample.size() - 1) / 2], sample[sample.size() / 2]);
}

std::optional<double> least_squares_slope(std::span<const double> x, std::span<const double> y) {
  if (x.size() != y.size()) throw Error("a line needs as many y as x");
  const double mean_x = mean(x);
  const double mean_y = mean(y);
  double xx = 0;
  double xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  if (xx == 0) return std::nullopt;
  return xy / xx;
}

PairedT paired_t(std::span<const double> differences, double confidence) {
  check_confidence(confidence);
  const MeanAndError found = mean_and_error(differences);
  const double t = found.t_above(0);
  const double reach = t_quantile(1 - confidence, found.degrees_of_freedom) * found.error;
  return {.mean = found.mean,
          .t = t,
          .degrees_of_freedom = found.degrees_of_freedom,
          .p = t_two_sided(t, found.degrees_of_freedom),
          .interval = {found.mean - reach, found.mean + reach}};
}

Equivalence tost(std::span<const double> differences, double margin) {
  if (!(margin > 0 && std::isfinite(margin))) {
    throw Error(fmt::format("the margin is {}; it must be above 0", margin));
  }
  const MeanAndError found = mean_and_error(differences);
  Equivalence result;
  result.mean = found.mean;
  result.not_inferior_p = t_upper(found.t_above(-margin), found.degrees_of_freedom);
  result.not_superior_p = t_upper(-found.t_above(margin), found.degrees_of_freedom);
  result.p = std::max(result.not_inferior_p, result.not_superior_p);
  return result;
}

Bootstrap bootstrap(std::span<const double> sample,
                    const std::function<double(std::span<const double>)>& statistic, int replicates,
                    double confidence, std::uint64_t seed) {
  check_sample(sample, 2);
  std::vector<double> drawn;
  const auto of_rows = [&](std::span<const std::size_t> rows) {
    drawn.clear();
    for (const std::size_t row : rows) drawn.push_back(sample[row]);
    return statistic(drawn);
  };
  return bootstrap_rows(sample.size(), of_rows, replicates, confidence, seed);
}

Bootstrap bootstrap_rows(std::size_t rows,
                         const std::function<double(std::span<const std::size_t>)>& statistic,
                         int replicates, double confidence, std::uint64_t seed) {
  check_confidence(confidence);
  if (rows < 2 || rows > std::numeric_limits<std::uint32_t>::max()) {
    throw Error(fmt::format("{} rows cannot be resampled", rows));
  }
  const double tail = (1 - confidence) / 2;
  if (replicates * tail < 1) {
    throw Error(fmt::format("{} replicates are too few for a confidence of {}; it takes {:.0f}",
                            replicates, confidence, std::ceil(1 / tail)));
  }
  const auto checked = [&](std::span<const std::size_t> drawn) {
    const double value = statistic(drawn);
    if (!std::isfinite(value)) throw Error(fmt::format("the statistic of a resample is {}", value));
    return value;
  };

  std::vector<std::size_t> drawn(rows);
  std::iota(drawn.begin(), drawn.end(), std::size_t{0});
  Bootstrap result;
  result.estimate = checked(drawn);
  std::vector<double> values(static_cast<std::size_t>(replicates));
  for (std::size_t r = 0; r < values.size(); ++r) {
    for_words(seed, RandomStream::bootstrap, static_cast<std::uint32_t>(r), std::ssize(drawn),
              [&](std::int64_t i, std::uint32_t word) {
                drawn[i] = below(word, static_cast<std::uint32_t>(rows));
              });
    // Sorted, so that a resample equal to the sample gives the same value to the last bit.
    std::ranges::sort(drawn);
    values[r] = checked(drawn);
  }
  std::ranges::sort(values);
  const auto between = [&](double level) {
    return Interval{quantile_of_sorted(values, level), quantile_of_sorted(values, 1 - level)};
  };
  const auto n = static_cast<double>(rows);
  result.percentile = between(tail);
  result.expanded =
      between(normal_cdf(-std::sqrt(n / (n - 1)) * t_quantile(1 - confidence, n - 1)));

  const auto below_estimate = std::ranges::lower_bound(values, result.estimate) - values.begin();
  const auto up_to_estimate = std::ranges::upper_bound(values, result.estimate) - values.begin();
  const double share = static_cast<double>(below_estimate + up_to_estimate) / 2 / replicates;
  // If all replicates are on one side, half a replicate counts as on the other.
  const double least = 0.5 / replicates;
  const double bias = normal_quantile(std::clamp(share, least, 1 - least));
  const double acceleration = jackknife_acceleration(rows, checked);
  const auto corrected = [&](double z) {
    const double shifted = bias + z;
    const double damping = 1 - acceleration * shifted;
    if (damping <= 0) return shifted > 0 ? 1.0 : 0.0;
    return normal_cdf(bias + shifted / damping);
  };
  const double z = normal_quantile(tail);
  result.bca = {quantile_of_sorted(values, corrected(z)),
                quantile_of_sorted(values, corrected(-z))};
  return result;
}

}  // namespace preheat
