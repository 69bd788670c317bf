#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <limits>
#include <span>
#include <utility>

#include "report/run_charts.h"

namespace preheat {
namespace {

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

// A run that blows up would flatten everything of interest below it: the axis ends at `times` the
// largest first value, and the caption says so, calling the values `values`.
void cap(Chart& chart, const std::vector<RunData>& runs, Series RunData::*series, double times,
         const char* values) {
  double first = 0;
  double largest = 0;
  for (const RunData& run : runs) {
    first = std::max(first, (run.*series).facts.first.value_or(0));
    largest = std::max(largest, (run.*series).facts.largest.value_or(0));
  }
  const double most = times * first;
  if (first <= 0 || largest <= most) return;
  chart.cap_y(most).caption(fmt::format("{} above {:.3g} are off the chart; the largest is {:.3g}.",
                                        values, most, largest));
}

void cap_losses(Chart& chart, const std::vector<RunData>& runs) {
  cap(chart, runs, &RunData::loss, 20, "Losses");
}

// A gradient norm spans more orders of magnitude in a run that goes well.
void cap_norms(Chart& chart, const std::vector<RunData>& runs) {
  cap(chart, runs, &RunData::grad_norm, 1e4, "Norms");
}

// ---- The seeds of an arm ------------------------------------------------------------------------

const Points& smooth(const Series& series) {
  return series.means.x.empty() ? series.points : series.means;
}

// A run may also be lost by its gradient or its weights, at an update with a finite loss: the line
// ends there all the same.
Points ending_where_lost(Points points, const RunData& run) {
  const bool has_ended = !points.y.empty() && !std::isfinite(points.y.back());
  if (run.lost_at && !has_ended) points.add(*run.lost_at, gap);
  return points;
}

// A quantity recorded at every update.
SeedCurve curve_over_updates(const RunData& run, Points points) {
  return {ending_where_lost(std::move(points), run), static_cast<double>(run.updates) - 1,
          run.lost_at};
}

// Calls visit(runs) for the runs of each arm.
template <class Visit>
void for_arms(const std::vector<RunData>& runs, const Visit& visit) {
  for (auto run = runs.begin(); run != runs.end();) {
    const auto end = std::ranges::find_if(
        run, runs.end(), [&](const RunData& other) { return other.arm != run->arm; });
    visit(std::span(run, end));
    run = end;
  }
}

template <class CurveOf>
SeedSpread spread_of(std::span<const RunData> seeds, Worst worst, const CurveOf& curve_of) {
  std::vector<SeedCurve> curves;
  std::ranges::transform(seeds, std::back_inserter(curves), curve_of);
  return spread_over(curves, worst);
}

// Of the median of an arm's seeds.
std::string median_label(std::span<const RunData> seeds) {
  return fmt::format("{}, median of {}", seeds.front().arm, seeds.size());
}

// Those of the arm, of all seeds.
std::vector<int> arm_facets(const RunData& run, const Facets& facets) {
  return {facets.indices(run)[0], -1};
}

constexpr std::size_t all_points = std::numeric_limits<std::size_t>::max();

// The median and the range of each arm over its seeds, drawn by about `most` points.
template <class CurveOf>
void add_spreads(Chart& chart, const std::vector<RunData>& runs, const Facets& facets, Worst worst,
                 const CurveOf& curve_of, std::size_t most = all_points) {
  chart.caption("Line: median of the arm's n seeds. Band: smallest to largest finite value.");
  for_arms(runs, [&](std::span<const RunData> seeds) {
    const SeedSpread spread = spread_of(seeds, worst, curve_of);
    if (spread.x.empty()) return;
    chart.add(median_label(seeds), facets.style(seeds.front()), spread, most,
              arm_facets(seeds.front(), facets));
  });
}

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
      "{}A seed that is no longer finite counts as the worst; a line ends, ✕, where half are not.",
      window == 1 ? ""
                  : fmt::format("For each seed the mean over up to {} updates, never across the "
                                "end of a phase or a jump of the rate. ",
                                window));
}

