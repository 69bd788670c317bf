// How the runs of an arm, or of a grid cell, ended. An arm is JSON in the format of compare.json
// and sweep.json (experiment/runs.h); a missing entry throws nlohmann::json::exception.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experiment/statistics.h"
#include "report/html.h"

namespace preheat {

/// Whether this outcome is a failure; an unknown name is not.
bool is_failure(const std::string& outcome);

/// Whether a run of an arm failed.
bool failed(const Json& run);

/// Number of runs with this outcome.
std::int64_t count(const Json& arm, const char* outcome);

/// The two numbers under `key`; std::nullopt if it is null.
std::optional<Interval> interval_at(const Json& object, const char* key);

/// Test accuracies of the runs that did not fail.
std::vector<double> accuracies_of_the_others(const Json& arm);

/// The same on the validation set, of those that have one.
std::vector<double> validation_accuracies_of_the_others(const Json& arm);

/// Whether a run of any of the arms has a validation set.
bool has_validation(const Json& arms);

/// Appends the heads of the cells that add_outcomes() appends.
void add_outcome_heads(std::vector<std::string>& heads, bool validated);

/// Appends n, failures and the interval of their share, the count of each outcome, and the accuracy
/// of the runs that did not fail, if `validated` also on the validation set.
void add_outcomes(std::vector<Cell>& row, const Json& arm, bool validated);

}  // namespace preheat
