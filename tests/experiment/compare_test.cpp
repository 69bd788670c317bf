#include "experiment/compare.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "config/error.h"
#include "experiment/small_experiment.h"
#include "shared_backend.h"
#include "temporary_folder.h"
#include "train/loss_curve.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* experiment = R"(
name: absurd
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model:
  layers: [{conv: {out: 4}}, {max_pool: {kernel: 4}}, {linear: {out: 10}}]
schedule:
  base_lr: 0.1
  warmup: {length: 4 steps}
  decay: {shape: constant}
train: {length: 80 steps, eval_every: 80 steps}
compare:
  seeds: [3, 11, 4]
  arms:
    absurd: {schedule.base_lr: 1e12, schedule.warmup.length: 0 steps}
    sane: {}
)";

std::set<std::string> keys_of(const nlohmann::json& object) {
  std::set<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.insert(key);
  return keys;
}

std::string error_of(const std::string& text, const std::filesystem::path& folder) {
  try {
    compare(parse_document(text, "f.yaml"), shared_backend(), folder, false, {});
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

// Only runs that have a validation set have its accuracy, and null where they have no end.
TEST(Compare, TellsTheValidationAccuracyOfRunsThatHaveIt) {
  const TemporaryFolder folder;
  compare(parse_document(std::string(experiment) +
                             "    split: {data.validation: 64}\n"
                             "    both: {data.validation: 64, schedule.base_lr: 1e12, "
                             "schedule.warmup.length: 0 steps}\n",
                         "f.yaml"),
          shared_backend(), folder / "c", false, {});
  const auto json = nlohmann::json::parse(bytes_of(folder / "c/compare.json"));
  for (const auto& arm : json.at("arms")) {
    const std::string name = arm.at("name");
    ASSERT_EQ(arm.at("runs").size(), 3u);
    for (const auto& run : arm.at("runs")) {
      const bool validated = name == "split" || name == "both";
      EXPECT_EQ(run.contains("validation_accuracy"), validated) << name;
      if (!validated) continue;
      const std::string seed = std::to_string(run.at("seed").get<int>());
      const auto summary =
          nlohmann::json::parse(bytes_of(folder / "c" / name / seed / "summary.json"));
      EXPECT_EQ(run.at("validation_accuracy"), summary.at("validation_accuracy"));
      EXPECT_EQ(run.at("validation_accuracy").is_null(), name == "both");
    }
  }
}

TEST(Compare, RunsSideBySideToTheResultsOfOneAfterTheOther) {
  const TemporaryFolder folder;
  AtATime one_at_a_time(1);
  std::atomic<int> at_once{0};
  std::atomic<int> most{0};
  std::set<std::string> ended;
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) {
    most = std::max(most.load(), ++at_once);
  };
  listener.on_end = [&](const std::string& label, const RunResult&, bool) {
    --at_once;
    EXPECT_TRUE(ended.insert(label).second) << label;  // no race: one call at a time
  };
  for (const char* threads : {"null", "1"}) {
    const Document document =
        with_overrides(parse_document(experiment, "f.yaml"),
                       {parse_override(fmt::format("train.cpu_threads={}", threads))});
    const auto many = folder / "many" / threads;
    const auto one = folder / "one" / threads;
    most = 0;
    ended.clear();
    Meetings backend(3, [](const ReplicaOptions&) { return "any two"; });
    const auto run_concurrently = compare(document, backend, many, false, listener);
    const auto in_turn = compare(document, one_at_a_time, one, false, {});
    EXPECT_EQ(ended.size(), 6u);
    EXPECT_TRUE(backend.met("any two"));
    EXPECT_LE(most, 3);
    EXPECT_EQ(to_json(run_concurrently), to_json(in_turn));
    EXPECT_EQ(bytes_of(many / "compare.json"), bytes_of(one / "compare.json"));
  }
}

TEST(Compare, AnErrorBesideOtherRunsEndsThemAll) {
  const TemporaryFolder folder;
  AtATime backend(3);
  RunsListener listener;
  listener.on_start = [](const std::string& label, const Trainer&) {
    if (label.find("11") != std::string::npos) throw Error("the disk is full");
  };
  try {
    compare(parse_document(experiment, "f.yaml"), backend, folder / "many", false, listener);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "the disk is full");
  }
  // And it can be resumed.
  const auto result =
      compare(parse_document(experiment, "f.yaml"), backend, folder / "many", true, {});
  EXPECT_FALSE(result.interrupted);
  for (const ArmResult& arm : result.arms) EXPECT_EQ(arm.runs.size(), 3u);
}

