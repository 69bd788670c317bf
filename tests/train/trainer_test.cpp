#include "train/trainer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "config/error.h"
#include "data/epoch_order.h"
#include "same_state.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/small_run.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Trainer, LearnsTheSyntheticSet) {
  const RunConfig config =
      config_of({"data.train_limit=null", "train.length=200 steps", "train.eval_every=1 epochs"});
  Trainer trainer = trainer_of(config);
  double first = 0;
  std::vector<std::int64_t> evaluated;
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> r) {
    if (r.front().step == 0) first = r.front().loss;
  };
  listener.on_evaluation = [&](std::int64_t step, const Evaluated& e) {
    evaluated.push_back(step);
    EXPECT_EQ(e.test.examples, 1024);
    EXPECT_FALSE(e.validation);
  };
  const RunResult result = trainer.run(listener, nullptr);
  EXPECT_EQ(result.outcome, Outcome::ok);
  EXPECT_EQ(result.steps, 200);
  EXPECT_GT(first, 1.5);
  EXPECT_LT(*result.final_train_loss, first / 2);
  EXPECT_GT(*result.test_accuracy, 0.6);  // chance is 0.1
  EXPECT_GE(*result.best_test_accuracy, *result.test_accuracy);
  EXPECT_THAT(evaluated, testing::ElementsAre(128, 200));
}

TEST(Trainer, RecordsTheRateOfEveryUpdate) {
  const TemporaryFolder folder;
  const RunConfig config = config_of();
  run_into(folder / "run", config);
  const Schedule schedule = resolve_schedule(config, {30, 10});
  const auto rows = rows_of(folder / "run/metrics.csv");
  ASSERT_EQ(rows.size(), 31u);
  EXPECT_EQ(fmt::format("{}", fmt::join(rows[0], ",")),
            "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm");
  for (std::int64_t k = 0; k < 30; ++k) {
    const auto& row = rows[k + 1];
    ASSERT_EQ(row.size(), 9u);
    EXPECT_EQ(row[0], std::to_string(k));
    EXPECT_EQ(row[1], std::to_string(k / 10));
    EXPECT_EQ(row[2], k < 8 ? "warmup" : "decay");
    EXPECT_EQ(std::strtof(row[3].c_str(), nullptr), static_cast<float>(lr_at(schedule.lr, k))) << k;
    EXPECT_GT(std::stod(row[6]), 0.0);
    EXPECT_GT(std::stod(row[7]), 0.0);
  }
  const auto evaluations = rows_of(folder / "run/eval.csv");
  ASSERT_EQ(evaluations.size(), 3u);
  EXPECT_EQ(fmt::format("{}", fmt::join(evaluations[0], ",")),
            "step,epoch,test_loss,test_accuracy");
  EXPECT_EQ(evaluations[2][0], "30");
  EXPECT_EQ(evaluations[1][1], "1");
}

TEST(Trainer, TheFolderHoldsWhatTheContractSays) {
  const TemporaryFolder folder;
  const RunResult result = run_into(folder / "run", config_of());
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder / "run")) {
    names.insert(entry.path().lexically_relative(folder / "run").string());
  }
  EXPECT_THAT(names,
              testing::ElementsAre("checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
                                   "config.yaml", "eval.csv", "metrics.csv", "summary.json"));
  const auto summary = nlohmann::json::parse(bytes_of(folder / "run/summary.json"));
  EXPECT_EQ(summary.at("outcome"), to_string(result.outcome));
  EXPECT_TRUE(summary.at("first_non_finite_step").is_null());
  EXPECT_EQ(summary.at("steps"), 30);
  EXPECT_EQ(summary.at("interrupted"), false);
  EXPECT_EQ(summary.at("test_accuracy"), *result.test_accuracy);
  EXPECT_GT(summary.at("wall_seconds").get<double>(), 0.0);
  EXPECT_GT(summary.at("images_per_second").get<double>(), 0.0);
  for (const char* key : {"device", "library", "backend", "preheat", "first_non_finite_tensor"}) {
    EXPECT_TRUE(summary.contains(key)) << key;
  }
}

// At a rate that changes no weight all evaluations are equal, and the first is the best, also of a
// resumed run.
TEST(Trainer, OfEquallyGoodEvaluationsTheFirstIsTheBest) {
  const TemporaryFolder folder;
  const RunConfig config =
      config_of({"schedule.base_lr=1e-30", "train.eval_every=5 steps", "train.length=20 steps",
                 "schedule.warmup.length=0 steps", "model.layers.2.conv.batch_norm=false"});
  ASSERT_TRUE(run_until(12, folder / "run", config).interrupted);
  const RunResult result = resume_in(folder / "run", config);
  EXPECT_EQ(result.best_test_accuracy, result.test_accuracy);
  EXPECT_EQ(result.best_step, 5);
  EXPECT_EQ(read_checkpoint(folder / "run/checkpoints/best.ckpt").state.step.step, 5);
  EXPECT_EQ(run_into(folder / "whole", config).best_step, 5);
}

TEST(Trainer, TheSameSeedGivesTheSameBits) {
  const TemporaryFolder folder;
  run_into(folder / "a", config_of(augmented));
  run_into(folder / "b", config_of(augmented));
  expect_same_run(folder / "a", folder / "b");
  auto other = augmented;
  other.push_back("seed=1");
  run_into(folder / "c", config_of(other));
  EXPECT_NE(bytes_of(folder / "a/metrics.csv"), bytes_of(folder / "c/metrics.csv"));
  EXPECT_NE(bytes_of(folder / "a/checkpoints/last.ckpt"),
            bytes_of(folder / "c/checkpoints/last.ckpt"));
}

