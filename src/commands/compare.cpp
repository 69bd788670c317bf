#include "experiment/compare.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "commands/commands.h"
#include "commands/options.h"
#include "commands/progress.h"
#include "report/page.h"
#include "train/atomic_file.h"

namespace preheat {
namespace {

struct CompareOptions {
  ConfigOptions config;
  RunOptions run;
};

std::string describe(const RunResult& run) {
  if (run.interrupted) return fmt::format("interrupted after {} updates", run.steps);
  switch (run.outcome) {
    case Outcome::non_finite:
      return fmt::format("not finite at step {}, first in {}", *run.first_non_finite_step,
                         run.first_non_finite_tensor);
    case Outcome::stuck:
      return fmt::format("stuck: loss {}, test accuracy {}", loss_text(*run.final_train_loss),
                         accuracy_text(*run.test_accuracy));
    case Outcome::spiked:
    case Outcome::ok:
      break;
  }
  return fmt::format("{}: loss {}, test accuracy {}", to_string(run.outcome),
                     loss_text(*run.final_train_loss), accuracy_text(*run.test_accuracy));
}

// "85.02 % (84.10 .. 85.90)" over the runs that did not fail: median, least and largest.
std::string accuracy_of_survivors(const ArmResult& arm) {
  std::vector<double> accuracies;
  for (const SeedResult& r : arm.runs) {
    if (!is_failure(r.run.outcome)) accuracies.push_back(*r.run.test_accuracy);
  }
  if (accuracies.empty()) return "-";
  std::ranges::sort(accuracies);
  const std::size_t n = accuracies.size();
  const double median = (accuracies[(n - 1) / 2] + accuracies[n / 2]) / 2;
  return fmt::format("{} ({:.2f} .. {:.2f})", accuracy_text(median), 100 * accuracies.front(),
                     100 * accuracies.back());
}

void print_table(const CompareResult& result) {
  std::size_t width = 3;
  for (const ArmResult& arm : result.arms) width = std::max(width, arm.arm.name.size());
  fmt::print("\n{:<{}}  {:>4}  {:>6}  {:<12}  {:>10}  {:>5}  {}\n", "arm", width, "runs", "failed",
             "95% interval", "not finite", "stuck", "test accuracy of the others");
  for (const ArmResult& arm : result.arms) {
    std::string interval = "-";
    if (!arm.runs.empty()) {
      const Interval ci = arm.failure_interval();
      interval = fmt::format("[{:.2f}, {:.2f}]", ci.lo, ci.hi);
    }
    fmt::print("{:<{}}  {:>4}  {:>6}  {:<12}  {:>10}  {:>5}  {}\n", arm.arm.name, width,
               arm.runs.size(), arm.failures(), interval, arm.count(Outcome::non_finite),
               arm.count(Outcome::stuck), accuracy_of_survivors(arm));
  }
  fmt::print("\n");
  for (const PairResult& p : result.paired) {
    if (p.pairs == 0) continue;
    fmt::print(
        "{} against {}: of {} seeds {} failed only in the first, {} only in the second; "
        "exact McNemar p = {:.2g}\n",
        p.first, p.second, p.pairs, p.only_first_failed, p.only_second_failed, p.mcnemar_p);
  }
}

int run_compare(const CompareOptions& options) {
  const Document document = options.config.document();
  const RunConfig config = read_config(document);
  arm_configs(document);  // what is wrong in any arm is said before anything is loaded or made
  const bool talks = !options.run.quiet;
  const auto backend = options.run.backend();
  const std::filesystem::path folder = options.run.out.empty()
                                           ? default_folder(config.name, "compare")
                                           : std::filesystem::path(options.run.out);
  if (talks) {
    fmt::print("{}: {} arms x {} seeds\n", config.name, config.compare->arms.size(),
               config.compare->seeds.size());
  }
  catch_interrupts();
  std::size_t name_width = 0;
  for (const Arm& arm : config.compare->arms) name_width = std::max(name_width, arm.name.size());
  std::optional<Progress> progress;
  std::string label;
  std::filesystem::path run_folder;
  CompareListener listener;
  listener.on_start = [&](const Arm& arm, std::uint64_t seed, const Trainer& trainer) {
    if (talks && options.run.verbose && label.empty()) {
      const MemoryUse memory = trainer.memory();
      fmt::print("{} parameters; memory: {} network, {} activations, {} workspace\n",
                 trainer.network().parameter_count, memory_text(memory.parameters),
                 memory_text(memory.activations), memory_text(memory.workspace));
    }
    label = fmt::format("seed {:<4} {:<{}}", seed, arm.name, name_width);
    run_folder = folder / arm.name / std::to_string(seed);
    progress.emplace(label, trainer.schedule(), trainer.config().data.batch_size,
                     talks && (on_terminal() || options.run.verbose));
  };
  listener.on_records = [&](std::span<const StepRecord> records) { progress->show(records); };
  listener.on_end = [&](const RunResult& run) {
    progress->clear();
    write_atomically(run_folder / "report.html", run_page(run_folder));
    if (talks) fmt::print("{} {}\n", label, describe(run));
    std::fflush(stdout);
  };
  listener.wants_stop = interrupted;
  const CompareResult result = compare(document, *backend, folder, listener);
  const std::filesystem::path report = folder / "report.html";
  write_atomically(report, compare_page(folder));
  if (talks) {
    print_table(result);
    fmt::print("\n{}\n", report.string());
  }
  if (result.interrupted) {
    fmt::print(stderr, "preheat: interrupted; the runs that had finished are in {}\n",
               folder.string());
    return 1;
  }
  return 0;
}

}  // namespace

void add_compare_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* command = app.add_subcommand(
      "compare", "The arms of one experiment over seeds: who fails, and how often");
  options->config.add_to(*command);
  options->run.add_to(*command);
  command->callback([options, &exit_code] { exit_code = run_compare(*options); });
}

}  // namespace preheat
