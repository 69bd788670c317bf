#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <latch>
#include <memory>
#include <utility>

#include "commands/bench.h"
#include "commands/options.h"
#include "config/clock.h"
#include "experiment/thread_group.h"
#include "train/fingerprint.h"
#include "train/replica_options.h"
#include "train/trainer.h"

namespace preheat {
namespace {

struct StepOptions {
  ConfigOptions config;
  RunOptions run;
  BenchOptions bench;
  double seconds = 2;
  bool layers = false;
  std::vector<int> replicas;
};

struct StepTiming {
  Spread milliseconds;       // over the rounds
  Spread host_microseconds;  // that a step occupies the calling thread
};

// The lifetime of this process, to a clock tick, including the time before main, where libraries
// are loaded.
double process_seconds() {
  std::ifstream stat("/proc/self/stat");
  std::string text;
  std::getline(stat, text);
  std::istringstream fields(text.substr(text.rfind(')') + 1));  // a name may contain anything
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  double started = 0;
  fields >> started;
  double up = 0;
  std::ifstream("/proc/uptime") >> up;
  return up - started / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Times stretches of updates within one epoch, as a run makes them. On a GPU train() returns before
// the work is done; the time until it returns is the host's cost per step.
StepTiming time_steps(Trainer& trainer, double seconds) {
  constexpr std::size_t min_rounds = 5;
  trainer.time_updates(4);  // loads code, fills caches
  const UpdateTime few = trainer.time_updates(4);
  const double one = few.total / static_cast<double>(few.updates);
  const auto steps = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(seconds / static_cast<double>(min_rounds) / one), 1,
      std::min<std::int64_t>(64, trainer.schedule().run.steps_per_epoch));
  std::vector<double> total;
  std::vector<double> host;
  const auto start = Clock::now();
  while (total.size() < min_rounds || seconds_since(start) < seconds) {
    stop_if_interrupted();
    const UpdateTime time = trainer.time_updates(steps);
    if (time.updates < steps) continue;  // cut short by the end of an epoch
    total.push_back(1e3 * time.total / static_cast<double>(steps));
    host.push_back(1e6 * time.host / static_cast<double>(steps));
  }
  return {spread_of(std::move(total)), spread_of(std::move(host))};
}

// ---- Parts -------------------------------------------------------------------------------------

// A part of a step, or the sum of several that do the same work in one pass.
struct PartTiming {
  std::string pass, layer, work;
  Cost cost;
  std::int64_t launches = 0;
  double limit = 0;            // us, from the slower of memory and arithmetic alone
  std::vector<double> rounds;  // us; a part's median over the steps of each round

  Spread microseconds() const { return spread_of(rounds); }
  double gigabytes() const { return cost.bytes / at_least_a_nanosecond() / 1e3; }  // per second
  double gigaflops() const { return cost.operations / at_least_a_nanosecond() / 1e3; }  // likewise

 private:
  double at_least_a_nanosecond() const { return std::max(microseconds().median, 1e-3); }
};

// Times `rounds` rounds of equally many updates. All rounds have the same parts in the same order.
std::vector<PartTiming> time_parts(Trainer& trainer, double seconds, double seconds_a_step) {
  constexpr std::int64_t rounds = 7;
  const auto updates =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(seconds / seconds_a_step) / rounds, 1, 30);
  std::vector<PartTiming> timings;
  for (std::int64_t round = 0; round < rounds; ++round) {
    stop_if_interrupted();
    const std::vector<StepPart> parts = trainer.time_parts(updates + 1);  // the first is not timed
    if (round == 0) {
      for (const StepPart& part : parts) {
        timings.push_back({part.pass, part.layer, part.work, part.cost, part.launches, 0, {}});
      }
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      timings[i].rounds.push_back(parts[i].microseconds);
    }
  }
  return timings;
}

void add(PartTiming& sum, const PartTiming& part) {
  sum.cost += part.cost;
  sum.launches += part.launches;
  sum.limit += part.limit;
  sum.rounds.resize(part.rounds.size());
  for (std::size_t i = 0; i < part.rounds.size(); ++i) sum.rounds[i] += part.rounds[i];
}

// Merges parts of one pass that do the same work.
std::vector<PartTiming> by_work(const std::vector<PartTiming>& parts) {
  std::vector<PartTiming> sums;
  for (const PartTiming& part : parts) {
    const auto same = std::ranges::find_if(sums, [&](const PartTiming& sum) {
      return sum.pass == part.pass && sum.work == part.work;
    });
    if (same != sums.end()) {
      add(*same, part);
    } else {
      sums.push_back(part);
      sums.back().layer.clear();
    }
  }
  return sums;
}

// Forward, backward and update, each as one part. Its limit is the sum of its parts' limits.
std::vector<PartTiming> by_pass(std::vector<PartTiming> parts) {
  for (PartTiming& part : parts) part.work = "all";
  return by_work(parts);
}

PartTiming total_of(const std::vector<PartTiming>& parts) {
  PartTiming sum;
  for (const PartTiming& part : parts) add(sum, part);
  return sum;
}

// The columns of a table of parts before those of the times; one without information is left out.
struct PartColumns {
  bool layers;
  bool launches;

