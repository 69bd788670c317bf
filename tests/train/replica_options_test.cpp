#include "train/replica_options.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/dataset.h"
#include "settings.h"
#include "train/trainer.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Nine parameters in four layers; an epoch is 10 updates.
constexpr const char* yaml = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 335}
model:
  layers:
    - conv: {out: 4}
    - conv: {out: 6, batch_norm: true}
      name: stem
    - linear: {out: 5, activation: relu}
      name: hidden
    - linear: {out: 10}
      name: head
schedule: {warmup: {length: 0 steps}}
)";

RunConfig config_of(const std::vector<std::string>& settings) {
  return read_config(with_settings(parse_document(yaml, "test.yaml"), settings));
}

Network network_of(const RunConfig& config) {
  const DatasetFacts& data = facts(config.data.dataset);
  return build_network(config, data.shape, data.classes);
}

ReplicaOptions options_of(const std::vector<std::string>& settings) {
  const RunConfig config = config_of(settings);
  return replica_options(config, network_of(config),
                         resolve_schedule(config, run_length(config, 10)));
}

// The error of check_run(), before any data is loaded.
std::string error_of(const std::vector<std::string>& settings) {
  try {
    check_run(config_of(settings));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> trained_in(const TrainingStage& stage) {
  const Network network = network_of(config_of({}));
  EXPECT_EQ(stage.trained.size(), network.parameters.size());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    if (stage.trained[i]) names.push_back(network.parameters[i].name);
  }
  return names;
}

const std::vector<std::string> all_names = {
    "0.conv.weight",          "0.conv.bias",          "stem.conv.weight",
    "stem.batch_norm.weight", "stem.batch_norm.bias", "hidden.linear.weight",
    "hidden.linear.bias",     "head.linear.weight",   "head.linear.bias"};

TEST(ReplicaOptions, ARunWithoutStagesIsOneThatTrainsEverything) {
  const ReplicaOptions options = options_of({"train.length=30 steps"});
  ASSERT_EQ(options.stages.size(), 1u);
  EXPECT_EQ(options.stages[0].begin, 0);
  EXPECT_EQ(trained_in(options.stages[0]), all_names);
  EXPECT_FALSE(options.stages[0].fresh_velocity);
  EXPECT_FALSE(options.stages[0].fixed_statistics);
}

TEST(ReplicaOptions, TakesTheOptimizersNumbers) {
  const ReplicaOptions options =
      options_of({"optimizer.momentum=0.75", "optimizer.nesterov=true", "label_smoothing=0.125",
                  "optimizer.momentum_form=folded", "optimizer.momentum_correction=true",
                  "optimizer.clip_norm=2.5", "seed=11", "data.augment.flip=true",
                  "data.normalize={mean: [0.25], std: [0.75]}"});
  EXPECT_EQ(options.rule.momentum, 0.75f);
  EXPECT_TRUE(options.rule.nesterov);
  EXPECT_TRUE(options.rule.folded);
  EXPECT_TRUE(options.rule.correction);
  EXPECT_EQ(options.clip_norm, 2.5);
  EXPECT_EQ(options.label_smoothing, 0.125);
  EXPECT_EQ(options.seed, 11u);
  EXPECT_EQ(options.batch_size, 32);
  EXPECT_TRUE(options.augment.flip);
  EXPECT_THAT(options.normalize.mean, ElementsAre(0.25));
  EXPECT_THAT(options.normalize.std, ElementsAre(0.75));
  const ReplicaOptions defaults = options_of({});
  EXPECT_FALSE(defaults.rule.folded);
  EXPECT_FALSE(defaults.rule.correction);
  EXPECT_EQ(defaults.clip_norm, 0);  // not clipped
  EXPECT_EQ(defaults.normalize.mean, facts(DatasetName::synthetic).normalize.mean);
}

TEST(ReplicaOptions, TakesHowAStepIsComputed) {
  const ReplicaOptions options = options_of({"train.precision=fp16", "train.deterministic=false",
                                             "train.cuda_graph=false", "train.cpu_threads=3"});
  EXPECT_EQ(options.precision, Precision::fp16);
  EXPECT_FALSE(options.deterministic);
  EXPECT_FALSE(options.cuda_graph);
  EXPECT_EQ(options.cpu_threads, 3);
  const ReplicaOptions defaults = options_of({});
  EXPECT_EQ(defaults.precision, Precision::fp32);
  EXPECT_TRUE(defaults.deterministic);
  EXPECT_TRUE(defaults.cuda_graph);
  EXPECT_EQ(defaults.cpu_threads, 0);
}

TEST(ReplicaOptions, StagesBeginWhereTheOnesBeforeThemEnd) {
  const ReplicaOptions options = options_of(
      {"train.length=6 epochs",
       "train.stages=[{length: 7 steps, train_only: ['head.*']}, {length: 1.5 epochs, velocity: "
       "fresh, train_only: ['*.bias', 'stem.conv.*']}, {length: 25%, frozen_batch_norm: fixed, "
       "train_only: ['?.conv.weight', 'h*.weight']}, {}]"});
  ASSERT_EQ(options.stages.size(), 4u);
  const std::int64_t begins[] = {0, 7, 22, 37};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(options.stages[i].begin, begins[i]);
    EXPECT_EQ(options.stages[i].fresh_velocity, i == 1);
    EXPECT_EQ(options.stages[i].fixed_statistics, i == 2);
  }
  EXPECT_THAT(trained_in(options.stages[0]), ElementsAre("head.linear.weight", "head.linear.bias"));
  EXPECT_THAT(trained_in(options.stages[1]),
              ElementsAre("0.conv.bias", "stem.conv.weight", "stem.batch_norm.bias",
                          "hidden.linear.bias", "head.linear.bias"));
  EXPECT_THAT(trained_in(options.stages[2]),
              ElementsAre("0.conv.weight", "hidden.linear.weight", "head.linear.weight"));
  EXPECT_EQ(trained_in(options.stages[3]), all_names);
}

