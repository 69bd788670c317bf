// The claims of compare: how each kind is decided and worded, and what it requires of an arm.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>

#include "data/dataset.h"
#include "experiment/compare.h"
#include "experiment/findings.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/run_files.h"
#include "train/trainer.h"

namespace preheat {
namespace {

constexpr std::size_t window = 50;
constexpr double never = std::numeric_limits<double>::infinity();

// ---- Arms and the values of their runs ---------------------------------------------------------

// One arm, its runs and their files.
struct ComparedArm {
  const RunConfig& config;
  const ArmResult& result;
  std::filesystem::path folder;

  const std::vector<SeedResult>& runs() const { return result.runs; }
  std::int64_t n() const { return std::ssize(result.runs); }

  RunLength length() const { return run_length(config, steps_per_epoch(config)); }
  std::int64_t updates(const Length& of) const {  // `of` has been checked
    return updates_of(of, length(), config, "expect");
  }

  // std::nullopt if the run has no such file.
  template <class Read>
  auto file(const SeedResult& r, const char* name, const Read& read) const
      -> std::optional<decltype(read(std::filesystem::path()))> {
    const auto path = folder / std::to_string(r.seed) / name;
    if (!std::filesystem::exists(path)) return std::nullopt;
    return read(path);
  }
};

class Arms {
 public:
  Arms(const std::vector<RunConfig>& configs, const std::vector<ArmResult>& results,
       const std::filesystem::path& folder) {
    for (std::size_t i = 0; i < results.size(); ++i) {
      arms_.push_back({configs[i], results[i], folder / results[i].arm.name});
    }
  }

  const ComparedArm& operator[](const std::string& name) const {
    return *std::ranges::find(arms_, name,
                              [](const ComparedArm& arm) { return arm.result.arm.name; });
  }

 private:
  std::vector<ComparedArm> arms_;
};

// One number per arm and seed, over the seeds at which both arms have one.
struct Pairs {
  std::vector<double> first;
  std::vector<double> second;
  std::int64_t missing = 0;  // seeds at which both have a run, but not both a number