TEST(Compare, CountsWhatTheRunFoldersSay) {
  const TemporaryFolder folder;
  std::vector<std::string> started;
  RunsListener listener;
  listener.on_start = [&](const std::string& label, const Trainer& trainer) {
    EXPECT_THAT(label, HasSubstr(std::to_string(trainer.config().seed)));
    started.push_back((label.find("absurd") != std::string::npos ? "absurd" : "sane") +
                      std::to_string(trainer.config().seed));
  };
  int ended = 0;
  listener.on_end = [&](const std::string&, const RunResult&, bool was_read) {
    EXPECT_FALSE(was_read);
    ++ended;
  };
  const auto place = folder / "out";
  const CompareResult result =
      compare(parse_document(experiment, "f.yaml"), shared_backend(), place, false, listener);
  EXPECT_THAT(started,
              testing::ElementsAre("absurd3", "sane3", "absurd11", "sane11", "absurd4", "sane4"));
  EXPECT_EQ(ended, 6);
  EXPECT_FALSE(result.interrupted);

  const auto json = nlohmann::json::parse(bytes_of(place / "compare.json"));
  EXPECT_EQ(keys_of(json), (std::set<std::string>{"arms", "paired"}));
  ASSERT_EQ(json["arms"].size(), 2u);
  const char* names[] = {"absurd", "sane"};
  for (int i = 0; i < 2; ++i) {
    const auto& arm = json["arms"][i];
    EXPECT_EQ(keys_of(arm),
              (std::set<std::string>{"name", "overrides", "n", "failures", "failure_interval",
                                     "first_non_finite", "runs", "budget", "median_losses"}));
    EXPECT_EQ(arm["name"], names[i]);
    EXPECT_EQ(arm["n"], 3);
    ASSERT_EQ(arm["runs"].size(), 3u);
    int failures = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      const auto& run = arm["runs"][k];
      EXPECT_EQ(keys_of(run), (std::set<std::string>{"seed", "outcome", "first_non_finite_step",
                                                     "final_train_loss", "test_accuracy"}));
      EXPECT_EQ(run["seed"], (std::vector<int>{3, 11, 4})[k]);
      const auto run_folder = place / names[i] / std::to_string(run["seed"].get<int>());
      const auto summary = nlohmann::json::parse(bytes_of(run_folder / "summary.json"));
      for (const char* key :
           {"seed", "outcome", "first_non_finite_step", "final_train_loss", "test_accuracy"}) {
        EXPECT_EQ(run[key], summary[key]) << key;
      }
      const std::string outcome = run["outcome"];
      failures += outcome == "non_finite" || outcome == "stuck" ? 1 : 0;
      if (i == 0) {
        EXPECT_EQ(outcome, "non_finite");
        EXPECT_TRUE(run["first_non_finite_step"].is_number_integer());
        EXPECT_LT(run["first_non_finite_step"], 20);
        EXPECT_TRUE(run["test_accuracy"].is_null());
        EXPECT_TRUE(run["final_train_loss"].is_null());
      } else {
        EXPECT_TRUE(run["first_non_finite_step"].is_null());
        EXPECT_TRUE(run["test_accuracy"].is_number());
        EXPECT_TRUE(run["final_train_loss"].is_number());
      }
    }
    EXPECT_EQ(arm["failures"], failures);
    ASSERT_EQ(arm["failure_interval"].size(), 2u);
  }
  EXPECT_EQ(keys_of(json["arms"][0]["overrides"]),
            (std::set<std::string>{"schedule.base_lr", "schedule.warmup.length"}));
  EXPECT_EQ(json["arms"][0]["overrides"]["schedule.warmup.length"], "0 steps");
  EXPECT_EQ(json["arms"][1]["overrides"], nlohmann::json::object());
  // The middle and the ends of the three steps, and none in the other arm.
  std::vector<int> steps;
  for (const auto& run : json["arms"][0]["runs"]) steps.push_back(run["first_non_finite_step"]);
  std::ranges::sort(steps);
  const nlohmann::json first_non_finite = {{"median", steps[1]}, {"range", {steps[0], steps[2]}}};
  EXPECT_EQ(json["arms"][0]["first_non_finite"], first_non_finite);
  EXPECT_TRUE(json["arms"][1]["first_non_finite"].is_null());
  // Three of three failed: [(a/2)^(1/n), 1].
  EXPECT_NEAR(json["arms"][0]["failure_interval"][0].get<double>(), std::cbrt(0.025), 1e-9);
  EXPECT_EQ(json["arms"][0]["failure_interval"][1], 1.0);

  EXPECT_TRUE(json["arms"][0]["median_losses"].is_null());
  std::vector<double> train;
  std::vector<double> gaps;
  for (const char* seed : {"3", "11", "4"}) {
    const auto summary = nlohmann::json::parse(bytes_of(place / "sane" / seed / "summary.json"));
    train.push_back(summary["final_train_loss"]);
    gaps.push_back(summary["test_loss"].get<double>() - train.back());
  }
  std::ranges::sort(train);
  std::ranges::sort(gaps);
  EXPECT_EQ(json["arms"][1]["median_losses"]["final_train"], train[1]);
  EXPECT_NEAR(json["arms"][1]["median_losses"]["test_minus_train"].get<double>(), gaps[1], 1e-12);

  ASSERT_EQ(json["paired"].size(), 1u);
  const auto& paired = json["paired"][0];
  EXPECT_EQ(keys_of(paired),
            (std::set<std::string>{"arms", "n", "only_first_failed", "only_second_failed",
                                   "mcnemar_p", "test_loss_at_matched_training_loss"}));
  EXPECT_EQ(paired["arms"], (std::vector<std::string>{"absurd", "sane"}));
  const int both = json["arms"][1]["failures"];
  EXPECT_EQ(paired["mcnemar_p"], mcnemar_exact(3 - both, 0));
  EXPECT_EQ(both, 0);  // so that p = 2 / 2^3
  EXPECT_EQ(paired["n"], 3);
  EXPECT_EQ(paired["only_first_failed"], 3);
  EXPECT_EQ(paired["only_second_failed"], 0);
  EXPECT_EQ(paired["mcnemar_p"], 0.25);

  // The configuration of every run is complete by itself.
  const RunConfig alone = read_config(load_document(place / "absurd/11/config.yaml"));
  EXPECT_EQ(alone.seed, 11u);
  EXPECT_EQ(alone.schedule.base_lr, 1e12);
  EXPECT_FALSE(alone.compare);
  EXPECT_TRUE(read_config(load_document(place / "config.yaml")).compare);
}

