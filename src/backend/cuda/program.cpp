#include "backend/cuda/program.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/float_16bit.h"

namespace preheat::cuda {
namespace {

std::int32_t narrow(std::int64_t n) {
  return static_cast<std::int32_t>(n);
}

// One stored number as a float.
float value_at(kernels::Element element, const std::uint8_t* bytes) {
  if (element == kernels::Element::f32) {
    float value = 0;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return from_16bit(element, bits);
}

// The numbers stored in `bytes` bytes on the device.
std::vector<float> values_of(const std::uint8_t* data, std::size_t bytes, kernels::Element element,
                             const Stream& stream) {
  std::vector<std::uint8_t> stored(bytes);
  download(data, std::span(stored), stream);
  wait(stream);
  std::vector<float> values(bytes / bytes_of(element));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = value_at(element, &stored[i * bytes_of(element)]);
  }
  return values;
}

constexpr const char* forward_pass = "forward";
constexpr const char* backward_pass = "backward";

// The share of a convolution's output that is left after a 2 x 2 pooling.
double pooled_share(bool pooled) {
  return pooled ? 0.25 : 1;
}

int last_op(const Network& network) {
  return static_cast<int>(network.ops.size()) - 1;
}

// The logits of a matrix product stay in its accumulation type, and their bias is added in place.
bool has_exact_output(const Network& network, int index) {
  const Op& op = network.ops[index];
  return index == last_op(network) && op.kind == OpKind::linear &&
         op.activation.kind == ActivationKind::none;
}

// Whether only a 2 x 2 pooling reads the convolution's output. With relu and whole windows the
// pooled values then hold everything that is needed of that output.
bool can_fuse_pooling(const Network& network, int index) {
  if (index < 0 || index == last_op(network)) return false;
  const Op& op = network.ops[index];
  const Op& next = network.ops[index + 1];
  if (op.kind != OpKind::conv || op.residual >= 0 || slope_of(op.activation) != 0) return false;
  if (next.kind != OpKind::max_pool || next.input != index || next.kernel != 2) return false;
  if (op.out.height % 2 != 0 || op.out.width % 2 != 0) return false;
  for (int i = index + 2; i <= last_op(network); ++i) {
    if (network.ops[i].input == index || network.ops[i].residual == index) return false;
  }
  return true;
}

template <class T>
std::size_t bytes_of_all(const std::vector<Buffer<T>>& buffers) {
  std::size_t bytes = 0;
  for (const Buffer<T>& buffer : buffers) bytes += buffer.bytes();
  return bytes;
}

}  // namespace

Program::Program(const Network& network, std::int64_t batch_size, Precision precision,
                 bool deterministic, ParameterArena& parameters,
                 std::vector<Buffer<float>>& statistics, Libraries& libraries)
    : network_(network),
      batch_(batch_size),
      element_(element_of(precision)),
      parameters_(parameters),
      statistics_(statistics),
      libraries_(libraries),
      plan_(plan_gradients(network)),
      ops_(network.ops.size()),
      in_training_(network) {
  const std::size_t element = bytes_of(element_);
  images_ = Buffer<std::uint8_t>(batch_ * network.input.size() * element);
  labels_ = Buffer<std::int32_t>(batch_);
  std::int64_t widest = 1;
  for (int i = 0; i <= last_op(network); ++i) {
    const Op& op = network.ops[i];
    ops_[i].pooled = can_fuse_pooling(network, i);
    ops_[i].fused_into_previous = can_fuse_pooling(network, i - 1);
    widest = std::max(widest, op.out.channels);
    const OpBytes bytes = bytes_of_op(network, i, batch_, element_);
    outputs_.emplace_back(bytes.output);
    sources_.emplace_back(bytes.source);
    moments_.emplace_back(bytes.moments / sizeof(float));
    max_positions_.emplace_back(bytes.places);
    if (op.kind == OpKind::conv) plan_conv(i, deterministic, precision);
    if (op.kind == OpKind::linear) plan_linear(i, precision);
  }
  for (const std::int64_t size : plan_.slot_sizes) slots_.emplace_back(batch_ * size * element);
  sums_ = Buffer<float>(kernels::channel_sums_floats(narrow(widest)));
  counter_ = Buffer<unsigned>(1);
  clear(counter_, side_);
  wait(side_);  // no stream that uses it is ordered after this one
  std::size_t workspace = 1;
  std::size_t side_workspace = 1;
  const auto make_room = [](std::size_t& bytes, const auto& call) {
    if (call) bytes = std::max(bytes, call->workspace_bytes());
  };
  for (const CompiledOp& op : ops_) {
    make_room(workspace, op.forward);
    make_room(workspace, op.product);
    make_room(workspace, op.data_gradient);
    make_room(workspace, op.product_data);
    make_room(side_workspace, op.weight_gradient);
    make_room(side_workspace, op.product_weights);
    forked_.push_back(make_event());
    joined_.push_back(make_event());
  }
  workspace_ = Buffer<std::uint8_t>(workspace);
  side_workspace_ = Buffer<std::uint8_t>(side_workspace);
  side_stream_reader_.assign(slots_.size(), -1);
}

Program::OpBytes Program::bytes_of_op(const Network& network, int index, std::int64_t batch_size,
                                      kernels::Element element) {
  const Op& op = network.ops[index];
  const bool weighted = op.kind == OpKind::conv || op.kind == OpKind::linear;
  const bool exact = has_exact_output(network, index);
  const std::size_t numbers = batch_size * op.out.size();
  const std::size_t array = numbers * bytes_of(exact ? kernels::Element::f32 : element);
  OpBytes bytes;
  if (!can_fuse_pooling(network, index)) bytes.output = array;
  if (weighted && !exact) bytes.source = array;
  if (op.normalized()) bytes.moments = 2 * arena_floats(op.out.channels) * sizeof(float);
  if (op.kind == OpKind::max_pool && !can_fuse_pooling(network, index - 1)) bytes.places = numbers;
  return bytes;
}

std::size_t Program::bytes_needed(const Network& network, std::int64_t batch_size,
                                  Precision precision) {
  const kernels::Element element = element_of(precision);
  std::int64_t numbers = network.input.size();
  for (const std::int64_t size : plan_gradients(network).slot_sizes) numbers += size;
  std::size_t bytes = batch_size * numbers * bytes_of(element);
  for (int i = 0; i <= last_op(network); ++i) {
    const OpBytes op = bytes_of_op(network, i, batch_size, element);
    bytes += op.output + op.source + op.moments + op.places;
  }
  return bytes;
}

kernels::Element Program::element_of_output(int op) const {
  return has_exact_output(network_, op) ? kernels::Element::f32 : element_;
}

void Program::plan_conv(int index, bool deterministic, Precision precision) {
  const Op& op = network_.ops[index];
  Convolution c{Pass::forward,  input_of(op),  output_of(op),
                op.kernel,      op.stride,     op.padding,
                precision,      deterministic, narrow(zero_channels(network_, op)),
                op.normalized()};
  CompiledOp& compiled = ops_[index];
  compiled.forward = libraries_.plans->choose(c);
  c.moments = false;
  c.pass = Pass::weight_gradient;
  compiled.weight_gradient = libraries_.plans->choose(c);
  if (op.input < 0) return;
  c.pass = Pass::data_gradient;
  compiled.data_gradient = libraries_.plans->choose(c);
}

void Program::plan_linear(int index, Precision precision) {
  const Op& op = network_.ops[index];
  const bool tf32 = precision == Precision::tf32;
  const std::int64_t in = op.in.size();
  const std::int64_t out = op.out.channels;
  CompiledOp& compiled = ops_[index];
  const cublasLtHandle_t handle = libraries_.cublas.get();
  compiled.product.emplace(
      handle, Product{batch_, out, in, false, true, element_, element_of_output(index), tf32});
  compiled.product_weights.emplace(
      handle, Product{out, in, batch_, true, false, element_, kernels::Element::f32, tf32});
  if (op.input < 0) return;
  compiled.product_data.emplace(handle,
                                Product{batch_, in, out, false, false, element_, element_, tf32});
}

kernels::Logits Program::logits() const {
  return {element_of_output(last_op(network_)), outputs_.back().data(), batch_,
          narrow(network_.classes), labels_.data()};
}

kernels::Batch Program::batch() const {
  return {images_.data(), labels_.data(), batch_, narrow(network_.input.channels)};
}

void* Program::d_logits() const {
  return slot(plan_.first.back());
}

kernels::Images Program::input_of(const Op& op) const {
  return {batch_, narrow(op.in.height), narrow(op.in.width), narrow(op.in.channels)};
}

kernels::Images Program::output_of(const Op& op) const {
  return {batch_, narrow(op.out.height), narrow(op.out.width), narrow(op.out.channels)};
}

void* Program::output_data(int op) const {
  if (op < 0) return images_.data();
  return outputs_[ops_[op].pooled ? op + 1 : op].data();
}

float* Program::plain(const Buffer<float>& arena, int parameter) const {
  return parameter < 0 ? nullptr : arena.data() + network_.parameters[parameter].offset;
}

void* Program::weight(int parameter) const {
  const std::int64_t offset = network_.parameters[parameter].offset;
  if (parameters_.weights_16bit.size() > 0) return parameters_.weights_16bit.data() + offset;
  return parameters_.weights.data() + offset;
}

void* Program::gradient(int parameter) const {
  const std::int64_t offset = network_.parameters[parameter].offset;
  if (parameters_.gradients_16bit.size() > 0) return parameters_.gradients_16bit.data() + offset;
  return parameters_.gradients.data() + offset;
}

kernels::Norm Program::norm_of(const Op& op, int index, bool running) const {
  kernels::Norm norm;
  if (!op.normalized()) {
    norm.bias = plain(parameters_.weights, op.bias);
    return norm;
  }
  norm.weight = plain(parameters_.weights, op.norm_weight);
  norm.bias = plain(parameters_.weights, op.norm_bias);
  norm.epsilon = batch_norm_epsilon;
  if (running) {
    norm.mean = statistics_[op.running_mean].data();
    norm.var = statistics_[op.running_var].data();
  } else {
    norm.mean = moments_[index].data();
    norm.inv_std = moments_[index].data() + arena_floats(op.out.channels);
  }
  return norm;
}

kernels::BatchMoments Program::moments_of(const Op& op, int index, Mode mode,
                                          const StepState* state) const {
  kernels::BatchMoments moments;
  moments.mean = moments_[index].data();
  moments.inv_std = moments_[index].data() + arena_floats(op.out.channels);
  moments.epsilon = batch_norm_epsilon;
  moments.momentum = batch_norm_momentum;
  moments.scratch = sums();
  if (mode != Mode::training) return moments;
  moments.running_mean = statistics_[op.running_mean].data();
  moments.running_var = statistics_[op.running_var].data();
  moments.state = state;
  return moments;
}

double Program::in_bytes(const Op& op, double arrays) const {
  return arrays * static_cast<double>(batch_ * op.in.size() * bytes_of(element_));
}

double Program::out_bytes(const Op& op, double arrays) const {
  return out_bytes(op, arrays, element_);
}
double Program::out_bytes(const Op& op, double arrays, kernels::Element stored) const {
  return arrays * static_cast<double>(batch_ * op.out.size() * bytes_of(stored));
}

Cost Program::pooling_cost(const Op& op) const {
  const auto places = static_cast<double>(batch_ * op.out.size());  // a byte each
  return {in_bytes(op) + out_bytes(op) + places, 0};
}

// Channels of padding are moved but not computed with.
Cost Program::product_cost(const Op& op, kernels::Element output, kernels::Element weights) const {
  Op real = op;
  if (op.kind == OpKind::conv) real.in.channels -= zero_channels(network_, op);
  return {in_bytes(op) + weights_of(op) * static_cast<double>(bytes_of(weights)) +
              out_bytes(op, 1, output),
          operations_of(real, batch_)};
}

void Program::finish_part(const char* pass, int op, const char* work, const Cost& cost) {
  if (meter_ != nullptr) meter_->finish_part({pass, network_.ops[op].name, work, cost});
}

void Program::forward_weighted(int index, Mode mode, const StepState* state, const Stream& stream) {
  const Op& op = network_.ops[index];
  const CompiledOp& compiled = ops_[index];
  void* const x = output_data(op.input);
  void* const source =
      has_exact_output(network_, index) ? outputs_[index].data() : sources_[index].data();
  const bool running =
      op.normalized() && (mode == Mode::evaluation || in_training_.fixed_statistics[index]);
  const bool takes_moments = op.normalized() && !running;
  const bool on_the_way = takes_moments && compiled.forward && compiled.forward->gives_moments();
  const kernels::Element written = element_of_output(index);
  kernels::BatchMoments moments;
  if (takes_moments) moments = moments_of(op, index, mode, state);
  if (compiled.forward) {
    compiled.forward->run(
        libraries_.cudnn.get(), stream.get(),
        {x, weight(op.weight), source, workspace_.data(), on_the_way ? &moments : nullptr});
    finish_part(forward_pass, index, on_the_way ? "convolution, moments" : "convolution",
                product_cost(op, written, element_));
  } else {
    compiled.product->run(libraries_.cublas.get(), x, weight(op.weight), source, workspace_.data(),
                          stream.get());
    finish_part(forward_pass, index, "matrix product", product_cost(op, written, element_));
  }
  if (takes_moments && !on_the_way) {
    PREHEAT_CHECK(kernels::batch_moments(element_, output_of(op), source, moments, stream.get()));
    finish_part(forward_pass, index, "moments", {out_bytes(op), 0});
  }
  PREHEAT_CHECK(kernels::normalize_forward(
      written, output_of(op), {slope_of(op.activation), compiled.pooled},
      norm_of(op, index, running), source, op.residual < 0 ? nullptr : output_data(op.residual),
      output_data(index), stream.get()));
  const double arrays = 1 + (op.residual < 0 ? 0 : 1) + pooled_share(compiled.pooled);
  finish_part(forward_pass, index, op.normalized() ? "batch norm, activation" : "bias, activation",
              {out_bytes(op, arrays, written), 0});
  if (op.activation.kind != ActivationKind::tanh) return;
  PREHEAT_CHECK(kernels::tanh_forward(element_, output_of(op), output_data(index), stream.get()));
  finish_part(forward_pass, index, "tanh", {out_bytes(op, 2), 0});
}

void Program::forward(Mode mode, const StepState* state, const Stream& stream, StepMeter* meter) {
  meter_ = meter;
  for (int i = 0; i <= last_op(network_); ++i) {
    const Op& op = network_.ops[i];
    switch (op.kind) {
      case OpKind::conv:
      case OpKind::linear:
        forward_weighted(i, mode, state, stream);
        break;
      case OpKind::max_pool:
        if (ops_[i].fused_into_previous) break;
        PREHEAT_CHECK(kernels::max_pool(element_, input_of(op), narrow(op.kernel),
                                        output_data(op.input), output_data(i),
                                        max_positions_[i].data(), stream.get()));
        finish_part(forward_pass, i, "max pooling", pooling_cost(op));
        break;
      case OpKind::global_avg_pool:
        PREHEAT_CHECK(kernels::global_avg_pool(element_, input_of(op), output_data(op.input),
                                               output_data(i), stream.get()));
        finish_part(forward_pass, i, "average pooling", {in_bytes(op) + out_bytes(op), 0});
        break;
    }
  }
}

// Runs on the side stream, as soon as dz is known; on the main one while parts are timed.
void Program::weight_gradient(int index, const void* dz, const Stream& stream) {
  const Op& op = network_.ops[index];
  const CompiledOp& compiled = ops_[index];
  void* const x = output_data(op.input);
  const Stream& aside = meter_ != nullptr ? stream : side_;
  if (&aside == &side_) {
    PREHEAT_CHECK(cudaEventRecord(forked_[index].get(), stream.get()));
    PREHEAT_CHECK(cudaStreamWaitEvent(side_.get(), forked_[index].get()));
  }
  if (compiled.weight_gradient) {
    compiled.weight_gradient->run(
        libraries_.cudnn.get(), aside.get(),
        {x, gradient(op.weight), const_cast<void*>(dz), side_workspace_.data()});
  } else {
    compiled.product_weights->run(libraries_.cublas.get(), dz, x,
                                  plain(parameters_.gradients, op.weight), side_workspace_.data(),
                                  aside.get());
  }
  finish_part(
      backward_pass, index, "weight gradient",
      product_cost(op, element_, compiled.weight_gradient ? element_ : kernels::Element::f32));
  if (&aside != &side_) return;
  PREHEAT_CHECK(cudaEventRecord(joined_[index].get(), side_.get()));
  side_stream_reader_[plan_.first[index]] = index;
}

void Program::before_writing(int slot, const Stream& stream) {
  if (slot < 0 || side_stream_reader_[slot] < 0) return;
  PREHEAT_CHECK(cudaStreamWaitEvent(stream.get(), joined_[side_stream_reader_[slot]].get()));
  side_stream_reader_[slot] = -1;
}

void Program::backward_weighted(int index, const Stream& stream) {
  const Op& op = network_.ops[index];
  const CompiledOp& compiled = ops_[index];
  const int reader = compiled.pooled ? index + 1 : index;
  const void* const dy = slot(plan_.first[reader]);
  const void* extra = slot(plan_.second[reader]);
  const void* const y = output_data(index);
  // The gradient of the convolution's or product's output.
  void* const dz = slot(plan_.first[index]);
  before_writing(plan_.first[index], stream);
  if (op.activation.kind == ActivationKind::tanh) {  // never pooled, so dz is dy
    PREHEAT_CHECK(kernels::tanh_backward(element_, output_of(op), y, extra, dz, stream.get()));
    finish_part(backward_pass, index, "tanh's gradient",
                {out_bytes(op, extra != nullptr ? 4 : 3), 0});
    extra = nullptr;
  }
  const bool fixed = in_training_.fixed_statistics[index];
  const kernels::Fusion fusion{slope_of(op.activation), compiled.pooled, op.residual >= 0};
  const kernels::NormBackward first_pass{
      element_, output_of(op), fusion, norm_of(op, index, fixed), sources_[index].data(),
      dy,       extra};
  // What the kernels read: y and x where they need the sign of z, and dy and extra, counted in
  // arrays of the size of x.
  const bool needs_sign = fusion.slope != 1;
  const bool reads_y = needs_sign && fusion.residual;
  const double given = pooled_share(compiled.pooled) * (extra != nullptr ? 2 : 1);
  if (op.normalized()) {
    float* const d_weight = plain(parameters_.gradients, op.norm_weight);
    float* const d_bias = plain(parameters_.gradients, op.norm_bias);
    const int residual_slot = plan_.to_residual[index];
    before_writing(residual_slot, stream);
    void* const d_residual = slot(residual_slot);
    PREHEAT_CHECK(kernels::normalize_backward_sums(first_pass, y, d_residual, d_weight, d_bias,
                                                   sums(), stream.get()));
    const bool known = d_residual != nullptr;
    finish_part(backward_pass, index, "batch norm's gradient, sums",
                {out_bytes(op, 1 + given + (reads_y ? 1 : 0) + (known ? 1 : 0)), 0});
    kernels::NormBackward second_pass = first_pass;
    if (known) {
      second_pass.fusion = {};
      second_pass.dy = d_residual;
      second_pass.extra = nullptr;
    }
    PREHEAT_CHECK(
        kernels::normalize_backward(second_pass, fixed, d_weight, d_bias, dz, stream.get()));
    const bool reads_x = !fixed || compiled.pooled || (needs_sign && !known);
    finish_part(backward_pass, index, "batch norm's gradient",
                {out_bytes(op, (reads_x ? 1 : 0) + (known ? 1 : given) + 1), 0});
  } else {
    const bool changes = needs_sign || fusion.pooled || extra != nullptr;
    PREHEAT_CHECK(kernels::normalize_backward_sums(first_pass, y, changes ? dz : nullptr, nullptr,
                                                   plain(parameters_.gradients, op.bias), sums(),
                                                   stream.get()));
    const bool reads_x = compiled.pooled || (needs_sign && !reads_y);
    const double arrays = (reads_x ? 1 : 0) + (reads_y ? 1 : 0) + given + (changes ? 1 : 0);
    finish_part(backward_pass, index, "bias's and activation's gradient",
                {out_bytes(op, arrays), 0});
  }
  if (in_training_.weights[index]) weight_gradient(index, dz, stream);
  if (index == in_training_.lowest) return;
  const int target = plan_.to_input[index];
  if (target < 0) return;
  before_writing(target, stream);
  if (compiled.data_gradient) {
    compiled.data_gradient->run(libraries_.cudnn.get(), stream.get(),
                                {slot(target), weight(op.weight), dz, workspace_.data()});
  } else {
    compiled.product_data->run(libraries_.cublas.get(), dz, weight(op.weight), slot(target),
                               workspace_.data(), stream.get());
  }
  finish_part(backward_pass, index, "data gradient", product_cost(op, element_, element_));
}

void Program::backward(const Stream& stream, StepMeter* meter) {
  meter_ = meter;
  std::ranges::fill(side_stream_reader_, -1);
  int last_aside = -1;
  for (int i = last_op(network_); i >= in_training_.lowest; --i) {
    const Op& op = network_.ops[i];
    if (op.kind == OpKind::conv || op.kind == OpKind::linear) {
      backward_weighted(i, stream);
      if (in_training_.weights[i]) last_aside = i;
      continue;
    }
    const int target = plan_.to_input[i];
    if (target < 0 || ops_[i].fused_into_previous) continue;
    before_writing(target, stream);
    const void* const dy = slot(plan_.first[i]);
    const void* const extra = slot(plan_.second[i]);
    if (op.kind == OpKind::max_pool) {
      PREHEAT_CHECK(kernels::max_pool_backward(element_, input_of(op), narrow(op.kernel), dy, extra,
                                               max_positions_[i].data(), slot(target),
                                               stream.get()));
      finish_part(backward_pass, i, "max pooling's gradient",
                  {pooling_cost(op).bytes + (extra != nullptr ? out_bytes(op) : 0), 0});
    } else {
      PREHEAT_CHECK(kernels::global_avg_pool_backward(element_, input_of(op), dy, extra,
                                                      slot(target), stream.get()));
      finish_part(backward_pass, i, "average pooling's gradient",
                  {in_bytes(op) + out_bytes(op, extra != nullptr ? 2 : 1), 0});
    }
  }
  if (last_aside >= 0 && meter_ == nullptr) {
    PREHEAT_CHECK(cudaStreamWaitEvent(stream.get(), joined_[last_aside].get()));
  }
}

std::vector<float> Program::output(int op, const Stream& stream) const {
  const int held = ops_[op].pooled ? op + 1 : op;
  return values_of(outputs_[held].data(), outputs_[held].size(), element_of_output(held), stream);
}

std::vector<float> Program::whole_output(int index, const Stream& stream) {
  if (!ops_[index].pooled) return output(index, stream);
  const Op& op = network_.ops[index];
  std::uint8_t* const y = slots_[plan_.first[index]].data();
  const bool running = op.normalized() && in_training_.fixed_statistics[index];
  PREHEAT_CHECK(kernels::normalize_forward(
      element_, output_of(op), {slope_of(op.activation), false}, norm_of(op, index, running),
      sources_[index].data(), nullptr, y, stream.get()));
  return values_of(y, sources_[index].size(), element_, stream);
}

std::size_t Program::activation_bytes() const {
  return images_.bytes() + bytes_of_all(outputs_) + bytes_of_all(sources_) +
         bytes_of_all(moments_) + bytes_of_all(max_positions_) + bytes_of_all(slots_);
}

}  // namespace preheat::cuda
