#include "train/fingerprint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "settings.h"

namespace preheat {
namespace {

using testing::MatchesRegex;

// Every optional section and list, so that each key has its own line in which to differ.
constexpr const char* full = R"(
name: full
data:
  dataset: synthetic
  dir: here
  train_limit: 1000
  normalize: {mean: [0.5], std: [0.25]}
model:
  layers:
    - conv: {out: 4}
      name: stem
    - max_pool: {kernel: 2}
    - residual_stage: {blocks: 2, out: 8}
    - global_avg_pool
    - linear: {out: 10}
optimizer:
  groups: [{match: '*.bias'}]
schedule:
  scale: {reference_batch: 256}
  warmup: {overlap: true, until: {train_error_below: 0.5}}
train:
  length: 40 steps
  stages: [{length: 10 steps, train_only: ['stem.*']}, {}]
compare: {seeds: 2, arms: {a: {}}}
)";

// A schedule of phases in place of warmup, hold and decay.
constexpr const char* phased = R"(
data: {dataset: synthetic}
schedule:
  phases:
    - {shape: linear, length: 10 steps}
    - {shape: cosine}
train: {length: 40 steps}
)";

RunConfig config_of(const char* yaml, const std::vector<std::string>& settings) {
  return read_config(with_settings(parse_document(yaml, "test.yaml"), settings));
}

std::string fingerprint_of(const char* yaml, const std::vector<std::string>& settings) {
  return fingerprint(config_of(yaml, settings));
}

// The keys that a run's numbers depend on, each with another value.
const std::vector<std::string> decisive = {
    "seed=1",
    "data.dataset=mnist",
    "data.batch_size=64",
    "data.micro_batch=8",
    "data.train_limit=1001",
    "data.validation=100",
    "data.normalize.mean=[0.51]",
    "data.normalize.std=[0.26]",
    "data.augment.crop_padding=1",
    "data.augment.flip=true",
    "model.layers.0.conv.out=5",
    "model.layers.0.conv.kernel=5",
    "model.layers.0.conv.stride=2",
    "model.layers.0.conv.batch_norm=true",
    "model.layers.0.conv.activation=none",
    "model.layers.0.name=root",
    "model.layers.1.max_pool.kernel=3",
    "model.layers.2.residual_stage.blocks=3",
    "model.layers.2.residual_stage.out=9",
    "model.layers.2.residual_stage.stride=2",
    "model.layers.2.residual_stage.activation=none",
    "model.layers.4.linear.out=11",
    "model.layers.4.linear.activation=relu",
    "model.init.scheme=he_uniform",
    "model.init.gain=1.0000000000000002",
    "loss=mse",
    "label_smoothing=0.1",
    "optimizer.momentum=0.89999999999999991",
    "optimizer.nesterov=true",
    "optimizer.weight_decay=1e-12",
    "optimizer.momentum_form=folded",
    "optimizer.clip_norm=1",
    "optimizer.groups.0.match='*.weight'",
    "optimizer.groups.0.lr_scale=2",
    "optimizer.groups.0.weight_decay=0",
    "schedule.base_lr=0.3",
    "schedule.scale.rule=sqrt",
    "schedule.scale.reference_batch=257",
    "schedule.min_lr=1e-6",
    "schedule.warmup.shape=cosine",
    "schedule.warmup.length=9 steps",
    "schedule.warmup.start_lr=0.01",
    "schedule.warmup.start_factor=0.01",
    "schedule.warmup.power=2",
    "schedule.warmup.timescale=5 steps",
    "schedule.warmup.endpoints=start",
    "schedule.warmup.every=epoch",
    "schedule.warmup.min_lr=1e-6",
    "schedule.warmup.overlap=false",
    "schedule.warmup.toward=curve",
    "schedule.warmup.until.train_error_below=0.6",
    "schedule.warmup.until.window=49 steps",
    "schedule.warmup.until.at_most=8 steps",
    "schedule.hold=1 steps",
    "schedule.decay.shape=linear",
    "schedule.decay.final_lr=0.01",
    "schedule.decay.final_factor=0.01",
    "schedule.decay.endpoints=start",
    "schedule.decay.length=9 steps",
    "schedule.decay.every=epoch",
    "schedule.decay.min_lr=1e-6",
    "schedule.decay.power=2",
    "schedule.decay.gamma=0.5",
    "schedule.decay.over=3 steps",
    "schedule.decay.staircase=true",
    "schedule.decay.at=[5 steps]",
    "schedule.decay.cycles=2",
    "schedule.decay.period=3 steps",
    "schedule.decay.multiply=2",
    "schedule.decay.peak_factor=0.5",
    "schedule.decay.rewarmup=1 steps",
    "schedule.decay.timescale=5 steps",
    "schedule.decay.center=5 steps",
    "schedule.decay.lower=-6",
    "schedule.decay.upper=4",
    "train.length=4 epochs",
    "train.precision=bf16",
    "train.deterministic=false",
    "train.cpu_threads=3",
    "train.stages.0.length=11 steps",
    "train.stages.0.train_only=['stem.*', '2.*']",
    "train.stages.0.velocity=fresh",
    "train.stages.0.frozen_batch_norm=fixed",
};

