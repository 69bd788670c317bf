// A configuration as what a backend needs to know of it.
#pragma once

#include "backend/backend.h"
#include "config/config.h"
#include "nn/network.h"
#include "schedule/schedule.h"

namespace preheat {

/// train.cpu_threads as backends take it: 0 for all there are.
int cpu_threads(const RunConfig& config);

/// The options of a replica of `network`. The patterns of optimizer.groups and train.stages become
/// choices by parameter; in a pattern * stands for any text and ? for any character of a name. A
/// run without stages is one stage that trains everything. Throws ConfigError where a pattern
/// matches no parameter, the stages are not as long as the run, or the dataset has no such
/// channels.
ReplicaOptions replica_options(const RunConfig& config, const Network& network,
                               const Schedule& schedule);

}  // namespace preheat
