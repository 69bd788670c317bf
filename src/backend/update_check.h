// The proof that what a bench times is an update: where its numbers lie, what they are at first,
// and what one update has to make of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/benches.h"
#include "optim/sgd_momentum.h"

namespace preheat {

/// Where the tensors of a set lie, as in training.
struct UpdateLayout {
  explicit UpdateLayout(const UpdateSet& set);
  std::vector<std::int64_t> offsets;  // in floats
  std::int64_t size = 0;              // of the arena, padding included
};

/// The numbers a bench starts from, over and over where more are needed: small ones of either sign,
/// which stay small under any number of updates.
inline constexpr std::int64_t update_pattern_size = 1 << 20;
struct UpdatePattern {
  UpdatePattern();
  std::vector<float> weights, velocity, gradients;
};

/// The learning rate and weight decay of every update that is timed.
inline constexpr float bench_rate = 1e-3f;
inline constexpr float bench_decay = 5e-4f;

struct UpdateCheck {
  std::string variant;  // as the error calls it
  SgdMomentum rule;
  double bound = 0;  // relative to the largest number that goes into a result; 0: to the bit
  bool gradients_are_zero = false;  // the update's, not the pattern's
};

/// So many floats, from `first` on.
using ReadFloats = std::function<std::vector<float>(std::int64_t first, std::int64_t count)>;

/// Throws Error, naming variant, tensor and float, unless `weights` and `velocity` are what one
/// update at bench_rate with bench_decay makes of the pattern, in the first tensors of a set and in
/// its last, as they lie at `layout`.
void check_update(const UpdateCheck& check, const UpdateSet& set, const UpdateLayout& layout,
                  const UpdatePattern& pattern, const ReadFloats& weights,
                  const ReadFloats& velocity);

}  // namespace preheat
