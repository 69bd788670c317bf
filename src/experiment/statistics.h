// What counts and measurements over seeds can and cannot say. Tests by ranks are in ranks.h.
// Nothing here rounds, corrects or drops without saying so; what is not finite is refused.
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

/// Exact confidence interval for the probability behind `failures` of `n` runs: each end is the
/// probability at which a result at least this extreme has probability (1 - confidence) / 2.
/// n = 0 says nothing: [0, 1]. Throws Error unless 0 <= failures <= n and 0 < confidence < 1.
/// Clopper, Pearson: "The use of confidence or fiducial limits illustrated in the case of the
/// binomial", Biometrika 26, 1934.
Interval clopper_pearson(std::int64_t failures, std::int64_t n, double confidence = 0.95);

/// Confidence interval for the same probability that keeps its confidence on average over it, not
/// for each, and so is mostly shorter: for plots, not for claims. The p with |failures / n - p| <=
/// z sqrt(p (1 - p) / n), z being the normal quantile of (1 + confidence) / 2; no continuity
/// correction. n = 0 says nothing: [0, 1]. Throws Error unless 0 <= failures <= n and 0 <
/// confidence < 1. Wilson: "Probable inference, the law of succession, and statistical inference",
/// JASA 22, 1927.
Interval wilson(std::int64_t failures, std::int64_t n, double confidence = 0.95);

/// Two-sided exact p-value for paired runs, where `b` seeds failed only in the first arm and `c`
/// only in the second: min(1, 2 P(X <= min(b, c))) with X ~ Binomial(b + c, 1/2); 1 where no seed
/// tells the arms apart. Throws Error for a negative count.
/// McNemar: "Note on the sampling error of the difference between correlated proportions or
/// percentages", Psychometrika 12, 1947.
double mcnemar_exact(std::int64_t b, std::int64_t c);

/// Confidence interval for the share of failures under one arm less that under another, of `n`
/// seeds that both have, `b` failed only in the first and `c` only in the second: from the lower
/// end for b less the upper one for c to the upper for b less the lower for c, each an end of
/// clopper_pearson at confidence (1 + confidence) / 2. By Bonferroni it holds at least the
/// confidence, whatever the two arms share. n = 0 says nothing: [-1, 1]. Throws Error unless 0 <=
/// b, c and b + c <= n, and 0 < confidence < 1.
Interval paired_difference_of_shares(std::int64_t b, std::int64_t c, std::int64_t n,
                                     double confidence = 0.90);

/// One-sided exact p-value of the sign test, for the claim that more than half of what there is to
/// draw from is positive: P(X >= positive) with X ~ Binomial(n, 1/2). Throws Error unless
/// 0 <= positive <= n.
double sign_test(std::int64_t positive, std::int64_t n);

/// Two-sided exact p-value for unpaired runs, `a` failures and `b` successes of one arm against `c`
/// and `d` of the other: the hypergeometric probability, given all four margins, of the tables that
/// are at most as probable as this one (of the definitions in use the one of R and scipy; not twice
/// the smaller tail). Probabilities within a factor 1 + 1e-7 count as equal. 1 where a margin is 0.
/// Time and memory grow with the smallest margin. Throws Error for a negative count.
/// Fisher: "The design of experiments", 1935.
double fisher_exact(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d);

/// Holm's adjusted p-values, in the order given: the i-th smallest of m becomes the largest of
/// min(1, (m - j + 1) p_j) over j <= i, so that calling significant what is at most alpha is wrong
/// anywhere with probability at most alpha, however the tests depend on each other. Throws Error
/// for a value outside [0, 1].
/// Holm: "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
std::vector<double> holm(std::span<const double> p_values);

/// first[i] - second[i]: what the tests for paired runs take, one value per seed. Throws Error for
/// different lengths and for values that are not finite. (A run that blew up counts with the
/// accuracy of chance, not with NaN and not with silence: that is the caller's to put in.)
std::vector<double> paired_differences(std::span<const double> first,
                                       std::span<const double> second);

/// Of equal values that value, to the last bit. Throws Error for no values and for one that is not
/// finite.
double mean(std::span<const double> sample);

/// The middle value, or halfway between the two middle values. Throws Error like mean.
double median(std::span<const double> sample);

