#include "report/series.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "experiment/statistics.h"

namespace preheat {
namespace {

// Linear interpolation; beyond the ends the nearest point's value, and between a finite and another
// one the finite: an event must not show before it happens.
double value_at(const Points& points, double x) {
  const auto after = std::ranges::lower_bound(points.x, x);
  const auto i = static_cast<std::size_t>(after - points.x.begin());
  if (i == points.x.size()) return points.y.back();
  if (i == 0 || points.x[i] == x) return points.y[i];
  if (!std::isfinite(points.y[i])) return points.y[i - 1];
  if (!std::isfinite(points.y[i - 1])) return points.y[i];
  const double share = (x - points.x[i - 1]) / (points.x[i] - points.x[i - 1]);
  return points.y[i - 1] + share * (points.y[i] - points.y[i - 1]);
}

// Of indices, in place.
void sort_and_drop_repeated(std::vector<std::size_t>& indices) {
  std::ranges::sort(indices);
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
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
  sort_and_drop_repeated(kept);
  return kept;
}

std::vector<std::size_t> thin_together(std::span<const std::vector<double>* const> columns,
                                       std::size_t most) {
  std::vector<std::size_t> kept;
  for (const std::vector<double>* column : columns) {
    const std::vector<std::size_t> of_column = thin(*column, most);
    kept.insert(kept.end(), of_column.begin(), of_column.end());
  }
  sort_and_drop_repeated(kept);
  return kept;
}

std::vector<double> picked(std::span<const double> values, std::span<const std::size_t> indices) {
  std::vector<double> of_indices;
  for (const std::size_t i : indices) of_indices.push_back(values[i]);
  return of_indices;
}

std::vector<std::size_t> jumps(std::span<const double> lr) {
  const auto change = [&](std::size_t i) {
    return i > 0 && i < lr.size() ? std::abs(lr[i] - lr[i - 1]) : 0;
  };
  std::vector<std::size_t> found;
  for (std::size_t i = 1; i < lr.size(); ++i) {
    const double usual = std::max(change(i - 1), change(i + 1));
    const double size = std::max(std::abs(lr[i]), std::abs(lr[i - 1]));
    if (change(i) > 0.05 * size && change(i) > 4 * usual) found.push_back(i);
  }
  return found;
}

Points means(std::span<const double> x, std::span<const double> y, std::size_t window,
             std::span<const std::size_t> breaks) {
  Points points;
  const auto is_break = [&](std::size_t i) { return std::ranges::binary_search(breaks, i); };
  for (std::size_t begin = 0, end = 0; begin < y.size(); begin = end) {
    end = begin + 1;
    if (!std::isfinite(y[begin])) {
      points.add(x[begin], y[begin]);
      continue;
    }
    while (end < y.size() && std::isfinite(y[end]) && !is_break(end)) ++end;
    const std::size_t windows = (end - begin + window - 1) / window;
    for (std::size_t w = 0, first = begin; w < windows; ++w) {
      const std::size_t next = begin + ((w + 1) * (end - begin) + windows - 1) / windows;
      double sum = 0;
      for (std::size_t i = first; i < next; ++i) sum += y[i];
      const double mean = sum / static_cast<double>(next - first);
      const double middle = (x[first] + x[next - 1]) / 2;
      if (w == 0 && is_break(begin) && x[begin] < middle) points.add(x[begin], mean);
      points.add(middle, mean);
      if (next == end && end < y.size() && is_break(end) && middle < x[end - 1]) {
        points.add(x[end - 1], mean);
      }
      first = next;
    }
  }
  return points;
}

SeriesFacts facts_of(std::span<const double> x, std::span<const double> y) {
  SeriesFacts f;
  f.values = y.size();
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(y[i])) {
      if (!f.not_finite_at) f.not_finite_at = x[i];
      continue;
    }
    f.not_finite_at.reset();  // an update that was skipped, to scale the loss, is not the end
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

Series make_series(std::span<const double> x, std::span<const double> y, std::size_t most,
                   std::span<const std::size_t> breaks) {
  Series series;
  const std::vector<std::size_t> kept = thin(y, most);
  series.points = {picked(x, kept), picked(y, kept)};
  const std::size_t fewer = std::max<std::size_t>(1, most / 4);
  series.window = (y.size() + fewer - 1) / fewer;
  if (breaks.size() > fewer) breaks = {};
  if (series.window > 1) series.means = means(x, y, series.window, breaks);
  series.facts = facts_of(x, y);
  return series;
}

SeedSpread thinned(const SeedSpread& spread, std::size_t most) {
  const std::vector<double>* const columns[] = {&spread.median, &spread.least, &spread.largest};
  const std::vector<std::size_t> kept = thin_together(columns, most);
  return {picked(spread.x, kept), picked(spread.median, kept), picked(spread.least, kept),
          picked(spread.largest, kept), picked(spread.finite, kept)};
}

SeedSpread spread_over(const std::vector<SeedCurve>& seeds, Worst worst) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  constexpr double none = std::numeric_limits<double>::quiet_NaN();
  SeedSpread spread;
  const SeedCurve* furthest = nullptr;
  for (const SeedCurve& seed : seeds) {
    if (!seed.points.x.empty() && (furthest == nullptr || seed.end > furthest->end)) {
      furthest = &seed;
    }
  }
  if (furthest == nullptr) return spread;
  for (const double x : furthest->points.x) {
    std::vector<double> finite;
    std::size_t lost = 0;
    for (const SeedCurve& seed : seeds) {
      const bool is_lost = seed.lost_at && x >= *seed.lost_at;
      const bool has_ended = seed.points.x.empty() || (!seed.lost_at && x > seed.end);
      if (!is_lost && has_ended) continue;
      const double value = is_lost ? none : value_at(seed.points, x);
      if (std::isfinite(value)) {
        finite.push_back(value);
      } else {
        ++lost;
      }
    }
    std::ranges::sort(finite);
    spread.x.push_back(x);
    spread.least.push_back(finite.empty() ? none : finite.front());
    spread.largest.push_back(finite.empty() ? none : finite.back());
    spread.finite.push_back(static_cast<double>(finite.size()));
    if (worst == Worst::largest) {
      finite.insert(finite.end(), lost, inf);
    } else {
      finite.insert(finite.begin(), lost, -inf);
    }
    spread.median.push_back(finite.empty() ? none : median_with_infinite(finite));
  }
  return spread;
}

}  // namespace preheat
