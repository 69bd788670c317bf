#include "train/loss_curve.h"

#include <algorithm>
#include <cmath>

#include "train/outcome.h"

namespace preheat {

LossCurve loss_curve(const Metrics& metrics, const Evaluations& evaluations) {
  LossCurve curve;
  LossHistory history;
  std::size_t update = 0;
  for (std::size_t i = 0; i < evaluations.step.size(); ++i) {
    for (; update < metrics.step.size() && metrics.step[update] < evaluations.step[i]; ++update) {
      if (!std::isfinite(metrics.loss[update])) return curve;
      history.add(metrics.loss[update], metrics.accuracy[update]);
    }
    if (history.empty() || !std::isfinite(evaluations.loss[i])) return curve;
    curve.step.push_back(evaluations.step[i]);
    curve.train.push_back(history.final_loss());
    curve.test.push_back(evaluations.loss[i]);
  }
  return curve;
}

std::optional<double> test_loss_at(const LossCurve& curve, double train) {
  const auto first = std::ranges::find_if(curve.train, [&](double x) { return x <= train; });
  if (first == curve.train.end()) return std::nullopt;
  const auto i = static_cast<std::size_t>(first - curve.train.begin());
  if (*first == train) return curve.test[i];
  if (i == 0) return std::nullopt;
  const double share = (curve.train[i - 1] - train) / (curve.train[i - 1] - *first);
  return std::lerp(curve.test[i - 1], curve.test[i], share);
}

std::optional<double> test_loss_difference(const LossCurve& a, const LossCurve& b) {
  if (std::min(a.step.size(), b.step.size()) < min_curve_evaluations) return std::nullopt;
  const double train = std::max(std::ranges::min(a.train), std::ranges::min(b.train));
  const auto of_a = test_loss_at(a, train);
  const auto of_b = test_loss_at(b, train);
  return of_a && of_b ? std::optional(*of_a - *of_b) : std::nullopt;
}

}  // namespace preheat
