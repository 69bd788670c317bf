// Summary of repeated measurements of one quantity.
#pragma once

#include <algorithm>
#include <vector>

namespace preheat {

struct Spread {
  double median = 0;  // the upper of the two middle values if their number is even
  double least = 0;
  double largest = 0;
};

/// Requires at least one value.
inline Spread spread_of(std::vector<double> values) {
  std::ranges::sort(values);
  return {values[values.size() / 2], values.front(), values.back()};
}

}  // namespace preheat
