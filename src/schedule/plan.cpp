#include "schedule/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace preheat {
namespace {

double rate(const Schedule& schedule, std::int64_t step, std::int64_t gate_opened_at) {
  return lr_at(schedule.lr, step, gate_opened_at);
}

bool multiplies(const Schedule& schedule, const PhaseInterval& stretch) {
  return stretch.phase == 0 && schedule.lr.overlap == Overlap::multiply;
}

bool leads_to_its_end(const Phase& phase) {
  const bool has_end = (shape_facts[static_cast<int>(phase.shape)].keys & takes_to) != 0;
  return has_end && phase.over == 0 && phase.shape != Shape::saturating;
}

std::string updates_text(double updates) {
  return fmt::format("{:g} update{}", updates, updates == 1 ? "" : "s");
}

std::string milestones_text(const Schedule& schedule, const Phase& phase) {
  constexpr int most = 8;
  std::string text;
  for (int i = 0; i < std::min(phase.marks, most); ++i) {
    text += fmt::format("{}{:.0f}", i == 0 ? "" : ", ", schedule.lr.marks[phase.first_mark + i]);
  }
  return text + (phase.marks > most ? ", ..." : "");
}

std::string cycles_text(const Schedule& schedule, const Phase& phase) {
  std::string text;
  if (phase.cycles > 0) {
    text = fmt::format("in {:g} equal cycles", phase.cycles);
  } else {
    text = fmt::format("again and again, the first time over {}", updates_text(phase.period));
    if (phase.marks > 1) {
      const double* mark = &schedule.lr.marks[phase.first_mark];
      const double second = mark[1] - mark[0] - static_cast<double>(phase.rewarmup);
      text += fmt::format(", each time {:g} times as long", second / phase.period);
    }
  }
  if (phase.peak_factor != 1) text += fmt::format(", each peak {:g} times", phase.peak_factor);
  if (phase.rewarmup > 0) {
    text += fmt::format(", after a ramp of {} to each but the first peak",
                        updates_text(static_cast<double>(phase.rewarmup)));
  }
  return text;
}

// Progress times the length of the phase, in terms of its update k.
std::string updates_done_text(const Phase& phase) {
  switch (phase.endpoints) {
    case Endpoints::start:
      return "k";
    case Endpoints::end:
      return fmt::format("(k + {})", phase.every);
    case Endpoints::both:
    case Endpoints::neither:
      break;
  }
  return fmt::format("{} p", phase.span);
}

std::string shape_text(const Schedule& schedule, const Phase& phase) {
  const std::string from = lr_text(phase.from);
  const std::string ends = fmt::format("from {} to {}", from, lr_text(phase.to));
  const std::string over = updates_text(static_cast<double>(phase.over));
  switch (phase.shape) {
    case Shape::constant:
      return "constant " + from;
    case Shape::linear:
      return "linear " + ends;
    case Shape::cosine:
      return phase.cycles > 0 || phase.period > 0
                 ? fmt::format("cosine {} {}", ends, cycles_text(schedule, phase))
                 : "half a cosine " + ends;
    case Shape::power:
      return fmt::format("power {:g} {}", phase.power, ends);
    case Shape::exponential:
      return phase.over == 0 ? "exponential " + ends
                             : fmt::format("from {} times {:g} over {}{}", from, phase.gamma, over,
                                           phase.staircase ? ", in steps" : "");
    case Shape::saturating:
      return fmt::format("{} as 1 - exp(-{} / {})", ends, updates_done_text(phase),
                         phase.timescale);
    case Shape::one_minus_sqrt:
      return "1 - sqrt " + ends;
    case Shape::inverse_sqrt:
      return fmt::format("from {} as 1 / sqrt(1 + k / {})", from, phase.timescale);
    case Shape::step:
      return fmt::format("from {} times {:g} every {}", from, phase.gamma, over);
    case Shape::multistep:
      return fmt::format("from {} times {:g} at update{} {}", from, phase.gamma,
                         phase.marks == 1 ? "" : "s", milestones_text(schedule, phase));
    case Shape::inverse:
      return fmt::format("from {} as (1 + {:g} k / {})^-{:g}{}", from, phase.gamma, phase.over,
                         phase.power, phase.staircase ? ", in steps" : "");
    case Shape::sigmoid:
      return fmt::format("{} / (1 + exp({:g} (k - {})))", from, -phase.gamma, phase.center);
    case Shape::tanh:
      return "tanh " + ends;
  }
  return "";
}

// The value a stretch is heading for and the value the next one begins with. They differ at a jump.
struct Seam {
  double heading = 0;
  double begins = 0;
};

Seam seam_of(const Schedule& schedule, const PhaseInterval& before, const PhaseInterval& after,
             std::int64_t gate_opened_at) {
  const Phase& phase = schedule.lr.phases[before.phase];
  const Phase& next = schedule.lr.phases[after.phase];
  const double last = rate(schedule, before.last, gate_opened_at);
  const double first = rate(schedule, after.first, gate_opened_at);
  const bool whole = before.last + 1 - before.first == phase.span;
  const bool arrives = leads_to_its_end(phase) && whole;
  if (multiplies(schedule, before)) {
    // The end value of this phase is a factor of the phase behind it.
    const double factor =
        arrives ? phase.to : shape_value(schedule.lr, phase, 0, phase.span, before.last);
    return {factor * first, first};
  }
  const double heading = arrives ? std::max(phase.to, phase.min_lr) : last;
  // Compare with the start value of the next phase, since its first update may already have moved
  // away from it. Not for multistep, which earlier milestones may have lowered, for the rest of the
  // run, which holds what a gate may have changed, nor for a curve that has been running under the
  // warmup: there the rate of the first update counts.
  const bool starts_here = next.shape != Shape::multistep && !next.holds_last &&
                           (before.phase > 0 || schedule.lr.overlap == Overlap::none);
  return {heading, starts_here ? std::max(next.from, next.min_lr) : first};
}

std::string jump_text(const Schedule& schedule, const PhaseInterval& before,
                      const PhaseInterval& after, std::int64_t gate_opened_at, double largest) {
  const Seam seam = seam_of(schedule, before, after, gate_opened_at);
  if (std::fabs(seam.begins - seam.heading) <= 0.01 * largest) return "";
  const double last = rate(schedule, before.last, gate_opened_at);
  const std::string& name = schedule.phase_names[before.phase];
  return fmt::format("from {} to {} the rate jumps: {} {}, update {} has {}", name,
                     schedule.phase_names[after.phase], name,
                     seam.heading == last ? "ends at " + lr_text(last)
                                          : "was heading for " + lr_text(seam.heading),
                     after.first, lr_text(rate(schedule, after.first, gate_opened_at)));
}

// The part of a phase that never comes: a milestone after the end of the run or of the phase, or in
// its last epoch if the rate changes at the begin of epochs, or a first drop after its end.
std::string unreached_drop(const Schedule& schedule, const PhaseInterval& part,
                           std::int64_t gate_opened_at) {
  const Phase& phase = schedule.lr.phases[part.phase];
  const std::string& name = schedule.phase_names[part.phase];
  if (phase.shape == Shape::multistep) {
    const double last = schedule.lr.marks[phase.first_mark + phase.marks - 1];
    const std::int64_t seen = part.last / phase.every * phase.every;
    if (last <= static_cast<double>(seen)) return "";
    const std::string milestone = fmt::format("{} has a milestone at update {:.0f}", name, last);
    if (last >= static_cast<double>(schedule.run.steps)) {
      return fmt::format("{}, behind the {} of the run", milestone, schedule.run.steps);
    }
    return last > static_cast<double>(part.last)
               ? fmt::format("{}, after its last update, {}", milestone, part.last)
               : fmt::format("{}, after its last epoch's begin at {}", milestone, seen);
  }
  // Under an overlap the phase counts from the start of the run, before its stretch.
  const std::int64_t shift = part.phase > 0 ? gate_shift(schedule.lr, gate_opened_at) : 0;
  if (phase.shape == Shape::step && phase.gamma != 1 &&
      phase_value(schedule.lr, part.phase, shift, part.last) == phase.from) {
    return fmt::format("{} ends before its first drop, after {}", name,
                       updates_text(static_cast<double>(phase.over)));
  }
  return "";
}

}  // namespace

