// Tests by ranks, which ask for no distribution: their p-values come from counting the signs or the
// orders that the data could as well have had. Equal values share the mean of their ranks, and the
// counting is done with the ranks so shared, so ties leave the tests exact.
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

/// Wilcoxon's signed-rank test of paired differences, against their distribution being symmetric
/// about 0: twice the probability that, with signs thrown
/// by coins, the smaller of the two sums would be as small as it is, at most 1. Zeros are dropped,
/// as Wilcoxon did (Pratt's way differs). Sizes that differ by less than one part in 10^9 count as
/// equal, because 0.93 - 0.92 and 0.92 - 0.91 are not equal to the last bit. Exact up to n = 500;
/// above that the normal approximation with the variance of the shared ranks and a continuity
/// correction. Nothing but zeros: p = 1. Throws Error for a value that is not finite.
/// Wilcoxon: "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945.
SignedRank wilcoxon_signed_rank(std::span<const double> differences);

/// Which trend a p-value is for. A direction is to be chosen before the runs are looked at.
enum class Alternative { two_sided, increasing, decreasing };

struct Correlation {
  double rho = 0;  // -1..1
  double p = 1;
};

/// Spearman's rank correlation, Pearson's of the ranks, and the share of all orders of y whose rho
/// is at least as large (increasing), as small (decreasing), or as far from 0 (two_sided) as the
/// one found. Exact for up to 10 pairs; beyond, (1 + hits) / (1 + permutations) of random orders,
/// which is never 0 and is as valid (Phipson, Smyth 2010); these are a function of the seed and the
/// same on every machine. Fewer than two pairs, or all of x or of y equal: rho = 0 and p = 1.
/// Equal means bit for bit. Throws Error for different lengths, for a value that is not finite, and
/// for fewer than 1 permutation.
/// Spearman: "The proof and measurement of association between two things", Am. J. Psychol. 15,
/// 1904.
Correlation spearman(std::span<const double> x, std::span<const double> y,
                     Alternative alternative = Alternative::two_sided, int permutations = 9999,
                     std::uint64_t seed = 0);

struct PageTrend {
  std::int64_t blocks = 0;
  double l = 0;  // Page's L: over blocks and levels, the sum of rank of level x rank within block
  double rho =
      0;  // the mean of the blocks' Spearman correlations with the levels, 0 where all equal
  double p = 1;
};

/// Page's test for a trend over levels in blocks, such as warmup lengths in each of several seeds:
/// L over all ways to reorder the outcomes within their blocks. For one block it is spearman, and
/// for untied ones the test by their mean rho. `outcomes` holds a row of levels.size() values for
/// each block. Exact for up to 10 levels and any number of blocks, beyond that by random orders as
/// in spearman; two_sided is as far from the mean of L. No blocks, or all levels equal: p = 1.
/// Throws Error for incomplete blocks, for a value that is not finite, and for fewer than 1
/// permutation.
/// Page: "Ordered hypotheses for multiple treatments: a significance test for linear ranks", JASA
/// 58, 1963.
PageTrend page_trend(std::span<const double> levels, std::span<const double> outcomes,
                     Alternative alternative, int permutations = 9999, std::uint64_t seed = 0);

}  // namespace preheat
