// What the commands that run many runs have in common.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands/options.h"
#include "commands/progress.h"
#include "experiment/claims.h"
#include "experiment/runs.h"

namespace preheat {

/// CONFIG, --set, --device, --out, --quiet, --verbose and --resume.
struct ExperimentOptions {
  ConfigOptions config;
  RunOptions run;
  std::string resume;

  void add_to(CLI::App& app);

  /// CONFIG with the settings; with --resume and without CONFIG that of the folder.
  Document document() const;

  /// --resume, --out, or runs/<name>/<time>-<command>.
  std::filesystem::path folder(const std::string& name, const std::string& command) const;
};

/// "stuck: loss 2.3031, test accuracy 10.00 %".
std::string outcome_text(const RunResult& run);

/// "1.80e-01", or "-" for none.
std::string rate_or_dash(const std::optional<double>& rate);

/// Tells of runs on standard output: a bar while they go on, of all of them together where there
/// are several, and a line when one has ended.
class RunsProgress {
 public:
  explicit RunsProgress(const RunOptions& options);

  const RunsListener& listener() const { return listener_; }

 private:
  void draw_together();

  const RunOptions& options_;
  std::map<std::string, Progress> going_;  // by label
  std::int64_t planned_ = 0;               // 0: nobody knows
  std::int64_t ended_ = 0;
  double trained_ = 0;  // runs, of those that were not read
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
  bool memory_told_ = false;
  RunsListener listener_;
};

/// A line for each claim and one for what it was decided from.
void print_claims(const std::vector<ClaimResult>& claims);

/// How an experiment ends: 0, or where it was interrupted 1 and a line on standard error that says
/// how to go on.
int experiment_exit_code(bool interrupted, const std::filesystem::path& folder);

}  // namespace preheat
