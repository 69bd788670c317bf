// Proves that what a bench times is an update: the layout and initial values of its arrays, and the
// result that one update must have.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/benches.h"
#include "optim/sgd_momentum.h"

namespace preheat {

/// The layout of a set's tensors in the arena, as in training.
struct UpdateLayout {
  explicit UpdateLayout(const UpdateSet& set);
  std::vector<std::int64_t> offsets;  // in floats
  std::int64_t size = 0;              // of the arena, padding included
};

/// The initial values of a bench, repeated as often as needed: small numbers of either sign, which
/// stay small under any number of updates.
inline constexpr std::int64_t update_pattern_size = 1 << 20;
struct UpdatePattern {
  UpdatePattern();
  std::vector<float> weights, velocity, gradients;
};

/// The learning rate and weight decay of every timed update.
inline constexpr float bench_rate = 1e-3f;
inline constexpr float bench_decay = 5e-4f;

struct UpdateCheck {
  std::string variant;  // its name in the error
  SgdMomentum rule;
  double bound = 0;  // relative to the largest number that enters a result; 0: bit for bit
  bool gradients_are_zero = false;  // the update's, not the pattern's
};

/// Reads `count` floats, starting at `first`.
using ReadFloats = std::function<std::vector<float>(std::int64_t first, std::int64_t count)>;

/// Throws Error, naming variant, tensor and float, unless `weights` and `velocity`, in the given
/// layout, hold the result of one update of the pattern at bench_rate with bench_decay. Checks the
/// first and the last tensors of a set.
void check_update(const UpdateCheck& check, const UpdateSet& set, const UpdateLayout& layout,
                  const UpdatePattern& pattern, const ReadFloats& weights,
                  const ReadFloats& velocity);

}  // namespace preheat
