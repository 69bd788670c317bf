#include "schedule/schedule.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>

#include "commands/commands.h"
#include "commands/options.h"
#include "data/dataset.h"
#include "report/line_plot.h"
#include "train/atomic_file.h"

namespace preheat {
namespace {

struct ScheduleOptions {
  ConfigOptions config;
  std::string csv;
  std::string svg;
};

// Hands the table to `write` in pieces: a run may be longer than memory.
void write_csv(const Schedule& schedule, const std::function<void(const std::string&)>& write) {
  constexpr std::size_t piece = 1 << 16;
  std::string text = "step,epoch,phase,lr\n";
  for (std::int64_t step = 0; step < schedule.run.steps; ++step) {
    text += fmt::format("{},{},{},{:.17g}\n", step, step / schedule.run.steps_per_epoch,
                        phase_name(schedule, step), lr_at(schedule.lr, step));
    if (text.size() >= piece) {
      write(text);
      text.clear();
    }
  }
  write(text);
}

// Every update of a short run; of a long one evenly spaced updates and the ends of every phase.
std::vector<std::int64_t> drawn_steps(const Schedule& schedule) {
  constexpr std::int64_t most = 4000;
  const std::int64_t stride = std::max<std::int64_t>(1, schedule.run.steps / most);
  std::vector<std::int64_t> steps;
  for (std::int64_t step = 0; step < schedule.run.steps; step += stride) steps.push_back(step);
  for (int i = 0; i < schedule.lr.phase_count; ++i) {
    const Phase& phase = schedule.lr.phases[i];
    steps.push_back(phase.begin);
    steps.push_back(phase.begin + phase.length - 1);
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

LinePlot plot_of(const RunConfig& config, const Schedule& schedule) {
  LinePlot plot;
  plot.title = config.name + ": learning rate";
  plot.x_label = "update";
  plot.y_label = "learning rate";
  Curve curve;
  curve.label = "";
  for (const std::int64_t step : drawn_steps(schedule)) {
    curve.x.push_back(static_cast<double>(step));
    curve.y.push_back(lr_at(schedule.lr, step));
  }
  plot.curves.push_back(std::move(curve));
  for (int i = 0; i < schedule.lr.phase_count; ++i) {
    const Phase& phase = schedule.lr.phases[i];
    plot.bands.push_back({static_cast<double>(phase.begin),
                          static_cast<double>(phase.begin + phase.length),
                          schedule.phase_names[i]});
  }
  return plot;
}

void print_plan(const RunConfig& config, const Schedule& schedule) {
  fmt::print("{}: {} updates, {} an epoch, base learning rate {}\n\n", config.name,
             schedule.run.steps, schedule.run.steps_per_epoch, lr_text(config.schedule.base_lr));
  std::size_t width = 5;
  for (const std::string& name : schedule.phase_names) width = std::max(width, name.size());
  fmt::print("{:<{}}  {:<11}  {:>17}  {:>8}  {:>8}\n", "phase", width, "shape", "updates", "from",
             "to");
  for (int i = 0; i < schedule.lr.phase_count; ++i) {
    const Phase& phase = schedule.lr.phases[i];
    const std::int64_t last = phase.begin + phase.length - 1;
    fmt::print("{:<{}}  {:<11}  {:>17}  {:>8}  {:>8}\n", schedule.phase_names[i], width,
               shape_facts[static_cast<int>(phase.shape)].name,
               fmt::format("{} .. {}", phase.begin, last), lr_text(lr_at(schedule.lr, phase.begin)),
               lr_text(lr_at(schedule.lr, last)));
  }
  fmt::print("\n{}", to_text(plot_of(config, schedule), 78, 14, on_terminal()));
}

void schedule_command(const ScheduleOptions& options) {
  const RunConfig config = read_config(options.config.document());
  const Schedule schedule = resolve_schedule(config, run_length(config, steps_per_epoch(config)));
  if (!options.svg.empty()) write_atomically(options.svg, to_svg({plot_of(config, schedule)}));
  if (options.csv == "-") {  // standard output is the table and nothing else
    write_csv(schedule, [](const std::string& text) { fmt::print("{}", text); });
    return;
  }
  if (!options.csv.empty()) {
    AtomicFile file(options.csv);
    write_csv(schedule, [&](const std::string& text) { file.write(text); });
    file.commit();
  }
  print_plan(config, schedule);
}

}  // namespace

void add_schedule_command(CLI::App& app) {
  auto options = std::make_shared<ScheduleOptions>();
  CLI::App* command =
      app.add_subcommand("schedule", "The learning rate of every update, without training");
  options->config.add_to(*command);
  command->add_option("--csv", options->csv, "write step,epoch,phase,lr; - for standard output")
      ->type_name("FILE");
  command->add_option("--svg", options->svg, "draw it")->type_name("FILE");
  command->callback([options] { schedule_command(*options); });
}

}  // namespace preheat
