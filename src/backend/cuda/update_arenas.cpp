#include "backend/cuda/update_arenas.h"

#include <algorithm>
#include <utility>

#include "nn/network.h"

namespace preheat::cuda {
namespace {

constexpr std::int64_t record_capacity = 1024;

}  // namespace

UpdateArenas::UpdateArenas(const UpdateSet& set, const UpdatePattern& pattern,
                           const LrSchedule& schedule)
    : layout(set), set_(set), pattern_(pattern), first_(first_step(schedule)) {
  std::vector<std::uint16_t> plain(layout.size / kernels::chunk_floats);
  for (std::size_t t = 0; t < set.tensors.size(); ++t) {
    const std::int64_t first = layout.offsets[t] / kernels::chunk_floats;
    std::fill_n(plain.begin() + first, arena_floats(set.tensors[t]) / kernels::chunk_floats,
                static_cast<std::uint16_t>(t));
  }
  std::vector<std::uint16_t> flagged = plain;
  for (std::uint16_t& entry : flagged) entry |= kernels::has_16bit_gradient;
  segment_of_ = uploaded(plain);
  segment_of_16bit_ = uploaded(flagged);
  segments_ = uploaded(std::vector<kernels::Segment>(set.tensors.size(), {1, bench_decay, 1}));
  state = Buffer<StepState>(1);
  kernels::BatchLoss one_example;
  one_example.examples = 1;
  loss_ = uploaded(std::vector<kernels::BatchLoss>{one_example});
  non_finite_ = uploaded(std::vector<kernels::NonFinite>(1));
  partials_ = Buffer<kernels::NormPartial>(
      std::max(kernels::update_blocks(layout.size), kernels::check_blocks(layout.size)));
  check_ = Buffer<kernels::GradientCheck>(1);
  counter_ = uploaded(std::vector<unsigned>{0});
  records_ = Buffer<kernels::DeviceRecord>(record_capacity);
  add_instances(1);
}

void UpdateArenas::add_instances(std::int64_t count) {
  while (static_cast<std::int64_t>(instances.size()) < count) {
    Instance p;
    p.weights = Buffer<float>(layout.size);
    p.velocity = Buffer<float>(layout.size);
    p.gradients = Buffer<float>(layout.size);
    if (instances.empty()) {
      p.weights_16bit = Buffer<std::uint16_t>(layout.size);
      p.gradients_16bit = Buffer<std::uint16_t>(layout.size);
      clear(p.weights_16bit, stream);
      clear(p.gradients_16bit, stream);
    }
    instances.push_back(std::move(p));
    fill(instances.back());
  }
}

void UpdateArenas::fill(const Instance& instance) const {
  fill_with(pattern_.weights, instance.weights, stream);
  fill_with(pattern_.velocity, instance.velocity, stream);
  fill_with(pattern_.gradients, instance.gradients, stream);
  set_step(first_);
}

void UpdateArenas::set_step(const StepState& step) const {
  upload(std::span(&step, 1), state.data(), stream);
  wait(stream);
}

kernels::Arena UpdateArenas::arena(const Instance& instance, bool with_16bit) const {
  kernels::Arena a;
  a.weights = instance.weights.data();
  a.velocity = instance.velocity.data();
  a.gradients = instance.gradients.data();
  a.size = layout.size;
  a.segment_of = with_16bit ? segment_of_16bit_.data() : segment_of_.data();
  a.segments = segments_.data();
  if (with_16bit) {
    a.weights_16bit = instance.weights_16bit.data();
    a.gradients_16bit = instance.gradients_16bit.data();
    a.element_16bit = kernels::Element::bf16;
  }
  return a;
}

void UpdateArenas::update(const Instance& instance, const Features& f) const {
  const kernels::Arena a = arena(instance, f.with_16bit);
  if (f.checked) {
    PREHEAT_CHECK(kernels::check_gradients(a, state.data(), 1e9, partials_.data(), counter_.data(),
                                           check_.data(), stream.get()));
  }
  PREHEAT_CHECK(kernels::sgd_momentum(
      f.rule, a, state.data(), loss_.data(), f.checked ? check_.data() : nullptr,
      f.norms ? partials_.data() : nullptr, non_finite_.data(), stream.get()));
}

void UpdateArenas::advance(const LrSchedule& schedule) const {
  const std::span partials(partials_.data(), kernels::update_blocks(layout.size));
  PREHEAT_CHECK(kernels::advance_step(schedule, state.data(), loss_.data(), partials, nullptr,
                                      false, std::span(records_.data(), record_capacity),
                                      stream.get()));
}

void UpdateArenas::clear_rate() const {
  StepState without = first_;
  without.lr = 0;
  set_step(without);
}

void UpdateArenas::check_first_instance(const UpdateCheck& check) const {
  const auto read = [this](const Buffer<float>& from) {
    return [this, &from](std::int64_t first, std::int64_t count) {
      std::vector<float> values(count);
      download(from.data() + first, std::span(values), stream);
      wait(stream);
      return values;
    };
  };
  const Instance& p = instances.front();
  check_update(check, set_, layout, pattern_, read(p.weights), read(p.velocity));
}

}  // namespace preheat::cuda
