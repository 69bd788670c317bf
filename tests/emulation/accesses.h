// Watches every access to device and shared memory, as memcheck, racecheck and initcheck of
// NVIDIA's compute-sanitizer do, and stops at the first one that is wrong. The kernels of
// preheat_watched_tests are compiled so that each of their loads and stores comes here; in the
// other programs nothing is watched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace emulation {

/// Set before the first allocation, and then left alone.
extern bool accesses_are_watched;

/// What was done to the bytes of an array.
class Watch;
/// Null unless accesses are watched.
std::shared_ptr<Watch> watch(std::size_t size);

/// By chain, the number of its tasks that come before, because of streams, events, graphs or a host
/// that waited: a vector clock.
using Clock = std::map<int, std::uint32_t>;
void merge(Clock& clock, const Clock& other);

/// What follows belongs to a task of this chain. Adds the task itself to its clock.
void task_begins(int chain, Clock& clock);

// The kernel of a task, whose blocks run one after the other.
void kernel_begins(unsigned threads);
void block_begins(unsigned block);
void shared_memory_begins(const void* memory, std::size_t count);
void barrier_opens();
void kernel_ends();

// Accesses that are not loads and stores of a thread's own code, which asked for them at `code`;
// null for those of the host's libraries and of copies.
void reads(const void* memory, std::size_t count, const void* code = nullptr);
void writes(const void* memory, std::size_t count, const void* code = nullptr);
/// Until it has ended, a copy of the current thread may write at any time.
void copy_begins(const void* to, std::size_t count, const void* code);
void copy_ends(const void* to, std::size_t count, const void* code);
/// What a block wrote before a fence is seen by blocks that access the same counter later.
void fence();
void accesses_atomically(const void* counter, std::size_t count, const void* code);

}  // namespace emulation
