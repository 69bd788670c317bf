#include "backend/cuda/benches.h"

#include <cublas_v2.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>

#include "backend/cuda/matmul.h"
#include "backend/cuda/program.h"
#include "backend/cuda/small_float.h"
#include "kernels/launch.h"

namespace preheat::cuda {
namespace {

constexpr double bytes_of_update = 20;  // per float: w, v and g in, w and v out
constexpr std::int64_t cold_bytes = std::int64_t{256}
                                    << 20;  // several times the second-level cache

using Cublas = Owned<cublasHandle_t, &cublasDestroy>;

Cublas make_cublas(const Stream& stream) {
  cublasHandle_t raw = nullptr;
  PREHEAT_CHECK(cublasCreate(&raw));
  Cublas handle(raw);
  PREHEAT_CHECK(cublasSetStream(raw, stream.get()));
  return handle;
}

// One copy of a parameter set, in the layout of training.
struct Copy {
  Buffer<float> weights, velocity, gradients;
  Buffer<std::uint16_t> small_weights, small_gradients;
};

// The pattern over and over: once from the host, then copies of what is there.
template <class T>
void repeat(const std::vector<T>& pattern, const Buffer<T>& buffer, const Stream& stream) {
  std::size_t done = std::min(buffer.size(), pattern.size());
  upload(std::span(pattern).first(done), buffer.data(), stream);
  while (done < buffer.size()) {
    const std::size_t now = std::min(done, buffer.size() - done);
    PREHEAT_CHECK(cudaMemcpyAsync(buffer.data() + done, buffer.data(), now * sizeof(T),
                                  cudaMemcpyDeviceToDevice, stream.get()));
    done += now;
  }
}

// Numbers as the device stores them in this type.
std::vector<std::uint8_t> stored(const std::vector<float>& values, kernels::Element element) {
  const std::size_t size = bytes_of(element);
  std::vector<std::uint8_t> bytes(values.size() * size);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t bits = element == kernels::Element::f32
                                   ? std::bit_cast<std::uint32_t>(values[i])
                                   : to_small(element, values[i]);
    std::memcpy(bytes.data() + i * size, &bits, size);  // the low bytes come first
  }
  return bytes;
}

struct Variant {
  std::string name;
  double bytes = bytes_of_update;  // per float
  std::int64_t launches = 1;       // of a step
  std::function<void(const Copy&)> step;
  SgdMomentum rule{};
  double bound = 0;  // of its result, to the reference's
  bool gradients_are_zero = false;
  bool brings_rate = false;  // where the state has none
  bool in_graph = true;      // can be captured
};

// The arenas of a set and all else that launches of the update read.
class Arenas {
 public:
  Arenas(const UpdateSet& set, const UpdatePattern& pattern, const LrSchedule& schedule)
      : layout(set), set_(set), pattern_(pattern), first_(first_step(schedule)) {
    std::vector<std::uint16_t> plain(layout.size / kernels::chunk_floats);
    for (std::size_t t = 0; t < set.tensors.size(); ++t) {
      const std::int64_t first = layout.offsets[t] / kernels::chunk_floats;
      std::fill_n(plain.begin() + first, arena_floats(set.tensors[t]) / kernels::chunk_floats,
                  static_cast<std::uint16_t>(t));
    }
    std::vector<std::uint16_t> small = plain;
    for (std::uint16_t& entry : small) entry |= kernels::has_small_gradient;
    segment_of_ = uploaded(plain);
    small_segment_of_ = uploaded(small);
    segments_ = uploaded(std::vector<kernels::Segment>(set.tensors.size(), {1, bench_decay, 1}));
    state = Buffer<StepState>(1);
    kernels::BatchLoss one_example;
    one_example.examples = 1;
    loss = uploaded(std::vector<kernels::BatchLoss>{one_example});
    non_finite = uploaded(std::vector<kernels::NonFinite>(1));
    partials = Buffer<kernels::NormPartial>(
        std::max(kernels::update_blocks(layout.size), kernels::check_blocks(layout.size)));
    check = Buffer<kernels::GradientCheck>(1);
    counter = uploaded(std::vector<unsigned>{0});
    records = Buffer<kernels::DeviceRecord>(record_capacity);
    add_copies(1);
  }

