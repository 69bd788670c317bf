// The claims of compare, each as claims.h says.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "data/dataset.h"
#include "experiment/compare.h"
#include "experiment/findings.h"
#include "experiment/ranks.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/run_files.h"

namespace preheat {
namespace {

constexpr std::size_t window = 50;
constexpr double never = std::numeric_limits<double>::infinity();

// In percentage points.
std::string points_text(const Interval& interval) {
  return to_string({100 * interval.lo, 100 * interval.hi});
}

std::int64_t size_of(const std::vector<double>& values) {
  return static_cast<std::int64_t>(values.size());
}

// Numbers that both arms have, one for each of the seeds that both have.
struct Pairs {
  std::vector<double> first;
  std::vector<double> second;
  std::int64_t missing = 0;  // seeds of both without a number in one of them

  std::int64_t n() const { return size_of(first); }
  std::string n_text() const {
    return fmt::format("{} seeds{}", n(),
                       missing > 0 ? fmt::format(" ({} more without data)", missing) : "");
  }
};

// That the first is smaller; both-sided, with the direction beside it.
Test smaller_in_first(const Pairs& pairs) {
  const SignedRank found = wilcoxon_signed_rank(paired_differences(pairs.first, pairs.second));
  const std::vector<double> perfect(pairs.first.size(), -1.0);
  return {.name = "Wilcoxon p",
          .p = found.p,
          .right_way = found.w_minus > found.w_plus,
          .least_p = wilcoxon_signed_rank(perfect).p};
}

double share_of(std::int64_t count, std::int64_t n) {
  return static_cast<double>(count) / static_cast<double>(n);
}

// An observed share that has to be at least `share`.
Verdict verdict_of_share(std::int64_t count, std::int64_t n, double share) {
  if (n == 0) return Verdict::inconclusive;
  if (share_of(count, n) >= share) return Verdict::pass;
  return clopper_pearson(count, n).hi < share ? Verdict::fail : Verdict::inconclusive;
}

std::string share_text(std::int64_t count, std::int64_t n) {
  return fmt::format("95 % interval {}", to_string(clopper_pearson(count, n)));
}

// Updates done when the running mean of the training error is first below `error`.
std::optional<double> updates_until(const Metrics& metrics, double error) {
  for (std::size_t end = window; end <= metrics.accuracy.size(); ++end) {
    const auto last = metrics.accuracy.begin() + static_cast<std::ptrdiff_t>(end);
    const double accuracy = std::accumulate(last - window, last, 0.0) / window;
    if (1 - accuracy < error) return metrics.step[end - 1] + 1;
  }
  return std::nullopt;
}

// log of the largest loss in [after, after + within) over the mean of the 50 before; infinite where
// the run was not finite by then.
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
  const std::size_t kept = std::min(window, before.size());
  const double level = kept == 0 ? 0 : mean(std::span(before).last(kept));
  // A loss that rounds to zero has a logarithm all the same.
  constexpr double least = std::numeric_limits<float>::min();
  return level > 0 ? std::log(std::max(largest, least) / level) : never;
}

class CompareJudge {
 public:
  CompareJudge(const RunConfig& base, const std::vector<RunConfig>& configs,
               const std::vector<ArmResult>& arms, const std::filesystem::path& folder)
      : base_(base), configs_(configs), arms_(arms), folder_(folder) {}

  Finding operator()(const FailuresClaim& c, const std::string&) const {
    const ArmResult& arm = arms_[index_of(c.arm)];
    const auto n = static_cast<std::int64_t>(arm.runs.size());
    Finding finding;
    const Interval interval = arm.failure_interval();
    finding.evidence = failures_text(arm) + ", 95 % interval " + to_string(interval);
    if (n > 0) {
      finding.verdict =
          c.above ? verdict_above(interval, *c.above) : verdict_below(interval, *c.below);
    }
    return finding;
  }

  Finding operator()(const FailsMoreClaim& c, const std::string&) const {
    const PairResult pair = pair_of(arms_[index_of(c.arms[0])], arms_[index_of(c.arms[1])]);
    return {.evidence = discordant_text(c.arms, pair),
            .test = Test{.name = "exact McNemar p",
                         .p = pair.mcnemar_p,
                         .right_way = pair.only_first_failed > pair.only_second_failed,
                         .least_p = mcnemar_exact(pair.pairs, 0)}};
  }

