#include "experiment/compare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "commands/commands.h"
#include "commands/experiments.h"

namespace preheat {
namespace {

// "85.02 % (84.10 .. 85.90)" over the runs that did not fail: median, least and largest.
std::string accuracy_of_survivors(const ArmResult& arm) {
  std::vector<double> accuracies;
  for (const SeedResult& r : arm.runs) {
    if (!is_failure(r.run.outcome)) accuracies.push_back(*r.run.test_accuracy);
  }
  if (accuracies.empty()) return "-";
  const auto [least, largest] = std::ranges::minmax(accuracies);
  return fmt::format("{} ({:.2f} .. {:.2f})", accuracy_text(median(accuracies)), 100 * least,
                     100 * largest);
}

void print_table(const CompareResult& result) {
  std::size_t width = 3;
  for (const ArmResult& arm : result.arms) width = std::max(width, arm.arm.name.size());
  fmt::print("\n{:<{}}  {:>4}  {:>6}  {:<12}  {:>10}  {:>5}  {}\n", "arm", width, "runs", "failed",
             "95% interval", "not finite", "stuck", "test accuracy of the others");
  for (const ArmResult& arm : result.arms) {
    std::string interval = "-";
    if (!arm.runs.empty()) interval = to_string(arm.failure_interval());
    fmt::print("{:<{}}  {:>4}  {:>6}  {:<12}  {:>10}  {:>5}  {}\n", arm.arm.name, width,
               arm.runs.size(), arm.failures(), interval, arm.count(Outcome::non_finite),
               arm.count(Outcome::stuck), accuracy_of_survivors(arm));
  }
  fmt::print("\n");
  // With many arms only the pairs that some seed separates; compare.json has all.
  const bool many = result.arms.size() > 3;
  for (const PairResult& p : result.paired) {
    if (p.pairs == 0 || (many && p.only_first_failed + p.only_second_failed == 0)) continue;
    fmt::print(
        "{} against {}: of {} seeds {} failed only in the first, {} only in the second; "
        "exact McNemar p = {:.2g}\n",
        p.first, p.second, p.pairs, p.only_first_failed, p.only_second_failed, p.mcnemar_p);
  }
}

int run_compare(const ExperimentOptions& options) {
  const auto run = [&](const ExperimentStart& start) {
    if (!options.run.quiet && start.config.compare) {
      fmt::print("{}: {} arms x {} seeds\n", start.config.name, start.config.compare->arms.size(),
                 start.config.compare->seeds.size());
    }
    return compare(start.document, start.backend, start.folder, start.resume, start.listener);
  };
  return run_experiment(options, "compare", run, print_table);
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
