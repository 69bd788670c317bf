#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/phase_marks.h"
#include "report/run_charts.h"

namespace preheat {
namespace {

constexpr std::size_t max_unfolded_sharpness_arms = 8;

Points over_rate(double numerator, const Series& lr) {
  Points points = lr.points;
  for (double& y : points.y) y = y > 0 ? numerator / y : gap;
  return points;
}

// Stability limits of the sharpness on a quadratic: 2 / lr for plain gradient descent, 2 (1 + m) /
// lr with heavy-ball momentum; 2 (1 - m) / lr is the limit for the step summed over the velocity,
// lr / (1 - m).
void add_limits(Chart& chart, const RunData& run) {
  const double m = run.momentum;
  chart.add("2 / lr", Chart::Kind::limit, {"soft", 0}, over_rate(2, run.lr));
  if (m == 0) return;
  chart.add("2 (1 + m) / lr", Chart::Kind::limit, {"soft", 1}, over_rate(2 * (1 + m), run.lr));
  chart.add("2 (1 − m) / lr", Chart::Kind::limit, {"soft", 2}, over_rate(2 * (1 - m), run.lr));
}

Chart sharpness_chart(const std::string& arm, const std::vector<const RunData*>& runs,
                      const Facets& facets, bool is_only_run) {
  Chart chart(arm.empty() ? "Sharpness" : "Sharpness, " + arm, "step", "sharpness");
  Points doubtful;
  double largest = 0;
  bool is_positive = true;
  for (const RunData* run : runs) {
    const SharpnessRows& s = *run->sharpness;
    chart.add(is_only_run ? "sharpness" : facets.label(*run), facets.style(*run),
              make_series(s.step, s.sharpness, s.step.size()), facets.indices(*run),
              Chart::Kind::line);
    for (std::size_t i = 0; i < s.step.size(); ++i) {
      if (!std::isfinite(s.sharpness[i])) continue;
      largest = std::max(largest, s.sharpness[i]);
      is_positive &= s.sharpness[i] > 0;
      if (s.agrees[i] == 0) doubtful.add(s.step[i], s.sharpness[i]);
    }
  }
  add_limits(chart, **std::ranges::max_element(runs, {}, &RunData::updates));
  if (!doubtful.x.empty()) {
    chart.add("step sizes disagree", Chart::Kind::dots, {"non_finite", 3}, doubtful);
  }
  chart.legend().caption(
      fmt::format("Largest eigenvalue of the loss's Hessian, and the limits set by the current "
                  "learning rate; m = {}.{}",
                  runs.front()->momentum,
                  doubtful.x.empty() ? "" : " Marked: the measurement's two step sizes disagree."));
  // The limits are infinite at a rate of 0. On a linear axis a wide margin would flatten the curve.
  if (largest > 0) chart.cap_y((is_positive ? 20 : 2) * largest);
  if (is_positive) chart.log_y();
  shade(chart, shared_phases(runs));
  return chart;
}

}  // namespace

bool has_sharpness(const RunData& run) {
  return run.sharpness && !run.sharpness->step.empty();
}

std::vector<Chart> sharpness_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<RunGroup> arms = by_arm(runs, facets, has_sharpness);
  const bool many = arms.size() > max_unfolded_sharpness_arms;
  if (arms.size() > max_sharpness_arms) arms.resize(max_sharpness_arms);
  std::vector<Chart> charts;
  for (const auto& [name, of_arm] : arms) {
    charts.push_back(sharpness_chart(name, of_arm, facets, runs.size() == 1));
    if (many) charts.back().fold("Sharpness");
  }
  return charts;
}

}  // namespace preheat