// Each option of this replica is set by hand, so none can get lost between configuration and run.
TEST(Trainer, ARunIsItsReplicaDrivenByHand) {
  const TemporaryFolder folder;
  std::vector<std::string> settings = augmented;
  settings.insert(settings.end(), {"seed=5", "data.normalize={mean: [0.25], std: [0.5]}"});
  const RunConfig config = config_of(settings);
  run_into(folder / "run", config);

  const Dataset images = load_dataset(config.data).train;
  const Network network = build_network(config, images.shape, images.classes);
  ReplicaOptions options;
  options.batch_size = 32;
  options.normalize = {{0.25}, {0.5}};
  options.augment = {2, true};
  options.rule = {0.9f, false, false, false};
  for (const Parameter& p : network.parameters) {
    options.parameters.push_back({1, p.decayed ? 1e-3f : 0});
  }
  options.stages = {{0, std::vector<bool>(network.parameters.size(), true)}};
  options.schedule = resolve_schedule(config, {30, 10}).lr;
  options.seed = 5;
  const auto replica =
      shared_backend().compile(network, options, initial_parameters(network, config.model, 5),
                               shared_backend().load(images));
  for (std::uint32_t epoch = 0; epoch < 3; ++epoch) {
    replica->set_epoch_order(epoch_order(5, epoch, 335));
    replica->train(10);
  }
  EXPECT_TRUE(same(replica->save(), read_checkpoint(folder / "run/checkpoints/last.ckpt").state));
}

TEST(Trainer, TheResolvedConfigurationGivesTheSameRun) {
  const TemporaryFolder folder;
  run_into(folder / "a", config_of({"optimizer.nesterov=true", "seed=7", "label_smoothing=0.1"}));
  run_into(folder / "b", read_config(load_document(folder / "a/config.yaml")));
  expect_same_run(folder / "a", folder / "b");
}

class Resume : public testing::TestWithParam<bool> {
 protected:
  Resume() { run_into(folder_ / "whole", config_); }

  TemporaryFolder folder_;
  const RunConfig config_ = config_of(GetParam() ? augmented : std::vector<std::string>{});
};
INSTANTIATE_TEST_SUITE_P(Trainer, Resume, testing::Bool(),
                         [](const auto& test) { return test.param ? "Augmented" : "Plain"; });

TEST_P(Resume, AfterAnInterruptGivesTheSameBits) {
  for (const std::int64_t stop : {1, 10, 17}) {  // the first update, an epoch's end, mid-epoch
    SCOPED_TRACE(stop);
    const auto path = folder_ / fmt::format("cut-{}", stop);
    const RunResult cut = run_until(stop, path, config_);
    EXPECT_TRUE(cut.interrupted);
    EXPECT_GE(cut.steps, stop);
    ASSERT_LT(cut.steps, 30);
    const auto summary = nlohmann::json::parse(bytes_of(path / "summary.json"));
    EXPECT_EQ(summary.at("interrupted"), true);
    EXPECT_TRUE(summary.at("outcome").is_null());
    const RunResult rest = resume_in(path, config_);
    EXPECT_FALSE(rest.interrupted);
    EXPECT_EQ(rest.steps, 30);
    expect_same_run(folder_ / "whole", path);
  }
}

// A crash leaves rows that no checkpoint covers, and perhaps half a row or half a file.
TEST_P(Resume, AfterACrashGivesTheSameBits) {
  const auto path = folder_ / "crashed";
  crash_after(18, path, config_);
  EXPECT_EQ(read_checkpoint(path / "checkpoints/last.ckpt").state.step.step, 12);
  EXPECT_GT(rows_of(path / "metrics.csv").size(), 19u);
  std::ofstream(path / "metrics.csv", std::ios::app) << "27,2,dec";
  std::ofstream(path / "eval.csv", std::ios::app) << "30,3,0.1,0.9\n30,";
  put_bytes(path / "checkpoints/last.ckpt.1.tmp", "half");
  resume_in(path, config_);
  EXPECT_FALSE(std::filesystem::exists(path / "checkpoints/last.ckpt.1.tmp"));
  expect_same_run(folder_ / "whole", path);
}

// As after an interrupt: the evaluation that is due at update 15 is not left out.
TEST_P(Resume, AfterAListenerThatThrowsGivesTheSameBits) {
  for (const std::int64_t last : {14, 16}) {
    const auto path = folder_ / fmt::format("thrown-{}", last);
    int calls_after = 0;
    RunListener listener;
    listener.on_records = [&](std::span<const StepRecord> r) {
      if (calls_after > 0) ++calls_after;
      if (r.back().step < last) return;
      ++calls_after;
      throw std::runtime_error("the disk is full");
    };
    listener.on_evaluation = [&](std::int64_t step, const Evaluated&) { EXPECT_LE(step, last); };
    try {
      run_into(path, config_, listener);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "the disk is full");
    }
    EXPECT_EQ(calls_after, 1);
    const auto summary = nlohmann::json::parse(bytes_of(path / "summary.json"));
    EXPECT_EQ(summary.at("interrupted"), true);
    const std::int64_t steps = summary.at("steps");
    EXPECT_EQ(read_checkpoint(path / "checkpoints/last.ckpt").state.step.step, steps);
    EXPECT_GT(steps, last);
    EXPECT_LT(steps, 30);
    resume_in(path, config_);
    expect_same_run(folder_ / "whole", path);
  }
}

TEST_P(Resume, AFinishedRunStaysAsItIs) {
  const auto path = folder_ / "again";
  copy_folder(folder_ / "whole", path);
  const RunResult result = resume_in(path, config_);
  EXPECT_EQ(result.steps, 30);
  expect_same_run(folder_ / "whole", path);
}

