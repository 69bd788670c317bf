// The emulated device's memory, and what can only be told by stopping.
#pragma once

#include <cstddef>
#include <string>

namespace emulation {

/// Writes what a real device would not have told, or only in other results, and aborts.
[[noreturn]] void stop(const std::string& what);

inline constexpr std::size_t device_bytes = std::size_t{8} << 30;

/// Device memory between guards, all ones: NaN in every floating type. Null where there is not as
/// much.
void* allocate(std::size_t bytes);
/// False where it is none. Stops where a guard, or memory that was freed earlier, was written.
bool release(void* memory);
std::size_t allocated_bytes();

/// Whether all of it lies in one allocation.
bool is_device_memory(const void* memory, std::size_t bytes);

}  // namespace emulation
