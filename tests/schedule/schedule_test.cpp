#include "schedule/schedule.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iterator>
#include <numbers>
#include <set>

namespace preheat {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

Schedule schedule_of(const std::string& text, std::int64_t steps_per_epoch = 10) {
  const RunConfig config = read_config(parse_document(text, "f.yaml"));
  return resolve_schedule(config, run_length(config, steps_per_epoch));
}

std::string error_of(const std::string& text, std::int64_t steps_per_epoch = 10) {
  try {
    schedule_of(text, steps_per_epoch);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string run_of(std::int64_t steps) {
  return fmt::format("train: {{length: {} steps}}\n", steps);
}

// The error of a schedule in a run of 20 steps, 10 per epoch.
std::string wrong(const std::string& schedule) {
  return error_of("schedule:\n  base_lr: 0.1\n" + schedule + run_of(20));
}

std::vector<double> rates(const Schedule& schedule) {
  std::vector<double> lr;
  for (std::int64_t k = 0; k < schedule.run.steps; ++k) lr.push_back(lr_at(schedule.lr, k));
  return lr;
}

std::string names(const Schedule& schedule) {
  std::string text;
  for (int i = 0; i < schedule.lr.phase_count; ++i) {
    text += fmt::format("{}{}:{}", i == 0 ? "" : " ", schedule.phase_names[i],
                        schedule.lr.phases[i].length);
  }
  return text;
}

TEST(Shapes, KeepTheNearestRateOutsideTheRun) {
  for (const char* decay :
       {"shape: cosine, final_lr: 0.01", "shape: step, gamma: 0.5, over: 7 steps",
        "shape: multistep, at: [8 steps, 25 steps]", "shape: constant"}) {
    const Schedule s = schedule_of(
        fmt::format("schedule: {{warmup: {{length: 3 steps}}, decay: {{{}}}}}\n", decay) +
        run_of(20));
    for (const std::int64_t beyond : {20, 21, 25, 1000, 2'000'000'000}) {
      EXPECT_EQ(lr_at(s.lr, beyond), lr_at(s.lr, 19)) << decay << " at " << beyond;
    }
    EXPECT_EQ(lr_at(s.lr, -1), lr_at(s.lr, 0)) << decay;
  }
}

TEST(Shapes, MilestonesCountFromTheStartOfTheRun) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 4 steps}, hold: 3 steps,\n"
      "           decay: {shape: multistep, gamma: 0.5, at: [2 steps, 10 steps, 1.5 epochs, "
      "90%]}}\n" +
      run_of(20));
  // The first milestone passed during the warmup, so the decay begins with it reached.
  for (std::int64_t k = 7; k < 20; ++k) {
    const int reached = 1 + (k >= 10) + (k >= 15) + (k >= 18);
    EXPECT_EQ(lr_at(s.lr, k), std::ldexp(1.0, -reached)) << k;
  }
  EXPECT_EQ(lr_at(s.lr, 6), 1.0);
}

TEST(Shapes, TwoMultistepPhasesKeepTheirOwnMilestones) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, phases: [\n"
      "  {shape: multistep, from: base, gamma: 0.5, at: [2 steps, 5 steps], length: 10 steps},\n"
      "  {shape: multistep, from: base, gamma: 0.25, at: [12 steps, 15 steps], length: 10 "
      "steps}]}\n" +
      run_of(20));
  const std::vector<double> expected = {1,    1,      0.5,    0.5,    0.5,    0.25,  0.25,
                                        0.25, 0.25,   0.25,   1.0,    1,      .25,   0.25,
                                        0.25, 0.0625, 0.0625, 0.0625, 0.0625, 0.0625};
  EXPECT_EQ(rates(s), expected);
}

constexpr const char* all_endpoints[] = {"start", "end", "both", "neither"};

TEST(Lengths, InStepsEpochsAndPercent) {
  EXPECT_EQ(names(schedule_of("schedule: {warmup: {length: 2 epochs}, hold: 25%,\n"
                              "  decay: {length: 31 steps}}\ntrain: {length: 8 epochs}\n",
                              11)),
            "warmup:22 hold:22 decay:31 final:13");
  EXPECT_EQ(names(schedule_of("schedule: {warmup: {length: 0.5 epochs}}\n" + run_of(40), 7)),
            "warmup:4 decay:36");  // 3.5 rounds to 4
}

TEST(Lengths, RunsInEpochsAndSteps) {
  EXPECT_EQ(schedule_of("train: {length: 3 epochs}", 13).run.steps, 39);
  EXPECT_EQ(schedule_of("train: {length: 2.5 epochs}", 13).run.steps, 33);  // 32.5
  EXPECT_EQ(schedule_of("train: {length: 17 steps}", 13).run.steps, 17);
  EXPECT_EQ(schedule_of("train: {length: 17 steps}", 13).run.steps_per_epoch, 13);
}

TEST(Lengths, TheDefaultWarmupIsFiveEpochsAndAtMostHalfTheRun) {
  EXPECT_EQ(names(schedule_of("train: {length: 30 epochs}", 10)), "warmup:50 decay:250");
  EXPECT_EQ(names(schedule_of("train: {length: 10 epochs}", 10)), "warmup:50 decay:50");
  EXPECT_EQ(names(schedule_of("train: {length: 6 epochs}", 10)), "warmup:30 decay:30");
  EXPECT_EQ(names(schedule_of(run_of(7), 10)), "warmup:3 decay:4");
  EXPECT_EQ(names(schedule_of(run_of(1), 10)), "decay:1");
}