  Finding operator()(const FailsAlikeClaim& c, const std::string&) const {
    const ArmResult& a = arms_[index_of(c.arms[0])];
    const ArmResult& b = arms_[index_of(c.arms[1])];
    const PairResult pair = pair_of(a, b);
    Finding finding;
    const bool enough = mcnemar_exact(pair.pairs, 0) <= c.p_above;
    finding.evidence = fmt::format(
        "{}; 95 % intervals {} and {}; exact McNemar p = {:.2g}, {}above {:g}{}",
        discordant_text(c.arms, pair), to_string(a.failure_interval()),
        to_string(b.failure_interval()), pair.mcnemar_p, pair.mcnemar_p > c.p_above ? "" : "not ",
        c.p_above, enough ? "" : ", as it is for so few whatever they do");
    if (pair.mcnemar_p <= c.p_above) {
      finding.verdict = Verdict::fail;
    } else if (enough) {
      finding.verdict = Verdict::pass;
    }
    return finding;
  }

  Finding operator()(const AccuracyClaim& c, const std::string&) const {
    const Pairs pairs = accuracies(c.arms);
    if (pairs.n() < 2) return too_few(pairs);
    const std::vector<double> differences = paired_differences(pairs.first, pairs.second);
    const PairedT t = paired_t(differences);
    Finding finding;
    finding.verdict = verdict_above(t.interval, c.at_least);
    finding.evidence =
        fmt::format("{}, t interval at 95 % {} (bootstrap {}){}", difference_text(pairs, t.mean),
                    points_text(t.interval), points_text(bootstrap(differences, mean).bca),
                    chance_text(c.arms));
    return finding;
  }

  Finding operator()(const AccuracyAlikeClaim& c, const std::string&) const {
    const Pairs pairs = accuracies(c.arms);
    if (pairs.n() < 2) return too_few(pairs);
    const std::vector<double> differences = paired_differences(pairs.first, pairs.second);
    const Equivalence both = tost(differences, c.within);
    const Interval interval = paired_t(differences, 0.90).interval;
    Finding finding;
    if (both.p < 0.05) {
      finding.verdict = Verdict::pass;
    } else if (interval.lo >= c.within || interval.hi <= -c.within) {
      finding.verdict = Verdict::fail;
    }
    finding.evidence = fmt::format("{}, t interval at 90 % {}; two one-sided tests p = {:.2g}{}",
                                   difference_text(pairs, both.mean), points_text(interval), both.p,
                                   chance_text(c.arms));
    return finding;
  }

  Finding operator()(const AccuracyFallsClaim& c, const std::string&) const {
    std::vector<double> outcomes;
    std::vector<std::string> means;
    std::vector<double> sums(c.arms.size());
    for (const std::vector<double>& block : blocks_of(c.arms)) {
      outcomes.insert(outcomes.end(), block.begin(), block.end());
    }
    std::vector<double> levels(c.arms.size());
    std::iota(levels.begin(), levels.end(), 0.0);
    const PageTrend trend = page_trend(levels, outcomes, Alternative::decreasing);
    for (std::size_t i = 0; i < outcomes.size(); ++i) sums[i % sums.size()] += outcomes[i];
    for (const double sum : sums) {
      means.push_back(fmt::format("{:.2f}", 100 * sum / static_cast<double>(trend.blocks)));
    }
    Finding finding;
    finding.evidence =
        trend.blocks == 0
            ? "no seed that all arms have"
            : fmt::format("means {} % over {} seeds, mean rank correlation {:.2f}{}",
                          fmt::join(means, ", "), trend.blocks, trend.rho, chance_text(c.arms));
    if (trend.blocks > 0) {
      std::vector<double> perfect;
      for (std::size_t i = 0; i < outcomes.size(); ++i) {
        perfect.push_back(-levels[i % levels.size()]);
      }
      finding.test = Test{.name = "Page p",
                          .p = trend.p,
                          .right_way = trend.rho < 0,
                          .least_p = page_trend(levels, perfect, Alternative::decreasing).p};
    }
    return finding;
  }

  Finding operator()(const AccuracyGapClaim& c, const std::string&) const {
    const double factor = c.above ? *c.above : *c.below;
    std::vector<std::string> names = c.arms;
    names.insert(names.end(), c.than.begin(), c.than.end());
    std::vector<double> gaps;
    std::vector<double> than;
    std::vector<double> differences;
    for (const std::vector<double>& block : blocks_of(names)) {
      gaps.push_back(block[0] - block[1]);
      than.push_back(block[2] - block[3]);
      differences.push_back(gaps.back() - factor * than.back());
    }
    Finding finding;
    finding.evidence = fmt::format("{} seeds that all arms have", differences.size());
    if (differences.size() < 2) return finding;
    const Interval interval = bootstrap(differences, mean).percentile;
    finding.verdict = c.above ? verdict_above(interval, 0) : verdict_below(interval, 0);
    finding.evidence += fmt::format(
        ", mean gaps {:.2f} and {:.2f} points; first less {:g} x second {:+.2f}, bootstrap at 95 % "
        "{}{}",
        100 * mean(gaps), 100 * mean(than), factor, 100 * mean(differences), points_text(interval),
        chance_text(names));
    return finding;
  }

