#include "report/report.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <system_error>

#include "commands/commands.h"
#include "config/atomic_file.h"
#include "config/error.h"

namespace preheat {
namespace {

struct ReportOptions {
  std::vector<std::string> folders;
  std::string file;
};

// Protects what a run has recorded from a mistyped name, and a page of another program from the
// default name. Throws Error.
void check_is_page(const std::filesystem::path& file) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(file, none) || std::filesystem::is_empty(file, none))
    return;
  if (!is_page(read_file(file))) {
    throw Error(file.string() +
                ": exists and is not a page of preheat's; choose another name with -o");
  }
}

void report(const ReportOptions& options) {
  const std::vector<std::filesystem::path> folders(options.folders.begin(), options.folders.end());
  std::filesystem::path file = options.file;
  if (file.empty()) file = folders.size() == 1 ? folders.front() / report_name : report_name;
  check_is_page(file);
  write_report(folders, file);
  fmt::print("{}\n", file.string());
}

}  // namespace

void add_report_command(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* command = app.add_subcommand("report", "Write one HTML page for runs and experiments");
  command
      ->add_option("DIR", options->folders,
                   "folders of runs or experiments, or folders that contain them")
      ->required();
  command
      ->add_option("-o,--output", options->file,
                   "output file (default: report.html, in DIR if there is only one, else in the "
                   "current folder); a file that is not a page of preheat's is never overwritten")
      ->type_name("FILE");
  command->callback([options] { report(*options); });
}

}  // namespace preheat
