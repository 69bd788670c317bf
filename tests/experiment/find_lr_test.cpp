#include "experiment/find_lr.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "config/error.h"
#include "experiment/small_experiment.h"
#include "settings.h"
#include "train/critical_rate.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class SearchRate : public testing::Test {
 protected:
  using Trains = std::function<bool(double)>;

  // Searches, and records the rates that were asked for.
  Search search(double first, double resolution, const Trains& trains, std::size_t most = 1000) {
    asked_.clear();
    return search_rate(first, resolution, [&](const std::vector<double>& rates) {
      std::vector<Trial> trials;
      for (const double rate : rates) {
        if (asked_.size() == most) break;
        asked_.push_back(rate);
        Trial& trial = trials.emplace_back();
        trial.rate = rate;
        trial.trained = trains(rate);
        trial.run.outcome = trial.trained || is_slow(rate) ? Outcome::ok : Outcome::non_finite;
      }
      return trials;
    });
  }

  bool is_slow(double rate) const { return rate < slow_below_; }

  void expect_once_each() const {
    std::vector<double> sorted = asked_;
    std::ranges::sort(sorted);
    EXPECT_EQ(std::ranges::adjacent_find(sorted), sorted.end());
  }

  double log_uniform(double from, double to) {
    return std::exp(std::uniform_real_distribution<>(std::log(from), std::log(to))(random_));
  }

  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  std::vector<double> asked_;
  double slow_below_ = 0;
};

TEST_F(SearchRate, FindsTheBorderOfWhatTrains) {
  for (int trial = 0; trial < 200; ++trial) {
    const double border = log_uniform(1e-6, 1e6);
    const double first = log_uniform(1e-4, 1e2);
    const double resolution = log_uniform(1.01, 4);
    SCOPED_TRACE(fmt::format("seed {}: {} from {}, {}", seed_, border, first, resolution));
    const Search s = search(first, resolution, [&](double rate) { return rate <= border; });
    ASSERT_TRUE(s.largest && s.smallest_failing);
    EXPECT_LE(*s.largest, border);
    EXPECT_GT(*s.smallest_failing, border);
    EXPECT_LE(*s.smallest_failing, resolution * *s.largest);
    EXPECT_EQ(s.violations, 0);
    expect_once_each();
    ASSERT_EQ(s.trials.size(), asked_.size());
    for (std::size_t i = 0; i < asked_.size(); ++i) EXPECT_EQ(s.trials[i].rate, asked_[i]);
    // The three rates below the answer were tried too, to four digits.
    for (int k = 1; k <= 3; ++k) {
      EXPECT_TRUE(std::ranges::any_of(asked_, [&](double rate) {
        return std::fabs(rate / (*s.largest / std::exp2(k / 4.0)) - 1) < 4e-3;
      })) << k;
    }
    // Doublings, halvings of the interval, confirmations.
    EXPECT_LE(asked_.size(), 2 + std::fabs(std::log2(border / first)) +
                                 std::log2(std::max(1.0, std::log(2) / std::log(resolution))) + 3 +
                                 3);
    // The name of a folder is the rate to four digits, and these are the rate exactly.
    for (const double rate : asked_) EXPECT_EQ(std::stod(fmt::format("{:.4g}", rate)), rate);
  }
}

// If there are several borders it finds one; rates below its answer that fail are violations.
TEST_F(SearchRate, OfWhatIsNotMonotoneFindsOneBorderAndTellsTheOthers) {
  int with_violations = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const auto salt = static_cast<unsigned>(random_());
    const auto trains = [&](double rate) {  // random, but by the rate alone
      std::mt19937 hash(salt ^ static_cast<unsigned>(std::hash<double>()(rate)));
      return rate < 1e4 && (rate < 1e-4 || hash() % 3 != 0);
    };
    const Search s = search(log_uniform(1e-2, 1e2), 1.2, trains);
    ASSERT_TRUE(s.largest && s.smallest_failing);
    EXPECT_TRUE(trains(*s.largest));
    EXPECT_FALSE(trains(*s.smallest_failing));
    EXPECT_GT(*s.smallest_failing, *s.largest);
    EXPECT_LE(*s.smallest_failing, 1.2 * *s.largest);
    expect_once_each();
    std::int64_t violations = 0;
    for (const double rate : asked_) violations += rate < *s.largest && !trains(rate) ? 1 : 0;
    EXPECT_EQ(s.violations, violations);
    with_violations += violations > 0 ? 1 : 0;
  }
  EXPECT_GT(with_violations, 20);
}

