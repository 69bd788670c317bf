#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "commands/commands.h"
#include "commands/options.h"
#include "data/dataset.h"
#include "nn/network.h"
#include "schedule/schedule.h"
#include "train/atomic_file.h"
#include "train/trainer.h"

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

// What scripts/peers/gpu_step.py and gpu_update.py write.
struct Peers {
  std::string file;
  nlohmann::json json;

  // Throws Error where the file is missing or is none of theirs.
  explicit Peers(const std::string& path) : file(path) {
    if (path.empty()) return;
    json = nlohmann::json::parse(read_file(path), nullptr, false);
    if (!json.is_object() || !json["rows"].is_array() || !json["torch"].is_string() ||
        !json["device"].is_string()) {
      throw Error(path + ": is not what scripts/peers/gpu_step.py or gpu_update.py writes");
    }
  }

  bool given() const { return !file.empty(); }

  // PyTorch's times in `key` of the rows that `matches`, each with how much longer it is than ours.
  template <class Matches>
  void print(const std::string& device, const char* key, const char* unit, double ours,
             const Matches& matches) const {
    if (!given()) return;
    bool found = false;
    for (const auto& row : json["rows"]) {
      if (!matches(row)) continue;
      found = true;
      const std::string name =
          fmt::format("PyTorch {}, {}", json["torch"].get<std::string>(), row.value("mode", ""));
      if (row.contains(key) && row[key].is_number()) {
        const double theirs = row[key];
        fmt::print("{:<51} {:>11.4f} {}  {:.2f} times ours\n", name, theirs, unit, theirs / ours);
      } else {
        fmt::print("{:<51} {:>11}\n", name, "failed");
      }
    }
    if (!found) fmt::print("{:<51} {:>11}\n", "PyTorch", "not in " + file);
    const std::string where = json["device"];
    if (found && !device.starts_with(where)) {
      fmt::print("note: {} was measured on {}; a ratio holds on one device only\n", file, where);
    }
  }
};

struct StepTiming {
  double milliseconds = 0;  // median over the rounds
  double least = 0;
  double largest = 0;
  double host_microseconds = 0;  // that a step keeps the calling thread busy
};

// Whole epochs of updates, as a run makes them. On a GPU train() returns before the work is done,
// and how long it takes to return is what a step costs the host.
StepTiming time_steps(Trainer& trainer, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  const std::int64_t steps = std::min<std::int64_t>(64, trainer.schedule().run.steps_per_epoch);
  constexpr std::size_t least_rounds = 5;
  trainer.time_updates(steps);  // loads code, fills caches
  std::vector<double> total;
  std::vector<double> host;
  const auto start = Clock::now();
  while (total.size() < least_rounds || since(start) < 1e3 * seconds) {
    const UpdateTime time = trainer.time_updates(steps);
    if (time.updates < steps) continue;  // the end of an epoch
    total.push_back(1e3 * time.total / static_cast<double>(steps));
    host.push_back(1e6 * time.host / static_cast<double>(steps));
  }
  std::ranges::sort(total);
  std::ranges::sort(host);
  return {total[total.size() / 2], total.front(), total.back(), host[host.size() / 2]};
}

struct StepOptions {
  ConfigOptions config;
  RunOptions run;
  double seconds = 2;
  std::string json;
  std::string peers;
};

void bench_step(const StepOptions& options) {
  const Peers peers(options.peers);
  const RunConfig config = read_config(options.config.document());
  check_run(config);
  const auto backend = options.run.backend();
  check_precision(config, *backend);
  const ResidentData data = load_data(config.data, *backend);
  Trainer trainer(config, *backend, data);
  const StepTiming t = time_steps(trainer, options.seconds);
  const auto batch = static_cast<double>(config.data.batch_size);
  const double images = 1e3 * batch / t.milliseconds;
  fmt::print("{}: {} parameters, batch {}, {}\n\n", config.name, trainer.network().parameter_count,
             config.data.batch_size, to_string(config.train.precision));
  fmt::print("{:<24} {:>10.4f} ms  ({:.4f} .. {:.4f})\n", "step", t.milliseconds, t.least,
             t.largest);
  fmt::print("{:<24} {:>10.0f}\n", "images per second", images);
  fmt::print("{:<24} {:>10.2f} us\n", "host time of a step", t.host_microseconds);
  const std::int64_t launches = trainer.launches_per_update();
  if (launches > 0) fmt::print("{:<24} {:>10}\n", "launches of a step", launches);
  peers.print(backend->device(), "ms", "ms", t.milliseconds, [&](const nlohmann::json& row) {
    return row.value("network", "") == config.name &&
           row.value("batch", std::int64_t{0}) == config.data.batch_size;
  });
  if (options.json.empty()) return;
  const nlohmann::ordered_json results = {
      {"device", backend->device()},
      {"library", backend->library()},
      {"network", config.name},
      {"parameters", trainer.network().parameter_count},
      {"batch", config.data.batch_size},
      {"precision", to_string(config.train.precision)},
      {"step_ms", {{"median", t.milliseconds}, {"least", t.least}, {"largest", t.largest}}},
      {"images_per_second", images},
      {"host_us", t.host_microseconds},
      {"launches", launches}};
  write_atomically(options.json, results.dump(2) + "\n");
}

struct UpdateOptions {
  RunOptions run;
  bool quick = false;
  std::string json;
  std::string peers;
};

UpdateSet tensors_of(const std::string& name, const std::string& yaml) {
  const RunConfig config = read_config(parse_document(yaml, name));
  const DatasetFacts& data = facts(config.data.dataset);
  UpdateSet set{name, {}};
  for (const Parameter& p : build_network(config, data.shape, data.classes).parameters) {
    set.tensors.push_back(p.size);
  }
  return set;
}

