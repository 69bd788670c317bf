// The claims of sweep, each as claims.h says.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "config/values.h"
#include "data/dataset.h"
#include "experiment/findings.h"
#include "experiment/ranks.h"
#include "experiment/sweep.h"

namespace preheat {
namespace {

class SweepJudge {
 public:
  SweepJudge(const RunConfig& base, const SweepResult& result)
      : base_(base),
        lines_(lines_along_rate(result.axes, result.cells)),
        seeds_(lines_.empty() ? 0 : lines_.front().cells.front()->runs.size()) {
    for (const Axis& axis : result.axes) {
      if (&axis != rate_axis(result.axes)) others_.push_back(axis);
    }
  }

  Finding operator()(const BoundaryRisesClaim& c, const std::string&) const {
    const Families families = families_along(c.along, c.at);
    const std::size_t levels = families.front().size();
    std::vector<double> outcomes;  // a block for each family and seed
    std::vector<double> over_seeds;
    std::int64_t all_train = 0;
    std::int64_t none_trains = 0;
    for (const auto& family : families) {
      for (const std::size_t line : family) {
        over_seeds.push_back(octave(line, boundary_of(lines_[line], {})));
      }
      for (std::size_t seed = 0; seed < seeds_; ++seed) {
        for (const std::size_t line : family) {
          const Boundary boundary = boundary_of(lines_[line], std::vector{seed});
          all_train += boundary.smallest_failing ? 0 : 1;
          none_trains += boundary.largest_training ? 0 : 1;
          outcomes.push_back(octave(line, boundary));
        }
      }
    }
    double step_back = 0;
    for (std::size_t i = 0; i + 1 < over_seeds.size(); ++i) {
      if ((i + 1) % levels != 0) {
        step_back = std::max(step_back, over_seeds[i] - over_seeds[i + 1]);
      }
    }
    std::vector<double> order(levels);
    std::iota(order.begin(), order.end(), 0.0);
    std::vector<double> perfect;
    for (std::size_t i = 0; i < outcomes.size(); ++i) perfect.push_back(order[i % levels]);
    const PageTrend trend = page_trend(order, outcomes, Alternative::increasing);
    Finding finding;
    finding.evidence = fmt::format(
        "{}; mean rank correlation {:.2f} over {} blocks ({} seeds); all rates train in {} of {} "
        "rows, none in {}; largest step back {:.2g} octaves, {:g} are let pass",
        rates_text(over_seeds, levels), trend.rho, trend.blocks, seeds_, all_train, outcomes.size(),
        none_trains, step_back, c.octaves_back);
    // The logarithms of rates that are an octave apart are so only but for rounding.
    finding.contradicted = step_back > c.octaves_back + 1e-9;
    finding.test = Test{.name = "Page p",
                        .p = trend.p,
                        .right_way = trend.rho > 0,
                        .least_p = page_trend(order, perfect, Alternative::increasing).p};
    return finding;
  }

  Finding operator()(const BoundaryMovesClaim& c, const std::string&) const {
    const Families families = families_along(c.along, c.at);
    const auto moves = [&](std::size_t seed) {
      double sum = 0;
      for (const auto& family : families) {
        sum += octave(family.back(), boundary_of(lines_[family.back()], std::vector{seed})) -
               octave(family.front(), boundary_of(lines_[family.front()], std::vector{seed}));
      }
      return sum / static_cast<double>(families.size());
    };
    std::vector<double> by_seed;
    for (std::size_t seed = 0; seed < seeds_; ++seed) by_seed.push_back(moves(seed));
    const Axis& axis = axis_of(c.along);
    Finding finding;
    finding.evidence =
        fmt::format("{:.2f} octaves from {} to {}, the mean of {} seeds ({:.2f}){}", mean(by_seed),
                    to_flow_text(axis.values.front()), to_flow_text(axis.values.back()), seeds_,
                    fmt::join(by_seed, ", "), few_text());
    if (seeds_ < 2) return finding;
    const Interval interval = bootstrap(by_seed, mean).percentile;
    finding.verdict = c.octaves_above ? verdict_above(interval, *c.octaves_above)
                                      : verdict_below(interval, *c.octaves_below);
    finding.evidence += fmt::format("; bootstrap at 95 % {}", to_string(interval));
    return finding;
  }

