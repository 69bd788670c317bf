// Rank tests, which assume no distribution: their p-values count the signs or orders that would
// have been equally likely. Equal values share the mean of their ranks (mid-ranks), and counting
// uses these, so the tests stay exact with ties.
#pragma once

#include <cstdint>
#include <span>

namespace preheat {

struct SignedRank {
  std::int64_t n = 0;  // differences other than 0
  double w_plus = 0;   // sum of the ranks of the positive ones
  double w_minus = 0;  // and of the negative ones
  double p = 1;        // two-sided
};

/// Wilcoxon's signed-rank test of paired differences, against a distribution symmetric about 0: p
/// is twice the probability that the rank sum of the positive differences, under random signs, is
/// at most the smaller of the two sums found, and at most 1. Zeros are dropped, as by Wilcoxon
/// (Pratt's method differs). Magnitudes that differ by at most one part in 10^9 count as equal,
/// because 0.93 - 0.92 and 0.92 - 0.91 are not equal to the last bit. Exact up to n = 500; above,
/// the normal approximation with the variance of the mid-ranks and a continuity correction. p = 1
/// if all are zero. Throws Error for a value that is not finite.
/// Wilcoxon: "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945.
SignedRank wilcoxon_signed_rank(std::span<const double> differences);

/// The alternative hypothesis of a p-value. A direction must be chosen before seeing the runs.
enum class Alternative { two_sided, increasing, decreasing };

struct Correlation {
  double rho = 0;  // -1..1
  double p = 1;
};

/// Spearman's rank correlation (Pearson's of the ranks) and its permutation p-value: the share of
/// all orders of y whose rho is at least as large (increasing), as small (decreasing), or as far
/// from 0 (two_sided) as the one found. Exact for up to 10 pairs; beyond, (1 + hits) /
/// (1 + permutations) over random orders, which is never 0 and still valid (Phipson, Smyth 2010).
/// The random orders are a function of the seed and the same on every machine. With fewer than two
/// pairs, or all of x or of y equal, rho = 0 and p = 1. Equal means bit for bit. Throws Error for
/// different lengths, a value that is not finite, and fewer than 1 permutation.
/// Spearman: "The proof and measurement of association between two things", Am. J. Psychol. 15,
/// 1904.
Correlation spearman(std::span<const double> x, std::span<const double> y,
                     Alternative alternative = Alternative::two_sided, int permutations = 9999,
                     std::uint64_t seed = 0);

struct PageTrend {
  std::int64_t blocks = 0;
  double l = 0;    // Page's L: sum over blocks and levels of level rank x rank within the block
  double rho = 0;  // mean Spearman correlation of blocks and levels; 0 for a block of equal values
  double p = 1;
};

/// Page's test for a trend over levels in blocks, such as warmup lengths in each of several seeds:
/// the permutation p-value of L over all reorderings of the outcomes within their blocks. For one
/// block it equals spearman, and for blocks without ties it is the test of their mean rho.
/// `outcomes` holds a row of levels.size() values per block. Exact for up to 10 levels and any
/// number of blocks, beyond that with random orders as in spearman; two_sided counts by distance
/// from the mean of L. p = 1 if there are no blocks or all levels are equal. Throws Error for
/// incomplete blocks, a value that is not finite, and fewer than 1 permutation.
/// Page: "Ordered hypotheses for multiple treatments: a significance test for linear ranks", JASA
/// 58, 1963.
PageTrend page_trend(std::span<const double> levels, std::span<const double> outcomes,
                     Alternative alternative, int permutations = 9999, std::uint64_t seed = 0);

}  // namespace preheat
