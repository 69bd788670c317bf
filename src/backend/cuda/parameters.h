// What a program computes with that is not its own: the network as it is stored on the device, its
// parameters and running statistics, and the options of the loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "config/config.h"
#include "kernels/launch.h"
#include "nn/network.h"

namespace preheat::cuda {

/// The network as stored on the device. In 16 bits tensor cores need convolutions to read whole
/// packs of 8 channels, so images are padded with zero channels, whose weights are and stay zero.
/// In fp32 it is the network itself.
Network padded_network(const Network& network, Precision precision);

/// Padding channels of a convolution's input: those that its fan-in excludes.
std::int64_t zero_channels(const Network& padded, const Op& op);

/// The parameters of a padded network, each at its offset in the arena.
struct ParameterArena {
  // Training in several passes also sums their gradients; a probe has no velocity.
  enum class Use { training, training_in_passes, probing };

  ParameterArena(const Network& network, Precision precision, Use use = Use::training);
  static std::size_t bytes_needed(const Network& network, Precision precision,
                                  Use use = Use::training);
  std::size_t bytes() const;

  kernels::Element element;  // of the 16-bit arrays; f32 if there are none
  Buffer<float> weights;
  Buffer<float> velocity;        // empty if probing
  Buffer<float> mean_gradients;  // of an update's passes; empty if there is one
  Buffer<float> gradients;       // of norms, biases and matrices; in fp32 of convolutions too
  Buffer<std::uint16_t> weights_16bit;    // the weights once more; empty in fp32
  Buffer<std::uint16_t> gradients_16bit;  // of convolutions; empty in fp32
  std::vector<bool> gradient_is_16bit;    // by parameter: its gradient is in gradients_16bit
};

/// Running means and variances at their initial values, one buffer per Network::statistics.
std::vector<Buffer<float>> make_statistics(const Network& network, const Stream& stream);

/// A run's loss in the form that the kernel takes.
kernels::LossOptions loss_options(const ReplicaOptions& options, double smoothing);

}  // namespace preheat::cuda
