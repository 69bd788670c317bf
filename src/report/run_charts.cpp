#include "report/run_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "experiment/statistics.h"
#include "report/label_text.h"

namespace preheat {
namespace {

constexpr double gap = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t max_with_norms = 24;      // runs in one chart of gradient norms
constexpr std::size_t max_sharpness_arms = 24;  // with a chart
constexpr std::size_t max_unfolded_sharpness_arms = 8;
constexpr std::size_t max_unfolded_layer_arms = 4;
constexpr std::size_t max_layers = 24;  // lines in one chart
constexpr std::size_t layer_points = 160;
constexpr std::size_t max_named_arms = 12;  // in one sentence
constexpr std::size_t min_seeds = 5;        // per arm, for a median and a range
constexpr std::array<const char*, 5> outcomes{"ok", "spiked", "stuck", "non_finite", ""};

Points in_percent(Points points) {
  for (double& y : points.y) y *= 100;
  return points;
}

Series in_percent(Series series) {
  series.points = in_percent(std::move(series.points));
  series.means = in_percent(std::move(series.means));
  for (auto* value :
       {&series.facts.first, &series.facts.last, &series.facts.least, &series.facts.largest}) {
    if (*value) **value *= 100;
  }
  return series;
}

// ---- Phases of the schedule ---------------------------------------------------------------------

// Updates from `from` up to, but not including, `to`.
struct PhaseBand {
  std::string name;
  double from = 0;
  double to = 0;
};

// The parts of the bands at which the run is in the phase of that name, or to which it does not
// get: a run that was lost early is no reason to hide what the others share.
std::vector<PhaseBand> shared_with(const RunData& run, const std::vector<PhaseBand>& bands) {
  const double end = run.phases.empty() ? 0 : run.phases.back().last + 1;
  std::vector<PhaseBand> shared;
  const auto add = [&](const std::string& name, double from, double to) {
    if (from >= to) return;
    if (!shared.empty() && shared.back().name == name && shared.back().to == from) {
      shared.back().to = to;
    } else {
      shared.push_back({name, from, to});
    }
  };
  for (const PhaseBand& band : bands) {
    for (const PhaseFacts& phase : run.phases) {
      if (phase.name != band.name) continue;
      add(band.name, std::max(band.from, phase.first), std::min(band.to, phase.last + 1));
    }
    add(band.name, std::max(band.from, end), band.to);
  }
  return shared;
}

std::vector<PhaseBand> shared_phases(const std::vector<const RunData*>& runs) {
  const RunData* const longest = *std::ranges::max_element(runs, {}, &RunData::updates);
  std::vector<PhaseBand> bands;
  for (const PhaseFacts& phase : longest->phases) {
    bands.push_back({phase.name, phase.first, phase.last + 1});
  }
  for (const RunData* run : runs) bands = shared_with(*run, bands);
  return bands;
}

void shade_shared_phases(Chart& chart, const std::vector<const RunData*>& runs) {
  for (const PhaseBand& band : shared_phases(runs)) chart.band(band.name, band.from, band.to);
}

std::vector<const RunData*> pointers_to(const std::vector<RunData>& runs) {
  std::vector<const RunData*> all;
  for (const RunData& run : runs) all.push_back(&run);
  return all;
}

// The end of the warmup of the runs of an arm, or of a cell's kind.
struct WarmupEnd {
  std::string arm;  // "" in a grid, whose many cells have few lengths of warmup
  double at = 0;    // updates before it
  Style style;
  std::vector<int> facets;
};

// A value in which the runs of a line differ does not switch it off.
void merge_facets(std::vector<int>& facets, const std::vector<int>& of_other) {
  for (std::size_t i = 0; i < facets.size(); ++i) {
    if (facets[i] != of_other[i]) facets[i] = -1;
  }
}

// Empty unless runs differ in it. A run that was lost in its warmup does not say where it ends.
std::vector<WarmupEnd> warmup_ends(const std::vector<RunData>& runs, const Facets& facets) {
  std::map<std::pair<std::string, double>, std::size_t> places;
  std::vector<WarmupEnd> ends;
  bool differ = false;
  for (const RunData& run : runs) {
    if (run.phases.empty()) continue;
    if (run.phases.front().name != "warmup") {
      differ = true;
      continue;
    }
    if (run.phases.size() < 2) continue;
    const double at = run.phases[1].first;
    const std::string arm = facets.by_outcome() ? ""
                            : run.arm.empty()   ? facets.label(run)
                                                : run.arm;
    const auto [place, is_new] = places.try_emplace({arm, at}, ends.size());
    if (is_new) {
      const Style style = facets.by_outcome() ? Style{"soft", 0} : facets.style(run);
      ends.push_back({arm, at, style, facets.indices(run)});
    } else {
      merge_facets(ends[place->second].facets, facets.indices(run));
    }
    differ |= at != ends.front().at;
  }
  if (!differ) ends.clear();
  return ends;
}

// More lines than these could not be told apart; the note above the charts then stands alone.
constexpr std::size_t max_marks = 100;

void shade_phases(Chart& chart, const std::vector<RunData>& runs, const Facets& facets) {
  shade_shared_phases(chart, pointers_to(runs));
  const std::vector<WarmupEnd> ends = warmup_ends(runs, facets);
  if (ends.size() > max_marks) return;
  for (const WarmupEnd& end : ends) {
    chart.mark(fmt::format("{}warmup ends after {} updates", end.arm.empty() ? "" : end.arm + ": ",
                           end.at),
               end.style, end.at, end.facets);
  }
}

// "cold: after 20 updates; warm: after 31 to 56 updates".
std::string words_for(const std::vector<WarmupEnd>& ends) {
  std::vector<std::string> arms;  // in the order of the runs
  std::map<std::string, std::vector<double>> of_arm;
  for (const WarmupEnd& end : ends) {
    const std::string arm = end.arm.empty() ? std::string() : end.arm + ": ";
    if (of_arm[arm].empty()) arms.push_back(arm);
    of_arm[arm].push_back(end.at);
  }
  if (arms.size() > max_named_arms) {
    const auto [least, largest] = std::ranges::minmax(ends, {}, &WarmupEnd::at);
    return fmt::format("for {} arms or runs after {} to {} updates", arms.size(), least.at,
                       largest.at);
  }
  std::string words;
  for (const std::string& arm : arms) {
    const auto [least, largest] = std::ranges::minmax(of_arm[arm]);
    words += fmt::format("{}{}after {}{} updates", words.empty() ? "" : "; ", arm, least,
                         least == largest ? "" : fmt::format(" to {}", largest));
  }
  return words;
}

std::string phases_note(const std::vector<RunData>& runs, const Facets& facets) {
  std::string note;
  if (runs.size() > 1 && !shared_phases(pointers_to(runs)).empty()) {
    note = "Shaded: the updates at which all runs, as far as each goes, are in the same phase.";
  }
  const std::vector<WarmupEnd> ends = warmup_ends(runs, facets);
  if (ends.empty()) return note;
  return fmt::format("{}{}{} {}.", note, note.empty() ? "" : " ",
                     ends.size() > max_marks ? "Warmup ends" : "Vertical lines: where warmup ends,",
                     words_for(ends));
}

// A run that blows up would flatten everything of interest below it: the axis ends at `times` the
// largest first value, and the caption says so, calling the values `values`.
template <class SeriesOf>
void cap(Chart& chart, const std::vector<RunData>& runs, const SeriesOf& series_of, double times,
         const char* values) {
  double first = 0;
  double largest = 0;
  for (const RunData& run : runs) {
    first = std::max(first, series_of(run).facts.first.value_or(0));
    largest = std::max(largest, series_of(run).facts.largest.value_or(0));
  }
  const double most = times * first;
  if (first <= 0 || largest <= most) return;
  chart.cap_y(most).caption(fmt::format("{} above {:.3g} are off the chart; the largest is {:.3g}.",
                                        values, most, largest));
}

const Series& loss_of(const RunData& run) {
  return run.loss;
}

const Series& norm_of(const RunData& run) {
  return run.grad_norm;
}

void cap_losses(Chart& chart, const std::vector<RunData>& runs) {
  cap(chart, runs, loss_of, 20, "Losses");
}

// A gradient norm spans more orders of magnitude in a run that goes well.
void cap_norms(Chart& chart, const std::vector<RunData>& runs) {
  cap(chart, runs, norm_of, 1e4, "Norms");
}

// ---- The seeds of an arm ------------------------------------------------------------------------

const Points& smooth(const Series& series) {
  return series.means.x.empty() ? series.points : series.means;
}

// The median and the range of each arm over its seeds, however many; `curve_of` makes a run's
// SeedCurve.
template <class CurveOf>
void add_all_spreads(Chart& chart, const std::vector<RunData>& runs, const Facets& facets,
                     Worst worst, const CurveOf& curve_of) {
  for (auto run = runs.begin(); run != runs.end();) {
    const auto end = std::ranges::find_if(
        run, runs.end(), [&](const RunData& other) { return other.arm != run->arm; });
    std::vector<SeedCurve> seeds;
    for (auto seed = run; seed != end; ++seed) seeds.push_back(curve_of(*seed));
    const SeedSpread spread = spread_over(seeds, worst);
    if (!spread.x.empty()) {
      chart.add(fmt::format("{}, median of {}", run->arm, seeds.size()), facets.style(*run), spread,
                {facets.indices(*run)[0], -1});
    }
    run = end;
  }
}

// The same, if there are enough seeds.
template <class CurveOf>
void add_spreads(Chart& chart, const std::vector<RunData>& runs, const Facets& facets, Worst worst,
                 const CurveOf& curve_of) {
  if (facets.has_spreads()) add_all_spreads(chart, runs, facets, worst, curve_of);
}

// Of a quantity recorded at every update.
auto curve_of_updates(const Series& (*series_of)(const RunData&)) {
  return [series_of](const RunData& run) {
    return SeedCurve{smooth(series_of(run)), static_cast<double>(run.updates) - 1, run.lost_at};
  };
}

constexpr const char* spread_words =
    "Line: median of the arm's n seeds. Band: smallest to largest finite value.";

// Widest window, in updates, of the means of losses.
std::size_t widest_window(const std::vector<RunData>& runs) {
  std::size_t window = 1;
  for (const RunData& run : runs) window = std::max(window, run.loss.window);
  return window;
}

std::string how_drawn(const std::vector<RunData>& runs) {
  const std::size_t window = widest_window(runs);
  return window == 1 ? "Every update; ✕: not finite from there on."
                     : fmt::format(
                           "Means over up to {} updates, never across the end of a phase or a jump "
                           "of the rate; faint, if switched on: every update, or the minimum and "
                           "maximum of several; ✕: not finite from there on.",
                           window);
}

std::string how_spread(const std::vector<RunData>& runs) {
  const std::size_t window = widest_window(runs);
  return fmt::format(
      "{} {}A seed that is no longer finite counts as the worst; a line ends, ✕, where half are "
      "not.",
      spread_words,
      window == 1 ? ""
                  : fmt::format("For each seed the mean over up to {} updates, never across the "
                                "end of a phase or a jump of the rate. ",
                                window));
}

// A run may also be lost by its gradient or its weights, at an update with a finite loss: the line
// ends there all the same.
Series ending_where_lost(Series loss, const RunData& run) {
  if (run.lost_at && !loss.facts.not_finite_at) {
    loss.points.x.push_back(*run.lost_at);
    loss.points.y.push_back(gap);
  }
  return loss;
}

Chart loss_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Training loss", "step", "loss");
  chart.log_y().caption(facets.has_spreads() ? how_spread(runs) : how_drawn(runs));
  for (const RunData& run : runs) {
    chart.add(runs.size() == 1 ? "training" : facets.label(run), facets.style(run),
              ending_where_lost(run.loss, run), facets.indices(run));
  }
  if (runs.size() == 1) {
    const Evaluations& e = runs.front().evaluations;
    chart.add("test", {"c1", 1}, make_series(e.step, e.loss, e.step.size()), {}, Chart::Kind::line);
    if (!e.validation_loss.empty()) {
      chart.add("validation", {"c2", 2}, make_series(e.step, e.validation_loss, e.step.size()), {},
                Chart::Kind::line);
    }
    chart.legend();
  }
  add_spreads(chart, runs, facets, Worst::largest, curve_of_updates(loss_of));
  cap_losses(chart, runs);
  shade_phases(chart, runs, facets);
  return chart;
}

Series test_accuracy(const RunData& run) {
  const Evaluations& e = run.evaluations;
  return in_percent(make_series(e.step, e.accuracy, e.step.size()));
}

Chart training_accuracy_chart(const std::vector<RunData>& runs, const Facets& facets) {
  const bool is_one = runs.size() == 1;
  Chart chart(is_one ? "Accuracy" : "Training accuracy", "step", "accuracy, %");
  for (const RunData& run : runs) {
    chart.add(is_one ? "training" : facets.label(run), facets.style(run), in_percent(run.accuracy),
              facets.indices(run));
  }
  if (is_one && !runs.front().evaluations.step.empty()) {
    chart.add("test", {"c1", 1}, test_accuracy(runs.front()), {}, Chart::Kind::line);
    const Evaluations& e = runs.front().evaluations;
    const bool validated = !e.validation_accuracy.empty();
    if (validated) {
      chart.add("validation", {"c2", 2},
                in_percent(make_series(e.step, e.validation_accuracy, e.step.size())), {},
                Chart::Kind::line);
    }
    chart.legend().caption(
        fmt::format("Training: on the update's own batch. Test{}: after that many updates.",
                    validated ? " and validation" : ""));
  }
  if (facets.has_spreads()) chart.caption(spread_words);
  add_spreads(chart, runs, facets, Worst::least, [](const RunData& run) {
    return SeedCurve{in_percent(smooth(run.accuracy)), static_cast<double>(run.updates) - 1,
                     run.lost_at};
  });
  shade_phases(chart, runs, facets);
  return chart;
}

Chart test_accuracy_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Test accuracy", "step", "accuracy, %");
  chart.caption("On the test set, after that many updates.");
  for (const RunData& run : runs) {
    if (run.evaluations.step.empty()) continue;
    chart.add(facets.label(run), facets.style(run), test_accuracy(run), facets.indices(run),
              Chart::Kind::line);
  }
  if (facets.has_spreads()) chart.caption(spread_words);
  add_spreads(chart, runs, facets, Worst::least, [](const RunData& run) {
    const std::vector<double>& step = run.evaluations.step;
    return SeedCurve{in_percent(Points{step, run.evaluations.accuracy}),
                     step.empty() ? 0 : step.back(), run.lost_at};
  });
  shade_phases(chart, runs, facets);
  return chart;
}

