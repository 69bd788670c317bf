// The progress of a run: a bar that redraws itself on a terminal, plain lines in a pipe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "backend/backend.h"
#include "config/clock.h"
#include "schedule/schedule.h"

namespace preheat {

/// Draws over the terminal's last line: a bar for the share `done`, as long as the text leaves room
/// for, and the text.
void draw_bar(double done, const std::string& text);

/// Prints a line, on a terminal over the bar.
void print_line(const std::string& line);

/// An update with what the schedule says of it: "step 7 (learning rate 1.50e-01, phase decay)".
/// `gate_opened_at` as in lr_at.
std::string step_text(const Schedule& schedule, std::int64_t step,
                      const std::optional<std::int64_t>& gate_opened_at);

/// The progress of one run.
class Progress {
 public:
  /// `label` starts the line. Silent unless `enabled`.
  Progress(std::string label, const Schedule& schedule, std::int64_t batch_size, bool enabled);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::span<const StepRecord> records);
  void note(std::span<const StepRecord> records);  // as show(), but drawn later
  void clear();                                    // before other lines are printed

  const Schedule& schedule() const { return schedule_; }

  /// The share of the run that has been shown or noted.
  double done() const { return done_; }

 private:
  std::string label_;
  const Schedule& schedule_;
  std::int64_t batch_size_;
  bool enabled_;
  bool terminal_;
  bool drawn_ = false;
  std::int64_t tenth_ = 0;  // in a pipe: tenths of the run reported so far
  std::int64_t first_step_ = -1;
  double done_ = 0;
  Clock::time_point start_ = Clock::now();
};

}  // namespace preheat
