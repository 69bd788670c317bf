#include "backend/cuda/update_bench.h"

#include <algorithm>
#include <functional>

#include "backend/cuda/cuda.h"
#include "kernels/launch.h"
#include "nn/network.h"

namespace preheat::cuda {
namespace {

constexpr double bytes_of_update = 20;  // per float: w, v and g in, w and v out
constexpr std::int64_t cold_bytes = std::int64_t{256}
                                    << 20;  // several times the second-level cache

// Small numbers of either sign that stay small under any number of updates.
std::vector<float> some_values(std::int64_t size, float scale) {
  std::vector<float> values(size);
  std::uint32_t x = 12345;
  for (float& v : values) {
    x = x * 1664525u + 1013904223u;
    v = scale * (static_cast<float>(x >> 8) / 8388608.0f - 1);
  }
  return values;
}

// One copy of a parameter set, in the layout of training.
struct Copy {
  Buffer<float> weights, velocity, gradients;
  Buffer<std::uint16_t> small_weights, small_gradients;
};

struct Variant {
  std::string name;
  double bytes = bytes_of_update;  // per float
  std::int64_t launches = 1;       // of a step
  bool in_graph = true;
  std::function<void(std::int64_t step, const Copy&)> step;
};

// Over rounds of so many steps each, by the device's clock.
template <class Launch>
UpdateTiming time(const Stream& stream, int rounds, std::int64_t steps, const Launch& launch) {
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

// What a launch costs by itself.
UpdateTiming time_nothing(int rounds) {
  constexpr std::int64_t launches = 64;
  const Stream stream = make_stream();
  const auto enqueue = [&] {
    for (std::int64_t i = 0; i < launches; ++i) PREHEAT_CHECK(kernels::empty(stream.get()));
  };
  enqueue();
  const GraphExec graph = instantiate(capture(stream, enqueue));
  UpdateTiming t = time(stream, rounds, launches,
                        [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream.get())); });
  t.set = "nothing";
  t.variant = "empty kernel";
  t.how = "graph";
  t.launches = 1;
  return t;
}

class Bench {
 public:
  Bench(const UpdateSet& set, bool quick) : set_(set), rounds_(quick ? 3 : 7) {
    for (const std::int64_t size : set.tensors) {
      offsets_.push_back(size_);
      size_ += arena_floats(size);
      floats_ += size;
    }
    std::vector<std::uint16_t> plain(size_ / kernels::chunk_floats);
    for (std::size_t t = 0; t < set.tensors.size(); ++t) {
      const std::int64_t first = offsets_[t] / kernels::chunk_floats;
      std::fill_n(plain.begin() + first, arena_floats(set.tensors[t]) / kernels::chunk_floats,
                  static_cast<std::uint16_t>(t));
    }
    std::vector<std::uint16_t> small = plain;
    for (std::uint16_t& entry : small) entry |= kernels::has_small_gradient;
    segment_of_ = uploaded(plain);
    small_segment_of_ = uploaded(small);
    segments_ = uploaded(std::vector<kernels::Segment>(set.tensors.size(), {1, 5e-4f, 1}));
    StepState state;
    state.lr = state.previous_lr = 1e-3f;
    state_ = uploaded(std::vector<StepState>{state});
    kernels::BatchLoss loss;
    loss.examples = 1;
    loss_ = uploaded(std::vector<kernels::BatchLoss>{loss});
    non_finite_ = uploaded(std::vector<kernels::NonFinite>(1));
    table_ = uploaded(std::vector<float>(1 << 20, 1e-3f));
    partials_ = Buffer<kernels::NormPartial>(
        std::max(kernels::update_blocks(size_), kernels::check_blocks(size_)));
    check_ = Buffer<kernels::GradientCheck>(1);
    counter_ = uploaded(std::vector<unsigned>{0});
    records_ = Buffer<kernels::DeviceRecord>(1024);
    pinned_rate_ = PinnedBuffer<float>(1);
    pinned_rate_.data()[0] = 1e-3f;
    const RunSchedule schedules;
    schedule_ = schedules.cosine;
  }