TEST(ReplicaOptions, TheLastStageMayGiveItsLength) {
  const ReplicaOptions options = options_of(
      {"train.length=30 steps", "train.stages=[{length: 12 steps}, {length: 18 steps}]"});
  ASSERT_EQ(options.stages.size(), 2u);
  EXPECT_EQ(options.stages[1].begin, 12);
}

TEST(ReplicaOptions, WithoutALengthTheRunIsAsLongAsItsStages) {
  const std::string stages =
      "train.stages=[{length: 2.5 epochs, train_only: ['head.*']}, {length: "
      "17 steps}]";
  EXPECT_EQ(run_length(config_of({stages}), 10).steps, 42);
  EXPECT_EQ(run_length(config_of({"train.length=null", stages}), 10).steps, 42);
  EXPECT_EQ(run_length(config_of({"train.length=42 steps", stages}), 10).steps, 42);
  EXPECT_EQ(run_length(config_of({}), 10).steps, 100);  // the default without stages
  const ReplicaOptions options = options_of({stages});
  ASSERT_EQ(options.stages.size(), 2u);
  EXPECT_EQ(options.stages[1].begin, 25);
  EXPECT_EQ(error_of({stages}), "");
}

TEST(ReplicaOptions, ALengthOfTheRunThatNothingGivesIsMissing) {
  EXPECT_THAT(error_of({"train.stages=[{length: 20 steps}, {train_only: ['head.*']}]"}),
              AllOf(HasSubstr("train.stages.1.length: is missing"), HasSubstr("train.length")));
  EXPECT_THAT(error_of({"train.stages=[{length: 20%}, {length: 20 steps}]"}),
              AllOf(HasSubstr("train.stages.0.length: "), HasSubstr("train.length")));
  EXPECT_THAT(error_of({"train.stages=[{length: 0.01 epochs}]"}),
              HasSubstr("train.stages.0.length: 0.01 epochs rounds to no update; a longer one"));
  // The stages so far are not the run.
  EXPECT_THAT(error_of({"train.stages=[{length: 7 steps}, {length: 0.01 epochs}]"}),
              HasSubstr("train.stages.1.length: 0.01 epochs rounds to no update; a longer one"));
}

