#include "schedule/run_length.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "config/counted.h"
#include "config/error.h"
#include "data/dataset.h"

namespace preheat {
namespace {

// The length of a run without train.length: the sum of its stages.
RunLength length_of_stages(const RunConfig& config, std::int64_t steps_per_epoch) {
  RunLength run{0, steps_per_epoch};
  for (std::size_t i = 0; i < config.train.stages.size(); ++i) {
    const std::optional<Length>& length = config.train.stages[i].length;
    const std::string key = fmt::format("train.stages.{}.length", i);
    if (!length || length->unit == LengthUnit::percent) {
      throw ConfigError(config.where(key),
                        length ? "a part of a run whose length is not known" : "is missing",
                        "give train.length, or each stage its length in epochs or steps");
    }
    run.steps += updates_of(*length, {0, steps_per_epoch}, config, key);
  }
  return run;
}

}  // namespace

RunLength run_length(const RunConfig& config, std::int64_t steps_per_epoch) {
  if (!config.train.length) return length_of_stages(config, steps_per_epoch);
  const Length& length = *config.train.length;
  if (length.unit == LengthUnit::percent) {
    throw ConfigError(config.where("train.length"),
                      "a run's length cannot be a percentage of itself", "<n> epochs or <n> steps");
  }
  double updates = length.value;
  if (length.unit == LengthUnit::epochs) updates *= static_cast<double>(steps_per_epoch);
  const std::int64_t steps = std::llround(updates);
  if (steps < 1) {
    throw ConfigError(config.where("train.length"), to_string(length) + " round to no update",
                      fmt::format("at least 1 step; an epoch is {}", steps_per_epoch));
  }
  return {steps, steps_per_epoch};
}

RunLength run_length(const RunConfig& config) {
  return run_length(config, steps_per_epoch(config));
}

std::int64_t updates_of(const Length& length, const RunLength& run, const RunConfig& config,
                        std::string_view key, bool may_be_zero) {
  double updates = length.value;
  if (length.unit == LengthUnit::epochs) updates *= static_cast<double>(run.steps_per_epoch);
  if (length.unit == LengthUnit::percent) updates *= static_cast<double>(run.steps) / 100;
  const std::int64_t rounded = std::llround(updates);
  if (rounded == 0 && length.value > 0) {
    throw ConfigError(
        config.where(key),
        fmt::format("{} rounds to no update{}", to_string(length),
                    run.steps > 0 ? " in a run of " + counted(run.steps, "step") : ""),
        may_be_zero ? "a longer one, or 0 steps for none" : "a longer one");
  }
  return rounded;
}

}  // namespace preheat