class WrongResume : public testing::Test {
 protected:
  WrongResume() { run_until(10, path_, config_of()); }
  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "run";
};

// A run that is killed after it was resumed has not ended.
TEST_F(WrongResume, OnlyWhatGoesOnLosesItsSummary) {
  const std::string summary = bytes_of(path_ / "summary.json");
  const std::string metrics = bytes_of(path_ / "metrics.csv");
  put_bytes(path_ / "metrics.csv", metrics.substr(0, metrics.size() / 2));
  EXPECT_NE(resume_error(path_, config_of()), "");
  put_bytes(path_ / "metrics.csv", metrics);
  EXPECT_NE(resume_error(path_, config_of({"seed=3"})), "");
  EXPECT_EQ(bytes_of(path_ / "summary.json"), summary);
  EXPECT_EQ(resume_error(path_, config_of()), "");
  EXPECT_FALSE(std::filesystem::exists(path_ / "summary.json"));
  EXPECT_EQ(resume_in(path_, config_of()).steps, 30);
  EXPECT_TRUE(std::filesystem::exists(path_ / "summary.json"));
}

TEST_F(WrongResume, ACheckpointOfAnotherNetworkThanTheFoldersNamesTheTensor) {
  const auto error_with = [&](const char* change) {
    const RunConfig config = config_of({change});
    put_bytes(path_ / "config.yaml", write_config(config));
    return resume_error(path_, config);
  };
  EXPECT_THAT(
      error_with("model.layers.0.conv.out=5"),
      AllOf(HasSubstr("last.ckpt: belongs to another network: "), HasSubstr("0.conv.weight")));
  EXPECT_THAT(error_with("model.layers.2.conv.batch_norm=false"), HasSubstr("2."));
  EXPECT_THAT(error_with("model.layers.3={linear: {out: 10}, name: head}"),
              HasSubstr("linear.weight"));
}

TEST_F(WrongResume, AnotherConfigurationNamesTheLine) {
  EXPECT_THAT(resume_error(path_, config_of({"schedule.base_lr=0.06"})),
              AllOf(HasSubstr("config.yaml: the run was made with 'schedule.base_lr: 0.05'"),
                    HasSubstr("this configuration has 'schedule.base_lr: 0.06'")));
  EXPECT_THAT(resume_error(path_, config_of({"seed=3"})), HasSubstr("'seed: 0'"));
  EXPECT_THAT(resume_error(path_, config_of({"train.length=80 steps"})),
              HasSubstr("'train.length: 30 steps'"));
  EXPECT_THAT(resume_error(path_, config_of({"optimizer.momentum=0.8"})),
              HasSubstr("'optimizer.momentum: 0.8'"));
  EXPECT_THAT(resume_error(path_, config_of({"model.layers.0.conv.out=5"})),
              HasSubstr("this configuration has 'model.layers.0.conv.out: 5'"));
  EXPECT_EQ(resume_error(path_, config_of({"name=other", "train.eval_every=7 steps",
                                           "train.checkpoint_every=null"})),
            "");
}

TEST_F(WrongResume, DamagedFilesAreNamed) {
  const auto checkpoint = path_ / "checkpoints/last.ckpt";
  const std::string good = bytes_of(checkpoint);
  put_bytes(checkpoint, good.substr(0, good.size() / 2));
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("last.ckpt: is damaged"));
  std::filesystem::remove(checkpoint);
  EXPECT_THAT(resume_error(path_, config_of()),
              AllOf(HasSubstr("last.ckpt: No such file: "), HasSubstr("begin it again")));
  EXPECT_THAT(resume_error(folder_ / "nowhere", config_of()), HasSubstr("nowhere"));
  put_bytes(checkpoint, good);

  const std::string metrics = bytes_of(path_ / "metrics.csv");
  put_bytes(path_ / "metrics.csv", metrics.substr(0, metrics.size() / 2));
  EXPECT_THAT(resume_error(path_, config_of()), AllOf(HasSubstr("metrics.csv"), HasSubstr("rows")));
  put_bytes(path_ / "metrics.csv", metrics.substr(10));
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("metrics.csv: has no header"));
  std::string torn = metrics;
  torn.replace(torn.find("\n5,") + 1, 2, "6,");
  put_bytes(path_ / "metrics.csv", torn);
  EXPECT_THAT(resume_error(path_, config_of()),
              HasSubstr("metrics.csv: has rows missing or out of"));
  torn[torn.find("\n6,") + 2] = ';';
  put_bytes(path_ / "metrics.csv", torn);
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("metrics.csv:7: is damaged"));
  torn = metrics;
  torn[torn.find("0.", torn.find("\n5,"))] = 'O';  // a letter in place of the number's 0
  put_bytes(path_ / "metrics.csv", torn);
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("metrics.csv:7: is damaged"));
  put_bytes(path_ / "metrics.csv", metrics);
  EXPECT_EQ(resume_error(path_, config_of()), "");
  const FolderLock lock(path_);
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("another preheat process is using it"));
}