// For runs that were evaluated once or twice: over updates their points would share one or two
// positions.
Chart final_accuracy_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Test accuracy", "accuracy, %", "");
  std::size_t points = 0;
  std::vector<std::vector<Cell>> rows;
  for (const RunData& run : runs) {
    const bool is_evaluated = !run.evaluations.step.empty();
    const Number accuracy = is_evaluated ? Number(run.evaluations.accuracy.back()) : Number();
    rows.push_back({escape(facets.label(run)), percent(accuracy),
                    is_evaluated ? fmt::format("{:.10g}", run.evaluations.step.back()) : "–"});
    if (!is_evaluated) continue;
    const std::vector<int> indices = facets.indices(run);
    chart.add(facets.label(run), Chart::Kind::dots, facets.style(run),
              {{100 * *accuracy}, {static_cast<double>(indices[0])}}, indices);
    ++points;
  }
  chart.rows(facets.rows()).numbers(table({"run", "test accuracy", "after updates"}, rows));
  chart.caption(points == runs.size()
                    ? fmt::format("One point per run, at its end, n = {}.", points)
                    : fmt::format("One point per run, at its end, {} of n = {}; the others ended "
                                  "before they were evaluated.",
                                  points, runs.size()));
  return chart;
}

std::vector<Chart> accuracy_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<Chart> charts = {training_accuracy_chart(runs, facets)};
  if (runs.size() == 1) return charts;
  const bool seldom = std::ranges::all_of(
      runs, [](const RunData& run) { return run.evaluations.step.size() <= 2; });
  // A sweep has its map for this, and the runs of a search all have different rates.
  if (seldom && (facets.by_outcome() || facets.by_search())) return charts;
  charts.push_back(seldom ? final_accuracy_chart(runs, facets) : test_accuracy_chart(runs, facets));
  if (charts.back().empty()) charts.pop_back();
  return charts;
}

