// Parses the command line, dispatches, and turns exceptions into exit codes:
// 0 done; 1 failed while running; 2 wrong usage or configuration; 3 `train` diverged.
#include <fmt/format.h>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>

#include "commands/commands.h"
#include "config/error.h"

namespace {

int fail(int code, const std::string& message) {
  fmt::print(stderr, "{}\n", message);
  return code;
}

// A thread of libgomp that waits for the others spins for milliseconds before it sleeps. On a
// machine with anything else to do it then holds the very core that the others wait for, and each
// of the hundred parallel regions of a step costs a time slice of the scheduler: 8 ms instead of
// 0.2. The library reads how long to spin once, while it is loaded, so the program starts over with
// it set.
void spin_briefly(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "1000", 1);
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) execv(self.c_str(), argv);  // returns only where it failed; then it is slow and right
}

int run(int argc, char** argv) {
  CLI::App app("preheat trains small CNNs and shows what learning-rate warmup does to them.",
               "preheat");
  app.set_version_flag("--version", std::string("preheat ") + PREHEAT_VERSION);
  app.require_subcommand(1);
  int exit_code = 0;
  preheat::add_train_command(app, exit_code);
  preheat::add_compare_command(app, exit_code);
  preheat::add_schedule_command(app);
  preheat::add_info_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help and --version
    return fail(2, fmt::format("preheat: {}; see preheat --help", e.what()));
  }
  // A full disk behind standard output would otherwise pass unnoticed.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    return fail(1, fmt::format("preheat: standard output: {}", std::strerror(errno)));
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  spin_briefly(argv);
  try {
    return run(argc, argv);
  } catch (const preheat::ConfigError& e) {
    return fail(2, e.what());
  } catch (const std::bad_alloc&) {
    return fail(1, "preheat: out of memory; lower data.batch_size");
  } catch (const std::exception& e) {
    return fail(1, std::string("preheat: ") + e.what());
  }
}
