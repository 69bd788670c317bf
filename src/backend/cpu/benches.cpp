#include "backend/cpu/benches.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "backend/cpu/available_memory.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_count.h"
#include "backend/spread.h"
#include "backend/step_parts.h"
#include "backend/update_check.h"
#include "config/clock.h"
#include "optim/step_state.h"

namespace preheat::cpu {
namespace {

struct Variant {
  std::string name;
  double bytes = 20;  // per float: w, v and g in, w and v out
  std::function<void()> step;
  SgdMomentum rule{};
  double bound = 0;
  bool is_ceiling = false;
};

// The traffic of an update with next to no arithmetic; the values stay as small as they are.
void move_and_add(std::int64_t size, float* __restrict w, float* __restrict v,
                  const float* __restrict g) {
#pragma omp parallel for simd schedule(static)
  for (std::int64_t i = 0; i < size; ++i) {
    const float old = w[i];
    w[i] = v[i];
    v[i] = 0.5f * old + g[i];
  }
}

// Linux overcommits memory and kills processes later, so check first.
UpdateLayout layout_that_fits(const UpdateSet& set) {
  UpdateLayout layout(set);
  const std::size_t bytes = 3 * sizeof(float) * static_cast<std::size_t>(layout.size);
  const std::size_t available = cpu::available_memory();
  if (bytes <= available) return layout;
  throw OutOfMemory(
      fmt::format("out of memory: the arrays of {} need {} MiB; {} MiB are free; use "
                  "fewer parameters",
                  set.name, bytes >> 20, available >> 20));
}

// The arenas of a set and the division of their update into blocks.
struct Arenas {
  explicit Arenas(const UpdateSet& set)
      : layout(layout_that_fits(set)),
        weights(layout.size),
        velocity(layout.size),
        gradients(layout.size) {
    for (std::size_t t = 0; t < set.tensors.size(); ++t) {
      add_update_blocks(layout.offsets[t], set.tensors[t], 1, bench_decay, blocks);
      ends.push_back(blocks.size());
    }
    partial.resize(blocks.size());
  }

  void fill(const UpdatePattern& pattern) {
    const auto copy = [&](const std::vector<float>& from, Buffer<float>& to) {
#pragma omp parallel for schedule(static)
      for (std::int64_t i = 0; i < layout.size; ++i) {
        to.data()[i] = from[i % update_pattern_size];
      }
    };
    copy(pattern.weights, weights);
    copy(pattern.velocity, velocity);
    copy(pattern.gradients, gradients);
  }

  void update(const SgdMomentum& rule, std::size_t first, std::size_t end, bool norms = true) {
    cpu::update(rule, update_scalars(rule, bench_rate, 0, 0, 0),
                std::span(blocks).subspan(first, end - first), gradients.data(), weights.data(),
                velocity.data(), norms ? partial.data() : nullptr);
  }
  void update(const SgdMomentum& rule) {
    update(rule, 0, blocks.size());
  }

  const UpdateLayout layout;
  Buffer<float> weights, velocity, gradients;
  std::vector<UpdateBlock> blocks;
  std::vector<std::size_t> ends;  // of the blocks of each tensor
  std::vector<UpdateNorms> partial;
};

class Bench {
 public:
  Bench(const UpdateSet& set, const UpdatePattern& pattern, bool quick)
      : set_(set),
        pattern_(pattern),
        a_(set),
        rounds_(quick ? 5 : 31),
        steps_(std::clamp<std::int64_t>((1 << 21) / a_.layout.size, 1, 16)) {}

  std::vector<UpdateTiming> run(const BetweenRounds& between_rounds) {
    const std::vector<Variant> variants = make_variants();
    for (const Variant& v : variants) {
      between_rounds();
      verify(v);
    }
    a_.fill(pattern_);
    std::vector<std::function<void()>> steps;
    for (const Variant& v : variants) steps.push_back(v.step);
    const auto times = time_in_turns(steps, rounds_, steps_, between_rounds);
    const double bytes_of_copy = variants[0].bytes * static_cast<double>(a_.layout.size);
    std::vector<UpdateTiming> rows;
    for (std::size_t i = 0; i < variants.size(); ++i) {
      const Variant& v = variants[i];
      UpdateTiming t;
      t.set = set_.name;
      t.variant = v.name;
      t.way = v.is_ceiling ? SubmitMode::ceiling : SubmitMode::calls;
      t.parameters = set_.parameters();
      t.tensors = static_cast<std::int64_t>(set_.tensors.size());
      // A ceiling moves the padding too; an update only needs to move its parameters.
      t.bytes = v.bytes * static_cast<double>(v.is_ceiling ? a_.layout.size : t.parameters);
      t.microseconds = spread_of(times[i]);
      t.gigabytes = t.bytes / (1e3 * t.microseconds.median);
      t.share_of_copy = share(times[0], times[i]) * t.bytes / bytes_of_copy;
      t.share_of_traffic = share(times[1], times[i]);
      rows.push_back(std::move(t));
    }
    return rows;
  }