Series evaluated(const RunData& run, const std::vector<double>& values) {
  return make_series(run.evaluations.step, values, run.points);
}

// Says so where not every evaluation is drawn.
void note_thinned(Chart& chart, const std::vector<RunData>& runs) {
  const bool any = std::ranges::any_of(
      runs, [](const RunData& run) { return run.evaluations.step.size() > run.points; });
  if (any) chart.caption("Of many evaluations the minimum and maximum of several are drawn.");
}

// Of a single run, whose chart then needs a legend. `validation` is empty without that set.
void add_evaluated(Chart& chart, const Series& test, const Series& validation) {
  chart.add("test", {"c1", 1}, test, {}, Chart::Kind::line);
  if (!validation.points.x.empty()) {
    chart.add("validation", {"c2", 2}, validation, {}, Chart::Kind::line);
  }
  chart.legend();
}

Chart loss_chart(const std::vector<RunData>& runs, const Facets& facets, const PhaseMarks& phases) {
  Chart chart("Training loss", "step", "loss");
  chart.log_y();
  for (const RunData& run : runs) {
    Series loss = run.loss;
    loss.points = ending_where_lost(std::move(loss.points), run);
    chart.add(runs.size() == 1 ? "training" : facets.label(run), facets.style(run), loss,
              facets.indices(run));
  }
  if (runs.size() == 1) {
    const RunData& run = runs.front();
    add_evaluated(chart, evaluated(run, run.evaluations.loss),
                  evaluated(run, run.evaluations.validation_loss));
    note_thinned(chart, runs);
  }
  if (facets.has_spreads()) {
    add_spreads(chart, runs, facets, Worst::largest,
                [](const RunData& run) { return curve_over_updates(run, smooth(run.loss)); });
    chart.caption(how_spread(runs));
  } else {
    chart.caption(how_drawn(runs));
  }
  cap_losses(chart, runs);
  phases.draw(chart);
  return chart;
}

Series test_accuracy(const RunData& run) {
  return in_percent(evaluated(run, run.evaluations.accuracy));
}

Chart training_accuracy_chart(const std::vector<RunData>& runs, const Facets& facets,
                              const PhaseMarks& phases) {
  const bool is_one = runs.size() == 1;
  Chart chart(is_one ? "Accuracy" : "Training accuracy", "step", "accuracy, %");
  for (const RunData& run : runs) {
    chart.add(is_one ? "training" : facets.label(run), facets.style(run), in_percent(run.accuracy),
              facets.indices(run));
  }
  if (const Evaluations& e = runs.front().evaluations; is_one && !e.step.empty()) {
    add_evaluated(chart, test_accuracy(runs.front()),
                  in_percent(evaluated(runs.front(), e.validation_accuracy)));
    chart.caption(
        fmt::format("Training: on the update's own batch. Test{}: after that many updates.",
                    e.validation_accuracy.empty() ? "" : " and validation"));
    note_thinned(chart, runs);
  }
  if (facets.has_spreads()) {
    add_spreads(chart, runs, facets, Worst::least, [](const RunData& run) {
      return curve_over_updates(run, in_percent(smooth(run.accuracy)));
    });
  }
  phases.draw(chart);
  return chart;
}

