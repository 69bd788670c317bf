#include "experiment/find_lr.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "config/atomic_file.h"
#include "data/dataset.h"
#include "train/critical_rate.h"
#include "train/fingerprint.h"
#include "train/json_file.h"
#include "train/sharpness.h"
#include "train/trainer.h"

namespace preheat {
namespace {

constexpr double confirmation_step = 1.189207115;  // 2^(1/4)

// The rate rounded to the digits of its name, so that the configuration shows it exactly.
double rounded(double rate) {
  return std::strtod(rate_name(rate).c_str(), nullptr);
}

bool trained(const RunResult& run, double loss_below) {
  return !is_failure(run.outcome) && run.final_train_loss && *run.final_train_loss < loss_below;
}

// The run is finite but did not train: its rate is too small, or so large that the network died.
bool is_slow(const Trial& trial) {
  return !trial.trained && trial.run.outcome != Outcome::non_finite;
}

// The rate enters an update only in the weights that it writes.
bool fails_at_any_rate(const RunResult& run) {
  const std::string& first = run.first_non_finite_tensor;
  return run.first_non_finite_step == 0 &&
         (first == "loss" || first.starts_with("activation of ") ||
          first.starts_with("gradient of "));
}

// Takes the rate for `largest` or `smallest_failing`. Returns false if the search has ended, as do
// the stages of search_rate that follow.
bool try_rate(Search& search, double rate, const Trials& trials) {
  const std::vector<Trial> found = trials({rate});
  if (found.empty()) return false;
  search.trials.push_back(found.front());
  (found.front().trained ? search.largest : search.smallest_failing) = rate;
  search.not_finite_at_start = fails_at_any_rate(found.front().run);
  return !search.not_finite_at_start;
}

// Doubles from `first` as long as runs are only too slow. Rates that train are then above those.
bool climb(Search& search, double first, const Trials& trials) {
  double rate = rounded(first);
  for (int climbs = 0; climbs <= max_doublings && rate <= searched_rates.max; ++climbs) {
    if (!try_rate(search, rate, trials)) return false;
    if (!is_slow(search.trials.back())) break;
    rate = rounded(2 * rate);
  }
  search.smallest_failing.reset();
  if (!search.largest) search.smallest_failing = search.trials.front().rate;
  return true;
}

// Doubles or halves until one rate trains and one does not, or the limits are reached.
bool bracket(Search& search, const Trials& trials) {
  int slow = 0;  // in a row
  while (!search.largest || !search.smallest_failing) {
    const double rate =
        rounded(search.largest ? 2 * *search.largest : *search.smallest_failing / 2);
    const bool in_range = rate >= searched_rates.min && rate <= searched_rates.max;
    if (!in_range || slow > max_slow_halvings) break;
    if (!try_rate(search, rate, trials)) return false;
    slow = is_slow(search.trials.back()) ? slow + 1 : 0;
  }
  return true;
}

bool bisect(Search& search, double resolution, const Trials& trials) {
  const std::optional<double>& lo = search.largest;
  const std::optional<double>& hi = search.smallest_failing;
  while (lo && hi && *hi > resolution * *lo) {
    const double rate = rounded(std::sqrt(*lo * *hi));
    if (rate <= *lo || rate >= *hi) break;
    if (!try_rate(search, rate, trials)) return false;
  }
  return true;
}

// Tries the confirmation's rates below the answer that have not been tried.
void confirm(Search& search, const Trials& trials) {
  if (!search.largest) return;
  std::vector<double> rates;
  double rate = *search.largest;
  for (int i = 0; i < confirmations; ++i) {
    rate = rounded(rate / confirmation_step);
    if (rate < searched_rates.min) break;
    if (std::ranges::find(search.trials, rate, &Trial::rate) == search.trials.end()) {
      rates.push_back(rate);
    }
  }
  for (Trial& t : trials(rates)) search.trials.push_back(std::move(t));
  double least = *search.largest;
  for (const Trial& t : search.trials) {
    if (t.trained) least = std::min(least, t.rate);
  }
  for (const Trial& t : search.trials) {
    const bool is_below = t.rate < *search.largest && !(is_slow(t) && t.rate < least);
    search.tried_below += is_below ? 1 : 0;
    search.violations += is_below && !t.trained ? 1 : 0;
  }
}

// Throws OutOfMemory with a remedy that leaves the search as it is, and Stopped.
std::optional<double> positive_sharpness(const RunConfig& config, Runs& runs,
                                         const Network& network, const ResidentData& data) {
  try {
    const double value =
        initial_sharpness(config, runs.backend(), network, schedule_of(config), data.train, [&] {
          return runs.wants_stop();
        }).value;
    return std::isfinite(value) && value > 0 ? std::optional(value) : std::nullopt;
  } catch (const OutOfMemory& error) {
    throw OutOfMemory(fmt::format(
        "the sharpness of the initial weights: {}, or set find_lr.sharpness: false", error.what()));
  }
}

// Without a critical rate if loss or gradient is not finite: then nothing trains, which is a
// result. std::nullopt if the experiment stops before its end.
std::optional<InitialWeights> measure_initial_weights(Runs& runs, const Arm& arm, RunConfig config,
                                                      std::uint64_t seed, bool wants_sharpness) {
  config.seed = seed;
  const ResidentData& data = runs.data(config.data);
  const Network network = build_network(config, data.shape, data.classes);
  InitialWeights at{arm.name, seed, {}, {}};
  try {
    at.critical_rate =
        critical_rate(config, runs.backend(), network, schedule_of(config), data.train);
  } catch (const NotFinite&) {
  }
  try {
    if (wants_sharpness) at.sharpness = positive_sharpness(config, runs, network, data);
  } catch (const Stopped&) {
    return std::nullopt;
  }
  return at;
}

RunConfig with_rate(RunConfig config, double rate) {
  config.schedule.base_lr = rate;
  return config;
}

// Throws ConfigError if a run of a search, each in a folder named after its rate, is of another
// configuration.
void require_same_trials(const RunConfig& config, const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    const double rate = std::strtod(name.c_str(), nullptr);
    if (rate_name(rate) == name) require_same_run(entry.path(), with_rate(config, rate));
  }
}

// Runs a configuration at each of these rates, into folders named after them. Interrupted runs are
// left out.
std::vector<Trial> run_trials(Runs& runs, const RunConfig& config, const std::vector<double>& rates,
                              double loss_below, const std::string& label,
                              const std::filesystem::path& folder) {
  const double chance = chance_loss(config.loss, facts(config.data.dataset).classes);
  std::vector<std::optional<Trial>> trials(rates.size());
  runs.run_concurrently(std::ssize(rates), [&](std::int64_t k) {
    const std::string name = rate_name(rates[k]);
    const RunResult run = runs.run(fmt::format("{} {:<9}", label, name),
                                   with_rate(config, rates[k]), folder / name, Checkpoints::drop);
    if (!run.interrupted) {
      trials[k] = Trial{rates[k], run, trained(run, loss_below * chance)};
    }
    return !run.interrupted;
  });
  return ended_of(trials, 0, 1);
}

// Whether all runs of a search have ended before.
bool is_on_disk(const RunConfig& config, const FindLrConfig& settings,
                const std::filesystem::path& folder) {
  const double chance = chance_loss(config.loss, facts(config.data.dataset).classes);
  bool all = true;
  search_rate(settings.first, settings.resolution, [&](const std::vector<double>& rates) {
    std::vector<Trial> found;
    for (const double rate : rates) {
      const auto run = ended_run(folder / rate_name(rate), with_rate(config, rate));
      if (!run) {
        all = false;
        break;
      }
      found.push_back({rate, *run, trained(*run, settings.loss_below * chance)});
    }
    return found;
  });
  return all;
}

std::vector<RateRatio> ratios_of(const std::vector<SearchArm>& arms) {
  std::vector<RateRatio> ratios;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    for (std::size_t j = i + 1; j < arms.size(); ++j) ratios.push_back(ratio_of(arms[i], arms[j]));
  }
  return ratios;
}