// The next resume, without a configuration of its own, evaluates as often as this one.
TEST_F(WrongResume, TheFolderTakesKeysThatChangeNoNumbers) {
  const RunConfig now = config_of({"train.eval_every=7 steps", "diagnostics.layers_every=9 steps"});
  EXPECT_NE(resume_error(path_, config_of({"train.eval_every=7 steps", "seed=3"})), "");
  EXPECT_EQ(bytes_of(path_ / "config.yaml"), write_config(config_of()));
  EXPECT_EQ(resume_error(path_, now), "");
  EXPECT_EQ(bytes_of(path_ / "config.yaml"), write_config(now));
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.insert(entry.path().filename());
  }
  EXPECT_THAT(names, testing::ElementsAre("checkpoints", "config.yaml", "eval.csv", "metrics.csv"));
  resume_in(path_, config_in(path_));
  std::vector<std::string> evaluated;
  for (const auto& row : rows_of(path_ / "eval.csv")) evaluated.push_back(row[0]);
  EXPECT_THAT(evaluated, testing::IsSupersetOf({"14", "21", "28", "30"}));
  EXPECT_TRUE(std::filesystem::exists(path_ / "layers.csv"));
}

// Rows that no checkpoint covers are dropped, whatever is left of them.
TEST_F(WrongResume, DamageBehindTheCheckpointIsNoObstacle) {
  run_into(folder_ / "whole", config_of());
  std::ofstream(path_ / "metrics.csv", std::ios::app) << "?,1,decay\n29,2,decay,1,1,1,1,1,1\n";
  resume_in(path_, config_of());
  expect_same_run(folder_ / "whole", path_);
}

// Another process may be writing what is read.
TEST_F(WrongResume, AFolderInUseIsNotReadAtAll) {
  const FolderLock lock(path_);
  put_bytes(path_ / "checkpoints/last.ckpt", "half of a file");
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("another preheat process is using it"));
}

// The learning rates in a folder's rows; the shortest text of a float reads back to its bits.
std::vector<float> rates_of(const std::filesystem::path& path) {
  std::vector<float> rates;
  for (const auto& row : rows_of(path / "metrics.csv")) {
    if (row[0] != "step") rates.push_back(std::strtof(row[3].c_str(), nullptr));
  }
  return rates;
}

std::vector<std::string> column_of(const std::filesystem::path& path, std::size_t column) {
  std::vector<std::string> values;
  for (const auto& row : rows_of(path / "metrics.csv")) values.push_back(row.at(column));
  values.erase(values.begin());  // the header
  return values;
}

const std::vector<float>& weights_of(const Checkpoint& checkpoint, const std::string& name) {
  for (const NamedTensor& t : checkpoint.state.parameters) {
    if (t.name == name) return t.values;
  }
  throw std::logic_error("no parameter " + name);
}

TEST(TrainerStages, TrainWhatTheySayAndResumeToTheSameBits) {
  const TemporaryFolder folder;
  const std::string stages =
      "train.stages=[{length: 5 steps, train_only: ['3.*'], frozen_batch_norm: fixed}, "
      "{length: 13 steps, train_only: ['*conv*'], velocity: fresh}, {}]";
  const RunConfig config = config_of({stages, "train.checkpoint_every=1 steps"});
  run_into(folder / "whole", config);
  // In this run nothing else is due where the stages end.
  run_into(folder / "unwatched",
           config_of({stages, "train.checkpoint_every=null", "train.eval_every=30 steps"}));
  EXPECT_EQ(bytes_of(folder / "unwatched/metrics.csv"), bytes_of(folder / "whole/metrics.csv"));
  const Schedule schedule = resolve_schedule(config_of(), {30, 10});
  const std::vector<float> rates = rates_of(folder / "whole");
  ASSERT_EQ(rates.size(), 30u);
  for (std::int64_t k = 0; k < 30; ++k) {
    EXPECT_EQ(rates[k], static_cast<float>(lr_at(schedule.lr, k))) << k;
  }
  std::map<std::int64_t, Checkpoint> at;
  for (const std::int64_t stop : {1, 5, 11, 18, 19}) {
    SCOPED_TRACE(stop);
    const auto path = folder / fmt::format("cut-{}", stop);
    const RunResult cut = run_until(stop, path, config);
    ASSERT_EQ(cut.steps, stop);
    at[stop] = read_checkpoint(path / "checkpoints/last.ckpt");
    resume_in(path, config);
    expect_same_run(folder / "whole", path);
  }
  const auto moved = [&](const std::string& name, std::int64_t from, std::int64_t to) {
    return weights_of(at.at(from), name) != weights_of(at.at(to), name);
  };
  EXPECT_FALSE(moved("0.conv.weight", 1, 5));
  EXPECT_TRUE(moved("3.linear.weight", 1, 5));
  EXPECT_TRUE(moved("0.conv.weight", 5, 18));
  EXPECT_FALSE(moved("3.linear.weight", 5, 18));
  EXPECT_FALSE(moved("2.batch_norm.weight", 5, 18));
  EXPECT_TRUE(moved("3.linear.weight", 18, 19));
  EXPECT_TRUE(moved("2.batch_norm.weight", 18, 19));
  EXPECT_EQ(at.at(1).state.statistics[0].values, at.at(5).state.statistics[0].values);
  EXPECT_NE(at.at(5).state.statistics[0].values, at.at(11).state.statistics[0].values);
}

constexpr std::int64_t gate_window = 7;
constexpr double gate_error = 0.7;

RunConfig gated(const std::vector<std::string>& more = {}) {
  std::vector<std::string> settings = {
      "train.length=80 steps", "train.checkpoint_every=3 steps", "schedule.warmup.length=70 steps",
      fmt::format("schedule.warmup.until={{train_error_below: {}, window: {} steps}}", gate_error,
                  gate_window)};
  settings.insert(settings.end(), more.begin(), more.end());
  return config_of(settings);
}

