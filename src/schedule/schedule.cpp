#include "schedule/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <span>

#include "config/counted.h"
#include "config/nearest.h"
#include "config/values.h"

namespace preheat {
namespace {

constexpr std::int64_t default_warmup_epochs = 5;

// The placeholder for `start_lr: auto`, as a factor of base_lr, until the network is measured.
constexpr double placeholder_start_factor = 0.1;

// The phase that keeps the last value to the end of the run.
constexpr const char* rest_name = "final";

const ShapeFacts& facts_of(Shape shape) {
  return shape_facts[static_cast<int>(shape)];
}

bool is(const std::optional<LrValue>& lr, LrKind kind) {
  return lr && lr->kind == kind;
}

constexpr Shape warmup_shapes[] = {Shape::constant, Shape::linear,      Shape::cosine,
                                   Shape::power,    Shape::exponential, Shape::saturating};

std::vector<Shape> all_shapes() {
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < std::size(shape_facts); ++i) shapes.push_back(static_cast<Shape>(i));
  return shapes;
}

// The two end values of a phase, and the keys under which a user gives them.
struct Ends {
  double from = 0;
  double to = 0;
  std::string from_key = "from";
  std::string to_key = "to";
};

// Appends resolved phases one after the other.
class Layout {
 public:
  Layout(const RunConfig& config, const RunLength& run) : config_(config) {
    schedule_.run = run;
    schedule_.lr.steps = run.steps;
    schedule_.base_lr = base_lr(config);
  }

  void leave_start_open() { schedule_.start_is_automatic = true; }

  std::int64_t left() const { return schedule_.run.steps - used_; }

  // The value from which the next phase starts by default.
  double reached() const { return reached_; }

  double value_of(const std::optional<LrValue>& lr, double otherwise) const {
    if (!lr) return otherwise;
    switch (lr->kind) {
      case LrKind::absolute:
        return lr->value;
      case LrKind::times_base:
        return lr->value * schedule_.base_lr;
      case LrKind::last:
        return schedule_.lr.phase_count == 0 ? reached_ : last_value();
      case LrKind::automatic:
        return placeholder_start_factor * schedule_.base_lr;
    }
    return lr->value;
  }

  std::int64_t updates(const Length& length, const std::string& key, bool may_be_zero) const {
    return updates_of(length, schedule_.run, config_, key, may_be_zero);
  }

  // The same for the next phase, which has to fit into the rest of the run.
  std::int64_t updates_that_fit(const Length& length, const std::string& key) const {
    const std::int64_t n = updates(length, key, true);
    if (n > left()) {
      fail(key,
           fmt::format("{} ({}) {} not fit into the {} {}", to_string(length), counted(n, "update"),
                       n == 1 ? "does" : "do", counted(left(), "update"),
                       used_ == 0 ? "of the run" : "left of the run"),
           fmt::format("at most {}, or a longer train.length", counted(left(), "step")));
    }
    return n;
  }

  // Checks a phase and appends it. Its shape covers `length` updates, but it ends after `latest` of
  // them. A phase of length 0 is checked too, so that an arm without a warmup hides no error in it.
  void add(const PhaseConfig& given, std::span<const Shape> allowed, std::int64_t length,
           std::int64_t latest, const Ends& ends) {
    Phase phase;
    phase.shape = shape_of(given, allowed);
    phase.endpoints = endpoints_of(given);
    phase.every = given.every == Every::epoch ? schedule_.run.steps_per_epoch : 1;
    phase.fills_run = !given.length;
    phase.length = std::min(length, latest);
    phase.span = length;
    phase.from = ends.from;
    phase.to = ends.to;
    phase.min_lr = given.min_lr.value_or(config_.schedule.min_lr);
    take_keys(given, ends, phase);
    if (!lead_) lead_ = length;
    reached_ = reaches_to(phase) ? phase.to : phase.from;
    const bool may_grow = phase.fills_run && longest_shift() > 0;
    if (phase.length == 0 && !may_grow) return;
    append(phase, given.name);
    refuse_infinite(given, ends);
    if (phase.length > 0 && !reaches_to(phase)) reached_ = last_value();
  }

