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
  if (!search.smallest_failing) {
    return fmt::format("trains at {}, the largest rate that was tried", lr_text(*search.largest));
  }
  return fmt::format("trains at {}, not at {}", lr_text(*search.largest),
                     lr_text(*search.smallest_failing));
}

// The arms of which there are critical rates, in their order: the first of every network.
std::vector<std::string> networks_of(const FindLrResult& result) {
  std::vector<std::string> names;
  for (const SeedRate& r : result.critical_rates) {
    if (std::ranges::find(names, r.arm) == names.end()) names.push_back(r.arm);
  }
  return names;
}

// Those that have a critical rate or a search.
std::vector<std::uint64_t> seeds_of(const FindLrResult& result) {
  std::vector<std::uint64_t> seeds;
  const auto add = [&](std::uint64_t seed) {
    if (std::ranges::find(seeds, seed) == seeds.end()) seeds.push_back(seed);
  };
  for (const SeedRate& r : result.critical_rates) add(r.seed);
  for (const SearchArm& arm : result.arms) {
    for (const Search& search : arm.searches) add(search.seed);
  }
  return seeds;
}

void print_rates(const FindLrResult& result) {
  const std::vector<std::uint64_t> seeds = seeds_of(result);
  const std::vector<std::string> networks = networks_of(result);
  const bool is_one = networks.size() < 2;
  const auto critical_label = [&](const std::string& arm) {
    return is_one ? std::string("critical") : "critical, " + arm;
  };
  std::size_t width = 8;
  for (const SearchArm& arm : result.arms) width = std::max(width, arm.arm.name.size());
  for (const std::string& arm : networks) width = std::max(width, critical_label(arm).size());
  fmt::print(
      "\nthe largest base rate that trains, by seed, and that at which {:g} % of the seeds train; "
      "below them the critical rate of the initial weights of {}\n\n{:<{}}",
      100 * result.share,
      is_one ? result.arms.front().arm.name : "each network, by the first arm that has it", "seed",
      width);
  for (const std::uint64_t seed : seeds) fmt::print("  {:>8}", seed);
  fmt::print("  {:>8}  {:>8}  {:>8}  {}\n", "median", fmt::format("{:g} %", 100 * result.share),
             "seeds", "violations");
  for (const SearchArm& arm : result.arms) {
    fmt::print("{:<{}}", arm.arm.name, width);
    std::vector<double> rates;
    std::int64_t violations = 0;
    std::int64_t tried_below = 0;
    for (const std::uint64_t seed : seeds) {
      const auto search = std::ranges::find(arm.searches, seed, &Search::seed);
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
  for (const std::string& network : networks) {
    fmt::print("{:<{}}", critical_label(network), width);
    for (const std::uint64_t seed : seeds) {
      const auto found = std::ranges::find_if(result.critical_rates, [&](const SeedRate& r) {
        return r.arm == network && r.seed == seed;
      });
      fmt::print("  {:>8}", found == result.critical_rates.end() ? "-" : rate_or_dash(found->rate));
    }
    fmt::print("\n");
  }
  fmt::print("\n");
}

void print_ratios(const FindLrResult& result) {
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

void print_correlations(const FindLrResult& result) {
  for (const SearchArm& arm : result.arms) {
    const auto& [of, seeds, rank] = arm.critical;
    if (!rank) continue;
    fmt::print(
        "{}: rank correlation of the largest rate with the critical rate {:.2f}, p = {:.2g} by "
        "permutations, {} seeds\n",
        arm.arm.name, rank->rho, rank->p, seeds);
  }
}

void print_table(const FindLrResult& result) {
  print_rates(result);
  print_ratios(result);
  print_correlations(result);
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