TEST(Lengths, ZeroIsNoPhaseAtAll) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 0.3, warmup: {length: 0 steps}, decay: {length: 0 steps}}\n" +
      run_of(12));
  EXPECT_EQ(names(s), "final:12");
  for (std::int64_t k = 0; k < 12; ++k) EXPECT_EQ(lr_at(s.lr, k), 0.3);
  // The base rate that remains has the floor of all phases.
  EXPECT_EQ(lr_at(schedule_of("schedule: {base_lr: 0.3, min_lr: 0.5, warmup: {length: 0 steps}, "
                              "decay: {length: 0 steps}}\n" +
                              run_of(12))
                      .lr,
                  7),
            0.5);
  // Without a warmup the timescale of its shape, which is its length, does not matter.
  EXPECT_EQ(
      names(schedule_of("schedule: {warmup: {shape: saturating, length: 0 steps}}\n" + run_of(12))),
      "decay:12");
  EXPECT_EQ(names(schedule_of("schedule: {warmup: {length: 0%}}\n" + run_of(12))), "decay:12");
  EXPECT_EQ(
      names(schedule_of("schedule: {warmup: {length: 0 epochs}, hold: 12 steps}\n" + run_of(12))),
      "hold:12");
  EXPECT_EQ(names(schedule_of("schedule: {phases: [{shape: linear, length: 0 steps},\n"
                              "                    {name: flat, shape: constant, from: base}]}\n" +
                              run_of(12))),
            "flat:12");
}

TEST(Lengths, BehindAWarmupWithoutADecayIsTheBaseRate) {
  for (const char* warmup :
       {"shape: constant, start_factor: 0.1, length: 4 steps", "length: 4 steps, endpoints: start",
        "length: 8 steps, until: {train_error_below: 0.5, window: 2 steps, at_most: 4 steps}",
        "length: 4 steps, overlap: true"}) {
    const Schedule s = schedule_of(
        fmt::format("schedule: {{base_lr: 0.3, warmup: {{{}}}, decay: {{length: 0 steps}}}}\n",
                    warmup) +
        run_of(12));
    EXPECT_EQ(phase_name(s, 3), "warmup") << warmup;
    EXPECT_EQ(phase_name(s, 4), "final") << warmup;
    for (std::int64_t k = 4; k < 12; ++k) EXPECT_EQ(lr_at(s.lr, k), 0.3) << warmup;
    if (s.lr.gate.window > 0) {
      EXPECT_EQ(lr_at(s.lr, 3, 3), 0.3);
    }
  }
}

// The decay ends at another value if it begins earlier in an epoch of ten updates.
TEST(Lengths, BehindAGateTheLastValueStaysThatIsReached) {
  const auto expect_last = [](const std::string& decay, std::int64_t opened, double value) {
    const Schedule s = schedule_of(
        fmt::format(
            "schedule: {{base_lr: 1, warmup: {{length: 10 steps, until: {{train_error_below: "
            "0.5, window: 2 steps}}}}, decay: {{{}}}}}\n",
            decay) +
        run_of(60));
    EXPECT_EQ(phase_name(s, 59, opened), "final") << decay;
    EXPECT_DOUBLE_EQ(lr_at(s.lr, 59, opened), value) << decay << ", opened at " << opened;
  };
  // From update 5 to 34 are parts of four epochs.
  const std::string step =
      "shape: step, gamma: 0.1, over: 10 steps, every: epoch, length: 30 steps";
  expect_last(step, -1, 1e-2);
  expect_last(step, 5, 1e-3);
  const std::string linear = "shape: linear, endpoints: start, every: epoch, length: 30 steps";
  expect_last(linear, -1, 1.0 / 3);
  expect_last(linear, 5, 0.25);
  // Over before its milestone.
  const std::string multistep = "shape: multistep, gamma: 0.1, at: [16 steps], length: 9 steps";
  expect_last(multistep, -1, 0.1);
  expect_last(multistep, 5, 1);
}

TEST(Lengths, AWarmupMayFillTheRun) {
  const Schedule s = schedule_of("schedule: {base_lr: 1, warmup: {length: 100%}}\n" + run_of(8));
  EXPECT_EQ(names(s), "warmup:8");
  EXPECT_EQ(lr_at(s.lr, 7), 1.0);
}

TEST(Lengths, AfterAShorterDecayTheLastValueStays) {
  for (const char* endpoints : all_endpoints) {
    const Schedule s = schedule_of(
        fmt::format("schedule: {{base_lr: 1, warmup: {{length: 2 steps}}, decay: {{shape: linear, "
                    "final_lr: 0.25, length: 6 steps, endpoints: {}}}}}\n",
                    endpoints) +
        run_of(20));
    EXPECT_EQ(names(s), "warmup:2 decay:6 final:12") << endpoints;
    for (std::int64_t k = 8; k < 20; ++k) EXPECT_EQ(lr_at(s.lr, k), lr_at(s.lr, 7)) << endpoints;
  }
}

TEST(Lengths, PhaseNamesFollowTheSteps) {
  const Schedule s =
      schedule_of("schedule: {warmup: {length: 2 steps}, hold: 3 steps}\n" + run_of(9));
  std::string seen;
  for (std::int64_t k = 0; k < 9; ++k) seen += phase_name(s, k).front();
  EXPECT_EQ(seen, "wwhhhdddd");
}

