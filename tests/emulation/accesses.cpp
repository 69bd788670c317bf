#include "emulation/accesses.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "emulation/launch.h"
#include "emulation/memory.h"

namespace emulation {

bool accesses_are_watched = false;

namespace {

/// The latest accesses to a unit of memory. They are dated by intervals: the time between two
/// barriers of a block, numbered through all blocks and tasks, which run one after the other.
struct Unit {
  std::uint32_t written = 0;  // an interval; 0: never
  std::uint32_t read = 0;
  std::uint32_t read_elsewhere = 0;  // earlier, in a block or task that nothing orders before that
  std::uint32_t written_at = 0;      // code addresses
  std::uint32_t read_at = 0;
  std::uint16_t writer = 0;  // threads
  std::uint16_t reader = 0;
  std::uint16_t copier = 0;  // 1 + the thread whose copy into it has not ended; 0: none

  bool operator==(const Unit&) const = default;
};

}  // namespace

class Watch {
 public:
  explicit Watch(std::size_t size) : units_((size + 3) / 4) {}

  std::size_t size() const { return units_.size() * unit_; }

  /// The units of some bytes.
  std::span<Unit> at(std::size_t begin, std::size_t count) {
    while ((begin | count) % unit_ != 0) halve();
    return std::span(units_).subspan(begin / unit_, count / unit_);
  }

 private:
  void halve() {
    std::vector<Unit> halves(2 * units_.size());
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = units_[i / 2];
    units_ = std::move(halves);
    unit_ /= 2;
  }

  std::size_t unit_ = 4;  // bytes; smaller once something smaller is accessed
  std::vector<Unit> units_;
};

namespace {

constexpr std::uint16_t several = 0xffff;  // threads
constexpr std::uint16_t atomic = 0xfffe;   // in place of a thread

// Of this thread of the host: others may be in inline functions that kernels have too.
thread_local bool in_kernel = false;

std::uint32_t interval = 1;
std::uint32_t task_first = 1;   // interval of the task that is running
std::uint32_t block_first = 1;  // and of the block

struct Past {
  std::uint32_t first;  // interval
  int chain;
  std::uint32_t number;  // in its chain
};
std::vector<Past> tasks;
Clock task_clock;
bool comes_after_all = true;  // of them
std::map<int, std::uint32_t> chain_lengths;

// The kernel that is running.
unsigned threads = 0;
std::vector<std::pair<std::uint32_t, unsigned>> blocks;  // by first interval
using Blocks = std::map<unsigned, std::uint32_t>;        // up to which interval of a block
std::map<const void*, Blocks> published;                 // by counter
Blocks seen;                                             // by the current block, at a counter
Blocks acquired;                                         // what it saw, once there was a fence
std::uint32_t fenced = 0;             // the current block's writes are fenced up to this interval
std::vector<std::uint32_t> fence_of;  // by thread, the interval of its last fence
unsigned fences = 0;                  // threads that had one in this interval

struct Region {
  std::uintptr_t begin = 0;
  std::size_t size = 0;
  Watch* watch = nullptr;

