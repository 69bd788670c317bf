#include "report/series.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace preheat {
namespace {

using ::testing::ElementsAre;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// Noise with spikes; in one series of ten a stretch of values is not finite.
std::vector<double> random_series(std::mt19937_64& random, std::size_t n) {
  std::normal_distribution<double> noise;
  std::uniform_int_distribution<std::size_t> place(0, n - 1);
  std::vector<double> y(n);
  for (double& v : y) v = noise(random);
  for (int i = 0; i < 3; ++i) y[place(random)] = std::exp(20 * noise(random));
  if (random() % 10 == 0) {
    const std::size_t from = place(random);
    const std::size_t to = std::max(from, place(random));
    for (std::size_t i = from; i <= to; ++i) y[i] = i % 2 == 0 ? nan : inf;
  }
  return y;
}

TEST(Thin, KeepsWhatIsExtremeNearEveryValue) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    const std::size_t n = 1 + random() % 3000;
    const std::size_t most = 2 + random() % 300;
    const std::vector<double> y = random_series(random, n);
    const std::vector<std::size_t> kept = thin(y, most);
    ASSERT_TRUE(std::ranges::is_sorted(kept, std::ranges::less_equal()) || kept.size() < 2);
    ASSERT_TRUE(std::ranges::adjacent_find(kept) == kept.end());
    ASSERT_EQ(kept.front(), 0);
    ASSERT_EQ(kept.back(), n - 1);
    if (n <= most) {
      ASSERT_EQ(kept.size(), n);
      continue;
    }
    const bool all_finite = std::ranges::all_of(y, [](double v) { return std::isfinite(v); });
    ASSERT_LE(kept.size(), all_finite ? most + 2 : 2 * most + 2);
    // Within the width of one stretch of every value, a value as extreme is kept.
    const std::size_t near = n / (most / 2) + 1;
    for (std::size_t i = 0; i < n; ++i) {
      if (!std::isfinite(y[i])) continue;
      const auto stands = [&](auto better) {
        return std::ranges::any_of(kept, [&](std::size_t k) {
          return k + near >= i && k <= i + near && std::isfinite(y[k]) && better(y[k], y[i]);
        });
      };
      ASSERT_TRUE(stands(std::greater_equal<>())) << "n " << n << " most " << most << " at " << i;
      ASSERT_TRUE(stands(std::less_equal<>())) << "n " << n << " most " << most << " at " << i;
    }
    const auto lost = std::ranges::find_if(y, [](double v) { return !std::isfinite(v); });
    if (lost == y.end()) continue;
    const auto at = static_cast<std::size_t>(lost - y.begin());
    ASSERT_TRUE(std::ranges::binary_search(kept, at));
    if (at > 0) {
      ASSERT_TRUE(std::ranges::binary_search(kept, at - 1));
    }
  }
}

TEST(Thin, OfAsManyAsThereMayBeIsAll) {
  EXPECT_THAT(thin(std::vector<double>{1, 2, 3}, 3), ElementsAre(0, 1, 2));
}

TEST(Thin, OfNothingIsNothing) {
  EXPECT_TRUE(thin({}, 10).empty());
  EXPECT_THAT(thin(std::vector<double>{nan, nan, nan}, 2), ElementsAre(0, 2));
}