  std::string row(const std::string& pass, const std::string& layer, const std::string& work,
                  const std::string& count) const {
    std::string text = fmt::format("{:<9}", pass);
    if (layers) text += fmt::format(" {:<22}", layer);
    text += fmt::format(" {:<35}", work);
    if (launches) text += fmt::format(" {:>8}", count);
    return text;
  }
  std::string head() const { return row("pass", "layer", "work", "launches"); }
  std::string of(const PartTiming& part) const {
    return row(part.pass, part.layer, part.work, std::to_string(part.launches));
  }
};

// `before`: PartColumns::of(); `all`: microseconds of all parts.
void print_part(const std::string& before, const PartTiming& part, double all,
                const std::string& earlier) {
  const Spread us = part.microseconds();
  const auto unless_too_short = [&](bool there, double value, const char* unit) {
    return there && us.median > 0 ? fmt::format("{:.1f}{}", value, unit) : "-";
  };
  fmt::print("{} {:>10.2f} {:>9.2f} .. {:>9.2f} {:>5.1f} % {:>9.2f} {:>8} {:>8} {:>8}{}\n", before,
             us.median, us.least, us.largest, 100 * us.median / all, 1e-6 * part.cost.bytes,
             unless_too_short(true, part.gigabytes(), ""),
             unless_too_short(part.cost.operations > 0, part.gigaflops(), ""),
             unless_too_short(true, 100 * part.limit / us.median, " %"), earlier);
}

// Prints and records a time of the step as a whole.
void add_time(const std::string& key, const char* what, const char* unit, int digits,
              const Spread& time, BenchResults& results) {
  const std::string text =
      fmt::format("{:<24} {:>10.{}f} {}  ({:.{}f} .. {:.{}f})", what, time.median, digits, unit,
                  time.least, digits, time.largest, digits);
  const std::string earlier = results.add(key + what, unit, time);
  fmt::print("{:<{}}{}\n", text, earlier.empty() ? 0 : 60, earlier);
}

nlohmann::ordered_json to_json(const PartTiming& part) {
  const Spread us = part.microseconds();
  return {{"pass", part.pass},
          {"layer", part.layer},
          {"work", part.work},
          {"launches", part.launches},
          {"us", us.median},
          {"least_us", us.least},
          {"largest_us", us.largest},
          {"bytes", part.cost.bytes},
          {"operations", part.cost.operations},
          {"gigabytes_per_second", part.gigabytes()},
          {"gigaflops", part.gigaflops()},
          {"limit_us", part.limit}};
}

// The parts with their limits, and the ceilings these come from.
struct MeasuredParts {
  std::vector<PartTiming> parts;
  Ceilings ceilings;
};

MeasuredParts measure_parts(Trainer& trainer, Backend& backend, const StepOptions& options,
                            double milliseconds) {
  // Measures before and after the parts and takes the better: other processes may interfere.
  const RunConfig& config = trainer.config();
  const auto measure_ceilings = [&] {
    stop_if_interrupted();
    return backend.benches().measure_ceilings(config.train.precision, cpu_threads(config));
  };
  Ceilings ceilings = measure_ceilings();
  std::vector<PartTiming> parts = time_parts(trainer, options.seconds, 1e-3 * milliseconds);
  const Ceilings again = measure_ceilings();
  ceilings.bytes_per_second = std::max(ceilings.bytes_per_second, again.bytes_per_second);
  ceilings.operations_per_second =
      std::max(ceilings.operations_per_second, again.operations_per_second);
  for (PartTiming& part : parts) {
    part.limit = 1e6 * std::max(part.cost.bytes / ceilings.bytes_per_second,
                                part.cost.operations / ceilings.operations_per_second);
  }
  return {std::move(parts), ceilings};
}

// Prints and records the parts as a whole; `key` is the prefix of the figures' keys.
void report_total(const PartTiming& all, const Ceilings& ceilings, double milliseconds,
                  const std::string& key, BenchResults& results) {
  nlohmann::ordered_json& json = results.json;
  const Spread us = all.microseconds();
  const double traffic = 1e3 * all.cost.bytes / ceilings.bytes_per_second;
  const double arithmetic = 1e3 * all.cost.operations / ceilings.operations_per_second;
  fmt::print(
      "\n{:<24} {:>10.4f} ms  {:.1f} MB at the {:.0f} GB/s of the memory: {:.0f} % of the step\n",
      "traffic alone", traffic, 1e-6 * all.cost.bytes, 1e-9 * ceilings.bytes_per_second,
      100 * traffic / milliseconds);
  fmt::print(
      "{:<24} {:>10.4f} ms  {:.2f} GFLOP at the {:.0f} GFLOP/s of a matrix product: {:.0f} %\n",
      "arithmetic alone", arithmetic, 1e-9 * all.cost.operations,
      1e-9 * ceilings.operations_per_second, 100 * arithmetic / milliseconds);
  const auto in_ms = [](double microseconds) { return 1e-3 * microseconds; };
  add_time(key, "parts, one by one", "ms", 4,
           {in_ms(us.median), in_ms(us.least), in_ms(us.largest)}, results);
  json["ceilings"] = {{"bytes_per_second", ceilings.bytes_per_second},
                      {"operations_per_second", ceilings.operations_per_second}};
  json["bytes"] = all.cost.bytes;
  json["operations"] = all.cost.operations;
  json["traffic_ms"] = traffic;
  json["arithmetic_ms"] = arithmetic;
  json["parts_ms"] = 1e-3 * us.median;
}

void bench_parts(Trainer& trainer, Backend& backend, const StepOptions& options,
                 double milliseconds, const std::string& key, BenchResults& results) {
  nlohmann::ordered_json& json = results.json;
  const MeasuredParts measured = measure_parts(trainer, backend, options, milliseconds);
  const PartTiming all = total_of(measured.parts);
  report_total(all, measured.ceilings, milliseconds, key, results);
  const double us = all.microseconds().median;
  const PartColumns columns{options.layers, all.launches > 0};
  fmt::print("\n{} {:>10} {:>22} {:>7} {:>9} {:>8} {:>8} {:>8}{}\n", columns.head(), "median us",
             "least .. largest", "share", "MB", "GB/s", "GFLOP/s", "of limit", results.head());
  for (const PartTiming& pass : by_pass(measured.parts)) {
    json["passes"].push_back(to_json(pass));
    print_part(
        columns.of(pass), pass, us,
        results.add(fmt::format("{}{}, {}", key, pass.pass, pass.work), "us", pass.microseconds()));
  }
  fmt::print("\n");
  // The files get both, the screen one of them.
  for (const PartTiming& work : by_work(measured.parts)) {
    json["works"].push_back(to_json(work));
    const std::string earlier =
        results.add(fmt::format("{}{}, {}", key, work.pass, work.work), "us", work.microseconds());
    if (options.layers) continue;
    print_part(columns.of(work), work, us, earlier);
  }
  for (const PartTiming& part : measured.parts) {
    json["parts"].push_back(to_json(part));
    const std::string layer = part.layer.empty() ? "no layer" : "layer " + part.layer;
    const std::string earlier = results.add(
        fmt::format("{}{}, {}, {}", key, part.pass, part.work, layer), "us", part.microseconds());
    if (!options.layers) continue;
    print_part(columns.of(part), part, us, earlier);
  }
  fmt::print(
      "\nThe limit of a part is the slower of its bytes at the memory's rate and its operations at "
      "the product's,\nthat of a pass the sum over its parts. Data in a cache and products of "
      "other shapes can be faster.\n");
  std::fflush(stdout);
}

// ---- Replicas ----------------------------------------------------------------------------------

// Milliseconds per update of `count` replicas that train concurrently, each in its own thread and
// with `updates` updates per round.
Spread time_replicas(const RunConfig& config, Backend& backend, const ResidentData& data, int count,
                     std::int64_t updates) {
  constexpr int rounds = 5;
  std::vector<std::unique_ptr<Trainer>> trainers;
  for (int i = 0; i < count; ++i) {
    stop_if_interrupted();
    RunConfig own = config;
    own.seed += static_cast<std::uint64_t>(i);
    trainers.push_back(std::make_unique<Trainer>(own, backend, data));
    trainers.back()->time_updates(16);  // loads code, fills caches
  }
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    std::latch start(1);
    std::atomic<bool> failed{false};
    ThreadGroup group(failed);
    for (const auto& trainer : trainers) {
      group.start([&, one = trainer.get()] {
        start.wait();
        for (std::int64_t done = 0; done < updates && !failed;) {
          stop_if_interrupted();
          done += one->time_updates(std::min<std::int64_t>(64, updates - done)).updates;
        }
      });
    }
    const auto begin = Clock::now();
    start.count_down();
    const std::exception_ptr failure = group.join();
    times.push_back(1e3 * seconds_since(begin) / static_cast<double>(count * updates));
    if (failure) std::rethrow_exception(failure);
  }
  return spread_of(std::move(times));
}

