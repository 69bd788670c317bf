// A column of a run's file, made small enough for a page without losing what matters in it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace preheat {

/// The indices, in order, that stand for `y` in a picture of about `most` points: the first, the
/// last, and of each of most / 2 equal stretches the least and the largest value. Where values stop
/// being finite, the last that is and the first that is not are among them (once per stretch). All
/// indices where there are no more than `most`.
std::vector<std::size_t> thin(std::span<const double> y, std::size_t most);

struct Points {
  std::vector<double> x;
  std::vector<double> y;  // not finite: a gap
};

/// Where the learning rate jumps: the indices of values that differ from the one before by more
/// than a twentieth of the larger, and by more than four times what it changes by just before and
/// after. A step of a decay or a restart is one; an update of a warmup is not, however steep.
std::vector<std::size_t> jumps(std::span<const double> lr);

/// Each point the mean of at most `window` values, at their middle; stretches are cut into windows
/// as equal as can be. A value that is not finite ends its stretch and follows as a point of its
/// own. A stretch ends before each of `breaks` too, indices in order, and the means beside it are
/// carried up to it: a line through the points changes there, and not before.
Points means(std::span<const double> x, std::span<const double> y, std::size_t window,
             std::span<const std::size_t> breaks = {});

/// What a table says of a series.
struct SeriesFacts {
  std::size_t values = 0;
  // Of those that are finite; nothing where none is.
  std::optional<double> first, last, least, least_at, largest, largest_at;
  std::optional<double> not_finite_at;  // the x of the first that is not
};

struct Series {
  Points points;           // thinned
  Points means;            // empty where `points` has every value
  std::size_t window = 1;  // of the means
  SeriesFacts facts;       // of all values
};

/// At most about `most` points, and a quarter as many means, in windows that end before `breaks`;
/// of more breaks than means none is heeded.
Series make_series(std::span<const double> x, std::span<const double> y, std::size_t most,
                   std::span<const std::size_t> breaks = {});

/// What one seed of an arm contributes to `spread_over`: its values (or their means) at rising x up
/// to `end`, and the x from which on it is not finite.
struct SeedCurve {
  Points points;
  double end = 0;
  std::optional<double> lost_at;
};

/// The seeds of an arm side by side, at each x.
struct SeedSpread {
  std::vector<double> x;
  std::vector<double> median;          // of all seeds; not finite where half or more are lost
  std::vector<double> least, largest;  // of the seeds that are finite; not finite where none is
  std::vector<double> finite;          // how many those are
};

enum class Worst { least, largest };

/// At each x of the seed that goes furthest. Between its points a seed is taken to be on the line
/// through them. One that is lost counts as the worst there is in the median, and not in the range;
/// one that ended, as an interrupted run does, counts no more at all.
SeedSpread spread_over(const std::vector<SeedCurve>& seeds, Worst worst);

}  // namespace preheat