// Rates below those that train in time do not diverge; they are only slow.
TEST_F(SearchRate, LooksAboveARateThatIsOnlyTooSlow) {
  for (int trial = 0; trial < 200; ++trial) {
    const double border = log_uniform(1e-4, 1e4);
    const double first = border / log_uniform(1e-2, 50);
    slow_below_ = border / log_uniform(3, 30);
    SCOPED_TRACE(fmt::format("seed {}: {} .. {} from {}", seed_, slow_below_, border, first));
    const auto trains = [&](double rate) { return rate <= border && rate >= slow_below_; };
    const Search s = search(first, 1.2, trains);
    ASSERT_TRUE(s.largest && s.smallest_failing);
    EXPECT_TRUE(trains(*s.largest));
    EXPECT_GT(*s.smallest_failing, border);
    EXPECT_LE(*s.smallest_failing, 1.2 * *s.largest);
    EXPECT_EQ(s.violations, 0);
    EXPECT_EQ(s.tried_below, std::ranges::count_if(asked_, [&](double rate) {
                return trains(rate) && rate < *s.largest;
              }));
    expect_once_each();
  }
  // Between rates that train, what is finite and has not learned is no slow run but a violation.
  slow_below_ = 1e9;
  const Search gap = search(4, 2, [](double rate) { return rate == 4 || rate < 3; });
  EXPECT_EQ(gap.largest, 4);
  EXPECT_EQ(gap.tried_below, 3);
  EXPECT_EQ(gap.violations, 1);
  // If nothing trains, it gives up in both directions: upwards at a rate that is not finite or
  // after 12 doublings, downwards after 13 slow rates.
  slow_below_ = 1;
  EXPECT_FALSE(search(0.9, 1.2, [](double) { return false; }).largest);
  EXPECT_EQ(asked_.size(), 2u + 13);
  expect_once_each();
  slow_below_ = 1e8;
  EXPECT_FALSE(search(0.9, 1.2, [](double) { return false; }).largest);
  EXPECT_EQ(asked_.size(), 13u + 13);
  expect_once_each();
}

TEST_F(SearchRate, EndsAtItsLimits) {
  const Search never = search(1e-3, 1.19, [](double) { return false; });
  EXPECT_FALSE(never.largest);
  EXPECT_EQ(never.violations, 0);
  EXPECT_GE(*never.smallest_failing, 1e-8);
  EXPECT_LT(*never.smallest_failing, 2e-8);
  expect_once_each();
  const Search always = search(1e3, 1.19, [](double) { return true; });
  EXPECT_FALSE(always.smallest_failing);
  EXPECT_LE(*always.largest, 1e8);
  EXPECT_GT(*always.largest, 5e7);
  expect_once_each();
  // It may begin at either limit.
  EXPECT_EQ(search(1e8, 1.19, [](double) { return true; }).largest, 1e8);
  EXPECT_EQ(search(1e-8, 1.19, [](double) { return false; }).smallest_failing, 1e-8);
  // They are tried too.
  EXPECT_EQ(search(4e-8, 1.19, [](double) { return false; }).smallest_failing, 1e-8);
  EXPECT_EQ(search(2.5e7, 1.19, [](double) { return true; }).largest, 1e8);
  // Nor does it look below them to confirm an answer.
  EXPECT_EQ(search(1e-8, 1.19, [](double rate) { return rate <= 1e-8; }).largest, 1e-8);
  EXPECT_EQ(std::ranges::min(asked_), 1e-8);
}

// What is not finite before a rate has been used is so at any other; a weight that the first update
// made so, or a later update, may be finite at a lower rate.
TEST_F(SearchRate, EndsWhereNoRateCanTrain) {
  const auto failing = [](std::int64_t step, const char* tensor) {
    return search_rate(0.1, 1.2, [&](const std::vector<double>& rates) {
      Trial trial;
      trial.rate = rates.at(0);
      trial.run.outcome = Outcome::non_finite;
      trial.run.first_non_finite_step = step;
      trial.run.first_non_finite_tensor = tensor;
      return std::vector<Trial>{trial};
    });
  };
  for (const char* tensor : {"loss", "activation of 2", "gradient of 0.conv.weight"}) {
    const Search at_start = failing(0, tensor);
    EXPECT_TRUE(at_start.not_finite_at_start) << tensor;
    EXPECT_EQ(at_start.trials.size(), 1u);
    EXPECT_FALSE(at_start.largest);
    EXPECT_EQ(at_start.smallest_failing, 0.1);
    const Search later = failing(1, tensor);
    EXPECT_FALSE(later.not_finite_at_start) << tensor;
    EXPECT_GT(later.trials.size(), 20u);
  }
  const Search by_update = failing(0, "0.conv.weight");
  EXPECT_FALSE(by_update.not_finite_at_start);
  EXPECT_GT(by_update.trials.size(), 20u);
}

TEST_F(SearchRate, EndsWhereATrialDoes) {
  const auto trains = [](double rate) { return rate <= 0.5; };
  search(0.01, 1.05, trains);
  const std::vector<double> all = asked_;
  for (std::size_t most = 0; most <= all.size(); ++most) {
    const Search s = search(0.01, 1.05, trains, most);
    EXPECT_EQ(asked_, std::vector<double>(all.begin(), all.begin() + static_cast<long>(most)));
    EXPECT_EQ(s.trials.size(), most);
  }
}

constexpr const char* searched = R"(
find_lr:
  seeds: [5, 2]
  first: 0.05
  resolution: 2
  loss_below: 0.95
  arms:
    no-warmup: {schedule.warmup.length: 0 steps}
    warmup: {optimizer.momentum: 0.5}
)";

