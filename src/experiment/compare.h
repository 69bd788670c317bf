// The arms of one experiment over the same seeds.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/statistics.h"
#include "train/trainer.h"

namespace preheat {

struct SeedResult {
  std::uint64_t seed = 0;
  RunResult run;
};

struct ArmResult {
  Arm arm;
  std::vector<SeedResult> runs;  // in the order of the seeds; interrupted runs are not in it

  std::int64_t count(Outcome outcome) const;
  std::int64_t failures() const;
  Interval failure_interval() const;  // Clopper-Pearson, 95 %; needs at least one run
};

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
  bool interrupted = false;
};

/// Hears of every run. Every function may be left empty.
struct CompareListener {
  std::function<void(const Arm&, std::uint64_t seed, const Trainer&)> on_start;
  std::function<void(std::span<const StepRecord>)> on_records;
  std::function<void(const RunResult&)> on_end;
  std::function<bool()> wants_stop;
};

/// The configuration of each arm, checked with check_run. Throws ConfigError where there is no
/// compare section or an arm is wrong.
std::vector<RunConfig> arm_configs(const Document& document);

/// Runs every arm at every seed, seed by seed, each into <folder>/<arm>/<seed>; then writes
/// compare.json. A run that is not finite any more ends at once. An interrupted experiment keeps
/// what was finished. Throws Error, and what arm_configs throws.
CompareResult compare(const Document& document, Backend& backend,
                      const std::filesystem::path& folder, const CompareListener& listener);

nlohmann::ordered_json to_json(const CompareResult& result);

}  // namespace preheat
