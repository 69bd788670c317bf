#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "commands/bench.h"
#include "commands/options.h"
#include "config/clock.h"
#include "schedule/schedule.h"

namespace preheat {
namespace {

struct ScheduleOptions {
  RunOptions run;
  BenchOptions bench;
  bool quick = false;
  int repetitions() const { return quick ? 3 : 9; }
};

constexpr std::int64_t evaluations = 1'000'000;

NamedSchedule named(const std::string& name, const std::string& schedule) {
  const RunConfig config = read_config(parse_document(
      fmt::format("schedule: {}\ntrain: {{length: {} steps}}\n", schedule, evaluations), name));
  return {name, resolve_schedule(config, run_length(config, 1000)).lr};
}

// The constant one comes first: the others are compared with it.
std::vector<NamedSchedule> all_shapes() {
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
  std::vector<NamedSchedule> schedules;
  for (const auto& [name, schedule] : cases) schedules.push_back(named(name, schedule));
  return schedules;
}

// Times every update of a run of a million in order, as a training run asks for them. The schedules
// are interleaved, so that a slowdown of the machine affects all of them.
std::vector<Spread> time_on_host(const std::vector<NamedSchedule>& schedules, int repetitions) {
  std::vector<std::vector<double>> times(schedules.size());
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    stop_if_interrupted();
    for (std::size_t i = 0; i < schedules.size(); ++i) {
      double sum = 0;  // used below, so that no compiler drops the work
      const auto start = Clock::now();
      for (std::int64_t step = 0; step < evaluations; ++step) {
        sum += lr_at(schedules[i].schedule, step);
      }
      times[i].push_back(1e9 * seconds_since(start) / static_cast<double>(evaluations));
      if (!(sum >= 0)) throw Error(schedules[i].name + ": a rate is not a number");
    }
  }
  std::vector<Spread> timings;
  for (std::vector<double>& t : times) timings.push_back(spread_of(std::move(t)));
  return timings;
}

void bench_on_host(const std::vector<NamedSchedule>& schedules, const std::string& host,
                   int repetitions, BenchResults& results) {
  const std::vector<Spread> times = time_on_host(schedules, repetitions);
  fmt::print("\nlr_at on one core of {}: ns an update, over a run of {} updates, {} times\n\n",
             host, evaluations, repetitions);
  fmt::print("{:<24}  {:>7}  {:>7}  {:>7}{}\n", "schedule", "median", "least", "largest",
             results.head());
  for (std::size_t i = 0; i < schedules.size(); ++i) {
    const Spread& t = times[i];
    const std::string& name = schedules[i].name;
    fmt::print("{:<24}  {:>7.1f}  {:>7.1f}  {:>7.1f}{}\n", name, t.median, t.least, t.largest,
               results.add(name + ", lr_at on the host", "ns", t));
    results.json["schedules"].push_back({{"name", name},
                                         {"median_ns", t.median},
                                         {"least_ns", t.least},
                                         {"largest_ns", t.largest},
                                         {"in_step", nlohmann::ordered_json::array()}});
  }
  std::fflush(stdout);
}

// The time that a schedule adds to the update of one tensor of `parameters` floats, relative to the
// constant one.
void bench_in_step(Benches& benches, const std::vector<NamedSchedule>& schedules,
                   std::int64_t parameters, bool quick, BenchResults& results) {
  const std::vector<std::vector<double>> times =
      benches.time_schedules({fmt::format("{} in 1 tensor", parameters), {parameters}}, schedules,
                             quick, stop_if_interrupted);
  fmt::print(
      "\nThe update of {} parameters and the end of its step, us, and what the shape adds to the "
      "constant one,\nturn by turn: median, least .. largest\n\n",
      parameters);
  fmt::print("{:<24}  {:>10} {:>21}  {:>7} {:>8} {:>18}{}\n", "schedule", "median",
             "least .. largest", "more", "", "least .. largest", results.head());
  const std::vector<double>& constant = times.front();
  for (std::size_t i = 0; i < schedules.size(); ++i) {
    std::vector<double> differences;
    for (std::size_t turn = 0; turn < constant.size(); ++turn) {
      differences.push_back(times[i][turn] - constant[turn]);
    }
    const Spread us = spread_of(times[i]);
    const Spread more = spread_of(std::move(differences));
    const double share = more.median / spread_of(constant).median;
    fmt::print(
        "{:<24}  {:>10.2f} {:>9.2f} .. {:>8.2f}  {:>+7.2f} {:>+6.2f} % {:>+7.2f} .. {:>+7.2f}{}\n",
        schedules[i].name, us.median, us.least, us.largest, more.median, 100 * share, more.least,
        more.largest,
        results.add(fmt::format("{}, with the update of {} parameters, fp32", schedules[i].name,
                                parameters),
                    "us", us));
    results.json["schedules"][i]["in_step"].push_back({{"parameters", parameters},
                                                       {"us", us.median},
                                                       {"least_us", us.least},
                                                       {"largest_us", us.largest},
                                                       {"more_than_constant_us", more.median},
                                                       {"least_more_us", more.least},
                                                       {"largest_more_us", more.largest},
                                                       {"more_than_constant_share", share}});
  }
  std::fflush(stdout);
}

void bench_schedule(const ScheduleOptions& options) {
  options.bench.check();
  Earlier earlier(options.bench.compare, "schedule");
  const auto backend = options.run.backend();
  BenchResults results("schedule", *backend, options.bench, std::move(earlier),
                       {{"--quick", options.quick}});
  const std::string host =
      backend->name() == "cpu" ? backend->device() : make_backend(DeviceChoice::cpu)->device();
  results.json["host"] = host;
  results.json["evaluations"] = evaluations;
  results.json["repetitions"] = options.repetitions();
  results.json["schedules"] = nlohmann::ordered_json::array();
  results.measure([&] {
    const std::vector<NamedSchedule> schedules = all_shapes();
    bench_on_host(schedules, host, options.repetitions(), results);
    for (const std::int64_t parameters : {std::int64_t{1} << 18, std::int64_t{6'000'000}}) {
      bench_in_step(backend->benches(), schedules, parameters, options.quick, results);
    }
  });
}

}  // namespace

void add_bench_schedule(CLI::App& bench) {
  auto options = std::make_shared<ScheduleOptions>();
  CLI::App* command = bench.add_subcommand(
      "schedule", "Time the learning rate by shape, alone and inside the step");
  options->run.add_device_to(*command);
  command->add_flag("--quick", options->quick, "fewer rounds");
  options->bench.add_to(*command);
  command->callback([options] { bench_schedule(*options); });
}

}  // namespace preheat
