// The driver's report on the current condition of the device.
#pragma once

#include <string>

#include "backend/benches.h"

namespace preheat::cuda {

/// Clocks and what limits them, ECC, temperature and power of device 0 in one line, as reported by
/// nvidia-smi, which comes with the driver; says so if nvidia-smi is missing.
Condition condition();

/// The same from the line that nvidia-smi printed, which is empty if it is missing.
Condition parse_condition(const std::string& line);

}  // namespace preheat::cuda