  std::vector<UpdateTiming> run() {
    add_copies(1);
    std::vector<UpdateTiming> rows;
    // The ceilings first: what everything else is a share of.
    const double copied = row(rows, {"copy", 8, 1, true, copy_step()}, "ceiling").gigabytes;
    const UpdateTiming traffic =
        row(rows,
            {"read 3, write 2", bytes_of_update, 1, true,
             [this](std::int64_t, const Copy& c) {
               PREHEAT_CHECK(kernels::read_three_write_two(
                   c.weights.data(), c.velocity.data(), c.gradients.data(), size_, stream_.get()));
             }},
            "ceiling");
    for (const Variant& v : variants()) {
      refill();
      if (v.in_graph) row(rows, v, "graph");
      if (!v.in_graph || v.name == "fused" || v.launches > 1) {
        Variant launched = v;
        launched.in_graph = false;
        row(rows, launched, "launches");
      }
    }
    host_rate_by_node(rows);
    recapture(rows);
    if (3 * size_ * 4 < cold_bytes) {
      add_copies((cold_bytes + 12 * size_ - 1) / (12 * size_));
      row(rows, {"copy", 8, 1, true, copy_step()}, "ceiling, cold");
      row(rows, fused("fused", arena_options()), "graph, cold");
    }
    for (UpdateTiming& r : rows) {
      r.share_of_copy = r.gigabytes / copied;
      r.share_of_traffic = traffic.microseconds / r.microseconds;
    }
    return rows;
  }

 private:
  struct RunSchedule {
    LrSchedule cosine;
    RunSchedule() {
      cosine.steps = 1 << 20;
      cosine.phase_count = 2;
      cosine.phases[0].shape = Shape::linear;
      cosine.phases[0].length = cosine.phases[0].span = 1000;
      cosine.phases[0].to = 1e-3;
      cosine.phases[1].shape = Shape::cosine;
      cosine.phases[1].begin = 1000;
      cosine.phases[1].length = cosine.phases[1].span = cosine.steps - 1000;
      cosine.phases[1].from = 1e-3;
    }
  };

  struct ArenaOptions {
    bool small = false;  // 16-bit gradients and copy
    bool norms = true;
    bool checked = false;  // for clipping
    bool advanced = false;
    SgdMomentum rule{};
  };
  static ArenaOptions arena_options() { return {}; }

  template <class T>
  Buffer<T> uploaded(const std::vector<T>& values) {
    Buffer<T> buffer(values.size());
    upload(std::span<const T>(values), buffer.data(), stream_);
    wait(stream_);
    return buffer;
  }

  void add_copies(std::int64_t count) {
    while (static_cast<std::int64_t>(copies_.size()) < count) {
      Copy c;
      c.weights = Buffer<float>(size_);
      c.velocity = Buffer<float>(size_);
      c.gradients = Buffer<float>(size_);
      if (copies_.empty()) {
        c.small_weights = Buffer<std::uint16_t>(size_);
        c.small_gradients = Buffer<std::uint16_t>(size_);
        clear(c.small_weights, stream_);
        clear(c.small_gradients, stream_);
      }
      copies_.push_back(std::move(c));
      fill(copies_.back());
    }
  }

  void fill(const Copy& c) {
    const std::vector<float> w = some_values(std::min<std::int64_t>(size_, 1 << 20), 0.1f);
    for (const auto* buffer : {&c.weights, &c.velocity, &c.gradients}) {
      for (std::int64_t at = 0; at < size_; at += static_cast<std::int64_t>(w.size())) {
        const auto n = static_cast<std::size_t>(
            std::min<std::int64_t>(static_cast<std::int64_t>(w.size()), size_ - at));
        upload(std::span<const float>(w.data(), n), buffer->data() + at, stream_);
      }
    }
    wait(stream_);
  }
  void refill() { fill(copies_.front()); }

  std::function<void(std::int64_t, const Copy&)> copy_step() {
    return [this](std::int64_t, const Copy& c) {
      PREHEAT_CHECK(kernels::copy(c.gradients.data(), c.weights.data(), size_, stream_.get()));
    };
  }

  kernels::Arena arena(const Copy& c, bool small) const {
    kernels::Arena a;
    a.weights = c.weights.data();
    a.velocity = c.velocity.data();
    a.gradients = c.gradients.data();
    a.size = size_;
    a.segment_of = small ? small_segment_of_.data() : segment_of_.data();
    a.segments = segments_.data();
    if (small) {
      a.copy = c.small_weights.data();
      a.small_gradients = c.small_gradients.data();
      a.small = kernels::Element::bf16;
    }
    return a;
  }

  // The launches of a training step, from the same functions.
  Variant fused(const std::string& name, const ArenaOptions& o) {
    Variant v;
    v.name = name;
    v.launches = 1 + (o.checked ? 1 : 0) + (o.advanced ? 1 : 0);
    v.bytes = bytes_of_update + (o.checked ? 4 : 0);
    v.step = [this, o](std::int64_t, const Copy& c) {
      const kernels::Arena a = arena(c, o.small);
      if (o.checked) {
        PREHEAT_CHECK(kernels::check_gradients(a, state_.data(), 1e9, partials_.data(),
                                               counter_.data(), check_.data(), stream_.get()));
      }
      PREHEAT_CHECK(kernels::sgd_momentum(
          o.rule, a, state_.data(), loss_.data(), o.checked ? check_.data() : nullptr,
          o.norms ? partials_.data() : nullptr, non_finite_.data(), stream_.get()));
      if (o.advanced) {
        PREHEAT_CHECK(kernels::advance_step(schedule_, state_.data(), loss_.data(),
                                            partials_.data(), kernels::update_blocks(size_),
                                            nullptr, false, records_.data(), 1024, stream_.get()));
      }
    };
    return v;
  }

