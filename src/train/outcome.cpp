#include "train/outcome.h"

#include <algorithm>
#include <cmath>

namespace preheat {
namespace {

constexpr std::size_t window = 50;  // updates

}  // namespace

bool is_failure(Outcome outcome) {
  return outcome == Outcome::stuck || outcome == Outcome::non_finite;
}

void LossHistory::add(double loss, double accuracy) {
  if (count_++ == 0) first_ = largest_ = loss;
  largest_ = std::max(largest_, loss);
  recent_.push_back({loss, accuracy});
  if (recent_.size() > window) recent_.pop_front();
}

double LossHistory::final_mean(double Update::*value) const {
  const std::size_t n = std::clamp<std::size_t>(count_ / 4, 1, recent_.size());
  double sum = 0;
  for (auto u = recent_.end() - static_cast<std::ptrdiff_t>(n); u != recent_.end(); ++u) {
    sum += (*u).*value;
  }
  return sum / static_cast<double>(n);
}

double LossHistory::final_loss() const {
  return final_mean(&Update::loss);
}

double LossHistory::final_accuracy() const {
  return final_mean(&Update::accuracy);
}

double chance_loss(Loss loss, std::int64_t classes) {
  const auto k = static_cast<double>(classes);
  return loss == Loss::mse ? (1 - 1 / k) / 2 : std::log(k);
}

double smallest_loss(double label_smoothing, std::int64_t classes) {
  const auto k = static_cast<double>(classes);
  const double others = label_smoothing / k;
  const double own = 1 - label_smoothing + others;
  const double of_others = others > 0 ? -(k - 1) * others * std::log(others) : 0;
  return of_others - own * std::log(own);
}

Outcome outcome_of(const LossHistory& history, std::optional<double> test_accuracy,
                   std::int64_t classes, Loss loss) {
  const double accuracy = test_accuracy.value_or(history.final_accuracy());
  const bool at_chance =
      loss == Loss::cross_entropy &&
      std::fabs(history.final_loss() - chance_loss(loss, classes)) < chance_margin;
  if (accuracy < 1.5 / static_cast<double>(classes) || at_chance) return Outcome::stuck;
  return history.largest_loss() > 3 * history.first_loss() ? Outcome::spiked : Outcome::ok;
}

}  // namespace preheat
