#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <thread>

#include "commands/bench.h"
#include "commands/options.h"
#include "train/replica_options.h"
#include "train/trainer.h"

namespace preheat {
namespace {

using Clock = std::chrono::steady_clock;

struct StepOptions {
  ConfigOptions config;
  RunOptions run;
  BenchOptions bench;
  double seconds = 2;
  bool layers = false;
  std::vector<int> replicas;
};

struct StepTiming {
  Spread milliseconds;           // over the rounds
  double host_microseconds = 0;  // that a step keeps the calling thread busy
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// How long this process has lived, to a clock tick: also before main, where libraries are loaded.
double process_seconds() {
  std::ifstream stat("/proc/self/stat");
  std::string text;
  std::getline(stat, text);
  std::istringstream fields(text.substr(text.rfind(')') + 1));  // a name may hold anything
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  double started = 0;
  fields >> started;
  double up = 0;
  std::ifstream("/proc/uptime") >> up;
  return up - started / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Stretches of whole epochs, as a run makes them. On a GPU train() returns before the work is done,
// and how long it takes to return is what a step costs the host.
StepTiming time_steps(Trainer& trainer, double seconds) {
  constexpr std::size_t least_rounds = 5;
  trainer.time_updates(4);  // loads code, fills caches
  const UpdateTime few = trainer.time_updates(4);
  const double one = few.total / static_cast<double>(few.updates);
  const auto steps = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(seconds / static_cast<double>(least_rounds) / one), 1,
      std::min<std::int64_t>(64, trainer.schedule().run.steps_per_epoch));
  std::vector<double> total;
  std::vector<double> host;
  const auto start = Clock::now();
  while (total.size() < least_rounds || seconds_since(start) < seconds) {
    const UpdateTime time = trainer.time_updates(steps);
    if (time.updates < steps) continue;  // the end of an epoch
    total.push_back(1e3 * time.total / static_cast<double>(steps));
    host.push_back(1e6 * time.host / static_cast<double>(steps));
  }
  return {spread_of(std::move(total)), spread_of(std::move(host)).median};
}

// ---- Parts -------------------------------------------------------------------------------------

// What limits a part, and how much of that limit it reaches.
struct Reach {
  double gigabytes;  // a second
  double gigaflops;  // likewise
  double least;      // us, if the slower of memory and arithmetic were all there is
};

Reach reach_of(const StepPart& part, const Ceilings& ceilings) {
  const double us = std::max(part.microseconds, 1e-3);
  return {part.cost.bytes / us / 1e3, part.cost.operations / us / 1e3,
          1e6 * std::max(part.cost.bytes / ceilings.bytes_per_second,
                         part.cost.operations / ceilings.operations_per_second)};
}

void add(StepPart& sum, const StepPart& part) {
  sum.cost.bytes += part.cost.bytes;
  sum.cost.operations += part.cost.operations;
  sum.launches += part.launches;
  sum.microseconds += part.microseconds;
}

// Parts of one pass that do the same work, as one.
std::vector<StepPart> by_work(const std::vector<StepPart>& parts) {
  std::vector<StepPart> sums;
  for (const StepPart& part : parts) {
    const auto same = std::ranges::find_if(
        sums, [&](const StepPart& sum) { return sum.pass == part.pass && sum.work == part.work; });
    if (same != sums.end()) {
      add(*same, part);
    } else {
      sums.push_back(part);
      sums.back().layer.clear();
    }
  }
  return sums;
}

StepPart total_of(const std::vector<StepPart>& parts) {
  StepPart sum;
  for (const StepPart& part : parts) add(sum, part);
  return sum;
}

void print_parts(const std::vector<StepPart>& parts, const Ceilings& ceilings) {
  const double all = total_of(parts).microseconds;
  fmt::print("{:<9} {:<22} {:<35} {:>8} {:>10} {:>7} {:>9} {:>9} {:>9}\n", "pass", "layer", "work",
             "launches", "us", "share", "GB/s", "GFLOP/s", "of limit");
  for (const StepPart& part : parts) {
    const Reach reach = reach_of(part, ceilings);
    const auto unless_too_short = [&](bool there, double value, const char* unit) {
      return there && part.microseconds > 0 ? fmt::format("{:.1f}{}", value, unit) : "-";
    };
    fmt::print("{:<9} {:<22} {:<35} {:>8} {:>10.2f} {:>5.1f} % {:>9} {:>9} {:>9}\n", part.pass,
               part.layer, part.work, part.launches, part.microseconds,
               100 * part.microseconds / all, unless_too_short(true, reach.gigabytes, ""),
               unless_too_short(part.cost.operations > 0, reach.gigaflops, ""),
               unless_too_short(true, 100 * reach.least / part.microseconds, " %"));
  }
}

nlohmann::ordered_json to_json(const StepPart& part, const Ceilings& ceilings) {
  const Reach reach = reach_of(part, ceilings);
  return {{"pass", part.pass},
          {"layer", part.layer},
          {"work", part.work},
          {"launches", part.launches},
          {"us", part.microseconds},
          {"bytes", part.cost.bytes},
          {"operations", part.cost.operations},
          {"gigabytes_per_second", reach.gigabytes},
          {"gigaflops", reach.gigaflops},
          {"least_us", reach.least}};
}

void bench_parts(Trainer& trainer, Backend& backend, const StepOptions& options,
                 double milliseconds, nlohmann::ordered_json& json) {
  const double seconds_a_step = 1e-3 * milliseconds;
  const auto updates =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(options.seconds / seconds_a_step), 4, 200);
  // In front of the parts and behind them, and of the two the better: others may be at work too.
  const RunConfig& config = trainer.config();
  const auto measure_ceilings = [&] {
    return backend.benches().measure_ceilings(config.train.precision, cpu_threads(config));
  };
  Ceilings ceilings = measure_ceilings();
  const std::vector<StepPart> parts = trainer.time_parts(updates);
  const Ceilings again = measure_ceilings();
  ceilings.bytes_per_second = std::max(ceilings.bytes_per_second, again.bytes_per_second);
  ceilings.operations_per_second =
      std::max(ceilings.operations_per_second, again.operations_per_second);
  const StepPart all = total_of(parts);
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
  fmt::print("{:<24} {:>10.4f} ms  timed one after the other\n\n", "the parts together",
             1e-3 * all.microseconds);
  print_parts(options.layers ? parts : by_work(parts), ceilings);
  fmt::print(
      "\nThe limit of a part is the slower of its bytes at the memory's rate and its operations at "
      "the product's.\nWhat lies in a cache can be faster, and a product of another shape.\n");
  json["ceilings"] = {{"bytes_per_second", ceilings.bytes_per_second},
                      {"operations_per_second", ceilings.operations_per_second}};
  json["bytes"] = all.cost.bytes;
  json["operations"] = all.cost.operations;
  json["traffic_ms"] = traffic;
  json["arithmetic_ms"] = arithmetic;
  json["parts_ms"] = 1e-3 * all.microseconds;
  for (const StepPart& part : parts) json["parts"].push_back(to_json(part, ceilings));
}

// ---- Replicas ----------------------------------------------------------------------------------

// Updates a second of `count` replicas that train at the same time, each in a thread of its own.
double updates_per_second(const RunConfig& config, Backend& backend, const ResidentData& data,
                          int count, std::int64_t updates) {
  std::vector<std::unique_ptr<Trainer>> trainers;
  for (int i = 0; i < count; ++i) {
    RunConfig own = config;
    own.seed += static_cast<std::uint64_t>(i);
    trainers.push_back(std::make_unique<Trainer>(own, backend, data));
    trainers.back()->time_updates(16);  // loads code, fills caches
  }
  std::latch start(1);
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto fail = [&] {
    const std::lock_guard lock(mutex);
    if (!failure) failure = std::current_exception();
    failed = true;
  };
  const auto train = [&](Trainer& trainer) {
    start.wait();
    try {
      for (std::int64_t done = 0; done < updates && !failed;) {
        done += trainer.time_updates(std::min<std::int64_t>(64, updates - done)).updates;
      }
    } catch (...) {
      fail();
    }
  };
  std::vector<std::thread> threads;
  try {
    for (auto& trainer : trainers) threads.emplace_back(train, std::ref(*trainer));
  } catch (...) {  // no more threads are to be had
    fail();
  }
  const auto begin = Clock::now();
  start.count_down();
  for (std::thread& thread : threads) thread.join();
  const double seconds = seconds_since(begin);
  if (failure) std::rethrow_exception(failure);
  return static_cast<double>(count * updates) / seconds;
}

void bench_replicas(const RunConfig& config, Backend& backend, const ResidentData& data,
                    const StepOptions& options, double milliseconds, nlohmann::ordered_json& json) {
  if (options.replicas.empty()) return;
  fmt::print("\n{:<10} {:>14} {:>16} {:>10}\n", "replicas", "updates a s", "images a s",
             "times one");
  // Long enough for one; where many share the device each does fewer.
  const auto updates = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(1e3 * options.seconds / milliseconds), 16, 1 << 14);
  const double one = updates_per_second(config, backend, data, 1, updates);
  for (const int count : options.replicas) {
    const std::int64_t own = std::max<std::int64_t>(16, updates / std::max(1, count / 4));
    const double rate = count == 1 ? one : updates_per_second(config, backend, data, count, own);
    const double images = rate * static_cast<double>(config.data.batch_size);
    fmt::print("{:<10} {:>14.1f} {:>16.0f} {:>10.2f}\n", count, rate, images, rate / one);
    std::fflush(stdout);
    json["replicas"].push_back({{"count", count},
                                {"updates_per_second", rate},
                                {"images_per_second", images},
                                {"times_one", rate / one}});
  }
}

void bench_step(const StepOptions& options) {
  const Peers peers(options.bench.peers);
  const RunConfig config = read_config(options.config.document());
  check_run(config);
  const auto backend = options.run.backend();
  check_precision(config, *backend);
  const ResidentData data = load_data(config.data, *backend);
  if (data.train->size() / config.data.batch_size < 2) {
    throw Error("an epoch has but one update, too few to time its parts; lower data.batch_size");
  }
  Trainer trainer(config, *backend, data);
  trainer.time_updates(1);
  const double first_update = process_seconds();
  BenchResults results("step", *backend, options.bench);
  nlohmann::ordered_json& json = results.json;
  const StepTiming t = time_steps(trainer, options.seconds);
  const Spread& ms = t.milliseconds;
  const auto batch = static_cast<double>(config.data.batch_size);
  const double images = 1e3 * batch / ms.median;
  fmt::print("\n{}: {} parameters, batch {}, {}\n\n", config.name,
             trainer.network().parameter_count, config.data.batch_size,
             to_string(config.train.precision));
  fmt::print("{:<24} {:>10.4f} ms  ({:.4f} .. {:.4f})\n", "step", ms.median, ms.least, ms.largest);
  fmt::print("{:<24} {:>10.0f}\n", "images per second", images);
  fmt::print("{:<24} {:>10.2f} us\n", "host time of a step", t.host_microseconds);
  fmt::print("{:<24} {:>10.2f} s   from the start of the program, data included\n", "first update",
             first_update);
  const std::int64_t launches = trainer.launches_per_update();
  if (launches > 0) fmt::print("{:<24} {:>10}\n", "launches of a step", launches);
  json.update({{"network", config.name},
               {"parameters", trainer.network().parameter_count},
               {"batch", config.data.batch_size},
               {"precision", to_string(config.train.precision)},
               {"step_ms", {{"median", ms.median}, {"least", ms.least}, {"largest", ms.largest}}},
               {"images_per_second", images},
               {"host_us", t.host_microseconds},
               {"first_update_seconds", first_update},
               {"launches", launches},
               {"parts", nlohmann::ordered_json::array()},
               {"replicas", nlohmann::ordered_json::array()}});
  // "graph-bf16"; 16 bits of either kind are compared with each other.
  const Precision precision = config.train.precision;
  const std::string peer_precision =
      "-" + std::string(to_string(precision == Precision::fp16 ? Precision::bf16 : precision));
  json["peers"] = peers.compare("ms", "ms", ms.median, [&](const nlohmann::json& row) {
    return row.value("network", "") == config.name &&
           row.value("batch", std::int64_t{0}) == config.data.batch_size &&
           row.value("mode", "").ends_with(peer_precision);
  });
  peers.note_device(backend->device());
  std::fflush(stdout);
  bench_parts(trainer, *backend, options, ms.median, json);
  std::fflush(stdout);
  bench_replicas(config, *backend, data, options, ms.median, json);
  results.write();
}

}  // namespace

void add_bench_step(CLI::App& bench) {
  // NaN is in every range, as it compares with none of its ends.
  const CLI::Validator finite(
      [](const std::string& text) {
        return std::isfinite(std::strtod(text.c_str(), nullptr)) ? "" : text + " is not a number";
      },
      "");
  auto options = std::make_shared<StepOptions>();
  CLI::App* command = bench.add_subcommand(
      "step", "A whole training step of a configuration's network, and what it is made of");
  options->config.add_to(*command);
  options->run.add_device_to(*command);
  command->add_option("--seconds", options->seconds, "how long each figure is measured for")
      ->type_name("S")
      ->check(CLI::Range(0.1, 600.0))
      ->check(finite);
  command->add_flag("--layers", options->layers, "print every layer's parts, not their sums");
  command
      ->add_option("--replicas", options->replicas,
                   "also so many replicas at the same time, as in 1,4,16")
      ->type_name("N,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 256));
  options->bench.add_to(*command);
  options->bench.add_peers_to(*command);
  command->callback([options] { bench_step(*options); });
}

}  // namespace preheat
