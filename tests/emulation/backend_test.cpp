// What the CUDA backend does when a device has too little memory or is broken, and in which order
// it enqueues: only an emulated device can be brought there at will.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/cuda/convolution_plans.h"
#include "backend/cuda/launch_timer.h"
#include "emulation/device.h"
#include "emulation/memory.h"
#include "experiment/compare.h"
#include "experiment/small_experiment.h"
#include "train/replica_options.h"

namespace preheat::cuda {
namespace {

std::size_t taken() {
  cudaDeviceSynchronize();  // memory is freed in order
  return emulation::allocated_bytes();
}

class CudaBackendOnADevice : public testing::Test {
 protected:
  ~CudaBackendOnADevice() override {
    emulation::device_bytes = all_;
    emulation::device_error = cudaSuccess;
    cudaGetLastError();
  }
  static void leave(std::size_t bytes) { emulation::device_bytes = taken() + bytes; }

 private:
  const std::size_t all_ = emulation::device_bytes;
};

TEST_F(CudaBackendOnADevice, IsTheAutomaticChoice) {
  EXPECT_EQ(make_backend(DeviceChoice::automatic)->name(), "cuda");
}

TEST_F(CudaBackendOnADevice, AllocatesWhatIsStillBeingFreed) {
  constexpr std::size_t size = std::size_t{1} << 20;
  leave(size);
  for (int i = 0; i < 3; ++i) {
    const Buffer<char> all(size);
    EXPECT_THROW(Buffer<char>(1), OutOfMemory);
  }
}

TEST_F(CudaBackendOnADevice, SaysWhatToDoWhereImagesDoNotFit) {
  const auto backend = make_backend(DeviceChoice::cuda);
  const Dataset images = load_dataset(read_config(parse_document(small_run, "f.yaml")).data).train;
  leave(images.pixels.size() / 2);
  try {
    backend->load(images);
    FAIL() << "fits";
  } catch (const OutOfMemory& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("MiB free; lower data.train_limit"));
  }
}

TEST_F(CudaBackendOnADevice, TrainsAsManyReplicasAtATimeAsItHasMemoryFor) {
  const TemporaryFolder folder;
  const auto backend = make_backend(DeviceChoice::cuda);
  const Document document = parse_document(
      std::string(small_run) + "compare: {seeds: 0..3, arms: {a: {}, b: {model.init.gain: 2}}}",
      "f.yaml");
  const RunConfig config = read_config(parse_document(small_run, "f.yaml"));
  std::size_t data_bytes = 0;
  std::size_t bytes = 0;  // of a replica
  {
    const std::size_t before = taken();
    const ResidentData data = load_data(config.data, *backend);
    data_bytes = taken() - before;
    const Trainer trainer(config, *backend, data);
    bytes = taken() - before - data_bytes;
  }
  std::atomic<int> started{0};
  std::size_t most = 0;
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) {
    ++started;
    most = std::max(most, emulation::allocated_bytes());
  };
  const auto run = [&](const char* name) {
    started = 0;
    most = 0;
    return to_json(compare(document, *backend, folder / name, false, listener));
  };
  const auto expected = run("plenty");
  EXPECT_EQ(started, 8);
  leave(data_bytes + 5 * bytes / 2);
  EXPECT_EQ(run("little"), expected);
  EXPECT_EQ(started, 8);
  EXPECT_LE(most, emulation::device_bytes);
  leave(data_bytes + bytes / 2);
  EXPECT_THROW(run("too-little"), OutOfMemory);
  EXPECT_EQ(started, 0);
}

// Writes nothing.
class Plan : public ConvolutionPlan {
 public:
  Plan(std::string name, std::function<void()> run)
      : ConvolutionPlan(std::move(name), 0), run_(std::move(run)) {}
  void run(cudnnHandle_t, cudaStream_t, const ConvolutionArrays&) const override { run_(); }

 private:
  std::function<void()> run_;
};

