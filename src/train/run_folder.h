// A run is a folder that records everything about it.
//
//   config.yaml            resolved; reproduces the run
//   config-before-N.yaml   the configuration before update N, if the schedule was changed there
//   metrics.csv            one row per update:
//       step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm
//   eval.csv               one row per evaluation: step,epoch,test_loss,test_accuracy; with
//                          data.validation also validation_loss,validation_accuracy
//   layers.csv             with diagnostics.layers_every, one row per parameter at each update
//                          examined; train/diagnostics.h explains the columns:
//       step,parameter,weight_norm,velocity_norm,update_norm,angle,distance,stable_rank
//   activations.csv        likewise, one row per op, from the update's own forward pass, but for
//                          change, which train/diagnostics.h explains:
//       step,layer,largest,dead,change
//   sharpness.csv          with diagnostics.sharpness, one row per measurement; train/sharpness.h
//                          explains the columns; nan is what was not checked:
//       step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,random_direction
//   gradients.csv          with diagnostics.gradient_noise, one row per parameter at each
//                          measurement, then one of the whole network, called all;
//                          train/gradient_noise.h explains the columns:
//       step,parameter,signal,noise,noise_scale
//   summary.json           how it ended; not there while it runs
//   report.html            a page with all of it
//   checkpoints/last.ckpt  best.ckpt
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "schedule/schedule.h"
#include "train/diagnostics.h"
#include "train/outcome.h"

namespace preheat {

/// A new folder runs/<name>/<timestamp>-<suffix>, with the local time to the second, and a number
/// added if that name is taken. It is chosen by creating it, so that no two processes get the same.
/// The destructor removes it, and the folders above that were created for it, if it is still empty:
/// what fails before it begins leaves nothing.
class DefaultFolder {
 public:
  /// Throws Error if it cannot be created.
  DefaultFolder(const std::string& name, const std::string& suffix);
  DefaultFolder(const DefaultFolder&) = delete;
  DefaultFolder& operator=(const DefaultFolder&) = delete;
  ~DefaultFolder();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::vector<std::filesystem::path> created_;  // parents first
};

/// Creates the folder of an experiment or a run. Throws Error if it cannot be created, or exists
/// and is not empty.
void make_folder(const std::filesystem::path& folder);

/// The configuration of the run or the experiment in `folder`. Throws Error, not ConfigError: if it
/// is wrong, the file is damaged, not the user's input.
RunConfig config_in(const std::filesystem::path& folder);

/// Keeps other processes from writing into a folder during its lifetime.
class FolderLock {
 public:
  /// Throws Error if another process holds the lock. On a file system without locks it does
  /// nothing.
  explicit FolderLock(const std::filesystem::path& folder);
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock();

 private:
  int file_;
};

/// Whether a run writes a file or a folder of this name, or a temporary file of such a name.
bool is_of_run(std::string_view name);

/// One evaluation of a run: on the test set and, with data.validation, on the validation set.
struct Evaluated {
  Evaluation test;
  std::optional<Evaluation> validation;
};

/// Whether a run writes checkpoints.
enum class Checkpoints { keep, drop };

class RunFolder {
 public:
  /// Creates `folder` and writes the configuration before any other file. Throws Error.
  RunFolder(const std::filesystem::path& folder, const RunConfig& config,
            Checkpoints checkpoints = Checkpoints::keep);

  /// What a resumed run's folder records of the updates before `step`.
  struct History {
    LossHistory history;
    std::optional<double> best_test_accuracy;  // those of the evaluation that RunResult calls best
    std::optional<double> best_validation_accuracy;
    std::optional<std::int64_t> best_step;
    std::optional<std::int64_t> last_evaluated;  // the step of the last evaluation
    std::optional<double> initial_sharpness;     // at the weights before update 0
    std::optional<double> last_sharpness;
  };

  /// Opens the folder of a run of `config` that resumes at `step`, and drops the rows of later
  /// updates and the summary. `lock` is of that folder, taken before anything in it was read.
  /// Throws Error if metrics.csv lacks a row before `step`, if there is no eval.csv, if a row
  /// before `step` or, but for metrics.csv, the first after them is damaged, or if eval.csv has no
  /// validation columns where the run has a validation set or has them where it has none; then rows
  /// and summary are as they were. That another file lacks its last rows cannot be seen.
  static RunFolder reopen(std::filesystem::path folder, FolderLock lock, const RunConfig& config,
                          std::int64_t step, History& past);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoint(const std::string& which) const;  // "last", "best"
  Checkpoints checkpoints() const { return checkpoints_; }

  /// Writes the configuration if its file has another, which may differ in keys that do not change
  /// the run's numbers. Throws Error.
  void update_config(const RunConfig& config);

  /// Replaces the configuration from update `step` on and keeps the previous one as
  /// config-before-N.yaml. Throws Error.
  void replace_config(const RunConfig& config, std::int64_t step);

  /// Append rows and flush. Throw Error, for example if the disk is full.
  void add(std::span<const StepRecord> records, const Schedule& schedule, std::int64_t batch_size);
  void add(std::int64_t step, std::int64_t epoch, const Evaluated& evaluated);
  void add(std::span<const ParameterRecord> records);
  void add(std::int64_t step, std::span<const ActivationRecord> records,
           std::span<const double> changes);  // by record
  void add(const SharpnessRecord& record);
  void add(std::span<const GradientRecord> records);

  /// Syncs all added rows to disk. Throws Error.
  void sync();

  void write_summary(const nlohmann::json& summary) const;

 private:
  class AppendFile {
   public:
    AppendFile(std::filesystem::path path, const char* header);  // creates a missing file
    void write(const std::string& text);
    void sync();

   private:
    [[noreturn]] void fail() const;

    struct Close {
      void operator()(std::FILE* f) const { std::fclose(f); }
    };
    std::filesystem::path path_;
    std::unique_ptr<std::FILE, Close> file_;
  };

  RunFolder(std::filesystem::path folder, const RunConfig& config, FolderLock lock);

  std::filesystem::path path_;
  FolderLock lock_;
  Checkpoints checkpoints_ = Checkpoints::keep;
  AppendFile metrics_;
  AppendFile evaluations_;
  std::optional<AppendFile> layers_;  // created with its first row, like those below
  std::optional<AppendFile> activations_;
  std::optional<AppendFile> sharpness_;
  std::optional<AppendFile> gradients_;
};

}  // namespace preheat
