// Compares what an experiment was expected to show with what it showed: PASS if the evidence meets
// the threshold fixed in the file, FAIL if it contradicts the claim, otherwise INCONCLUSIVE (too
// few runs, missing data, values that are only bounds or show no spread, the right direction
// without significance, an interrupted experiment). A boundary or a largest rate is known only to
// lie between a rate that trains and the next that fails, and intervals of such are widened to
// both. The claims are those of `expect` (config/config.h); compare, sweep and find_lr each judge
// their own.
//
// Runs that failed (not finite, or stuck) count with the accuracy of chance, 1 / classes. If there
// are any, the evidence of compare's claims about accuracy also has the comparison over the seeds
// at which all arms of the claim trained, which decides nothing. A pair of arms is compared over
// the seeds that both have. Intervals are 95 % intervals unless said otherwise. The p-values of all
// claims of a command that have p_below are adjusted together by Holm's method; a claim without
// data counts with p = 1. Such a claim passes if the adjusted p is below p_below and the effect has
// the claimed direction. It fails if the opposite claim would have an unadjusted p below p_below:
// not seeing an effect is no evidence that there is none.
//
// The *_claims.cpp of an experiment define each kind of claim: how it is decided, how it is worded,
// and what it requires. Those of compare are listed in compare_claims.h.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "experiment/runs.h"

namespace preheat {

struct SweepResult;
struct FindLrResult;

enum class Verdict { pass, fail, inconclusive };
constexpr auto spelling(Verdict) {
  return Spelling{"a verdict", {"PASS", "FAIL", "INCONCLUSIVE"}};
}

struct ClaimResult {
  std::string claim;  // as in the configuration: "fails_more"
  std::string text;   // "no-warmup fails more often than warmup"
  Verdict verdict = Verdict::inconclusive;
  std::string evidence;  // counts and intervals in words
};

/// The array "claims" of an experiment's JSON.
nlohmann::ordered_json to_json(const std::vector<ClaimResult>& claims);

/// Refuse, before anything runs, claims that could not be judged: about an experiment that the file
/// does not have; about arms or axes that do not exist, are named twice, or run the same; or that
/// need diagnostics, a gate or updates that an arm lacks. Claims about another experiment of the
/// file are left to its command. `configs` are the arms' (arm_configs). Throw ConfigError at the
/// claim's place.
void check_compare_claims(const RunConfig& base, const std::vector<RunConfig>& configs);
void check_sweep_claims(const RunConfig& base);
void check_find_lr_claims(const RunConfig& base, const std::vector<Arm>& arms,
                          const std::vector<RunConfig>& configs);

/// The verdicts on the claims of one command, in their order; all INCONCLUSIVE if the experiment
/// was interrupted. The claims must have been checked. Throw Error if a file of a run is damaged.
std::vector<ClaimResult> judge_compare(const RunConfig& base, const std::vector<RunConfig>& configs,
                                       const std::vector<ArmResult>& arms,
                                       const std::filesystem::path& folder, bool interrupted);
std::vector<ClaimResult> judge_sweep(const RunConfig& base, const SweepResult& result);
std::vector<ClaimResult> judge_find_lr(const RunConfig& base, const FindLrResult& result);

}  // namespace preheat
