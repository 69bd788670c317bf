#include "config/nearest.h"

#include <fmt/format.h>

#include <algorithm>

namespace preheat {
namespace {

// Optimal string alignment distance: insertions, deletions, substitutions and transpositions of
// adjacent characters.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, substituted});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::vector<std::string> nearest(std::string_view name, const std::vector<std::string>& names) {
  std::vector<std::string> best;
  std::size_t least = 2 + name.size() / 6;
  for (const std::string& candidate : names) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance >= least && (best.empty() || distance > least)) continue;
    if (distance < least) best.clear();
    least = distance;
    best.push_back(candidate);
  }
  if (!best.empty() || name.size() < 3) return best;
  for (const std::string& candidate : names) {
    if (candidate.find(name) != std::string::npos) best.push_back(candidate);
  }
  return best;
}

std::string did_you_mean(const std::vector<std::string>& names) {
  return fmt::format("did you mean {}?", fmt::join(names, " or "));
}

}  // namespace preheat
