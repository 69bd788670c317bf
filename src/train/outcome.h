// How a run ended, decided from its losses and accuracy.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "config/config.h"

namespace preheat {

/// non_finite: a loss, gradient or weight was not finite at some step. stuck: the run never learned
/// (see outcome_of). spiked: the loss exceeded 3 x its first value and the run recovered, which
/// only means that it is not stuck: its final loss is not compared with its first. ok: none of
/// these.
enum class Outcome { ok, spiked, stuck, non_finite };
constexpr auto spelling(Outcome) {
  return Spelling{"an outcome", {"ok", "spiked", "stuck", "non_finite"}};
}

/// non_finite and stuck.
bool is_failure(Outcome outcome);

/// The history of a run from which its outcome is decided.
class LossHistory {
 public:
  void add(double loss, double accuracy);
  bool empty() const { return count_ == 0; }
  double first_loss() const { return first_; }
  double largest_loss() const { return largest_; }
  /// The mean over the last 50 updates, at most a quarter of all: a falling loss passes that of
  /// chance on its way.
  double final_loss() const;
  double final_accuracy() const;  // likewise, on training batches

 private:
  struct Update {
    double loss;
    double accuracy;
  };
  double final_mean(double Update::*value) const;

  std::size_t count_ = 0;
  double first_ = 0;
  double largest_ = 0;
  std::deque<Update> recent_;
};

/// The loss of a network that predicts all classes equally: ln(classes) with cross entropy; with
/// mse half the squared distance of 1 / classes each from a one-hot target.
double chance_loss(Loss loss, std::int64_t classes);

/// The smallest loss that any network can have on labels smoothed by `label_smoothing`, of the
/// classes' even distribution: the entropy of the smoothed label, 0 without smoothing.
double smallest_loss(double label_smoothing, std::int64_t classes);

/// A final cross entropy as close to that of chance is one of a run that has not learned.
inline constexpr double chance_margin = 0.05;

/// The outcome of a run whose steps were all finite. Stuck is an accuracy below 1.5 / classes or,
/// with cross entropy, a final loss within chance_margin of ln(classes). The accuracy is
/// `test_accuracy` if given, otherwise the final training accuracy.
Outcome outcome_of(const LossHistory& history, std::optional<double> test_accuracy,
                   std::int64_t classes, Loss loss);

}  // namespace preheat
