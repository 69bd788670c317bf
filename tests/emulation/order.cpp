#include "emulation/order.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace emulation {
namespace {

unsigned seed() {
  const char* text = std::getenv("PREHEAT_EMULATION_SEED");
  return text == nullptr ? 1u : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// Marsaglia's xorshift: fast, as every switch between threads takes a number.
std::uint32_t number() {
  static std::uint32_t state = 0x9e3779b9u ^ (seed() + 1);
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

}  // namespace

std::size_t any_below(std::size_t count) {
  return std::uint64_t{number()} * count >> 32;
}

std::size_t any_decision() {
  static const std::size_t decision = seed();
  return decision;
}

void put_in_any_order(std::vector<unsigned>& all) {
  switch (any_below(4)) {
    case 0:
      return;
    case 1:
      for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[any_below(i)]);
      return;
    default:
      std::reverse(all.begin(), all.end());
  }
}

}  // namespace emulation
