// From the schedule section of a configuration to the phases of a run of known length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "schedule/lr_schedule.h"

namespace preheat {

/// How many updates a run has, and how many make an epoch.
struct RunLength {
  std::int64_t steps = 0;
  std::int64_t steps_per_epoch = 0;
};

/// train.length in updates, or the sum of train.stages where it is not given. Throws ConfigError at
/// either.
RunLength run_length(const RunConfig& config, std::int64_t steps_per_epoch);

/// A length in updates, rounded to the nearest. Throws ConfigError at `key` where a length above
/// zero comes to no update at all.
std::int64_t updates_of(const Length& length, const RunLength& run, const RunConfig& config,
                        std::string_view key);

/// schedule.base_lr, scaled to the batch size where schedule.scale says so: times batch / reference
/// (Goyal et al. 2017) or its root.
double base_lr(const RunConfig& config);

struct Schedule {
  LrSchedule lr;
  std::vector<std::string> phase_names;  // of lr.phases
  RunLength run;
  double base_lr = 0;
  double gate_error = 0;  // below which lr.gate opens, where there is one
  // The warmup's start is yet to be found from the network; a tenth of base_lr stands for it.
  bool start_is_automatic = false;
};

/// Checks everything that depends on the length of the run or on the catalogue of shapes, and lays
/// the phases out over updates 0 .. run.steps - 1. What is left after the last phase is a phase
/// "final" that keeps its last value; no other may then have that name. Throws ConfigError at the
/// key that is wrong.
Schedule resolve_schedule(const RunConfig& config, const RunLength& run);

/// The name of the phase that update `step` lies in; `gate_opened_at` as lr_at takes it.
const std::string& phase_name(const Schedule& schedule, std::int64_t step,
                              std::int64_t gate_opened_at = -1);

}  // namespace preheat