TEST(Phases, FromAndToHaveDefaults) {
  const Schedule s = schedule_of(R"(
schedule:
  base_lr: 0.5
  phases:
    - {shape: linear, length: 4 steps}
    - {name: plateau, shape: constant, length: 2 steps}
    - {shape: linear, to: 0.1x, length: 4 steps}
    - {shape: linear, to: 0.2, length: 5 steps}
    - {shape: constant}
train: {length: 18 steps}
)");
  EXPECT_EQ(names(s), "phase-0:4 plateau:2 phase-2:4 phase-3:5 phase-4:3");
  EXPECT_EQ(s.lr.phases[0].from, 0.0);
  EXPECT_EQ(lr_at(s.lr, 3), 0.5);
  EXPECT_EQ(lr_at(s.lr, 5), 0.5);
  EXPECT_DOUBLE_EQ(lr_at(s.lr, 6), 0.5 - 0.45 / 4);
  EXPECT_DOUBLE_EQ(lr_at(s.lr, 9), 0.05);
  EXPECT_DOUBLE_EQ(lr_at(s.lr, 10), 0.05 + 0.15 / 5);
  EXPECT_EQ(lr_at(s.lr, 14), 0.2);
  EXPECT_EQ(lr_at(s.lr, 17), 0.2);
}

// An arm without warmup sets a phase's length to 0: the next one starts where it would have ended.
TEST(Phases, AnEmptyPhaseHandsItsEndOn) {
  const Schedule s = schedule_of(R"(
schedule:
  base_lr: 0.5
  phases:
    - {name: ramp, shape: linear, length: 0 steps}
    - {name: down, shape: linear, to: 0, endpoints: start}
train: {length: 4 steps}
)");
  EXPECT_EQ(rates(s), (std::vector<double>{0.5, 0.375, 0.25, 0.125}));
  const Schedule last = schedule_of(R"(
schedule:
  base_lr: 0.5
  phases:
    - {name: ramp, shape: linear, length: 0 steps}
    - {name: flat, shape: constant, from: last, length: 2 steps}
    - {name: none, shape: linear, to: 0.1, length: 0 steps}
    - {name: on, shape: constant, from: last, length: 1 steps}
    - {name: end, shape: constant}
train: {length: 5 steps}
)");
  EXPECT_EQ(rates(last), (std::vector<double>{0.5, 0.5, 0.5, 0.5, 0.5}));
}

TEST(Phases, FromTheLastRateOfThePhaseBefore) {
  const Schedule s = schedule_of(R"(
schedule:
  base_lr: 1
  phases:
    - {name: ramp, shape: linear, length: 4 steps, endpoints: start}
    - {name: flat, shape: constant, from: last}
train: {length: 6 steps}
)");
  EXPECT_EQ(rates(s), (std::vector<double>{0, 0.25, 0.5, 0.75, 0.75, 0.75}));
  EXPECT_THAT(wrong("  phases:\n    - {shape: constant, from: last}\n"),
              HasSubstr("schedule.phases.0.from: there is no phase before it"));
  EXPECT_THAT(wrong("  phases:\n    - {shape: linear, to: last}\n"),
              HasSubstr("schedule.phases.0.to: last is where a phase starts"));
}

TEST(Phases, EachHasItsOwnFloor) {
  const Schedule s = schedule_of(R"(
schedule:
  base_lr: 1
  phases:
    - {shape: linear, from: base, to: 0, length: 4 steps, min_lr: 0.5}
    - {shape: linear, from: 0.5, to: 0, length: 4 steps, min_lr: 0.3}
    - {shape: constant, from: 0.1}
train: {length: 9 steps}
)");
  EXPECT_EQ(rates(s), (std::vector<double>{0.75, 0.5, 0.5, 0.5, 0.375, 0.3, 0.3, 0.3, 0.1}));
}

TEST(Gates, ARestThatTheyLeaveGrows) {
  const std::string gate = "until: {train_error_below: 0.5, window: 5 steps}";
  // The warmup may fill the run; the decay then has what the gate leaves.
  const Schedule s = schedule_of("schedule: {base_lr: 1, warmup: {length: 20 steps, " + gate +
                                 "}, decay: {shape: linear, endpoints: start}}\n" + run_of(20));
  EXPECT_EQ(lr_at(s.lr, 10, 10), 1.0);
  EXPECT_EQ(lr_at(s.lr, 15, 10), 0.5);
  EXPECT_EQ(phase_name(s, 19, 10), "decay");
  EXPECT_EQ(phase_name(s, 19), "warmup");
  // A decay whose length is given does not grow; the updates after it are a separate phase.
  const Schedule kept =
      schedule_of("schedule: {base_lr: 1, warmup: {length: 10 steps, " + gate +
                  "}, decay: {shape: linear, final_lr: 0.1, length: 10 steps}}\n" + run_of(20));
  EXPECT_EQ(phase_name(kept, 14, 5), "decay");
  EXPECT_EQ(phase_name(kept, 15, 5), "final");
  for (std::int64_t k = 14; k < 20; ++k) EXPECT_EQ(lr_at(kept.lr, k, 5), 0.1) << k;
}

