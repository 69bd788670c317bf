// The result of a run, and summary.json, which holds it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "train/outcome.h"

namespace preheat {

/// The set whose accuracy chooses the best evaluation of a run, and so best.ckpt: the validation
/// set if there is one (data.validation). If it is the test set, the best test accuracy is an
/// optimistic number, since the largest of several.
enum class ChosenBy { test, validation };
constexpr auto spelling(ChosenBy) {
  return Spelling{"a set of examples", {"test", "validation"}};
}

struct RunResult {
  Outcome outcome = Outcome::ok;
  bool interrupted = false;  // if so, the outcome is meaningless
  std::int64_t steps = 0;    // updates done in total
  std::optional<std::int64_t> first_non_finite_step;
  std::string first_non_finite_tensor;
  std::optional<std::int64_t> gate_opened_at;  // the first update after a warmup ended early
  std::optional<double> final_train_loss;      // means over the last updates, see LossHistory
  std::optional<double> final_train_accuracy;
  std::optional<double> test_loss;  // after the last update, if the run reached its end
  std::optional<double> test_accuracy;
  std::optional<double> validation_loss;  // likewise, if there is a validation set
  std::optional<double> validation_accuracy;
  ChosenBy best_by = ChosenBy::test;
  std::optional<double> best_test_accuracy;  // after best_step updates, as the next
  std::optional<double> best_validation_accuracy;
  std::optional<std::int64_t> best_step;    // of several equally good evaluations the first
  std::optional<double> initial_sharpness;  // before update 0
  std::optional<double> last_sharpness;     // of the last measurement
  double seconds = 0;            // wall time of this call, not counting time before a resume
  double images_per_second = 0;  // in training alone
  std::string environment;       // environment_in() of its summary
};

/// What made a run, beside its configuration: "NVIDIA H200, CUDA 13.0, ..., preheat 0.1". Runs of
/// different environments have different bits. "" for a summary.json that does not say.
std::string environment_in(const nlohmann::ordered_json& summary);

/// The part of summary.json that read_summary() reads: outcome, numbers and the fingerprint of the
/// run's configuration. A number that does not exist is null. Without a validation set there are no
/// keys for its numbers.
nlohmann::json summary_of(const RunResult& result, const std::string& fingerprint);

/// The contents of a folder's summary.json.
struct RunSummary {
  std::string fingerprint;          // of the run's configuration
  std::optional<RunResult> result;  // std::nullopt if the run was interrupted
};

/// std::nullopt if there is no summary.json. Throws Error if it is damaged, also if it lacks a
/// number that every run of its outcome has.
std::optional<RunSummary> read_summary(const std::filesystem::path& folder);

}  // namespace preheat