Chart test_accuracy_chart(const std::vector<RunData>& runs, const Facets& facets,
                          const PhaseMarks& phases) {
  Chart chart("Test accuracy", "step", "accuracy, %");
  chart.caption("On the test set, after that many updates.");
  note_thinned(chart, runs);
  for (const RunData& run : runs) {
    if (run.evaluations.step.empty()) continue;
    chart.add(facets.label(run), facets.style(run), test_accuracy(run), facets.indices(run),
              Chart::Kind::line);
  }
  if (facets.has_spreads()) {
    add_spreads(
        chart, runs, facets, Worst::least,
        [](const RunData& run) {
          const std::vector<double>& step = run.evaluations.step;
          return SeedCurve{in_percent(Points{step, run.evaluations.accuracy}),
                           step.empty() ? 0 : step.back(), run.lost_at};
        },
        runs.front().points);
  }
  phases.draw(chart);
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
    rows.push_back({facets.label(run), percent(accuracy),
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

std::vector<Chart> accuracy_charts(const std::vector<RunData>& runs, const Facets& facets,
                                   const PhaseMarks& phases) {
  std::vector<Chart> charts = {training_accuracy_chart(runs, facets, phases)};
  if (runs.size() == 1) return charts;
  const bool seldom = std::ranges::all_of(
      runs, [](const RunData& run) { return run.evaluations.step.size() <= 2; });
  // A sweep has its map for this, and the runs of a search all have different rates.
  if (seldom && (facets.by_outcome() || facets.by_search())) return charts;
  charts.push_back(seldom ? final_accuracy_chart(runs, facets)
                          : test_accuracy_chart(runs, facets, phases));
  if (charts.back().empty()) charts.pop_back();
  return charts;
}

// The medians of both losses over the seeds of an arm at each evaluation, up to the one at which
// half of the seeds are not finite.
LossCurve median_losses(std::span<const RunData> seeds) {
  const auto over_seeds = [&](std::vector<double> LossCurve::*losses) {
    return spread_of(seeds, Worst::largest, [&](const RunData& run) {
      const LossCurve& curve = run.losses;
      const std::vector<double>& evaluated = run.evaluations.step;
      const bool ends_early = curve.step.size() < evaluated.size();
      return SeedCurve{{curve.step, curve.*losses},
                       curve.step.empty() ? 0 : curve.step.back(),
                       ends_early ? evaluated[curve.step.size()] : run.lost_at};
    });
  };
  const SeedSpread train = over_seeds(&LossCurve::train);
  const SeedSpread test = over_seeds(&LossCurve::test);
  LossCurve curve;
  for (std::size_t i = 0; i < train.x.size() && std::isfinite(train.median[i]); ++i) {
    curve.step.push_back(train.x[i]);
    curve.train.push_back(train.median[i]);
    curve.test.push_back(test.median[i]);
  }
  return curve;
}

Chart losses_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Test loss over training loss", "training loss", "test loss");
  std::vector<std::vector<Cell>> rows;
  double least = std::numeric_limits<double>::infinity();
  const auto add = [&](const std::string& label, const RunData& run, const LossCurve& curve,
                       const std::vector<int>& indices) {
    if (curve.step.size() < min_curve_evaluations) return;
    const std::vector<double>* const both[] = {&curve.train, &curve.test};
    const std::vector<std::size_t> drawn = thin_together(both, run.points);
    chart.add(label, Chart::Kind::line, facets.style(run),
              {picked(curve.train, drawn), picked(curve.test, drawn)}, indices);
    std::vector<Cell>& row = rows.emplace_back();
    row.emplace_back(label);
    row.emplace_back(std::to_string(curve.step.size()));
    for (const std::vector<double>& losses : {curve.train, curve.test}) {
      row.emplace_back(plain(losses.front()));
      row.emplace_back(plain(std::ranges::min(losses)));
      row.emplace_back(plain(losses.back()));
    }
    least = std::min(least, std::ranges::min(curve.train));
  };
  if (facets.has_spreads()) {
    for_arms(runs, [&](std::span<const RunData> seeds) {
      add(median_label(seeds), seeds.front(), median_losses(seeds),
          arm_facets(seeds.front(), facets));
    });
    chart.caption(
        "Line: the medians of both losses over the arm's n seeds; it ends where half are not "
        "finite.");
  } else {
    for (const RunData& run : runs) {
      add(runs.size() == 1 ? "run" : facets.label(run), run, run.losses, facets.indices(run));
    }
  }
  chart.path().log_y();
  if (least > 0) chart.log_x();
  if (runs.size() > 1) {
    chart.caption(
        "Lines that lie on each other differ in optimisation alone; one above another at the same "
        "training loss suggests that it generalises worse.");
  }
  chart.caption(
      "Each point is an evaluation, with the mean training loss of up to 50 updates before it, "
      "augmentation and label smoothing included.");
  note_thinned(chart, runs);
  chart.numbers(
      table({"line", "evaluations", "training loss: first", "training loss: least",
             "training loss: last", "test loss: first", "test loss: least", "test loss: last"},
            rows));
  return chart;
}

bool begins_with(const std::vector<float>& all, const std::vector<float>& part) {
  return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

// Seeds of an arm share their rates (except with a gate), up to their ends; one line is enough.
Chart rate_chart(const std::vector<RunData>& runs, const Facets& facets, const PhaseMarks& phases) {
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
  phases.draw(chart);
  return chart;
}

Chart norms_chart(const RunData& run) {
  Chart chart("Norms over all parameters", "step", "norm");
  chart.log_y().legend().caption("L2, of the weights, the gradient and the update.");
  chart.add("weights", {"c2", 2}, run.weight_norm);
  chart.add("gradient", {"c0", 0}, run.grad_norm);
  chart.add("update", {"c1", 1}, run.update_norm);
  return chart;
}

Chart gradient_norm_chart(const std::vector<RunData>& runs, const Facets& facets) {
  Chart chart("Norm of the gradient", "step", "norm");
  chart.log_y().caption("L2, over all parameters.");
  const bool has_lines = runs.size() <= max_runs_with_norms;
  if (has_lines) {
    for (const RunData& run : runs) {
      chart.add(facets.label(run), facets.style(run), run.grad_norm, facets.indices(run));
    }
  }
  if (!has_lines || facets.has_spreads()) {
    add_spreads(chart, runs, facets, Worst::largest,
                [](const RunData& run) { return curve_over_updates(run, smooth(run.grad_norm)); });
  }
  if (!has_lines) {
    chart.caption(fmt::format("The {} seeds have no lines of their own here.", runs.size()));
  }
  return chart;
}

// Of the runs that measured it.
Chart noise_scale_chart(const std::vector<RunData>& runs, const Facets& facets,
                        const PhaseMarks& phases) {
  Chart chart("Gradient noise scale", "step", "examples");
  chart.log_y().caption("Of the whole network.").caption(noise_scale_caption);
  for (const RunData& run : runs) {
    const auto& [step, scale] = run.noise_scale;
    if (step.empty()) continue;
    chart.add(runs.size() == 1 ? "noise scale" : facets.label(run), facets.style(run),
              make_series(step, scale, step.size()), facets.indices(run), Chart::Kind::line);
  }
  if (!chart.empty() && facets.has_spreads()) {
    add_spreads(chart, runs, facets, Worst::largest, [](const RunData& run) {
      const std::vector<double>& step = run.noise_scale.x;
      return SeedCurve{run.noise_scale, step.empty() ? 0 : step.back(), run.lost_at};
    });
  }
  phases.draw(chart);
  return chart;
}

}  // namespace

std::vector<Chart> curve_charts(const std::vector<RunData>& runs, const Facets& facets,
                                const PhaseMarks& phases) {
  std::vector<Chart> charts = {loss_chart(runs, facets, phases)};
  for (Chart& chart : accuracy_charts(runs, facets, phases)) charts.push_back(std::move(chart));
  // The runs of a sweep or a search are too many and too different to be read against each other.
  if (!facets.by_outcome() && !facets.by_search()) {
    charts.push_back(losses_chart(runs, facets));
    if (charts.back().empty()) charts.pop_back();
  }
  charts.push_back(rate_chart(runs, facets, phases));
  if (has_norms(runs, facets)) {
    Chart chart = runs.size() == 1 ? norms_chart(runs.front()) : gradient_norm_chart(runs, facets);
    cap_norms(chart, runs);
    phases.draw(chart);
    charts.push_back(std::move(chart));
  }
  if (Chart chart = noise_scale_chart(runs, facets, phases); !chart.empty()) {
    charts.push_back(std::move(chart));
  }
  return charts;
}

}  // namespace preheat
