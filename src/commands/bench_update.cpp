#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <cstdio>
#include <memory>
#include <utility>

#include "commands/bench.h"
#include "commands/options.h"
#include "config/counted.h"
#include "data/dataset.h"
#include "nn/network.h"

namespace preheat {
namespace {

struct UpdateOptions {
  RunOptions run;
  BenchOptions bench;
  bool quick = false;
  std::int64_t parameters = 0;
  std::int64_t tensors = 1;
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

// The 161 tensors of ResNet-50 (He et al. 2015, table 1), as in torchvision.
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

std::string number_text(std::int64_t size) {
  const auto bits = static_cast<std::uint64_t>(size);
  return std::has_single_bit(bits) ? fmt::format("2^{}", std::countr_zero(bits))
                                   : std::to_string(size);
}

// Into tensors of sizes as equal as possible.
UpdateSet split(std::int64_t parameters, std::int64_t tensors) {
  UpdateSet set{fmt::format("{} in {}", number_text(parameters), counted(tensors, "tensor")), {}};
  for (std::int64_t i = 0; i < tensors; ++i) {
    set.tensors.push_back(parameters * (i + 1) / tensors - parameters * i / tensors);
  }
  return set;
}

// The networks' tensors, then one tensor of growing size, then one size in a growing number of
// tensors.
std::vector<UpdateSet> usual_sets(bool quick, std::int64_t most) {
  std::vector<UpdateSet> sets = {
      tensors_of("small CNN", "name: small"),
      tensors_of("ResNet-20",
                 "model: {layers: [conv: {out: 16, batch_norm: true}, residual_stage: {blocks: 3, "
                 "out: 16}, residual_stage: {blocks: 3, out: 32, stride: 2}, residual_stage: "
                 "{blocks: 3, out: 64, stride: 2}, global_avg_pool, linear: {out: 10}]}"),
      resnet50_tensors()};
  constexpr int full_sizes[] = {16, 19, 22, 25, 28, 29};
  constexpr int quick_sizes[] = {16, 21, 26};
  const std::span<const int> sizes = quick ? std::span<const int>(quick_sizes) : full_sizes;
  for (const int bits : sizes) {
    if (std::int64_t{1} << bits <= most) sets.push_back(split(std::int64_t{1} << bits, 1));
  }
  for (std::int64_t tensors = 1; tensors <= 1000; tensors *= quick ? 1000 : 10) {
    sets.push_back(split(1 << 20, tensors));
  }
  std::erase_if(sets, [&](const UpdateSet& set) { return set.parameters() > most; });
  return sets;
}

std::string share(double value) {
  return value > 0 ? fmt::format("{:.1f} %", 100 * value) : std::string("-");
}

std::string way_text(const UpdateTiming& t) {
  return fmt::format("{}{}", to_string(t.way), t.cold ? ", cold" : "");
}

// "870826 parameters, 16 tensors"
std::string size_text(const UpdateTiming& t) {
  return fmt::format("{} parameter{}, {} tensor{}", t.parameters, t.parameters == 1 ? "" : "s",
                     t.tensors, t.tensors == 1 ? "" : "s");
}

// The same in every run that times the same variant and set.
std::string key_of(const UpdateTiming& t) {
  return fmt::format("{}, {}, fp32: {} ({})", t.variant, way_text(t), size_text(t), t.set);
}

// `launch`: the row of an empty kernel, on a backend that has launches; others have no column for
// it.
void print_head(const UpdateTiming& t, const std::vector<UpdateTiming>& launch,
                const std::string& earlier) {
  fmt::print("\n{}: {}\n", t.set, size_text(t));
  fmt::print("{:<36} {:<14} {:>8} {:>11} {:>21}{} {:>9} {:>7} {:>8}{}\n", "", "", "launches",
             "median us", "least .. largest",
             launch.empty() ? "" : fmt::format(" {:>10}", "over empty"), "GB/s", "of copy",
             "of 3r+2w", earlier);
}

void print_row(const UpdateTiming& t, const std::vector<UpdateTiming>& launch,
               const std::string& earlier) {
  const Spread& us = t.microseconds;
  std::string over_empty;
  if (!launch.empty()) {
    const auto over = us_over_empty(t, launch);
    over_empty = fmt::format(" {:>10}", over ? fmt::format("{:.2f}", *over) : "-");
  }
  fmt::print("{:<36} {:<14} {:>8} {:>11.2f} {:>9.2f} .. {:>8.2f}{} {:>9.1f} {:>7} {:>8}{}\n",
             t.variant, way_text(t), t.launches > 0 ? std::to_string(t.launches) : "-", us.median,
             us.least, us.largest, over_empty, t.gigabytes, share(t.share_of_copy),
             share(t.share_of_traffic), earlier);
}

nlohmann::ordered_json to_json(const UpdateTiming& t, const std::vector<UpdateTiming>& launch) {
  const auto over_empty = us_over_empty(t, launch);
  return {{"set", t.set},
          {"variant", t.variant},
          {"how", to_string(t.way)},
          {"cold", t.cold},
          {"parameters", t.parameters},
          {"tensors", t.tensors},
          {"launches", t.launches},
          {"us", t.microseconds.median},
          {"least_us", t.microseconds.least},
          {"largest_us", t.microseconds.largest},
          {"us_over_empty", over_empty ? nlohmann::ordered_json(*over_empty) : nullptr},
          {"bytes", t.bytes},
          {"gigabytes_per_second", t.gigabytes},
          {"share_of_copy", t.share_of_copy},
          {"share_of_traffic", t.share_of_traffic}};
}

void measure(const UpdateOptions& options, const std::vector<UpdateSet>& sets, Benches& benches,
             const Peers& peers, BenchResults& results) {
  const Ceilings ceilings = benches.measure_ceilings(Precision::fp32, 0);
  results.json["ceilings"] = {{"bytes_per_second", ceilings.bytes_per_second},
                              {"operations_per_second", ceilings.operations_per_second}};
  std::int64_t changed_ceilings = 0;
  stop_if_interrupted();
  const std::vector<UpdateTiming> launch = benches.time_launch();
  const auto add = [&](const std::vector<UpdateTiming>& rows) {
    if (!rows.empty()) print_head(rows.front(), launch, results.head());
    for (const UpdateTiming& t : rows) {
      print_row(t, launch, results.add(key_of(t), "us", t.microseconds));
      results.json["rows"].push_back(to_json(t, launch));
      if (t.way == SubmitMode::ceiling && results.last_has_changed()) ++changed_ceilings;
    }
    std::fflush(stdout);
  };
  add(launch);
  for (const UpdateSet& set : sets) {
    const std::vector<UpdateTiming> rows =
        benches.time_updates(set, options.quick, stop_if_interrupted);
    add(rows);
    const auto ours = std::ranges::find_if(rows, [](const UpdateTiming& t) {
      return t.variant == "fused" && !t.cold &&
             (t.way == SubmitMode::graph || t.way == SubmitMode::calls);
    });
    for (auto& peer :
         peers.compare("us", "us", ours->microseconds.median, [&](const nlohmann::json& row) {
           return row.value("tensors", std::int64_t{0}) == ours->tensors &&
                  row.value("parameters", std::int64_t{0}) == ours->parameters;
         })) {
      peer["set"] = set.name;
      peer["parameters"] = ours->parameters;
      peer["tensors"] = ours->tensors;
      results.json["peers"].push_back(std::move(peer));
    }
  }
  if (changed_ceilings > 0) {
    results.note({fmt::format(
        "{} of the ceilings, which do not run the update, have changed too: so has the machine",
        changed_ceilings)});
  }
}

void bench_update(const UpdateOptions& options) {
  options.bench.check();
  const Peers peers(options.bench.peers);
  Earlier earlier(options.bench.compare, "update");
  const auto backend = options.run.backend();
  Benches& benches = backend->benches();
  std::vector<UpdateSet> sets;
  if (options.parameters > 0) {
    if (options.tensors > options.parameters) {
      throw ConfigError({fmt::format("--tensors {}", options.tensors), 0, 0, ""},
                        "are more than there are parameters",
                        fmt::format("at most {}", options.parameters));
    }
    sets = {split(options.parameters, options.tensors)};
  } else {
    // Larger sets take long on a CPU and show nothing new.
    constexpr std::int64_t max_on_cpu = std::int64_t{1} << 25;
    const std::int64_t room = benches.max_update_floats();
    sets = usual_sets(options.quick, backend->name() == "cpu" ? std::min(room, max_on_cpu) : room);
  }
  // A row's key includes its set, so the sets are no option.
  BenchResults results("update", *backend, options.bench, std::move(earlier),
                       {{"--quick", options.quick}});
  results.json["rows"] = nlohmann::ordered_json::array();
  results.json["peers"] = nlohmann::ordered_json::array();
  results.measure([&] {
    measure(options, sets, benches, peers, results);
    peers.note_device(backend->device());
    fmt::print(
        "\nThe first update of every variant was checked against the reference: bit for bit, or "
        "within 1e-6\nif it takes several passes. Shares are of ceilings measured in the same run. "
        "Above 100 % the data\nare in a cache; a copy on a CPU also reads what it overwrites, "
        "which is not counted.\n");
  });
}

}  // namespace

void add_bench_update(CLI::App& bench) {
  auto options = std::make_shared<UpdateOptions>();
  CLI::App* command = bench.add_subcommand(
      "update", "Time the update against the memory's limit and other implementations");
  options->run.add_device_to(*command);
  command->add_flag("--quick", options->quick, "fewer sizes and rounds");
  CLI::Option* parameters = command
                                ->add_option("--parameters", options->parameters,
                                             "this many parameters instead of the default sets")
                                ->type_name("N")
                                ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  command
      ->add_option("--tensors", options->tensors,
                   "number of tensors to split them into (default 1)")
      ->type_name("N")
      ->check(CLI::Range(1, 32767))
      ->needs(parameters);
  options->bench.add_to(*command);
  options->bench.add_peers_to(*command);
  command->callback([options] { bench_update(*options); });
}

}  // namespace preheat
