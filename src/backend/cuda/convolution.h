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
  bool moments = false;            // a batch norm follows forward and takes the moments of y
};

/// The device memory of a convolution. A pass reads two of x, w and y, and writes the third.
struct ConvolutionArrays {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  void* workspace = nullptr;  // ConvolutionPlan::workspace_bytes()
  /// Of y, taken on the way; only where ConvolutionPlan::gives_moments().
  const kernels::BatchMoments* moments = nullptr;
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
  /// Whether it can take the moments of y in the launch that writes y.
  bool gives_moments() const { return gives_moments_; }

  /// Enqueues on the stream. The handle's stream may change.
  virtual void run(cudnnHandle_t handle, cudaStream_t stream,
                   const ConvolutionArrays& arrays) const = 0;

 protected:
  ConvolutionPlan(std::string name, std::size_t workspace_bytes, bool gives_moments = false)
      : name_(std::move(name)), workspace_bytes_(workspace_bytes), gives_moments_(gives_moments) {}

 private:
  std::string name_;
  std::size_t workspace_bytes_;
  bool gives_moments_;
};

/// Our own kernels that can compute it, with sums in fp32.
std::vector<std::shared_ptr<const ConvolutionPlan>> kernel_plans(const Convolution& convolution);

}  // namespace preheat::cuda
