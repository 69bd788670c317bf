// The learning rate as a pure function of the number of updates completed, for host and device.
// A schedule is a list of phases; warmup, plateau and decay are three of them.
//
// To add a shape: one enumerator, one row of shape_facts, one case of shape_value.
// docs/schedules.md lists what else to change.
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

/// Which of its two end values the updates of a phase include, as in a linspace.
enum class Endpoints : std::int32_t { start, end, both, neither };

/// How the first phase combines with those after it. none: they begin when it ends. replace: they
/// count their updates from the start of the run, and the first phase replaces them while it lasts.
/// multiply: likewise, but its values multiply theirs.
enum class Overlap : std::int32_t { none, replace, multiply };

/// All lengths are in updates; k counts from `begin`. Comments name the shapes that read a field.
struct Phase {
  Shape shape = Shape::constant;
  Endpoints endpoints = Endpoints::end;
  std::int64_t begin = 0;
  std::int64_t length = 0;  // at least 1; 0 if it only has updates when a gate opens early
  std::int64_t span = 0;    // the length for progress; above `length` if the phase is cut short
  std::int64_t every = 1;   // the value changes every so many updates of the run
  bool fills_run = false;   // ends at the end of the run, wherever it begins
  bool holds_last = false;  // keeps the last value of the phase before it, whatever its own shape
  bool staircase = false;   // exponential, inverse: changes only at multiples of `over`
  double from = 0;
  double to = 0;
  double min_lr = 0;           // floor of the value
  double power = 1;            // power, inverse
  double gamma = 1;            // exponential, step, multistep, inverse, sigmoid
  std::int64_t over = 0;       // exponential (0: from `from` to `to`), step, inverse
  std::int64_t timescale = 1;  // saturating, inverse_sqrt
  std::int64_t center = 0;     // sigmoid
  double lower = -7;           // tanh
  double upper = 3;            // tanh
  // cosine:
  double cycles = 0;          // number of equal cycles over the span; 0: see `period`
  double period = 0;          // length of the first cycle; 0: one cycle over the whole span
  double peak_factor = 1;     // ratio of each peak to the one before
  std::int64_t rewarmup = 0;  // length of the linear ramp before each cycle but the first
  double total_rewarmup = 0;  // with `cycles`: the sum of these ramps
  // LrSchedule::marks[first_mark .. first_mark + marks - 1]: the milestones of multistep, or the
  // begins of a cosine's growing cycles from the second on, the last at or after the span's end.
  std::int32_t first_mark = 0;
  std::int32_t marks = 0;
};

inline constexpr int max_phases = 32;
inline constexpr int max_marks = 128;
inline constexpr int max_gate_window = 1024;

/// Ends the first phase early: before the first update u such that more than `correct_above` of the
/// training examples of the last `window` updates were classified correctly.
struct Gate {
  std::int32_t window = 0;  // 0: no gate
  std::int64_t correct_above = 0;
};

