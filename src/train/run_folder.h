// A run is a folder: everything it was and did is in there.
//
//   config.yaml            resolved, runs again
//   config-before-N.yaml   what it was up to update N, where the schedule was changed then
//   metrics.csv            one row per update:
//       step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm
//   eval.csv               one row per evaluation: step,epoch,test_loss,test_accuracy
//   layers.csv             under diagnostics.layers_every, one row per parameter and update looked
//                          at; train/diagnostics.h says what each column is:
//       step,parameter,weight_norm,velocity_norm,update_norm,angle,distance
//   activations.csv        likewise, one row per op, of the update's own forward pass:
//       step,layer,largest,dead
//   sharpness.csv          under diagnostics.sharpness, one row per measurement; train/sharpness.h
//                          says what each column is, nan what was not checked:
//       step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,random_direction
//   summary.json           how it ended
//   report.html            all of it to look at
//   checkpoints/last.ckpt  best.ckpt
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>

#include "backend/backend.h"
#include "config/config.h"
#include "schedule/schedule.h"
#include "train/diagnostics.h"
#include "train/outcome.h"

namespace preheat {

/// runs/<name>/<timestamp>-<suffix>, the local time to the second, made unique by a number where
/// such a folder is there already.
std::filesystem::path default_folder(const std::string& name, const std::string& suffix);

/// Makes the folder of an experiment or a run. Throws Error where it exists and is not empty, or
/// cannot be made.
void make_folder(const std::filesystem::path& folder);

/// The configuration of the run or the experiment in `folder`. Throws Error: what is wrong with it
/// is not what the user has typed, so the file is damaged.
RunConfig config_in(const std::filesystem::path& folder);

/// Keeps other processes from writing into a folder, for as long as it is there.
class FolderLock {
 public:
  /// Throws Error where another process has it. Where the file system knows no locks, there is
  /// none.
  explicit FolderLock(const std::filesystem::path& folder);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock();

 private:
  int file_;
};

/// Whether a run writes any.
enum class Checkpoints { keep, drop };

class RunFolder {
 public:
  /// Makes `folder` and writes the configuration, before any other file. Throws Error.
  RunFolder(const std::filesystem::path& folder, const RunConfig& config,
            Checkpoints checkpoints = Checkpoints::keep);

  /// What a folder holds of the run before `step`.
  struct Past {
    LossHistory history;
    std::optional<double> best_accuracy;
    std::optional<std::int64_t> best_step;
    std::optional<double> initial_sharpness;  // at the weights before update 0
    std::optional<double> last_sharpness;
  };

  /// Opens the folder of a run to go on from `step`: rows of later updates are dropped. Throws
  /// Error where rows before `step` are missing or damaged, and where another process goes on with
  /// it.
  static RunFolder reopen(std::filesystem::path folder, std::int64_t step, Past& past);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoint(const std::string& which) const;  // "last", "best"
  Checkpoints checkpoints() const { return checkpoints_; }

  /// From update `step` on the run has another configuration; the one it had is kept. Throws Error.
  void replace_config(const RunConfig& config, std::int64_t step);

  /// Appends and flushes. Throws Error when the disk is full.
  void add(std::span<const StepRecord> records, const Schedule& schedule, std::int64_t batch_size);
  void add(std::int64_t step, std::int64_t epoch, const Evaluation& evaluation);
  void add(std::span<const ParameterRecord> records);
  void add(std::int64_t step, std::span<const ActivationRecord> records);
  void add(const SharpnessRecord& record);

  /// Has the disk hold what was added. Throws Error.
  void sync();

  void write_summary(const nlohmann::json& summary) const;

 private:
  class AppendFile {
   public:
    AppendFile(std::filesystem::path path, const char* header);  // makes it where it is not there
    void write(const std::string& text);
    void sync();

   private:
    struct Close {
      void operator()(std::FILE* f) const { std::fclose(f); }
    };
    std::filesystem::path path_;
    std::unique_ptr<std::FILE, Close> file_;
  };

  RunFolder(std::filesystem::path folder, FolderLock lock);

  std::filesystem::path path_;
  FolderLock lock_;
  Checkpoints checkpoints_ = Checkpoints::keep;
  AppendFile metrics_;
  AppendFile evaluations_;
  std::optional<AppendFile> layers_;  // made with the first row, as those below
  std::optional<AppendFile> activations_;
  std::optional<AppendFile> sharpness_;
};

}  // namespace preheat
