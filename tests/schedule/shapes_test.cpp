// Every shape against its formula, reimplemented in long double from the table of
// docs/schedules.md, at random lengths, positions, ends and keys.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "schedule/schedule.h"

namespace preheat {
namespace {

using Real = long double;

constexpr const char* all_endpoints[] = {"start", "end", "both", "neither"};

Schedule schedule_of(const std::string& text, std::int64_t steps_per_epoch) {
  const RunConfig config = read_config(parse_document(text, "f.yaml"));
  return resolve_schedule(config, run_length(config, steps_per_epoch));
}

// One phase as numbers; text_of() gives its YAML.
struct PhaseNumbers {
  std::string shape;
  std::string endpoints = "end";
  std::int64_t begin = 0;
  std::int64_t length = 1;
  std::int64_t per_epoch = 10;
  bool by_epoch = false;
  Real from = 0, to = 0;
  Real power = 1, gamma = 1, lower = -7, upper = 3;
  std::int64_t over = 0, timescale = 0, center = 0;
  bool staircase = false;
  std::vector<std::int64_t> at;
  Real cycles = 0, multiply = 1, peak_factor = 1;
  std::int64_t period = 0, rewarmup = 0;
};

// Progress k of n, for a value that changes every `unit` updates.
Real progress_of(const PhaseNumbers& s, Real k, Real n, Real unit) {
  if (s.endpoints == "start") return k / n;
  if (s.endpoints == "end") return (k + unit) / n;
  if (s.endpoints == "both") return n > unit ? k / (n - unit) : 0;
  return (k + unit) / (n + unit);
}

Real cosine_of(Real f, Real v, Real p) {
  return f + (v - f) * (1 - std::cos(std::numbers::pi_v<Real> * p)) / 2;
}

// Walks through the cycles one by one.
Real restarts(const PhaseNumbers& s, Real k, Real n, Real unit) {
  const Real ramp = static_cast<Real>(s.rewarmup);
  Real length = s.cycles > 0 ? (n - (std::ceil(s.cycles) - 1) * ramp) / s.cycles
                             : static_cast<Real>(s.period);
  Real peak = s.from;
  Real lead = 0;  // the ramp before the current cycle
  while (k > lead + length - 1e-9L) {
    k -= lead + length;
    length *= s.cycles > 0 ? 1 : s.multiply;
    peak *= s.peak_factor;
    lead = ramp;
  }
  k = std::max(k, Real{0});
  if (k < lead - 1e-9L) {
    return s.to + (peak - s.to) * std::clamp(progress_of(s, k, lead, unit), Real{0}, Real{1});
  }
  return cosine_of(
      peak, s.to,
      std::clamp(progress_of(s, std::max(k - lead, Real{0}), length, unit), Real{0}, Real{1}));
}

Real expected_rate(const PhaseNumbers& s, std::int64_t step) {
  Real k = static_cast<Real>(step - s.begin);
  Real n = static_cast<Real>(s.length);
  Real unit = 1;
  if (s.by_epoch) {  // counted in epochs, then converted to updates
    const std::int64_t first = s.begin / s.per_epoch;
    const std::int64_t last = (s.begin + s.length - 1) / s.per_epoch;
    step = step / s.per_epoch * s.per_epoch;
    unit = static_cast<Real>(s.per_epoch);
    k = static_cast<Real>(step / s.per_epoch - first) * unit;
    n = static_cast<Real>(last - first + 1) * unit;
  }
  const Real p = progress_of(s, k, n, unit);
  const Real f = s.from;
  const Real v = s.to;
  const auto times = [&] {
    const Real t = k / static_cast<Real>(s.over);
    return s.staircase || s.shape == "step" ? std::floor(t) : t;
  };
  if (s.shape == "constant") return f;
  if (s.shape == "linear") return f + (v - f) * p;
  if (s.shape == "cosine")
    return s.cycles > 0 || s.period > 0 ? restarts(s, k, n, unit) : cosine_of(f, v, p);
  if (s.shape == "power") {
    return v > f ? f + (v - f) * std::pow(p, s.power) : v + (f - v) * std::pow(1 - p, s.power);
  }
  if (s.shape == "exponential" && s.over == 0) return f * std::pow(v / f, p);
  if (s.shape == "exponential" || s.shape == "step") return f * std::pow(s.gamma, times());
  if (s.shape == "saturating") {
    return v + (f - v) * std::exp(-p * n / static_cast<Real>(s.timescale));
  }
  if (s.shape == "one_minus_sqrt") return v + (f - v) * (1 - std::sqrt(p));
  if (s.shape == "inverse_sqrt") {
    const Real t = static_cast<Real>(s.timescale);
    return f * std::sqrt(t / (t + k));
  }
  if (s.shape == "inverse") return f * std::pow(1 + s.gamma * times(), -s.power);
  if (s.shape == "sigmoid") {
    return f / (1 + std::exp(-s.gamma * (k - static_cast<Real>(s.center))));
  }
  if (s.shape == "tanh") {
    return v + (f - v) / 2 * (1 - std::tanh(s.lower * (1 - p) + s.upper * p));
  }
  Real rate = f;  // multistep
  for (const std::int64_t at : s.at) rate *= step >= at ? s.gamma : 1;
  return rate;
}

std::string text_of(const PhaseNumbers& s) {
  const auto number = [](Real x) { return fmt::format("{}", static_cast<double>(x)); };
  std::string text = "schedule:\n  base_lr: 0.7\n  phases:\n";
  if (s.begin > 0) {
    text += fmt::format("    - {{shape: constant, from: 0.1, length: {} steps}}\n", s.begin);
  }
  text += fmt::format("    - {{shape: {}, from: {}, length: {} steps", s.shape, number(s.from),
                      s.length);
  const bool ends = s.shape == "linear" || s.shape == "cosine" || s.shape == "power" ||
                    s.shape == "one_minus_sqrt" || s.shape == "tanh" || s.shape == "saturating" ||
                    (s.shape == "exponential" && s.over == 0);
  if (ends) text += ", to: " + number(s.to) + ", endpoints: " + s.endpoints;
  if (s.by_epoch && s.shape != "constant") text += ", every: epoch";
  if (s.shape == "power" || s.shape == "inverse") text += ", power: " + number(s.power);
  if (s.over > 0) text += fmt::format(", over: {} steps", s.over);
  if (s.over > 0 || s.shape == "multistep" || s.shape == "sigmoid") {
    text += ", gamma: " + number(s.gamma);
  }
  if (s.staircase) text += ", staircase: true";
  if (s.timescale > 0) text += fmt::format(", timescale: {} steps", s.timescale);
  if (s.shape == "sigmoid") text += fmt::format(", center: {} steps", s.center);
  if (s.shape == "tanh") {
    text += fmt::format(", lower: {}, upper: {}", number(s.lower), number(s.upper));
  }
  if (!s.at.empty()) text += fmt::format(", at: [{} steps]", fmt::join(s.at, " steps, "));
  if (s.cycles > 0) text += ", cycles: " + number(s.cycles);
  if (s.period > 0) text += fmt::format(", period: {} steps", s.period);
  if (s.multiply != 1) text += ", multiply: " + number(s.multiply);
  if (s.peak_factor != 1) text += ", peak_factor: " + number(s.peak_factor);
  if (s.rewarmup > 0) text += fmt::format(", rewarmup: {} steps", s.rewarmup);
  return text + fmt::format("}}\ntrain: {{length: {} steps}}\n", s.begin + s.length);
}

class Shapes : public testing::TestWithParam<const char*> {
 protected:
  std::int64_t integer(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random_);
  }
  Real number(double least, double most) {  // a double, which YAML keeps exactly
    return std::exp(
        std::uniform_real_distribution<double>(std::log(least), std::log(most))(random_));
  }
  bool one_in(int n) { return integer(1, n) == 1; }

