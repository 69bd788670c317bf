#include "backend/benches.h"

#include <numeric>

namespace preheat {

std::int64_t UpdateSet::parameters() const {
  return std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0});
}

std::string_view to_string(SubmitMode way) {
  switch (way) {
    case SubmitMode::ceiling:
      return "ceiling";
    case SubmitMode::graph:
      return "graph";
    case SubmitMode::launches:
      return "launches";
    case SubmitMode::calls:
      break;
  }
  return "calls";
}

}  // namespace preheat
