#include "train/outcome.h"

#include <gtest/gtest.h>

#include <cmath>

namespace preheat {
namespace {

LossHistory history_of(double first, double last, double accuracy, double spike = 0) {
  LossHistory history;
  for (int k = 0; k < 200; ++k) {
    const double loss = first + (last - first) * std::min(1.0, k / 100.0);
    history.add(k == 60 && spike > 0 ? spike : loss, k < 100 ? 0.1 : accuracy);
  }
  return history;
}

Outcome of(const LossHistory& history, std::optional<double> test_accuracy = {},
           std::int64_t classes = 10, Loss loss = Loss::cross_entropy) {
  return outcome_of(history, test_accuracy, classes, loss);
}

TEST(Outcome, ARunThatLearned) {
  EXPECT_EQ(of(history_of(2.3, 0.4, 0.85)), Outcome::ok);
  EXPECT_EQ(of(history_of(2.3, 0.4, 0.85), 0.80), Outcome::ok);
}

// The loss of predicting 1 / k for each of k classes.
TEST(ChanceLoss, IsThatOfTellingAllClassesAlike) {
  for (const int k : {2, 10, 100}) {
    const double share = 1.0 / k;
    double squares = (1 - share) * (1 - share);
    for (int other = 1; other < k; ++other) squares += share * share;
    EXPECT_NEAR(chance_loss(Loss::cross_entropy, k), -std::log(share), 1e-12);
    EXPECT_NEAR(chance_loss(Loss::mse, k), squares / 2, 1e-12);
  }
}

// No distribution has a smaller cross entropy with the smoothed label than the label itself.
TEST(SmallestLoss, IsThatOfPredictingTheSmoothedLabel) {
  EXPECT_EQ(smallest_loss(0, 10), 0);
  EXPECT_NEAR(smallest_loss(1, 10), chance_loss(Loss::cross_entropy, 10), 1e-12);
  for (const int k : {2, 10, 100}) {
    for (const double smoothing : {0.1, 0.5, 0.9}) {
      const double q = smoothing / k;
      const auto loss_of = [&](double p) {  // p for each other class
        return -(1 - (k - 1) * q) * std::log(1 - (k - 1) * p) - (k - 1) * q * std::log(p);
      };
      double least = loss_of(q / 100);
      for (int i = 2; i < 110; ++i) least = std::min(least, loss_of(q * i / 100));
      EXPECT_NEAR(smallest_loss(smoothing, k), least, 1e-12);
    }
  }
}

TEST(Outcome, StuckByItsLoss) {
  const double chance = std::log(10.0);
  EXPECT_EQ(of(history_of(2.8, chance, 0.9)), Outcome::stuck);
  EXPECT_EQ(of(history_of(2.8, chance + 0.049, 0.9), 0.9), Outcome::stuck);
  EXPECT_EQ(of(history_of(2.8, chance - 0.049, 0.9), 0.9), Outcome::stuck);
  EXPECT_EQ(of(history_of(2.8, chance + 0.051, 0.9), 0.9), Outcome::ok);
  EXPECT_EQ(of(history_of(2.8, chance - 0.051, 0.9), 0.9), Outcome::ok);
  EXPECT_EQ(of(history_of(5, std::log(100.0), 0.9), 0.9, 100), Outcome::stuck);
  EXPECT_EQ(of(history_of(5, chance, 0.9), 0.9, 100), Outcome::ok);
  EXPECT_EQ(of(history_of(2.8, chance, 0.9), 0.9, 10, Loss::mse), Outcome::ok);
}

TEST(Outcome, StuckByItsAccuracy) {
  EXPECT_EQ(of(history_of(2.3, 1.0, 0.14)), Outcome::stuck);
  EXPECT_EQ(of(history_of(2.3, 1.0, 0.16)), Outcome::ok);
  // The test accuracy decides if there is one.
  EXPECT_EQ(of(history_of(2.3, 1.0, 0.9), 0.149), Outcome::stuck);
  EXPECT_EQ(of(history_of(2.3, 1.0, 0.1), 0.151), Outcome::ok);
  EXPECT_EQ(of(history_of(2.3, 1.0, 0.1), 0.15), Outcome::ok);  // not below it
  EXPECT_EQ(of(history_of(2.3, 0.09, 0.14), {}, 10, Loss::mse), Outcome::stuck);
}

TEST(Outcome, SpikedIsOverThreeTimesTheFirstLossAndThenRecovered) {
  EXPECT_EQ(of(history_of(2, 0.4, 0.85, 6.01)), Outcome::spiked);
  EXPECT_EQ(of(history_of(2, 0.4, 0.85, 5.99)), Outcome::ok);
  EXPECT_EQ(of(history_of(2, 0.4, 0.85, 6)), Outcome::ok);
  EXPECT_EQ(of(history_of(2, 0.4, 0.10, 6.01)), Outcome::stuck);
  LossHistory long_ago;
  long_ago.add(1, 0.1);
  long_ago.add(4, 0.1);
  for (int k = 0; k < 10'000; ++k) long_ago.add(0.2, 0.9);
  EXPECT_EQ(of(long_ago), Outcome::spiked);
}

TEST(Outcome, FailuresAreStuckAndNonFinite) {
  EXPECT_TRUE(is_failure(Outcome::non_finite));
  EXPECT_TRUE(is_failure(Outcome::stuck));
  EXPECT_FALSE(is_failure(Outcome::spiked));
  EXPECT_FALSE(is_failure(Outcome::ok));
}

TEST(Outcome, HaveTheNamesOfTheContract) {
  EXPECT_EQ(to_string(Outcome::non_finite), "non_finite");
  EXPECT_EQ(to_string(Outcome::stuck), "stuck");
  EXPECT_EQ(to_string(Outcome::spiked), "spiked");
  EXPECT_EQ(to_string(Outcome::ok), "ok");
}

TEST(LossHistory, TheFinalNumbersAreMeansOfTheLastFiftyOrAQuarter) {
  LossHistory history;
  EXPECT_TRUE(history.empty());
  double loss = 0;
  double accuracy = 0;
  for (int k = 0; k < 237; ++k) {
    history.add(k * 0.5, 1.0 / (k + 1));
    if (k >= 237 - 50) {
      loss += k * 0.5 / 50;
      accuracy += 1.0 / (k + 1) / 50;
    }
  }
  EXPECT_DOUBLE_EQ(history.final_loss(), loss);
  EXPECT_NEAR(history.final_accuracy(), accuracy, 1e-15);
  EXPECT_EQ(history.first_loss(), 0.0);
  EXPECT_EQ(history.largest_loss(), 118.0);
  LossHistory brief;
  brief.add(3, 0.5);
  brief.add(1, 0.25);
  EXPECT_EQ(brief.final_loss(), 1.0);
  EXPECT_EQ(brief.final_accuracy(), 0.25);
  // It has learned, although the mean of all its losses is that of chance.
  LossHistory falling;
  for (const double value : {2.9, 2.7, 2.6, 2.5, 2.4, 2.1, 1.7, 1.5}) falling.add(value, 0.5);
  EXPECT_EQ(falling.final_loss(), 1.6);
  EXPECT_EQ(outcome_of(falling, 0.7, 10, Loss::cross_entropy), Outcome::ok);
}

}  // namespace
}  // namespace preheat
