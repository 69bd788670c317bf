#include "emulation/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>

namespace emulation {
namespace {

constexpr std::size_t alignment = 256;
constexpr std::size_t guard = 256;
constexpr unsigned char guard_byte = 0xa5;
constexpr unsigned char unwritten = 0xff;
// Freed memory is watched for writes, up to this many bytes of it in all.
constexpr std::size_t max_watched = std::size_t{64} << 20;

struct Block {
  unsigned char* begin;  // of the guard in front
  std::size_t size;
  std::shared_ptr<Watch> watch;
  unsigned char* data() const { return begin + guard; }
};

std::map<std::uintptr_t, Block> blocks;  // by address of the data
std::deque<Block> freed;
std::size_t in_use = 0;
std::size_t changes = 0;
std::size_t watched = 0;

bool all_are(const unsigned char* from, std::size_t size, unsigned char byte) {
  return std::all_of(from, from + size, [&](unsigned char b) { return b == byte; });
}

void check_guards(const Block& block) {
  if (!all_are(block.begin, guard, guard_byte))
    stop("memory in front of an allocation was written");
  const unsigned char* end = block.data() + block.size;
  if (!all_are(end, guard, guard_byte)) stop("memory behind an allocation was written");
}

void forget(const Block& block) {
  check_guards(block);
  if (!all_are(block.data(), block.size, unwritten)) stop("memory was written after it was freed");
  std::free(block.begin);
}

}  // namespace

void stop(const std::string& what) {
  std::fprintf(stderr, "emulated device: %s\n", what.c_str());
  std::abort();
}

void* allocate(std::size_t bytes) {
  if (bytes > device_bytes - in_use) return nullptr;
  const std::size_t all = (bytes + 2 * guard + alignment - 1) / alignment * alignment;
  auto* const begin = static_cast<unsigned char*>(std::aligned_alloc(alignment, all));
  if (begin == nullptr) return nullptr;
  const Block block{begin, bytes, emulation::watch(bytes)};
  std::memset(begin, guard_byte, guard);
  std::memset(block.data(), unwritten, bytes);
  std::memset(block.data() + bytes, guard_byte, guard);
  blocks[reinterpret_cast<std::uintptr_t>(block.data())] = block;
  in_use += bytes;
  ++changes;
  return block.data();
}

bool release(void* memory) {
  const auto found = blocks.find(reinterpret_cast<std::uintptr_t>(memory));
  if (found == blocks.end()) return false;
  const Block block = found->second;
  check_guards(block);
  blocks.erase(found);
  in_use -= block.size;
  ++changes;
  std::memset(block.data(), unwritten, block.size);
  freed.push_back(block);
  watched += block.size;
  while (watched > max_watched) {
    watched -= freed.front().size;
    forget(freed.front());
    freed.pop_front();
  }
  return true;
}

std::size_t allocated_bytes() {
  return in_use;
}

Allocation allocation_of(const void* byte) {
  const auto at = reinterpret_cast<std::uintptr_t>(byte);
  const auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return {};
  const Block& block = std::prev(next)->second;
  if (at - std::prev(next)->first > block.size) return {};
  return {block.data(), block.size, block.watch.get()};
}

std::size_t allocation_changes() {
  return changes;
}

bool is_device_memory(const void* memory, std::size_t bytes) {
  const Allocation allocation = allocation_of(memory);
  const auto from = static_cast<const char*>(memory) - static_cast<const char*>(allocation.memory);
  return allocation.memory != nullptr && static_cast<std::size_t>(from) + bytes <= allocation.size;
}

}  // namespace emulation
