// The largest base rate at which a network trains, searched seed by seed and arm by arm.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/claims.h"
#include "experiment/runs.h"

namespace preheat {

/// A base rate that was tried, as the updates have it (schedule.scale is not applied), and whether
/// the run trained: finite, not stuck, its final training loss below loss_below times that of
/// chance.
struct Trial {
  double rate = 0;
  RunResult run;
  bool trained = false;
};

/// A base rate as it is tried and as the folder of its run is called: four digits.
std::string rate_name(double rate);

/// The search of one arm at one seed.
struct Search {
  std::uint64_t seed = 0;
  std::vector<Trial> trials;  // in the order they were run, those for confirmation last
  // The answer: `largest` trains, `smallest_failing` above it does not, and they are no further
  // apart than the resolution. One is missing where the search met its limits first.
  std::optional<double> largest;
  std::optional<double> smallest_failing;
  // Rates below `largest` that were tried, and those of them that do not train. Below all that
  // train a run may only be too slow, which is neither.
  std::int64_t tried_below = 0;
  std::int64_t violations = 0;
};

struct SearchArm {
  Arm arm;
  std::vector<Search> searches;  // in the order of the seeds; interrupted ones are not in it
};

/// How much larger the answer of the second arm is, over the seeds that both have one for.
struct RateRatio {
  std::string first;
  std::string second;
  std::int64_t seeds = 0;
  std::optional<double> log2_mean;        // of second / first
  std::optional<Interval> log2_interval;  // bootstrap over seeds, 95 %; needs two
};

/// The rate at which a step along the gradient from the initial weights of the first arm raises the
/// loss by a tenth; forward passes alone (train/critical_rate.h).
struct SeedRate {
  std::uint64_t seed = 0;
  std::optional<double> rate;
};

struct FindLrResult {
  std::vector<SearchArm> arms;
  double share = 0.9;                    // that of rate_for_share in the JSON and the table
  std::vector<RateRatio> ratios;         // of every pair of arms
  std::vector<SeedRate> critical_rates;  // in the order of the seeds, those there was time for
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // searches, of all arms
  bool interrupted = false;
};

/// Doubles from `first` while runs train, or halves while they fail, then bisects in the logarithm
/// until the two sides are within `resolution`. From a first run that is finite and does not
/// train it doubles as well, to one that does: it was too slow. It halves from there where one is
/// not finite first, or none trains within six, and gives up after twelve. That finds one border,
/// and there may be more: so three rates a quarter of an octave apart right below `largest` are
/// tried as well, and those that fail are violations. `trials` is asked once for each rate, for
/// those of the confirmation together; fewer from it than it was asked for, in their order, end the
/// search. Rates stay within kSearchedRates, as `first` has to.
using Trials = std::function<std::vector<Trial>(const std::vector<double>& rates)>;
Search search_rate(double first, double resolution, const Trials& trials);

/// The largest rate at which at least this share of the arm's seeds train, as their searches say: a
/// seed trains at its answer and below. Nothing where fewer have an answer, or none was searched.
std::optional<double> rate_for_share(const SearchArm& arm, double share);

/// Of b to a, over the seeds that have an answer in both; its interval needs two of them.
RateRatio ratio_of(const SearchArm& a, const SearchArm& b);

/// Searches every arm (without any, those without and with the warmup) at every seed, each run into
/// <folder>/<arm>/<seed>/<rate>, and writes find_lr.json after each search; like compare() in all
/// else, and throws ConfigError without arms where the schedule is a list of phases. A rate that is
/// tried is base_lr of a run without schedule.scale. Searches go on beside each other as the runs
/// of compare() do, and to the same results. `on_search` hears of each that has ended, of one at a
/// time.
FindLrResult find_lr(const Document& document, Backend& backend,
                     const std::filesystem::path& folder, bool resume, const RunsListener& listener,
                     const std::function<void(const Arm&, const Search&)>& on_search);

nlohmann::ordered_json to_json(const FindLrResult& result);

}  // namespace preheat