bool begins_with(const std::vector<float>& all, const std::vector<float>& part) {
  return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

// Seeds of an arm share their rates (except with a gate), up to their ends; one line is enough.
Chart rate_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Learning rate", "step", "learning rate");
  std::vector<const RunData*> order;
  for (const RunData& run : runs) order.push_back(&run);
  std::ranges::stable_sort(order, std::greater<>(), &RunData::updates);
  struct Line {
    const RunData* run;
    std::vector<int> facets;
  };
  std::vector<Line> drawn;
  for (const RunData* run : order) {
    const std::vector<int> indices = facets.indices(*run);
    const auto same = std::ranges::find_if(drawn, [&](const Line& line) {
      return line.run->arm == run->arm && begins_with(line.run->rates, run->rates);
    });
    if (same == drawn.end()) {
      drawn.push_back({run, indices});
      continue;
    }
    merge_facets(same->facets, indices);
  }
  for (const auto& [run, indices] : drawn) {
    Series rates = run->lr;
    rates.means = {};  // a rate has no noise
    const std::string label = runs.size() == 1   ? "learning rate"
                              : run->arm.empty() ? facets.label(*run)
                                                 : run->arm;
    chart.add(label, facets.style(*run), rates, indices, Chart::Kind::mean);
  }
  double least = std::numeric_limits<double>::infinity();  // of the largest rates of the runs
  double largest = 0;
  for (const RunData& run : runs) {
    least = std::min(least, run.lr.facts.largest.value_or(least));
    largest = std::max(largest, run.lr.facts.largest.value_or(0));
  }
  if (least > 0 && largest > 20 * least) chart.log_y();
  if (drawn.size() < runs.size()) {
    chart.caption("Runs of an arm that have the same rates share a line.");
  }
  shade_phases(chart, runs, facets);
  return chart;
}