TEST(RateForShare, IsTheLargestThatEnoughSeedsTrainAt) {
  SearchArm arm;
  for (const double rate : {0.3, 0.1, 1.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}) {
    Search search;
    search.largest = rate;
    arm.searches.push_back(search);
  }
  EXPECT_EQ(rate_for_share(arm, 1), 0.1);
  EXPECT_EQ(rate_for_share(arm, 0.9), 0.2);  // nine of ten, not ten
  EXPECT_EQ(rate_for_share(arm, 0.85), 0.2);
  EXPECT_EQ(rate_for_share(arm, 0.5), 0.6);
  EXPECT_EQ(rate_for_share(arm, 0.01), 1.0);
  // A seed that trains at no rate counts as one that does not train.
  arm.searches[2].largest.reset();
  EXPECT_EQ(rate_for_share(arm, 0.9), 0.1);
  EXPECT_FALSE(rate_for_share(arm, 1));
  EXPECT_FALSE(rate_for_share({}, 0.5));
  // 7 seeds of 25, though 0.28 x 25 is above 7 in doubles.
  SearchArm many;
  for (int rate = 1; rate <= 25; ++rate) many.searches.emplace_back().largest = rate;
  EXPECT_EQ(rate_for_share(many, 0.28), 19);
}

TEST(RatioOf, HasAnIntervalFromFiveSeedsOn) {
  SearchArm a;
  SearchArm b;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    EXPECT_FALSE(ratio_of(a, b).log2_interval) << seed;
    for (SearchArm* arm : {&a, &b}) arm->searches.emplace_back().seed = seed;
    a.searches.back().largest = 0.1;
    b.searches.back().largest = seed % 2 == 0 ? 0.2 : 0.4;
  }
  const RateRatio ratio = ratio_of(a, b);
  ASSERT_TRUE(ratio.log2_interval);
  EXPECT_NEAR(*ratio.log2_mean, 1.4, 1e-12);
  EXPECT_NEAR(ratio.log2_interval->lo, 1, 1e-12);
  EXPECT_NEAR(ratio.log2_interval->hi, 2, 1e-12);
}

TEST(NetworkArms, AreTheFirstOfEqualNetworks) {
  const Document document = parse_document(std::string(small_run) + R"(
find_lr:
  arms:
    a: {}
    trained-otherwise: {optimizer.momentum: 0.5, schedule.warmup.length: 0 steps, train.length: 30 steps}
    wide: {model.init.gain: 2}
    batch: {data.batch_size: 16}
    mse: {loss: mse}
    wide-too: {model.init.gain: 2.0, schedule.warmup.length: 0 steps}
    flipped: {data.augment.flip: true}
    smoothed: {label_smoothing: 0.1}
    deeper: {model.layers: [{linear: {out: 5}}, {linear: {out: 10}}]}
)",
                                           "f.yaml");
  EXPECT_THAT(network_arms(arm_configs(document, read_config(document).find_lr->arms)),
              ElementsAre(0, 0, 2, 3, 4, 2, 0, 7, 8));
}

// Five orders of five have a sum of squared differences of ranks of at most 2, and eight one of at
// most 4, which is a rho of 1 - 6 x 4 / (5 x 24).
TEST(CorrelationOf, IsOverTheSeedsThatHaveBothRates) {
  SearchArm arm;
  std::vector<InitialWeights> at;
  const auto critical = [&](const char* network) {
    return correlation_of(arm, network, at, &InitialWeights::critical_rate);
  };
  const double largest[] = {0.2, 0.1, 0.4, 0.3, 0.5};
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    EXPECT_EQ(critical("a").seeds, static_cast<std::int64_t>(seed));
    EXPECT_FALSE(critical("a").rank);
    const double rate = 1.0 + static_cast<double>(seed);
    at.push_back({"other", seed, 10 - rate, 10 - rate});
    at.push_back({"a", seed, rate, rate});
    Search& search = arm.searches.emplace_back();
    search.seed = seed;
    search.largest = largest[seed];
  }
  // Nor do seeds count that lack one of the two.
  at.push_back({"a", 5, std::nullopt, std::nullopt});
  at.push_back({"a", 6, 0.5, 0.5});
  at.push_back({"a", 7, 0.5, 0.5});
  for (const std::uint64_t seed : {5u, 6u}) arm.searches.emplace_back().seed = seed;
  arm.searches[5].largest = 0.01;
  const RateCorrelation found = critical("a");
  EXPECT_EQ(found.arm, "a");
  EXPECT_EQ(found.seeds, 5);
  ASSERT_TRUE(found.rank);
  EXPECT_NEAR(found.rank->rho, 0.8, 1e-12);
  EXPECT_NEAR(found.rank->p, 16.0 / 120, 1e-12);
  EXPECT_EQ(critical("nobody").seeds, 0);
  // The sharper a seed's weights, the less they promise: 2 / sharpness is in the opposite order.
  const RateCorrelation stable = correlation_of(arm, "a", at, &InitialWeights::stable_rate);
  EXPECT_EQ(stable.seeds, 5);
  ASSERT_TRUE(stable.rank);
  EXPECT_NEAR(stable.rank->rho, -0.8, 1e-12);
  EXPECT_NEAR(stable.rank->p, 16.0 / 120, 1e-12);
}

TEST(StableRate, IsTwoOverTheSharpness) {
  EXPECT_EQ((InitialWeights{"a", 0, 0.1, 8.0}.stable_rate()), 0.25);
  EXPECT_FALSE((InitialWeights{"a", 0, 0.1, std::nullopt}.stable_rate()));
}

// The critical rate at the initial weights of a run of the small configuration.
double probed_rate(RunConfig config, std::uint64_t seed) {
  config.seed = seed;
  const Dataset train = load_dataset(config.data).train;
  const Network network = build_network(config, train.shape, train.classes);
  const auto probe = shared_backend().probe(
      network, replica_options(config, network, resolve_schedule(config, {60, 10})),
      shared_backend().load(train), 32);
  return critical_rate(*probe, initial_parameters(network, config.model, config.seed)).value();
}

