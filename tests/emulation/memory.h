// The emulated device's memory, and how errors are reported that CUDA does not report.
#pragma once

#include <cstddef>
#include <string>

#include "emulation/accesses.h"

namespace emulation {

/// Prints an error that a real device would not report, or show only in wrong results, and aborts.
[[noreturn]] void stop(const std::string& what);

/// Tests may set it.
inline std::size_t device_bytes = std::size_t{8} << 30;

/// Device memory between guards, all bits set: NaN in every floating-point type. Null if there is
/// not enough.
void* allocate(std::size_t bytes);
/// False if `memory` is not an allocation. Aborts if a guard or memory freed earlier was written.
bool release(void* memory);
std::size_t allocated_bytes();

struct Allocation {
  void* memory = nullptr;
  std::size_t size = 0;
  Watch* watch = nullptr;
};
/// The one that a byte lies in; with a null pointer if there is none.
Allocation allocation_of(const void* byte);
/// How often memory was allocated or released so far.
std::size_t allocation_changes();

/// Whether all of these bytes lie in one allocation.
bool is_device_memory(const void* memory, std::size_t bytes);

}  // namespace emulation
