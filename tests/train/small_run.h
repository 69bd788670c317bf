// A very short run in a folder, and functions to interrupt, resume and compare it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "config/error.h"
#include "settings.h"
#include "shared_backend.h"
#include "temporary_folder.h"
#include "train/trainer.h"

namespace preheat {

// 10 updates per epoch, a batch norm and a pooling among the layers.
inline constexpr const char* tiny = R"(
name: tiny
data: {dataset: synthetic, batch_size: 32, train_limit: 335}
model:
  layers:
    - conv: {out: 4}
    - max_pool
    - conv: {out: 6, stride: 2, batch_norm: true}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3}
schedule:
  base_lr: 0.05
  warmup: {length: 8 steps}
  decay: {shape: cosine, final_factor: 0.1}
train: {length: 30 steps, eval_every: 15 steps, checkpoint_every: 12 steps}
)";

inline RunConfig config_of(const std::vector<std::string>& settings = {}) {
  return read_config(with_settings(parse_document(tiny, "tiny.yaml"), settings));
}

inline const std::vector<std::string> augmented = {"data.augment.crop_padding=2",
                                                   "data.augment.flip=true"};

inline Trainer trainer_of(const RunConfig& config) {
  static std::map<std::pair<std::int64_t, std::int64_t>, ResidentData> loaded;
  const std::pair split(config.data.train_limit.value_or(0), config.data.validation.value_or(0));
  if (!loaded.contains(split)) loaded[split] = load_data(config.data, shared_backend());
  return Trainer(config, shared_backend(), loaded[split]);
}

inline RunResult run_into(const std::filesystem::path& path, const RunConfig& config,
                          const RunListener& listener = {}) {
  Trainer trainer = trainer_of(config);
  RunFolder folder(path, config);
  return trainer.run(listener, &folder);
}

inline RunResult resume_in(const std::filesystem::path& path, const RunConfig& config,
                           bool new_schedule = false, const RunListener& listener = {}) {
  Trainer trainer = trainer_of(config);
  RunFolder folder = trainer.resume(path, new_schedule).folder;
  return trainer.run(listener, &folder);
}

inline std::string resume_error(const std::filesystem::path& path, const RunConfig& config,
                                bool new_schedule = false) {
  try {
    trainer_of(config).resume(path, new_schedule);
  } catch (const std::runtime_error& error) {  // Error or ConfigError
    return error.what();
  }
  return "";
}

inline void copy_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

// Asks to stop as soon as `steps` updates are done.
struct StopAfter {
  explicit StopAfter(std::int64_t steps) {
    listener.on_records = [this](std::span<const StepRecord> r) { done = r.back().step + 1; };
    listener.wants_stop = [this, steps] { return done >= steps; };
  }
  std::int64_t done = 0;
  RunListener listener;
};

/// A run that is interrupted once it has done so many updates.
inline RunResult run_until(std::int64_t steps, const std::filesystem::path& path,
                           const RunConfig& config) {
  StopAfter stopper(steps);
  return run_into(path, config, stopper.listener);
}

/// What a crash leaves of a run: its folder as it is on disk once update `step` is recorded.
inline void crash_after(std::int64_t step, const std::filesystem::path& path,
                        const RunConfig& config) {
  const std::filesystem::path going_on = path.string() + "-going-on";
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> r) {
    if (r.back().step >= step && !std::filesystem::exists(path)) copy_folder(going_on, path);
  };
  run_into(going_on, config, listener);
  std::filesystem::remove_all(going_on);
}

inline std::vector<std::vector<std::string>> rows_of(const std::filesystem::path& path) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream file(bytes_of(path));
  for (std::string line; std::getline(file, line);) {
    std::istringstream text(line);
    rows.emplace_back();
    for (std::string field; std::getline(text, field, ',');) rows.back().push_back(field);
  }
  return rows;
}

inline void expect_same_run(const std::filesystem::path& a, const std::filesystem::path& b) {
  for (const char* file :
       {"metrics.csv", "eval.csv", "layers.csv", "activations.csv", "sharpness.csv",
        "gradients.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt", "config.yaml"}) {
    EXPECT_EQ(std::filesystem::exists(a / file), std::filesystem::exists(b / file)) << file;
    EXPECT_TRUE(bytes_of(a / file) == bytes_of(b / file)) << file << " differs";
  }
  const auto first = nlohmann::json::parse(bytes_of(a / "summary.json"));
  const auto second = nlohmann::json::parse(bytes_of(b / "summary.json"));
  for (const char* key :
       {"outcome", "steps", "final_train_loss", "final_train_accuracy", "test_loss",
        "test_accuracy", "best_test_accuracy", "best_step", "interrupted", "fingerprint",
        "gate_opened_at", "start_lr", "initial_sharpness", "last_sharpness"}) {
    EXPECT_EQ(first.at(key), second.at(key)) << key;
  }
}

}  // namespace preheat
