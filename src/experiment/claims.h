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
// p_below and the effect has the claimed direction. It fails where the effect is absent or opposite
// although a perfect result of as many runs would have had a p below p_below, unadjusted.
//
// Of compare:
//   failures        the share of failed runs, by Clopper-Pearson. `above`: PASS where the interval
//                   is above it, FAIL where it is below; `below` likewise.
//   fails_more      exact McNemar, two-sided; the direction is that more seeds failed only in the
//                   first arm than only in the second.
//   fails_alike     exact McNemar. FAIL where p <= p_above. PASS where it is above and so many
//                   pairs, had all failed in one arm only, would not have been above.
//   accuracy        the mean difference of test accuracy, first minus second, by the t interval of
//                   pairs: PASS where it is above at_least, FAIL where it is below. A negative
//                   at_least makes it non-inferiority. The bootstrap interval is only shown.
//   accuracy_alike  two one-sided t tests: PASS where p < 0.05, FAIL where the 90 % interval lies
//                   outside (-within, within).
//   accuracy_falls  Page's trend over the arms in their order, one-sided; seeds that all arms have
//                   are its blocks. The direction is that of the mean rank correlation.
//   accuracy_gap    by seed the accuracy of the first arm less that of the second, minus `above`
//                   (or `below`) times the same of `than`: PASS where the percentile interval of
//                   the bootstrap of its mean is above (below) 0, FAIL where it is on the other
//                   side.
//   sooner          by run the number of updates after which the mean training error of the 50
//                   updates before is first below train_error; never is the run's length.
//                   Wilcoxon's signed ranks of the differences, two-sided.
//   smaller_spike   by run the largest training loss of the updates [after, after + within) over
//                   the mean of the 50 before `after` (or as many as there are). A run that is not
//                   finite by then, or not to be divided by, is above all others. Wilcoxon's signed
//                   ranks of the differences of the logarithms, two-sided.
//   gate_opens      the share of runs whose gate opens at an update in [from, to): PASS where it is
//                   at least `share`, FAIL where its Clopper-Pearson interval is below.
//   sharpness_falls by run, whether the first sharpness is at least `by` times the magnitude of the
//                   last finite one. Runs without measurements, or whose two step sizes disagree at
//                   either, are left out and counted. The sign test, one-sided: against half.
//   sharpness_stays by run log(first / last) of the same, or of the curvature along the random
//                   direction: PASS where the t interval of its mean is below log(within), FAIL
//                   where it is above.
//   edge_of_stability
//                   by run the median sharpness of the last quarter of the measurements, against
//                   2 (1 + momentum) / rate (Cohen et al. 2021): PASS where the least-squares slope
//                   over all runs of all arms is within `slope`, else FAIL; INCONCLUSIVE where a
//                   run failed or was not measured.
//   unstable_start  of the runs that were not finite the share with sharpness before update 0 x
//                   largest rate up to the failure / 2 > 1: PASS where it is at least `share`, FAIL
//                   where its Clopper-Pearson interval is below, INCONCLUSIVE for fewer than 5.
//   deep_layers_move_more
//                   by run Spearman's rho between the depth of a weight matrix (of convolutions and
//                   linear layers, from the images on) and its mean norm of velocity over norm of
//                   weights in the updates looked at before `within`; values that are not finite
//                   are skipped, a run with a matrix without any is left out. Wilcoxon's signed
//                   ranks of the differences of rho, two-sided.
// Of sweep, along an axis other than schedule.base_lr, its values in the order given, where the
// other axes have the values of `at`, or over all of theirs:
//   boundary_rises  by seed and combination of the other axes log2 of the largest rate that trained
//                   below the first that failed; half the smallest where none trained, the largest
//                   where all did. Page's trend over the axis, one-sided, blocks being those
//                   combinations with seeds. FAIL also where the boundary over all seeds steps back
//                   by more than octaves_back between neighbouring values.
//   boundary_moves  the same log2, at the last value of the axis less at the first, by seed, the
//                   mean over the other axes: octaves_above: PASS where the percentile interval of
//                   the bootstrap over seeds is above it, FAIL where it is below; octaves_below
//                   likewise.
//   sensitivity_falls
//                   the sensitivity (experiment/sweep.h) at the first value of the axis minus that
//                   at the last, its mean over the other axes: PASS where the percentile interval
//                   of the bootstrap over seeds is above 0, FAIL where it is below. Needs two.
//   accuracy_moves  of the cells whose other axes have the values of `over` and whose rate is at
//                   least octaves_from_boundary below the largest rate that trains of all their
//                   lines: by seed the mean test accuracy at a value of the axis, which may be
//                   schedule.base_lr, less that at its first. `within`: PASS where for each value
//                   two one-sided t tests of the mean have p < 0.05 (all have to, so nothing is
//                   adjusted), FAIL where the 90 % interval of one lies outside (-within, within).
//                   `beyond`, of the last value: PASS where the t interval at 95 % lies outside
//                   [-beyond, beyond], FAIL where it lies inside. INCONCLUSIVE also where so far
//                   below there is no rate (along the rate: fewer than two).
// Of find_lr:
//   rate_ratio      log2 of the second arm's largest rate over the first's, by the bootstrap over
//                   the seeds for which both have one. log2_above: PASS where the interval is above
//                   it, FAIL where it is below; log2_below likewise.
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
/// need diagnostics or a gate that an arm lacks. Those of another experiment of the file are left
/// to its command. `configs` are the arms' (arm_configs). Throws ConfigError at the claim's place.
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