// What a run of the small configuration logs before its first update.
double logged_sharpness(RunConfig config, std::uint64_t seed) {
  config.seed = seed;
  if (!config.diagnostics.sharpness) config.diagnostics.sharpness = SharpnessConfig{};
  config.diagnostics.sharpness->every = {60, LengthUnit::steps};
  Trainer trainer(config, shared_backend(), load_data(config.data, shared_backend()));
  return trainer.run({}, nullptr).initial_sharpness.value();
}

TEST(FindLr, MeasuresTheInitialWeightsOfEachNetwork) {
  const TemporaryFolder folder;
  const Document document =
      with_overrides(parse_document(std::string(small_run) + searched, "f.yaml"),
                     {parse_override("find_lr.resolution=16"),
                      parse_override("find_lr.arms={a: {}, b: {optimizer.momentum: 0.5}, narrow: "
                                     "{model.init.gain: 0.5}}")});
  RunsListener listener;
  std::int64_t told = 0;
  listener.on_initial_weights = [&](std::int64_t count) { told = count; };
  const FindLrResult result = find_lr(document, shared_backend(), folder / "x", false, listener);
  EXPECT_EQ(told, 4);
  const auto json = nlohmann::json::parse(bytes_of(folder / "x/find_lr.json"));
  const RunConfig base = read_config(document);
  RunConfig narrow = base;
  narrow.model.init_gain = 0.5;
  ASSERT_EQ(json["critical_rates"].size(), 4u);
  for (const std::size_t k : {0u, 1u}) {
    const std::uint64_t seed = k == 0 ? 5 : 2;
    const auto& of_a = json["critical_rates"][2 * k];
    const auto& of_narrow = json["critical_rates"][2 * k + 1];
    EXPECT_EQ(of_a["arm"], "a");
    EXPECT_EQ(of_narrow["arm"], "narrow");
    EXPECT_EQ(of_a["seed"], seed);
    EXPECT_EQ(of_narrow["seed"], seed);
    EXPECT_EQ(of_a["rate"], probed_rate(base, seed));
    EXPECT_EQ(of_narrow["rate"], probed_rate(narrow, seed));
    EXPECT_NE(of_a["rate"], of_narrow["rate"]);
    EXPECT_EQ(of_a["sharpness"], logged_sharpness(base, seed));
    EXPECT_EQ(of_narrow["sharpness"], logged_sharpness(narrow, seed));
    EXPECT_NE(of_a["sharpness"], of_narrow["sharpness"]);
    EXPECT_EQ(result.initial_weights[2 * k].stable_rate(), 2 / of_a["sharpness"].get<double>());
  }
  const char* expected[] = {"a", "a", "narrow"};
  for (std::size_t i = 0; i < 3; ++i) {
    for (const char* rate : {"critical_rate", "two_over_sharpness"}) {
      const auto& of_arm = json["arms"][i][rate];
      EXPECT_EQ(of_arm["arm"], expected[i]);
      EXPECT_TRUE(of_arm["rank_correlation"].is_null());  // two seeds are too few
      EXPECT_TRUE(of_arm["p"].is_null());
      std::int64_t answers = 0;
      for (const Search& s : result.arms[i].searches) answers += s.largest ? 1 : 0;
      EXPECT_EQ(of_arm["n"], answers);
    }
  }
}

// The settings of the first arm of a network apply to all that share it.
TEST(FindLr, MeasuresTheSharpnessAsItsDiagnosticsSay) {
  const TemporaryFolder folder;
  const std::string few = "{every: 60 steps, examples: 40, iterations: 2, tolerance: 1e-6}";
  const Document document = with_settings(
      parse_document(std::string(small_run) + searched, "f.yaml"),
      {"find_lr.resolution=16", "find_lr.seeds=[2]",
       "find_lr.arms={a: {diagnostics.sharpness: " + few + "}, b: {optimizer.momentum: 0.5}}"});
  const FindLrResult result = find_lr(document, shared_backend(), folder / "x", false, {});
  RunConfig config = read_config(parse_document(small_run, "f.yaml"));
  const double by_default = logged_sharpness(config, 2);
  config.diagnostics.sharpness = SharpnessConfig{{60, LengthUnit::steps}, 40, 1e-6, 2};
  ASSERT_EQ(result.initial_weights.size(), 1u);
  EXPECT_EQ(result.initial_weights[0].sharpness, logged_sharpness(config, 2));
  EXPECT_NE(result.initial_weights[0].sharpness, by_default);
  // The runs of that arm measure it too.
  const auto run = folder / "x/a/2" / rate_name(result.arms[0].searches[0].trials[0].rate);
  const auto summary = nlohmann::json::parse(bytes_of(run / "summary.json"));
  EXPECT_EQ(summary["initial_sharpness"], result.initial_weights[0].sharpness.value());
}

