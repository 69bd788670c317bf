// The sections of a configuration that concern many runs: compare, sweep, find_lr and expect. Each
// struct is followed by the description of its keys (config/describe.h explains the visitor `Io`).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/experiment_values.h"
#include "config/spelling.h"
#include "config/values.h"

namespace preheat {

/// The experiments; each has a section of the same name.
enum class ExperimentKind { compare, sweep, find_lr };
constexpr auto spelling(ExperimentKind) {
  return Spelling{"an experiment", {"compare", "sweep", "find_lr"}};
}

/// The file in an experiment's folder that holds its findings: "compare.json".
inline std::string result_file(ExperimentKind kind) {
  return std::string(to_string(kind)) + ".json";
}

/// Whether a section concerns many runs rather than one: compare, sweep, find_lr, expect.
constexpr bool is_of_experiments(std::string_view section) {
  return value_named<ExperimentKind>(section) || section == "expect";
}

struct CompareConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<Arm> arms;
};
template <class Io>
void describe(Io& io, CompareConfig& c) {
  io.field("seeds", c.seeds);
  io.required("arms", c.arms);
}

struct SweepConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2};
  std::vector<Axis> axes;
};
template <class Io>
void describe(Io& io, SweepConfig& c) {
  io.field("seeds", c.seeds);
  io.required("axes", c.axes);
}

/// The range of rates a search may try.
constexpr Range searched_rates{1e-8, 1e8};

/// The search for the largest base rate that trains.
struct FindLrConfig {
  std::vector<std::uint64_t> seeds{0, 1, 2, 3, 4};
  double first = 0.01;       // the first base rate tried
  double resolution = 1.19;  // the factor between the answer and a rate that fails
  double loss_below = 0.8;   // a run trains if its final loss is below this times ln(classes)
  double share = 0.9;        // of seeds that train at the rate reported for an arm as a whole
  bool sharpness = true;     // also measure that of the initial weights
  std::vector<Arm> arms;     // absent: without and with the warmup
};
template <class Io>
void describe(Io& io, FindLrConfig& c) {
  io.field("seeds", c.seeds);
  io.field("first", c.first, searched_rates);
  io.field("resolution", c.resolution, Range{1, 16, true});
  io.field("loss_below", c.loss_below, Range{0, 1, true});
  io.field("share", c.share, Range{0, 1, true});
  io.field("sharpness", c.sharpness);
  io.field("arms", c.arms);
}

// The claims of an experiment: what it is expected to show, fixed before it runs. How each kind of
// claim is decided and worded is in experiment/, in the *_claims.cpp of its experiment. Arms are
// named as in compare or find_lr. The name of a claim is about the first arm of its pair, which
// fails more or learns sooner; rate_ratio divides the second's rate by the first's.

/// The side of a value on which a number is expected.
struct Bound {
  std::optional<double> above;  // exactly one of the two is given
  std::optional<double> below;
  double value() const { return above ? *above : *below; }
};
template <class Io>
void describe(Io& io, Bound& c, const std::string& unit, const Range& above, const Range& below) {
  io.field(unit + "above", c.above, above);
  io.field(unit + "below", c.below, below);
  io.check(c.above.has_value() != c.below.has_value(), unit + "above",
           "needs exactly one of " + unit + "above and " + unit + "below", "give one of the two");
}

// The ranges exclude the ends at which a claim would always hold or never.
constexpr Range share_above{0, 1, false, true};
constexpr Range share_below{0, 1, true};
constexpr Range accuracy_difference{-1, 1, true, true};  // differences of two accuracies
constexpr Range share_distance{0, 1, true, true};        // distances of two shares
constexpr Range significance_level{0, 1, true, true};    // significance levels
constexpr ListSize pair_size{2, 2};

struct FailuresClaim {
  static constexpr std::string_view section = "failures";
  static constexpr auto experiment = ExperimentKind::compare;
  std::string arm;
  Bound share;  // of the runs
};
template <class Io>
void describe(Io& io, FailuresClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  describe(io, c.share, "", share_above, share_below);
}

struct FailsMoreClaim {
  static constexpr std::string_view section = "fails_more";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, FailsMoreClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.field("p_below", c.p_below, significance_level);
}