  Finding operator()(const SensitivityFallsClaim& c, const std::string&) const {
    const Families families = families_along(c.along, c.at);
    const auto at_ends = [&](std::span<const std::size_t> seeds) {
      const std::vector<double> all = sensitivities_of(lines_, base_, seeds);
      std::pair<double, double> means;
      for (const auto& family : families) {
        means.first += all[family.front()] / static_cast<double>(families.size());
        means.second += all[family.back()] / static_cast<double>(families.size());
      }
      return means;
    };
    const Axis& axis = axis_of(c.along);
    const auto [first, last] = at_ends({});
    Finding finding;
    finding.evidence = fmt::format("{:.4f} at {} against {:.4f} at {}, {} seeds{}", first,
                                   to_flow_text(axis.values.front()), last,
                                   to_flow_text(axis.values.back()), seeds_, few_text());
    if (seeds_ < 2) return finding;
    const Interval interval = bootstrap_rows(seeds_, [&](std::span<const std::size_t> drawn) {
                                const auto [a, b] = at_ends(drawn);
                                return a - b;
                              }).percentile;
    finding.verdict = verdict_above(interval, 0);
    finding.evidence += fmt::format("; difference {:.4f}, bootstrap at 95 % [{:.4f}, {:.4f}]",
                                    first - last, interval.lo, interval.hi);
    return finding;
  }

  Finding operator()(const AccuracyMovesClaim& c, const std::string&) const {
    const std::vector<std::size_t> lines = lines_over(c.over);
    const std::vector<double>& rates = lines_[lines.front()].rates;
    const double boundary = least_boundary(lines);
    // Rates that are an octave apart are so only but for rounding.
    const double largest = boundary * std::exp2(-c.octaves_from_boundary) * (1 + 1e-9);
    const auto chosen = static_cast<std::size_t>(
        std::ranges::count_if(rates, [&](double rate) { return rate <= largest; }));
    const bool along_rate = std::ranges::find(others_, c.along, &Axis::key) == others_.end();
    Finding finding;
    finding.evidence =
        fmt::format("{} of {} rates are at most {:.3g}, the least boundary is {:.3g}", chosen,
                    rates.size(), largest, boundary);
    if (chosen < (along_rate ? 2U : 1U)) return finding;

    std::map<std::size_t, std::vector<const ArmResult*>> levels;  // cells by value of the axis
    for (const std::size_t line : lines) {
      for (std::size_t i = 0; i < chosen; ++i) {
        const std::size_t level = along_rate ? i : place_on_axis(line, others_, c.along).level;
        levels[level].push_back(lines_[line].cells[i]);
      }
    }
    const std::vector<double> first = accuracies(levels.begin()->second);
    const auto name = [&](std::size_t level) {
      return along_rate ? fmt::format("{:g}", rates[level])
                        : to_flow_text(axis_of(c.along).values[level]);
    };
    finding.evidence += fmt::format("; {} seeds, {} cells at each value{}; {:.2f} % at {}", seeds_,
                                    levels.begin()->second.size(), failed_text(levels),
                                    100 * mean(first), name(levels.begin()->first));
    if (seeds_ < 2) return finding;
    const double confidence = c.within ? 0.90 : 0.95;
    std::vector<Interval> intervals;  // of each value after the first
    for (auto level = std::next(levels.begin()); level != levels.end(); ++level) {
      const PairedT t = paired_t(paired_differences(accuracies(level->second), first), confidence);
      intervals.push_back(t.interval);
      finding.evidence +=
          fmt::format("; {:+.2f} at {} {}", 100 * t.mean, name(level->first),
                      to_string(Interval{100 * t.interval.lo, 100 * t.interval.hi}));
    }
    finding.evidence += fmt::format(", t intervals at {:g} %", 100 * confidence);
    if (c.beyond) intervals = {intervals.back()};
    const double limit = c.within ? *c.within : *c.beyond;
    if (std::ranges::all_of(intervals,
                            [&](const Interval& i) { return i.lo > -limit && i.hi < limit; })) {
      finding.verdict = c.within ? Verdict::pass : Verdict::fail;
    } else if (std::ranges::any_of(
                   intervals, [&](const Interval& i) { return i.lo > limit || i.hi < -limit; })) {
      finding.verdict = c.within ? Verdict::fail : Verdict::pass;
    }
    return finding;
  }

