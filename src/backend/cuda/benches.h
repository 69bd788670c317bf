// The benchmarks that the CUDA backend can run on itself.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/benches.h"

namespace preheat::cuda {

struct Libraries;

class CudaBenches : public Benches {
 public:
  explicit CudaBenches(std::shared_ptr<Libraries> libraries) : libraries_(std::move(libraries)) {}

  Condition condition() const override;
  std::int64_t max_update_floats() const override;
  std::vector<UpdateTiming> time_launch() override;
  std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                         const BetweenRounds& between_rounds) override;
  std::vector<std::vector<double>> time_schedules(const UpdateSet& set,
                                                  const std::vector<NamedSchedule>& schedules,
                                                  bool quick,
                                                  const BetweenRounds& between_rounds) override;
  Ceilings measure_ceilings(Precision precision, int cpu_threads) override;

 private:
  const std::shared_ptr<Libraries> libraries_;
};

}  // namespace preheat::cuda
