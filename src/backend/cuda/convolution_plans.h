// Which way of computing a convolution is taken.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/convolution.h"
#include "backend/cuda/cudnn_plans.h"
#include "backend/cuda/fair_shared_mutex.h"

namespace preheat::cuda {

/// Chooses among cuDNN's candidates and our own by a timed trial, once per convolution: kept in
/// memory, and on disk for the next start, by device, versions and our kernels. The first of the
/// heuristics stands unless another is clearly faster, or it cannot be run after all.
class ConvolutionPlans {
 public:
  /// `device` is held alone during a trial. `folder` of the cache on disk; "": none is kept there.
  ConvolutionPlans(cudnnHandle_t handle, FairSharedMutex& device, const std::string& name,
                   const std::string& folder);

  /// What was chosen before, by this process or another, or what a trial finds now; that is written
  /// to disk at once, if it can be. Throws Error where no plan can compute it.
  std::shared_ptr<const ConvolutionPlan> choose(const Convolution& convolution);

 private:
  using Candidates = std::vector<std::shared_ptr<const ConvolutionPlan>>;
  // The choice that choices_ names; null where it names none, or one that cannot be used.
  std::shared_ptr<const ConvolutionPlan> named(const Convolution& convolution,
                                               const Candidates& own, const std::string& key) const;
  std::shared_ptr<const ConvolutionPlan> fastest(const Convolution& convolution,
                                                 const Candidates& candidates) const;

  cudnnHandle_t handle_;
  FairSharedMutex& device_;
  ConvolutionPlanner planner_;
  std::string path_;
  std::map<std::string, std::string> choices_;  // names of plans
  std::map<std::string, std::shared_ptr<const ConvolutionPlan>> plans_;
};

}  // namespace preheat::cuda
