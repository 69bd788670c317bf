#include "backend/cuda/probe.h"

#include <shared_mutex>
#include <stdexcept>

namespace preheat::cuda {

CudaProbe::CudaProbe(std::shared_ptr<Libraries> libraries, const Network& network,
                     const ReplicaOptions& options, std::shared_ptr<const ResidentDataset> data,
                     std::int64_t examples)
    : libraries_(std::move(libraries)),
      network_(network),
      options_(options),
      data_(device_dataset(std::move(data))),
      examples_(examples),
      table_(upload_table(options.normalize, stream_)),
      parameters_(network_, Precision::fp32, ParameterArena::Use::probing),
      statistics_(make_statistics(network_, stream_)),
      first_(1),
      loss_(1),
      loss_partials_(kernels::loss_partials(examples)),
      counter_(1) {
  clear(parameters_.gradients, stream_);
  clear(counter_, stream_);
  wait(stream_);  // as no destructor waits for it if the program throws
  {
    const std::lock_guard lock(libraries_->mutex);
    program_ = std::make_unique<Program>(network_, examples_, Precision::fp32, true, parameters_,
                                         statistics_, *libraries_);
  }
  CudaProbe::use(0);
}

CudaProbe::~CudaProbe() {
  cudaStreamSynchronize(stream_.get());
}

void CudaProbe::use(std::int64_t first) {
  if (first < 0 || first > data_->size() - examples_) {
    throw std::logic_error("a batch beyond the dataset's end");
  }
  upload(std::span<const std::int64_t>(&first, 1), first_.data(), stream_);
  {
    const std::lock_guard lock(libraries_->mutex);
    PREHEAT_CHECK(kernels::gather_in_order(data_->source(table_.data()), first_.data(),
                                           program_->element(), program_->batch(), stream_.get()));
  }
  wait(stream_);
}

double CudaProbe::forward(std::span<const float> weights, bool with_gradient) {
  upload(weights, parameters_.weights.data(), stream_);
  {
    const std::lock_guard lock(libraries_->mutex);
    program_->forward(Mode::probing, nullptr, stream_);
    PREHEAT_CHECK(kernels::softmax_xent(
        loss_options(options_, options_.label_smoothing), program_->logits(), nullptr,
        program_->element(), with_gradient ? program_->d_logits() : nullptr, false, loss_.data(),
        {loss_partials_.data(), counter_.data()}, stream_.get()));
    if (with_gradient) program_->backward(stream_);
  }
  kernels::BatchLoss loss;
  download(loss_.data(), std::span(&loss, 1), stream_);
  wait(stream_);
  return loss.sum / static_cast<double>(examples_);
}

double CudaProbe::loss(std::span<const float> weights) {
  return forward(weights, false);
}

double CudaProbe::gradient(std::span<const float> weights, std::span<float> gradient) {
  const double loss = forward(weights, true);
  download(parameters_.gradients.data(), gradient, stream_);
  wait(stream_);
  return loss;
}

std::vector<std::vector<float>> CudaProbe::outputs(std::span<const float> weights) {
  forward(weights, false);
  std::vector<std::vector<float>> outputs;
  for (std::size_t i = 0; i < network_.ops.size(); ++i) {
    const std::shared_lock shared(libraries_->device);  // not while plans are timed
    outputs.push_back(program_->whole_output(static_cast<int>(i), stream_));
  }
  return outputs;
}

MemoryUse CudaProbe::memory() const {
  return {parameters_.bytes(), program_->activation_bytes(), program_->workspace_bytes()};
}

}  // namespace preheat::cuda