  // From now on phases count from the start of the run; the first one covers their begin.
  void overlap(Overlap kind) {
    schedule_.lr.overlap = kind;
    used_ = 0;
  }

  void set_gate(const Gate& gate, double error) {
    schedule_.lr.gate = gate;
    schedule_.gate_error = error;
  }

  // Makes the ramp of an overlapping first phase lead to the value that the later phases have at
  // the update where it would end: `latest` of it cuts it off and does not change it.
  void lead_to_curve(const std::string& key) {
    LrSchedule& lr = schedule_.lr;
    if (lr.overlap == Overlap::none) return;
    const std::int64_t seam = std::min(lr.phases[0].span, schedule_.run.steps - 1);
    const int next = later_phase_at(lr, seam, 0);
    lr.phases[0].to = std::max(phase_value(lr, next, 0, seam), lr.phases[next].min_lr);
    if (lr.phases[0].shape == Shape::exponential && lr.phases[0].to <= 0) {
      fail(key, "shape exponential never reaches 0, the curve's value there", "shape: linear");
    }
  }

  // The rest of the run has the base rate: nothing but a warmup has been added.
  void stay_at_base() { ends_at_base_ = true; }

  // Keeps the last value, or the base rate, to the end of the run.
  void fill() {
    const LrSchedule& lr = schedule_.lr;
    const bool may_grow = longest_shift() > 0 && !lr.phases[lr.phase_count - 1].fills_run;
    if (left() == 0 && !may_grow) return;
    for (const PhaseConfig& phase : config_.schedule.phases) {
      if (phase.name == rest_name) {
        fail(phase.key + ".name",
             fmt::format("'{}' is the name of the {} after the last phase", rest_name,
                         counted(left(), "update")),
             "another name, or phases to the end of the run");
      }
    }
    Phase rest;
    rest.length = rest.span = left();
    rest.fills_run = true;
    rest.holds_last = used_ > 0 && !ends_at_base_;
    rest.from = rest.to = rest.holds_last ? last_value() : schedule_.base_lr;
    rest.min_lr = rest.holds_last ? lr.phases[lr.phase_count - 1].min_lr : config_.schedule.min_lr;
    append(rest, rest_name);
  }

  Schedule take() { return std::move(schedule_); }

  [[noreturn]] void fail(const std::string& key, const std::string& problem,
                         const std::string& remedy) const {
    throw ConfigError(config_.where(key), problem, remedy);
  }

 private:
  static bool reaches_to(const Phase& phase) {
    return (facts_of(phase.shape).keys & takes_to) != 0 && phase.over == 0;
  }

  // The largest number of updates by which a gate can move the later phases forward.
  std::int64_t longest_shift() const {
    return schedule_.lr.gate.window > 0 && schedule_.lr.overlap == Overlap::none
               ? schedule_.lr.phases[0].length
               : 0;
  }

  // Checks the phase added last. Each shape is monotonic or lies between monotonic ones, so its
  // first and last values bound it.
  void refuse_infinite(const PhaseConfig& given, const Ends& ends) const {
    const int i = schedule_.lr.phase_count - 1;
    const Phase& phase = schedule_.lr.phases[i];
    const auto refuse = [&](std::int64_t shift, std::int64_t step) {
      if (std::isfinite(static_cast<float>(phase_value(schedule_.lr, i, shift, step)))) return;
      const bool by_gamma = (facts_of(phase.shape).keys & takes_gamma) != 0;
      fail(given.key + "." + (by_gamma ? "gamma" : ends.from_key),
           "makes the learning rate overflow",
           by_gamma ? "a smaller factor, or fewer steps of it" : "a smaller rate");
    };
    if (phase.length > 0) {
      refuse(0, phase.begin);
      refuse(0, phase.begin + phase.length - 1);
    }
    if (phase.fills_run && longest_shift() > 0) {
      refuse(longest_shift(), phase.begin + phase.length - 1);
    }
  }

  // The rate of the last update of the phase added last.
  double last_value() const {
    const int i = schedule_.lr.phase_count - 1;
    return std::max(phase_value(schedule_.lr, i, 0, used_ - 1), schedule_.lr.phases[i].min_lr);
  }

