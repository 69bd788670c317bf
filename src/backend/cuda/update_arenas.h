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
  /// One copy of the parameter set, in the layout of training.
  struct Copy {
    Buffer<float> weights, velocity, gradients;
    Buffer<std::uint16_t> small_weights, gradients_16bit;  // of the first copy only, zero at first
  };

  /// What the update of a training step may do besides the rule.
  struct Features {
    SgdMomentum rule{};
    bool small = false;  // reads 16-bit gradients, writes a 16-bit copy of the weights
    bool norms = true;
    bool checked = false;  // for clipping: an extra pass and launch
  };

  /// One copy, filled with the pattern, at the start of the schedule. Throws Error if memory is
  /// insufficient. `set` and `pattern` must outlive it.
  UpdateArenas(const UpdateSet& set, const UpdatePattern& pattern, const LrSchedule& schedule);
  ~UpdateArenas() { cudaStreamSynchronize(stream.get()); }  // freeing memory waits for no stream
  UpdateArenas(const UpdateArenas&) = delete;
  UpdateArenas& operator=(const UpdateArenas&) = delete;

  /// Adds copies, filled with the pattern, until there are `count`.
  void add_copies(std::int64_t count);

  /// Restores a copy, and the step, to their initial values.
  void fill(const Copy& copy) const;
  void set_step(const StepState& step) const;

  /// Enqueues a training step's work through the functions that training calls: the update, and the
  /// end of the step, which takes the schedule's next rate.
  void update(const Copy& copy, const Features& features) const;
  void advance(const LrSchedule& schedule) const;

  /// Throws Error unless `step`, run from the initial state, performs the update that `check`
  /// describes. `supplies_rate`: it must do so without a rate in the device's state.
  template <class Step>
  void verify(const UpdateCheck& check, bool supplies_rate, const Step& step) const {
    fill(copies.front());
    if (supplies_rate) clear_rate();
    step(copies.front());
    check_first_copy(check);
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
  std::vector<Copy> copies;
  Buffer<StepState> state;

 private:
  kernels::Arena arena(const Copy& copy, bool small) const;
  void clear_rate() const;
  void check_first_copy(const UpdateCheck& check) const;

  const UpdateSet& set_;
  const UpdatePattern& pattern_;
  const StepState first_;
  Buffer<std::uint16_t> segment_of_, small_segment_of_;
  Buffer<kernels::Segment> segments_;
  Buffer<kernels::BatchLoss> loss_;
  Buffer<kernels::NonFinite> non_finite_;
  Buffer<kernels::NormPartial> partials_;
  Buffer<kernels::GradientCheck> check_;
  Buffer<unsigned> counter_;
  Buffer<kernels::DeviceRecord> records_;
};

}  // namespace preheat::cuda
