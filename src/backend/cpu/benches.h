// The CPU's benches.
#pragma once

#include <string>
#include <vector>

#include "backend/benches.h"

namespace preheat::cpu {

class CpuBenches : public Benches {
 public:
  /// With so many threads, unless fewer are asked for.
  explicit CpuBenches(int threads) : threads_(threads) {}

  Condition condition() const override;
  std::int64_t most_update_floats() const override;

  /// Rounds take turns over the variants, so that a machine that slows down slows all of them, and
  /// shares of a ceiling are of the same round.
  std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                         const BetweenRounds& between_rounds) override;

  std::vector<UpdateTiming> time_launch() override { return {}; }
  std::vector<std::vector<double>> time_schedules(const UpdateSet& set,
                                                  const std::vector<NamedSchedule>& schedules,
                                                  const BetweenRounds& between_rounds) override;

  /// Of a loop that reads three arrays of 64 MiB and writes two of them (a copy has to read what it
  /// overwrites, which nobody counts), and of a product of matrices of 2048 x 2048 through oneDNN.
  Ceilings measure_ceilings(Precision precision, int cpu_threads) override;

 private:
  int threads_;
};

}  // namespace preheat::cpu
