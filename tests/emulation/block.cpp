// Runs the blocks of a launch, one after the other in a random order. Every thread of a block that
// has to wait keeps its own stack: a thread runs until it waits, then another one continues, chosen
// at random. Code that is correct under CUDA is correct in any order.
#include <array>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "emulation/accesses.h"
#include "emulation/device_code.h"
#include "emulation/memory.h"
#include "emulation/order.h"

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

// Saves the callee-saved registers and continues where the other stack left off.
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.globl emulation_switch
emulation_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

// Of the linker: what lies between them is code and constants.
extern "C" const char __executable_start;
extern "C" const char __data_start;

namespace emulation {

Position here;

namespace {

constexpr unsigned warp_size = 32;
constexpr std::size_t stack_bytes = std::size_t{128} << 10;
constexpr std::size_t static_shared_limit = std::size_t{48} << 10;
constexpr std::size_t dynamic_shared_limit = std::size_t{227} << 10;
constexpr std::size_t shared_guard = 512;

struct Stack {
  void* pointer = nullptr;
  std::unique_ptr<std::byte[]> memory{new std::byte[stack_bytes]};
};

struct Copy {
  unsigned to;
  const void* from;
  unsigned size;
  unsigned read;
  const void* code;  // that began it
  bool arrived;
};

struct Thread {
  uint3 index{};
  Stack* stack = nullptr;
  std::vector<Copy> open;                 // the group that is not committed yet
  std::vector<std::vector<Copy>> groups;  // committed, but not waited for yet
};

// The operands of one lane in an instruction of its warp.
struct Operands {
  std::uint64_t bits;
  unsigned address;
  unsigned* results[4];
  float* sums[4];
  unsigned a[4];
  unsigned b[2];
  const void* code;
};

struct Warp {
  unsigned arrived = 0;  // a bit for each lane
  unsigned mask = 0;
  // Even and odd rounds alternate: a lane may be one round ahead of lanes that still read.
  unsigned round = 0;
  Site site{};
  std::array<std::array<Operands, warp_size>, 2> operands{};
};

struct Shared {
  const std::byte* memory;
  std::size_t size;
};

// The block that is running.
const Launch* launch = nullptr;
std::vector<void*> arguments;
std::vector<Thread> threads;
std::vector<unsigned> order;  // in which the threads begin
std::size_t begun = 0;
std::size_t ended = 0;
unsigned current = 0;
std::vector<unsigned> ready;  // threads whose wait is over
std::vector<Warp> warps;
std::vector<Shared> shared;
std::size_t static_shared_bytes = 0;

// The barrier of the block.
std::vector<unsigned> waiting;
Site barrier_site;
bool all_so_far = true;
bool all_at_last = true;

std::vector<std::unique_ptr<Stack>> stacks;
std::vector<Stack*> idle;
void* scheduler = nullptr;

alignas(1024) std::byte dynamic_space[dynamic_shared_limit + shared_guard];

std::string place(const Site& site) {
  return std::string(site.file_name()) + ":" + std::to_string(site.line());
}

[[noreturn]] void stop_here(const std::string& what) {
  stop(what + " (block " + std::to_string(here.block.x) + ", " + std::to_string(here.block.y) +
       ", thread " + std::to_string(current) + ")");
}

void leave() {
  emulation_switch(&threads[current].stack->pointer, scheduler);
  here.thread = threads[current].index;
}

void open_barrier() {
  all_at_last = all_so_far;
  all_so_far = true;
  barrier_opens();
  ready.insert(ready.end(), waiting.begin(), waiting.end());
  waiting.clear();
}

void end_thread() {
  Thread& thread = threads[current];
  for (const auto& group : thread.groups) {
    if (!group.empty()) stop_here("a thread ends before copies that it began");
  }
  thread.groups.clear();
  if (!thread.open.empty()) stop_here("a thread ends before copies that it began");
  ++ended;
  // Threads that have ended are not waited for.
  if (!waiting.empty() && waiting.size() + ended == threads.size()) open_barrier();
}

// Runs on every stack: begins the next thread as long as there is one.
void run_threads() {
  while (true) {
    Stack* const mine = idle.back();
    idle.pop_back();
    while (begun < order.size()) {
      current = order[begun++];
      threads[current].stack = mine;
      here.thread = threads[current].index;
      launch->call(launch->kernel, arguments.data());
      end_thread();
    }
    idle.push_back(mine);
    emulation_switch(&mine->pointer, scheduler);
  }
}

void prepare(Stack& stack) {
  auto top =
      reinterpret_cast<std::uintptr_t>(stack.memory.get() + stack_bytes) & ~std::uintptr_t{15};
  auto* const entry = reinterpret_cast<void**>(top - 16);
  *entry = reinterpret_cast<void*>(&run_threads);
  stack.pointer = entry - 6;  // registers, whose values do not matter
}

[[noreturn]] void stop_waiting() {
  std::string what = "the threads of a block wait for each other";
  if (!waiting.empty()) {
    what += ": " + std::to_string(waiting.size()) + " of " +
            std::to_string(threads.size() - ended) + " at the barrier in " + place(barrier_site);
  }
  for (const Warp& warp : warps) {
    if (warp.arrived == 0) continue;
    what += "; part of a warp at " + place(warp.site);
    break;
  }
  stop_here(what);
}

// Once for all blocks of a launch.
void prepare_threads() {
  const dim3& size = launch->block;
  const unsigned count = size.x * size.y * size.z;
  threads.resize(count);
  order.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    threads[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    order[i] = i;
  }
  put_in_any_order(order);
  warps.resize((count + warp_size - 1) / warp_size);
}

void run_block() {
  begun = ended = 0;
  shared.clear();
  static_shared_bytes = 0;
  if (launch->shared_bytes > 0) {
    shared.push_back({dynamic_space, launch->shared_bytes});
    shared_memory_begins(dynamic_space, launch->shared_bytes);
    std::memset(dynamic_space, 0xff, launch->shared_bytes + shared_guard);
  }
  while (ended < threads.size()) {
    if (begun == threads.size() && ready.empty()) stop_waiting();
    if (ready.empty()) {
      if (idle.empty()) {
        idle.push_back(stacks.emplace_back(std::make_unique<Stack>()).get());
        prepare(*idle.back());
      }
      emulation_switch(&scheduler, idle.back()->pointer);
    } else {
      const std::size_t next = any_below(ready.size());
      current = ready[next];
      ready[next] = ready.back();
      ready.pop_back();
      emulation_switch(&scheduler, threads[current].stack->pointer);
    }
  }
  const std::byte* const end = dynamic_space + launch->shared_bytes;
  for (std::size_t i = 0; i < shared_guard && launch->shared_bytes > 0; ++i) {
    if (end[i] != std::byte{0xff}) stop_here("shared memory was written behind its end");
  }
}

// Waits for the other lanes. True in the last lane to arrive, which executes the instruction for
// all of them and then calls go_on().
bool meet(unsigned mask, const Operands& mine, Site site) {
  Warp& warp = warps[current / warp_size];
  const unsigned lane = current % warp_size;
  const unsigned first = current / warp_size * warp_size;
  const auto there =
      static_cast<unsigned>(std::min<std::size_t>(threads.size() - first, warp_size));
  if (there < warp_size) mask &= (1u << there) - 1;
  if ((mask >> lane & 1) == 0) stop_here("a lane is not in the mask that it gives, " + place(site));
  if (warp.arrived != 0) {
    if (warp.mask != mask || warp.site.line() != site.line()) {
      stop_here("the lanes of a warp are at different instructions: " + place(warp.site) + " and " +
                place(site));
    }
  }
  warp.mask = mask;
  warp.site = site;
  warp.arrived |= 1u << lane;
  warp.operands[warp.round % 2][lane] = mine;
  if (warp.arrived == mask) return true;
  leave();
  return false;
}

void go_on() {
  Warp& warp = warps[current / warp_size];
  const unsigned first = current / warp_size * warp_size;
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    if ((warp.arrived >> lane & 1) != 0 && first + lane != current) ready.push_back(first + lane);
  }
  warp.arrived = 0;
  ++warp.round;
}

std::byte* at_shared(unsigned address, unsigned size) {
  std::byte* const memory = dynamic_space + static_cast<std::int32_t>(address);
  for (const Shared& s : shared) {
    if (memory >= s.memory && memory + size <= s.memory + s.size) {
      if (address % size != 0) stop_here("a shared address is not aligned");
      return memory;
    }
  }
  stop_here("an address is not of shared memory");
}

void perform(const Copy& copy) {
  std::byte* const to = at_shared(copy.to, copy.size);
  std::memset(to, 0, copy.size);
  std::memcpy(to, copy.from, copy.read);
}

void wait_for(const Copy& copy) {
  if (!copy.arrived) perform(copy);
  copy_ends(at_shared(copy.to, copy.size), copy.size, copy.code);
}

float value_of(bool bf16, unsigned bits) {
  const auto half = static_cast<std::uint16_t>(bits);
  return bf16 ? std::bit_cast<float>(unsigned{half} << 16)
              : __half2float(std::bit_cast<__half_raw>(half));
}

}  // namespace

