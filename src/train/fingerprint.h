// What of a configuration decides the numbers of a run, so that a run can be taken up by the same
// one only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace preheat {

/// The keys that a run's numbers depend on, with their full paths, and their values as YAML, in the
/// order of configs/reference.yaml.
struct Setting {
  std::string key;
  std::string value;
};
std::vector<Setting> settings_of(const RunConfig& config);

/// Eight hexadecimal digits: the CRC-32 of all keys and values that a run's numbers depend on.
std::string fingerprint(const RunConfig& config);

/// The first such key in which two configurations differ, as "optimizer.momentum: 0.9" of both
/// ("nothing" where one does not have it).
struct Difference {
  std::string before;
  std::string now;
};
std::optional<Difference> first_difference(const RunConfig& before, const RunConfig& now);

/// A copy of `config` with the schedule, length and stages of `other`.
RunConfig with_schedule_of(const RunConfig& config, const RunConfig& other);

}  // namespace preheat
