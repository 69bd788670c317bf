// The arms of one experiment over the same seeds.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/claims.h"
#include "experiment/runs.h"

namespace preheat {

/// Two arms over the seeds that both finished.
struct PairResult {
  std::string first;
  std::string second;
  std::int64_t pairs = 0;
  std::int64_t only_first_failed = 0;
  std::int64_t only_second_failed = 0;
  double mcnemar_p = 1;  // exact, two-sided
};

struct CompareResult {
  std::vector<ArmResult> arms;
  std::vector<PairResult> paired;
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // runs, of all arms
  bool interrupted = false;
};

/// Over the seeds that have a run in both, whatever their order.
PairResult pair_of(const ArmResult& a, const ArmResult& b);

/// Runs every arm at every seed, seed by seed, each into <folder>/<arm>/<seed>, and writes
/// compare.json after each; while runs are missing it says how many of how many there are. A run
/// that is not finite any more ends at once. An interrupted experiment keeps what was finished, and
/// `resume` goes on in its folder. What is wrong in any arm is said before anything is loaded or
/// made, and missing data before anything is made. Throws ConfigError, also where there is no
/// compare section, and Error.
CompareResult compare(const Document& document, Backend& backend,
                      const std::filesystem::path& folder, bool resume,
                      const RunsListener& listener);

nlohmann::ordered_json to_json(const CompareResult& result);

}  // namespace preheat
