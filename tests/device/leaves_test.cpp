// Functions shared by host and device give the same on both: bit for bit if they are plain
// arithmetic, to one unit in the last place of a float if they call a math library.
#include "device/leaves.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "schedule/random_schedule.h"

namespace preheat {
namespace {

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = no_device(); !reason.empty()) GTEST_SKIP() << reason;
  }
  const std::uint32_t seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, fmt::format("seed {}", seed_)};
};

// 0 for equal floats, 1 for neighbours, 2 for any others.
std::int64_t distance(double a, double b) {
  const auto x = static_cast<float>(a);
  const auto y = static_cast<float>(b);
  if (x == y) return 0;
  if (std::nextafter(x, y) == y) return 1;
  return 2;
}

TEST_F(OnDevice, RatesAreTheHostsToAFloat) {
  RandomSchedule random(seed_);
  for (int trial = 0; trial < 500; ++trial) {
    const Schedule schedule = random.accepted();
    SCOPED_TRACE(random.text());
    std::vector<std::int64_t> steps;
    for (std::int64_t k = -2; k < schedule.run.steps + 3; ++k) steps.push_back(k);
    for (const std::int64_t gate : {std::int64_t{-1}, schedule.lr.phases[0].length / 2}) {
      const std::vector<double> lr = rates_on_device(schedule.lr, steps, gate);
      for (std::size_t i = 0; i < steps.size(); ++i) {
        ASSERT_LE(distance(lr[i], lr_at(schedule.lr, steps[i], gate)), 1) << "update " << steps[i];
      }
    }
  }
}

TEST_F(OnDevice, TheStepAndItsGateAdvanceAlike) {
  RandomSchedule random(seed_);
  for (int trial = 0; trial < 200; ++trial) {
    const Schedule schedule = random.accepted();
    SCOPED_TRACE(random.text());
    std::vector<std::int64_t> correct;
    for (int k = 0; k < 150; ++k) correct.push_back(random.integer(0, 2 * k));
    StepState host = first_step(schedule.lr);
    const StepState device = advanced_on_device(schedule.lr, host, correct);
    for (const std::int64_t hits : correct) advance(host, schedule.lr, true, hits);
    ASSERT_EQ(device.step, host.step);
    ASSERT_EQ(device.gate_opened_at, host.gate_opened_at);
    ASSERT_EQ(device.window_correct, host.window_correct);
    ASSERT_LE(distance(device.lr, host.lr), 1);
    ASSERT_LE(distance(device.previous_lr, host.previous_lr), 1);
  }
}

TEST_F(OnDevice, UpdatesAreTheHostsToTheBit) {
  std::mt19937 random(seed_);
  std::normal_distribution<float> normal;
  for (int form = 0; form < 8; ++form) {
    SCOPED_TRACE(form);
    const std::size_t n = 10007;
    std::vector<float> g;
    Weights host;
    for (std::size_t i = 0; i < n; ++i) {
      g.push_back(normal(random));
      host.w.push_back(normal(random));
      host.v.push_back(normal(random));
    }
    const SgdMomentum rule{0.9f, (form & 1) != 0, (form & 2) != 0, (form & 4) != 0};
    const UpdateScalars scalars = update_scalars(rule, 0.3f, 0.2f, 7, 3);
    const Weights device = updated_on_device(rule, scalars, 1e-2f, g, host);
    for (std::size_t i = 0; i < n; ++i) {
      host.taken.push_back(sgd_momentum(rule, scalars, 1e-2f, g[i], host.w[i], host.v[i]));
    }
    EXPECT_EQ(device.w, host.w);
    EXPECT_EQ(device.v, host.v);
    EXPECT_EQ(device.taken, host.taken);
  }
}

TEST_F(OnDevice, CropsAreTheHosts) {
  const std::vector<CropFlip> device = crops_on_device(seed_, 7, 4, true, 5000);
  for (std::uint32_t i = 0; i < device.size(); ++i) {
    const CropFlip host = crop_flip(seed_, 7, i, 4, true);
    ASSERT_EQ(device[i].dy, host.dy);
    ASSERT_EQ(device[i].dx, host.dx);
    ASSERT_EQ(device[i].flip, host.flip);
  }
}

}  // namespace
}  // namespace preheat