  Finding operator()(const SoonerClaim& c, const std::string&) const {
    std::int64_t never_there[2] = {};
    const Pairs pairs = paired(c.arms, [&](std::size_t arm, const SeedResult& r, int which) {
      return metrics_of(arm, r, [&](const Metrics& metrics) {
        const auto there = updates_until(metrics, c.train_error);
        never_there[which] += there ? 0 : 1;
        return there.value_or(static_cast<double>(steps_of(arm)));
      });
    });
    if (pairs.n() == 0) return too_few(pairs);
    return {.evidence = fmt::format(
                "median {:g} updates against {:g} over {}; {} and {} never, which count as the "
                "run's length",
                median(pairs.first), median(pairs.second), pairs.n_text(), never_there[0],
                never_there[1]),
            .test = smaller_in_first(pairs)};
  }

  Finding operator()(const SmallerSpikeClaim& c, const std::string& place) const {
    Pairs pairs = paired(c.arms, [&](std::size_t arm, const SeedResult& r, int) {
      const auto after = static_cast<double>(updates(c.after, arm, place + ".after"));
      const auto within = static_cast<double>(updates(c.within, arm, place + ".within"));
      const bool died = r.run.first_non_finite_step &&
                        static_cast<double>(*r.run.first_non_finite_step) < after + within;
      return metrics_of(arm, r, [&](const Metrics& metrics) {
        return died ? never : log_spike(metrics, after, within);
      });
    });
    if (pairs.n() == 0) return too_few(pairs);
    std::vector<std::string> medians;
    std::vector<std::int64_t> endless;
    double largest = 0;
    for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
      std::vector<double> finite;
      std::ranges::copy_if(*logs, std::back_inserter(finite),
                           [](double x) { return std::isfinite(x); });
      medians.push_back(finite.empty() ? "-" : fmt::format("{:.3g}", std::exp(median(finite))));
      endless.push_back(size_of(*logs) - size_of(finite));
      for (const double x : finite) largest = std::max(largest, x);
    }
    for (std::vector<double>* logs : {&pairs.first, &pairs.second}) {
      for (double& x : *logs) x = std::isfinite(x) ? x : largest + 1;
    }
    return {
        .evidence = fmt::format(
            "median factor {} against {} over {}; {} and {} were not finite, which count as the "
            "largest",
            medians[0], medians[1], pairs.n_text(), endless[0], endless[1]),
        .test = smaller_in_first(pairs)};
  }

  Finding operator()(const GateClaim& c, const std::string& place) const {
    const std::size_t arm = index_of(c.arm);
    const std::int64_t from = updates(c.from, arm, place + ".from");
    const std::int64_t to = updates(c.to, arm, place + ".to");
    std::vector<double> opened;
    std::int64_t inside = 0;
    for (const SeedResult& r : arms_[arm].runs) {
      if (!r.run.gate_opened_at) continue;
      opened.push_back(static_cast<double>(*r.run.gate_opened_at));
      inside += *r.run.gate_opened_at >= from && *r.run.gate_opened_at < to ? 1 : 0;
    }
    const auto n = static_cast<std::int64_t>(arms_[arm].runs.size());
    Finding finding;
    finding.verdict = verdict_of_share(inside, n, c.share);
    finding.evidence = fmt::format(
        "{} of {} in [{}, {}), {}; it opened in {}{}", inside, n, from, to, share_text(inside, n),
        opened.size(), opened.empty() ? "" : fmt::format(", at a median of {:g}", median(opened)));
    return finding;
  }

  Finding operator()(const SharpnessFallsClaim& c, const std::string&) const {
    const Ends ends = ends_of(index_of(c.arm), &SharpnessRows::sharpness);
    const std::int64_t n = size_of(ends.first);
    std::int64_t fell = 0;
    for (std::size_t i = 0; i < ends.first.size(); ++i) {
      fell += ends.first[i] >= c.by * std::abs(ends.last[i]) ? 1 : 0;
    }
    Finding finding;
    finding.evidence = fmt::format("{} of {} runs{}", fell, n, ends.text());
    if (n > 0) {
      finding.test = Test{.name = "sign test p",
                          .p = sign_test(fell, n),
                          .right_way = 2 * fell > n,
                          .least_p = sign_test(n, n)};
    }
    return finding;
  }

