// Replicas on the CPU: what every backend guarantees, and what only the CPU does.
#include <dlfcn.h>
#include <execinfo.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <string_view>
#include <thread>

#include "backend/replica_promises.h"

// Counts the heap allocations of a step. Not with AddressSanitizer, which has its own malloc.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define PREHEAT_COUNTS_ALLOCATIONS
namespace {
constexpr std::size_t buffer_bytes = 4096;  // oneDNN's bookkeeping per call is far smaller
std::atomic<bool> counting{false};
std::atomic<int> buffers_allocated{0};
thread_local bool is_looking = false;
// Without AVX-512, oneDNN's matrix products allocate on their own while they run.
bool is_of_a_running_primitive() {
  void* calls[64];
  const int n = backtrace(calls, 64);
  return std::any_of(calls, calls + n, [](void* call) {
    Dl_info function{};
    return dladdr(call, &function) != 0 && function.dli_sname != nullptr &&
           std::string_view(function.dli_sname) == "dnnl_primitive_execute";
  });
}
void count(std::size_t bytes) {
  if (!counting || bytes < buffer_bytes || is_looking) return;
  is_looking = true;  // which allocates
  if (!is_of_a_running_primitive()) ++buffers_allocated;
  is_looking = false;
}
}  // namespace
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) {
  count(bytes);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t n, std::size_t bytes) {
  count(n * bytes);
  return __libc_calloc(n, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count(bytes);
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t bytes) {
  count(bytes);
  *p = __libc_memalign(alignment, bytes);
  return *p == nullptr ? ENOMEM : 0;
}
}
#endif

