// The claims of sweep: how each kind is decided and worded, and what it requires of the axes. All
// are along an axis other than schedule.base_lr (accuracy_moves may also be along that), with its
// values in the order given, and at the values of the other axes given in `at`, by default all.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "config/counted.h"
#include "experiment/findings.h"
#include "experiment/sweep.h"

namespace preheat {
namespace {

// Tolerance for rates that are whole octaves apart only up to rounding.
constexpr double rounding = 1e-9;

// ---- Axes, before anything has run -------------------------------------------------------------

class ClaimableAxes {
 public:
  explicit ClaimableAxes(const RunConfig& base)
      : base_(base), axes_(base.sweep->axes), rate_(rate_axis(axes_)) {
    for (const Axis& axis : axes_) {
      keys_.push_back(axis.key);
      if (&axis != rate_) others_.push_back(axis.key);
    }
  }

  void require_rate(const std::string& place) const {
    if (rate_ != nullptr) return;
    refuse(place + ".along", "the axes do not have schedule.base_lr",
           "schedule.base_lr: {log: [0.01, 1, 5]} among sweep.axes");
  }

  // For claims about boundaries, which are along the rate: `along` must be another axis, and `at`
  // may hold values of further axes only.
  void check_along(const std::string& along, const std::vector<Override>& at,
                   const std::string& place) const {
    const std::string key = place + ".along";
    if (std::ranges::find(others_, along) == others_.end()) {
      refuse(key, fmt::format("{} is not an axis other than schedule.base_lr", along),
             others_.empty() ? "one more of sweep.axes"
                             : fmt::format("one of {}", fmt::join(others_, ", ")));
    }
    require_two(along, axis(along)->values.size(), key);
    for (const Override& o : at) {
      const std::string at_key = place + ".at." + o.key;
      if (axis(o.key) == nullptr || o.key == along || axis(o.key) == rate_) {
        refuse(at_key, fmt::format("{} is not a further axis", o.key),
               "an axis other than schedule.base_lr and the one gone along");
      }
      require_value(*axis(o.key), o.value, at_key);
    }
  }

  void check_over(const std::vector<Axis>& over, const std::string& along,
                  const std::string& place) const {
    for (const Axis& wanted : over) {
      const std::string key = place + ".over." + wanted.key;
      if (axis(wanted.key) == nullptr || axis(wanted.key) == rate_) {
        refuse(key, fmt::format("{} is not an axis other than schedule.base_lr", wanted.key),
               "an axis; the rates follow from the boundary");
      }
      for (std::size_t i = 0; i < wanted.values.size(); ++i) {
        require_value(*axis(wanted.key), wanted.values[i], key);
        for (std::size_t k = 0; k < i; ++k) {
          if (is_same(wanted.values[i], wanted.values[k])) {
            refuse(key, fmt::format("{} appears twice", to_flow_text(wanted.values[i])),
                   "each value once");
          }
        }
      }
      if (wanted.key == along) require_two(wanted.key, wanted.values.size(), key);
    }
  }

  void require_axis(const std::string& along, const std::string& key) const {
    if (axis(along) == nullptr) {
      refuse(key, fmt::format("there is no axis {}", along),
             fmt::format("one of {}", fmt::join(keys_, ", ")));
    }
    require_two(along, axis(along)->values.size(), key);
  }

  void require_cross_entropy(const std::string& key) const {
    if (has_sensitivity(base_, axes_)) return;
    refuse(key, "sensitivity compares losses, for which all cells need the same cross entropy",
           "loss: cross_entropy, and neither loss nor label_smoothing among the axes");
  }

 private:
  [[noreturn]] void refuse(const std::string& key, const std::string& problem,
                           const std::string& remedy) const {
    throw ConfigError(base_.where(key), problem, remedy);
  }

  const Axis* axis(const std::string& key) const {
    const auto found = std::ranges::find(axes_, key, &Axis::key);
    return found == axes_.end() ? nullptr : &*found;
  }

