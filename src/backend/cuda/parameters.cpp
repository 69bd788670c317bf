#include "backend/cuda/parameters.h"

#include <algorithm>
#include <span>

#include "backend/cuda/convolution.h"

namespace preheat::cuda {
namespace {

bool has_16_bits(Precision precision) {
  return bytes_of(element_of(precision)) == 2;
}

}  // namespace

Network padded_network(const Network& network, Precision precision) {
  constexpr std::int64_t pack = 8;
  Network padded = network;
  const std::int64_t channels = (network.input.channels + pack - 1) / pack * pack;
  const bool only_convolutions = std::ranges::all_of(
      network.ops, [](const Op& op) { return op.input >= 0 || op.kind == OpKind::conv; });
  if (!has_16_bits(precision) || channels == network.input.channels || !only_convolutions) {
    return padded;
  }
  padded.input.channels = channels;
  for (Op& op : padded.ops) {
    if (op.input >= 0) continue;
    op.in.channels = channels;
    Parameter& weight = padded.parameters[op.weight];
    weight.size = weight.size / weight.shape.back() * channels;
    weight.shape.back() = channels;
  }
  padded.arena_size = 0;
  for (Parameter& p : padded.parameters) {
    p.offset = padded.arena_size;
    padded.arena_size += arena_floats(p.size);
  }
  return padded;
}

std::int64_t zero_channels(const Network& padded, const Op& op) {
  return op.in.channels - padded.parameters[op.weight].fan_in / (op.kernel * op.kernel);
}

std::vector<Buffer<float>> make_statistics(const Network& network, const Stream& stream) {
  std::vector<Buffer<float>> statistics;
  for (const Statistic& s : network.statistics) {
    const std::vector<float> values(s.size, s.init == Init::one ? 1.0f : 0.0f);
    statistics.emplace_back(s.size);
    upload(std::span(values), statistics.back().data(), stream);
    wait(stream);
  }
  return statistics;
}

kernels::LossOptions loss_options(const ReplicaOptions& options, double smoothing) {
  return {options.loss == Loss::mse, smoothing};
}

ParameterArena::ParameterArena(const Network& network, Precision precision, Use use)
    : element(element_of(precision)),
      weights(network.arena_size),
      velocity(use == Use::probing ? 0 : network.arena_size),
      mean_gradients(use == Use::training_in_passes ? network.arena_size : 0),
      gradients(network.arena_size),
      weights_16bit(has_16_bits(precision) ? network.arena_size : 0),
      gradients_16bit(has_16_bits(precision) ? network.arena_size : 0),
      gradient_is_16bit(network.parameters.size()) {
  for (const Op& op : network.ops) {
    if (op.kind == OpKind::conv) gradient_is_16bit[op.weight] = has_16_bits(precision);
  }
}

std::size_t ParameterArena::bytes_needed(const Network& network, Precision precision, Use use) {
  const std::size_t arrays = use == Use::probing ? 2 : use == Use::training ? 3 : 4;
  const std::size_t in_32_bits = arrays * sizeof(float);
  const std::size_t in_16_bits = has_16_bits(precision) ? 2 * sizeof(std::uint16_t) : 0;
  return network.arena_size * (in_32_bits + in_16_bits);
}

std::size_t ParameterArena::bytes() const {
  return weights.bytes() + velocity.bytes() + mean_gradients.bytes() + gradients.bytes() +
         weights_16bit.bytes() + gradients_16bit.bytes();
}

}  // namespace preheat::cuda
