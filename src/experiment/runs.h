// The runs of an experiment: each configuration at each seed, into a folder of its own, once. A run
// that has ended is read, not run again, so that an experiment goes on where it was interrupted.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <semaphore>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/statistics.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace preheat {

struct SeedResult {
  std::uint64_t seed = 0;
  RunResult run;
};

/// The accuracy of telling nothing apart, 1 / classes.
double chance_accuracy(const RunConfig& config);

/// The test accuracy that a run counts with: its own, or where it failed that of chance.
double counted_accuracy(const RunResult& run, const RunConfig& config);

/// One arm of a comparison, one cell of a grid.
struct ArmResult {
  Arm arm;
  std::vector<SeedResult> runs;  // in the order of the seeds; interrupted runs are not in it

  std::int64_t count(Outcome outcome) const;
  std::int64_t failures() const;      // as is_failure()
  Interval failure_interval() const;  // Clopper-Pearson, 95 %; needs at least one run
};

/// Hears of every run, of one thing at a time. Every function may be left empty. Runs side by side
/// have different labels.
struct RunsListener {
  std::function<void(std::int64_t)> on_plan;  // how many runs there will be, where that is known
  std::function<void(const std::string& label, const Trainer&)> on_start;
  std::function<void(const std::string& label, std::span<const StepRecord>)> on_records;
  std::function<void(const std::string& label, const RunResult&, bool was_read)> on_end;
  std::function<bool()> wants_stop;
};

class Runs {
 public:
  /// Of an experiment whose base run is `base`: runs that take as much of the machine as that one.
  Runs(const RunConfig& base, Backend& backend, const RunsListener& listener);

  /// Trains `config` into `folder`, or reads what is there if that run has ended. What an
  /// interrupted run has left there is written over. With Checkpoints::drop none is written. Throws
  /// Error, also where the folder holds a run of another configuration.
  RunResult run(const std::string& label, const RunConfig& config,
                const std::filesystem::path& folder, Checkpoints checkpoints);

  /// Tells the listener how many runs there will be.
  void plan(std::int64_t count);

  /// Loads the datasets of all of them, so that one that is missing is known before anything is
  /// made. Throws Error.
  void load(const std::vector<RunConfig>& configs);

  /// The dataset of a configuration, loaded once for all runs that share it. Throws Error.
  const ResidentData& data(const DataConfig& config);

  /// Calls run(0) .. run(count - 1), as many at the same time as the backend gains from, each in a
  /// thread; in order where that is one. None is begun after one that returned false or threw; what
  /// was thrown first is thrown again when all have returned. One of them may call it again for
  /// runs of its own: no more train at the same time for that, the others wait.
  void side_by_side(std::int64_t count, const std::function<bool(std::int64_t)>& run);

  Backend& backend() const { return backend_; }
  bool wants_stop() const { return failed_ || (listener_.wants_stop && listener_.wants_stop()); }

 private:
  void tell_end(const std::string& label, const RunResult& run, bool was_read);

  Backend& backend_;
  const RunsListener& listener_;
  const int concurrent_;                      // replicas, at most
  std::map<std::string, ResidentData> data_;  // by what decides the content
  std::mutex mutex_;                          // of data_ and the listener
  std::counting_semaphore<> replicas_;        // that may be trained beside those there are
  std::atomic<int> side_by_side_{0};          // calls that have not returned
  std::atomic<bool> failed_{false};           // a run that others go on beside
};

/// What has ended of the tasks first, first + stride, ..., in their order.
template <class T>
std::vector<T> ended_of(const std::vector<std::optional<T>>& tasks, std::size_t first,
                        std::size_t stride) {
  std::vector<T> ended;
  for (std::size_t task = first; task < tasks.size(); task += stride) {
    if (tasks[task]) ended.push_back(*tasks[task]);
  }
  return ended;
}

/// The configurations of arms of the document's run, each checked with check_run. Throws
/// ConfigError at the arm's place.
std::vector<RunConfig> arm_configs(const Document& document, const std::vector<Arm>& arms);

/// Every arm at every seed, seed by seed, into <folder>/<arm>/<seed>; `results` has the arms and
/// gains their runs. `after_each` is called when a run has ended. Returns whether all have; false
/// means that the listener wanted to stop. Throws Error.
bool run_arms(Runs& runs, const std::vector<RunConfig>& configs,
              const std::vector<std::uint64_t>& seeds, const std::filesystem::path& folder,
              Checkpoints checkpoints, std::vector<ArmResult>& results,
              const std::function<void()>& after_each);

/// Makes the folder of an experiment, or with `resume` takes one that is there, and writes its
/// configuration: seeds, arms and what is expected may be others than they were. No other process
/// may have it meanwhile. Throws Error, with `resume` also where the folder is one of another
/// command, its configuration is damaged, or its base run differs from this one (naming the key).
FolderLock prepare_folder(const std::filesystem::path& folder, ExperimentKind kind,
                          const RunConfig& config, bool resume);

/// {"name", "overrides", "n", "failures", "failure_interval", "runs"}; null where a value does not
/// exist.
nlohmann::ordered_json to_json(const ArmResult& arm);

/// The runs of all of them.
std::int64_t count_runs(const std::vector<ArmResult>& arms);

/// Adds "incomplete": {"ended", "planned"} where fewer runs, or searches, have ended than were
/// planned: a file of a program that was killed says so by itself.
void note_missing(nlohmann::ordered_json& json, std::int64_t ended, std::int64_t planned);

/// Keys with their values.
nlohmann::ordered_json to_json(const std::vector<Override>& changes);

/// A value of a configuration as JSON: numbers and truth values are such, the rest is text.
nlohmann::ordered_json to_json(const Node& value);

}  // namespace preheat