// The update before which the gate of a run opened, according to its rows: the first that follows a
// full window of updates with an error below the bound.
std::int64_t opening_of(const std::filesystem::path& path) {
  std::vector<double> accuracy;
  for (const std::string& value : column_of(path, 5)) accuracy.push_back(std::stod(value));
  for (std::size_t u = gate_window; u < accuracy.size(); ++u) {
    double hits = 0;
    for (std::size_t k = u - gate_window; k < u; ++k) hits += std::round(accuracy[k] * 32);
    if (1 - hits / (gate_window * 32) < gate_error) return static_cast<std::int64_t>(u);
  }
  return -1;
}

class GatedRun : public testing::Test {
 protected:
  GatedRun() {
    result_ = run_into(folder_ / "whole", gated());
    opened_ = opening_of(folder_ / "whole");
  }
  void SetUp() override {
    ASSERT_GT(opened_, gate_window + 5) << "too early to tell";
    ASSERT_LT(opened_, 65) << "too late to tell";
  }
  // From update `step` on those of the schedule of `now`, whose gate opened at `opened`.
  static void expect_rates_from(std::int64_t step, const std::filesystem::path& path,
                                const RunConfig& now, std::int64_t opened) {
    const Schedule schedule = resolve_schedule(now, {80, 10});
    const auto rates = rates_of(path);
    ASSERT_EQ(rates.size(), 80u);
    for (std::int64_t k = step; k < 80; ++k) {
      EXPECT_EQ(rates[k], static_cast<float>(lr_at(schedule.lr, k, opened))) << k;
    }
  }
  TemporaryFolder folder_;
  RunResult result_;
  std::int64_t opened_ = 0;
};

TEST_F(GatedRun, EndsItsWarmupWhereTheHitsSayAndTellsOfIt) {
  EXPECT_EQ(result_.gate_opened_at, opened_);
  const auto summary = nlohmann::json::parse(bytes_of(folder_ / "whole/summary.json"));
  EXPECT_EQ(summary.at("gate_opened_at"), opened_);
  const Schedule schedule = resolve_schedule(gated(), {80, 10});
  const auto phases = column_of(folder_ / "whole", 2);
  const auto rates = rates_of(folder_ / "whole");
  ASSERT_EQ(rates.size(), 80u);
  for (std::int64_t k = 0; k < 80; ++k) {
    EXPECT_EQ(phases[k], k < opened_ ? "warmup" : "decay") << k;
    EXPECT_EQ(rates[k], static_cast<float>(lr_at(schedule.lr, k, k < opened_ ? -1 : opened_))) << k;
  }
  // The decay begins at the base rate, which the warmup had not reached.
  EXPECT_GT(rates[opened_], 0.049f);
  EXPECT_LT(rates[opened_ - 1], 0.048f);
}

TEST_F(GatedRun, ResumedInTheMidstOfTheWindowOpensAtTheSameUpdate) {
  for (const std::int64_t stop : {std::int64_t{3}, opened_ - 4, opened_, opened_ + 3}) {
    SCOPED_TRACE(stop);
    const auto path = folder_ / fmt::format("cut-{}", stop);
    ASSERT_LT(run_until(stop, path, gated()).steps, stop + 3);
    const RunResult rest = resume_in(path, gated());
    EXPECT_EQ(rest.gate_opened_at, opened_);
    expect_same_run(folder_ / "whole", path);
  }
}

TEST_F(GatedRun, WithoutCheckpointsTellsOfAGateThatTheLastUpdateOpened) {
  const RunConfig config = gated({"train.checkpoint_every=1 steps"});
  Trainer trainer = trainer_of(config);
  RunFolder folder(folder_ / "dropped", config, Checkpoints::drop);
  const StopAfter stopper(opened_);
  const RunResult result = trainer.run(stopper.listener, &folder);
  EXPECT_EQ(result.steps, opened_);
  EXPECT_EQ(result.gate_opened_at, opened_);
}

TEST_F(GatedRun, ThatIsNeverGoodEnoughWarmsUpAsPlanned) {
  const RunResult result =
      run_into(folder_ / "shut", gated({"schedule.warmup.until.train_error_below=1e-6"}));
  EXPECT_FALSE(result.gate_opened_at);
  EXPECT_TRUE(nlohmann::json::parse(bytes_of(folder_ / "shut/summary.json"))
                  .at("gate_opened_at")
                  .is_null());
  run_into(folder_ / "plain", gated({"schedule.warmup.until=null"}));
  EXPECT_EQ(bytes_of(folder_ / "shut/metrics.csv"), bytes_of(folder_ / "plain/metrics.csv"));
  EXPECT_EQ(column_of(folder_ / "shut", 2)[70], "decay");
}

// A run that was interrupted under one schedule, and another schedule for the rest of it.
class NewSchedule : public testing::Test {
 protected:
  NewSchedule() { step_ = run_until(10, path_, before_).steps; }
  void SetUp() override {
    ASSERT_GE(step_, 10);
    ASSERT_LT(step_, 20);
  }
  std::string kept_name() const { return fmt::format("config-before-{}.yaml", step_); }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "run";
  const RunConfig before_ = config_of();
  const std::vector<std::string> changes_ = {"schedule.base_lr=0.02", "train.length=40 steps",
                                             "schedule.decay.shape=linear"};
  const RunConfig now_ = config_of(changes_);
  std::int64_t step_ = 0;
};

TEST_F(NewSchedule, ThatEndsAtOnceHasItsEvaluationInItsFiles) {
  const auto last_evaluated = [&] { return rows_of(path_ / "eval.csv").back().front(); };
  ASSERT_NE(last_evaluated(), std::to_string(step_));
  const RunConfig config = config_of({fmt::format("train.length={} steps", step_)});
  const RunResult result = resume_in(path_, config, true);
  EXPECT_EQ(result.steps, step_);
  EXPECT_EQ(last_evaluated(), std::to_string(step_));
  const Checkpoint best = read_checkpoint(path_ / "checkpoints/best.ckpt");
  EXPECT_EQ(best.state.step.step, result.best_step);
}

