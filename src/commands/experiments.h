// Common parts of the commands that train several runs.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands/options.h"
#include "commands/progress.h"
#include "config/clock.h"
#include "experiment/claims.h"
#include "experiment/runs.h"
#include "schedule/schedule.h"
#include "train/run_folder.h"

namespace preheat {

/// CONFIG, --set, --device, --out, --quiet, --verbose and --resume.
struct ExperimentOptions {
  ConfigOptions config;
  RunOptions run;
  std::string resume;

  void add_to(CLI::App& app, const std::string& more = "");  // `more`: what else --verbose adds

  Document document() const { return config.document(resume); }

  /// The folder of --resume or --out; "" if neither is given.
  std::filesystem::path given_folder() const { return resume.empty() ? run.out : resume; }
};

/// "stuck: loss 2.3031, test accuracy 10.00 %"; with a validation set also its accuracy. With the
/// schedule of the run, which is known if it was made and not read, a step that was not finite has
/// its rate and phase.
std::string outcome_text(const RunResult& run, const Schedule* schedule);

/// "1.80e-01", or "-" for none.
std::string rate_or_dash(const std::optional<double>& rate);

/// Reports runs on standard output: while they are running a bar (one for all concurrent runs), and
/// a line when a run has ended.
class RunsProgress {
 public:
  explicit RunsProgress(const RunOptions& options);

  const RunsListener& listener() const { return listener_; }

  /// "note: ..." if runs that have ended were made on different devices or by different versions,
  /// otherwise "".
  std::string environments_note() const;

 private:
  void draw_together();

  const RunOptions& options_;
  std::map<std::string, Progress> running_;  // by label
  std::int64_t planned_ = 0;                 // 0: unknown
  std::int64_t ended_ = 0;
  double trained_ = 0;                                // runs, without those read from disk
  std::map<std::string, std::int64_t> environments_;  // of the runs that have ended, and how many
  Clock::time_point start_;
  Clock::time_point drawn_;
  bool memory_told_ = false;
  RunsListener listener_;
};

/// Prints a line for each claim and one for its evidence.
void print_claims(const std::vector<ClaimResult>& claims);

/// The exit code of an experiment: 0, or if it was interrupted 1, after printing to standard error
/// how to resume it.
int experiment_exit_code(bool interrupted, const std::filesystem::path& folder);

/// What a command passes to the experiment it starts.
struct ExperimentStart {
  const Document& document;
  const RunConfig& config;
  Backend& backend;
  const std::filesystem::path& folder;
  bool resume;
  const RunsListener& listener;
};

/// Calls run(ExperimentStart), unless --quiet prints the outcome (print(result), the claims and on
/// what different devices the runs were made), and then makes the page from the resulting folder,
/// so that an error there hides nothing. Returns the exit code. Throws ConfigError and Error.
template <class Run, class Print>
int run_experiment(const ExperimentOptions& options, const std::string& command, const Run& run,
                   const Print& print) {
  const Document document = options.document();
  const RunConfig config = read_config(document);
  const auto backend = options.run.backend();
  catch_interrupts();
  catch_broken_pipe();
  std::optional<DefaultFolder> made;  // runs/<name>/<time>-<command>
  if (options.given_folder().empty()) made.emplace(config.name, command);
  const std::filesystem::path folder = made ? made->path() : options.given_folder();
  const RunsProgress progress(options.run);
  const auto result = run(ExperimentStart{document, config, *backend, folder,
                                          !options.resume.empty(), progress.listener()});
  const bool talks = !options.run.quiet;
  if (talks) {
    print(result);
    print_claims(result.claims);
    fmt::print("{}\n", progress.environments_note());
    std::fflush(stdout);
  }
  const int code = experiment_exit_code(result.interrupted, folder);
  const auto page = write_page_last(folder, code);
  if (talks && page) fmt::print("{}\n", page->string());
  return code;
}

}  // namespace preheat
