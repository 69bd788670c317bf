// Statistics of counts and measurements over seeds. Rank tests are in ranks.h. Nothing here rounds,
// corrects or drops values without saying so; values that are not finite are refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace preheat {

struct Interval {
  double lo = 0;
  double hi = 1;
};

/// "[0.83, 1.00]".
std::string to_string(const Interval& interval);

/// Exact confidence interval for the probability of failure given `failures` of `n` runs: each end
/// is the probability at which a result at least this extreme has probability (1 - confidence) / 2.
/// [0, 1] for n = 0. Throws Error unless 0 <= failures <= n and 0 < confidence < 1.
/// Clopper, Pearson: "The use of confidence or fiducial limits illustrated in the case of the
/// binomial", Biometrika 26, 1934.
Interval clopper_pearson(std::int64_t failures, std::int64_t n, double confidence = 0.95);

/// Confidence interval for the same probability whose coverage holds on average over that
/// probability, not for each value, so it is mostly shorter: for plots, not for claims. All p with
/// |failures / n - p| <= z sqrt(p (1 - p) / n), where z is the normal quantile of
/// (1 + confidence) / 2; no continuity correction. [0, 1] for n = 0. Throws Error unless
/// 0 <= failures <= n and 0 < confidence < 1.
/// Wilson: "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
Interval wilson(std::int64_t failures, std::int64_t n, double confidence = 0.95);

/// Two-sided exact p-value for paired runs, where `b` seeds failed only in the first arm and `c`
/// only in the second: min(1, 2 P(X <= min(b, c))) with X ~ Binomial(b + c, 1/2); 1 if b + c = 0.
/// Throws Error for a negative count.
/// McNemar: "Note on the sampling error of the difference between correlated proportions or
/// percentages", Psychometrika 12, 1947.
double mcnemar_exact(std::int64_t b, std::int64_t c);

/// Confidence interval for the difference of two arms' shares of failures, first minus second, over
/// `n` seeds that both have, of which `b` failed only in the first arm and `c` only in the second.
/// From the lower end for b minus the upper end for c, to the upper end for b minus the lower end
/// for c, with the ends of clopper_pearson at confidence (1 + confidence) / 2. By Bonferroni its
/// confidence is at least `confidence`, whatever the dependence of the arms. [-1, 1] for n = 0.
/// Throws Error unless 0 <= b, c and b + c <= n, and 0 < confidence < 1.
Interval paired_difference_of_shares(std::int64_t b, std::int64_t c, std::int64_t n,
                                     double confidence = 0.90);

/// One-sided exact p-value of the sign test, for the claim that more than half of the population is
/// positive: P(X >= positive) with X ~ Binomial(n, 1/2). Throws Error unless 0 <= positive <= n.
double sign_test(std::int64_t positive, std::int64_t n);

/// Two-sided exact p-value for unpaired runs, `a` failures and `b` successes of one arm against `c`
/// and `d` of the other: the hypergeometric probability, given all four margins, of the tables that
/// are at most as probable as this one (the definition of R and scipy; not twice the smaller tail).
/// Probabilities within a factor 1 + 1e-7 count as equal. 1 if a margin is 0. Time and memory grow
/// with the smallest margin. Throws Error for a negative count.
/// Fisher: "The design of experiments", 1935.
double fisher_exact(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d);

/// Holm's adjusted p-values, in the order given: the i-th smallest of m becomes the largest of
/// min(1, (m - j + 1) p_j) over j <= i. Calling significant what is at most alpha then has a
/// family-wise error rate of at most alpha, however the tests depend on each other. Throws Error
/// for a value outside [0, 1].
/// Holm: "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
std::vector<double> holm(std::span<const double> p_values);

/// first[i] - second[i], one value per seed: the input of the tests for paired runs. Throws Error
/// for different lengths and for values that are not finite. (A failed run counts with the accuracy
/// of chance and is neither NaN nor left out: the caller substitutes that.)
std::vector<double> paired_differences(std::span<const double> first,
                                       std::span<const double> second);

/// The arithmetic mean; of equal values exactly that value. Throws Error for no values and for one
/// that is not finite.
double mean(std::span<const double> sample);

/// The middle value, or the mean of the two middle values. Throws Error like mean.
double median(std::span<const double> sample);

/// The same of a sample that is not empty and may have infinite values, which rank first or last.
double median_with_infinite(std::vector<double> sample);

