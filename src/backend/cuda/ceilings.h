// The measured limits of a GPU.
#pragma once

#include "backend/benches.h"

namespace preheat::cuda {

struct Libraries;

/// Measures a copy of 256 MiB, and a product of 8192 x 8192 matrices in `precision` through
/// cuBLASLt. Throws Error if memory is insufficient.
Ceilings measure_ceilings(Libraries& libraries, Precision precision);

}  // namespace preheat::cuda