// Growing cycles keep growing to the end of a decay that a gate has made longer.
TEST(Gates, CyclesGrowThroughWhatTheyLeave) {
  const std::string decay =
      ", decay: {shape: cosine, period: 10 steps, multiply: 2, endpoints: start}}\n" + run_of(120);
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 100 steps, until: {train_error_below: 0.5, window: "
      "5 steps}}" +
      decay);
  const Schedule shorter = schedule_of("schedule: {base_lr: 1, warmup: {length: 8 steps}" + decay);
  for (std::int64_t k = 8; k < 120; ++k) {
    EXPECT_EQ(lr_at(s.lr, k, 8), lr_at(shorter.lr, k)) << k;
  }
  // Cycles of 10, 20 and 40 updates, and the beginning of a fourth.
  for (const std::int64_t begin : {8, 18, 38, 78}) EXPECT_EQ(lr_at(s.lr, begin, 8), 1.0) << begin;
}

// If the gate stays shut, the ramps would take all of the decay: they are left out, and one cosine
// remains. If it opens, there is room for them.
TEST(Gates, RampsThatWouldFillTheDecayNeedWhatTheyLeave) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 20 steps, until: {train_error_below: 0.5, window: "
      "5 steps}}, decay: {shape: cosine, cycles: 3, rewarmup: 10 steps}}\n" +
      run_of(40));
  for (int k = 0; k < 20; ++k) {
    EXPECT_NEAR(lr_at(s.lr, 20 + k), (1 + std::cos(std::numbers::pi * (k + 1) / 20)) / 2, 1e-12);
  }
  // The ramps take 20 of 35 updates, so cycles have 5; the second begins after 5 + 10 updates.
  EXPECT_NEAR(lr_at(s.lr, 5 + 4, 5), 0, 1e-12);
  EXPECT_EQ(lr_at(s.lr, 5 + 5 + 9, 5), 1);
  EXPECT_NEAR(lr_at(s.lr, 39, 5), 0, 1e-12);
}

// An error below 0.55 is more than 45 % of 6400 right; 0.45 x 6400 is 2880, which doubles miss.
TEST(Gates, CountTheExamplesThatTheErrorLeaves) {
  const Schedule s = schedule_of(
      "data: {batch_size: 128}\n"
      "schedule: {warmup: {length: 60 steps, until: {train_error_below: 0.55}}}\n" +
      run_of(100));
  EXPECT_EQ(s.lr.gate.window, 50);
  EXPECT_EQ(s.lr.gate.correct_above, 2880);
}

// With at_most below the length, the ramp is that of the whole length, cut off.
TEST(Gates, AtMostCutsALongerWarmupOff) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 10 steps, until: {train_error_below: 0.5,\n"
      "  window: 2 steps, at_most: 4 steps}}}\n" +
      run_of(20));
  EXPECT_EQ(names(s), "warmup:4 decay:16");
  EXPECT_EQ(lr_at(s.lr, 3), 0.4);
}

// The whole ramp leads to the curve at update 40, where it would end.
TEST(Gates, AtMostDoesNotChangeARampTowardACurve) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 40 steps, overlap: true, toward: curve,\n"
      "  until: {train_error_below: 0.5, window: 2 steps, at_most: 20 steps}}}\n" +
      run_of(100));
  const double at_seam = (1 + std::cos(std::numbers::pi * 41 / 100)) / 2;
  for (int k = 0; k < 20; ++k) EXPECT_NEAR(lr_at(s.lr, k), at_seam * (k + 1) / 40, 1e-12) << k;
  for (int k = 20; k < 100; ++k) {
    EXPECT_NEAR(lr_at(s.lr, k), (1 + std::cos(std::numbers::pi * (k + 1) / 100)) / 2, 1e-12) << k;
  }
}

TEST(Gates, AreLookedAtWhereTheyHaveOpenedToo) {
  const std::string warmup =
      "schedule:\n  base_lr: 1\n"
      "  warmup: {length: 100 steps, until: {train_error_below: 0.5, window: 5 steps}}\n";
  // The rates of 100 updates fit into a float; those of the 199 that a gate may leave do not.
  for (const char* decay : {"{shape: step, gamma: 1e6, over: 20 steps}",
                            "{shape: exponential, gamma: 2, over: 1 steps}"}) {
    EXPECT_THAT(error_of(warmup + "  decay: " + decay + "\n" + run_of(200)),
                HasSubstr("schedule.decay.gamma: makes the learning rate overflow"));
  }
  // Ramps that have no room after a late opening make no rates out of range.
  const Schedule s = schedule_of(
      warmup + "  decay: {shape: cosine, cycles: 3, rewarmup: 30 steps}\n" + run_of(100));
  for (std::int64_t opened = 5; opened < 100; ++opened) {
    for (std::int64_t k = opened; k < 100; ++k) {
      ASSERT_TRUE(lr_at(s.lr, k, opened) >= 0 && lr_at(s.lr, k, opened) <= 1) << opened << " " << k;
    }
  }
  EXPECT_EQ(lr_at(s.lr, 99, 70), 0.0);
}

