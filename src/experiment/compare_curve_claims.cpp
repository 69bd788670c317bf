// The claims of compare about the course of the training: its error, its loss, and when the gate
// opens.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>

#include "experiment/compare_claims.h"
#include "train/run_files.h"

namespace preheat {
namespace {

constexpr std::size_t window = 50;
constexpr double never = std::numeric_limits<double>::infinity();

}  // namespace

// ---- sooner ------------------------------------------------------------------------------------
// Per run, the number of updates after which the mean training error of the last 50 updates is
// first below train_error; never counts as one more than the length of the longer arm. Wilcoxon's
// signed-rank test of the differences, two-sided.

std::string text_of(const SoonerClaim& c) {
  return fmt::format("{} has a training error below {} sooner than {}", c.arms[0],
                     per_cent(c.train_error), c.arms[1]);
}

void check(const SoonerClaim&, const ClaimedArm& arm) {
  const std::int64_t steps = run_length(arm.config).steps;
  if (steps >= static_cast<std::int64_t>(window)) return;
  arm.refuse(fmt::format("{} trains for {} updates, and a training error is the mean of {}",
                         arm.name, steps, window),
             "a longer train.length");
}

namespace {

std::optional<double> updates_until(const Metrics& metrics, double error) {
  constexpr double rounding = 1e-9;  // an error that is below the bound only by this is equal to it
  for (std::size_t end = window; end <= metrics.accuracy.size(); ++end) {
    const auto last = metrics.accuracy.begin() + static_cast<std::ptrdiff_t>(end);
    const double accuracy = std::accumulate(last - window, last, 0.0) / window;
    if (1 - accuracy < error - rounding) return metrics.step[end - 1] + 1;
  }
  return std::nullopt;
}

}  // namespace

Finding judge(const SoonerClaim& c, const Arms& arms) {
  const ComparedArm& first = arms[c.arms[0]];
  const ComparedArm& second = arms[c.arms[1]];
  const std::int64_t too_late = std::max(first.length().steps, second.length().steps) + 1;
  std::map<const ComparedArm*, int> never_there;
  const auto updates = [&](const ComparedArm& arm, const SeedResult& r) -> std::optional<double> {
    const auto metrics = arm.metrics(r);
    if (!metrics) return std::nullopt;
    const auto there = updates_until(*metrics, c.train_error);
    never_there[&arm] += there ? 0 : 1;
    return there.value_or(static_cast<double>(too_late));
  };
  const Pairs pairs = paired(first, second, updates);
  if (pairs.n() == 0) return too_few(pairs);
  return {.evidence = fmt::format(
              "median {:g} updates against {:g} over {}; {} and {} never, which count as {}",
              median(pairs.first), median(pairs.second), pairs.n_text(), never_there[&first],
              never_there[&second], too_late),
          .test = smaller_in_first(pairs)};
}

// ---- smaller_spike -----------------------------------------------------------------------------
// Per run, the largest training loss of the updates [after, after + within) over the mean of the 50
// updates before `after` (or as many as there are). Each arm has its own `after`, the update of its
// restart, which a ramp delays. A run that is not finite by then, or whose mean before is 0, ranks
// above all others. Wilcoxon's signed-rank test of the differences of the logarithms, two-sided.
// Only shown is the recovery: the number of updates from `after` on until the mean training loss of
// the last 50 of them is first at or below the same mean before `after`. Losses before `after` do
// not count towards it, so it is at least 50. It counts on to the end of the run, also across the
// next restart; a run that does not get there, or is not finite before, has never recovered, which
// is later than any other. Nothing is said if the arms' runs end earlier.

std::string text_of(const SmallerSpikeClaim& c) {
  return fmt::format("the loss spikes less in {} after {} than in {} after {}, within {}",
                     c.arms[0], to_string(c.after[0]), c.arms[1], to_string(c.after[1]),
                     to_string(c.within));
}

namespace {

std::size_t place_of(const std::string& arm, const SmallerSpikeClaim& c) {
  return arm == c.arms[0] ? 0 : 1;
}

// The mean loss of the last 50 updates, or of as many as there are. All losses must be finite.
double level_of(std::span<const double> losses) {
  return mean(losses.last(std::min(window, losses.size())));
}

// Infinite if the run was not finite by then or has no loss above 0 before `after`.
double log_spike(const Metrics& metrics, double after, double within) {
  std::vector<double> before;
  double largest = 0;
  for (std::size_t i = 0; i < metrics.step.size() && metrics.step[i] < after + within; ++i) {
    if (!std::isfinite(metrics.loss[i])) return never;
    if (metrics.step[i] < after) {
      before.push_back(metrics.loss[i]);
    } else {
      largest = std::max(largest, metrics.loss[i]);
    }
  }
  const double level = before.empty() ? 0 : level_of(before);
  // Keeps the logarithm of a loss that rounds to zero finite.
  constexpr double least = std::numeric_limits<float>::min();
  return level > 0 ? std::log(std::max(largest, least) / level) : never;
}

double updates_to_recover(const Metrics& metrics, double after) {
  const std::span<const double> losses(metrics.loss);
  const auto restart = static_cast<std::size_t>(std::ranges::lower_bound(metrics.step, after) -
                                                metrics.step.begin());
  const auto finite = static_cast<std::size_t>(
      std::ranges::find_if_not(losses, [](double x) { return std::isfinite(x); }) - losses.begin());
  if (restart == 0 || finite < restart) return never;
  const double level = level_of(losses.first(restart));
  for (std::size_t end = restart + window; end <= finite; ++end) {
    if (level_of(losses.first(end)) <= level) return metrics.step[end - 1] + 1 - after;
  }
  return never;
}

std::string factor_text(const std::vector<double>& logs) {
  const double middle = median_with_infinite(logs);
  return std::isfinite(middle) ? fmt::format("{:.3g}", std::exp(middle)) : "not finite";
}

std::string updates_text(const std::vector<double>& updates) {
  const double middle = median_with_infinite(updates);
  return std::isfinite(middle) ? fmt::format("{:g} updates", middle) : "never";
}

std::string recovery_text(const Pairs& recoveries) {
  return fmt::format(" (recovery, not tested: median {} against {}, {} and {} never)",
                     updates_text(recoveries.first), updates_text(recoveries.second),
                     std::ranges::count(recoveries.first, never),
                     std::ranges::count(recoveries.second, never));
}

}  // namespace

void check(const SmallerSpikeClaim& c, const ClaimedArm& arm) {
  const std::size_t i = place_of(arm.name, c);
  arm.require_within_run(c.after[i], i == 0 ? "after.0" : "after.1");
  const std::int64_t end =
      arm.updates(c.after[i], i == 0 ? "after.0" : "after.1") + arm.updates(c.within, "within");
  const std::int64_t steps = run_length(arm.config).steps;
  if (end <= steps) return;
  throw ConfigError(arm.base.where(arm.place + ".within"),
                    fmt::format("{} after {} end after the {} updates of {}", to_string(c.within),
                                to_string(c.after[i]), steps, arm.name),
                    "fewer, or an earlier update");
}

Finding judge(const SmallerSpikeClaim& c, const Arms& arms) {
  const auto after_of = [&](const ComparedArm& arm) {
    return static_cast<double>(arm.updates(c.after[place_of(arm.result.arm.name, c)]));
  };
  const auto spike = [&](const ComparedArm& arm, const SeedResult& r) -> std::optional<double> {
    const auto metrics = arm.metrics(r);
    if (!metrics) return std::nullopt;
    const double after = after_of(arm);
    const auto within = static_cast<double>(arm.updates(c.within));
    const auto died = r.run.first_non_finite_step;
    if (died && static_cast<double>(*died) < after + within) return never;
    return log_spike(*metrics, after, within);
  };
  const auto recovery = [&](const ComparedArm& arm, const SeedResult& r) -> std::optional<double> {
    const auto metrics = arm.metrics(r);
    if (!metrics) return std::nullopt;
    return updates_to_recover(*metrics, after_of(arm));
  };
  Pairs pairs = paired(arms[c.arms[0]], arms[c.arms[1]], spike);
  if (pairs.n() == 0) return too_few(pairs);
  std::string evidence = fmt::format(
      "median factor {} against {} over {}; {} and {} were not finite, which count as "
      "the largest",
      factor_text(pairs.first), factor_text(pairs.second), pairs.n_text(),
      std::ranges::count(pairs.first, never), std::ranges::count(pairs.second, never));
  const bool may_recover = std::ranges::all_of(c.arms, [&](const std::string& name) {
    const ComparedArm& arm = arms[name];
    return after_of(arm) + window <= static_cast<double>(arm.length().steps);
  });
  if (may_recover) {
    evidence += recovery_text(paired(arms[c.arms[0]], arms[c.arms[1]], recovery));
  }
  double largest = 0;
  for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
    for (const double x : *logs) largest = std::isfinite(x) ? std::max(largest, x) : largest;
  }
  for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
    for (double& x : *logs) x = std::isfinite(x) ? x : largest + 1;
  }
  return {.evidence = std::move(evidence), .test = smaller_in_first(pairs)};
}