  template <class T>
  Buffer<T> uploaded(const std::vector<T>& values) const {
    Buffer<T> buffer(values.size());
    upload(std::span<const T>(values), buffer.data(), stream);
    wait(stream);
    return buffer;
  }

  void add_copies(std::int64_t count) {
    while (static_cast<std::int64_t>(copies.size()) < count) {
      Copy c;
      c.weights = Buffer<float>(layout.size);
      c.velocity = Buffer<float>(layout.size);
      c.gradients = Buffer<float>(layout.size);
      if (copies.empty()) {
        c.small_weights = Buffer<std::uint16_t>(layout.size);
        c.small_gradients = Buffer<std::uint16_t>(layout.size);
        clear(c.small_weights, stream);
        clear(c.small_gradients, stream);
      }
      copies.push_back(std::move(c));
      fill(copies.back());
    }
  }

  // To where the run begins.
  void fill(const Copy& c) const {
    repeat(pattern_.weights, c.weights, stream);
    repeat(pattern_.velocity, c.velocity, stream);
    repeat(pattern_.gradients, c.gradients, stream);
    go_to(first_);
  }

  void go_to(const StepState& step) const {
    upload(std::span(&step, 1), state.data(), stream);
    wait(stream);
  }

  kernels::Arena arena(const Copy& c, bool small) const {
    kernels::Arena a;
    a.weights = c.weights.data();
    a.velocity = c.velocity.data();
    a.gradients = c.gradients.data();
    a.size = layout.size;
    a.segment_of = small ? small_segment_of_.data() : segment_of_.data();
    a.segments = segments_.data();
    if (small) {
      a.copy = c.small_weights.data();
      a.small_gradients = c.small_gradients.data();
      a.small = kernels::Element::bf16;
    }
    return a;
  }

  void advance(const LrSchedule& schedule) const {
    PREHEAT_CHECK(kernels::advance_step(schedule, state.data(), loss.data(), partials.data(),
                                        kernels::update_blocks(layout.size), nullptr, false,
                                        records.data(), record_capacity, stream.get()));
  }

  // Throws Error unless a step of the variant is an update.
  void prove(const Variant& v) const {
    const Copy& c = copies.front();
    fill(c);
    if (v.brings_rate) {
      StepState without = first_;
      without.lr = 0;
      go_to(without);
    }
    v.step(c);
    const auto read = [this](const Buffer<float>& from) {
      return [this, &from](std::int64_t first, std::int64_t count) {
        std::vector<float> values(count);
        download(from.data() + first, std::span(values), stream);
        wait(stream);
        return values;
      };
    };
    check_update({v.name, v.rule, v.bound, v.gradients_are_zero}, set_, layout, pattern_,
                 read(c.weights), read(c.velocity));
  }

  static constexpr std::int64_t record_capacity = 1024;

  Stream stream = make_stream();
  const UpdateLayout layout;
  std::vector<Copy> copies;
  Buffer<StepState> state;
  Buffer<kernels::BatchLoss> loss;
  Buffer<kernels::NonFinite> non_finite;
  Buffer<kernels::NormPartial> partials;
  Buffer<kernels::GradientCheck> check;
  Buffer<unsigned> counter;
  Buffer<kernels::DeviceRecord> records;

 private:
  const UpdateSet& set_;
  const UpdatePattern& pattern_;
  const StepState first_;
  Buffer<std::uint16_t> segment_of_, small_segment_of_;
  Buffer<kernels::Segment> segments_;
};

LrSchedule constant_schedule() {
  LrSchedule schedule;
  schedule.steps = 1 << 20;
  schedule.phase_count = 1;
  schedule.phases[0].shape = Shape::constant;
  schedule.phases[0].length = schedule.phases[0].span = schedule.steps;
  schedule.phases[0].from = double{bench_rate};
  return schedule;
}

class Bench {
 public:
  Bench(const UpdateSet& set, const UpdatePattern& pattern, bool quick)
      : set_(set), quick_(quick), a_(set, pattern, schedule_) {
    table_ = a_.uploaded(std::vector<float>(1 << 10, bench_rate));
    pinned_rate_ = PinnedBuffer<float>(1);
    pinned_rate_.data()[0] = bench_rate;
  }

