#include "commands/bench.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <system_error>

#include "commands/commands.h"
#include "report/bench_page.h"
#include "report/label_text.h"
#include "train/atomic_file.h"

namespace preheat {

void BenchOptions::add_to(CLI::App& app) {
  app.add_option("--json", json, "write the figures")->type_name("FILE");
  app.add_option("--html", html, "write a page with the figures and their pictures")
      ->type_name("FILE");
}

void BenchOptions::add_peers_to(CLI::App& app) {
  app.add_option("--peers", peers, "what scripts/peers/ measured of PyTorch, to be printed beside")
      ->type_name("FILE");
}

BenchResults::BenchResults(const std::string& bench, Backend& backend, const BenchOptions& options)
    : backend_(backend), options_(options) {
  const auto place = [](const std::string& file) {
    std::error_code none;
    return std::filesystem::weakly_canonical(file, none);
  };
  if (!options.json.empty() && place(options.json) == place(options.html)) {
    throw ConfigError({"--html " + options.html, 0, 0, ""}, "is the file of --json as well",
                      "two files");
  }
  for (const std::string& file : {options.json, options.html}) {
    if (!file.empty()) AtomicFile{file};  // leaves nothing behind, and what was there as it was
  }
  json = {{"bench", bench},
          {"preheat", PREHEAT_VERSION},
          {"date",
           fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::chrono::system_clock::to_time_t(
                                                    std::chrono::system_clock::now())))},
          {"device", backend.device()},
          {"library", backend.library()},
          {"condition", {{"before", backend.benches().condition()}}}};
  fmt::print("{}\n", json["condition"]["before"].get<std::string>());
}

void BenchResults::write() {
  const std::string condition = backend_.benches().condition();
  json["condition"]["after"] = condition;
  fmt::print("\nafterwards: {}\n", condition);
  if (!options_.json.empty()) write_atomically(options_.json, json.dump(2) + "\n");
  if (!options_.html.empty()) write_atomically(options_.html, bench_page(json));
}

Peers::Peers(const std::string& file) : file_(file) {
  if (file.empty()) return;
  json_ = nlohmann::json::parse(read_file(file), nullptr, false);
  const auto is_time = [](const nlohmann::json& time) {
    return time.is_null() || (time.is_number() && time.get<double>() > 0);
  };
  const auto is_row = [&](const nlohmann::json& row) {
    return row.is_object() && row.value("mode", nlohmann::json("")).is_string() &&
           row.value("network", nlohmann::json("")).is_string() &&
           std::ranges::all_of(std::array{"tensors", "parameters", "batch"},
                               [&](const char* key) {
                                 return row.value(key, nlohmann::json(0)).is_number_integer();
                               }) &&
           is_time(row.value("us", nlohmann::json())) && is_time(row.value("ms", nlohmann::json()));
  };
  if (!json_.is_object() || !json_["rows"].is_array() || !json_["torch"].is_string() ||
      !json_["device"].is_string() || !std::ranges::all_of(json_["rows"], is_row)) {
    throw Error(file + ": is not what scripts/peers/gpu_step.py or gpu_update.py writes");
  }
}

nlohmann::ordered_json Peers::compared(const nlohmann::json& row, const char* key, const char* unit,
                                       double ours) const {
  const std::string name = clean(
      fmt::format("PyTorch {}, {}", json_["torch"].get<std::string>(), row.value("mode", "")));
  if (!row.contains(key) || !row[key].is_number()) {
    fmt::print("{:<51} {:>11}\n", name, "failed");
    return {{"name", name}, {key, nullptr}, {"ratio", nullptr}};
  }
  const double theirs = row[key];
  fmt::print("{:<51} {:>11.4f} {}  {:.2f} times ours\n", name, theirs, unit, theirs / ours);
  return {{"name", name}, {key, theirs}, {"ratio", theirs / ours}};
}

void Peers::say_missing() const {
  fmt::print("{:<51} {:>11}\n", "PyTorch", "not in " + file_);
}

void Peers::note_device(const std::string& device) const {
  if (file_.empty()) return;
  const std::string where = clean(json_["device"].get<std::string>());
  if (!where.empty() && device.starts_with(where)) return;
  fmt::print("note: {} was measured on {}; a ratio holds on one device only\n", file_, where);
}

void add_bench_command(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "What the parts of a step cost on this machine");
  bench->require_subcommand(1);
  add_bench_schedule(*bench);
  add_bench_update(*bench);
  add_bench_step(*bench);
}

}  // namespace preheat
