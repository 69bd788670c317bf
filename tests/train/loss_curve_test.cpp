#include "train/loss_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace preheat {
namespace {

using testing::ElementsAre;

Metrics metrics_of(const std::vector<double>& losses) {
  Metrics m;
  m.loss = losses;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    m.step.push_back(static_cast<double>(i));
    m.accuracy.push_back(0.5);
  }
  return m;
}

Evaluations evaluated(const std::vector<double>& steps, const std::vector<double>& losses) {
  Evaluations e;
  e.step = steps;
  e.loss = losses;
  return e;
}

LossCurve curve_of(const std::vector<double>& train, const std::vector<double>& test) {
  LossCurve curve{{}, train, test};
  for (std::size_t i = 0; i < train.size(); ++i) curve.step.push_back(static_cast<double>(i + 1));
  return curve;
}

TEST(LossCurve, HasTheMeanOfTheLastFiftyUpdatesOrAQuarterAtEachEvaluation) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> loss(0, 1);
  std::vector<double> losses(437);
  for (double& x : losses) x = loss(random);
  const std::vector<double> steps = {1, 7, 40, 117, 200, 301, 437};
  const std::vector<double> test = {2, 3, 1, 0.5, 0.75, 0.25, 4};
  const LossCurve curve = loss_curve(metrics_of(losses), evaluated(steps, test));
  EXPECT_EQ(curve.step, steps);
  EXPECT_EQ(curve.test, test);
  const std::vector<int> averaged = {1, 1, 10, 29, 50, 50, 50};
  ASSERT_EQ(curve.train.size(), steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    double sum = 0;
    for (int k = 1; k <= averaged[i]; ++k) sum += losses[static_cast<std::size_t>(steps[i]) - k];
    EXPECT_NEAR(curve.train[i], sum / averaged[i], 1e-12 * sum) << steps[i];
  }
}

TEST(LossCurve, EndsAtALossThatIsNotFinite) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  std::vector<double> losses(40, 1);
  losses[20] = std::nan("");
  // After 20 updates the one that is not finite has not been made.
  EXPECT_THAT(loss_curve(metrics_of(losses), evaluated({10, 20, 21, 40}, {1, 2, 3, 4})).test,
              ElementsAre(1, 2));
  losses[20] = 1;
  EXPECT_THAT(loss_curve(metrics_of(losses), evaluated({10, 20, 30, 40}, {1, 2, inf, 4})).test,
              ElementsAre(1, 2));
  EXPECT_TRUE(loss_curve(metrics_of(losses), evaluated({}, {})).step.empty());
  EXPECT_TRUE(loss_curve(metrics_of({}), evaluated({10}, {1})).step.empty());
}

TEST(LossCurve, ReachesATrainingLossWhereItFirstCrossesIt) {
  const LossCurve curve = curve_of({2, 1, 1.5, 0.5}, {3, 2, 4, 1});
  EXPECT_EQ(test_loss_at(curve, 2), 3);
  EXPECT_EQ(test_loss_at(curve, 1.5), 2.5);  // and not 4, where it is crossed again
  EXPECT_EQ(test_loss_at(curve, 1), 2);
  EXPECT_EQ(test_loss_at(curve, 0.75), 1.75);  // three quarters of the way from 4 to 1
  EXPECT_EQ(test_loss_at(curve, 0.5), 1);
  EXPECT_EQ(test_loss_at(curve, 0.25), std::nullopt);
  EXPECT_EQ(test_loss_at(curve, 2.5), std::nullopt);  // it was below before it was evaluated
  EXPECT_EQ(test_loss_at(curve_of({2, 2, 1}, {5, 6, 7}), 2), 5);
  EXPECT_EQ(test_loss_at({}, 1), std::nullopt);
}

TEST(LossCurve, DiffersAtTheSmallestTrainingLossThatBothReach) {
  // 1.5, which the second reaches at its third evaluation and leaves again.
  const LossCurve a = curve_of({4, 2, 1}, {4, 3, 2.5});
  const LossCurve b = curve_of({3, 2, 1.5, 2.5}, {5, 4, 3.5, 9});
  EXPECT_EQ(test_loss_difference(a, b), 2.75 - 3.5);
  EXPECT_EQ(test_loss_difference(b, a), 3.5 - 2.75);
  EXPECT_EQ(test_loss_difference(a, a), 0);
  // Below what the other reaches from its first evaluation on.
  EXPECT_EQ(test_loss_difference(curve_of({1.25, 1, 0.5}, {1, 1, 1}), b), std::nullopt);
  // Too few evaluations.
  EXPECT_EQ(test_loss_difference(a, curve_of({3, 1}, {5, 4})), std::nullopt);
  EXPECT_EQ(test_loss_difference({}, a), std::nullopt);
}

// Where the test loss is a line in the training loss, it does not matter at how many points of what
// path it is known: the lines are as far apart as they are.
TEST(LossCurve, DiffersByTheDistanceOfTwoLines) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> share(0, 1);
  for (int repetition = 0; repetition < 200; ++repetition) {
    const double slope = share(random);
    const double distance = share(random) - 0.5;
    const auto along = [&](double above) {
      LossCurve curve = curve_of({3}, {above + 3 * slope});  // from where both begin
      const auto evaluations = std::uniform_int_distribution<int>(2, 9)(random);
      for (int i = 0; i < evaluations; ++i) {
        curve.step.push_back(i + 2);
        curve.train.push_back(3 * share(random));
        curve.test.push_back(above + slope * curve.train.back());
      }
      return curve;
    };
    const auto difference = test_loss_difference(along(1 + distance), along(1));
    ASSERT_TRUE(difference);
    EXPECT_NEAR(*difference, distance, 1e-12);
  }
}

}  // namespace
}  // namespace preheat
