#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <optional>

#include "commands/commands.h"
#include "commands/options.h"
#include "commands/progress.h"
#include "config/counted.h"
#include "experiment/runs.h"
#include "report/report.h"
#include "schedule/plan.h"
#include "train/fingerprint.h"
#include "train/summary.h"
#include "train/trainer.h"

namespace preheat {
namespace {

struct TrainOptions {
  ConfigOptions config;
  RunOptions run;
  std::optional<std::string> seed;
  std::string resume;
  bool new_schedule = false;
};

void print_start(const Trainer& trainer, const ResidentData& data, bool verbose) {
  const Network& network = trainer.network();
  const RunLength& run = trainer.schedule().run;
  fmt::print(
      "{}: {} parameters, T = {} updates of {} images{} ({} an epoch){}, base learning rate {}\n",
      trainer.config().name, network.parameter_count, run.steps, trainer.config().data.batch_size,
      passes_text(trainer.config().data), run.steps_per_epoch, warmup_text(trainer.schedule()),
      lr_text(trainer.schedule().base_lr));
  for (const std::string& remark : remarks(trainer.schedule())) fmt::print("note: {}\n", remark);
  fmt::print("memory: {}, {} data\n", memory_text(trainer), memory_text(data.bytes));
  if (!verbose) return;
  fmt::print("data: {}\n", data.origin);
  for (const Op& op : network.ops) {
    fmt::print("  {:<24} {:>3}x{}x{}\n", op.name, op.out.height, op.out.width, op.out.channels);
  }
  fmt::print("parameters:\n");
  for (const Parameter& p : network.parameters) {
    fmt::print("  {:<40} {}\n", p.name, fmt::join(p.shape, "x"));
  }
}

void row(const char* name, const std::string& value) {
  fmt::print("{:<16}{}\n", name, value);
}

void print_end(const RunResult& result) {
  fmt::print("\n");
  row("outcome", result.interrupted ? "interrupted" : std::string(to_string(result.outcome)));
  row("updates", std::to_string(result.steps));
  if (result.first_non_finite_step) {
    row("not finite", fmt::format("at step {}, first in {}", *result.first_non_finite_step,
                                  result.first_non_finite_tensor));
  }
  if (result.gate_opened_at) {
    row("warmup", fmt::format("ended early, before update {}", *result.gate_opened_at));
  }
  if (result.final_train_loss) {
    row("train loss", loss_text(*result.final_train_loss));
    row("train accuracy", accuracy_text(*result.final_train_accuracy));
  }
  const bool validated = result.best_by == ChosenBy::validation;
  if (result.test_accuracy) {
    if (validated) row("validation", accuracy_text(*result.validation_accuracy));
    row("test accuracy", accuracy_text(*result.test_accuracy));
    row("best", fmt::format("{} after {}, chosen by {}", accuracy_text(*result.best_test_accuracy),
                            counted(*result.best_step, "update"),
                            validated ? fmt::format("validation accuracy {}",
                                                    accuracy_text(*result.best_validation_accuracy))
                                      : "test accuracy"));
  }
  row("time", fmt::format("{:.1f} s, {:.0f} images/s", result.seconds, result.images_per_second));
}

// The exit code, after saying on standard error how a run ended that did not complete.
int exit_code_of(const Trainer& trainer, const RunResult& result,
                 const std::filesystem::path& folder) {
  if (result.interrupted) {
    fmt::print(stderr, "preheat: interrupted after {}; continue with --resume {}\n",
               counted(result.steps, "update"), folder.string());
    return 1;
  }
  if (result.outcome != Outcome::non_finite) return 0;
  fmt::print(stderr, "preheat: diverged: {} is not finite at {}\n", result.first_non_finite_tensor,
             step_text(trainer.schedule(), *result.first_non_finite_step, result.gate_opened_at));
  return 3;
}

void write_page(const std::filesystem::path& folder, int code, bool talks) {
  const auto page = write_page_last(folder, code);
  if (talks && page) row("report", page->string());
}

// --seed is parsed as `--set seed` is, by the rules of the configuration.
Document document_of(const TrainOptions& options) {
  Document document = options.config.document(options.resume);
  if (!options.seed) return document;
  Override seed = parse_override("seed=" + *options.seed);
  seed.value.where.source = "--seed " + *options.seed;
  return with_overrides(document, {seed});
}

// The update count of the run to be resumed if it has completed under this very configuration:
// there is nothing left to do. A diverged run is left to the trainer, which refuses it.
std::optional<std::int64_t> finished_after(const std::string& folder, const RunConfig& config) {
  const std::optional<RunSummary> summary = read_summary(folder);
  if (!summary || !summary->result || summary->result->outcome == Outcome::non_finite) return {};
  const std::string own = fingerprint(config);
  if (summary->fingerprint != own || fingerprint(config_in(folder)) != own) return {};
  return summary->result->steps;
}

RunFolder begun(const std::string& out, const RunConfig& config) {
  if (!out.empty()) return {out, config};
  return {DefaultFolder(config.name, std::to_string(config.seed)).path(), config};
}

RunFolder resumed(Trainer& trainer, const TrainOptions& options) {
  Resumed run = trainer.resume(options.resume, options.new_schedule);
  if (!options.run.quiet) {
    fmt::print("resumed after {}{}\n", counted(run.step, "update"),
               run.lr_before == run.lr_now
                   ? ""
                   : fmt::format("; the next learning rate changes from {} to {}",
                                 lr_text(run.lr_before), lr_text(run.lr_now)));
  }
  return std::move(run.folder);
}

int train(const TrainOptions& options) {
  const RunConfig config = read_config(document_of(options));
  check_run(config);
  if (!options.resume.empty()) refuse_others(options.resume, std::nullopt);
  const bool talks = !options.run.quiet;
  const std::optional<std::int64_t> finished =
      options.resume.empty() ? std::nullopt : finished_after(options.resume, config);
  if (finished) {
    if (talks) {
      fmt::print("{}: finished after {}; nothing to do\n", options.resume,
                 counted(*finished, "update"));
    }
    // The page is written last, and is missing if the disk was full by then.
    if (!std::filesystem::exists(std::filesystem::path(options.resume) / report_name)) {
      write_page(options.resume, 0, talks);
    }
    return 0;
  }
  const auto backend = options.run.backend();
  check_precision(config, *backend);
  const ResidentData data = load_data(config.data, *backend);
  Trainer trainer(config, *backend, data);
  catch_interrupts();  // from here on there is a folder to leave in order
  catch_broken_pipe();
  RunFolder folder =
      options.resume.empty() ? begun(options.run.out, config) : resumed(trainer, options);
  if (talks) print_start(trainer, data, options.run.verbose);

  Progress progress(config.name, trainer.schedule(), config.data.batch_size, talks);
  RunListener listener;
  listener.on_records = [&](std::span<const StepRecord> records) { progress.show(records); };
  listener.on_evaluation = [&](std::int64_t step, const Evaluated& evaluated) {
    progress.clear();
    if (!talks) return;
    const auto numbers = [](const Evaluation& e) {
      return fmt::format("loss {}, accuracy {}", loss_text(e.loss), accuracy_text(e.accuracy()));
    };
    fmt::print("after {}: test {}{}\n", counted(step, "update"), numbers(evaluated.test),
               evaluated.validation ? "; validation " + numbers(*evaluated.validation) : "");
  };
  listener.wants_stop = interrupted;
  const RunResult result = trainer.run(listener, &folder);
  progress.clear();
  if (talks) print_end(result);
  std::fflush(stdout);
  const int code = exit_code_of(trainer, result, folder.path());
  write_page(folder.path(), code, talks);
  return code;
}

}  // namespace

void add_train_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train one network");
  options->config.add_to(*command, false);
  options->run.add_to(*command, "where the data come from, every layer and parameter");
  command->add_option("--seed", options->seed, "override the configuration's seed")->type_name("N");
  auto* resume = command
                     ->add_option("--resume", options->resume,
                                  "continue the interrupted run in DIR under its own configuration "
                                  "unless CONFIG is given; a finished run is left as it is")
                     ->type_name("DIR");
  command->get_option("--out")->excludes(resume);
  command
      ->add_flag("--new-schedule", options->new_schedule,
                 "with --resume: schedule, length and stages may differ from the run's; it "
                 "continues at its current update of the new ones")
      ->needs(resume);
  command->callback([options, &exit_code] { exit_code = train(*options); });
}

}  // namespace preheat
