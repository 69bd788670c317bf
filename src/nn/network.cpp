#include "nn/network.h"

#include <fmt/format.h>

namespace preheat {
namespace {

std::string to_string(const ImageShape& shape) {
  return fmt::format("{}x{}x{}", shape.height, shape.width, shape.channels);
}

class Builder {
 public:
  Builder(const RunConfig& config, ImageShape input, std::int64_t classes) : config_(config) {
    network_.input = input;
    network_.classes = classes;
  }

  Network build() {
    const auto& layers = config_.model.layers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      key_ = fmt::format("model.layers.{}", i);
      name_ = layers[i].name.value_or(std::to_string(i));
      std::visit([&](const auto& layer) { add(layer); }, layers[i].layer);
    }
    if (shape() != ImageShape{1, 1, network_.classes}) {
      fail(fmt::format("the last layer gives {}, not one value for each of the {} classes",
                       to_string(shape()), network_.classes),
           fmt::format("end with linear: {{out: {}}}", network_.classes));
    }
    return std::move(network_);
  }

 private:
  int last() const { return static_cast<int>(network_.ops.size()) - 1; }
  const ImageShape& shape() const { return shape_of(last()); }
  const ImageShape& shape_of(int op) const {
    return op < 0 ? network_.input : network_.ops[op].out;
  }

  [[noreturn]] void fail(const std::string& problem, const std::string& remedy) const {
    throw ConfigError(config_.where(key_), fmt::format("layer '{}': {}", name_, problem), remedy);
  }

  int parameter(const std::string& name, std::vector<std::int64_t> dimensions, Init init) {
    Parameter p;
    p.name = name;
    p.size = 1;
    for (const std::int64_t n : dimensions) p.size *= n;
    p.shape = std::move(dimensions);
    p.offset = network_.arena_size;
    p.init = init;
    network_.arena_size += arena_floats(p.size);
    network_.parameter_count += p.size;
    network_.parameters.push_back(std::move(p));
    return static_cast<int>(network_.parameters.size()) - 1;
  }

  int weight(const std::string& name, std::vector<std::int64_t> dimensions, std::int64_t fan_in,
             std::int64_t fan_out) {
    const int index = parameter(name, std::move(dimensions), Init::random);
    Parameter& p = network_.parameters[index];
    p.decayed = true;
    p.fan_in = fan_in;
    p.fan_out = fan_out;
    return index;
  }

  int statistic(const std::string& name, std::int64_t size, Init init) {
    network_.statistics.push_back({name, size, init});
    return static_cast<int>(network_.statistics.size()) - 1;
  }

  // Appends a convolution that reads op `input` and returns its index.
  int conv(const std::string& name, int input, const ConvLayer& layer, int residual = -1) {
    Op op;
    op.kind = OpKind::conv;
    op.name = name;
    op.input = input;
    op.residual = residual;
    op.in = shape_of(input);
    op.kernel = layer.kernel;
    op.stride = layer.stride;
    op.padding = layer.kernel / 2;
    op.activation = layer.activation;
    op.out = {(op.in.height - 1) / layer.stride + 1, (op.in.width - 1) / layer.stride + 1,
              layer.out};
    const std::int64_t taps = layer.kernel * layer.kernel;
    op.weight =
        weight(name + ".conv.weight", {layer.out, layer.kernel, layer.kernel, op.in.channels},
               taps * op.in.channels, taps * layer.out);
    if (layer.batch_norm) {
      op.norm_weight = parameter(name + ".batch_norm.weight", {layer.out}, Init::one);
      op.norm_bias = parameter(name + ".batch_norm.bias", {layer.out}, Init::zero);
      op.running_mean = statistic(name + ".batch_norm.running_mean", layer.out, Init::zero);
      op.running_var = statistic(name + ".batch_norm.running_var", layer.out, Init::one);
    } else {
      op.bias = parameter(name + ".conv.bias", {layer.out}, Init::zero);
    }
    network_.ops.push_back(op);
    return last();
  }

  void add(const ConvLayer& layer) { conv(name_, last(), layer); }

  void add(const MaxPoolLayer& layer) {
    const ImageShape in = shape();
    if (in.height < layer.kernel || in.width < layer.kernel) {
      fail(fmt::format("max_pool of kernel {} does not fit into its input of {}", layer.kernel,
                       to_string(in)),
           "a smaller kernel, or fewer layers that shrink the image");
    }
    Op op;
    op.kind = OpKind::max_pool;
    op.name = name_;
    op.input = last();
    op.in = in;
    op.kernel = op.stride = layer.kernel;
    op.out = {in.height / layer.kernel, in.width / layer.kernel, in.channels};
    network_.ops.push_back(op);
  }

  // He et al. 2015, section 4.2, with the projection shortcut (option B) where shapes change.
  void add(const ResidualStageLayer& layer) {
    const ConvLayer plain{layer.out, 3, 1, true, layer.activation};
    for (std::int64_t block = 0; block < layer.blocks; ++block) {
      const std::string name = fmt::format("{}.block{}", name_, block);
      const int input = last();
      const std::int64_t stride = block == 0 ? layer.stride : 1;
      ConvLayer first = plain;
      first.stride = stride;
      const int inner = conv(name + ".first", input, first);
      int shortcut = input;
      if (stride != 1 || shape_of(input).channels != layer.out || input < 0) {
        const ConvLayer projection{layer.out, 1, stride, true, {ActivationKind::none}};
        shortcut = conv(name + ".shortcut", input, projection);
      }
      conv(name + ".second", inner, plain, shortcut);
    }
  }

  void add(const GlobalAvgPoolLayer&) {
    Op op;
    op.kind = OpKind::global_avg_pool;
    op.name = name_;
    op.input = last();
    op.in = shape();
    op.out = {1, 1, op.in.channels};
    network_.ops.push_back(op);
  }

  void add(const LinearLayer& layer) {
    Op op;
    op.kind = OpKind::linear;
    op.name = name_;
    op.input = last();
    op.in = shape();
    op.out = {1, 1, layer.out};
    op.activation = layer.activation;
    op.weight =
        weight(name_ + ".linear.weight", {layer.out, op.in.size()}, op.in.size(), layer.out);
    op.bias = parameter(name_ + ".linear.bias", {layer.out}, Init::zero);
    network_.ops.push_back(op);
  }

  const RunConfig& config_;
  Network network_;
  std::string key_;   // of the current layer
  std::string name_;  // of the current layer
};

}  // namespace

Network build_network(const RunConfig& config, ImageShape input, std::int64_t classes) {
  return Builder(config, input, classes).build();
}

float slope_of(const Activation& activation) {
  switch (activation.kind) {
    case ActivationKind::none:
    case ActivationKind::tanh:
      return 1;
    case ActivationKind::relu:
      return 0;
    case ActivationKind::leaky_relu:
      return static_cast<float>(activation.slope);
  }
  return 1;
}

}  // namespace preheat
