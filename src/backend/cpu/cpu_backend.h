// The CPU backend: oneDNN for convolutions and matrix products, kernels.h for everything between
// them.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

/// The backend on this machine's processor, with as many threads as OpenMP allows.
std::unique_ptr<Backend> make_cpu_backend();

}  // namespace preheat
