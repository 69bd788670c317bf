#include "config/config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <sstream>

#include "settings.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

RunConfig config_of(const std::string& text, const std::vector<std::string>& settings = {}) {
  return read_config(with_settings(parse_document(text, "f.yaml"), settings));
}

std::string error_of(const std::string& text, const std::vector<std::string>& settings = {}) {
  try {
    config_of(text, settings);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string reference_text() {
  return bytes_of(PREHEAT_SOURCE_DIR "/configs/reference.yaml");
}

TEST(Config, DefaultsNeedNoFile) {
  const RunConfig c = config_of("");
  EXPECT_EQ(write_config(c), write_config(RunConfig{}));
  EXPECT_EQ(c.model.layers.size(), 8u);
  EXPECT_EQ(std::get<ConvLayer>(c.model.layers[3].layer).out, 64);
  EXPECT_TRUE(std::get<ConvLayer>(c.model.layers[3].layer).batch_norm);
  EXPECT_EQ(std::get<LinearLayer>(c.model.layers[6].layer).activation.kind, ActivationKind::relu);
  EXPECT_EQ(c.schedule.warmup.key, "schedule.warmup");
  EXPECT_EQ(c.schedule.warmup.name, "warmup");
  EXPECT_EQ(c.schedule.warmup.shape, "linear");
  EXPECT_FALSE(c.schedule.warmup.length);
  EXPECT_EQ(c.schedule.decay.shape, "cosine");
  EXPECT_EQ(c.schedule.decay.endpoints, "end");
  EXPECT_FALSE(c.compare);
}

TEST(Config, ReadsEveryKey) {
  const RunConfig c = config_of(R"(
name: a-1.b_c
seed: 18446744073709551615
data:
  dataset: cifar10
  dir: "/tmp/my data"
  batch_size: 64
  micro_batch: 16
  train_limit: 1000
  validation: 200
  normalize: {mean: [0.5, 0.25, -1], std: [1, 2, .5]}
  augment: {crop_padding: 4, flip: true}
model:
  layers:
    - conv: {out: 16, kernel: 5, stride: 2, batch_norm: true, activation: leaky_relu(0.1)}
      name: stem
    - max_pool
    - max_pool: {kernel: 3}
    - residual_stage: {blocks: 9, out: 32, stride: 2}
    - name: gap
      global_avg_pool:
    - linear: {out: 10}
  init: {scheme: xavier_uniform, gain: 2.5}
loss: cross_entropy
label_smoothing: 0.1
optimizer: {momentum: +0.95, nesterov: true, weight_decay: 5e-4}
schedule:
  base_lr: 1e-1
  warmup: {shape: power, length: 1.5 epochs, start_factor: 0.1, power: 2, endpoints: both}
  hold: 1 step
  decay: {shape: step, final_lr: 1e-5, endpoints: start, length: 50%, power: 3, gamma: 0.5, over: 1 epoch, at: [5 steps, 10 %]}
train: {length: 400 steps, eval_every: 10%, checkpoint_every: 2 epochs}
compare: {seeds: [7, 5], arms: {none: {schedule.warmup.length: 0 steps}, all: {}}}
)");
  EXPECT_EQ(c.name, "a-1.b_c");
  EXPECT_EQ(c.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(c.data.dataset, DatasetName::cifar10);
  EXPECT_EQ(c.data.dir, "/tmp/my data");
  EXPECT_EQ(c.data.batch_size, 64);
  EXPECT_EQ(c.data.micro_batch, 16);
  EXPECT_FALSE(config_of("data: {batch_size: 32, micro_batch: 32}\n").data.micro_batch);
  EXPECT_EQ(c.data.train_limit, 1000);
  EXPECT_EQ(c.data.validation, 200);
  EXPECT_FALSE(config_of("data: {validation: 0}\n").data.validation);
  EXPECT_THAT(c.data.normalize->mean, ElementsAre(0.5, 0.25, -1));
  EXPECT_THAT(c.data.normalize->std, ElementsAre(1, 2, 0.5));
  EXPECT_EQ(c.data.augment.crop_padding, 4);
  EXPECT_TRUE(c.data.augment.flip);
  ASSERT_EQ(c.model.layers.size(), 6u);
  const auto& conv = std::get<ConvLayer>(c.model.layers[0].layer);
  EXPECT_EQ(conv.out, 16);
  EXPECT_EQ(conv.kernel, 5);
  EXPECT_EQ(conv.stride, 2);
  EXPECT_EQ(conv.activation.kind, ActivationKind::leaky_relu);
  EXPECT_EQ(conv.activation.slope, 0.1);
  EXPECT_EQ(c.model.layers[0].name, "stem");
  EXPECT_EQ(std::get<MaxPoolLayer>(c.model.layers[1].layer).kernel, 2);
  EXPECT_EQ(std::get<MaxPoolLayer>(c.model.layers[2].layer).kernel, 3);
  EXPECT_EQ(std::get<ResidualStageLayer>(c.model.layers[3].layer).blocks, 9);
  EXPECT_TRUE(std::holds_alternative<GlobalAvgPoolLayer>(c.model.layers[4].layer));
  EXPECT_EQ(c.model.layers[4].name, "gap");
  EXPECT_EQ(std::get<LinearLayer>(c.model.layers[5].layer).activation.kind, ActivationKind::none);
  EXPECT_EQ(c.model.init_scheme, InitScheme::xavier_uniform);
  EXPECT_EQ(c.model.init_gain, 2.5);
  EXPECT_EQ(c.label_smoothing, 0.1);
  EXPECT_EQ(c.optimizer.momentum, 0.95);
  EXPECT_TRUE(c.optimizer.nesterov);
  EXPECT_EQ(c.optimizer.weight_decay, 5e-4);
  EXPECT_EQ(c.schedule.base_lr, 0.1);
  const PhaseConfig& warmup = c.schedule.warmup;
  EXPECT_EQ(warmup.shape, "power");
  EXPECT_EQ(warmup.length->value, 1.5);
  EXPECT_EQ(warmup.length->unit, LengthUnit::epochs);
  EXPECT_EQ(warmup.from->value, 0.1);
  EXPECT_EQ(warmup.from->kind, LrKind::times_base);
  EXPECT_EQ(warmup.power, 2);
  EXPECT_EQ(warmup.endpoints, "both");
  EXPECT_EQ(c.schedule.hold.value, 1);
  const PhaseConfig& decay = c.schedule.decay;
  EXPECT_EQ(decay.to->value, 1e-5);
  EXPECT_EQ(decay.to->kind, LrKind::absolute);
  EXPECT_EQ(decay.length->unit, LengthUnit::percent);
  EXPECT_EQ(decay.gamma, 0.5);
  EXPECT_EQ(decay.over->unit, LengthUnit::epochs);
  ASSERT_EQ(decay.at.size(), 2u);
  EXPECT_EQ(decay.at[1].value, 10);
  EXPECT_EQ(c.train.length->value, 400);
  EXPECT_EQ(c.train.checkpoint_every->value, 2);
  EXPECT_THAT(c.compare->seeds, ElementsAre(7, 5));
  ASSERT_EQ(c.compare->arms.size(), 2u);
  EXPECT_EQ(c.compare->arms[0].name, "none");
  EXPECT_EQ(c.compare->arms[0].overrides.at(0).key, "schedule.warmup.length");
  EXPECT_TRUE(c.compare->arms[1].overrides.empty());
}

TEST(Config, ReadsPhases) {
  const RunConfig c = config_of(
      "schedule:\n  phases:\n    - {shape: linear, to: 0.5x, length: 10%}\n"
      "    - {name: stairs, shape: step, from: base, to: 3, gamma: 0.1, over: 2 steps}\n");
  ASSERT_EQ(c.schedule.phases.size(), 2u);
  EXPECT_EQ(c.schedule.phases[0].key, "schedule.phases.0");
  EXPECT_EQ(c.schedule.phases[0].name, "phase-0");
  EXPECT_FALSE(c.schedule.phases[0].from);
  EXPECT_EQ(c.schedule.phases[0].to->value, 0.5);
  EXPECT_EQ(c.schedule.phases[0].to->kind, LrKind::times_base);
  EXPECT_EQ(c.schedule.phases[1].name, "stairs");
  EXPECT_EQ(c.schedule.phases[1].from->value, 1);
  EXPECT_EQ(c.schedule.phases[1].from->kind, LrKind::times_base);
  EXPECT_EQ(c.schedule.phases[1].to->kind, LrKind::absolute);
  // JSON has words in quotes.
  const RunConfig quoted =
      config_of("schedule: {phases: [{shape: linear, from: '0.5x', to: 'base'}]}");
  EXPECT_EQ(quoted.schedule.phases[0].from->value, 0.5);
  EXPECT_EQ(quoted.schedule.phases[0].to->kind, LrKind::times_base);
}

TEST(Config, ReadsHowAStepIsComputed) {
  const RunConfig defaults = config_of("");
  EXPECT_EQ(defaults.train.precision, Precision::fp32);
  EXPECT_TRUE(defaults.train.deterministic);
  EXPECT_TRUE(defaults.train.cuda_graph);
  EXPECT_FALSE(defaults.train.cpu_threads);
  const RunConfig c = config_of(
      "train: {precision: bf16, deterministic: false, cuda_graph: false, cpu_threads: 3}\n");
  EXPECT_EQ(c.train.precision, Precision::bf16);
  EXPECT_FALSE(c.train.deterministic);
  EXPECT_FALSE(c.train.cuda_graph);
  EXPECT_EQ(c.train.cpu_threads, 3);
  for (const char* name : {"fp32", "tf32", "bf16", "fp16"}) {
    EXPECT_EQ(to_string(config_of(fmt::format("train: {{precision: {}}}", name)).train.precision),
              name);
  }
}

TEST(Config, ReadsGroupsAndStages) {
  const RunConfig c = config_of(
      "optimizer:\n  groups:\n    - {match: '*.bias', lr_scale: 2.0, weight_decay: 0.0}\n"
      "    - {match: 'head.?onv.*'}\n"
      "train:\n  stages:\n    - {length: 20 epochs, train_only: ['head.*', '?.x']}\n"
      "    - {velocity: fresh, frozen_batch_norm: fixed}\n");
  ASSERT_EQ(c.optimizer.groups.size(), 2u);
  EXPECT_EQ(c.optimizer.groups[0].match, "*.bias");
  EXPECT_EQ(c.optimizer.groups[0].lr_scale, 2);
  EXPECT_EQ(c.optimizer.groups[0].weight_decay, 0.0);
  EXPECT_EQ(c.optimizer.groups[1].match, "head.?onv.*");
  EXPECT_EQ(c.optimizer.groups[1].lr_scale, 1);
  EXPECT_FALSE(c.optimizer.groups[1].weight_decay);
  ASSERT_EQ(c.train.stages.size(), 2u);
  EXPECT_THAT(c.train.stages[0].train_only, ElementsAre("head.*", "?.x"));
  EXPECT_EQ(c.train.stages[0].velocity, VelocityAtStage::kept);
  EXPECT_EQ(c.train.stages[0].frozen_batch_norm, FrozenBatchNorm::update);
  EXPECT_FALSE(c.train.stages[1].length);
  EXPECT_EQ(c.train.stages[1].velocity, VelocityAtStage::fresh);
  EXPECT_EQ(c.train.stages[1].frozen_batch_norm, FrozenBatchNorm::fixed);
  // A run is as long as its stages unless train.length says otherwise.
  EXPECT_FALSE(c.train.length);
  EXPECT_EQ(config_of("train: {stages: []}").train.length->value, 10);
  EXPECT_EQ(config_of("train: {length: 3 steps, stages: [{length: 1 step}]}").train.length->value,
            3);
  EXPECT_FALSE(config_of("train: {length: null, stages: [{length: 1 step}]}").train.length);
}

TEST(Config, ReadsGrids) {
  const RunConfig c = config_of(
      "sweep:\n  seeds: 5\n  axes:\n    schedule.base_lr: {log: [0.01, 1, 3]}\n"
      "    optimizer.momentum: {linear: [0.5, 0.9, 3]}\n"
      "    schedule.warmup.length: [0 steps, 10%]\n");
  const auto values = [](const Axis& axis) {
    std::string text = axis.key;
    for (const Node& value : axis.values) text += fmt::format(" {}", to_flow_text(value));
    return text;
  };
  ASSERT_TRUE(c.sweep);
  EXPECT_EQ(c.sweep->seeds.size(), 5u);
  ASSERT_EQ(c.sweep->axes.size(), 3u);
  EXPECT_EQ(values(c.sweep->axes[0]), "schedule.base_lr 0.01 0.1 1");
  EXPECT_EQ(values(c.sweep->axes[1]), "optimizer.momentum 0.5 0.7 0.9");
  EXPECT_EQ(values(c.sweep->axes[2]), "schedule.warmup.length 0 steps 10%");
  // The quotient of these ends is more than a double holds.
  const RunConfig wide = config_of(
      "sweep: {axes: {schedule.base_lr: {log: [1e-300, 1e12, 3]}, schedule.min_lr: {log: [1e12, "
      "1e-300, 3]}}}");
  EXPECT_EQ(values(wide.sweep->axes[0]), "schedule.base_lr 1e-300 1e-144 1000000000000");
  EXPECT_EQ(values(wide.sweep->axes[1]), "schedule.min_lr 1000000000000 1e-144 1e-300");
  // Whole numbers stay whole, and both ends are as given.
  const RunConfig whole = config_of(
      "sweep: {axes: {data.train_limit: {log: [128, 32768, 9]}, schedule.base_lr: {linear: "
      "[0.12345, 0.2, 3]}}}");
  EXPECT_EQ(values(whole.sweep->axes[0]),
            "data.train_limit 128 256 512 1024 2048 4096 8192 16384 32768");
  EXPECT_EQ(values(whole.sweep->axes[1]), "schedule.base_lr 0.12345 0.1617 0.2");
  EXPECT_EQ(config_of("find_lr: {}").find_lr->seeds.size(), 5u);
  EXPECT_TRUE(config_of("find_lr: {}").find_lr->arms.empty());
  EXPECT_FALSE(config_of("").sweep || config_of("").find_lr || config_of("").compare);
}

TEST(Config, ReadsDiagnosticsAndAStartToBeFound) {
  const RunConfig c = config_of(
      "diagnostics: {layers_every: 5 steps, sharpness: {every: 20 steps, examples: 512}, "
      "gradient_noise: {batches: 3}}\n"
      "schedule: {warmup: {start_lr: auto}}\n");
  EXPECT_EQ(c.diagnostics.layers_every->value, 5);
  EXPECT_EQ(c.diagnostics.sharpness->examples, 512);
  EXPECT_EQ(c.diagnostics.sharpness->every.value, 20);
  EXPECT_EQ(c.diagnostics.sharpness->iterations, 30);
  EXPECT_EQ(c.schedule.warmup.from->kind, LrKind::automatic);
  EXPECT_EQ(c.diagnostics.gradient_noise->batches, 3);
  EXPECT_EQ(c.diagnostics.gradient_noise->every.value, 50);
  EXPECT_EQ(c.diagnostics.gradient_noise->every.unit, LengthUnit::steps);
  EXPECT_FALSE(config_of("").diagnostics.sharpness);
  EXPECT_FALSE(config_of("").diagnostics.gradient_noise);
}

TEST(Config, ReadsSeeds) {
  const auto seeds = [](const std::string& text) {
    return config_of("", {"compare={seeds: " + text + ", arms: {a: {}}}"}).compare->seeds;
  };
  EXPECT_THAT(seeds("100..104"), ElementsAre(100, 101, 102, 103, 104));
  EXPECT_THAT(seeds("5..5"), ElementsAre(5));
  EXPECT_THAT(seeds("3"), ElementsAre(0, 1, 2));
  EXPECT_THAT(seeds("[9, 2]"), ElementsAre(9, 2));
  EXPECT_THAT(seeds("18446744073709551614..18446744073709551615"),
              ElementsAre(18446744073709551614u, 18446744073709551615u));
  EXPECT_EQ(seeds("0..9999").size(), 10000u);
  EXPECT_EQ(config_of("compare: {arms: {a: }}").compare->seeds.size(), 10u);
  // Neighbours only where numbers wrap around, which a range does not.
  const RunConfig wrapped =
      config_of("", {"compare={seeds: [18446744073709551615, 0], arms: {a: {}}}"});
  EXPECT_THAT(config_of(write_config(wrapped)).compare->seeds,
              ElementsAre(18446744073709551615u, 0u));
}

TEST(Config, SettingsMakeTheirSections) {
  EXPECT_EQ(config_of("", {"train.length=400 steps"}).train.length->value, 400);
  EXPECT_EQ(config_of("", {"schedule.warmup={length: 3 steps}"}).schedule.warmup.length->value, 3);
  EXPECT_EQ(config_of("", {"schedule.warmup.length=3 steps"}).schedule.warmup.length->value, 3);
  EXPECT_EQ(config_of("schedule:\n", {"schedule.base_lr=3"}).schedule.base_lr, 3);
  EXPECT_EQ(config_of("", {"model.layers=[max_pool, linear: {out: 3}]"}).model.layers.size(), 2u);
  EXPECT_EQ(std::get<LinearLayer>(
                config_of("model: {layers: [linear: {out: 3}]}", {"model.layers.0.linear.out=7"})
                    .model.layers[0]
                    .layer)
                .out,
            7);
  const RunConfig c = config_of("compare: {arms: {a: {schedule.hold: 1 step}, b: {}}}",
                                {"compare.seeds=100..104", "compare.arms.a.schedule.hold=2 steps"});
  EXPECT_EQ(c.compare->seeds.size(), 5u);
  ASSERT_EQ(c.compare->arms[0].overrides.size(), 1u);
  EXPECT_EQ(c.compare->arms[0].overrides[0].value.scalar, "2 steps");
  const RunConfig axes = config_of("", {"sweep.axes.schedule.base_lr=[0.1, 0.2]"});
  ASSERT_EQ(axes.sweep->axes.size(), 1u);
  EXPECT_EQ(axes.sweep->axes[0].key, "schedule.base_lr");
  EXPECT_EQ(axes.sweep->axes[0].values.size(), 2u);
  // null removes a section, so that another form can take its place.
  EXPECT_EQ(config_of("schedule: {warmup: {power: 1}}",
                      {"schedule.warmup=null", "schedule.phases=[{shape: constant, from: base}]"})
                .schedule.phases.size(),
            1u);
}

TEST(Config, AnArmMayChangeAKeyOfASectionThatItReplaces) {
  const Document document = parse_document(
      "schedule: {warmup: {shape: cosine}}\n"
      "compare: {arms: {a: {schedule.warmup: {power: 2}, schedule.warmup.length: 3 steps,\n"
      "  optimizer.momentum_form: folded, optimizer.momentum: 0.5}}}",
      "f.yaml");
  const RunConfig base = read_config(document);
  const RunConfig arm = read_config(with_overrides(document, base.compare->arms[0].overrides));
  EXPECT_EQ(arm.schedule.warmup.shape, "linear");
  EXPECT_EQ(arm.schedule.warmup.power, 2);
  EXPECT_EQ(arm.schedule.warmup.length->value, 3);
  // A name that only begins like another is no section of it.
  EXPECT_EQ(arm.optimizer.momentum_form, MomentumForm::folded);
  EXPECT_EQ(arm.optimizer.momentum, 0.5);
}

TEST(Config, ArmsApplyLikeSettings) {
  const Document document = parse_document(
      "compare: {arms: {a: {schedule.warmup.length: 0 steps, optimizer: {momentum: 0}}}}",
      "f.yaml");
  const RunConfig base = read_config(document);
  const RunConfig arm = read_config(with_overrides(document, base.compare->arms[0].overrides));
  EXPECT_EQ(arm.schedule.warmup.length->value, 0);
  EXPECT_EQ(arm.optimizer.momentum, 0);
  EXPECT_EQ(base.optimizer.momentum, 0.9);
}

struct Wrong {
  std::string text;
  std::string place;                    // how the message begins
  std::vector<std::string> substrings;  // what else it says
};

TEST(Config, SaysWhatIsWrongAndWhatWouldBeRight) {
  const std::string conv = "model: {layers: [conv: {out: 3, ";
  const Wrong rows[] = {
      // unknown keys
      {"schedule:\n  warmup:\n    lenght: 5 epochs\n",
       "f.yaml:3:5: schedule.warmup.lenght: unknown key; did you mean length?",
       {}},
      {"optimiser: {}\n", "f.yaml:1:1: optimiser:", {"unknown key; did you mean optimizer?"}},
      {"sede: 1\n", "f.yaml:1:1: sede:", {"unknown key; did you mean seed?"}},
      {"modxyz: 1\n", "f.yaml:1:1: modxyz:", {"unknown key; the keys here are name, seed, data"}},
      {"seed: 1\nbatch_size: 3\n", "f.yaml:2:1: batch_size:", {"did you mean data.batch_size?"}},
      {"lr: 3\n", "f.yaml:1:1: lr:", {"did you mean schedule.base_lr or "}},
      {"zzzz: {}\n", "f.yaml:1:1: zzzz:", {"unknown key", "the keys here are name, seed, data"}},
      {"length: 3\n",
       "f.yaml:1:1: length: unknown key; did you mean schedule.phases[].length or "
       "schedule.warmup.length or schedule.decay.length?",
       {}},
      {fmt::format("model: {{layers: [{}]}}\n", std::string(100, 'x')),
       "f.yaml:1:18: model.layers.0: ",
       {"where a section of keys is expected"}},
      {"train: {epochs: 3}\n", "f.yaml:1:9: train.epochs:", {"unknown key", "length, eval_every"}},
      {"train: {precision: fp64}\n",
       "f.yaml:1:9: train.precision:",
       {"\"fp64\" is not a precision", "write fp32 | tf32 | bf16 | fp16"}},
      {"train: {cpu_threads: 0}\n", "f.yaml:1:9: train.cpu_threads:", {"is out of range"}},
      {"train: {cuda_graph: 1}\n", "f.yaml:1:9: train.cuda_graph:", {"write true or false"}},
      {"model:\n  layers:\n    - max_pol\n",
       "f.yaml:3:7: model.layers.0.max_pol:",
       {"unknown key; did you mean max_pool?"}},
      {"model:\n  layers:\n    - conv:\n      out: 3\n",
       "f.yaml:4:7: model.layers.0.out:",
       {"did you mean model.layers[].conv.out"}},
      {"model: {layers: [global_avg_pool: {foo: 3}]}\n",
       "f.yaml:1:36:",
       {"there are no keys here"}},
      // kinds of values
      {"data: 3\n", "f.yaml:1:1: data: \"3\" where a section of keys is expected", {}},
      {"data: [1]\n", "f.yaml:1:1: data: a list where a section", {}},
      {"seed: {a: 1}\n", "f.yaml:1:1: seed: a section is not a whole number", {}},
      {"seed: null\n", "f.yaml:1:1: seed: null is not a whole number", {}},
      {"seed: 1.5\n", "f.yaml:1:1: seed: \"1.5\" is not a whole number", {}},
      {"seed: -1\n", "f.yaml:1:1: seed:", {"from 0 to 18446744073709551615"}},
      {"seed: 18446744073709551616\n", "f.yaml:1:1: seed:", {"is out of range"}},
      {"name: a b\n", "f.yaml:1:1: name: \"a b\" is not allowed here", {"letters, digits"}},
      {"name: .hidden\n", "f.yaml:1:1: name:", {"begin with a letter or a digit"}},
      {"name: ../up\n", "f.yaml:1:1: name:", {"letters, digits"}},
      {"name: " + std::string(101, 'n') + "\n", "f.yaml:1:1: name:", {"nnn...\"", "1 to 100"}},
      {"name: [a]\n", "f.yaml:1:1: name: a list is not a text", {}},
      // numbers
      {"optimizer:\n  momentum: abc\n",
       "f.yaml:2:3: optimizer.momentum: \"abc\" is not a number",
       {"write a number of at least 0 and below 1"}},
      {"optimizer: {momentum: \"0.5\"}", "f.yaml:1:13:", {"\"0.5\" in quotes is not a number"}},
      {"optimizer: {momentum: 1}", "f.yaml:1:13:", {"\"1\" is out of range", "below 1"}},
      {"optimizer: {momentum: -0.1}", "f.yaml:1:13:", {"is out of range"}},
      {"optimizer: {momentum: .nan}", "f.yaml:1:13:", {"\".nan\" is not a number"}},
      {"optimizer: {momentum: nan}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: .inf}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: inf}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: -inf}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: 1e400}", "f.yaml:1:13:", {"\"1e400\" is out of range"}},
      {"optimizer: {weight_decay: 1e30}", "f.yaml:1:13:", {"is out of range"}},
      {"optimizer: {weight_decay: 1e}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: 0x10}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: 1 2}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: 1_0}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: ++1}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {weight_decay: +-1}", "f.yaml:1:13:", {"is not a number"}},
      {"optimizer: {nesterov: yes}", "f.yaml:1:13:", {"write true or false"}},
      {"optimizer: {nesterov: \"true\"}", "f.yaml:1:13:", {"write true or false"}},
      {"optimizer: {nesterov: 1}", "f.yaml:1:13:", {"write true or false"}},
      {"optimizer: {momentum: 0, nesterov: true}",
       "f.yaml:1:26: optimizer.nesterov:",
       {"needs a momentum above 0", "write momentum: 0.9"}},
      {"optimizer: {momentum: 0.99999999}\n",
       "f.yaml:1:13: optimizer.momentum: is 1 in single precision; write at most 0.9999999",
       {}},
      {"data: {normalize: {mean: [0], std: [1e-300]}}\n",
       "f.yaml:1:37: data.normalize.std.0:",
       {"\"1e-300\" is out of range"}},
      {"label_smoothing: 1\n", "f.yaml:1:1: label_smoothing:", {"is out of range"}},
      {"loss: mse\nlabel_smoothing: 0.1\n", "f.yaml:2:1: label_smoothing:", {"only cross_entropy"}},
      {"loss: crossentropy\n", "f.yaml:1:1: loss:", {"is not a loss; write cross_entropy | mse"}},
      // data
      {"data: {dataset: imagenet}\n",
       "f.yaml:1:8: data.dataset:",
       {"\"imagenet\" is not a dataset", "fashion-mnist | mnist | cifar10 | synthetic"}},
      {"data: {dir: \"a\\0b\"}\n", "f.yaml:1:8: data.dir:", {"a\\x00b", "write the path"}},
      {"data: {dir: \"\"}\n", "f.yaml:1:8: data.dir:", {"write the path of a folder"}},
      {"data: {batch_size: 0}\n", "f.yaml:1:8: data.batch_size:", {"from 1 to 65536"}},
      {"data: {batch_size: 128.5}\n", "f.yaml:1:8:", {"\"128.5\" is not a whole number"}},
      {"data: {batch_size: 99999999999999999999}\n", "f.yaml:1:8:", {"is out of range"}},
      {"data: {micro_batch: 0}\n", "f.yaml:1:8: data.micro_batch:", {"is out of range"}},
      {"data: {micro_batch: 256}\n",
       "f.yaml:1:8: data.micro_batch:",
       {"256 does not divide the batch_size of 128; give a divisor of it"}},
      {"data: {batch_size: 96, micro_batch: 36}\n",
       "f.yaml:1:24: data.micro_batch:",
       {"36 does not divide the batch_size of 96"}},
      {"data: {train_limit: 0}\n", "f.yaml:1:8: data.train_limit:", {"is out of range"}},
      {"data: {validation: -1}\n", "f.yaml:1:8: data.validation:", {"is out of range"}},
      {"data: {validation: 10%}\n", "f.yaml:1:8: data.validation:", {"is not a whole number"}},
      {"data: {normalize: {mean: [1]}}\n", "f.yaml:1:8: data.normalize.std:", {"missing"}},
      {"data: {normalize: {mean: [1], std: [1, 2]}}\n",
       "f.yaml:1:31: data.normalize.std:",
       {"different numbers of values"}},
      {"data: {normalize: {mean: [1], std: [0]}}\n",
       "f.yaml:1:37: data.normalize.std.0:",
       {"at least 1e-06"}},
      {"data: {normalize: {mean: [], std: []}}\n",
       "f.yaml:1:20: data.normalize.mean:",
       {"is empty"}},
      {"data: {normalize: {mean: 1, std: 1}}\n", "f.yaml:1:20:", {"is not a list"}},
      {"data: {augment: {crop_padding: 17}}\n",
       "f.yaml:1:18: data.augment.crop_padding:",
       {"from 0 to 16"}},
      // expect
      {"expect: [accuracy_falls: {arms: [a, b]}]\n",
       "f.yaml:1:27: expect.0.accuracy_falls.arms: a list of 2 is too short",
       {"at least 3"}},
      {"expect: [failures: {arm: a, above: 1}]\n",
       "f.yaml:1:29: expect.0.failures.above: \"1\" is out of range",
       {"below 1"}},
      {"expect: [failures: {arm: a, below: 0}]\n",
       "f.yaml:1:29: expect.0.failures.below:",
       {"above 0 and at most 1"}},
      {"expect: [unstable_start: {arm: a, share: 1}]\n", "f.yaml:1:35:", {"below 1"}},
      {"expect: [holds_below: {arm: a, share: 1}]\n", "f.yaml:1:32:", {"below 1"}},
      {"expect: [gate_opens: {arm: a, share: 1, from: 1 steps, to: 2 steps}]\n",
       "f.yaml:1:31:",
       {"below 1"}},
      {"expect: [accuracy: {arms: [a, b], at_least: -1}]\n", "f.yaml:1:35:", {"above -1"}},
      {"expect: [accuracy: {arms: [a, b], at_least: 1}]\n", "f.yaml:1:35:", {"below 1"}},
      {"expect: [accuracy_alike: {arms: [a, b], within: 1}]\n", "f.yaml:1:41:", {"below 1"}},
      {"expect: [accuracy_moves: {along: seed, beyond: 1}]\n", "f.yaml:1:40:", {"below 1"}},
      // model
      {"model: {layers: []}\n", "f.yaml:1:9: model.layers: a list is empty", {}},
      {"model: {layers: conv}\n", "f.yaml:1:9: model.layers:", {"is not a list"}},
      {"model: {layers: [[conv]]}\n", "f.yaml:1:18: model.layers.0:", {"a list where a section"}},
      {"model: {layers: [conv]}\n", "f.yaml:1:18: model.layers.0.conv.out: missing", {}},
      {"model: {layers: [conv: {stride: 1}]}\n",
       "f.yaml:1:18: model.layers.0.conv.out: missing",
       {}},
      {"model: {layers: [name: a]}\n",
       "f.yaml:1:18: model.layers.0:",
       {"an item without a layer", "conv | max_pool | residual_stage | global_avg_pool | linear"}},
      {"model: {layers: [{linear: {out: 1}, max_pool: {}}]}\n",
       "f.yaml:1:18:",
       {"two layers in one item"}},
      {conv + "kernel: 2}]}\n",
       "f.yaml:1:33: model.layers.0.conv.kernel:",
       {"\"2\" is even; write an odd whole number from 1 to 15"}},
      {conv + "kernel: 17}]}\n", "f.yaml:1:33:", {"is out of range"}},
      {conv + "stride: 9}]}\n", "f.yaml:1:33:", {"from 1 to 8"}},
      {conv + "activation: gelu}]}\n", "f.yaml:1:33:", {"none | relu | leaky_relu(0.1) | tanh"}},
      {conv + "activation: leaky_relu}]}\n", "f.yaml:1:33:", {"leaky_relu(0.1)"}},
      {conv + "activation: leaky_relu(1)}]}\n", "f.yaml:1:33:", {"above 0 and below 1"}},
      {conv + "activation: leaky_relu()}]}\n", "f.yaml:1:33:", {"is not a number"}},
      {"model: {layers: [max_pool: {kernel: 1}]}\n", "f.yaml:1:29:", {"from 2 to 16"}},
      {"model: {layers: [linear: {out: 65537}]}\n", "f.yaml:1:27:", {"from 1 to 65536"}},
      {"model: {layers: [residual_stage: {out: 1, blocks: 1001}]}\n", "f.yaml:1:43:", {"to 1000"}},
      {"model: {layers: [{max_pool: {}, name: 12}]}\n",
       "f.yaml:1:33: model.layers.0.name:",
       {"at least one letter"}},
      {"model: {layers: [{max_pool: {}, name: a.b}]}\n", "f.yaml:1:33:", {"any of _ -"}},
      {"model:\n  layers:\n    - max_pool:\n      name: a\n    - max_pool:\n      name: a\n",
       "f.yaml:6:7: model.layers.1.name: another layer has this name",
       {}},
      {"model: {init: {scheme: he}}\n",
       "f.yaml:1:16: model.init.scheme:",
       {"he_normal | he_uniform"}},
      {"model: {init: {gain: 0}}\n", "f.yaml:1:16: model.init.gain:", {"above 0"}},
      // schedule
      {"schedule: {base_lr: 0}\n", "f.yaml:1:12: schedule.base_lr:", {"above 0"}},
      {"schedule: {base_lr: -1}\n", "f.yaml:1:12:", {"is out of range"}},
      {"schedule:\n  warmup: {length: 400}\n",
       "f.yaml:2:12: schedule.warmup.length:",
       {"\"400\" has no unit; write 400 steps, 400 epochs or a percentage of the run"}},
      {"schedule: {hold: -1 steps}\n", "f.yaml:1:12: schedule.hold:", {"is out of range"}},
      {"schedule: {hold: 1.5 steps}\n", "f.yaml:1:12:", {"is not a whole number of steps"}},
      {"schedule: {hold: 101%}\n", "f.yaml:1:12:", {"write from 0 to 100%"}},
      {"schedule: {hold: 1e13 steps}\n", "f.yaml:1:12:", {"write from 0 to 1000000000000 steps"}},
      {"schedule: {hold: 1e999 epochs}\n", "f.yaml:1:12:", {"is out of range"}},
      {"schedule: {hold: nan steps}\n", "f.yaml:1:12:", {"is not a length"}},
      {"schedule: {hold: inf epochs}\n", "f.yaml:1:12:", {"is not a length"}},
      {"schedule: {hold: 3 minutes}\n",
       "f.yaml:1:12:",
       {"has an unknown unit; the units are steps"}},
      {"schedule: {hold: 3 steps more}\n", "f.yaml:1:12:", {"has an unknown unit"}},
      {"schedule: {hold: steps}\n", "f.yaml:1:12:", {"is not a length; write a length such as"}},
      {"schedule: {hold: [1]}\n", "f.yaml:1:12:", {"a list is not a length"}},
      {"schedule: {hold: null}\n", "f.yaml:1:12:", {"null is not a length"}},
      {"schedule: {warmup: {start_lr: 0, start_factor: 1}}\n",
       "f.yaml:1:34: schedule.warmup.start_factor: start_lr is given too; keep one",
       {}},
      {"schedule: {decay: {final_factor: 0, final_lr: 1}}\n",
       "f.yaml:1:20: schedule.decay.final_factor: final_lr is given too",
       {}},
      {"schedule: {warmup: {start_lr: 0.1x}}\n", "f.yaml:1:21:", {"is not a number"}},
      {"schedule: {warmup: {start_lr: -1}}\n", "f.yaml:1:21:", {"is out of range"}},
      {"schedule: {warmup: {shape: [a]}}\n", "f.yaml:1:21: schedule.warmup.shape:", {"not a text"}},
      {"schedule: {decay: {gamma: fast}}\n", "f.yaml:1:20: schedule.decay.gamma:", {"a number"}},
      {"schedule: {scale: {rule: linear}}\n",
       "f.yaml:1:12: schedule.scale.reference_batch: missing",
       {}},
      {"schedule: {scale: {rule: cube, reference_batch: 1}}\n",
       "f.yaml:1:20: schedule.scale.rule:",
       {"is not a scaling rule; write linear | sqrt"}},
      {"schedule: {min_lr: -1}\n", "f.yaml:1:12: schedule.min_lr:", {"is out of range"}},
      {"schedule: {warmup: {every: hour}}\n",
       "f.yaml:1:21: schedule.warmup.every:",
       {"write step | epoch"}},
      {"schedule: {warmup: {toward: curve}}\n",
       "f.yaml:1:21: schedule.warmup.toward:",
       {"only a warmup that overlaps", "write overlap: true"}},
      {"schedule: {warmup: {until: {}}}\n",
       "f.yaml:1:21: schedule.warmup.until.train_error_below: missing",
       {}},
      {"schedule: {warmup: {until: {train_error_below: 1.5}}}\n",
       "f.yaml:1:29: schedule.warmup.until.train_error_below:",
       {"above 0 and at most 1"}},
      {"schedule: {decay: {multiply: 0.5}}\n",
       "f.yaml:1:20: schedule.decay.multiply:",
       {"of at least 1"}},
      {"schedule: {decay: {peak_factor: 2}}\n", "f.yaml:1:20:", {"above 0 and at most 1"}},
      // optimizer
      {"optimizer: {momentum_form: heavy}\n",
       "f.yaml:1:13: optimizer.momentum_form:",
       {"write separate | folded"}},
      {"optimizer: {momentum_correction: true}\n",
       "f.yaml:1:13: optimizer.momentum_correction:",
       {"the separate form needs none", "momentum_form: folded"}},
      {"optimizer: {clip_norm: 0}\n", "f.yaml:1:13: optimizer.clip_norm:", {"above 0"}},
      {"optimizer: {groups: [{lr_scale: 2}]}\n",
       "f.yaml:1:22: optimizer.groups.0.match: missing",
       {}},
      {"optimizer: {groups: [{match: \"a b\"}]}\n",
       "f.yaml:1:23: optimizer.groups.0.match:",
       {"any of . _ - * ?"}},
      {"optimizer: {groups: [{match: *.bias}]}\n", "f.yaml:1:", {"in quotes"}},
      {"optimizer:\n  groups:\n    - match: *bias\n", "f.yaml:3:", {"in quotes"}},
      {"optimizer:\n  groups:\n    - match: *\n", "f.yaml:3:", {"in quotes"}},
      // lengths and phases of a schedule
      {"schedule: {decay: {over: 0 steps}}\n", "f.yaml:1:20:", {"is too short; write more than 0"}},
      {"schedule: {decay: {at: []}}\n", "f.yaml:1:20: schedule.decay.at:", {"is empty"}},
      {"schedule: {decay: {at: [1 step, 5]}}\n",
       "f.yaml:1:33: schedule.decay.at.1:",
       {"has no unit"}},
      {"schedule:\n  hold: 1 step\n  phases: [{shape: linear}]\n",
       "f.yaml:3:3: schedule.phases: hold is given too",
       {"phases stand in place of warmup, hold, decay"}},
      {"schedule: {phases: []}\n", "f.yaml:1:12: schedule.phases:", {"is empty"}},
      {"schedule: {phases: [{length: 1 step}]}\n",
       "f.yaml:1:21: schedule.phases.0.shape: missing",
       {}},
      {"schedule: {phases: [{shape: linear, from: 0.1y}]}\n",
       "f.yaml:1:37: schedule.phases.0.from:",
       {"a number of at least 0, base, or a factor such as 0.1x"}},
      {"schedule: {phases: [{shape: linear, to: -1x}]}\n", "f.yaml:1:37:", {"is out of range"}},
      {"schedule: {phases: [{shape: linear, to: x}]}\n", "f.yaml:1:37:", {"not a learning rate"}},
      {"schedule: {phases: [{shape: linear, start_lr: 1}]}\n",
       "f.yaml:1:37:",
       {"unknown key", "did you mean schedule.warmup.start_lr?"}},
      // train
      {"train: {length: 0 steps}\n", "f.yaml:1:9: train.length:", {"is too short"}},
      {"train: {length: 400}\n", "f.yaml:1:9:", {"has no unit; write 400 steps or 400 epochs"}},
      {"train: {length: 10%}\n", "f.yaml:1:9:", {"the units are steps or epochs"}},
      {"train: {stages: [{length: 0 steps}]}\n",
       "f.yaml:1:19: train.stages.0.length:",
       {"is too short"}},
      {"train: {stages: [{train_only: []}]}\n",
       "f.yaml:1:19: train.stages.0.train_only:",
       {"is empty"}},
      {"train: {stages: [{velocity: zero}]}\n", "f.yaml:1:19:", {"write kept | fresh"}},
      {"train: {stages: [{frozen_batch_norm: off}]}\n", "f.yaml:1:19:", {"write update | fixed"}},
      {"train: {eval_every: 0 epochs}\n", "f.yaml:1:9: train.eval_every:", {"is too short"}},
      // compare
      {"compare: {seeds: 3}\n", "f.yaml:1:1: compare.arms: missing", {}},
      {"compare: {arms: {}}\n", "f.yaml:1:11: compare.arms:", {"has no arm"}},
      {"compare: {arms: {a: {schedule.warmup.length: 3 steps, schedule.warmup: {shape: "
       "cosine}}}}\n",
       "f.yaml:1:55: compare.arms.a.schedule.warmup: replaces the section of "
       "schedule.warmup.length before it; write the section first, then schedule.warmup.length",
       {}},
      {"sweep: {axes: {schedule.warmup.length: [3 steps], schedule: [{base_lr: 1}]}}\n",
       "f.yaml:1:51: sweep.axes.schedule: replaces the section of schedule.warmup.length",
       {}},
      {"compare: {arms: [a]}\n", "f.yaml:1:11: compare.arms:", {"is not a set of arms"}},
      {"compare: {arms: {a/b: {}}}\n", "f.yaml:1:18: compare.arms.a/b:", {"letters, digits"}},
      {"compare: {arms: {report.html: {}}}\n",
       "f.yaml:1:18: compare.arms.report.html:",
       {"is the name of a file in an experiment's folder"}},
      {"compare: {arms: {compare.json.1.tmp: {}}}\n",
       "f.yaml:1:18: compare.arms.compare.json.1.tmp:",
       {"is the name of a file in an experiment's folder"}},
      {"find_lr: {arms: {config.yaml.12.tmp: {}}}\n",
       "f.yaml:1:18: find_lr.arms.config.yaml.12.tmp:",
       {"is the name of a file in an experiment's folder"}},
      {"compare: {arms: {a: 3}}\n", "f.yaml:1:18: compare.arms.a:", {"is not a set of keys"}},
      {"compare: {arms: {a: {seed: 3}}}\n", "f.yaml:1:22:", {"an arm cannot change this"}},
      {"compare: {arms: {a: {name: x}}}\n", "f.yaml:1:22:", {"an arm cannot change this"}},
      {"compare: {arms: {a: {compare.seeds: 3}}}\n", "f.yaml:1:22:", {"an arm cannot change this"}},
      {"compare:\n  arms:\n    a:\n      schedule.warmup.lenght: 0 steps\n",
       "f.yaml:4:7: schedule.warmup.lenght: unknown key; did you mean length?",
       {}},
      {"compare:\n  arms:\n    a: {}\n    b: {train.length: 7}\n",
       "f.yaml:4:9: train.length:",
       {"has no unit"}},
      {"compare: {arms: {a: {}}, seeds: []}\n", "f.yaml:1:26: compare.seeds:", {"is empty"}},
      {"compare: {arms: {a: {}}, seeds: 0}\n", "f.yaml:1:26:", {"leaves no seed"}},
      {"compare: {arms: {a: {}}, seeds: 9..0}\n", "f.yaml:1:26:", {"counts down"}},
      {"compare: {arms: {a: {}}, seeds: 0..10000}\n",
       "f.yaml:1:26:",
       {"too many", "at most 10000"}},
      {"compare: {arms: {a: {}}, seeds: 0..18446744073709551615}\n", "f.yaml:1:26:", {"too many"}},
      {"compare: {arms: {a: {}}, seeds: 99999999999999999999}\n", "f.yaml:1:26:", {"too many"}},
      {"compare: {arms: {a: {}}, seeds: 1..}\n", "f.yaml:1:26:", {"is not a range of seeds"}},
      {"compare: {arms: {a: {}}, seeds: many}\n", "f.yaml:1:26:", {"is not a set of seeds"}},
      // sweep and find_lr
      {"sweep: {}\n", "f.yaml:1:1: sweep.axes: missing", {}},
      {"sweep: {axes: {}}\n", "f.yaml:1:9: sweep.axes:", {"has no axis"}},
      {"sweep: {axes: {schedule.base_lr: 3}}\n", "f.yaml:1:16:", {"is not a list"}},
      {"sweep: {axes: {schedule.base_lr: []}}\n", "f.yaml:1:16:", {"is empty"}},
      {"sweep: {axes: {schedule.base_lr: [fast]}}\n",
       "f.yaml:1:16: schedule.base_lr:",
       {"\"fast\" is not a number"}},
      {"sweep: {axes: {schedule.base_lt: [1]}}\n", "f.yaml:1:16:", {"did you mean base_lr?"}},
      {"sweep: {axes: {seed: [1, 2]}}\n", "f.yaml:1:16:", {"an arm cannot change this"}},
      {"sweep: {axes: {schedule.base_lr: {cubic: [1, 2, 3]}}}\n",
       "f.yaml:1:16:",
       {"is not a row of values", "{log: [from, to, how many]}"}},
      {"sweep: {axes: {schedule.base_lr: {log: [0, 2, 3]}}}\n", "f.yaml:1:", {"above 0"}},
      {"sweep: {axes: {schedule.base_lr: {log: [1, 2, 1]}}}\n", "f.yaml:1:", {"from 2 to 200"}},
      {"sweep: {axes: {schedule.base_lr: {log: [1, 2]}}}\n",
       "f.yaml:1:35: sweep.axes.schedule.base_lr.log: ",
       {"write 3 items"}},
      {"find_lr: {first: 1.1e8}\n", "f.yaml:1:11: find_lr.first:", {"is out of range", "1e-08"}},
      {"find_lr: {first: 9e-9}\n", "f.yaml:1:11: find_lr.first:", {"is out of range"}},
      {"sweep: {axes: {schedule.base_lr: {log: [1, 2, 200]}, optimizer.momentum: {linear: [0, 0.5, "
       "200]}}}\n",
       "f.yaml:1:9: sweep.axes:",
       {"of 40000 cells is too large a grid", "at most 10000"}},
      {"find_lr: {resolution: 1}\n", "f.yaml:1:11: find_lr.resolution:", {"above 1"}},
      {"find_lr: {arms: {a: {schedule.base_l: 3}}}\n", "f.yaml:1:22:", {"did you mean base_lr?"}},
      {"diagnostics: {sharpness: {examples: 0}}\n",
       "f.yaml:1:27: diagnostics.sharpness.examples:",
       {"from 1 to"}},
      {"diagnostics: {gradient_noise: {batches: 1}}\n",
       "f.yaml:1:32: diagnostics.gradient_noise.batches:",
       {"from 2 to 1000"}},
      {"diagnostics: {gradient_noise: {batches: 1001}}\n",
       "f.yaml:1:32: diagnostics.gradient_noise.batches:",
       {"from 2 to 1000"}},
      {"diagnostics: {gradient_noise: {every: 0 steps}}\n",
       "f.yaml:1:32: diagnostics.gradient_noise.every:",
       {"is too short"}},
      {"schedule: {decay: {final_lr: auto}}\n", "f.yaml:1:20:", {"is not a number"}},
      {"schedule: {warmup: {start_factor: auto}}\n", "f.yaml:1:21:", {"is not a number"}},
      {"compare: {arms: {a: {}}, seeds: [1, 1]}\n",
       "f.yaml:1:37: compare.seeds.1:",
       {"appears twice"}},
  };
  for (const Wrong& row : rows) {
    const std::string message = error_of(row.text);
    EXPECT_THAT(message, StartsWith(row.place)) << row.text;
    for (const std::string& part : row.substrings) {
      EXPECT_THAT(message, HasSubstr(part)) << row.text;
    }
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

// As many as the message allows, and not one more.
TEST(Config, LimitsAreWhereTheyAreSaidToBe) {
  const auto path = [](std::size_t size) {
    return fmt::format("data: {{dir: {}}}\n", std::string(size, 'd'));
  };
  EXPECT_EQ(error_of(path(4000)), "");
  EXPECT_THAT(error_of(path(4001)), HasSubstr("write the path of a folder"));
  const auto arms = [](int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back(fmt::format("a{}: {{}}", i));
    return fmt::format("compare: {{arms: {{{}}}}}\n", fmt::join(names, ", "));
  };
  EXPECT_EQ(error_of(arms(100)), "");
  const auto cells = [](int first, int second) {
    return fmt::format(
        "sweep: {{axes: {{schedule.base_lr: {{log: [1, 2, {}]}}, optimizer.momentum: {{linear: [0, "
        "0.5, {}]}}}}}}\n",
        first, second);
  };
  EXPECT_EQ(error_of(cells(100, 100)), "");
  EXPECT_THAT(error_of(cells(101, 100)), HasSubstr("at most 10000"));
  EXPECT_THAT(error_of(arms(101)), HasSubstr("has too many arms; write at most 100"));
  const auto grid = [](const char* fifth) {
    return fmt::format(
        "sweep: {{axes: {{schedule.base_lr: [1], optimizer.momentum: [0.5], data.batch_size: [8], "
        "loss: [mse]{}}}}}\n",
        fifth);
  };
  EXPECT_EQ(error_of(grid("")), "");
  EXPECT_THAT(error_of(grid(", train.length: [2 steps]")),
              HasSubstr("has too many axes; write at most 4"));
}

TEST(Config, ZeroHasNoSign) {
  const RunConfig c = config_of("optimizer: {weight_decay: -0.0}\n");
  EXPECT_EQ(write_config(c), write_config(RunConfig{}));
}

TEST(Config, ReportsSettingsWhereTheyWereGiven) {
  EXPECT_EQ(error_of("", {"schedule.warmup.lenght=5 steps"}),
            "--set schedule.warmup.lenght=5 steps: schedule.warmup.lenght: unknown key; did you "
            "mean length?");
  EXPECT_EQ(error_of("", {"scedule.base_lr=5"}),
            "--set scedule.base_lr=5: scedule: unknown key; did you mean schedule?");
  EXPECT_EQ(error_of("train: {length: 1 epoch}", {"train.length=400"}),
            "--set train.length=400: train.length: \"400\" has no unit; write 400 steps or 400 "
            "epochs");
  EXPECT_THAT(
      error_of("", {"schedule.warmup={length: 3}"}),
      StartsWith("--set schedule.warmup={length: 3}: schedule.warmup.length: \"3\" has no"));
  EXPECT_THAT(error_of("compare: {arms: {a: {}}}", {"compare.arms.a.sed=3"}),
              StartsWith("--set compare.arms.a.sed=3: sed: unknown key; did you mean seed?"));
}

TEST(Config, WhereIsTheNearestSectionGiven) {
  const RunConfig c =
      config_of("seed: 1\nschedule:\n  warmup:\n    length: 3 steps\n", {"train.length=3 steps"});
  EXPECT_EQ(c.where("schedule.warmup.length").line, 4);
  EXPECT_EQ(c.where("schedule.warmup.length").column, 5);
  EXPECT_EQ(c.where("schedule.warmup.power").line, 3);
  EXPECT_EQ(c.where("schedule.warmup.power").key, "schedule.warmup.power");
  EXPECT_EQ(c.where("schedule.decay.power").line, 2);
  EXPECT_EQ(c.where("optimizer.momentum").line, 0);
  EXPECT_EQ(c.where("optimizer.momentum").source, "f.yaml");
  EXPECT_EQ(c.where("train.length").source, "--set train.length=3 steps");
  EXPECT_EQ(RunConfig{}.where("a.b").key, "a.b");
  EXPECT_STREQ(ConfigError(c.where("model.layers"), "too small", "add some").what(),
               "f.yaml: model.layers: too small; add some");
}

TEST(Config, PrintsLengthsAsWritten) {
  EXPECT_EQ(to_string(Length{400, LengthUnit::steps}), "400 steps");
  EXPECT_EQ(to_string(Length{1, LengthUnit::steps}), "1 step");
  EXPECT_EQ(to_string(Length{1.5, LengthUnit::epochs}), "1.5 epochs");
  EXPECT_EQ(to_string(Length{12.5, LengthUnit::percent}), "12.5%");
  EXPECT_EQ(to_string(Length{1e12, LengthUnit::steps}), "1000000000000 steps");
}

// --- The reference page -------------------------------------------------------------------------

TEST(Reference, ShowsTheDefaults) {
  const RunConfig shown = read_config(load_document(PREHEAT_SOURCE_DIR "/configs/reference.yaml"));
  EXPECT_EQ(write_config(shown), write_config(RunConfig{}));
}

// Uncomments the comment lines from the one that begins with `first_key` to the next other line.
std::string with_alternatives(const std::string& text, const std::string& first_key) {
  std::istringstream lines(text);
  std::string out;
  bool taking = false;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t hash = line.find_first_not_of(' ');
    const bool is_comment = hash != std::string::npos && line[hash] == '#';
    if (is_comment && line.substr(hash + 1).starts_with(first_key)) taking = true;
    if (!is_comment) taking = false;
    out += (taking ? line.erase(hash, 1) : line) + "\n";
  }
  return out;
}

TEST(Reference, AlternativesAreRightToo) {
  const std::string text = reference_text();
  const RunConfig compare = config_of(with_alternatives(text, "compare:"));
  ASSERT_TRUE(compare.compare);
  EXPECT_EQ(compare.compare->arms.size(), 2u);
  const RunConfig phases =
      config_of(with_alternatives(text, "phases:"),
                {"schedule.warmup=null", "schedule.hold=null", "schedule.decay=null"});
  EXPECT_EQ(phases.schedule.phases.size(), 3u);
  const RunConfig layers = config_of(with_alternatives(text, "- residual_stage:"));
  EXPECT_EQ(layers.model.layers.size(), 10u);
  // The text has these keys already, as null or empty.
  const auto in_place_of = [&](const std::string& line, const std::string& key) {
    std::string changed = with_alternatives(text, key);
    changed.insert(changed.find(line), 1, '#');
    return config_of(changed);
  };
  EXPECT_THAT(in_place_of("  normalize: null", "normalize:").data.normalize->mean,
              ElementsAre(0.2860));
  EXPECT_EQ(in_place_of("  sharpness: null", "sharpness:").diagnostics.sharpness->examples, 2048);
  EXPECT_EQ(
      in_place_of("  gradient_noise: null", "gradient_noise:").diagnostics.gradient_noise->batches,
      8);
  EXPECT_EQ(config_of(with_alternatives(text, "sweep:")).sweep->axes.size(), 2u);
  EXPECT_EQ(config_of(with_alternatives(text, "find_lr:")).find_lr->arms.size(), 2u);
  EXPECT_EQ(in_place_of("  scale: null", "scale:").schedule.scale->reference_batch, 256);
  EXPECT_EQ(in_place_of("    until: null", "until:").schedule.until->train_error_below, 0.8);
  EXPECT_EQ(in_place_of("  groups: []", "groups:").optimizer.groups.size(), 2u);
  EXPECT_EQ(in_place_of("  stages: []", "stages:").train.stages.size(), 2u);
}

// The reference with all its alternatives: a commented block that begins with # and no space is
// uncommented, and replaces the line of the same key above it. Under expect, "# ... above: 0.5" is
// another form of the claim above it.
std::string with_all_alternatives(const std::string& text) {
  const auto key_of = [](const std::string& line) { return line.substr(0, line.find(':')); };
  std::istringstream lines(text);
  std::vector<std::string> out;
  std::string claim;
  bool taking = false;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t hash = line.find_first_not_of(' ');
    const bool is_comment = hash != std::string::npos && line[hash] == '#';
    const bool begins = is_comment && hash + 1 < line.size() && line[hash + 1] != ' ';
    taking = is_comment && (taking || begins);
    if (taking) {
      line.erase(hash, 1);
      if (!out.empty() && key_of(out.back()) == key_of(line)) out.pop_back();
      if (line.starts_with("  - ")) claim = key_of(line);
      const std::string form = "    # ... ";
      if (line.starts_with(form)) {
        const std::string keys = line.substr(form.size());
        line = fmt::format("{}: {{{}}}", claim, keys.substr(0, keys.find('#')));
      }
    }
    out.push_back(line);
  }
  return fmt::format("{}\n", fmt::join(out, "\n"));
}

// The dotted keys of a document, with [] for any item of a list, as in known_keys().
void add_keys(const Node& node, const std::string& path, std::set<std::string>& keys) {
  for (const auto& [key, value] : node.keys) {
    const std::string full = path.empty() ? key : path + "." + key;
    keys.insert(full);
    add_keys(value, full, keys);
  }
  for (const Node& item : node.items) {
    if (item.kind == Node::Kind::scalar) keys.insert(path + "[]." + item.scalar);
    add_keys(item, path + "[]", keys);
  }
}

TEST(Reference, HasEveryKey) {
  std::set<std::string> keys;
  add_keys(parse_document(with_all_alternatives(reference_text()), "reference.yaml").root, "",
           keys);
  const std::string phase = "schedule.phases[].";
  for (const std::string& key : known_keys()) {
    bool stands = keys.contains(key);
    if (key.starts_with(phase)) {  // "any of the above, with its keys as above"
      const std::string name = key.substr(phase.size());
      stands |= keys.contains("schedule.warmup." + name) || keys.contains("schedule.decay." + name);
    }
    EXPECT_TRUE(stands) << key;
  }
}

// --- Round trip ---------------------------------------------------------------------------------

class RandomConfig {
 public:
  explicit RandomConfig(std::uint64_t seed) : engine_(seed) {}

  RunConfig make() {
    RunConfig c;
    c.name = pick<std::string>({"run", "null", "true", "1e3", "0", "a.b-c_d", "_", "-x"});
    c.seed = std::uniform_int_distribution<std::uint64_t>()(engine_);
    c.data.dataset = static_cast<DatasetName>(integer(0, 3));
    if (flip()) {
      c.data.dir = pick<std::string>({"/a b", "~", "null", "x: y", "# no", "\xc3\xa4", "'q'", "-",
                                      "a\\b\"c", "[", "...", " led", "*a", "10"});
    }
    c.data.batch_size = integer(1, 65536);
    if (c.data.batch_size % 2 == 0 && flip()) c.data.micro_batch = c.data.batch_size / 2;
    if (flip()) c.data.train_limit = integer(1, 100000);
    if (flip()) c.data.validation = integer(1, 100000);
    if (flip()) {
      Normalize n;
      for (std::int64_t i = integer(1, 4); i > 0; --i) {
        n.mean.push_back(flip() ? -number() : number());
        n.std.push_back(std::clamp(number(), 1e-6, 1e6));
      }
      c.data.normalize = n;
    }
    c.data.augment = {integer(0, 16), flip()};
    c.model.layers.clear();
    for (std::int64_t i = integer(1, 6); i > 0; --i) {
      LayerConfig layer;
      switch (integer(0, 4)) {
        case 0:
          layer.layer = ConvLayer{integer(1, 65536), 2 * integer(0, 7) + 1, integer(1, 8), flip(),
                                  activation()};
          break;
        case 1:
          layer.layer = MaxPoolLayer{integer(2, 16)};
          break;
        case 2:
          layer.layer =
              ResidualStageLayer{integer(1, 1000), integer(1, 99), integer(1, 8), activation()};
          break;
        case 3:
          layer.layer = GlobalAvgPoolLayer{};
          break;
        default:
          layer.layer = LinearLayer{integer(1, 65536), activation()};
      }
      if (flip()) layer.name = fmt::format("{}layer_{}", flip() ? "-" : "", i);
      c.model.layers.push_back(layer);
    }
    c.model.init_scheme = static_cast<InitScheme>(integer(0, 5));
    c.model.init_gain = number();
    c.loss = static_cast<Loss>(integer(0, 1));
    c.label_smoothing = c.loss == Loss::cross_entropy ? unit() : 0;
    c.optimizer.momentum = unit();
    c.optimizer.nesterov = c.optimizer.momentum > 0 && flip();
    c.optimizer.weight_decay = flip() ? 0 : number();
    if (flip()) c.optimizer.momentum_form = MomentumForm::folded;
    c.optimizer.momentum_correction = c.optimizer.momentum_form == MomentumForm::folded && flip();
    if (flip()) c.optimizer.clip_norm = number();
    for (std::int64_t i = integer(0, 2); i > 0; --i) {
      GroupConfig group{pattern(), unit(), {}};
      if (flip()) group.weight_decay = unit();
      c.optimizer.groups.push_back(group);
    }
    if (flip()) {
      c.schedule.scale = ScaleConfig{static_cast<ScaleRule>(integer(0, 1)), integer(1, 9999)};
    }
    if (flip()) c.schedule.min_lr = number();
    c.schedule.base_lr = number();
    if (flip()) {
      for (std::int64_t i = 0, n = integer(1, 4); i < n; ++i) {
        PhaseConfig phase;
        phase.key = fmt::format("schedule.phases.{}", i);
        phase.name = fmt::format("p{}", i);
        phase.shape = "some_shape";
        if (flip()) phase.from = lr();
        if (flip()) phase.to = lr();
        c.schedule.phases.push_back(rest(phase));
      }
    } else {
      if (flip()) c.schedule.warmup.from = lr();
      if (integer(0, 5) == 0) c.schedule.warmup.from = LrValue{0, LrKind::automatic};
      if (flip()) c.schedule.warmup.length = length();
      if (flip()) c.schedule.warmup.power = number();
      if (flip()) c.schedule.warmup.every = Every::epoch;
      if (flip()) {
        c.schedule.overlap = true;
        c.schedule.toward = static_cast<Toward>(integer(0, 2));
      }
      if (flip()) {
        UntilConfig until{0.5 * unit() + 0.1, {static_cast<double>(integer(1, 99))}, {}};
        if (flip()) until.at_most = Length{number(), LengthUnit::epochs};
        c.schedule.until = until;
      }
      c.schedule.hold = length();
      if (flip()) c.schedule.decay.to = lr();
      c.schedule.decay = rest(c.schedule.decay);
    }
    c.train.length = {static_cast<double>(integer(1, 1'000'000'000)), LengthUnit::steps};
    c.train.eval_every = {number(), LengthUnit::epochs};
    c.train.precision = static_cast<Precision>(integer(0, 3));
    c.train.deterministic = flip();
    c.train.cuda_graph = flip();
    if (flip()) c.train.cpu_threads = integer(1, 64);
    if (flip()) c.train.checkpoint_every = Length{number(), LengthUnit::epochs};
    for (std::int64_t i = integer(0, 2); i > 0; --i) {
      StageConfig stage;
      if (flip()) stage.length = Length{number(), LengthUnit::epochs};
      if (flip()) stage.train_only = {pattern(), pattern()};
      if (flip()) stage.velocity = VelocityAtStage::fresh;
      if (flip()) stage.frozen_batch_norm = FrozenBatchNorm::fixed;
      c.train.stages.push_back(stage);
    }
    if (flip()) c.diagnostics.layers_every = length();
    if (c.diagnostics.layers_every && c.diagnostics.layers_every->value == 0) {
      c.diagnostics.layers_every.reset();
    }
    if (flip()) c.diagnostics.sharpness = SharpnessConfig{{3}, integer(1, 99), 0.5, 7};
    if (flip()) c.diagnostics.gradient_noise = GradientNoiseConfig{{4}, integer(2, 1000)};
    if (flip()) c.compare = compare();
    if (flip()) {
      c.sweep = SweepConfig{};
      c.sweep->axes = {{"optimizer.momentum", {parse_override("x=0.5").value}},
                       {"data.dir", {parse_override("x=\"a: b\"").value}}};
    }
    if (flip()) {
      c.find_lr = FindLrConfig{};
      c.find_lr->first = std::clamp(number(), 1e-8, 1e8);
      c.find_lr->sharpness = flip();
      if (flip()) c.find_lr->arms = compare().arms;
    }
    return c;
  }

 private:
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  bool flip() { return integer(0, 1) == 1; }
  double unit() { return flip() ? 0 : std::generate_canonical<double, 53>(engine_) * (1 - 1e-9); }
  double number() {  // in (0, 1000), of any magnitude
    return std::exp(std::uniform_real_distribution<double>(-300, 6.9)(engine_));
  }
  template <class T>
  T pick(const std::vector<T>& from) {
    return from[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(from.size()) - 1))];
  }
  Activation activation() {
    switch (integer(0, 3)) {
      case 0:
        return {};
      case 1:
        return {ActivationKind::relu};
      case 2:
        return {ActivationKind::tanh};
      default:
        return {ActivationKind::leaky_relu, 0.5 * unit() + 1e-9};
    }
  }
  LrValue lr() { return {flip() ? 1 : number(), flip() ? LrKind::times_base : LrKind::absolute}; }
  Length length() {
    switch (integer(0, 2)) {
      case 0:
        return {static_cast<double>(integer(0, 1'000'000'000'000)), LengthUnit::steps};
      case 1:
        return {number(), LengthUnit::epochs};
      default:
        return {100 * unit(), LengthUnit::percent};
    }
  }
  std::string pattern() { return pick<std::string>({"*.bias", "head.*", "?", "0.conv.weight"}); }
  PhaseConfig rest(PhaseConfig phase) {
    if (flip()) phase.endpoints = "both";
    if (flip()) phase.length = length();
    if (flip()) phase.power = number();
    if (flip()) phase.gamma = number();
    if (flip()) phase.over = Length{number(), LengthUnit::epochs};
    if (flip()) phase.every = Every::epoch;
    if (flip()) phase.min_lr = number();
    if (flip()) phase.staircase = flip();
    if (flip()) phase.cycles = number();
    if (flip()) phase.period = Length{number(), LengthUnit::epochs};
    if (flip()) phase.multiply = 1 + unit();
    if (flip()) phase.peak_factor = 0.5 * unit() + 0.1;
    if (flip()) phase.rewarmup = length();
    if (flip()) phase.timescale = Length{number(), LengthUnit::epochs};
    if (flip()) phase.center = length();
    if (flip()) phase.lower = -number();
    if (flip()) phase.upper = number();
    for (std::int64_t i = integer(0, 3); i > 0; --i) phase.at.push_back(length());
    return phase;
  }
  CompareConfig compare() {
    CompareConfig c;
    if (flip()) c.seeds = pick<std::vector<std::uint64_t>>({{3}, {7, 5}, {4, 5, 6}, {~0ull}});
    c.arms = {{"plain", {}}};
    if (flip()) {
      c.arms.push_back({"v1.5",
                        {parse_override("data.dir=\"x: 'y' # \\u0041\\\\\""),
                         parse_override("optimizer={momentum: 0.5, nesterov: true}"),
                         parse_override("model.layers=[max_pool, linear: {out: 3}]"),
                         parse_override("data.train_limit=null")}});
    }
    return c;
  }

  std::mt19937_64 engine_;
};

TEST(WriteConfig, ReadsBackToTheSame) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomConfig random(seed);
  for (int i = 0; i < 500; ++i) {
    const RunConfig config = random.make();
    const std::string text = write_config(config);
    RunConfig back;
    try {
      back = config_of(text);
    } catch (const ConfigError& error) {
      FAIL() << error.what() << "\n" << text;
    }
    ASSERT_EQ(write_config(back), text);
    // Not only through the writer: it could lose a bit or a key in both directions.
    ASSERT_EQ(back.seed, config.seed);
    ASSERT_EQ(back.data.dir, config.data.dir);
    ASSERT_EQ(back.model.init_gain, config.model.init_gain);
    ASSERT_EQ(back.optimizer.momentum, config.optimizer.momentum);
    ASSERT_EQ(back.schedule.base_lr, config.schedule.base_lr);
    ASSERT_EQ(back.schedule.phases.size(), config.schedule.phases.size());
    ASSERT_EQ(back.schedule.decay.length.has_value(), config.schedule.decay.length.has_value());
    ASSERT_EQ(back.train.length->value, config.train.length->value);
    ASSERT_EQ(back.optimizer.groups.size(), config.optimizer.groups.size());
    ASSERT_EQ(back.train.stages.size(), config.train.stages.size());
    ASSERT_EQ(back.schedule.until.has_value(), config.schedule.until.has_value());
    ASSERT_EQ(back.train.checkpoint_every.has_value(), config.train.checkpoint_every.has_value());
    ASSERT_EQ(back.compare.has_value(), config.compare.has_value());
    if (back.compare) {
      ASSERT_EQ(back.compare->seeds, config.compare->seeds);
    }
  }
}

// --- Hostile texts ------------------------------------------------------------------------------

std::string mutated(std::string text, std::mt19937_64& engine) {
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(engine);
  };
  constexpr std::string_view pieces = "[]{}:,#&*!|>'\"%@`-? \n\t~0x.\\\r\x01\xff";
  for (std::size_t i = 1 + below(4); i > 0 && text.size() > 1; --i) {
    const std::size_t at = below(text.size());
    switch (below(4)) {
      case 0:
        text.erase(at, 1 + below(20));
        break;
      case 1:
        text.insert(at, 1 + below(3), pieces[below(pieces.size())]);
        break;
      case 2: {
        const std::size_t begin = text.rfind('\n', at);
        const std::size_t end = text.find('\n', at);
        if (begin == std::string::npos || end == std::string::npos) break;
        text.insert(end, text.substr(begin, end - begin));
        break;
      }
      default:
        text[at] = static_cast<char>(below(256));
    }
  }
  return text;
}

TEST(Config, AnyTextGivesAConfigurationOrAnError) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 engine(seed);
  // Configurations as written have no comments, in which most mutations would have no effect.
  RunConfig everything = RandomConfig(seed).make();
  const std::string texts[] = {reference_text(), write_config(RunConfig{}),
                               write_config(everything)};
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    for (const std::string& text : texts) {
      const std::string input = mutated(text, engine);
      try {
        const RunConfig config = config_of(input);
        ++accepted;
        EXPECT_EQ(write_config(config_of(write_config(config))), write_config(config)) << input;
      } catch (const ConfigError& error) {
        ++refused;
        EXPECT_THAT(error.what(), StartsWith("f.yaml"));
      }
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 1000);
}

TEST(Config, ManyUnknownKeysAreRefusedQuickly) {
  std::string arm;
  for (int i = 0; i < 20'000; ++i) arm += fmt::format("      k{}.a: 1\n", i);
  EXPECT_THAT(error_of("compare:\n  arms:\n    a:\n" + arm), HasSubstr("too many keys"));
  EXPECT_THAT(error_of("schedule:\n" + arm), HasSubstr("unknown key"));
}

}  // namespace
}  // namespace preheat