TEST(WrongSchedules, RatesThatNoFloatHolds) {
  EXPECT_THAT(error_of("schedule: {base_lr: 1e-60}\n"),
              AllOf(StartsWith("f.yaml:1:12: schedule.base_lr: "), HasSubstr("single precision")));
  EXPECT_THAT(error_of("schedule: {base_lr: 1e-40, scale: {reference_batch: 1000000000}}\n"),
              StartsWith("f.yaml:1:28: schedule.scale: "));
  EXPECT_THAT(error_of("schedule: {base_lr: 1e-30, warmup: {length: 10 steps, start_lr: 1e12,\n"
                       "  overlap: true, toward: multiply}}\n" +
                       run_of(20)),
              HasSubstr("schedule.warmup.start_lr: makes the learning rate overflow"));
}

// Cycles begin at whole updates, which doubles miss by the last bit: 21 / 1.4 is 15 and 69 / 2.3 is
// 30, but not in doubles, nor is 25 (1 + 2.2 + 2.2^2) 201.
TEST(Phases, CyclesBeginWhereTheyShould) {
  const auto decay_of = [](const std::string& keys, std::int64_t steps) {
    return schedule_of("schedule: {base_lr: 1, warmup: {length: 0 steps}, decay: {shape: cosine, " +
                       keys + "}}\n" + run_of(steps))
        .lr;
  };
  EXPECT_EQ(lr_at(decay_of("cycles: 1.4, endpoints: start", 21), 15), 1);
  const LrSchedule twice = decay_of("cycles: 2.3, endpoints: start", 69);
  EXPECT_EQ(lr_at(twice, 30), 1);
  EXPECT_EQ(lr_at(twice, 60), 1);
  EXPECT_EQ(lr_at(decay_of("period: 25 steps, multiply: 2.2, endpoints: start", 300), 201), 1);
  // A ramp of one update after the first 15, then the first update of a cosine over 15.
  const LrSchedule ramp = decay_of("cycles: 1.4, rewarmup: 1 steps", 22);
  EXPECT_EQ(lr_at(ramp, 15), 1);
  EXPECT_NEAR(lr_at(ramp, 16), (1 + std::cos(std::numbers::pi / 15)) / 2, 1e-12);
}

// Only the decay has the floor, so the rates of the warmup show what they head for.
TEST(Phases, AWarmupTowardACurveLeadsToItsFloor) {
  const Schedule s = schedule_of(
      "schedule: {base_lr: 1, warmup: {length: 10 steps, overlap: true, toward: curve}, "
      "decay: {shape: linear, min_lr: 0.6}}\n" +
      run_of(20));
  // The line has fallen to 0.45 at update 10.
  for (int k = 0; k < 10; ++k) EXPECT_NEAR(lr_at(s.lr, k), 0.06 * (k + 1), 1e-12) << k;
  EXPECT_EQ(lr_at(s.lr, 10), 0.6);
}

TEST(WrongSchedules, CyclesThatDoNotFit) {
  EXPECT_THAT(wrong("  decay: {shape: cosine, cycles: 21}\n"),
              HasSubstr("schedule.decay.cycles: 21 are more than its 10 updates"));
  EXPECT_EQ(wrong("  decay: {shape: cosine, cycles: 10}\n"), "");
  // With a gate the limit is all of the run's updates, as it may open early.
  const std::string gate =
      "  warmup: {length: 10 steps, until: {train_error_below: 0.5, window: 5 steps}}\n";
  EXPECT_EQ(wrong(gate + "  decay: {shape: cosine, cycles: 20}\n"), "");
  EXPECT_THAT(wrong(gate + "  decay: {shape: cosine, cycles: 21}\n"),
              HasSubstr("schedule.decay.cycles: 21 are more than its 20 updates"));
  EXPECT_THAT(wrong("  decay: {shape: cosine, cycles: 4, rewarmup: 5 steps}\n"),
              HasSubstr("schedule.decay.rewarmup: 5 steps before each cycle leaves nothing"));
  // The two ramps of three cycles take all 10 updates, or 8 of them.
  EXPECT_THAT(wrong("  decay: {shape: cosine, cycles: 3, rewarmup: 5 steps}\n"),
              HasSubstr("schedule.decay.rewarmup: 5 steps before each cycle leaves nothing"));
  EXPECT_EQ(wrong("  decay: {shape: cosine, cycles: 3, rewarmup: 4 steps}\n"), "");
  EXPECT_THAT(wrong("  decay: {shape: cosine, cycles: 2, period: 3 steps}\n"),
              HasSubstr("schedule.decay.cycles: period is given too"));
  EXPECT_THAT(wrong("  decay: {shape: cosine, peak_factor: 0.5}\n"),
              HasSubstr("schedule.decay.peak_factor: there is no second cycle"));
  EXPECT_THAT(wrong("  decay: {shape: cosine, cycles: 2, multiply: 2}\n"),
              HasSubstr("schedule.decay.multiply: there is no period to grow"));
  EXPECT_THAT(error_of("schedule: {warmup: {length: 0 steps}, decay: {shape: cosine, period: 1 "
                       "steps, multiply: 1.0001}}\n" +
                       run_of(100000)),
              HasSubstr("more than 128 milestones and cycles"));
}

