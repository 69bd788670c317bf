// What the commands that run many runs have in common.
#pragma once

#include <fmt/format.h>

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
#include "report/report.h"

namespace preheat {

/// CONFIG, --set, --device, --out, --quiet, --verbose and --resume.
struct ExperimentOptions {
  ConfigOptions config;
  RunOptions run;
  std::string resume;

  void add_to(CLI::App& app);

  Document document() const { return config.document(resume); }

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

/// What a command hands to the experiment that it is about.
struct ExperimentStart {
  const Document& document;
  const RunConfig& config;
  Backend& backend;
  const std::filesystem::path& folder;
  bool resume;
  const RunsListener& listener;
};

/// Calls run(ExperimentStart), makes the page of what is then in the folder, and unless --quiet
/// says what came out: print(result), the claims, and where the page is. Returns the exit code.
/// Throws ConfigError and Error.
template <class Run, class Print>
int run_experiment(const ExperimentOptions& options, const std::string& command, const Run& run,
                   const Print& print) {
  const Document document = options.document();
  const RunConfig config = read_config(document);
  const auto backend = options.run.backend();
  const std::filesystem::path folder = options.folder(config.name, command);
  catch_interrupts();
  const RunsProgress progress(options.run);
  const auto result = run(ExperimentStart{document, config, *backend, folder,
                                          !options.resume.empty(), progress.listener()});
  const std::filesystem::path report = write_report(folder);
  if (!options.run.quiet) {
    print(result);
    print_claims(result.claims);
    fmt::print("\n{}\n", report.string());
  }
  return experiment_exit_code(result.interrupted, folder);
}

}  // namespace preheat
