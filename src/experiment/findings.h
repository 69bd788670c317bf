// What the files that judge claims share (claims.h): which claims there are, what their arms have
// to be, what was found, and how it becomes a verdict.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
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

/// Throws ConfigError at a claim about an experiment that the file does not have, unless it is the
/// one given.
void refuse_foreign_claims(const RunConfig& base, ExperimentKind experiment);

/// An arm that a claim is about, before anything has run.
struct ClaimedArm {
  const RunConfig& base;
  const RunConfig& config;
  const std::string& name;
  const std::string& place;  // the claim: "expect.3.accuracy"
  const std::string& key;    // where it names the arm: "expect.3.accuracy.arms.0"

  /// Throws ConfigError at the arm's name.
  [[noreturn]] void refuse(const std::string& problem, const std::string& remedy) const;

  /// The length under a key of the claim, in updates of the arm. Throws ConfigError there.
  std::int64_t updates(const Length& length, const char* length_key) const;

  /// Throws ConfigError unless the length is before the end of the arm's run.
  void require_within_run(const Length& length, const char* length_key) const;
};

/// The arms there are.
class ClaimableArms {
 public:
  ClaimableArms(const RunConfig& base, const std::vector<Arm>& arms,
                const std::vector<RunConfig>& configs);

  /// Calls check(arm) for each that a claim names. Throws ConfigError at a name that is of none of
  /// them, stands there twice, or is of one that runs the same as another one named; and at a pair
  /// that is to be held against itself.
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

/// A test whose p-value is yet to be adjusted.
struct Test {
  std::string name;  // "exact McNemar p"
  double p = 1;
  bool right_way = false;  // whether the effect has the claimed direction
  double opposite_p = 1;   // for the opposite claim
  double least_p = 1;      // of a perfect result of as many runs
};

/// A two-sided one.
Test two_sided(const std::string& name, double p, bool right_way, double least_p);

struct Finding {
  std::string evidence;
  Verdict verdict = Verdict::inconclusive;  // of a claim without a test
  std::optional<Test> test = std::nullopt;
  bool contradicted = false;  // whatever the test says
};

/// Page's trend along `levels` levels, of outcomes that stand block by block, and its test.
struct TrendTest {
  PageTrend trend;
  Test test;
};
TrendTest trend_test(std::size_t levels, const std::vector<double>& outcomes,
                     Alternative direction);

/// Fewer seeds are too few for the interval of a bootstrap to hold what it promises, expanded or
/// not; and what is said of them, "" where there are enough.
constexpr std::int64_t least_for_bootstrap = 5;
std::string few_text(std::int64_t seeds);

/// Whether the interval is wholly above (PASS) or below (FAIL) a value; the other way round where
/// the claim is that it is below.
Verdict verdict_above(const Interval& interval, double value);
Verdict verdict_below(const Interval& interval, double value);
Verdict verdict_of(const Interval& interval, const Bound& bound);

/// Whether the interval is wholly inside (-margin, margin) (PASS) or outside (FAIL).
Verdict verdict_within(const Interval& interval, double margin);

/// "more" than the bound's value, or "less".
const char* more_or_less(const Bound& bound);

/// "0.5 percentage points", of a difference of shares.
std::string percentage_points(double difference);

/// "60 %".
std::string per_cent(double share);

/// Which are expected, what was found of each (in the same order), and the level of those that have
/// one: adjusts by Holm and decides.
struct Judged {
  ClaimResult result;
  Finding finding;
  std::optional<double> p_below;
};
std::vector<ClaimResult> settle(std::vector<Judged> judged);

/// Judges the claims of one experiment with judge(claim); text_of(claim) is what each says.
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
  return settle(std::move(judged));
}

}  // namespace preheat
