// How the runs of an arm, or of a cell of a grid, ended. An arm is JSON as compare.json and
// sweep.json have it (experiment/runs.h): what is missing in it throws nlohmann::json::exception.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experiment/statistics.h"
#include "report/html.h"

namespace preheat {

/// Of the name of an outcome; an unknown one is none.
bool is_failure(const std::string& outcome);

/// Of a run of an arm.
bool failed(const Json& run);

/// The runs that ended so.
std::int64_t count(const Json& arm, const char* outcome);

/// The two numbers under `key`; nothing where it is null.
std::optional<Interval> interval_at(const Json& object, const char* key);

/// Test accuracies of the runs that did not fail.
std::vector<double> accuracies_of_the_others(const Json& arm);

/// What add_outcomes() adds to a row of a table.
extern const std::vector<std::string> outcome_heads;

/// n, failures and their share's interval, how many runs had which outcome, and the accuracy of
/// those that did not fail.
void add_outcomes(std::vector<Cell>& row, const Json& arm);

}  // namespace preheat
