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

/// The column heads of the cells that add_outcomes() appends.
extern const std::vector<std::string> outcome_heads;

/// Appends n, failures and the interval of their share, the count of each outcome, and the accuracy
/// of the runs that did not fail.
void add_outcomes(std::vector<Cell>& row, const Json& arm);

}  // namespace preheat
