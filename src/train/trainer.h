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

namespace preheat {

/// Training and test images where a backend can read them.
struct ResidentData {
  std::shared_ptr<const ResidentDataset> train;
  std::shared_ptr<const ResidentDataset> test;
  ImageShape shape;
  std::int64_t classes = 0;
  std::string origin;
  std::size_t bytes = 0;
};

/// Reads the configured dataset and hands it to the backend. Throws Error.
ResidentData load_data(const DataConfig& config, Backend& backend);

/// The schedule of a run on these data. Throws ConfigError as resolve_schedule() does.
Schedule schedule_of(const RunConfig& config, const ResidentData& data);

struct RunResult {
  Outcome outcome = Outcome::ok;
  bool interrupted = false;  // then the outcome says nothing
  std::int64_t steps = 0;    // updates done in all
  std::optional<std::int64_t> first_non_finite_step;
  std::string first_non_finite_tensor;
  std::optional<std::int64_t> gate_opened_at;  // the first update after a warmup ended early
  std::optional<double> final_train_loss;      // means over the last updates, see LossHistory
  std::optional<double> final_train_accuracy;
  std::optional<double> test_loss;  // after the last update of a run that reached its end
  std::optional<double> test_accuracy;
  std::optional<double> best_test_accuracy;
  std::optional<std::int64_t> best_step;
  std::optional<double> initial_sharpness;  // before update 0, and as it was measured last
  std::optional<double> last_sharpness;
  double seconds = 0;            // wall time of this call; what came before a resume is not in it
  double images_per_second = 0;  // of training alone
};

/// What a folder's summary.json says of its run.
struct RunSummary {
  std::string fingerprint;          // of its configuration
  std::optional<RunResult> result;  // nothing where it was interrupted
};

/// Nothing where there is no summary.json. Throws Error where it is damaged, which it also is where
/// a number is null that a run of its outcome has.
std::optional<RunSummary> read_summary(const std::filesystem::path& folder);

/// Hears of a run while it goes on. Every function may be left empty.
struct RunListener {
  std::function<void(std::span<const StepRecord>)> on_records;
  std::function<void(std::int64_t step, const Evaluation&)> on_evaluation;
  std::function<bool()> wants_stop;  // asked every fraction of a second
};

/// Checks what can be known of a run without its data: that its schedule fits into it and its
/// network fits the dataset's images. Throws ConfigError. Done before anything is loaded, made or
/// trained.
void check_run(const RunConfig& config);

/// Throws ConfigError where the backend does not compute in the precision asked for.
void check_precision(const RunConfig& config, const Backend& backend);

/// A run taken up again after `step` updates; the next one would have had the rate `lr_before` and
/// has `lr_now`.
struct Resumed {
  RunFolder folder;
  std::int64_t step = 0;
  float lr_before = 0;
  float lr_now = 0;
};

/// How long updates took, in seconds.
struct UpdateTime {
  std::int64_t updates = 0;
  double host = 0;   // until the device had been given them
  double total = 0;  // until their records were there
};

class Trainer {
 public:
  /// Builds the network and compiles it. Where the schedule's start_lr is `auto`, it is found here
  /// from the initial weights, and schedule() has the number. Where loss or gradient is not finite
  /// there, none is found and the stand-in of resolve_schedule() stays: that such a run diverges is
  /// its result. `config` is checked against the data: throws ConfigError and Error.
  Trainer(const RunConfig& config, Backend& backend, const ResidentData& data);

  const RunConfig& config() const { return config_; }
  const Network& network() const { return network_; }
  const Schedule& schedule() const { return schedule_; }
  MemoryUse memory() const { return replica_->memory(); }

  /// Takes up the run in `folder` where its last checkpoint was made. Throws Error where the run
  /// has diverged, its checkpoint is damaged, is of another network (naming the tensor), or the
  /// run's configuration differs from this one in a key that its numbers depend on (naming the
  /// key). With `new_schedule` the schedule, the length and the stages may differ: the run goes on
  /// from its step of the new ones, and its folder keeps the configuration it had.
  Resumed resume(const std::filesystem::path& folder, bool new_schedule = false);

  /// Trains to the end of the run, to the first step that is not finite, or until the listener
  /// wants it to stop. With a folder it writes everything there as it goes, and at the end the
  /// summary and the last checkpoint; after a step that was not finite, of the state that blew up.
  /// Throws Error.
  RunResult run(const RunListener& listener, RunFolder* folder);

  /// Does at most so many updates, fewer at the end of an epoch or a stage, writes nothing, and
  /// says how long they took. The schedule's last rate holds beyond the run's end. Throws Error
  /// where the run is lost.
  UpdateTime time_updates(std::int64_t most);

  /// Does so many updates, fewer where an epoch has fewer, and times their parts (backend.h).
  /// Throws Error where an epoch has but one, and where the run is lost.
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
  void measure_sharpness(const ReplicaState& state, RunFolder* folder, RunResult& result);
  void conclude(const LossHistory& history, RunResult& result) const;
  void save_last(RunFolder* folder);
  void save(const RunFolder& folder, const std::string& which);
  void note_gate(const StepState& state);
  void write_summary(const RunFolder& folder, const RunResult& result) const;

  const RunConfig config_;
  Backend& backend_;
  const ResidentData data_;
  const Network network_;
  const std::optional<double> start_lr_;  // where the configuration left it to the network
  const Schedule schedule_;
  std::unique_ptr<Replica> replica_;
  Diagnostics diagnostics_;
  std::vector<std::int64_t> stage_begins_;
  std::int64_t eval_every_ = 0;
  std::int64_t checkpoint_every_ = 0;  // 0: only at the end
  std::int64_t step_ = 0;
  std::optional<std::int64_t> gate_opened_at_;
  RunFolder::Past past_;
};

}  // namespace preheat
