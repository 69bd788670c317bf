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
#include "temporary_folder.h"
#include "train/checkpoint.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// 10 updates an epoch, a batch norm and a pool among the layers.
constexpr const char* tiny = R"(
name: tiny
data: {dataset: synthetic, batch_size: 32, train_limit: 335}
model:
  layers:
    - conv: {out: 4}
    - max_pool
    - conv: {out: 6, stride: 2, batch_norm: true}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3}
schedule:
  base_lr: 0.05
  warmup: {length: 8 steps}
  decay: {shape: cosine, final_factor: 0.1}
train: {length: 30 steps, eval_every: 15 steps, checkpoint_every: 12 steps}
)";

RunConfig config_of(const std::vector<std::string>& settings = {}) {
  std::vector<Override> overrides;
  for (const std::string& setting : settings) overrides.push_back(parse_override(setting));
  return read_config(with_overrides(parse_document(tiny, "tiny.yaml"), overrides));
}

const std::vector<std::string> augmented = {"data.augment.crop_padding=2",
                                            "data.augment.flip=true"};

Backend& cpu() {
  static const std::unique_ptr<Backend> backend = make_backend(DeviceChoice::cpu);
  return *backend;
}

Trainer trainer_of(const RunConfig& config) {
  static std::map<std::int64_t, ResidentData> loaded;
  const std::int64_t limit = config.data.train_limit.value_or(0);
  if (!loaded.contains(limit)) loaded[limit] = load_data(config.data, cpu());
  return Trainer(config, cpu(), loaded[limit]);
}

RunResult run_into(const std::filesystem::path& path, const RunConfig& config,
                   const RunListener& listener = {}) {
  Trainer trainer = trainer_of(config);
  RunFolder folder(path, config);
  return trainer.run(listener, &folder);
}

RunResult resume_in(const std::filesystem::path& path, const RunConfig& config) {
  Trainer trainer = trainer_of(config);
  RunFolder folder = trainer.resume(path);
  return trainer.run({}, &folder);
}

