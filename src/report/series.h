// Reduces a column of a run's file to the size of a page without losing its important values.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace preheat {

/// The indices, in order, that represent `y` in a picture of about `most` points: the first, the
/// last, and the least and largest value in each of most / 2 equal ranges. Where values stop being
/// finite, the last finite and the first non-finite one are included (once per range). All indices
/// if there are at most `most`.
std::vector<std::size_t> thin(std::span<const double> y, std::size_t most);

/// The indices that represent each of several columns of one size: those of thin() of any of them.
std::vector<std::size_t> thin_together(std::span<const std::vector<double>* const> columns,
                                       std::size_t most);

/// The values at these indices.
std::vector<double> picked(std::span<const double> values, std::span<const std::size_t> indices);

/// No value: an interruption of a curve.
inline constexpr double gap = std::numeric_limits<double>::quiet_NaN();

struct Points {
  std::vector<double> x;
  std::vector<double> y;  // not finite: a gap

  void add(double at, double value) {
    x.push_back(at);
    y.push_back(value);
  }
};

/// Where the learning rate jumps: the indices of values that differ from the previous one by more
/// than a twentieth of the larger, and by more than four times the change just before and after. A
/// step of a decay or a restart is a jump; an update of a warmup is not, however steep.
std::vector<std::size_t> jumps(std::span<const double> lr);

/// Each point is the mean of at most `window` values, at their midpoint; segments are cut into
/// windows of nearly equal size. A value that is not finite ends its segment and follows as a point
/// of its own. A segment also ends before each index of `breaks` (ascending), and the adjacent
/// means are extended up to the break: a line through the points changes there, and not before.
Points means(std::span<const double> x, std::span<const double> y, std::size_t window,
             std::span<const std::size_t> breaks = {});

/// A table's facts about a series.
struct SeriesFacts {
  std::size_t values = 0;
  // Of the finite values; std::nullopt if there are none.
  std::optional<double> first, last, least, least_at, largest, largest_at;
  std::optional<double> not_finite_at;  // the x from which on none is
};

SeriesFacts facts_of(std::span<const double> x, std::span<const double> y);

struct Series {
  Points points;           // thinned
  Points means;            // empty if each would be of one value
  std::size_t window = 1;  // of the means
  SeriesFacts facts;       // of all values
};

/// At most about `most` points, and a quarter as many means, in windows that end before `breaks`;
/// if there are more breaks than means, all of them are ignored.
Series make_series(std::span<const double> x, std::span<const double> y, std::size_t most,
                   std::span<const std::size_t> breaks = {});

/// The contribution of one seed of an arm to `spread_over`: its values (or their means) at
/// ascending x up to `end`, and the x from which on it is not finite.
struct SeedCurve {
  Points points;
  double end = 0;
  std::optional<double> lost_at;
};

/// The distribution over the seeds of an arm, at each x.
struct SeedSpread {
  std::vector<double> x;
  std::vector<double> median;          // of all seeds; not finite if half or more have diverged
  std::vector<double> least, largest;  // of the finite seeds; not finite if there are none
  std::vector<double> finite;          // number of finite seeds
};

enum class Worst { least, largest };

/// The points that represent the median and both ends of the range.
SeedSpread thinned(const SeedSpread& spread, std::size_t most);

/// Evaluated at each x of the longest seed, with linear interpolation between a seed's points, but
/// not from or to one that is not finite: up to it, and after it, the other's value holds. A seed
/// that has diverged counts as the worst value in the median, and not in the range; one that has
/// ended, such as an interrupted run, is no longer counted.
SeedSpread spread_over(const std::vector<SeedCurve>& seeds, Worst worst);

}  // namespace preheat