  bool has(std::uintptr_t at) const { return at - begin < size; }
};
std::vector<Region> shared;
std::map<const void*, Watch> shared_watches;

std::uintptr_t program_begin() {
  static const auto begin = [] {
    Dl_info program{};
    dladdr(reinterpret_cast<const void*>(&watch), &program);
    return reinterpret_cast<std::uintptr_t>(program.dli_fbase);
  }();
  return begin;
}

struct Access {
  Access(bool write, std::uint16_t by, const void* at)
      : is_write(write),
        thread(by),
        code(at == nullptr ? 0
                           : static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(at) -
                                                        program_begin())) {}
  bool is_write;
  std::uint16_t thread;
  std::uint32_t code;  // from the program's begin
};

// File and line, of the innermost inline function first.
std::string place_of(std::uint32_t code) {
  if (code == 0) return "a copy or a library";
  char command[100];
  std::snprintf(command, sizeof command, "addr2line -ie /proc/%d/exe 0x%x", getpid(), code - 1);
  std::string places;
  FILE* const lines = popen(command, "r");
  char line[1024];
  while (lines != nullptr && std::fgets(line, sizeof line, lines) != nullptr) {
    std::string place(line);
    place.erase(0, place.rfind('/') + 1);
    place.resize(place.find_first_of(" \n"));  // "pool.cu:94 (discriminator 2)"
    places += (places.empty() ? "" : ", in ") + place;
  }
  if (lines != nullptr) pclose(lines);
  return places;
}

std::string name_of(std::uint16_t thread) {
  if (thread == several) return "several threads";
  return thread == atomic ? "an atomic function" : "thread " + std::to_string(thread);
}

[[noreturn]] void stop_at(const Access& access, const std::string& what) {
  in_kernel = false;
  const unsigned block = blocks.empty() ? 0 : blocks.back().second;
  stop("block " + std::to_string(block) + ", " + name_of(access.thread) +
       (access.is_write ? " writes " : " reads ") + what + " (" + place_of(access.code) + ")");
}

[[noreturn]] void stop_at_race(const Access& access, bool is_shared, const char* verb,
                               std::uint16_t thread, std::uint32_t code) {
  in_kernel = false;
  stop_at(access, std::string(is_shared ? "shared" : "device") + " memory that " + name_of(thread) +
                      " " + verb + " (" + place_of(code) +
                      ") with nothing between that orders the two");
}

// Whether the current access comes after one in an earlier interval.
bool is_ordered(std::uint32_t when) {
  if (when >= block_first) return true;
  if (when >= task_first) {
    const auto block =
        std::prev(std::upper_bound(blocks.begin(), blocks.end(), std::pair{when, ~0u}));
    const auto other = acquired.find(block->second);
    return other != acquired.end() && when <= other->second;
  }
  if (comes_after_all) return true;
  // The latest answer, which holds for all intervals of a task.
  static std::uint32_t asked_in = 0;
  static std::uint32_t first = 0;
  static std::uint32_t end = 0;
  static bool answer = true;
  if (asked_in == task_first && first <= when && when < end) return answer;
  const auto next =
      std::upper_bound(tasks.begin(), tasks.end(), when,
                       [](std::uint32_t w, const Past& past) { return w < past.first; });
  if (next == tasks.begin()) return true;
  const Past& past = *std::prev(next);
  const auto chain = task_clock.find(past.chain);
  asked_in = task_first;
  first = past.first;
  end = next->first;  // there is one: the current task
  answer = chain != task_clock.end() && chain->second >= past.number;
  return answer;
}

void check_after_write(const Unit& unit, bool is_shared, const Access& access) {
  if (unit.copier != 0) {
    stop_at(access, "what a copy of thread " + std::to_string(unit.copier - 1) +
                        " may be writing (" + place_of(unit.written_at) + ")");
  }
  const bool is_race = unit.written == interval ? unit.writer != access.thread
                                                : !is_shared && !is_ordered(unit.written);
  if (is_race) stop_at_race(access, is_shared, "wrote", unit.writer, unit.written_at);
}

void note_read(Unit& unit, bool is_shared, const Access& access) {
  // Copies and libraries may: they take the gaps between tensors along, and are timed with any
  // data.
  if (access.code != 0 && unit.written < (is_shared ? block_first : 1)) {
    stop_at(access, "what was never written");
  }
  check_after_write(unit, is_shared, access);
  if (!is_shared && !is_ordered(unit.read)) unit.read_elsewhere = unit.read;
  unit.reader = unit.read == interval && unit.reader != access.thread ? several : access.thread;
  unit.read = interval;
  unit.read_at = access.code;
}

void note_write(Unit& unit, bool is_shared, const Access& access) {
  check_after_write(unit, is_shared, access);
  const bool is_race =
      unit.read == interval ? unit.reader != access.thread : !is_shared && !is_ordered(unit.read);
  if (is_race) stop_at_race(access, is_shared, "read", unit.reader, unit.read_at);
  if (!is_shared && !is_ordered(unit.read_elsewhere)) {
    stop_at(access,
            "device memory that another block or task reads, with nothing that orders the two");
  }
  unit.written = interval;
  unit.writer = access.thread;
  unit.written_at = access.code;
}

// Empty if not all of it is in one allocation or shared array.
std::span<Unit> find(const void* memory, std::size_t count, bool& is_shared) {
  const auto at = reinterpret_cast<std::uintptr_t>(memory);
  const auto in = [&](const Region& region) -> std::span<Unit> {
    const std::size_t begin = at - region.begin;
    if (begin + count > region.size) return {};
    return region.watch->at(begin, count);
  };
  is_shared = true;
  for (const Region& region : shared) {
    if (region.has(at)) return in(region);
  }
  is_shared = false;
  static Region latest[8];
  static unsigned next = 0;
  static std::size_t changes = 0;  // of allocations
  if (changes != allocation_changes()) {
    std::fill(std::begin(latest), std::end(latest), Region{});
    changes = allocation_changes();
  }
  for (const Region& region : latest) {
    if (region.has(at)) return in(region);
  }
  const Allocation allocation = allocation_of(memory);
  if (allocation.watch == nullptr) return {};
  Region& region = latest[next++ % std::size(latest)];
  region = {reinterpret_cast<std::uintptr_t>(allocation.memory), allocation.size, allocation.watch};
  return in(region);
}

void access(const void* memory, std::size_t count, const Access& access) {
  bool is_shared = false;
  const std::span<Unit> units = find(memory, count, is_shared);
  if (units.empty()) {
    if (!access.is_write && is_constant(memory)) return;
    stop_at(access, "outside of device and shared memory");
  }
  const auto note = access.is_write ? note_write : note_read;
  Unit before = units[0];
  note(units[0], is_shared, access);
  for (std::size_t i = 1; i < units.size(); ++i) {
    if (units[i] == before) {  // nearly always: what holds for one holds for the other
      units[i] = units[i - 1];
    } else {
      before = units[i];
      note(units[i], is_shared, access);
    }
  }
}

Access by_current_thread(bool is_write, const void* code) {
  const unsigned thread = in_kernel ? current_thread() : 0;
  return {is_write, static_cast<std::uint16_t>(thread), code};
}

void load_or_store(const void* memory, std::size_t count, bool is_write, const void* code) {
  if (in_kernel && !is_on_stack(memory)) access(memory, count, by_current_thread(is_write, code));
}

}  // namespace