  Shape shape_of(const PhaseConfig& given, std::span<const Shape> allowed) const {
    for (const Shape shape : allowed) {
      if (given.shape == facts_of(shape).name) return shape;
    }
    std::vector<std::string> names;
    for (const Shape shape : allowed) names.emplace_back(facts_of(shape).name);
    const std::vector<std::string> near = nearest(given.shape, names);
    fail(given.key + ".shape", fmt::format("'{}' is not an allowed shape", given.shape),
         near.size() == 1 ? did_you_mean(near) : fmt::format("one of {}", fmt::join(names, ", ")));
  }

  Endpoints endpoints_of(const PhaseConfig& given) const {
    constexpr const char* names[] = {"start", "end", "both", "neither"};
    for (int i = 0; i < 4; ++i) {
      if (given.endpoints == names[i]) return static_cast<Endpoints>(i);
    }
    fail(given.key + ".endpoints", fmt::format("'{}' is unknown", given.endpoints),
         "one of start, end, both, neither");
  }

  void refuse_keys_of_other_shapes(const PhaseConfig& given, const Ends& ends,
                                   const ShapeFacts& facts) const {
    const struct {
      unsigned taken;
      std::string key;
      bool given;
    } keys[] = {{takes_to, ends.to_key, given.to.has_value()},
                {takes_power, "power", given.power.has_value()},
                {takes_gamma, "gamma", given.gamma.has_value()},
                {takes_over, "over", given.over.has_value()},
                {takes_staircase, "staircase", given.staircase.has_value()},
                {takes_at, "at", !given.at.empty()},
                {takes_cycles, "cycles", given.cycles.has_value()},
                {takes_cycles, "period", given.period.has_value()},
                {takes_cycles, "multiply", given.multiply.has_value()},
                {takes_cycles, "peak_factor", given.peak_factor.has_value()},
                {takes_cycles, "rewarmup", given.rewarmup.has_value()},
                {takes_timescale, "timescale", given.timescale.has_value()},
                {takes_center, "center", given.center.has_value()},
                {takes_bounds, "lower", given.lower.has_value()},
                {takes_bounds, "upper", given.upper.has_value()},
                // A configuration written by a run contains these two even at their defaults.
                {takes_endpoints, "endpoints", given.endpoints != "end"},
                {takes_every, "every", given.every != Every::step}};
    for (const auto& [taken, key, is_given] : keys) {
      if (is_given && (facts.keys & taken) == 0) {
        fail(given.key + "." + key, fmt::format("shape {} takes no {}", facts.name, key),
             "leave it out or choose another shape");
      }
    }
  }

  void take_keys(const PhaseConfig& given, const Ends& ends, Phase& phase) {
    const ShapeFacts& facts = facts_of(phase.shape);
    refuse_keys_of_other_shapes(given, ends, facts);
    if ((facts.keys & takes_to) == 0) phase.to = phase.from;
    phase.power = given.power.value_or(phase.power);
    phase.lower = given.lower.value_or(phase.lower);
    phase.upper = given.upper.value_or(phase.upper);
    phase.staircase = given.staircase.value_or(false);
    if (given.over) phase.over = at_least_one(*given.over, given.key + ".over");
    switch (phase.shape) {
      case Shape::exponential:
        take_exponential(given, ends, phase);
        break;
      case Shape::cosine:
        take_cycles(given, phase);
        break;
      case Shape::step:
        take_gamma(given, phase, 0.1);
        if (phase.over == 0)
          missing(given.key + ".over", "the length from one drop to the next, such as 30 epochs");
        break;
      case Shape::multistep:
        take_gamma(given, phase, 0.1);
        take_milestones(given, phase);
        break;
      case Shape::inverse:
        take_gamma(given, phase, std::nullopt);
        if (phase.over == 0) phase.over = 1;
        break;
      case Shape::sigmoid:
        if (given.gamma.value_or(0) == 0)
          missing(given.key + ".gamma", "the slope, such as -0.001");
        phase.gamma = *given.gamma;
        if (!given.center) missing(given.key + ".center", "where half of the rate is reached");
        phase.center = updates(*given.center, given.key + ".center", true);
        break;
      case Shape::saturating:
      case Shape::inverse_sqrt:
        take_timescale(given, phase);
        break;
      default:
        break;
    }
  }

