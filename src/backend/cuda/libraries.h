// The libraries that all programs of a device share.
#pragma once

#include <memory>
#include <mutex>

#include "backend/cuda/convolution_plans.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/fair_shared_mutex.h"

namespace preheat::cuda {

/// The libraries of one device. Planning and enqueueing with them requires the mutex: cuDNN's
/// handle has one stream at a time. Replaying a captured graph needs neither the libraries nor the
/// mutex.
struct Libraries {
  CudnnHandle cudnn;
  CublasHandle cublas;
  std::unique_ptr<ConvolutionPlans> plans;
  std::mutex mutex;
  // Held shared while a replay, or a kernel without the mutex, is launched; exclusively by a trial
  // of plans, which must be timed on an idle device.
  FairSharedMutex device;
};

}  // namespace preheat::cuda