const std::vector<std::string> decisive_in_phases = {
    "schedule.phases.0.name=ramp",         "schedule.phases.0.shape=power",
    "schedule.phases.0.from=0.1x",         "schedule.phases.0.to=0.2",
    "schedule.phases.0.endpoints=both",    "schedule.phases.0.length=11 steps",
    "schedule.phases.0.every=epoch",       "schedule.phases.0.min_lr=1e-6",
    "schedule.phases.0.power=2",           "schedule.phases.0.gamma=0.5",
    "schedule.phases.0.over=3 steps",      "schedule.phases.0.staircase=true",
    "schedule.phases.0.at=[5 steps]",      "schedule.phases.0.cycles=2",
    "schedule.phases.0.period=3 steps",    "schedule.phases.0.multiply=2",
    "schedule.phases.0.peak_factor=0.5",   "schedule.phases.0.rewarmup=1 steps",
    "schedule.phases.0.timescale=5 steps", "schedule.phases.0.center=5 steps",
    "schedule.phases.0.lower=-6",          "schedule.phases.0.upper=4",
};

const std::vector<std::string> indifferent = {
    "name=other",
    "data.dir=there",
    "data.dir=null",
    "train.eval_every=7 steps",
    "compare=null",
    "train.checkpoint_every=5 steps",
    "train.cuda_graph=false",
    "compare.seeds=0..4",
    "compare.arms={b: {schedule.hold: 1 steps}}",
    "sweep={axes: {schedule.base_lr: [1, 2]}}",
    "find_lr={first: 0.5}",
    "expect=[{failures: {arm: a, above: 0.5}}]",
    "diagnostics.layers_every=5 steps",
    "diagnostics.sharpness.every=5 steps",
    "diagnostics.sharpness.examples=5",
    "diagnostics.sharpness.tolerance=0.5",
    "diagnostics.sharpness.iterations=5",
    "diagnostics.gradient_noise.every=5 steps",
    "diagnostics.gradient_noise.batches=5",
};

// As known_keys() spells it: model.layers.0.conv.out=5 is of model.layers[].conv.out.
std::string key_of(const std::string& setting) {
  std::string key = setting.substr(0, setting.find('='));
  for (int i = 0; i < 10; ++i) {
    const std::string item = fmt::format(".{}.", i);
    const auto at = key.find(item);
    if (at != std::string::npos) key.replace(at, item.size(), "[].");
  }
  return key;
}

TEST(Fingerprint, DiffersForEveryKeyThatANumberDependsOn) {
  std::map<std::string, std::string> seen = {{fingerprint_of(full, {}), "no change"}};
  for (const std::string& setting : decisive) {
    const std::string print = fingerprint_of(full, {setting});
    EXPECT_THAT(print, MatchesRegex("[0-9a-f]{8}"));
    EXPECT_TRUE(seen.emplace(print, setting).second) << setting << " is as " << seen[print];
    EXPECT_TRUE(first_difference(config_of(full, {}), config_of(full, {setting}))) << setting;
  }
  // A key that is accepted only beside another.
  EXPECT_NE(fingerprint_of(full, {"optimizer.momentum_form=folded"}),
            fingerprint_of(
                full, {"optimizer.momentum_form=folded", "optimizer.momentum_correction=true"}));
  seen = {{fingerprint_of(phased, {}), "no change"}};
  for (const std::string& setting : decisive_in_phases) {
    const std::string print = fingerprint_of(phased, {setting});
    EXPECT_TRUE(seen.emplace(print, setting).second) << setting << " is as " << seen[print];
  }
}

TEST(Fingerprint, IsTheSameForKeysThatNoNumberDependsOn) {
  for (const std::string& setting : indifferent) {
    EXPECT_EQ(fingerprint_of(full, {setting}), fingerprint_of(full, {})) << setting;
    EXPECT_FALSE(first_difference(config_of(full, {}), config_of(full, {setting}))) << setting;
  }
}

