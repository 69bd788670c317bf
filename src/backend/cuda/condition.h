// What the driver says of the device as it is now.
#pragma once

#include <string>

namespace preheat::cuda {

/// Clocks and what holds them back, ECC, temperature and power of device 0 in one line, as
/// nvidia-smi tells it, which comes with the driver; says so where it does not.
std::string condition();

}  // namespace preheat::cuda
