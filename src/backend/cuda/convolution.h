// Convolutions, by cuDNN's graph API or a kernel of our own: which may compute one, and which does.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
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

/// A configuration of one of cuDNN's engines. Its name is the engine's number and the knobs:
/// "cudnn 38 k2=1 k17=4".
class CudnnPlan : public ConvolutionPlan {
 public:
  CudnnPlan(std::string name, Descriptor plan, std::vector<std::shared_ptr<Descriptor>> parts,
            bool tensor_cores, bool deterministic);
  bool uses_tensor_cores() const { return tensor_cores_; }
  bool is_deterministic() const { return deterministic_; }
  void run(cudnnHandle_t handle, void* x, void* w, void* y, void* workspace) const override;

 private:
  Descriptor plan_;
  std::vector<std::shared_ptr<Descriptor>> parts_;  // that the plan refers to
  bool tensor_cores_;
  bool deterministic_;
};

/// A kernel of our own: deterministic, as all of them are.
class KernelPlan : public ConvolutionPlan {
 public:
  using Launch =
      std::function<cudaError_t(void* x, void* w, void* y, void* workspace, cudaStream_t stream)>;
  KernelPlan(std::string name, std::size_t workspace_bytes, Launch launch)
      : ConvolutionPlan(std::move(name), workspace_bytes), launch_(std::move(launch)) {}
  void run(cudnnHandle_t handle, void* x, void* w, void* y, void* workspace) const override;

 private:
  Launch launch_;
};

/// Our own kernels that can compute it, with sums in fp32.
std::vector<std::shared_ptr<const ConvolutionPlan>> kernel_plans(const Convolution& convolution);

/// Finds cuDNN's plans: for the device of a handle, or for a device described by text where there
/// is none.
class ConvolutionPlanner {
 public:
  static constexpr std::size_t workspace_limit = std::size_t{64} << 20;

  explicit ConvolutionPlanner(cudnnHandle_t handle);
  /// `device` is JSON as cuDNN's device properties write it. Its plans cannot be run.
  explicit ConvolutionPlanner(const std::string& device);

  /// The plans that may compute it, in the order of cuDNN's heuristics, at most `most`: true fp32
  /// where that is the precision, the same bits every time where that is asked for, workspace under
  /// the limit, no compilation at run time unless nothing else does. With a name, only that one.
  /// Empty where there is none.
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

/// Chooses among cuDNN's candidates and our own by a timed trial, once per convolution: kept in
/// memory, and on disk for the next start, by device and versions. The first of the
/// heuristics stands unless another is clearly faster, or it cannot be run after all.
class ConvolutionPlans {
 public:
  /// `device` is held alone during a trial. `folder` of the cache on disk; "": none is kept there.
  ConvolutionPlans(cudnnHandle_t handle, std::shared_mutex& device, const std::string& name,
                   const std::string& folder);

  /// Throws Error where no plan can compute it.
  std::shared_ptr<const ConvolutionPlan> choose(const Convolution& convolution);

  /// Writes what was chosen since; a folder that cannot be written to is not an error.
  void save() noexcept;

 private:
  using Candidates = std::vector<std::shared_ptr<const ConvolutionPlan>>;
  std::shared_ptr<const ConvolutionPlan> fastest(const Convolution& convolution,
                                                 const Candidates& candidates) const;

  cudnnHandle_t handle_;
  std::shared_mutex& device_;
  ConvolutionPlanner planner_;
  std::string path_;
  std::map<std::string, std::string> choices_;  // names of plans
  std::map<std::string, std::shared_ptr<const ConvolutionPlan>> plans_;
  bool changed_ = false;
};

}  // namespace preheat::cuda