std::vector<Arm> arms_of(const RunConfig& config) {
  if (config.find_lr && !config.find_lr->arms.empty()) return config.find_lr->arms;
  if (!config.schedule.phases.empty()) {
    throw ConfigError(config.where("find_lr.arms"),
                      "is missing, and schedule.phases has no warmup to search without",
                      "write arms, as in find_lr: {arms: {base: {}}}");
  }
  return {{"no-warmup", {parse_override("schedule.warmup.length=0 steps")}}, {"warmup", {}}};
}

// Throws ConfigError if smoothed labels leave a larger loss than a run may have.
void require_reachable(double loss_below, const RunConfig& config, const RunConfig& base) {
  const std::int64_t classes = facts(config.data.dataset).classes;
  const double least =
      smallest_loss(config.label_smoothing, classes) / chance_loss(config.loss, classes);
  if (least < loss_below) return;
  throw ConfigError(base.where("find_lr.loss_below"),
                    fmt::format("no run gets below {} of the loss of chance: label_smoothing: {} "
                                "leaves at least {:.3f} of it",
                                loss_below, config.label_smoothing, least),
                    "a larger one, or less smoothing");
}

// What is searched: every arm at every seed, as tasks 0 .. count() - 1, seed by seed.
struct SearchPlan {
  FindLrConfig settings;
  std::vector<Arm> arms;
  std::vector<RunConfig> configs;  // of the arms
  std::filesystem::path folder;
  std::size_t name_width = 0;  // of the longest of the arms' names

