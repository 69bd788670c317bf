#include "backend/cpu/program.h"

#include <algorithm>
#include <string>

#include "config/clock.h"

namespace preheat::cpu {
namespace {

using dnnl::memory;
using dnnl::prop_kind;
using Tag = memory::format_tag;

constexpr auto f32 = memory::data_type::f32;

std::size_t bytes_of(const std::vector<Buffer<float>>& buffers) {
  std::size_t bytes = 0;
  for (const auto& buffer : buffers) bytes += buffer.bytes();
  return bytes;
}

memory::dims strides_of(const Op& op) {
  return {op.stride, op.stride};
}
memory::dims padding_of(const Op& op) {
  return {op.padding, op.padding};
}

// The padding below and to the right that gives a convolution's output the inferred size.
memory::dims padding_after(const Op& op) {
  const auto after = [&](std::int64_t in, std::int64_t out) {
    return (out - 1) * op.stride + op.kernel - in - op.padding;
  };
  return {after(op.in.height, op.out.height), after(op.in.width, op.out.width)};
}

}  // namespace

std::vector<Buffer<float>> make_statistics(const Network& network) {
  std::vector<Buffer<float>> statistics;
  for (const Statistic& s : network.statistics) {
    statistics.emplace_back(s.size);
    std::fill_n(statistics.back().data(), s.size, s.init == Init::one ? 1.0f : 0.0f);
  }
  return statistics;
}

LossResult loss_of(const ReplicaOptions& options, const Network& network,
                   std::span<const std::uint8_t> labels, double smoothing, const float* logits,
                   float* d_logits) {
  return options.loss == Loss::mse
             ? squared_error(labels, network.classes, logits, d_logits)
             : cross_entropy(labels, network.classes, smoothing, logits, d_logits);
}

// Turns ops into tasks.
class Program::Compiler {
 public:
  Compiler(Program& program, const Network& network, std::int64_t batch_size, float* weights,
           float* gradients, std::vector<Buffer<float>>& statistics)
      : p_(program),
        net_(network),
        batch_(batch_size),
        weights_(weights),
        gradients_(gradients),
        statistics_(statistics) {
    attr_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  }

  void compile() {
    std::vector<std::vector<Task>> backward;
    for (int i = 0; i < static_cast<int>(net_.ops.size()); ++i) {
      tasks_.clear();
      switch (net_.ops[i].kind) {
        case OpKind::conv:
          conv(i);
          break;
        case OpKind::max_pool:
          max_pool(i);
          break;
        case OpKind::global_avg_pool:
          global_avg_pool(i);
          break;
        case OpKind::linear:
          linear(i);
          break;
      }
      backward.push_back(std::move(tasks_));
    }
    for (auto op = backward.rbegin(); op != backward.rend(); ++op) {
      std::move(op->begin(), op->end(), std::back_inserter(p_.backward_));
    }
    // Primitives run one after the other, so they share one scratch buffer.
    std::size_t scratch_bytes = 0;
    for (const memory& m : scratch_)
      scratch_bytes = std::max(scratch_bytes, m.get_desc().get_size());
    p_.scratch_ = Buffer<std::uint8_t>(scratch_bytes);
    for (memory& m : scratch_) m.set_data_handle(p_.scratch_.data());
  }

 private:
  struct Argument {
    int name;
    memory value;
  };

  // Uses the C interface, which takes an array made once; the C++ one would build a map per call.
  Call call(const dnnl::primitive& primitive, const memory::desc& scratch_desc,
            std::vector<Argument> arguments) {
    memory scratch(scratch_desc, p_.engine_, DNNL_MEMORY_NONE);
    scratch_.push_back(scratch);
    arguments.push_back({DNNL_ARG_SCRATCHPAD, scratch});
    std::vector<dnnl_exec_arg_t> raw;
    for (const Argument& a : arguments) raw.push_back({a.name, a.value.get()});
    return [primitive, kept = std::move(arguments), raw = std::move(raw),
            stream = p_.stream_.get()](Mode) {
      dnnl::error::wrap_c_api(
          dnnl_primitive_execute(primitive.get(), stream, static_cast<int>(raw.size()), raw.data()),
          "a oneDNN primitive failed");
    };
  }

  memory wrap(const memory::desc& desc, const void* data) const {
    return {desc, p_.engine_, const_cast<void*>(data)};
  }

  memory allocate(const memory::desc& desc) {
    p_.packed_.emplace_back(desc.get_size());
    return wrap(desc, p_.packed_.back().data());
  }

