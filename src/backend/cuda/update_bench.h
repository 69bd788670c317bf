// How fast the update is on the GPU, beside what the memory allows and what alternatives cost.
#pragma once

#include "backend/backend.h"

namespace preheat::cuda {

/// As Backend::time_updates.
std::vector<UpdateTiming> time_updates(const std::vector<UpdateSet>& sets, bool quick);

}  // namespace preheat::cuda
