// A replica's state in one file:
//
//   8 bytes   "preheat\0"
//   4 bytes   version, 3
//   4 bytes   n, the length of the header
//   n bytes   header, JSON: {"fingerprint", "step", "first_non_finite", "lr", "previous_lr",
//             "gate": {"opened_at", "hits": [per update of its window, trailing zeros omitted]},
//             "loss_scale": {"value", "updates": since it last changed},
//             "tensors": [{"kind", "name", "shape"}]}; kinds are "parameter", "velocity",
//             "statistic" and, if the run measures its sharpness, "direction"
//   ...       the tensors' values in the header's order, fp32, without gaps
//   4 bytes   CRC-32 (zlib's) of all bytes before it
//
// All numbers are little-endian.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace preheat {

struct Checkpoint {
  ReplicaState state;
  std::string fingerprint;                  // of the run's configuration; see fingerprint.h
  std::vector<NamedTensor> direction = {};  // see Diagnostics::direction
};

/// Writes atomically. Throws Error.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

/// Throws Error naming the file if it is not an undamaged checkpoint of this version.
Checkpoint read_checkpoint(const std::filesystem::path& path);

}  // namespace preheat