TEST(Compare, AnInterruptedExperimentKeepsWhatWasFinished) {
  const TemporaryFolder folder;
  int ended = 0;
  RunsListener listener;
  listener.on_end = [&](const std::string&, const RunResult&, bool was_read) {
    EXPECT_FALSE(was_read);
    ++ended;
  };
  listener.wants_stop = [&] { return ended == 3; };
  const CompareResult result = compare(parse_document(experiment, "f.yaml"), shared_backend(),
                                       folder / "out", false, listener);
  EXPECT_TRUE(result.interrupted);
  const auto json = nlohmann::json::parse(bytes_of(folder / "out/compare.json"));
  EXPECT_EQ(json["arms"][0]["n"], 2);
  EXPECT_EQ(json["arms"][1]["n"], 1);
  EXPECT_EQ(json["arms"][1]["runs"].size(), 1u);
  EXPECT_EQ(json["paired"][0]["mcnemar_p"], 1.0);  // one pair shows nothing
}

TEST(Compare, NothingFinishedIsNull) {
  CompareResult result;
  result.arms = {{{"a", {}}, {}}, {{"b", {}}, {}}};
  result.budgets.resize(2);
  result.paired = {{"a", "b", 0, 0, 0, 1}};
  const auto json = to_json(result);
  EXPECT_EQ(json["arms"][0]["n"], 0);
  EXPECT_TRUE(json["arms"][0]["failure_interval"].is_null());
  EXPECT_TRUE(json["arms"][0]["first_non_finite"].is_null());
  EXPECT_TRUE(json["arms"][0]["median_losses"].is_null());
  EXPECT_TRUE(json["paired"][0]["mcnemar_p"].is_null());
  EXPECT_TRUE(json["paired"][0]["test_loss_at_matched_training_loss"].is_null());
}

