#include "schedule/plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

Schedule schedule_of(const std::string& schedule, std::int64_t steps = 100,
                     std::int64_t steps_per_epoch = 10) {
  const RunConfig config = read_config(parse_document(
      fmt::format("schedule: {}\ntrain: {{length: {} steps}}\n", schedule, steps), "f.yaml"));
  return resolve_schedule(config, run_length(config, steps_per_epoch));
}

std::string words(const Schedule& s, std::size_t part = 0) {
  return in_words(s, phase_intervals(s).at(part));
}

TEST(PhaseIntervals, OfAnOverlapAndOfAGate) {
  // The hold ends during the warmup, so it is never reached.
  const Schedule covered = schedule_of(
      "{warmup: {length: 30 steps, overlap: true}, hold: 20 steps, decay: {length: 50 steps}}");
  std::string text;
  for (const PhaseInterval& s : phase_intervals(covered)) {
    text += fmt::format("{} {}..{} ", covered.phase_names[s.phase], s.first, s.last);
  }
  EXPECT_EQ(text, "warmup 0..29 decay 30..69 final 70..99 ");

  const Schedule gated = schedule_of(
      "{warmup: {length: 30 steps, until: {train_error_below: 0.5, window: 5 steps}},"
      " hold: 20 steps}");
  text.clear();
  for (const PhaseInterval& s : phase_intervals(gated, 12)) {
    text += fmt::format("{} {}..{} ", gated.phase_names[s.phase], s.first, s.last);
  }
  EXPECT_EQ(text, "warmup 0..11 hold 12..31 decay 32..99 ");
}

TEST(InWords, SaysWhatAPhaseDoes) {
  EXPECT_EQ(words(schedule_of("{base_lr: 0.1, warmup: {length: 10 steps}}")),
            "linear from 0 to 1.00e-01");
  EXPECT_EQ(words(schedule_of("{base_lr: 0.1, warmup: {length: 10 steps}}"), 1),
            "half a cosine from 1.00e-01 to 0");
  EXPECT_THAT(words(schedule_of("{base_lr: 1, warmup: {length: 10 steps, shape: power, power: 4,"
                                " every: epoch, min_lr: 1e-3}}")),
              "power 4 from 0 to 1.00e+00, changing once an epoch, not below 1.00e-03");
  const Schedule overlapping =
      schedule_of("{base_lr: 1, warmup: {length: 10 steps, overlap: true, toward: multiply}}");
  EXPECT_EQ(words(overlapping), "the curve behind it times a factor linear from 0 to 1.00e+00");
  EXPECT_THAT(words(overlapping, 1), HasSubstr("counted from the start of the run"));
  EXPECT_THAT(words(schedule_of("{warmup: {length: 20 steps, until: {train_error_below: 0.8,"
                                " window: 10 steps}}}")),
              HasSubstr("ends when the training error of the last 10 updates falls below 0.8"));
  const auto decay = [](const std::string& keys) {
    return words(schedule_of("{base_lr: 1, warmup: {length: 0 steps}, decay: {" + keys + "}}"));
  };
  EXPECT_EQ(decay("shape: multistep, at: [30 steps, 60 steps]"),
            "from 1.00e+00 times 0.1 at updates 30, 60");
  EXPECT_EQ(decay("shape: step, gamma: 0.5, over: 30 steps"),
            "from 1.00e+00 times 0.5 every 30 updates");
  EXPECT_EQ(decay("shape: exponential, gamma: 0.5, over: 1 steps, staircase: true"),
            "from 1.00e+00 times 0.5 over 1 update, in steps");
  EXPECT_EQ(decay("shape: inverse_sqrt, timescale: 40 steps"),
            "from 1.00e+00 as 1 / sqrt(1 + k / 40)");
  EXPECT_THAT(decay("shape: cosine, cycles: 3, peak_factor: 0.5"),
              HasSubstr("in 3 equal cycles, each peak 0.5 times"));
  EXPECT_THAT(decay("shape: cosine, period: 10 steps, multiply: 2, rewarmup: 3 steps"),
              HasSubstr("again and again, the first time over 10 updates, each time 2 times as "
                        "long, after a ramp of 3 updates to each but the first peak"));
}

TEST(InWords, NoShapeIsWithoutWords) {
  for (std::size_t i = 0; i < std::size(shape_facts); ++i) {
    Schedule s = schedule_of("{}");
    s.lr.phases[0].shape = static_cast<Shape>(i);
    s.lr.phases[0].over = 7;
    EXPECT_NE(in_words(s, {0, 0, 1}), "") << shape_facts[i].name;
  }
}