  Finding operator()(const SharpnessStaysClaim& c, const std::string&) const {
    const Ends ends = ends_of(index_of(c.arm), c.random_direction ? &SharpnessRows::random_direction
                                                                  : &SharpnessRows::sharpness);
    std::vector<double> logs;  // of first over last; a curvature that is gone has none
    for (std::size_t i = 0; i < ends.first.size(); ++i) {
      if (ends.first[i] > 0 && ends.last[i] > 0) {
        logs.push_back(std::log(ends.first[i] / ends.last[i]));
      }
    }
    Finding finding;
    finding.evidence = fmt::format("{} runs{}; {} where it is not above zero at both ends",
                                   logs.size(), ends.text(), ends.first.size() - logs.size());
    if (logs.size() < 2) return finding;
    const PairedT t = paired_t(logs);
    finding.verdict = verdict_below(t.interval, std::log(c.within));
    finding.evidence += fmt::format(
        "; it falls {:.2f}-fold in the geometric mean, t interval at 95 % {}", std::exp(t.mean),
        to_string({std::exp(t.interval.lo), std::exp(t.interval.hi)}));
    return finding;
  }

  Finding operator()(const EdgeOfStabilityClaim& c, const std::string&) const {
    std::vector<double> edges;
    std::vector<double> late;
    std::int64_t missing = 0;
    for (const std::string& name : c.arms) {
      const std::size_t arm = index_of(name);
      for (const SeedResult& r : arms_[arm].runs) {
        const auto rows = file_of(arm, r, "sharpness.csv", read_sharpness);
        const std::span<const double> all = rows ? std::span(rows->sharpness) : std::span<double>();
        const auto last_quarter = all.last((all.size() + 3) / 4);
        const bool measured = !all.empty() && std::ranges::all_of(last_quarter, [](double s) {
          return std::isfinite(s);
        });
        if (is_failure(r.run.outcome) || !measured || rows->lr.back() == 0) {
          ++missing;
          continue;
        }
        edges.push_back(2 * (1 + configs_[arm].optimizer.momentum) / rows->lr.back());
        late.push_back(median(last_quarter));
      }
    }
    Finding finding;
    finding.evidence = fmt::format("{} runs", late.size());
    if (missing > 0) {
      finding.evidence += fmt::format(", {} more failed or are without measurements", missing);
    }
    const auto slope = late.empty() ? std::nullopt : least_squares_slope(edges, late);
    if (!slope) return finding;
    std::vector<double> ratios;
    for (std::size_t i = 0; i < late.size(); ++i) ratios.push_back(late[i] / edges[i]);
    finding.evidence += fmt::format(
        ", slope {:.3f}; sharpness over 2 (1 + momentum) / rate {:.2f} to {:.2f}, "
        "median {:.2f}",
        *slope, std::ranges::min(ratios), std::ranges::max(ratios), median(ratios));
    const bool inside = *slope >= c.slope[0] && *slope <= c.slope[1];
    if (missing == 0) finding.verdict = inside ? Verdict::pass : Verdict::fail;
    return finding;
  }

  Finding operator()(const UnstableStartClaim& c, const std::string&) const {
    const std::size_t arm = index_of(c.arm);
    std::vector<double> ratios;
    std::int64_t failed = 0;
    for (const SeedResult& r : arms_[arm].runs) {
      if (r.run.outcome != Outcome::non_finite) continue;
      ++failed;
      const auto metrics = file_of(arm, r, "metrics.csv", read_metrics);
      if (!r.run.initial_sharpness || !std::isfinite(*r.run.initial_sharpness) || !metrics ||
          metrics->lr.empty()) {
        continue;
      }
      ratios.push_back(*r.run.initial_sharpness * std::ranges::max(metrics->lr) / 2);
    }
    const std::int64_t n = size_of(ratios);
    const std::int64_t above = std::ranges::count_if(ratios, [](double x) { return x > 1; });
    Finding finding;
    if (n >= 5) finding.verdict = verdict_of_share(above, n, c.share);
    finding.evidence = fmt::format(
        "{} of {} runs that were not finite, {}{}; {} more without measurements{}", above, n,
        share_text(above, n), n == 0 ? "" : fmt::format(", median {:.3g}", median(ratios)),
        failed - n, n < 5 ? "; it takes 5" : "");
    return finding;
  }

