// The parts of an update: each library call and kernel, the bytes and operations it needs, and its
// time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/clock.h"
#include "nn/network.h"

namespace preheat {

/// The minimum traffic and arithmetic of a part.
struct Cost {
  double bytes = 0;       // every array it reads or writes, counted once per pass
  double operations = 0;  // floating-point, of products and their sums; a multiply-add is two

  Cost& operator+=(const Cost& other) {
    bytes += other.bytes;
    operations += other.operations;
    return *this;
  }
};

/// One library call or kernel of an update.
struct StepPart {
  std::string pass;   // forward, backward or update
  std::string layer;  // the op's name; "" if it belongs to no layer
  std::string work;   // "convolution"
  Cost cost;
  std::int64_t launches = 0;  // on a GPU
  double microseconds = 0;
};

/// The parts of several steps, all of which have the same parts in the same order. Those of the
/// passes of a step, each with the same parts, are added up.
class StepParts {
 public:
  void begin_step();
  void begin_pass() { next_ = 0; }
  void add(const StepPart& part);
  /// Adds a host-timed part that ran from `start` until now.
  void add(StepPart part, Clock::time_point start);

  /// The parts with the median of their times.
  std::vector<StepPart> medians() const;

 private:
  std::size_t steps_ = 0;
  std::size_t next_ = 0;
  std::vector<StepPart> parts_;
  std::vector<std::vector<double>> times_;
};

/// Of the convolution or matrix product of an op over a batch; each of its two gradients takes as
/// many.
double operations_of(const Op& op, std::int64_t batch_size);

/// Weights of a convolution or matrix product.
double weights_of(const Op& op);

}  // namespace preheat