// The words' formula gives the rates.
TEST(InWords, ASaturatingWarmupHasItsFormula) {
  const auto warmup = [](const std::string& endpoints) {
    return schedule_of(
        "{base_lr: 2, warmup: {shape: saturating, length: 20 steps, timescale: 5 "
        "steps, endpoints: " +
        endpoints + "}}");
  };
  const Schedule end = warmup("end");
  EXPECT_EQ(words(end), "from 0 to 2.00e+00 as 1 - exp(-(k + 1) / 5)");
  const Schedule start = warmup("start");
  EXPECT_EQ(words(start), "from 0 to 2.00e+00 as 1 - exp(-k / 5)");
  const Schedule neither = warmup("neither");
  EXPECT_EQ(words(neither), "from 0 to 2.00e+00 as 1 - exp(-20 p / 5)");
  for (int k = 0; k < 20; ++k) {
    EXPECT_NEAR(lr_at(end.lr, k), 2 * (1 - std::exp(-(k + 1) / 5.0)), 1e-12) << k;
    EXPECT_NEAR(lr_at(start.lr, k), 2 * (1 - std::exp(-k / 5.0)), 1e-12) << k;
    EXPECT_NEAR(lr_at(neither.lr, k), 2 * (1 - std::exp(-20 * (k + 1) / 21.0 / 5)), 1e-12) << k;
  }
}