  Finding operator()(const DeepLayersClaim& c, const std::string& place) const {
    Pairs pairs = paired(c.arms, [&](std::size_t arm, const SeedResult& r, int) {
      const auto within = static_cast<double>(updates(c.within, arm, place + ".within"));
      const auto rows = file_of(arm, r, "layers.csv", read_layers);
      return rows ? depth_correlation(arm, *rows, within) : std::nullopt;
    });
    if (pairs.n() == 0) return too_few(pairs);
    std::string evidence = fmt::format("mean rho of depth {:.2f} against {:.2f} over {}",
                                       mean(pairs.first), mean(pairs.second), pairs.n_text());
    std::swap(pairs.first, pairs.second);
    return {.evidence = std::move(evidence), .test = smaller_in_first(pairs)};
  }

 private:
  std::size_t index_of(const std::string& name) const {
    const auto found =
        std::ranges::find(arms_, name, [](const ArmResult& arm) { return arm.arm.name; });
    return static_cast<std::size_t>(found - arms_.begin());
  }

  RunLength length_of(std::size_t arm) const {
    return run_length(configs_[arm], steps_per_epoch(configs_[arm]));
  }
  std::int64_t steps_of(std::size_t arm) const { return length_of(arm).steps; }
  std::int64_t updates(const Length& length, std::size_t arm, const std::string& key) const {
    return updates_of(length, length_of(arm), base_, key);
  }

  template <class Read>
  auto file_of(std::size_t arm, const SeedResult& r, const char* name, const Read& read) const
      -> std::optional<decltype(read(std::filesystem::path()))> {
    const auto path = folder_ / arms_[arm].arm.name / std::to_string(r.seed) / name;
    if (!std::filesystem::exists(path)) return std::nullopt;
    return read(path);
  }

  template <class Value>
  std::optional<double> metrics_of(std::size_t arm, const SeedResult& r, const Value& value) const {
    const auto metrics = file_of(arm, r, "metrics.csv", read_metrics);
    if (!metrics) return std::nullopt;
    return value(*metrics);
  }

  // value(arm, run, 0 or 1) may be missing.
  template <class Value>
  Pairs paired(const std::vector<std::string>& names, const Value& value) const {
    const std::size_t a = index_of(names[0]);
    const std::size_t b = index_of(names[1]);
    Pairs pairs;
    for (const SeedResult& x : arms_[a].runs) {
      const auto y = std::ranges::find(arms_[b].runs, x.seed, &SeedResult::seed);
      if (y == arms_[b].runs.end()) continue;
      const std::optional<double> first = value(a, x, 0);
      const std::optional<double> second = value(b, *y, 1);
      if (first && second) {
        pairs.first.push_back(*first);
        pairs.second.push_back(*second);
      } else {
        ++pairs.missing;
      }
    }
    return pairs;
  }

  double chance(const std::string& name) const {
    const RunConfig& config = configs_[index_of(name)];
    return 1.0 / static_cast<double>(facts(config.data.dataset).classes);
  }
  double accuracy(const std::string& name, const RunResult& run) const {
    return is_failure(run.outcome) ? chance(name) : *run.test_accuracy;
  }
  Pairs accuracies(const std::vector<std::string>& names) const {
    return paired(names, [&](std::size_t, const SeedResult& r, int which) {
      return std::optional(accuracy(names[static_cast<std::size_t>(which)], r.run));
    });
  }

  // The accuracies of these arms, for each seed that all of them have.
  std::vector<std::vector<double>> blocks_of(const std::vector<std::string>& names) const {
    std::vector<std::vector<double>> blocks;
    for (const SeedResult& first : arms_[index_of(names[0])].runs) {
      std::vector<double> block;
      for (const std::string& name : names) {
        const std::vector<SeedResult>& runs = arms_[index_of(name)].runs;
        const auto run = std::ranges::find(runs, first.seed, &SeedResult::seed);
        if (run != runs.end()) block.push_back(accuracy(name, run->run));
      }
      if (block.size() == names.size()) blocks.push_back(std::move(block));
    }
    return blocks;
  }

  // What sharpness.csv says first and at its last finite sharpness, by run; of runs that have both.
  struct Ends {
    std::vector<double> first;
    std::vector<double> last;
    std::int64_t disagreed = 0;
    std::int64_t missing = 0;