std::string resume_error(const std::filesystem::path& path, const RunConfig& config) {
  try {
    trainer_of(config).resume(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Asks to stop as soon as `steps` updates are done.
struct StopAfter {
  explicit StopAfter(std::int64_t steps) {
    listener.on_records = [this](std::span<const StepRecord> r) { done = r.back().step + 1; };
    listener.wants_stop = [this, steps] { return done >= steps; };
  }
  std::int64_t done = 0;
  RunListener listener;
};

std::vector<std::vector<std::string>> rows_of(const std::filesystem::path& path) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream file(bytes_of(path));
  for (std::string line; std::getline(file, line);) {
    std::istringstream text(line);
    rows.emplace_back();
    for (std::string field; std::getline(text, field, ',');) rows.back().push_back(field);
  }
  return rows;
}

void expect_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* file : {"metrics.csv", "eval.csv", "checkpoints/last.ckpt",
                           "checkpoints/best.ckpt", "config.yaml"}) {
    EXPECT_TRUE(bytes_of(a / file) == bytes_of(b / file)) << file << " differs";
  }
  const auto first = nlohmann::json::parse(bytes_of(a / "summary.json"));
  const auto second = nlohmann::json::parse(bytes_of(b / "summary.json"));
  for (const char* key :
       {"outcome", "steps", "final_train_loss", "final_train_accuracy", "test_loss",
        "test_accuracy", "best_test_accuracy", "best_step", "interrupted"}) {
    EXPECT_EQ(first.at(key), second.at(key)) << key;
  }
}

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
  listener.on_evaluation = [&](std::int64_t step, const Evaluation& e) {
    evaluated.push_back(step);
    EXPECT_EQ(e.examples, 1024);
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
  for (const std::int64_t stop : {1, 10, 17}) {  // the first update, an epoch's end, in its midst
    SCOPED_TRACE(stop);
    const auto path = folder_ / fmt::format("cut-{}", stop);
    StopAfter stopper(stop);
    const RunResult cut = run_into(path, config_, stopper.listener);
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

// A crash leaves rows that no checkpoint covers, and perhaps half a row.
TEST_P(Resume, AfterACrashGivesTheSameBits) {
  const auto path = folder_ / "crashed";
  RunListener listener;
  listener.on_records = [](std::span<const StepRecord> r) {
    if (r.back().step >= 18) throw std::runtime_error("power cut");
  };
  EXPECT_THROW(run_into(path, config_, listener), std::runtime_error);
  EXPECT_EQ(read_checkpoint(path / "checkpoints/last.ckpt").step.step, 12);
  EXPECT_GT(rows_of(path / "metrics.csv").size(), 19u);
  std::ofstream(path / "metrics.csv", std::ios::app) << "27,2,dec";
  std::ofstream(path / "eval.csv", std::ios::app) << "30,3,0.1,0.9\n30,";
  resume_in(path, config_);
  expect_same_run(folder_ / "whole", path);
}

TEST_P(Resume, AFinishedRunStaysAsItIs) {
  const auto path = folder_ / "again";
  std::filesystem::copy(folder_ / "whole", path, std::filesystem::copy_options::recursive);
  const RunResult result = resume_in(path, config_);
  EXPECT_EQ(result.steps, 30);
  expect_same_run(folder_ / "whole", path);
}

class WrongResume : public testing::Test {
 protected:
  WrongResume() {
    StopAfter stopper(10);
    run_into(path_, config_of(), stopper.listener);
  }
  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "run";
};

TEST_F(WrongResume, AnotherNetworkNamesTheTensor) {
  EXPECT_THAT(resume_error(path_, config_of({"model.layers.0.conv.out=5"})),
              AllOf(HasSubstr("last.ckpt: is of another network: "), HasSubstr("0.conv.weight")));
  EXPECT_THAT(resume_error(path_, config_of({"model.layers.2.conv.batch_norm=false"})),
              HasSubstr("2."));
  EXPECT_THAT(resume_error(path_, config_of({"model.layers.3={linear: {out: 10}, name: head}"})),
              HasSubstr("linear.weight"));
}

TEST_F(WrongResume, AnotherConfigurationNamesTheLine) {
  EXPECT_THAT(resume_error(path_, config_of({"schedule.base_lr=0.06"})),
              AllOf(HasSubstr("config.yaml: the run was made with 'base_lr: 0.05'"),
                    HasSubstr("this configuration has 'base_lr: 0.06'")));
  EXPECT_THAT(resume_error(path_, config_of({"seed=3"})), HasSubstr("'seed: 0'"));
  EXPECT_THAT(resume_error(path_, config_of({"train.length=80 steps"})),
              HasSubstr("'length: 30 steps'"));
  EXPECT_THAT(resume_error(path_, config_of({"optimizer.momentum=0.8"})),
              HasSubstr("'momentum: 0.8'"));
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
              AllOf(HasSubstr("last.ckpt"), HasSubstr("No such file")));
  EXPECT_THAT(resume_error(folder_ / "nowhere", config_of()), HasSubstr("nowhere"));
  put_bytes(checkpoint, good);

  const std::string metrics = bytes_of(path_ / "metrics.csv");
  put_bytes(path_ / "metrics.csv", metrics.substr(0, metrics.size() / 2));
  EXPECT_THAT(resume_error(path_, config_of()), AllOf(HasSubstr("metrics.csv"), HasSubstr("rows")));
  put_bytes(path_ / "metrics.csv", metrics.substr(10));
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("metrics.csv: has lost its header"));
  std::string torn = metrics;
  torn.replace(torn.find("\n5,") + 1, 2, "6,");
  put_bytes(path_ / "metrics.csv", torn);
  EXPECT_THAT(resume_error(path_, config_of()),
              HasSubstr("metrics.csv: has rows missing or out of"));
  torn.replace(torn.find("\n6,") + 2, 1, ";");
  put_bytes(path_ / "metrics.csv", torn);
  EXPECT_THAT(resume_error(path_, config_of()), HasSubstr("metrics.csv: has a damaged row"));
  put_bytes(path_ / "metrics.csv", metrics);
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
    EXPECT_THAT(error.what(), AllOf(HasSubstr("data.batch_size: 336"), HasSubstr("335")));
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
  run.add(5, 0, {-std::nan(""), 1, 4});
  EXPECT_EQ(bytes_of(folder / "run/eval.csv"),
            "step,epoch,test_loss,test_accuracy\n5,0,nan,0.25\n");
}

}  // namespace
}  // namespace preheat
