// The end of a step on the device against advance() of optim/step_state.h on the host, and the
// record that it writes.
#include <limits>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

// Partials are summed in double in another order: 700 of them add at most 700 2^-53 of the square.
constexpr double norm_error = 1e-12;

// The rate is rounded once from a double whose last bits may differ (cos, pow), so it is at most
// one float off.
void expect_same_rate(float actual, float expected) {
  EXPECT_GE(actual, std::nextafter(expected, -1.0f));
  EXPECT_LE(actual, std::nextafter(expected, 1e9f));
}

void expect_same_state(const StepState& actual, const StepState& expected) {
  EXPECT_EQ(actual.step, expected.step);
  EXPECT_EQ(actual.first_non_finite, expected.first_non_finite);
  EXPECT_EQ(actual.gate_opened_at, expected.gate_opened_at);
  expect_same_rate(actual.lr, expected.lr);
  expect_same_rate(actual.previous_lr, expected.previous_lr);
  EXPECT_EQ(actual.window_correct, expected.window_correct);
  EXPECT_TRUE(
      std::equal(std::begin(actual.hits), std::end(actual.hits), std::begin(expected.hits)));
  EXPECT_EQ(actual.loss_scale, expected.loss_scale);
  EXPECT_EQ(actual.updates_at_scale, expected.updates_at_scale);
}

// Linear up over 80 updates, then a power and a cosine to 0 at update 300. With a gate the warmup
// ends once more than half of the last 16 batches of 128 were right.
LrSchedule some_schedule(bool gated) {
  LrSchedule schedule;
  schedule.steps = 300;
  schedule.phase_count = 3;
  Phase& warmup = schedule.phases[0];
  warmup.shape = Shape::linear;
  warmup.length = warmup.span = 80;
  warmup.from = 0;
  warmup.to = 0.4;
  Phase& power = schedule.phases[1];
  power.shape = Shape::power;
  power.begin = 80;
  power.length = power.span = 100;
  power.from = 0.4;
  power.to = 0.05;
  power.power = 1.7;
  Phase& decay = schedule.phases[2];
  decay.shape = Shape::cosine;
  decay.begin = 180;
  decay.length = decay.span = 120;
  decay.from = 0.05;
  decay.to = 0;
  decay.fills_run = true;
  if (gated) schedule.gate = {16, 16 * 64};
  return schedule;
}

std::vector<NormPartial> random_partials(std::mt19937& random, std::size_t count) {
  std::uniform_real_distribution<float> uniform(0.1f, 2);
  std::vector<NormPartial> partials(count);
  for (NormPartial& p : partials) p = {uniform(random), uniform(random), uniform(random), 1};
  return partials;
}

class KernelsAdvanceStep : public KernelTest {
 protected:
  // Ends a step with one loss and no partials.
  void end_step(const LrSchedule& schedule, const Device<StepState>& state, const BatchLoss& loss,
                std::span<DeviceRecord> records, const GradientCheck* gradient = nullptr,
                bool scales_loss = false) {
    const Device<BatchLoss> device_loss(loss);
    if (gradient == nullptr) {
      check(advance_step(schedule, state.data(), device_loss.data(), {}, nullptr, scales_loss,
                         records, nullptr));
    } else {
      const Device<GradientCheck> device_gradient(*gradient);
      check(advance_step(schedule, state.data(), device_loss.data(), {}, device_gradient.data(),
                         scales_loss, records, nullptr));
    }
  }
};

