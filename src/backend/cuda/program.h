// A network compiled for the GPU: the library call or kernel that computes each op, over buffers
// allocated once. Forward and backward only put work on a stream, and what they put there does not
// depend on values on the device, so both can be captured into a graph.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "backend/cuda/convolution.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/matmul.h"
#include "backend/cuda/parameters.h"
#include "backend/cuda/step_meter.h"
#include "backend/gradient_plan.h"
#include "backend/stages.h"
#include "kernels/launch.h"

namespace preheat::cuda {

enum class Mode {
  training,    // batch norms use the batch's moments and keep running statistics
  probing,     // and keep no statistics
  evaluation,  // use the running statistics
};

class Program {
 public:
  /// `network` is padded, `statistics` has one buffer per Network::statistics; all must outlive the
  /// program, which writes gradients and statistics. Plans every convolution and product: the
  /// caller must hold the libraries' mutex. Throws Error if something has no plan or memory is
  /// insufficient.
  Program(const Network& network, std::int64_t batch_size, Precision precision, bool deterministic,
          ParameterArena& parameters, std::vector<Buffer<float>>& statistics, Libraries& libraries);
  ~Program() { cudaStreamSynchronize(side_.get()); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// The future activation_bytes(): the activations and their gradients.
  static std::size_t bytes_needed(const Network& network, std::int64_t batch_size,
                                  Precision precision);

  kernels::Batch batch() const;  // forward's input
  kernels::Element element() const { return element_; }
  kernels::Logits logits() const;  // forward's output
  void* d_logits() const;          // [batch, classes], backward's input

  /// What the next calls train: backward stops below the lowest trained op.
  void train_only(const TrainedOps& in_training) { in_training_ = in_training; }

  /// Both put work on the stream; the caller must hold the libraries' mutex. `state` says whether
  /// running statistics still move; it may be null if the mode keeps none. With a meter they use
  /// only the stream they are given, and tell the meter what they put there.
  void forward(Mode mode, const StepState* state, const Stream& stream, StepMeter* meter = nullptr);
  void backward(const Stream& stream, StepMeter* meter = nullptr);

  /// The activations of the last forward, on the host. For a convolution fused with its pooling,
  /// those of the pooling: the largest value and the dead channels are the same.
  std::vector<float> output(int op, const Stream& stream) const;

  /// The same, but of such a convolution too, whose own output is made again for it: between a
  /// forward in training or probing and the next change of the weights. Overwrites a gradient. The
  /// caller holds the mutex of the libraries or, shared, their device.
  std::vector<float> whole_output(int op, const Stream& stream);

  std::size_t activation_bytes() const;
  std::size_t workspace_bytes() const {
    return workspace_.bytes() + side_workspace_.bytes() + sums_.bytes();
  }

 private:
  struct CompiledOp {
    std::shared_ptr<const ConvolutionPlan> forward, data_gradient, weight_gradient;
    std::optional<Matmul> product, product_data, product_weights;
    bool pooled = false;               // fused with the pooling after it
    bool fused_into_previous = false;  // a pooling fused with the op before it
  };

  // Memory kept for an op, in bytes.
  struct OpBytes {
    std::size_t output = 0;   // 0 if the pooling holds it
    std::size_t source = 0;   // the input of its norm or bias
    std::size_t moments = 0;  // the batch's mean, then 1 / std
    std::size_t places = 0;   // of the maxima of an unfused pooling
  };
  static OpBytes bytes_of_op(const Network& network, int op, std::int64_t batch_size,
                             kernels::Element element);

  kernels::Element element_of_output(int op) const;
  void plan_conv(int op, bool deterministic, Precision precision);
  void plan_linear(int op, Precision precision);

  kernels::Images input_of(const Op& op) const;
  kernels::Images output_of(const Op& op) const;
  void* output_data(int op) const;
  void* slot(int index) const { return index < 0 ? nullptr : slots_[index].data(); }
  void* weight(int parameter) const;    // in the type it is computed with
  void* gradient(int parameter) const;  // of a weight
  float* plain(const Buffer<float>& arena, int parameter) const;
  kernels::Norm norm_of(const Op& op, int index, bool running) const;
  kernels::BatchMoments moments_of(const Op& op, int index, Mode mode,
                                   const StepState* state) const;
  kernels::SumScratch sums() const { return {sums_.data(), counter_.data()}; }

  // Bytes of `arrays` arrays of the size of the op's input or output.
  double in_bytes(const Op& op, double arrays = 1) const;
  double out_bytes(const Op& op, double arrays = 1) const;
  double out_bytes(const Op& op, double arrays, kernels::Element stored) const;
  // Of a convolution or product with its output and its weights stored as these.
  Cost product_cost(const Op& op, kernels::Element output, kernels::Element weights) const;
  Cost pooling_cost(const Op& op) const;
  // Tells the meter what everything enqueued since the last call was.
  void finish_part(const char* pass, int op, const char* work, const Cost& cost);

  void weight_gradient(int index, const void* dz, const Stream& stream);
  void before_writing(int slot, const Stream& stream);

  void forward_weighted(int index, Mode mode, const StepState* state, const Stream& stream);
  void backward_weighted(int index, const Stream& stream);

  const Network& network_;
  std::int64_t batch_;
  kernels::Element element_;
  ParameterArena& parameters_;
  std::vector<Buffer<float>>& statistics_;
  Libraries& libraries_;
  GradientPlan plan_;
  std::vector<CompiledOp> ops_;
  Buffer<std::uint8_t> images_;
  Buffer<std::int32_t> labels_;
  std::vector<Buffer<std::uint8_t>> outputs_;  // by op, see OpBytes
  std::vector<Buffer<std::uint8_t>> sources_;
  std::vector<Buffer<float>> moments_;
  std::vector<Buffer<std::uint8_t>> max_positions_;
  std::vector<Buffer<std::uint8_t>> slots_;  // of the gradient plan
  Buffer<float> sums_;
  Buffer<unsigned> counter_;
  Buffer<std::uint8_t> workspace_;  // one call at a time uses it
  // Only the update depends on weight gradients, so they have a stream and a workspace of their
  // own. A slot that one of them reads is overwritten only after it has finished.
  Stream side_ = make_stream();
  Buffer<std::uint8_t> side_workspace_;
  std::vector<Event> forked_;            // by op
  std::vector<Event> joined_;            // by op
  std::vector<int> side_stream_reader_;  // by slot: the op whose weight gradient reads it; -1
  TrainedOps in_training_;
  StepMeter* meter_ = nullptr;  // of the call in progress
};

}  // namespace preheat::cuda