TEST(Compare, TheMedianLossesAreOfTheRunsThatDidNotFail) {
  CompareResult result;
  result.arms.push_back({{"a", {}}, {}});
  result.budgets.resize(1);
  const auto add = [&](Outcome outcome, double train, double test) {
    SeedResult& r = result.arms[0].runs.emplace_back();
    r.run.outcome = outcome;
    r.run.final_train_loss = train;
    r.run.test_loss = test;
  };
  add(Outcome::ok, 0.5, 0.75);
  add(Outcome::stuck, 9, 99);
  add(Outcome::spiked, 0.25, 1.25);
  add(Outcome::ok, 1, 1.125);
  add(Outcome::ok, 0.125, std::numeric_limits<double>::infinity());
  result.arms[0].runs.emplace_back().run.outcome = Outcome::non_finite;
  // Of the gaps 0.25, 1 and 0.125; the difference of the medians would be 0.625.
  const nlohmann::ordered_json expected = {{"final_train", 0.5}, {"test_minus_train", 0.25}};
  EXPECT_EQ(to_json(result)["arms"][0]["median_losses"], expected);
}

// Files of runs, made by hand, of two arms.
class Matched : public testing::Test {
 protected:
  // Each evaluation follows `every` updates of the same loss, which are at least a quarter of all
  // before it.
  void put_run(const std::string& arm, int seed, int every, const std::vector<double>& train,
               const std::vector<double>& test, Outcome outcome = Outcome::ok) {
    ASSERT_LE(train.size(), 4u);
    std::string metrics = std::string(metrics_header) + "\n";
    std::string evaluations = std::string(evaluations_header) + "\n";
    int step = 0;
    for (std::size_t i = 0; i < train.size(); ++i) {
      for (int k = 0; k < every; ++k) {
        metrics += fmt::format("{},0,decay,0.1,{},0.5,1,1,1\n", step++, train[i]);
      }
      evaluations += fmt::format("{},0,{},0.5\n", step, test[i]);
    }
    const auto folder = folder_ / arm / std::to_string(seed);
    std::filesystem::create_directories(folder);
    put_bytes(folder / "metrics.csv", metrics);
    put_bytes(folder / "eval.csv", evaluations);
    SeedResult& r = arms_[arm == "a" ? 0 : 1].runs.emplace_back();
    r.seed = static_cast<std::uint64_t>(seed);
    r.run.outcome = outcome;
  }

  std::optional<MatchedLosses> matched() const {
    const auto found = matched_losses(configs_, arms_, folder_.path());
    EXPECT_EQ(found.size(), 1u);
    return found.at(0);
  }

  TemporaryFolder folder_;
  std::vector<RunConfig> configs_ =
      std::vector<RunConfig>(2, read_config(parse_document("name: x\n", "f.yaml")));
  std::vector<ArmResult> arms_ = {{{"a", {}}, {}}, {{"b", {}}, {}}};
};

