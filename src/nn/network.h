// A network as a passive description: its operations, their shapes and their parameters. A backend
// compiles it; nothing here computes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/dataset.h"

namespace preheat {

enum class Init { zero, one, random };

/// Floats that an array of `size` floats occupies in an arena, rounded up to 256 bytes.
constexpr std::int64_t arena_floats(std::int64_t size) {
  constexpr std::int64_t alignment = 256 / sizeof(float);
  return (size + alignment - 1) / alignment * alignment;
}

/// One trainable tensor. All of them are in one flat arena of floats, each aligned to 256 bytes, so
/// that an update is a single pass whatever their number.
struct Parameter {
  std::string name;                 // 3.conv.weight
  std::vector<std::int64_t> shape;  // conv [out, kh, kw, in] (KRSC), linear [out, in], else [n]
  std::int64_t offset = 0;          // in floats
  std::int64_t size = 0;            // in floats
  bool decayed = false;  // weight_decay applies: conv and linear weights, not biases and norms
  Init init = Init::zero;
  std::int64_t fan_in = 0;
  std::int64_t fan_out = 0;
};

/// A running statistic of a batch norm, of shape [size]; not trained, but part of a run's state.
struct Statistic {
  std::string name;  // 3.batch_norm.running_mean
  std::int64_t size = 0;
  Init init = Init::zero;
};

enum class OpKind { conv, max_pool, global_avg_pool, linear };

/// conv:   y = activation(batch_norm(conv(x)) + residual), or activation(conv(x) + bias)
/// linear: y = activation(W flatten(x) + bias), x flattened in NHWC order
struct Op {
  OpKind kind = OpKind::conv;
  std::string name;
  int input = -1;     // index of the op whose output is x; -1: the images
  int residual = -1;  // index of the op whose output is added; -1: none
  ImageShape in;
  ImageShape out;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;  // conv: zeros on all four sides, kernel / 2
  Activation activation;
  // Indices into Network::parameters and ::statistics; -1: none.
  int weight = -1;
  int bias = -1;
  int norm_weight = -1;
  int norm_bias = -1;
  int running_mean = -1;
  int running_var = -1;

  bool normalized() const { return norm_weight >= 0; }
};

/// The ops are topologically sorted; the last one produces the logits.
struct Network {
  ImageShape input;
  std::int64_t classes = 0;
  std::vector<Op> ops;
  std::vector<Parameter> parameters;
  std::vector<Statistic> statistics;
  std::int64_t arena_size = 0;       // in floats, with padding
  std::int64_t parameter_count = 0;  // in floats, without padding
};

inline constexpr float batch_norm_epsilon = 1e-5f;
inline constexpr float batch_norm_momentum = 0.1f;  // running += momentum (batch - running)

/// Infers every shape. Throws ConfigError at a layer that does not fit its input, and at the last
/// layer if its output is not one value per class.
Network build_network(const RunConfig& config, ImageShape input, std::int64_t classes);

/// The parameter arena at step 0: a pure function of (network, model.init, seed), bit-identical on
/// every machine.
std::vector<float> initial_parameters(const Network& network, const ModelConfig& model,
                                      std::uint64_t seed);

/// An activation's slope for negative inputs: none 1, relu 0; tanh 1, as it is a pass of its own.
float slope_of(const Activation& activation);

}  // namespace preheat
