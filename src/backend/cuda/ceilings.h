// What a GPU can do at most, as measured.
#pragma once

#include "backend/benches.h"

namespace preheat::cuda {

struct Libraries;

/// Of a copy of 256 MiB, and of a product of matrices of 8192 x 8192 in `precision` through
/// cuBLASLt. Throws Error when memory does not suffice.
Ceilings measure_ceilings(Libraries& libraries, Precision precision);

}  // namespace preheat::cuda