std::vector<Chart> norm_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<Chart> charts;
  if (runs.size() == 1) {
    const RunData& run = runs.front();
    charts.emplace_back("Norms over all parameters", "step", "norm");
    charts.back().log_y().legend().caption("L2, of the weights, the gradient and the update.");
    charts.back().add("weights", {"c2", 2}, run.weight_norm);
    charts.back().add("gradient", {"c0", 0}, run.grad_norm);
    charts.back().add("update", {"c1", 1}, run.update_norm);
    cap_norms(charts.back(), runs);
  } else if (runs.size() <= max_with_norms) {
    charts.emplace_back("Norm of the gradient", "step", "norm");
    charts.back().log_y().caption("L2, over all parameters.");
    for (const RunData& run : runs) {
      charts.back().add(facets.label(run), facets.style(run), run.grad_norm, facets.indices(run));
    }
    if (facets.has_spreads()) charts.back().caption(spread_words);
    cap_norms(charts.back(), runs);
    add_spreads(charts.back(), runs, facets, Worst::largest, curve_of_updates(norm_of));
  } else if (facets.by_arm_and_seed()) {
    charts.emplace_back("Norm of the gradient", "step", "norm");
    charts.back().log_y().caption(
        fmt::format("L2, over all parameters. {} The {} seeds have no "
                    "lines of their own here.",
                    spread_words, runs.size()));
    cap_norms(charts.back(), runs);
    add_all_spreads(charts.back(), runs, facets, Worst::largest, curve_of_updates(norm_of));
  }
  for (Chart& chart : charts) shade_phases(chart, runs, facets);
  return charts;
}

