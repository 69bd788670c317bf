#include "schedule/schedule.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numbers>
#include <random>

namespace preheat {
namespace {

using testing::AllOf;
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

// The table of shapes once more, in long double and written from its formulas.
struct Stretch {
  std::string shape;
  std::string endpoints;
  long double from = 0;
  long double to = 0;
  long double power = 1;
  long double gamma = 1;
  std::int64_t over = 1;
  std::vector<std::int64_t> at;
  std::int64_t begin = 0;
  std::int64_t length = 0;
};

long double expected_rate(const Stretch& s, std::int64_t step) {
  const std::int64_t k = step - s.begin;
  const auto n = static_cast<long double>(s.length);
  const auto x = static_cast<long double>(k);
  const long double p = s.endpoints == "start"  ? x / n
                        : s.endpoints == "end"  ? (x + 1) / n
                        : s.endpoints == "both" ? (s.length == 1 ? 0 : x / (n - 1))
                                                : (x + 1) / (n + 1);
  if (s.shape == "constant") return s.from;
  if (s.shape == "linear") return s.from + (s.to - s.from) * p;
  if (s.shape == "cosine") {
    return s.from + (s.to - s.from) * (1 - std::cos(std::numbers::pi_v<long double> * p)) / 2;
  }
  if (s.shape == "power") {
    return s.to > s.from ? s.from + (s.to - s.from) * std::pow(p, s.power)
                         : s.to + (s.from - s.to) * std::pow(1 - p, s.power);
  }
  if (s.shape == "exponential") return s.from * std::pow(s.to / s.from, p);
  if (s.shape == "step") {
    return s.from * std::pow(s.gamma, std::floor(x / static_cast<long double>(s.over)));
  }
  long double rate = s.from;
  for (const std::int64_t at : s.at) rate *= step >= at ? s.gamma : 1;
  return rate;
}

// A phase of a random length and position, as YAML and as numbers.
class RandomSchedule {
 public:
  explicit RandomSchedule(std::uint32_t seed) : random_(seed) {}

  Stretch stretch(const std::string& shape, const std::string& endpoints) {
    Stretch s;
    s.shape = shape;
    s.endpoints = endpoints;
    s.begin = integer(0, 50);
    s.length = integer(1, 3) == 1 ? integer(1, 4) : integer(5, 300);
    base_ = number(1e-3, 2);
    const double from = integer(0, 3) == 0 && shape != "exponential" ? 0.0 : number(1e-6, 1);
    const double to = integer(0, 3) == 0 && shape != "exponential" ? 0.0 : number(1e-6, 1);
    const double power = number(0.2, 6);
    const double gamma = number(0.05, 1.3);  // 1.3^300 is a float, what goes beyond is refused
    s.from = from;
    s.to = to;
    s.power = power;
    s.gamma = gamma;
    s.over = integer(1, 20);
    text_ = fmt::format("schedule:\n  base_lr: {}\n  phases:\n", base_);
    if (s.begin > 0) {
      text_ += fmt::format("    - {{shape: constant, from: {}, length: {} steps}}\n",
                           number(0.1, 1), s.begin);
    }
    text_ += fmt::format("    - {{shape: {}, from: {}", shape, from);
    if (shape != "constant" && shape != "step" && shape != "multistep") {
      text_ += fmt::format(", to: {}, endpoints: {}", to, endpoints);
    }
    if (shape == "power") text_ += fmt::format(", power: {}", power);
    if (shape == "step") text_ += fmt::format(", gamma: {}, over: {} steps", gamma, s.over);
    if (shape == "multistep") {
      std::string at;
      for (std::int64_t m = integer(1, 30); s.at.size() < 6; m += integer(1, 60)) {
        at += fmt::format("{}{} steps", s.at.empty() ? "" : ", ", m);
        s.at.push_back(m);
      }
      text_ += fmt::format(", gamma: {}, at: [{}]", gamma, at);
    }
    text_ += fmt::format(", length: {} steps}}\n{}", s.length, run_of(s.begin + s.length));
    return s;
  }

  const std::string& text() const { return text_; }

  std::int64_t integer(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random_);
  }
  double number(double least, double most) {
    return std::exp(
        std::uniform_real_distribution<double>(std::log(least), std::log(most))(random_));
  }

