// What counts over seeds can and cannot say.
#pragma once

#include <cstdint>

namespace preheat {

struct Interval {
  double lo = 0;
  double hi = 1;
};

/// Exact confidence interval for the probability behind `failures` of `n` runs: each end is the
/// probability at which a result at least this extreme has probability (1 - confidence) / 2.
/// n = 0 says nothing: [0, 1]. Throws Error unless 0 <= failures <= n and 0 < confidence < 1.
/// Clopper, Pearson: "The use of confidence or fiducial limits illustrated in the case of the
/// binomial", Biometrika 26, 1934.
Interval clopper_pearson(std::int64_t failures, std::int64_t n, double confidence = 0.95);

/// Two-sided exact p-value for paired runs, where `b` seeds failed only in the first arm and `c`
/// only in the second: min(1, 2 P(X <= min(b, c))) with X ~ Binomial(b + c, 1/2); 1 where no seed
/// tells the arms apart. Throws Error for a negative count.
/// McNemar: "Note on the sampling error of the difference between correlated proportions or
/// percentages", Psychometrika 12, 1947.
double mcnemar_exact(std::int64_t b, std::int64_t c);

}  // namespace preheat
