#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "experiment/statistics.h"
#include "report/phase_marks.h"
#include "report/run_charts.h"

namespace preheat {
namespace {

constexpr std::size_t max_unfolded_layer_arms = 4;
constexpr std::size_t max_layers = 24;  // lines in one chart
constexpr std::size_t layer_points = 160;

// The rows of the files of several seeds, each with one row per step and name; grouped by name, in
// the order of the first.
template <class Rows>
class ByName {
 public:
  // Without the rows of the name `without`.
  ByName(std::vector<const Rows*> seeds, std::vector<std::string> Rows::*names,
         std::optional<std::string_view> without = {})
      : seeds_(std::move(seeds)) {
    for (std::size_t seed = 0; seed < seeds_.size(); ++seed) {
      const std::vector<std::string>& of_seed = seeds_[seed]->*names;
      for (std::size_t i = 0; i < of_seed.size(); ++i) {
        if (of_seed[i] == without) continue;
        const auto [at, is_new] = rows_.try_emplace(of_seed[i], seeds_.size());
        if (is_new) order_.push_back(of_seed[i]);
        at->second[seed].push_back(i);
      }
    }
  }

  // The names for which value(rows, row) is a number somewhere.
  template <class Value>
  std::vector<std::string> having(const Value& value) const {
    std::vector<std::string> names;
    std::ranges::copy_if(order_, std::back_inserter(names), [&](const std::string& name) {
      const std::vector<std::vector<std::size_t>>& rows = rows_.at(name);
      for (std::size_t seed = 0; seed < rows.size(); ++seed) {
        const auto is_number = [&](std::size_t row) {
          return !std::isnan(value(*seeds_[seed], row));
        };
        if (std::ranges::any_of(rows[seed], is_number)) return true;
      }
      return false;
    });
    return names;
  }

  std::size_t size() const { return order_.size(); }
  std::size_t seeds() const { return seeds_.size(); }

  // The median over the seeds whose value(rows, row) is a number, at each step; a gap if it is
  // infinite, or if fewer than half of them have one.
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
        if (!std::isnan(there)) values.push_back(there);
      }
      const bool is_enough = !values.empty() && 2 * values.size() >= rows.size();
      x.push_back(step);
      y.push_back(is_enough ? median_with_infinite(values) : gap);
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

// If there are too many names, only weights, evenly spaced.
std::vector<std::string> chosen_of(const std::vector<std::string>& names) {
  if (names.size() <= max_layers) return names;
  std::vector<std::string> weights;
  std::ranges::copy_if(names, std::back_inserter(weights), [](const std::string& name) {
    return name.ends_with(".weight") && name.find("batch_norm") == std::string::npos;
  });
  if (weights.empty()) weights = names;
  if (weights.size() <= max_layers) return weights;
  std::vector<std::string> some;
  for (std::size_t i = 0; i < max_layers; ++i) {
    some.push_back(weights[i * (weights.size() - 1) / (max_layers - 1)]);
  }
  return some;
}

// One line per name that has a value, coloured by depth.
template <class Rows, class Value>
void add_by_name(std::vector<Chart>& charts, Chart chart, const std::string& caption,
                 const ByName<Rows>& rows, const Value& value) {
  const std::vector<std::string> names = rows.having(value);
  const std::vector<std::string> chosen = chosen_of(names);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const double depth =
        chosen.size() < 2 ? 0 : static_cast<double>(i) / static_cast<double>(chosen.size() - 1);
    chart.add(chosen[i], {fmt::format("depth:{:.3f}", depth), static_cast<int>(i)},
              rows.series(chosen[i], value), {}, Chart::Kind::mean);
  }
  std::string text = caption;
  if (rows.seeds() > 1) {
    text += fmt::format(" Median of n = {} seeds{}, where half or more have a value.", rows.seeds(),
                        rows.seeds() == max_layer_seeds ? ", an arm's first" : "");
  }
  if (chosen.size() < names.size()) text += fmt::format(" {} of {}.", chosen.size(), names.size());
  chart.legend().caption(text);
  charts.push_back(std::move(chart));
}

// An older preheat recorded neither ranks nor changes.
bool has_ranks(const RunData* run) {
  return run->layers && !run->layers->stable_rank.empty();
}
bool has_changes(const RunData* run) {
  return run->activations && !run->activations->change.empty();
}

// For the seeds of an arm, or for one run.
void add_layer_charts(std::vector<Chart>& charts, const std::vector<const RunData*>& runs,
                      const std::string& of) {
  const std::vector<PhaseBand> phases = shared_phases(runs);
  const auto chart = [&](const char* title, const char* y) {
    Chart empty(title + of, "step", y);
    shade(empty, phases);
    return empty;
  };
  const auto ratio = [](double a, double b) { return b > 0 ? a / b : gap; };
  if (const ByName layers(files_of(runs, &RunData::layers), &LayerRows::parameter);
      layers.size() > 0) {
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
    if (std::ranges::any_of(runs, has_ranks)) {
      add(chart("Stable rank", "rank"),
          "Of the weights as a matrix: how many directions share their size.",
          [](const LayerRows& l, std::size_t i) {
            return i < l.stable_rank.size() ? l.stable_rank[i] : gap;
          });
    }
  }
  if (const ByName layers(files_of(runs, &RunData::activations), &ActivationRows::layer);
      layers.size() > 0) {
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
  if (const ByName gradients(files_of(runs, &RunData::gradients), &GradientRows::parameter,
                             whole_network);
      gradients.size() > 0) {
    add_by_name(charts, chart("Gradient noise scale by parameter", "examples").log_y(),
                noise_scale_caption, gradients, [](const GradientRows& g, std::size_t i) {
                  const bool is_lost = !(g.signal[i] > 0);
                  return is_lost ? std::numeric_limits<double>::infinity() : g.noise_scale[i];
                });
  }
}

}  // namespace

std::vector<Chart> layer_charts(const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<RunGroup> arms = by_arm(runs, facets, [](const RunData& run) {
    return run.layers || run.activations || run.gradients;
  });
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
