#include "experiment/compare.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "config/atomic_file.h"
#include "experiment/compare_claims.h"
#include "schedule/plan.h"
#include "train/json_file.h"
#include "train/loss_curve.h"

namespace preheat {
namespace {

// Calls visit(i, j) for each pair of so many arms.
template <class Visit>
void for_pairs(std::size_t arms, const Visit& visit) {
  for (std::size_t i = 0; i < arms; ++i) {
    for (std::size_t j = i + 1; j < arms; ++j) visit(i, j);
  }
}

std::vector<PairResult> pairs_of(const std::vector<ArmResult>& arms) {
  std::vector<PairResult> pairs;
  for_pairs(arms.size(),
            [&](std::size_t i, std::size_t j) { pairs.push_back(pair_of(arms[i], arms[j])); });
  return pairs;
}

Budget budget_of(const RunConfig& config) {
  const Schedule schedule = schedule_of(config);
  const bool depends_on_run = schedule.lr.gate.window > 0 || schedule.start_is_automatic;
  return {schedule.run.steps, config.data.batch_size, config.data.examples_per_pass(),
          depends_on_run ? std::nullopt : sum_of_rates(schedule)};
}

// Of the runs that did not fail and have both losses.
nlohmann::ordered_json median_losses(const ArmResult& arm) {
  std::vector<double> train;
  std::vector<double> gaps;
  for (const SeedResult& r : arm.runs) {
    if (is_failure(r.run.outcome) || !r.run.final_train_loss || !r.run.test_loss) continue;
    const double gap = *r.run.test_loss - *r.run.final_train_loss;
    if (!std::isfinite(gap)) continue;  // a test loss may overflow where the training loss did not
    train.push_back(*r.run.final_train_loss);
    gaps.push_back(gap);
  }
  if (train.empty()) return nullptr;
  return {{"final_train", median(train)}, {"test_minus_train", median(gaps)}};
}

using LossCurves = std::map<std::uint64_t, LossCurve>;  // by seed

// Of the runs that did not fail and were evaluated often enough.
LossCurves loss_curves(const ComparedArm& arm) {
  LossCurves curves;
  for (const SeedResult& r : arm.runs()) {
    if (is_failure(r.run.outcome)) continue;
    const auto evaluations = arm.file(r, "eval.csv", read_evaluations);
    if (!evaluations || evaluations->step.size() < min_curve_evaluations) continue;
    const auto metrics = arm.metrics(r);
    if (metrics) curves[r.seed] = loss_curve(*metrics, *evaluations);
  }
  return curves;
}

bool have_training_losses_of_one_kind(const RunConfig& a, const RunConfig& b) {
  return a.data.dataset == b.data.dataset && a.loss == b.loss &&
         a.label_smoothing == b.label_smoothing && a.data.augment == b.data.augment;
}

std::optional<MatchedLosses> matched_losses(const LossCurves& a, const LossCurves& b) {
  std::vector<double> differences;
  for (const auto& [seed, curve] : a) {
    const auto other = b.find(seed);
    if (other == b.end()) continue;
    const auto difference = test_loss_difference(curve, other->second);
    if (difference) differences.push_back(*difference);
  }
  if (differences.empty()) return std::nullopt;
  MatchedLosses matched{std::ssize(differences), mean(differences), std::nullopt};
  if (matched.n > 1) matched.interval = paired_t(differences).interval;
  return matched;
}

nlohmann::ordered_json to_json(const MatchedLosses& matched) {
  nlohmann::ordered_json interval;
  if (matched.interval) interval = {matched.interval->lo, matched.interval->hi};
  return {{"mean_difference", matched.mean}, {"interval", interval}, {"n", matched.n}};
}

}  // namespace

bool are_as_long(const Budget& a, const Budget& b) {
  return a.updates == b.updates && a.batch_size == b.batch_size;
}

std::vector<std::optional<MatchedLosses>> matched_losses(const std::vector<RunConfig>& configs,
                                                         const std::vector<ArmResult>& arms,
                                                         const std::filesystem::path& folder) {
  std::vector<LossCurves> curves;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    curves.push_back(loss_curves({configs[i], arms[i], folder / arms[i].arm.name}));
  }
  std::vector<std::optional<MatchedLosses>> matched;
  for_pairs(arms.size(), [&](std::size_t i, std::size_t j) {
    matched.push_back(have_training_losses_of_one_kind(configs[i], configs[j])
                          ? matched_losses(curves[i], curves[j])
                          : std::nullopt);
  });
  return matched;
}

CompareResult compare(const Document& document, Backend& backend,
                      const std::filesystem::path& folder, bool resume,
                      const RunsListener& listener) {
  const RunConfig base = read_config(document);
  if (!base.compare) {
    throw ConfigError(
        base.where("compare"), "is missing",
        "write compare: {seeds: 0..9, arms: {no-warmup: {schedule.warmup.length: 0 steps}, "
        "warmup: {}}}");
  }
  const std::vector<RunConfig> configs = arm_configs(document, base.compare->arms);
  for (const RunConfig& config : configs) check_precision(config, backend);
  check_compare_claims(base, configs);
  CompareResult result;
  for (const Arm& arm : base.compare->arms) result.arms.push_back({arm, {}});
  for (const RunConfig& config : configs) result.budgets.push_back(budget_of(config));
  result.planned = std::ssize(result.arms) * std::ssize(base.compare->seeds);
  Runs runs(base, backend, listener);
  if (!resume) runs.load(configs);
  const FolderLock folder_lock = prepare_folder(folder, ExperimentKind::compare, base, resume, [&] {
    require_same_runs(configs, base.compare->seeds, folder, result.arms);
  });
  const auto write = [&] {
    result.paired = pairs_of(result.arms);
    write_atomically(folder / result_file(ExperimentKind::compare), to_json(result).dump(2) + "\n");
  };
  result.interrupted =
      !run_arms(runs, configs, base.compare->seeds, folder, Checkpoints::keep, result.arms, write);
  write();  // a damaged file that is read from here on must not cost the results
  result.claims = judge_compare(base, configs, result.arms, folder, result.interrupted);
  if (!result.claims.empty()) write();
  result.matched = matched_losses(configs, result.arms, folder);
  write();
  return result;
}

nlohmann::ordered_json to_json(const CompareResult& result) {
  nlohmann::ordered_json json = {{"arms", nlohmann::ordered_json::array()},
                                 {"paired", nlohmann::ordered_json::array()}};
  for (std::size_t i = 0; i < result.arms.size(); ++i) {
    const Budget& budget = result.budgets[i];
    nlohmann::ordered_json arm = to_json(result.arms[i]);
    arm["budget"] = {{"updates", budget.updates},
                     {"batch_size", budget.batch_size},
                     {"micro_batch", budget.micro_batch},
                     {"sum_of_rates", or_null(budget.sum_of_rates)}};
    arm["median_losses"] = median_losses(result.arms[i]);
    json["arms"].push_back(arm);
  }
  for (std::size_t i = 0; i < result.paired.size(); ++i) {
    nlohmann::ordered_json pair = to_json(result.paired[i], "arms");
    const bool is_matched = i < result.matched.size() && result.matched[i];
    pair["test_loss_at_matched_training_loss"] =
        is_matched ? to_json(*result.matched[i]) : nlohmann::ordered_json();
    json["paired"].push_back(pair);
  }
  if (!result.claims.empty()) json["claims"] = to_json(result.claims);
  if (result.interrupted) json["interrupted"] = true;
  add_incomplete(json, count_runs(result.arms), result.planned);
  return json;
}

}  // namespace preheat