TEST(FindLr, LeavesTheSharpnessOutWhereItIsNotWanted) {
  const TemporaryFolder folder;
  const std::string text = std::string(small_run) + searched;
  const Document with = with_settings(parse_document(text, "f.yaml"), {"find_lr.resolution=16"});
  const Document without = with_settings(with, {"find_lr.sharpness=false"});
  auto expected = to_json(find_lr(with, shared_backend(), folder / "with", false, {}));
  for (auto& at : expected["critical_rates"]) {
    EXPECT_TRUE(at["sharpness"].is_number());
    at["sharpness"] = nullptr;
  }
  for (auto& arm : expected["arms"]) {
    EXPECT_EQ(arm["two_over_sharpness"]["n"], arm["critical_rate"]["n"]);
    arm["two_over_sharpness"]["n"] = 0;
  }
  EXPECT_EQ(to_json(find_lr(without, shared_backend(), folder / "without", false, {})), expected);
}

TEST(FindLr, SaysWhatTheRunFoldersSay) {
  const TemporaryFolder folder;
  const auto place = folder / "out";
  const Document document = parse_document(std::string(small_run) + searched, "f.yaml");
  std::vector<std::string> heard;
  RunsListener hearing;
  hearing.on_search = [&](const Arm& arm, const Search& s) {
    heard.push_back(fmt::format("{} {}", arm.name, s.seed));
  };
  const FindLrResult result = find_lr(document, shared_backend(), place, false, hearing);
  EXPECT_THAT(heard, ElementsAre("no-warmup 5", "warmup 5", "no-warmup 2", "warmup 2"));
  EXPECT_FALSE(result.interrupted);
  const auto json = nlohmann::json::parse(bytes_of(place / "find_lr.json"));
  EXPECT_EQ(json.size(), 3u);
  ASSERT_EQ(json["arms"].size(), 2u);
  const char* names[] = {"no-warmup", "warmup"};
  const int seeds[] = {5, 2};
  std::vector<std::vector<double>> largest(2);
  for (int i = 0; i < 2; ++i) {
    const auto& arm = json["arms"][i];
    EXPECT_EQ(arm["name"], names[i]);
    ASSERT_EQ(arm["searches"].size(), 2u);
    for (int k = 0; k < 2; ++k) {
      const auto& search = arm["searches"][k];
      EXPECT_EQ(search["seed"], seeds[k]);
      ASSERT_TRUE(search["largest"].is_number());
      largest[i].push_back(search["largest"]);
      EXPECT_LE(search["smallest_failing"].get<double>(), 2 * search["largest"].get<double>());
      EXPECT_GT(search["smallest_failing"], search["largest"]);
      EXPECT_GE(search["tried"].size(), 4u);
      for (const auto& tried : search["tried"]) {
        const double rate = tried["lr"];
        const auto run = place / names[i] / std::to_string(seeds[k]) / fmt::format("{:.4g}", rate);
        expect_as_in_summary(tried, run);
        const RunConfig config = read_config(load_document(run / "config.yaml"));
        EXPECT_EQ(config.schedule.base_lr, rate);
        EXPECT_EQ(static_cast<int>(config.seed), seeds[k]);
        const bool good = tried["outcome"] == "ok" || tried["outcome"] == "spiked";
        EXPECT_EQ(tried["trained"],
                  good && tried["final_train_loss"].get<double>() < 0.95 * std::log(10.0));
      }
    }
  }
  EXPECT_EQ(json["arms"][0]["overrides"]["schedule.warmup.length"], "0 steps");
  ASSERT_EQ(json["ratios"].size(), 1u);
  const auto& ratio = json["ratios"][0];
  EXPECT_EQ(ratio["arms"], (std::vector<std::string>{"no-warmup", "warmup"}));
  EXPECT_EQ(ratio["n"], 2);
  EXPECT_NEAR(
      ratio["log2_mean"].get<double>(),
      (std::log2(largest[1][0] / largest[0][0]) + std::log2(largest[1][1] / largest[0][1])) / 2,
      1e-12);
  EXPECT_TRUE(ratio["interval"].is_null());  // two seeds are too few
  expect_no_checkpoints(place);

  // The critical rate depends on the seed's initial weights, not on the schedule.
  ASSERT_EQ(json["critical_rates"].size(), 2u);
  for (int k = 0; k < 2; ++k) {
    const RunConfig config = read_config(parse_document(small_run, "f.yaml"));
    EXPECT_EQ(json["critical_rates"][k]["arm"], "no-warmup");
    EXPECT_EQ(json["critical_rates"][k]["seed"], seeds[k]);
    EXPECT_EQ(json["critical_rates"][k]["rate"], probed_rate(config, seeds[k]));
  }

  // Resumed when complete: every run is read.
  const std::string before = bytes_of(place / "find_lr.json");
  Counter counter;
  find_lr(document, shared_backend(), place, true, counter.listener);
  EXPECT_EQ(counter.ran, 0);
  EXPECT_GT(counter.read, 0);
  EXPECT_EQ(bytes_of(place / "find_lr.json"), before);

  // Interrupted before anything has begun.
  Counter none;
  none.stop_after = -1;
  const FindLrResult nothing =
      find_lr(document, shared_backend(), folder / "none", false, none.listener);
  EXPECT_TRUE(nothing.interrupted);
  EXPECT_TRUE(nothing.initial_weights.empty());
  EXPECT_EQ(none.started, 0);

  // Interrupted after four runs, and resumed.
  Counter first;
  first.stop_after = 4;
  EXPECT_TRUE(
      find_lr(document, shared_backend(), folder / "cut", false, first.listener).interrupted);
  const auto cut = nlohmann::json::parse(bytes_of(folder / "cut/find_lr.json"));
  EXPECT_EQ(cut["interrupted"], true);
  EXPECT_TRUE(cut["arms"][0]["searches"].empty());
  EXPECT_TRUE(cut["ratios"][0]["log2_mean"].is_null());
  EXPECT_TRUE(cut["ratios"][0]["interval"].is_null());
  Counter rest;
  find_lr(document, shared_backend(), folder / "cut", true, rest.listener);
  EXPECT_EQ(rest.read, 4);
  EXPECT_EQ(rest.ran + rest.read, counter.read);
  EXPECT_EQ(bytes_of(folder / "cut/find_lr.json"), before);
}

