#include "backend/cuda/convolution_plans.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "backend/cuda/launch_timer.h"
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

  /// Microseconds of some runs. Throws Error if the plan cannot be run.
  double time_of(const ConvolutionPlan& plan) {
    constexpr int rounds = 3;
    constexpr int runs = 8;
    run(plan);  // loads its code, which nothing may do while a graph is captured
    const GraphExec graph = instantiate(capture(stream_, [&] {
      for (int k = 0; k < runs; ++k) run(plan);
    }));
    // The warm-up round uploads it.
    return std::ranges::min(time_rounds(
        stream_, rounds, [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream_.get())); }));
  }

  /// False after an error in a kernel, which stays with the device.
  bool is_sound() const { return cudaStreamSynchronize(stream_.get()) == cudaSuccess; }

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
};

// Held from reading the file of choices to writing it, with the trial between: processes that run
// at the same time choose the same, and do not disturb each other's trial. Where there can be no
// such file, or it cannot be locked (some network filesystems), or the patience ends, as when a
// process that holds it is suspended, it locks nothing.
class CacheLock {
 public:
  CacheLock(const std::string& path, std::chrono::milliseconds& patience) {
    constexpr std::chrono::milliseconds pause(10);
    if (path.empty()) return;
    file_ = open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file_ < 0) return;
    while (flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK && patience.count() > 0) {
      std::this_thread::sleep_for(pause);
      patience -= pause;
    }
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
                                   const std::string& name, const std::string& folder,
                                   std::chrono::milliseconds patience)
    : handle_(handle), device_(device), planner_(handle), patience_(patience) {
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

std::shared_ptr<const ConvolutionPlan> fastest(cudnnHandle_t handle, const Convolution& c,
                                               const ConvolutionCandidates& candidates) {
  constexpr double clearly = 0.95;
  std::size_t workspace_bytes = 0;
  for (const auto& p : candidates)
    workspace_bytes = std::max(workspace_bytes, p->workspace_bytes());
  std::optional<Trial> trial;
  try {
    trial.emplace(handle, c, workspace_bytes);
  } catch (const OutOfMemory&) {
    return nullptr;
  }
  std::shared_ptr<const ConvolutionPlan> best;
  double least = 0;
  std::string refusal;
  for (const auto& candidate : candidates) {
    try {
      const double time = trial->time_of(*candidate);
      if (!best || time < clearly * least) {
        best = candidate;
        least = time;
      }
    } catch (const Error& e) {
      const auto why = fmt::format("{}: {}: {}", to_string(c), candidate->name(), e.what());
      if (!trial->is_sound()) throw Error(why);
      if (refusal.empty()) refusal = why;
    }
  }
  if (!best) throw Error(refusal);
  return best;
}

std::shared_ptr<const ConvolutionPlan> ConvolutionPlans::named(const Convolution& c,
                                                               const ConvolutionCandidates& own,
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
  const ConvolutionCandidates own = kernel_plans(c);
  // A choice holds only among what it was made from: cuDNN's plans, which the name of the file
  // stands for, and these.
  std::string key = to_string(c);
  for (const auto& plan : own) key += fmt::format(" | {}", plan->name());
  std::shared_ptr<const ConvolutionPlan>& chosen = plans_[key];
  if (!chosen) chosen = named(c, own, key);
  if (chosen) return chosen;
  const CacheLock lock(path_, patience_);
  for (const auto& [other, name] : read_choices(path_)) choices_[other] = name;
  chosen = named(c, own, key);
  if (chosen) return chosen;
  ConvolutionCandidates candidates;
  std::ranges::copy(planner_.candidates(c, most), std::back_inserter(candidates));
  std::ranges::copy(own, std::back_inserter(candidates));
  if (candidates.empty()) {
    throw Error(fmt::format("cuDNN {} has no engine for the {}", cudnnGetVersion(), key));
  }
  {
    const std::unique_lock alone(device_);
    PREHEAT_CHECK(cudaDeviceSynchronize());
    chosen = fastest(handle_, c, candidates);
  }
  if (!chosen) return chosen = candidates.front();
  choices_[key] = chosen->name();
  if (path_.empty()) return chosen;
  try {
    write_atomically(path_, nlohmann::json(choices_).dump(1) + "\n");
  } catch (const Error&) {  // then it is chosen again the next time
  }
  return chosen;
}

}  // namespace preheat::cuda
