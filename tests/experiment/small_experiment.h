// An experiment of very short runs, and checks of its folder.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "experiment/runs.h"
#include "shared_backend.h"
#include "temporary_folder.h"

namespace preheat {

inline constexpr const char* small_run = R"(
name: small
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model:
  layers: [{conv: {out: 4}}, {max_pool: {kernel: 4}}, {linear: {out: 10}}]
schedule:
  base_lr: 0.1
  warmup: {length: 4 steps}
  decay: {shape: constant}
train: {length: 60 steps, eval_every: 60 steps}
)";

/// Counts the runs that were made and those that were read; asks for a stop once more than
/// `stop_after` runs have started.
struct Counter {
  Counter() {
    listener.on_start = [this](const std::string&, const Trainer&) { ++started; };
    listener.on_end = [this](const std::string&, const RunResult& run, bool was_read) {
      if (!run.interrupted) ++(was_read ? read : ran);
    };
    listener.wants_stop = [this] { return started > stop_after; };
  }
  std::atomic<int> started = 0;
  int ran = 0;
  int read = 0;
  int stop_after = 1 << 20;
  RunsListener listener;
};

// The CPU's backend, but with a given number of concurrent replicas.
class AtATime : public ForwardingBackend {
 public:
  explicit AtATime(int replicas) : replicas_(replicas) {}
  int concurrent_replicas(int) const override { return replicas_; }

 private:
  int replicas_;
};

/// On which two runs wait for each other before their first update, so that runs that may overlap
/// do, however short they are.
class Meetings : public AtATime {
 public:
  /// `name_of` gives the meeting of a run, "" if it waits for none. The first run of a meeting
  /// waits for the second, but not longer than a minute.
  Meetings(int replicas, std::function<std::string(const ReplicaOptions&)> name_of)
      : AtATime(replicas), name_of_(std::move(name_of)) {}

  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    const std::string name = name_of_(options);
    if (!name.empty()) wait_for_another(name);
    return AtATime::compile(network, options, initial, std::move(train));
  }

  /// Whether two runs of this meeting were there at the same time.
  bool met(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto meeting = meetings_.find(name);
    return meeting != meetings_.end() && meeting->second.met;
  }

 private:
  struct Meeting {
    bool is_waiting = false;
    bool met = false;
    bool missed = false;
  };

  void wait_for_another(const std::string& name) {
    std::unique_lock lock(mutex_);
    Meeting& meeting = meetings_[name];
    if (meeting.met || meeting.missed) return;
    if (meeting.is_waiting) {
      meeting.met = true;
      arrived_.notify_all();
      return;
    }
    meeting.is_waiting = true;
    meeting.missed = !arrived_.wait_for(lock, std::chrono::minutes(1), [&] { return meeting.met; });
  }

  std::function<std::string(const ReplicaOptions&)> name_of_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::string, Meeting> meetings_;
};

inline void expect_as_in_summary(const nlohmann::json& run, const std::filesystem::path& folder) {
  const auto summary = nlohmann::json::parse(bytes_of(folder / "summary.json"));
  for (const char* key :
       {"outcome", "first_non_finite_step", "final_train_loss", "test_accuracy"}) {
    EXPECT_EQ(run.at(key), summary.at(key)) << folder << " " << key;
  }
}

inline void expect_no_checkpoints(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    EXPECT_NE(entry.path().filename(), "checkpoints") << entry.path();
    EXPECT_NE(entry.path().extension(), ".ckpt") << entry.path();
  }
}

}  // namespace preheat