  std::vector<UpdateTiming> run() {
    // The ceilings first: what everything else is a share of.
    const Variant copy{
        "copy", 8, 1, [this](const Copy& c) {
          PREHEAT_CHECK(kernels::copy(c.gradients.data(), c.weights.data(), size(), stream()));
        }};
    const Variant moves{
        "read 3, write 2", bytes_of_update, 1, [this](const Copy& c) {
          PREHEAT_CHECK(kernels::read_three_write_two(c.weights.data(), c.velocity.data(),
                                                      c.gradients.data(), size(), stream()));
        }};
    const double copied = add_row(copy, true, ceiling).gigabytes;
    const double traffic = add_row(moves, true, ceiling).microseconds;
    for (const Variant& v : variants()) {
      a_.prove(v);
      a_.fill(a_.copies.front());
      if (v.in_graph) add_row(v, true, "graph");
      if (!v.in_graph || !quick_) add_row(v, false, "launches");
    }
    add_shares(0, copied, traffic);
    const std::int64_t bytes_of_copy = 3 * size() * static_cast<std::int64_t>(sizeof(float));
    if (bytes_of_copy >= cold_bytes) return rows_;
    constexpr std::int64_t most_copies = 4096;
    a_.add_copies(std::min((cold_bytes + bytes_of_copy - 1) / bytes_of_copy, most_copies));
    const std::size_t first_cold = rows_.size();
    const double cold_copied = add_row(copy, true, "ceiling, cold").gigabytes;
    const double cold_traffic = add_row(moves, true, "ceiling, cold").microseconds;
    add_row(fused("fused", {}), true, "graph, cold");
    add_shares(first_cold, cold_copied, cold_traffic);
    return rows_;
  }

 private:
  // Of the rows from `first` on, of ceilings as warm or cold as they are.
  void add_shares(std::size_t first, double gigabytes_of_copy, double microseconds_of_traffic) {
    for (std::size_t i = first; i < rows_.size(); ++i) {
      rows_[i].share_of_copy = rows_[i].gigabytes / gigabytes_of_copy;
      rows_[i].share_of_traffic = microseconds_of_traffic / rows_[i].microseconds;
    }
  }

  std::int64_t size() const { return a_.layout.size; }
  cudaStream_t stream() const { return a_.stream.get(); }

  struct Features {
    SgdMomentum rule{};
    bool small = false;  // 16-bit gradients and copy
    bool norms = true;
    bool checked = false;   // for clipping
    bool advanced = false;  // to the next rate
  };

  // The launches of a training step, by the functions that training calls.
  Variant fused(const std::string& name, const Features& f) {
    Variant v;
    v.name = name;
    v.rule = f.rule;
    v.launches = 1 + (f.checked ? 1 : 0) + (f.advanced ? 1 : 0);
    v.bytes = bytes_of_update + (f.checked ? 4 : 0);
    v.gradients_are_zero = f.small;
    v.step = [this, f](const Copy& c) {
      const kernels::Arena arena = a_.arena(c, f.small);
      if (f.checked) {
        PREHEAT_CHECK(kernels::check_gradients(arena, a_.state.data(), 1e9, a_.partials.data(),
                                               a_.counter.data(), a_.check.data(), stream()));
      }
      PREHEAT_CHECK(kernels::sgd_momentum(
          f.rule, arena, a_.state.data(), a_.loss.data(), f.checked ? a_.check.data() : nullptr,
          f.norms ? a_.partials.data() : nullptr, a_.non_finite.data(), stream()));
      if (f.advanced) a_.advance(schedule_);
    };
    return v;
  }