 private:
  const Axis& axis_of(const std::string& key) const {
    return *std::ranges::find(others_, key, &Axis::key);
  }

  // For each combination of the axes other than the one gone along, among those with the values of
  // `at`, its lines in the order of that axis.
  using Families = std::vector<std::vector<std::size_t>>;
  Families families_along(const std::string& along, const std::vector<Override>& at) const {
    std::map<std::size_t, std::vector<std::size_t>> by_rest;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      const bool is_there = std::ranges::all_of(at, [&](const Override& o) {
        const auto here = std::ranges::find(lines_[i].point, o.key, &Override::key);
        return is_same(here->value, o.value);
      });
      if (is_there) by_rest[place_on_axis(i, others_, along).rest].push_back(i);
    }
    Families families;
    for (auto& [rest, lines] : by_rest) families.push_back(std::move(lines));
    return families;
  }

  // The lines whose values of these axes are among those given.
  std::vector<std::size_t> lines_over(const std::vector<Axis>& over) const {
    std::vector<std::size_t> lines;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      const bool is_there = std::ranges::all_of(over, [&](const Axis& wanted) {
        const auto here = std::ranges::find(lines_[i].point, wanted.key, &Override::key);
        return std::ranges::any_of(wanted.values,
                                   [&](const Node& value) { return is_same(here->value, value); });
      });
      if (is_there) lines.push_back(i);
    }
    return lines;
  }

  // 0 where one of the lines trains at no rate.
  double least_boundary(const std::vector<std::size_t>& lines) const {
    double least = lines_.front().rates.back();
    for (const std::size_t line : lines) {
      least = std::min(least, boundary_of(lines_[line], {}).largest_training.value_or(0));
    }
    return least;
  }

  // By seed the mean over the cells.
  std::vector<double> accuracies(const std::vector<const ArmResult*>& cells) const {
    const double chance = 1.0 / static_cast<double>(facts(base_.data.dataset).classes);
    std::vector<double> by_seed(seeds_);
    for (std::size_t seed = 0; seed < seeds_; ++seed) {
      for (const ArmResult* cell : cells) {
        const RunResult& run = cell->runs[seed].run;
        by_seed[seed] += is_failure(run.outcome) ? chance : *run.test_accuracy;
      }
      by_seed[seed] /= static_cast<double>(cells.size());
    }
    return by_seed;
  }

  static std::string failed_text(
      const std::map<std::size_t, std::vector<const ArmResult*>>& levels) {
    std::int64_t failed = 0;
    for (const auto& [level, cells] : levels) {
      for (const ArmResult* cell : cells) failed += cell->failures();
    }
    return failed == 0 ? "" : fmt::format(", {} failed runs with the accuracy of chance", failed);
  }

  // log2 of the boundary; the grid's ends, where it is beyond them.
  double octave(std::size_t line, const Boundary& boundary) const {
    return std::log2(boundary.largest_training.value_or(lines_[line].rates.front() / 2));
  }

  std::string few_text() const { return seeds_ < 5 ? ", few for a bootstrap" : ""; }

  // The boundaries of all seeds, level by level: "0.1, 0.4; 0.1, 0.2".
  static std::string rates_text(const std::vector<double>& octaves, std::size_t levels) {
    std::string text;
    for (std::size_t i = 0; i < octaves.size(); ++i) {
      text += i == 0 ? "boundary " : i % levels == 0 ? "; " : ", ";
      text += fmt::format("{:.3g}", std::exp2(octaves[i]));
    }
    return text;
  }

  const RunConfig& base_;
  const std::vector<GridLine> lines_;
  const std::size_t seeds_;
  std::vector<Axis> others_;
};

}  // namespace

std::vector<ClaimResult> judge_sweep(const RunConfig& base, const SweepResult& result) {
  return judge_claims<Experiment::sweep>(base, result.interrupted, SweepJudge(base, result));
}

}  // namespace preheat
