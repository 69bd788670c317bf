#include "commands/options.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <system_error>

#include "config/error.h"
#include "report/report.h"
#include "train/run_folder.h"

namespace preheat {
namespace {

// Atomic, since any thread may receive a signal and all of them ask for it.
std::atomic<int> signals{0};
static_assert(std::atomic<int>::is_always_lock_free);  // as a signal handler needs

std::atomic<bool> output_is_lost{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// Every further write raises the signal again: that must not end the program while it saves.
extern "C" void note_broken_pipe(int) {
  output_is_lost = true;
}

extern "C" void count_signal(int signal) {
  if (++signals > 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void Overrides::add_to(CLI::App& app) {
  app.add_option("--set", texts, "override a key of the configuration; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all();
}

Document Overrides::applied_to(const std::string& path) const {
  std::vector<Override> parsed;
  for (const std::string& text : texts) parsed.push_back(parse_override(text));
  return with_overrides(load_document(path), parsed);
}

void ConfigOptions::add_to(CLI::App& app, bool required) {
  app.add_option("CONFIG", path, "YAML file; configs/reference.yaml explains every key")
      ->required(required);
  overrides.add_to(app);
}

Document ConfigOptions::document(const std::string& resume) const {
  if (!path.empty()) return overrides.applied_to(path);
  if (resume.empty()) throw CLI::RequiredError("CONFIG");
  config_in(resume);  // reports its errors as a damaged file, not as a typing mistake
  return overrides.applied_to(resume + "/config.yaml");
}

void RunOptions::add_device_to(CLI::App& app) {
  app.add_option("--device", device, "auto (default) | cpu | cuda")->type_name("DEVICE");
}

void RunOptions::add_to(CLI::App& app, const std::string& more) {
  add_device_to(app);
  app.add_option("--out", out, "output folder (default: runs/<name>/<time>-...)")->type_name("DIR");
  auto* quiet_flag = app.add_flag("--quiet", quiet, "print errors only");
  app.add_flag("--verbose", verbose, "print more: " + more)->excludes(quiet_flag);
}

std::unique_ptr<Backend> RunOptions::backend() const {
  const auto choice = value_named<DeviceChoice>(device);
  if (!choice) {
    throw ConfigError({"--device " + device, 0, 0, ""}, "is not a device", "auto, cpu or cuda");
  }
  std::string why_cpu;
  auto backend = make_backend(*choice, &why_cpu);
  if (!quiet) {
    fmt::print("device: {}, {}{}\n", backend->device(), backend->library(),
               why_cpu.empty() ? "" : fmt::format(" (--device auto took the CPU: {})", why_cpu));
  }
  return backend;
}

void require_own_files(const GivenFiles& read, const GivenFiles& written) {
  std::map<std::filesystem::path, std::string> taken;
  const auto take = [&](const std::string& option, const std::string& file) {
    std::error_code none;
    const auto path = std::filesystem::absolute(file, none);
    return taken.try_emplace(std::filesystem::weakly_canonical(path, none), option);
  };
  for (const auto& [option, file] : read) {
    if (!file.empty()) take(option, file);
  }
  for (const auto& [option, file] : written) {
    if (file.empty()) continue;
    const auto [other, is_own] = take(option, file);
    if (!is_own) {
      throw ConfigError({fmt::format("{} {}", option, file), 0, 0, ""},
                        "is the same file as " + other->second, "another file");
    }
  }
}

bool on_terminal() {
  return isatty(STDOUT_FILENO) != 0;
}

int terminal_columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

void catch_interrupts() {
  std::signal(SIGTERM, count_signal);
  // Ignored: SIGINT by a shell's background commands, SIGHUP under nohup.
  for (const int signal : {SIGINT, SIGHUP}) {
    if (std::signal(signal, count_signal) == SIG_IGN) std::signal(signal, SIG_IGN);
  }
}

void catch_broken_pipe() {
  if (std::signal(SIGPIPE, note_broken_pipe) == SIG_IGN) std::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() {
  return signals > 0 || output_is_lost;
}

std::optional<std::filesystem::path> write_page_last(const std::filesystem::path& folder,
                                                     int code) {
  try {
    return write_report(folder);
  } catch (const Error& e) {
    if (code == 0) throw;
    fmt::print(stderr, "preheat: {}\n", e.what());
    return std::nullopt;
  }
}

std::string passes_text(const DataConfig& data) {
  return data.micro_batch ? fmt::format(" in passes of {}", *data.micro_batch) : "";
}

std::string loss_text(double loss) {
  if (std::isnan(loss)) return "nan";  // whatever its sign
  return loss < 1e4 ? fmt::format("{:.4f}", loss) : fmt::format("{:.1e}", loss);
}

std::string memory_text(std::size_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string memory_text(const Trainer& trainer) {
  const MemoryUse memory = trainer.memory();
  const std::size_t diagnostics = trainer.diagnostics_memory();
  return fmt::format("{} network, {} activations, {} workspace{}", memory_text(memory.parameters),
                     memory_text(memory.activations), memory_text(memory.workspace),
                     diagnostics > 0 ? ", " + memory_text(diagnostics) + " diagnostics" : "");
}

std::string duration_text(double seconds) {
  const auto whole = std::llround(seconds);
  return whole >= 3600 ? fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
                       : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string accuracy_text(double share) {
  return fmt::format("{:.2f} %", 100 * share);
}

}  // namespace preheat
