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
  std::int64_t batch_size = 0;  // images per update
  // The sum of the learning rates of all updates (schedule/plan.h). std::nullopt if the rates
  // depend on the run, with a gate or start_lr: auto, and for a run of more than
  // max_updates_walked.
  std::optional<double> sum_of_rates;
};

/// Whether the runs of two arms are planned to get as many updates of as many images.
bool are_as_long(const Budget& a, const Budget& b);

struct CompareResult {
  std::vector<ArmResult> arms;
  std::vector<Budget> budgets;  // of the arms, in their order
  std::vector<PairResult> paired;
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
/// {"updates", "batch_size", "sum_of_rates"}, and "median_losses": {"final_train",
/// "test_minus_train"} over the runs that did not fail, null if there are none. The former is of
/// the last updates (LossHistory), the latter the median of each run's test loss minus that, which
/// is no gap with label_smoothing: only the training loss is of the smoothed labels.
nlohmann::ordered_json to_json(const CompareResult& result);

}  // namespace preheat
