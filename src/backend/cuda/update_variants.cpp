#include "backend/cuda/update_variants.h"

#include <algorithm>
#include <utility>

namespace preheat::cuda {
namespace {

constexpr double separate_rounding_bound =
    1e-6;                         // sums that are rounded where the fused update rounds once
constexpr float momentum = 0.9f;  // SgdMomentum's own

kernels::Rate by_value() {
  kernels::Rate rate;
  rate.value = bench_rate;
  return rate;
}

}  // namespace

UpdateVariants::UpdateVariants(const UpdateSet& set, const UpdateArenas& arenas,
                               const LrSchedule& schedule)
    : set_(set), arenas_(arenas), schedule_(schedule) {
  add_features();
  add_flat();
  add_by_tensor();
  add_cublas();
  add_rate_by_copy();
  add_rate_in_node();
  add_recapture();
}

UpdateVariant UpdateVariants::copy() const {
  return {"copy", 8, 1, [this](const Instance& p) {
            PREHEAT_CHECK(kernels::copy(p.gradients.data(), p.weights.data(), size(), stream()));
          }};
}

UpdateVariant UpdateVariants::read_three_write_two() const {
  return {"read 3, write 2", bytes_of_update, 1, [this](const Instance& p) {
            PREHEAT_CHECK(kernels::read_three_write_two(p.weights.data(), p.velocity.data(),
                                                        p.gradients.data(), size(), stream()));
          }};
}

UpdateVariant UpdateVariants::fused(const std::string& name,
                                    const UpdateArenas::Features& f) const {
  UpdateVariant v;
  v.name = name;
  v.rule = f.rule;
  v.launches = 1 + (f.checked ? 1 : 0);
  v.bytes = bytes_of_update + (f.checked ? 4 : 0);
  v.gradients_are_zero = f.with_16bit;
  v.step = [this, f](const Instance& p) { arenas_.update(p, f); };
  return v;
}

void UpdateVariants::verify(const UpdateVariant& v) const {
  const UpdateCheck check{v.name, v.rule, v.bound, v.gradients_are_zero};
  const bool sends_rate = v.set_host_rate != nullptr;
  arenas_.verify(check, sends_rate, v.step);
  if (!v.in_graph) return;
  arenas_.verify(check, sends_rate, [&](const Instance& p) {
    // A rate that the host has at the time of the capture must have no effect.
    if (sends_rate) v.set_host_rate(0);
    const GraphExec graph = instantiate(capture(arenas_.stream, [&] { v.step(p); }));
    if (sends_rate) v.set_host_rate(bench_rate);
    PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream()));
    wait(arenas_.stream);
  });
}

// Updates the arena as if it were one tensor, without norms.
void UpdateVariants::update_as_one(const kernels::Rate& rate, const Instance& p) const {
  PREHEAT_CHECK(kernels::update_flat({}, rate, bench_decay, size(), p.gradients.data(),
                                     p.weights.data(), p.velocity.data(), stream()));
}

template <class Work>
void UpdateVariants::for_each_tensor(const Instance& p, const Work& work) const {
  for (std::size_t t = 0; t < set_.tensors.size(); ++t) {
    const std::int64_t at = arenas_.layout.offsets[t];
    work(set_.tensors[t], p.weights.data() + at, p.velocity.data() + at, p.gradients.data() + at);
  }
}

void UpdateVariants::add_features() {
  all_.push_back(fused());
  UpdateArenas::Features f;
  f.norms = false;
  all_.push_back(fused("fused, no norms", f));
  f = {};
  f.with_16bit = true;
  all_.push_back(fused("fused, 16-bit gradients and copy", f));
  f = {};
  f.checked = true;
  all_.push_back(fused("fused, clipped", f));
  f = {};
  f.rule.nesterov = true;
  all_.push_back(fused("fused, nesterov", f));
  f = {};
  f.rule.folded = true;
  all_.push_back(fused("fused, folded", f));
  UpdateVariant with_next = fused("fused and the next rate", {});
  with_next.launches = 2;
  with_next.step = [this](const Instance& p) {
    arenas_.update(p, {});
    arenas_.advance(schedule_);
  };
  all_.push_back(std::move(with_next));
}

// The rate as an argument, and read from a table on the device.
void UpdateVariants::add_flat() {
  table_ = arenas_.uploaded(std::vector<float>(1 << 10, bench_rate));
  kernels::Rate from_table;
  from_table.state = arenas_.state.data();
  from_table.table = table_.data();
  const auto add = [&](const char* name, const kernels::Rate& rate) {
    all_.push_back(
        {name, bytes_of_update, 1, [this, rate](const Instance& p) { update_as_one(rate, p); }});
  };
  add("fused_value", by_value());
  add("fused_table", from_table);
}

