// What the commands that run many runs have in common.
#pragma once

#include <filesystem>
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

/// Tells of runs on standard output: a bar while one goes on, a line when it has ended.
class RunsProgress {
 public:
  explicit RunsProgress(const RunOptions& options);

  const RunsListener& listener() const { return listener_; }

 private:
  const RunOptions& options_;
  std::optional<Progress> bar_;
  bool memory_told_ = false;
  RunsListener listener_;
};

/// A line for each claim and one for what it was decided from.
void print_claims(const std::vector<ClaimResult>& claims);

/// How an experiment ends: 0, or where it was interrupted 1 and a line on standard error that says
/// how to go on.
int experiment_exit_code(bool interrupted, const std::filesystem::path& folder);

}  // namespace preheat
