// The learning rate as a pure function of the number of updates completed, for host and device.
// A schedule is a list of phases; warmup, plateau and decay are three of them.
//
// To add a shape: one enumerator, one row of shape_facts, one case of shape_value.
// docs/schedules.md says what else there is to touch.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace preheat {

enum class Shape : std::int32_t {
  constant,
  linear,
  cosine,
  power,
  exponential,
  saturating,
  one_minus_sqrt,
  inverse_sqrt,
  step,
  multistep,
  inverse,
  sigmoid,
  tanh
};

/// Which of the two end values the phase's own updates include, as in a linspace.
enum class Endpoints : std::int32_t { start, end, both, neither };

/// What the first phase does to those after it. none: they begin where it ends. replace: they count
/// their updates from the start of the run, and the first phase stands in front of them as long as
/// it lasts. multiply: likewise, but its values are factors of theirs.
enum class Overlap : std::int32_t { none, replace, multiply };

/// All lengths in updates, k counted from `begin`. A field is read by the shapes it names.
struct Phase {
  Shape shape = Shape::constant;
  Endpoints endpoints = Endpoints::end;
  std::int64_t begin = 0;
  std::int64_t length = 0;  // at least 1, or 0 where it takes the rest that a gate may leave it
  std::int64_t span = 0;    // what progress is counted over; more than length where it is cut short
  std::int64_t every = 1;   // updates of a run from one change of the value to the next
  bool takes_rest = false;  // its end is the end of the run, wherever it begins
  bool staircase = false;   // exponential, inverse: whole multiples of `over` only
  double from = 0;
  double to = 0;
  double min_lr = 0;           // the value is never below
  double power = 1;            // power, inverse
  double gamma = 1;            // exponential, step, multistep, inverse, sigmoid
  std::int64_t over = 0;       // exponential (0: from `from` to `to`), step, inverse
  std::int64_t timescale = 1;  // saturating, inverse_sqrt
  std::int64_t center = 0;     // sigmoid
  double lower = -7;           // tanh
  double upper = 3;            // tanh
  // cosine:
  double cycles = 0;          // how many of equal length over the span; 0: as `period` says
  double period = 0;          // of the first cycle; 0: one cycle over the whole span
  double peak_factor = 1;     // of each peak to the one before
  std::int64_t rewarmup = 0;  // of each cycle after the first, in front of it
  double all_ramps = 0;       // these together, where there are `cycles`
  // LrSchedule::marks[first_mark .. first_mark + marks - 1]: the milestones of multistep; where the
  // growing cycles of a cosine begin, from the second on, and one more.
  std::int32_t first_mark = 0;
  std::int32_t marks = 0;
};

inline constexpr int max_phases = 32;
inline constexpr int max_marks = 128;
inline constexpr int max_gate_window = 1024;

/// Ends the first phase early: before the first update u such that more than `hits_above` of the
/// training examples of the last `window` updates were classified rightly.
struct Gate {
  std::int32_t window = 0;  // 0: there is no gate
  std::int64_t hits_above = 0;
};

/// A kernel's by-value argument: those may be 32,764 bytes from CUDA 12.1 on.
struct LrSchedule {
  Phase phases[max_phases];
  double marks[max_marks] = {};  // milestones count from the start of the run, cycles of the phase
  std::int64_t steps = 0;        // of the run
  std::int32_t phase_count = 0;
  Overlap overlap = Overlap::none;
  Gate gate;
};
static_assert(sizeof(LrSchedule) <= 8192, "it travels as a kernel argument");

/// The optional keys a shape takes in a configuration.
enum ShapeKeys : unsigned {
  takes_to = 1u << 0,
  takes_power = 1u << 1,
  takes_gamma = 1u << 2,
  takes_over = 1u << 3,
  takes_at = 1u << 4,
  takes_staircase = 1u << 5,
  takes_cycles = 1u << 6,
  takes_timescale = 1u << 7,
  takes_center = 1u << 8,
  takes_bounds = 1u << 9,
  takes_endpoints = 1u << 10,
  takes_every = 1u << 11,
  has_progress = takes_endpoints | takes_every,
};

struct ShapeFacts {
  const char* name;
  unsigned keys;
};

/// Indexed by Shape.
inline constexpr ShapeFacts shape_facts[] = {
    {"constant", 0},
    {"linear", takes_to | has_progress},
    {"cosine", takes_to | takes_cycles | has_progress},
    {"power", takes_to | takes_power | has_progress},
    {"exponential", takes_to | takes_gamma | takes_over | takes_staircase | has_progress},
    {"saturating", takes_to | takes_timescale | has_progress},
    {"one_minus_sqrt", takes_to | has_progress},
    {"inverse_sqrt", takes_timescale | takes_every},
    {"step", takes_gamma | takes_over | takes_every},
    {"multistep", takes_gamma | takes_at | takes_every},
    {"inverse", takes_gamma | takes_power | takes_over | takes_staircase | takes_every},
    {"sigmoid", takes_gamma | takes_center | takes_every},
    {"tanh", takes_to | takes_bounds | has_progress},
};

