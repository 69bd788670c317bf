// The CPU's benches.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/benches.h"

namespace preheat::cpu {

/// Microseconds of one call of each work in each of `rounds` rounds, in which the works take turns,
/// each `calls` calls at a time. [work][round].
std::vector<std::vector<double>> time_in_turns(const std::vector<std::function<void()>>& works,
                                               int rounds, std::int64_t calls,
                                               const BetweenRounds& between_rounds);

class CpuBenches : public Benches {
 public:
  /// Uses `threads` threads, unless a call requests another number.
  explicit CpuBenches(int threads) : threads_(threads) {}

  Condition condition() const override;
  std::int64_t max_update_floats() const override;

  /// The rounds interleave the variants, so that a slowdown of the machine affects all of them, and
  /// shares of a ceiling are taken within one round.
  std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                         const BetweenRounds& between_rounds) override;

  std::vector<UpdateTiming> time_launch() override { return {}; }
  std::vector<std::vector<double>> time_schedules(const UpdateSet& set,
                                                  const std::vector<NamedSchedule>& schedules,
                                                  bool quick,
                                                  const BetweenRounds& between_rounds) override;

  /// Measures a loop that reads three arrays of 64 MiB and writes two of them (a copy has to read
  /// what it overwrites, which nobody counts), and a oneDNN product of 2048 x 2048 matrices.
  Ceilings measure_ceilings(Precision precision, int cpu_threads) override;

 private:
  int threads_;
};

}  // namespace preheat::cpu