  // Over the arena as if it were one tensor, without norms.
  void update_as_one(const kernels::Rate& rate, const Copy& c) const {
    PREHEAT_CHECK(kernels::update_flat({}, rate, bench_decay, size(), c.gradients.data(),
                                       c.weights.data(), c.velocity.data(), stream()));
  }

  template <class Work>
  void for_each_tensor(const Copy& c, const Work& work) const {
    for (std::size_t t = 0; t < set_.tensors.size(); ++t) {
      const std::int64_t at = a_.layout.offsets[t];
      work(set_.tensors[t], c.weights.data() + at, c.velocity.data() + at, c.gradients.data() + at);
    }
  }

  void add_features(std::vector<Variant>& all) {
    all.push_back(fused("fused", {}));
    Features f;
    f.norms = false;
    all.push_back(fused("fused, no norms", f));
    f = {};
    f.small = true;
    all.push_back(fused("fused, 16-bit gradients and copy", f));
    f = {};
    f.checked = true;
    all.push_back(fused("fused, clipped", f));
    f = {};
    f.rule.nesterov = true;
    all.push_back(fused("fused, nesterov", f));
    f = {};
    f.rule.folded = true;
    all.push_back(fused("fused, folded", f));
    f = {};
    f.advanced = true;
    all.push_back(fused("fused and the next rate", f));
  }

  void add_alternatives(std::vector<Variant>& all) {
    kernels::Rate by_value;
    by_value.value = bench_rate;
    kernels::Rate from_table;
    from_table.state = a_.state.data();
    from_table.table = table_.data();
    const auto as_one = [&](const char* name, const kernels::Rate& rate) {
      all.push_back(
          {name, bytes_of_update, 1, [this, rate](const Copy& c) { update_as_one(rate, c); }});
    };
    as_one("fused_value", by_value);
    as_one("fused_table", from_table);
    const auto tensors = static_cast<std::int64_t>(set_.tensors.size());
    if (tensors > 1) {
      all.push_back({"per_tensor", bytes_of_update, tensors, [this, by_value](const Copy& c) {
                       for_each_tensor(c, [&](std::int64_t n, float* w, float* v, float* g) {
                         PREHEAT_CHECK(
                             kernels::update_flat({}, by_value, bench_decay, n, g, w, v, stream()));
                       });
                     }});
    }
    // Sums are rounded where the fused update rounds once.
    constexpr double rounded_apart = 1e-6;
    Variant passes{"three_pass", 36, 3 * tensors, [this, by_value](const Copy& c) {
                     for_each_tensor(c, [&](std::int64_t n, float* w, float* v, float* g) {
                       PREHEAT_CHECK(kernels::add_decay(bench_decay, n, w, g, stream()));
                       PREHEAT_CHECK(kernels::add_momentum(0.9f, n, g, v, stream()));
                       PREHEAT_CHECK(kernels::take_off(by_value, n, v, w, stream()));
                     });
                   }};
    passes.bound = rounded_apart;
    all.push_back(passes);
    Variant cublas{"cublas", 44, 4 * tensors, [this](const Copy& c) {
                     const float momentum = 0.9f;
                     const float one = 1;
                     const float minus_rate = -bench_rate;
                     for_each_tensor(c, [&](std::int64_t n, float* w, float* v, float* g) {
                       const int count = static_cast<int>(n);
                       cublasHandle_t handle = cublas_.get();
                       PREHEAT_CHECK(cublasSaxpy(handle, count, &bench_decay, w, 1, g, 1));
                       PREHEAT_CHECK(cublasSscal(handle, count, &momentum, v, 1));
                       PREHEAT_CHECK(cublasSaxpy(handle, count, &one, g, 1, v, 1));
                       PREHEAT_CHECK(cublasSaxpy(handle, count, &minus_rate, v, 1, w, 1));
                     });
                   }};
    cublas.bound = rounded_apart;
    all.push_back(cublas);
  }

