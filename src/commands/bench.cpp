#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "commands/commands.h"
#include "commands/options.h"
#include "schedule/schedule.h"
#include "train/atomic_file.h"

namespace preheat {
namespace {

struct Timing {
  std::string name;
  double median = 0;  // ns per evaluation
  double least = 0;
  double largest = 0;
};

constexpr std::int64_t evaluations = 1'000'000;
constexpr int repetitions = 9;

// Every update of a run of a million, one after the other, as a training run asks for them.
Timing time_schedule(const std::string& name, const std::string& schedule) {
  const RunConfig config = read_config(parse_document(
      fmt::format("schedule: {}\ntrain: {{length: {} steps}}\n", schedule, evaluations), name));
  const Schedule resolved = resolve_schedule(config, run_length(config, 1000));
  std::vector<double> times;
  double sum = 0;  // used below, so that no compiler drops the work
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t step = 0; step < evaluations; ++step) sum += lr_at(resolved.lr, step);
    const std::chrono::duration<double, std::nano> time = std::chrono::steady_clock::now() - start;
    times.push_back(time.count() / static_cast<double>(evaluations));
  }
  if (!(sum >= 0)) throw Error(name + ": a rate is not a number");
  std::ranges::sort(times);
  return {name, times[times.size() / 2], times.front(), times.back()};
}

std::vector<Timing> time_schedules() {
  const std::string ramp = "warmup: {length: 1000 steps}";
  const auto after_a_ramp = [&](const std::string& decay) {
    return fmt::format("{{{}, decay: {{{}}}}}", ramp, decay);
  };
  std::string phases;
  for (int i = 1; i < max_phases; ++i) {  // and "final"
    phases += "{shape: linear, from: base, to: 0, length: 3%}, ";
  }
  const std::pair<const char*, std::string> cases[] = {
      {"constant", after_a_ramp("shape: constant")},
      {"linear", after_a_ramp("shape: linear")},
      {"cosine", after_a_ramp("shape: cosine")},
      {"cosine, 100 cycles", after_a_ramp("shape: cosine, cycles: 100, peak_factor: 0.99")},
      {"cosine, growing cycles", after_a_ramp("shape: cosine, period: 1 epochs, multiply: 2")},
      {"power", after_a_ramp("shape: power, power: 4")},
      {"exponential", after_a_ramp("shape: exponential, final_lr: 1e-4")},
      {"exponential, gamma", after_a_ramp("shape: exponential, gamma: 0.99, over: 1000 steps")},
      {"saturating", after_a_ramp("shape: saturating")},
      {"one_minus_sqrt", after_a_ramp("shape: one_minus_sqrt")},
      {"inverse_sqrt", after_a_ramp("shape: inverse_sqrt")},
      {"step", after_a_ramp("shape: step, gamma: 0.99, over: 1000 steps")},
      {"multistep", after_a_ramp("shape: multistep, at: [30%, 60%, 90%]")},
      {"inverse", after_a_ramp("shape: inverse, gamma: 1e-4, power: 0.75")},
      {"sigmoid", after_a_ramp("shape: sigmoid, gamma: -1e-5, center: 50%")},
      {"tanh", after_a_ramp("shape: tanh")},
      {"cosine by epochs", after_a_ramp("shape: cosine, every: epoch")},
      {"cosine, multiplied",
       "{warmup: {length: 100%, overlap: true, toward: multiply}, decay: {shape: cosine}}"},
      {"32 phases", fmt::format("{{phases: [{}]}}", phases)},
  };
  std::vector<Timing> timings;
  for (const auto& [name, schedule] : cases) timings.push_back(time_schedule(name, schedule));
  return timings;
}

void bench_schedule(const std::string& json) {
  const std::string device = make_backend(DeviceChoice::cpu)->device();
  fmt::print("lr_at on one core of {}: ns an update, over a run of {} updates, {} times\n\n",
             device, evaluations, repetitions);
  fmt::print("{:<24}  {:>7}  {:>7}  {:>7}\n", "schedule", "median", "least", "largest");
  nlohmann::ordered_json results = {
      {"device", device}, {"evaluations", evaluations}, {"repetitions", repetitions}};
  for (const Timing& t : time_schedules()) {
    fmt::print("{:<24}  {:>7.1f}  {:>7.1f}  {:>7.1f}\n", t.name, t.median, t.least, t.largest);
    results["schedules"].push_back({{"name", t.name},
                                    {"median_ns", t.median},
                                    {"least_ns", t.least},
                                    {"largest_ns", t.largest}});
  }
  if (!json.empty()) write_atomically(json, results.dump(2) + "\n");
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "What the parts of a step cost on this machine");
  bench->require_subcommand(1);
  auto json = std::make_shared<std::string>();
  CLI::App* schedule =
      bench->add_subcommand("schedule", "One evaluation of the learning rate, by shape");
  schedule->add_option("--json", *json, "write the figures")->type_name("FILE");
  schedule->callback([json] { bench_schedule(*json); });
}

}  // namespace preheat
