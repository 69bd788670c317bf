// Random numbers decide what CUDA leaves open. PREHEAT_EMULATION_SEED is their seed; without it
// they are the same in every run.
#pragma once

#include <cstddef>
#include <vector>

namespace emulation {

/// A random number in 0 .. count - 1.
std::size_t any_below(std::size_t count);

/// A number that is the same throughout a run of the program.
std::size_t any_decision();

/// Leaves the numbers as they are, reverses or shuffles them.
void put_in_any_order(std::vector<unsigned>& numbers);

}  // namespace emulation
