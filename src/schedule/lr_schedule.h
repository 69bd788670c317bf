// The learning rate as a pure function of the number of updates completed, for host and device.
// A schedule is a list of phases that follow each other; warmup, plateau and decay are three of
// them.
//
// To add a shape: one enumerator, one row of shape_facts, one case of shape_value.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace preheat {

enum class Shape : std::int32_t { constant, linear, cosine, power, exponential, step, multistep };

/// Which of the two end values the phase's own updates include, as in a linspace.
enum class Endpoints : std::int32_t { start, end, both, neither };

struct Phase {
  Shape shape = Shape::constant;
  Endpoints endpoints = Endpoints::end;
  std::int64_t begin = 0;   // the phase's first update
  std::int64_t length = 0;  // in updates, at least 1
  double from = 0;
  double to = 0;
  double power = 1;             // shape power
  double gamma = 1;             // step, multistep
  std::int64_t over = 1;        // step: updates from one drop to the next
  std::int32_t first_at = 0;    // multistep: its milestones are LrSchedule::at[first_at ..
  std::int32_t milestones = 0;  //            .. first_at + milestones - 1]
};

inline constexpr int max_phases = 32;
inline constexpr int max_milestones = 64;

/// Small enough to be a kernel's by-value argument.
struct LrSchedule {
  Phase phases[max_phases];
  std::int64_t at[max_milestones] = {};  // updates counted from the start of the run
  std::int32_t phase_count = 0;
};
static_assert(sizeof(LrSchedule) < 4096, "kernel arguments hold 4 KiB");

/// The optional keys a shape takes in a configuration.
enum ShapeKeys : unsigned {
  takes_to = 1,
  takes_power = 2,
  takes_gamma = 4,
  takes_over = 8,
  takes_at = 16,
  needs_positive = 32,  // from and to must be above zero
};

struct ShapeFacts {
  const char* name;
  unsigned keys;
};

/// Indexed by Shape.
inline constexpr ShapeFacts shape_facts[] = {
    {"constant", 0},
    {"linear", takes_to},
    {"cosine", takes_to},
    {"power", takes_to | takes_power},
    {"exponential", takes_to | needs_positive},
    {"step", takes_gamma | takes_over},
    {"multistep", takes_gamma | takes_at},
};

/// The progress p of update k of n.
PREHEAT_HD inline double progress(Endpoints endpoints, std::int64_t k, std::int64_t n) {
  const auto numerator = static_cast<double>(k);
  const auto length = static_cast<double>(n);
  switch (endpoints) {
    case Endpoints::start:
      return numerator / length;
    case Endpoints::end:
      return (numerator + 1) / length;
    case Endpoints::both:
      return n == 1 ? 0 : numerator / (length - 1);
    case Endpoints::neither:
      return (numerator + 1) / (length + 1);
  }
  return 0;
}

/// From F to V with weight s: exact at both ends, which F + (V - F) s is not.
PREHEAT_HD inline double between(double f, double v, double s) {
  return (1 - s) * f + s * v;
}

/// The value of update `step` of the run, which lies in `phase`.
PREHEAT_HD inline double shape_value(const LrSchedule& schedule, const Phase& phase,
                                     std::int64_t step) {
  const std::int64_t k = step - phase.begin;
  const double f = phase.from;
  const double v = phase.to;
  const double p = progress(phase.endpoints, k, phase.length);
  switch (phase.shape) {
    case Shape::constant:
      return f;
    case Shape::linear:
      return between(f, v, p);
    case Shape::cosine:
      return between(f, v, (1 - cos(3.14159265358979323846 * p)) / 2);
    case Shape::power:
      return v > f ? between(f, v, pow(p, phase.power)) : between(v, f, pow(1 - p, phase.power));
    case Shape::exponential:
      return pow(f, 1 - p) * pow(v, p);  // as f (v / f)^p, but exact at both ends
    case Shape::step: {
      const std::int64_t drops = k / phase.over;
      return f * pow(phase.gamma, static_cast<double>(drops));
    }
    case Shape::multistep: {
      int reached = 0;
      for (int i = 0; i < phase.milestones; ++i) {
        reached += schedule.at[phase.first_at + i] <= step ? 1 : 0;
      }
      return f * pow(phase.gamma, reached);
    }
  }
  return f;
}

/// Index of the phase that update `step` lies in; before the run the first, after it the last.
PREHEAT_HD inline int phase_at(const LrSchedule& schedule, std::int64_t step) {
  int i = 0;
  while (i + 1 < schedule.phase_count && schedule.phases[i + 1].begin <= step) ++i;
  return i;
}

/// The learning rate of update `step`, counted from 0. Outside the declared phases the nearest
/// update's rate holds. `schedule` has at least one phase.
PREHEAT_HD inline double lr_at(const LrSchedule& schedule, std::int64_t step) {
  const Phase& phase = schedule.phases[phase_at(schedule, step)];
  const std::int64_t last = phase.begin + phase.length - 1;
  const std::int64_t inside = step < phase.begin ? phase.begin : step > last ? last : step;
  return shape_value(schedule, phase, inside);
}

}  // namespace preheat
