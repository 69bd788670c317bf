// Parses the command line, dispatches, and turns exceptions into exit codes:
// 0 done; 1 failed while running; 2 wrong usage or configuration; 3 `train` diverged.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "commands/commands.h"
#include "config/error.h"
#include "config/nearest.h"

namespace {

int fail(int code, const std::string& message) {
  fmt::print(stderr, "{}\n", preheat::one_line(message));
  return code;
}

// A libgomp thread that waits for the others spins for milliseconds before it sleeps. If the
// machine is busy, it then occupies the very core that the others wait for, and each of the hundred
// parallel regions of a step costs a scheduler time slice: 8 ms instead of 0.2. The library reads
// the spin count once, while it is loaded, so the program restarts itself with it set.
void spin_briefly(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "1000", 1);
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  // Under another name it is the dynamic loader, which would parse our arguments as its own.
  const bool is_preheat = self.filename() == std::filesystem::path(argv[0]).filename();
  if (!error && is_preheat)
    execv(self.c_str(), argv);  // returns only on failure: then slow, but correct
}

// The error for a first word that is not a command; empty if it is one.
std::string unknown_command(const CLI::App& app, const std::string& name) {
  std::vector<std::string> commands;
  for (const CLI::App* command : app.get_subcommands({})) commands.push_back(command->get_name());
  if (std::ranges::find(commands, name) != commands.end()) return "";
  const std::vector<std::string> near = preheat::nearest(name, commands);
  return fmt::format("preheat: '{}' is not a command{}; {}", name,
                     app.get_parent() != nullptr ? " of " + app.get_name() : "",
                     near.empty() ? fmt::format("there are {}", fmt::join(commands, ", "))
                                  : fmt::format("did you mean {}?", near.front()));
}

// The error for an argument without any text, which would be taken as one that is not given; ""
// if there is none. A script writes --resume "$DIR" or --resume=$DIR with a variable that is unset.
std::string empty_argument(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    const std::string_view given = argv[i];
    const std::string_view before = argv[i - 1];
    if (given.starts_with("--") && given.find('=') == given.size() - 1) {
      return fmt::format("preheat: {}: the value is empty", given.substr(0, given.size() - 1));
    }
    if (!given.empty()) continue;
    return fmt::format("preheat: the argument after {} is empty", before);
  }
  return "";
}

int run(int argc, char** argv) {
  if (const std::string empty = empty_argument(argc, argv); !empty.empty()) return fail(2, empty);
  CLI::App app("preheat trains small CNNs and shows what learning-rate warmup does to them.",
               "preheat");
  app.set_version_flag("--version", std::string("preheat ") + PREHEAT_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 success, 1 runtime error or interrupted, 2 wrong usage or configuration, 3 "
      "`train` diverged.");
  int exit_code = 0;
  preheat::add_train_command(app, exit_code);
  preheat::add_compare_command(app, exit_code);
  preheat::add_sweep_command(app, exit_code);
  preheat::add_find_lr_command(app, exit_code);
  preheat::add_report_command(app);
  preheat::add_schedule_command(app);
  preheat::add_bench_command(app);
  preheat::add_info_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help and --version
    const CLI::App* at = &app;
    for (int i = 1; i < argc && argv[i][0] != '-' && !at->get_subcommands({}).empty(); ++i) {
      const std::string unknown = unknown_command(*at, argv[i]);
      if (!unknown.empty()) return fail(2, unknown);
      at = at->get_subcommand(argv[i]);
    }
    return fail(2, fmt::format("preheat: {}; see preheat --help", e.what()));
  }
  // A full disk behind standard output would otherwise go unnoticed. Of an earlier write that
  // failed the reason is no longer known.
  const bool is_flushed = std::fflush(stdout) == 0;
  if (!is_flushed || std::ferror(stdout) != 0) {
    return fail(1, fmt::format("preheat: standard output: {}",
                               is_flushed ? "cannot be written" : std::strerror(errno)));
  }
  return exit_code;
}

// A closed standard stream's descriptor would be reused by the next file opened, and messages would
// end up between that file's rows.
void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) < 0 && errno == EBADF) open("/dev/null", O_RDWR);
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  spin_briefly(argv);
  try {
    return run(argc, argv);
  } catch (const preheat::ConfigError& e) {
    return fail(2, e.what());
  } catch (const std::bad_alloc&) {
    return fail(1, "preheat: out of memory");
  } catch (const std::exception& e) {
    return fail(1, std::string("preheat: ") + e.what());
  }
}