  Variant flat(const std::string& name, const kernels::Rate& rate) {
    return {
        name, bytes_of_update, 1, true, [this, rate](std::int64_t, const Copy& c) {
          PREHEAT_CHECK(kernels::update_flat({}, rate, 5e-4f, size_, c.gradients.data(),
                                             c.weights.data(), c.velocity.data(), stream_.get()));
        }};
  }

  std::vector<Variant> variants() {
    std::vector<Variant> all;
    all.push_back(fused("fused", arena_options()));
    ArenaOptions o;
    o.norms = false;
    all.push_back(fused("fused, no norms", o));
    o = {};
    o.small = true;
    all.push_back(fused("fused, 16-bit gradients and copy", o));
    o = {};
    o.checked = true;
    all.push_back(fused("fused, clipped", o));
    o = {};
    o.rule.nesterov = true;
    all.push_back(fused("fused, nesterov", o));
    o = {};
    o.rule.folded = true;
    all.push_back(fused("fused, folded", o));
    o = {};
    o.advanced = true;
    all.push_back(fused("fused and the next rate", o));
    kernels::Rate constant;
    constant.value = 1e-3f;
    all.push_back(flat("flat, constant rate", constant));
    kernels::Rate from_table;
    from_table.state = state_.data();
    from_table.table = table_.data();
    all.push_back(flat("flat, rate from a table", from_table));
    const auto tensors = static_cast<std::int64_t>(set_.tensors.size());
    if (tensors > 1) {
      Variant v{"one launch a tensor", bytes_of_update, tensors, true, {}};
      v.step = [this, constant](std::int64_t, const Copy& c) {
        for (std::size_t t = 0; t < offsets_.size(); ++t) {
          const std::int64_t at = offsets_[t];
          PREHEAT_CHECK(kernels::update_flat({}, constant, 5e-4f, set_.tensors[t],
                                             c.gradients.data() + at, c.weights.data() + at,
                                             c.velocity.data() + at, stream_.get()));
        }
      };
      all.push_back(v);
    }
    Variant passes{"three passes a tensor", 36, 3 * tensors, true, {}};
    passes.step = [this, constant](std::int64_t, const Copy& c) {
      for (std::size_t t = 0; t < offsets_.size(); ++t) {
        const std::int64_t at = offsets_[t];
        const std::int64_t n = set_.tensors[t];
        float* const w = c.weights.data() + at;
        float* const v = c.velocity.data() + at;
        float* const g = c.gradients.data() + at;
        // Without decay of its own the gradient would grow from step to step: it is not computed
        // anew.
        PREHEAT_CHECK(kernels::add_decay(0, n, w, g, stream_.get()));
        PREHEAT_CHECK(kernels::add_momentum(0.9f, n, g, v, stream_.get()));
        PREHEAT_CHECK(kernels::take_off(constant, n, v, w, stream_.get()));
      }
    };
    all.push_back(passes);
    Variant sent{"fused, rate sent by a copy", bytes_of_update, 2, false, {}};
    sent.step = [this](std::int64_t, const Copy& c) {
      PREHEAT_CHECK(cudaMemcpyAsync(&state_.data()->lr, pinned_rate_.data(), sizeof(float),
                                    cudaMemcpyHostToDevice, stream_.get()));
      PREHEAT_CHECK(kernels::sgd_momentum({}, arena(c, false), state_.data(), loss_.data(), nullptr,
                                          partials_.data(), non_finite_.data(), stream_.get()));
    };
    all.push_back(sent);
    return all;
  }

  std::int64_t steps_at_once() const {
    return std::clamp<std::int64_t>((std::int64_t{1} << 27) / size_, 4, 64);
  }

  UpdateTiming& finish(std::vector<UpdateTiming>& rows, UpdateTiming t, const std::string& name,
                       const std::string& how, double bytes, std::int64_t launches) {
    t.set = set_.name;
    t.variant = name;
    t.how = how;
    t.parameters = floats_;
    t.tensors = static_cast<std::int64_t>(set_.tensors.size());
    t.launches = launches;
    t.bytes = bytes * static_cast<double>(size_);
    t.gigabytes = t.bytes / (1e3 * t.microseconds);
    rows.push_back(t);
    return rows.back();
  }