/// Passed to kernels by value; from CUDA 12.1 on their arguments may take 32,764 bytes.
struct LrSchedule {
  Phase phases[max_phases];
  double marks[max_marks] = {};  // milestones from the run's begin, cycles from the phase's
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

/// The progress p after k of n updates if the value changes every `unit` updates. k and n need not
/// be integers: a cycle of a cosine may begin between two updates.
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

/// Linear interpolation from F to V with weight s. Exact at both ends, which F + (V - F) s is not.
PREHEAT_HD inline double between(double f, double v, double s) {
  return (1 - s) * f + s * v;
}

PREHEAT_HD inline double clamp(double x, double least, double most) {
  return x < least ? least : x > most ? most : x;
}

/// Half a cosine wave from F at p = 0 to V at p = 1.
PREHEAT_HD inline double half_cosine(double f, double v, double p) {
  return between(f, v, (1 - cos(3.14159265358979323846 * p)) / 2);
}

/// x^n by squaring, faster than pow for the small n of cycles.
PREHEAT_HD inline double integer_power(double x, std::int64_t n) {
  double result = 1;
  for (; n > 0; n >>= 1, x *= x) result *= (n & 1) != 0 ? x : 1;
  return result;
}

/// The number of the phase's marks at or before x.
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

/// The value after k of n updates of the cosine with restarts (Loshchilov and Hutter 2017). Cycle
/// i = 0, 1, ... takes period multiply^i updates from peak_factor^i F to V; each but the first is
/// preceded by a linear ramp of `rewarmup` updates from V to its peak.
PREHEAT_HD inline double cosine_cycles(const LrSchedule& schedule, const Phase& phase, double k,
                                       double n) {
  constexpr double slack = 1e-9;  // the begin of a cycle may miss an integer by rounding
  const auto unit = static_cast<double>(phase.every);
  const auto ramp = static_cast<double>(phase.rewarmup);
  const double first = phase.cycles > 0 ? (n - phase.total_rewarmup) / phase.cycles : phase.period;
  if (first <= 0) {  // a gate has left no more updates than the ramps take
    return half_cosine(phase.from, phase.to, progress(phase.endpoints, k, n, unit));
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
  const double peak = phase.from * integer_power(phase.peak_factor, cycle);
  double inside = clamp(k - begin, 0, end - begin);
  if (cycle > 0 && ramp > 0) {
    if (inside < ramp - slack) {
      return between(phase.to, peak, clamp(progress(phase.endpoints, inside, ramp, unit), 0, 1));
    }
    inside = inside > ramp ? inside - ramp : 0;
    begin += ramp;
  }
  return half_cosine(peak, phase.to,
                     clamp(progress(phase.endpoints, inside, end - begin, unit), 0, 1));
}

/// k in units of `over`: how many times gamma applies after k updates, an integer for staircase.
PREHEAT_HD inline double times_over(const Phase& phase, std::int64_t k) {
  const std::int64_t whole = k / phase.over;
  return phase.staircase ? static_cast<double>(whole)
                         : static_cast<double>(k) / static_cast<double>(phase.over);
}

/// The value at update `step` of a phase that contains it, begins at update `begin` of the run and
/// makes its progress over `span` updates.
PREHEAT_HD inline double shape_value(const LrSchedule& schedule, const Phase& phase,
                                     std::int64_t begin, std::int64_t span, std::int64_t step) {
  std::int64_t k = step - begin;
  if (phase.every > 1) {  // count whole epochs; the phase may begin and end inside one
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
                 : half_cosine(f, v, p);
    case Shape::power:
      return v > f ? between(f, v, pow(p, phase.power)) : between(v, f, pow(1 - p, phase.power));
    case Shape::exponential: {
      if (phase.over > 0) return f * pow(phase.gamma, times_over(phase, k));
      if (p >= 1) return v;  // f (v / f) may differ from it by rounding
      return clamp(f * pow(v / f, p), f < v ? f : v, f < v ? v : f);
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

/// The first update after the first phase. `gate_opened_at` as in lr_at.
PREHEAT_HD inline std::int64_t end_of_first_phase(const LrSchedule& schedule,
                                                  std::int64_t gate_opened_at) {
  const std::int64_t planned = schedule.phases[0].length;
  const bool early = schedule.gate.window > 0 && gate_opened_at >= 0 && gate_opened_at < planned;
  return early ? gate_opened_at : planned;
}

/// The number of updates by which the phases after the first begin earlier than planned.
PREHEAT_HD inline std::int64_t gate_shift(const LrSchedule& schedule, std::int64_t gate_opened_at) {
  if (schedule.overlap != Overlap::none) return 0;
  return schedule.phases[0].length - end_of_first_phase(schedule, gate_opened_at);
}

/// Index of the phase that contains update `step`, among those after the first; the nearest of them
/// if none does.
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

/// Index of the phase that contains update `step`: the first before the run, the last after it.
PREHEAT_HD inline int phase_at(const LrSchedule& schedule, std::int64_t step,
                               std::int64_t gate_opened_at = -1) {
  if (schedule.phase_count == 1 || step < end_of_first_phase(schedule, gate_opened_at)) return 0;
  return later_phase_at(schedule, step, gate_shift(schedule, gate_opened_at));
}

/// The value of phase i, begun `shift` updates earlier than planned, at its update nearest to
/// `step`, without its floor.
PREHEAT_HD inline double phase_value(const LrSchedule& schedule, int i, std::int64_t shift,
                                     std::int64_t step) {
  // What holds a phase's last value is that phase after its end.
  const Phase& phase = schedule.phases[schedule.phases[i].holds_last ? i - 1 : i];
  const std::int64_t begin = phase.begin - shift;
  const std::int64_t more = phase.fills_run ? shift : 0;
  const std::int64_t last = begin + phase.length + more - 1;
  const std::int64_t inside = step < begin ? begin : step > last ? last : step;
  return shape_value(schedule, phase, begin, phase.span + more, inside);
}

/// The learning rate of update `step`, counted from 0. `gate_opened_at` is the first update after
/// the warmup if the gate ended it early, otherwise -1. If it did, the phases after the warmup move
/// forward by the updates saved, and the one that takes the rest of the run grows by them. A step
/// outside the run has the rate of the nearest update. `schedule` has at least one phase, or two if
/// there is an overlap.
PREHEAT_HD inline double lr_at(const LrSchedule& schedule, std::int64_t step,
                               std::int64_t gate_opened_at = -1) {
  const auto last = schedule.steps - 1;
  step = step < 0 ? 0 : step > last ? last : step;
  const int i = phase_at(schedule, step, gate_opened_at);
  const std::int64_t shift = i > 0 ? gate_shift(schedule, gate_opened_at) : 0;
  double value = phase_value(schedule, i, shift, step);
  if (i == 0 && schedule.overlap == Overlap::multiply) {
    const int curve = later_phase_at(schedule, step, 0);
    const double times = phase_value(schedule, curve, 0, step);
    value *= times < schedule.phases[curve].min_lr ? schedule.phases[curve].min_lr : times;
  }
  const double least = schedule.phases[i].min_lr;
  return value < least ? least : value;
}

}  // namespace preheat