std::string error_of(const ConvolutionCandidates& plans) {
  const CudnnHandle handle = make_cudnn_handle();
  try {
    fastest(handle.get(), {.x = {1, 4, 4, 8}, .y = {1, 4, 4, 8}}, plans);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST_F(CudaBackendOnADevice, ATrialEndsAtThePlanThatBreaksTheDevice) {
  const auto refuses = [] { throw Error("not supported"); };
  const auto breaks = [] {
    emulation::device_error = cudaErrorIllegalAddress;
    throw Error("an error that came late");
  };
  bool ran = false;
  const auto one = std::make_shared<Plan>("one", refuses);
  const auto two = std::make_shared<Plan>("two", refuses);
  const auto three = std::make_shared<Plan>("three", breaks);
  const auto four = std::make_shared<Plan>("four", [&] { ran = true; });
  const std::string convolution = "forward 1x4x4x8 1x1/1+0 -> 1x4x4x8 fp32";
  EXPECT_EQ(error_of({one, two}), convolution + ": one: not supported");
  EXPECT_EQ(error_of({one, four}), "");
  EXPECT_TRUE(ran);
  ran = false;
  EXPECT_EQ(error_of({one, three, four}), convolution + ": three: an error that came late");
  EXPECT_FALSE(ran);
}

TEST_F(CudaBackendOnADevice, WithoutMemoryForATrialTheFirstPlanIsTaken) {
  const TemporaryFolder folder;
  const CudnnHandle handle = make_cudnn_handle();
  FairSharedMutex device;
  ConvolutionPlans plans(handle.get(), device, "a device", folder.path());
  const Convolution c{.x = {8, 16, 16, 16},
                      .y = {8, 16, 16, 16},
                      .kernel = 3,
                      .padding = 1,
                      .precision = Precision::bf16};
  leave(1024);
  const std::string first = ConvolutionPlanner(handle.get()).candidates(c, 1).at(0)->name();
  const auto chosen = plans.choose(c);
  EXPECT_EQ(chosen->name(), first);
  EXPECT_EQ(plans.choose(c), chosen);
  for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
    EXPECT_EQ(file.path().extension(), ".lock") << "was written to the cache";
  }
}

// As in a run with a validation set.
TEST_F(CudaBackendOnADevice, CapturesTheEvaluationOfEachDatasetOnce) {
  const auto backend = make_backend(DeviceChoice::cuda);
  const RunConfig config = read_config(parse_document(small_run, "f.yaml"));
  const ResidentData data = load_data(config.data, *backend);
  const Network network = build_network(config, data.shape, data.classes);
  const auto replica =
      backend->compile(network, replica_options(config, network, schedule_of(config)),
                       initial_parameters(network, config.model, config.seed), data.train);
  const double first = replica->evaluate(*data.test).loss;
  const double second = replica->evaluate(*data.train).loss;
  const std::int64_t before = emulation::instantiations;
  EXPECT_EQ(replica->evaluate(*data.test).loss, first);
  EXPECT_EQ(replica->evaluate(*data.train).loss, second);
  EXPECT_EQ(emulation::instantiations, before);
}

// No task runs here before something waits for it: work of the round before is still to be done
// when a round is enqueued, as on a device that is busy with it.
TEST_F(CudaBackendOnADevice, ATimedRoundQueuesBehindTheOneBefore) {
  const Stream stream = make_stream();
  constexpr int rounds = 3;
  std::vector<Event> events;
  time_launches(stream, rounds, 1, [&] {
    if (!events.empty()) {
      float time = 0;
      EXPECT_EQ(cudaEventElapsedTime(&time, events.back().get(), events.back().get()),
                cudaErrorNotReady);
    }
    events.push_back(make_timer());
    PREHEAT_CHECK(cudaEventRecord(events.back().get(), stream.get()));
  });
  EXPECT_EQ(events.size(), rounds + 2u);
}

}  // namespace
}  // namespace preheat::cuda
