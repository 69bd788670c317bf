// One network being trained on the GPU. A step is a closed loop on the device: the host launches
// graphs of several steps and reads their records from time to time.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/dataset.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/parameters.h"
#include "backend/cuda/program.h"

namespace preheat::cuda {

class CudaReplica : public Replica {
 public:
  CudaReplica(std::shared_ptr<Libraries> libraries, const Network& network,
              const ReplicaOptions& options, std::span<const float> initial,
              std::shared_ptr<const ResidentDataset> train);
  ~CudaReplica() override;

  static ParameterArena::Use use_of(const ReplicaOptions& options) {
    return options.passes() > 1 ? ParameterArena::Use::training_in_passes
                                : ParameterArena::Use::training;
  }

  void set_epoch_order(std::span<const std::uint32_t> permutation) override;
  void train(std::int64_t updates) override;
  std::vector<StepRecord> drain() override;
  Evaluation evaluate(const ResidentDataset& test) override;
  ReplicaState save() const override;
  void load(const ReplicaState& state) override;
  std::string first_non_finite_tensor() const override;
  std::vector<ActivationRecord> activations() const override;
  MemoryUse memory() const override;

  std::int64_t launches_per_update() const override { return launches_per_update_; }
  std::vector<StepPart> time_parts(std::int64_t updates) override;

 private:
  static constexpr std::int64_t record_capacity = 8192;
  static constexpr std::int64_t passes_per_graph = 8;

  void enter_stage();
  bool scales_loss() const { return options_.precision == Precision::fp16; }
  bool in_passes() const { return options_.passes() > 1; }
  kernels::Arena arena_of_pass() const;
  kernels::Arena arena_of_update() const;
  void enqueue_step(StepMeter* meter = nullptr);
  void enqueue_pass(std::int64_t index, StepMeter* meter) const;
  void enqueue_update(StepMeter* meter);
  double gradient_bytes() const;  // of a pass
  double update_gradient_bytes() const;
  double update_bytes() const;
  void enqueue_evaluation(const DeviceDataset& test);
  void launch_steps(std::int64_t updates);
  void replay(const GraphExec& graph, std::int64_t times);
  void collect();
  void refresh_16bit_weights();
  std::vector<float> values(const Buffer<float>& arena, std::size_t parameter) const;
  std::vector<float> gradients(std::size_t parameter) const;
  std::vector<float> read(const float* from, std::size_t size) const;

  const std::shared_ptr<Libraries> libraries_;
  const Network network_;
  const Network padded_;
  const ReplicaOptions options_;
  const std::shared_ptr<const DeviceDataset> train_;
  const std::int64_t steps_per_epoch_;
  Stream stream_ = make_stream();
  Stream upload_stream_ = make_stream();
  Buffer<float> table_;
  ParameterArena parameters_;
  std::vector<Buffer<float>> statistics_;
  std::unique_ptr<Program> program_;

  Buffer<StepState> state_;
  Buffer<kernels::BatchLoss> loss_;
  Buffer<kernels::BatchLoss> evaluation_loss_;
  Buffer<kernels::BatchLoss> loss_partials_;
  Buffer<std::int64_t> position_;  // of an evaluation
  Buffer<std::uint16_t> segment_of_;
  Buffer<std::uint16_t> segment_of_mean_;  // of the mean gradients, all in fp32; empty without them
  Buffer<kernels::Segment> segments_;
  Buffer<kernels::NormPartial> norm_partials_;
  Buffer<kernels::NonFinite> non_finite_;
  Buffer<kernels::GradientCheck> check_;
  Buffer<unsigned> counters_;  // for the loss and the check
  Buffer<kernels::DeviceRecord> device_records_;
  PinnedBuffer<kernels::DeviceRecord> records_;

  // The orders of an even and an odd epoch; uploaded concurrently with training.
  Buffer<std::uint32_t> orders_;
  std::array<PinnedBuffer<std::uint32_t>, 2> staged_orders_;
  std::array<Event, 2> uploaded_{make_event(), make_event()};
  Event boundary_ = make_event();  // after all work of the epochs before the latest order's
  std::int64_t ordered_epoch_ = -1;

  std::map<std::int64_t, GraphExec> graphs_;              // of the stage, by number of steps
  std::map<std::uint64_t, GraphExec> evaluation_graphs_;  // by the number() of what they read
  bool has_run_ = false;  // whether a step of the stage has run eagerly
  std::int64_t launches_per_update_ = 0;

  std::size_t stage_ = no_stage;
  std::int64_t enqueued_ = 0;   // one past the last step given to the device
  std::int64_t collected_ = 0;  // one past the last step whose record is on the host
  bool diverged_ = false;       // a step was not finite
  StepRecord last_record_;
  std::vector<StepRecord> drained_;
};

}  // namespace preheat::cuda