struct FailsAlikeClaim {
  static constexpr std::string_view section = "fails_alike";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double within = 0.2;  // largest distance of the two shares of failures
};
template <class Io>
void describe(Io& io, FailsAlikeClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.field("within", c.within, share_distance);
}

struct AccuracyClaim {
  static constexpr std::string_view section = "accuracy";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double at_least = 0;  // the first's test accuracy minus the second's
};
template <class Io>
void describe(Io& io, AccuracyClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.field("at_least", c.at_least, accuracy_difference);
}

struct AccuracyAlikeClaim {
  static constexpr std::string_view section = "accuracy_alike";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double within = 0;
};
template <class Io>
void describe(Io& io, AccuracyAlikeClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.required("within", c.within, share_distance);
}

struct AccuracyFallsClaim {
  static constexpr std::string_view section = "accuracy_falls";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, AccuracyFallsClaim& c) {
  io.required("arms", c.arms, ListSize{3, 100}, TextRule::run_name);
  io.field("p_below", c.p_below, significance_level);
}

struct AccuracyGapClaim {
  static constexpr std::string_view section = "accuracy_gap";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;  // the gap between these two,
  std::vector<std::string> than;  // compared with the gap between these
  Bound factor;                   // of the second gap
};
template <class Io>
void describe(Io& io, AccuracyGapClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.required("than", c.than, pair_size, TextRule::run_name);
  describe(io, c.factor, "", any_sign, any_sign);
}

struct SoonerClaim {
  static constexpr std::string_view section = "sooner";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  double train_error = 0;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, SoonerClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.required("train_error", c.train_error, significance_level);
  io.field("p_below", c.p_below, significance_level);
}

struct SmallerSpikeClaim {
  static constexpr std::string_view section = "smaller_spike";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  std::vector<Length> after;  // of each arm
  Length within;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, SmallerSpikeClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.required("after", c.after, pair_size, LengthRule{.zero = false});
  io.required("within", c.within, LengthRule{.zero = false});
  io.field("p_below", c.p_below, significance_level);
}

struct GateClaim {
  static constexpr std::string_view section = "gate_opens";
  static constexpr auto experiment = ExperimentKind::compare;
  std::string arm;
  Length from;
  Length to;
  double share = 0.6;  // even 8 of 8 runs only give a lower bound of 0.63
};
template <class Io>
void describe(Io& io, GateClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  io.required("from", c.from, LengthRule{});
  io.required("to", c.to, LengthRule{.zero = false});
  io.field("share", c.share, share_above);
}

struct SharpnessFallsClaim {
  static constexpr std::string_view section = "sharpness_falls";
  static constexpr auto experiment = ExperimentKind::compare;
  std::string arm;
  double by = 1;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, SharpnessFallsClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  io.required("by", c.by, Range{1, 1e9, true});
  io.field("p_below", c.p_below, significance_level);
}

struct SharpnessStaysClaim {
  static constexpr std::string_view section = "sharpness_stays";
  static constexpr auto experiment = ExperimentKind::compare;
  std::string arm;
  double within = 1;              // the largest factor it may fall by
  bool random_direction = false;  // the curvature along a random direction instead of sharpness
};
template <class Io>
void describe(Io& io, SharpnessStaysClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  io.required("within", c.within, Range{1, 1e9, true});
  io.field("random_direction", c.random_direction);
}

struct UnstableStartClaim {
  static constexpr std::string_view section = "unstable_start";
  static constexpr auto experiment = ExperimentKind::compare;
  std::string arm;
  double share = 0.6;  // even 10 of 10 runs only give a lower bound of 0.69
};
template <class Io>
void describe(Io& io, UnstableStartClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  io.field("share", c.share, share_above);
}

struct EdgeOfStabilityClaim {
  static constexpr std::string_view section = "edge_of_stability";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  std::vector<double> slope;  // from, to
};
template <class Io>
void describe(Io& io, EdgeOfStabilityClaim& c) {
  io.required("arms", c.arms, ListSize{2, 100}, TextRule::run_name);
  io.required("slope", c.slope, pair_size, any_sign);
  io.check(c.slope.size() != 2 || c.slope[0] < c.slope[1], "slope", "is not a range",
           "the smaller first, as in [0.8, 1.2]");
}