 private:
  std::mt19937 random_;
  double base_ = 1;
  std::string text_;
};

constexpr const char* all_shapes[] = {"constant",    "linear", "cosine",   "power",
                                      "exponential", "step",   "multistep"};
constexpr const char* ramps[] = {"linear", "cosine", "power", "exponential"};
constexpr const char* all_endpoints[] = {"start", "end", "both", "neither"};

TEST(Shapes, FollowTheTable) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomSchedule random(seed);
  for (const char* shape : all_shapes) {
    for (const char* endpoints : all_endpoints) {
      for (int trial = 0; trial < 20; ++trial) {
        const Stretch s = random.stretch(shape, endpoints);
        SCOPED_TRACE(random.text());
        const Schedule schedule = schedule_of(random.text());
        // gamma above 1 and many drops make large values; the tolerance follows the value.
        for (std::int64_t k = s.begin; k < s.begin + s.length; ++k) {
          const long double expected = expected_rate(s, k);
          const auto scale = static_cast<double>(std::max({s.from, s.to, expected}));
          ASSERT_NEAR(lr_at(schedule.lr, k), static_cast<double>(expected), 1e-13 * scale)
              << "update " << k;
        }
      }
    }
  }
}

TEST(Shapes, HitTheirEndsExactly) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomSchedule random(seed);
  for (const char* shape : ramps) {
    for (const char* endpoints : all_endpoints) {
      for (int trial = 0; trial < 50; ++trial) {
        const Stretch s = random.stretch(shape, endpoints);
        if (s.length < 2) continue;
        SCOPED_TRACE(random.text());
        const Schedule schedule = schedule_of(random.text());
        const double first = lr_at(schedule.lr, s.begin);
        const double last = lr_at(schedule.lr, s.begin + s.length - 1);
        const std::string_view which = endpoints;
        const auto from = static_cast<double>(s.from);
        const auto to = static_cast<double>(s.to);
        if (which == "start" || which == "both") {
          EXPECT_EQ(first, from);
        } else if (from != to && s.power < 3) {
          EXPECT_NE(first, from);
        }
        if (which == "end" || which == "both") {
          EXPECT_EQ(last, to);
        } else if (from != to && s.power < 3) {
          EXPECT_NE(last, to);
        }
      }
    }
  }
}

TEST(Shapes, NeverTurnBack) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomSchedule random(seed);
  for (const char* shape : ramps) {
    for (int trial = 0; trial < 100; ++trial) {
      const Stretch s = random.stretch(shape, all_endpoints[trial % 4]);
      if (std::fabs(static_cast<double>(s.to - s.from)) < 1e-3) continue;
      SCOPED_TRACE(random.text());
      const Schedule schedule = schedule_of(random.text());
      const double least = static_cast<double>(std::min(s.from, s.to));
      const double most = static_cast<double>(std::max(s.from, s.to));
      for (std::int64_t k = s.begin; k < s.begin + s.length; ++k) {
        const double lr = lr_at(schedule.lr, k);
        ASSERT_GE(lr, least);
        ASSERT_LE(lr, most);
        if (k == s.begin) continue;
        if (s.to > s.from) {
          ASSERT_GE(lr, lr_at(schedule.lr, k - 1)) << "update " << k;
        } else {
          ASSERT_LE(lr, lr_at(schedule.lr, k - 1)) << "update " << k;
        }
      }
    }
  }
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
  EXPECT_EQ(names(schedule_of("schedule: {warmup: {length: 0%}}\n" + run_of(12))), "decay:12");
  EXPECT_EQ(
      names(schedule_of("schedule: {warmup: {length: 0 epochs}, hold: 12 steps}\n" + run_of(12))),
      "hold:12");
  EXPECT_EQ(names(schedule_of("schedule: {phases: [{shape: linear, length: 0 steps},\n"
                              "                    {name: flat, shape: constant, from: base}]}\n" +
                              run_of(12))),
            "flat:12");
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

// What optimizer update u = 0, 1, ... used in other libraries, for a base rate of 0.1, 5 updates of
// warmup, 20 updates in all and a final rate of 0.001. optax computes in fp32.
struct Peer {
  const char* name;
  const char* schedule;
  std::int64_t steps;
  double tolerance;  // relative
  std::vector<double> lr;
};

