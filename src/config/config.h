// The configuration of a run as typed values. A RunConfig returned by read_config() is valid on its
// own: every key is known, every number finite and in range. Checks that need more than the text
// (does the warmup fit into the run? do the layers' shapes match?) happen later and report the same
// place in the file through RunConfig::where.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/document.h"
#include "config/error.h"
#include "config/experiments.h"
#include "config/spelling.h"
#include "config/values.h"

namespace preheat {

enum class DatasetName { fashion_mnist, mnist, cifar10, synthetic };
constexpr auto spelling(DatasetName) {
  return Spelling{"a dataset", {"fashion-mnist", "mnist", "cifar10", "synthetic"}};
}

/// Per channel, of pixels / 255: (pixel - mean) / std.
struct Normalize {
  std::vector<double> mean;
  std::vector<double> std;
};

struct Augment {
  std::int64_t crop_padding = 0;  // zero pixels added on each side before a random crop
  bool flip = false;              // mirror left-right with probability 1/2

  bool operator==(const Augment&) const = default;
};

struct DataConfig {
  DatasetName dataset = DatasetName::fashion_mnist;
  std::optional<std::string> dir;
  std::int64_t batch_size = 128;
  std::optional<std::int64_t> micro_batch;  // divides batch_size; absent: the whole batch
  std::optional<std::int64_t> train_limit;
  std::optional<std::int64_t> validation;  // examples held out of training; absent: none, never 0
  std::optional<Normalize> normalize;      // absent: the dataset's default
  Augment augment;

  std::int64_t examples_per_pass() const { return micro_batch.value_or(batch_size); }
};

struct ConvLayer {
  static constexpr std::string_view section = "conv";
  std::int64_t out = 0;
  std::int64_t kernel = 3;
  std::int64_t stride = 1;
  bool batch_norm = false;
  Activation activation{ActivationKind::relu};
};
struct MaxPoolLayer {
  static constexpr std::string_view section = "max_pool";
  std::int64_t kernel = 2;  // and stride
};
struct ResidualStageLayer {
  static constexpr std::string_view section = "residual_stage";
  std::int64_t blocks = 3;
  std::int64_t out = 0;
  std::int64_t stride = 1;  // of the first block
  Activation activation{ActivationKind::relu};
};
struct GlobalAvgPoolLayer {
  static constexpr std::string_view section = "global_avg_pool";
};
struct LinearLayer {
  static constexpr std::string_view section = "linear";
  std::int64_t out = 0;
  Activation activation;
};

struct LayerConfig {
  std::variant<ConvLayer, MaxPoolLayer, ResidualStageLayer, GlobalAvgPoolLayer, LinearLayer> layer;
  std::optional<std::string> name;  // prefix of its parameters' names; absent: the layer's index
};

enum class InitScheme {
  he_normal,
  he_uniform,
  lecun_normal,
  lecun_uniform,
  xavier_normal,
  xavier_uniform
};
constexpr auto spelling(InitScheme) {
  return Spelling{"an initialisation",
                  {"he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "xavier_normal",
                   "xavier_uniform"}};
}

/// The small CNN with batch norm: [conv3x3-BN-ReLU]x2 with 32 channels, max pool, the same with 64,
/// max pool, linear 256 with ReLU, linear 10.
std::vector<LayerConfig> default_layers();

struct ModelConfig {
  std::vector<LayerConfig> layers = default_layers();
  InitScheme init_scheme = InitScheme::he_normal;
  double init_gain = 1.0;
};

enum class Loss { cross_entropy, mse };
constexpr auto spelling(Loss) {
  return Spelling{"a loss", {"cross_entropy", "mse"}};
}

enum class MomentumForm { separate, folded };
constexpr auto spelling(MomentumForm) {
  return Spelling{"a form of momentum", {"separate", "folded"}};
}

/// Update settings of the parameters whose names match.
struct GroupConfig {
  std::string match;  // wildcards: * is any text, ? any one character
  double lr_scale = 1;
  std::optional<double> weight_decay;  // absent: what the parameter has without a group
};

struct OptimizerConfig {
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0.0;
  MomentumForm momentum_form = MomentumForm::separate;
  bool momentum_correction = false;
  std::optional<double> clip_norm;
  std::vector<GroupConfig> groups;  // the first match wins
};

enum class Every { step, epoch };
constexpr auto spelling(Every) {
  return Spelling{"how often it changes", {"step", "epoch"}};
}

/// One phase of the schedule before it is resolved. `shape` and `endpoints` are plain names here:
/// schedule/ knows which exist and which of the optional keys each shape takes.
struct PhaseConfig {
  std::string key;  // its key path: schedule.warmup, schedule.phases.2
  std::string name;
  std::string shape;
  std::string endpoints = "end";
  Every every = Every::step;
  std::optional<LrValue> from;
  std::optional<LrValue> to;
  std::optional<Length> length;
  std::optional<double> min_lr;
  // Only some shapes take these.
  std::optional<double> power;
  std::optional<double> gamma;
  std::optional<Length> over;
  std::optional<bool> staircase;
  std::vector<Length> at;
  std::optional<double> cycles;
  std::optional<Length> period;
  std::optional<double> multiply;
  std::optional<double> peak_factor;
  std::optional<Length> rewarmup;
  std::optional<Length> timescale;
  std::optional<Length> center;
  std::optional<double> lower;
  std::optional<double> upper;
};

PhaseConfig default_warmup();  // linear; the schedule chooses the length
PhaseConfig default_decay();   // cosine over the rest of the run

enum class Toward { base, curve, multiply };
constexpr auto spelling(Toward) {
  return Spelling{"what a warmup goes toward", {"base", "curve", "multiply"}};
}

/// The gate: ends the warmup once the training error is low enough.
struct UntilConfig {
  double train_error_below = 0;
  Length window{50, LengthUnit::steps};
  std::optional<Length> at_most;  // absent: the warmup's length
};

enum class ScaleRule { linear, sqrt };
constexpr auto spelling(ScaleRule) {
  return Spelling{"a scaling rule", {"linear", "sqrt"}};
}

/// Scales a base rate that was chosen for another batch size.
struct ScaleConfig {
  ScaleRule rule = ScaleRule::linear;
  std::int64_t reference_batch = 0;
};

struct ScheduleConfig {
  double base_lr = 0.4;
  std::optional<ScaleConfig> scale;
  double min_lr = 0;                      // default of the phases' min_lr
  PhaseConfig warmup = default_warmup();  // ignored, like hold and decay, if phases are given
  bool overlap = false;
  Toward toward = Toward::base;
  std::optional<UntilConfig> until;
  Length hold{0, LengthUnit::steps};
  PhaseConfig decay = default_decay();
  std::vector<PhaseConfig> phases;
};

enum class VelocityAtStage { kept, fresh };
constexpr auto spelling(VelocityAtStage) {
  return Spelling{"what becomes of the velocity", {"kept", "fresh"}};
}

enum class FrozenBatchNorm { update, fixed };
constexpr auto spelling(FrozenBatchNorm) {
  return Spelling{"what frozen batch norms do", {"update", "fixed"}};
}

/// A stage of training, in which some parameters may be frozen.
struct StageConfig {
  std::optional<Length> length;         // absent (last stage only): the rest of the run
  std::vector<std::string> train_only;  // patterns as in GroupConfig; empty: every parameter
  VelocityAtStage velocity = VelocityAtStage::kept;
  FrozenBatchNorm frozen_batch_norm = FrozenBatchNorm::update;
};

/// The precision of forward and backward. Master weights and the update are always fp32; fp16 uses
/// loss scaling.
enum class Precision { fp32, tf32, bf16, fp16 };
constexpr auto spelling(Precision) {
  return Spelling{"a precision", {"fp32", "tf32", "bf16", "fp16"}};
}

struct TrainConfig {
  std::optional<Length> length = Length{10, LengthUnit::epochs};  // absent: sum of the stages
  Length eval_every{1, LengthUnit::epochs};
  std::optional<Length> checkpoint_every;  // absent: only at the end
  Precision precision = Precision::fp32;
  bool deterministic = true;  // repeated runs on one machine are bit-identical
  bool cuda_graph = true;     // capture steps once and replay them; does not change the bits
  std::optional<std::int64_t> cpu_threads;  // per run; absent: all. The bits depend on it
  std::vector<StageConfig> stages;
};

/// How the sharpness, the largest eigenvalue of the Hessian, is measured during a run.
struct SharpnessConfig {
  Length every{10, LengthUnit::steps};
  std::int64_t examples = 2048;  // one fixed batch: the first ones of the training set
  double tolerance = 0.02;       // relative change at which the Lanczos iteration stops
  std::int64_t iterations = 30;  // upper limit