TEST(WrongSchedules, GatesWithoutAWindow) {
  EXPECT_THAT(wrong("  warmup: {length: 10 steps, until: {train_error_below: 0.5}}\n"),
              HasSubstr("schedule.warmup.until.window: 50 steps are more than the 10 updates"));
  EXPECT_THAT(error_of("schedule: {warmup: {length: 3000 steps, until: {train_error_below: 0.5,\n"
                       "  window: 1025 steps}}}\n" +
                       run_of(4000)),
              HasSubstr("are more than 1024 updates"));
  EXPECT_THAT(wrong("  warmup: {length: 5 steps, until: {train_error_below: 0.5, window: 8 steps,"
                    " at_most: 10 steps}}\n"),
              HasSubstr("schedule.warmup.until.window: 8 steps are more than the 5 updates"));
  // Without a warmup the gate does not matter.
  EXPECT_EQ(wrong("  warmup: {length: 0 steps, until: {train_error_below: 0.5}}\n"), "");
}

TEST(Phases, APhaseGoesOnFromWhereStairsEnded) {
  const Schedule s = schedule_of(R"(
schedule:
  base_lr: 8
  phases:
    - {shape: step, from: base, gamma: 0.5, over: 2 steps, length: 6 steps}
    - {shape: linear, to: 0, endpoints: start}
train: {length: 10 steps}
)");
  EXPECT_EQ(rates(s), (std::vector<double>{8, 8, 4, 4, 2, 2, 2, 1.5, 1, 0.5}));
}

TEST(WrongSchedules, AWarmupLongerThanTheRun) {
  EXPECT_THAT(
      wrong("  warmup:\n    length: 3 epochs\n"),
      AllOf(StartsWith("f.yaml:4:5: schedule.warmup.length: 3 epochs (30 updates) do not fit "
                       "into the 20 updates of the run"),
            HasSubstr("; at most 20 steps, or a longer train.length")));
  EXPECT_THAT(error_of("schedule:\n  warmup: {length: 2 steps}\n" + run_of(1)),
              HasSubstr("2 steps (2 updates) do not fit into the 1 update of the run; at most 1 "
                        "step, or a longer train.length"));
  EXPECT_THAT(error_of("schedule: {warmup: {length: 1 steps}, hold: 1 steps}\n" + run_of(1)),
              HasSubstr("1 step (1 update) does not fit into the 0 updates left of the run"));
}

TEST(WrongSchedules, PhasesThatTogetherAreLongerThanTheRun) {
  EXPECT_THAT(
      wrong("  warmup: {length: 15 steps}\n  hold: 6 steps\n"),
      AllOf(StartsWith("f.yaml:4:3: schedule.hold: 6 steps (6 updates) do not fit into the 5 "
                       "updates left of the run"),
            HasSubstr("at most 5 steps")));
  EXPECT_THAT(wrong("  warmup: {length: 15 steps}\n  decay: {length: 6 steps}\n"),
              StartsWith("f.yaml:4:11: schedule.decay.length: 6 steps (6 updates) do not fit"));
  EXPECT_THAT(
      wrong("  phases:\n    - {shape: linear, length: 15 steps}\n"
            "    - {shape: constant, length: 30%}\n"),
      StartsWith("f.yaml:5:25: schedule.phases.1.length: 30% (6 updates) do not fit into the 5"));
  EXPECT_THAT(
      wrong("  phases:\n    - {shape: linear, length: 20 steps}\n    - {shape: constant}\n"),
      AllOf(StartsWith("f.yaml:5:"), HasSubstr("schedule.phases.1: has no updates left")));
}

TEST(WrongSchedules, OnlyTheLastPhaseMayLeaveOutItsLength) {
  EXPECT_THAT(wrong("  phases:\n    - {shape: linear}\n    - {shape: constant}\n"),
              AllOf(StartsWith("f.yaml:4:"),
                    HasSubstr("schedule.phases.0.length: is missing; only the last phase may")));
}

TEST(WrongSchedules, TwoPhasesCalledFinal) {
  const std::string phases = "  phases:\n    - {name: final, shape: constant, from: base, length: ";
  EXPECT_THAT(wrong(phases + "12 steps}\n"),
              StartsWith("f.yaml:4:8: schedule.phases.0.name: 'final' is the name of the 8 updates "
                         "after the last phase"));
  // If no updates are left, the name is like any other.
  EXPECT_EQ(wrong(phases + "20 steps}\n"), "");
}

TEST(WrongSchedules, UnknownShapesNameTheNearestOrAll) {
  EXPECT_THAT(wrong("  warmup: {shape: lineer, length: 5 steps}\n"),
              AllOf(StartsWith("f.yaml:3:12: schedule.warmup.shape: 'lineer'"),
                    HasSubstr("did you mean linear?")));
  EXPECT_THAT(wrong("  warmup: {shape: triangle, length: 5 steps}\n"),
              AllOf(HasSubstr("one of constant, linear, cosine, power, exponential, saturating"),
                    testing::Not(HasSubstr("multistep"))));
  EXPECT_THAT(wrong("  decay: {shape: consine}\n"),
              AllOf(StartsWith("f.yaml:3:11: schedule.decay.shape: 'consine'"),
                    HasSubstr("did you mean cosine?")));
  const std::string message = wrong("  phases:\n    - {shape: triangle}\n");
  EXPECT_THAT(message, StartsWith("f.yaml:4:8: schedule.phases.0.shape: 'triangle'"));
  for (const ShapeFacts& facts : shape_facts) EXPECT_THAT(message, HasSubstr(facts.name));
}

TEST(WrongSchedules, UnknownEndpoints) {
  EXPECT_THAT(wrong("  warmup: {length: 5 steps, endpoints: left}\n"),
              AllOf(StartsWith("f.yaml:3:29: schedule.warmup.endpoints: 'left' is unknown"),
                    HasSubstr("one of start, end, both, neither")));
}

