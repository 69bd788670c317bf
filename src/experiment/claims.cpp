#include "experiment/claims.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "config/values.h"
#include "data/dataset.h"
#include "experiment/findings.h"
#include "experiment/sweep.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/fingerprint.h"

namespace preheat {
namespace {

constexpr const char* command_names[] = {"compare", "sweep", "find_lr"};

const char* name_of(Experiment experiment) {
  return command_names[static_cast<int>(experiment)];
}

template <Experiment other>
void refuse_without_section(const RunConfig& base, Experiment experiment, bool has_section) {
  if (other == experiment || has_section) return;
  for_claims<other>(base, [&](const auto&, const std::string& place) {
    throw ConfigError(
        base.where(place),
        fmt::format("is a claim about {}, which this file does not have", name_of(other)),
        fmt::format("a {} section, or a claim about {}; configs/reference.yaml says which are",
                    name_of(other), name_of(experiment)));
  });
}

void refuse_foreign_claims(const RunConfig& base, Experiment experiment) {
  refuse_without_section<Experiment::compare>(base, experiment, base.compare.has_value());
  refuse_without_section<Experiment::sweep>(base, experiment, base.sweep.has_value());
  refuse_without_section<Experiment::find_lr>(base, experiment, base.find_lr.has_value());
}

template <class Claim>
constexpr bool reads_sharpness = false;
template <>
constexpr bool reads_sharpness<SharpnessFallsClaim> = true;
template <>
constexpr bool reads_sharpness<SharpnessStaysClaim> = true;
template <>
constexpr bool reads_sharpness<UnstableStartClaim> = true;
template <>
constexpr bool reads_sharpness<EdgeOfStabilityClaim> = true;

// What a claim says of arms, checked against those there are.
class ArmsCheck {
 public:
  ArmsCheck(const RunConfig& base, const std::vector<Arm>& arms,
            const std::vector<RunConfig>& configs)
      : base_(base), configs_(configs) {
    for (const Arm& arm : arms) names_.push_back(arm.name);
  }

  template <class Claim>
  void operator()(const Claim& claim, const std::string& place) const {
    if constexpr (requires { claim.arm; }) {
      const RunConfig& config = arm(claim.arm, place + ".arm");
      check_arm(claim, config, claim.arm, place, place + ".arm");
    } else {
      check_arms(claim, claim.arms, place, ".arms");
    }
    if constexpr (requires { claim.than; }) check_arms(claim, claim.than, place, ".than");
  }

 private:
  // All are there and run different things.
  template <class Claim>
  void check_arms(const Claim& claim, const std::vector<std::string>& arms,
                  const std::string& place, const char* list) const {
    std::vector<const RunConfig*> seen;
    for (std::size_t i = 0; i < arms.size(); ++i) {
      const std::string key = fmt::format("{}{}.{}", place, list, i);
      const RunConfig& config = arm(arms[i], key);
      for (std::size_t k = 0; k < seen.size(); ++k) {
        if (seen[k] == &config) {
          refuse(key, fmt::format("{} is named twice", arms[i]), "different arms");
        }
        if (fingerprint(*seen[k]) == fingerprint(config)) {
          refuse(key, fmt::format("{} runs the same as {}", arms[i], arms[k]),
                 "arms that differ in more than their names");
        }
      }
      seen.push_back(&config);
      check_arm(claim, config, arms[i], place, key);
    }
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& problem,
                           const std::string& remedy) const {
    throw ConfigError(base_.where(key), problem, remedy);
  }

  const RunConfig& arm(const std::string& name, const std::string& key) const {
    const auto found = std::ranges::find(names_, name);
    if (found == names_.end()) {
      const std::vector<std::string> likely = nearest(name, names_);
      refuse(key, fmt::format("there is no arm {}", name),
             likely.empty() ? fmt::format("the arms are {}", fmt::join(names_, ", "))
                            : did_you_mean(likely));
    }
    return configs_[static_cast<std::size_t>(found - names_.begin())];
  }

  std::int64_t updates(const Length& length, const RunConfig& config,
                       const std::string& key) const {
    return updates_of(length, run_length(config, steps_per_epoch(config)), base_, key);
  }

  void check_begin(const Length& length, const RunConfig& config, const std::string& key) const {
    const std::int64_t steps = run_length(config, steps_per_epoch(config)).steps;
    if (updates(length, config, key) >= steps) {
      refuse(
          key,
          fmt::format("{} are not before the end of a run of {} updates", to_string(length), steps),
          "an earlier update");
    }
  }

