#include "train/outcome.h"

#include <algorithm>
#include <cmath>

namespace preheat {

bool is_failure(Outcome outcome) {
  return outcome == Outcome::stuck || outcome == Outcome::non_finite;
}

void LossHistory::add(double loss, double accuracy) {
  if (recent_.empty()) first_ = largest_ = loss;
  largest_ = std::max(largest_, loss);
  recent_.push_back({loss, accuracy});
  if (recent_.size() > window) recent_.pop_front();
}

double LossHistory::final_loss() const {
  double sum = 0;
  for (const Update& u : recent_) sum += u.loss;
  return sum / static_cast<double>(recent_.size());
}

double LossHistory::final_accuracy() const {
  double sum = 0;
  for (const Update& u : recent_) sum += u.accuracy;
  return sum / static_cast<double>(recent_.size());
}

double chance_loss(Loss loss, std::int64_t classes) {
  const auto k = static_cast<double>(classes);
  return loss == Loss::mse ? (1 - 1 / k) / 2 : std::log(k);
}

Outcome outcome_of(const LossHistory& history, std::optional<double> test_accuracy,
                   std::int64_t classes, Loss loss) {
  const double accuracy = test_accuracy.value_or(history.final_accuracy());
  const bool at_chance = loss == Loss::cross_entropy &&
                         std::fabs(history.final_loss() - chance_loss(loss, classes)) < 0.05;
  if (accuracy < 1.5 / static_cast<double>(classes) || at_chance) return Outcome::stuck;
  return history.largest_loss() > 3 * history.first_loss() ? Outcome::spiked : Outcome::ok;
}

}  // namespace preheat
