#include "backend/cuda/convolution_plans.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "config/error.h"

namespace preheat::cuda {

ConvolutionPlans::ConvolutionPlans(cudnnHandle_t handle, std::shared_mutex& device,
                                   const std::string& name, const std::string& folder)
    : handle_(handle), device_(device), planner_(handle) {
  if (folder.empty()) return;
  std::string words = name;
  std::ranges::replace_if(
      words, [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
  path_ = fmt::format("{}/convolutions-{}-cudnn-{}-preheat-{}-{}.json", folder, words,
                      cudnnGetVersion(), PREHEAT_VERSION, PREHEAT_CONVOLUTIONS);
  std::ifstream file(path_);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) return;
  for (const auto& [key, choice] : json.items()) {
    if (choice.is_string()) choices_[key] = choice.get<std::string>();
  }
}

// A few runs of each as training has them, nodes of a graph: many convolutions take no longer than
// the host does to enqueue one, and a plan that cannot be captured is found out. Moments of y that
// are wanted count, as some plans take them on the way. On memory that is not all zero, which would
// be faster than real numbers.
std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::fastest(
    const Convolution& c, const Candidates& candidates) const {
  const std::unique_lock alone(device_);
  PREHEAT_CHECK(cudaDeviceSynchronize());
  constexpr int rounds = 3;
  constexpr int runs = 8;
  constexpr float clearly = 0.95f;
  const std::size_t element = bytes_of(element_of(c.precision));
  const std::int64_t weights = c.kernel * c.kernel * c.x.channels * c.y.channels;
  std::size_t workspace_bytes = 1;
  for (const auto& p : candidates)
    workspace_bytes = std::max(workspace_bytes, p->workspace_bytes());
  const Buffer<std::uint8_t> x(c.x.size() * element);
  const Buffer<std::uint8_t> y(c.y.size() * element);
  const Buffer<std::uint8_t> w(weights * element);
  const Buffer<std::uint8_t> workspace(workspace_bytes);
  const std::int32_t channels = c.moments ? c.y.channels : 1;
  const Buffer<float> mean(channels), inv_std(channels);
  const Buffer<float> sums(kernels::channel_sums_floats(channels));
  const Buffer<unsigned> counter(1);
  kernels::BatchMoments moments;
  moments.mean = mean.data();
  moments.inv_std = inv_std.data();
  moments.scratch = {sums.data(), counter.data()};
  const Stream own = make_stream();
  const cudaStream_t stream = own.get();
  PREHEAT_CHECK(cudnnSetStream(handle_, stream));
  for (const auto* buffer : {&x, &y, &w}) {
    PREHEAT_CHECK(cudaMemsetAsync(buffer->data(), 0x3c, buffer->bytes(), stream));
  }
  PREHEAT_CHECK(cudaMemsetAsync(counter.data(), 0, counter.bytes(), stream));
  const Event start = make_timer();
  const Event end = make_timer();
  const auto time_of = [&](const ConvolutionPlan& plan) {
    const bool on_the_way = c.moments && plan.gives_moments();
    const auto run = [&] {
      plan.run(handle_,
               {x.data(), w.data(), y.data(), workspace.data(), on_the_way ? &moments : nullptr});
      if (!c.moments || on_the_way) return;
      PREHEAT_CHECK(
          kernels::batch_moments(element_of(c.precision), c.y, y.data(), moments, stream));
    };
    run();  // loads its code, which nothing may do while a graph is captured
    const GraphExec graph = instantiate(capture(own, [&] {
      for (int k = 0; k < runs; ++k) run();
    }));
    PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream));  // the first one uploads it
    float time = 0;
    for (int round = 0; round < rounds; ++round) {
      PREHEAT_CHECK(cudaEventRecord(start.get(), stream));
      PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream));
      PREHEAT_CHECK(cudaEventRecord(end.get(), stream));
      PREHEAT_CHECK(cudaEventSynchronize(end.get()));
      const float took = milliseconds(start, end);
      time = round == 0 ? took : std::min(time, took);
    }
    return time;
  };
  std::shared_ptr<const ConvolutionPlan> best;
  float least = 0;
  std::string refusal;
  for (const auto& candidate : candidates) {
    try {
      const float time = time_of(*candidate);
      if (!best || time < clearly * least) {
        best = candidate;
        least = time;
      }
    } catch (const Error& e) {
      refusal = e.what();
      PREHEAT_CHECK(cudaStreamSynchronize(stream));  // before the buffers go
    }
  }
  PREHEAT_CHECK(cudnnSetStream(handle_, nullptr));  // this one ends here
  if (!best) throw Error(to_string(c) + ": " + refusal);
  return best;
}

std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::choose(const Convolution& c) {
  constexpr std::size_t most = 16;
  const Candidates own = kernel_plans(c);
  // A choice holds only among what it was made from: cuDNN's plans, which the name of the file
  // stands for, and these.
  std::string key = to_string(c);
  for (const auto& plan : own) key += fmt::format(" | {}", plan->name());
  std::shared_ptr<const ConvolutionPlan>& chosen = plans_[key];
  if (chosen) return chosen;
  if (const auto choice = choices_.find(key); choice != choices_.end()) {
    const auto found = std::ranges::find(
        own, choice->second, [](const auto& p) -> const auto& { return p->name(); });
    if (found != own.end()) return chosen = *found;
    const auto named = planner_.candidates(c, 1, choice->second);
    if (!named.empty()) return chosen = named.front();
  }
  Candidates candidates;
  std::ranges::copy(planner_.candidates(c, most), std::back_inserter(candidates));
  std::ranges::copy(own, std::back_inserter(candidates));
  if (candidates.empty()) {
    throw Error(fmt::format("cuDNN {} has no engine for the {}", cudnnGetVersion(), key));
  }
  chosen = fastest(c, candidates);
  choices_[key] = chosen->name();
  changed_ = true;
  return chosen;
}

void ConvolutionPlans::save() noexcept try {
  if (path_.empty() || !changed_) return;
  changed_ = false;
  std::error_code failed;
  const std::filesystem::path path(path_);
  std::filesystem::create_directories(path.parent_path(), failed);
  const std::filesystem::path temporary = path_ + fmt::format(".{}.tmp", getpid());
  std::ofstream file(temporary);
  file << nlohmann::json(choices_).dump(1) << "\n";
  file.close();
  if (file) std::filesystem::rename(temporary, path, failed);
  if (!file || failed) std::filesystem::remove(temporary, failed);
} catch (const std::exception&) {  // no memory: then it is chosen again the next time
}

}  // namespace preheat::cuda
