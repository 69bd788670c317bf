#include "experiment/compare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "commands/commands.h"
#include "commands/experiments.h"
#include "config/counted.h"

namespace preheat {
namespace {

using Accuracy = std::optional<double> RunResult::*;

// "85.02 % (84.10 .. 85.90)" over the runs that did not fail: median, least and largest.
std::string accuracy_of_survivors(const ArmResult& arm, Accuracy accuracy) {
  const std::vector<double> accuracies = arm.of_survivors(accuracy);
  if (accuracies.empty()) return "-";
  const auto [least, largest] = std::ranges::minmax(accuracies);
  return fmt::format("{} ({:.2f} .. {:.2f})", accuracy_text(median(accuracies)), 100 * least,
                     100 * largest);
}

// "3 (step 5 .. 12)": the runs that became not finite, and the first and the last of their steps.
std::string non_finite_text(const ArmResult& arm) {
  const auto steps = arm.non_finite_steps();
  if (!steps) return "0";
  const std::string last =
      steps->least == steps->largest ? "" : fmt::format(" .. {}", steps->largest);
  return fmt::format("{} (step {}{})", arm.count(Outcome::non_finite), steps->least, last);
}

void print_arms(const CompareResult& result) {
  std::size_t width = 3;
  std::size_t non_finite_width = 10;
  for (const ArmResult& arm : result.arms) {
    width = std::max(width, arm.arm.name.size());
    non_finite_width = std::max(non_finite_width, non_finite_text(arm).size());
  }
  const bool validated = result.validated();
  fmt::print("\n{:<{}}  {:>4}  {:>6}  {:<12}  {:<{}}  {:>5}  {}{}\n", "arm", width, "runs",
             "failed", "95% interval", "not finite", non_finite_width, "stuck",
             validated ? fmt::format("{:<29}", "validation accuracy") : "",
             "test accuracy of the others");
  for (const ArmResult& arm : result.arms) {
    std::string interval = "-";
    if (!arm.runs.empty()) interval = to_string(arm.failure_interval());
    const std::string validation = accuracy_of_survivors(arm, &RunResult::validation_accuracy);
    fmt::print("{:<{}}  {:>4}  {:>6}  {:<12}  {:<{}}  {:>5}  {}{}\n", arm.arm.name, width,
               arm.runs.size(), arm.failures(), interval, non_finite_text(arm), non_finite_width,
               arm.count(Outcome::stuck), validated ? fmt::format("{:<29}", validation) : "",
               accuracy_of_survivors(arm, &RunResult::test_accuracy));
  }
  fmt::print("\n");
}

// "200 updates of 32 images, sum of rates 20".
std::string budget_text(const Budget& budget) {
  return fmt::format(
      "{} updates of {} images{}", budget.updates, budget.batch_size,
      budget.sum_of_rates ? fmt::format(", sum of rates {:.4g}", *budget.sum_of_rates) : "");
}

// A line with the arms of each budget, if not all arms have as many updates of as many images.
void print_budgets(const CompareResult& result) {
  const std::vector<Budget>& budgets = result.budgets;
  if (std::ranges::all_of(budgets,
                          [&](const Budget& b) { return are_as_long(b, budgets.front()); })) {
    return;
  }
  std::vector<std::string> texts;
  std::vector<std::vector<std::string>> names;  // of the arms with each text
  for (std::size_t i = 0; i < budgets.size(); ++i) {
    const std::string text = budget_text(budgets[i]);
    const auto at = static_cast<std::size_t>(std::ranges::find(texts, text) - texts.begin());
    if (at == texts.size()) {
      texts.push_back(text);
      names.emplace_back();
    }
    names[at].push_back(result.arms[i].arm.name);
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    texts[i] += fmt::format(" ({})", fmt::join(names[i], ", "));
  }
  fmt::print("the arms differ in their budgets: {}\n", fmt::join(texts, "; "));
}

void print_pairs(const CompareResult& result) {
  // With many arms only the pairs that some seed separates; compare.json has all.
  const bool many = result.arms.size() > 3;
  std::int64_t compared = 0;
  std::int64_t printed = 0;
  for (const PairResult& p : result.paired) {
    if (p.pairs == 0) continue;
    ++compared;
    if (many && p.only_first_failed + p.only_second_failed == 0) continue;
    ++printed;
    fmt::print(
        "{} against {}: of {} seeds {} failed only in the first, {} only in the second; "
        "exact McNemar p = {:.2g}\n",
        p.first, p.second, p.pairs, p.only_first_failed, p.only_second_failed, p.mcnemar_p);
  }
  if (printed > 0 && compared > 1) {
    fmt::print("{} comparisons; the p-values are not corrected for their number\n", compared);
  }
}

// Of few arms; otherwise only says where they are.
void print_matched_losses(const CompareResult& result) {
  if (result.arms.size() > 3) {
    const auto pairs = std::ranges::count_if(result.matched, [](const auto& m) { return !!m; });
    if (pairs > 0) {
      fmt::print("compare.json and the page have test losses at equal training loss, of {} pairs\n",
                 pairs);
    }
    return;
  }
  for (std::size_t i = 0; i < result.matched.size(); ++i) {
    const std::optional<MatchedLosses>& matched = result.matched[i];
    if (!matched || !matched->interval) continue;
    fmt::print(
        "{} against {}: test loss at equal training loss {:+.3g} [{:+.3g}, {:+.3g}], the first "
        "minus the second, n = {} seeds\n",
        result.paired[i].first, result.paired[i].second, matched->mean, matched->interval->lo,
        matched->interval->hi, matched->n);
  }
}

void print_result(const CompareResult& result) {
  print_arms(result);
  print_budgets(result);
  print_pairs(result);
  print_matched_losses(result);
}

int run_compare(const ExperimentOptions& options) {
  const auto run = [&](const ExperimentStart& start) {
    if (!options.run.quiet && start.config.compare) {
      fmt::print("{}: {} x {}\n", start.config.name,
                 counted(start.config.compare->arms.size(), "arm"),
                 counted(start.config.compare->seeds.size(), "seed"));
    }
    return compare(start.document, start.backend, start.folder, start.resume, start.listener);
  };
  return run_experiment(options, "compare", run, print_result);
}

}  // namespace

void add_compare_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ExperimentOptions>();
  CLI::App* command = app.add_subcommand(
      "compare", "Train the arms of an experiment over several seeds and count who fails");
  options->add_to(*command);
  command->callback([options, &exit_code] { exit_code = run_compare(*options); });
}

}  // namespace preheat
