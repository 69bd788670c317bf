// The runs of an experiment: each configuration at each seed, once, into its own folder. A run that
// has ended is read instead of run again, so that an interrupted experiment can be resumed.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <semaphore>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/clock.h"
#include "config/config.h"
#include "experiment/statistics.h"
#include "train/run_folder.h"
#include "train/summary.h"
#include "train/trainer.h"

namespace preheat {

struct SeedResult {
  std::uint64_t seed = 0;
  RunResult run;
};

/// The accuracy of chance, 1 / classes.
double chance_accuracy(const RunConfig& config);

/// The test accuracy with which a run counts: its own, or that of chance if it failed.
double counted_accuracy(const RunResult& run, const RunConfig& config);

/// When the runs of an arm that became not finite did so: their first such steps.
struct NonFiniteSteps {
  double median = 0;
  std::int64_t least = 0;
  std::int64_t largest = 0;
};

/// One arm of a comparison, one cell of a grid.
struct ArmResult {
  Arm arm;
  std::vector<SeedResult> runs;  // in the order of the seeds, without interrupted ones

  std::int64_t count(Outcome outcome) const;
  std::int64_t failures() const;      // runs with is_failure()
  Interval failure_interval() const;  // Clopper-Pearson, 95 %; needs at least one run
  // A value of the runs that did not fail, where it exists.
  std::vector<double> of_survivors(std::optional<double> RunResult::*value) const;
  std::optional<NonFiniteSteps> non_finite_steps() const;  // std::nullopt if all are finite
};

/// Whether any run has a validation set.
bool any_validated(const std::vector<ArmResult>& arms);

struct Search;  // experiment/find_lr.h

/// Callbacks that receive the progress of all runs. Each may be empty. They are called one at a
/// time, except wants_stop, which several threads may call at once. Concurrent runs have different
/// labels.
struct RunsListener {
  std::function<void(std::int64_t)> on_plan;  // the number of runs, if it is known in advance
  std::function<void(const std::string& label, const Trainer&)> on_start;
  std::function<void(const std::string& label, std::span<const StepRecord>)> on_records;
  std::function<void(const std::string& label, const RunResult&, bool was_read)> on_end;
  // find_lr() only: so many initial weights will be measured before the first run; a search ended.
  std::function<void(std::int64_t)> on_initial_weights;
  std::function<void(const Arm&, const Search&)> on_search;
  std::function<bool()> wants_stop;
};

/// The result in the folder of a run, or std::nullopt if it has not ended or lacks the files of its
/// diagnostics. Throws Error if it is damaged, and ConfigError, naming a key, if the run is of
/// another configuration.
std::optional<RunResult> ended_run(const std::filesystem::path& folder, const RunConfig& config);

class Runs {
 public:
  /// The number of concurrent runs follows from the threads that `base` uses.
  Runs(const RunConfig& base, Backend& backend, const RunsListener& listener);

  /// ended_run(), of which it tells the listener.
  std::optional<RunResult> read(const std::string& label, const RunConfig& config,
                                const std::filesystem::path& folder);

  /// Trains `config` into `folder` unless it can be read there. Replaces what another run has left.
  /// Returns an interrupted result if the experiment stops before its turn, which also waits until
  /// the memory that concurrent runs leave suffices. Throws Error, and what read() throws.
  RunResult run(const std::string& label, const RunConfig& config,
                const std::filesystem::path& folder, Checkpoints checkpoints);

  /// Tells the listener the number of runs, that of initial weights, and of a search that has
  /// ended.
  void plan(std::int64_t count);
  void plan_initial_weights(std::int64_t count);
  void tell(const Arm& arm, const Search& search);

  /// Loads the datasets of all configurations, so that a missing one is reported before anything is
  /// written. Throws Error.
  void load(const std::vector<RunConfig>& configs);

  /// The dataset of a configuration, loaded once for all runs that share it. Throws Error.
  const ResidentData& data(const DataConfig& config);

  /// Calls run(0) .. run(count - 1) on as many threads as the backend gains from; on one thread, in
  /// order. No call begins after one has returned false or thrown; the first exception is rethrown
  /// once all have returned. A call may use run_concurrently itself for runs of its own: the limit
  /// of concurrent replicas stays, and further runs wait.
  void run_concurrently(std::int64_t count, const std::function<bool(std::int64_t)>& run);

  /// Calls make(); if it throws OutOfMemory, calls it again, with no other make() beside it,
  /// whenever a run has ended. Returns false if the experiment stops before it succeeds. Throws
  /// OutOfMemory if there is no run to wait for.
  bool when_memory_suffices(const std::function<void()>& make);

  Backend& backend() const { return backend_; }
  bool wants_stop() const { return failed_ || (listener_.wants_stop && listener_.wants_stop()); }

 private:
  void tell_end(const std::string& label, const RunResult& run, bool was_read);
  std::shared_ptr<Trainer> make_trainer(const RunConfig& config);