/// The progress p at k of n, both in updates, where the value changes every `unit` of them. k and n
/// need not be whole: cycles of a cosine may begin between two updates.
PREHEAT_HD inline double progress(Endpoints endpoints, double k, double n, double unit) {
  switch (endpoints) {
    case Endpoints::start:
      return k / n;
    case Endpoints::end:
      return (k + unit) / n;
    case Endpoints::both:
      return n > unit ? k / (n - unit) : 0;
    case Endpoints::neither:
      return (k + unit) / (n + unit);
  }
  return 0;
}

/// From F to V with weight s: exact at both ends, which F + (V - F) s is not.
PREHEAT_HD inline double between(double f, double v, double s) {
  return (1 - s) * f + s * v;
}

PREHEAT_HD inline double clamped(double x, double least, double most) {
  return x < least ? least : x > most ? most : x;
}

/// From F, at p = 0, down or up half a wave to V, at p = 1.
PREHEAT_HD inline double half_wave(double f, double v, double p) {
  return between(f, v, (1 - cos(3.14159265358979323846 * p)) / 2);
}

/// x^n by squaring: for the few times that cycles repeat, faster than pow.
PREHEAT_HD inline double whole_power(double x, std::int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, x *= x) result *= (n & 1) != 0 ? x : 1;
  return result;
}

