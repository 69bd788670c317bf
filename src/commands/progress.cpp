#include "commands/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "commands/options.h"
#include "schedule/plan.h"

namespace preheat {

void draw_bar(double done, const std::string& text) {
  // A line that wrapped could not be drawn over.
  const auto columns = static_cast<std::int64_t>(terminal_columns()) - 1;
  const std::int64_t width =
      std::clamp<std::int64_t>(columns - static_cast<std::int64_t>(text.size()) - 3, 0, 20);
  const auto filled = static_cast<std::int64_t>(static_cast<double>(width) * done);
  const std::string bar =
      width == 0 ? "" : fmt::format("[{:#>{}}{:->{}}] ", "", filled, "", width - filled);
  fmt::print("\r\033[K{}", (bar + text).substr(0, columns));
}

void print_line(const std::string& line) {
  fmt::print("{}{}\n", on_terminal() ? "\r\033[K" : "", line);
  std::fflush(stdout);
}

std::string step_text(const Schedule& schedule, std::int64_t step,
                      const std::optional<std::int64_t>& gate_opened_at) {
  const std::int64_t gate = gate_opened_at.value_or(-1);
  return fmt::format("step {} (learning rate {}, phase {})", step,
                     lr_text(lr_at(schedule.lr, step, gate)), phase_name(schedule, step, gate));
}

Progress::Progress(std::string label, const Schedule& schedule, std::int64_t batch_size,
                   bool enabled)
    : label_(std::move(label)),
      schedule_(schedule),
      batch_size_(batch_size),
      enabled_(enabled),
      terminal_(on_terminal()) {}

void Progress::note(std::span<const StepRecord> records) {
  if (records.empty()) return;
  if (first_step_ < 0) first_step_ = records.front().step;
  done_ = static_cast<double>(records.back().step + 1) / static_cast<double>(schedule_.run.steps);
}

void Progress::show(std::span<const StepRecord> records) {
  note(records);
  if (!enabled_ || records.empty()) return;
  const StepRecord& last = records.back();
  const std::int64_t total = schedule_.run.steps;
  const std::int64_t done = last.step + 1;
  const std::int64_t tenth = 10 * done / total;
  if (!terminal_ && tenth == tenth_ && last.finite) return;
  tenth_ = tenth;

  const double seconds = seconds_since(start_);
  const double rate = static_cast<double>(done - first_step_) / std::max(seconds, 1e-9);
  const std::string line =
      fmt::format("{} {:>3}%  {}/{}  loss {}  lr {} ({})  {:.0f} images/s  {} left", label_,
                  100 * done / total, done, total, loss_text(last.loss), lr_text(last.lr),
                  schedule_.phase_names[last.phase], rate * static_cast<double>(batch_size_),
                  duration_text(static_cast<double>(total - done) / rate));
  if (!terminal_) {
    fmt::print("{}\n", line);
  } else {
    draw_bar(done_, line);
    drawn_ = true;
  }
  std::fflush(stdout);
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stdout);  // does not throw, for the destructor
  std::fflush(stdout);
  drawn_ = false;
}

}  // namespace preheat