std::vector<PhaseInterval> phase_intervals(const Schedule& schedule, std::int64_t gate_opened_at) {
  const LrSchedule& lr = schedule.lr;
  const std::int64_t shift = gate_shift(lr, gate_opened_at);
  std::vector<PhaseInterval> result;
  for (std::int64_t first = 0; first < schedule.run.steps; first = result.back().last + 1) {
    const int i = phase_at(lr, first, gate_opened_at);
    const std::int64_t end = i == 0                   ? end_of_first_phase(lr, gate_opened_at)
                             : i + 1 < lr.phase_count ? lr.phases[i + 1].begin - shift
                                                      : schedule.run.steps;
    result.push_back({i, first, std::min(end, schedule.run.steps) - 1});
  }
  return result;
}

std::int64_t warmup_updates(const Schedule& schedule, std::int64_t gate_opened_at) {
  if (schedule.phase_names.front() != "warmup") return 0;
  return std::min(end_of_first_phase(schedule.lr, gate_opened_at), schedule.run.steps);
}

std::string warmup_text(const Schedule& schedule, std::int64_t gate_opened_at) {
  const std::int64_t warmup = warmup_updates(schedule, gate_opened_at);
  if (warmup == 0) return "";
  const bool may_end_earlier = schedule.lr.gate.window > 0 && gate_opened_at < 0;
  return fmt::format(", {}W = {} of them warmup", may_end_earlier ? "at most " : "", warmup);
}

