#include "schedule/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <span>

namespace preheat {
namespace {

constexpr std::int64_t default_warmup_epochs = 5;

std::string shape_names(std::span<const Shape> shapes) {
  std::string names;
  for (const Shape shape : shapes) {
    names += names.empty() ? "" : ", ";
    names += shape_facts[static_cast<int>(shape)].name;
  }
  return names;
}

constexpr Shape warmup_shapes[] = {Shape::constant, Shape::linear, Shape::cosine, Shape::power,
                                   Shape::exponential};
constexpr Shape all_shapes[] = {Shape::constant,    Shape::linear, Shape::cosine,   Shape::power,
                                Shape::exponential, Shape::step,   Shape::multistep};
static_assert(std::size(all_shapes) == std::size(shape_facts));

// Appends resolved phases one after the other.
class Layout {
 public:
  Layout(const RunConfig& config, const RunLength& run) : config_(config) { schedule_.run = run; }

  std::int64_t used() const { return used_; }
  std::int64_t left() const { return schedule_.run.steps - used_; }

  // The value the next phase starts from unless it says otherwise.
  double reached() const { return reached_; }

  std::int64_t updates(const Length& length, const std::string& key) const {
    const std::int64_t n = updates_of(length, schedule_.run, config_, key);
    if (n > left()) {
      fail(key,
           fmt::format("{} ({} updates) do not fit into the {} updates {}", to_string(length), n,
                       left(), used_ == 0 ? "of the run" : "that are left of the run"),
           fmt::format("at most {} steps, or a longer train.length", left()));
    }
    return n;
  }

  // Names of the keys that hold the two end values, as the section calls them.
  struct EndKeys {
    std::string from;
    std::string to;
  };

  void add(const PhaseConfig& given, std::span<const Shape> allowed, std::int64_t length,
           double from, double to, const EndKeys& end_keys) {
    Phase phase;
    phase.shape = shape_of(given, allowed);
    const ShapeFacts& facts = shape_facts[static_cast<int>(phase.shape)];
    const auto refuse_unless = [&](unsigned taken, bool present, const std::string& key) {
      if (present && (facts.keys & taken) == 0) {
        fail(given.key + "." + key, fmt::format("shape {} takes no {}", facts.name, key),
             "leave it out or choose another shape");
      }
    };
    refuse_unless(takes_to, given.to.has_value(), end_keys.to);
    refuse_unless(takes_power, given.power.has_value(), "power");
    refuse_unless(takes_gamma, given.gamma.has_value(), "gamma");
    refuse_unless(takes_over, given.over.has_value(), "over");
    refuse_unless(takes_at, !given.at.empty(), "at");
    phase.endpoints = endpoints_of(given);
    phase.from = from;
    phase.to = (facts.keys & takes_to) != 0 ? to : from;
    phase.power = given.power.value_or(1.0);
    phase.gamma = given.gamma.value_or(0.1);
    if ((facts.keys & needs_positive) != 0) {
      if (phase.from <= 0) {
        fail(given.key + "." + end_keys.from,
             fmt::format("shape {} cannot start from 0", facts.name), "a rate above 0");
      }
      if (phase.to <= 0) {
        fail(given.key + "." + end_keys.to, fmt::format("shape {} never reaches 0", facts.name),
             "a rate above 0");
      }
    }
    if (phase.shape == Shape::step) {
      const std::string key = given.key + ".over";
      if (!given.over)
        fail(key, "is missing", "the length from one drop to the next, as 30 epochs");
      phase.over = updates_of(*given.over, schedule_.run, config_, key);
      if (phase.over == 0) fail(key, "is 0", "at least 1 steps");
    }
    if (phase.shape == Shape::multistep) add_milestones(given, phase);
    if (length == 0) return;  // checked all the same, so that an arm without it hides no mistake
    phase.length = length;
    append(phase, given.name);
    // These shapes only grow or only fall, so their last value is their largest or their least.
    if (!std::isfinite(static_cast<float>(lr_at(schedule_.lr, used_ - 1)))) {
      fail(given.key + ".gamma", "takes the learning rate beyond the largest number there is",
           "a smaller factor, or fewer steps of it");
    }
    reached_ = (facts.keys & takes_to) != 0 ? phase.to : lr_at(schedule_.lr, used_ - 1);
  }

  Schedule finish() {
    if (left() > 0) {
      Phase rest;
      rest.length = left();
      rest.from = rest.to = used_ == 0 ? config_.schedule.base_lr : lr_at(schedule_.lr, used_ - 1);
      append(rest, "final");
    }
    return std::move(schedule_);
  }

  [[noreturn]] void fail(const std::string& key, const std::string& problem,
                         const std::string& remedy) const {
    throw ConfigError(config_.where(key), problem, remedy);
  }

 private:
  Shape shape_of(const PhaseConfig& given, std::span<const Shape> allowed) const {
    for (const Shape shape : allowed) {
      if (given.shape == shape_facts[static_cast<int>(shape)].name) return shape;
    }
    fail(given.key + ".shape", fmt::format("'{}' is not a shape it can have", given.shape),
         "one of " + shape_names(allowed));
  }

  Endpoints endpoints_of(const PhaseConfig& given) const {
    constexpr const char* names[] = {"start", "end", "both", "neither"};
    for (int i = 0; i < 4; ++i) {
      if (given.endpoints == names[i]) return static_cast<Endpoints>(i);
    }
    fail(given.key + ".endpoints", fmt::format("'{}' is unknown", given.endpoints),
         "one of start, end, both, neither");
  }