std::shared_ptr<Watch> watch(std::size_t size) {
  return accesses_are_watched ? std::make_shared<Watch>(size) : nullptr;
}

void merge(Clock& clock, const Clock& other) {
  for (const auto& [chain, number] : other) clock[chain] = std::max(clock[chain], number);
}

void task_begins(int chain, Clock& clock) {
  if (!accesses_are_watched) return;
  clock[chain] = ++chain_lengths[chain];
  task_clock = clock;
  task_first = block_first = ++interval;
  tasks.push_back({interval, chain, clock[chain]});
  std::size_t before = 0;
  for (const auto& [other, number] : clock) before += number;
  comes_after_all = before == tasks.size();
  blocks.clear();
  shared.clear();
}

void kernel_begins(unsigned count) {
  if (!accesses_are_watched) return;
  threads = count;
  published.clear();
  in_kernel = true;
}

void block_begins(unsigned block) {
  if (!accesses_are_watched) return;
  block_first = ++interval;
  blocks.emplace_back(interval, block);
  seen.clear();
  acquired.clear();
  fenced = 0;
  fences = 0;
  fence_of.assign(threads, 0);
  shared.clear();
}

void shared_memory_begins(const void* memory, std::size_t count) {
  if (!accesses_are_watched) return;
  Watch& watch = shared_watches.try_emplace(memory, count).first->second;
  if (watch.size() < count) watch = Watch(count);
  shared.push_back({reinterpret_cast<std::uintptr_t>(memory), count, &watch});
}