TEST(FindLr, WhatNeverTrainsIsAResult) {
  const TemporaryFolder folder;
  const Document document = with_overrides(
      parse_document(std::string(small_run) + searched, "f.yaml"),
      {parse_override("model.layers=[{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, "
                      "{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, "
                      "{conv: {out: 2}}, {linear: {out: 10}}]"),
       parse_override("model.init.gain=1e6"), parse_override("find_lr.seeds=[2]")});
  const FindLrResult result = find_lr(document, shared_backend(), folder / "x", false, {});
  ASSERT_EQ(result.initial_weights.size(), 1u);
  EXPECT_FALSE(result.initial_weights[0].critical_rate);
  EXPECT_FALSE(result.initial_weights[0].sharpness);
  // The activations overflow whatever the rate, so that one rate is enough.
  const auto json = nlohmann::json::parse(bytes_of(folder / "x/find_lr.json"));
  for (std::size_t i = 0; i < 2; ++i) {
    const Search& search = result.arms[i].searches.at(0);
    EXPECT_FALSE(search.largest);
    EXPECT_TRUE(search.not_finite_at_start);
    ASSERT_EQ(search.trials.size(), 1u);
    EXPECT_EQ(search.trials[0].rate, 0.05);
    EXPECT_THAT(search.trials[0].run.first_non_finite_tensor,
                testing::StartsWith("activation of "));
    EXPECT_EQ(json["arms"][i]["searches"][0]["not_finite_at_start"], true);
  }
  Counter counter;
  EXPECT_EQ(to_json(find_lr(document, shared_backend(), folder / "x", true, counter.listener)),
            to_json(result));
  EXPECT_EQ(counter.ran, 0);
}

TEST(FindLr, ARunIsHeldAgainstTheChanceLossOfItsOwnLoss) {
  const TemporaryFolder folder;
  const Document document =
      with_overrides(parse_document(std::string(small_run) + searched, "f.yaml"),
                     {parse_override("find_lr.seeds=[2]"), parse_override("find_lr.first=0.001"),
                      parse_override("find_lr.loss_below=0.9"),
                      parse_override("find_lr.arms={mse: {loss: mse, model.init.gain: 0.3}}")});
  const FindLrResult result = find_lr(document, shared_backend(), folder / "x", false, {});
  // Predicting a tenth for each of ten classes: half of 0.9^2 + 9 x 0.1^2. Under 0.9 times the
  // chance loss of cross-entropy, 2.1, all finite runs would have trained.
  constexpr double chance = 0.45;
  int trained = 0;
  int slow = 0;
  for (const Trial& trial : result.arms.at(0).searches.at(0).trials) {
    if (is_failure(trial.run.outcome)) continue;
    EXPECT_EQ(trial.trained, *trial.run.final_train_loss < 0.9 * chance) << trial.rate;
    ++(trial.trained ? trained : slow);
  }
  EXPECT_GT(trained, 0);
  EXPECT_GT(slow, 0);
}

// The rates tried, found, in the names of folders and critical are all rates of the updates.
TEST(FindLr, RatesAreThoseOfTheUpdatesUnderAScale) {
  const TemporaryFolder folder;
  const Document plain =
      with_overrides(parse_document(std::string(small_run) + searched, "f.yaml"),
                     {parse_override("find_lr.seeds=[2]"),
                      parse_override("find_lr.arms={a: {schedule.warmup.length: 0 steps}}")});
  const Document scaled =
      with_overrides(plain, {parse_override("schedule.scale={rule: linear, reference_batch: 8}")});
  const FindLrResult result = find_lr(scaled, shared_backend(), folder / "x", false, {});
  for (const Trial& trial : result.arms.at(0).searches.at(0).trials) {
    std::istringstream metrics(bytes_of(folder / "x/a/2" / rate_name(trial.rate) / "metrics.csv"));
    std::string row;
    std::getline(metrics, row);  // step,epoch,phase,lr,...
    std::getline(metrics, row);
    std::istringstream fields(row);
    std::string field;
    for (int i = 0; i < 4; ++i) std::getline(fields, field, ',');
    EXPECT_EQ(std::stof(field), static_cast<float>(trial.rate));
  }
  EXPECT_EQ(to_json(result), to_json(find_lr(plain, shared_backend(), folder / "y", false, {})));
}

TEST(FindLr, NeedsArmsWhereThereIsNoWarmupToSearchWithout) {
  const TemporaryFolder folder;
  const std::string phases =
      "data: {dataset: synthetic}\nschedule: {phases: [{shape: constant, from: base}]}\n";
  try {
    find_lr(parse_document(phases, "f.yaml"), shared_backend(), folder / "x", false, {});
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("f.yaml: find_lr.arms: is missing, and"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "x"));
}

