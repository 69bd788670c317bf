// Common parts of the benches: the output of their figures, and how they end.
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

  /// Throws ConfigError if an output file is the same as another of these files or `config`.
  void check(const std::string& config = "") const;
};

/// Throws if the user has asked to stop, which ends the measurement that BenchResults::measure()
/// runs. Call it between rounds; an unfinished round is dropped, so that every figure is complete
/// or absent.
void stop_if_interrupted();

/// Collects the figures of a bench, together with the conditions of the measurement and, for each
/// figure, its value in an earlier run.
class BenchResults {
 public:
  /// `bench` selects the page to make (report/bench_page.h); `options` are the requested options by
  /// name. From here on an interrupt asks the measurement to stop and, if there are files to write,
  /// so does an output that nobody reads any more. Throws Error if a file cannot be written, before
  /// anything is measured.
  BenchResults(const std::string& bench, Backend& backend, const BenchOptions& files,
               Earlier earlier, nlohmann::ordered_json options);

  nlohmann::ordered_json json;

  /// Records a time in `unit`. `key` says what was timed and is the same in every run. Returns the
  /// comparison with the earlier run, to print at the end of the row: "  1.22 faster"; "" if there
  /// is nothing to compare with.
  std::string add(const std::string& key, const char* unit, const Spread& time);

  /// Whether the last added figure has become faster or slower.
  bool last_has_changed() const;

  /// Prints and records lines on what makes the comparison doubtful.
  void note(const std::vector<std::string>& notes);

  /// The column head for the result of add(); "" likewise.
  std::string head() const;

  /// Runs `work`, which measures and adds, until it ends, is interrupted or fails. Then prints the
  /// condition of the device and the summary of the comparison, and writes the files, marked as
  /// interrupted if `work` did not end; writes nothing if nothing was measured. Throws Error after
  /// an interrupt, what `work` threw, or Error if a file cannot be written (after writing the other
  /// one).
  void measure(const std::function<void()>& work);

 private:
  void summarize();
  [[noreturn]] void refuse_to_write_nothing() const;

  Backend& backend_;
  const BenchOptions files_;
  const Earlier earlier_;
  std::set<std::string> keys_;
  std::vector<std::optional<Change>> changes_;  // by figure; std::nullopt if it is new
};

void add_bench_schedule(CLI::App& bench);
void add_bench_update(CLI::App& bench);
void add_bench_step(CLI::App& bench);

}  // namespace preheat