  PhaseNumbers stretch(const std::string& endpoints) {
    PhaseNumbers s;
    s.shape = GetParam();
    s.endpoints = endpoints;
    s.begin = integer(0, 50);
    s.length = one_in(3) ? integer(1, 4) : integer(5, 300);
    s.per_epoch = integer(1, 40);
    s.by_epoch = one_in(4);
    const bool positive = s.shape == "exponential";
    s.from =
        one_in(4) && !positive ? 0.0L : static_cast<Real>(static_cast<double>(number(1e-6, 1)));
    s.to = one_in(4) && !positive ? 0.0L : static_cast<Real>(static_cast<double>(number(1e-6, 1)));
    if (s.shape == "power" || s.shape == "inverse") s.power = rounded(number(0.2, 6));
    if (s.shape == "step" || (s.shape == "exponential" && one_in(2))) {
      s.gamma = rounded(number(0.05, 1.3));  // 1.3^300 fits into a float; more is refused
      s.over = integer(1, 20);
      s.staircase = s.shape == "exponential" && one_in(2);
    }
    if (s.shape == "inverse") {
      s.gamma = rounded(number(1e-3, 3));
      s.over = integer(1, 20);
      s.staircase = one_in(2);
    }
    if (s.shape == "sigmoid") {
      s.gamma = rounded(number(1e-3, 1)) * (one_in(2) ? -1 : 1);
      s.center = integer(0, 300);
    }
    if (s.shape == "tanh") {
      s.lower = -rounded(number(0.5, 9));
      s.upper = rounded(number(0.5, 9));
    }
    if (s.shape == "inverse_sqrt" || s.shape == "saturating") s.timescale = integer(1, 300);
    if (s.shape == "multistep") {
      s.gamma = rounded(number(0.05, 1.3));
      for (std::int64_t m = integer(1, 30); s.at.size() < 6; m += integer(1, 60)) s.at.push_back(m);
    }
    if (s.shape == "cosine" && s.length > 12 && !one_in(3)) {
      if (one_in(2)) {
        s.cycles = one_in(2) ? static_cast<Real>(integer(1, 12)) : rounded(number(0.3, 12));
        if (one_in(3) && s.length > 60) s.rewarmup = integer(1, 3);
      } else {
        s.period = integer(1, 60);
        if (one_in(2))
          s.multiply = one_in(2) ? static_cast<Real>(integer(2, 3)) : rounded(number(1.05, 3));
        if (one_in(3)) s.rewarmup = integer(1, 20);
      }
      if (one_in(2)) s.peak_factor = rounded(number(0.3, 1));
    }
    return s;
  }
  static Real rounded(Real x) { return static_cast<Real>(static_cast<double>(x)); }

