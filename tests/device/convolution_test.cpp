// Our own kernels as the trial of plans sees them: where they are offered, and that they compute
// what cuDNN does.
#include "backend/cuda/convolution.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "backend/cuda/convolution_plans.h"
#include "backend/cuda/cudnn_plans.h"
#include "kernels/device_test.h"

namespace preheat::cuda {
namespace {

constexpr Pass all_passes[] = {Pass::forward, Pass::data_gradient, Pass::weight_gradient};
constexpr Precision small_precisions[] = {Precision::bf16, Precision::fp16};

Convolution convolution_of(Pass pass, Precision precision, std::int32_t in, std::int32_t out) {
  return {.pass = pass,
          .x = {3, 9, 7, in},
          .y = {3, 9, 7, out},
          .kernel = 3,
          .padding = 1,
          .precision = precision};
}

std::vector<std::string> names_of(const Convolution& c) {
  std::vector<std::string> names;
  for (const auto& plan : kernel_plans(c)) names.push_back(plan->name());
  return names;
}

class CudaConvolution : public kernels::AsyncCopyTest {};

TEST_F(CudaConvolution, HasAKernelOfOurOwnForTensorCores) {
  for (const Pass pass : all_passes) {
    for (const Precision precision : small_precisions) {
      for (const std::int32_t in : {16, 32, 64}) {
        for (const std::int32_t out : {16, 32, 64}) {
          Convolution c = convolution_of(pass, precision, in, out);
          EXPECT_THAT(names_of(c), testing::ElementsAre("tensor cores")) << to_string(c);
          c.deterministic = false;
          EXPECT_THAT(names_of(c), testing::ElementsAre("tensor cores")) << to_string(c);
        }
      }
    }
  }
}

TEST_F(CudaConvolution, GivesTheMomentsOfItsOutputIn16Bits) {
  const auto gives_moments = [](Pass pass, Precision precision, std::int32_t channels) {
    const auto plans = kernel_plans(convolution_of(pass, precision, channels, 32));
    EXPECT_EQ(plans.size(), 1u);
    return !plans.empty() && plans.front()->gives_moments();
  };
  for (const std::int32_t channels : {1, 32}) {  // few channels, and tensor cores
    for (const Precision precision : small_precisions) {
      EXPECT_TRUE(gives_moments(Pass::forward, precision, channels));
      EXPECT_FALSE(gives_moments(Pass::weight_gradient, precision, channels));
    }
    EXPECT_FALSE(gives_moments(Pass::forward, Precision::fp32, channels));
  }
  EXPECT_FALSE(gives_moments(Pass::data_gradient, Precision::bf16, 32));
}

TEST_F(CudaConvolution, HasNoneForTensorCoresElsewhere) {
  for (const Pass pass : all_passes) {
    const auto expect_none = [&](const auto& change) {
      Convolution c = convolution_of(pass, Precision::bf16, 32, 64);
      change(c);
      EXPECT_THAT(names_of(c), testing::Not(testing::Contains("tensor cores"))) << to_string(c);
    };
    expect_none([](Convolution& c) { c.precision = Precision::fp32; });
    expect_none([](Convolution& c) { c.precision = Precision::tf32; });
    expect_none([](Convolution& c) {
      c.stride = 2;
      c.y.height = 5;
      c.y.width = 4;
    });
    expect_none([](Convolution& c) {
      c.kernel = 1;
      c.padding = 0;
    });
    expect_none([](Convolution& c) { c.kernel = c.padding = 5; });
    expect_none([](Convolution& c) {
      c.padding = 0;
      c.y.height = 7;
      c.y.width = 5;
    });
    for (const std::int32_t channels : {8, 24, 48, 128}) {
      expect_none([&](Convolution& c) { c.x.channels = channels; });
      expect_none([&](Convolution& c) { c.y.channels = channels; });
    }
  }
}

// Three that began before any had chosen anything, as processes do.
TEST_F(CudaConvolution, WhatOneProcessChoosesHoldsForTheOthers) {
  namespace fs = std::filesystem;
  const CudnnHandle handle = make_cudnn_handle();
  const fs::path folder = fs::path(testing::TempDir()) / ("choices-" + std::to_string(seed_));
  FairSharedMutex device;
  const auto saved = [&] {
    std::vector<std::string> keys;
    for (const auto& file : fs::directory_iterator(folder)) {
      if (file.path().extension() != ".json") continue;
      std::ifstream in(file.path());
      const auto choices = nlohmann::json::parse(in);
      for (const auto& [key, name] : choices.items()) {
        EXPECT_FALSE(name.get<std::string>().empty());
        keys.push_back(key.substr(0, key.find(" | ")));
      }
    }
    return keys;
  };
  ConvolutionPlans first(handle.get(), device, "a device", folder);
  ConvolutionPlans second(handle.get(), device, "a device", folder);
  const Convolution a = convolution_of(Pass::data_gradient, Precision::bf16, 16, 16);
  const Convolution b = convolution_of(Pass::data_gradient, Precision::bf16, 16, 32);
  ConvolutionPlans third(handle.get(), device, "a device", folder);
  first.choose(a);
  second.choose(b);
  EXPECT_THAT(saved(), testing::UnorderedElementsAre(to_string(a), to_string(b)));

  // As if the first had chosen what its trial did not.
  fs::path path;
  for (const auto& file : fs::directory_iterator(folder)) {
    if (file.path().extension() == ".json") path = file.path();
  }
  std::string other;
  std::ifstream in(path);
  auto choices = nlohmann::json::parse(in);
  for (auto& [key, name] : choices.items()) {
    if (!key.starts_with(to_string(a))) continue;
    const std::string trials_choice = name;
    const ConvolutionPlanner planner(handle.get());
    const auto theirs = planner.candidates(a, 1);
    ASSERT_FALSE(theirs.empty());
    other = trials_choice == "tensor cores" ? theirs.front()->name() : "tensor cores";
    name = other;
  }
  std::ofstream(path) << choices;
  EXPECT_EQ(third.choose(a)->name(), other);

  // A name that no plan has.
  for (auto& [key, name] : choices.items()) name = "none";
  std::ofstream(path) << choices;
  ConvolutionPlans fourth(handle.get(), device, "a device", folder);
  const std::string again = fourth.choose(a)->name();
  EXPECT_NE(again, "none");
  std::ifstream after(path);
  choices = nlohmann::json::parse(after);
  for (const auto& [key, name] : choices.items()) {
    EXPECT_EQ(name, key.starts_with(to_string(a)) ? again : "none");
  }
  fs::remove_all(folder);
}

// As if its process were suspended.
TEST_F(CudaConvolution, ALockThatStaysTakenIsNotWaitedForForEver) {
  namespace fs = std::filesystem;
  const CudnnHandle handle = make_cudnn_handle();
  const fs::path folder = fs::path(testing::TempDir()) / ("locked-" + std::to_string(seed_));
  FairSharedMutex device;
  ConvolutionPlans plans(handle.get(), device, "a device", folder, std::chrono::milliseconds(30));
  plans.choose(convolution_of(Pass::data_gradient, Precision::bf16, 16, 16));
  const auto file_named = [&](const char* extension) {
    for (const auto& file : fs::directory_iterator(folder)) {
      if (file.path().extension() == extension) return file.path();
    }
    return fs::path();
  };
  const int lock = open(file_named(".lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  plans.choose(convolution_of(Pass::data_gradient, Precision::bf16, 16, 32));
  std::ifstream in(file_named(".json"));
  EXPECT_EQ(nlohmann::json::parse(in).size(), 2u);
  close(lock);
  fs::remove_all(folder);
}

// Small integers, whose sums are exact: every plan rounds the same number.
TEST_F(CudaConvolution, OfAllPlansIsTheSame) {
  const CudnnHandle handle = make_cudnn_handle();
  const ConvolutionPlanner planner(handle.get());
  for (const Pass pass : all_passes) {
    for (const Precision precision : small_precisions) {
      const Convolution c = convolution_of(pass, precision, 16, 32);
      const auto run = [&](const ConvolutionPlan& plan) {
        std::mt19937 random(seed_);
        std::vector<float> values[] = {std::vector<float>(c.x.size()),
                                       std::vector<float>(9 * c.x.channels * c.y.channels),
                                       std::vector<float>(c.y.size())};
        for (auto& array : values) {
          for (float& v : array) v = static_cast<float>(random() % 5) - 2;
        }
        auto& result = values[pass == Pass::forward ? 2 : pass == Pass::data_gradient ? 0 : 1];
        result.assign(result.size(), NAN);
        const kernels::Element element = element_of(precision);
        const kernels::DeviceElements x(element, values[0]), w(element, values[1]),
            y(element, values[2]);
        const kernels::DeviceBytes workspace(plan.workspace_bytes());
        plan.run(handle.get(), nullptr, {x.data(), w.data(), y.data(), workspace.data()});
        return pass == Pass::forward         ? y.values()
               : pass == Pass::data_gradient ? x.values()
                                             : w.values();
      };
      const auto theirs = planner.candidates(c, 1);
      ASSERT_EQ(theirs.size(), 1u) << to_string(c);
      const std::vector<float> expected = run(*theirs.front());
      const auto ours = kernel_plans(c);
      ASSERT_FALSE(ours.empty()) << to_string(c);
      for (const auto& plan : ours) {
        EXPECT_EQ(run(*plan), expected) << to_string(c) << " " << plan->name();
      }
    }
  }
}

}  // namespace
}  // namespace preheat::cuda