  Backend& backend_;
  const RunsListener& listener_;
  const int concurrent_;                      // the largest number of concurrent replicas
  std::map<std::string, ResidentData> data_;  // keyed by what determines the content
  std::mutex mutex_;                          // guards data_ and the listener
  std::counting_semaphore<> replicas_;        // replicas that may still be started
  std::shared_mutex making_;                  // held by when_memory_suffices()
  std::atomic<int> trainers_{0};              // those that have been made and not yet ended
  std::atomic<int> side_by_side_{0};          // calls in progress
  std::atomic<bool> failed_{false};           // a run threw; the others have to stop
};

/// The results of those of the tasks first, first + stride, ... that have ended, in their order.
template <class T>
std::vector<T> ended_of(const std::vector<std::optional<T>>& tasks, std::size_t first,
                        std::size_t stride) {
  std::vector<T> ended;
  for (std::size_t task = first; task < tasks.size(); task += stride) {
    if (tasks[task]) ended.push_back(*tasks[task]);
  }
  return ended;
}

/// Limits how often an experiment rewrites its file, which grows with every run. Until the next run
/// ends, the file may lack those that ended within a second of its last writing; so may that of a
/// program that was killed. Nothing is lost: a run's own folder, from which --resume reads it, has
/// all of it, and an experiment writes its file once more when it ends, is interrupted or fails.
class OnceASecond {
 public:
  explicit OnceASecond(std::function<void()> write) : write_(std::move(write)) {}

  /// Calls write() unless the last call of it returned less than a second ago. Not thread-safe.
  void operator()();

  /// Does the work, in which this is called. If it throws, calls write() first, unless nothing has
  /// changed since.
  void during(const std::function<void()>& work);

 private:
  void write_due();

  std::function<void()> write_;
  bool is_due_ = false;
  std::optional<Clock::time_point> written_;
};

/// The configuration of each arm of the document's run, checked with check_run. Throws ConfigError
/// at the arm's place.
std::vector<RunConfig> arm_configs(const Document& document, const std::vector<Arm>& arms);

/// Runs every arm at every seed, seed by seed, into <folder>/<arm>/<seed>, and adds the runs to
/// `results`, which already holds the arms. Those that have ended are read first. Calls `write`
/// after the first run that trains, at most once a second from then on, and for what is left before
/// it throws, but not at the end. Returns whether all have ended; false means that the listener
/// stopped them. Throws Error, and what Runs::read() throws.
bool run_arms(Runs& runs, const std::vector<RunConfig>& configs,
              const std::vector<std::uint64_t>& seeds, const std::filesystem::path& folder,
              Checkpoints checkpoints, std::vector<ArmResult>& results,
              const std::function<void()>& write);

/// Throws Error if the folder has the result of an experiment of another kind than `own`, or of any
/// if that is std::nullopt.
void refuse_others(const std::filesystem::path& folder, std::optional<ExperimentKind> own);

/// Creates the folder of an experiment, or with `resume` opens an existing one, writes the
/// configuration, and returns the lock on it. On resume, seeds, arms and claims may have changed.
/// With `resume` calls require_runs before it writes anything: it throws unless the runs in the
/// folder are those of the experiment. Throws Error, with `resume` also if the folder is of another
/// command or its configuration is damaged, and ConfigError, naming the key, if its base run
/// differs from this one.
FolderLock prepare_folder(const std::filesystem::path& folder, ExperimentKind kind,
                          const RunConfig& config, bool resume,
                          const std::function<void()>& require_runs);

/// Throw ConfigError, naming a key, if there is a run of another configuration in the folder, or in
/// the folder of one of the runs of run_arms(). Throw Error if its summary is damaged, or if it has
/// to be made again and anybody else has put a file there.
void require_same_run(const std::filesystem::path& folder, const RunConfig& config);
void require_same_runs(const std::vector<RunConfig>& configs,
                       const std::vector<std::uint64_t>& seeds, const std::filesystem::path& folder,
                       const std::vector<ArmResult>& arms);

/// {"name", "overrides", "n", "failures", "failure_interval", "first_non_finite", "runs"}, with
/// null for values that do not exist. "first_non_finite" is {"median", "range": [least, largest]}.
/// Runs with a validation set also have a "validation_accuracy".
nlohmann::ordered_json to_json(const ArmResult& arm);

/// The total number of runs of all arms.
std::int64_t count_runs(const std::vector<ArmResult>& arms);

/// Adds "incomplete": {"ended", "planned"} if fewer runs, or searches, have ended than planned, so
/// that the file of a killed program shows that it is incomplete.
void add_incomplete(nlohmann::ordered_json& json, std::int64_t ended, std::int64_t planned);

/// An object of keys and values.
nlohmann::ordered_json to_json(const std::vector<Override>& changes);

/// A value of a configuration as JSON: null, a number, a boolean, or otherwise its text.
nlohmann::ordered_json to_json(const Node& value);

}  // namespace preheat
