#include "backend/benches.h"

#include <numeric>

namespace preheat {

std::int64_t UpdateSet::parameters() const {
  return std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0});
}

std::string_view to_string(UpdateWay way) {
  switch (way) {
    case UpdateWay::ceiling:
      return "ceiling";
    case UpdateWay::graph:
      return "graph";
    case UpdateWay::launches:
      return "launches";
    case UpdateWay::calls:
      break;
  }
  return "calls";
}

}  // namespace preheat
