// The dependency rules between the folders, checked on the #include lines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A folder may include the folders to its right.
constexpr std::array<std::string_view, 11> order{"main",  "commands", "report",   "experiment",
                                                 "train", "backend",  "schedule", "optim",
                                                 "nn",    "data",     "config"};

constexpr std::string_view everyones = "host_device.h";

// Headers that compile for host and device, and which of these each may include.
const std::map<std::string_view, std::vector<std::string_view>> leaves{
    {"schedule/lr_schedule.h", {}},
    {"optim/step_state.h", {"schedule/lr_schedule.h"}},
    {"optim/sgd_momentum.h", {}},
    {"data/random.h", {}},
    {"data/epoch_order.h", {"data/random.h"}},
};

// Third-party headers, and the beginnings of the paths that may include them.
struct Library {
  std::string_view name;
  std::vector<std::string_view> headers;
  std::vector<std::string_view> homes;
};
const std::array<Library, 4> libraries{{
    {"CUDA",
     {"cuda", "cudnn", "cublas", "curand", "nvml", "nvtx", "cub/", "cooperative_groups", "thrust/",
      "device_launch_parameters"},
     {"src/backend/cuda/", "kernels/"}},
    {"oneDNN", {"dnnl", "oneapi/dnnl"}, {"src/backend/cpu/"}},
    {"yaml-cpp", {"yaml-cpp/"}, {"src/config/"}},
    {"CLI11", {"CLI/", "CLI11"}, {"src/main.cpp", "src/commands/"}},
}};

const std::vector<std::string_view> cuda_runtime{
    "cuda_runtime", "cuda_fp16",          "cuda_bf16",    "cuda_pipeline",
    "cuda/std/",    "cooperative_groups", "vector_types", "device_launch_parameters"};

bool starts_with_any(std::string_view text, const std::vector<std::string_view>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](std::string_view prefix) { return text.starts_with(prefix); });
}

// No directory and no extension: <vector>, but not <omp.h> or <fmt/format.h>.
bool is_standard(std::string_view header) {
  return header.find_first_of("./") == std::string_view::npos;
}

std::string_view without_extension(std::string_view path) {
  return path.substr(0, path.find_last_of('.'));
}

// The folder of a path below src/: "backend" of "backend/cpu/x.h", "main" of "main.cpp".
std::string_view folder_of(std::string_view path) {
  const std::size_t slash = path.find('/');
  return slash == std::string_view::npos ? without_extension(path) : path.substr(0, slash);
}

std::optional<std::size_t> rank_of(std::string_view folder) {
  const auto* const found = std::find(order.begin(), order.end(), folder);
  if (found == order.end()) return std::nullopt;
  return static_cast<std::size_t>(found - order.begin());
}

