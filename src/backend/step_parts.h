// What an update is made of: each call and kernel of it, what it has to move and to compute, and
// how long it takes.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "nn/network.h"

namespace preheat {

/// What a part cannot do without.
struct Cost {
  double bytes = 0;       // every array it reads or writes, once for each pass over it
  double operations = 0;  // in floating point, of products and their sums; a multiply-add is two
};

/// One call into a library, or one kernel, of an update.
struct StepPart {
  std::string pass;   // forward, backward or update
  std::string layer;  // the op's name; "" for what is of no layer
  std::string work;   // "convolution"
  Cost cost;
  std::int64_t launches = 0;  // on a GPU
  double microseconds = 0;
};

inline double microseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

/// The parts of several steps, each of which has the same ones in the same order.
class StepParts {
 public:
  void begin_step() { next_ = 0; }
  void add(const StepPart& part);
  /// Of the host: one that took from `start` until now.
  void add(StepPart part, std::chrono::steady_clock::time_point start);

  /// The parts with the median of their times.
  std::vector<StepPart> medians() const;

 private:
  std::size_t next_ = 0;
  std::vector<StepPart> parts_;
  std::vector<std::vector<double>> times_;
};

/// Of the convolution or matrix product of an op over a batch; its two gradients take as many each.
double operations_of(const Op& op, std::int64_t batch_size);

/// Weights of a convolution or matrix product.
double weights_of(const Op& op);

}  // namespace preheat
