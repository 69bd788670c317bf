// The part of a configuration that a backend needs.
#pragma once

#include "backend/backend.h"
#include "config/config.h"
#include "nn/network.h"
#include "schedule/schedule.h"

namespace preheat {

/// train.cpu_threads as backends expect it: 0 for all.
int cpu_threads(const RunConfig& config);

/// The options of a replica of `network`. The patterns of optimizer.groups and train.stages are
/// resolved to choices per parameter; in a pattern * is any text and ? any one character. A run
/// without stages is one stage that trains everything. Throws ConfigError if a pattern matches no
/// parameter, earlier groups take all that a group matches, the stages do not add up to the run's
/// length, data.normalize does not fit the dataset's channels, or a batch norm would have a single
/// value per channel.
ReplicaOptions replica_options(const RunConfig& config, const Network& network,
                               const Schedule& schedule);

}  // namespace preheat
