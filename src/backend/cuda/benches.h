// The GPU's benches: the update beside what the memory allows and what alternatives cost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "backend/benches.h"
#include "backend/cuda/cuda.h"

namespace preheat::cuda {

struct Libraries;

/// What `launch` puts on the stream, `steps` steps of something, by the device's clock: over so
/// many rounds, after two that are not counted.
UpdateTiming time_launches(const Stream& stream, int rounds, std::int64_t steps,
                           const std::function<void()>& launch);

class CudaBenches : public Benches {
 public:
  explicit CudaBenches(std::shared_ptr<Libraries> libraries) : libraries_(std::move(libraries)) {}

  /// As nvidia-smi tells it, which comes with the driver.
  std::string condition() const override;
  std::int64_t most_update_floats() const override;
  std::vector<UpdateTiming> time_launch() override;
  std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick) override;
  std::vector<std::vector<double>> time_schedules(
      const UpdateSet& set, const std::vector<NamedSchedule>& schedules) override;

  /// Of a copy of 256 MiB, and of a product of matrices of 8192 x 8192 through cuBLASLt.
  Ceilings measure_ceilings(Precision precision, int cpu_threads) override;

 private:
  const std::shared_ptr<Libraries> libraries_;
};

}  // namespace preheat::cuda
