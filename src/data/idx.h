// The IDX format of MNIST and its successors: two zero bytes, the type (8: unsigned byte), the
// number of dimensions, each dimension as a big-endian 32-bit number, then the data.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/dataset.h"

namespace preheat {

/// Reads one-channel images and their labels, plain or gzip. Throws Error naming file and byte
/// where either is not a whole IDX file, where their counts differ, where the images are not
/// `shape` or a label is not less than `classes`.
Dataset read_idx(const std::filesystem::path& images, const std::filesystem::path& labels,
                 const ImageShape& shape, std::int64_t classes);

}  // namespace preheat
