#include "backend/cuda/convolution_plans.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "config/atomic_file.h"
#include "config/error.h"

namespace preheat::cuda {

namespace {

// A few runs of each plan as training has them, nodes of a graph: many convolutions take no longer
// than the host does to enqueue one, and a plan that cannot be captured is found out. Moments of y
// that are wanted count, as some plans take them on the way. On memory that is not all zero, which
// would be faster than real numbers.
class Trial {
 public:
  Trial(cudnnHandle_t handle, const Convolution& c, std::size_t workspace_bytes)
      : handle_(handle),
        convolution_(c),
        element_(element_of(c.precision)),
        x_(c.x.size() * bytes_of(element_)),
        w_(c.kernel * c.kernel * c.x.channels * c.y.channels * bytes_of(element_)),
        y_(c.y.size() * bytes_of(element_)),
        workspace_(std::max<std::size_t>(workspace_bytes, 1)),
        mean_(c.y.channels),
        inv_std_(c.y.channels),
        sums_(kernels::channel_sums_floats(c.y.channels)),
        counter_(1) {
    for (const auto* buffer : {&x_, &w_, &y_}) {
      PREHEAT_CHECK(cudaMemsetAsync(buffer->data(), 0x3c, buffer->bytes(), stream_.get()));
    }
    clear(counter_, stream_);
    moments_.mean = mean_.data();
    moments_.inv_std = inv_std_.data();
    moments_.scratch = {sums_.data(), counter_.data()};
  }
  ~Trial() {
    cudaStreamSynchronize(stream_.get());  // before the buffers go
    cudnnSetStream(handle_, nullptr);      // before the stream goes
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  /// Milliseconds of some runs. Throws Error if the plan cannot be run.
  float time_of(const ConvolutionPlan& plan) {
    constexpr int rounds = 3;
    constexpr int runs = 8;
    run(plan);  // loads its code, which nothing may do while a graph is captured
    const GraphExec graph = instantiate(capture(stream_, [&] {
      for (int k = 0; k < runs; ++k) run(plan);
    }));
    PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream_.get()));  // the first one uploads it
    float time = 0;
    for (int round = 0; round < rounds; ++round) {
      PREHEAT_CHECK(cudaEventRecord(start_.get(), stream_.get()));
      PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream_.get()));
      PREHEAT_CHECK(cudaEventRecord(end_.get(), stream_.get()));
      PREHEAT_CHECK(cudaEventSynchronize(end_.get()));
      const float took = milliseconds(start_, end_);
      time = round == 0 ? took : std::min(time, took);
    }
    return time;
  }

 private:
  void run(const ConvolutionPlan& plan) {
    const Convolution& c = convolution_;
    const bool on_the_way = c.moments && plan.gives_moments();
    plan.run(
        handle_, stream_.get(),
        {x_.data(), w_.data(), y_.data(), workspace_.data(), on_the_way ? &moments_ : nullptr});
    if (!c.moments || on_the_way) return;
    PREHEAT_CHECK(kernels::batch_moments(element_, c.y, y_.data(), moments_, stream_.get()));
  }

  cudnnHandle_t handle_;
  const Convolution& convolution_;
  kernels::Element element_;
  Buffer<std::uint8_t> x_, w_, y_, workspace_;
  Buffer<float> mean_, inv_std_, sums_;
  Buffer<unsigned> counter_;
  kernels::BatchMoments moments_;
  Stream stream_ = make_stream();
  Event start_ = make_timer();
  Event end_ = make_timer();
};

// Held from reading the file of choices to writing it, with the trial between: processes that run
// at the same time choose the same, and do not disturb each other's trial. Where there can be no
// such file, it locks nothing.
class CacheLock {
 public:
  explicit CacheLock(const std::string& path) {
    if (path.empty()) return;
    file_ = open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file_ >= 0) flock(file_, LOCK_EX);
  }
  ~CacheLock() {
    if (file_ >= 0) close(file_);
  }
  CacheLock(const CacheLock&) = delete;
  CacheLock& operator=(const CacheLock&) = delete;

 private:
  int file_ = -1;
};

