// A line that says how far a run is: a bar that redraws itself on a terminal, plain lines in a
// pipe.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "backend/backend.h"
#include "schedule/schedule.h"

namespace preheat {

class Progress {
 public:
  /// `label` leads the line. Silent where `enabled` is false.
  Progress(std::string label, const Schedule& schedule, std::int64_t batch_size, bool enabled);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::span<const StepRecord> records);
  void clear();  // before other lines are printed

 private:
  std::string label_;
  const Schedule& schedule_;
  std::int64_t batch_size_;
  bool enabled_;
  bool terminal_;
  bool drawn_ = false;
  std::int64_t tenth_ = 0;  // in a pipe: tenths of the run that were reported
  std::int64_t first_step_ = -1;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace preheat
