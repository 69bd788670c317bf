#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

/// The backend on the first CUDA device, cuDNN and cuBLAS. Throws Error where there is none, or
/// none that it can use.
std::unique_ptr<Backend> make_cuda_backend();

}  // namespace preheat
