// The IDX format of MNIST and its successors: two zero bytes, the type (8: unsigned byte), the
// number of dimensions, each dimension as a big-endian 32-bit integer, then the data.
#pragma once

#include <cstdint>
#include <filesystem>

#include "data/dataset.h"

namespace preheat {

/// Reads one-channel images and their labels, plain or gzip, and keeps the first `most` examples in
/// memory, however many the files hold. Throws Error naming file and byte if either is not a
/// complete IDX file, if their counts differ, if the images are not of `shape`, or if a label that
/// is kept is not below `classes`.
Dataset read_idx(const std::filesystem::path& images, const std::filesystem::path& labels,
                 const ImageShape& shape, std::int64_t classes, std::int64_t most);

}  // namespace preheat