TEST_F(KernelsAdvanceStep, AWholeRunAgreesWithTheHost) {
  constexpr std::int64_t updates_of_run = 330;  // some beyond the end of the schedule
  constexpr std::int64_t capacity = 64;
  for (const bool gated : {false, true}) {
    SCOPED_TRACE(gated ? "gated" : "not gated");
    const LrSchedule schedule = some_schedule(gated);
    StepState host = first_step(schedule);
    const Device<StepState> state(host);
    const std::vector<NormPartial> partials = random_partials(random_, 700);
    const Device<NormPartial> device_partials(partials);
    std::vector<BatchLoss> losses(updates_of_run);
    std::uniform_real_distribution<double> uniform(0, 1);
    for (std::int64_t i = 0; i < updates_of_run; ++i) {
      const double right = std::min(1.0, static_cast<double>(i) / 100);  // on average
      losses[i] = {300 * uniform(random_),
                   static_cast<std::int64_t>(128 * (0.8 * right + 0.2 * uniform(random_))), 128};
    }
    const Device<BatchLoss> device_losses(losses);
    const Device<DeviceRecord> records(static_cast<std::size_t>(capacity));
    for (std::int64_t i = 0; i < updates_of_run; ++i) {
      const std::int64_t count = 1 + i * 7 % 700;
      check(advance_step(schedule, state.data(), device_losses.data() + i,
                         device_partials.span().first(count), nullptr, false, records.span(),
                         nullptr));
      const DeviceRecord record = records.values()[i % capacity];
      SCOPED_TRACE("update " + std::to_string(i));
      EXPECT_EQ(record.step, i);
      EXPECT_EQ(record.loss, losses[i].sum / 128);
      EXPECT_EQ(record.correct, losses[i].correct);
      EXPECT_EQ(record.finite, 1);
      EXPECT_EQ(record.phase, phase_at(schedule, i, host.gate_opened_at));
      expect_same_rate(record.lr, host.lr);
      double gradient = 0;
      double taken = 0;
      double weight = 0;
      for (std::int64_t k = 0; k < count; ++k) {
        gradient += double{partials[k].gradient};
        taken += double{partials[k].taken};
        weight += double{partials[k].weight};
      }
      EXPECT_NEAR(record.grad_norm, std::sqrt(gradient), norm_error * std::sqrt(gradient));
      EXPECT_NEAR(record.update_norm, std::sqrt(taken), norm_error * std::sqrt(taken));
      EXPECT_NEAR(record.weight_norm, std::sqrt(weight), norm_error * std::sqrt(weight));
      advance(host, schedule, true, losses[i].correct);
      expect_same_state(state.value(), host);
      if (HasFailure()) return;  // the rest would fail for the same reason
    }
    if (gated) {
      EXPECT_GT(host.gate_opened_at, 16);
      EXPECT_LT(host.gate_opened_at, 80);
    } else {
      EXPECT_EQ(host.gate_opened_at, -1);
    }
    // The ring holds the last updates only.
    const std::vector<DeviceRecord> last = records.values();
    for (std::int64_t i = updates_of_run - capacity; i < updates_of_run; ++i) {
      EXPECT_EQ(last[i % capacity].step, i);
    }
  }
}

TEST_F(KernelsAdvanceStep, FromTheFirstStepThatIsNotFiniteOnNothingMoves) {
  const LrSchedule schedule = some_schedule(true);
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double loss : {std::nan(""), infinity, -infinity}) {
    StepState host = first_step(schedule);
    const Device<StepState> state(host);
    const Device<DeviceRecord> records(std::size_t{8});
    for (int i = 0; i < 5; ++i) {
      end_step(schedule, state, {1, 2, 128}, records.span());
      advance(host, schedule, true, 2);
    }
    end_step(schedule, state, {loss, 0, 128}, records.span());
    advance(host, schedule, false, 0);
    EXPECT_EQ(host.first_non_finite, 5);
    expect_same_state(state.value(), host);
    const std::vector<DeviceRecord> before = records.values();
    EXPECT_EQ(before[4].finite, 1);
    EXPECT_EQ(before[5].finite, 0);
    EXPECT_EQ(before[5].step, 5);
    EXPECT_FALSE(std::isfinite(before[5].loss));
    const std::vector<StepState> state_before = state.values();
    for (int i = 0; i < 3; ++i) end_step(schedule, state, {1, 2, 128}, records.span());
    EXPECT_TRUE(same_bits(state.values(), state_before));
    EXPECT_TRUE(same_bits(records.values(), before));
  }
}