  bool operator==(const SharpnessConfig&) const = default;
};

/// How the signal and the noise of a batch's gradient are measured during a run.
struct GradientNoiseConfig {
  Length every{50, LengthUnit::steps};
  std::int64_t batches = 8;  // as of one pass: the first of the training set, in order

  bool operator==(const GradientNoiseConfig&) const = default;
};

/// Logged in addition to the metrics, without any effect on the run.
struct DiagnosticsConfig {
  std::optional<Length> layers_every;
  std::optional<SharpnessConfig> sharpness;
  std::optional<GradientNoiseConfig> gradient_noise;
};

struct RunConfig {
  std::string name = "run";
  std::uint64_t seed = 0;
  DataConfig data;
  ModelConfig model;
  Loss loss = Loss::cross_entropy;
  double label_smoothing = 0.0;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  TrainConfig train;
  DiagnosticsConfig diagnostics;
  std::optional<CompareConfig> compare;
  std::optional<SweepConfig> sweep;
  std::optional<FindLrConfig> find_lr;
  std::vector<Claim> expect;

  /// Where a key was given, or else the nearest enclosing section that was.
  Where where(std::string_view key) const;
  std::map<std::string, Where, std::less<>> locations;
};

/// Reads and checks every key, also under each arm and each axis value on its own, so that an error
/// in one is reported before any run begins. Throws ConfigError naming the place, the key, what is
/// wrong and what would be right.
RunConfig read_config(const Document& document);

/// The document of a single run: without the sections compare, sweep, find_lr and expect.
Document without_experiments(const Document& document);

/// YAML that read_config() reads back to the same values: every key that has a value, in the order
/// of configs/reference.yaml, numbers with all their digits.
std::string write_config(const RunConfig& config);

/// The full path of every key, in the order of configs/reference.yaml; `[]` stands for a list item:
/// "optimizer.momentum", "model.layers[].conv.out".
std::vector<std::string> known_keys();

}  // namespace preheat