  [[noreturn]] void missing(const std::string& key, const std::string& what) const {
    fail(key, "is missing", what);
  }

  std::int64_t at_least_one(const Length& length, const std::string& key) const {
    const std::int64_t n = updates(length, key, false);
    if (n == 0) fail(key, "is 0", "at least 1 step");
    return n;
  }

  void take_gamma(const PhaseConfig& given, Phase& phase, std::optional<double> otherwise) const {
    const std::string key = given.key + ".gamma";
    if (!given.gamma && !otherwise) missing(key, "a number above 0");
    phase.gamma = given.gamma ? *given.gamma : *otherwise;
    if (phase.gamma <= 0) fail(key, fmt::format("{} is out of range", phase.gamma), "above 0");
  }

  void take_exponential(const PhaseConfig& given, const Ends& ends, Phase& phase) const {
    const std::string key = given.key + ".";
    if (given.gamma) {
      if (given.to) fail(key + "gamma", ends.to_key + " is given too", "keep one of the two");
      if (given.endpoints != "end") {
        fail(key + "endpoints", "gamma has no end value", "leave it out");
      }
      take_gamma(given, phase, std::nullopt);
      if (phase.over == 0) missing(key + "over", "the length over which gamma multiplies once");
      phase.to = phase.from;
      return;
    }
    if (given.over) missing(key + "gamma", "the factor that goes with over");
    if (given.staircase) missing(key + "gamma", "the factor that goes with staircase");
    // Checked as floats: refusing ends too small for a float also keeps their ratio finite.
    if (static_cast<float>(phase.from) <= 0) {
      fail(key + ends.from_key, "shape exponential cannot start from 0", "a rate above 0");
    }
    if (static_cast<float>(phase.to) <= 0) {
      fail(key + ends.to_key, "shape exponential never reaches 0",
           "a rate above 0, or gamma and over");
    }
  }

  void take_timescale(const PhaseConfig& given, Phase& phase) const {
    const std::string key = given.key + ".timescale";
    // By default a saturating first phase uses its own length, and a later phase that of the first.
    const std::int64_t otherwise = lead_.value_or(
        phase.shape == Shape::saturating ? std::max<std::int64_t>(phase.span, 1) : 0);
    phase.timescale = given.timescale ? at_least_one(*given.timescale, key) : otherwise;
    if (phase.timescale == 0) missing(key, "a length; there is no warmup to take it from");
  }

  void take_cycles(const PhaseConfig& given, Phase& phase) {
    const std::string key = given.key + ".";
    if (given.cycles && given.period) fail(key + "cycles", "period is given too", "keep one");
    const bool repeats = given.cycles || given.period;
    for (const auto& [is_given, name] : {std::pair{given.peak_factor.has_value(), "peak_factor"},
                                         std::pair{given.rewarmup.has_value(), "rewarmup"}}) {
      if (is_given && !repeats) {
        fail(key + name, "there is no second cycle", "give cycles or period as well");
      }
    }
    if (given.multiply && !given.period) {
      fail(key + "multiply", "there is no period to grow", "give the period of the first cycle");
    }
    if (!repeats) return;
    phase.peak_factor = given.peak_factor.value_or(1.0);
    if (given.rewarmup) phase.rewarmup = updates(*given.rewarmup, key + "rewarmup", true);
    if (given.cycles) {
      take_count_of_cycles(given, phase);
    } else {
      take_period(given, phase);
    }
  }

  void take_count_of_cycles(const PhaseConfig& given, Phase& phase) const {
    const std::string key = given.key + ".";
    phase.cycles = *given.cycles;
    phase.total_rewarmup = (std::ceil(phase.cycles) - 1) * static_cast<double>(phase.rewarmup);
    const std::int64_t longest = phase.span + (phase.fills_run ? longest_shift() : 0);
    const auto updates = static_cast<double>(longest);
    if (longest > 0 && phase.cycles > updates) {
      fail(key + "cycles",
           fmt::format("{:g} are more than its {}", phase.cycles, counted(longest, "update")),
           "fewer cycles");
    }
    if (longest > 0 && phase.total_rewarmup >= updates) {
      fail(key + "rewarmup",
           fmt::format("{} before each cycle leaves nothing of its {} updates for the cosine",
                       to_string(*given.rewarmup), longest),
           "a shorter one, or fewer cycles");
    }
  }