TEST_F(KernelsAdvanceStep, APartialOrACheckThatIsNotFiniteEndsTheRun) {
  const LrSchedule schedule = some_schedule(false);
  const Device<BatchLoss> loss(BatchLoss{1, 2, 128});
  for (const std::size_t bad : {std::size_t{0}, std::size_t{511}, std::size_t{699}}) {
    StepState host = first_step(schedule);
    const Device<StepState> state(host);
    const Device<DeviceRecord> records(std::size_t{2});
    std::vector<NormPartial> partials = random_partials(random_, 700);
    partials[bad].finite = 0;
    const Device<NormPartial> device_partials(partials);
    check(advance_step(schedule, state.data(), loss.data(), device_partials.span(), nullptr, false,
                       records.span(), nullptr));
    advance(host, schedule, false, 2);
    expect_same_state(state.value(), host);
    EXPECT_EQ(records.values()[0].finite, 0);
  }
  StepState host = first_step(schedule);
  const Device<StepState> state(host);
  const Device<DeviceRecord> records(std::size_t{2});
  const GradientCheck overflow{5, 1, 0};
  end_step(schedule, state, {1, 2, 128}, records.span(), &overflow);
  advance(host, schedule, false, 2);
  expect_same_state(state.value(), host);
  EXPECT_EQ(records.values()[0].finite, 0);
}

TEST_F(KernelsAdvanceStep, ANormOfACheckIsTheOneRecorded) {
  const LrSchedule schedule = some_schedule(false);
  const Device<StepState> state(first_step(schedule));
  const Device<DeviceRecord> records(std::size_t{1});
  const GradientCheck gradient{1.0 / 3, 0.5f, 1};
  end_step(schedule, state, {1, 2, 128}, records.span(), &gradient);
  EXPECT_EQ(records.value().grad_norm, 1.0 / 3);
  EXPECT_EQ(records.value().finite, 1);
  EXPECT_EQ(state.value().loss_scale, 1);  // loss scaling is off
  EXPECT_EQ(state.value().updates_at_scale, 0);
}

TEST_F(KernelsAdvanceStep, AnOverflowHalvesTheLossScaleAndTheRunGoesOn) {
  const LrSchedule schedule = some_schedule(true);
  StepState host = first_step(schedule);
  host.loss_scale = 4;
  host.updates_at_scale = 100;
  const Device<StepState> state(host);
  const Device<DeviceRecord> records(std::size_t{8});
  const GradientCheck good{1, 0.25f, 1};
  const GradientCheck overflow{1, 0.25f, 0};
  const bool overflows[] = {false, true, false, true, false};
  for (const bool overflowed : overflows) {
    end_step(schedule, state, {1, 70, 128}, records.span(), overflowed ? &overflow : &good, true);
    EXPECT_EQ(records.values()[host.step].finite, 1);
    EXPECT_EQ(records.values()[host.step].step, host.step);
    const float applied_lr = overflowed ? host.previous_lr : host.lr;
    advance(host, schedule, true, 70, !overflowed);
    EXPECT_EQ(host.previous_lr, applied_lr);
    update_loss_scale(host, overflowed);
    expect_same_state(state.value(), host);
  }
  EXPECT_EQ(state.value().step, 5);
  EXPECT_EQ(state.value().loss_scale, 1);
  // A scale of 1 is not halved further.
  end_step(schedule, state, {1, 70, 128}, records.span(), &overflow, true);
  EXPECT_EQ(records.values()[5].finite, 0);
  EXPECT_EQ(state.value().first_non_finite, 5);
  EXPECT_EQ(state.value().loss_scale, 1);
}

TEST_F(KernelsAdvanceStep, AnOverflowForgivesTheGradientsAndNotTheLoss) {
  const LrSchedule schedule = some_schedule(false);
  const GradientCheck overflow{1, 1, 0};
  StepState host = first_step(schedule);
  host.loss_scale = 1024;
  {
    const Device<StepState> state(host);
    const Device<DeviceRecord> records(std::size_t{1});
    const Device<BatchLoss> loss(BatchLoss{1, 2, 128});
    const Device<GradientCheck> gradient(overflow);
    std::vector<NormPartial> partials = random_partials(random_, 3);
    partials[1].gradient = std::numeric_limits<float>::infinity();
    partials[1].finite = 0;
    const Device<NormPartial> device_partials(partials);
    check(advance_step(schedule, state.data(), loss.data(), device_partials.span(), gradient.data(),
                       true, records.span(), nullptr));
    EXPECT_EQ(records.value().finite, 1);
    EXPECT_EQ(state.value().step, 1);
    EXPECT_EQ(state.value().loss_scale, 512);
  }
  const Device<StepState> state(host);
  const Device<DeviceRecord> records(std::size_t{1});
  end_step(schedule, state, {std::nan(""), 2, 128}, records.span(), &overflow, true);
  EXPECT_EQ(records.value().finite, 0);
  EXPECT_EQ(state.value().first_non_finite, 0);
  EXPECT_EQ(state.value().loss_scale, 1024);
}

