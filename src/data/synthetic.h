// A small synthetic dataset: bit-identical on every machine and learnable in seconds, but not from
// single pixels.
#pragma once

#include "data/dataset.h"

namespace preheat {

inline constexpr ImageShape synthetic_shape{16, 16, 1};
inline constexpr std::int64_t synthetic_classes = 10;
inline constexpr std::int64_t synthetic_train_size = 4096;
inline constexpr std::int64_t synthetic_test_size = 1024;

/// Examples first .. first + count - 1, each a pure function of its index. Example i has class
/// i % 10. The training set is 0..4095, the test set 4096..5119.
Dataset generate_synthetic(std::int64_t first, std::int64_t count);

}  // namespace preheat
