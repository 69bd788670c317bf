// The configuration of a run as typed values. A RunConfig that read_config() returned is valid in
// itself: every key known, every number finite and in its range. What depends on more than the text
// (does the warmup fit into the run? do the shapes of the layers fit?) is checked where it is
// known, and reported at the same place in the file through RunConfig::where.
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
#include "config/spelling.h"

namespace preheat {

enum class LengthUnit { steps, epochs, percent };

/// A stretch of training: "400 steps", "1.5 epochs" or "10%" of the run.
struct Length {
  double value = 0;
  LengthUnit unit = LengthUnit::steps;
};

/// Text as a user would write it: "400 steps".
std::string to_string(const Length& length);

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
};

struct DataConfig {
  DatasetName dataset = DatasetName::fashion_mnist;
  std::optional<std::string> dir;
  std::int64_t batch_size = 128;
  std::optional<std::int64_t> train_limit;
  std::optional<Normalize> normalize;  // absent: the dataset's own
  Augment augment;
};

enum class ActivationKind { none, relu, leaky_relu };

struct Activation {
  ActivationKind kind = ActivationKind::none;
  double slope = 0;  // leaky_relu's, below zero
};

struct ConvLayer {
  std::int64_t out = 0;
  std::int64_t kernel = 3;
  std::int64_t stride = 1;
  bool batch_norm = false;
  Activation activation{ActivationKind::relu};
};
struct MaxPoolLayer {
  std::int64_t kernel = 2;  // and stride
};
struct ResidualStageLayer {
  std::int64_t blocks = 3;
  std::int64_t out = 0;
  std::int64_t stride = 1;  // of the first block
};
struct GlobalAvgPoolLayer {};
struct LinearLayer {
  std::int64_t out = 0;
  Activation activation;
};