  const std::uint32_t seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, fmt::format("seed {}", seed_)};
  std::mt19937 random_{seed_};
};

TEST_P(Shapes, FollowTheTable) {
  for (const char* endpoints : all_endpoints) {
    for (int trial = 0; trial < 60; ++trial) {
      const PhaseNumbers s = stretch(endpoints);
      SCOPED_TRACE(text_of(s));
      const Schedule schedule = schedule_of(text_of(s), s.per_epoch);
      for (std::int64_t step = s.begin; step < s.begin + s.length; ++step) {
        const Real expected = expected_rate(s, step);
        // The tolerance scales with the value, which a gamma above 1 can make large.
        const auto scale = static_cast<double>(std::max({s.from, s.to, expected}));
        ASSERT_NEAR(lr_at(schedule.lr, step), static_cast<double>(expected), 3e-13 * scale)
            << "update " << step;
      }
    }
  }
}

std::vector<const char*> all_shapes() {
  std::vector<const char*> names;
  for (const ShapeFacts& facts : shape_facts) names.push_back(facts.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, Shapes, testing::ValuesIn(all_shapes()),
                         [](const auto& shape) { return std::string(shape.param); });

// Ramps from one value to another include the ends that `endpoints` says, and never turn back.
class Ramps : public Shapes {};

TEST_P(Ramps, HitTheirEndsExactly) {
  for (const char* endpoints : all_endpoints) {
    int apart = 0;  // ramps whose ends differ enough to tell a value from an end
    for (int compared = 0; compared < 50 || apart < 10; ++compared) {
      ASSERT_LT(compared, 10000);
      PhaseNumbers s = stretch(endpoints);
      s.cycles = s.period = s.rewarmup = s.over = 0;
      s.multiply = s.peak_factor = 1;
      s.staircase = s.by_epoch = false;
      s.length = std::max<std::int64_t>(s.length, 2);
      SCOPED_TRACE(text_of(s));
      const Schedule schedule = schedule_of(text_of(s), s.per_epoch);
      const double first = lr_at(schedule.lr, s.begin);
      const double last = lr_at(schedule.lr, s.begin + s.length - 1);
      const auto from = static_cast<double>(s.from);
      const auto to = static_cast<double>(s.to);
      const std::string_view which = endpoints;
      const bool includes_start = which == "start" || which == "both";
      const bool includes_end = which == "end" || which == "both";
      if (includes_start) {
        EXPECT_EQ(first, from);
      }
      if (includes_end) {
        EXPECT_EQ(last, to);
      }
      if (std::fabs(from - to) < 1e-3 || s.power > 3) continue;
      ++apart;
      if (!includes_start) {
        EXPECT_NE(first, from);
      }
      if (!includes_end) {
        EXPECT_NE(last, to);
      }
    }
  }
}

TEST_P(Ramps, NeverTurnBack) {
  int compared = 0;
  while (compared < 60) {
    PhaseNumbers s = stretch(all_endpoints[integer(0, 3)]);
    s.cycles = s.period = s.rewarmup = s.over = 0;
    s.multiply = s.peak_factor = 1;
    s.staircase = false;
    if (std::fabs(static_cast<double>(s.to - s.from)) < 1e-3) continue;
    SCOPED_TRACE(text_of(s));
    const Schedule schedule = schedule_of(text_of(s), s.per_epoch);
    const auto least = static_cast<double>(std::min(s.from, s.to));
    const auto most = static_cast<double>(std::max(s.from, s.to));
    for (std::int64_t step = s.begin; step < s.begin + s.length; ++step) {
      const double lr = lr_at(schedule.lr, step);
      ASSERT_GE(lr, least);
      ASSERT_LE(lr, most);
      if (step == s.begin) continue;
      const double before = lr_at(schedule.lr, step - 1);
      ASSERT_TRUE(s.to > s.from ? lr >= before : lr <= before) << "update " << step;
      ASSERT_TRUE(!s.by_epoch || step % s.per_epoch == 0 || lr == before) << "update " << step;
    }
    ++compared;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Ramps,
                         testing::Values("linear", "cosine", "power", "exponential",
                                         "one_minus_sqrt"),
                         [](const auto& shape) { return std::string(shape.param); });

}  // namespace
}  // namespace preheat
