// The check that a variant in a bench really computes the update.
#include "backend/update_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "config/error.h"

namespace preheat {
namespace {

struct Arena {
  std::vector<float> weights, velocity;
  ReadFloats read(const std::vector<float>& from) const {
    return [&from](std::int64_t first, std::int64_t count) {
      return std::vector<float>(from.begin() + first, from.begin() + first + count);
    };
  }
};

// One update of the pattern in double, from the rule's formula and not from its code.
Arena updated(const UpdateLayout& layout, const UpdatePattern& pattern) {
  Arena arena;
  for (std::int64_t i = 0; i < layout.size; ++i) {
    const std::int64_t at = i % update_pattern_size;
    const double w = pattern.weights[at];
    const double v = 0.9 * pattern.velocity[at] + pattern.gradients[at] + bench_decay * w;
    arena.velocity.push_back(static_cast<float>(v));
    arena.weights.push_back(static_cast<float>(w - bench_rate * v));
  }
  return arena;
}

class CheckUpdate : public ::testing::Test {
 protected:
  void check() const {
    check_update({"a variant", {}, 1e-6, false}, set_, layout_, pattern_,
                 arena_.read(arena_.weights), arena_.read(arena_.velocity));
  }

  const UpdateSet set_{"odd ones", {1, 77, 12345, 200001}};
  const UpdateLayout layout_{set_};
  const UpdatePattern pattern_;
  Arena arena_ = updated(layout_, pattern_);
};

TEST_F(CheckUpdate, TakesAnUpdate) {
  check();
}

TEST_F(CheckUpdate, RefusesWhatIsNotOne) {
  const std::int64_t last = layout_.offsets.back() + set_.tensors.back() - 1;
  for (const std::int64_t at :
       {std::int64_t{0}, layout_.offsets[1] + 76, layout_.offsets[2], last}) {
    for (std::vector<float>* values : {&arena_.weights, &arena_.velocity}) {
      const float right = (*values)[at];
      for (const float wrong : {right + 1e-5f, 0.0f, std::numeric_limits<float>::quiet_NaN()}) {
        (*values)[at] = wrong;
        EXPECT_THROW(check(), Error) << at << " " << wrong;
      }
      (*values)[at] = right;
    }
  }
  check();
}

TEST_F(CheckUpdate, NamesTheVariantAndTheFloat) {
  arena_.velocity[layout_.offsets[2] + 5] += 1;
  try {
    check();
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("a variant does not compute the update: float 5 of "
                                               "tensor 2 of odd ones"));
  }
}

}  // namespace
}  // namespace preheat