TEST_F(Matched, AreTheTestLossesWhereBothRunsOfASeedReachATrainingLoss) {
  EXPECT_FALSE(matched());
  // The first run passes 0.75, the least of the second, between its last two evaluations, with a
  // test loss of 4 - 3 * 0.75; the second has 1.25 there.
  put_run("a", 0, 4, {2, 1, 1.5, 0.5}, {3, 2, 4, 1});
  put_run("b", 0, 9, {1.75, 1.25, 0.75}, {2, 1.5, 1.25});
  ASSERT_TRUE(matched());
  EXPECT_EQ(matched()->n, 1);
  EXPECT_EQ(matched()->mean, 0.5);
  EXPECT_FALSE(matched()->interval);
  // Here the first has 0.75 there, half way from 1 to 0.5. The order of the seeds does not matter.
  put_run("b", 1, 9, {1.75, 1.25, 0.75}, {2, 1.5, 1.25});
  put_run("a", 1, 4, {2, 1, 0.5, 0.25}, {2, 1, 0.5, 0.75});
  ASSERT_TRUE(matched());
  EXPECT_EQ(matched()->n, 2);
  EXPECT_EQ(matched()->mean, 0);
  // Differences of 0.5 and -0.5 have a standard error of 0.5, and with one degree of freedom
  // Student's distribution is Cauchy's, whose quantile is tan(0.475 pi).
  const double half = 0.5 * std::tan(0.475 * std::acos(-1.0));
  ASSERT_TRUE(matched()->interval);
  EXPECT_NEAR(matched()->interval->lo, -half, 1e-7);
  EXPECT_NEAR(matched()->interval->hi, half, 1e-7);
}

TEST_F(Matched, AreOfRunsThatDidNotFailAndOfLossesOfOneKind) {
  const std::vector<double> falling = {2, 1, 0.5};
  put_run("a", 0, 5, falling, {3, 2, 1});
  put_run("b", 0, 5, falling, {3, 2, 1.5});
  put_run("a", 1, 5, falling, {9, 9, 9}, Outcome::stuck);
  put_run("b", 1, 5, falling, {1, 1, 1});
  put_run("a", 2, 5, falling, {9, 9, 9});  // the other has been evaluated twice
  put_run("b", 2, 5, {2, 1}, {1, 1});
  put_run("a", 3, 5, {2, std::nan(""), 0.5}, {9, 9, 9});
  put_run("b", 3, 5, falling, {1, 1, 1});
  put_run("a", 4, 5, falling, {9, 9, 9});  // the other has not ended
  put_run("a", 5, 5, falling, {9, 9, 9});  // or has lost its files
  put_run("b", 5, 5, falling, {1, 1, 1});
  std::filesystem::remove(folder_ / "b/5/metrics.csv");
  ASSERT_TRUE(matched());
  EXPECT_EQ(matched()->n, 1);
  EXPECT_EQ(matched()->mean, -0.5);
  configs_[0].label_smoothing = configs_[1].label_smoothing = 0.1;
  EXPECT_TRUE(matched());
  configs_[1].label_smoothing = 0;
  EXPECT_FALSE(matched());
  configs_[0].label_smoothing = 0;
  configs_[0].loss = Loss::mse;
  EXPECT_FALSE(matched());
  configs_[1].loss = Loss::mse;
  EXPECT_TRUE(matched());
  configs_[1].data.augment.flip = true;
  EXPECT_FALSE(matched());
}