struct DeepLayersClaim {
  static constexpr std::string_view section = "deep_layers_move_more";
  static constexpr auto experiment = ExperimentKind::compare;
  std::vector<std::string> arms;
  Length within;
  double p_below = 0.05;
};
template <class Io>
void describe(Io& io, DeepLayersClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  io.required("within", c.within, LengthRule{.zero = false});
  io.field("p_below", c.p_below, significance_level);
}

struct BoundaryRisesClaim {
  static constexpr std::string_view section = "boundary_rises";
  static constexpr auto experiment = ExperimentKind::sweep;
  std::string along;         // an axis
  std::vector<Override> at;  // values of other axes; absent: all of them
  double p_below = 0.05;
  double octaves_back = 1;  // the largest step back that is tolerated
};
template <class Io>
void describe(Io& io, BoundaryRisesClaim& c) {
  io.required("along", c.along, TextRule::pattern);
  io.field("at", c.at);
  io.field("p_below", c.p_below, significance_level);
  io.field("octaves_back", c.octaves_back, at_least(0));
}

struct BoundaryMovesClaim {
  static constexpr std::string_view section = "boundary_moves";
  static constexpr auto experiment = ExperimentKind::sweep;
  std::string along;
  std::vector<Override> at;
  Bound octaves;  // of the last value's boundary over the first's
};
template <class Io>
void describe(Io& io, BoundaryMovesClaim& c) {
  io.required("along", c.along, TextRule::pattern);
  io.field("at", c.at);
  describe(io, c.octaves, "octaves_", any_sign, any_sign);
}

struct SensitivityFallsClaim {
  static constexpr std::string_view section = "sensitivity_falls";
  static constexpr auto experiment = ExperimentKind::sweep;
  std::string along;
  std::vector<Override> at;
};
template <class Io>
void describe(Io& io, SensitivityFallsClaim& c) {
  io.required("along", c.along, TextRule::pattern);
  io.field("at", c.at);
}

struct AccuracyMovesClaim {
  static constexpr std::string_view section = "accuracy_moves";
  static constexpr auto experiment = ExperimentKind::sweep;
  std::string along;                 // an axis, schedule.base_lr too
  std::vector<Axis> over;            // the values of axes looked at; absent: all of them
  double octaves_from_boundary = 2;  // of the largest rate looked at, downwards
  std::optional<double> within;      // how far no value of the axis is from the first; one of the
  std::optional<double> beyond;      // two, how far the last is
};
template <class Io>
void describe(Io& io, AccuracyMovesClaim& c) {
  io.required("along", c.along, TextRule::pattern);
  io.field("over", c.over);
  io.field("octaves_from_boundary", c.octaves_from_boundary, at_least(0));
  io.field("within", c.within, share_distance);
  io.field("beyond", c.beyond, share_above);
  io.check(c.within.has_value() != c.beyond.has_value(), "within",
           "needs exactly one of within and beyond", "give one of the two");
}

struct RateRatioClaim {
  static constexpr std::string_view section = "rate_ratio";
  static constexpr auto experiment = ExperimentKind::find_lr;
  std::vector<std::string> arms;
  Bound log2;  // of the second's largest rate over the first's
};
template <class Io>
void describe(Io& io, RateRatioClaim& c) {
  io.required("arms", c.arms, pair_size, TextRule::run_name);
  describe(io, c.log2, "log2_", any_sign, any_sign);
}

struct HoldsBelowClaim {
  static constexpr std::string_view section = "holds_below";
  static constexpr auto experiment = ExperimentKind::find_lr;
  std::string arm;
  double share = 0.9;  // even 35 of 35 runs only give a lower bound of 0.8999
};
template <class Io>
void describe(Io& io, HoldsBelowClaim& c) {
  io.required("arm", c.arm, TextRule::run_name);
  io.field("share", c.share, share_above);
}

using Claim =
    std::variant<FailuresClaim, FailsMoreClaim, FailsAlikeClaim, AccuracyClaim, AccuracyAlikeClaim,
                 AccuracyFallsClaim, AccuracyGapClaim, SoonerClaim, SmallerSpikeClaim, GateClaim,
                 SharpnessFallsClaim, SharpnessStaysClaim, UnstableStartClaim, EdgeOfStabilityClaim,
                 DeepLayersClaim, BoundaryRisesClaim, BoundaryMovesClaim, SensitivityFallsClaim,
                 AccuracyMovesClaim, RateRatioClaim, HoldsBelowClaim>;

}  // namespace preheat