  UpdateTiming row(std::vector<UpdateTiming>& rows, const Variant& v, const std::string& how) {
    const std::int64_t copies =
        how.ends_with("cold") ? static_cast<std::int64_t>(copies_.size()) : 1;
    const std::int64_t steps =
        std::max(steps_at_once() / std::max<std::int64_t>(1, v.launches / 16), copies);
    const auto enqueue = [&] {
      for (std::int64_t i = 0; i < steps; ++i) v.step(i, copies_[i % copies]);
    };
    UpdateTiming t;
    if (v.in_graph) {
      enqueue();  // loads the code
      const GraphExec graph = instantiate(capture(stream_, enqueue));
      t = time(stream_, rounds_, steps,
               [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream_.get())); });
    } else {
      t = time(stream_, rounds_, steps, enqueue);
    }
    return finish(rows, t, v.name, how, v.bytes, v.launches);
  }

  // A graph of one node, whose rate the host sets before each launch.
  void host_rate_by_node(std::vector<UpdateTiming>& rows) {
    const Copy& c = copies_.front();
    kernels::Rate rate;
    rate.value = 1e-3f;
    const auto enqueue = [&] {
      PREHEAT_CHECK(kernels::update_flat({}, rate, 5e-4f, size_, c.gradients.data(),
                                         c.weights.data(), c.velocity.data(), stream_.get()));
    };
    const Graph graph = capture(stream_, enqueue);
    const GraphExec exec = instantiate(graph);
    cudaGraphNode_t node = nullptr;
    std::size_t count = 1;
    PREHEAT_CHECK(cudaGraphGetNodes(graph.get(), &node, &count));
    cudaKernelNodeParams parameters{};
    PREHEAT_CHECK(cudaGraphKernelNodeGetParams(node, &parameters));
    const std::int64_t steps = steps_at_once();
    const UpdateTiming t = time(stream_, rounds_, steps, [&] {
      for (std::int64_t i = 0; i < steps; ++i) {
        PREHEAT_CHECK(cudaGraphExecKernelNodeSetParams(exec.get(), node, &parameters));
        PREHEAT_CHECK(cudaGraphLaunch(exec.get(), stream_.get()));
      }
    });
    finish(rows, t, "flat, rate set in the graph's node", "launches", bytes_of_update, 1);
  }

  // A graph captured again for every step, and the one before it updated.
  void recapture(std::vector<UpdateTiming>& rows) {
    const Copy& c = copies_.front();
    const auto enqueue = [&] {
      PREHEAT_CHECK(kernels::sgd_momentum({}, arena(c, false), state_.data(), loss_.data(), nullptr,
                                          partials_.data(), non_finite_.data(), stream_.get()));
    };
    const GraphExec exec = instantiate(capture(stream_, enqueue));
    const std::int64_t steps = steps_at_once();
    const UpdateTiming t = time(stream_, rounds_, steps, [&] {
      for (std::int64_t i = 0; i < steps; ++i) {
        const Graph graph = capture(stream_, enqueue);
        cudaGraphExecUpdateResultInfo info{};
        PREHEAT_CHECK(cudaGraphExecUpdate(exec.get(), graph.get(), &info));
        PREHEAT_CHECK(cudaGraphLaunch(exec.get(), stream_.get()));
      }
    });
    finish(rows, t, "fused, captured again each step", "launches", bytes_of_update, 1);
  }

  const UpdateSet& set_;
  const int rounds_;
  Stream stream_ = make_stream();
  std::int64_t size_ = 0;    // of the arena
  std::int64_t floats_ = 0;  // without its padding
  std::vector<std::int64_t> offsets_;
  std::vector<Copy> copies_;
  Buffer<std::uint16_t> segment_of_, small_segment_of_;
  Buffer<kernels::Segment> segments_;
  Buffer<StepState> state_;
  Buffer<kernels::BatchLoss> loss_;
  Buffer<kernels::NonFinite> non_finite_;
  Buffer<kernels::NormPartial> partials_;
  Buffer<kernels::GradientCheck> check_;
  Buffer<kernels::DeviceRecord> records_;
  Buffer<unsigned> counter_;
  Buffer<float> table_;
  PinnedBuffer<float> pinned_rate_;
  LrSchedule schedule_;
};

}  // namespace

std::vector<UpdateTiming> time_updates(const std::vector<UpdateSet>& sets, bool quick) {
  std::vector<UpdateTiming> rows = {time_nothing(7)};
  for (const UpdateSet& set : sets) {
    for (UpdateTiming& t : Bench(set, quick).run()) rows.push_back(std::move(t));
  }
  return rows;
}

}  // namespace preheat::cuda
