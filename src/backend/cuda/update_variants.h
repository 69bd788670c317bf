// The GPU update variants that the bench compares: training's own with its optional features,
// several passes, one launch per tensor, cuBLAS, and rates supplied by the host.
#pragma once

#include <cublas_v2.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/cuda/update_arenas.h"

namespace preheat::cuda {

/// Per parameter: w, v and g in, w and v out.
inline constexpr double bytes_of_update = 20;

struct UpdateVariant {
  std::string name;
  double bytes = bytes_of_update;                           // that a step must move, per float
  std::int64_t launches = 1;                                // per step
  std::function<void(const UpdateArenas::Instance&)> step;  // enqueued on the arenas' stream
  SgdMomentum rule{};
  double bound = 0;  // on its deviation from the reference (UpdateCheck)
  bool gradients_are_zero = false;
  std::function<void(float)> set_host_rate{};  // the rate that steps send when they run; if empty,
                                               // they do not send any
  bool in_graph = true;                        // can be captured
};

class UpdateVariants {
 public:
  /// Variants whose steps use these arenas; all three arguments must outlive it. Throws Error.
  UpdateVariants(const UpdateSet& set, const UpdateArenas& arenas, const LrSchedule& schedule);
  ~UpdateVariants() { cudaStreamSynchronize(stream()); }  // a copy may still read pinned_rate_
  UpdateVariants(const UpdateVariants&) = delete;         // the steps refer to members
  UpdateVariants& operator=(const UpdateVariants&) = delete;

  /// The ceilings: kernels that move arrays and update nothing.
  UpdateVariant copy() const;
  UpdateVariant read_three_write_two() const;

  /// Training's own variant, and all variants, starting with it.
  UpdateVariant fused() const { return fused("fused", {}); }
  const std::vector<UpdateVariant>& all() const { return all_; }

  /// Throws Error unless one step of the variant computes the update: launched, and, if it can be
  /// captured, in a graph. Leaves the first instance updated.
  void verify(const UpdateVariant& variant) const;

 private:
  using Instance = UpdateArenas::Instance;

  std::int64_t size() const { return arenas_.layout.size; }
  cudaStream_t stream() const { return arenas_.stream.get(); }

  UpdateVariant fused(const std::string& name, const UpdateArenas::Features& features) const;
  void update_as_one(const kernels::Rate& rate, const Instance& instance) const;
  template <class Work>
  void for_each_tensor(const Instance& instance, const Work& work) const;

  void add_features();
  void add_flat();
  void add_by_tensor();
  void add_cublas();
  void add_rate_by_copy();
  void add_rate_in_node();
  void add_recapture();

  const UpdateSet& set_;
  const UpdateArenas& arenas_;
  const LrSchedule& schedule_;
  std::vector<UpdateVariant> all_;

  // State of individual variants.
  using Cublas = Owned<cublasHandle_t, &cublasDestroy>;
  Cublas cublas_;
  Buffer<float> table_;
  PinnedBuffer<float> pinned_rate_;
  Graph node_graph_;
  GraphExec node_exec_;
  cudaGraphNode_t node_ = nullptr;
  cudaKernelNodeParams node_parameters_{};
  kernels::Rate node_rate_{bench_rate};
  std::array<void*, kernels::update_flat_arguments> node_arguments_{};
  GraphExec recaptured_exec_;
};

}  // namespace preheat::cuda
