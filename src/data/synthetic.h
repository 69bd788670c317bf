// A small, made-up dataset: the same bits on every machine, learnable in seconds, and not by
// looking at single pixels.
#pragma once

#include "data/dataset.h"

namespace preheat {

inline constexpr ImageShape synthetic_shape{16, 16, 1};
inline constexpr std::int64_t synthetic_classes = 10;
inline constexpr std::int64_t synthetic_train_size = 4096;
inline constexpr std::int64_t synthetic_test_size = 1024;

/// `count` examples from number `first` on, each a pure function of its number. Example i is of
/// class i % 10. The training set is numbers 0..4095, the test set 4096..5119.
Dataset generate_synthetic(std::int64_t first, std::int64_t count);

}  // namespace preheat
