// One network being trained on the CPU. Each call has done its work when it returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/program.h"
#include "backend/stages.h"
#include "backend/step_parts.h"
#include "data/dataset.h"
#include "optim/step_state.h"

namespace preheat::cpu {

class CpuReplica : public Replica {
 public:
  /// `initial` is an arena of Network::arena_size floats. The calling thread must have a
  /// ThreadCount of `threads`, the number that each call will use. Throws std::logic_error if
  /// `initial` or the options do not fit the network or `train` is of another backend, OutOfMemory
  /// if a buffer cannot be allocated.
  CpuReplica(const Network& network, const ReplicaOptions& options, int threads,
             std::span<const float> initial, std::shared_ptr<const ResidentDataset> train);

  void set_epoch_order(std::span<const std::uint32_t> permutation) override;
  void train(std::int64_t updates) override { train(updates, nullptr); }
  std::vector<StepPart> time_parts(std::int64_t updates) override;
  std::vector<StepRecord> drain() override;
  Evaluation evaluate(const ResidentDataset& test) override;
  ReplicaState save() const override;
  void load(const ReplicaState& state) override;
  std::string first_non_finite_tensor() const override;
  std::vector<ActivationRecord> activations() const override;
  MemoryUse memory() const override;
  std::int64_t launches_per_update() const override { return 0; }

 private:
  LossResult loss_of(std::span<const std::uint8_t> labels, double smoothing, float* d_logits);
  void pick_batch(std::int64_t pass);
  LossResult compute_gradients(StepParts* parts);
  const Buffer<float>& update_gradients() const {
    return options_.passes() > 1 ? mean_gradients_ : gradients_;
  }
  void train(std::int64_t updates, StepParts* parts);
  void step(StepParts* parts);
  void enter_stage();
  double norm(std::span<const UpdateBlock> blocks, const Buffer<float>& arena);

  const Network network_;
  const ReplicaOptions options_;
  const int threads_;
  const std::shared_ptr<const ResidentDataset> train_;
  const Dataset& dataset_;  // in train_
  const std::int64_t steps_per_epoch_;
  const std::vector<float> table_;
  // The arenas' padding is zero and stays so: no block of the update touches it.
  Buffer<float> weights_;
  Buffer<float> gradients_;       // of a pass
  Buffer<float> mean_gradients_;  // of the passes; empty if there is one
  Buffer<float> velocity_;
  std::vector<Buffer<float>> statistics_;
  Program program_;
  std::size_t stage_ = no_stage;
  std::vector<UpdateBlock> trained_;  // of the stage
  double frozen_weights_squared_ = 0;
  std::vector<UpdateNorms> partial_norms_;
  std::vector<Pick> picks_;
  std::vector<std::uint8_t> labels_;
  std::vector<std::uint32_t> order_;  // of the epoch ordered_epoch_
  std::int64_t ordered_epoch_ = -1;
  std::vector<StepRecord> records_;
  StepState state_ = first_step(options_.schedule);
};

}  // namespace preheat::cpu