namespace preheat {
namespace {

constexpr Subject cpu{DeviceChoice::cpu, "fp32"};
INSTANTIATE_TEST_SUITE_P(Cpu, ReplicaTest, testing::Values(cpu));
INSTANTIATE_TEST_SUITE_P(Cpu, ReplicaBits, testing::Values(cpu));

class CpuReplica : public ReplicaFixture {
 protected:
  void SetUp() override { begin(cpu); }
};

// The number of threads of an update that a new thread makes, this one included.
int threads_of_an_update(const std::function<void()>& update) {
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return static_cast<int>(std::distance(begin(tasks), end(tasks)));
  };
  int started = 0;
  std::thread([&] {
    const int before = threads();
    update();
    started = threads() - before;  // OpenMP's workers stay, waiting for the next loop
  }).join();
  return 1 + started;
}

TEST_F(CpuReplica, AnUpdateHasAsManyThreadsAsAskedFor) {
  for (const int count : {1, 3}) {
    use(small, {fmt::format("train.cpu_threads={}", count)});
    ReplicaState in_another;
    const auto update = [&] {
      auto r = replica();
      r->set_epoch_order(order());
      r->train(1);
      in_another = r->save();
    };
    EXPECT_EQ(threads_of_an_update(update), count);
    auto here = replica();
    here->set_epoch_order(order());
    here->train(1);
    EXPECT_TRUE(same(here->save(), in_another));
  }
}

// With fewer than oneDNN plans for, the update would wait forever.
TEST_F(CpuReplica, AnUpdateHasItsThreadsWhereTheEnvironmentAllowsNone) {
  use(small, {"train.cpu_threads=2"});
  const auto update = [&] {
    omp_set_dynamic(1);
    omp_set_max_active_levels(0);
    auto r = replica();
    r->set_epoch_order(order());
    r->train(1);
    EXPECT_EQ(omp_get_max_active_levels(), 0);
    EXPECT_NE(omp_get_dynamic(), 0);
  };
  EXPECT_EQ(threads_of_an_update(update), 2);
}

TEST_F(CpuReplica, AsManyReplicasAtATimeAsThereAreThreadsFor) {
  const int all = omp_get_max_threads();
  if (omp_get_proc_bind() == omp_proc_bind_false) {
    EXPECT_EQ(backend_->concurrent_replicas(1), all);
    EXPECT_EQ(backend_->concurrent_replicas(2), std::max(1, all / 2));
  }
  EXPECT_EQ(backend_->concurrent_replicas(0), 1);
  EXPECT_EQ(backend_->concurrent_replicas(all), 1);
  EXPECT_EQ(backend_->concurrent_replicas(all + 1), 1);
}

// In arrays of the layer's output, from what the loops of a batch norm's gradient read and write.
TEST_F(CpuReplica, CountsTheBytesOfABatchNormsGradient) {
  use(R"(
data: {dataset: synthetic, batch_size: 8, train_limit: 80}
model:
  layers:
    - {name: first, conv: {out: 8, batch_norm: true, activation: relu}}
    - {name: stage, residual_stage: {blocks: 2, out: 8}}
    - global_avg_pool
    - linear: {out: 10}
)");
  auto r = replica();
  r->set_epoch_order(order());
  std::map<std::string, double> arrays;
  for (const StepPart& part : r->time_parts(2)) {
    const auto op = std::ranges::find(network_.ops, part.layer, &Op::name);
    if (part.work != "batch norm's gradient") continue;
    ASSERT_NE(op, network_.ops.end()) << part.layer;
    arrays[part.layer] =
        part.cost.bytes / (sizeof(float) * 8.0 * static_cast<double>(op->out.size()));
  }
  // x, y and dy in, dz out; x and dz in, dx out. A second reader of the output has a dy of its own.
  EXPECT_THAT(arrays,
              testing::UnorderedElementsAre(
                  testing::Pair("first", 8), testing::Pair("stage.block0.first", 7),
                  testing::Pair("stage.block0.second", 8),  // with a residual
                  testing::Pair("stage.block1.first", 7), testing::Pair("stage.block1.second", 7)));
}

TEST_F(CpuReplica, UpdatesWhosePartsAreTimedHaveTheSameBits) {
  auto plain = replica();
  auto timed = replica();
  for (auto* r : {&plain, &timed}) (*r)->set_epoch_order(order());
  plain->train(4);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<StepPart> parts = timed->time_parts(4);
  const std::chrono::duration<double, std::micro> all = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(same(timed->save(), plain->save()));
  EXPECT_EQ(timed->drain().size(), 4u);
  double convolutions = 0;
  double microseconds = 0;
  std::vector<std::string> passes;
  for (const StepPart& part : parts) {
    EXPECT_GT(part.cost.bytes, 0) << part.work;
    EXPECT_GT(part.microseconds, 0) << part.work;
    microseconds += part.microseconds;
    if (part.work == "convolution") convolutions += part.cost.operations;
    if (passes.empty() || passes.back() != part.pass) passes.push_back(part.pass);
  }
  EXPECT_LT(microseconds, all.count());
  EXPECT_THAT(passes, testing::ElementsAre("forward", "backward", "update"));
  // By hand: images are 16 x 16 x 1, 8 x 8 after the pooling and 4 x 4 after the block's stride;
  // the block has a 1x1 projection because its shape changes.
  const double per_image =
      16 * 16 * 9 * 1 * 8 + 4 * 4 * (9 * 8 * 12 + 9 * 12 * 12 + 8 * 12) + 4 * 4 * 9 * 12 * 6;
  EXPECT_EQ(convolutions, 2 * static_cast<double>(config_.data.batch_size) * per_image);
}

TEST_F(CpuReplica, MoreMemoryThanThereIsIsRefusedBeforeItIsTouched) {
  use(R"(
data: {dataset: synthetic}
model: {layers: [conv: {out: 65536}, global_avg_pool, linear: {out: 10}]}
)");
  config_.data.batch_size = 1 << 20;  // 64 TiB of the convolution's output alone
  try {
    replica();
    FAIL() << "was compiled";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("out of memory"));
    EXPECT_THAT(e.what(), HasSubstr("batch_size"));
  }
}

#ifdef PREHEAT_COUNTS_ALLOCATIONS
TEST_F(CpuReplica, AStepAllocatesNoBuffers) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(2);  // the library sets up its state per thread
  r->drain();
  r->train(1);
  counting = true;
  buffers_allocated = 0;
  r->train(5);
  counting = false;
  EXPECT_EQ(buffers_allocated, 0);
  counting = true;
  std::free(std::malloc(buffer_bytes));
  counting = false;
  EXPECT_EQ(buffers_allocated, 1) << "the count itself does not work";
}
#endif

}  // namespace
}  // namespace preheat