  std::int64_t n() const { return std::ssize(first); }
  std::string n_text() const {
    return fmt::format("{} seeds{}", n(),
                       missing > 0 ? fmt::format(" ({} more without data)", missing) : "");
  }
};

// Pairs value(arm, run), which may be std::nullopt.
template <class Value>
Pairs paired(const ComparedArm& a, const ComparedArm& b, const Value& value) {
  Pairs pairs;
  for (const SeedResult& x : a.runs()) {
    const auto y = std::ranges::find(b.runs(), x.seed, &SeedResult::seed);
    if (y == b.runs().end()) continue;
    const std::optional<double> first = value(a, x);
    const std::optional<double> second = value(b, *y);
    if (first && second) {
      pairs.first.push_back(*first);
      pairs.second.push_back(*second);
    } else {
      ++pairs.missing;
    }
  }
  return pairs;
}

Finding too_few(const Pairs& pairs) {
  Finding finding;
  finding.evidence = fmt::format("{}, too few to compare", pairs.n_text());
  return finding;
}

// Two-sided test for the claim that the first is smaller.
Test smaller_in_first(const Pairs& pairs) {
  const SignedRank found = wilcoxon_signed_rank(paired_differences(pairs.first, pairs.second));
  const std::vector<double> perfect(pairs.first.size(), -1.0);
  return two_sided("Wilcoxon p", found.p, found.w_minus > found.w_plus,
                   wilcoxon_signed_rank(perfect).p);
}

// ---- Requirements on arms ----------------------------------------------------------------------

template <class Claim>
void check(const Claim&, const ClaimedArm&) {}  // most claims have none

void require_sharpness(const ClaimedArm& arm) {
  if (arm.config.diagnostics.sharpness) return;
  arm.refuse(fmt::format("the sharpness of {} is not measured", arm.name),
             "diagnostics: {sharpness: {every: 10 steps}}");
}

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
// than only in the second.

std::string text_of(const FailsMoreClaim& c) {
  return fmt::format("{} fails more often than {}", c.arms[0], c.arms[1]);
}

std::string discordant_text(const ArmResult& a, const ArmResult& b, const PairResult& pair) {
  return fmt::format(
      "{} of {} against {} of {}; of {} seeds {} failed only in the first, {} only in the second",
      a.failures(), a.runs.size(), b.failures(), b.runs.size(), pair.pairs, pair.only_first_failed,
      pair.only_second_failed);
}

Finding judge(const FailsMoreClaim& c, const Arms& arms) {
  const ArmResult& a = arms[c.arms[0]].result;
  const ArmResult& b = arms[c.arms[1]].result;
  const PairResult pair = pair_of(a, b);
  return {.evidence = discordant_text(a, b, pair),
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
  return {.evidence = fmt::format("{}; 90 % interval of the difference of shares {}",
                                  discordant_text(a, b, pair), to_string(interval)),
          .verdict = verdict_within(interval, {-c.within, c.within})};
}

// ---- Test accuracies ---------------------------------------------------------------------------
// Verdicts count a failed run with the accuracy of chance. The same figures over the seeds at which
// every arm trained are only shown: these seeds were selected by their results, so they say how the
// arms compare where they train, not how they compare.

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

Finding judge(const AccuracyFallsClaim& c, const Arms& arms) {
  const AccuracyTrend all = accuracy_trend(c, arms, Seeds::all);
  if (all.seeds == 0) return {.evidence = "no seed that all arms have"};
  std::string evidence = fmt::format("{} over {} seeds, mean rank correlation {:.2f}{}", all.means,
                                     all.seeds, all.rho, chance_text(arms, c.arms));
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

Finding judge(const AccuracyGapClaim& c, const Arms& arms) {
  const double factor = c.factor.value();
  std::vector<std::string> names = c.arms;
  names.insert(names.end(), c.than.begin(), c.than.end());
  const Gaps all = gaps_of(arms, names, factor, Seeds::all);
  Finding finding;
  finding.evidence = fmt::format("{} seeds that all arms have{}", all.n(), few_text(all.n()));
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

// ---- sooner ------------------------------------------------------------------------------------
// Per run, the number of updates after which the mean training error of the last 50 updates is
// first below train_error; never counts as one more than the length of the longer arm. Wilcoxon's
// signed-rank test of the differences, two-sided.

std::string text_of(const SoonerClaim& c) {
  return fmt::format("{} has a training error below {} sooner than {}", c.arms[0],
                     per_cent(c.train_error), c.arms[1]);
}

void check(const SoonerClaim&, const ClaimedArm& arm) {
  const std::int64_t steps = run_length(arm.config, steps_per_epoch(arm.config)).steps;
  if (steps >= static_cast<std::int64_t>(window)) return;
  arm.refuse(fmt::format("{} trains for {} updates, and a training error is the mean of {}",
                         arm.name, steps, window),
             "a longer train.length");
}

std::optional<double> updates_until(const Metrics& metrics, double error) {
  for (std::size_t end = window; end <= metrics.accuracy.size(); ++end) {
    const auto last = metrics.accuracy.begin() + static_cast<std::ptrdiff_t>(end);
    const double accuracy = std::accumulate(last - window, last, 0.0) / window;
    if (1 - accuracy < error) return metrics.step[end - 1] + 1;
  }
  return std::nullopt;
}

Finding judge(const SoonerClaim& c, const Arms& arms) {
  const ComparedArm& first = arms[c.arms[0]];
  const ComparedArm& second = arms[c.arms[1]];
  const std::int64_t too_late = std::max(first.length().steps, second.length().steps) + 1;
  std::map<const ComparedArm*, int> never_there;
  const auto updates = [&](const ComparedArm& arm, const SeedResult& r) -> std::optional<double> {
    const auto metrics = arm.file(r, "metrics.csv", read_metrics);
    if (!metrics) return std::nullopt;
    const auto there = updates_until(*metrics, c.train_error);
    never_there[&arm] += there ? 0 : 1;
    return there.value_or(static_cast<double>(too_late));
  };
  const Pairs pairs = paired(first, second, updates);
  if (pairs.n() == 0) return too_few(pairs);
  return {.evidence = fmt::format(
              "median {:g} updates against {:g} over {}; {} and {} never, which count as {}",
              median(pairs.first), median(pairs.second), pairs.n_text(), never_there[&first],
              never_there[&second], too_late),
          .test = smaller_in_first(pairs)};
}

// ---- smaller_spike -----------------------------------------------------------------------------
// Per run, the largest training loss of the updates [after, after + within) over the mean of the 50
// updates before `after` (or as many as there are). Each arm has its own `after`, the update of its
// restart, which a ramp delays. A run that is not finite by then, or whose mean before is 0, ranks
// above all others. Wilcoxon's signed-rank test of the differences of the logarithms, two-sided.

std::string text_of(const SmallerSpikeClaim& c) {
  return fmt::format("the loss spikes less in {} after {} than in {} after {}, within {}",
                     c.arms[0], to_string(c.after[0]), c.arms[1], to_string(c.after[1]),
                     to_string(c.within));
}

std::size_t place_of(const std::string& arm, const SmallerSpikeClaim& c) {
  return arm == c.arms[0] ? 0 : 1;
}

void check(const SmallerSpikeClaim& c, const ClaimedArm& arm) {
  const std::size_t i = place_of(arm.name, c);
  arm.require_within_run(c.after[i], i == 0 ? "after.0" : "after.1");
  const std::int64_t end =
      arm.updates(c.after[i], i == 0 ? "after.0" : "after.1") + arm.updates(c.within, "within");
  const std::int64_t steps = run_length(arm.config, steps_per_epoch(arm.config)).steps;
  if (end <= steps) return;
  throw ConfigError(arm.base.where(arm.place + ".within"),
                    fmt::format("{} after {} end after the {} updates of {}", to_string(c.within),
                                to_string(c.after[i]), steps, arm.name),
                    "fewer, or an earlier update");
}

// Infinite if the run was not finite by then or has no loss above 0 before `after`.
double log_spike(const Metrics& metrics, double after, double within) {
  std::vector<double> before;
  double largest = 0;
  for (std::size_t i = 0; i < metrics.step.size() && metrics.step[i] < after + within; ++i) {
    if (!std::isfinite(metrics.loss[i])) return never;
    if (metrics.step[i] < after) {
      before.push_back(metrics.loss[i]);
    } else {
      largest = std::max(largest, metrics.loss[i]);
    }
  }
  const std::size_t kept = std::min(window, before.size());
  const double level = kept == 0 ? 0 : mean(std::span(before).last(kept));
  // Keeps the logarithm of a loss that rounds to zero finite.
  constexpr double least = std::numeric_limits<float>::min();
  return level > 0 ? std::log(std::max(largest, least) / level) : never;
}

Finding judge(const SmallerSpikeClaim& c, const Arms& arms) {
  const auto spike = [&](const ComparedArm& arm, const SeedResult& r) -> std::optional<double> {
    const auto metrics = arm.file(r, "metrics.csv", read_metrics);
    if (!metrics) return std::nullopt;
    const auto after = static_cast<double>(arm.updates(c.after[place_of(arm.result.arm.name, c)]));
    const auto within = static_cast<double>(arm.updates(c.within));
    const auto died = r.run.first_non_finite_step;
    if (died && static_cast<double>(*died) < after + within) return never;
    return log_spike(*metrics, after, within);
  };
  Pairs pairs = paired(arms[c.arms[0]], arms[c.arms[1]], spike);
  if (pairs.n() == 0) return too_few(pairs);
  std::vector<std::string> medians;
  std::vector<std::int64_t> endless;
  double largest = 0;
  for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
    std::vector<double> finite;
    std::ranges::copy_if(*logs, std::back_inserter(finite),
                         [](double x) { return std::isfinite(x); });
    medians.push_back(finite.empty() ? "-" : fmt::format("{:.3g}", std::exp(median(finite))));
    endless.push_back(std::ssize(*logs) - std::ssize(finite));
    for (const double x : finite) largest = std::max(largest, x);
  }
  for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
    for (double& x : *logs) x = std::isfinite(x) ? x : largest + 1;
  }
  return {.evidence = fmt::format(
              "median factor {} against {} over {}; {} and {} were not finite, which count as the "
              "largest",
              medians[0], medians[1], pairs.n_text(), endless[0], endless[1]),
          .test = smaller_in_first(pairs)};
}

// ---- gate_opens --------------------------------------------------------------------------------
// The Clopper-Pearson interval of the share of runs whose gate opens at an update in [from, to):
// PASS if it is above `share`, FAIL if below.

std::string text_of(const GateClaim& c) {
  return fmt::format("the gate of {} opens from {} to {}, in more than {} of runs", c.arm,
                     to_string(c.from), to_string(c.to), per_cent(c.share));
}

void check(const GateClaim& c, const ClaimedArm& arm) {
  if (!arm.config.schedule.until) {
    arm.refuse(fmt::format("the warmup of {} has no gate", arm.name),
               "schedule.warmup.until: {train_error_below: 0.8}");
  }
  arm.require_within_run(c.from, "from");
  if (arm.updates(c.to, "to") <= arm.updates(c.from, "from")) {
    throw ConfigError(arm.base.where(arm.place + ".to"),
                      fmt::format("{} are not after {}", to_string(c.to), to_string(c.from)),
                      "a later update than from");
  }
}

Finding judge(const GateClaim& c, const Arms& arms) {
  const ComparedArm& arm = arms[c.arm];
  const std::int64_t from = arm.updates(c.from);
  const std::int64_t to = arm.updates(c.to);
  std::vector<double> opened;
  std::int64_t inside = 0;
  for (const SeedResult& r : arm.runs()) {
    if (!r.run.gate_opened_at) continue;
    opened.push_back(static_cast<double>(*r.run.gate_opened_at));
    inside += *r.run.gate_opened_at >= from && *r.run.gate_opened_at < to ? 1 : 0;
  }
  const Interval interval = clopper_pearson(inside, arm.n());
  return {.evidence = fmt::format(
              "{} of {} in [{}, {}), 95 % interval {}; it opened in {}{}", inside, arm.n(), from,
              to, to_string(interval), opened.size(),
              opened.empty() ? "" : fmt::format(", at a median of {:g}", median(opened))),
          .verdict = verdict_above(interval, c.share)};
}

// ---- Sharpness at both ends of a run -----------------------------------------------------------

// The first and the last finite value of sharpness.csv, for the runs that have both. A run that
// failed before a second measurement does not tell how its sharpness would have changed.
struct Ends {
  std::vector<double> first;
  std::vector<double> last;
  std::int64_t disagreed = 0;
  std::int64_t missing = 0;

  std::string text() const {
    return fmt::format(
        "{}; left out: {} without measurements at both ends, {} whose step sizes disagree",
        first.empty() ? "" : fmt::format(", median {:.3g} to {:.3g}", median(first), median(last)),
        missing, disagreed);
  }
};

Ends ends_of(const ComparedArm& arm, std::vector<double> SharpnessRows::*column) {
  Ends ends;
  for (const SeedResult& r : arm.runs()) {
    const auto rows = arm.file(r, "sharpness.csv", read_sharpness);
    const std::vector<double> values = rows ? (*rows).*column : std::vector<double>();
    const auto finite = std::ranges::find_if(values.rbegin(), values.rend(),
                                             [](double x) { return std::isfinite(x); });
    if (finite == values.rend() || !std::isfinite(values.front())) {
      ++ends.missing;
      continue;
    }
    const auto at = static_cast<std::size_t>(values.rend() - finite) - 1;
    if (at == 0) {
      ++ends.missing;
      continue;
    }
    if (rows->agrees.front() == 0 || rows->agrees[at] == 0) {
      ++ends.disagreed;
      continue;
    }
    ends.first.push_back(values.front());
    ends.last.push_back(values[at]);
  }
  return ends;
}

// ---- sharpness_falls ---------------------------------------------------------------------------
// Per run, whether the first sharpness is at least `by` times the magnitude of the last finite one.
// Runs without two such measurements, or whose two step sizes disagree at either, are left out and
// counted. One-sided sign test against half of the runs.

std::string text_of(const SharpnessFallsClaim& c) {
  return fmt::format("the sharpness falls {:.3g}-fold in more than half of the runs of {}", c.by,
                     c.arm);
}

void check(const SharpnessFallsClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const SharpnessFallsClaim& c, const Arms& arms) {
  const Ends ends = ends_of(arms[c.arm], &SharpnessRows::sharpness);
  const std::int64_t n = std::ssize(ends.first);
  std::int64_t fell = 0;
  for (std::size_t i = 0; i < ends.first.size(); ++i) {
    fell += ends.first[i] >= c.by * std::abs(ends.last[i]) ? 1 : 0;
  }
  Finding finding;
  finding.evidence = fmt::format("{} of {} runs{}", fell, n, ends.text());
  if (n > 0) {
    finding.test = Test{.name = "sign test p",
                        .p = sign_test(fell, n),
                        .has_claimed_direction = 2 * fell > n,
                        .opposite_p = sign_test(n - fell, n),
                        .smallest_possible_p = sign_test(n, n)};
  }
  return finding;
}

// ---- sharpness_stays ---------------------------------------------------------------------------
// Per run, log(first / last) of the same sharpness, or of the curvature along the random direction:
// PASS if the t interval of the mean is below log(within), FAIL if above. INCONCLUSIVE if all are
// equal.

std::string text_of(const SharpnessStaysClaim& c) {
  return fmt::format("the {} falls less than {:.3g}-fold in {}",
                     c.random_direction ? "curvature along a random direction" : "sharpness",
                     c.within, c.arm);
}

void check(const SharpnessStaysClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const SharpnessStaysClaim& c, const Arms& arms) {
  const Ends ends = ends_of(arms[c.arm], c.random_direction ? &SharpnessRows::random_direction
                                                            : &SharpnessRows::sharpness);
  std::vector<double> logs;  // of first over last, if both are above 0
  for (std::size_t i = 0; i < ends.first.size(); ++i) {
    if (ends.first[i] > 0 && ends.last[i] > 0) {
      logs.push_back(std::log(ends.first[i] / ends.last[i]));
    }
  }
  Finding finding;
  finding.evidence = fmt::format("{} runs{}; {} where it is not above zero at both ends",
                                 logs.size(), ends.text(), ends.first.size() - logs.size());
  if (logs.size() < 2) return finding;
  const PairedT t = paired_t(logs);
  if (!are_equal(logs)) finding.verdict = verdict_below(t.interval, std::log(c.within));
  finding.evidence += fmt::format(
      "; it falls {:.2f}-fold in the geometric mean, t interval at 95 % {}{}", std::exp(t.mean),
      to_string({std::exp(t.interval.lo), std::exp(t.interval.hi)}), equal_text(logs));
  return finding;
}

// ---- unstable_start ----------------------------------------------------------------------------
// Of the runs that were not finite (those that were stuck do not count), the share in which
// sharpness before update 0 x largest rate up to the failure / 2 > 1. PASS if its Clopper-Pearson
// interval is above `share`, FAIL if below.

std::string text_of(const UnstableStartClaim& c) {
  return fmt::format(
      "the sharpness at the start x the largest rate up to the failure / 2 is above 1 in more than "
      "{} of the runs of {} that are not finite",
      per_cent(c.share), c.arm);
}

void check(const UnstableStartClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const UnstableStartClaim& c, const Arms& arms) {
  const ComparedArm& arm = arms[c.arm];
  std::vector<double> ratios;
  std::int64_t failed = 0;
  for (const SeedResult& r : arm.runs()) {
    if (r.run.outcome != Outcome::non_finite) continue;
    ++failed;
    const auto metrics = arm.file(r, "metrics.csv", read_metrics);
    if (!r.run.initial_sharpness || !std::isfinite(*r.run.initial_sharpness) || !metrics ||
        metrics->lr.empty()) {
      continue;
    }
    ratios.push_back(*r.run.initial_sharpness * std::ranges::max(metrics->lr) / 2);
  }
  const std::int64_t n = std::ssize(ratios);
  const std::int64_t above = std::ranges::count_if(ratios, [](double x) { return x > 1; });
  const Interval interval = clopper_pearson(above, n);
  return {.evidence =
              fmt::format("{} of {} runs that were not finite, 95 % interval {}{}; {} more "
                          "without measurements",
                          above, n, to_string(interval),
                          n == 0 ? "" : fmt::format(", median {:.3g}", median(ratios)), failed - n),
          .verdict = verdict_above(interval, c.share)};
}

// ---- edge_of_stability -------------------------------------------------------------------------
// Per run, the median sharpness of the last quarter of the measurements against
// 2 (1 + momentum) / rate, at the rate of the last one (Cohen et al. 2021); per seed, the
// least-squares slope over the arms. PASS if the t interval of the mean slope is within `slope`,
// FAIL if outside; INCONCLUSIVE if a run failed or was not measured.

std::string text_of(const EdgeOfStabilityClaim& c) {
  return fmt::format("the late sharpness follows 2 (1 + momentum) / rate, slope {:g} to {:g}",
                     c.slope[0], c.slope[1]);
}

void check(const EdgeOfStabilityClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

template <class Claim>
constexpr bool is_about_edges = std::is_same_v<std::decay_t<Claim>, EdgeOfStabilityClaim>;

// The edge at the last measurement; NaN if a gate or the initial weights decide about it.
double last_edge(const ClaimedArm& arm) {
  const Schedule schedule = schedule_of(arm.config);
  if (arm.config.schedule.until || schedule.start_is_automatic) return std::nan("");
  const std::int64_t every =
      updates_of(arm.config.diagnostics.sharpness->every, schedule.run, arm.config, "diagnostics");
  const std::int64_t last = (schedule.run.steps - 1) / every * every;
  return 2 * (1 + arm.config.optimizer.momentum) / lr_at(schedule.lr, last);
}

// A slope needs two edges.
void require_two_edges(const RunConfig& base, const std::string& place,
                       const std::vector<double>& edges) {
  const bool is_one =
      std::ranges::all_of(edges, [&](double edge) { return edge == edges.front(); });
  if (!is_one) return;
  throw ConfigError(
      base.where(place + ".arms"),
      fmt::format("all have one edge, 2 (1 + momentum) / rate = {:.4g}, at the end", edges.front()),
      "arms of different rates or momenta");
}

Finding judge(const EdgeOfStabilityClaim& c, const Arms& arms) {
  struct Points {
    std::vector<double> edges;
    std::vector<double> late;
  };
  std::map<std::uint64_t, Points> by_seed;
  std::vector<double> ratios;
  std::int64_t missing = 0;
  for (const std::string& name : c.arms) {
    const ComparedArm& arm = arms[name];
    for (const SeedResult& r : arm.runs()) {
      const auto rows = arm.file(r, "sharpness.csv", read_sharpness);
      const std::span<const double> all = rows ? std::span(rows->sharpness) : std::span<double>();
      const auto last_quarter = all.last((all.size() + 3) / 4);
      const bool measured = !all.empty() && std::ranges::all_of(last_quarter, [](double s) {
        return std::isfinite(s);
      });
      if (is_failure(r.run.outcome) || !measured || rows->lr.back() == 0) {
        ++missing;
        continue;
      }
      const double edge = 2 * (1 + arm.config.optimizer.momentum) / rows->lr.back();
      by_seed[r.seed].edges.push_back(edge);
      by_seed[r.seed].late.push_back(median(last_quarter));
      ratios.push_back(median(last_quarter) / edge);
    }
  }
  std::vector<double> slopes;
  for (const auto& [seed, points] : by_seed) {
    const auto slope = least_squares_slope(points.edges, points.late);
    if (slope) slopes.push_back(*slope);
  }
  Finding finding;
  finding.evidence = fmt::format("{} runs", ratios.size());
  if (missing > 0) {
    finding.evidence += fmt::format(", {} more failed or are without measurements", missing);
  }
  if (slopes.empty()) {
    if (!ratios.empty()) finding.evidence += ", at one edge in each seed, which has no slope";
    return finding;
  }
  finding.evidence += fmt::format(
      ", sharpness over 2 (1 + momentum) / rate {:.2f} to {:.2f}, median {:.2f}; mean slope {:.3f} "
      "over {} seeds",
      std::ranges::min(ratios), std::ranges::max(ratios), median(ratios), mean(slopes),
      slopes.size());
  if (slopes.size() < 2) {
    finding.evidence += ", too few for an interval";
    return finding;
  }
  const Interval interval = paired_t(slopes).interval;
  finding.evidence += ", t interval at 95 % " + to_string(interval);
  if (are_equal(slopes)) {
    finding.evidence += ", equal in all seeds";
  } else if (missing == 0) {
    finding.verdict = verdict_within(interval, {c.slope[0], c.slope[1]});
  }
  return finding;
}

// ---- deep_layers_move_more ---------------------------------------------------------------------
// Per run, Spearman's rho between the depth of a weight matrix (of convolutions and linear layers,
// from the input on) and its mean ratio of velocity norm to weight norm over the examined updates
// before `within`. Values that are not finite are skipped; a run in which a matrix has no value is
// left out. Wilcoxon's signed-rank test of the differences of rho, two-sided.

std::string text_of(const DeepLayersClaim& c) {
  return fmt::format("deep layers move more, against shallow ones, in {} than in {}", c.arms[0],
                     c.arms[1]);
}

// The names of the weight matrices, from the input on.
std::vector<std::string> weight_matrices(const RunConfig& config) {
  const DatasetFacts& data = facts(config.data.dataset);
  const Network network = build_network(config, data.shape, data.classes);
  std::vector<std::string> names;
  for (const Op& op : network.ops) {
    if (op.weight >= 0) names.push_back(network.parameters[op.weight].name);
  }
  return names;
}

void check(const DeepLayersClaim& c, const ClaimedArm& arm) {
  if (!arm.config.diagnostics.layers_every) {
    arm.refuse(fmt::format("the layers of {} are not looked at", arm.name),
               "diagnostics: {layers_every: 10 steps}");
  }
  arm.updates(c.within, "within");
  if (weight_matrices(arm.config).size() < 2) {
    arm.refuse(fmt::format("{} has one layer", arm.name), "a network of at least two layers");
  }
}

std::optional<double> depth_correlation(const RunConfig& config, const LayerRows& rows,
                                        double within) {
  std::vector<double> depths;
  std::vector<double> moves;
  for (const std::string& name : weight_matrices(config)) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < rows.step.size(); ++i) {
      if (rows.parameter[i] != name || rows.step[i] >= within) continue;
      const double ratio = rows.velocity_norm[i] / rows.weight_norm[i];
      if (std::isfinite(ratio)) ratios.push_back(ratio);
    }
    if (ratios.empty()) return std::nullopt;
    depths.push_back(static_cast<double>(depths.size()));
    moves.push_back(mean(ratios));
  }
  // The p-value is not used.
  return spearman(depths, moves, Alternative::two_sided, 1).rho;
}

Finding judge(const DeepLayersClaim& c, const Arms& arms) {
  const auto rho = [&](const ComparedArm& arm, const SeedResult& r) {
    const auto rows = arm.file(r, "layers.csv", read_layers);
    const auto within = static_cast<double>(arm.updates(c.within));
    return rows ? depth_correlation(arm.config, *rows, within) : std::nullopt;
  };
  Pairs pairs = paired(arms[c.arms[0]], arms[c.arms[1]], rho);
  if (pairs.n() == 0) return too_few(pairs);
  std::string evidence = fmt::format("mean rho of depth {:.2f} against {:.2f} over {}",
                                     mean(pairs.first), mean(pairs.second), pairs.n_text());
  std::swap(pairs.first, pairs.second);
  return {.evidence = std::move(evidence), .test = smaller_in_first(pairs)};
}

}  // namespace

void check_compare_claims(const RunConfig& base, const std::vector<RunConfig>& configs) {
  refuse_foreign_claims(base, ExperimentKind::compare);
  const ClaimableArms arms(base, base.compare->arms, configs);
  for_claims<ExperimentKind::compare>(base, [&](const auto& claim, const std::string& place) {
    std::vector<double> edges;
    arms.check(claim, place, [&](const ClaimedArm& arm) {
      check(claim, arm);
      if constexpr (is_about_edges<decltype(claim)>) edges.push_back(last_edge(arm));
    });
    if constexpr (is_about_edges<decltype(claim)>) require_two_edges(base, place, edges);
  });
}

std::vector<ClaimResult> judge_compare(const RunConfig& base, const std::vector<RunConfig>& configs,
                                       const std::vector<ArmResult>& arms,
                                       const std::filesystem::path& folder, bool interrupted) {
  const Arms compared(configs, arms, folder);
  return judge_claims<ExperimentKind::compare>(
      base, interrupted, [](const auto& claim) { return text_of(claim); },
      [&](const auto& claim) { return judge(claim, compared); });
}

}  // namespace preheat