// clang-format off
const Peer peers[] = {
    {"transformers 5.17.0, constant_with_warmup",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: constant}}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
      0.1, 0.1, 0.1}},
    {"transformers 5.17.0, linear",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: linear, final_lr: 0, endpoints: start}}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0933333333333, 0.0866666666667, 0.08,
      0.0733333333333, 0.0666666666667, 0.06, 0.0533333333333, 0.0466666666667, 0.04,
      0.0333333333333, 0.0266666666667, 0.02, 0.0133333333333, 0.00666666666667}},
    {"transformers 5.17.0, cosine",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: cosine, final_lr: 0, endpoints: start}}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0989073800367, 0.0956772728821, 0.0904508497187,
      0.0834565303179, 0.075, 0.0654508497187, 0.0552264231634, 0.0447735768366,
      0.0345491502813, 0.025, 0.0165434696821, 0.00954915028125, 0.00432272711787,
      0.00109261996331}},
    {"transformers 5.17.0, cosine_restarts3",
     "schedule: {base_lr: 0.1, phases: [{shape: linear, length: 5 steps, endpoints: "
     "start}, {shape: cosine, from: base, to: 0, length: 5 steps, endpoints: start}, "
     "{shape: cosine, from: base, to: 0, length: 5 steps, endpoints: start}, {shape: "
     "cosine, from: base, to: 0, length: 5 steps, endpoints: start}]}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0904508497187, 0.0654508497187, 0.0345491502813,
      0.00954915028125, 0.1, 0.0904508497187, 0.0654508497187, 0.0345491502813,
      0.00954915028125, 0.1, 0.0904508497187, 0.0654508497187, 0.0345491502813,
      0.00954915028125}},
    {"transformers 5.17.0, polynomial_p2",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: power, power: 2, final_lr: 0.001, endpoints: start}}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.08724, 0.07536, 0.06436, 0.05424, 0.045, 0.03664,
      0.02916, 0.02256, 0.01684, 0.012, 0.00804, 0.00496, 0.00276, 0.00144}},
    {"transformers 5.17.0, cosine_min_lr",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: cosine, final_lr: 0.001, endpoints: start}}",
     20, 1e-9,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0989183062363, 0.0957205001533, 0.0905463412216,
      0.0836219650148, 0.07525, 0.0657963412216, 0.0556741589317, 0.0453258410683,
      0.0352036587784, 0.02575, 0.0173780349852, 0.0104536587784, 0.00527949984669,
      0.00208169376368}},
    {"transformers 5.17.0, cosine_warmup_min_lr",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps}, decay: {shape: "
     "cosine, final_lr: 0.001}}",
     20, 1e-9,
     {0.02, 0.04, 0.06, 0.08, 0.1, 0.0989183062363, 0.0957205001533, 0.0905463412216,
      0.0836219650148, 0.07525, 0.0657963412216, 0.0556741589317, 0.0453258410683,
      0.0352036587784, 0.02575, 0.0173780349852, 0.0104536587784, 0.00527949984669,
      0.00208169376368, 0.001}},
    {"transformers 5.17.0, wsd_linear",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_lr: 0.001}, hold: 10 steps, decay: {shape: linear, final_lr: 0.001, length: 5 "
     "steps, endpoints: start}}",
     20, 1e-9,
     {0.001, 0.0208, 0.0406, 0.0604, 0.0802, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
      0.1, 0.1, 0.0802, 0.0604, 0.0406, 0.0208}},
    {"transformers 5.17.0, wsd_cosine",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_factor: 0.01}, hold: 10 steps, decay: {shape: cosine, final_factor: 0.01, "
     "length: 25%, endpoints: start}}",
     20, 1e-9,
     {0.001, 0.0208, 0.0406, 0.0604, 0.0802, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
      0.1, 0.1, 0.0905463412216, 0.0657963412216, 0.0352036587784, 0.0104536587784}},
    {"timm 1.0.29, cosine_prefix",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_lr: 1e-5}, decay: {shape: cosine, final_lr: 0.001, endpoints: start}}",
     20, 1e-9,
     {1e-05, 0.020008, 0.040006, 0.060004, 0.080002, 0.1, 0.0989183062363, 0.0957205001533,
      0.0905463412216, 0.0836219650148, 0.07525, 0.0657963412216, 0.0556741589317,
      0.0453258410683, 0.0352036587784, 0.02575, 0.0173780349852, 0.0104536587784,
      0.00527949984669, 0.00208169376368}},
    {"timm 1.0.29, poly_p2_prefix",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_lr: 1e-5}, decay: {shape: power, power: 2, final_lr: 0.001, endpoints: start}}",
     20, 1e-9,
     {1e-05, 0.020008, 0.040006, 0.060004, 0.080002, 0.1, 0.08724, 0.07536, 0.06436,
      0.05424, 0.045, 0.03664, 0.02916, 0.02256, 0.01684, 0.012, 0.00804, 0.00496, 0.00276,
      0.00144}},
    {"timm 1.0.29, step_prefix",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_lr: 1e-5}, decay: {shape: step, gamma: 0.1, over: 5 steps}}",
     20, 1e-9,
     {1e-05, 0.020008, 0.040006, 0.060004, 0.080002, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01,
      0.01, 0.01, 0.01, 0.001, 0.001, 0.001, 0.001, 0.001}},
    {"optax 0.2.8, warmup_cosine",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: cosine, final_lr: 0.001, endpoints: start}}",
     20, 2e-6,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0989183062363, 0.0957205001533, 0.0905463412216,
      0.0836219650148, 0.07525, 0.0657963412216, 0.0556741589317, 0.0453258410683,
      0.0352036587784, 0.02575, 0.0173780349852, 0.0104536587784, 0.00527949984669,
      0.00208169376368}},
    {"optax 0.2.8, warmup_cosine_init",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_lr: 0.001}, decay: {shape: cosine, final_lr: 0.001, endpoints: start}}",
     20, 2e-6,
     {0.001, 0.0208, 0.0406, 0.0604, 0.0802, 0.1, 0.0989183062363, 0.0957205001533,
      0.0905463412216, 0.0836219650148, 0.07525, 0.0657963412216, 0.0556741589317,
      0.0453258410683, 0.0352036587784, 0.02575, 0.0173780349852, 0.0104536587784,
      0.00527949984669, 0.00208169376368}},
    {"optax 0.2.8, warmup_exponential",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: exponential, final_lr: 0.0125, endpoints: start}}",
     20, 2e-6,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0870550563296, 0.0757858283255, 0.0659753955386,
      0.0574349177499, 0.05, 0.0435275281648, 0.0378929141628, 0.0329876977693,
      0.0287174588749, 0.025, 0.0217637640824, 0.0189464570814, 0.0164938488847,
      0.0143587294375}},
    {"optax 0.2.8, warmup_constant",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: constant}}",
     20, 2e-6,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
      0.1, 0.1, 0.1}},
    {"optax 0.2.8, linear_onecycle",
     "schedule: {base_lr: 0.1, phases: [{shape: linear, from: 0.04x, length: 30%, "
     "endpoints: start}, {shape: linear, to: 0.04x, length: 55%, endpoints: start}, "
     "{shape: linear, to: 4e-7, endpoints: start}]}",
     20, 2e-6,
     {0.004, 0.02, 0.036, 0.052, 0.068, 0.084, 0.1, 0.0912727272727, 0.0825454545455,
      0.0738181818182, 0.0650909090909, 0.0563636363636, 0.0476363636364, 0.0389090909091,
      0.0301818181818, 0.0214545454545, 0.0127272727273, 0.004, 0.0026668, 0.0013336}},
    {"optax 0.2.8, cosine_onecycle",
     "schedule: {base_lr: 0.1, phases: [{shape: cosine, from: 0.04x, length: 30%, "
     "endpoints: start}, {shape: cosine, to: 4e-7, endpoints: start}]}",
     20, 2e-6,
     {0.004, 0.0104307806183, 0.028, 0.052, 0.076, 0.0935692193817, 0.1, 0.0987464006235,
      0.0950484632013, 0.0890916177571, 0.081174565395, 0.0716943001791, 0.0611262021936,
      0.0500002, 0.0388741978064, 0.0283060998209, 0.018825834605, 0.0109087822429,
      0.00495193679865, 0.00125399937649}},
    {"optax 0.2.8, join_linear_poly3",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: "
     "start}, decay: {shape: power, power: 3, final_lr: 0.001, endpoints: start}}",
     20, 2e-6,
     {0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.0814906666667, 0.0654453333333, 0.051688,
      0.0400426666667, 0.0303333333333, 0.022384, 0.0160186666667, 0.0110613333333,
      0.007336, 0.00466666666667, 0.00287733333333, 0.001792, 0.00123466666667,
      0.00102933333333}},
    {"torch 2.11.0, linear_then_cosine",
     "schedule: {base_lr: 0.1, warmup: {shape: linear, length: 5 steps, endpoints: start, "
     "start_factor: 0.3333333333333333}, decay: {shape: cosine, final_lr: 0.001, "
     "endpoints: start}}",
     20, 1e-9,
     {0.0333333333333, 0.0466666666667, 0.06, 0.0733333333333, 0.0866666666667, 0.1,
      0.0989183062363, 0.0957205001533, 0.0905463412216, 0.0836219650148, 0.07525,
      0.0657963412216, 0.0556741589317, 0.0453258410683, 0.0352036587784, 0.02575,
      0.0173780349852, 0.0104536587784, 0.00527949984669, 0.00208169376368}},
    {"torch 2.11.0, constant_then_multistep",
     "schedule: {base_lr: 0.1, warmup: {shape: constant, start_lr: 0.01, length: 5 "
     "steps}, decay: {shape: multistep, gamma: 0.1, at: [10 steps, 15 steps]}}",
     20, 1e-9,
     {0.01, 0.01, 0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01,
      0.001, 0.001, 0.001, 0.001, 0.001}},
    {"torch 2.11.0, onecycle",
     "schedule: {base_lr: 0.1, phases: [{shape: cosine, from: 0.04x, length: 4 steps, "
     "endpoints: start}, {shape: cosine, to: 4e-7, endpoints: both}]}",
     20, 1e-9,
     {0.004, 0.018058874503, 0.052, 0.085941125497, 0.1, 0.0989073844072, 0.095677290173,
      0.0904508879153, 0.0834565964918, 0.0750001, 0.0654509879153, 0.0552266022577,
      0.0447737977423, 0.0345494120847, 0.0250003, 0.0165438035082, 0.00954951208465,
      0.00432310982696, 0.00109301559283, 4e-07}},
    {"torch 2.11.0, onecycle_linear",
     "schedule: {base_lr: 0.1, phases: [{shape: linear, from: 0.04x, length: 5 steps, "
     "endpoints: start}, {shape: linear, to: 4e-7, endpoints: both}]}",
     20, 1e-9,
     {0.004, 0.0232, 0.0424, 0.0616, 0.0808, 0.1, 0.0928571714286, 0.0857143428571,
      0.0785715142857, 0.0714286857143, 0.0642858571429, 0.0571430285714, 0.0500002,
      0.0428573714286, 0.0357145428571, 0.0285717142857, 0.0214288857143, 0.0142860571429,
      0.00714322857143, 3.99999999998e-07}},
    {"torch 2.11.0, cosine_warm_restarts",
     "schedule: {base_lr: 0.1, phases: [{shape: cosine, from: base, to: 0.001, length: 2 "
     "steps, endpoints: start}, {shape: cosine, from: base, to: 0.001, length: 4 steps, "
     "endpoints: start}, {shape: cosine, from: base, to: 0.001, length: 8 steps, "
     "endpoints: start}, {shape: cosine, from: base, to: 0.001, length: 16 steps, "
     "endpoints: start}]}",
     30, 1e-9,
     {0.1, 0.0505, 0.1, 0.0855017856687, 0.0505, 0.0154982143313, 0.1, 0.0962320368593,
      0.0855017856687, 0.0694428299021, 0.0505, 0.0315571700979, 0.0154982143313,
      0.00476796314069, 0.1, 0.09904887138, 0.0962320368593, 0.091657745809,
      0.0855017856687, 0.0780007265345}},
    {"torch 2.11.0, polynomial",
     "schedule: {base_lr: 0.1, warmup: {length: 0 steps}, decay: {shape: power, power: 2, "
     "final_lr: 0, endpoints: start}}",
     20, 1e-9,
     {0.1, 0.09025, 0.081, 0.07225, 0.064, 0.05625, 0.049, 0.04225, 0.036, 0.03025, 0.025,
      0.02025, 0.016, 0.01225, 0.009, 0.00625, 0.004, 0.00225, 0.001, 0.00025}},
    {"torch 2.11.0, exponential",
     "schedule: {base_lr: 0.1, warmup: {length: 0 steps}, decay: {shape: exponential, "
     "final_lr: 0.0543794342926747, endpoints: start}}",
     20, 1e-9,
     {0.1, 0.097, 0.09409, 0.0912673, 0.088529281, 0.08587340257, 0.0832972004929,
      0.0807982844781, 0.0783743359438, 0.0760231058655, 0.0737424126895, 0.0715301403088,
      0.0693842360995, 0.0673027090166, 0.0652836277461, 0.0633251189137, 0.0614253653463,
      0.0595826043859, 0.0577951262543, 0.0560612724667}},
};
// clang-format on

