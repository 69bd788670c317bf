#include "experiment/sweep.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>

#include "commands/commands.h"
#include "commands/experiments.h"
#include "config/counted.h"
#include "config/experiment_values.h"
#include "experiment/findings.h"
#include "experiment/statistics.h"

namespace preheat {
namespace {

// Failed runs out of n, "3/3", with "!" if any of them was not finite; "." for no failure.
std::string failures_cell(const ArmResult& cell) {
  if (cell.runs.empty()) return "-";
  const std::int64_t failures = cell.failures();
  if (failures == 0) return ".";
  return fmt::format("{}/{}{}", failures, cell.runs.size(),
                     cell.count(Outcome::non_finite) > 0 ? "!" : "");
}

// The median accuracy of the runs that did not fail, "91.23 %".
std::string accuracy_cell(const ArmResult& cell, std::optional<double> RunResult::*accuracy) {
  const std::vector<double> accuracies = cell.of_survivors(accuracy);
  return accuracies.empty() ? "-" : accuracy_text(median(accuracies));
}

// The last axis down, the first across; one table per combination of the further axes. `what` is in
// the cells, as text_of(cell) says it; `signs` explains it.
void print_map(const SweepResult& result, const std::string& what, const std::string& signs,
               const std::function<std::string(const ArmResult&)>& text_of) {
  const std::size_t columns = result.axes.front().values.size();
  const std::size_t per_column = result.cells.size() / columns;
  const std::size_t rows = result.axes.size() > 1 ? result.axes.back().values.size() : 1;
  const auto label = [&](std::size_t at) {
    const std::vector<Override>& point = result.cells[at].arm.overrides;
    std::string text;
    for (std::size_t i = 1; i < point.size(); ++i) {
      text += (i > 1 ? ", " : "") + to_flow_text(point[i].value);
    }
    return text;
  };
  std::size_t width = result.axes.back().key.size();
  for (std::size_t i = 0; i < per_column; ++i) width = std::max(width, label(i).size());
  fmt::print("\n{} by {} (across){}; {}\n\n", what, result.axes.front().key,
             result.axes.size() > 1 ? " and " + result.axes.back().key + " (down)" : "", signs);
  std::vector<std::string> heads;
  std::size_t column_width = 7;
  for (const Node& value : result.axes.front().values) {
    heads.push_back(to_flow_text(value));
    column_width = std::max(column_width, heads.back().size());
  }
  fmt::print("{:<{}}", "", width);
  for (const std::string& head : heads) fmt::print("  {:>{}}", head, column_width);
  fmt::print("\n");
  for (std::size_t i = 0; i < per_column; ++i) {
    if (i > 0 && i % rows == 0) fmt::print("\n");
    fmt::print("{:<{}}", label(i), width);
    for (std::size_t c = 0; c < columns; ++c) {
      fmt::print("  {:>{}}", text_of(result.cells[c * per_column + i]), column_width);
    }
    fmt::print("\n");
  }
}

// "[5.00e-03, 2.00e-02]", with - for an end outside of the grid; "-" for none.
std::string interval_text(const std::optional<RateInterval>& interval) {
  if (!interval) return "-";
  return fmt::format("[{}, {}]", rate_or_dash(interval->lo), rate_or_dash(interval->hi));
}

void print_boundaries(const SweepResult& result) {
  if (result.boundaries.empty()) return;
  const bool has_intervals = std::ranges::any_of(
      result.boundaries, [](const Boundary& b) { return b.interval.has_value(); });
  fmt::print(
      "\nthe boundary along the base rate (a cell fails if half of its runs do; those that "
      "are stuck below all rates that train are only too slow), and at 95 % where it may lie, by a "
      "bootstrap over seeds and the step of the grid{}\n\n",
      has_intervals ? "" : few_text(std::ssize(result.cells.front().runs)));
  std::vector<std::string> names;
  std::size_t width = 5;
  for (const Boundary& b : result.boundaries) {
    std::string name;
    for (const Override& o : b.point) name += (name.empty() ? "" : ", ") + to_flow_text(o.value);
    width = std::max(width, name.size());
    names.push_back(name);
  }
  fmt::print("{:<{}}  {:>5}  {:>8}  {:>8}  {:>10}  {:>11}  {}\n", "", width, "runs", "trains",
             "fails", "violations", "sensitivity", "95 % interval");
  for (std::size_t i = 0; i < names.size(); ++i) {
    const Boundary& b = result.boundaries[i];
    fmt::print("{:<{}}  {:>5}  {:>8}  {:>8}  {:>10}  {:>11}  {}\n", names[i], width, b.runs,
               rate_or_dash(b.largest_training), rate_or_dash(b.smallest_failing), b.violations,
               b.sensitivity ? fmt::format("{:.4f}", *b.sensitivity) : "-",
               interval_text(b.interval));
  }
}

int run_sweep(const ExperimentOptions& options) {
  const auto run = [&](const ExperimentStart& start) {
    if (!options.run.quiet && start.config.sweep) {
      const std::int64_t cells = cells_in(start.config.sweep->axes);
      const std::int64_t seeds = std::ssize(start.config.sweep->seeds);
      fmt::print("{}: {} x {}, {}\n", start.config.name, counted(cells, "cell"),
                 counted(seeds, "seed"), counted(cells * seeds, "run"));
    }
    return sweep(start.document, start.backend, start.folder, start.resume, start.listener);
  };
  const auto print = [&](const SweepResult& result) {
    print_map(result, "failed runs", ". none, ! not finite among them", failures_cell);
    const auto print_accuracies = [&](const char* set, std::optional<double> RunResult::*accuracy) {
      print_map(result, fmt::format("median {} accuracy of the runs that did not fail", set),
                "- there are none",
                [&](const ArmResult& cell) { return accuracy_cell(cell, accuracy); });
    };
    if (options.run.verbose) {
      if (result.validated()) print_accuracies("validation", &RunResult::validation_accuracy);
      print_accuracies("test", &RunResult::test_accuracy);
    }
    print_boundaries(result);
  };
  return run_experiment(options, "sweep", run, print);
}

}  // namespace

void add_sweep_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ExperimentOptions>();
  CLI::App* command =
      app.add_subcommand("sweep", "Train a grid over any keys and seeds: the stability map");
  options->add_to(*command, "; maps of the accuracies");
  command->callback([options, &exit_code] { exit_code = run_sweep(*options); });
}

}  // namespace preheat