void bench_replicas(const RunConfig& config, Backend& backend, const ResidentData& data,
                    const StepOptions& options, double milliseconds, const std::string& key,
                    BenchResults& results) {
  if (options.replicas.empty()) return;
  fmt::print("\n{:<10} {:>14} {:>22} {:>14} {:>14} {:>10}{}\n", "replicas", "ms an update",
             "least .. largest", "updates a s", "images a s", "times one", results.head());
  // Long enough for one; if many share the device, each does fewer.
  const auto updates = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(1e3 * options.seconds / milliseconds) / 5, 4, 1 << 12);
  const Spread one = time_replicas(config, backend, data, 1, updates);
  for (const int count : options.replicas) {
    const std::int64_t own = std::max<std::int64_t>(4, updates / std::max(1, count / 4));
    const Spread ms = count == 1 ? one : time_replicas(config, backend, data, count, own);
    const double rate = 1e3 / ms.median;
    const double images = rate * static_cast<double>(config.data.batch_size);
    const double times_one = one.median / ms.median;
    const std::string earlier =
        results.add(fmt::format("{}{} at once, an update", key, count), "ms", ms);
    fmt::print("{:<10} {:>14.4f} {:>9.4f} .. {:>9.4f} {:>14.1f} {:>14.0f} {:>10.2f}{}\n", count,
               ms.median, ms.least, ms.largest, rate, images, times_one, earlier);
    std::fflush(stdout);
    results.json["replicas"].push_back({{"count", count},
                                        {"ms", ms.median},
                                        {"least_ms", ms.least},
                                        {"largest_ms", ms.largest},
                                        {"updates_per_second", rate},
                                        {"images_per_second", images},
                                        {"times_one", times_one}});
  }
}

