// Searches the largest base rate at which a network trains, for each seed and arm.
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
#include "experiment/ranks.h"
#include "experiment/runs.h"

namespace preheat {

/// A base rate that was tried, as used in the updates (schedule.scale is not applied), and whether
/// the run trained: finite, not stuck, and with a final training loss below loss_below times that
/// of chance. A run whose loss spikes and recovers has trained.
struct Trial {
  double rate = 0;
  RunResult run;
  bool trained = false;
};

/// A base rate with four digits, as it is tried and as the folder of its run is named.
std::string rate_name(double rate);

/// The search of one arm at one seed.
struct Search {
  std::uint64_t seed = 0;
  std::vector<Trial> trials;  // in the order they were run, the confirmation last
  // The answer: `largest` trains, `smallest_failing` above it does not, and their ratio is at most
  // the resolution. One is missing if the search reached its limits first.
  std::optional<double> largest;
  std::optional<double> smallest_failing;
  // The loss or its gradient was not finite in the first update, at the initial weights: no rate
  // can train, and none was tried but the first.
  bool not_finite_at_start = false;
  // The number of rates tried below `largest`, and of those among them that do not train. Neither
  // counts runs that are only too slow, below all rates that train.
  std::int64_t tried_below = 0;
  std::int64_t violations = 0;
};

/// With fewer pairs no order of them has a two-sided permutation p below 0.05: of four, 2 / 4!.
constexpr std::int64_t min_seeds_for_correlation = 5;

/// What is measured at the initial weights of an arm.
struct InitialWeights {
  std::string arm;
  std::uint64_t seed = 0;
  std::optional<double> critical_rate;  // train/critical_rate.h; std::nullopt if there is none
  // initial_sharpness() in train/sharpness.h, with the arm's settings; std::nullopt if it is not
  // finite or not positive, or was not requested.
  std::optional<double> sharpness;

  /// 2 / sharpness: above this rate gradient descent diverges on a quadratic as sharp as this.
  std::optional<double> stable_rate() const;
};

/// Whether the seeds of an arm whose initial weights promise more, by their critical rate or by
/// 2 / sharpness, also train at larger rates.
struct RateCorrelation {
  std::string arm;                  // whose initial weights they are
  std::int64_t seeds = 0;           // that have both rates
  std::optional<Correlation> rank;  // Spearman, two-sided; needs min_seeds_for_correlation
};

struct SearchArm {
  Arm arm;
  std::vector<Search> searches;  // in the order of the seeds, without interrupted ones
  RateCorrelation critical = {};
  RateCorrelation stable = {};
};

/// The ratio of two arms' answers, over the seeds at which both have one.
struct RateRatio {
  std::string first;
  std::string second;
  std::int64_t seeds = 0;
  std::optional<double> log2_mean;        // of second / first
  std::optional<Interval> log2_interval;  // bootstrap over seeds, 95 %; needs five
};

struct FindLrResult {
  std::vector<SearchArm> arms;
  double share = 0.9;             // for rate_for_share in the JSON and the table
  std::vector<RateRatio> ratios;  // of every pair of arms
  // In the order of the seeds, until interrupted; for each the first arm of every network
  // (network_arms).
  std::vector<InitialWeights> initial_weights;
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // searches, of all arms
  bool interrupted = false;
};

/// Runs trials at the given rates and returns them in the same order; fewer if interrupted.
using Trials = std::function<std::vector<Trial>(const std::vector<double>& rates)>;

/// The limits of a search.
constexpr int max_doublings = 12;      // while runs are only too slow, before the search halves
constexpr int max_slow_halvings = 12;  // in a row, of runs only too slow; one more ends the search
constexpr int confirmations = 3;       // rates tried right below an answer

/// Doubles from `first` while runs train, or halves while they fail, then bisects in the logarithm
/// until the two sides are within `resolution`. A first run that is finite but does not train may
/// have been too slow, so the search doubles up to max_doublings times until one trains. If none
/// does, or a run is not finite first, it halves from `first`, and gives up after more than
/// max_slow_halvings runs in a row that are only too slow. If the first run is not finite in its
/// first update, before the rate plays a part, that is the end. This finds one boundary, and there
/// may be more: so `confirmations` rates a quarter of an octave apart right below `largest` are
/// tried too, and those that fail are violations. `trials` is called for one rate at a time, and
/// once for all rates of the confirmation; if it returns fewer than requested, the search ends.
/// Rates stay within searched_rates, in which `first` has to be.
Search search_rate(double first, double resolution, const Trials& trials);

/// The largest rate at which at least this share of the arm's seeds train, taking a seed to train
/// at its answer and below. std::nullopt if too few have an answer, or none was searched.
std::optional<double> rate_for_share(const SearchArm& arm, double share);

/// The ratio of b's answers to a's, over the seeds at which both have one.
RateRatio ratio_of(const SearchArm& a, const SearchArm& b);

/// For each arm the index of the first whose loss at the initial weights is the same, and so are
/// its critical rates and its sharpness: those of equal model, data (batch size included), loss,
/// label smoothing and number of threads. Augmentation, schedule, optimizer and precision do not
/// enter, nor do the settings of diagnostics.sharpness, of which those of the first arm apply.
std::vector<std::size_t> network_arms(const std::vector<RunConfig>& configs);

/// Spearman's rank correlation between a rate of the initial weights of `network_arm` and the
/// largest rates of `arm`, over the seeds that have both.
RateCorrelation correlation_of(
    const SearchArm& arm, const std::string& network_arm,
    const std::vector<InitialWeights>& initial_weights,
    const std::function<std::optional<double>(const InitialWeights&)>& rate);

/// Searches every arm at every seed, each run into <folder>/<arm>/<seed>/<rate>, and writes
/// find_lr.json as compare() writes its file, after searches. By default the arms are the run
/// without and with its warmup. Each rate is base_lr of a run without schedule.scale. Searches run
/// concurrently like the runs of compare(), with the same results as one by one. Throws ConfigError
/// if there are no arms and the schedule is a list of phases; otherwise like compare(), but a
/// find_lr section is not needed.
FindLrResult find_lr(const Document& document, Backend& backend,
                     const std::filesystem::path& folder, bool resume,
                     const RunsListener& listener);

nlohmann::ordered_json to_json(const FindLrResult& result);

}  // namespace preheat
