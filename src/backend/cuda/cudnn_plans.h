// cuDNN's engines for a convolution, found through its graph API.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/convolution.h"
#include "backend/cuda/cuda.h"

namespace preheat::cuda {

/// A cuDNN object of the graph API.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
           const void* values);
  void finalize();
  cudnnBackendDescriptor_t get() const { return descriptor_.get(); }

 private:
  Owned<cudnnBackendDescriptor_t, &cudnnBackendDestroyDescriptor> descriptor_;
};

/// A configuration of one of cuDNN's engines. Its name is the engine's number and its knobs: "cudnn
/// 38 k2=1 k17=4".
class CudnnPlan : public ConvolutionPlan {
 public:
  CudnnPlan(std::string name, Descriptor plan, std::vector<std::shared_ptr<Descriptor>> parts,
            bool tensor_cores, bool deterministic);
  bool uses_tensor_cores() const { return tensor_cores_; }
  bool is_deterministic() const { return deterministic_; }
  void run(cudnnHandle_t handle, cudaStream_t stream,
           const ConvolutionArrays& arrays) const override;

 private:
  Descriptor plan_;
  std::vector<std::shared_ptr<Descriptor>> parts_;  // that the plan refers to
  bool tensor_cores_;
  bool deterministic_;
};

/// Finds cuDNN's plans: for the device of a handle, or without a handle for a device described by
/// text.
class ConvolutionPlanner {
 public:
  static constexpr std::size_t workspace_limit = std::size_t{64} << 20;

  explicit ConvolutionPlanner(cudnnHandle_t handle);
  /// `device` is JSON in the format of cuDNN's device properties. The plans cannot be run.
  explicit ConvolutionPlanner(const std::string& device);

  /// At most `most` plans for the convolution, in the order of cuDNN's heuristics: true fp32 if
  /// that is the precision, deterministic if that is requested, workspace under the limit, no
  /// run-time compilation unless nothing else works. With a name, only that plan. Empty if there is
  /// none.
  std::vector<std::shared_ptr<const CudnnPlan>> candidates(const Convolution& convolution,
                                                           std::size_t most,
                                                           const std::string& name = "") const;

 private:
  std::vector<std::shared_ptr<Descriptor>> configurations(const std::shared_ptr<Descriptor>& graph,
                                                          cudnnBackendHeurMode_t mode) const;
  std::shared_ptr<const CudnnPlan> plan(const std::shared_ptr<Descriptor>& configuration,
                                        const std::vector<std::shared_ptr<Descriptor>>& parts,
                                        const Convolution& convolution, bool may_compile,
                                        const std::string& name) const;

  cudnnHandle_t handle_ = nullptr;
  std::shared_ptr<Descriptor> device_;
};

}  // namespace preheat::cuda
