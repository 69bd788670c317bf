// A replica's state in one file:
//
//   8 bytes   "preheat\0"
//   4 bytes   version, 1
//   4 bytes   n, the length of the header
//   n bytes   header, JSON: {"step", "first_non_finite", "lr",
//             "tensors": [{"kind": "parameter" | "velocity" | "statistic", "name", "shape"}]}
//   ...       the tensors' values in the header's order, fp32, nothing between them
//   4 bytes   CRC-32 (zlib's) of all bytes before it
//
// All numbers are little-endian.
#pragma once

#include <filesystem>
#include <string>

#include "backend/backend.h"

namespace preheat {

/// Writes to a temporary name and renames. Throws Error.
void write_checkpoint(const std::filesystem::path& path, const ReplicaState& state);

/// Throws Error, naming the file, for anything but an undamaged checkpoint of version 1.
ReplicaState read_checkpoint(const std::filesystem::path& path);

}  // namespace preheat