// What is wrong with `file` (relative to the root, "src/nn/network.h") including `header`; "" if
// nothing is.
std::string problem(std::string_view file, std::string_view header) {
  const auto say = [](auto... parts) {
    std::string text;
    ((text += parts), ...);
    return text;
  };
  if (header.starts_with(".") || header.starts_with("src/") || header.starts_with("/")) {
    return "names are relative to src/";
  }
  for (const Library& library : libraries) {
    if (starts_with_any(header, library.headers) && !starts_with_any(file, library.homes)) {
      std::string homes;
      for (const std::string_view home : library.homes)
        homes += say(homes.empty() ? "" : ", ", home);
      return say(library.name, " is for ", homes, " only");
    }
  }

  if (file.starts_with("kernels/")) {
    const bool is_shared = header.ends_with(".cuh") && header.find('/') == std::string_view::npos;
    const bool allowed = is_shared || header == everyones || leaves.contains(header) ||
                         header == "launch.h" || header == "kernels/launch.h" ||
                         starts_with_any(header, cuda_runtime) || is_standard(header);
    return allowed
               ? ""
               : "kernels/ includes only leaves, launch.h, its own .cuh, the CUDA runtime and the "
                 "standard library";
  }

  const std::string_view self = file.substr(std::string_view("src/").size());
  if (self == everyones) {
    return is_standard(header) ? "" : "host_device.h includes only the standard library";
  }
  if (const auto leaf = leaves.find(self); leaf != leaves.end()) {
    const auto& allowed = leaf->second;
    const bool fine = header == everyones || is_standard(header) ||
                      std::find(allowed.begin(), allowed.end(), header) != allowed.end();
    return fine ? ""
                : say("a leaf includes only the standard library, host_device.h and the leaves "
                      "below it");
  }
  if (header == everyones) return "";
  if (header == "launch.h" || header.starts_with("kernels/")) {
    if (!self.starts_with("backend/cuda/")) return "kernels/ is for src/backend/cuda/ only";
    return header == "kernels/launch.h"
               ? ""
               : "host code sees no header of kernels/ but kernels/launch.h";
  }

  const std::string_view folder = folder_of(self);
  const auto own = rank_of(folder);
  if (!own) return say("src/", folder, " is no folder of the house");
  if (header.find('/') == std::string_view::npos) {
    // <unistd.h> is the system's. A bare name of our own would be found only beside the file.
    return rank_of(folder_of(header)) ? "names are relative to src/" : "";
  }
  const auto other = rank_of(folder_of(header));
  if (!other) return "";
  if (*other < *own) return say(folder, "/ stands below ", folder_of(header), "/");
  if (folder != "backend" && header.starts_with("backend/") && header != "backend/backend.h") {
    return "what a backend is made of stays behind backend/backend.h";
  }
  for (const auto& [one, two] :
       {std::pair{"backend/cpu/", "backend/cuda/"}, std::pair{"backend/cuda/", "backend/cpu/"}}) {
    if (self.starts_with(one) && header.starts_with(two)) return "backends do not know each other";
  }
  return "";
}

// The name in an #include line; "" for a macro in its place, which would escape the rules.
std::optional<std::string> included(std::string_view line) {
  const auto skip = [&] {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  };
  const auto take = [&](std::string_view word) {
    skip();
    if (!line.starts_with(word)) return false;
    line.remove_prefix(word.size());
    return true;
  };
  if (!take("#") || !take("include")) return std::nullopt;
  skip();
  if (line.empty()) return std::nullopt;
  const char close = line[0] == '<' ? '>' : '"';
  if (line[0] != '<' && line[0] != '"') return "";
  line.remove_prefix(1);
  return std::string(line.substr(0, line.find(close)));
}

std::vector<std::string> violations(const std::string& file, std::istream& text) {
  std::vector<std::string> found;
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    const auto header = included(line);
    if (!header) continue;
    const std::string wrong =
        header->empty() ? "name the header, not a macro" : problem(file, *header);
    if (!wrong.empty()) {
      found.push_back(file + ":" + std::to_string(number) + ": includes " + *header + ": " + wrong);
    }
  }
  return found;
}