TEST(Peers, EveryUpdateOfEveryLibrary) {
  for (const Peer& peer : peers) {
    SCOPED_TRACE(fmt::format("{}: {}", peer.name, peer.schedule));
    const Schedule s = schedule_of(std::string(peer.schedule) + "\n" + run_of(peer.steps));
    for (std::size_t u = 0; u < peer.lr.size(); ++u) {
      EXPECT_NEAR(lr_at(s.lr, static_cast<std::int64_t>(u)), peer.lr[u],
                  peer.tolerance * peer.lr[u])
          << "update " << u;
    }
  }
}

// Systems whose source was read: their rates at updates 0, 1, 3, 4, 5, 6, 18, 19 of the same case,
// to five digits.
TEST(Peers, SystemsReadFromTheirSource) {
  struct Row {
    const char* name;
    const char* schedule;
    std::array<double, 8> lr;
  };
  const Row rows[] = {
      {"TensorFlow official ResNet",
       "{base_lr: 0.1, warmup: {length: 5 steps, endpoints: start}, decay: {shape: constant}}",
       {0, 0.02, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1}},
      {"tensorflow-yolov3",
       "{base_lr: 0.1, warmup: {length: 5 steps}, decay: {final_lr: 0.001}}",
       {0.02, 0.04, 0.08, 0.1, 0.098918, 0.095721, 0.0020817, 0.001}},
      {"darknet, burn_in 5, power 4, policy constant",
       "{base_lr: 0.1, warmup: {shape: power, power: 4, length: 5 steps}, decay: {shape: "
       "constant}}",
       {0.00016, 0.00256, 0.04096, 0.1, 0.1, 0.1, 0.1, 0.1}},
      {"llm.c, cosine",
       "{base_lr: 0.1, warmup: {length: 5 steps}, decay: {final_lr: 0.001, endpoints: start}}",
       {0.02, 0.04, 0.08, 0.1, 0.1, 0.098918, 0.0052795, 0.0020817}},
      {"nanoGPT",
       "{base_lr: 0.1, warmup: {length: 5 steps, endpoints: neither},"
       " decay: {final_lr: 0.001, endpoints: start}}",
       {0.016667, 0.033333, 0.066667, 0.083333, 0.1, 0.098918, 0.0052795, 0.0020817}},
      {"MMEngine, LinearLR and CosineAnnealingLR",
       "{base_lr: 0.1, warmup: {length: 5 steps, endpoints: both, start_factor: 0.333333333333},"
       " decay: {final_lr: 0.001, endpoints: start}}",
       {0.033333, 0.05, 0.083333, 0.1, 0.1, 0.098918, 0.0052795, 0.0020817}},
      {"detectron2, WarmupCosine with RESCALE_INTERVAL",
       "{base_lr: 0.1, warmup: {length: 5 steps, endpoints: start, start_factor: 0.001},"
       " decay: {endpoints: start}}",
       {0.0001, 0.02008, 0.06004, 0.08002, 0.1, 0.098907, 0.0043227, 0.0010926}},
      {"paddle, LinearWarmup and CosineAnnealingDecay",
       "{base_lr: 0.1, warmup: {length: 5 steps, endpoints: start},"
       " decay: {final_lr: 0.001, endpoints: start}}",
       {0, 0.02, 0.06, 0.08, 0.1, 0.098918, 0.0052795, 0.0020817}},
  };
  constexpr std::int64_t updates[] = {0, 1, 3, 4, 5, 6, 18, 19};
  for (const Row& row : rows) {
    const Schedule s = schedule_of("schedule: " + std::string(row.schedule) + "\n" + run_of(20));
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(lr_at(s.lr, updates[i]), row.lr[i], 5e-5 * row.lr[i])
          << row.name << ", update " << updates[i];
    }
  }
}

