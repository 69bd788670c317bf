// The loss of a network, its gradient and the outputs of its layers at arbitrary weights, on the
// GPU.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/dataset.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/parameters.h"
#include "backend/cuda/program.h"

namespace preheat::cuda {

/// A network on one batch, in fp32 whatever the precision of the run: it is used to find small
/// differences.
class CudaProbe : public Probe {
 public:
  CudaProbe(std::shared_ptr<Libraries> libraries, const Network& network,
            const ReplicaOptions& options, std::shared_ptr<const ResidentDataset> data,
            std::int64_t examples);
  ~CudaProbe() override;

  void use(std::int64_t first) override;
  double loss(std::span<const float> weights) override;
  double gradient(std::span<const float> weights, std::span<float> gradient) override;
  std::vector<std::vector<float>> outputs(std::span<const float> weights) override;
  MemoryUse memory() const override;

 private:
  double forward(std::span<const float> weights, bool with_gradient);

  const std::shared_ptr<Libraries> libraries_;
  const Network network_;
  const ReplicaOptions options_;
  const std::shared_ptr<const DeviceDataset> data_;
  const std::int64_t examples_;
  Stream stream_ = make_stream();
  Buffer<float> table_;
  ParameterArena parameters_;
  std::vector<Buffer<float>> statistics_;
  Buffer<std::int64_t> first_;  // of the batch's examples
  std::unique_ptr<Program> program_;
  Buffer<kernels::BatchLoss> loss_;
  Buffer<kernels::BatchLoss> loss_partials_;
  Buffer<unsigned> counter_;
};

}  // namespace preheat::cuda
