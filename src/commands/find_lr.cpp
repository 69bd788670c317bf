#include "experiment/find_lr.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>

#include "commands/commands.h"
#include "commands/experiments.h"
#include "experiment/findings.h"
#include "schedule/plan.h"

namespace preheat {
namespace {

std::string answer_text(const Search& search) {
  if (!search.largest) {
    const auto [least, most] = std::ranges::minmax(search.trials, {}, &Trial::rate);
    return fmt::format("trains at none of {} rates from {} to {}; see find_lr.loss_below",
                       search.trials.size(), lr_text(least.rate), lr_text(most.rate));
  }
  return fmt::format("trains at {}, not at {}", lr_text(*search.largest),
                     rate_or_dash(search.smallest_failing));
}

void print_table(const FindLrResult& result) {
  std::size_t width = 3;
  for (const SearchArm& arm : result.arms) width = std::max(width, arm.arm.name.size());
  fmt::print(
      "\nthe largest base rate that trains, by seed, and that at which {:g} % of the seeds "
      "train; below them the critical rate of the initial weights of {}\n\n"
      "{:<{}}",
      100 * result.share, result.arms.front().arm.name, "seed", width + 2);
  for (const SeedRate& r : result.critical_rates) fmt::print("  {:>8}", r.seed);
  fmt::print("  {:>8}  {:>8}  {:>8}  {}\n", "median", fmt::format("{:g} %", 100 * result.share),
             "seeds", "violations");
  for (const SearchArm& arm : result.arms) {
    fmt::print("{:<{}}", arm.arm.name, width + 2);
    std::vector<double> rates;
    std::int64_t violations = 0;
    std::int64_t tried_below = 0;
    for (const SeedRate& r : result.critical_rates) {
      const auto search = std::ranges::find(arm.searches, r.seed, &Search::seed);
      const bool has_one = search != arm.searches.end() && search->largest;
      fmt::print("  {:>8}", has_one ? lr_text(*search->largest) : "-");
      if (has_one) rates.push_back(*search->largest);
      if (search == arm.searches.end()) continue;
      violations += search->violations;
      tried_below += search->tried_below;
    }
    fmt::print("  {:>8}  {:>8}  {:>8}  {} of {} runs below\n",
               rates.empty() ? "-" : lr_text(median(rates)),
               rate_or_dash(rate_for_share(arm, result.share)),
               fmt::format("{} of {}", rates.size(), arm.searches.size()), violations, tried_below);
  }
  fmt::print("{:<{}}", "critical", width + 2);
  for (const SeedRate& r : result.critical_rates) fmt::print("  {:>8}", rate_or_dash(r.rate));
  fmt::print("\n\n");
  // With many arms only the ratios to the first; find_lr.json has all.
  const bool many = result.arms.size() > 3;
  for (const RateRatio& r : result.ratios) {
    if (many && r.first != result.arms.front().arm.name) continue;
    if (!r.log2_mean) {
      fmt::print("{} against {}: no seed has a rate that trains in both\n", r.second, r.first);
      continue;
    }
    fmt::print("{} against {}: {:.2f} times the rate", r.second, r.first, std::exp2(*r.log2_mean));
    if (r.log2_interval) {
      const auto& [lo, hi] = *r.log2_interval;
      fmt::print(" {}", to_string(Interval{std::exp2(lo), std::exp2(hi)}));
    }
    fmt::print(", geometric mean over {} seeds{}\n", r.seeds,
               r.log2_interval ? ", bootstrap at 95 %" : few_text(r.seeds));
  }
}

int run_find_lr(const ExperimentOptions& options) {
  const auto run = [&](const ExperimentStart& start) {
    if (!options.run.quiet && start.config.schedule.scale) {
      fmt::print("note: rates are those of the updates, without schedule.scale\n");
    }
    RunsListener listener = start.listener;
    listener.on_search = [&](const Arm& arm, const Search& search) {
      if (options.run.quiet) return;
      print_line(fmt::format("seed {} {}: {}", search.seed, arm.name, answer_text(search)));
    };
    return find_lr(start.document, start.backend, start.folder, start.resume, listener);
  };
  return run_experiment(options, "find-lr", run, print_table);
}

}  // namespace

void add_find_lr_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ExperimentOptions>();
  CLI::App* command = app.add_subcommand(
      "find-lr", "Find the largest stable base learning rate, without and with warmup");
  options->add_to(*command);
  command->callback([options, &exit_code] { exit_code = run_find_lr(*options); });
}

}  // namespace preheat
