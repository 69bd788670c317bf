// What an experiment was expected to show, held against what it showed: PASS where the evidence
// meets the threshold that the file fixed, FAIL where it contradicts the claim, INCONCLUSIVE else
// (too few runs, data that are missing, the right direction without significance, an experiment
// that was interrupted). The claims are those of `expect` (config/config.h); compare, sweep and
// find_lr each judge their own.
//
// Runs that failed (not finite, or stuck) count with the accuracy of chance, 1 / classes. A pair of
// arms is compared over the seeds that both have. An interval is one of 95 % unless said otherwise.
// The p-values of all claims of a command that carry p_below are adjusted by Holm together; one
// whose data are missing counts as 1 among them. Such a claim passes where the adjusted p is below
// p_below and the effect has the claimed direction. It fails where the opposite claim would have a
// p below p_below, unadjusted: that an effect was not seen is no evidence that there is none.
//
// Each kind stands in compare_claims.cpp, sweep_claims.cpp or find_lr_claims.cpp: how it is
// decided, what it says, and what has to be there for it.
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

/// The claims that stand under "claims" of an experiment's JSON.
nlohmann::ordered_json to_json(const std::vector<ClaimResult>& claims);

/// Refuses, before anything runs, claims that could not be judged: of an experiment that the file
/// does not have; of arms or axes that are not there, are twice the same, or run the same; that
/// need diagnostics, a gate or updates that an arm lacks. Those of another experiment of the file
/// are left to its command. `configs` are the arms' (arm_configs). Throws ConfigError at the
/// claim's place.
void check_compare_claims(const RunConfig& base, const std::vector<RunConfig>& configs);
void check_sweep_claims(const RunConfig& base);
void check_find_lr_claims(const RunConfig& base, const std::vector<Arm>& arms,
                          const std::vector<RunConfig>& configs);

/// The verdicts on the claims of one command, in their order; `interrupted` makes all of them
/// INCONCLUSIVE. The claims have been checked. Throw Error where a file of a run is damaged.
std::vector<ClaimResult> judge_compare(const RunConfig& base, const std::vector<RunConfig>& configs,
                                       const std::vector<ArmResult>& arms,
                                       const std::filesystem::path& folder, bool interrupted);
std::vector<ClaimResult> judge_sweep(const RunConfig& base, const SweepResult& result);
std::vector<ClaimResult> judge_find_lr(const RunConfig& base, const FindLrResult& result);

}  // namespace preheat