  Call reorder(const memory& from, const memory& to) {
    const dnnl::reorder::primitive_desc d(from, to, attr_);
    return call(dnnl::reorder(d), d.scratchpad_desc(), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  }

  // A weight in the primitive's layout: the arena's own memory, or a copy that a task refreshes.
  memory packed(int op, Purpose purpose, const memory& plain, const memory::desc& wanted) {
    if (plain.get_desc() == wanted) return plain;
    memory copy = allocate(wanted);
    add(op, purpose, "weights into the library's order", moves(2 * weights_of(net_.ops[op])),
        reorder(plain, copy));
    return copy;
  }

  void add(int op, Purpose purpose, const char* work, const Cost& cost, Call run) {
    (purpose == Purpose::output ? p_.forward_ : tasks_)
        .push_back({op, purpose, work, cost, std::move(run)});
  }

  // The cost of reading or writing `floats` floats.
  static Cost moves(double floats) { return {sizeof(float) * floats, 0}; }
  double in_floats(const Op& op) const { return static_cast<double>(batch_ * op.in.size()); }
  // Bytes of the second gradient of an output that two ops read.
  double extra_bytes(int op) const {
    return p_.plan_.second[op] < 0 ? 0 : sizeof(float) * out_floats(net_.ops[op]);
  }
  double out_floats(const Op& op) const { return static_cast<double>(batch_ * op.out.size()); }
  // Of a convolution or matrix product, and of each of its gradients: each reads two of input,
  // weights and output and writes the third.
  Cost product_cost(const Op& op) const {
    return {sizeof(float) * (in_floats(op) + weights_of(op) + out_floats(op)),
            operations_of(op, batch_)};
  }

  float* weight(int parameter) const { return weights_ + net_.parameters[parameter].offset; }
  float* gradient(int parameter) const { return gradients_ + net_.parameters[parameter].offset; }

  float* output(int op) const { return op < 0 ? p_.images_.data() : p_.outputs_[op].data(); }
  float* slot(int index) const { return index < 0 ? nullptr : p_.slots_[index].data(); }
  float* gradient_of_output(int op) const { return slot(p_.plan_.first[op]); }
  float* second_gradient_of_output(int op) const { return slot(p_.plan_.second[op]); }
  float* gradient_to_input(int op) const { return slot(p_.plan_.to_input[op]); }
  float* gradient_to_residual(int op) const { return slot(p_.plan_.to_residual[op]); }

  memory::desc images_desc(const ImageShape& shape) const {
    return {{batch_, shape.channels, shape.height, shape.width}, f32, Tag::nhwc};
  }
  static memory::desc vector_desc(std::int64_t n) { return {{n}, f32, Tag::a}; }

  void conv(int index) {
    const Op& op = net_.ops[index];
    const memory::desc x = images_desc(op.in);
    const memory::desc y = images_desc(op.out);
    const memory::dims w_dims = {op.out.channels, op.in.channels, op.kernel, op.kernel};
    const memory::desc w_plain(w_dims, f32, Tag::ohwi);
    const memory::desc w_any(w_dims, f32, Tag::any);
    const memory::desc b = op.bias < 0 ? memory::desc() : vector_desc(op.out.channels);
    // Direct, requested by name: in NHWC it is oneDNN's automatic choice as well, but Winograd, its
    // choice in a blocked layout, is several times slower for few input channels
    // (docs/benchmarks.md).
    constexpr auto direct = dnnl::algorithm::convolution_direct;

    const dnnl::convolution_forward::primitive_desc forward(
        {prop_kind::forward_training, direct, x, w_any, b, y, strides_of(op), padding_of(op),
         padding_after(op)},
        attr_, p_.engine_);
    const memory w = wrap(w_plain, weight(op.weight));
    const memory x_memory = wrap(x, output(op.input));
    float* z = op.normalized() ? p_.normalized_[index].data() : output(index);
    {
      std::vector<Argument> arguments = {
          {DNNL_ARG_SRC, x_memory},
          {DNNL_ARG_WEIGHTS, packed(index, Purpose::output, w, forward.weights_desc())},
          {DNNL_ARG_DST, wrap(y, z)}};
      if (op.bias >= 0) arguments.push_back({DNNL_ARG_BIAS, wrap(b, weight(op.bias))});
      add(index, Purpose::output, "convolution", product_cost(op),
          call(dnnl::convolution_forward(forward), forward.scratchpad_desc(),
               std::move(arguments)));
    }
    finish_forward(index);
    begin_backward(index);

    const memory dz = wrap(y, gradient_of_output(index));
    {
      const dnnl::convolution_backward_weights::primitive_desc d(
          {direct, x, w_any, b, y, strides_of(op), padding_of(op), padding_after(op)}, attr_,
          p_.engine_, forward);
      weight_gradient(index, d, dnnl::convolution_backward_weights(d), x_memory, dz, w_plain, b);
    }
    if (float* dx = gradient_to_input(index)) {
      const dnnl::convolution_backward_data::primitive_desc d(
          {direct, x, w_any, y, strides_of(op), padding_of(op), padding_after(op)}, attr_,
          p_.engine_, forward);
      data_gradient(index, d, dnnl::convolution_backward_data(d), dz, w, wrap(x, dx));
    }
  }

  void linear(int index) {
    const Op& op = net_.ops[index];
    const memory::desc x({batch_, op.in.size()}, f32, Tag::ab);
    const memory::desc y({batch_, op.out.channels}, f32, Tag::ab);
    const memory::dims w_dims = {op.out.channels, op.in.size()};
    const memory::desc w_plain(w_dims, f32, Tag::ab);
    const memory::desc w_any(w_dims, f32, Tag::any);
    const memory::desc b = vector_desc(op.out.channels);

    const dnnl::inner_product_forward::primitive_desc forward(
        {prop_kind::forward_training, x, w_any, b, y}, attr_, p_.engine_);
    const memory w = wrap(w_plain, weight(op.weight));
    const memory x_memory = wrap(x, output(op.input));
    const memory w_packed = packed(index, Purpose::output, w, forward.weights_desc());
    add(index, Purpose::output, "matrix product", product_cost(op),
        call(dnnl::inner_product_forward(forward), forward.scratchpad_desc(),
             {{DNNL_ARG_SRC, x_memory},
              {DNNL_ARG_WEIGHTS, w_packed},
              {DNNL_ARG_BIAS, wrap(b, weight(op.bias))},
              {DNNL_ARG_DST, wrap(y, output(index))}}));
    finish_forward(index);
    begin_backward(index);

    const memory dz = wrap(y, gradient_of_output(index));
    {
      const dnnl::inner_product_backward_weights::primitive_desc d({x, w_any, b, y}, attr_,
                                                                   p_.engine_, forward);
      weight_gradient(index, d, dnnl::inner_product_backward_weights(d), x_memory, dz, w_plain, b);
    }
    if (float* dx = gradient_to_input(index)) {
      const dnnl::inner_product_backward_data::primitive_desc d({x, w_any, y}, attr_, p_.engine_,
                                                                forward);
      data_gradient(index, d, dnnl::inner_product_backward_data(d), dz, w, wrap(x, dx));
    }
  }

  template <class Descriptor>
  void weight_gradient(int index, const Descriptor& d, const dnnl::primitive& primitive,
                       const memory& x, const memory& dz, const memory::desc& plain,
                       const memory::desc& bias) {
    const Op& op = net_.ops[index];
    const memory target = wrap(plain, gradient(op.weight));
    const bool direct = d.diff_weights_desc() == plain;
    const memory dw = direct ? target : allocate(d.diff_weights_desc());
    std::vector<Argument> arguments = {
        {DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_DST, dz}, {DNNL_ARG_DIFF_WEIGHTS, dw}};
    if (op.bias >= 0) arguments.push_back({DNNL_ARG_DIFF_BIAS, wrap(bias, gradient(op.bias))});
    add(index, Purpose::weight_gradient, "weight gradient", product_cost(op),
        call(primitive, d.scratchpad_desc(), std::move(arguments)));
    if (direct) return;
    add(index, Purpose::weight_gradient, "weight gradient into the arena's order",
        moves(2 * weights_of(op)), reorder(dw, target));
  }

  template <class Descriptor>
  void data_gradient(int index, const Descriptor& d, const dnnl::primitive& primitive,
                     const memory& dz, const memory& w, const memory& dx) {
    const memory w_packed = packed(index, Purpose::data_gradient, w, d.weights_desc());
    add(index, Purpose::data_gradient, "data gradient", product_cost(net_.ops[index]),
        call(primitive, d.scratchpad_desc(),
             {{DNNL_ARG_DIFF_DST, dz}, {DNNL_ARG_WEIGHTS, w_packed}, {DNNL_ARG_DIFF_SRC, dx}}));
  }

  Matrix matrix_of(const Op& op) const {
    return {batch_ * op.out.height * op.out.width, op.out.channels};
  }

  BatchNorm norm_of(int index) const {
    const Op& op = net_.ops[index];
    const float* moments = p_.moments_[index].data();
    return {weight(op.norm_weight), weight(op.norm_bias), moments, moments + op.out.channels};
  }

  // The passes after a convolution or matrix product: batch norm, the residual, the activation.
  void finish_forward(int index) {
    const Op& op = net_.ops[index];
    if (op.normalized()) {
      normalize(index);
    } else if (const float slope = slope_of(op.activation); slope != 1) {
      add(index, Purpose::output, "activation", moves(2 * out_floats(op)),
          [size = matrix_of(op), slope, y = output(index)](Mode) { activate(size, slope, y); });
    }
    if (op.activation.kind == ActivationKind::tanh) tanh(index);
  }

  void tanh(int index) {
    const Op& op = net_.ops[index];
    const dnnl::eltwise_forward::primitive_desc forward(
        {prop_kind::forward_training, dnnl::algorithm::eltwise_tanh, images_desc(op.out), 0, 0},
        attr_, p_.engine_);
    const memory y = wrap(images_desc(op.out), output(index));
    add(index, Purpose::output, "tanh", moves(2 * out_floats(op)),
        call(dnnl::eltwise_forward(forward), forward.scratchpad_desc(),
             {{DNNL_ARG_SRC, y}, {DNNL_ARG_DST, y}}));
  }

  void normalize(int index) {
    const Op& op = net_.ops[index];
    const Matrix size = matrix_of(op);
    const float slope = slope_of(op.activation);
    float* y = output(index);
    const double floats = out_floats(op);
    const BatchNorm norm = norm_of(index);
    const float* x = p_.normalized_[index].data();
    float* mean = p_.moments_[index].data();
    float* running_mean = statistics_[op.running_mean].data();
    float* running_var = statistics_[op.running_var].data();
    const float* residual = op.residual < 0 ? nullptr : output(op.residual);
    add(index, Purpose::output, "moments", moves(floats),
        [=, sums = p_.sums_.data(), in_training = &p_.in_training_](Mode mode) {
          float* inv_std = mean + size.channels;
          if (mode == Mode::training && !in_training->fixed_statistics[index]) {
            batch_norm_statistics(size, x, mean, inv_std, running_mean, running_var, sums);
          } else {
            batch_norm_frozen(size.channels, running_mean, running_var, mean, inv_std);
          }
        });
    add(index, Purpose::output, "batch norm, activation",
        moves((residual != nullptr ? 3 : 2) * floats),
        [=](Mode) { batch_norm_forward(size, slope, norm, x, residual, y); });
  }

  // Their gradient: turns the gradient of the output into that of the convolution's own result.
  void begin_backward(int index) {
    const Op& op = net_.ops[index];
    const Matrix size = matrix_of(op);
    const float slope = slope_of(op.activation);
    const float* y = output(index);
    float* dy = gradient_of_output(index);
    const float* extra = second_gradient_of_output(index);
    const double floats = out_floats(op);
    if (op.activation.kind == ActivationKind::tanh) {
      add(index, Purpose::output_gradient, "tanh's gradient",
          moves((extra != nullptr ? 4 : 3) * floats),
          [=](Mode) { tanh_backward(size, y, extra, dy); });
      extra = nullptr;
    }
    if (!op.normalized()) {
      if (slope == 1 && extra == nullptr) return;
      add(index, Purpose::output_gradient, "activation's gradient",
          moves((extra != nullptr ? 4 : 3) * floats),
          [=](Mode) { activate_backward(size, slope, y, extra, dy); });
      return;
    }
    const BatchNorm norm = norm_of(index);
    const float* x = p_.normalized_[index].data();
    float* d_residual = gradient_to_residual(index);
    float* d_weight = gradient(op.norm_weight);
    float* d_bias = gradient(op.norm_bias);
    // Two passes: x, y and dy into the sums and dz, which is the residual's gradient or takes the
    // place of dy; x and dz into dx.
    const int arrays = 7 + (extra != nullptr ? 1 : 0);
    add(index, Purpose::output_gradient, "batch norm's gradient", moves(arrays * floats),
        [=, sums = p_.sums_.data(), in_training = &p_.in_training_](Mode) {
          batch_norm_backward(size, slope, norm, in_training->fixed_statistics[index], x, y, extra,
                              dy, d_residual, d_weight, d_bias, sums);
        });
  }

  void max_pool(int index) {
    const Op& op = net_.ops[index];
    const Pooling pooling{batch_, op.in, op.out, op.kernel};
    p_.packed_.emplace_back(batch_ * op.out.size());
    std::uint8_t* at = p_.packed_.back().data();
    const double places = out_floats(op);  // a byte each
    const Cost cost{sizeof(float) * (in_floats(op) + out_floats(op)) + places, 0};
    const Cost gradient_cost{cost.bytes + extra_bytes(index), 0};
    add(index, Purpose::output, "max pooling", cost,
        [=, x = output(op.input), y = output(index)](Mode) { cpu::max_pool(pooling, x, y, at); });
    if (float* dx = gradient_to_input(index)) {
      add(index, Purpose::data_gradient, "max pooling's gradient", gradient_cost,
          [=, dy = gradient_of_output(index), extra = second_gradient_of_output(index)](Mode) {
            max_pool_backward(pooling, dy, extra, at, dx);
          });
    }
  }

  void global_avg_pool(int index) {
    const Op& op = net_.ops[index];
    const std::int64_t positions = op.in.height * op.in.width;
    const std::int64_t channels = op.in.channels;
    const Cost cost = moves(in_floats(op) + out_floats(op));
    const Cost gradient_cost{cost.bytes + extra_bytes(index), 0};
    add(index, Purpose::output, "average pooling", cost,
        [=, batch = batch_, x = output(op.input), y = output(index)](Mode) {
          cpu::global_avg_pool(batch, positions, channels, x, y);
        });
    if (float* dx = gradient_to_input(index)) {
      add(index, Purpose::data_gradient, "average pooling's gradient", gradient_cost,
          [=, batch = batch_, dy = gradient_of_output(index),
           extra = second_gradient_of_output(index)](Mode) {
            global_avg_pool_backward(batch, positions, channels, dy, extra, dx);
          });
    }
  }

  Program& p_;
  const Network& net_;
  std::int64_t batch_;
  float* weights_;
  float* gradients_;
  std::vector<Buffer<float>>& statistics_;
  dnnl::primitive_attr attr_;
  std::vector<memory> scratch_;
  std::vector<Task> tasks_;  // of the current op, in backward
};

Program::Program(const Network& network, std::int64_t batch_size, float* weights, float* gradients,
                 std::vector<Buffer<float>>& statistics)
    : network_(network), plan_(plan_gradients(network)), in_training_(network) {
  std::int64_t widest = 0;
  for (const Op& op : network.ops) widest = std::max(widest, op.out.channels);
  images_ = Buffer<float>(batch_size * network.input.size());
  for (const Op& op : network.ops) {
    const std::int64_t size = batch_size * op.out.size();
    outputs_.emplace_back(size);
    normalized_.emplace_back(op.normalized() ? size : 0);
    moments_.emplace_back(op.normalized() ? 2 * op.out.channels : 0);
  }
  for (const std::int64_t size : plan_.slot_sizes) slots_.emplace_back(batch_size * size);
  sums_ = Buffer<double>(2 * sum_blocks * widest);
  Compiler(*this, network, batch_size, weights, gradients, statistics).compile();
}

std::size_t Program::bytes_needed(const Network& network, std::int64_t batch_size) {
  std::int64_t floats = network.input.size();
  for (const Op& op : network.ops) floats += op.out.size() * (op.normalized() ? 2 : 1);
  for (const std::int64_t size : plan_gradients(network).slot_sizes) floats += size;
  return static_cast<std::size_t>(floats * batch_size) * sizeof(float);
}

float* Program::d_logits() {
  return slots_[plan_.first.back()].data();
}

// The CPU engine's stream is the calling thread, so a call has finished when it returns.
void Program::run(const Task& task, Mode mode, StepParts* parts) {
  if (parts == nullptr) return task.run(mode);
  const auto start = Clock::now();
  task.run(mode);
  const char* pass = task.purpose == Purpose::output ? "forward" : "backward";
  parts->add({pass, network_.ops[task.op].name, task.work, task.cost}, start);
}

void Program::forward(Mode mode, StepParts* parts) {
  for (const Task& task : forward_) run(task, mode, parts);
  stream_.wait();
}

void Program::backward(StepParts* parts) {
  for (const Task& task : backward_) {
    if (task.op < in_training_.lowest) break;
    if (task.purpose == Purpose::weight_gradient && !in_training_.weights[task.op]) continue;
    if (task.purpose == Purpose::data_gradient && task.op == in_training_.lowest) continue;
    run(task, Mode::training, parts);
  }
  stream_.wait();
}

std::span<const float> Program::output(int op) const {
  return {outputs_[op].data(), outputs_[op].size()};
}

std::size_t Program::activation_bytes() const {
  return images_.bytes() + bytes_of(outputs_) + bytes_of(normalized_) + bytes_of(moments_) +
         bytes_of(slots_);
}

std::size_t Program::workspace_bytes() const {
  std::size_t bytes = sums_.bytes() + scratch_.bytes();
  for (const auto& buffer : packed_) bytes += buffer.bytes();
  return bytes;
}

}  // namespace preheat::cpu