  void require_two(const std::string& name, std::size_t values, const std::string& key) const {
    if (values >= 2) return;
    refuse(key, fmt::format("{} has a single value", name), "an axis with at least two");
  }

  void require_value(const Axis& axis, const Node& value, const std::string& key) const {
    if (std::ranges::any_of(axis.values, [&](const Node& v) { return is_same(v, value); })) return;
    refuse(key, fmt::format("{} is not a value of the axis", to_flow_text(value)),
           "one of its values");
  }

  const RunConfig& base_;
  const std::vector<Axis>& axes_;
  const Axis* rate_;                 // one of them, or null
  std::vector<std::string> keys_;    // of all axes
  std::vector<std::string> others_;  // keys of all but the rate
};

// ---- The grid after it has run -----------------------------------------------------------------

class Grid {
 public:
  Grid(const RunConfig& base_config, const SweepResult& result)
      : base(base_config),
        lines(lines_along_rate(result.axes, result.cells)),
        seeds(lines.empty() ? 0 : lines.front().cells.front()->runs.size()) {
    for (const Axis& axis : result.axes) {
      if (&axis != rate_axis(result.axes)) others.push_back(axis);
    }
  }

  const Axis& axis_of(const std::string& key) const {
    return *std::ranges::find(others, key, &Axis::key);
  }

  // The lines at the values of `at`, grouped by the values of the axes other than `along`; each
  // group is in the order of that axis.
  using Families = std::vector<std::vector<std::size_t>>;
  Families families_along(const std::string& along, const std::vector<Override>& at) const {
    std::map<std::size_t, std::vector<std::size_t>> by_rest;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const bool is_there = std::ranges::all_of(
          at, [&](const Override& o) { return is_same(value_at(i, o.key), o.value); });
      if (is_there) by_rest[place_on_axis(i, others, along).rest].push_back(i);
    }
    Families families;
    for (auto& [rest, members] : by_rest) families.push_back(std::move(members));
    return families;
  }

  // The lines whose values on the axes of `over` are among those given there.
  std::vector<std::size_t> lines_over(const std::vector<Axis>& over) const {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const bool is_there = std::ranges::all_of(over, [&](const Axis& wanted) {
        return std::ranges::any_of(wanted.values, [&](const Node& value) {
          return is_same(value_at(i, wanted.key), value);
        });
      });
      if (is_there) found.push_back(i);
    }
    return found;
  }

  // log2 of the boundary: of half the smallest rate if none trains, of the largest if all do.
  double octave(std::size_t line, const Boundary& boundary) const {
    return std::log2(boundary.largest_training.value_or(lines[line].rates.front() / 2));
  }

  // The same, and log2 of the smallest rate that fails: the true boundary is between the two.
  Interval octaves(std::size_t line, const Boundary& boundary) const {
    const double lo = octave(line, boundary);
    return {lo, boundary.smallest_failing ? std::log2(*boundary.smallest_failing) : lo};
  }

  // The accuracy of each seed, averaged over the cells.
  std::vector<double> accuracies(const std::vector<const ArmResult*>& cells) const {
    std::vector<double> by_seed(seeds);
    for (std::size_t seed = 0; seed < seeds; ++seed) {
      for (const ArmResult* cell : cells) {
        by_seed[seed] += counted_accuracy(cell->runs[seed].run, base);
      }
      by_seed[seed] /= static_cast<double>(cells.size());
    }
    return by_seed;
  }

  std::int64_t n() const { return static_cast<std::int64_t>(seeds); }

  const RunConfig& base;
  const std::vector<GridLine> lines;
  const std::size_t seeds;
  std::vector<Axis> others;  // all axes but the rate

 private:
  const Node& value_at(std::size_t line, const std::string& key) const {
    return std::ranges::find(lines[line].point, key, &Override::key)->value;
  }
};