// ---- Sharpness ---------------------------------------------------------------------------------

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
      if (s.agrees[i] != 0) continue;
      doubtful.x.push_back(s.step[i]);
      doubtful.y.push_back(s.sharpness[i]);
    }
  }
  add_limits(chart,
             **std::ranges::max_element(runs, {}, [](const RunData* r) { return r->updates; }));
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
  shade_shared_phases(chart, runs);
  return chart;
}

// ---- Layers ------------------------------------------------------------------------------------

// The rows of the files of several seeds, each with one row per step and name; grouped by name, in
// the order of the first.
template <class Rows>
class ByName {
 public:
  ByName(std::vector<const Rows*> seeds, std::vector<std::string> Rows::*names)
      : seeds_(std::move(seeds)) {
    for (std::size_t seed = 0; seed < seeds_.size(); ++seed) {
      const std::vector<std::string>& of_seed = seeds_[seed]->*names;
      for (std::size_t i = 0; i < of_seed.size(); ++i) {
        const auto [at, is_new] = rows_.try_emplace(of_seed[i], seeds_.size());
        if (is_new) order_.push_back(of_seed[i]);
        at->second[seed].push_back(i);
      }
    }
  }

  // If there are too many names, only weights, evenly spaced.
  std::vector<std::string> chosen() const {
    if (order_.size() <= max_layers) return order_;
    std::vector<std::string> weights;
    std::ranges::copy_if(order_, std::back_inserter(weights), [](const std::string& name) {
      return name.ends_with(".weight") && name.find("batch_norm") == std::string::npos;
    });
    if (weights.empty()) weights = order_;
    if (weights.size() <= max_layers) return weights;
    std::vector<std::string> some;
    for (std::size_t i = 0; i < max_layers; ++i) {
      some.push_back(weights[i * (weights.size() - 1) / (max_layers - 1)]);
    }
    return some;
  }