// What was worked out by hand above, from runs that were trained.
TEST(Compare, MatchesTheTrainingLossesOfItsRuns) {
  const TemporaryFolder folder;
  const auto place = folder / "out";
  const Document document = with_overrides(
      parse_document(experiment, "f.yaml"),
      {parse_override("train.eval_every=16 steps"),
       parse_override("compare.arms={sane: {}, absurd: {schedule.base_lr: 1e12, "
                      "schedule.warmup.length: 0 steps}, slow: {schedule.base_lr: 0.05}}")});
  const CompareResult result = compare(document, shared_backend(), place, false, {});
  std::vector<double> differences;
  for (const char* seed : {"3", "11", "4"}) {
    std::vector<LossCurve> curves;
    for (const char* arm : {"sane", "slow"}) {
      const auto run = place / arm / seed;
      curves.push_back(
          loss_curve(read_metrics(run / "metrics.csv"), read_evaluations(run / "eval.csv")));
      EXPECT_EQ(curves.back().step, (std::vector<double>{16, 32, 48, 64, 80}));
      const auto summary = nlohmann::json::parse(bytes_of(run / "summary.json"));
      EXPECT_NEAR(curves.back().train.back(), summary.at("final_train_loss").get<double>(), 1e-6);
      EXPECT_NEAR(curves.back().test.back(), summary.at("test_loss").get<double>(), 1e-6);
    }
    const auto difference = test_loss_difference(curves[0], curves[1]);
    if (difference) differences.push_back(*difference);
  }
  EXPECT_EQ(result.arms.at(0).failures() + result.arms.at(2).failures(), 0);
  const auto json = nlohmann::json::parse(bytes_of(place / "compare.json"));
  EXPECT_EQ(json, nlohmann::json(to_json(result)));
  ASSERT_EQ(json["paired"].size(), 3u);
  for (const auto& pair : json["paired"]) {
    const auto& matched = pair.at("test_loss_at_matched_training_loss");
    if (pair.at("arms") != std::vector<std::string>{"sane", "slow"}) {
      EXPECT_TRUE(matched.is_null()) << pair;  // all runs of the other arm fail
      continue;
    }
    ASSERT_FALSE(differences.empty());
    EXPECT_EQ(matched.at("n"), differences.size());
    EXPECT_NEAR(matched.at("mean_difference").get<double>(), mean(differences), 1e-12);
    ASSERT_EQ(matched.at("interval").is_null(), differences.size() < 2);
    if (differences.size() < 2) continue;
    const Interval interval = paired_t(differences).interval;
    EXPECT_NEAR(matched.at("interval").at(0).get<double>(), interval.lo, 1e-9);
    EXPECT_NEAR(matched.at("interval").at(1).get<double>(), interval.hi, 1e-9);
  }
}

TEST(Compare, TheStepsThatWereNotFiniteHaveAMedianAndARange) {
  ArmResult arm;
  EXPECT_FALSE(arm.non_finite_steps());
  for (const int step : {30, 7, 12, 4}) {
    SeedResult& r = arm.runs.emplace_back();
    r.run.outcome = Outcome::non_finite;
    r.run.first_non_finite_step = step;
  }
  arm.runs.emplace_back().run.outcome = Outcome::stuck;
  const auto steps = arm.non_finite_steps();
  ASSERT_TRUE(steps);
  EXPECT_EQ(steps->median, 9.5);
  EXPECT_EQ(steps->least, 4);
  EXPECT_EQ(steps->largest, 30);
}

TEST(Compare, ABudgetIsWhatIsPlanned) {
  const TemporaryFolder folder;
  const CompareResult result = compare(parse_document(R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model: {layers: [linear: {out: 10}]}
schedule: {base_lr: 0.1, warmup: {length: 4 steps}, decay: {shape: constant}}
train: {length: 20 steps, eval_every: 20 steps}
compare:
  seeds: 1
  arms:
    whole: {}
    short: {train.length: 10 steps, train.eval_every: 10 steps, data.micro_batch: 8}
    small-batch: {data.batch_size: 16}
    gate: {schedule.warmup.until: {train_error_below: 1, window: 2 steps}}
    auto: {schedule.warmup.start_lr: auto}
)",
                                                      "f.yaml"),
                                       shared_backend(), folder / "x", false, {});
  ASSERT_EQ(result.budgets.size(), 5u);
  const auto json = nlohmann::json::parse(bytes_of(folder / "x/compare.json"));
  const auto expect_budget = [&](std::size_t arm, int updates, int batch_size,
                                 std::optional<double> sum) {
    SCOPED_TRACE(result.arms[arm].arm.name);
    const auto& budget = json["arms"][arm]["budget"];
    EXPECT_EQ(budget["updates"], updates);
    EXPECT_EQ(budget["batch_size"], batch_size);
    EXPECT_EQ(budget["micro_batch"], arm == 1 ? 8 : batch_size);
    ASSERT_EQ(budget["sum_of_rates"].is_number(), sum.has_value());
    if (sum) {
      EXPECT_NEAR(budget["sum_of_rates"].get<double>(), *sum, 1e-12);
    }
  };
  // A ramp of 0.025, 0.05, 0.075 and 0.1, then 0.1 at each of the other updates.
  expect_budget(0, 20, 32, 0.25 + 1.6);
  expect_budget(1, 10, 32, 0.25 + 0.6);
  expect_budget(2, 20, 16, 0.25 + 1.6);
  // Their rates depend on the run.
  expect_budget(3, 20, 32, std::nullopt);
  expect_budget(4, 20, 32, std::nullopt);
  for (std::size_t arm = 0; arm < 5; ++arm) {
    const bool is_as_long = arm != 1 && arm != 2;
    EXPECT_EQ(are_as_long(result.budgets[0], result.budgets[arm]), is_as_long) << arm;
  }
}