/// The slope b of the least-squares line y = a + b x; std::nullopt if all x are equal. Throws Error
/// for different lengths, no values and one that is not finite.
std::optional<double> least_squares_slope(std::span<const double> x, std::span<const double> y);

struct PairedT {
  double mean = 0;                // in the unit of the differences, like the interval
  double t = 0;                   // mean / standard error
  double degrees_of_freedom = 0;  // n - 1
  double p = 1;                   // two-sided, against a mean of 0
  Interval interval;              // for the mean
};

/// Student's t test of paired differences, which assumes that they are normal. If all are equal,
/// the interval is a point, and p is 1 if they are all 0 and otherwise 0; that means that they were
/// measured too coarsely for this test, not that they are certain. Throws Error for fewer than two,
/// for one that is not finite, and unless 0 < confidence < 1.
/// Student: "The probable error of a mean", Biometrika 6, 1908.
PairedT paired_t(std::span<const double> differences, double confidence = 0.95);

struct Equivalence {
  double mean = 0;
  double not_inferior_p = 1;  // for the claim that the mean is above -margin (more is better)
  double not_superior_p = 1;  // for the claim that it is below +margin
  double p = 1;               // for equivalence, which is both: the larger of the two
};

/// Two one-sided t tests (TOST) of paired differences against a margin fixed before the runs, in
/// the unit of the differences: upper tail of t = (mean + margin) / se, lower tail of
/// t = (mean - margin) / se. p < alpha is equivalent to the interval of paired_t at confidence
/// 1 - 2 alpha lying inside (-margin, margin). If all are equal, p is the limit. Throws Error for
/// fewer than two, for one that is not finite, and unless margin > 0.
/// Schuirmann: "A comparison of the two one-sided tests procedure and the power approach for
/// assessing the equivalence of average bioavailability", J. Pharmacokinet. Biopharm. 15, 1987.
Equivalence tost(std::span<const double> differences, double margin);

struct Bootstrap {
  double estimate = 0;  // the statistic of the sample itself
  Interval percentile;
  Interval expanded;
  Interval bca;
};

/// With fewer seeds no bootstrap interval has its nominal confidence, so none is reported.
constexpr std::int64_t min_seeds_for_bootstrap = 5;

/// Bootstrap intervals of `statistic`, which must not depend on the order of the values.
/// - percentile: the quantiles (1 -+ confidence) / 2 of the replicates, interpolated linearly.
/// - expanded: the quantiles Phi(-+ sqrt(n / (n - 1)) t), where t is the quantile of Student's
///   distribution with n - 1 degrees of freedom for that confidence. It is wider than the
///   percentile interval by as much as a t interval is wider than a normal one with known spread
///   (Hesterberg: "What teachers should know about the bootstrap", The American Statistician 69,
///   2015). It cannot exceed the range of the resamples, so it is still too short below five
///   values.
/// - bca: quantiles corrected for bias (by the share of replicates below the estimate, plus half of
///   those equal to it) and for skewness (by the jackknife). If the statistic is smooth, the
///   coverage error of each end shrinks like 1 / n instead of 1 / sqrt(n); a median is not smooth:
///   use the percentile interval for it.
/// None is exact, and percentile and bca are too short for few values: for the mean of ten normal
/// values their 95 % are about 90 %, those of expanded about 95 %. All equal: a point.
///     bootstrap(paired_differences(a, b), mean)
/// The resamples are a function of (seed, number of values) and the same on every machine. Throws
/// Error for fewer than two values, for values or results that are not finite, unless
/// 0 < confidence < 1, and for fewer than 2 / (1 - confidence) replicates.
/// Efron, Tibshirani: "An introduction to the bootstrap", 1993, chapters 13 and 14.
Bootstrap bootstrap(std::span<const double> sample,
                    const std::function<double(std::span<const double>)>& statistic,
                    int replicates = 10000, double confidence = 0.95, std::uint64_t seed = 0);

/// The same for a statistic of whole rows, such as seeds with a value in each of several arms. The
/// statistic receives the indices of the rows drawn (0..rows - 1, ascending, with repetition), so
/// that paired values stay together. Rows must be independent; cells of one seed are not.
Bootstrap bootstrap_rows(std::size_t rows,
                         const std::function<double(std::span<const std::size_t>)>& statistic,
                         int replicates = 10000, double confidence = 0.95, std::uint64_t seed = 0);

}  // namespace preheat