// Of columns that share their rows: the rows are whole, and no column loses its extremes.
TEST(ThinnedSpread, KeepsTheExtremesOfItsMedianAndItsRange) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> noise;
  for (int trial = 0; trial < 50; ++trial) {
    const std::size_t n = 1 + random() % 3000;
    const std::size_t most = 4 + random() % 100;
    SeedSpread whole;
    for (std::size_t i = 0; i < n; ++i) {
      whole.x.push_back(3.0 * static_cast<double>(i));
      whole.median.push_back(noise(random));
      whole.least.push_back(whole.median.back() - std::abs(noise(random)));
      whole.largest.push_back(whole.median.back() + std::abs(noise(random)));
      whole.finite.push_back(static_cast<double>(i % 7));
    }
    const SeedSpread kept = thinned(whole, most);
    ASSERT_LE(kept.x.size(), std::min(n, 3 * (most + 2)));
    ASSERT_EQ(kept.x.front(), whole.x.front());
    ASSERT_EQ(kept.x.back(), whole.x.back());
    ASSERT_TRUE(std::ranges::is_sorted(kept.x, std::ranges::less_equal()) || kept.x.size() < 2);
    for (std::size_t k = 0; k < kept.x.size(); ++k) {
      const auto i = static_cast<std::size_t>(kept.x[k] / 3);
      ASSERT_EQ(kept.median[k], whole.median[i]);
      ASSERT_EQ(kept.least[k], whole.least[i]);
      ASSERT_EQ(kept.largest[k], whole.largest[i]);
      ASSERT_EQ(kept.finite[k], whole.finite[i]);
    }
    for (const auto column : {&SeedSpread::median, &SeedSpread::least, &SeedSpread::largest}) {
      ASSERT_EQ(std::ranges::minmax(kept.*column).min, std::ranges::minmax(whole.*column).min);
      ASSERT_EQ(std::ranges::minmax(kept.*column).max, std::ranges::minmax(whole.*column).max);
    }
  }
}

TEST(Means, StandInTheMiddleAndEndWhereValuesDo) {
  const std::vector<double> x{0, 1, 2, 3, 4, 5, 6};
  const Points p = means(x, std::vector<double>{1, 3, 5, nan, 2, 4, 9}, 2);
  EXPECT_THAT(p.x, ElementsAre(0.5, 2, 3, 4.5, 6));
  ASSERT_EQ(p.y.size(), 5);
  EXPECT_TRUE(std::isnan(p.y[2]));
  EXPECT_EQ(p.y[0], 2);
  EXPECT_EQ(p.y[1], 5);
  EXPECT_EQ(p.y[3], 3);
  EXPECT_EQ(p.y[4], 9);
}

// If values jump at the break, no mean lies between those before and those after it, and the line
// through the means, which is what is drawn, meets the values on both sides.
TEST(Means, DoNotReachAcrossABreak) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t n = 2 + random() % 400;
    const std::size_t window = 1 + random() % 90;
    const std::size_t event = 1 + random() % (n - 1);
    std::vector<double> x(n), y(n, 1);
    for (std::size_t i = 0; i < n; ++i) x[i] = 3.0 * static_cast<double>(i);
    std::fill(y.begin() + static_cast<std::ptrdiff_t>(event), y.end(), 5);
    const Points p = means(x, y, window, std::vector<std::size_t>{0, event});
    ASSERT_TRUE(std::ranges::is_sorted(p.x, std::less_equal<>()) &&
                std::ranges::adjacent_find(p.x) == p.x.end());
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      ASSERT_EQ(p.y[i], p.x[i] < x[event] ? 1 : 5) << "n " << n << " window " << window;
    }
    ASSERT_TRUE(std::ranges::count(p.x, x[event - 1]) == 1 &&
                std::ranges::count(p.x, x[event]) == 1)
        << "n " << n << " window " << window << " event " << event;
  }
}

TEST(Means, WindowsAreAsEqualAsCanBe) {
  std::vector<double> x(11), y(11);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = y[i] = static_cast<double>(i);
  // 0 1 2 3 | 4 5 6 7 | 8 9 10 in place of two windows of five and a remainder of one.
  EXPECT_THAT(means(x, y, 5).y, ElementsAre(1.5, 5.5, 9));
  EXPECT_THAT(means(x, y, 20).y, ElementsAre(5));
}