    std::string text() const {
      return fmt::format(
          "{}; left out: {} without measurements, {} whose step sizes disagree",
          first.empty() ? ""
                        : fmt::format(", median {:.3g} to {:.3g}", median(first), median(last)),
          missing, disagreed);
    }
  };
  Ends ends_of(std::size_t arm, std::vector<double> SharpnessRows::*column) const {
    Ends ends;
    for (const SeedResult& r : arms_[arm].runs) {
      const auto rows = file_of(arm, r, "sharpness.csv", read_sharpness);
      const std::vector<double> values = rows ? (*rows).*column : std::vector<double>();
      const auto finite = std::ranges::find_if(values.rbegin(), values.rend(),
                                               [](double x) { return std::isfinite(x); });
      if (finite == values.rend() || !std::isfinite(values.front())) {
        ++ends.missing;
        continue;
      }
      const auto at = static_cast<std::size_t>(values.rend() - finite) - 1;
      if (rows->agrees.front() == 0 || rows->agrees[at] == 0) {
        ++ends.disagreed;
        continue;
      }
      ends.first.push_back(values.front());
      ends.last.push_back(values[at]);
    }
    return ends;
  }

  // Spearman's rho of the depth of the weight matrices with how far they are being moved.
  std::optional<double> depth_correlation(std::size_t arm, const LayerRows& rows,
                                          double within) const {
    const RunConfig& config = configs_[arm];
    const DatasetFacts& data = facts(config.data.dataset);
    const Network network = build_network(config, data.shape, data.classes);
    std::vector<double> depths;
    std::vector<double> moves;
    for (const Op& op : network.ops) {
      if (op.weight < 0) continue;
      const std::string& name = network.parameters[static_cast<std::size_t>(op.weight)].name;
      std::vector<double> ratios;
      for (std::size_t i = 0; i < rows.step.size(); ++i) {
        if (rows.parameter[i] != name || rows.step[i] >= within) continue;
        const double ratio = rows.velocity_norm[i] / rows.weight_norm[i];
        if (std::isfinite(ratio)) ratios.push_back(ratio);
      }
      if (ratios.empty()) return std::nullopt;
      depths.push_back(static_cast<double>(depths.size()));
      moves.push_back(mean(ratios));
    }
    // Its p-value is of no interest here.
    return spearman(depths, moves, Alternative::two_sided, 1).rho;
  }

  static Finding too_few(const Pairs& pairs) {
    Finding finding;
    finding.evidence = fmt::format("{}, too few to compare", pairs.n_text());
    return finding;
  }

  static std::string failures_text(const ArmResult& arm) {
    return fmt::format("{} of {} runs failed", arm.failures(), arm.runs.size());
  }

  std::string discordant_text(const std::vector<std::string>& names, const PairResult& pair) const {
    const ArmResult& a = arms_[index_of(names[0])];
    const ArmResult& b = arms_[index_of(names[1])];
    return fmt::format(
        "{} of {} against {} of {}; of {} seeds {} failed only in the first, {} only in the second",
        a.failures(), a.runs.size(), b.failures(), b.runs.size(), pair.pairs,
        pair.only_first_failed, pair.only_second_failed);
  }

  static std::string difference_text(const Pairs& pairs, double difference) {
    return fmt::format("{:.2f} % against {:.2f} % over {}, mean difference {:+.2f} points",
                       100 * mean(pairs.first), 100 * mean(pairs.second), pairs.n_text(),
                       100 * difference);
  }

  // How many runs count with the accuracy of chance.
  std::string chance_text(const std::vector<std::string>& names) const {
    std::vector<std::int64_t> failures;
    for (const std::string& name : names) failures.push_back(arms_[index_of(name)].failures());
    if (std::ranges::all_of(failures, [](std::int64_t n) { return n == 0; })) return "";
    return fmt::format("; failed runs ({}) count with {:g} %", fmt::join(failures, ", "),
                       100 * chance(names[0]));
  }

  const RunConfig& base_;
  const std::vector<RunConfig>& configs_;
  const std::vector<ArmResult>& arms_;
  const std::filesystem::path& folder_;
};

}  // namespace

std::vector<ClaimResult> judge_compare(const RunConfig& base, const std::vector<RunConfig>& configs,
                                       const std::vector<ArmResult>& arms,
                                       const std::filesystem::path& folder, bool interrupted) {
  return judge_claims<Experiment::compare>(base, interrupted,
                                           CompareJudge(base, configs, arms, folder));
}

}  // namespace preheat