TEST(Layering, HoldsInTheSources) {
  const std::filesystem::path root = PREHEAT_SOURCE_DIR;
  std::string report;
  int files = 0;
  int includes = 0;
  for (const char* const folder : {"src", "kernels"}) {
    if (!std::filesystem::exists(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension();
      if (extension != ".h" && extension != ".cpp" && extension != ".cu" && extension != ".cuh") {
        continue;
      }
      ++files;
      std::stringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      for (std::string line; std::getline(text, line);) includes += included(line) ? 1 : 0;
      text.clear();
      text.seekg(0);
      const std::string name = entry.path().lexically_relative(root).generic_string();
      for (const std::string& line : violations(name, text)) report += line + "\n";
    }
  }
  EXPECT_EQ(report, "") << report;
  EXPECT_GE(files, 10) << "no sources at " << root;
  EXPECT_GE(includes, 50);
}

TEST(Layering, ReadsIncludeLines) {
  EXPECT_EQ(included("#include <vector>"), "vector");
  EXPECT_EQ(included("  #  include\t\"nn/network.h\"  // why"), "nn/network.h");
  EXPECT_EQ(included("#include CONFIG_HEADER"), "");
  EXPECT_EQ(included("// #include <vector>"), std::nullopt);
  EXPECT_EQ(included("#if __has_include(<vector>)"), std::nullopt);
  EXPECT_EQ(included("#pragma once"), std::nullopt);
}

TEST(Layering, NamesFileAndLine) {
  std::istringstream text("#pragma once\n\n#include <vector>\n#include \"train/trainer.h\"\n");
  EXPECT_THAT(violations("src/nn/network.h", text),
              ElementsAre("src/nn/network.h:4: includes train/trainer.h: nn/ stands below train/"));
}

struct Case {
  const char* file;
  const char* header;
};

TEST(Layering, AllowsWhatTheHouseDoes) {
  for (const Case& c : std::vector<Case>{
           {"src/main.cpp", "commands/train.h"},
           {"src/main.cpp", "CLI/CLI.hpp"},
           {"src/main.cpp", "config/error.h"},
           {"src/commands/schedule.cpp", "report/line_plot.h"},
           {"src/commands/train.cpp", "CLI/CLI.hpp"},
           {"src/train/trainer.cpp", "backend/backend.h"},
           {"src/backend/backend.cpp", "backend/cpu/cpu_backend.h"},
           {"src/backend/backend.cpp", "backend/cuda/cuda_backend.h"},
           {"src/backend/cpu/program.h", "oneapi/dnnl/dnnl.hpp"},
           {"src/backend/cpu/program.cpp", "backend/backend.h"},
           {"src/backend/cpu/program.cpp", "omp.h"},
           {"src/backend/cpu/program.cpp", "unistd.h"},
           {"src/backend/cuda/cuda_backend.cpp", "cudnn.h"},
           {"src/backend/cuda/cuda_backend.cpp", "cuda_runtime_api.h"},
           {"src/backend/cuda/cuda_backend.cpp", "kernels/launch.h"},
           {"src/schedule/schedule.cpp", "config/config.h"},
           {"src/config/document.cpp", "yaml-cpp/yaml.h"},
           {"src/config/document.cpp", "fmt/format.h"},
           {"src/schedule/lr_schedule.h", "host_device.h"},
           {"src/schedule/lr_schedule.h", "cmath"},
           {"src/optim/step_state.h", "schedule/lr_schedule.h"},
           {"src/optim/sgd_momentum.h", "cmath"},
           {"src/data/epoch_order.h", "data/random.h"},
           {"kernels/sgd_momentum.cu", "launch.h"},
           {"kernels/sgd_momentum.cu", "optim/sgd_momentum.h"},
           {"kernels/gather_batch.cu", "data/epoch_order.h"},
           {"kernels/gather_batch.cu", "cuda_runtime.h"},
           {"kernels/launch.h", "cstdint"},
       }) {
    EXPECT_EQ(problem(c.file, c.header), "") << c.file << " includes " << c.header;
  }
}

TEST(Layering, EveryRuleCanFail) {
  const struct {
    Case at;
    const char* why;
  } cases[] = {
      {{"src/config/config.cpp", "data/dataset.h"}, "config/ stands below data/"},
      {{"src/data/dataset.h", "nn/network.h"}, "data/ stands below nn/"},
      {{"src/nn/network.cpp", "optim/sgd_momentum.h"}, "nn/ stands below optim/"},
      {{"src/optim/extra.h", "schedule/schedule.h"}, "optim/ stands below schedule/"},
      {{"src/schedule/schedule.cpp", "backend/backend.h"}, "schedule/ stands below backend/"},
      {{"src/backend/backend.cpp", "train/trainer.h"}, "backend/ stands below train/"},
      {{"src/train/trainer.cpp", "experiment/compare.h"}, "train/ stands below experiment/"},
      {{"src/experiment/compare.cpp", "report/line_plot.h"}, "experiment/ stands below report/"},
      {{"src/report/line_plot_svg.cpp", "commands/train.h"}, "report/ stands below commands/"},
      {{"src/util/strings.cpp", "config/error.h"}, "no folder of the house"},
      {{"src/nn/network.cpp", "../train/trainer.h"}, "relative to src/"},
      {{"src/nn/network.cpp", "src/train/trainer.h"}, "relative to src/"},
      {{"src/host_device.h", "config/error.h"}, "only the standard library"},
      {{"src/schedule/lr_schedule.h", "config/config.h"}, "a leaf"},
      {{"src/schedule/lr_schedule.h", "optim/step_state.h"}, "a leaf"},
      {{"src/schedule/lr_schedule.h", "fmt/format.h"}, "a leaf"},
      {{"src/optim/step_state.h", "optim/sgd_momentum.h"}, "a leaf"},
      {{"src/optim/sgd_momentum.h", "optim/step_state.h"}, "a leaf"},
      {{"src/data/random.h", "data/epoch_order.h"}, "a leaf"},
      {{"src/data/epoch_order.h", "data/dataset.h"}, "a leaf"},
      {{"kernels/sgd_momentum.cu", "nn/network.h"}, "kernels/ includes only"},
      {{"kernels/sgd_momentum.cu", "fmt/format.h"}, "kernels/ includes only"},
      {{"kernels/sgd_momentum.cu", "cudnn.h"}, "kernels/ includes only"},
      {{"kernels/sgd_momentum.cu", "cublas_v2.h"}, "kernels/ includes only"},
      {{"src/train/trainer.cpp", "kernels/launch.h"}, "for src/backend/cuda/ only"},
      {{"src/backend/cpu/program.cpp", "launch.h"}, "for src/backend/cuda/ only"},
      {{"src/backend/cuda/cuda_backend.cpp", "kernels/reduce.cuh"}, "no header of kernels/"},
      {{"src/backend/backend.cpp", "cuda_runtime.h"}, "CUDA is for"},
      {{"src/backend/backend.h", "cudnn.h"}, "CUDA is for"},
      {{"src/train/trainer.cpp", "cublas_v2.h"}, "CUDA is for"},
      {{"src/backend/cpu/program.cpp", "cuda.h"}, "CUDA is for"},
      {{"src/backend/backend.h", "dnnl.hpp"}, "oneDNN is for"},
      {{"src/backend/cuda/cuda_backend.cpp", "oneapi/dnnl/dnnl.hpp"}, "oneDNN is for"},
      {{"kernels/launch.h", "dnnl.h"}, "oneDNN is for"},
      {{"src/schedule/schedule.cpp", "yaml-cpp/yaml.h"}, "yaml-cpp is for"},
      {{"src/main.cpp", "yaml-cpp/yaml.h"}, "yaml-cpp is for"},
      {{"src/config/config.cpp", "CLI/CLI.hpp"}, "CLI11 is for"},
      {{"src/train/trainer.cpp", "backend/cpu/cpu_backend.h"}, "behind backend/backend.h"},
      {{"src/commands/info.cpp", "backend/cuda/device.h"}, "behind backend/backend.h"},
      {{"src/backend/cpu/program.cpp", "backend/cuda/device.h"}, "do not know each other"},
      {{"src/backend/cuda/device.cpp", "backend/cpu/buffer.h"}, "do not know each other"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(problem(c.at.file, c.at.header), HasSubstr(c.why))
        << c.at.file << " includes " << c.at.header;
  }
}

TEST(Layering, AMacroDoesNotHideAnInclude) {
  std::istringstream text("#include HEADER\n");
  EXPECT_THAT(violations("src/nn/network.cpp", text), ElementsAre(HasSubstr("not a macro")));
}

}  // namespace
}  // namespace preheat