/// The slope of the line y = a + b x with the least sum of squared distances in y; nothing where
/// all x are equal. Throws Error for different lengths, no values and one that is not finite.
std::optional<double> least_squares_slope(std::span<const double> x, std::span<const double> y);

struct PairedT {
  double mean = 0;                // in the unit of the differences, like the interval
  double t = 0;                   // mean / standard error
  double degrees_of_freedom = 0;  // n - 1
  double p = 1;                   // two-sided, against a mean of 0
  Interval interval;              // for the mean
};

/// Student's t test of paired differences, which takes them for normal. All equal is the limit: the
/// interval is a point, and p is 1 if they are all 0 and else 0, which says that they were measured
/// too coarsely for this test, not that they are certain. Throws Error for fewer than two, for one
/// that is not finite, and unless 0 < confidence < 1.
/// Student: "The probable error of a mean", Biometrika 6, 1908.
PairedT paired_t(std::span<const double> differences, double confidence = 0.95);

struct Equivalence {
  double mean = 0;
  double not_inferior_p = 1;  // for the claim that the mean is above -margin (more being better)
  double not_superior_p = 1;  // for the claim that it is below +margin
  double p = 1;               // for both, which is equivalence: the larger of the two
};

/// Two one-sided t tests of paired differences against a margin that was fixed before the runs, in
/// the unit of the differences: t = (mean + margin) / se upwards, t = (mean - margin) / se
/// downwards. p < alpha is the same as the interval of paired_t at confidence 1 - 2 alpha lying
/// inside (-margin, margin). All equal is the limit, as there. Throws Error for fewer than two, for
/// one that is not finite, and unless margin > 0.
/// Schuirmann: "A comparison of the two one-sided tests procedure and the power approach for
/// assessing the equivalence of average bioavailability", J. Pharmacokinet. Biopharm. 15, 1987.
Equivalence tost(std::span<const double> differences, double margin);

struct Bootstrap {
  double estimate = 0;  // the statistic of the sample itself
  Interval percentile;
  Interval expanded;
  Interval bca;
};

/// Bootstrap intervals of `statistic`, which must not depend on the order of the values. Of the
/// replicates' sorted values the percentile interval takes the quantiles (1 -+ confidence) / 2,
/// linearly between two values. The expanded one takes those at Phi(-+ sqrt(n / (n - 1)) t), t the
/// quantile of Student's distribution with n - 1 degrees of freedom for that confidence: as much
/// wider as the t interval is than that of a normal mean whose spread is taken for known
/// (Hesterberg: "What teachers should know about the bootstrap", The American Statistician 69,
/// 2015). It cannot be wider than what resamples reach, so that it is still short below five
/// values. BCa takes other quantiles, corrected for bias (by the share of replicates below the
/// estimate, with half of those equal to it) and for skewness (by the jackknife): where the
/// statistic is smooth, the error in what each end leaves out shrinks like 1 / n and not like 1 /
/// sqrt(n); for a median, which is not, read the percentile one. Neither is exact, and both are too
/// short for few values: for the mean of ten normal ones 95 % becomes about 90 %, and about 95 %
/// where expanded. All equal: a point.
///     bootstrap(paired_differences(a, b), mean)
/// The resamples are a function of (seed, number of values) and the same on every machine. Throws
/// Error for fewer than two values, for values or results that are not finite, unless
/// 0 < confidence < 1, and for fewer than 2 / (1 - confidence) replicates.
/// Efron, Tibshirani: "An introduction to the bootstrap", 1993, chapters 13 and 14.
Bootstrap bootstrap(std::span<const double> sample,
                    const std::function<double(std::span<const double>)>& statistic,
                    int replicates = 10000, double confidence = 0.95, std::uint64_t seed = 0);

/// The same for a statistic of whole rows, such as seeds with a value in each of several arms: it
/// is given the numbers of the rows drawn (0..rows - 1, ascending, with repetition) and so keeps
/// together what is paired. Rows must stand for independent things; cells of one seed do not.
Bootstrap bootstrap_rows(std::size_t rows,
                         const std::function<double(std::span<const std::size_t>)>& statistic,
                         int replicates = 10000, double confidence = 0.95, std::uint64_t seed = 0);

}  // namespace preheat
