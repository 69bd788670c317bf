// The claims of compare about how runs end: whether they fail, and their test accuracy.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "config/counted.h"
#include "experiment/compare_claims.h"

namespace preheat {

// ---- failures ----------------------------------------------------------------------------------
// The Clopper-Pearson interval of the share of failed runs. `above`: PASS if the interval is above
// it, FAIL if below; `below` is the reverse.

std::string text_of(const FailuresClaim& c) {
  return fmt::format("{} fails in {} than {} of runs", c.arm, more_or_less(c.share),
                     per_cent(c.share.value()));
}

Finding judge(const FailuresClaim& c, const Arms& arms) {
  const ComparedArm& arm = arms[c.arm];
  const Interval interval = arm.result.failure_interval();
  Finding finding;
  finding.evidence = fmt::format("{} of {} runs failed, 95 % interval {}", arm.result.failures(),
                                 arm.n(), to_string(interval));
  if (arm.n() > 0) finding.verdict = verdict_of(interval, c.share);
  return finding;
}

// ---- fails_more --------------------------------------------------------------------------------
// Exact McNemar test, two-sided. The claimed direction: more seeds failed only in the first arm
// than only in the second. Only shown is the p-value of Fisher's exact test of the counts,
// two-sided and not adjusted, which does not use that the arms share seeds.

std::string text_of(const FailsMoreClaim& c) {
  return fmt::format("{} fails more often than {}", c.arms[0], c.arms[1]);
}

namespace {

std::string failures_text(const ArmResult& a, const ArmResult& b) {
  return fmt::format("{} of {} against {} of {}", a.failures(), a.runs.size(), b.failures(),
                     b.runs.size());
}

std::string discordant_text(const PairResult& pair) {
  return fmt::format("of {} seeds {} failed only in the first, {} only in the second", pair.pairs,
                     pair.only_first_failed, pair.only_second_failed);
}

}  // namespace

Finding judge(const FailsMoreClaim& c, const Arms& arms) {
  const ComparedArm& first = arms[c.arms[0]];
  const ComparedArm& second = arms[c.arms[1]];
  const std::int64_t a = first.result.failures();
  const std::int64_t b = second.result.failures();
  const PairResult pair = pair_of(first.result, second.result);
  return {.evidence =
              fmt::format("{} (Fisher's exact p = {:.2g}, which does not use the pairs); {}",
                          failures_text(first.result, second.result),
                          fisher_exact(a, first.n() - a, b, second.n() - b), discordant_text(pair)),
          .test = two_sided("exact McNemar p", pair.mcnemar_p,
                            pair.only_first_failed > pair.only_second_failed,
                            mcnemar_exact(pair.pairs, 0))};
}

// ---- fails_alike -------------------------------------------------------------------------------
// The 90 % paired interval (statistics.h) of the first arm's share of failures minus the second's,
// which amounts to two one-sided tests at 5 %: PASS if it is inside (-within, within), FAIL if
// outside. For twenty seeds none of which tells the arms apart it is [-0.17, 0.17].

std::string text_of(const FailsAlikeClaim& c) {
  return fmt::format("{} fails as often as {}, to {}", c.arms[0], c.arms[1],
                     percentage_points(c.within));
}

Finding judge(const FailsAlikeClaim& c, const Arms& arms) {
  const ArmResult& a = arms[c.arms[0]].result;
  const ArmResult& b = arms[c.arms[1]].result;
  const PairResult pair = pair_of(a, b);
  const Interval interval = paired_difference_of_shares(pair.only_first_failed,
                                                        pair.only_second_failed, pair.pairs, 0.90);
  return {.evidence = fmt::format("{}; {}; 90 % interval of the difference of shares {}",
                                  failures_text(a, b), discordant_text(pair), to_string(interval)),
          .verdict = verdict_within(interval, {-c.within, c.within})};
}

// ---- Test accuracies ---------------------------------------------------------------------------
// Verdicts count a failed run with the accuracy of chance. The same figures over the seeds at which
// every arm trained are only shown: these seeds were selected by their results, so they say how the
// arms compare where they train, not how they compare.

namespace {

// An interval of shares in percentage points.
std::string points_text(const Interval& interval) {
  return to_string({100 * interval.lo, 100 * interval.hi});
}

Pairs accuracies(const ComparedArm& a, const ComparedArm& b) {
  return paired(a, b, [](const ComparedArm& arm, const SeedResult& r) {
    return std::optional(counted_accuracy(r.run, arm.config));
  });
}

Pairs accuracies_where_both_trained(const ComparedArm& a, const ComparedArm& b) {
  return paired(a, b, [](const ComparedArm&, const SeedResult& r) {
    return is_failure(r.run.outcome) ? std::nullopt : r.run.test_accuracy;
  });
}

// The seeds that count: all that the arms have, or those at which each of the arms trained.
enum class Seeds { all, trained };

// The accuracies of these arms, a row for each seed that counts.
std::vector<std::vector<double>> accuracies_by_seed(const Arms& arms,
                                                    const std::vector<std::string>& names,
                                                    Seeds seeds) {
  std::vector<std::vector<double>> blocks;
  for (const SeedResult& first : arms[names[0]].runs()) {
    std::vector<double> block;
    for (const std::string& name : names) {
      const ComparedArm& arm = arms[name];
      const auto run = std::ranges::find(arm.runs(), first.seed, &SeedResult::seed);
      if (run == arm.runs().end()) break;
      if (seeds == Seeds::trained && is_failure(run->run.outcome)) break;
      block.push_back(counted_accuracy(run->run, arm.config));
    }
    if (block.size() == names.size()) blocks.push_back(std::move(block));
  }
  return blocks;
}

std::string difference_text(const Pairs& pairs, double difference) {
  return fmt::format("{:.2f} % against {:.2f} % over {}, mean difference {:+.2f} points",
                     100 * mean(pairs.first), 100 * mean(pairs.second), pairs.n_text(),
                     100 * difference);
}

// States how many runs count with the accuracy of chance.
std::string chance_text(const Arms& arms, const std::vector<std::string>& names) {
  std::vector<std::int64_t> failures;
  for (const std::string& name : names) failures.push_back(arms[name].result.failures());
  if (std::ranges::all_of(failures, [](std::int64_t n) { return n == 0; })) return "";
  return fmt::format("; failed runs ({}) count with {:g} %", fmt::join(failures, ", "),
                     100 * chance_accuracy(arms[names[0]].config));
}

// The mean difference over the seeds at which both arms trained; "" if these are all seeds, or
// fewer than two.
std::string trained_text(const ComparedArm& a, const ComparedArm& b, double confidence) {
  const Pairs pairs = accuracies_where_both_trained(a, b);
  if (pairs.missing == 0 || pairs.n() < 2) return "";
  const std::vector<double> differences = paired_differences(pairs.first, pairs.second);
  const PairedT t = paired_t(differences, confidence);
  return fmt::format(
      "; over the {} seeds that trained in both: {:+.2f} points, {}", pairs.n(), 100 * t.mean,
      are_equal(differences)
          ? "all equal"
          : fmt::format("t interval at {:g} % {}", 100 * confidence, points_text(t.interval)));
}

}  // namespace

// ---- accuracy ----------------------------------------------------------------------------------
// The paired t interval of the mean difference of test accuracy, first minus second: PASS if it is
// above at_least, FAIL if below. A negative at_least tests non-inferiority. INCONCLUSIVE if all
// differences are equal. Only shown are the bootstrap interval and the p-value of Wilcoxon's
// signed-rank test, which assume less: two-sided, against no difference, and not adjusted.

std::string text_of(const AccuracyClaim& c) {
  if (c.at_least == 0) return fmt::format("{} is more accurate than {}", c.arms[0], c.arms[1]);
  return fmt::format("{} is {} accurate than {} by at {} {}", c.arms[0],
                     c.at_least < 0 ? "less" : "more", c.arms[1], c.at_least < 0 ? "most" : "least",
                     percentage_points(std::abs(c.at_least)));
}

Finding judge(const AccuracyClaim& c, const Arms& arms) {
  const Pairs pairs = accuracies(arms[c.arms[0]], arms[c.arms[1]]);
  if (pairs.n() < 2) return too_few(pairs);
  const std::vector<double> differences = paired_differences(pairs.first, pairs.second);
  const PairedT t = paired_t(differences);
  const bool has_bootstrap = pairs.n() >= min_seeds_for_bootstrap;
  return {.evidence = fmt::format(
              "{}, t interval at 95 % {}{}, Wilcoxon p = {:.2g} against no difference{}{}{}",
              difference_text(pairs, t.mean), points_text(t.interval),
              has_bootstrap
                  ? fmt::format(" (bootstrap {})", points_text(bootstrap(differences, mean).bca))
                  : "",
              wilcoxon_signed_rank(differences).p, chance_text(arms, c.arms),
              trained_text(arms[c.arms[0]], arms[c.arms[1]], 0.95), equal_text(differences)),
          .verdict = are_equal(differences) ? Verdict::inconclusive
                                            : verdict_above(t.interval, c.at_least)};
}

// ---- accuracy_alike ----------------------------------------------------------------------------
// Two one-sided t tests: PASS if p < 0.05, that is, if the 90 % t interval is inside
// (-within, within), FAIL if it is outside. INCONCLUSIVE if all differences are equal.

std::string text_of(const AccuracyAlikeClaim& c) {
  return fmt::format("{} and {} are equally accurate, to {}", c.arms[0], c.arms[1],
                     percentage_points(c.within));
}

Finding judge(const AccuracyAlikeClaim& c, const Arms& arms) {
  const Pairs pairs = accuracies(arms[c.arms[0]], arms[c.arms[1]]);
  if (pairs.n() < 2) return too_few(pairs);
  const std::vector<double> differences = paired_differences(pairs.first, pairs.second);
  const Equivalence both = tost(differences, c.within);
  const Interval interval = paired_t(differences, 0.90).interval;
  return {.evidence = fmt::format("{}, t interval at 90 % {}; two one-sided tests p = {:.2g}{}{}{}",
                                  difference_text(pairs, both.mean), points_text(interval), both.p,
                                  chance_text(arms, c.arms),
                                  trained_text(arms[c.arms[0]], arms[c.arms[1]], 0.90),
                                  equal_text(differences)),
          .verdict = are_equal(differences) ? Verdict::inconclusive
                                            : verdict_within(interval, {-c.within, c.within})};
}

// ---- accuracy_falls ----------------------------------------------------------------------------
// Page's trend test over the arms in their order, one-sided; the blocks are the seeds that all arms
// have. The direction is the sign of the mean rank correlation.

std::string text_of(const AccuracyFallsClaim& c) {
  return fmt::format("the test accuracy falls along {}", fmt::join(c.arms, ", "));
}

namespace {

struct AccuracyTrend {
  std::int64_t seeds = 0;
  std::string means;  // of each arm, in per cent
  double rho = 0;
  Test test;
};

AccuracyTrend accuracy_trend(const AccuracyFallsClaim& c, const Arms& arms, Seeds seeds) {
  std::vector<double> outcomes;
  std::vector<double> sums(c.arms.size());
  for (const std::vector<double>& block : accuracies_by_seed(arms, c.arms, seeds)) {
    outcomes.insert(outcomes.end(), block.begin(), block.end());
    for (std::size_t i = 0; i < block.size(); ++i) sums[i] += block[i];
  }
  const auto [trend, test] = trend_test(c.arms.size(), outcomes, Alternative::decreasing);
  std::vector<std::string> means;
  for (const double sum : sums) {
    means.push_back(fmt::format("{:.2f}", 100 * sum / static_cast<double>(trend.blocks)));
  }
  return {trend.blocks, fmt::format("means {} %", fmt::join(means, ", ")), trend.rho, test};
}

}  // namespace

Finding judge(const AccuracyFallsClaim& c, const Arms& arms) {
  const AccuracyTrend all = accuracy_trend(c, arms, Seeds::all);
  if (all.seeds == 0) return {.evidence = "no seed that all arms have"};
  std::string evidence =
      fmt::format("{} over {}, mean rank correlation {:.2f}{}", all.means,
                  counted(all.seeds, "seed"), all.rho, chance_text(arms, c.arms));
  const AccuracyTrend trained = accuracy_trend(c, arms, Seeds::trained);
  if (trained.seeds < all.seeds && trained.seeds >= 2) {
    evidence +=
        fmt::format("; over the {} seeds that trained in all: {}, mean rank correlation {:.2f}",
                    trained.seeds, trained.means, trained.rho);
  }
  return {.evidence = std::move(evidence), .test = all.test};
}

// ---- accuracy_gap ------------------------------------------------------------------------------
// Per seed, the accuracy of the first arm minus that of the second, minus `above` (or `below`)
// times the same difference of `than`: PASS if the expanded bootstrap interval of the mean is above
// (below) 0, FAIL if it is on the other side. Needs five seeds. INCONCLUSIVE if it is equal in all.

std::string text_of(const AccuracyGapClaim& c) {
  return fmt::format(
      "accuracy from {} to {} falls by {} than {:g} times what it falls by from {} to {}",
      c.arms[0], c.arms[1], more_or_less(c.factor), c.factor.value(), c.than[0], c.than[1]);
}

namespace {

struct Gaps {
  std::vector<double> first;        // a value per seed
  std::vector<double> second;       // likewise
  std::vector<double> differences;  // first less the claim's multiple of second