TEST_F(NewSchedule, IsTakenOnlyWhereItIsAskedFor) {
  for (const auto& [setting, line] :
       {std::pair{"schedule.base_lr=0.02", "base_lr: 0.02"},
        std::pair{"schedule.warmup.shape=cosine", "shape: cosine"},
        std::pair{"train.length=40 steps", "length: 40 steps"},
        std::pair{"train.stages=[{train_only: ['3.*']}]", "stages"}}) {
    EXPECT_THAT(resume_error(path_, config_of({setting})),
                AllOf(HasSubstr("config.yaml: "), HasSubstr(line), HasSubstr("--new-schedule")))
        << setting;
  }
  for (const auto& settings :
       std::vector<std::vector<std::string>>{{"schedule.base_lr=0.02", "seed=3"},
                                             {"train.length=40 steps", "optimizer.momentum=0.8"},
                                             {"optimizer.momentum=0.8"}}) {
    for (const bool asked : {false, true}) {
      EXPECT_THAT(resume_error(path_, config_of(settings), asked),
                  AllOf(HasSubstr("config.yaml: "), testing::Not(HasSubstr("--new-schedule"))));
    }
  }
  EXPECT_THAT(resume_error(path_, config_of({"schedule.base_lr=0.02", "seed=3"}), true),
              AllOf(HasSubstr("'seed: 0'"), HasSubstr("'seed: 3'")));
  // What is refused leaves no trace.
  EXPECT_FALSE(std::filesystem::exists(path_ / kept_name()));
  EXPECT_EQ(resume_error(path_, before_), "");
}

TEST_F(NewSchedule, GoesOnFromTheStepTheRunIsAt) {
  run_into(folder_ / "whole", before_);
  const std::string old_text = bytes_of(path_ / "config.yaml");
  const Schedule was = resolve_schedule(before_, {30, 10});
  const Schedule is = resolve_schedule(now_, {40, 10});
  Trainer trainer = trainer_of(now_);
  Resumed resumed = trainer.resume(path_, true);
  EXPECT_EQ(resumed.step, step_);
  EXPECT_EQ(resumed.lr_before, static_cast<float>(lr_at(was.lr, step_)));
  EXPECT_EQ(resumed.lr_now, static_cast<float>(lr_at(is.lr, step_)));
  EXPECT_NE(resumed.lr_before, resumed.lr_now);
  EXPECT_EQ(bytes_of(path_ / kept_name()), old_text);
  EXPECT_EQ(bytes_of(path_ / "config.yaml"), write_config(now_));

  const RunResult result = trainer.run({}, &resumed.folder);
  EXPECT_EQ(result.steps, 40);
  const auto rates = rates_of(path_);
  ASSERT_EQ(rates.size(), 40u);
  for (std::int64_t k = 0; k < 40; ++k) {
    EXPECT_EQ(rates[k], static_cast<float>(lr_at(k < step_ ? was.lr : is.lr, k))) << k;
  }
  // The same weights see the same batches: losses differ only after the first update at another
  // rate.
  const auto losses = column_of(path_, 4);
  const auto old_losses = column_of(folder_ / "whole", 4);
  for (std::int64_t k = 0; k <= step_; ++k) EXPECT_EQ(losses[k], old_losses[k]) << k;
  EXPECT_NE(losses[step_ + 1], old_losses[step_ + 1]);
}

TEST_F(NewSchedule, IsTheRunsOwnFromThenOn) {
  copy_folder(path_, folder_ / "whole");
  resume_in(folder_ / "whole", now_, true);
  StopAfter stopper(23);
  const RunResult cut = resume_in(path_, now_, true, stopper.listener);
  ASSERT_TRUE(cut.interrupted);
  EXPECT_THAT(resume_error(path_, before_), HasSubstr("--new-schedule"));
  Trainer trainer = trainer_of(now_);
  Resumed again = trainer.resume(path_);
  EXPECT_EQ(again.step, cut.steps);
  EXPECT_EQ(again.lr_before, again.lr_now);
  trainer.run({}, &again.folder);
  expect_same_run(folder_ / "whole", path_);
  EXPECT_EQ(bytes_of(path_ / kept_name()), write_config(before_));
  int kept = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    kept += entry.path().filename().string().starts_with("config-before-") ? 1 : 0;
  }
  EXPECT_EQ(kept, 1);
}

// The old schedule went on after the last checkpoint, and its best weights are from there.
TEST_F(NewSchedule, DoesNotKeepWeightsOfLaterUpdatesOfTheOldOne) {
  const std::filesystem::path best = path_ / "checkpoints/best.ckpt";
  run_into(folder_ / "later", config_of());
  std::filesystem::copy_file(folder_ / "later/checkpoints/last.ckpt", best,
                             std::filesystem::copy_options::overwrite_existing);
  trainer_of(before_).resume(path_);
  EXPECT_TRUE(std::filesystem::exists(best));
  trainer_of(now_).resume(path_, true);
  EXPECT_FALSE(std::filesystem::exists(best));
}

TEST_F(NewSchedule, ChangesNothingIfTheBestWeightsAreDamaged) {
  const std::filesystem::path best = path_ / "checkpoints/best.ckpt";
  const std::string whole = bytes_of(path_ / "checkpoints/last.ckpt");
  put_bytes(best, whole.substr(0, whole.size() / 2));
  copy_folder(path_, folder_ / "before");
  EXPECT_THAT(resume_error(path_, now_, true), HasSubstr("best.ckpt: is damaged"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / "before")) {
    if (!entry.is_regular_file()) continue;
    const auto name = entry.path().lexically_relative(folder_ / "before");
    EXPECT_EQ(bytes_of(path_ / name), bytes_of(entry.path())) << name;
  }
}

