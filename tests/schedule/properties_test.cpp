// Properties of every accepted schedule, whatever its keys, and what happens to text that is not a
// schedule.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "schedule/plan.h"
#include "schedule/random_schedule.h"
#include "settings.h"

namespace preheat {
namespace {

class Properties : public testing::Test {
 protected:
  // The schedule of a random configuration that is accepted with these settings.
  Schedule accepted(const std::vector<std::string>& settings = {}) {
    for (;;) {
      config_ = random_.config();
      settings_ = settings;
      try {
        return resolved({});
      } catch (const ConfigError&) {
        continue;
      }
    }
  }
  // The schedule of the same configuration with more settings. Throws ConfigError.
  Schedule resolved(const std::vector<std::string>& more) {
    const Document random = parse_document(random_.text(), "random.yaml");
    config_ = read_config(with_settings(with_settings(random, settings_), more));
    return resolve_schedule(config_, run_length(config_, random_.steps_per_epoch()));
  }
  bool has_sections() const { return config_.schedule.phases.empty(); }

  const std::uint32_t seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, fmt::format("seed {}", seed_)};
  RandomSchedule random_{seed_};
  RunConfig config_;
  std::vector<std::string> settings_;
};

TEST_F(Properties, EveryRateIsANumberFromZeroUp) {
  for (int trial = 0; trial < 3000; ++trial) {
    const Schedule s = accepted();
    SCOPED_TRACE(random_.text());
    for (const std::int64_t gate : {std::int64_t{-1}, random_.integer(1, 100)}) {
      for (std::int64_t k = -3; k < s.run.steps + 3; ++k) {
        const double lr = lr_at(s.lr, k, gate);
        ASSERT_TRUE(std::isfinite(lr) && lr >= 0) << lr << " at " << k;
      }
    }
  }
}

TEST_F(Properties, StretchesAreTheWholeRunInOrder) {
  for (int trial = 0; trial < 2000; ++trial) {
    const Schedule s = accepted();
    SCOPED_TRACE(random_.text());
    for (const std::int64_t gate : {std::int64_t{-1}, random_.integer(1, 100)}) {
      std::int64_t next = 0;
      int phase = -1;
      for (const PhaseInterval& part : phase_intervals(s, gate)) {
        ASSERT_EQ(part.first, next);
        ASSERT_GE(part.last, part.first);
        ASSERT_GT(part.phase, phase);
        for (std::int64_t k = part.first; k <= part.last; ++k) {
          ASSERT_EQ(phase_at(s.lr, k, gate), part.phase) << k;
        }
        next = part.last + 1;
        phase = part.phase;
      }
      ASSERT_EQ(next, s.run.steps);
    }
  }
}

TEST_F(Properties, BeyondTheRunTheNearestRateHolds) {
  for (int trial = 0; trial < 1000; ++trial) {
    const Schedule s = accepted();
    SCOPED_TRACE(random_.text());
    const double last = lr_at(s.lr, s.run.steps - 1);
    for (const std::int64_t beyond : {std::int64_t{0}, std::int64_t{1}, std::int64_t{1} << 40}) {
      ASSERT_EQ(lr_at(s.lr, s.run.steps + beyond), last);
    }
    ASSERT_EQ(lr_at(s.lr, -1), lr_at(s.lr, 0));
  }
}

// No step of a continuous schedule is much larger than the largest of a linear one.
TEST_F(Properties, AWarmupToTheBaseMeetsADecayFromTheBase) {
  for (int trial = 0; trial < 1000; ++trial) {
    const std::int64_t steps = random_.integer(20, 400);
    const std::int64_t warmup = random_.integer(1, steps - 2);
    const char* shapes[] = {"linear", "cosine", "power, power: 2"};
    const std::string text = fmt::format(
        "schedule: {{base_lr: 1, warmup: {{shape: {}, length: {} steps, endpoints: {}}},\n"
        "  hold: {} steps, decay: {{shape: {}, endpoints: start}}}}\ntrain: {{length: {} steps}}\n",
        shapes[random_.integer(0, 2)], warmup, random_.one_in(2) ? "start" : "end",
        random_.integer(0, 1), shapes[random_.integer(0, 2)], steps);
    const RunConfig config = read_config(parse_document(text, "f.yaml"));
    const Schedule s = resolve_schedule(config, run_length(config, 10));
    const auto length = static_cast<double>(std::min(warmup, steps - warmup - 1));
    for (std::int64_t k = 1; k < steps; ++k) {
      // The largest step of these shapes is pi / 2, or 2, times the mean step.
      ASSERT_LE(std::fabs(lr_at(s.lr, k) - lr_at(s.lr, k - 1)), 2.01 / length) << text << k;
    }
    ASSERT_TRUE(remarks(s).empty() || remarks(s)[0].find("jumps") == std::string::npos) << text;
  }
}

// With an overlap the curve does not depend on the warmup in front of it.
TEST_F(Properties, BehindAnOverlapIsTheRunWithoutWarmup) {
  int compared = 0;
  while (compared < 500) {
    const Schedule s = accepted();
    if (!has_sections() || s.lr.overlap == Overlap::none) continue;
    if (config_.schedule.decay.shape == "inverse_sqrt") continue;  // its timescale is the warmup's
    if (config_.schedule.decay.shape == "saturating") continue;
    SCOPED_TRACE(random_.text());
    const bool multiplies = s.lr.overlap == Overlap::multiply;
    const double floor = config_.schedule.warmup.min_lr.value_or(config_.schedule.min_lr);
    const std::int64_t seam = s.lr.phases[0].length;
    const Phase factor = s.lr.phases[0];
    const Schedule plain = resolved({"schedule.warmup.length=0 steps"});
    for (std::int64_t k = seam; k < s.run.steps; ++k) {
      ASSERT_EQ(lr_at(s.lr, k), lr_at(plain.lr, k)) << k;
    }
    for (std::int64_t k = 0; k < seam && multiplies; ++k) {
      // The curve has its own floor; the warmup's floor applies to the product.
      const double value = lr_at(plain.lr, k) * shape_value(s.lr, factor, 0, factor.span, k);
      ASSERT_DOUBLE_EQ(lr_at(s.lr, k), std::max(value, floor)) << k;
    }
    ++compared;
  }
}

// Without an overlap the phases after the warmup are those of a run shorter by the warmup.
TEST_F(Properties, BehindAWarmupIsAShorterRun) {
  int compared = 0;
  while (compared < 300) {
    const std::int64_t steps = random_.integer(5, 300);
    const std::int64_t warmup = random_.integer(1, steps - 4);
    const char* decay[] = {"shape: cosine, cycles: 3, peak_factor: 0.7", "shape: tanh",
                           "shape: power, power: 3, final_lr: 1e-3, endpoints: both",
                           "shape: one_minus_sqrt, endpoints: neither",
                           "shape: exponential, gamma: 0.9, over: 7 steps"};
    const std::string rest = fmt::format(
        "decay: {{{}}}}}\n", decay[random_.integer(0, static_cast<int>(std::size(decay)) - 1)]);
    const auto schedule = [&](std::int64_t lead, std::int64_t length) {
      const std::string text =
          fmt::format("schedule: {{warmup: {{length: {} steps}}, {}train: {{length: {} steps}}\n",
                      lead, rest, length);
      const RunConfig config = read_config(parse_document(text, "f.yaml"));
      return resolve_schedule(config, run_length(config, 10));
    };
    const Schedule with = schedule(warmup, steps);
    const Schedule without = schedule(0, steps - warmup);
    for (std::int64_t k = warmup; k < steps; ++k) {
      ASSERT_EQ(lr_at(with.lr, k), lr_at(without.lr, k - warmup)) << rest << k;
    }
    ++compared;
  }
}

// After a gate has opened at update G, the schedule is that of a warmup of G updates.
TEST_F(Properties, BehindAGateIsTheShorterWarmup) {
  int compared = 0;
  while (compared < 500) {
    const Schedule s = accepted();
    if (!has_sections() || s.lr.gate.window == 0 || s.lr.phases[0].length < 2) continue;
    // A timescale that is the warmup's does not change with the gate.
    const PhaseConfig& decay = config_.schedule.decay;
    if (decay.shape == "inverse_sqrt" || decay.shape == "saturating") continue;
    if (config_.schedule.toward == Toward::curve) continue;
    SCOPED_TRACE(random_.text());
    const std::int64_t opened = random_.integer(1, s.lr.phases[0].length - 1);
    Schedule shorter;
    try {
      shorter = resolved(
          {fmt::format("schedule.warmup.length={} steps", opened), "schedule.warmup.until=null"});
    } catch (const ConfigError&) {
      continue;
    }
    for (std::int64_t k = 0; k < s.run.steps; ++k) {
      const double lr = lr_at(s.lr, k, opened);
      if (k < opened) {
        ASSERT_EQ(lr, lr_at(s.lr, k)) << k;
      } else {
        ASSERT_EQ(lr, lr_at(shorter.lr, k)) << k << " after " << opened;
        ASSERT_EQ(phase_name(s, k, opened), phase_name(shorter, k));
      }
    }
    ++compared;
  }
}

TEST_F(Properties, AFloorIsAMaximum) {
  int compared = 0;
  while (compared < 100) {
    const double floor = random_.number(1e-5, 1);
    const Schedule low = accepted({"schedule.min_lr=0"});
    bool own = false;  // floors of single phases take precedence
    own |= config_.schedule.warmup.min_lr || config_.schedule.decay.min_lr;
    for (const PhaseConfig& phase : config_.schedule.phases) own |= phase.min_lr.has_value();
    for (const PhaseConfig& phase : config_.schedule.phases) {
      own |= !phase.from || phase.from->kind == LrKind::last;  // begins at a value that is floored
    }
    if (own || config_.schedule.toward != Toward::base) continue;
    SCOPED_TRACE(random_.text());
    Schedule high;
    try {
      high = resolved({fmt::format("schedule.min_lr={}", floor)});
    } catch (const ConfigError&) {
      continue;
    }
    for (std::int64_t k = 0; k < low.run.steps; ++k) {
      ASSERT_EQ(lr_at(high.lr, k), std::max(lr_at(low.lr, k), floor)) << k;
    }
    ++compared;
  }
}

TEST_F(Properties, AScaledBaseIsThatBase) {
  int compared = 0;
  while (compared < 50) {
    const Schedule s = accepted();
    if (!config_.schedule.scale) continue;
    SCOPED_TRACE(random_.text());
    const ScaleConfig scale = *config_.schedule.scale;
    const double ratio =
        static_cast<double>(config_.data.batch_size) / static_cast<double>(scale.reference_batch);
    const double base =
        config_.schedule.base_lr * (scale.rule == ScaleRule::linear ? ratio : std::sqrt(ratio));
    const Schedule plain =
        resolved({"schedule.scale=null", fmt::format("schedule.base_lr={}", base)});
    EXPECT_EQ(s.base_lr, plain.base_lr);
    for (std::int64_t k = 0; k < s.run.steps; ++k) {
      ASSERT_EQ(lr_at(s.lr, k), lr_at(plain.lr, k)) << k;
    }
    ++compared;
  }
}

// The configuration that a run saves gives the same schedule.
TEST_F(Properties, AWrittenConfigurationMeansTheSame) {
  for (int trial = 0; trial < 500; ++trial) {
    const Schedule s = accepted();
    SCOPED_TRACE(random_.text());
    const RunConfig back = read_config(parse_document(write_config(config_), "written.yaml"));
    const Schedule again = resolve_schedule(back, run_length(back, random_.steps_per_epoch()));
    ASSERT_EQ(s.run.steps, again.run.steps);
    for (std::int64_t k = 0; k < s.run.steps; ++k) {
      ASSERT_EQ(lr_at(s.lr, k), lr_at(again.lr, k)) << k;
    }
  }
}

// Random schedules with random damage: either refused in one line, or still a schedule.
TEST_F(Properties, DamagedTextIsRefusedOrASchedule) {
  const std::string letters = "abegilmnoprstuwxy0123456789.:-_{}[],%x \n\"'#*";
  int refused = 0;
  int taken = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    if (trial % 10 == 0) random_.config();
    std::string text = random_.text();
    for (std::int64_t i = random_.integer(1, 4); i > 0; --i) {
      const auto at =
          static_cast<std::size_t>(random_.integer(0, static_cast<std::int64_t>(text.size()) - 1));
      const char letter = letters[static_cast<std::size_t>(
          random_.integer(0, static_cast<std::int64_t>(letters.size()) - 1))];
      switch (random_.integer(0, 2)) {
        case 0:
          text[at] = letter;
          break;
        case 1:
          text.erase(at, static_cast<std::size_t>(random_.integer(1, 8)));
          break;
        default:
          text.insert(at, 1, letter);
      }
      if (text.empty()) text = "x";
    }
    SCOPED_TRACE(text);
    try {
      const RunConfig config = read_config(parse_document(text, "damaged.yaml"));
      const Schedule s = resolve_schedule(config, run_length(config, 7));
      const std::int64_t stride = std::max<std::int64_t>(1, s.run.steps / 50);
      for (std::int64_t k = 0; k < s.run.steps; k += stride) {
        ASSERT_TRUE(std::isfinite(lr_at(s.lr, k)) && lr_at(s.lr, k) >= 0) << k;
      }
      ++taken;
    } catch (const ConfigError& error) {
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(taken, 100);
}

}  // namespace
}  // namespace preheat
