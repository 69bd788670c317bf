// The part of a configuration that determines the numbers of a run. A run can be resumed only under
// a configuration in which it is the same.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace preheat {

/// A key on which a run's numbers depend, as its full path, and its value as YAML.
struct Setting {
  std::string key;
  std::string value;
};
/// All settings of a configuration, in the order of configs/reference.yaml.
std::vector<Setting> settings_of(const RunConfig& config);

/// Eight hexadecimal digits: the CRC-32 of all keys and values on which a run's numbers depend.
std::string fingerprint(const RunConfig& config);

/// The first setting in which two configurations differ, as "optimizer.momentum: 0.9" for each
/// ("nothing" if it is absent).
struct Difference {
  std::string before;
  std::string now;
};
std::optional<Difference> first_difference(const RunConfig& before, const RunConfig& now);

/// "the run was made with 'seed: 0', this configuration has 'seed: 1'"; `what` is run or
/// experiment.
std::string mismatch_text(const char* what, const Difference& differs);

/// A copy of `config` with the schedule, length and stages of `other`.
RunConfig with_schedule_of(const RunConfig& config, const RunConfig& other);

}  // namespace preheat
