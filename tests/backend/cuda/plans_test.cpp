// Without a GPU: cuDNN has plans for every convolution of every shipped network on an H100, which
// is described to it as text, and the kernels compile to what they should.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "backend/cuda/cudnn_plans.h"
#include "backend/cuda/parameters.h"
#include "config/config.h"
#include "data/dataset.h"
#include "experiment/runs.h"
#include "experiment/sweep.h"
#include "nn/network.h"
#include "temporary_folder.h"

namespace preheat::cuda {
namespace {

kernels::Images images(std::int64_t batch, const ImageShape& shape) {
  return {batch, static_cast<std::int32_t>(shape.height), static_cast<std::int32_t>(shape.width),
          static_cast<std::int32_t>(shape.channels)};
}

// The network of every shipped configuration and of each of its arms and cells; appends their batch
// sizes to `batches`.
std::vector<Network> shipped_networks(std::vector<std::int64_t>& batches) {
  std::vector<Network> networks;
  const std::filesystem::path configs = std::filesystem::path(PREHEAT_SOURCE_DIR) / "configs";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(configs)) {
    const std::string name = entry.path().string();
    if (entry.path().extension() != ".yaml" || name.find("/schedules/") != std::string::npos) {
      continue;
    }
    const Document document = load_document(name);
    const RunConfig base = read_config(document);
    std::vector<Arm> arms{Arm{}};  // the base itself
    const auto add = [&](const std::vector<Arm>& more) {
      arms.insert(arms.end(), more.begin(), more.end());
    };
    if (base.compare) add(base.compare->arms);
    if (base.sweep) add(cells_of(base.sweep->axes));
    if (base.find_lr) add(base.find_lr->arms);
    for (const RunConfig& config : arm_configs(document, arms)) {
      const DatasetFacts& data = facts(config.data.dataset);
      networks.push_back(build_network(config, data.shape, data.classes));
      batches.push_back(config.data.batch_size);
    }
  }
  return networks;
}

TEST(CudaPlans, EveryConvolutionOfEveryShippedNetworkHasOneOnAnH100) {
  const std::string device =
      bytes_of(std::filesystem::path(PREHEAT_SOURCE_DIR) / "tests/backend/cuda/h100.json");
  const ConvolutionPlanner planner(device);
  std::vector<std::int64_t> batches;
  const std::vector<Network> networks = shipped_networks(batches);
  EXPECT_THAT(batches, testing::IsSupersetOf({512, 1024})) << "which only arms have";
  std::set<std::string> tried;
  for (std::size_t n = 0; n < networks.size(); ++n) {
    for (const Precision precision :
         {Precision::fp32, Precision::tf32, Precision::bf16, Precision::fp16}) {
      const Network network = padded_network(networks[n], precision);
      for (const Op& op : network.ops) {
        if (op.kind != OpKind::conv) continue;
        for (const Pass pass : {Pass::forward, Pass::data_gradient, Pass::weight_gradient}) {
          if (pass == Pass::data_gradient && op.input < 0) continue;
          const Convolution c{pass,
                              images(batches[n], op.in),
                              images(batches[n], op.out),
                              op.kernel,
                              op.stride,
                              op.padding,
                              precision,
                              true,
                              static_cast<std::int32_t>(zero_channels(network, op))};
          if (!tried.insert(to_string(c)).second) continue;
          const bool few = op.in.channels - c.zero_channels <= 4 && op.out.channels % 8 == 0 &&
                           op.kernel == 3 && pass != Pass::data_gradient;
          bool has_own = false;
          for (const auto& plan : kernel_plans(c)) {
            EXPECT_LE(plan->workspace_bytes(), ConvolutionPlanner::workspace_limit);
            has_own = has_own || plan->name() == "few channels";
          }
          EXPECT_EQ(has_own, few) << to_string(c);
          const auto plans = planner.candidates(c, 16);
          ASSERT_FALSE(plans.empty()) << to_string(c);
          const auto again = planner.candidates(c, 1, plans.back()->name());
          ASSERT_EQ(again.size(), 1u) << to_string(c);
          EXPECT_EQ(again[0]->name(), plans.back()->name());
          std::set<std::string> names;
          bool has_tensor_cores = false;
          for (const auto& plan : plans) {
            EXPECT_TRUE(names.insert(plan->name()).second) << to_string(c) << " " << plan->name();
            EXPECT_TRUE(plan->is_deterministic()) << to_string(c);
            EXPECT_LE(plan->workspace_bytes(), ConvolutionPlanner::workspace_limit);
            has_tensor_cores = has_tensor_cores || plan->uses_tensor_cores();
          }
          const bool small = precision == Precision::bf16 || precision == Precision::fp16;
          if (precision == Precision::fp32) {
            EXPECT_FALSE(has_tensor_cores) << to_string(c);
          }
          if (small) {
            EXPECT_TRUE(has_tensor_cores) << to_string(c);
          }
        }
      }
    }
  }
  EXPECT_GT(tried.size(), 700u);
}

TEST(CudaPlans, AConvolutionIsNamedByItsRealAndItsZeroChannels) {
  Convolution c{.pass = Pass::weight_gradient,
                .x = {128, 28, 28, 8},
                .y = {128, 28, 28, 32},
                .kernel = 3,
                .padding = 1,
                .precision = Precision::bf16};
  EXPECT_EQ(to_string(c), "weight gradient 128x28x28x8 3x3/1+1 -> 128x28x28x32 bf16");
  EXPECT_TRUE(kernel_plans(c).empty());
  c.zero_channels = 7;
  EXPECT_EQ(to_string(c), "weight gradient 128x28x28x1+7 3x3/1+1 -> 128x28x28x32 bf16");
  EXPECT_EQ(kernel_plans(c).size(), 1u);
  c.pass = Pass::forward;
  c.moments = true;
  EXPECT_EQ(to_string(c), "forward 128x28x28x1+7 3x3/1+1 -> 128x28x28x32 bf16 with moments");
}

TEST(CudaPlans, ImagesOf16BitsArePaddedAndNothingElseIs) {
  const RunConfig config = read_config(parse_document("name: small", "test.yaml"));
  const Network network = build_network(config, {28, 28, 1}, 10);
  const Network same = padded_network(network, Precision::tf32);
  EXPECT_EQ(same.arena_size, network.arena_size);
  EXPECT_EQ(same.input, network.input);
  const Network padded = padded_network(network, Precision::bf16);
  EXPECT_EQ(padded.input.channels, 8);
  EXPECT_EQ(padded.ops[0].in.channels, 8);
  EXPECT_EQ(zero_channels(padded, padded.ops[0]), 7);
  EXPECT_EQ(zero_channels(padded, padded.ops[1]), 0);
  EXPECT_EQ(padded.parameters[padded.ops[0].weight].shape.back(), 8);
  for (std::size_t i = 1; i < network.parameters.size(); ++i) {
    EXPECT_EQ(padded.parameters[i].size, network.parameters[i].size);
    EXPECT_EQ(padded.parameters[i].offset % 64, 0);
    EXPECT_GE(padded.parameters[i].offset,
              padded.parameters[i - 1].offset + padded.parameters[i - 1].size);
  }
  const Parameter& last = padded.parameters.back();
  EXPECT_LE(last.offset + last.size, padded.arena_size);
}

std::set<std::string> architectures_built() {
  std::istringstream list(PREHEAT_CUDA_ARCHITECTURES);
  std::set<std::string> built;
  for (std::string one; std::getline(list, one, ':');) built.insert(one);
  return built;
}

// Each kernel as it was compiled for the program: nothing on an H100, at most 16 registers
// elsewhere.
TEST(CudaKernels, SpillNextToNothing) {
  std::istringstream objects(PREHEAT_KERNEL_OBJECTS);
  ASSERT_FALSE(objects.str().empty());
  for (std::string object; std::getline(objects, object, ':');) {
    SCOPED_TRACE(object);
    std::istringstream lines(bytes_of(object + ".ptxas"));
    std::string kernel;
    std::string architecture;
    std::set<std::string> architectures;
    for (std::string line; std::getline(lines, line);) {
      if (line.find("Compiling entry function") != std::string::npos) {
        kernel = line;
        architecture = line.substr(line.rfind("sm_"));
        architectures.insert(architecture);
      }
      if (line.find("spill stores") == std::string::npos) continue;
      if (architecture == "sm_90'") {
        EXPECT_THAT(line, testing::HasSubstr(" 0 bytes spill stores, 0 bytes spill loads"))
            << kernel;
      }
      int stores = -1;
      ASSERT_EQ(std::sscanf(line.c_str(), "%*d bytes stack frame, %d", &stores), 1) << line;
      EXPECT_LE(stores, 64) << kernel;
    }
    EXPECT_EQ(architectures.size(), architectures_built().size());
  }
}

// On an H100 a multiprocessor has 65536 registers and gives them to a thread by eights: with 48 it
// holds five blocks of 256 threads, with 64 two of 512. A thread of the large blocks has two packs
// in flight. The update of fp32 has no 16-bit gradients to convert.
TEST(CudaKernels, TheUpdateTakesFewRegisters) {
  if (!architectures_built().contains("90")) GTEST_SKIP() << "not built for sm_90";
  std::istringstream objects(PREHEAT_KERNEL_OBJECTS);
  int updates = 0;
  for (std::string object; std::getline(objects, object, ':');) {
    if (object.find("sgd_momentum") == std::string::npos) continue;
    std::istringstream lines(bytes_of(object + ".ptxas"));
    std::string kernel;
    for (std::string line; std::getline(lines, line);) {
      if (line.find("Compiling entry function") != std::string::npos) kernel = line;
      const std::size_t used = line.find("Used ");
      if (used == std::string::npos || kernel.find("6update") == std::string::npos ||
          kernel.find("'sm_90'") == std::string::npos) {
        continue;
      }
      int registers = 0;
      ASSERT_EQ(std::sscanf(line.c_str() + used, "Used %d registers", &registers), 1) << line;
      const bool is_large = kernel.find("Li512E") != std::string::npos;
      const bool is_fp32 = kernel.find("Nothing") != std::string::npos;
      EXPECT_LE(registers, is_large ? 64 : is_fp32 ? 40 : 48) << kernel;
      ++updates;
    }
  }
  EXPECT_EQ(updates, 4 * 2 * 2);  // element types, sizes, with and without norms
}

// The output of nvcc, run in the source folder so that a space in its path does no harm.
std::string compiled(const std::string& arguments) {
  const std::string command = fmt::format("cd '{}' && '{}' -std=c++20 -Isrc -Ikernels {} 2>&1",
                                          PREHEAT_SOURCE_DIR, PREHEAT_NVCC, arguments);
  std::string text;
  FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  char buffer[4096];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  pclose(pipe);
  return text;
}

// The lines of each kernel of a file, in PTX, by its mangled name.
std::map<std::string, std::vector<std::string>> ptx_of(const std::string& file) {
  std::istringstream ptx(compiled("-arch=compute_90 -ptx -o - kernels/" + file));
  std::map<std::string, std::vector<std::string>> kernels;
  std::string kernel;
  for (std::string line; std::getline(ptx, line);) {
    if (line.find(".entry") != std::string::npos) kernel = line;
    if (!kernel.empty()) kernels[kernel].push_back(line);
  }
  EXPECT_FALSE(kernels.empty()) << ptx.str();
  return kernels;
}

bool has(const std::string& line, const char* text) {
  return line.find(text) != std::string::npos;
}

TEST(CudaKernels, TheUpdateMoves16BytesAndComputesNothingInDouble) {
  int updates = 0;
  int sums = 0;  // of gradients over passes
  for (const auto& [kernel, lines] : ptx_of("sgd_momentum.cu")) {
    const bool is_update = has(kernel, "update");
    if (!is_update && !has(kernel, "accumulate")) continue;
    SCOPED_TRACE(kernel);
    ++(is_update ? updates : sums);
    int wide_loads = 0;
    int wide_stores = 0;
    for (const std::string& line : lines) {
      EXPECT_FALSE(has(line, ".f64 ") && has(line, "%fd") && !has(line, "mov") && !has(line, "ld."))
          << line;
      wide_loads += has(line, "ld.global") && has(line, ".v4.") ? 1 : 0;
      wide_stores += has(line, "st.global") && has(line, ".v4.") ? 1 : 0;
    }
    EXPECT_GE(wide_loads, is_update ? 3 : 2);
    EXPECT_GE(wide_stores, is_update ? 2 : 1);
  }
  EXPECT_GE(updates, 8);
  EXPECT_GE(sums, 3);
}

// One instruction for a pack, which the compiler does not do by itself (load() of device.cuh).
TEST(CudaKernels, PacksAreLoadedAndStoredWhole) {
  int kernels = 0;
  for (const char* file : {"pool.cu", "tanh.cu", "fp32_weight_gradient.cu"}) {
    for (const auto& [kernel, lines] : ptx_of(file)) {
      const bool has_packs = file == std::string("fp32_weight_gradient.cu")
                                 ? has(kernel, "add_partials")
                                 : !has(kernel, "Li1E");
      if (!has_packs) continue;
      SCOPED_TRACE(kernel);
      ++kernels;
      for (const std::string& line : lines) {
        const bool is_access = has(line, "ld.global") || has(line, "st.global");
        EXPECT_TRUE(!is_access || has(line, ".v4.")) << line;
      }
    }
  }
  EXPECT_GE(kernels, (4 + 2) * 3 + 1);
}

}  // namespace
}  // namespace preheat::cuda