void UpdateVariants::add_by_tensor() {
  const auto tensors = static_cast<std::int64_t>(set_.tensors.size());
  if (tensors > 1) {
    all_.push_back(
        {"per_tensor", bytes_of_update, tensors, [this](const Instance& p) {
           for_each_tensor(p, [&](std::int64_t n, float* w, float* v, float* g) {
             PREHEAT_CHECK(kernels::update_flat({}, by_value(), bench_decay, n, g, w, v, stream()));
           });
         }});
  }
  UpdateVariant passes{"three_pass", 36, 3 * tensors, [this](const Instance& p) {
                         for_each_tensor(p, [&](std::int64_t n, float* w, float* v, float* g) {
                           PREHEAT_CHECK(kernels::add_decay(bench_decay, n, w, g, stream()));
                           PREHEAT_CHECK(kernels::add_momentum(momentum, n, g, v, stream()));
                           PREHEAT_CHECK(kernels::subtract_scaled(by_value(), n, v, w, stream()));
                         });
                       }};
  passes.bound = separate_rounding_bound;
  all_.push_back(std::move(passes));
}

void UpdateVariants::add_cublas() {
  cublasHandle_t raw = nullptr;
  PREHEAT_CHECK(cublasCreate(&raw));
  cublas_ = Cublas(raw);
  PREHEAT_CHECK(cublasSetStream(raw, stream()));
  const auto tensors = static_cast<std::int64_t>(set_.tensors.size());
  UpdateVariant cublas{"cublas", 44, 4 * tensors, [this](const Instance& p) {
                         const float one = 1;
                         const float minus_rate = -bench_rate;
                         for_each_tensor(p, [&](std::int64_t n, float* w, float* v, float* g) {
                           const int count = static_cast<int>(n);
                           cublasHandle_t handle = cublas_.get();
                           PREHEAT_CHECK(cublasSaxpy(handle, count, &bench_decay, w, 1, g, 1));
                           PREHEAT_CHECK(cublasSscal(handle, count, &momentum, v, 1));
                           PREHEAT_CHECK(cublasSaxpy(handle, count, &one, g, 1, v, 1));
                           PREHEAT_CHECK(cublasSaxpy(handle, count, &minus_rate, v, 1, w, 1));
                         });
                       }};
  cublas.bound = separate_rounding_bound;
  all_.push_back(std::move(cublas));
}

// ---- Ways for a host to supply each step's rate ------------------------------------------------

// In a graph the copy is a node that reads the host's value when it runs: what the host writes
// between two launches counts for the next one, and all steps of a launch send the value that each
// finds. So a graph of several steps has one rate, unless the host writes while it runs.
void UpdateVariants::add_rate_by_copy() {
  pinned_rate_ = PinnedBuffer<float>(1);
  pinned_rate_.data()[0] = bench_rate;
  UpdateVariant copied{
      "host_rate, by a copy", bytes_of_update, 2, [this](const Instance& p) {
        PREHEAT_CHECK(cudaMemcpyAsync(&arenas_.state.data()->lr, pinned_rate_.data(), sizeof(float),
                                      cudaMemcpyHostToDevice, stream()));
        arenas_.update(p, {});
      }};
  copied.set_host_rate = [this](float rate) { pinned_rate_.data()[0] = rate; };
  all_.push_back(std::move(copied));
}

// A graph of one node, captured without a rate, whose argument the host sets before each launch. It
// works on the first instance.
void UpdateVariants::add_rate_in_node() {
  const auto enqueue = [this] { update_as_one({}, arenas_.instances.front()); };
  enqueue();  // loads the code, which is not allowed during a capture
  node_graph_ = capture(arenas_.stream, enqueue);
  node_exec_ = instantiate(node_graph_);
  std::size_t count = 1;
  PREHEAT_CHECK(cudaGraphGetNodes(node_graph_.get(), &node_, &count));
  PREHEAT_CHECK(cudaGraphKernelNodeGetParams(node_, &node_parameters_));
  std::copy_n(node_parameters_.kernelParams, node_arguments_.size(), node_arguments_.begin());
  node_arguments_[kernels::update_flat_rate_argument] = &node_rate_;
  node_parameters_.kernelParams = node_arguments_.data();
  UpdateVariant set_in_node{
      "host_rate, in the graph's node", bytes_of_update, 1, [this](const Instance&) {
        PREHEAT_CHECK(cudaGraphExecKernelNodeSetParams(node_exec_.get(), node_, &node_parameters_));
        PREHEAT_CHECK(cudaGraphLaunch(node_exec_.get(), stream()));
      }};
  set_in_node.in_graph = false;
  all_.push_back(std::move(set_in_node));
}

// Captures the graph anew for every step and updates the previous executable graph.
void UpdateVariants::add_recapture() {
  const auto enqueue = [this](const Instance& p) { arenas_.update(p, {}); };
  enqueue(arenas_.instances.front());  // loads the code
  recaptured_exec_ =
      instantiate(capture(arenas_.stream, [&] { enqueue(arenas_.instances.front()); }));
  UpdateVariant recapture{
      "recapture", bytes_of_update, 1, [this, enqueue](const Instance& p) {
        const Graph graph = capture(arenas_.stream, [&] { enqueue(p); });
        cudaGraphExecUpdateResultInfo info{};
        PREHEAT_CHECK(cudaGraphExecUpdate(recaptured_exec_.get(), graph.get(), &info));
        PREHEAT_CHECK(cudaGraphLaunch(recaptured_exec_.get(), stream()));
      }};
  recapture.in_graph = false;
  all_.push_back(std::move(recapture));
}

}  // namespace preheat::cuda