TEST(Fingerprint, NoKeyIsForgottenHere) {
  const std::vector<std::string> known = known_keys();
  const std::set<std::string> names(known.begin(), known.end());
  // A key tried above, and those of experiments, which are no part of a run.
  std::set<std::string> given = {"optimizer.momentum_correction",
                                 "sweep.seeds",
                                 "sweep.axes",
                                 "find_lr.seeds",
                                 "find_lr.first",
                                 "find_lr.resolution",
                                 "find_lr.loss_below",
                                 "find_lr.share",
                                 "find_lr.sharpness",
                                 "find_lr.arms"};
  for (const auto* settings : {&decisive, &decisive_in_phases, &indifferent}) {
    for (const std::string& setting : *settings) {
      given.insert(key_of(setting));
      EXPECT_TRUE(names.contains(key_of(setting))) << setting;
    }
  }
  for (const std::string& key : known) {
    const bool is_section = std::ranges::any_of(known, [&](const std::string& other) {
      return other.starts_with(key + ".") || other.starts_with(key + "[]");
    });
    if (is_section || key == "model.layers[].global_avg_pool" || key.starts_with("expect"))
      continue;
    EXPECT_TRUE(given.contains(key)) << key << " is not tried; does a run's number depend on it?";
  }
}

TEST(Fingerprint, IsOfTheValuesAndNotOfHowTheyAreWritten) {
  for (const char* yaml : {full, phased}) {
    const RunConfig config = config_of(yaml, {});
    EXPECT_EQ(fingerprint(read_config(parse_document(write_config(config), "again"))),
              fingerprint(config));
    EXPECT_FALSE(
        first_difference(config, read_config(parse_document(write_config(config), "again"))));
  }
  EXPECT_EQ(fingerprint_of(full, {"optimizer.momentum=9.0e-1", "schedule.base_lr=0.40",
                                  "train.length='40.0 steps'"}),
            fingerprint_of(full, {}));
  EXPECT_EQ(fingerprint_of(full, {"data.validation=0"}), fingerprint_of(full, {}));
  EXPECT_EQ(fingerprint_of(full, {"data.batch_size=64", "data.micro_batch=64"}),
            fingerprint_of(full, {"data.batch_size=64"}));
  EXPECT_EQ(fingerprint(config_of("train: {length: 4 epochs}\nseed: 5\n", {})),
            fingerprint(config_of("# said\nseed: 5\ntrain:\n  length: 4 epochs\n", {})));
}

TEST(Fingerprint, TheFirstDifferenceIsShownAsBothHaveIt) {
  const auto difference =
      [](const std::vector<std::string>& a,
         const std::vector<std::string>& b) -> std::pair<std::string, std::string> {
    const auto d = first_difference(config_of(full, a), config_of(full, b));
    return d ? std::pair{d->before, d->now} : std::pair{std::string(), std::string()};
  };
  using Lines = std::pair<std::string, std::string>;
  EXPECT_EQ(difference({}, {}), Lines("", ""));
  EXPECT_EQ(difference({}, {"seed=7"}), Lines("seed: 0", "seed: 7"));
  EXPECT_EQ(difference({"seed=7"}, {}), Lines("seed: 7", "seed: 0"));
  EXPECT_EQ(difference({}, {"optimizer.momentum=0.5", "schedule.base_lr=0.1"}),
            Lines("optimizer.momentum: 0.9", "optimizer.momentum: 0.5"));
  EXPECT_EQ(difference({"name=a", "train.eval_every=3 steps"}, {"schedule.hold=3 steps"}),
            Lines("schedule.hold: 0 steps", "schedule.hold: 3 steps"));
}

// A configuration without the key has "nothing".
TEST(Fingerprint, AKeyThatOnlyOneHasIsSetAgainstNothing) {
  const auto difference =
      first_difference(config_of(full, {}), config_of(full, {"optimizer.clip_norm=2"}));
  ASSERT_TRUE(difference);
  EXPECT_EQ(difference->before, "nothing");
  EXPECT_EQ(difference->now, "optimizer.clip_norm: 2");
}

TEST(Fingerprint, AScheduleOfAnotherTakesItsLengthAndStagesAlong) {
  const std::vector<std::string> by_schedule = {
      "schedule.base_lr=0.3", "schedule.warmup.shape=cosine", "train.length=50 steps",
      "train.stages.0.length=20 steps"};
  std::vector<std::string> both = by_schedule;
  both.insert(both.end(), {"seed=4", "optimizer.momentum=0.5"});
  const RunConfig taken = with_schedule_of(config_of(full, {"seed=4", "optimizer.momentum=0.5"}),
                                           config_of(full, by_schedule));
  EXPECT_FALSE(first_difference(taken, config_of(full, both)));
  EXPECT_EQ(fingerprint(taken), fingerprint_of(full, both));
}

}  // namespace
}  // namespace preheat
