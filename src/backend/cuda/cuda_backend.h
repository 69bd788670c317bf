#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

/// The backend on the first CUDA device, with cuDNN and cuBLAS. Throws Error if there is no device
/// or none that it can use.
std::unique_ptr<Backend> make_cuda_backend();

}  // namespace preheat