  // The ways in which a host hands over the rate of every step.
  void add_host_rates(std::vector<Variant>& all) {
    const auto update = [this](const Copy& c) {
      PREHEAT_CHECK(kernels::sgd_momentum({}, a_.arena(c, false), a_.state.data(), a_.loss.data(),
                                          nullptr, a_.partials.data(), a_.non_finite.data(),
                                          stream()));
    };
    Variant copied{
        "host_rate, by a copy", bytes_of_update, 2, [this, update](const Copy& c) {
          PREHEAT_CHECK(cudaMemcpyAsync(&a_.state.data()->lr, pinned_rate_.data(), sizeof(float),
                                        cudaMemcpyHostToDevice, stream()));
          update(c);
        }};
    copied.brings_rate = true;
    // Loads the code, which nothing may do while a graph is captured.
    update_as_one({}, a_.copies.front());
    update(a_.copies.front());
    // A graph of one node, captured without a rate, whose argument the host sets before each
    // launch.
    node_graph_ = capture(a_.stream, [&] { update_as_one({}, a_.copies.front()); });
    node_exec_ = instantiate(node_graph_);
    std::size_t count = 1;
    PREHEAT_CHECK(cudaGraphGetNodes(node_graph_.get(), &node_, &count));
    PREHEAT_CHECK(cudaGraphKernelNodeGetParams(node_, &node_parameters_));
    std::copy_n(node_parameters_.kernelParams, node_arguments_.size(), node_arguments_.begin());
    node_arguments_[kernels::update_flat_rate_argument] = &node_rate_;
    node_parameters_.kernelParams = node_arguments_.data();
    Variant set_in_node{"host_rate, in the graph's node", bytes_of_update, 1, [this](const Copy&) {
                          PREHEAT_CHECK(cudaGraphExecKernelNodeSetParams(node_exec_.get(), node_,
                                                                         &node_parameters_));
                          PREHEAT_CHECK(cudaGraphLaunch(node_exec_.get(), stream()));
                        }};
    // A graph captured again for every step, and the one before it updated.
    recaptured_exec_ = instantiate(capture(a_.stream, [&] { update(a_.copies.front()); }));
    Variant recapture{
        "recapture", bytes_of_update, 1, [this, update](const Copy& c) {
          const Graph graph = capture(a_.stream, [&] { update(c); });
          cudaGraphExecUpdateResultInfo info{};
          PREHEAT_CHECK(cudaGraphExecUpdate(recaptured_exec_.get(), graph.get(), &info));
          PREHEAT_CHECK(cudaGraphLaunch(recaptured_exec_.get(), stream()));
        }};
    for (Variant* v : {&copied, &set_in_node, &recapture}) {
      v->in_graph = false;
      all.push_back(*v);
    }
  }

  std::vector<Variant> variants() {
    std::vector<Variant> all;
    add_features(all);
    add_alternatives(all);
    add_host_rates(all);
    return all;
  }

  const UpdateTiming& add_row(const Variant& v, bool in_graph, const std::string& how) {
    const std::int64_t copies =
        how.ends_with("cold") ? static_cast<std::int64_t>(a_.copies.size()) : 1;
    const std::int64_t at_once = std::clamp<std::int64_t>((std::int64_t{1} << 27) / size(), 4, 64);
    const std::int64_t steps =
        std::max(at_once / std::max<std::int64_t>(1, v.launches / 16), copies);
    const std::function<void()> enqueue = [&] {
      for (std::int64_t i = 0; i < steps; ++i) v.step(a_.copies[i % copies]);
    };
    UpdateTiming t;
    const int rounds = quick_ ? 3 : 7;
    if (in_graph) {
      enqueue();  // loads the code
      const GraphExec graph = instantiate(capture(a_.stream, enqueue));
      t = time_launches(a_.stream, rounds, steps,
                        [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream())); });
    } else {
      t = time_launches(a_.stream, rounds, steps, enqueue);
    }
    t.set = set_.name;
    t.variant = v.name;
    t.how = how;
    t.parameters = set_.parameters();
    t.tensors = static_cast<std::int64_t>(set_.tensors.size());
    t.launches = v.launches;
    // A ceiling moves the padding too; what an update has to move are its parameters.
    t.bytes = v.bytes * static_cast<double>(how.starts_with(ceiling) ? size() : t.parameters);
    t.gigabytes = t.bytes / (1e3 * t.microseconds);
    rows_.push_back(t);
    return rows_.back();
  }

  const UpdateSet& set_;
  const bool quick_;
  const LrSchedule schedule_ = constant_schedule();
  Arenas a_;
  const Cublas cublas_ = make_cublas(a_.stream);
  Buffer<float> table_;
  PinnedBuffer<float> pinned_rate_;
  Graph node_graph_;
  GraphExec node_exec_;
  cudaGraphNode_t node_ = nullptr;
  cudaKernelNodeParams node_parameters_{};
  kernels::Rate node_rate_{bench_rate};
  std::array<void*, kernels::update_flat_arguments> node_arguments_{};
  GraphExec recaptured_exec_;
  std::vector<UpdateTiming> rows_;
};