void barrier_opens() {
  if (fences == threads) fenced = interval;
  fences = 0;
  ++interval;
}

void kernel_ends() {
  in_kernel = false;
}

void reads(const void* memory, std::size_t count, const void* code) {
  if (accesses_are_watched) access(memory, count, by_current_thread(false, code));
}

void writes(const void* memory, std::size_t count, const void* code) {
  if (accesses_are_watched) access(memory, count, by_current_thread(true, code));
}

void copy_begins(const void* to, std::size_t count, const void* code) {
  if (!accesses_are_watched) return;
  writes(to, count, code);
  bool is_shared = false;
  for (Unit& unit : find(to, count, is_shared)) {
    unit.copier = static_cast<std::uint16_t>(current_thread() + 1);
  }
}

void copy_ends(const void* to, std::size_t count, const void* code) {
  if (!accesses_are_watched) return;
  bool is_shared = false;
  for (Unit& unit : find(to, count, is_shared)) unit.copier = 0;
  writes(to, count, code);
}

void fence() {
  if (!accesses_are_watched) return;
  std::uint32_t& latest = fence_of[current_thread()];
  if (latest != interval) ++fences;
  latest = interval;
  acquired = seen;
}

void accesses_atomically(const void* counter, std::size_t count, const void* code) {
  if (!accesses_are_watched) return;
  // Either all threads had a fence and then a barrier, or a barrier and then this one a fence.
  const bool own = fence_of[current_thread()] == interval;
  Blocks& others = published[counter];
  for (const auto& [block, when] : others) seen[block] = std::max(seen[block], when);
  others = seen;
  others[blocks.back().second] = own ? interval - 1 : fenced;

  bool is_shared = false;
  const std::span<Unit> units = find(counter, count, is_shared);
  const Access access(true, atomic, code);
  if (units.empty()) stop_at(access, "outside of device and shared memory");
  for (Unit& unit : units) {
    if (unit.written == 0) stop_at(access, "what was never written");
    if (unit.writer != atomic) check_after_write(unit, is_shared, access);
    unit.written = interval;
    unit.writer = atomic;
    unit.written_at = access.code;
  }
}

}  // namespace emulation

// What g++ -fsanitize=thread calls before each load and store; the sanitizer's own library is not
// linked.
#define PREHEAT_LOAD_AND_STORE(kind, size)                                      \
  void __tsan_##kind##read##size(const void* memory) {                          \
    emulation::load_or_store(memory, size, false, __builtin_return_address(0)); \
  }                                                                             \
  void __tsan_##kind##write##size(const void* memory) {                         \
    emulation::load_or_store(memory, size, true, __builtin_return_address(0));  \
  }
extern "C" {
PREHEAT_LOAD_AND_STORE(, 1)
PREHEAT_LOAD_AND_STORE(, 2)
PREHEAT_LOAD_AND_STORE(, 4)
PREHEAT_LOAD_AND_STORE(, 8)
PREHEAT_LOAD_AND_STORE(, 16)
PREHEAT_LOAD_AND_STORE(unaligned_, 2)
PREHEAT_LOAD_AND_STORE(unaligned_, 4)
PREHEAT_LOAD_AND_STORE(unaligned_, 8)
PREHEAT_LOAD_AND_STORE(unaligned_, 16)
void __tsan_read_range(const void* memory, std::size_t count) {
  emulation::load_or_store(memory, count, false, __builtin_return_address(0));
}
void __tsan_write_range(const void* memory, std::size_t count) {
  emulation::load_or_store(memory, count, true, __builtin_return_address(0));
}
// The host's code in the same files counts references.
int __tsan_atomic32_fetch_add(int* at, int value, int) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_fetch_sub(int* at, int value, int) {
  return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_init() {}
}