/// How many of the phase's marks are at or before x.
PREHEAT_HD inline int marks_reached(const LrSchedule& schedule, const Phase& phase, double x) {
  int low = 0;
  int high = phase.marks;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (schedule.marks[phase.first_mark + middle] <= x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// The value at k of n of the cosine with restarts (Loshchilov and Hutter 2017). Cycle i = 0, 1,
/// ... lasts period multiply^i, from peak_factor^i F to V; each but the first is led by a linear
/// ramp of `rewarmup` updates from V to its peak.
PREHEAT_HD inline double cosine_cycles(const LrSchedule& schedule, const Phase& phase, double k,
                                       double n) {
  constexpr double slack = 1e-9;  // a cycle may begin at an update but for the last bit of a double
  const auto unit = static_cast<double>(phase.every);
  const auto ramp = static_cast<double>(phase.rewarmup);
  const double first = phase.cycles > 0 ? (n - phase.all_ramps) / phase.cycles : phase.period;
  if (first <= 0) {  // a gate has left no more than the ramps would take
    return half_wave(phase.from, phase.to, progress(phase.endpoints, k, n, unit));
  }
  std::int64_t cycle = 0;
  double begin = 0;
  double end = first;
  if (phase.marks > 0) {
    cycle = marks_reached(schedule, phase, k + slack);
    begin = cycle > 0 ? schedule.marks[phase.first_mark + cycle - 1] : 0;
    end = schedule.marks[phase.first_mark + cycle];
  } else if (k >= first - slack) {
    const double length = first + ramp;
    cycle = 1 + static_cast<std::int64_t>((k - first + slack) / length);
    begin = first + static_cast<double>(cycle - 1) * length;
    end = begin + length;
  }
  const double peak = phase.from * whole_power(phase.peak_factor, cycle);
  double inside = clamped(k - begin, 0, end - begin);
  if (cycle > 0 && ramp > 0) {
    if (inside < ramp - slack) {
      return between(phase.to, peak, clamped(progress(phase.endpoints, inside, ramp, unit), 0, 1));
    }
    inside = inside > ramp ? inside - ramp : 0;
    begin += ramp;
  }
  return half_wave(peak, phase.to,
                   clamped(progress(phase.endpoints, inside, end - begin, unit), 0, 1));
}

/// How often gamma has been applied after k updates, or how far it is on the way.
PREHEAT_HD inline double times_over(const Phase& phase, std::int64_t k) {
  const std::int64_t whole = k / phase.over;
  return phase.staircase ? static_cast<double>(whole)
                         : static_cast<double>(k) / static_cast<double>(phase.over);
}

/// The value of a phase that begins at update `begin` of the run and counts its progress over
/// `span` updates, at update `step`, which lies in it.
PREHEAT_HD inline double shape_value(const LrSchedule& schedule, const Phase& phase,
                                     std::int64_t begin, std::int64_t span, std::int64_t step) {
  std::int64_t k = step - begin;
  if (phase.every > 1) {  // by epochs, of which the first and the last may lie in it in part
    const std::int64_t first = begin / phase.every;
    step = step / phase.every * phase.every;
    k = step - first * phase.every;
    span = ((begin + span - 1) / phase.every - first + 1) * phase.every;
  }
  const double f = phase.from;
  const double v = phase.to;
  const double p = progress(phase.endpoints, static_cast<double>(k), static_cast<double>(span),
                            static_cast<double>(phase.every));
  switch (phase.shape) {
    case Shape::constant:
      return f;
    case Shape::linear:
      return between(f, v, p);
    case Shape::cosine:
      return phase.cycles > 0 || phase.period > 0
                 ? cosine_cycles(schedule, phase, static_cast<double>(k), static_cast<double>(span))
                 : half_wave(f, v, p);
    case Shape::power:
      return v > f ? between(f, v, pow(p, phase.power)) : between(v, f, pow(1 - p, phase.power));
    case Shape::exponential: {
      if (phase.over > 0) return f * pow(phase.gamma, times_over(phase, k));
      if (p >= 1) return v;  // which f (v / f) need not be
      return clamped(f * pow(v / f, p), f < v ? f : v, f < v ? v : f);
    }
    case Shape::saturating:
      return between(v, f,
                     exp(-p * static_cast<double>(span) / static_cast<double>(phase.timescale)));
    case Shape::one_minus_sqrt:
      return between(f, v, sqrt(p));
    case Shape::inverse_sqrt: {
      const double t = static_cast<double>(phase.timescale);
      return f * sqrt(t / (t + static_cast<double>(k)));
    }
    case Shape::step: {
      const std::int64_t drops = k / phase.over;
      return f * pow(phase.gamma, static_cast<double>(drops));
    }
    case Shape::multistep:
      return f * pow(phase.gamma, marks_reached(schedule, phase, static_cast<double>(step)));
    case Shape::inverse:
      return f * pow(1 + phase.gamma * times_over(phase, k), -phase.power);
    case Shape::sigmoid:
      return f / (1 + exp(-phase.gamma * static_cast<double>(k - phase.center)));
    case Shape::tanh:
      return between(f, v, (1 + tanh(between(phase.lower, phase.upper, p))) / 2);
  }
  return f;
}

/// The first update that is no longer in the first phase. `gate_opened_at` as in lr_at.
PREHEAT_HD inline std::int64_t end_of_first_phase(const LrSchedule& schedule,
                                                  std::int64_t gate_opened_at) {
  const std::int64_t planned = schedule.phases[0].length;
  const bool early = schedule.gate.window > 0 && gate_opened_at >= 0 && gate_opened_at < planned;
  return early ? gate_opened_at : planned;
}

/// By how many updates the phases after the first come earlier than planned.
PREHEAT_HD inline std::int64_t gate_shift(const LrSchedule& schedule, std::int64_t gate_opened_at) {
  if (schedule.overlap != Overlap::none) return 0;
  return schedule.phases[0].length - end_of_first_phase(schedule, gate_opened_at);
}

/// Index of the phase behind the first one that update `step` lies in, or of the nearest.
PREHEAT_HD inline int later_phase_at(const LrSchedule& schedule, std::int64_t step,
                                     std::int64_t shift) {
  int low = 1;  // the last phase that begins at or before the step is in [low, high)
  int high = schedule.phase_count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (schedule.phases[middle].begin - shift <= step) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/// Index of the phase that update `step` lies in; before the run the first, after it the last.
PREHEAT_HD inline int phase_at(const LrSchedule& schedule, std::int64_t step,
                               std::int64_t gate_opened_at = -1) {
  if (schedule.phase_count == 1 || step < end_of_first_phase(schedule, gate_opened_at)) return 0;
  return later_phase_at(schedule, step, gate_shift(schedule, gate_opened_at));
}

/// The value of phase i, `shift` updates earlier than planned, at the update of it nearest to
/// `step`, its floor left aside.
PREHEAT_HD inline double phase_value(const LrSchedule& schedule, int i, std::int64_t shift,
                                     std::int64_t step) {
  const Phase& phase = schedule.phases[i];
  const std::int64_t begin = phase.begin - shift;
  const std::int64_t more = phase.takes_rest ? shift : 0;
  const std::int64_t last = begin + phase.length + more - 1;
  const std::int64_t inside = step < begin ? begin : step > last ? last : step;
  return shape_value(schedule, phase, begin, phase.span + more, inside);
}

/// The learning rate of update `step`, counted from 0. `gate_opened_at` is the update that the gate
/// made the first after the warmup, -1 where it did not: phases after the warmup then come that
/// much earlier, and the one that takes the rest of the run grows. Outside the declared phases the
/// nearest update's rate holds. `schedule` has at least one phase, and with an overlap two.
PREHEAT_HD inline double lr_at(const LrSchedule& schedule, std::int64_t step,
                               std::int64_t gate_opened_at = -1) {
  const auto last = schedule.steps - 1;
  step = step < 0 ? 0 : step > last ? last : step;
  const int i = phase_at(schedule, step, gate_opened_at);
  const std::int64_t shift = i > 0 ? gate_shift(schedule, gate_opened_at) : 0;
  double value = phase_value(schedule, i, shift, step);
  if (i == 0 && schedule.overlap == Overlap::multiply) {
    value *= phase_value(schedule, later_phase_at(schedule, step, 0), 0, step);
  }
  const double least = schedule.phases[i].min_lr;
  return value < least ? least : value;
}

}  // namespace preheat