// None where there is no file, or a damaged one.
std::map<std::string, std::string> read_choices(const std::string& path) {
  std::map<std::string, std::string> choices;
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object()) return choices;
  for (const auto& [key, choice] : json.items()) {
    if (choice.is_string()) choices[key] = choice.get<std::string>();
  }
  return choices;
}

}  // namespace

ConvolutionPlans::ConvolutionPlans(cudnnHandle_t handle, FairSharedMutex& device,
                                   const std::string& name, const std::string& folder)
    : handle_(handle), device_(device), planner_(handle) {
  if (folder.empty()) return;
  std::string words = name;
  std::ranges::replace_if(
      words, [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
  path_ = fmt::format("{}/convolutions-{}-cudnn-{}-preheat-{}-{}.json", folder, words,
                      cudnnGetVersion(), PREHEAT_VERSION, PREHEAT_CONVOLUTIONS);
  std::error_code failed;  // then nothing is kept
  std::filesystem::create_directories(folder, failed);
  choices_ = read_choices(path_);
}

std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::fastest(
    const Convolution& c, const Candidates& candidates) const {
  const std::unique_lock alone(device_);
  PREHEAT_CHECK(cudaDeviceSynchronize());
  constexpr float clearly = 0.95f;
  std::size_t workspace_bytes = 0;
  for (const auto& p : candidates)
    workspace_bytes = std::max(workspace_bytes, p->workspace_bytes());
  Trial trial(handle_, c, workspace_bytes);
  std::shared_ptr<const ConvolutionPlan> best;
  float least = 0;
  std::string refusal;
  for (const auto& candidate : candidates) {
    try {
      const float time = trial.time_of(*candidate);
      if (!best || time < clearly * least) {
        best = candidate;
        least = time;
      }
    } catch (const Error& e) {
      refusal = e.what();
    }
  }
  if (!best) throw Error(to_string(c) + ": " + refusal);
  return best;
}

std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::named(const Convolution& c,
                                                               const Candidates& own,
                                                               const std::string& key) const {
  const auto choice = choices_.find(key);
  if (choice == choices_.end()) return nullptr;
  const auto found = std::ranges::find(
      own, choice->second, [](const auto& p) -> const auto& { return p->name(); });
  if (found != own.end()) return *found;
  const auto theirs = planner_.candidates(c, 1, choice->second);
  if (theirs.empty()) return nullptr;
  return theirs.front();
}

std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::choose(const Convolution& c) {
  constexpr std::size_t most = 16;
  const Candidates own = kernel_plans(c);
  // A choice holds only among what it was made from: cuDNN's plans, which the name of the file
  // stands for, and these.
  std::string key = to_string(c);
  for (const auto& plan : own) key += fmt::format(" | {}", plan->name());
  std::shared_ptr<const ConvolutionPlan>& chosen = plans_[key];
  if (!chosen) chosen = named(c, own, key);
  if (chosen) return chosen;
  const CacheLock lock(path_);
  for (const auto& [other, name] : read_choices(path_)) choices_[other] = name;
  chosen = named(c, own, key);
  if (chosen) return chosen;
  Candidates candidates;
  std::ranges::copy(planner_.candidates(c, most), std::back_inserter(candidates));
  std::ranges::copy(own, std::back_inserter(candidates));
  if (candidates.empty()) {
    throw Error(fmt::format("cuDNN {} has no engine for the {}", cudnnGetVersion(), key));
  }
  chosen = fastest(c, candidates);
  choices_[key] = chosen->name();
  if (path_.empty()) return chosen;
  try {
    write_atomically(path_, nlohmann::json(choices_).dump(1) + "\n");
  } catch (const Error&) {  // then it is chosen again the next time
  }
  return chosen;
}

}  // namespace preheat::cuda