struct LayerConfig {
  std::variant<ConvLayer, MaxPoolLayer, ResidualStageLayer, GlobalAvgPoolLayer, LinearLayer> layer;
  std::optional<std::string> name;  // leads the parameters' names; absent: the layer's index
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

/// The small CNN with batch norm: [conv3x3-BN-ReLU]x2 of 32, pool, x2 of 64, pool, linear 256, 10.
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

/// How the parameters are updated whose names match.
struct GroupConfig {
  std::string match;  // * and ? stand for any text and any character
  double lr_scale = 1;
  std::optional<double> weight_decay;  // absent: as without the group
};

struct OptimizerConfig {
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0.0;
  MomentumForm momentum_form = MomentumForm::separate;
  bool momentum_correction = false;
  std::optional<double> clip_norm;
  std::vector<GroupConfig> groups;  // the first that matches a parameter holds
};

/// A value of the learning rate: absolute, a factor of base_lr, what the update before it had, or
/// what the network can take at its start.
struct LrValue {
  double value = 0;
  bool times_base = false;
  bool last = false;
  bool automatic = false;
};

enum class Every { step, epoch };
constexpr auto spelling(Every) {
  return Spelling{"how often it changes", {"step", "epoch"}};
}

/// One stretch of the schedule before it is resolved. `shape` and `endpoints` are names; which
/// names there are, and which of the optional keys a shape takes, is the schedule's business.
struct PhaseConfig {
  std::string key;  // where it stands: schedule.warmup, schedule.phases.2
  std::string name;
  std::string shape;
  std::string endpoints = "end";
  Every every = Every::step;
  std::optional<LrValue> from;
  std::optional<LrValue> to;
  std::optional<Length> length;
  std::optional<double> min_lr;
  // What only some shapes take.
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

PhaseConfig default_warmup();  // linear, its length left to the schedule
PhaseConfig default_decay();   // cosine, over the rest of the run

enum class Toward { base, curve, multiply };
constexpr auto spelling(Toward) {
  return Spelling{"what a warmup goes toward", {"base", "curve", "multiply"}};
}

/// Ends the warmup when the training error has fallen.
struct UntilConfig {
  double train_error_below = 0;
  Length window{50, LengthUnit::steps};
  std::optional<Length> at_most;  // absent: the warmup's length
};

enum class ScaleRule { linear, sqrt };
constexpr auto spelling(ScaleRule) {
  return Spelling{"a scaling rule", {"linear", "sqrt"}};
}

/// The base rate is meant for another batch size.
struct ScaleConfig {
  ScaleRule rule = ScaleRule::linear;
  std::int64_t reference_batch = 0;
};

struct ScheduleConfig {
  double base_lr = 0.4;
  std::optional<ScaleConfig> scale;
  double min_lr = 0;                      // of the phases that have none of their own
  PhaseConfig warmup = default_warmup();  // ignored, like hold and decay, where phases are given
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

/// A stretch of training in which some parameters may stand still.
struct StageConfig {
  std::optional<Length> length;         // absent: the rest of the run, of the last stage only
  std::vector<std::string> train_only;  // patterns as in GroupConfig; empty: every parameter
  VelocityAtStage velocity = VelocityAtStage::kept;
  FrozenBatchNorm frozen_batch_norm = FrozenBatchNorm::update;
};

/// What a step computes in. Master weights and the update are fp32 in all of them; fp16 scales its
/// loss.
enum class Precision { fp32, tf32, bf16, fp16 };
constexpr auto spelling(Precision) {
  return Spelling{"a precision", {"fp32", "tf32", "bf16", "fp16"}};
}

struct TrainConfig {
  std::optional<Length> length = Length{10, LengthUnit::epochs};  // absent: as long as the stages
  Length eval_every{1, LengthUnit::epochs};
  std::optional<Length> checkpoint_every;  // absent: only at the end
  Precision precision = Precision::fp32;
  bool deterministic = true;  // the same run, twice on one machine, to the same bits
  bool cuda_graph = true;     // steps are captured once and replayed; the bits are the same
  std::optional<std::int64_t> cpu_threads;  // of a run; absent: all there are. Bits depend on it
  std::vector<StageConfig> stages;
};

/// How the largest eigenvalue of the Hessian is measured while a run goes on.
struct SharpnessConfig {
  Length every{10, LengthUnit::steps};
  std::int64_t examples = 2048;  // the first of the training set, one fixed batch
  double tolerance = 0.01;       // relative change at which the power iteration stops
  std::int64_t iterations = 30;  // at most
};

/// What is logged beside the metrics. It changes nothing of the run.
struct DiagnosticsConfig {
  std::optional<Length> layers_every;
  std::optional<SharpnessConfig> sharpness;
};

/// What trains many runs; each has a section of its name.
enum class ExperimentKind { compare, sweep, find_lr };
constexpr auto spelling(ExperimentKind) {
  return Spelling{"an experiment", {"compare", "sweep", "find_lr"}};
}
inline constexpr ExperimentKind experiment_kinds[] = {
    ExperimentKind::compare, ExperimentKind::sweep, ExperimentKind::find_lr};

/// The file in an experiment's folder that has what it found: "compare.json".
std::string result_file(ExperimentKind kind);

/// Whether a section is about many runs and not about one: compare, sweep, find_lr, expect.
bool is_of_experiments(std::string_view section);

/// One arm of an experiment: the same keys a user can --set.
struct Arm {
  std::string name;
  std::vector<Override> overrides;
};

struct CompareConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<Arm> arms;
};

/// The values that a grid gives one key.
struct Axis {
  std::string key;
  std::vector<Node> values;
};

struct SweepConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2};
  std::vector<Axis> axes;
};

/// The search for the largest base rate that trains.
struct FindLrConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2, 3, 4};
  double first = 0.01;       // the first base rate tried
  double resolution = 1.19;  // the factor between the answer and a rate that fails
  double loss_below = 0.8;   // a run trains whose final loss is below this times ln(classes)
  double share = 0.9;        // of the seeds that train at the rate told of an arm as a whole
  std::vector<Arm> arms;     // absent: without and with the warmup
};

