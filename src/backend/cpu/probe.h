// The loss of a network, its gradient and the outputs of its layers at arbitrary weights, on the
// CPU.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/buffer.h"
#include "backend/cpu/program.h"
#include "data/dataset.h"

namespace preheat::cpu {

class CpuProbe : public Probe {
 public:
  /// Copies the first `examples` of `data`, which has at least as many. The calling thread must
  /// have a ThreadCount of `threads`, the number that each call will use. Throws OutOfMemory if a
  /// buffer cannot be allocated.
  CpuProbe(const Network& network, const ReplicaOptions& options, int threads, const Dataset& data,
           std::int64_t examples);

  double loss(std::span<const float> weights) override;
  double gradient(std::span<const float> weights, std::span<float> gradient) override;
  std::vector<std::vector<float>> outputs(std::span<const float> weights) override;

 private:
  double forward(std::span<const float> weights, float* d_logits);

  const Network network_;
  const ReplicaOptions options_;
  const int threads_;
  const std::vector<std::uint8_t> labels_;
  Buffer<float> weights_;
  Buffer<float> gradients_;
  std::vector<Buffer<float>> statistics_;
  Program program_;
};

}  // namespace preheat::cpu
