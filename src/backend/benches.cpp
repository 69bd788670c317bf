#include "backend/benches.h"

#include <numeric>

namespace preheat {

std::int64_t UpdateSet::parameters() const {
  return std::accumulate(tensors.begin(), tensors.end(), std::int64_t{0});
}

std::optional<double> us_over_empty(const UpdateTiming& row,
                                    const std::vector<UpdateTiming>& launch) {
  // A backend with launches times its ceilings in graphs too.
  const bool in_graph = row.way == SubmitMode::graph || row.way == SubmitMode::ceiling;
  if (!in_graph || launch.empty()) return std::nullopt;
  return row.microseconds.median - launch.front().microseconds.median;
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
