// Convolutions, what a way of computing one is, and those that are kernels of our own.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/cuda.h"
#include "config/config.h"
#include "kernels/launch.h"

namespace preheat::cuda {

enum class Pass { forward, data_gradient, weight_gradient };

/// One of the three computations around y = conv(x, w): images NHWC, filters KRSC.
struct Convolution {
  Pass pass = Pass::forward;
  kernels::Images x;
  kernels::Images y;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  Precision precision = Precision::fp32;
  bool deterministic = true;
  std::int32_t zero_channels = 0;  // of x, the last ones: padding, in x and w
};

/// Its key in a cache of plans: "forward 128x28x28x1+7 3x3/1+1 -> 128x28x28x32 bf16", the channels
/// that are zero counted apart.
std::string to_string(const Convolution& convolution);

/// The type that images and weights are stored in.
kernels::Element element_of(Precision precision);

/// One way of computing a convolution, ready to be run.
class ConvolutionPlan {
 public:
  virtual ~ConvolutionPlan() = default;
  /// What a cache knows it by, among all plans for the same convolution.
  const std::string& name() const { return name_; }
  std::size_t workspace_bytes() const { return workspace_bytes_; }

  /// Enqueues on the handle's stream. `workspace` holds workspace_bytes().
  virtual void run(cudnnHandle_t handle, void* x, void* w, void* y, void* workspace) const = 0;

 protected:
  ConvolutionPlan(std::string name, std::size_t workspace_bytes)
      : name_(std::move(name)), workspace_bytes_(workspace_bytes) {}

 private:
  std::string name_;
  std::size_t workspace_bytes_;
};

/// Our own kernels that can compute it, with sums in fp32.
std::vector<std::shared_ptr<const ConvolutionPlan>> kernel_plans(const Convolution& convolution);

}  // namespace preheat::cuda