  std::size_t size() const { return order_.size(); }
  std::size_t seeds() const { return seeds_.size(); }

  // The median over the seeds whose value(rows, row) is finite, at each step; a gap if fewer than
  // half of them have one.
  template <class Value>
  Series series(const std::string& name, const Value& value) const {
    const std::vector<std::vector<std::size_t>>& rows = rows_.at(name);
    std::vector<std::size_t> next(rows.size());
    std::vector<double> x, y;
    while (true) {
      double step = std::numeric_limits<double>::infinity();
      for (std::size_t seed = 0; seed < rows.size(); ++seed) {
        if (next[seed] == rows[seed].size()) continue;
        step = std::min(step, seeds_[seed]->step[rows[seed][next[seed]]]);
      }
      if (std::isinf(step)) break;
      std::vector<double> values;
      for (std::size_t seed = 0; seed < rows.size(); ++seed) {
        if (next[seed] == rows[seed].size()) continue;
        const std::size_t row = rows[seed][next[seed]];
        if (seeds_[seed]->step[row] != step) continue;
        ++next[seed];
        const double there = value(*seeds_[seed], row);
        if (std::isfinite(there)) values.push_back(there);
      }
      x.push_back(step);
      y.push_back(!values.empty() && 2 * values.size() >= rows.size() ? median(values) : gap);
    }
    Series series = make_series(x, y, layer_points);
    series.means = {};
    return series;
  }

 private:
  std::vector<const Rows*> seeds_;
  std::vector<std::string> order_;
  std::map<std::string, std::vector<std::vector<std::size_t>>> rows_;  // by seed
};

// The files of the runs that have one.
template <class Rows>
std::vector<const Rows*> files_of(const std::vector<const RunData*>& runs,
                                  std::optional<Rows> RunData::*file) {
  std::vector<const Rows*> files;
  for (const RunData* run : runs) {
    if (run->*file) files.push_back(&*(run->*file));
  }
  return files;
}

// One line per name, coloured by depth.
template <class Rows, class Value>
void add_by_name(std::vector<Chart>& charts, Chart chart, const std::string& caption,
                 const ByName<Rows>& names, const Value& value) {
  const std::vector<std::string> chosen = names.chosen();
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const double depth =
        chosen.size() < 2 ? 0 : static_cast<double>(i) / static_cast<double>(chosen.size() - 1);
    chart.add(chosen[i], {fmt::format("depth:{:.3f}", depth), static_cast<int>(i)},
              names.series(chosen[i], value), {}, Chart::Kind::mean);
  }
  std::string text = caption;
  if (names.seeds() > 1) {
    text += fmt::format(" Median of n = {} seeds, where half or more have a value.", names.seeds());
  }
  if (chosen.size() < names.size()) text += fmt::format(" {} of {}.", chosen.size(), names.size());
  chart.legend().caption(text);
  charts.push_back(std::move(chart));
}

// An older preheat recorded none.
bool has_changes(const RunData* run) {
  return run->activations && !run->activations->change.empty();
}

