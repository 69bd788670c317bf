// A network compiled for the CPU: two lists of tasks, forward and backward, over buffers allocated
// once. Running them allocates nothing and makes no choices.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "backend/backend.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/kernels.h"
#include "backend/gradient_plan.h"
#include "backend/stages.h"
#include "backend/step_parts.h"

namespace preheat::cpu {

/// Running means and variances at their initial values, one buffer per Network::statistics.
std::vector<Buffer<float>> make_statistics(const Network& network);

/// A run's loss over logits [labels.size(), Network::classes], as kernels.h computes it; squared
/// errors are not smoothed. `d_logits` (may be null) is the gradient of the mean.
LossResult loss_of(const ReplicaOptions& options, const Network& network,
                   std::span<const std::uint8_t> labels, double smoothing, const float* logits,
                   float* d_logits);

enum class Mode { training, evaluation };

class Program {
 public:
  /// `weights` and `gradients` are arenas of Network::arena_size floats, `statistics` has one
  /// buffer per Network::statistics; these and the network must outlive the program. Throws Error
  /// if memory is insufficient.
  Program(const Network& network, std::int64_t batch_size, float* weights, float* gradients,
          std::vector<Buffer<float>>& statistics);
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// Bytes of the activations and their gradients.
  static std::size_t bytes_needed(const Network& network, std::int64_t batch_size);

  float* images() { return images_.data(); }  // [batch, h, w, c], forward's input
  const float* logits() const { return outputs_.back().data(); }  // [batch, classes]
  float* d_logits();  // [batch, classes], backward's input

  /// From now on backward() computes only the gradients of trained parameters and those they depend
  /// on, and batch norms marked fixed use their running statistics in training too.
  void train_only(const TrainedOps& in_training) { in_training_ = in_training; }

  /// With `parts` each call is timed and added to them.
  void forward(Mode mode, StepParts* parts = nullptr);
  /// Overwrites the gradients of all trained parameters.
  void backward(StepParts* parts = nullptr);

  std::span<const float> output(int op) const;  // activations of the last forward
  std::size_t activation_bytes() const;
  std::size_t workspace_bytes() const;

 private:
  class Compiler;

  enum class Purpose { output, output_gradient, weight_gradient, data_gradient };
  using Call = std::function<void(Mode)>;
  struct Task {
    int op;
    Purpose purpose;
    const char* work;
    Cost cost;
    Call run;
  };
  void run(const Task& task, Mode mode, StepParts* parts);

  const Network& network_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  GradientPlan plan_;
  Buffer<float> images_;
  std::vector<Buffer<float>> outputs_;     // by op
  std::vector<Buffer<float>> normalized_;  // by op: the input of its batch norm; empty without one
  std::vector<Buffer<float>> moments_;     // by op: the batch's mean and 1 / std
  std::vector<Buffer<float>> slots_;       // of the gradient plan
  std::vector<Buffer<std::uint8_t>> packed_;  // weights in a primitive's layout; poolings' maxima
  Buffer<double> sums_;                       // scratch of the batch norms
  Buffer<std::uint8_t> scratch_;              // scratch of oneDNN
  std::vector<Task> forward_;
  std::vector<Task> backward_;
  TrainedOps in_training_;
};

}  // namespace preheat::cpu