// The bits of NVML's nvmlClocksEventReasons.
std::string reasons_text(unsigned long long bits) {
  constexpr std::pair<unsigned, const char*> names[] = {
      {0x2, "application clocks"}, {0x4, "power cap"},       {0x8, "hardware slowdown"},
      {0x10, "sync boost"},        {0x20, "temperature"},    {0x40, "temperature, hardware"},
      {0x80, "power brake"},       {0x100, "display clocks"}};
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((bits & bit) != 0) text += fmt::format("{}{}", text.empty() ? "" : " and ", name);
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace

UpdateTiming time_launches(const Stream& stream, int rounds, std::int64_t steps,
                           const std::function<void()>& launch) {
  const Event start = make_timer();
  const Event end = make_timer();
  launch();
  launch();
  wait(stream);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    PREHEAT_CHECK(cudaEventRecord(start.get(), stream.get()));
    launch();
    PREHEAT_CHECK(cudaEventRecord(end.get(), stream.get()));
    PREHEAT_CHECK(cudaEventSynchronize(end.get()));
    times.push_back(1e3 * static_cast<double>(milliseconds(start, end)) /
                    static_cast<double>(steps));
  }
  UpdateTiming t;
  t.take(std::move(times));
  return t;
}

std::string CudaBenches::condition() const {
  char bus[32] = "";
  PREHEAT_CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, 0));
  const std::string command = fmt::format(
      "nvidia-smi -i {} --format=csv,noheader,nounits --query-gpu=clocks.sm,clocks.max.sm,"
      "clocks.mem,ecc.mode.current,temperature.gpu,power.draw,clocks_event_reasons.active "
      "2>/dev/null",
      bus);
  std::array<char, 512> line{};
  if (FILE* const pipe = popen(command.c_str(), "r")) {
    if (std::fgets(line.data(), line.size(), pipe) == nullptr) line[0] = '\0';
    pclose(pipe);
  }
  std::vector<std::string> fields;
  std::istringstream text(line.data());
  for (std::string field; std::getline(text >> std::ws, field, ',');) fields.push_back(field);
  if (fields.size() != 7) return "clocks, throttling and ECC not known: nvidia-smi does not say";
  return fmt::format("SM clock {} of {} MHz, memory {} MHz, ECC {}, {} C, {} W, held back by {}",
                     fields[0], fields[1], fields[2], fields[3], fields[4], fields[5],
                     reasons_text(std::strtoull(fields[6].c_str(), nullptr, 16)));
}

std::int64_t CudaBenches::most_update_floats() const {
  constexpr std::size_t bytes_of_float = 3 * sizeof(float) + 2 * sizeof(std::uint16_t) + 1;
  std::size_t free = 0;
  std::size_t total = 0;
  PREHEAT_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free / bytes_of_float);
}

