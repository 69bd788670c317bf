// Shared by several subcommands: their options and their output.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "train/trainer.h"

namespace CLI {
class App;
}

namespace preheat {

/// --set.
struct Overrides {
  std::vector<std::string> texts;

  void add_to(CLI::App& app);
  Document applied_to(const std::string& path) const;  // the file with the overrides applied
};

/// CONFIG and --set.
struct ConfigOptions {
  std::string path;
  Overrides overrides;

  void add_to(CLI::App& app, bool required = true);

  /// CONFIG with the overrides; if no CONFIG is given, that of the folder `resume`, if given.
  /// Throws ConfigError, and Error if the folder's is damaged.
  Document document(const std::string& resume = "") const;
};

/// --device, --out, --quiet and --verbose of the commands that train.
struct RunOptions {
  std::string device = "auto";
  std::string out;
  bool quiet = false;
  bool verbose = false;

  void add_to(CLI::App& app, const std::string& more);  // `more`: what --verbose adds
  void add_device_to(CLI::App& app);                    // only --device

  /// The backend; prints which one it is, and why `auto` took the CPU. Throws ConfigError for an
  /// unknown device, and Error for one that this machine lacks.
  std::unique_ptr<Backend> backend() const;
};

/// Files by the options that named them; "" if not given.
using GivenFiles = std::vector<std::pair<std::string, std::string>>;

/// Throws ConfigError if an output file is also the file of another option, read or written.
void require_own_files(const GivenFiles& read, const GivenFiles& written);

/// Whether standard output is a terminal, and its width (80 if it is not).
bool on_terminal();
int terminal_columns();

/// From now on the first SIGINT, SIGTERM or SIGHUP asks the work to stop; a second one ends the
/// program.
void catch_interrupts();

/// From now on a write to a pipe that nobody reads any more asks the work to stop as well, in place
/// of ending the program: `preheat train c.yaml | head` saves the run. For work that is saved.
void catch_broken_pipe();

/// Whether the work was asked to stop.
bool interrupted();

/// Makes the page of a run or an experiment from its folder, once everything else has been said and
/// the exit code is known: a page that cannot be made hides neither. Returns its path. Throws Error
/// if the code is 0; with another code says why on standard error and returns std::nullopt.
std::optional<std::filesystem::path> write_page_last(const std::filesystem::path& folder, int code);

std::string passes_text(const DataConfig& data);  // " in passes of 16", or "" if there is only one
std::string loss_text(double loss);               // "0.4321", "2.1e+25", "nan"
std::string memory_text(std::size_t bytes);       // "12.3 MiB"
std::string duration_text(double seconds);        // "1:05"
std::string accuracy_text(double share);          // "91.23 %"

/// "0.1 MiB network, 2.3 MiB activations, 0.4 MiB workspace", and the diagnostics' if it has any.
std::string memory_text(const Trainer& trainer);

}  // namespace preheat