std::string at_text(const std::vector<Override>& at) {
  std::string text;
  for (const Override& o : at) {
    text += fmt::format("{} {} {}", text.empty() ? ", at" : ",", o.key, to_flow_text(o.value));
  }
  return text;
}

// ---- boundary_rises ----------------------------------------------------------------------------
// Per seed, log2 of the largest rate that trained below the first that failed (half the smallest if
// none trained, the largest if all did), averaged over the other axes, whose cells share a seed's
// data and initial weights. Page's trend test over the axis, one-sided; each seed is a block. Also
// FAIL if the boundary over all seeds steps back by more than octaves_back between neighbouring
// values.

std::string text_of(const BoundaryRisesClaim& c) {
  return fmt::format("the largest rate that trains rises along {}{}", c.along, at_text(c.at));
}

void check(const BoundaryRisesClaim& c, const std::string& place, const ClaimableAxes& axes) {
  axes.check_along(c.along, c.at, place);
}

// The boundaries over all seeds, level by level: "boundary 0.1, 0.4; 0.1, 0.2".
std::string rates_text(const std::vector<double>& octaves, std::size_t levels) {
  std::string text;
  for (std::size_t i = 0; i < octaves.size(); ++i) {
    text += i == 0 ? "boundary " : i % levels == 0 ? "; " : ", ";
    text += fmt::format("{:.3g}", std::exp2(octaves[i]));
  }
  return text;
}

Finding judge(const BoundaryRisesClaim& c, const Grid& grid) {
  const Grid::Families families = grid.families_along(c.along, c.at);
  const std::size_t levels = families.front().size();
  std::vector<double> outcomes(grid.seeds * levels);  // a block for each seed
  std::vector<double> over_seeds;
  std::int64_t all_train = 0;
  std::int64_t none_trains = 0;
  double step_back = 0;
  for (const auto& family : families) {
    for (const std::size_t line : family) {
      over_seeds.push_back(grid.octave(line, boundary_of(grid.lines[line])));
      if (line == family.front()) continue;
      step_back = std::max(step_back, *(over_seeds.end() - 2) - over_seeds.back());
    }
    for (std::size_t seed = 0; seed < grid.seeds; ++seed) {
      for (std::size_t level = 0; level < levels; ++level) {
        const std::size_t line = family[level];
        const Boundary boundary = boundary_of(grid.lines[line], std::vector{seed});
        all_train += boundary.smallest_failing ? 0 : 1;
        none_trains += boundary.largest_training ? 0 : 1;
        outcomes[seed * levels + level] +=
            grid.octave(line, boundary) / static_cast<double>(families.size());
      }
    }
  }
  for (double& outcome : outcomes) {  // so that equal means tie, in whatever order they were summed
    outcome = std::round(outcome / rounding) * rounding;
  }
  const auto [trend, test] = trend_test(levels, outcomes, Alternative::increasing);
  Finding finding;
  finding.evidence = fmt::format(
      "{}; mean rank correlation {:.2f} over {}; all rates train in {} of {} rows, none in {}; "
      "largest step back {:.2g} octaves, {:g} are let pass",
      rates_text(over_seeds, levels), trend.rho, counted(trend.blocks, "seed"), all_train,
      outcomes.size() * families.size(), none_trains, step_back, c.octaves_back);
  finding.test = test;
  finding.contradicted = step_back > c.octaves_back + rounding;
  return finding;
}

// ---- boundary_moves ----------------------------------------------------------------------------
// Per seed, the same log2 at the last value of the axis minus that at the first, averaged over the
// other axes. A true boundary is up to a step of the grid above the largest rate that trained, so a
// movement is known only to a range, which has no end where a row trains at all rates or at none.
// octaves_above: PASS if the expanded bootstrap interval over seeds, widened to those ranges, is
// above it, FAIL if below; octaves_below is the reverse. Needs five seeds.