// At 0.89 a perfect network's loss is within 0.05 of ln 10: it would be called stuck.
TEST(CheckRun, SmoothedLabelsLeaveSomethingToLearn) {
  EXPECT_EQ(error_of({"label_smoothing=0.88"}), "");
  EXPECT_THAT(
      error_of({"label_smoothing=0.89"}),
      HasSubstr("label_smoothing: 0.89 leaves a loss of 2.259 at least, too close to chance, "
                "2.303, to tell whether a run has learned; a smaller one, such as 0.1"));
}

TEST(RecordIntervals, AreAtLeastOneUpdate) {
  for (const std::string key :
       {"train.eval_every", "train.checkpoint_every", "diagnostics.layers_every",
        "diagnostics.sharpness.every", "diagnostics.gradient_noise.every"}) {
    EXPECT_EQ(error_of({key + "=10%"}), "");
    EXPECT_THAT(error_of({key + "=0.0001%"}),
                HasSubstr(key + ": 0.0001% rounds to no update in a run of"));
  }
}

// There are 335 images, in 10 batches.
TEST(RecordIntervals, TheNoiseOfTheGradientIsOfBatchesThatThereAre) {
  EXPECT_EQ(error_of({"diagnostics.gradient_noise.batches=10"}), "");
  EXPECT_THAT(error_of({"diagnostics.gradient_noise.batches=11"}),
              HasSubstr("diagnostics.gradient_noise.batches: 11 batches of 32 are more than the 10 "
                        "of an epoch; at most 10"));
  // The default is 8; those of the validation set do not count.
  EXPECT_THAT(error_of({"diagnostics.gradient_noise={}", "data.validation=80"}),
              HasSubstr("8 batches of 32 are more than the 7 of an epoch; at most 7"));
  EXPECT_EQ(error_of({"diagnostics.gradient_noise.batches=40", "data.micro_batch=8"}), "");
  EXPECT_THAT(error_of({"diagnostics.gradient_noise.batches=41", "data.micro_batch=8"}),
              HasSubstr("41 batches of 8 are more than the 40 of an epoch; at most 40"));
  EXPECT_THAT(error_of({"diagnostics.gradient_noise.batches=2", "data.batch_size=200"}),
              HasSubstr("2 batches of 200 are more than the 1 of an epoch; a smaller "
                        "data.batch_size"));
}

TEST(ReplicaOptions, ABatchNormNeedsTwoValuesPerChannel) {
  const std::vector<std::string> tiny = {
      "model.layers=[max_pool: {kernel: 16}, {conv: {out: 4}}, {name: last, conv: {out: 4, "
      "batch_norm: true}}, linear: {out: 10}]"};
  const auto error_with = [&](const std::string& setting) {
    std::vector<std::string> settings = tiny;
    settings.push_back(setting);
    return error_of(settings);
  };
  EXPECT_EQ(error_with("data.micro_batch=2"), "");
  EXPECT_THAT(error_with("data.micro_batch=1"),
              HasSubstr("data.micro_batch: the batch norm of last would have one value per channel "
                        "to normalise; at least 2"));
  EXPECT_THAT(error_with("data.batch_size=1"),
              HasSubstr("data.batch_size: the batch norm of last"));
  EXPECT_EQ(error_of({"data.micro_batch=1"}), "");  // of a whole image
}

TEST(ReplicaOptions, StagesAreAsLongAsTheRun) {
  const auto with = [](const std::string& stages) {
    return error_of({"train.length=30 steps", "train.stages=" + stages});
  };
  EXPECT_THAT(with("[{length: 12 steps}, {length: 17 steps}]"),
              AllOf(HasSubstr("train.stages.1.length: "), HasSubstr("29"), HasSubstr("30")));
  EXPECT_THAT(with("[{length: 12 steps}, {length: 19 steps}]"),
              AllOf(HasSubstr("train.stages.1.length: "), HasSubstr("31"), HasSubstr("30")));
  EXPECT_THAT(with("[{length: 4 epochs}, {}]"),
              AllOf(HasSubstr("train.stages.0.length: "), HasSubstr("40")));
  EXPECT_THAT(with("[{length: 3 epochs}, {}]"), HasSubstr("train.stages.1: has no updates left"));
  EXPECT_THAT(with("[{length: 10 steps}, {length: 25 steps}, {}]"),
              HasSubstr("train.stages.1.length: "));
  EXPECT_THAT(with("[{length: 10 steps}]"), HasSubstr("train.stages.0.length: "));
  EXPECT_THAT(with("[{length: 60%}, {length: 60%}]"), HasSubstr("train.stages.1.length: "));
  EXPECT_THAT(with("[{}, {length: 10 steps}]"),
              AllOf(HasSubstr("train.stages.0.length: is missing"), HasSubstr("last")));
  EXPECT_EQ(with("[{length: 40%}, {length: 60%}]"), "");
  EXPECT_EQ(with("[{length: 29 steps}, {}]"), "");
}