// For the seeds of an arm, or for one run.
void add_layer_charts(std::vector<Chart>& charts, const std::vector<const RunData*>& runs,
                      const std::string& of) {
  const auto chart = [&](const char* title, const char* y) {
    Chart empty(title + of, "step", y);
    shade_shared_phases(empty, runs);
    return empty;
  };
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : gap; };
  if (const ByName layers(files_of(runs, &RunData::layers), &LayerRows::parameter);
      !layers.chosen().empty()) {
    const auto add = [&](const Chart& empty, const char* caption, const auto& value) {
      add_by_name(charts, empty, caption, layers, value);
    };
    add(chart("Velocity over weights", "ratio").log_y(),
        "Norm of the velocity over the norm of the weights.",
        [&](const LayerRows& l, std::size_t i) {
          return ratio(l.velocity_norm[i], l.weight_norm[i]);
        });
    add(chart("Update over weights", "ratio").log_y(),
        "Norm of the update over the norm of the weights.", [&](const LayerRows& l, std::size_t i) {
          return ratio(l.update_norm[i], l.weight_norm[i]);
        });
    add(chart("Angle of an update", "degrees").log_y(), "Between the weights before and after it.",
        [](const LayerRows& l, std::size_t i) { return l.angle[i]; });
    add(chart("Distance from the start", "norm"), "Norm of the weights minus the initial ones.",
        [](const LayerRows& l, std::size_t i) { return l.distance[i]; });
  }
  if (const ByName layers(files_of(runs, &RunData::activations), &ActivationRows::layer);
      !layers.chosen().empty()) {
    add_by_name(charts, chart("Largest activation", "activation").log_y(),
                "Largest magnitude in the update's own batch.", layers,
                [](const ActivationRows& a, std::size_t i) { return a.largest[i]; });
    add_by_name(charts, chart("Dead units", "%"), "Channels that are zero on the whole batch.",
                layers, [](const ActivationRows& a, std::size_t i) { return 100 * a.dead[i]; });
    if (std::ranges::any_of(runs, has_changes)) {
      add_by_name(charts, chart("Representation change", "ratio").log_y(),
                  "Norm of what the update changed of the outputs over their norm before, on one "
                  "fixed batch.",
                  layers, [](const ActivationRows& a, std::size_t i) {
                    return i < a.change.size() ? a.change[i] : gap;
                  });
    }
  }
}

// The runs for which `has` holds, by arm; a run without an arm is its own group.
using Group = std::pair<std::string, std::vector<const RunData*>>;
template <class Has>
std::vector<Group> by_arm(const std::vector<RunData>& runs, const Facets& facets, const Has& has) {
  std::vector<Group> arms;
  for (const RunData& run : runs) {
    if (!has(run)) continue;
    const std::string name = run.arm.empty() && runs.size() > 1 ? facets.label(run) : run.arm;
    if (arms.empty() || arms.back().first != name) arms.emplace_back(name, 0);
    arms.back().second.push_back(&run);
  }
  return arms;
}

bool has_sharpness(const RunData& run) {
  return run.sharpness && !run.sharpness->step.empty();
}

}  // namespace

Facets::Facets(const std::vector<std::string>& names, const std::vector<RunData>& runs)
    : names_(names), values_(names.size()), places_(names.size()) {
  const auto add = [&](std::size_t facet, const std::string& value) {
    const int place = static_cast<int>(values_[facet].size());
    if (places_[facet].try_emplace(value, place).second) values_[facet].push_back(value);
  };
  if (by_outcome()) {  // from good to bad, as in the legend of the map
    for (const char* outcome : outcomes) {
      const std::string words = outcome_words(outcome);
      if (std::ranges::any_of(runs, [&](const RunData& r) { return r.facets[0] == words; })) {
        add(0, words);
      }
    }
  }
  for (const RunData& run : runs) {
    if (!names_.empty()) ++runs_[run.facets[0]];
    for (std::size_t i = 0; i < names_.size(); ++i) add(i, run.facets[i]);
  }
}

std::vector<int> Facets::indices(const RunData& run) const {
  std::vector<int> indices;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    indices.push_back(places_[i].at(run.facets[i]));
  }
  return indices;
}

bool Facets::by_arm_and_seed() const {
  return names_ == std::vector<std::string>{"arm", "seed"};
}

