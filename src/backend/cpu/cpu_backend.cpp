#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <utility>

#include <oneapi/dnnl/dnnl.hpp>

#include "backend/cpu/available_memory.h"
#include "backend/cpu/benches.h"
#include "backend/cpu/dataset.h"
#include "backend/cpu/probe.h"
#include "backend/cpu/program.h"
#include "backend/cpu/replica.h"
#include "backend/cpu/thread_count.h"
#include "backend/memory_check.h"

namespace preheat {
namespace {

std::string processor() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const auto colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "CPU";
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads) : threads_(threads), benches_(threads) {}
  std::string name() const override { return "cpu"; }
  std::string device() const override {
    return fmt::format("{}, {} threads", processor(), threads_);
  }
  std::string library() const override {
    const dnnl_version_t* v = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", v->major, v->minor, v->patch);
  }
  bool computes_in(Precision precision) const override { return precision == Precision::fp32; }
  // With threads bound to cores by the environment, all replicas would share the same cores.
  int concurrent_replicas(int cpu_threads) const override {
    const bool tied = omp_get_proc_bind() != omp_proc_bind_false;
    return tied ? 1 : std::max(1, threads_ / threads_of(cpu_threads));
  }
  std::shared_ptr<ResidentDataset> load(const Dataset& dataset) override {
    return std::make_shared<cpu::CpuDataset>(dataset);
  }
  void require_memory(const Network& network, const ReplicaOptions& options) const override {
    require_free(network, options.passes() > 1 ? arenas + 1 : arenas, options.examples_per_pass(),
                 smaller_passes);
  }
  void require_memory(const Network& network, std::int64_t examples) const override {
    require_free(network, arenas, examples, smaller_passes);
  }
  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    const std::lock_guard lock(taking_memory_);
    require_memory(network, options);
    const int threads = threads_of(options.cpu_threads);
    const cpu::ThreadCount count(threads);
    return std::make_unique<cpu::CpuReplica>(network, options, threads, initial, std::move(train));
  }
  std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                               std::shared_ptr<const ResidentDataset> data,
                               std::int64_t examples) override {
    examples = std::min(examples, data->size());
    const std::lock_guard lock(taking_memory_);
    require_free(network, arenas, examples, fewer_examples);
    const int threads = threads_of(options.cpu_threads);
    const cpu::ThreadCount count(threads);
    return std::make_unique<cpu::CpuProbe>(network, options, threads, std::move(data), examples);
  }
  Benches& benches() override { return benches_; }

 private:
  // Weights, gradients, velocity; initial or packed weights.
  static constexpr std::size_t arenas = 4;

  // Linux overcommits memory and kills processes later, so check first.
  static void require_free(const Network& network, std::size_t count, std::int64_t examples,
                           const char* remedy) {
    const std::size_t parameters = count * network.arena_size * sizeof(float);
    const std::size_t activations = cpu::Program::bytes_needed(network, examples);
    check_memory("memory", parameters, activations, cpu::available_memory(), remedy);
  }

  int threads_of(int cpu_threads) const { return cpu::threads_of(cpu_threads, threads_); }

  const int threads_;
  cpu::CpuBenches benches_;
  // Held until a replica has written to all of its memory: what is free then is free for the next.
  std::mutex taking_memory_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend() {
  return std::make_unique<CpuBackend>(std::min(omp_get_max_threads(), omp_get_thread_limit()));
}

}  // namespace preheat