// The checkpoint is written first. A crash right after it leaves the old configuration beside it,
// and the same command still works.
TEST_F(NewSchedule, SurvivesACrashBetweenItsTwoFiles) {
  const std::string old_text = bytes_of(path_ / "config.yaml");
  trainer_of(now_).resume(path_, true);
  put_bytes(path_ / "config.yaml", old_text);
  std::filesystem::remove(path_ / kept_name());
  EXPECT_EQ(resume_error(path_, now_, true), "");
  EXPECT_EQ(bytes_of(path_ / kept_name()), old_text);
  EXPECT_EQ(resume_error(path_, now_), "");
}

TEST_F(NewSchedule, OfTwoInARowTheFirstKeepsWhatWasInForce) {
  const std::string old_text = bytes_of(path_ / "config.yaml");
  trainer_of(now_).resume(path_, true);
  const RunConfig third = config_of({"schedule.base_lr=0.03"});
  const Schedule is = resolve_schedule(now_, {40, 10});
  const Schedule next = resolve_schedule(third, {30, 10});
  {
    Trainer trainer = trainer_of(third);
    const Resumed resumed = trainer.resume(path_, true);
    EXPECT_EQ(resumed.lr_before, static_cast<float>(lr_at(is.lr, step_)));
    EXPECT_EQ(resumed.lr_now, static_cast<float>(lr_at(next.lr, step_)));
  }
  EXPECT_EQ(bytes_of(path_ / kept_name()), old_text);
  EXPECT_EQ(bytes_of(path_ / "config.yaml"), write_config(third));
  resume_in(path_, third);
  const auto rates = rates_of(path_);
  ASSERT_EQ(rates.size(), 30u);
  EXPECT_EQ(rates[29], static_cast<float>(lr_at(next.lr, 29)));
}

TEST_F(NewSchedule, ExtendsAFinishedRun) {
  resume_in(path_, before_);
  const std::string rows = bytes_of(path_ / "metrics.csv");
  const RunConfig longer = config_of({"train.length=45 steps"});
  EXPECT_THAT(resume_error(path_, longer), HasSubstr("--new-schedule"));
  const RunResult result = resume_in(path_, longer, true);
  EXPECT_EQ(result.steps, 45);
  EXPECT_FALSE(result.interrupted);
  EXPECT_TRUE(result.test_accuracy);
  EXPECT_TRUE(bytes_of(path_ / "metrics.csv").starts_with(rows));
  const Schedule is = resolve_schedule(longer, {45, 10});
  const auto rates = rates_of(path_);
  ASSERT_EQ(rates.size(), 45u);
  for (std::int64_t k = 30; k < 45; ++k) {
    EXPECT_EQ(rates[k], static_cast<float>(lr_at(is.lr, k))) << k;
  }
  std::vector<std::string> evaluated;
  for (const auto& row : rows_of(path_ / "eval.csv")) evaluated.push_back(row[0]);
  EXPECT_THAT(evaluated, testing::ElementsAre("step", "15", "30", "45"));
  EXPECT_EQ(bytes_of(path_ / "config-before-30.yaml"), write_config(before_));
  // It cannot be made shorter than what it has done.
  EXPECT_THAT(resume_error(path_, config_of({"train.length=44 steps"}), true),
              AllOf(HasSubstr("step 45"), HasSubstr("44 steps")));
  EXPECT_EQ(resume_error(path_, longer), "");
}

TEST_F(NewSchedule, MayFreezeFromThenOn) {
  const Checkpoint before = read_checkpoint(path_ / "checkpoints/last.ckpt");
  resume_in(path_, config_of({"train.stages=[{length: 10 steps}, {train_only: ['3.*']}]"}), true);
  const Checkpoint after = read_checkpoint(path_ / "checkpoints/last.ckpt");
  EXPECT_EQ(weights_of(after, "0.conv.weight"), weights_of(before, "0.conv.weight"));
  EXPECT_NE(weights_of(after, "3.linear.weight"), weights_of(before, "3.linear.weight"));
}

TEST_F(NewSchedule, ThatIsTheOldOneChangesNothing) {
  run_into(folder_ / "whole", before_);
  resume_in(path_, before_, true);
  expect_same_run(folder_ / "whole", path_);
  EXPECT_FALSE(std::filesystem::exists(path_ / kept_name()));
}

TEST_F(GatedRun, TheSameScheduleAskedForAsNewChangesNothing) {
  const auto path = folder_ / "cut";
  ASSERT_LT(run_until(opened_ - 4, path, gated()).steps, opened_);
  EXPECT_EQ(resume_in(path, gated(), true).gate_opened_at, opened_);
  EXPECT_EQ(rates_of(path), rates_of(folder_ / "whole"));
}

// A warmup that has ended stays ended.
TEST_F(GatedRun, KeepsItsOpeningUnderANewDecay) {
  const auto path = folder_ / "cut";
  const std::int64_t step = run_until(opened_ + 4, path, gated()).steps;
  ASSERT_LT(step, 80);
  const RunConfig now = gated({"schedule.decay.shape=linear"});
  EXPECT_EQ(resume_in(path, now, true).gate_opened_at, opened_);
  expect_rates_from(step, path, now, opened_);
  EXPECT_NE(rates_of(path), rates_of(folder_ / "whole"));
}