bool Facets::has_spreads() const {
  return by_arm_and_seed() &&
         std::ranges::any_of(runs_, [](const auto& arm) { return arm.second >= min_seeds; });
}

Style Facets::style_of_value(std::size_t i) const {
  if (!by_outcome()) return style_of(i);
  int pattern = 0;
  for (const char* outcome : outcomes) {
    if (values_[0][i] == outcome_words(outcome)) return {outcome, pattern};
    ++pattern;
  }
  return style_of(i);
}

Style Facets::style(const RunData& run) const {
  return names_.empty() ? Style{} : style_of_value(static_cast<std::size_t>(indices(run)[0]));
}

std::string Facets::label(const RunData& run) const {
  std::string label;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (i > 0) label += ", " + short_key(names_[i]) + " ";
    label += run.facets[i];
  }
  return label;
}

Json Facets::json() const {
  Json facets = Json::array();
  for (std::size_t i = 0; i < names_.size(); ++i) {
    Json values = Json::array();
    for (std::size_t k = 0; k < values_[i].size(); ++k) {
      values.push_back({{"label", values_[i][k]}});
      if (i > 0) continue;
      const Style style = style_of_value(k);
      values.back()["color"] = style.color;
      values.back()["pattern"] = style.pattern;
      values.back()["n"] = runs_.at(values_[i][k]);
    }
    facets.push_back({{"name", names_[i]}, {"values", values}});
  }
  return facets;
}

std::vector<std::string> chart_notes(const std::vector<RunData>& runs, const Facets& facets) {
  const auto limited = [&](const char* what, std::size_t most, const auto& has) -> std::string {
    const std::size_t all = by_arm(runs, facets, has).size();
    if (all <= most) return "";
    const char* arms = facets.by_outcome() ? "cells" : runs.front().arm.empty() ? "runs" : "arms";
    return fmt::format("{}: {} of {} {}, the first.", what, most, all, arms);
  };
  std::vector<std::string> notes = {phases_note(runs, facets)};
  if (runs.size() > max_with_norms && !facets.by_arm_and_seed()) {
    notes.push_back(fmt::format(
        "Norms of the gradient have no chart, as there are more than {} runs; each run's "
        "metrics.csv has them.",
        max_with_norms));
  }
  notes.push_back(limited("Sharpness", max_sharpness_arms, has_sharpness));
  notes.push_back(
      limited("Layers", max_layer_arms, [](const RunData& run) { return run.has_layers; }));
  std::erase(notes, "");
  return notes;
}

std::vector<Chart> curve_charts(const std::vector<RunData>& runs, const Facets& facets) {
  if (runs.empty()) return {};
  std::vector<Chart> charts = {loss_chart(runs, facets)};
  for (Chart& chart : accuracy_charts(runs, facets)) charts.push_back(std::move(chart));
  charts.push_back(rate_chart(runs, facets));
  for (Chart& chart : norm_charts(runs, facets)) charts.push_back(std::move(chart));
  return charts;
}

std::vector<Chart> sharpness_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<Group> arms = by_arm(runs, facets, has_sharpness);
  const bool many = arms.size() > max_unfolded_sharpness_arms;
  if (arms.size() > max_sharpness_arms) arms.resize(max_sharpness_arms);
  std::vector<Chart> charts;
  for (const auto& [name, of_arm] : arms) {
    charts.push_back(sharpness_chart(name, of_arm, facets, runs.size() == 1));
    if (many) charts.back().fold("Sharpness");
  }
  return charts;
}

std::vector<Chart> layer_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<Group> arms =
      by_arm(runs, facets, [](const RunData& run) { return run.layers || run.activations; });
  const bool many = arms.size() > max_unfolded_layer_arms;
  std::vector<Chart> charts;
  for (const auto& [name, of_arm] : arms) {
    const std::string of = of_arm.size() > 1 ? name : facets.label(*of_arm.front());
    const std::size_t before = charts.size();
    add_layer_charts(charts, of_arm, runs.size() == 1 ? "" : ", " + of);
    for (std::size_t i = before; many && i < charts.size(); ++i) charts[i].fold("Layers, " + of);
  }
  return charts;
}

}  // namespace preheat
