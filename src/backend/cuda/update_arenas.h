// The device arrays that an update of a set reads and writes, and training's launches over them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/benches.h"
#include "backend/cuda/cuda.h"
#include "backend/update_check.h"
#include "kernels/launch.h"

namespace preheat::cuda {

class UpdateArenas {
 public:
  /// The arrays of one instance of the parameter set, in the layout of training.
  struct Instance {
    Buffer<float> weights, velocity, gradients;
    Buffer<std::uint16_t> weights_16bit, gradients_16bit;  // of the first only, zero at first
  };

  /// What the update of a training step may do besides the rule.
  struct Features {
    SgdMomentum rule{};
    bool with_16bit = false;  // reads gradients_16bit, writes weights_16bit
    bool norms = true;
    bool checked = false;  // for clipping: an extra pass and launch
  };

  /// One instance, filled with the pattern, at the start of the schedule. Throws Error if memory is
  /// insufficient. `set` and `pattern` must outlive it.
  UpdateArenas(const UpdateSet& set, const UpdatePattern& pattern, const LrSchedule& schedule);
  ~UpdateArenas() { cudaStreamSynchronize(stream.get()); }  // freeing memory waits for no stream
  UpdateArenas(const UpdateArenas&) = delete;
  UpdateArenas& operator=(const UpdateArenas&) = delete;

  /// Adds instances, filled with the pattern, until there are `count`.
  void add_instances(std::int64_t count);

  /// Restores an instance, and the step, to their initial values.
  void fill(const Instance& instance) const;
  void set_step(const StepState& step) const;

  /// Enqueues a training step's work through the functions that training calls: the update, and the
  /// end of the step, which takes the schedule's next rate.
  void update(const Instance& instance, const Features& features) const;
  void advance(const LrSchedule& schedule) const;

  /// Throws Error unless `step`, run from the initial state, performs the update that `check`
  /// describes. `supplies_rate`: it must do so without a rate in the device's state.
  template <class Step>
  void verify(const UpdateCheck& check, bool supplies_rate, const Step& step) const {
    fill(instances.front());
    if (supplies_rate) clear_rate();
    step(instances.front());
    check_first_instance(check);
  }

  template <class T>
  Buffer<T> uploaded(const std::vector<T>& values) const {
    Buffer<T> buffer(values.size());
    upload(std::span<const T>(values), buffer.data(), stream);
    wait(stream);
    return buffer;
  }

  const Stream stream = make_stream();
  const UpdateLayout layout;
  std::vector<Instance> instances;
  Buffer<StepState> state;

 private:
  kernels::Arena arena(const Instance& instance, bool with_16bit) const;
  void clear_rate() const;
  void check_first_instance(const UpdateCheck& check) const;

  const UpdateSet& set_;
  const UpdatePattern& pattern_;
  const StepState first_;
  Buffer<std::uint16_t> segment_of_, segment_of_16bit_;
  Buffer<kernels::Segment> segments_;
  Buffer<kernels::BatchLoss> loss_;
  Buffer<kernels::NonFinite> non_finite_;
  Buffer<kernels::NormPartial> partials_;
  Buffer<kernels::GradientCheck> check_;
  Buffer<unsigned> counter_;
  Buffer<kernels::DeviceRecord> records_;
};

}  // namespace preheat::cuda