// With another bound the warmup goes on, and has to pass it.
TEST_F(GatedRun, UnderAnotherGateIsInItsWarmupAgain) {
  const auto path = folder_ / "cut";
  const std::int64_t step = run_until(opened_ + 1, path, gated()).steps;
  ASSERT_LT(step, 70);
  const RunConfig now = gated({"schedule.warmup.until.train_error_below=1e-6"});
  EXPECT_FALSE(resume_in(path, now, true).gate_opened_at);
  expect_rates_from(step, path, now, -1);
  const auto phases = column_of(path, 2);
  for (std::int64_t k = step; k < 80; ++k) EXPECT_EQ(phases[k], k < 70 ? "warmup" : "decay") << k;
}

// The rate jumps where the new schedule begins, and the correction is for such jumps.
TEST_F(NewSchedule, IsFollowedByACorrectedVelocity) {
  std::vector<std::vector<float>> weights;
  for (const std::string form : {"separate", "folded"}) {
    const std::vector<std::string> optimizer = {
        "optimizer.momentum_form=" + form,
        fmt::format("optimizer.momentum_correction={}", form == "folded")};
    std::vector<std::string> now = optimizer;
    now.push_back("schedule.base_lr=0.004");
    run_until(10, folder_ / form, config_of(optimizer));
    resume_in(folder_ / form, config_of(now), true);
    const auto last = read_checkpoint(folder_ / form / "checkpoints/last.ckpt");
    weights.push_back(weights_of(last, "3.linear.weight"));
  }
  double apart = 0;
  double size = 0;
  for (std::size_t i = 0; i < weights[0].size(); ++i) {
    apart += std::pow(double{weights[0][i]} - double{weights[1][i]}, 2);
    size += std::pow(double{weights[0][i]}, 2);
  }
  EXPECT_LT(std::sqrt(apart / size), 1e-4);
}

TEST_F(WrongResume, ACheckpointOfAnotherConfigurationThanTheFoldersIsRefused) {
  std::string text = bytes_of(path_ / "config.yaml");
  const auto at = text.find("seed: 0");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 7, "seed: 3");
  put_bytes(path_ / "config.yaml", text);
  for (const bool new_schedule : {false, true}) {
    EXPECT_THAT(resume_error(path_, config_of({"seed=3"}), new_schedule),
                AllOf(HasSubstr("last.ckpt: was saved under a configuration other"),
                      HasSubstr("config.yaml")));
    EXPECT_THAT(resume_error(path_, config_of(), new_schedule), HasSubstr("'seed: 3'"));
  }
  text.replace(at, 7, "seed: 0");
  put_bytes(path_ / "config.yaml", text);
  EXPECT_EQ(resume_error(path_, config_of()), "");
}

TEST(Trainer, ADivergedRunSaysWhereAndStaysThere) {
  const TemporaryFolder folder;
  const RunConfig config = config_of({"schedule.base_lr=1e12", "schedule.warmup.length=0 steps"});
  std::int64_t records = 0;
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> r) {
    records += static_cast<std::int64_t>(r.size());
  };
  const RunResult result = run_into(folder / "run", config, listener);
  EXPECT_EQ(result.outcome, Outcome::non_finite);
  ASSERT_TRUE(result.first_non_finite_step);
  EXPECT_LT(*result.first_non_finite_step, 10);
  EXPECT_EQ(records, *result.first_non_finite_step + 1);
  EXPECT_NE(result.first_non_finite_tensor, "");
  EXPECT_FALSE(result.test_accuracy);
  EXPECT_EQ(rows_of(folder / "run/metrics.csv").size(), static_cast<std::size_t>(records) + 1);
  const auto summary = nlohmann::json::parse(bytes_of(folder / "run/summary.json"));
  EXPECT_EQ(summary.at("outcome"), "non_finite");
  EXPECT_EQ(summary.at("first_non_finite_step"), *result.first_non_finite_step);
  EXPECT_EQ(summary.at("first_non_finite_tensor"), result.first_non_finite_tensor);
  EXPECT_TRUE(summary.at("test_accuracy").is_null());
}

TEST(Trainer, RefusesABatchThatIsLargerThanTheData) {
  const RunConfig config = config_of({"data.batch_size=336"});
  try {
    trainer_of(config);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("data.batch_size: a batch of 336"), HasSubstr("335")));
  }
}

TEST(RunFolder, RefusesAFolderThatIsNotEmptyAndAFile) {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  for (const auto& path : {folder.path(), folder / "file", folder / "file/below"}) {
    try {
      make_folder(path);
      FAIL() << path;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::StartsWith(path.string() + ": "));
    }
  }
  EXPECT_EQ(bytes_of(folder / "file"), "x");
  make_folder(folder / "a/b/c");
  make_folder(folder / "a/b/c");  // empty
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
}

TEST(RunFolder, ANanHasOneSpelling) {
  const TemporaryFolder folder;
  RunFolder run(folder / "run", RunConfig{});
  run.add(5, 0, {{-std::nan(""), 1, 4}, {}});
  EXPECT_EQ(bytes_of(folder / "run/eval.csv"),
            "step,epoch,test_loss,test_accuracy\n5,0,nan,0.25\n");
  RunConfig config;
  config.data.validation = 3;
  RunFolder validated(folder / "validated", config);
  validated.add(5, 0, {{0.5, 1, 4}, Evaluation{-std::nan(""), 1, 2}});
  EXPECT_EQ(bytes_of(folder / "validated/eval.csv"),
            "step,epoch,test_loss,test_accuracy,validation_loss,validation_accuracy\n"
            "5,0,0.5,0.25,nan,0.5\n");
}

}  // namespace
}  // namespace preheat
