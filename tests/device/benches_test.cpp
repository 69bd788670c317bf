// The GPU's benches. They time the functions that training calls, and check each variant against
// the reference before timing it: a variant that runs is right.
#include "backend/cuda/benches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/launch_timer.h"
#include "device/leaves.h"
#include "kernels/launch.h"

namespace preheat::cuda {
namespace {

class DeviceBenches : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = no_device();
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
  static Benches& benches() {
    static const std::unique_ptr<Backend> backend = make_backend(DeviceChoice::cuda);
    return backend->benches();
  }
};

TEST_F(DeviceBenches, EveryVariantComputesTheUpdate) {
  const std::vector<UpdateSet> sets = {{"odd", {1, 77, 12345, 200001}}, {"one", {4097}}};
  std::set<std::string> variants;
  for (const UpdateSet& set : sets) {
    for (const UpdateTiming& row : benches().time_updates(set, false, [] {})) {
      variants.insert(row.variant);
      EXPECT_GT(row.microseconds.least, 0) << row.variant;
    }
  }
  EXPECT_EQ(benches().time_launch().size(), 1u);
  for (const char* variant :
       {"fused", "fused_value", "fused_table", "per_tensor", "three_pass", "cublas",
        "host_rate, by a copy", "host_rate, in the graph's node", "recapture"}) {
    EXPECT_TRUE(variants.contains(variant)) << variant;
  }
}

// The slower work moves the bytes twice, as two launches in one step.
TEST_F(DeviceBenches, SlowerWorkIsSeenAsSlower) {
  constexpr std::int64_t size = std::int64_t{1} << 26;
  const Stream stream = make_stream();
  const Buffer<float> w(size);
  const Buffer<float> v(size);
  const Buffer<float> g(size);
  for (const auto* buffer : {&w, &v, &g}) clear(*buffer, stream);
  const auto median_of = [&](int times) {
    return time_launches(stream, 9, 1,
                         [&] {
                           for (int i = 0; i < times; ++i) {
                             PREHEAT_CHECK(kernels::update_flat({}, {1e-3f}, 5e-4f, size, g.data(),
                                                                w.data(), v.data(), stream.get()));
                           }
                         })
        .median;
  };
  EXPECT_GT(median_of(2), 1.5 * median_of(1));
}

TEST_F(DeviceBenches, SchedulesAndCeilingsAreMeasured) {
  LrSchedule constant;
  constant.steps = 1000;
  constant.phase_count = 1;
  constant.phases[0].shape = Shape::constant;
  constant.phases[0].length = constant.phases[0].span = 1000;
  constant.phases[0].from = 1e-3;
  const auto times = benches().time_schedules(
      {"one", {4096}}, {{"constant", constant}, {"again", constant}}, true, [] {});
  ASSERT_EQ(times.size(), 2u);
  EXPECT_EQ(times[0].size(), times[1].size());
  for (const auto& of_one : times) EXPECT_GT(std::ranges::min(of_one), 0);
  for (const Precision precision :
       {Precision::fp32, Precision::tf32, Precision::bf16, Precision::fp16}) {
    const Ceilings ceilings = benches().measure_ceilings(precision, 0);
    EXPECT_GT(ceilings.bytes_per_second, 1e9);
    EXPECT_GT(ceilings.operations_per_second, 1e9);
  }
}

}  // namespace
}  // namespace preheat::cuda
