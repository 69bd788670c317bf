// What the CUDA backend does when a device has too little memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/cuda/cuda.h"
#include "emulation/device.h"
#include "emulation/memory.h"
#include "experiment/compare.h"
#include "experiment/small_experiment.h"

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
    cudaGetLastError();
  }
  static void leave(std::size_t bytes) { emulation::device_bytes = taken() + bytes; }

 private:
  const std::size_t all_ = emulation::device_bytes;
};

TEST_F(CudaBackendOnADevice, AllocatesWhatIsStillBeingFreed) {
  constexpr std::size_t size = std::size_t{1} << 20;
  leave(size);
  for (int i = 0; i < 3; ++i) {
    const Buffer<char> all(size);
    EXPECT_THROW(Buffer<char>(1), OutOfMemory);
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

}  // namespace
}  // namespace preheat::cuda
