// What several measurements of one thing come to.
#pragma once

#include <algorithm>
#include <vector>

namespace preheat {

struct Spread {
  double median = 0;  // of an even number the larger of the two in the middle
  double least = 0;
  double largest = 0;
};

/// Of one value or more.
inline Spread spread_of(std::vector<double> values) {
  std::ranges::sort(values);
  return {values[values.size() / 2], values.front(), values.back()};
}

}  // namespace preheat