  template <class Claim>
  void check_arm(const Claim&, const RunConfig& config, const std::string& name, const std::string&,
                 const std::string& key) const {
    if (reads_sharpness<Claim> && !config.diagnostics.sharpness) {
      refuse(key, fmt::format("the sharpness of {} is not measured", name),
             "diagnostics: {sharpness: {every: 10 steps}}");
    }
  }

  void check_arm(const SmallerSpikeClaim& c, const RunConfig& config, const std::string&,
                 const std::string& place, const std::string&) const {
    check_begin(c.after, config, place + ".after");
    updates(c.within, config, place + ".within");
  }

  void check_arm(const GateClaim& c, const RunConfig& config, const std::string& name,
                 const std::string& place, const std::string& key) const {
    if (!config.schedule.until) {
      refuse(key, fmt::format("the warmup of {} has no gate", name),
             "schedule.warmup.until: {train_error_below: 0.8}");
    }
    check_begin(c.from, config, place + ".from");
    if (updates(c.to, config, place + ".to") <= updates(c.from, config, place + ".from")) {
      refuse(place + ".to", fmt::format("{} are not after {}", to_string(c.to), to_string(c.from)),
             "a later update than from");
    }
  }

  void check_arm(const DeepLayersClaim& c, const RunConfig& config, const std::string& name,
                 const std::string& place, const std::string& key) const {
    if (!config.diagnostics.layers_every) {
      refuse(key, fmt::format("the layers of {} are not looked at", name),
             "diagnostics: {layers_every: 10 steps}");
    }
    updates(c.within, config, place + ".within");
    const DatasetFacts& data = facts(config.data.dataset);
    const Network network = build_network(config, data.shape, data.classes);
    if (std::ranges::count_if(network.ops, [](const Op& op) { return op.weight >= 0; }) < 2) {
      refuse(key, fmt::format("{} has one layer", name), "a network of at least two layers");
    }
  }

  const RunConfig& base_;
  const std::vector<RunConfig>& configs_;
  std::vector<std::string> names_;
};

// What a claim says of axes, checked against those there are.
class AxesCheck {
 public:
  explicit AxesCheck(const RunConfig& base)
      : base_(base), axes_(base.sweep->axes), rate_(rate_axis(axes_)) {
    for (const Axis& axis : axes_) {
      if (&axis != rate_) others_.push_back(axis.key);
    }
  }

  template <class Claim>
  void operator()(const Claim& claim, const std::string& place) const {
    const std::string key = place + ".along";
    if (!rate_) {
      refuse(key, "the axes do not have schedule.base_lr",
             "schedule.base_lr: {log: [0.01, 1, 5]} among sweep.axes");
    }
    check(claim, place, key);
  }

 private:
  // Of boundaries, each along the rate.
  template <class Claim>
  void check(const Claim& claim, const std::string& place, const std::string& key) const {
    if (std::ranges::find(others_, claim.along) == others_.end()) {
      refuse(key, fmt::format("{} is no axis beside schedule.base_lr", claim.along),
             others_.empty() ? "one more of sweep.axes"
                             : fmt::format("one of {}", fmt::join(others_, ", ")));
    }
    check_length(claim.along, axis(claim.along)->values.size(), key);
    for (const Override& o : claim.at) {
      const std::string at = place + ".at." + o.key;
      if (!axis(o.key) || o.key == claim.along || axis(o.key) == rate_) {
        refuse(at, fmt::format("{} is no further axis", o.key),
               "an axis other than schedule.base_lr and the one gone along");
      }
      check_value(*axis(o.key), o.value, at);
    }
    if (std::is_same_v<Claim, SensitivityFallsClaim> && base_.loss != Loss::cross_entropy) {
      refuse(key, "sensitivity is defined for cross entropy", "loss: cross_entropy");
    }
  }

  void check(const AccuracyMovesClaim& claim, const std::string& place,
             const std::string& key) const {
    if (!axis(claim.along)) {
      std::vector<std::string> keys;
      for (const Axis& a : axes_) keys.push_back(a.key);
      refuse(key, fmt::format("there is no axis {}", claim.along),
             fmt::format("one of {}", fmt::join(keys, ", ")));
    }
    check_length(claim.along, axis(claim.along)->values.size(), key);
    for (const Axis& wanted : claim.over) {
      const std::string over = place + ".over." + wanted.key;
      if (!axis(wanted.key) || axis(wanted.key) == rate_) {
        refuse(over, fmt::format("{} is no axis beside schedule.base_lr", wanted.key),
               "an axis; the rates follow from the boundary");
      }
      for (std::size_t i = 0; i < wanted.values.size(); ++i) {
        check_value(*axis(wanted.key), wanted.values[i], over);
        for (std::size_t k = 0; k < i; ++k) {
          if (is_same(wanted.values[i], wanted.values[k])) {
            refuse(over, fmt::format("{} stands there twice", to_flow_text(wanted.values[i])),
                   "each value once");
          }
        }
      }
      if (wanted.key == claim.along) check_length(wanted.key, wanted.values.size(), over);
    }
  }

