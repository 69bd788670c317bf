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
#include "backend/cuda/update_arenas.h"
#include "backend/cuda/update_variants.h"
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

LrSchedule constant_schedule() {
  LrSchedule constant;
  constant.steps = 1000;
  constant.phase_count = 1;
  constant.phases[0].shape = Shape::constant;
  constant.phases[0].length = constant.phases[0].span = 1000;
  constant.phases[0].from = double{bench_rate};
  return constant;
}

// Without times, so that an emulated device can run them.
class DeviceUpdateVariants : public DeviceBenches {
 protected:
  const UpdatePattern pattern_;
  const LrSchedule schedule_ = constant_schedule();
};

TEST_F(DeviceUpdateVariants, ComputeTheUpdateAsLaunchesAndInAGraph) {
  const UpdateSet set{"odd", {1, 77, 1234, 20001}};
  const UpdateArenas arenas(set, pattern_, schedule_);
  const UpdateVariants variants(set, arenas, schedule_);
  std::int64_t in_graph = 0;
  for (const UpdateVariant& variant : variants.all()) {
    EXPECT_NO_THROW(variants.verify(variant)) << variant.name;
    in_graph += variant.in_graph ? 1 : 0;
  }
  EXPECT_EQ(in_graph + 2, std::ssize(variants.all()));  // a node's argument, a new capture
  UpdateVariant nothing = variants.fused();
  nothing.step = [](const UpdateArenas::Instance&) {};
  nothing.in_graph = false;
  EXPECT_THROW(variants.verify(nothing), Error);
}

// Two steps in one graph that is launched twice, at two rates.
TEST_F(DeviceUpdateVariants, ARateThatIsCopiedInAGraphIsReadWhenTheNodeRuns) {
  const UpdateSet set{"odd", {77, 300}};
  const UpdateArenas arenas(set, pattern_, schedule_);
  const UpdateVariants variants(set, arenas, schedule_);
  const auto copied = std::ranges::find(variants.all(), "host_rate, by a copy",
                                        [](const UpdateVariant& v) { return v.name; });
  ASSERT_NE(copied, variants.all().end());
  const UpdateArenas::Instance& p = arenas.instances.front();
  copied->step(p);  // loads the code
  arenas.fill(p);
  copied->set_host_rate(0.5f);
  const GraphExec graph = instantiate(capture(arenas.stream, [&] {
    copied->step(p);
    copied->step(p);
  }));
  const std::vector<float> rates = {0.25f, 0.0625f};
  for (const float rate : rates) {
    copied->set_host_rate(rate);
    PREHEAT_CHECK(cudaGraphLaunch(graph.get(), arenas.stream.get()));
    wait(arenas.stream);
  }
  std::vector<float> weights(arenas.layout.size);
  download(p.weights.data(), std::span(weights), arenas.stream);
  wait(arenas.stream);
  for (std::size_t t = 0; t < set.tensors.size(); ++t) {
    for (std::int64_t i = 0; i < set.tensors[t]; ++i) {
      const std::int64_t at = arenas.layout.offsets[t] + i;
      float w = pattern_.weights[at];
      float v = pattern_.velocity[at];
      for (const float rate : rates) {
        const UpdateScalars scalars = update_scalars({}, rate, 0, 0, 0);
        for (int step = 0; step < 2; ++step) {
          sgd_momentum({}, scalars, bench_decay, pattern_.gradients[at], w, v);
        }
      }
      ASSERT_EQ(weights[at], w) << t << ", " << i;
    }
  }
}

TEST_F(DeviceBenches, EveryVariantComputesTheUpdate) {
  const std::vector<UpdateSet> sets = {{"odd", {1, 77, 12345, 200001}}, {"one", {4097}}};
  std::set<std::string> variants;
  std::set<std::string> in_graph;
  for (const UpdateSet& set : sets) {
    for (const UpdateTiming& row : benches().time_updates(set, false, [] {})) {
      variants.insert(row.variant);
      if (row.way == SubmitMode::graph) in_graph.insert(row.variant);
      EXPECT_GT(row.microseconds.least, 0) << row.variant;
    }
  }
  EXPECT_EQ(benches().time_launch().size(), 1u);
  for (const char* variant :
       {"fused", "fused_value", "fused_table", "per_tensor", "three_pass", "cublas",
        "host_rate, by a copy", "host_rate, in the graph's node", "recapture"}) {
    EXPECT_TRUE(variants.contains(variant)) << variant;
  }
  for (const std::string& variant : variants) {
    const bool has_graph = variant != "copy" && variant != "read 3, write 2" &&
                           variant != "host_rate, in the graph's node" && variant != "recapture";
    EXPECT_EQ(in_graph.contains(variant), has_graph) << variant;
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
  const LrSchedule constant = constant_schedule();
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