TEST(WrongSchedules, ExponentialFromOrToZero) {
  EXPECT_THAT(wrong("  warmup: {shape: exponential, length: 5 steps}\n"),
              AllOf(StartsWith("f.yaml:3:"),
                    HasSubstr("schedule.warmup.start_lr: shape exponential cannot start from 0")));
  EXPECT_THAT(
      wrong("  warmup: {shape: exponential, length: 5 steps, start_factor: 0}\n"),
      AllOf(StartsWith("f.yaml:3:"), HasSubstr("schedule.warmup.start_factor: shape expon")));
  EXPECT_THAT(
      wrong("  decay: {shape: exponential, final_lr: 0}\n"),
      StartsWith("f.yaml:3:31: schedule.decay.final_lr: shape exponential never reaches 0"));
  EXPECT_THAT(wrong("  phases:\n    - {shape: exponential}\n"),
              HasSubstr("schedule.phases.0.from: shape exponential cannot start from 0"));
}

TEST(WrongSchedules, AKeyThatTheShapeDoesNotTake) {
  EXPECT_THAT(wrong("  decay: {shape: cosine, gamma: 0.1}\n"),
              StartsWith("f.yaml:3:26: schedule.decay.gamma: shape cosine takes no gamma"));
  EXPECT_THAT(wrong("  decay: {shape: linear, power: 2}\n"),
              StartsWith("f.yaml:3:26: schedule.decay.power: shape linear takes no power"));
  EXPECT_THAT(wrong("  decay: {shape: multistep, at: [5 steps], over: 3 steps}\n"),
              StartsWith("f.yaml:3:44: schedule.decay.over: shape multistep takes no over"));
  EXPECT_THAT(
      wrong("  decay: {shape: step, over: 5 steps, at: [3 steps]}\n"),
      AllOf(StartsWith("f.yaml:3:"), HasSubstr("schedule.decay.at: shape step takes no at")));
  EXPECT_THAT(wrong("  decay: {shape: step, over: 5 steps, final_lr: 0.1}\n"),
              HasSubstr("schedule.decay.final_lr: shape step takes no final_lr"));
  EXPECT_THAT(wrong("  decay: {shape: constant, final_factor: 0.1}\n"),
              HasSubstr("schedule.decay.final_factor: shape constant takes no final_factor"));
  EXPECT_THAT(wrong("  phases:\n    - {shape: constant, to: 0.3}\n"),
              StartsWith("f.yaml:4:25: schedule.phases.0.to: shape constant takes no to"));
  EXPECT_THAT(wrong("  decay: {shape: constant, every: epoch}\n"),
              StartsWith("f.yaml:3:28: schedule.decay.every: shape constant takes no every"));
}

// Endpoints are accepted for exactly the shapes whose rates they change, the default for all.
TEST(WrongSchedules, EndpointsOfAShapeThatHasNone) {
  struct Decay {
    std::string keys;
    bool has_ends;
  };
  const Decay decays[] = {{"shape: constant", false},
                          {"shape: linear", true},
                          {"shape: cosine", true},
                          {"shape: cosine, cycles: 2", true},
                          {"shape: power, power: 2", true},
                          {"shape: exponential, final_lr: 0.01", true},
                          {"shape: exponential, gamma: 0.9, over: 1 steps", false},
                          {"shape: saturating", true},
                          {"shape: one_minus_sqrt", true},
                          {"shape: inverse_sqrt", false},
                          {"shape: step, over: 3 steps", false},
                          {"shape: multistep, at: [5 steps]", false},
                          {"shape: inverse, gamma: 0.1, power: 1", false},
                          {"shape: sigmoid, gamma: -0.1, center: 8 steps", false},
                          {"shape: tanh", true}};
  std::set<std::string> shapes;
  for (const Decay& decay : decays) {
    SCOPED_TRACE(decay.keys);
    const std::string shape = decay.keys.substr(7, decay.keys.find(',') - 7);
    shapes.insert(shape);
    const auto text = [&](const char* endpoints) {
      return fmt::format(
                 "schedule:\n  warmup: {{length: 2 steps}}\n  decay: {{endpoints: {}, {}}}\n",
                 endpoints, decay.keys) +
             run_of(20);
    };
    const Schedule as_it_is = schedule_of(text("end"));
    for (const char* endpoints : {"start", "both", "neither"}) {
      if (!decay.has_ends) {
        EXPECT_THAT(error_of(text(endpoints)),
                    AllOf(StartsWith("f.yaml:3:11: schedule.decay.endpoints: "),
                          testing::AnyOf(HasSubstr("shape " + shape + " takes no endpoints"),
                                         HasSubstr("gamma has no end value"))));
        continue;
      }
      const Schedule other = schedule_of(text(endpoints));
      bool moves = false;
      for (std::int64_t k = 2; k < 20; ++k) moves |= lr_at(as_it_is.lr, k) != lr_at(other.lr, k);
      EXPECT_TRUE(moves) << endpoints;
    }
  }
  EXPECT_EQ(shapes.size(), std::size(shape_facts));
}

