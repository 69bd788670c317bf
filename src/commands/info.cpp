#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "backend/backend.h"
#include "commands/commands.h"
#include "config/error.h"
#include "data/dataset.h"

namespace preheat {
namespace {

void info_command() {
  const auto row = [](const std::string& name, const std::string& value) {
    fmt::print("{:<15}{}\n", name, value);
  };
  row("preheat", PREHEAT_VERSION);
  const auto cpu = make_backend(DeviceChoice::cpu);
  row("cpu", cpu->device() + ", " + cpu->library());
  std::string why_no_cuda;
  const auto best = make_backend(DeviceChoice::automatic, &why_no_cuda);
  row("cuda", why_no_cuda.empty() ? best->device() + ", " + best->library() : why_no_cuda);
  for (const DatasetName name :
       {DatasetName::fashion_mnist, DatasetName::mnist, DatasetName::cifar10}) {
    DataConfig config;
    config.dataset = name;
    const std::string label(to_string(name));
    try {
      row(label, find_dataset(config).string());
    } catch (const Error&) {
      row(label, "not found (data/README.md says where preheat looks)");
    }
  }
}

}  // namespace

void add_info_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("info", "Show devices, libraries, versions and the data found");
  command->callback([] { info_command(); });
}

}  // namespace preheat
