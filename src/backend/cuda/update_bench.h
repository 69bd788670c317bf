// The update of a set on the GPU, timed in every variant.
#pragma once

#include <vector>

#include "backend/benches.h"

namespace preheat::cuda {

/// As Benches::time_updates: the ceilings, then every variant in a graph and, unless `quick`, by
/// launches; sets that might fit into a cache also cold.
std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                       const BetweenRounds& between_rounds);

}  // namespace preheat::cuda