// ---- gate_opens --------------------------------------------------------------------------------
// The Clopper-Pearson interval of the share of runs whose gate opens at an update in [from, to):
// PASS if it is above `share`, FAIL if below.

std::string text_of(const GateClaim& c) {
  return fmt::format("the gate of {} opens from {} to {}, in more than {} of runs", c.arm,
                     to_string(c.from), to_string(c.to), per_cent(c.share));
}

void check(const GateClaim& c, const ClaimedArm& arm) {
  if (!arm.config.schedule.until) {
    arm.refuse(fmt::format("the warmup of {} has no gate", arm.name),
               "schedule.warmup.until: {train_error_below: 0.8}");
  }
  arm.require_within_run(c.from, "from");
  if (arm.updates(c.to, "to") <= arm.updates(c.from, "from")) {
    throw ConfigError(arm.base.where(arm.place + ".to"),
                      fmt::format("{} are not after {}", to_string(c.to), to_string(c.from)),
                      "a later update than from");
  }
}

Finding judge(const GateClaim& c, const Arms& arms) {
  const ComparedArm& arm = arms[c.arm];
  const std::int64_t from = arm.updates(c.from);
  const std::int64_t to = arm.updates(c.to);
  std::vector<double> opened;
  std::int64_t inside = 0;
  for (const SeedResult& r : arm.runs()) {
    if (!r.run.gate_opened_at) continue;
    opened.push_back(static_cast<double>(*r.run.gate_opened_at));
    inside += *r.run.gate_opened_at >= from && *r.run.gate_opened_at < to ? 1 : 0;
  }
  const Interval interval = clopper_pearson(inside, arm.n());
  return {.evidence = fmt::format(
              "{} of {} in [{}, {}), 95 % interval {}; it opened in {}{}", inside, arm.n(), from,
              to, to_string(interval), opened.size(),
              opened.empty() ? "" : fmt::format(", at a median of {:g}", median(opened))),
          .verdict = verdict_above(interval, c.share)};
}

}  // namespace preheat
