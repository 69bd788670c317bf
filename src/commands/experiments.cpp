#include "commands/experiments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "config/counted.h"
#include "schedule/plan.h"

namespace preheat {

void ExperimentOptions::add_to(CLI::App& app, const std::string& more) {
  config.add_to(app, false);
  run.add_to(app, "memory per run, and every run's progress even if the output is piped" + more);
  auto* option = app.add_option("--resume", resume,
                                "continue the experiment in DIR under its own configuration unless "
                                "CONFIG is given; finished runs are not repeated")
                     ->type_name("DIR");
  app.get_option("--out")->excludes(option);
}

std::string outcome_text(const RunResult& run, const Schedule* schedule) {
  if (run.interrupted) return "interrupted after " + counted(run.steps, "update");
  if (run.outcome == Outcome::non_finite) {
    const std::int64_t step = *run.first_non_finite_step;
    return fmt::format("not finite at {}, first in {}",
                       schedule != nullptr ? step_text(*schedule, step, run.gate_opened_at)
                                           : fmt::format("step {}", step),
                       run.first_non_finite_tensor);
  }
  return fmt::format(
      "{}: loss {}, test accuracy {}{}", to_string(run.outcome), loss_text(*run.final_train_loss),
      accuracy_text(*run.test_accuracy),
      run.validation_accuracy ? ", validation " + accuracy_text(*run.validation_accuracy) : "");
}

std::string rate_or_dash(const std::optional<double>& rate) {
  return rate ? lr_text(*rate) : "-";
}

RunsProgress::RunsProgress(const RunOptions& options) : options_(options), start_(Clock::now()) {
  listener_.on_plan = [this](std::int64_t count) { planned_ = count; };
  listener_.on_start = [this](const std::string& label, const Trainer& trainer) {
    if (options_.verbose && !memory_told_) {
      fmt::print("{} parameters; memory: {}\n", trainer.network().parameter_count,
                 memory_text(trainer));
    }
    memory_told_ = true;
    running_.try_emplace(label, label, trainer.schedule(), trainer.config().data.batch_size,
                         !options_.quiet && (on_terminal() || options_.verbose));
  };
  listener_.on_records = [this](const std::string& label, std::span<const StepRecord> records) {
    Progress& one = running_.at(label);
    if (running_.size() == 1 || !on_terminal()) {
      one.show(records);
    } else {
      one.note(records);
      if (!options_.quiet) draw_together();
    }
  };
  listener_.on_end = [this](const std::string& label, const RunResult& run, bool was_read) {
    const auto running = running_.find(label);
    const bool was_made = running != running_.end();
    const std::string outcome = outcome_text(run, was_made ? &running->second.schedule() : nullptr);
    if (was_made) running_.erase(running);
    ++ended_;
    trained_ += was_read ? 0 : 1;
    if (!run.interrupted) ++environments_[run.environment];
    if (options_.quiet) return;
    print_line(fmt::format("{} {}{}", label, outcome, was_read ? " (had ended before)" : ""));
  };
  listener_.wants_stop = interrupted;
}

std::string RunsProgress::environments_note() const {
  if (environments_.size() < 2) return "";
  std::string text =
      "\nnote: the runs were made in different environments, and differ by that too:\n";
  for (const auto& [environment, runs] : environments_) {
    text += fmt::format("  {} of them: {}\n", runs, environment.empty() ? "unknown" : environment);
  }
  return text;
}

void RunsProgress::draw_together() {
  // Many small runs report far more often than anyone can read.
  if (seconds_since(drawn_) < 0.1) return;
  drawn_ = Clock::now();
  double done = 0;
  for (const auto& [label, run] : running_) done += run.done();
  std::string text = fmt::format("{} runs side by side, {} ended", running_.size(), ended_);
  double share = done / static_cast<double>(running_.size());
  if (planned_ > 0) {
    const double seconds = seconds_since(start_);
    const double left = static_cast<double>(planned_ - ended_) - done;
    share = 1 - left / static_cast<double>(planned_);
    text += fmt::format(" of {}  {} left", planned_,
                        duration_text(seconds * left / std::max(trained_ + done, 1e-9)));
  }
  draw_bar(share, fmt::format("{:>3.0f}%  {}", 100 * share, text));
  std::fflush(stdout);
}

void print_claims(const std::vector<ClaimResult>& claims) {
  if (!claims.empty()) fmt::print("\n");
  for (const ClaimResult& c : claims) {
    fmt::print("{:<12}  {}\n{:<12}  {}\n", to_string(c.verdict), c.text, "", c.evidence);
  }
}

int experiment_exit_code(bool interrupted, const std::filesystem::path& folder) {
  if (!interrupted) return 0;
  fmt::print(stderr, "preheat: interrupted; continue with --resume {}\n", folder.string());
  return 1;
}

}  // namespace preheat