  void add_milestones(const PhaseConfig& given, Phase& phase) {
    const std::string key = given.key + ".at";
    if (given.at.empty()) fail(key, "is missing", "a list of lengths, as [100 epochs, 150 epochs]");
    phase.first_at = milestones_;
    std::int64_t previous = 0;
    for (const Length& length : given.at) {
      const std::int64_t at = updates_of(length, schedule_.run, config_, key);
      if (at <= previous) {
        fail(key, fmt::format("{} does not come after the one before it", to_string(length)),
             "lengths from the start of the run, each above the last");
      }
      if (milestones_ == max_milestones) {
        fail(key, fmt::format("is one of more than {} in the schedule", max_milestones),
             "fewer milestones");
      }
      schedule_.lr.at[milestones_++] = previous = at;
    }
    phase.milestones = milestones_ - phase.first_at;
  }

  void append(Phase phase, const std::string& name) {
    if (schedule_.lr.phase_count == max_phases) {
      fail("schedule", fmt::format("has more than {} phases", max_phases), "fewer phases");
    }
    phase.begin = used_;
    used_ += phase.length;
    schedule_.lr.phases[schedule_.lr.phase_count++] = phase;
    schedule_.phase_names.push_back(name);
  }

  const RunConfig& config_;
  Schedule schedule_;
  std::int64_t used_ = 0;
  std::int32_t milestones_ = 0;
  double reached_ = 0;
};

void lay_out_sections(Layout& layout, const ScheduleConfig& given, const RunLength& run) {
  const double base = given.base_lr;
  const auto value = [&](const std::optional<LrValue>& lr, double otherwise) {
    return lr ? (lr->times_base ? lr->value * base : lr->value) : otherwise;
  };
  const std::int64_t warmup =
      given.warmup.length ? layout.updates(*given.warmup.length, "schedule.warmup.length")
                          : std::min(default_warmup_epochs * run.steps_per_epoch, run.steps / 2);
  const bool from_factor = given.warmup.from && given.warmup.from->times_base;
  layout.add(given.warmup, warmup_shapes, warmup, value(given.warmup.from, 0.0), base,
             {from_factor ? "start_factor" : "start_lr", "base_lr"});
  const std::int64_t hold = layout.updates(given.hold, "schedule.hold");
  PhaseConfig plateau;
  plateau.key = "schedule.hold";
  plateau.name = "hold";
  plateau.shape = "constant";
  layout.add(plateau, all_shapes, hold, base, base, {});
  const std::int64_t decay = given.decay.length
                                 ? layout.updates(*given.decay.length, "schedule.decay.length")
                                 : layout.left();
  const bool to_factor = given.decay.to && given.decay.to->times_base;
  layout.add(given.decay, all_shapes, decay, base, value(given.decay.to, 0.0),
             {"base_lr", to_factor ? "final_factor" : "final_lr"});
}

void lay_out_phases(Layout& layout, const ScheduleConfig& given) {
  const double base = given.base_lr;
  const auto value = [&](const std::optional<LrValue>& lr, double otherwise) {
    return lr ? (lr->times_base ? lr->value * base : lr->value) : otherwise;
  };
  for (std::size_t i = 0; i < given.phases.size(); ++i) {
    const PhaseConfig& phase = given.phases[i];
    const std::string key = phase.key + ".length";
    if (!phase.length && i + 1 < given.phases.size()) {
      layout.fail(key, "is missing", "only the last phase may leave it out");
    }
    const std::int64_t length = phase.length ? layout.updates(*phase.length, key) : layout.left();
    if (length == 0 && !phase.length) {
      layout.fail(phase.key, "has no updates left", "shorter phases before it");
    }
    layout.add(phase, all_shapes, length, value(phase.from, layout.reached()),
               value(phase.to, base), {"from", "to"});
  }
}

}  // namespace

std::int64_t updates_of(const Length& length, const RunLength& run, const RunConfig& config,
                        std::string_view key) {
  double updates = length.value;
  if (length.unit == LengthUnit::epochs) updates *= static_cast<double>(run.steps_per_epoch);
  if (length.unit == LengthUnit::percent) updates *= static_cast<double>(run.steps) / 100;
  const std::int64_t rounded = std::llround(updates);
  if (rounded == 0 && length.value > 0) {
    throw ConfigError(config.where(key),
                      fmt::format("{} comes to no update at all in a run of {} steps",
                                  to_string(length), run.steps),
                      "a longer stretch, or 0 steps for none");
  }
  return rounded;
}

RunLength run_length(const RunConfig& config, std::int64_t steps_per_epoch) {
  if (config.train.length.unit == LengthUnit::percent) {
    throw ConfigError(config.where("train.length"), "a run cannot be a per cent of itself",
                      "<n> epochs or <n> steps");
  }
  double updates = config.train.length.value;
  if (config.train.length.unit == LengthUnit::epochs)
    updates *= static_cast<double>(steps_per_epoch);
  const RunLength run{std::llround(updates), steps_per_epoch};
  if (run.steps < 1) {
    throw ConfigError(config.where("train.length"),
                      to_string(config.train.length) + " come to no update at all",
                      fmt::format("at least 1 step; an epoch is {}", steps_per_epoch));
  }
  return run;
}

Schedule resolve_schedule(const RunConfig& config, const RunLength& run) {
  Layout layout(config, run);
  if (config.schedule.phases.empty()) {
    lay_out_sections(layout, config.schedule, run);
  } else {
    lay_out_phases(layout, config.schedule);
  }
  return layout.finish();
}

const std::string& phase_name(const Schedule& schedule, std::int64_t step) {
  return schedule.phase_names[phase_at(schedule.lr, step)];
}

}  // namespace preheat
