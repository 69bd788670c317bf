// How many updates a run takes, and the lengths of its configuration in updates.
#pragma once

#include <cstdint>
#include <string_view>

#include "config/config.h"

namespace preheat {

/// The lengths of a run and of an epoch, in updates.
struct RunLength {
  std::int64_t steps = 0;
  std::int64_t steps_per_epoch = 0;
};

/// train.length in updates, or the sum of train.stages if it is absent. Throws ConfigError at
/// either if it is unusable: a per cent of the run, a stage without a length, less than one update.
RunLength run_length(const RunConfig& config, std::int64_t steps_per_epoch);

/// The same for the configured dataset, whose size is known without its files. Throws ConfigError
/// as steps_per_epoch() (data/dataset.h) does too.
RunLength run_length(const RunConfig& config);

/// A length in updates, rounded to the nearest. Throws ConfigError at `key` if a length above zero
/// rounds to no update at all; the remedy names zero if the key may be it. `run.steps` is 0 if it
/// is not known, as long as the length is not a per cent of the run.
std::int64_t updates_of(const Length& length, const RunLength& run, const RunConfig& config,
                        std::string_view key, bool may_be_zero = false);

}  // namespace preheat
