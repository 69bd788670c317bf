// What the driver says of the device as it is now.
#pragma once

#include "backend/benches.h"

namespace preheat::cuda {

/// Clocks and what holds them back, ECC, temperature and power of device 0 in one line, as
/// nvidia-smi tells it, which comes with the driver; says so where it does not.
Condition condition();

}  // namespace preheat::cuda