TEST(Jumps, AreStepsAndRestartsAndNoRamps) {
  std::vector<double> lr;
  for (int i = 1; i <= 10; ++i) lr.push_back(0.01 * i);               // a steep warmup
  for (int i = 0; i < 20; ++i) lr.push_back(0.1);                     // 10
  for (int i = 0; i < 20; ++i) lr.push_back(0.01);                    // 30: a step
  for (int i = 0; i < 50; ++i) lr.push_back(0.2 * std::pow(0.9, i));  // 50: a restart, decaying
  for (int i = 0; i < 50; ++i) lr.push_back(0.1 * (1 + std::cos(i / 16.0)));  // 100: another
  for (int i = 0; i < 20; ++i) lr.push_back(lr.back());
  lr.push_back(lr.back() * 1.02);  // too small to be seen
  EXPECT_THAT(jumps(lr), ElementsAre(30, 50, 100));
  EXPECT_TRUE(jumps({}).empty());
  EXPECT_TRUE(jumps(std::vector<double>{0.1}).empty());
  EXPECT_THAT(jumps(std::vector<double>{0.1, 0.1, 0.1, 0.01}), ElementsAre(3));
}

TEST(Series, TakesNoMeansAcrossEvents) {
  std::vector<double> x(1000), y(1000, 2);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<double>(i);
  std::fill(y.begin() + 517, y.end(), 9);
  const Series s = make_series(x, y, 40, std::vector<std::size_t>{517});
  for (const double mean : s.means.y) EXPECT_TRUE(mean == 2 || mean == 9) << mean;
  // More breaks than means, as with a rate that jumps at every update.
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < x.size(); ++i) all.push_back(i);
  EXPECT_EQ(make_series(x, y, 40, all).means.x.size(), 10);
}

TEST(Series, FactsAreOfAllValues) {
  std::vector<double> x(5000), y(5000);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = 10.0 * static_cast<double>(i);
    y[i] = std::sin(static_cast<double>(i));
  }
  y[1234] = 7;
  y[4321] = -7;
  y[4900] = inf;
  const Series s = make_series(x, y, 100);
  EXPECT_EQ(s.facts.values, 5000);
  EXPECT_EQ(s.facts.first, 0);
  EXPECT_EQ(s.facts.last, y.back());
  EXPECT_EQ(s.facts.largest, 7);
  EXPECT_EQ(s.facts.largest_at, 12340);
  EXPECT_EQ(s.facts.least, -7);
  EXPECT_EQ(s.facts.least_at, 43210);
  EXPECT_FALSE(s.facts.not_finite_at);  // later values are finite
  EXPECT_EQ(s.window, 200);
  // 25 stretches, one split by the value that is not finite, and that value.
  EXPECT_EQ(s.means.y.size(), 27);
  EXPECT_LE(s.points.x.size(), 104);
  const Series nothing = make_series({}, {}, 100);
  EXPECT_FALSE(nothing.facts.first || nothing.facts.not_finite_at);
  EXPECT_TRUE(make_series(x, std::vector<double>(5000, 1), 20000).means.x.empty());
}

TEST(Series, FactsAreOfTheFirstOfEqualValues) {
  const std::vector<double> x{10, 20, 30, 40, 50, 60};
  const SeriesFacts facts = make_series(x, std::vector<double>{7, nan, 7, inf, 2, 2}, 100).facts;
  EXPECT_EQ(facts.largest_at, 10);
  EXPECT_EQ(facts.least_at, 50);
}

TEST(Series, FactsSayFromWhereOnNothingIsFinite) {
  const auto not_finite_at = [](const std::vector<double>& y) {
    std::vector<double> x;
    for (std::size_t i = 0; i < y.size(); ++i) x.push_back(10 * static_cast<double>(i));
    return make_series(x, y, 100).facts.not_finite_at;
  };
  EXPECT_EQ(not_finite_at({7, inf, 7, nan, inf}), 30);
  EXPECT_EQ(not_finite_at({nan}), 0);
  EXPECT_FALSE(not_finite_at({nan, 7, inf, 7}));
}

