// The CPU backend: oneDNN for convolutions and matrix products, kernels.h for everything between
// them.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

std::unique_ptr<Backend> make_cpu_backend();

}  // namespace preheat
