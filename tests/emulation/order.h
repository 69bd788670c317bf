// What CUDA leaves open is decided by random numbers: PREHEAT_EMULATION_SEED, or the same ones in
// every run.
#pragma once

#include <cstddef>
#include <vector>

namespace emulation {

/// 0 .. count - 1.
std::size_t any_below(std::size_t count);

/// The same in all of a run.
std::size_t any_decision();

/// As they are, or backwards, or shuffled.
void put_in_any_order(std::vector<unsigned>& numbers);

}  // namespace emulation
