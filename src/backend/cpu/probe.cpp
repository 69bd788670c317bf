#include "backend/cpu/probe.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_count.h"

namespace preheat::cpu {

CpuProbe::CpuProbe(const Network& network, const ReplicaOptions& options, int threads,
                   std::shared_ptr<const ResidentDataset> data, std::int64_t examples)
    : network_(network),
      options_(options),
      threads_(threads),
      data_(std::move(data)),
      dataset_(data_of(*data_)),
      examples_(examples),
      table_(normalization_table(options.normalize)),
      weights_(network.arena_size),
      gradients_(network.arena_size),
      statistics_(make_statistics(network)),
      program_(network_, examples, weights_.data(), gradients_.data(), statistics_) {
  CpuProbe::use(0);
}

void CpuProbe::use(std::int64_t first) {
  if (first < 0 || first > dataset_.size() - examples_) {
    throw std::logic_error("a batch beyond the dataset's end");
  }
  const ThreadCount count(threads_);
  std::vector<Pick> picks(examples_);
  for (std::int64_t i = 0; i < examples_; ++i) {
    picks[i].example = static_cast<std::uint32_t>(first + i);
  }
  gather(network_.input, dataset_.pixels.data(), picks, table_.data(), program_.images());
  labels_ = std::span(dataset_.labels).subspan(first, examples_);
}

double CpuProbe::loss(std::span<const float> weights) {
  const ThreadCount count(threads_);
  return forward(weights, nullptr);
}

double CpuProbe::gradient(std::span<const float> weights, std::span<float> gradient) {
  const ThreadCount count(threads_);
  const double loss = forward(weights, program_.d_logits());
  program_.backward();
  std::copy_n(gradients_.data(), gradients_.size(), gradient.data());
  return loss;
}

std::vector<std::vector<float>> CpuProbe::outputs(std::span<const float> weights) {
  const ThreadCount count(threads_);
  forward(weights, nullptr);
  std::vector<std::vector<float>> outputs;
  for (std::size_t i = 0; i < network_.ops.size(); ++i) {
    const std::span<const float> values = program_.output(static_cast<int>(i));
    outputs.emplace_back(values.begin(), values.end());
  }
  return outputs;
}

MemoryUse CpuProbe::memory() const {
  return {weights_.bytes() + gradients_.bytes(), program_.activation_bytes(),
          program_.workspace_bytes()};
}

double CpuProbe::forward(std::span<const float> weights, float* d_logits) {
  std::ranges::copy(weights, weights_.data());
  // The statistics move with every forward pass and are never read.
  program_.forward(Mode::training);
  const auto loss =
      loss_of(options_, network_, labels_, options_.label_smoothing, program_.logits(), d_logits);
  return loss.sum / static_cast<double>(labels_.size());
}

}  // namespace preheat::cpu
