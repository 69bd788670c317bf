#include "experiment/find_lr.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "commands/commands.h"
#include "commands/experiments.h"
#include "config/counted.h"
#include "experiment/findings.h"
#include "schedule/plan.h"

namespace preheat {
namespace {

constexpr const char* critical = "critical";
constexpr const char* two_over_sharpness = "2 / sharpness";

std::string answer_text(const Search& search) {
  if (search.not_finite_at_start) {
    return fmt::format("not finite at the initial weights, first in {}: no rate can train",
                       search.trials.back().run.first_non_finite_tensor);
  }
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

// The arms whose initial weights were measured, in their order: the first of every network.
std::vector<std::string> networks_of(const FindLrResult& result) {
  std::vector<std::string> names;
  for (const InitialWeights& at : result.initial_weights) {
    if (std::ranges::find(names, at.arm) == names.end()) names.push_back(at.arm);
  }
  return names;
}

bool any_sharpness(const FindLrResult& result) {
  return std::ranges::any_of(result.initial_weights,
                             [](const InitialWeights& at) { return at.sharpness.has_value(); });
}

// Those whose initial weights were measured or that have a search.
std::vector<std::uint64_t> seeds_of(const FindLrResult& result) {
  std::vector<std::uint64_t> seeds;
  const auto add = [&](std::uint64_t seed) {
    if (std::ranges::find(seeds, seed) == seeds.end()) seeds.push_back(seed);
  };
  for (const InitialWeights& at : result.initial_weights) add(at.seed);
  for (const SearchArm& arm : result.arms) {
    for (const Search& search : arm.searches) add(search.seed);
  }
  return seeds;
}

void print_rates(const FindLrResult& result) {
  const std::vector<std::uint64_t> seeds = seeds_of(result);
  const std::vector<std::string> networks = networks_of(result);
  const bool is_one = networks.size() < 2;
  const bool has_sharpness = any_sharpness(result);
  const auto label = [&](const char* rate, const std::string& arm) {
    return is_one ? std::string(rate) : fmt::format("{}, {}", rate, arm);
  };
  std::size_t width = 8;
  for (const SearchArm& arm : result.arms) width = std::max(width, arm.arm.name.size());
  for (const std::string& arm : networks) {
    width = std::max(width, label(has_sharpness ? two_over_sharpness : critical, arm).size());
  }
  fmt::print(
      "\nthe largest base rate that trains, by seed, and that at which {:g} % of the seeds train; "
      "below them the critical rate{} of the initial weights of {}\n\n{:<{}}",
      100 * result.share, has_sharpness ? " and 2 / sharpness" : "",
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
  const auto print_row = [&](const char* name, const std::string& network, const auto& rate) {
    fmt::print("{:<{}}", label(name, network), width);
    for (const std::uint64_t seed : seeds) {
      const auto at = std::ranges::find_if(result.initial_weights, [&](const InitialWeights& of) {
        return of.arm == network && of.seed == seed;
      });
      fmt::print("  {:>8}", at == result.initial_weights.end() ? "-" : rate_or_dash(rate(*at)));
    }
    fmt::print("\n");
  };
  for (const std::string& network : networks) {
    print_row(critical, network, std::mem_fn(&InitialWeights::critical_rate));
    if (!has_sharpness) continue;
    print_row(two_over_sharpness, network, std::mem_fn(&InitialWeights::stable_rate));
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
    fmt::print(", geometric mean over {}{}\n", counted(r.seeds, "seed"),
               r.log2_interval ? ", bootstrap at 95 %" : few_text(r.seeds));
  }
}

void print_correlations(const FindLrResult& result) {
  const auto print = [](const SearchArm& arm, const char* rate, const RateCorrelation& found) {
    if (!found.rank) return;
    fmt::print(
        "{}: rank correlation of the largest rate with {} {:.2f}, p = {:.2g} by permutations, {} "
        "seeds\n",
        arm.arm.name, rate, found.rank->rho, found.rank->p, found.seeds);
  };
  for (const SearchArm& arm : result.arms) {
    print(arm, "the critical rate", arm.critical);
    print(arm, two_over_sharpness, arm.stable);
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
    const bool has_sharpness = start.config.find_lr.value_or(FindLrConfig{}).sharpness;
    listener.on_initial_weights = [&, has_sharpness](std::int64_t count) {
      if (options.run.quiet) return;
      print_line(fmt::format("first, the critical rate{} of {} initial weights",
                             has_sharpness ? " and the sharpness" : "", count));
    };
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