TEST(ReplicaOptions, APatternThatMatchesNothingIsNamedWithWhatThereIs) {
  EXPECT_THAT(error_of({"train.length=30 steps",
                        "train.stages=[{length: 3 steps, train_only: ['head.*', 'heed.*']}, {}]"}),
              AllOf(HasSubstr("train.stages.0.train_only.1: 'heed.*' matches no parameter"),
                    HasSubstr("0.conv.weight"), HasSubstr("stem.batch_norm.weight"),
                    HasSubstr("and 3 more")));
  EXPECT_THAT(error_of({"train.length=30 steps",
                        "train.stages=[{length: 3 steps}, {train_only: ['*.weigth']}]"}),
              HasSubstr("train.stages.1.train_only.0: '*.weigth' matches no parameter"));
  EXPECT_THAT(error_of({"optimizer.groups=[{match: '*.bias'}, {match: 'conv.*'}]"}),
              AllOf(HasSubstr("optimizer.groups.1.match: 'conv.*' matches no parameter"),
                    HasSubstr("0.conv.weight")));
  // Patterns match whole names, case matters, and ? is one character.
  for (const char* pattern : {"Head.*", "head", "linear.weight", "?ead.linear", "?.linear.*"}) {
    EXPECT_THAT(error_of({fmt::format("optimizer.groups=[{{match: '{}'}}]", pattern)}),
                HasSubstr("matches no parameter"))
        << pattern;
  }
  for (const char* pattern : {"*", "head.linear.weight", "?ead.*", "*d*", "?.conv.*"}) {
    EXPECT_EQ(error_of({fmt::format("optimizer.groups=[{{match: '{}'}}]", pattern)}), "")
        << pattern;
  }
}

TEST(ReplicaOptions, TheFirstGroupThatMatchesHolds) {
  const ReplicaOptions options = options_of(
      {"optimizer.weight_decay=0.0625",
       "optimizer.groups=[{match: 'stem.*.bias', lr_scale: 0}, {match: '*.bias', weight_decay: "
       "0.5}, {match: 'stem.*', lr_scale: 0.25, weight_decay: 0.125}, {match: 'head.*', "
       "weight_decay: 0}]"});
  struct Expected {
    const char* name;
    float lr_scale;
    float weight_decay;
  };
  const Expected expected[] = {
      {"0.conv.weight", 1, 0.0625f},       {"0.conv.bias", 1, 0.5f},
      {"stem.conv.weight", 0.25f, 0.125f}, {"stem.batch_norm.weight", 0.25f, 0.125f},
      {"stem.batch_norm.bias", 0, 0},      {"hidden.linear.weight", 1, 0.0625f},
      {"hidden.linear.bias", 1, 0.5f},     {"head.linear.weight", 1, 0},
      {"head.linear.bias", 1, 0.5f}};
  ASSERT_EQ(options.parameters.size(), std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    ASSERT_EQ(expected[i].name, all_names[i]);
    EXPECT_EQ(options.parameters[i].lr_scale, expected[i].lr_scale) << expected[i].name;
    EXPECT_EQ(options.parameters[i].weight_decay, expected[i].weight_decay) << expected[i].name;
  }
}

TEST(ReplicaOptions, AGroupThatNeverHoldsIsRefused) {
  EXPECT_THAT(
      error_of({"optimizer.groups=[{match: '*'}, {match: '*.bias', lr_scale: 5}]"}),
      AllOf(HasSubstr("optimizer.groups.1.match: "), HasSubstr("belongs to an earlier group")));
}

}  // namespace
}  // namespace preheat