  void take_period(const PhaseConfig& given, Phase& phase) {
    const std::string key = given.key + ".";
    phase.period = static_cast<double>(at_least_one(*given.period, key + "period"));
    const double growth = given.multiply.value_or(1.0);
    if (growth == 1) return;
    phase.first_mark = marks_;
    const auto longest = static_cast<double>(phase.span + longest_shift() + phase.every);
    double length = phase.period;
    double begin = length;
    add_mark(phase, begin, key + "multiply");
    while (begin < longest) {
      length *= growth;
      begin += static_cast<double>(phase.rewarmup) + length;
      add_mark(phase, begin, key + "multiply");
    }
  }

  void take_milestones(const PhaseConfig& given, Phase& phase) {
    const std::string key = given.key + ".at";
    if (given.at.empty()) missing(key, "a list of lengths, such as [100 epochs, 150 epochs]");
    phase.first_mark = marks_;
    std::int64_t previous = 0;
    for (const Length& length : given.at) {
      const std::int64_t at = updates(length, key, false);
      if (at <= previous) {
        fail(key, fmt::format("{} does not come after the one before it", to_string(length)),
             "lengths from the start of the run, each above the last");
      }
      add_mark(phase, static_cast<double>(at), key);
      previous = at;
    }
  }

  void add_mark(Phase& phase, double at, const std::string& key) {
    if (marks_ == max_marks) {
      fail(key, fmt::format("makes more than {} milestones and cycles in the schedule", max_marks),
           "fewer of them");
    }
    schedule_.lr.marks[marks_++] = at;
    ++phase.marks;
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
  std::optional<std::int64_t> lead_;  // the length of the first phase, which may be 0
  std::int32_t marks_ = 0;
  double reached_ = 0;
  bool ends_at_base_ = false;
};

// The gate of a warmup that takes `warmup` updates if the gate stays shut.
Gate gate_of(const RunConfig& config, const Layout& layout, std::int64_t warmup) {
  const UntilConfig& until = *config.schedule.until;
  const std::string key = "schedule.warmup.until.window";
  const std::int64_t window = layout.updates(until.window, key, false);
  const std::int64_t most = std::min<std::int64_t>(warmup, max_gate_window);
  if (window > most) {
    layout.fail(
        key,
        fmt::format("{} are more than {}", to_string(until.window),
                    most == warmup ? fmt::format("the {} of the warmup", counted(warmup, "update"))
                                   : fmt::format("{} updates", max_gate_window)),
        "a shorter window");
  }
  // error < bound means hits > (1 - bound) n. The slack treats a product that misses an integer by
  // rounding as that integer.
  const double examples = static_cast<double>(window * config.data.batch_size);
  const double hits = examples - until.train_error_below * examples;
  return {static_cast<std::int32_t>(window), static_cast<std::int64_t>(std::floor(hits + 1e-6))};
}

void lay_out_sections(Layout& layout, const RunConfig& config, const RunLength& run) {
  const ScheduleConfig& given = config.schedule;
  const double base = base_lr(config);
  const std::vector<Shape> shapes = all_shapes();

  const std::string until_key = "schedule.warmup.until.at_most";
  const bool ends_by_until = given.until && given.until->at_most;
  const std::int64_t warmup =
      given.warmup.length ? layout.updates_that_fit(*given.warmup.length, "schedule.warmup.length")
      : ends_by_until     ? layout.updates_that_fit(*given.until->at_most, until_key)
                          : std::min(default_warmup_epochs * run.steps_per_epoch, run.steps / 2);
  const std::int64_t latest =
      ends_by_until ? std::min(warmup, layout.updates(*given.until->at_most, until_key, false))
                    : warmup;
  PhaseConfig first = given.warmup;
  first.length = Length{};  // given, so that the phase does not take the rest of the run
  const bool has_factor = is(given.warmup.from, LrKind::times_base);
  Ends ends{layout.value_of(given.warmup.from, 0.0), base, has_factor ? "start_factor" : "start_lr",
            "base_lr"};
  if (given.toward == Toward::multiply) {
    ends.from /= base;
    ends.to = 1;
  }
  layout.add(first, warmup_shapes, warmup, latest, ends);
  if (given.toward == Toward::curve && given.warmup.shape == "constant") {
    layout.fail("schedule.warmup.toward", "shape constant leads to no curve",
                "toward: base, or another shape");
  }
  if (latest > 0 && is(given.warmup.from, LrKind::automatic)) layout.leave_start_open();
  if (given.until && latest > 0) {
    layout.set_gate(gate_of(config, layout, latest), given.until->train_error_below);
  }
  if (given.overlap && latest > 0) {
    layout.overlap(given.toward == Toward::multiply ? Overlap::multiply : Overlap::replace);
  }

  const std::int64_t hold = layout.updates_that_fit(given.hold, "schedule.hold");
  PhaseConfig plateau;
  plateau.key = "schedule.hold";
  plateau.name = "hold";
  plateau.shape = "constant";
  plateau.length = given.hold;
  layout.add(plateau, shapes, hold, hold, {base, base});
  const std::int64_t decay =
      given.decay.length ? layout.updates_that_fit(*given.decay.length, "schedule.decay.length")
                         : layout.left();
  const bool to_factor = is(given.decay.to, LrKind::times_base);
  layout.add(given.decay, shapes, decay, decay,
             {base, layout.value_of(given.decay.to, 0.0), "base_lr",
              to_factor ? "final_factor" : "final_lr"});
  if (hold == 0 && decay == 0) layout.stay_at_base();
}

void lay_out_phases(Layout& layout, const RunConfig& config) {
  const std::vector<PhaseConfig>& phases = config.schedule.phases;
  const std::vector<Shape> shapes = all_shapes();
  std::set<std::string> names;
  for (const PhaseConfig& phase : phases) {
    const std::string key = phase.key + ".length";
    if (!phase.length && &phase != &phases.back()) {
      layout.fail(key, "is missing", "only the last phase may leave it out");
    }
    const std::int64_t length =
        phase.length ? layout.updates_that_fit(*phase.length, key) : layout.left();
    if (length == 0 && !phase.length) {
      layout.fail(phase.key, "has no updates left", "shorter phases before it");
    }
    if (!names.insert(phase.name).second) {
      layout.fail(phase.key + ".name", fmt::format("'{}' names another phase too", phase.name),
                  "give each phase its own");
    }
    if (is(phase.from, LrKind::last) && &phase == &phases.front()) {
      layout.fail(phase.key + ".from", "there is no phase before it", "a rate, base or 0.1x");
    }
    if (is(phase.to, LrKind::last)) {
      layout.fail(phase.key + ".to", "last is where a phase starts", "a rate, base or 0.1x");
    }
    layout.add(phase, shapes, length, length,
               {layout.value_of(phase.from, layout.reached()),
                layout.value_of(phase.to, base_lr(config))});
  }
}

}  // namespace

double base_lr(const RunConfig& config) {
  const ScheduleConfig& given = config.schedule;
  if (!given.scale) return given.base_lr;
  const double ratio = static_cast<double>(config.data.batch_size) /
                       static_cast<double>(given.scale->reference_batch);
  return given.base_lr * (given.scale->rule == ScaleRule::sqrt ? std::sqrt(ratio) : ratio);
}

Schedule resolve_schedule(const RunConfig& config, const RunLength& run) {
  if (const double base = base_lr(config);
      static_cast<float>(base) <= 0 || !std::isfinite(static_cast<float>(base))) {
    throw ConfigError(config.where(config.schedule.scale ? "schedule.scale" : "schedule.base_lr"),
                      fmt::format("makes a base rate of {} in single precision", base),
                      "one that a float can hold");
  }
  Layout layout(config, run);
  if (config.schedule.phases.empty()) {
    lay_out_sections(layout, config, run);
  } else {
    lay_out_phases(layout, config);
  }
  layout.fill();
  if (config.schedule.toward == Toward::curve) layout.lead_to_curve("schedule.warmup.toward");
  return layout.take();
}

const std::string& phase_name(const Schedule& schedule, std::int64_t step,
                              std::int64_t gate_opened_at) {
  return schedule.phase_names[phase_at(schedule.lr, step, gate_opened_at)];
}

}  // namespace preheat
