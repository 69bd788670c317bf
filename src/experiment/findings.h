// Shared by the files that judge claims (claims.h): iteration over claims, checks of their arms,
// findings, and the verdicts that follow from them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "config/config.h"
#include "experiment/claims.h"
#include "experiment/ranks.h"
#include "experiment/statistics.h"

namespace preheat {

/// Calls visit(claim, place) for each claim of the experiment; the place is "expect.3.accuracy".
template <ExperimentKind experiment, class Visit>
void for_claims(const RunConfig& base, const Visit& visit) {
  for (std::size_t i = 0; i < base.expect.size(); ++i) {
    std::visit(
        [&](const auto& claim) {
          if constexpr (std::decay_t<decltype(claim)>::experiment == experiment) {
            visit(claim, fmt::format("expect.{}.{}", i, claim.section));
          }
        },
        base.expect[i]);
  }
}

/// Throws ConfigError at a claim about an experiment that the file does not have, other than
/// `experiment`.
void refuse_foreign_claims(const RunConfig& base, ExperimentKind experiment);

/// An arm named by a claim, before anything has run.
struct ClaimedArm {
  const RunConfig& base;
  const RunConfig& config;
  const std::string& name;
  const std::string& place;  // the claim: "expect.3.accuracy"
  const std::string& key;    // of the arm's name in it: "expect.3.accuracy.arms.0"

  /// Throws ConfigError at the arm's name.
  [[noreturn]] void refuse(const std::string& problem, const std::string& remedy) const;

  /// The length under a key of the claim, in updates of the arm. Throws ConfigError there.
  std::int64_t updates(const Length& length, const char* length_key) const;

  /// Throws ConfigError unless the length is before the end of the arm's run.
  void require_within_run(const Length& length, const char* length_key) const;
};

/// The arms that claims may name.
class ClaimableArms {
 public:
  ClaimableArms(const RunConfig& base, const std::vector<Arm>& arms,
                const std::vector<RunConfig>& configs);

  /// Calls check(arm) for each arm that a claim names. Throws ConfigError at a name that is no
  /// arm, is given twice, or is of an arm that runs the same as another one named; and at a pair
  /// that would be compared with itself.
  template <class Claim, class Check>
  void check(const Claim& claim, const std::string& place, const Check& check) const {
    if constexpr (requires { claim.arm; }) {
      check_one(claim.arm, place, check);
    } else {
      check_list(claim.arms, place, "arms", check);
    }
    if constexpr (requires { claim.than; }) {
      check_list(claim.than, place, "than", check);
      if (std::ranges::is_permutation(claim.arms, claim.than)) {
        throw ConfigError(base_.where(place + ".than"), "are the same two arms",
                          "another pair, which may have one of them");
      }
    }
  }

 private:
  using CheckArm = std::function<void(const ClaimedArm&)>;
  void check_one(const std::string& name, const std::string& place, const CheckArm& check) const;
  void check_list(const std::vector<std::string>& names, const std::string& place,
                  const char* list_key, const CheckArm& check) const;
  const RunConfig& config_of(const std::string& name, const std::string& key) const;

  const RunConfig& base_;
  const std::vector<RunConfig>& configs_;
  std::vector<std::string> names_;
};

/// The result of a significance test, before the p-value is adjusted.
struct Test {
  std::string name;  // "exact McNemar p"
  double p = 1;
  bool has_claimed_direction = false;  // whether the effect has the claimed direction
  double opposite_p = 1;               // the p-value of the opposite claim
  double smallest_possible_p = 1;      // the smallest p-value possible with as many runs
};

/// The result of a two-sided test.
Test two_sided(const std::string& name, double p, bool has_claimed_direction,
               double smallest_possible_p);

struct Finding {
  std::string evidence;
  Verdict verdict = Verdict::inconclusive;  // of a claim without a test
  std::optional<Test> test = std::nullopt;
  bool contradicted = false;  // FAIL whatever the test's result
};

/// Page's trend test over `levels` levels; `outcomes` holds `levels` values per block, block after
/// block.
struct TrendTest {
  PageTrend trend;
  Test test;
};
TrendTest trend_test(std::size_t levels, const std::vector<double>& outcomes,
                     Alternative direction);

/// A remark if `seeds` is below min_seeds_for_bootstrap, otherwise "".
std::string few_text(std::int64_t seeds);

/// verdict_above: PASS if the interval is wholly above the value, FAIL if wholly below, otherwise
/// INCONCLUSIVE. verdict_below is the reverse, and verdict_of applies the bound's side.
Verdict verdict_above(const Interval& interval, double value);
Verdict verdict_below(const Interval& interval, double value);
Verdict verdict_of(const Interval& interval, const Bound& bound);

/// One value per seed that is known only to lie between two, such as the change of a boundary that
/// lies between a rate that trains and the next one tried, which fails.
struct BoundedValues {
  std::vector<double> least;
  std::vector<double> most;
  // How many have no most, or no least: their true values may be anything beyond.
  std::int64_t may_be_larger = 0;
  std::int64_t may_be_smaller = 0;

  /// The expanded bootstrap interval of the mean, whatever the values are within their ranges: from
  /// the lower end for `least` to the upper end for `most`, infinite where there may be more
  /// beyond. Throws Error for fewer than two seeds.
  Interval interval() const;
};

/// PASS if the interval is wholly inside the open range, FAIL if wholly outside, otherwise
/// INCONCLUSIVE.
Verdict verdict_within(const Interval& interval, const Interval& range);

/// Whether the differences are all equal but for rounding, as where every run failed: they were
/// measured too coarsely for a t interval (statistics.h), which would be a point.
bool are_equal(std::span<const double> differences);
/// A remark if they are, otherwise "".
std::string equal_text(std::span<const double> differences);

/// "more" for a bound above, "less" for one below.
const char* more_or_less(const Bound& bound);

/// A difference of shares as "0.5 percentage points".
std::string percentage_points(double difference);

/// A share as "60 %".
std::string per_cent(double share);

/// A claim with its finding and, if it has a test, its significance level.
struct Judged {
  ClaimResult result;
  Finding finding;
  std::optional<double> p_below;
};

/// Adjusts the p-values of all claims by Holm's method and decides each, in the same order.
std::vector<ClaimResult> decide_all(std::vector<Judged> judged);

/// Judges the claims of one experiment with judge(claim); text_of(claim) is the claim's text.
template <ExperimentKind experiment, class TextOf, class Judge>
std::vector<ClaimResult> judge_claims(const RunConfig& base, bool interrupted,
                                      const TextOf& text_of, const Judge& judge) {
  std::vector<Judged> judged;
  for_claims<experiment>(base, [&](const auto& claim, const std::string&) {
    Judged j;
    j.result.claim = claim.section;
    j.result.text = text_of(claim);
    if (interrupted) {
      j.finding.evidence = "interrupted";
    } else {
      j.finding = judge(claim);
      if constexpr (requires { claim.p_below; }) j.p_below = claim.p_below;
    }
    judged.push_back(std::move(j));
  });
  return decide_all(std::move(judged));
}

}  // namespace preheat