std::string text_of(const BoundaryMovesClaim& c) {
  return fmt::format("the largest rate that trains moves by {} than {:g} octaves along {}{}",
                     more_or_less(c.octaves), c.octaves.value(), c.along, at_text(c.at));
}

void check(const BoundaryMovesClaim& c, const std::string& place, const ClaimableAxes& axes) {
  axes.check_along(c.along, c.at, place);
}

Finding judge(const BoundaryMovesClaim& c, const Grid& grid) {
  const Grid::Families families = grid.families_along(c.along, c.at);
  std::vector<double> by_seed;
  BoundedValues bounded;
  for (std::size_t seed = 0; seed < grid.seeds; ++seed) {
    double sum = 0;
    Interval range{0, 0};
    for (const auto& family : families) {
      const Boundary first = boundary_of(grid.lines[family.front()], std::vector{seed});
      const Boundary last = boundary_of(grid.lines[family.back()], std::vector{seed});
      const Interval from = grid.octaves(family.front(), first);
      const Interval to = grid.octaves(family.back(), last);
      sum += to.lo - from.lo;
      range.lo += to.lo - from.hi;
      range.hi += to.hi - from.lo;
      const bool may_be_larger = !first.largest_training || !last.smallest_failing;
      const bool may_be_smaller = !first.smallest_failing || !last.largest_training;
      bounded.may_be_larger += may_be_larger ? 1 : 0;
      bounded.may_be_smaller += may_be_smaller ? 1 : 0;
    }
    const auto combinations = static_cast<double>(families.size());
    by_seed.push_back(sum / combinations);
    bounded.least.push_back(range.lo / combinations);
    bounded.most.push_back(range.hi / combinations);
  }
  const Axis& axis = grid.axis_of(c.along);
  Finding finding;
  finding.evidence =
      fmt::format("{:.2f} octaves from {} to {}, the mean of {} ({:.2f}){}", mean(by_seed),
                  to_flow_text(axis.values.front()), to_flow_text(axis.values.back()),
                  counted(grid.seeds, "seed"), fmt::join(by_seed, ", "), few_text(grid.n()));
  if (bounded.may_be_larger + bounded.may_be_smaller > 0) {
    finding.evidence += fmt::format(
        "; of {} movements {} may be larger and {} smaller: a row trains at all rates or at none",
        grid.seeds * families.size(), bounded.may_be_larger, bounded.may_be_smaller);
  }
  if (grid.n() < min_seeds_for_bootstrap) return finding;
  finding.verdict = verdict_of(bounded.interval(), c.octaves);
  finding.evidence +=
      fmt::format("; bootstrap at 95 % {}, with the steps of the grid {}",
                  to_string(bootstrap(by_seed, mean).expanded), to_string(bounded.interval()));
  return finding;
}

// ---- sensitivity_falls -------------------------------------------------------------------------
// The sensitivity (experiment/sweep.h) at the first value of the axis minus that at the last,
// averaged over the other axes: PASS if the expanded bootstrap interval over seeds is above 0, FAIL
// if below. Needs five seeds. INCONCLUSIVE if the difference is equal in all seeds.

std::string text_of(const SensitivityFallsClaim& c) {
  return fmt::format("the sensitivity to the base rate falls along {}{}", c.along, at_text(c.at));
}

void check(const SensitivityFallsClaim& c, const std::string& place, const ClaimableAxes& axes) {
  axes.check_along(c.along, c.at, place);
  axes.require_cross_entropy(place + ".along");
}