unsigned current_thread() {
  return current;
}

bool is_on_stack(const void* memory) {
  const std::byte* const stack = threads[current].stack->memory.get();
  return memory >= stack && memory < stack + stack_bytes;
}

bool is_constant(const void* memory) {
  const auto in = [memory](const void* from, std::size_t size) {
    return memory >= from && memory < static_cast<const std::byte*>(from) + size;
  };
  if (in(&here, sizeof here) || in(arguments.data(), arguments.size() * sizeof arguments[0])) {
    return true;
  }
  for (std::size_t i = 0; i < launch->arguments.size(); ++i) {
    if (in(launch->arguments[i].get(), launch->sizes[i])) return true;
  }
  return memory >= &__executable_start && memory < &__data_start;
}

void run(const Launch& work) {
  launch = &work;
  here.block_size = work.block;
  here.grid_size = work.grid;
  arguments.clear();
  for (const auto& argument : work.arguments) arguments.push_back(argument.get());
  prepare_threads();
  kernel_begins(static_cast<unsigned>(threads.size()));
  const dim3& grid = work.grid;
  std::vector<unsigned> blocks(std::size_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  put_in_any_order(blocks);
  for (const unsigned i : blocks) {
    here.block = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    block_begins(i);
    run_block();
  }
  kernel_ends();
}

bool barrier(bool all, Site site) {
  if (waiting.empty()) {
    barrier_site = site;
  } else if (barrier_site.line() != site.line()) {
    stop_here("threads are at different barriers: " + place(barrier_site) + " and " + place(site));
  }
  all_so_far = all_so_far && all;
  if (waiting.size() + ended + 1 == threads.size()) {
    open_barrier();
    return all_at_last;
  }
  waiting.push_back(current);
  leave();
  return all_at_last;
}

std::uint64_t shuffle(unsigned mask, std::uint64_t bits, unsigned from, Site site) {
  Operands mine{};
  mine.bits = bits;
  const unsigned round = warps[current / warp_size].round;
  if (meet(mask, mine, site)) go_on();
  const Warp& warp = warps[current / warp_size];
  // The value of a lane that does not take part is undefined.
  if ((warp.mask >> from & 1) == 0) return ~bits;
  return warp.operands[round % 2][from].bits;
}

void bound_threads(unsigned most) {
  const dim3& size = here.block_size;
  if (size.x * size.y * size.z > most) stop_here("more threads than the kernel's launch bounds");
}

void declare_shared(void* memory, std::size_t size) {
  for (const Shared& s : shared) {
    if (s.memory == memory) return;
  }
  shared.push_back({static_cast<std::byte*>(memory), size});
  static_shared_bytes += size;
  if (static_shared_bytes > static_shared_limit ||
      static_shared_bytes + launch->shared_bytes > launch->shared_limit) {
    stop_here("more shared memory than a block may have");
  }
  shared_memory_begins(memory, size);
  std::memset(memory, 0xff, size);
}

void* dynamic_shared_memory() {
  return dynamic_space;
}

unsigned shared_address(const void* memory) {
  return static_cast<unsigned>(static_cast<const std::byte*>(memory) - dynamic_space);
}

void copy_async(unsigned to, const void* from, unsigned size, unsigned read) {
  at_shared(to, size);
  if (read > size) stop_here("a copy reads more than it writes");
  if (reinterpret_cast<std::uintptr_t>(from) % size != 0)
    stop_here("a copy's source is not aligned");
  if (read > 0 && !is_device_memory(from, read)) stop_here("a copy's source is no device memory");
  const void* const code = __builtin_return_address(0);
  const Copy copy{to, from, size, read, code, any_below(2) == 0};
  if (read > 0) reads(from, read, code);
  copy_begins(at_shared(to, size), size, code);
  if (copy.arrived) perform(copy);
  threads[current].open.push_back(copy);
}

void commit_copies() {
  Thread& thread = threads[current];
  thread.groups.push_back(std::move(thread.open));
  thread.open.clear();
}

void wait_for_copies(int groups) {
  auto& begun_here = threads[current].groups;
  while (begun_here.size() > static_cast<std::size_t>(groups)) {
    for (const Copy& copy : begun_here.front()) wait_for(copy);
    begun_here.erase(begun_here.begin());
  }
}

void load_matrices(bool transposed, unsigned* const (&results)[4], unsigned address, Site site) {
  Operands mine{};
  mine.address = address;
  mine.code = __builtin_return_address(0);
  std::copy_n(results, 4, mine.results);
  const unsigned round = warps[current / warp_size].round;
  if (!meet(0xffffffffu, mine, site)) return;
  const auto& lanes = warps[current / warp_size].operands[round % 2];
  for (unsigned quarter = 0; quarter < 4; ++quarter) {
    std::uint16_t matrix[8][8];
    for (unsigned row = 0; row < 8; ++row) {
      const Operands& lane = lanes[8 * quarter + row];
      const std::byte* const from = at_shared(lane.address, 16);
      reads(from, 16, lane.code);
      std::memcpy(matrix[row], from, 16);
    }
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      const unsigned line = lane / 4;
      const unsigned pair = lane % 4 * 2;
      const unsigned lower = transposed ? matrix[pair][line] : matrix[line][pair];
      const unsigned upper = transposed ? matrix[pair + 1][line] : matrix[line][pair + 1];
      *lanes[lane].results[quarter] = lower | upper << 16;
    }
  }
  go_on();
}