// The 161 tensors of ResNet-50 (He et al. 2015, table 1), as torchvision has them.
UpdateSet resnet50_tensors() {
  UpdateSet set{"ResNet-50", {7 * 7 * 3 * 64, 64, 64}};
  const auto conv = [&](std::int64_t kernel, std::int64_t in, std::int64_t out) {
    set.tensors.insert(set.tensors.end(), {kernel * kernel * in * out, out, out});
  };
  std::int64_t in = 64;
  const std::pair<std::int64_t, int> stages[] = {{64, 3}, {128, 4}, {256, 6}, {512, 3}};
  for (const auto& [width, blocks] : stages) {
    for (int block = 0; block < blocks; ++block) {
      conv(1, in, width);
      conv(3, width, width);
      conv(1, width, 4 * width);
      if (block == 0) conv(1, in, 4 * width);
      in = 4 * width;
    }
  }
  set.tensors.insert(set.tensors.end(), {2048 * 1000, 1000});
  return set;
}

std::vector<UpdateSet> update_sets(bool quick, bool on_gpu) {
  std::vector<UpdateSet> sets = {
      tensors_of("small CNN", "name: small"),
      tensors_of("ResNet-20",
                 "model: {layers: [conv: {out: 16, batch_norm: true}, residual_stage: {blocks: 3, "
                 "out: 16}, residual_stage: {blocks: 3, out: 32, stride: 2}, residual_stage: "
                 "{blocks: 3, out: 64, stride: 2}, global_avg_pool, linear: {out: 10}]}"),
      resnet50_tensors()};
  for (std::int64_t size = 1 << 16; size <= (on_gpu ? 1 << 29 : 1 << 25); size *= quick ? 32 : 8) {
    sets.push_back(
        {fmt::format("one tensor of 2^{}", std::countr_zero(std::uint64_t(size))), {size}});
  }
  return sets;
}

void bench_update(const UpdateOptions& options) {
  const Peers peers(options.peers);
  const auto backend = options.run.backend();
  const bool on_gpu = backend->name() == "cuda";
  const auto rows = backend->time_updates(update_sets(options.quick, on_gpu), options.quick);
  nlohmann::ordered_json json = {{"device", backend->device()},
                                 {"library", backend->library()},
                                 {"rows", nlohmann::ordered_json::array()}};
  double ours = 0;  // of the set at hand, in us
  std::string set;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const UpdateTiming& t = rows[i];
    if (t.set != set) {
      set = t.set;
      fmt::print("\n{}: {} parameters, {} tensors\n", set, t.parameters, t.tensors);
      fmt::print("{:<36} {:<14} {:>8} {:>11} {:>21} {:>9} {:>7} {:>8}\n", "", "", "launches",
                 "median us", "least .. largest", "GB/s", "of copy", "of 3r+2w");
    }
    const auto share = [](double value) {
      return value > 0 ? fmt::format("{:.1f} %", 100 * value) : std::string("-");
    };
    fmt::print("{:<36} {:<14} {:>8} {:>11.2f} {:>9.2f} .. {:>8.2f} {:>9.1f} {:>7} {:>8}\n",
               t.variant, t.how, t.launches, t.microseconds, t.least, t.largest, t.gigabytes,
               share(t.share_of_copy), share(t.share_of_traffic));
    json["rows"].push_back({{"set", t.set},
                            {"variant", t.variant},
                            {"how", t.how},
                            {"parameters", t.parameters},
                            {"tensors", t.tensors},
                            {"launches", t.launches},
                            {"us", t.microseconds},
                            {"least_us", t.least},
                            {"largest_us", t.largest},
                            {"bytes", t.bytes},
                            {"gigabytes_per_second", t.gigabytes},
                            {"share_of_copy", t.share_of_copy},
                            {"share_of_traffic", t.share_of_traffic}});
    if (t.variant == "fused" && (t.how == "graph" || t.how == "calls")) ours = t.microseconds;
    if (t.tensors > 1 && (i + 1 == rows.size() || rows[i + 1].set != set)) {
      peers.print(backend->device(), "us", "us", ours, [&](const nlohmann::json& row) {
        return row.value("tensors", std::int64_t{0}) == t.tensors &&
               row.value("parameters", std::int64_t{0}) == t.parameters;
      });
    }
  }
  if (!options.json.empty()) write_atomically(options.json, json.dump(2) + "\n");
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

  constexpr const char* peers_help =
      "what scripts/peers/ measured of PyTorch, to be printed beside";
  auto update = std::make_shared<UpdateOptions>();
  CLI::App* update_command =
      bench->add_subcommand("update", "The update beside what the memory allows and alternatives");
  update->run.add_device_to(*update_command);
  update_command->add_flag("--quick", update->quick, "fewer sizes, fewer rounds");
  update_command->add_option("--json", update->json, "write the figures")->type_name("FILE");
  update_command->add_option("--peers", update->peers, peers_help)->type_name("FILE");
  update_command->callback([update] { bench_update(*update); });

  auto step = std::make_shared<StepOptions>();
  CLI::App* step_command =
      bench->add_subcommand("step", "A whole training step of a configuration's network");
  step->config.add_to(*step_command);
  step->run.add_device_to(*step_command);
  step_command->add_option("--seconds", step->seconds, "how long it is timed")
      ->type_name("S")
      ->check(CLI::Range(0.1, 600.0));
  step_command->add_option("--json", step->json, "write the figures")->type_name("FILE");
  step_command->add_option("--peers", step->peers, peers_help)->type_name("FILE");
  step_command->callback([step] { bench_step(*step); });
}

}  // namespace preheat