Finding judge(const SensitivityFallsClaim& c, const Grid& grid) {
  const Grid::Families families = grid.families_along(c.along, c.at);
  const auto at_ends = [&](RunNumbers seeds) {
    const std::vector<double> all = sensitivities_of(grid.lines, grid.base, seeds);
    std::pair<double, double> means;
    for (const auto& family : families) {
      means.first += all[family.front()] / static_cast<double>(families.size());
      means.second += all[family.back()] / static_cast<double>(families.size());
    }
    return means;
  };
  const Axis& axis = grid.axis_of(c.along);
  const auto [first, last] = at_ends(std::nullopt);
  Finding finding;
  finding.evidence = fmt::format(
      "{:.4f} at {} against {:.4f} at {}, {}{}", first, to_flow_text(axis.values.front()), last,
      to_flow_text(axis.values.back()), counted(grid.seeds, "seed"), few_text(grid.n()));
  if (grid.n() < min_seeds_for_bootstrap) return finding;
  const Interval interval = bootstrap_rows(grid.seeds, [&](std::span<const std::size_t> drawn) {
                              const auto [a, b] = at_ends(drawn);
                              return a - b;
                            }).expanded;
  std::vector<double> differences;
  for (std::size_t seed = 0; seed < grid.seeds; ++seed) {
    const auto [a, b] = at_ends(std::vector{seed});
    differences.push_back(a - b);
  }
  if (!are_equal(differences)) finding.verdict = verdict_above(interval, 0);
  finding.evidence += fmt::format("; difference {:.4f}, bootstrap at 95 % [{:.4f}, {:.4f}]{}",
                                  first - last, interval.lo, interval.hi, equal_text(differences));
  return finding;
}

// ---- accuracy_moves ----------------------------------------------------------------------------
// Uses the cells at the values of `over` whose rate is at least octaves_from_boundary below the
// smallest boundary of their lines. Per seed, the mean test accuracy at a value of the axis, which
// may be schedule.base_lr, minus that at its first value.
// `within`: PASS if for each value two one-sided t tests of the mean have p < 0.05 (all must, so
// nothing is adjusted), FAIL if the 90 % interval of one is outside (-within, within).
// `beyond`, for the last value: PASS if the 95 % t interval is outside (-beyond, beyond), FAIL if
// inside. Also INCONCLUSIVE if there is no rate that low (along the rate: fewer than two). A value
// at which all differences are equal decides nothing.

std::string text_of(const AccuracyMovesClaim& c) {
  std::string over;
  for (const Axis& axis : c.over) {
    std::vector<std::string> values;
    for (const Node& value : axis.values) values.push_back(to_flow_text(value));
    over += fmt::format("{} {} {}", over.empty() ? ", over" : " and", axis.key,
                        fmt::join(values, ", "));
  }
  return fmt::format("{:g} octaves below the boundary accuracy moves by {} than {} along {}{}",
                     c.octaves_from_boundary, c.within ? "less" : "more",
                     percentage_points(c.within ? *c.within : *c.beyond), c.along, over);
}

void check(const AccuracyMovesClaim& c, const std::string& place, const ClaimableAxes& axes) {
  axes.require_axis(c.along, place + ".along");
  axes.check_over(c.over, c.along, place);
}

// The smallest boundary of the lines; 0 if one of them trains at no rate.
double least_boundary(const std::vector<GridLine>& lines, const std::vector<std::size_t>& chosen) {
  double least = lines[chosen.front()].rates.back();
  for (const std::size_t line : chosen) {
    least = std::min(least, boundary_of(lines[line]).largest_training.value_or(0));
  }
  return least;
}

using CellsByValue = std::map<std::size_t, std::vector<const ArmResult*>>;

std::string failed_text(const CellsByValue& levels) {
  std::int64_t failed = 0;
  for (const auto& [level, cells] : levels) {
    for (const ArmResult* cell : cells) failed += cell->failures();
  }
  return failed == 0 ? "" : fmt::format(", {} failed runs with the accuracy of chance", failed);
}