// The layouts are from the PTX manual's section on mma.m16n8k16.
void multiply_matrices(bool bf16, float* const (&sums)[4], const unsigned (&a)[4],
                       const unsigned (&b)[2], Site site) {
  Operands mine{};
  std::copy_n(sums, 4, mine.sums);
  std::copy_n(a, 4, mine.a);
  std::copy_n(b, 2, mine.b);
  const unsigned round = warps[current / warp_size].round;
  if (!meet(0xffffffffu, mine, site)) return;
  const auto& lanes = warps[current / warp_size].operands[round % 2];
  float left[16][16];
  float right[16][8];
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    const unsigned group = lane / 4;
    const unsigned pair = lane % 4 * 2;
    for (unsigned i = 0; i < 8; ++i) {
      const unsigned row = group + (i / 2 % 2 == 0 ? 0 : 8);
      const unsigned column = pair + i % 2 + (i < 4 ? 0 : 8);
      left[row][column] = value_of(bf16, lanes[lane].a[i / 2] >> i % 2 * 16);
    }
    for (unsigned i = 0; i < 4; ++i) {
      right[pair + i % 2 + i / 2 * 8][group] = value_of(bf16, lanes[lane].b[i / 2] >> i % 2 * 16);
    }
  }
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + i / 2 * 8;
      const unsigned column = lane % 4 * 2 + i % 2;
      double sum = double{*lanes[lane].sums[i]};
      for (unsigned k = 0; k < 16; ++k) sum += double{left[row][k]} * double{right[k][column]};
      *lanes[lane].sums[i] = static_cast<float>(sum);
    }
  }
  go_on();
}

}  // namespace emulation
