// What the benches have in common: where their figures go, and whom they are compared with.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "backend/backend.h"

namespace CLI {
class App;
}

namespace preheat {

/// --json, --html and --peers.
struct BenchOptions {
  std::string json;
  std::string html;
  std::string peers;

  void add_to(CLI::App& app);
  void add_peers_to(CLI::App& app);
};

/// The figures of a bench as they are collected, and with them what they were measured on.
class BenchResults {
 public:
  /// `bench`: what the page is to make of them (report/bench_page.h). Throws ConfigError where both
  /// files are one, and Error where one cannot be written: before anything is measured.
  BenchResults(const std::string& bench, Backend& backend, const BenchOptions& options);

  nlohmann::ordered_json json;

  /// To the files that were asked for, with the condition of the device now. Throws Error.
  void write();

 private:
  Backend& backend_;
  const BenchOptions options_;
};

/// What scripts/peers/gpu_step.py or gpu_update.py measured.
class Peers {
 public:
  /// "": none. Throws Error where the file is missing or is not as they write it.
  explicit Peers(const std::string& file);

  /// Prints the times in `key`, in `unit`, of the rows that `matches`, each with how many times
  /// ours it is, or that there is none; returns them as [{"name", key, "ratio"}].
  template <class Matches>
  nlohmann::ordered_json compare(const char* key, const char* unit, double ours,
                                 const Matches& matches) const {
    nlohmann::ordered_json found = nlohmann::ordered_json::array();
    if (file_.empty()) return found;
    for (const auto& row : json_["rows"]) {
      if (matches(row)) found.push_back(compared(row, key, unit, ours));
    }
    if (found.empty()) say_missing();
    return found;
  }

  /// A note where they were measured on another device than this one.
  void note_device(const std::string& device) const;

 private:
  nlohmann::ordered_json compared(const nlohmann::json& row, const char* key, const char* unit,
                                  double ours) const;
  void say_missing() const;

  std::string file_;
  nlohmann::json json_;
};

void add_bench_schedule(CLI::App& bench);
void add_bench_update(CLI::App& bench);
void add_bench_step(CLI::App& bench);

}  // namespace preheat