// ---- The step ----------------------------------------------------------------------------------

// The duration, and all configuration that a step depends on.
nlohmann::ordered_json options_json(const StepOptions& options, const RunConfig& config) {
  nlohmann::ordered_json json = {{"--seconds", options.seconds},
                                 {"train.cuda_graph", config.train.cuda_graph}};
  for (const Setting& setting : settings_of(config)) json[setting.key] = setting.value;
  return json;
}

void measure(Trainer& trainer, Backend& backend, const ResidentData& data,
             const StepOptions& options, const Peers& peers, double first_update,
             BenchResults& results) {
  const RunConfig& config = trainer.config();
  nlohmann::ordered_json& json = results.json;
  const std::string batch =
      fmt::format("batch {}{}", config.data.batch_size, passes_text(config.data));
  const std::string key =
      fmt::format("{}, {}, {}: ", config.name, batch, to_string(config.train.precision));
  const StepTiming t = time_steps(trainer, options.seconds);
  const Spread& ms = t.milliseconds;
  const Spread& host = t.host_microseconds;
  const double images = 1e3 * static_cast<double>(config.data.batch_size) / ms.median;
  fmt::print("\n{}: {} parameters, {}, {}\n\n", config.name, trainer.network().parameter_count,
             batch, to_string(config.train.precision));
  if (!results.head().empty()) fmt::print("{:<60}{}\n", "", results.head());
  add_time(key, "step", "ms", 4, ms, results);
  add_time(key, "host time of a step", "us", 2, host, results);
  fmt::print("{:<24} {:>10.0f}\n", "images per second", images);
  fmt::print("{:<24} {:>10.2f} s   from the start of the program, data included\n", "first update",
             first_update);
  const std::int64_t launches = trainer.launches_per_update();
  if (launches > 0) fmt::print("{:<24} {:>10}\n", "launches of a step", launches);
  json.update({{"step_ms", {{"median", ms.median}, {"least", ms.least}, {"largest", ms.largest}}},
               {"images_per_second", images},
               {"host_us", host.median},
               {"launches", launches}});
  // "graph-bf16"; both 16-bit precisions are compared with each other.
  const Precision precision = config.train.precision;
  const std::string peer_precision =
      "-" + std::string(to_string(precision == Precision::fp16 ? Precision::bf16 : precision));
  json["peers"] = peers.compare(
      "ms", "ms", ms.median,
      [&](const nlohmann::json& row) {
        return row.value("network", "") == config.name && !config.data.micro_batch &&
               row.value("batch", std::int64_t{0}) == config.data.batch_size;
      },
      peer_precision);
  peers.note_device(backend.device());
  std::fflush(stdout);
  bench_parts(trainer, backend, options, ms.median, key, results);
  bench_replicas(config, backend, data, options, ms.median, key, results);
}