  const Axis* axis(const std::string& key) const {
    const auto found = std::ranges::find(axes_, key, &Axis::key);
    return found == axes_.end() ? nullptr : &*found;
  }

  void check_length(const std::string& name, std::size_t values, const std::string& key) const {
    if (values >= 2) return;
    refuse(key, fmt::format("{} has a single value", name), "an axis with at least two");
  }

  void check_value(const Axis& axis, const Node& value, const std::string& key) const {
    if (std::ranges::any_of(axis.values, [&](const Node& v) { return is_same(v, value); })) return;
    refuse(key, fmt::format("{} is no value of the axis", to_flow_text(value)),
           "one of its values");
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& problem,
                           const std::string& remedy) const {
    throw ConfigError(base_.where(key), problem, remedy);
  }

  const RunConfig& base_;
  const std::vector<Axis>& axes_;
  const Axis* rate_;  // among them, or none
  std::vector<std::string> others_;
};

std::string points(double difference) {
  return fmt::format("{:.3g} percentage points", 100 * difference);
}

std::string at_text(const std::vector<Override>& at) {
  std::string text;
  for (const Override& o : at) {
    text += fmt::format("{} {} {}", text.empty() ? ", at" : ",", o.key, to_flow_text(o.value));
  }
  return text;
}

std::string per_cent(double share) {
  return fmt::format("{:.3g} %", 100 * share);
}

}  // namespace

std::string text_of(const FailuresClaim& c) {
  return fmt::format("{} fails in {} than {} of runs", c.arm, c.above ? "more" : "less",
                     per_cent(c.above ? *c.above : *c.below));
}

std::string text_of(const FailsMoreClaim& c) {
  return fmt::format("{} fails more often than {}", c.arms[0], c.arms[1]);
}

std::string text_of(const FailsAlikeClaim& c) {
  return fmt::format("{} fails as often as {}", c.arms[0], c.arms[1]);
}

std::string text_of(const AccuracyClaim& c) {
  if (c.at_least == 0) return fmt::format("{} is more accurate than {}", c.arms[0], c.arms[1]);
  if (c.at_least < 0) {
    return fmt::format("{} is less accurate than {} by at most {}", c.arms[0], c.arms[1],
                       points(-c.at_least));
  }
  return fmt::format("{} is more accurate than {} by at least {}", c.arms[0], c.arms[1],
                     points(c.at_least));
}

std::string text_of(const AccuracyAlikeClaim& c) {
  return fmt::format("{} and {} are equally accurate, to {}", c.arms[0], c.arms[1],
                     points(c.within));
}

std::string text_of(const AccuracyFallsClaim& c) {
  return fmt::format("the test accuracy falls along {}", fmt::join(c.arms, ", "));
}

std::string text_of(const AccuracyGapClaim& c) {
  return fmt::format(
      "accuracy from {} to {} falls by {} than {:g} times what it falls by from {} to {}",
      c.arms[0], c.arms[1], c.above ? "more" : "less", c.above ? *c.above : *c.below, c.than[0],
      c.than[1]);
}

std::string text_of(const SoonerClaim& c) {
  return fmt::format("{} has a training error below {} sooner than {}", c.arms[0],
                     per_cent(c.train_error), c.arms[1]);
}

std::string text_of(const SmallerSpikeClaim& c) {
  return fmt::format("the loss spikes less in {} than in {}, within {} after {}", c.arms[0],
                     c.arms[1], to_string(c.within), to_string(c.after));
}

std::string text_of(const GateClaim& c) {
  return fmt::format("the gate of {} opens from {} to {}, in at least {} of runs", c.arm,
                     to_string(c.from), to_string(c.to), per_cent(c.share));
}

std::string text_of(const SharpnessFallsClaim& c) {
  return fmt::format("the sharpness falls {:.3g}-fold in {}", c.by, c.arm);
}

std::string text_of(const SharpnessStaysClaim& c) {
  return fmt::format("the {} falls less than {:.3g}-fold in {}",
                     c.random_direction ? "curvature along a random direction" : "sharpness",
                     c.within, c.arm);
}

std::string text_of(const UnstableStartClaim& c) {
  return fmt::format(
      "sharpness x rate / 2 is above 1 at the start in at least {} of the runs of {} that are not "
      "finite",
      per_cent(c.share), c.arm);
}

std::string text_of(const EdgeOfStabilityClaim& c) {
  return fmt::format("the late sharpness follows 2 (1 + momentum) / rate, slope {:g} to {:g}",
                     c.slope[0], c.slope[1]);
}

std::string text_of(const DeepLayersClaim& c) {
  return fmt::format("deep layers move more, against shallow ones, in {} than in {}", c.arms[0],
                     c.arms[1]);
}

std::string text_of(const BoundaryRisesClaim& c) {
  return fmt::format("the largest rate that trains rises along {}{}", c.along, at_text(c.at));
}

std::string text_of(const BoundaryMovesClaim& c) {
  return fmt::format("the largest rate that trains moves by {} than {:g} octaves along {}{}",
                     c.octaves_above ? "more" : "less",
                     c.octaves_above ? *c.octaves_above : *c.octaves_below, c.along, at_text(c.at));
}

std::string text_of(const SensitivityFallsClaim& c) {
  return fmt::format("the sensitivity to the base rate falls along {}{}", c.along, at_text(c.at));
}

std::string text_of(const AccuracyMovesClaim& c) {
  std::string over;
  for (const Axis& axis : c.over) {
    std::vector<std::string> values;
    for (const Node& value : axis.values) values.push_back(to_flow_text(value));
    over += fmt::format("{} {} {}", over.empty() ? ", over" : " and", axis.key,
                        fmt::join(values, ", "));
  }
  return fmt::format("{:g} octaves below the boundary accuracy moves by {} than {} along {}{}",
                     c.octaves_from_boundary, c.within ? "less" : "more",
                     points(c.within ? *c.within : *c.beyond), c.along, over);
}

std::string text_of(const RateRatioClaim& c) {
  return fmt::format("{} trains at {} than {:.3g} times the rate of {}", c.arms[1],
                     c.log2_above ? "more" : "less",
                     std::exp2(c.log2_above ? *c.log2_above : *c.log2_below), c.arms[0]);
}

nlohmann::ordered_json to_json(const std::vector<ClaimResult>& claims) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ClaimResult& c : claims) {
    json.push_back({{"claim", c.claim},
                    {"text", c.text},
                    {"verdict", to_string(c.verdict)},
                    {"evidence", c.evidence}});
  }
  return json;
}