std::vector<UpdateTiming> CudaBenches::time_launch() {
  constexpr int rounds = 7;
  constexpr std::int64_t launches = 64;
  const Stream stream = make_stream();
  const auto enqueue = [&] {
    for (std::int64_t i = 0; i < launches; ++i) PREHEAT_CHECK(kernels::empty(stream.get()));
  };
  enqueue();
  const GraphExec graph = instantiate(capture(stream, enqueue));
  UpdateTiming t = time_launches(
      stream, rounds, launches, [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream.get())); });
  t.set = "nothing";
  t.variant = "empty kernel";
  t.how = "graph";
  t.launches = 1;
  return {t};
}

std::vector<UpdateTiming> CudaBenches::time_updates(const UpdateSet& set, bool quick) {
  const UpdatePattern pattern;
  return Bench(set, pattern, quick).run();
}

std::vector<std::vector<double>> CudaBenches::time_schedules(
    const UpdateSet& set, const std::vector<NamedSchedule>& schedules) {
  constexpr int rounds = 15;
  constexpr std::int64_t steps = 32;
  const UpdatePattern pattern;
  const Arenas a(set, pattern, schedules.front().schedule);
  std::vector<GraphExec> graphs;
  for (const NamedSchedule& named : schedules) {
    const auto enqueue = [&] {
      for (std::int64_t i = 0; i < steps; ++i) {
        PREHEAT_CHECK(kernels::sgd_momentum({}, a.arena(a.copies.front(), false), a.state.data(),
                                            a.loss.data(), nullptr, a.partials.data(),
                                            a.non_finite.data(), a.stream.get()));
        a.advance(named.schedule);
      }
    };
    enqueue();  // loads the code
    graphs.push_back(instantiate(capture(a.stream, enqueue)));
  }
  std::vector<std::vector<double>> times(schedules.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < schedules.size(); ++i) {
      StepState state = first_step(schedules[i].schedule);
      state.step = schedules[i].schedule.steps * round / rounds;
      a.go_to(state);
      const UpdateTiming t = time_launches(a.stream, 1, steps, [&] {
        PREHEAT_CHECK(cudaGraphLaunch(graphs[i].get(), a.stream.get()));
      });
      times[i].push_back(t.microseconds);
    }
  }
  return times;
}

Ceilings CudaBenches::measure_ceilings(Precision precision, int) {
  constexpr int rounds = 7;
  constexpr std::int64_t steps = 4;
  const Stream stream = make_stream();
  const auto seconds_of = [&](const std::function<void()>& work) {
    return 1e-6 * time_launches(stream, rounds, steps, [&] {
                    for (std::int64_t i = 0; i < steps; ++i) work();
                  }).least;  // at most is what is asked for
  };
  Ceilings ceilings;
  {
    constexpr std::int64_t size = std::int64_t{64} << 20;
    const Buffer<float> from(size);
    const Buffer<float> to(size);
    clear(from, stream);
    const double seconds = seconds_of(
        [&] { PREHEAT_CHECK(kernels::copy(from.data(), to.data(), size, stream.get())); });
    ceilings.bytes_per_second = 2.0 * sizeof(float) * size / seconds;
  }
  {
    constexpr std::int64_t n = 8192;
    const kernels::Element element = element_of(precision);
    const std::lock_guard lock(libraries_->mutex);
    const Matmul product(libraries_->cublas.get(),
                         {n, n, n, false, true, element, element, precision == Precision::tf32});
    const std::size_t bytes = n * n * bytes_of(element);
    const Buffer<std::uint8_t> a(bytes);
    const Buffer<std::uint8_t> b(bytes);
    const Buffer<std::uint8_t> c(bytes);
    const Buffer<std::uint8_t> workspace(product.workspace_bytes());
    // Numbers all alike toggle few bits, and a chip that they heat less may clock higher.
    const std::vector<std::uint8_t> noise = stored(UpdatePattern().weights, element);
    for (const auto* buffer : {&a, &b}) repeat(noise, *buffer, stream);
    const double seconds = seconds_of([&] {
      product.run(libraries_->cublas.get(), a.data(), b.data(), c.data(), workspace.data(),
                  stream.get());
    });
    ceilings.operations_per_second = 2.0 * n * n * n / seconds;
  }
  return ceilings;
}

}  // namespace preheat::cuda
