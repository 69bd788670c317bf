// The CPU backend: convolutions and matrix products by oneDNN, everything between them in
// kernels.h.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

std::unique_ptr<Backend> make_cpu_backend();

}  // namespace preheat
