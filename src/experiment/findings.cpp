#include "experiment/findings.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "config/counted.h"
#include "config/nearest.h"
#include "schedule/schedule.h"
#include "train/fingerprint.h"

namespace preheat {
namespace {

bool has_section(const RunConfig& config, ExperimentKind experiment) {
  switch (experiment) {
    case ExperimentKind::compare:
      return config.compare.has_value();
    case ExperimentKind::sweep:
      return config.sweep.has_value();
    case ExperimentKind::find_lr:
      return config.find_lr.has_value();
  }
  return false;
}

// Decides a claim by `p`, its test's p-value adjusted for `tests` tests; `least` is the same if
// every test had its smallest possible p-value.
void decide(Judged& judged, const Test& test, double p, double least, std::size_t tests) {
  const bool significant = p < *judged.p_below;
  const bool could_be = least < *judged.p_below;
  ClaimResult& result = judged.result;
  const bool opposite = test.opposite_p < *judged.p_below;
  if (judged.finding.contradicted || opposite) {
    result.verdict = Verdict::fail;
  } else if (significant && test.has_claimed_direction) {
    result.verdict = Verdict::pass;
  }
  result.evidence +=
      fmt::format("; {} = {:.2g}{}, {}below {:g}{}", test.name, p,
                  tests > 1 ? fmt::format(" (Holm over {})", tests) : "", significant ? "" : "not ",
                  *judged.p_below, could_be ? "" : ", which so few could not show");
  // Otherwise a FAIL would stand beside a p of the claim that does not explain it.
  if (opposite) result.evidence += fmt::format("; the opposite has p = {:.2g}", test.opposite_p);
}

}  // namespace

void refuse_foreign_claims(const RunConfig& base, ExperimentKind experiment) {
  for (std::size_t i = 0; i < base.expect.size(); ++i) {
    std::visit(
        [&](const auto& claim) {
          if (claim.experiment == experiment || has_section(base, claim.experiment)) return;
          throw ConfigError(
              base.where(fmt::format("expect.{}.{}", i, claim.section)),
              fmt::format("is a claim about {}, which this file lacks",
                          to_string(claim.experiment)),
              fmt::format(
                  "a {} section, or a claim about {}; configs/reference.yaml says which are",
                  to_string(claim.experiment), to_string(experiment)));
        },
        base.expect[i]);
  }
}

void ClaimedArm::refuse(const std::string& problem, const std::string& remedy) const {
  throw ConfigError(base.where(key), problem, remedy);
}

std::int64_t ClaimedArm::updates(const Length& length, const char* length_key) const {
  return updates_of(length, run_length(config), base, place + "." + length_key);
}

void ClaimedArm::require_within_run(const Length& length, const char* length_key) const {
  const std::int64_t steps = run_length(config).steps;
  if (updates(length, length_key) < steps) return;
  throw ConfigError(base.where(place + "." + length_key),
                    fmt::format("{} are not before the end of a run of {}", to_string(length),
                                counted(steps, "update")),
                    "an earlier update");
}

ClaimableArms::ClaimableArms(const RunConfig& base, const std::vector<Arm>& arms,
                             const std::vector<RunConfig>& configs)
    : base_(base), configs_(configs) {
  for (const Arm& arm : arms) names_.push_back(arm.name);
}

void ClaimableArms::check_one(const std::string& name, const std::string& place,
                              const CheckArm& check) const {
  const std::string key = place + ".arm";
  check({base_, config_of(name, key), name, place, key});
}

void ClaimableArms::check_list(const std::vector<std::string>& names, const std::string& place,
                               const char* list_key, const CheckArm& check) const {
  std::vector<const RunConfig*> seen;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string key = fmt::format("{}.{}.{}", place, list_key, i);
    const ClaimedArm arm{base_, config_of(names[i], key), names[i], place, key};
    for (std::size_t k = 0; k < seen.size(); ++k) {
      if (seen[k] == &arm.config) {
        arm.refuse(fmt::format("{} is named twice", names[i]), "different arms");
      }
      if (fingerprint(*seen[k]) == fingerprint(arm.config)) {
        arm.refuse(fmt::format("{} runs the same as {}", names[i], names[k]),
                   "arms that differ in more than their names");
      }
    }
    seen.push_back(&arm.config);
    check(arm);
  }
}