  std::int64_t n() const { return std::ssize(differences); }
  Interval interval() const { return bootstrap(differences, mean).expanded; }
  std::string text(double factor) const {
    return fmt::format(
        "mean gaps {:.2f} and {:.2f} points; first less {:g} x second {:+.2f}, bootstrap at 95 % "
        "{}",
        100 * mean(first), 100 * mean(second), factor, 100 * mean(differences),
        points_text(interval()));
  }
};

Gaps gaps_of(const Arms& arms, const std::vector<std::string>& names, double factor, Seeds seeds) {
  Gaps gaps;
  for (const std::vector<double>& block : accuracies_by_seed(arms, names, seeds)) {
    gaps.first.push_back(block[0] - block[1]);
    gaps.second.push_back(block[2] - block[3]);
    gaps.differences.push_back(gaps.first.back() - factor * gaps.second.back());
  }
  return gaps;
}

}  // namespace

Finding judge(const AccuracyGapClaim& c, const Arms& arms) {
  const double factor = c.factor.value();
  std::vector<std::string> names = c.arms;
  names.insert(names.end(), c.than.begin(), c.than.end());
  const Gaps all = gaps_of(arms, names, factor, Seeds::all);
  Finding finding;
  finding.evidence =
      fmt::format("{} that all arms have{}", counted(all.n(), "seed"), few_text(all.n()));
  if (all.n() < min_seeds_for_bootstrap) return finding;
  if (!are_equal(all.differences)) {
    finding.verdict =
        c.factor.above ? verdict_above(all.interval(), 0) : verdict_below(all.interval(), 0);
  }
  finding.evidence += fmt::format(", {}{}{}", all.text(factor), chance_text(arms, names),
                                  equal_text(all.differences));
  const Gaps trained = gaps_of(arms, names, factor, Seeds::trained);
  if (trained.n() < all.n() && trained.n() >= min_seeds_for_bootstrap) {
    finding.evidence += fmt::format("; over the {} seeds that trained in all: {}", trained.n(),
                                    trained.text(factor));
  }
  return finding;
}

}  // namespace preheat