  std::int64_t count() const { return std::ssize(arms) * std::ssize(settings.seeds); }
  std::size_t arm_of(std::int64_t task) const { return task % arms.size(); }
  std::uint64_t seed_of(std::int64_t task) const { return settings.seeds[task / arms.size()]; }
  RunConfig config_of(std::int64_t task) const {
    RunConfig config = configs[arm_of(task)];
    config.seed = seed_of(task);
    return config;
  }
  std::filesystem::path folder_of(std::int64_t task) const {
    return folder / arms[arm_of(task)].name / std::to_string(seed_of(task));
  }
  std::string label_of(std::int64_t task) const {
    return fmt::format("seed {:<4} {:<{}}", seed_of(task), arms[arm_of(task)].name, name_width);
  }
};

// Throws ConfigError if an arm, or a claim about it, cannot be what is searched.
SearchPlan plan_of(const Document& document, const RunConfig& base, const Backend& backend,
                   const std::filesystem::path& folder) {
  SearchPlan plan;
  plan.settings = base.find_lr.value_or(FindLrConfig{});
  plan.arms = arms_of(base);
  plan.configs = arm_configs(document, plan.arms);
  plan.folder = folder;
  for (RunConfig& config : plan.configs) {
    // The rates searched are those of the updates, whatever base rate an arm has.
    config.schedule.scale.reset();
    config.schedule.base_lr = plan.settings.first;
    check_precision(config, backend);
    require_reachable(plan.settings.loss_below, config, base);
  }
  check_find_lr_claims(base, plan.arms, plan.configs);
  for (const Arm& arm : plan.arms) plan.name_width = std::max(plan.name_width, arm.name.size());
  return plan;
}

// At every seed, of the first arm of every network (network_arms); std::nullopt for those that an
// interruption left out.
std::vector<std::optional<InitialWeights>> initial_weights_of(
    Runs& runs, const SearchPlan& plan, const std::vector<std::size_t>& network_arm_of) {
  const std::set<std::size_t> distinct(network_arm_of.begin(), network_arm_of.end());
  const std::vector<std::size_t> networks(distinct.begin(), distinct.end());
  std::vector<std::optional<InitialWeights>> all(networks.size() * plan.settings.seeds.size());
  runs.plan_initial_weights(std::ssize(all));
  runs.run_concurrently(std::ssize(all), [&](std::int64_t task) {
    const std::size_t i = networks[task % networks.size()];
    const std::uint64_t seed = plan.settings.seeds[task / networks.size()];
    const bool begun = runs.when_memory_suffices([&] {
      all[task] = measure_initial_weights(runs, plan.arms[i], plan.configs[i], seed,
                                          plan.settings.sharpness);
    });
    return begun && all[task];
  });
  return all;
}

// std::nullopt if it was interrupted.
std::optional<Search> search_of(Runs& runs, const SearchPlan& plan, std::int64_t task) {
  const FindLrConfig& settings = plan.settings;
  const RunConfig config = plan.config_of(task);
  const std::string label = plan.label_of(task);
  bool interrupted = false;
  const auto trials = [&](const std::vector<double>& rates) {
    std::vector<Trial> found =
        run_trials(runs, config, rates, settings.loss_below, label, plan.folder_of(task));
    interrupted = interrupted || found.size() < rates.size();
    return found;
  };
  Search search = search_rate(settings.first, settings.resolution, trials);
  search.seed = config.seed;
  return interrupted ? std::nullopt : std::optional(std::move(search));
}