TEST_F(KernelsAdvanceStep, TheLossScaleDoublesAfterEnoughUpdates) {
  const LrSchedule schedule = some_schedule(false);
  StepState host = first_step(schedule);
  host.loss_scale = 512;
  host.updates_at_scale = loss_scale_growth_interval - 2;
  const Device<StepState> state(host);
  const Device<DeviceRecord> records(std::size_t{1});
  const GradientCheck good{1, 1, 1};
  for (const float expected : {512.0f, 1024.0f, 1024.0f}) {
    end_step(schedule, state, {1, 2, 128}, records.span(), &good, true);
    EXPECT_EQ(state.value().loss_scale, expected);
  }
  EXPECT_EQ(state.value().updates_at_scale, 1);
}

TEST_F(KernelsAdvanceStep, AStateSetByHandGoesOnAtTheRateOfItsStep) {
  for (const bool gated : {false, true}) {
    const LrSchedule schedule = some_schedule(gated);
    for (const std::int64_t step : {0, 40, 78, 79, 80, 150, 179, 298, 299, 400}) {
      SCOPED_TRACE("step " + std::to_string(step));
      StepState host;
      host.step = step;
      host.gate_opened_at = gated ? 30 : -1;
      const std::int64_t opened = host.gate_opened_at;
      host.lr = static_cast<float>(lr_at(schedule, step, opened));
      const Device<StepState> state(host);
      const Device<DeviceRecord> records(std::size_t{3});
      for (int i = 0; i < 2; ++i) end_step(schedule, state, {1, 2, 128}, records.span());
      const std::vector<DeviceRecord> found = records.values();
      for (int i = 0; i < 2; ++i) {
        const DeviceRecord& record = found[(step + i) % 3];
        EXPECT_EQ(record.step, step + i);
        EXPECT_EQ(record.phase, phase_at(schedule, step + i, opened));
        expect_same_rate(record.lr, static_cast<float>(lr_at(schedule, step + i, opened)));
      }
      EXPECT_EQ(state.value().step, step + 2);
      expect_same_rate(state.value().lr, static_cast<float>(lr_at(schedule, step + 2, opened)));
      expect_same_rate(state.value().previous_lr,
                       static_cast<float>(lr_at(schedule, step + 1, opened)));
    }
  }
}

TEST_F(KernelsAdvanceStep, TwoLaunchesGiveTheSameBits) {
  const LrSchedule schedule = some_schedule(false);
  const Device<NormPartial> partials(random_partials(random_, 700));
  const Device<BatchLoss> loss(BatchLoss{1.7, 2, 128});
  std::vector<std::vector<StepState>> states;
  std::vector<DeviceRecord> found;
  for (int launch = 0; launch < 2; ++launch) {
    const Device<StepState> state(first_step(schedule));
    const Device<DeviceRecord> records(std::size_t{1});
    check(advance_step(schedule, state.data(), loss.data(), partials.span(), nullptr, false,
                       records.span(), nullptr));
    states.push_back(state.values());
    found.push_back(records.value());
  }
  EXPECT_TRUE(same_bits(states[0], states[1]));
  EXPECT_EQ(found[0].grad_norm, found[1].grad_norm);
  EXPECT_EQ(found[0].update_norm, found[1].update_norm);
  EXPECT_EQ(found[0].weight_norm, found[1].weight_norm);
}

TEST_F(KernelsAdvanceStep, RefusesToRecordNowhere) {
  const LrSchedule schedule = some_schedule(false);
  const Device<StepState> state(first_step(schedule));
  const Device<BatchLoss> loss(BatchLoss{1, 2, 128});
  EXPECT_EQ(advance_step(schedule, state.data(), loss.data(), {}, nullptr, false, {}, nullptr),
            cudaErrorInvalidValue);
}

TEST_F(KernelsAdvanceStep, MovesAPosition) {
  const Device<std::int64_t> position(std::vector<std::int64_t>{5});
  check(move_position(position.data(), 128, nullptr));
  check(move_position(position.data(), std::int64_t{1} << 40, nullptr));
  check(move_position(position.data(), -3, nullptr));
  EXPECT_EQ(position.value(), 130 + (std::int64_t{1} << 40));
}

}  // namespace
}  // namespace preheat::kernels
