// Compares the arms of one experiment over the same seeds.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/claims.h"
#include "experiment/pairs.h"
#include "experiment/runs.h"

namespace preheat {

/// What each run of an arm is planned to get. One that becomes not finite gets less.
struct Budget {
  std::int64_t updates = 0;
  std::int64_t batch_size = 0;   // images per update
  std::int64_t micro_batch = 0;  // and per pass, which are a batch to batch norm
  // The sum of the learning rates of all updates (schedule/plan.h). std::nullopt if the rates
  // depend on the run, with a gate or start_lr: auto, and for a run of more than
  // max_updates_walked.
  std::optional<double> sum_of_rates;
};

/// Whether the runs of two arms are planned to get as many updates of as many images.
bool are_as_long(const Budget& a, const Budget& b);

/// The test loss of the first arm of a pair minus that of the second at equal training loss
/// (test_loss_difference() in train/loss_curve.h), over the seeds at which it exists: neither run
/// failed, both were evaluated often enough (min_curve_evaluations), and neither was below that
/// training loss at its first evaluation.
struct MatchedLosses {
  std::int64_t n = 0;  // seeds, at least one
  double mean = 0;
  std::optional<Interval> interval;  // for the mean, paired_t at 95 %; needs two seeds
};

/// Reads the files of the arms' runs in `folder`. One entry per pair of arms, in the order of
/// CompareResult::paired: std::nullopt if no seed has a difference, and if the arms differ in
/// dataset, loss, label smoothing or augmentation, as their training losses are then not of one
/// kind. With smoothed labels, alike in both arms, it is the loss on these that is equal. Throws
/// Error if a file is damaged.
std::vector<std::optional<MatchedLosses>> matched_losses(const std::vector<RunConfig>& configs,
                                                         const std::vector<ArmResult>& arms,
                                                         const std::filesystem::path& folder);

struct CompareResult {
  std::vector<ArmResult> arms;
  std::vector<Budget> budgets;  // of the arms, in their order
  std::vector<PairResult> paired;
  std::vector<std::optional<MatchedLosses>> matched;  // of the pairs; empty while runs are trained
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // runs, of all arms
  bool interrupted = false;

  bool validated() const { return any_validated(arms); }
};

/// Runs every arm at every seed, seed by seed, each into <folder>/<arm>/<seed>, and writes
/// compare.json: after runs, at most once a second (OnceASecond), and at the end. While runs are
/// missing it says how many have ended of how many planned. A run ends at its first step that is
/// not finite. An interrupted experiment keeps its ended runs, and `resume` continues it in its
/// folder. Errors in any arm are reported before data is loaded, and missing data before anything
/// is written. Throws ConfigError, also if there is no compare section, and Error.
CompareResult compare(const Document& document, Backend& backend,
                      const std::filesystem::path& folder, bool resume,
                      const RunsListener& listener);

/// The content of compare.json. Beside what to_json(ArmResult) says, an arm has "budget":
/// {"updates", "batch_size", "micro_batch", "sum_of_rates"}, and "median_losses": {"final_train",
/// "test_minus_train"} over the runs that did not fail, null if there are none. The former is of
/// the last updates (LossHistory), the latter the median of each run's test loss minus that, which
/// is no gap with label_smoothing: only the training loss is of the smoothed labels. A pair has
/// "test_loss_at_matched_training_loss": {"mean_difference", "interval", "n"}, which is
/// MatchedLosses, or null.
nlohmann::ordered_json to_json(const CompareResult& result);

}  // namespace preheat