TEST(Remarks, OfWhatPeopleTripOver) {
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 10 steps}}")), IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 0 steps}}")), IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 10 steps, endpoints: start}}")),
              ElementsAre("the first update has rate 0 and changes no weight"));
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 10 steps, shape: constant}}")),
              ElementsAre("the first 10 updates have rate 0 and change no weight",
                          StartsWith("from warmup to decay the rate jumps: warmup ends at 0")));
  EXPECT_THAT(
      remarks(schedule_of("{warmup: {length: 51 steps}}")),
      ElementsAre("the rate rises until update 50 of 100: a warmup of more than half the run"));
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 50 steps}}")), IsEmpty());
  // A decay that ran during the warmup: the ramp heads for the base rate, the curve is below it.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 30 steps, overlap: true}}")),
              ElementsAre("from warmup to decay the rate jumps: warmup ends at 1.00e+00, update 30 "
                          "has 7.81e-01"));
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 30 steps, overlap: true,"
                                  " endpoints: start, start_lr: 0.01}}")),
              ElementsAre("from warmup to decay the rate jumps: warmup was heading for 1.00e+00, "
                          "update 30 has 7.81e-01"));
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 30 steps, overlap: true,"
                                  " toward: curve}}")),
              IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 30 steps, overlap: true,"
                                  " toward: multiply}}")),
              IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 5 steps}, decay: {shape: linear,"
                                  " endpoints: start}}")),
              ElementsAre("the last update has 1.05e-02, not the final rate 0"));
  // timm's drop: rates by epoch, and a warmup of few epochs.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 30 steps, every: epoch, start_lr: "
                                  "0.1, endpoints: start, overlap: true}, decay: {endpoints: start,"
                                  " every: epoch}}")),
              testing::Contains(HasSubstr("was heading for 1.00e+00, update 30 has 7.94e-01")));
  // A phase heads for its floor if that is above its end value.
  EXPECT_THAT(
      remarks(schedule_of("{base_lr: 1, phases: [{shape: linear, from: base, to: 0, min_lr: "
                          "0.05, length: 50 steps}, {shape: constant, from: 0.05}]}")),
      IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{base_lr: 0.1, min_lr: 1, warmup: {length: 0 steps}}")),
              ElementsAre("decay has a floor of 1.00e+00, above the base rate"));
  EXPECT_THAT(remarks(schedule_of("{base_lr: 0.1, min_lr: 0.1, warmup: {length: 0 steps}}")),
              IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 5 steps}, decay: {shape: multistep, at: [50 "
                                  "steps, 100 steps]}}")),
              ElementsAre("decay has a milestone at update 100, behind the 100 of the run"));
  EXPECT_THAT(
      remarks(schedule_of("{warmup: {length: 5 steps}, decay: {shape: step, over: 95 steps}}")),
      ElementsAre("decay ends before its first drop, after 95 updates"));
  // With an overlap the drops count from the start of the run, as the rates show.
  const Schedule under = schedule_of(
      "{base_lr: 1, warmup: {length: 40 steps, overlap: true}, decay: {shape: step, over: 70 "
      "steps}}");
  EXPECT_EQ(lr_at(under.lr, 69), 1);
  EXPECT_EQ(lr_at(under.lr, 70), 0.1);
  EXPECT_THAT(remarks(under), IsEmpty());
  EXPECT_THAT(
      remarks(schedule_of("{warmup: {length: 40 steps, overlap: true}, decay: {shape: step, over: "
                          "100 steps}}")),
      ElementsAre("decay ends before its first drop, after 100 updates"));
  // If the rate changes only at epochs, here of ten updates, a drop comes at the next epoch.
  const std::string by_epoch =
      "{{base_lr: 1, warmup: {{length: 0 steps}}, decay: {{shape: step, every: epoch, over: {} "
      "steps}}}}";
  EXPECT_EQ(lr_at(schedule_of(fmt::format(fmt::runtime(by_epoch), 90)).lr, 99), 0.1);
  EXPECT_THAT(remarks(schedule_of(fmt::format(fmt::runtime(by_epoch), 90))), IsEmpty());
  EXPECT_EQ(lr_at(schedule_of(fmt::format(fmt::runtime(by_epoch), 91)).lr, 99), 1);
  EXPECT_THAT(remarks(schedule_of(fmt::format(fmt::runtime(by_epoch), 91))),
              ElementsAre("decay ends before its first drop, after 91 updates"));
  EXPECT_THAT(
      remarks(schedule_of("{warmup: {length: 5 steps}, decay: {shape: step, over: 94 steps}}")),
      IsEmpty());
  // A double below the smallest float is 0 for the weights.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1e-40, warmup: {shape: power, power: 30,"
                                  " length: 10 steps}}")),
              testing::Contains(HasSubstr("updates have rate 0")));
  // This warmup only reaches 1 - exp(-1) of the base rate.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {shape: saturating, length: 10 steps}}")),
              ElementsAre(StartsWith("from warmup to decay the rate jumps: warmup ends at "
                                     "6.32e-01, update 10 has ")));
  // Half of a warmup, whether at_most or the gate ends it there.
  const std::string half = "from warmup to decay the rate jumps: warmup ends at 5.00e-01, update ";
  EXPECT_THAT(
      remarks(schedule_of("{base_lr: 1, warmup: {length: 40 steps, until: "
                          "{train_error_below: 0.5, window: 5 steps, at_most: 20 steps}}}")),
      ElementsAre(StartsWith(half + "20 has ")));
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 40 steps, until: "
                                  "{train_error_below: 0.5, window: 5 steps}}}"),
                      20),
              ElementsAre(StartsWith(half + "20 has ")));
  // A milestone during the warmup has lowered the rate by the time the decay begins.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, warmup: {length: 10 steps}, decay: {shape: "
                                  "multistep, at: [5 steps, 50 steps]}}")),
              ElementsAre("from warmup to decay the rate jumps: warmup ends at 1.00e+00, update 10 "
                          "has 1.00e-01"));
  // A phase that begins below its floor begins at the floor.
  EXPECT_THAT(remarks(schedule_of("{base_lr: 1, phases: [{shape: linear, from: base, to: 0.05, "
                                  "length: 50 steps}, {shape: linear, from: 0, to: 0.04, min_lr: "
                                  "0.05}]}")),
              IsEmpty());
  // Half of the run, although the first update of the decay is a little above the warmup's last.
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 5000 steps, endpoints: start}}", 10000)),
              ElementsAre("the first update has rate 0 and changes no weight"));
  // From a rate to the same rate, which rounding misses by the last bit.
  EXPECT_THAT(remarks(schedule_of("{phases: [{shape: linear, from: 0.23, to: 0.23, endpoints: "
                                  "start}]}",
                                  9)),
              IsEmpty());
  // Stairs are no jumps, nor is a decay that begins with a step of its usual size.
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 5 steps}, hold: 5 steps,"
                                  " decay: {every: epoch}}")),
              IsEmpty());
  EXPECT_THAT(remarks(schedule_of("{warmup: {length: 5 steps}, decay: {shape: one_minus_sqrt}}")),
              IsEmpty());
}