TEST(WrongSchedules, StepWithoutOver) {
  EXPECT_THAT(wrong("  decay: {shape: step, gamma: 0.5}\n"),
              AllOf(StartsWith("f.yaml:3:"), HasSubstr("schedule.decay.over: is missing"),
                    HasSubstr("30 epochs")));
}

TEST(WrongSchedules, MilestonesThatAreMissingOrDoNotIncrease) {
  EXPECT_THAT(wrong("  decay: {shape: multistep}\n"), HasSubstr("schedule.decay.at: is missing"));
  EXPECT_THAT(wrong("  decay:\n    shape: multistep\n    at: [5 steps, 9 steps, 9 steps]\n"),
              AllOf(StartsWith("f.yaml:5:"),
                    HasSubstr("schedule.decay.at: 9 steps does not come after the one before it")));
  EXPECT_THAT(wrong("  decay: {shape: multistep, at: [1 epochs, 30%]}\n"),
              HasSubstr("30% does not come after"));
}

TEST(WrongSchedules, LengthsOfRuns) {
  EXPECT_THAT(error_of("train: {length: 0 steps}\n"), StartsWith("f.yaml:1:9: train.length: "));
  EXPECT_THAT(error_of("train: {length: 0 epochs}\n"), StartsWith("f.yaml:1:9: train.length: "));
  EXPECT_THAT(error_of("train: {length: 50%}\n"), StartsWith("f.yaml:1:9: train.length: "));
  EXPECT_THAT(
      error_of("train: {length: 0.01 epochs}\n"),
      StartsWith("f.yaml:1:9: train.length: 0.01 epochs round to no update; at least 1 step"));
}

// A warmup that stays where it starts has the same rates whatever it is to lead to.
TEST(WrongSchedules, AConstantWarmupTowardACurve) {
  const auto warmup = [](const std::string& shape, const std::string& toward) {
    return wrong("  warmup: {shape: " + shape +
                 ", start_lr: 0.01, length: 5 steps, overlap: true, " + "toward: " + toward +
                 "}\n");
  };
  EXPECT_THAT(warmup("constant", "curve"),
              HasSubstr("schedule.warmup.toward: shape constant leads to no curve; toward: base"));
  EXPECT_EQ(warmup("constant", "base"), "");
  EXPECT_EQ(warmup("constant", "multiply"), "");
  EXPECT_EQ(warmup("linear", "curve"), "");
}

TEST(WrongSchedules, ALengthThatRoundsToNothing) {
  EXPECT_THAT(wrong("  warmup: {length: 1%}\n"),
              StartsWith("f.yaml:3:12: schedule.warmup.length: 1% rounds to no update in a run of "
                         "20 steps; a longer one, or 0 steps for none"));
  EXPECT_THAT(wrong("  decay: {shape: step, over: 0.04 epochs}\n"),
              HasSubstr("schedule.decay.over: 0.04 epochs rounds to no update"));
}

// The remedy is one that the key takes.
TEST(WrongSchedules, ALengthThatMayNotBeZeroIsNotToBeMadeZero) {
  const std::string longer = "rounds to no update in a run of 20 steps; a longer one";
  for (const std::string decay :
       {"shape: step, over: 0.0001%", "shape: multistep, at: [0.0001%]",
        "shape: cosine, period: 0.0001%", "shape: inverse_sqrt, timescale: 0.0001%"}) {
    EXPECT_THAT(wrong("  decay: {" + decay + "}\n"), EndsWith(longer)) << decay;
    std::string zero = decay;
    zero.replace(zero.find("0.0001%"), 7, "0 steps");
    EXPECT_NE(wrong("  decay: {" + zero + "}\n"), "") << zero;
  }
  for (const std::string decay : {"length: 0.0001%", "cycles: 2, rewarmup: 0.0001%"}) {
    EXPECT_THAT(wrong("  decay: {" + decay + "}\n"), EndsWith(longer + ", or 0 steps for none"))
        << decay;
    std::string zero = decay;
    zero.replace(zero.find("0.0001%"), 7, "0 steps");
    EXPECT_EQ(wrong("  decay: {" + zero + "}\n"), "") << zero;
  }
}

// As many as allowed are accepted, and not one more.
TEST(WrongSchedules, TooManyPhasesAndMilestones) {
  const auto with_phases = [](int count) {
    std::string phases = "schedule:\n  base_lr: 0.1\n  phases:\n";
    for (int i = 0; i < count; ++i) {
      phases += "    - {shape: constant, from: 0.1, length: 1 steps}\n";
    }
    return phases;
  };
  EXPECT_EQ(error_of(with_phases(max_phases) + run_of(max_phases)), "");
  EXPECT_THAT(error_of(with_phases(max_phases + 1) + run_of(max_phases + 1)),
              HasSubstr("more than 32 phases"));
  EXPECT_THAT(error_of(with_phases(max_phases) + run_of(1000)), HasSubstr("more than 32 phases"));
  const auto with_milestones = [](int count) {
    std::string at;
    for (int i = 1; i < count; ++i) at += fmt::format("{} steps, ", i);
    return "schedule:\n  base_lr: 0.1\n  decay: {shape: multistep, at: [" + at + "200 steps]}\n";
  };
  EXPECT_EQ(error_of(with_milestones(max_marks) + run_of(1000)), "");
  EXPECT_THAT(error_of(with_milestones(max_marks + 1) + run_of(1000)),
              HasSubstr("more than 128 milestones"));
}

}  // namespace
}  // namespace preheat
