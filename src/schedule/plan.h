// A resolved schedule as a reader wants it: its stretches, what they do in words, what is odd about
// them, and where two schedules part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schedule/schedule.h"

namespace preheat {

/// Updates first .. last of a run, all in one phase of lr.phases.
struct Stretch {
  int phase = 0;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// The stretches of a run in order; together all of its updates. `gate_opened_at` as in lr_at.
std::vector<Stretch> stretches(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// What the phase of a stretch does: "linear from 0 to 1.0e-01".
std::string in_words(const Schedule& schedule, const Stretch& stretch);

/// A sentence for each thing that people trip over: a first rate of 0, a warmup of more than half
/// the run, a jump from one phase to the next, drops that never come, a final rate that is not
/// reached, a floor above the base rate.
std::vector<std::string> remarks(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// Updates beyond which nothing is added up or compared one by one.
inline constexpr std::int64_t most_updates_walked = 10'000'000;

/// The sum of the rates of all updates, which is how far gradients of unit length could carry a
/// weight. Nothing for a run of more than most_updates_walked.
std::optional<double> sum_of_rates(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// Where two schedules differ by more than rounding (a relative 1e-9), over the updates both have
/// and at most most_updates_walked.
struct Parting {
  std::int64_t first = 0;       // the first such update
  std::int64_t largest_at = 0;  // the one with the largest difference
  double a = 0;                 // the two rates there
  double b = 0;
};
std::optional<Parting> parting(const Schedule& a, std::int64_t a_gate_opened_at, const Schedule& b,
                               std::int64_t b_gate_opened_at);

/// A learning rate for people: "1.80e-01", never 0.000000, and 0 is "0".
std::string lr_text(double lr);

}  // namespace preheat
