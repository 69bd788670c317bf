#include "report/arm_outcomes.h"

#include <fmt/format.h>

#include <algorithm>

#include "train/json_file.h"
#include "train/outcome.h"

namespace preheat {
namespace {

// "85.02 % (84.10 .. 85.90), n = 7".
std::string spread_text(const std::vector<double>& accuracies) {
  if (accuracies.empty()) return "– (n = 0)";
  const auto [least, largest] = std::ranges::minmax(accuracies);
  return fmt::format("{} ({:.2f} .. {:.2f}), n = {}", percent(median(accuracies)), 100 * least,
                     100 * largest, accuracies.size());
}

constexpr const char* validation_key = "validation_accuracy";  // only in runs that have the set

}  // namespace

bool is_failure(const std::string& outcome) {
  const auto known = value_named<Outcome>(outcome);
  return known && is_failure(*known);
}

bool failed(const Json& run) {
  return is_failure(scalar(run.at("outcome")));
}

std::int64_t count(const Json& arm, const char* outcome) {
  return std::ranges::count_if(arm.at("runs"),
                               [&](const Json& run) { return run.at("outcome") == outcome; });
}

std::optional<Interval> interval_at(const Json& object, const char* key) {
  const Json& ends = object.at(key);
  if (ends.is_null()) return std::nullopt;
  return Interval{ends.at(0).get<double>(), ends.at(1).get<double>()};
}

std::vector<double> accuracies_of_the_others(const Json& arm) {
  std::vector<double> accuracies;
  for (const Json& run : arm.at("runs")) {
    const Number accuracy = optional_at<double>(run, "test_accuracy");
    if (!failed(run) && accuracy) accuracies.push_back(*accuracy);
  }
  return accuracies;
}

std::vector<double> validation_accuracies_of_the_others(const Json& arm) {
  std::vector<double> accuracies;
  for (const Json& run : arm.at("runs")) {
    if (failed(run) || !run.contains(validation_key)) continue;
    const Number accuracy = optional_at<double>(run, validation_key);
    if (accuracy) accuracies.push_back(*accuracy);
  }
  return accuracies;
}

bool has_validation(const Json& arms) {
  return std::ranges::any_of(arms, [](const Json& arm) {
    return std::ranges::any_of(arm.at("runs"),
                               [](const Json& run) { return run.contains(validation_key); });
  });
}

void add_outcome_heads(std::vector<std::string>& heads, bool validated) {
  for (const char* head : {"runs", "failed", "95 % interval", "✕ not finite", "■ stuck", "▲ spiked",
                           "● ok", "test accuracy of the others: median (range)"}) {
    heads.emplace_back(head);
  }
  if (validated) heads.emplace_back("validation accuracy of the others");
}

void add_outcomes(std::vector<Cell>& row, const Json& arm, bool validated) {
  const auto failures = arm.at("failures").get<std::int64_t>();
  const auto interval = interval_at(arm, "failure_interval");
  row.emplace_back(std::to_string(arm.at("n").get<std::int64_t>()));
  row.emplace_back(std::to_string(failures), failures == 0 ? ""
                                             : count(arm, "non_finite") >= count(arm, "stuck")
                                                 ? "non_finite"
                                                 : "stuck");
  row.emplace_back(interval ? to_string(*interval) : "–");
  for (const char* outcome : {"non_finite", "stuck", "spiked", "ok"}) {
    row.emplace_back(std::to_string(count(arm, outcome)));
  }
  row.emplace_back(spread_text(accuracies_of_the_others(arm)));
  if (validated) row.emplace_back(spread_text(validation_accuracies_of_the_others(arm)));
}

}  // namespace preheat