// The initial weights of the seeds are measured before the first search, one by one: for each a
// probe for the critical rate and one for the sharpness, which may be stopped in the middle.
TEST(FindLr, EndsBetweenAndWithinTheInitialWeightsOfTwoSeeds) {
  class Counting : public AtATime {
   public:
    Counting() : AtATime(1) {}
    std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                     std::span<const float> initial,
                                     std::shared_ptr<const ResidentDataset> train) override {
      ++replicas;
      return AtATime::compile(network, options, initial, std::move(train));
    }
    std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                                 std::shared_ptr<const ResidentDataset> data,
                                 std::int64_t examples) override {
      ++probes;
      return AtATime::probe(network, options, std::move(data), examples);
    }
    int replicas = 0;
    int probes = 0;
  };
  const TemporaryFolder folder;
  const Document document = parse_document(std::string(small_run) + searched, "f.yaml");
  const auto stopped = [&](const Document& searches, const char* name, int measured, int probes,
                           int stop_at) {
    SCOPED_TRACE(fmt::format("{} {}", name, measured));
    Counting backend;
    RunsListener listener;
    listener.wants_stop = [&] { return backend.probes >= stop_at; };
    const auto place = folder / fmt::format("{}-{}", name, measured);
    EXPECT_TRUE(find_lr(searches, backend, place, false, listener).interrupted);
    EXPECT_EQ(backend.probes, probes);
    EXPECT_EQ(backend.replicas, 0);
    const auto json = nlohmann::json::parse(bytes_of(place / "find_lr.json"));
    EXPECT_EQ(json["interrupted"], true);
    EXPECT_EQ(static_cast<int>(json["critical_rates"].size()), measured);
  };
  const Document without = with_settings(document, {"find_lr.sharpness=false"});
  for (const int most : {0, 1, 2}) stopped(without, "between", most, most, most);
  for (const int most : {0, 1}) stopped(document, "within", most, 2 * most + 2, 2 * most + 2);
}

// What concurrent probes have taken is there again once they have ended.
// A smoothing of 0.6 leaves 0.815 of ln 10, as a search would find only after all its runs.
TEST(FindLr, ALossThatSmoothedLabelsDoNotAllowIsRefused) {
  const TemporaryFolder folder;
  const auto error_of = [&](const char* loss_below) -> std::string {
    const Document document =
        with_settings(parse_document(std::string(small_run) + searched, "f.yaml"),
                      {"find_lr.arms.warmup.label_smoothing=0.6",
                       std::string("find_lr.loss_below=") + loss_below});
    Counter none;
    none.stop_after = -1;
    try {
      find_lr(document, shared_backend(), folder / loss_below, false, none.listener);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(error_of("0.8"),
              HasSubstr("find_lr.loss_below: no run gets below 0.8 of the loss of chance: "
                        "label_smoothing: 0.6 leaves at least 0.815 of it"));
  EXPECT_FALSE(std::filesystem::exists(folder / "0.8"));
  EXPECT_EQ(error_of("0.82"), "");
}

TEST(FindLr, InitialWeightsWaitForMemory) {
  // Refuses probes with at least so many examples.
  class Refusing : public AtATime {
   public:
    explicit Refusing(int refusals, std::int64_t from = 0)
        : AtATime(2), refusals_(refusals), from_(from) {}
    std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                                 std::shared_ptr<const ResidentDataset> data,
                                 std::int64_t examples) override {
      if (examples >= from_ && refusals_-- > 0) throw OutOfMemory("out of memory: use fewer");
      return AtATime::probe(network, options, std::move(data), examples);
    }

   private:
    std::atomic<int> refusals_;
    const std::int64_t from_;
  };
  const TemporaryFolder folder;
  const Document document = parse_document(std::string(small_run) + searched, "f.yaml");
  const FindLrResult whole = find_lr(document, shared_backend(), folder / "whole", false, {});
  Refusing once(1);
  EXPECT_EQ(to_json(find_lr(document, once, folder / "once", false, {})), to_json(whole));
  Refusing always(1000);
  EXPECT_THROW(find_lr(document, always, folder / "always", false, {}), OutOfMemory);
  // The sharpness takes more memory than the runs, which fit: the error says how to do without.
  constexpr std::int64_t more_than_a_batch = 33;
  Refusing large_once(1, more_than_a_batch);
  EXPECT_EQ(to_json(find_lr(document, large_once, folder / "large-once", false, {})),
            to_json(whole));
  Refusing large(1000, more_than_a_batch);
  try {
    find_lr(document, large, folder / "large", false, {});
    FAIL() << "no error";
  } catch (const OutOfMemory& error) {
    EXPECT_STREQ(error.what(),
                 "the sharpness of the initial weights: out of memory: use fewer, or set "
                 "find_lr.sharpness: false");
  }
  const Document without = with_settings(document, {"find_lr.sharpness=false"});
  EXPECT_EQ(find_lr(without, large, folder / "without", false, {}).arms.size(), 2u);
}

TEST(FindLr, SearchesSideBySideToTheResultsOfOneAfterTheOther) {
  const TemporaryFolder folder;
  const Document document = parse_document(std::string(small_run) + searched, "f.yaml");
  const FindLrResult in_turn = find_lr(document, shared_backend(), folder / "one", false, {});
  // The first runs of two searches meet, and the last two of one, which are of its confirmation.
  const Search& one = in_turn.arms.at(0).searches.at(0);
  ASSERT_EQ(one.seed, 5u);
  ASSERT_GT(one.trials.size(), 2u);
  const double last[] = {one.trials.end()[-2].rate, one.trials.end()[-1].rate};
  for (const double rate : last) ASSERT_LT(rate, *one.largest);
  Meetings backend(3, [&](const ReplicaOptions& options) {
    const bool is_of_it = options.seed == 5 && options.rule.momentum == 0.9f &&
                          std::ranges::count(last, lr_at(options.schedule, 0)) > 0;
    return is_of_it ? "a confirmation" : "two searches";
  });
  int at_once = 0;
  int most = 0;
  std::atomic<int> callbacks{0};  // in progress
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) { most = std::max(most, ++at_once); };
  listener.on_records = [&](const std::string&, std::span<const StepRecord>) {
    EXPECT_EQ(callbacks++, 0);
    --callbacks;
  };
  listener.on_end = [&](const std::string&, const RunResult&, bool) { --at_once; };
  std::multiset<std::string> heard;
  listener.on_search = [&](const Arm& arm, const Search& s) {
    EXPECT_EQ(callbacks++, 0);
    heard.insert(fmt::format("{} {}", arm.name, s.seed));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // other searches have records
    --callbacks;
  };
  const FindLrResult run_concurrently =
      find_lr(document, backend, folder / "many", false, listener);
  EXPECT_THAT(heard, ElementsAre("no-warmup 2", "no-warmup 5", "warmup 2", "warmup 5"));
  EXPECT_TRUE(backend.met("two searches"));
  EXPECT_TRUE(backend.met("a confirmation"));
  EXPECT_LE(most, 3);
  EXPECT_EQ(to_json(run_concurrently), to_json(in_turn));
  EXPECT_EQ(bytes_of(folder / "many/find_lr.json"), bytes_of(folder / "one/find_lr.json"));
}

