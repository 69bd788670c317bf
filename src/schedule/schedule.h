// From the schedule section of a configuration to the phases of a run of known length.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "schedule/lr_schedule.h"
#include "schedule/run_length.h"

namespace preheat {

/// schedule.base_lr, scaled to the batch size if schedule.scale is given: times batch / reference
/// (Goyal et al. 2017) or its square root.
double base_lr(const RunConfig& config);

struct Schedule {
  LrSchedule lr;
  std::vector<std::string> phase_names;  // of lr.phases
  RunLength run;
  double base_lr = 0;
  double gate_error = 0;  // training error below which lr.gate opens, if there is a gate
  // The warmup's start rate still has to be derived from the network; a tenth of base_lr is its
  // placeholder.
  bool start_is_automatic = false;
};

/// Checks everything that depends on the length of the run or on the shapes, and lays the phases
/// out over updates 0 .. run.steps - 1. Updates left after the last phase form a phase "final" that
/// keeps its last value; no other phase may then have that name. Throws ConfigError at the key that
/// is wrong.
Schedule resolve_schedule(const RunConfig& config, const RunLength& run);

/// The name of the phase that contains update `step`; `gate_opened_at` as in lr_at.
const std::string& phase_name(const Schedule& schedule, std::int64_t step,
                              std::int64_t gate_opened_at = -1);

}  // namespace preheat
