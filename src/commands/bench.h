// What the benches have in common: where their figures go, and how they end.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "commands/bench_beside.h"

namespace CLI {
class App;
}

namespace preheat {

/// --json, --html, --compare and --peers.
struct BenchOptions {
  std::string json;
  std::string html;
  std::string compare;
  std::string peers;

  void add_to(CLI::App& app);
  void add_peers_to(CLI::App& app);

  /// Throws ConfigError where a file that is to be written is another one of these or `config`.
  void check(const std::string& config = "") const;
};

/// Ends the measurement that BenchResults::measure() runs where the user has asked to stop. To be
/// called between rounds; whatever is under way is dropped, so that a figure is whole or not there.
void stop_if_interrupted();

/// The figures of a bench as they are collected, with what they were measured on and, beside each,
/// the same of an earlier run.
class BenchResults {
 public:
  /// `bench` is what the page is to make of them (report/bench_page.h); `options` what was asked
  /// for, by name. From here on an interruption asks the measurement to stop. Throws Error where a
  /// file cannot be written: before anything is measured.
  BenchResults(const std::string& bench, Backend& backend, const BenchOptions& files,
               Earlier earlier, nlohmann::ordered_json options);

  nlohmann::ordered_json json;

  /// Takes note of a time in `unit`. `key` says what was timed, the same in every run. Returns how
  /// it stands beside the earlier one, to be printed at the end of its row: "  1.22 faster"; ""
  /// where there is nothing to compare with.
  std::string add(const std::string& key, const char* unit, const Spread& time);

  /// Whether the last one that was added has become faster or slower.
  bool last_has_changed() const;

  /// Lines on what makes the comparison doubtful: printed, and written with it.
  void note(const std::vector<std::string>& notes);

  /// What stands above that of add(); "" likewise.
  std::string head() const;

  /// Runs `work`, which measures and adds, to its end, to an interruption or to where it fails;
  /// then prints the condition of the device and the summary of the comparison, and writes the
  /// files, as interrupted where it did not end; where nothing was measured by then, nothing.
  /// Throws Error after an interruption, what `work` threw, and Error where a file cannot be
  /// written, when the other one has been.
  void measure(const std::function<void()>& work);

 private:
  void summarize();
  [[noreturn]] void refuse_to_write_nothing() const;

  Backend& backend_;
  const BenchOptions files_;
  const Earlier earlier_;
  std::set<std::string> keys_;
  std::vector<std::optional<Change>> changes_;  // by figure; nothing where it is new
};

void add_bench_schedule(CLI::App& bench);
void add_bench_update(CLI::App& bench);
void add_bench_step(CLI::App& bench);

}  // namespace preheat