TEST(WarmupUpdates, AreThoseOfThePhaseThatBeginsTheRun) {
  EXPECT_EQ(warmup_updates(schedule_of("{warmup: {length: 30 steps}}")), 30);
  EXPECT_EQ(warmup_updates(schedule_of("{warmup: {length: 0 steps}}")), 0);
  const Schedule gate =
      schedule_of("{warmup: {length: 30 steps, until: {train_error_below: 0.5, window: 5 steps}}}");
  EXPECT_EQ(warmup_updates(gate), 30);
  EXPECT_EQ(warmup_text(gate), ", at most W = 30 of them warmup");
  EXPECT_EQ(warmup_updates(gate, 8), 8);
  EXPECT_EQ(warmup_text(gate, 8), ", W = 8 of them warmup");
  EXPECT_EQ(warmup_text(schedule_of("{warmup: {length: 0 steps}}")), "");
  const auto phases = [](const char* name) {
    return schedule_of(
        fmt::format("{{phases: [{{name: {}, shape: linear, length: 7 steps}}, "
                    "{{name: rest, shape: constant}}]}}",
                    name));
  };
  EXPECT_EQ(warmup_updates(phases("warmup")), 7);
  EXPECT_EQ(warmup_updates(phases("ramp")), 0);
}

// The rates of the run show that the drop never comes.
TEST(Remarks, AMilestoneBehindItsPhaseNeverComes) {
  const auto decay = [](const std::string& keys) {
    return schedule_of("{base_lr: 1, warmup: {length: 8 steps}, decay: {shape: multistep, " + keys +
                       "}}");
  };
  const Schedule late = decay("at: [20 steps, 28 steps], length: 20 steps");
  EXPECT_EQ(lr_at(late.lr, 99), 0.1);
  EXPECT_THAT(remarks(late),
              ElementsAre("decay has a milestone at update 28, after its last update, 27"));
  const Schedule reached = decay("at: [20 steps, 27 steps], length: 20 steps");
  EXPECT_NEAR(lr_at(reached.lr, 99), 0.01, 1e-15);
  EXPECT_THAT(remarks(reached), IsEmpty());
  // With rates that change at epochs, of ten updates, a drop comes at the next epoch.
  EXPECT_EQ(lr_at(decay("at: [91 steps], every: epoch").lr, 99), 1);
  EXPECT_THAT(
      remarks(decay("at: [91 steps], every: epoch")),
      ElementsAre("decay has a milestone at update 91, after its last epoch's begin at 90"));
  EXPECT_EQ(lr_at(decay("at: [90 steps], every: epoch").lr, 99), 0.1);
  EXPECT_THAT(remarks(decay("at: [90 steps], every: epoch")), IsEmpty());
}

TEST(SumOfRates, AddsThemUp) {
  EXPECT_NEAR(*sum_of_rates(schedule_of("{base_lr: 2, warmup: {length: 100 steps}}")), 101, 1e-9);
  EXPECT_FALSE(sum_of_rates(schedule_of("{}", max_updates_walked + 1)));
}

TEST(ScheduleDifference, IsTheFirstAndTheFurthest) {
  const Schedule a = schedule_of("{base_lr: 1, warmup: {length: 10 steps}}");
  const Schedule b = schedule_of("{base_lr: 1, warmup: {length: 10 steps}, hold: 20 steps}");
  EXPECT_FALSE(schedule_difference(a, -1, a, -1));
  const auto p = schedule_difference(a, -1, b, -1);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->first, 10);
  double furthest = 0;
  std::int64_t at = 0;
  for (std::int64_t k = 0; k < 100; ++k) {
    const double d = lr_at(b.lr, k) - lr_at(a.lr, k);
    if (d > furthest) {
      furthest = d;
      at = k;
    }
  }
  EXPECT_EQ(p->largest_at, at);
  EXPECT_EQ(p->b - p->a, furthest);
  // Only updates that both have are compared.
  const Schedule shorter =
      schedule_of("{base_lr: 1, warmup: {length: 10 steps}, hold: 20 steps}", 30);
  EXPECT_FALSE(schedule_difference(shorter, -1, b, -1));
  EXPECT_FALSE(schedule_difference(b, -1, shorter, -1));
  // Equally far apart everywhere: the first update counts.
  const auto constant = [](const std::string& lr) {
    return schedule_of("{base_lr: " + lr + ", phases: [{shape: constant, from: base}]}");
  };
  EXPECT_EQ(schedule_difference(constant("1"), -1, constant("2"), -1)->largest_at, 0);
  // One schedule, with its gate shut and open.
  const Schedule gated =
      schedule_of("{warmup: {length: 30 steps, until: {train_error_below: 0.5, window: 5 steps}}}");
  EXPECT_EQ(schedule_difference(gated, -1, gated, 12)->first, 12);
}

TEST(LrText, IsNeverZeroPointZero) {
  EXPECT_EQ(lr_text(0), "0");
  EXPECT_EQ(lr_text(3.2e-7), "3.20e-07");
  EXPECT_EQ(lr_text(0.1), "1.00e-01");
}

}  // namespace
}  // namespace preheat