std::string in_words(const Schedule& schedule, const PhaseInterval& stretch) {
  const Phase& phase = schedule.lr.phases[stretch.phase];
  std::string text = shape_text(schedule, phase);
  if (multiplies(schedule, stretch)) text = "the curve behind it times a factor " + text;
  if (phase.every > 1) text += ", changing once an epoch";
  if (phase.min_lr > 0) text += ", not below " + lr_text(phase.min_lr);
  if (stretch.phase > 0 && schedule.lr.overlap != Overlap::none) {
    text += ", counted from the start of the run";
  }
  if (stretch.phase == 0 && schedule.lr.gate.window > 0) {
    text += fmt::format("; ends when the training error of the last {} falls below {:g}",
                        updates_text(schedule.lr.gate.window), schedule.gate_error);
  }
  return text;
}

std::vector<std::string> remarks(const Schedule& schedule, std::int64_t gate_opened_at) {
  const std::vector<PhaseInterval> parts = phase_intervals(schedule, gate_opened_at);
  const std::int64_t steps = schedule.run.steps;
  std::vector<std::string> sentences;
  const auto add = [&](std::string sentence) {
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
  };
  if (schedule.start_is_automatic) {
    add("the warmup's start is found from the network when the run begins; here a tenth of the "
        "base rate stands for it");
  }
  std::int64_t zeros = 0;
  while (zeros < std::min(steps, max_updates_walked) &&
         static_cast<float>(rate(schedule, zeros, gate_opened_at)) == 0) {
    ++zeros;
  }
  if (zeros == 1) {
    add("the first update has rate 0 and changes no weight");
  } else if (zeros > 1) {
    add(fmt::format("the first {} updates have rate 0 and change no weight", zeros));
  }
  double largest = 0;
  std::int64_t peak = 0;
  for (const PhaseInterval& s : parts) {
    for (const std::int64_t step : {s.first, s.last}) {
      const double lr = rate(schedule, step, gate_opened_at);
      if (lr > 1.001 * largest) peak = step;
      largest = std::max(largest, lr);
    }
  }
  if (2 * (peak + 1) > steps && peak > 0) {
    add(fmt::format("the rate rises until update {} of {}: a warmup of more than half the run",
                    peak, steps));
  }
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    add(jump_text(schedule, parts[i], parts[i + 1], gate_opened_at, largest));
  }
  for (const PhaseInterval& part : parts) add(unreached_drop(schedule, part, gate_opened_at));
  const PhaseInterval& end = parts.back();
  const Phase& last = schedule.lr.phases[end.phase];
  const double reached = rate(schedule, end.last, gate_opened_at);
  if (leads_to_its_end(last) && !multiplies(schedule, end) && last.to != last.from &&
      std::fabs(reached - std::max(last.to, last.min_lr)) > 1e-3 * std::fabs(last.to - last.from)) {
    add(fmt::format("the last update has {}, not the final rate {}", lr_text(reached),
                    lr_text(last.to)));
  }
  for (const PhaseInterval& part : parts) {
    const Phase& phase = schedule.lr.phases[part.phase];
    if (phase.min_lr <= schedule.base_lr) continue;
    add(fmt::format("{} has a floor of {}, above the base rate", schedule.phase_names[part.phase],
                    lr_text(phase.min_lr)));
  }
  return sentences;
}

std::optional<double> sum_of_rates(const Schedule& schedule, std::int64_t gate_opened_at) {
  if (schedule.run.steps > max_updates_walked) return std::nullopt;
  double sum = 0;
  for (std::int64_t step = 0; step < schedule.run.steps; ++step) {
    sum += rate(schedule, step, gate_opened_at);
  }
  return sum;
}

std::optional<ScheduleDifference> schedule_difference(const Schedule& a,
                                                      std::int64_t a_gate_opened_at,
                                                      const Schedule& b,
                                                      std::int64_t b_gate_opened_at) {
  const std::int64_t steps = std::min({a.run.steps, b.run.steps, max_updates_walked});
  std::optional<ScheduleDifference> result;
  for (std::int64_t step = 0; step < steps; ++step) {
    const double x = rate(a, step, a_gate_opened_at);
    const double y = rate(b, step, b_gate_opened_at);
    const double difference = std::fabs(x - y);
    if (difference <= 1e-9 * std::max(std::fabs(x), std::fabs(y))) continue;
    if (!result) result = ScheduleDifference{step, step, x, y};
    if (difference > std::fabs(result->a - result->b)) {
      result->largest_at = step;
      result->a = x;
      result->b = y;
    }
  }
  return result;
}

std::string lr_text(double lr) {
  return lr == 0 ? "0" : fmt::format("{:.2e}", lr);
}

}  // namespace preheat