// What an experiment is expected to show, fixed before it runs; experiment/claims.h says how each
// is decided. Arms are names of compare or find_lr; the first of a pair is the one with more of it.
struct FailuresClaim {
  std::string arm;
  std::optional<double> above;  // a share of the runs; one of the two
  std::optional<double> below;
};
struct FailsMoreClaim {
  std::vector<std::string> arms;
  double p_below = 0.05;
};
struct FailsAlikeClaim {
  std::vector<std::string> arms;
  double p_above = 0.05;
};
struct AccuracyClaim {
  std::vector<std::string> arms;
  double at_least = 0;  // the first's test accuracy minus the second's
};
struct AccuracyAlikeClaim {
  std::vector<std::string> arms;
  double within = 0;
};
struct AccuracyFallsClaim {
  std::vector<std::string> arms;
  double p_below = 0.05;
};
struct SoonerClaim {
  std::vector<std::string> arms;
  double train_error = 0;
  double p_below = 0.05;
};
struct SmallerSpikeClaim {
  std::vector<std::string> arms;
  Length after;
  Length within;
  double p_below = 0.05;
};
struct GateClaim {
  std::string arm;
  Length from;
  Length to;
  double share = 0.8;
};
struct SharpnessFallsClaim {
  std::string arm;
  double by = 1;
  double p_below = 0.05;
};
struct SharpnessStaysClaim {
  std::string arm;
  double within = 1;              // the factor it may fall by
  bool random_direction = false;  // the curvature along a random direction in its place
};
struct EdgeOfStabilityClaim {
  std::vector<std::string> arms;
  std::vector<double> slope;  // from, to
};
struct AccuracyGapClaim {
  std::vector<std::string> arms;  // the gap between these two
  std::vector<std::string> than;  // against that between these
  std::optional<double> above;    // times the second gap; one of the two
  std::optional<double> below;
};
struct UnstableStartClaim {
  std::string arm;
  double share = 0.9;
};
struct DeepLayersClaim {
  std::vector<std::string> arms;
  Length within;
  double p_below = 0.05;
};
struct BoundaryRisesClaim {
  std::string along;         // an axis
  std::vector<Override> at;  // values of other axes; absent: all of them
  double p_below = 0.05;
  double octaves_back = 1;  // the largest step back that is let pass
};
struct BoundaryMovesClaim {
  std::string along;
  std::vector<Override> at;
  std::optional<double> octaves_above;  // of the last value's boundary over the first's; one of the
  std::optional<double> octaves_below;  // two
};
struct SensitivityFallsClaim {
  std::string along;
  std::vector<Override> at;
};
struct AccuracyMovesClaim {
  std::string along;                 // an axis, schedule.base_lr too
  std::vector<Axis> over;            // the values of axes looked at; absent: all of them
  double octaves_from_boundary = 2;  // of the largest rate looked at, downwards
  std::optional<double> within;      // how far no value of the axis is from the first; one of the
  std::optional<double> beyond;      // two, how far the last is
};
struct RateRatioClaim {
  std::vector<std::string> arms;
  std::optional<double>
      log2_above;  // of the second's largest rate over the first's; one of the two
  std::optional<double> log2_below;
};

using Claim =
    std::variant<FailuresClaim, FailsMoreClaim, FailsAlikeClaim, AccuracyClaim, AccuracyAlikeClaim,
                 AccuracyFallsClaim, AccuracyGapClaim, SoonerClaim, SmallerSpikeClaim, GateClaim,
                 SharpnessFallsClaim, SharpnessStaysClaim, UnstableStartClaim, EdgeOfStabilityClaim,
                 DeepLayersClaim, BoundaryRisesClaim, BoundaryMovesClaim, SensitivityFallsClaim,
                 AccuracyMovesClaim, RateRatioClaim>;

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

  /// Where a key was given, or the nearest section above it that was.
  Where where(std::string_view key) const;
  std::map<std::string, Where, std::less<>> locations;
};

/// Reads and checks every key. Throws ConfigError naming the place, the key, what is wrong and what
/// would be right.
RunConfig read_config(const Document& document);

/// The document without its sections compare, sweep, find_lr and expect: one run.
Document without_experiments(const Document& document);

/// YAML that read_config() reads back to the same values: every key but the absent ones, in the
/// order of configs/reference.yaml, numbers with all their digits.
std::string write_config(const RunConfig& config);

/// Every key there is, with its full path, in the order of configs/reference.yaml; `[]` stands for
/// an item of a list: "optimizer.momentum", "model.layers[].conv.out".
std::vector<std::string> known_keys();

/// "none", "relu" or "leaky_relu(0.1)".
std::string to_string(const Activation& activation);

}  // namespace preheat
