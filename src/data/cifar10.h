// The binary version of CIFAR-10: records of one label byte and 3072 pixel bytes, as 32 x 32 planes
// of red, green and blue.
#pragma once

#include <filesystem>
#include <span>

#include "data/dataset.h"

namespace preheat {

/// Reads the files in order and converts them to NHWC. A file holds 1 to 10000 complete records.
/// Throws Error naming file and byte for anything else and for labels over 9.
Dataset read_cifar10(std::span<const std::filesystem::path> files);

}  // namespace preheat