void bench_step(const StepOptions& options) {
  options.bench.check(options.config.path);
  const Peers peers(options.bench.peers);
  Earlier earlier(options.bench.compare, "step");
  RunConfig config = read_config(options.config.document());
  check_run(config);
  config.diagnostics = {};  // no part of a step, with memory of their own
  const auto backend = options.run.backend();
  check_precision(config, *backend);
  const ResidentData data = load_data(config.data, *backend);
  if (data.train->size() / config.data.batch_size < 2) {
    throw Error("an epoch has only one update, too few to time its parts; lower data.batch_size");
  }
  Trainer trainer(config, *backend, data);
  trainer.time_updates(1);
  const double first_update = process_seconds();
  BenchResults results("step", *backend, options.bench, std::move(earlier),
                       options_json(options, config));
  results.json.update({{"network", config.name},
                       {"parameters", trainer.network().parameter_count},
                       {"batch", config.data.batch_size},
                       {"micro_batch", config.data.examples_per_pass()},
                       {"precision", to_string(config.train.precision)},
                       {"first_update_seconds", first_update}});
  for (const char* list : {"passes", "works", "parts", "replicas", "peers"}) {
    results.json[list] = nlohmann::ordered_json::array();
  }
  results.measure([&] { measure(trainer, *backend, data, options, peers, first_update, results); });
}

}  // namespace

void add_bench_step(CLI::App& bench) {
  // CLI::Range accepts NaN, which compares false with both ends.
  const CLI::Validator finite(
      [](const std::string& text) {
        return std::isfinite(std::strtod(text.c_str(), nullptr)) ? "" : text + " is not a number";
      },
      "");
  auto options = std::make_shared<StepOptions>();
  CLI::App* command =
      bench.add_subcommand("step", "Time a whole training step of a configuration, and its parts");
  options->config.add_to(*command);
  options->run.add_device_to(*command);
  command
      ->add_option("--seconds", options->seconds,
                   "measuring time per figure, in seconds (default 2)")
      ->type_name("S")
      ->check(CLI::Range(0.1, 600.0))
      ->check(finite);
  command->add_flag("--layers", options->layers,
                    "print the parts of every layer instead of their sums");
  command
      ->add_option("--replicas", options->replicas,
                   "also measure this many replicas at the same time, such as 1,4,16")
      ->type_name("N,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 256));
  options->bench.add_to(*command);
  options->bench.add_peers_to(*command);
  command->callback([options] { bench_step(*options); });
}

}  // namespace preheat
