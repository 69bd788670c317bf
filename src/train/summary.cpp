#include "train/summary.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "train/json_file.h"

namespace preheat {
namespace {

// Visits the numbers of a result with their names in summary.json; those of the validation set only
// if there is one.
template <class Result, class Visit>
void for_numbers(Result& result, const Visit& visit) {
  visit("steps", result.steps);
  visit("first_non_finite_step", result.first_non_finite_step);
  visit("gate_opened_at", result.gate_opened_at);
  visit("final_train_loss", result.final_train_loss);
  visit("final_train_accuracy", result.final_train_accuracy);
  visit("test_loss", result.test_loss);
  visit("test_accuracy", result.test_accuracy);
  visit("best_test_accuracy", result.best_test_accuracy);
  visit("best_step", result.best_step);
  if (result.best_by == ChosenBy::validation) {
    visit("validation_loss", result.validation_loss);
    visit("validation_accuracy", result.validation_accuracy);
    visit("best_validation_accuracy", result.best_validation_accuracy);
  }
  visit("initial_sharpness", result.initial_sharpness);
  visit("last_sharpness", result.last_sharpness);
  visit("wall_seconds", result.seconds);
  visit("images_per_second", result.images_per_second);
}

template <class T>
void read_number(const nlohmann::ordered_json& json, const char* key, T& value) {
  value = get_as<T>(json.at(key));
}
template <class T>
void read_number(const nlohmann::ordered_json& json, const char* key, std::optional<T>& value) {
  value = optional_at<T>(json, key);
}

// Throws Error unless the result has the numbers that every run of its outcome has, since readers
// rely on them. The test loss may be absent: JSON cannot hold one that is not finite.
void check_numbers(const RunResult& result, const std::filesystem::path& path) {
  const auto require = [&](const char* key, bool is_there) {
    if (is_there) return;
    throw Error(fmt::format("{}: is damaged: the run is '{}' and has no {}", path.string(),
                            to_string(result.outcome), key));
  };
  if (result.outcome == Outcome::non_finite) {
    require("first_non_finite_step", result.first_non_finite_step.has_value());
    require("first_non_finite_tensor", !result.first_non_finite_tensor.empty());
    return;
  }
  require("final_train_loss", result.final_train_loss.has_value());
  require("final_train_accuracy", result.final_train_accuracy.has_value());
  require("test_accuracy", result.test_accuracy.has_value());
  require("best_test_accuracy", result.best_test_accuracy.has_value());
  require("best_step", result.best_step.has_value());
  if (result.best_by == ChosenBy::test) return;
  require("validation_accuracy", result.validation_accuracy.has_value());
  require("best_validation_accuracy", result.best_validation_accuracy.has_value());
}

// The result of a run that has ended.
RunResult result_in(const nlohmann::ordered_json& summary, const std::filesystem::path& path) {
  RunResult result;
  // The summaries of earlier versions, which had no validation set, lack the key.
  const auto best_by = value_named<ChosenBy>(summary.value("best_by", "test"));
  if (!best_by) throw Error(path.string() + ": is damaged: it has an unknown best_by");
  result.best_by = *best_by;
  for_numbers(result, [&](const char* key, auto& value) { read_number(summary, key, value); });
  const auto outcome = value_named<Outcome>(summary.at("outcome").get<std::string>());
  if (!outcome) throw Error(path.string() + ": is damaged: it has an unknown outcome");
  result.outcome = *outcome;
  result.first_non_finite_tensor =
      optional_at<std::string>(summary, "first_non_finite_tensor").value_or("");
  check_numbers(result, path);
  result.environment = environment_in(summary);
  return result;
}

}  // namespace

std::string environment_in(const nlohmann::ordered_json& summary) {
  std::string text;
  for (const char* key : {"device", "library", "preheat"}) {
    const auto value = summary.find(key);
    if (value == summary.end() || !value->is_string()) continue;
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ",
                        std::string_view(key) == "preheat" ? "preheat " : "",
                        value->get<std::string>());
  }
  return text;
}

nlohmann::json summary_of(const RunResult& result, const std::string& fingerprint) {
  nlohmann::json summary = {
      {"fingerprint", fingerprint},
      {"outcome",
       result.interrupted ? nlohmann::json() : nlohmann::json(to_string(result.outcome))},
      {"interrupted", result.interrupted},
      {"best_by", to_string(result.best_by)},
      {"first_non_finite_tensor", result.first_non_finite_step
                                      ? nlohmann::json(result.first_non_finite_tensor)
                                      : nlohmann::json()},
  };
  for_numbers(result, [&](const char* key, const auto& value) {
    summary[key] = or_null(std::optional(value));
  });
  return summary;
}

std::optional<RunSummary> read_summary(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "summary.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return read_json(path, [&](const nlohmann::ordered_json& json) {
    RunSummary summary{json.at("fingerprint"), std::nullopt};
    if (!json.at("interrupted").get<bool>()) summary.result = result_in(json, path);
    return summary;
  });
}

}  // namespace preheat