// Every error stands at the line of the key it speaks of; the run is of 20 steps, 10 an epoch.
std::string wrong(const std::string& schedule) {
  return error_of("schedule:\n  base_lr: 0.1\n" + schedule + run_of(20));
}

TEST(WrongSchedules, AWarmupLongerThanTheRun) {
  EXPECT_THAT(
      wrong("  warmup:\n    length: 3 epochs\n"),
      AllOf(StartsWith("f.yaml:4:5: schedule.warmup.length: 3 epochs (30 updates) do not fit "
                       "into the 20 updates of the run"),
            HasSubstr("; at most 20 steps, or a longer train.length")));
}

TEST(WrongSchedules, PhasesThatTogetherAreLongerThanTheRun) {
  EXPECT_THAT(
      wrong("  warmup: {length: 15 steps}\n  hold: 6 steps\n"),
      AllOf(StartsWith("f.yaml:4:3: schedule.hold: 6 steps (6 updates) do not fit into the 5 "
                       "updates that are left of the run"),
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

TEST(WrongSchedules, UnknownShapesListTheRightOnes) {
  EXPECT_THAT(wrong("  warmup: {shape: lineer, length: 5 steps}\n"),
              AllOf(StartsWith("f.yaml:3:12: schedule.warmup.shape: 'lineer'"),
                    HasSubstr("one of constant, linear, cosine, power, exponential")));
  EXPECT_THAT(
      wrong("  warmup: {shape: step, length: 5 steps}\n"),
      AllOf(HasSubstr("schedule.warmup.shape: 'step'"), testing::Not(HasSubstr("multistep"))));
  EXPECT_THAT(wrong("  decay: {shape: cosin}\n"),
              AllOf(StartsWith("f.yaml:3:11: schedule.decay.shape: 'cosin'"),
                    HasSubstr("constant, linear, cosine, power, exponential, step, multistep")));
  EXPECT_THAT(wrong("  phases:\n    - {shape: triangle}\n"),
              StartsWith("f.yaml:4:8: schedule.phases.0.shape: 'triangle'"));
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
      StartsWith(
          "f.yaml:1:9: train.length: 0.01 epochs come to no update at all; at least 1 step"));
}

TEST(WrongSchedules, ALengthThatRoundsToNothing) {
  EXPECT_THAT(
      wrong("  warmup: {length: 1%}\n"),
      StartsWith("f.yaml:3:12: schedule.warmup.length: 1% comes to no update at all in a run of "
                 "20 steps; a longer stretch, or 0 steps for none"));
  EXPECT_THAT(wrong("  decay: {shape: step, over: 0.04 epochs}\n"),
              HasSubstr("schedule.decay.over: 0.04 epochs comes to no update at all"));
}

TEST(WrongSchedules, TooManyPhasesAndMilestones) {
  std::string phases = "  phases:\n";
  for (int i = 0; i < max_phases + 1; ++i) {
    phases += "    - {shape: constant, from: 0.1, length: 1 steps}\n";
  }
  const std::string head = "schedule:\n  base_lr: 0.1\n";
  EXPECT_THAT(error_of(head + phases + run_of(1000)), HasSubstr("more than 32 phases"));
  std::string at;
  for (int i = 1; i <= max_milestones + 1; ++i) at += fmt::format("{} steps, ", i);
  EXPECT_THAT(
      error_of(head + "  decay: {shape: multistep, at: [" + at + "200 steps]}\n" + run_of(1000)),
      HasSubstr("more than 64"));
}

}  // namespace
}  // namespace preheat
