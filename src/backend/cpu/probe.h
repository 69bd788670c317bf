// The loss of a network, its gradient and the outputs of its layers at arbitrary weights, on the
// CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/dataset.h"
#include "backend/cpu/program.h"

namespace preheat::cpu {

class CpuProbe : public Probe {
 public:
  /// On the first `examples` of `data`, which has at least as many. The calling thread must have a
  /// ThreadCount of `threads`, the number that each call will use. Throws OutOfMemory if a buffer
  /// cannot be allocated.
  CpuProbe(const Network& network, const ReplicaOptions& options, int threads,
           std::shared_ptr<const ResidentDataset> data, std::int64_t examples);

  void use(std::int64_t first) override;
  double loss(std::span<const float> weights) override;
  double gradient(std::span<const float> weights, std::span<float> gradient) override;
  std::vector<std::vector<float>> outputs(std::span<const float> weights) override;
  MemoryUse memory() const override;

 private:
  double forward(std::span<const float> weights, float* d_logits);

  const Network network_;
  const ReplicaOptions options_;
  const int threads_;
  const std::shared_ptr<const ResidentDataset> data_;
  const Dataset& dataset_;  // in data_
  const std::int64_t examples_;
  const std::vector<float> table_;
  std::span<const std::uint8_t> labels_;  // of the batch, in dataset_
  Buffer<float> weights_;
  Buffer<float> gradients_;
  std::vector<Buffer<float>> statistics_;
  Program program_;
};

}  // namespace preheat::cpu
