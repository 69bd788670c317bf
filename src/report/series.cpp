#include "report/series.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace preheat {
namespace {

SeriesFacts facts_of(std::span<const double> x, std::span<const double> y) {
  SeriesFacts f;
  f.values = y.size();
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(y[i])) {
      if (!f.not_finite_at) f.not_finite_at = x[i];
      continue;
    }
    if (!f.first) f.first = y[i];
    f.last = y[i];
    if (!f.least || y[i] < *f.least) {
      f.least = y[i];
      f.least_at = x[i];
    }
    if (!f.largest || y[i] > *f.largest) {
      f.largest = y[i];
      f.largest_at = x[i];
    }
  }
  return f;
}

}  // namespace

std::vector<std::size_t> thin(std::span<const double> y, std::size_t most) {
  std::vector<std::size_t> kept;
  if (y.size() <= most) {
    kept.resize(y.size());
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    return kept;
  }
  kept = {0, y.size() - 1};
  const std::size_t buckets = std::max<std::size_t>(1, most / 2);
  for (std::size_t b = 0; b < buckets; ++b) {
    const std::size_t begin = b * y.size() / buckets;
    const std::size_t end = (b + 1) * y.size() / buckets;
    std::optional<std::size_t> least, largest, not_finite;
    for (std::size_t i = begin; i < end; ++i) {
      if (!std::isfinite(y[i])) {
        if (!not_finite) not_finite = i;
        continue;
      }
      if (!least || y[i] < y[*least]) least = i;
      if (!largest || y[i] > y[*largest]) largest = i;
    }
    if (least) kept.insert(kept.end(), {*least, *largest});
    if (not_finite) {
      kept.push_back(*not_finite);
      if (*not_finite > 0) kept.push_back(*not_finite - 1);
    }
  }
  std::ranges::sort(kept);
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

Points means(std::span<const double> x, std::span<const double> y, std::size_t window) {
  Points points;
  double sum = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const bool finite = std::isfinite(y[i]);
    if (finite) sum += y[i];
    const std::size_t end = finite ? i + 1 : i;
    if (end > first && (end - first == window || i + 1 == y.size() || !finite)) {
      points.x.push_back((x[first] + x[end - 1]) / 2);
      points.y.push_back(sum / static_cast<double>(end - first));
    }
    if (!finite) {
      points.x.push_back(x[i]);
      points.y.push_back(y[i]);
    }
    if (!finite || i + 1 - first == window) {
      first = i + 1;
      sum = 0;
    }
  }
  return points;
}

Series make_series(std::span<const double> x, std::span<const double> y, std::size_t most) {
  Series series;
  for (const std::size_t i : thin(y, most)) {
    series.points.x.push_back(x[i]);
    series.points.y.push_back(y[i]);
  }
  const std::size_t fewer = std::max<std::size_t>(1, most / 4);
  series.window = (y.size() + fewer - 1) / fewer;
  if (series.window > 1) series.means = means(x, y, series.window);
  series.facts = facts_of(x, y);
  return series;
}

}  // namespace preheat