// Neither does a refusal write anything, nor does a program killed while it resumes lose searches.
TEST(FindLr, ResumedNeverHasFewerSearchesThanBefore) {
  const TemporaryFolder folder;
  const auto place = folder / "out";
  const auto document = [](const char* rate) {
    return parse_document(std::string(small_run) +
                              "find_lr: {seeds: 2, first: 0.1, resolution: "
                              "16, loss_below: 0.95, arms: {a: {}, b: {optimizer.momentum: " +
                              rate + "}}}\n",
                          "f.yaml");
  };
  find_lr(document("0.8"), shared_backend(), place, false, {});
  const std::string config = bytes_of(place / "config.yaml");
  const std::string before = bytes_of(place / "find_lr.json");
  Counter refused;
  try {
    find_lr(document("0.7"), shared_backend(), place, true, refused.listener);
    FAIL() << "no error";
  } catch (const ConfigError& e) {
    EXPECT_THAT(e.what(), testing::ContainsRegex("b/0/[^/]+/config.yaml: the run was made with "
                                                 "'optimizer.momentum: 0.8', this configuration "
                                                 "has 'optimizer.momentum: 0.7'"));
  }
  EXPECT_EQ(refused.read + refused.started, 0);
  EXPECT_EQ(bytes_of(place / "config.yaml"), config);
  EXPECT_EQ(bytes_of(place / "find_lr.json"), before);

  // A run of a search in the middle is missing.
  std::filesystem::remove(place / "b/0/0.1/summary.json");
  Counter counter;
  counter.listener.on_start = [&](const std::string&, const Trainer&) {
    ++counter.started;
    EXPECT_EQ(bytes_of(place / "find_lr.json"), before);
  };
  find_lr(document("0.8"), shared_backend(), place, true, counter.listener);
  EXPECT_EQ(counter.started, 1);
  EXPECT_EQ(bytes_of(place / "find_lr.json"), before);
}

TEST(FindLr, GoesOnAfterAnErrorOrAnInterruptionBesideOtherSearches) {
  const TemporaryFolder folder;
  const Document document = parse_document(std::string(small_run) + searched, "f.yaml");
  const FindLrResult whole = find_lr(document, shared_backend(), folder / "one", false, {});
  AtATime backend(3);
  const auto resumed = [&](const char* name) {
    return to_json(find_lr(document, backend, folder / name, true, {}));
  };

  // In a confirmation: a run beside other runs of its search and beside other searches.
  const std::string rate = rate_name(whole.arms[0].searches[0].trials.back().rate);
  RunsListener failing;
  failing.on_start = [&](const std::string& label, const Trainer& trainer) {
    const bool is_it = trainer.config().seed == 5 && label.find("no-warmup") != std::string::npos &&
                       rate_name(trainer.config().schedule.base_lr) == rate;
    if (is_it) throw Error("the disk is full");
  };
  try {
    find_lr(document, backend, folder / "failed", false, failing);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "the disk is full");
  }
  EXPECT_EQ(resumed("failed"), to_json(whole));

  Counter counter;
  counter.stop_after = 6;
  EXPECT_TRUE(find_lr(document, backend, folder / "cut", false, counter.listener).interrupted);
  EXPECT_EQ(resumed("cut"), to_json(whole));
}

}  // namespace
}  // namespace preheat