TEST(Compare, WrongExperiments) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of("name: x\n", folder / "a"),
              AllOf(testing::StartsWith("f.yaml"), HasSubstr("compare"), HasSubstr("is missing")));
  EXPECT_THAT(
      error_of("compare:\n  seeds: 2\n  arms:\n    fast: {schedule.base_lrr: 1}\n", folder / "b"),
      AllOf(testing::StartsWith("f.yaml:4:"), HasSubstr("schedule.base_lrr"),
            HasSubstr("base_lr?")));
  EXPECT_FALSE(std::filesystem::exists(folder / "a"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
  put_bytes(folder / "precious", "x");
  EXPECT_THROW(
      compare(parse_document(experiment, "f.yaml"), shared_backend(), folder.path(), false, {}),
      Error);
}

// An arm for which no start can be found fails, beside one that trains.
TEST(Compare, AnArmWithoutAFiniteGradientIsAFailureOfItsOwn) {
  const TemporaryFolder folder;
  const CompareResult result = compare(
      parse_document("data: {dataset: synthetic, batch_size: 32, train_limit: 320}\n"
                     "model: {layers: [linear: {out: 10}, linear: {out: 10}, linear: {out: 10}, "
                     "linear: {out: 10}, linear: {out: 10}, linear: {out: 10}, linear: {out: 10}, "
                     "linear: {out: 10}]}\n"
                     "schedule: {base_lr: 1e-5, warmup: {length: 4 steps, start_lr: auto}}\n"
                     "train: {length: 10 steps, eval_every: 10 steps}\n"
                     "compare: {seeds: 2, arms: {a: {}, wide: {model.init.gain: 1e6}}}\n",
                     "f.yaml"),
      shared_backend(), folder / "x", false, {});
  for (const SeedResult& r : result.arms.at(0).runs) EXPECT_FALSE(r.run.first_non_finite_step);
  ASSERT_EQ(result.arms.at(1).runs.size(), 2u);
  for (const SeedResult& r : result.arms.at(1).runs) EXPECT_EQ(r.run.first_non_finite_step, 0);
}

TEST(Compare, OverridesKeepTheirKinds) {
  CompareResult result;
  Arm arm{"arm", {}};
  for (const char* change :
       {"a=.5", "b=0.", "c=+1e-4", "d=12", "e=true", "f='7'", "g=3 epochs", "h=[1, 2]", "i=null"}) {
    arm.overrides.push_back(parse_override(change));
  }
  result.arms.push_back({arm, {}});
  result.budgets.emplace_back();
  const nlohmann::ordered_json expected = {{"a", 0.5},        {"b", 0.0},      {"c", 1e-4},
                                           {"d", 12},         {"e", true},     {"f", "7"},
                                           {"g", "3 epochs"}, {"h", "[1, 2]"}, {"i", nullptr}};
  const auto overrides = to_json(result)["arms"][0]["overrides"];
  EXPECT_EQ(overrides, expected);
  EXPECT_TRUE(overrides["d"].is_number_integer());
}

}  // namespace
}  // namespace preheat
