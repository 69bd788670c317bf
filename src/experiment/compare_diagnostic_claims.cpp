// The claims of compare about what diagnostics measure: sharpness, and the movement of layers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <utility>

#include "config/counted.h"
#include "experiment/compare_claims.h"
#include "nn/network.h"
#include "train/run_files.h"
#include "train/trainer.h"

namespace preheat {
namespace {

void require_sharpness(const ClaimedArm& arm) {
  if (arm.config.diagnostics.sharpness) return;
  arm.refuse(fmt::format("the sharpness of {} is not measured", arm.name),
             "diagnostics: {sharpness: {every: 10 steps}}");
}

// ---- Sharpness at both ends of a run -----------------------------------------------------------

// The first and the last finite value of sharpness.csv, for the runs that have both. A run that
// failed before a second measurement does not tell how its sharpness would have changed.
struct Ends {
  std::vector<double> first;
  std::vector<double> last;
  std::int64_t disagreed = 0;
  std::int64_t missing = 0;

  std::string text() const {
    return fmt::format(
        "{}; left out: {} without measurements at both ends, {} whose step sizes disagree",
        first.empty() ? "" : fmt::format(", median {:.3g} to {:.3g}", median(first), median(last)),
        missing, disagreed);
  }
};

Ends ends_of(const ComparedArm& arm, std::vector<double> SharpnessRows::*column) {
  Ends ends;
  for (const SeedResult& r : arm.runs()) {
    const auto rows = arm.file(r, "sharpness.csv", read_sharpness);
    const std::vector<double> values = rows ? (*rows).*column : std::vector<double>();
    const auto finite = std::ranges::find_if(values.rbegin(), values.rend(),
                                             [](double x) { return std::isfinite(x); });
    if (finite == values.rend() || !std::isfinite(values.front())) {
      ++ends.missing;
      continue;
    }
    const auto at = static_cast<std::size_t>(values.rend() - finite) - 1;
    if (at == 0) {
      ++ends.missing;
      continue;
    }
    if (rows->agrees.front() == 0 || rows->agrees[at] == 0) {
      ++ends.disagreed;
      continue;
    }
    ends.first.push_back(values.front());
    ends.last.push_back(values[at]);
  }
  return ends;
}

}  // namespace

// ---- sharpness_falls ---------------------------------------------------------------------------
// Per run, whether the first sharpness is at least `by` times the magnitude of the last finite one.
// Runs without two such measurements, or whose two step sizes disagree at either, are left out and
// counted. One-sided sign test against half of the runs.

std::string text_of(const SharpnessFallsClaim& c) {
  return fmt::format("the sharpness falls {:.3g}-fold in more than half of the runs of {}", c.by,
                     c.arm);
}

void check(const SharpnessFallsClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const SharpnessFallsClaim& c, const Arms& arms) {
  const Ends ends = ends_of(arms[c.arm], &SharpnessRows::sharpness);
  const std::int64_t n = std::ssize(ends.first);
  std::int64_t fell = 0;
  for (std::size_t i = 0; i < ends.first.size(); ++i) {
    fell += ends.first[i] >= c.by * std::abs(ends.last[i]) ? 1 : 0;
  }
  Finding finding;
  finding.evidence = fmt::format("{} of {} runs{}", fell, n, ends.text());
  if (n > 0) {
    finding.test = Test{.name = "sign test p",
                        .p = sign_test(fell, n),
                        .has_claimed_direction = 2 * fell > n,
                        .opposite_p = sign_test(n - fell, n),
                        .smallest_possible_p = sign_test(n, n)};
  }
  return finding;
}

// ---- sharpness_stays ---------------------------------------------------------------------------
// Per run, log(first / last) of the same sharpness, or of the curvature along the random direction:
// PASS if the t interval of the mean is below log(within), FAIL if above. INCONCLUSIVE if all are
// equal.

std::string text_of(const SharpnessStaysClaim& c) {
  return fmt::format("the {} falls less than {:.3g}-fold in {}",
                     c.random_direction ? "curvature along a random direction" : "sharpness",
                     c.within, c.arm);
}

void check(const SharpnessStaysClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const SharpnessStaysClaim& c, const Arms& arms) {
  const Ends ends = ends_of(arms[c.arm], c.random_direction ? &SharpnessRows::random_direction
                                                            : &SharpnessRows::sharpness);
  std::vector<double> logs;  // of first over last, if both are above 0
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
  if (!are_equal(logs)) finding.verdict = verdict_below(t.interval, std::log(c.within));
  finding.evidence += fmt::format(
      "; it falls {:.2f}-fold in the geometric mean, t interval at 95 % {}{}", std::exp(t.mean),
      to_string({std::exp(t.interval.lo), std::exp(t.interval.hi)}), equal_text(logs));
  return finding;
}

// ---- unstable_start ----------------------------------------------------------------------------
// Of the runs that were not finite (those that were stuck do not count), the share in which
// sharpness before update 0 x largest rate up to the failure / 2 > 1. PASS if its Clopper-Pearson
// interval is above `share`, FAIL if below.

std::string text_of(const UnstableStartClaim& c) {
  return fmt::format(
      "the sharpness at the start x the largest rate up to the failure / 2 is above 1 in more than "
      "{} of the runs of {} that are not finite",
      per_cent(c.share), c.arm);
}

void check(const UnstableStartClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

Finding judge(const UnstableStartClaim& c, const Arms& arms) {
  const ComparedArm& arm = arms[c.arm];
  std::vector<double> ratios;
  std::int64_t failed = 0;
  for (const SeedResult& r : arm.runs()) {
    if (r.run.outcome != Outcome::non_finite) continue;
    ++failed;
    const auto metrics = arm.metrics(r);
    if (!r.run.initial_sharpness || !std::isfinite(*r.run.initial_sharpness) || !metrics ||
        metrics->lr.empty()) {
      continue;
    }
    ratios.push_back(*r.run.initial_sharpness * std::ranges::max(metrics->lr) / 2);
  }
  const std::int64_t n = std::ssize(ratios);
  const std::int64_t above = std::ranges::count_if(ratios, [](double x) { return x > 1; });
  const Interval interval = clopper_pearson(above, n);
  return {.evidence =
              fmt::format("{} of {} runs that were not finite, 95 % interval {}{}; {} more "
                          "without measurements",
                          above, n, to_string(interval),
                          n == 0 ? "" : fmt::format(", median {:.3g}", median(ratios)), failed - n),
          .verdict = verdict_above(interval, c.share)};
}

// ---- edge_of_stability -------------------------------------------------------------------------
// Per run, the median sharpness of the last quarter of the measurements against
// 2 (1 + momentum) / rate, at the rate of the last one (Cohen et al. 2021); per seed, the
// least-squares slope over the arms. PASS if the t interval of the mean slope is within `slope`,
// FAIL if outside; INCONCLUSIVE if a run failed or was not measured.

std::string text_of(const EdgeOfStabilityClaim& c) {
  return fmt::format("the late sharpness follows 2 (1 + momentum) / rate, slope {:g} to {:g}",
                     c.slope[0], c.slope[1]);
}

void check(const EdgeOfStabilityClaim&, const ClaimedArm& arm) {
  require_sharpness(arm);
}

double last_edge(const ClaimedArm& arm) {
  const Schedule schedule = schedule_of(arm.config);
  if (arm.config.schedule.until || schedule.start_is_automatic) return std::nan("");
  const std::int64_t every =
      updates_of(arm.config.diagnostics.sharpness->every, schedule.run, arm.config, "diagnostics");
  const std::int64_t last = (schedule.run.steps - 1) / every * every;
  return 2 * (1 + arm.config.optimizer.momentum) / lr_at(schedule.lr, last);
}

void require_two_edges(const RunConfig& base, const std::string& place,
                       const std::vector<double>& edges) {
  const bool is_one =
      std::ranges::all_of(edges, [&](double edge) { return edge == edges.front(); });
  if (!is_one) return;
  throw ConfigError(
      base.where(place + ".arms"),
      fmt::format("all have one edge, 2 (1 + momentum) / rate = {:.4g}, at the end", edges.front()),
      "arms of different rates or momenta");
}

Finding judge(const EdgeOfStabilityClaim& c, const Arms& arms) {
  struct Points {
    std::vector<double> edges;
    std::vector<double> late;
  };
  std::map<std::uint64_t, Points> by_seed;
  std::vector<double> ratios;
  std::int64_t missing = 0;
  for (const std::string& name : c.arms) {
    const ComparedArm& arm = arms[name];
    for (const SeedResult& r : arm.runs()) {
      const auto rows = arm.file(r, "sharpness.csv", read_sharpness);
      const std::span<const double> all = rows ? std::span(rows->sharpness) : std::span<double>();
      const auto last_quarter = all.last((all.size() + 3) / 4);
      const bool measured = !all.empty() && std::ranges::all_of(last_quarter, [](double s) {
        return std::isfinite(s);
      });
      if (is_failure(r.run.outcome) || !measured || rows->lr.back() == 0) {
        ++missing;
        continue;
      }
      const double edge = 2 * (1 + arm.config.optimizer.momentum) / rows->lr.back();
      by_seed[r.seed].edges.push_back(edge);
      by_seed[r.seed].late.push_back(median(last_quarter));
      ratios.push_back(median(last_quarter) / edge);
    }
  }
  std::vector<double> slopes;
  for (const auto& [seed, points] : by_seed) {
    const auto slope = least_squares_slope(points.edges, points.late);
    if (slope) slopes.push_back(*slope);
  }
  Finding finding;
  finding.evidence = fmt::format("{} runs", ratios.size());
  if (missing > 0) {
    finding.evidence += fmt::format(", {} more failed or are without measurements", missing);
  }
  if (slopes.empty()) {
    if (!ratios.empty()) finding.evidence += ", at one edge in each seed, which has no slope";
    return finding;
  }
  finding.evidence += fmt::format(
      ", sharpness over 2 (1 + momentum) / rate {:.2f} to {:.2f}, median {:.2f}; mean slope {:.3f} "
      "over {}",
      std::ranges::min(ratios), std::ranges::max(ratios), median(ratios), mean(slopes),
      counted(slopes.size(), "seed"));
  if (slopes.size() < 2) {
    finding.evidence += ", too few for an interval";
    return finding;
  }
  const Interval interval = paired_t(slopes).interval;
  finding.evidence += ", t interval at 95 % " + to_string(interval);
  if (are_equal(slopes)) {
    finding.evidence += ", equal in all seeds";
  } else if (missing == 0) {
    finding.verdict = verdict_within(interval, {c.slope[0], c.slope[1]});
  }
  return finding;
}

// ---- deep_layers_move_more ---------------------------------------------------------------------
// Per run, Spearman's rho between the depth of a weight matrix (of convolutions and linear layers,
// from the input on) and its mean ratio of velocity norm to weight norm over the examined updates
// before `within`. Values that are not finite are skipped; a run in which a matrix has no value is
// left out. Wilcoxon's signed-rank test of the differences of rho, two-sided.

std::string text_of(const DeepLayersClaim& c) {
  return fmt::format("deep layers move more, against shallow ones, in {} than in {}", c.arms[0],
                     c.arms[1]);
}

namespace {

// The names of the weight matrices, from the input on.
std::vector<std::string> weight_matrices(const RunConfig& config) {
  const DatasetFacts& data = facts(config.data.dataset);
  const Network network = build_network(config, data.shape, data.classes);
  std::vector<std::string> names;
  for (const Op& op : network.ops) {
    if (op.weight >= 0) names.push_back(network.parameters[op.weight].name);
  }
  return names;
}

std::optional<double> depth_correlation(const RunConfig& config, const LayerRows& rows,
                                        double within) {
  std::vector<double> depths;
  std::vector<double> moves;
  for (const std::string& name : weight_matrices(config)) {
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
  // The p-value is not used.
  return spearman(depths, moves, Alternative::two_sided, 1).rho;
}

}  // namespace

void check(const DeepLayersClaim& c, const ClaimedArm& arm) {
  if (!arm.config.diagnostics.layers_every) {
    arm.refuse(fmt::format("the layers of {} are not looked at", arm.name),
               "diagnostics: {layers_every: 10 steps}");
  }
  arm.updates(c.within, "within");
  if (weight_matrices(arm.config).size() < 2) {
    arm.refuse(fmt::format("{} has one layer", arm.name), "a network of at least two layers");
  }
}

Finding judge(const DeepLayersClaim& c, const Arms& arms) {
  const auto rho = [&](const ComparedArm& arm, const SeedResult& r) {
    const auto rows = arm.file(r, "layers.csv", read_layers);
    const auto within = static_cast<double>(arm.updates(c.within));
    return rows ? depth_correlation(arm.config, *rows, within) : std::nullopt;
  };
  Pairs pairs = paired(arms[c.arms[0]], arms[c.arms[1]], rho);
  if (pairs.n() == 0) return too_few(pairs);
  std::string evidence = fmt::format("mean rho of depth {:.2f} against {:.2f} over {}",
                                     mean(pairs.first), mean(pairs.second), pairs.n_text());
  std::swap(pairs.first, pairs.second);
  return {.evidence = std::move(evidence), .test = smaller_in_first(pairs)};
}

}  // namespace preheat