 private:
  static double share(const std::vector<double>& ceiling_times, const std::vector<double>& times) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < times.size(); ++i) ratios.push_back(ceiling_times[i] / times[i]);
    return spread_of(std::move(ratios)).median;
  }

  void verify(const Variant& v) {
    if (v.is_ceiling) return;
    a_.fill(pattern_);
    v.step();
    const auto read = [](const Buffer<float>& from) {
      return [&from](std::int64_t first, std::int64_t count) {
        return std::vector<float>(from.data() + first, from.data() + first + count);
      };
    };
    check_update({v.name, v.rule, v.bound, false}, set_, a_.layout, pattern_, read(a_.weights),
                 read(a_.velocity));
  }

  Variant fused(const std::string& name, const SgdMomentum& rule) {
    return {name, 20, [this, rule] { a_.update(rule); }, rule};
  }

  std::vector<Variant> make_variants() {
    std::vector<Variant> all;
    float* __restrict const w = a_.weights.data();
    float* __restrict const v = a_.velocity.data();
    float* __restrict const g = a_.gradients.data();
    const std::int64_t size = a_.layout.size;
    all.push_back({"copy", 8, [=] {
#pragma omp parallel for simd schedule(static)
                     for (std::int64_t i = 0; i < size; ++i) w[i] = v[i];
                   }});
    all.push_back({"read 3, write 2", 20, [=] { move_and_add(size, w, v, g); }});
    all[0].is_ceiling = all[1].is_ceiling = true;
    all.push_back(fused("fused", {}));
    all.push_back({"fused, no norms", 20, [this] { a_.update({}, 0, a_.blocks.size(), false); }});
    SgdMomentum rule;
    rule.nesterov = true;
    all.push_back(fused("fused, nesterov", rule));
    rule = {};
    rule.folded = true;
    all.push_back(fused("fused, folded", rule));
    all.push_back({"fused, clipped", 24, [this] {
                     squared_norm(a_.blocks, a_.gradients.data(), a_.partial.data());
                     a_.update({});
                   }});
    if (set_.tensors.size() > 1) {
      all.push_back({"per_tensor", 20, [this] {
                       std::size_t first = 0;
                       for (const std::size_t end : a_.ends) {
                         a_.update({}, first, end);
                         first = end;
                       }
                     }});
    }
    // Every pass rounds where the fused update rounds once.
    constexpr double separate_rounding_bound = 1e-6;
    all.push_back({"three_pass",
                   36,
                   [=, this] {
                     for (std::size_t t = 0; t < set_.tensors.size(); ++t) {
                       const std::int64_t begin = a_.layout.offsets[t];
                       const std::int64_t end = begin + set_.tensors[t];
#pragma omp parallel for simd schedule(static)
                       for (std::int64_t i = begin; i < end; ++i) g[i] += bench_decay * w[i];
#pragma omp parallel for simd schedule(static)
                       for (std::int64_t i = begin; i < end; ++i) v[i] = 0.9f * v[i] + g[i];
#pragma omp parallel for simd schedule(static)
                       for (std::int64_t i = begin; i < end; ++i) w[i] -= bench_rate * v[i];
                     }
                   },
                   {},
                   separate_rounding_bound});
    return all;
  }

  const UpdateSet& set_;
  const UpdatePattern& pattern_;
  Arenas a_;
  const int rounds_;
  const std::int64_t steps_;
};

}  // namespace

std::vector<std::vector<double>> time_in_turns(const std::vector<std::function<void()>>& works,
                                               int rounds, std::int64_t calls,
                                               const BetweenRounds& between_rounds) {
  std::vector<std::vector<double>> times(works.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < works.size(); ++i) {
      between_rounds();
      const auto start = Clock::now();
      for (std::int64_t k = 0; k < calls; ++k) works[i]();
      times[i].push_back(1e6 * seconds_since(start) / static_cast<double>(calls));
    }
  }
  return times;
}

