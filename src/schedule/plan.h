// A resolved schedule for people: its phases as they run, what each does in words, remarks on what
// is unusual, and where two schedules differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schedule/schedule.h"

namespace preheat {

/// Updates first .. last of a run, all in one phase of lr.phases.
struct PhaseInterval {
  int phase = 0;
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// The stretches of a run in order; together they cover all updates. `gate_opened_at` as in lr_at.
std::vector<PhaseInterval> phase_intervals(const Schedule& schedule,
                                           std::int64_t gate_opened_at = -1);

/// The number of updates of the warmup, 0 if the run does not begin with a phase of that name.
/// `gate_opened_at` as in lr_at: without it a warmup with a gate takes at most that many.
std::int64_t warmup_updates(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// ", W = 500 of them warmup", to follow the number of updates; "at most W = ..." of a warmup with
/// a gate that has not opened. "" without a warmup.
std::string warmup_text(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// What the phase of a stretch does: "linear from 0 to 1.00e-01".
std::string in_words(const Schedule& schedule, const PhaseInterval& stretch);

/// A sentence for each common pitfall: a first rate of 0, a warmup of more than half the run, a
/// jump between phases, drops that never come, a final rate that is not reached, a floor above the
/// base rate. Also one if the warmup's start is still to be derived from the network.
std::vector<std::string> remarks(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// The largest number of updates over which rates are summed or compared one by one.
inline constexpr std::int64_t max_updates_walked = 10'000'000;

/// The sum of the rates of all updates: how far gradients of unit length could move a weight.
/// std::nullopt for a run of more than max_updates_walked.
std::optional<double> sum_of_rates(const Schedule& schedule, std::int64_t gate_opened_at = -1);

/// Where two schedules differ by more than rounding (a relative 1e-9), over the updates both have
/// and at most max_updates_walked.
struct ScheduleDifference {
  std::int64_t first = 0;       // the first update that differs
  std::int64_t largest_at = 0;  // the update with the largest difference
  double a = 0;                 // the rates at largest_at
  double b = 0;
};
/// std::nullopt if they do not differ.
std::optional<ScheduleDifference> schedule_difference(const Schedule& a,
                                                      std::int64_t a_gate_opened_at,
                                                      const Schedule& b,
                                                      std::int64_t b_gate_opened_at);

/// A learning rate for people: "1.80e-01", never "0.000000"; 0 is "0".
std::string lr_text(double lr);

}  // namespace preheat
