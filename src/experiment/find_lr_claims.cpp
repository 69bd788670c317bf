// The claims of find_lr: how each kind is decided and worded.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiment/find_lr.h"
#include "experiment/findings.h"

namespace preheat {
namespace {

const SearchArm& arm_named(const std::vector<SearchArm>& arms, const std::string& name) {
  return *std::ranges::find(arms, name, [](const SearchArm& a) { return a.arm.name; });
}

// ---- rate_ratio --------------------------------------------------------------------------------
// log2 of the second arm's largest rate over the first's, over the seeds at which both have one.
// The true largest rate is up to the smallest that failed, so a ratio is known only to a range,
// which has no end where an arm trains at no rate or at all that were tried. log2_above: PASS if
// the expanded bootstrap interval over seeds, widened to those ranges, is above it, FAIL if below;
// log2_below is the reverse. Needs five such seeds.

std::string text_of(const RateRatioClaim& c) {
  return fmt::format("{} trains at {} than {:.3g} times the rate of {}", c.arms[1],
                     more_or_less(c.log2), std::exp2(c.log2.value()), c.arms[0]);
}

// Of the seeds that both arms have searched.
BoundedValues bounded_ratios(const SearchArm& first, const SearchArm& second) {
  BoundedValues bounded;
  for (const Search& x : first.searches) {
    const auto y = std::ranges::find(second.searches, x.seed, &Search::seed);
    if (y == second.searches.end()) continue;
    bounded.may_be_larger += !x.largest || !y->smallest_failing ? 1 : 0;
    bounded.may_be_smaller += !x.smallest_failing || !y->largest ? 1 : 0;
    if (!x.largest || !y->largest) continue;
    bounded.least.push_back(std::log2(*y->largest / x.smallest_failing.value_or(*x.largest)));
    bounded.most.push_back(std::log2(y->smallest_failing.value_or(*y->largest) / *x.largest));
  }
  return bounded;
}

Finding judge(const RateRatioClaim& c, const std::vector<SearchArm>& arms) {
  const SearchArm& first = arm_named(arms, c.arms[0]);
  const SearchArm& second = arm_named(arms, c.arms[1]);
  const RateRatio ratio = ratio_of(first, second);
  const BoundedValues bounded = bounded_ratios(first, second);
  Finding finding;
  finding.evidence =
      fmt::format("{} of {} seeds have an answer in both", ratio.seeds, first.searches.size());
  if (ratio.log2_mean) {
    finding.evidence += fmt::format(", {:.2f} times the rate in the geometric mean, log2 {:.2f}",
                                    std::exp2(*ratio.log2_mean), *ratio.log2_mean);
  }
  if (ratio.log2_interval) {
    finding.verdict = verdict_of(bounded.interval(), c.log2);
    finding.evidence += fmt::format(", bootstrap at 95 % {}, with the steps between rates tried {}",
                                    to_string(*ratio.log2_interval), to_string(bounded.interval()));
  }
  finding.evidence += few_text(ratio.seeds);
  if (bounded.may_be_larger + bounded.may_be_smaller > 0) {
    finding.evidence += fmt::format(
        "; at {} seeds the ratio may be larger and at {} smaller: an arm trains at no rate or at "
        "all",
        bounded.may_be_larger, bounded.may_be_smaller);
  }
  return finding;
}

// ---- holds_below -------------------------------------------------------------------------------
// The share of runs that train among those at rates below their seed's answer
// (Search::tried_below): PASS if its Clopper-Pearson interval is above `share`, FAIL if below. The
// rates of the confirmation, right below an answer, are among them, and those that the search came
// by, which it left behind because they train. The runs of a seed share their initial weights, so
// they tell less than as many independent ones, and the interval is somewhat too short.

std::string text_of(const HoldsBelowClaim& c) {
  return fmt::format("{} trains in more than {} of the runs below its largest rates", c.arm,
                     per_cent(c.share));
}

Finding judge(const HoldsBelowClaim& c, const std::vector<SearchArm>& arms) {
  const SearchArm& arm = arm_named(arms, c.arm);
  std::int64_t tried = 0;
  std::int64_t violations = 0;
  std::int64_t answers = 0;
  std::int64_t seeds_with_violations = 0;
  for (const Search& s : arm.searches) {
    tried += s.tried_below;
    violations += s.violations;
    answers += s.largest ? 1 : 0;
    seeds_with_violations += s.violations > 0 ? 1 : 0;
  }
  const Interval interval = clopper_pearson(tried - violations, tried);
  return {.evidence = fmt::format(
              "{} of {} runs train, 95 % interval {} as if they were independent; they are of {} "
              "seeds, {} of which have runs that do not",
              tried - violations, tried, to_string(interval), answers, seeds_with_violations),
          .verdict = verdict_above(interval, c.share)};
}

}  // namespace

void check_find_lr_claims(const RunConfig& base, const std::vector<Arm>& arms,
                          const std::vector<RunConfig>& configs) {
  refuse_foreign_claims(base, ExperimentKind::find_lr);
  const ClaimableArms claimable(base, arms, configs);
  for_claims<ExperimentKind::find_lr>(base, [&](const auto& claim, const std::string& place) {
    claimable.check(claim, place, [](const ClaimedArm&) {});
  });
}

std::vector<ClaimResult> judge_find_lr(const RunConfig& base, const FindLrResult& result) {
  return judge_claims<ExperimentKind::find_lr>(
      base, result.interrupted, [](const auto& claim) { return text_of(claim); },
      [&](const auto& claim) { return judge(claim, result.arms); });
}

}  // namespace preheat