// Adds the searches of all arms to `result`, which already holds the arms, and calls `write` as
// run_arms() does.
void search_arms(Runs& runs, const SearchPlan& plan, FindLrResult& result,
                 const std::function<void()>& write) {
  std::vector<std::optional<Search>> ended(plan.count());
  // Searches whose runs are all on disk come first, and nothing is written before another has
  // ended, so that a resumed experiment's file never has fewer than before.
  std::vector<std::int64_t> order(ended.size());
  std::iota(order.begin(), order.end(), 0);
  const auto left = std::stable_partition(order.begin(), order.end(), [&](std::int64_t task) {
    return is_on_disk(plan.config_of(task), plan.settings, plan.folder_of(task));
  });
  const std::int64_t on_disk = left - order.begin();
  std::int64_t count = 0;
  OnceASecond once_a_second(write);
  std::mutex mutex;  // guards those above and the result
  const auto search_one = [&](std::int64_t k) {
    const std::int64_t task = order[k];
    const std::size_t i = plan.arm_of(task);
    std::optional<Search> search = search_of(runs, plan, task);
    const std::lock_guard lock(mutex);
    ended[task] = std::move(search);
    if (ended[task]) {
      result.arms[i].searches = ended_of(ended, i, plan.arms.size());
      runs.tell(plan.arms[i], *ended[task]);
      ++count;
    } else {
      result.interrupted = true;
    }
    if (count > on_disk) once_a_second();
    return ended[task].has_value();
  };
  once_a_second.during([&] { runs.run_concurrently(std::ssize(ended), search_one); });
}

nlohmann::ordered_json to_json(const RateCorrelation& correlation) {
  nlohmann::ordered_json rho;
  nlohmann::ordered_json p;
  if (correlation.rank) {
    rho = correlation.rank->rho;
    p = correlation.rank->p;
  }
  return {{"arm", correlation.arm}, {"rank_correlation", rho}, {"p", p}, {"n", correlation.seeds}};
}

}  // namespace

std::string rate_name(double rate) {
  return fmt::format("{:.4g}", rate);
}

Search search_rate(double first, double resolution, const Trials& trials) {
  Search search;
  const bool ended =
      climb(search, first, trials) && bracket(search, trials) && bisect(search, resolution, trials);
  if (ended) confirm(search, trials);
  return search;
}

std::optional<double> rate_for_share(const SearchArm& arm, double share) {
  std::vector<double> rates;
  for (const Search& s : arm.searches) {
    if (s.largest) rates.push_back(*s.largest);
  }
  std::ranges::sort(rates, std::greater());
  // 0.9 x 10 seeds is 9, not 10, even if the product is rounded up.
  const double needed = std::ceil(share * static_cast<double>(arm.searches.size()) - 1e-9);
  const auto count = static_cast<std::size_t>(std::max(needed, 1.0));
  return rates.size() < count ? std::nullopt : std::optional(rates[count - 1]);
}

RateRatio ratio_of(const SearchArm& a, const SearchArm& b) {
  RateRatio ratio{a.arm.name, b.arm.name, 0, {}, {}};
  std::vector<double> logs;
  for (const Search& x : a.searches) {
    const auto y = std::ranges::find(b.searches, x.seed, &Search::seed);
    if (y == b.searches.end() || !x.largest || !y->largest) continue;
    logs.push_back(std::log2(*y->largest / *x.largest));
  }
  ratio.seeds = static_cast<std::int64_t>(logs.size());
  if (logs.empty()) return ratio;
  ratio.log2_mean = mean(logs);
  if (ratio.seeds >= min_seeds_for_bootstrap) ratio.log2_interval = bootstrap(logs, mean).expanded;
  return ratio;
}

std::optional<double> InitialWeights::stable_rate() const {
  return sharpness ? std::optional(2 / *sharpness) : std::nullopt;
}

std::vector<std::size_t> network_arms(const std::vector<RunConfig>& configs) {
  std::vector<std::size_t> first_arms;
  std::vector<std::string> seen;
  for (const RunConfig& config : configs) {
    RunConfig decisive;
    decisive.model = config.model;
    decisive.data = config.data;
    decisive.data.augment = {};
    decisive.loss = config.loss;
    decisive.label_smoothing = config.label_smoothing;
    decisive.train.cpu_threads = config.train.cpu_threads;
    seen.push_back(fingerprint(decisive));
    first_arms.push_back(
        static_cast<std::size_t>(std::ranges::find(seen, seen.back()) - seen.begin()));
  }
  return first_arms;
}

RateCorrelation correlation_of(
    const SearchArm& arm, const std::string& network_arm,
    const std::vector<InitialWeights>& initial_weights,
    const std::function<std::optional<double>(const InitialWeights&)>& rate) {
  std::vector<double> rates;
  std::vector<double> largest;
  for (const InitialWeights& at : initial_weights) {
    const std::optional<double> found = rate(at);
    const auto search = std::ranges::find(arm.searches, at.seed, &Search::seed);
    if (at.arm != network_arm || !found || search == arm.searches.end() || !search->largest) {
      continue;
    }
    rates.push_back(*found);
    largest.push_back(*search->largest);
  }
  RateCorrelation correlation{network_arm, std::ssize(rates), {}};
  if (correlation.seeds >= min_seeds_for_correlation) {
    correlation.rank = spearman(rates, largest);
  }
  return correlation;
}