Verdict verdict_of(const std::vector<Interval>& intervals, const AccuracyMovesClaim& c) {
  const double limit = c.within ? *c.within : *c.beyond;
  const auto is_inside = [&](const Interval& i) {
    return verdict_within(i, {-limit, limit}) == Verdict::pass;
  };
  const auto is_outside = [&](const Interval& i) {
    return verdict_within(i, {-limit, limit}) == Verdict::fail;
  };
  if (std::ranges::all_of(intervals, is_inside)) return c.within ? Verdict::pass : Verdict::fail;
  if (std::ranges::any_of(intervals, is_outside)) return c.within ? Verdict::fail : Verdict::pass;
  return Verdict::inconclusive;
}

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Interval any_value{-infinity, infinity};

Finding judge(const AccuracyMovesClaim& c, const Grid& grid) {
  const std::vector<std::size_t> lines = grid.lines_over(c.over);
  const std::vector<double>& rates = grid.lines[lines.front()].rates;
  const double boundary = least_boundary(grid.lines, lines);
  const double largest = boundary * std::exp2(-c.octaves_from_boundary) * (1 + rounding);
  const auto chosen = static_cast<std::size_t>(
      std::ranges::count_if(rates, [&](double rate) { return rate <= largest; }));
  const bool along_rate = std::ranges::find(grid.others, c.along, &Axis::key) == grid.others.end();
  Finding finding;
  finding.evidence = fmt::format("{} of {} rates are at most {:.3g}, the least boundary is {:.3g}",
                                 chosen, rates.size(), largest, boundary);
  if (chosen < (along_rate ? 2U : 1U)) return finding;

  CellsByValue levels;
  for (const std::size_t line : lines) {
    for (std::size_t i = 0; i < chosen; ++i) {
      const std::size_t level = along_rate ? i : place_on_axis(line, grid.others, c.along).level;
      levels[level].push_back(grid.lines[line].cells[i]);
    }
  }
  const std::vector<double> first = grid.accuracies(levels.begin()->second);
  const auto name = [&](std::size_t level) {
    return along_rate ? fmt::format("{:g}", rates[level])
                      : to_flow_text(grid.axis_of(c.along).values[level]);
  };
  finding.evidence +=
      fmt::format("; {}, {} at each value{}; {:.2f} % at {}", counted(grid.seeds, "seed"),
                  counted(levels.begin()->second.size(), "cell"), failed_text(levels),
                  100 * mean(first), name(levels.begin()->first));
  if (grid.seeds < 2) return finding;
  const double confidence = c.within ? 0.90 : 0.95;
  std::vector<Interval> intervals;  // of each value after the first
  for (auto level = std::next(levels.begin()); level != levels.end(); ++level) {
    const std::vector<double> differences =
        paired_differences(grid.accuracies(level->second), first);
    const PairedT t = paired_t(differences, confidence);
    intervals.push_back(are_equal(differences) ? any_value : t.interval);
    finding.evidence += fmt::format("; {:+.2f} at {} {}{}", 100 * t.mean, name(level->first),
                                    to_string(Interval{100 * t.interval.lo, 100 * t.interval.hi}),
                                    are_equal(differences) ? ", equal in all seeds" : "");
  }
  finding.evidence += fmt::format(", t intervals at {:g} %", 100 * confidence);
  if (c.beyond) intervals = {intervals.back()};
  finding.verdict = verdict_of(intervals, c);
  return finding;
}

}  // namespace

void check_sweep_claims(const RunConfig& base) {
  refuse_foreign_claims(base, ExperimentKind::sweep);
  const ClaimableAxes axes(base);
  for_claims<ExperimentKind::sweep>(base, [&](const auto& claim, const std::string& place) {
    axes.require_rate(place);
    check(claim, place, axes);
  });
}

std::vector<ClaimResult> judge_sweep(const RunConfig& base, const SweepResult& result) {
  const Grid grid(base, result);
  return judge_claims<ExperimentKind::sweep>(
      base, result.interrupted, [](const auto& claim) { return text_of(claim); },
      [&](const auto& claim) { return judge(claim, grid); });
}

}  // namespace preheat
