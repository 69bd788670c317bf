// Runs one replica from its configuration to its outcome.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "data/dataset.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/diagnostics.h"
#include "train/outcome.h"
#include "train/run_folder.h"
#include "train/summary.h"

namespace preheat {

/// Training, validation and test images, loaded where a backend can read them.
struct ResidentData {
  std::shared_ptr<const ResidentDataset> train;
  std::shared_ptr<const ResidentDataset> validation;  // null without data.validation
  std::shared_ptr<const ResidentDataset> test;
  ImageShape shape;
  std::int64_t classes = 0;
  std::string origin;
  std::size_t bytes = 0;  // of all three
};

/// Reads the configured dataset and loads it into the backend. Throws Error, and ConfigError as
/// load_dataset() does.
ResidentData load_data(const DataConfig& config, Backend& backend);

/// The schedule of a run of this configuration. Throws ConfigError as resolve_schedule() and
/// run_length() do.
Schedule schedule_of(const RunConfig& config);

/// Callbacks that receive the progress of a run. Each may be empty.
struct RunListener {
  std::function<void(std::span<const StepRecord>)> on_records;
  std::function<void(std::int64_t step, const Evaluated&)> on_evaluation;
  // Polled after each burst, a fraction of a second, and before each gradient of a sharpness.
  std::function<bool()> wants_stop;
};

/// Checks what can be known about a run without its data, before anything is loaded, created or
/// trained: that the schedule and the intervals of its records fit into the run, the network the
/// dataset's images, and that smoothed labels leave room for a loss below that of chance. Throws
/// ConfigError.
void check_run(const RunConfig& config);

/// Throws ConfigError if the backend does not support the configured precision.
void check_precision(const RunConfig& config, const Backend& backend);

/// A run resumed after `step` updates. The next update would have had the rate `lr_before` and now
/// has `lr_now`; they differ only under a new schedule.
struct Resumed {
  RunFolder folder;
  std::int64_t step = 0;
  float lr_before = 0;
  float lr_now = 0;
};

/// The duration of updates, in seconds.
struct UpdateTime {
  std::int64_t updates = 0;
  double host = 0;   // until all were enqueued on the device
  double total = 0;  // until their records were available
};

class Trainer {
 public:
  /// Builds the network and compiles it. If the schedule's start_lr is `auto`, it is derived here
  /// from the critical rate at the initial weights, and schedule() contains the number. If loss or
  /// gradient is not finite there, the placeholder of resolve_schedule() stays: the run will
  /// diverge, and that is its result. `data` are those that load_data() reads for this `config`.
  /// Throws ConfigError and Error.
  Trainer(const RunConfig& config, Backend& backend, const ResidentData& data);

  const RunConfig& config() const { return config_; }
  const Network& network() const { return network_; }
  const Schedule& schedule() const { return schedule_; }
  MemoryUse memory() const { return replica_->memory(); }
  std::size_t diagnostics_memory() const { return diagnostics_.memory(); }  // beside that, in bytes

  /// Resumes the run in `folder` from its last checkpoint; the folder takes this configuration.
  /// Throws ConfigError if the run's differs in a key that determines its numbers (naming the key).
  /// Throws Error if another process has the folder, the run has diverged, the checkpoint is
  /// damaged, is of another network than the folder (naming the tensor) or of a configuration the
  /// folder does not hold, or `start_lr: auto` gives another rate on this machine. With
  /// `new_schedule` the schedule, the length and the stages may differ: the run continues at its
  /// step under the new ones, its folder keeps the configuration it had, and best.ckpt is removed
  /// if it is of a later step, even where that leaves none of the best step so far. If this throws,
  /// the folder is as it was, unless a file in it could not be written.
  Resumed resume(const std::filesystem::path& folder, bool new_schedule = false);

  /// Trains to the end of the run, to the first step that is not finite, or until the listener
  /// stops it. With a folder it writes everything there as it goes, and at the end the summary and
  /// the last checkpoint, which after a step that was not finite holds the state at the failure.
  /// Throws Error, and what the listener throws: then the run is saved as if it had stopped it.
  RunResult run(const RunListener& listener, RunFolder* folder);

  /// Does at most `most` updates, fewer at the end of an epoch or a stage, writes nothing, and
  /// returns how long they took. Beyond the end of the run the schedule's last rate applies. Throws
  /// Error if the run diverges.
  UpdateTime time_updates(std::int64_t most);

  /// Does `updates` updates, at most an epoch, and times their parts (backend.h). To have that many
  /// left in an epoch or stage, it may do others first, which it does not time. Throws Error if an
  /// epoch has only one update, and if the run diverges.
  std::vector<StepPart> time_parts(std::int64_t updates);
  std::int64_t launches_per_update() const { return replica_->launches_per_update(); }

 private:
  std::int64_t next_boundary(std::int64_t step) const;
  std::int64_t next_stop(std::int64_t step) const;
  void set_epoch_order();
  void count(std::span<const StepRecord> records, LossHistory& history, RunResult& result);
  void count_timed(const std::vector<StepRecord>& records);
  void evaluate(std::int64_t step, const RunListener& listener, RunFolder* folder,
                RunResult& result);
  bool measure_sharpness(const ReplicaState& state, const RunListener& listener, RunFolder* folder,
                         RunResult& result);
  void conclude(const LossHistory& history, RunResult& result) const;
  void save_last(RunFolder* folder);
  void save(const RunFolder& folder, const std::string& which);
  void note_gate(const StepState& state);
  nlohmann::json environment() const;  // the entries of summary.json that environment_in() reads
  void write_summary(const RunFolder& folder, const RunResult& result) const;

  const RunConfig config_;
  Backend& backend_;
  const ResidentData data_;
  const Network network_;
  const std::optional<double> start_lr_;  // as found for start_lr: auto
  const Schedule schedule_;
  const RecordIntervals every_;
  std::unique_ptr<Replica> replica_;
  Diagnostics diagnostics_;
  std::vector<std::int64_t> stage_begins_;
  std::int64_t step_ = 0;
  std::optional<std::int64_t> gate_opened_at_;
  RunFolder::History past_;
};

}  // namespace preheat
