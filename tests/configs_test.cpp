// The shipped configurations: each fits its dataset, the base as well as the arms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "config/error.h"
#include "experiment/claims.h"
#include "experiment/compare.h"
#include "experiment/sweep.h"
#include "settings.h"
#include "shared_backend.h"
#include "temporary_folder.h"
#include "train/trainer.h"

namespace preheat {
namespace {

using testing::HasSubstr;

const std::filesystem::path configs = std::filesystem::path(PREHEAT_SOURCE_DIR) / "configs";

TEST(Configs, EveryOneOfThemCanRun) {
  int count = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(configs)) {
    if (file.path().extension() != ".yaml" || file.path().parent_path().filename() == "schedules") {
      continue;
    }
    SCOPED_TRACE(file.path().filename());
    const Document document = load_document(file.path());
    const RunConfig config = read_config(document);
    EXPECT_NO_THROW(check_run(config));
    if (config.compare) {
      EXPECT_NO_THROW(check_compare_claims(config, arm_configs(document, config.compare->arms)));
    }
    if (config.sweep) {
      EXPECT_NO_THROW(arm_configs(document, cells_of(config.sweep->axes)));
      EXPECT_NO_THROW(check_sweep_claims(config));
    }
    if (config.find_lr) {
      const std::vector<Arm>& arms = config.find_lr->arms;
      EXPECT_NO_THROW(check_find_lr_claims(config, arms, arm_configs(document, arms)));
    }
    ++count;
  }
  EXPECT_GE(count, 20);
}

TEST(Configs, ResNet20RunsAnEpoch) {
  Document document = load_document(configs / "resnet20.yaml");
  document = with_overrides(
      document,
      {parse_override("data.dataset=synthetic"), parse_override("data.train_limit=1024"),
       parse_override("train.length=1 epoch"), parse_override("schedule.warmup.length=2 steps")});
  const RunConfig config = read_config(document);
  const auto backend = make_backend(DeviceChoice::cpu);
  Trainer trainer(config, *backend, load_data(config.data, *backend));
  std::vector<double> losses;
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> records) {
    for (const StepRecord& r : records) {
      EXPECT_TRUE(r.finite);
      losses.push_back(r.loss);
    }
  };
  const RunResult result = trainer.run(listener, nullptr);
  EXPECT_EQ(result.steps, 8);
  ASSERT_EQ(losses.size(), 8u);
  EXPECT_LT(losses[7], losses[0]);
}

// The first updates of its first seed show it: without warmup all units die or the loss is not
// finite, with it the loss falls.
TEST(Configs, WithoutWarmupTheExampleFails) {
  const Document document = load_document(configs / "nan-without-warmup.yaml");
  const RunConfig config = read_config(document);
  const auto backend = make_backend(DeviceChoice::cpu);
  ResidentData data;
  try {
    data = load_data(config.data, *backend);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  const auto arms = arm_configs(document, config.compare->arms);
  ASSERT_EQ(arms.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string& name = config.compare->arms[i].name;
    double loss = 0;
    std::int64_t updates = 0;
    RunListener listener;
    listener.on_records = [&](std::span<const StepRecord> records) {
      loss = records.back().loss;
      updates = records.back().step + 1;
    };
    listener.wants_stop = [&] { return updates >= 12; };
    Trainer(arms[i], *backend, data).run(listener, nullptr);
    EXPECT_EQ(loss < 2.1, name == "warmup") << name << ": " << loss;  // that of chance is 2.3
  }
}

// Over ten seeds the sharp network overflows without warmup and trains with it: on synthetic
// images, where it is sharper, so at a lower rate, and with a shorter warmup than the file's.
TEST(Configs, OfTenSeedsNearlyAllOverflowWithoutWarmupAndWithItHardlyAny) {
  const Document document = with_settings(
      load_document(configs / "sharp-initialisation.yaml"),
      {"data.dataset=synthetic", "schedule.base_lr=0.012", "schedule.warmup.length=100 steps",
       "train.length=110 steps", "train.eval_every=110 steps", "compare.seeds=0..9",
       "compare.arms={no-warmup: {schedule.warmup.length: 0 steps}, warmup: {}}"});
  const TemporaryFolder folder;
  const CompareResult result = compare(document, shared_backend(), folder / "out", false, {});
  ASSERT_EQ(result.arms.size(), 2u);
  for (const ArmResult& arm : result.arms) ASSERT_EQ(arm.runs.size(), 10u);
  EXPECT_GE(result.arms[0].count(Outcome::non_finite), 8);
  EXPECT_LE(result.arms[1].failures(), 1);
  EXPECT_EQ(result.paired.at(0).only_second_failed, 0);
  EXPECT_LT(result.paired.at(0).mcnemar_p, 0.05);
}

// An error in a later arm is reported before the first arm trains or makes a folder.
TEST(Configs, AWrongArmIsSaidBeforeAnythingRuns) {
  const auto backend = make_backend(DeviceChoice::cpu);
  const struct {
    const char* change;
    const char* message;
  } wrong[] = {{"schedule.warmup.length: 400 steps", "x.yaml:6:"},
               {"model.layers.0.linear.out: 9", "layer '0'"},
               {"schedule.decay: {shape: step, gamma: 1e6, over: 1 steps}", "schedule.decay.gamma"},
               {"schedule.warmup: {shape: linaer, length: 0 steps}", "linaer"}};
  for (const auto& [change, message] : wrong) {
    SCOPED_TRACE(change);
    const TemporaryFolder folder;
    const Document document = parse_document(
        std::string("data: {dataset: synthetic, batch_size: 64, train_limit: 640}\n"
                    "model: {layers: [linear: {out: 10}]}\ntrain: {length: 200 steps}\n"
                    "compare:\n  seeds: 1\n  arms: {fine: {}, wrong: {") +
            change + "}}\n",
        "x.yaml");
    try {
      compare(document, *backend, folder / "out", false, {});
      FAIL() << "ran";
    } catch (const ConfigError& e) {
      EXPECT_THAT(e.what(), HasSubstr(message));
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  }
}

}  // namespace
}  // namespace preheat