FindLrResult find_lr(const Document& document, Backend& backend,
                     const std::filesystem::path& folder, bool resume,
                     const RunsListener& listener) {
  const RunConfig base = read_config(document);
  const SearchPlan plan = plan_of(document, base, backend, folder);
  FindLrResult result;
  result.share = plan.settings.share;
  result.planned = plan.count();
  for (const Arm& arm : plan.arms) result.arms.push_back({arm, {}});
  Runs runs(base, backend, listener);
  if (!resume) runs.load(plan.configs);
  const FolderLock folder_lock = prepare_folder(folder, ExperimentKind::find_lr, base, resume, [&] {
    for (std::int64_t task = 0; task < plan.count(); ++task) {
      require_same_trials(plan.config_of(task), plan.folder_of(task));
    }
  });
  const std::vector<std::size_t> network_arm_of = network_arms(plan.configs);
  const auto write = [&] {
    result.ratios = ratios_of(result.arms);
    for (std::size_t i = 0; i < plan.arms.size(); ++i) {
      SearchArm& arm = result.arms[i];
      const std::string& network_arm = plan.arms[network_arm_of[i]].name;
      const auto& at = result.initial_weights;
      arm.critical = correlation_of(arm, network_arm, at, &InitialWeights::critical_rate);
      arm.stable = correlation_of(arm, network_arm, at, &InitialWeights::stable_rate);
    }
    write_atomically(folder / result_file(ExperimentKind::find_lr), to_json(result).dump(2) + "\n");
  };
  const auto initial_weights = initial_weights_of(runs, plan, network_arm_of);
  result.initial_weights = ended_of(initial_weights, 0, 1);
  result.interrupted = result.initial_weights.size() < initial_weights.size();
  search_arms(runs, plan, result, write);
  write();  // also if judging fails
  result.claims = judge_find_lr(base, result);
  if (!result.claims.empty()) write();
  return result;
}

nlohmann::ordered_json to_json(const FindLrResult& result) {
  using Json = nlohmann::ordered_json;
  Json json = {
      {"arms", Json::array()}, {"critical_rates", Json::array()}, {"ratios", Json::array()}};
  for (const SearchArm& arm : result.arms) {
    Json searches = Json::array();
    for (const Search& s : arm.searches) {
      Json tried = Json::array();
      for (const Trial& t : s.trials) {
        tried.push_back({{"lr", t.rate},
                         {"trained", t.trained},
                         {"outcome", to_string(t.run.outcome)},
                         {"final_train_loss", or_null(t.run.final_train_loss)},
                         {"test_accuracy", or_null(t.run.test_accuracy)},
                         {"first_non_finite_step", or_null(t.run.first_non_finite_step)}});
      }
      searches.push_back({{"seed", s.seed},
                          {"largest", or_null(s.largest)},
                          {"smallest_failing", or_null(s.smallest_failing)},
                          {"not_finite_at_start", s.not_finite_at_start},
                          {"violations", s.violations},
                          {"tried_below", s.tried_below},
                          {"tried", tried}});
    }
    json["arms"].push_back({{"name", arm.arm.name},
                            {"overrides", to_json(arm.arm.overrides)},
                            {"share", result.share},
                            {"largest_for_share", or_null(rate_for_share(arm, result.share))},
                            {"critical_rate", to_json(arm.critical)},
                            {"two_over_sharpness", to_json(arm.stable)},
                            {"searches", searches}});
  }
  for (const InitialWeights& at : result.initial_weights) {
    json["critical_rates"].push_back({{"arm", at.arm},
                                      {"seed", at.seed},
                                      {"rate", or_null(at.critical_rate)},
                                      {"sharpness", or_null(at.sharpness)}});
  }
  for (const RateRatio& r : result.ratios) {
    Json interval;
    if (r.log2_interval) interval = {r.log2_interval->lo, r.log2_interval->hi};
    json["ratios"].push_back({{"arms", {r.first, r.second}},
                              {"log2_mean", or_null(r.log2_mean)},
                              {"interval", interval},
                              {"n", r.seeds}});
  }
  if (!result.claims.empty()) json["claims"] = to_json(result.claims);
  if (result.interrupted) json["interrupted"] = true;
  std::int64_t ended = 0;
  for (const SearchArm& arm : result.arms) ended += std::ssize(arm.searches);
  add_incomplete(json, ended, result.planned);
  return json;
}

}  // namespace preheat
