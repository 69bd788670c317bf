// What the files that judge claims share (claims.h): what was found, and how it becomes a verdict.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/describe.h"
#include "experiment/claims.h"
#include "experiment/statistics.h"

namespace preheat {

/// A test whose p-value is yet to be adjusted.
struct Test {
  std::string name;  // "exact McNemar p"
  double p = 1;
  bool right_way = false;  // whether the effect has the claimed direction
  double least_p = 1;      // of a perfect result of as many runs
};

struct Finding {
  std::string evidence;
  Verdict verdict = Verdict::inconclusive;  // of a claim without a test
  std::optional<Test> test;
  bool contradicted = false;  // whatever the test says
};

enum class Experiment { compare, sweep, find_lr };

template <class Kind>
constexpr Experiment experiment_of = Experiment::compare;
template <>
inline constexpr Experiment experiment_of<BoundaryRisesClaim> = Experiment::sweep;
template <>
inline constexpr Experiment experiment_of<BoundaryMovesClaim> = Experiment::sweep;
template <>
inline constexpr Experiment experiment_of<SensitivityFallsClaim> = Experiment::sweep;
template <>
inline constexpr Experiment experiment_of<AccuracyMovesClaim> = Experiment::sweep;
template <>
inline constexpr Experiment experiment_of<RateRatioClaim> = Experiment::find_lr;

/// Calls judge(claim, place) for each claim of the experiment; the place is "expect.3.accuracy".
template <Experiment experiment, class Visit>
void for_claims(const RunConfig& base, const Visit& visit) {
  for (std::size_t i = 0; i < base.expect.size(); ++i) {
    std::visit(
        [&](const auto& claim) {
          using Kind = std::decay_t<decltype(claim)>;
          if constexpr (experiment_of<Kind> == experiment) {
            visit(claim, "expect." + std::to_string(i) + "." +
                             std::string(section_name(static_cast<const Kind*>(nullptr))));
          }
        },
        base.expect[i]);
  }
}

std::string text_of(const FailuresClaim& c);
std::string text_of(const FailsMoreClaim& c);
std::string text_of(const FailsAlikeClaim& c);
std::string text_of(const AccuracyClaim& c);
std::string text_of(const AccuracyAlikeClaim& c);
std::string text_of(const AccuracyFallsClaim& c);
std::string text_of(const AccuracyGapClaim& c);
std::string text_of(const SoonerClaim& c);
std::string text_of(const SmallerSpikeClaim& c);
std::string text_of(const GateClaim& c);
std::string text_of(const SharpnessFallsClaim& c);
std::string text_of(const SharpnessStaysClaim& c);
std::string text_of(const UnstableStartClaim& c);
std::string text_of(const EdgeOfStabilityClaim& c);
std::string text_of(const DeepLayersClaim& c);
std::string text_of(const BoundaryRisesClaim& c);
std::string text_of(const BoundaryMovesClaim& c);
std::string text_of(const SensitivityFallsClaim& c);
std::string text_of(const AccuracyMovesClaim& c);
std::string text_of(const RateRatioClaim& c);

/// Whether the interval is wholly above (PASS) or below (FAIL) a value; the other way round where
/// the claim is that it is below.
Verdict verdict_above(const Interval& interval, double value);
Verdict verdict_below(const Interval& interval, double value);

/// Which are expected, what was found of each (in the same order), and the level of those that have
/// one: adjusts by Holm and decides.
struct Judged {
  ClaimResult result;
  Finding finding;
  std::optional<double> p_below;
};
std::vector<ClaimResult> settle(std::vector<Judged> judged);

/// Judges the claims of one experiment with judge(claim, place).
template <Experiment experiment, class Judge>
std::vector<ClaimResult> judge_claims(const RunConfig& base, bool interrupted, const Judge& judge) {
  std::vector<Judged> judged;
  for_claims<experiment>(base, [&](const auto& claim, const std::string& place) {
    Judged j;
    j.result.claim = place.substr(place.rfind('.') + 1);
    j.result.text = text_of(claim);
    if (interrupted) {
      j.finding.evidence = "interrupted";
    } else {
      j.finding = judge(claim, place);
      if constexpr (requires { claim.p_below; }) j.p_below = claim.p_below;
    }
    judged.push_back(std::move(j));
  });
  return settle(std::move(judged));
}

}  // namespace preheat
