// Which way of computing a convolution is taken.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/convolution.h"
#include "backend/cuda/cudnn_plans.h"
#include "backend/cuda/fair_shared_mutex.h"

namespace preheat::cuda {

using ConvolutionCandidates = std::vector<std::shared_ptr<const ConvolutionPlan>>;

/// The fastest by a timed trial on a device that is otherwise idle: the first, unless another is
/// clearly faster, or it cannot be run after all. Null if there is no memory for a trial. Throws
/// Error if none can be run, or if one leaves an error on the device.
std::shared_ptr<const ConvolutionPlan> fastest(cudnnHandle_t handle, const Convolution& convolution,
                                               const ConvolutionCandidates& candidates);

/// Chooses among cuDNN's candidates, in the order of its heuristics, and our own by a trial, once
/// per convolution: kept in memory, and on disk for the next start, by device, versions and our
/// kernels.
class ConvolutionPlans {
 public:
  /// `device` is held alone during a trial. `folder` of the cache on disk; "": none is kept there.
  /// `patience` is how long, in all, it waits for trials of other processes.
  ConvolutionPlans(cudnnHandle_t handle, FairSharedMutex& device, const std::string& name,
                   const std::string& folder,
                   std::chrono::milliseconds patience = std::chrono::seconds(30));

  /// What was chosen before, by this process or another, or what a trial finds now; that is written
  /// to disk at once, if it can be. Without memory for a trial the first of the heuristics, for
  /// this process only. Throws Error where no plan can compute it.
  std::shared_ptr<const ConvolutionPlan> choose(const Convolution& convolution);

 private:
  // The choice that choices_ names; null where it names none, or one that cannot be used.
  std::shared_ptr<const ConvolutionPlan> named(const Convolution& convolution,
                                               const ConvolutionCandidates& own,
                                               const std::string& key) const;

  cudnnHandle_t handle_;
  FairSharedMutex& device_;
  ConvolutionPlanner planner_;
  std::chrono::milliseconds patience_;  // what is left of it
  std::string path_;
  std::map<std::string, std::string> choices_;  // names of plans
  std::map<std::string, std::shared_ptr<const ConvolutionPlan>> plans_;
};

}  // namespace preheat::cuda