Condition CpuBenches::condition() const {
  Condition condition;
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  condition.text = fmt::format("load {:.2f} over the last minute, on {} processors", load,
                               sysconf(_SC_NPROCESSORS_ONLN));
  // Takes the fastest processor: idle ones may be asleep.
  double fastest = 0;
  std::ifstream processors("/proc/cpuinfo");
  for (std::string line; std::getline(processors, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with("cpu MHz") || colon == std::string::npos) continue;
    fastest = std::max(fastest, std::strtod(line.c_str() + colon + 1, nullptr));
  }
  if (fastest > 0) {
    condition.text += fmt::format(", the fastest at {:.0f} MHz", fastest);
    condition.clocks.emplace_back("processor", fastest);
  }
  return condition;
}

// Three arrays, and the same again for everything else.
std::int64_t CpuBenches::max_update_floats() const {
  return static_cast<std::int64_t>(available_memory() / (6 * sizeof(float)));
}

std::vector<UpdateTiming> CpuBenches::time_updates(const UpdateSet& set, bool quick,
                                                   const BetweenRounds& between_rounds) {
  const ThreadCount count(threads_);
  const UpdatePattern pattern;
  return Bench(set, pattern, quick).run(between_rounds);
}

std::vector<std::vector<double>> CpuBenches::time_schedules(
    const UpdateSet& set, const std::vector<NamedSchedule>& schedules, bool quick,
    const BetweenRounds& between_rounds) {
  const int rounds = quick ? 5 : 31;
  const ThreadCount count(threads_);
  Arenas a(set);
  a.fill(UpdatePattern());
  std::vector<std::vector<double>> times(schedules.size());
  for (int round = 0; round < rounds; ++round) {
    between_rounds();
    for (std::size_t i = 0; i < schedules.size(); ++i) {
      const LrSchedule& schedule = schedules[i].schedule;
      StepState state = first_step(schedule);
      state.step = schedule.steps * round / rounds;
      const auto start = Clock::now();
      a.update({});
      advance(state, schedule, true, 0);
      times[i].push_back(1e6 * seconds_since(start));
    }
  }
  return times;
}

Ceilings CpuBenches::measure_ceilings(Precision, int cpu_threads) {
  const ThreadCount count(threads_of(cpu_threads, threads_));
  constexpr int rounds = 7;
  const auto seconds_of = [&](const auto& work) {
    work();
    std::vector<double> times;
    for (int i = 0; i < rounds; ++i) {
      const auto start = Clock::now();
      work();
      times.push_back(seconds_since(start));
    }
    return std::ranges::min(times);  // the ceiling is the best round
  };
  Ceilings ceilings;
  {
    constexpr std::int64_t size = std::int64_t{16} << 20;
    Buffer<float> a(size);
    Buffer<float> b(size);
    Buffer<float> c(size);
    const double seconds = seconds_of([&] { move_and_add(size, a.data(), b.data(), c.data()); });
    ceilings.bytes_per_second = 5.0 * sizeof(float) * size / seconds;
  }
  {
    constexpr std::int64_t n = 2048;
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    dnnl::stream stream(engine);
    const dnnl::memory::desc matrix({n, n}, dnnl::memory::data_type::f32,
                                    dnnl::memory::format_tag::ab);
    Buffer<float> memory(3 * n * n);
    std::fill_n(memory.data(), 3 * n * n, 1e-3f);
    const dnnl::matmul product(dnnl::matmul::primitive_desc({matrix, matrix, matrix}, engine));
    const auto wrap = [&](int i) {
      return dnnl::memory(matrix, engine, memory.data() + i * n * n);
    };
    const std::unordered_map<int, dnnl::memory> arguments = {
        {DNNL_ARG_SRC, wrap(0)}, {DNNL_ARG_WEIGHTS, wrap(1)}, {DNNL_ARG_DST, wrap(2)}};
    const double seconds = seconds_of([&] {
      product.execute(stream, arguments);
      stream.wait();
    });
    ceilings.operations_per_second = 2.0 * n * n * n / seconds;
  }
  return ceilings;
}

}  // namespace preheat::cpu