const RunConfig& ClaimableArms::config_of(const std::string& name, const std::string& key) const {
  const auto found = std::ranges::find(names_, name);
  if (found == names_.end()) {
    const std::vector<std::string> likely = nearest(name, names_);
    throw ConfigError(base_.where(key), fmt::format("there is no arm {}", name),
                      likely.empty() ? fmt::format("the arms are {}", fmt::join(names_, ", "))
                                     : did_you_mean(likely));
  }
  return configs_[static_cast<std::size_t>(found - names_.begin())];
}

TrendTest trend_test(std::size_t levels, const std::vector<double>& outcomes,
                     Alternative direction) {
  std::vector<double> order(levels);
  std::iota(order.begin(), order.end(), 0.0);
  const double sign = direction == Alternative::increasing ? 1 : -1;
  std::vector<double> perfect;
  for (std::size_t i = 0; i < outcomes.size(); ++i) perfect.push_back(sign * order[i % levels]);
  const PageTrend trend = page_trend(order, outcomes, direction);
  const Alternative other =
      direction == Alternative::increasing ? Alternative::decreasing : Alternative::increasing;
  return {trend, Test{.name = "Page p",
                      .p = trend.p,
                      .has_claimed_direction = sign * trend.rho > 0,
                      .opposite_p = page_trend(order, outcomes, other).p,
                      .smallest_possible_p = page_trend(order, perfect, direction).p}};
}

Test two_sided(const std::string& name, double p, bool has_claimed_direction,
               double smallest_possible_p) {
  return {.name = name,
          .p = p,
          .has_claimed_direction = has_claimed_direction,
          .opposite_p = has_claimed_direction ? 1 : p,
          .smallest_possible_p = smallest_possible_p};
}

std::string few_text(std::int64_t seeds) {
  return seeds < min_seeds_for_bootstrap
             ? fmt::format(", too few for a bootstrap, which needs {}", min_seeds_for_bootstrap)
             : "";
}

Verdict verdict_above(const Interval& interval, double value) {
  if (interval.lo > value) return Verdict::pass;
  return interval.hi < value ? Verdict::fail : Verdict::inconclusive;
}

Verdict verdict_below(const Interval& interval, double value) {
  return verdict_above({-interval.hi, -interval.lo}, -value);
}

Verdict verdict_of(const Interval& interval, const Bound& bound) {
  return bound.above ? verdict_above(interval, *bound.above)
                     : verdict_below(interval, *bound.below);
}

Interval BoundedValues::interval() const {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  return {may_be_smaller > 0 ? -infinity : bootstrap(least, mean).expanded.lo,
          may_be_larger > 0 ? infinity : bootstrap(most, mean).expanded.hi};
}

Verdict verdict_within(const Interval& interval, const Interval& range) {
  if (interval.lo > range.lo && interval.hi < range.hi) return Verdict::pass;
  const bool is_outside = interval.lo >= range.hi || interval.hi <= range.lo;
  return is_outside ? Verdict::fail : Verdict::inconclusive;
}

bool are_equal(std::span<const double> differences) {
  constexpr double rounding = 1e-12;
  const auto [least, largest] = std::ranges::minmax(differences);
  return largest - least < rounding;
}

std::string equal_text(std::span<const double> differences) {
  return are_equal(differences)
             ? "; the differences are all equal, which shows no spread to judge them by"
             : "";
}

const char* more_or_less(const Bound& bound) {
  return bound.above ? "more" : "less";
}

std::string percentage_points(double difference) {
  return fmt::format("{:.3g} percentage points", 100 * difference);
}

std::string per_cent(double share) {
  return fmt::format("{:.3g} %", 100 * share);
}

std::vector<ClaimResult> decide_all(std::vector<Judged> judged) {
  std::vector<double> p_values;
  std::vector<double> smallest_possible;
  for (const Judged& j : judged) {
    if (!j.p_below) continue;
    const Test test = j.finding.test.value_or(Test());  // without data p = 1
    p_values.push_back(test.p);
    smallest_possible.push_back(test.smallest_possible_p);
  }
  const std::vector<double> adjusted = holm(p_values);
  const std::vector<double> least = holm(smallest_possible);
  std::vector<ClaimResult> results;
  std::size_t next = 0;
  for (Judged& j : judged) {
    ClaimResult& result = j.result;
    result.evidence = j.finding.evidence;
    result.verdict = j.finding.verdict;
    if (j.p_below) {
      if (j.finding.test) {
        decide(j, *j.finding.test, adjusted[next], least[next], p_values.size());
      }
      ++next;
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace preheat