void check_compare_claims(const RunConfig& base, const std::vector<RunConfig>& configs) {
  refuse_foreign_claims(base, Experiment::compare);
  for_claims<Experiment::compare>(base, ArmsCheck(base, base.compare->arms, configs));
}

void check_find_lr_claims(const RunConfig& base, const std::vector<Arm>& arms,
                          const std::vector<RunConfig>& configs) {
  refuse_foreign_claims(base, Experiment::find_lr);
  for_claims<Experiment::find_lr>(base, ArmsCheck(base, arms, configs));
}

void check_sweep_claims(const RunConfig& base) {
  refuse_foreign_claims(base, Experiment::sweep);
  for_claims<Experiment::sweep>(base, AxesCheck(base));
}

Verdict verdict_above(const Interval& interval, double value) {
  if (interval.lo > value) return Verdict::pass;
  return interval.hi < value ? Verdict::fail : Verdict::inconclusive;
}

Verdict verdict_below(const Interval& interval, double value) {
  return verdict_above({-interval.hi, -interval.lo}, -value);
}

std::vector<ClaimResult> settle(std::vector<Judged> judged) {
  std::vector<double> p_values;
  for (const Judged& j : judged) {
    if (j.p_below) p_values.push_back(j.finding.test ? j.finding.test->p : 1);
  }
  const std::vector<double> adjusted = holm(p_values);
  std::vector<ClaimResult> results;
  std::size_t next = 0;
  for (Judged& j : judged) {
    ClaimResult& result = j.result;
    result.evidence = j.finding.evidence;
    result.verdict = j.finding.verdict;
    if (j.p_below) {
      const double p = adjusted[next++];
      if (const auto& test = j.finding.test) {
        const bool significant = p < *j.p_below;
        const bool could_be = test->least_p < *j.p_below;
        if (j.finding.contradicted || (!test->right_way && could_be)) {
          result.verdict = Verdict::fail;
        } else if (significant && test->right_way) {
          result.verdict = Verdict::pass;
        }
        result.evidence +=
            fmt::format("; {} = {:.2g}{}, {}below {:g}", test->name, p,
                        p_values.size() > 1 ? fmt::format(" (Holm over {})", p_values.size()) : "",
                        significant ? "" : "not ", *j.p_below);
        if (!could_be) result.evidence += ", which so few could not show";
      }
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace preheat