TEST(SpreadOver, IsMedianAndRangeOfTheSeedsAtEachX) {
  const std::vector<double> x{0, 10, 20, 30};
  std::vector<SeedCurve> seeds;
  for (const double seed : {5.0, 1.0, 4.0, 2.0, 3.0}) {
    seeds.push_back({{x, {seed, 10 * seed, seed, seed}}, 30, {}});
  }
  // A seed with points between those of the others: at theirs its line has the same value.
  seeds.push_back({{{5, 15, 25}, {60, 60, 60}}, 30, {}});
  const SeedSpread s = spread_over(seeds, Worst::largest);
  EXPECT_EQ(s.x, x);
  EXPECT_THAT(s.median, ElementsAre(3.5, 35, 3.5, 3.5));
  EXPECT_THAT(s.least, ElementsAre(1, 10, 1, 1));
  EXPECT_THAT(s.largest, ElementsAre(60, 60, 60, 60));
  EXPECT_THAT(s.finite, ElementsAre(6, 6, 6, 6));
  // At its own points a seed has its own value, whatever the value before.
  EXPECT_THAT(spread_over({{{{0, 1, 2}, {nan, 4, 5}}, 2, {}}}, Worst::largest).finite,
              ElementsAre(0, 1, 1));
}

// Without its failed seeds an arm would look the better the more of them fail.
TEST(SpreadOver, CountsALostSeedAsTheWorst) {
  const std::vector<double> x{0, 1, 2, 3, 4};
  const auto seed = [&](double value, std::optional<double> lost_at) {
    return SeedCurve{{x, std::vector<double>(5, value)}, lost_at.value_or(4), lost_at};
  };
  const std::vector<SeedCurve> seeds{seed(1, 1), seed(2, 2), seed(3, 3), seed(4, {}), seed(5, {})};
  const SeedSpread losses = spread_over(seeds, Worst::largest);
  EXPECT_THAT(std::vector<double>(losses.median.begin(), losses.median.begin() + 3),
              ElementsAre(3, 4, 5));
  EXPECT_FALSE(std::isfinite(losses.median[3]));
  EXPECT_THAT(losses.finite, ElementsAre(5, 4, 3, 2, 2));
  EXPECT_THAT(losses.least, ElementsAre(1, 2, 3, 4, 4));
  EXPECT_THAT(losses.largest, ElementsAre(5, 5, 5, 5, 5));
  const SeedSpread accuracies = spread_over(seeds, Worst::least);
  EXPECT_THAT(std::vector<double>(accuracies.median.begin(), accuracies.median.begin() + 3),
              ElementsAre(3, 3, 3));
  // A seed that was interrupted, and so ended while finite, does not count as the worst.
  const SeedSpread ended =
      spread_over({seed(1, {}), {{{0, 1}, {9, 9}}, 1, {}}, seed(3, {})}, Worst::largest);
  EXPECT_THAT(ended.median, ElementsAre(3, 3, 2, 2, 2));
  EXPECT_TRUE(spread_over({}, Worst::least).x.empty());
}

// The means of a seed are far apart, so that another has points between the last of them and the
// update at which it is lost, or that was skipped.
TEST(SpreadOver, ASeedIsLostAtItsPointThatIsNotFiniteAndNotBefore) {
  const SeedCurve whole{{{0, 1, 2, 3, 4, 5, 6}, std::vector<double>(7, 5)}, 6, {}};
  const SeedCurve lost{{{0.5, 4}, {2, nan}}, 4, 4};
  SeedSpread s = spread_over({whole, lost}, Worst::largest);
  EXPECT_THAT(s.finite, ElementsAre(2, 2, 2, 2, 1, 1, 1));
  EXPECT_THAT(s.least, ElementsAre(2, 2, 2, 2, 5, 5, 5));
  const SeedCurve skipped{{{0, 3, 6}, {1, inf, 9}}, 6, {}};
  s = spread_over({whole, skipped}, Worst::largest);
  EXPECT_THAT(s.finite, ElementsAre(2, 2, 2, 1, 2, 2, 2));
  EXPECT_THAT(s.least, ElementsAre(1, 1, 1, 5, 5, 5, 5));
  EXPECT_THAT(s.largest, ElementsAre(5, 5, 5, 5, 9, 9, 9));
}

}  // namespace
}  // namespace preheat
