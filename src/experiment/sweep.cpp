#include "experiment/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "config/atomic_file.h"
#include "config/values.h"
#include "data/dataset.h"
#include "train/json_file.h"

namespace preheat {
namespace {

constexpr const char* rate_key = "schedule.base_lr";

// A value as part of a folder's name: itself if it is a short word or number that a name may begin
// with, otherwise the last part of the key and the value's number on the axis.
std::string name_of(const Axis& axis, std::size_t number) {
  constexpr std::size_t longest = 40;
  const Node& value = axis.values[number];
  std::string name;
  for (const char c : to_flow_text(value)) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '+';
    name += is_plain ? c : c == '%' ? 'p' : '-';
  }
  const bool is_word = value.kind == Node::Kind::scalar || value.kind == Node::Kind::null;
  if (is_word && !name.empty() && name.size() <= longest && name[0] != '.' && name[0] != '-') {
    return name;
  }
  return fmt::format("{}-{}", axis.key.substr(axis.key.find_last_of('.') + 1), number + 1);
}

// Calls visit(run) for these runs and returns their number.
template <class Visit>
std::int64_t for_runs(const ArmResult& cell, RunNumbers runs, const Visit& visit) {
  if (!runs) {
    for (const SeedResult& r : cell.runs) visit(r.run);
    return std::ssize(cell.runs);
  }
  for (const std::size_t i : *runs) visit(cell.runs[i].run);
  return std::ssize(*runs);
}

bool fails(const ArmResult& cell, RunNumbers runs) {
  std::int64_t failures = 0;
  const std::int64_t n = for_runs(
      cell, runs, [&](const RunResult& run) { failures += is_failure(run.outcome) ? 1 : 0; });
  return 2 * failures >= n;
}

bool is_slow(const ArmResult& cell, RunNumbers runs) {
  std::int64_t not_finite = 0;
  for_runs(cell, runs,
           [&](const RunResult& run) { not_finite += run.outcome == Outcome::non_finite ? 1 : 0; });
  return fails(cell, runs) && not_finite == 0;
}

// How many cells, from the smallest rate on, are only too slow.
std::size_t count_slow(const GridLine& line, RunNumbers runs) {
  const auto first = std::ranges::find_if_not(
      line.cells, [&](const ArmResult* cell) { return is_slow(*cell, runs); });
  const bool any_trains = std::any_of(first, line.cells.end(),
                                      [&](const ArmResult* cell) { return !fails(*cell, runs); });
  return any_trains ? static_cast<std::size_t>(first - line.cells.begin()) : 0;
}

// Where in a line of n cells the boundary lies: -1 and n for a side that the line does not have.
struct Sides {
  std::ptrdiff_t training = -1;  // the last cell that trains below
  std::ptrdiff_t failing = 0;    // the first that fails
  std::int64_t violations = 0;   // cells above it that train
};

Sides sides_of(const GridLine& line, RunNumbers runs) {
  const std::ptrdiff_t cells = std::ssize(line.cells);
  Sides sides{.failing = cells};
  for (auto i = static_cast<std::ptrdiff_t>(count_slow(line, runs)); i < cells; ++i) {
    if (fails(*line.cells[i], runs)) {
      sides.failing = std::min(sides.failing, i);
    } else if (sides.failing < cells) {
      ++sides.violations;
    } else {
      sides.training = i;
    }
  }
  return sides;
}

bool have_equal_seeds(const GridLine& line) {
  const std::vector<SeedResult>& first = line.cells.front()->runs;
  return std::ranges::all_of(line.cells, [&](const ArmResult* cell) {
    return std::ranges::equal(cell->runs, first, {}, &SeedResult::seed, &SeedResult::seed);
  });
}

// Mean over seeds of the final training loss, each at most `worst`.
double mean_loss(const ArmResult& cell, RunNumbers runs, double worst) {
  double sum = 0;
  const std::int64_t n = for_runs(cell, runs, [&](const RunResult& run) {
    sum += std::min(run.final_train_loss.value_or(worst), worst);
  });
  return sum / static_cast<double>(n);
}

void check_values_differ(const std::vector<Axis>& axes) {
  for (const Axis& axis : axes) {
    for (auto value = axis.values.begin(); value != axis.values.end(); ++value) {
      const auto same = std::find_if(axis.values.begin(), value,
                                     [&](const Node& other) { return is_same(other, *value); });
      if (same != value) {
        throw ConfigError(value->where, fmt::format("'{}' appears twice", to_flow_text(*value)),
                          "write each value once");
      }
    }
  }
}

std::vector<Override> without_rate(const std::vector<Override>& point) {
  std::vector<Override> rest = point;
  std::erase_if(rest, [](const Override& o) { return o.key == rate_key; });
  return rest;
}

}  // namespace

std::vector<Arm> cells_of(const std::vector<Axis>& axes) {
  std::vector<Arm> cells = {{}};
  for (const Axis& axis : axes) {
    std::vector<Arm> finer;
    for (const Arm& cell : cells) {
      for (std::size_t i = 0; i < axis.values.size(); ++i) {
        Arm& next = finer.emplace_back(cell);
        next.overrides.push_back({axis.key, axis.values[i]});
        if (!next.name.empty()) next.name += '_';
        next.name += name_of(axis, i);
      }
    }
    cells = std::move(finer);
  }
  std::set<std::string> names;
  for (Arm& cell : cells) {
    const std::string name = cell.name;
    for (int i = 2; is_file_beside_arms(cell.name) || !names.insert(cell.name).second; ++i) {
      cell.name = fmt::format("{}.{}", name, i);
    }
  }
  return cells;
}

const Axis* rate_axis(const std::vector<Axis>& axes) {
  const auto axis = std::ranges::find(axes, rate_key, &Axis::key);
  const bool are_numbers =
      axis != axes.end() && std::ranges::all_of(axis->values, [](const Node& value) {
        return as_number(value).has_value();
      });
  return are_numbers ? &*axis : nullptr;
}

bool is_same(const Node& a, const Node& b) {
  const auto x = as_number(a);
  const auto y = as_number(b);
  return x && y ? *x == *y : to_flow_text(a) == to_flow_text(b);
}

PlaceOnAxis place_on_axis(std::size_t cell, const std::vector<Axis>& axes, std::string_view key) {
  const auto axis = std::ranges::find(axes, key, &Axis::key);
  std::size_t stride = 1;  // cells from one value of the axis to the next
  for (auto finer = axis + 1; finer != axes.end(); ++finer) stride *= finer->values.size();
  const std::size_t values = axis->values.size();
  return {cell / stride % values, cell / (stride * values) * stride + cell % stride};
}

std::vector<std::vector<std::size_t>> lines_along(const Axis& axis, const std::vector<Axis>& axes) {
  const std::size_t levels = axis.values.size();
  std::vector<std::size_t> order(levels);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto number = [&](std::size_t level) { return as_number(axis.values[level]); };
  if (std::ranges::all_of(order, [&](std::size_t level) { return number(level).has_value(); })) {
    std::ranges::sort(order, {}, number);
  }
  std::vector<std::size_t> places(levels);  // of each value in the order
  for (std::size_t i = 0; i < levels; ++i) places[order[i]] = i;
  std::size_t cells = 1;
  for (const Axis& one : axes) cells *= one.values.size();
  std::vector<std::vector<std::size_t>> lines(cells / levels, std::vector<std::size_t>(levels));
  for (std::size_t i = 0; i < cells; ++i) {
    const PlaceOnAxis place = place_on_axis(i, axes, axis.key);
    lines[place.rest][places[place.level]] = i;
  }
  return lines;
}

std::vector<CellPair> neighbours_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells) {
  std::vector<CellPair> pairs;
  for (const Axis& axis : axes) {
    for (const std::vector<std::size_t>& line : lines_along(axis, axes)) {
      for (std::size_t i = 1; i < line.size(); ++i) {
        pairs.push_back({axis.key, pair_of(cells[line[i - 1]], cells[line[i]])});
      }
    }
  }
  return pairs;
}

std::vector<double> log_weights(const std::vector<double>& rates) {
  if (rates.size() == 1) return {1};
  std::vector<double> steps;
  for (std::size_t i = 1; i < rates.size(); ++i) {
    steps.push_back(std::log(rates[i]) - std::log(rates[i - 1]));
  }
  std::vector<double> weights;
  for (std::size_t i = 0; i < rates.size(); ++i) {
    weights.push_back((steps[i == 0 ? 0 : i - 1] + steps[std::min(i, steps.size() - 1)]) / 2);
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<GridLine> lines_along_rate(const std::vector<Axis>& axes,
                                       const std::vector<ArmResult>& cells) {
  const Axis* rate = rate_axis(axes);
  const bool complete =
      std::ranges::all_of(cells, [](const ArmResult& cell) { return !cell.runs.empty(); });
  if (!rate || !complete) return {};
  std::vector<GridLine> lines;
  for (const std::vector<std::size_t>& cells_of_line : lines_along(*rate, axes)) {
    GridLine& line = lines.emplace_back();
    line.point = without_rate(cells[cells_of_line.front()].arm.overrides);
    for (const std::size_t i : cells_of_line) {
      line.cells.push_back(&cells[i]);
      line.rates.push_back(*as_number(rate->values[place_on_axis(i, axes, rate_key).level]));
    }
    line.weights = log_weights(line.rates);
  }
  return lines;
}

Boundary boundary_of(const GridLine& line, RunNumbers runs) {
  Boundary boundary;
  boundary.point = line.point;
  for (const ArmResult* cell : line.cells) {
    boundary.runs += for_runs(*cell, runs, [](const RunResult&) {});
  }
  const Sides sides = sides_of(line, runs);
  if (sides.training >= 0) boundary.largest_training = line.rates[sides.training];
  if (sides.failing < std::ssize(line.rates)) boundary.smallest_failing = line.rates[sides.failing];
  boundary.violations = sides.violations;
  return boundary;
}

std::optional<RateInterval> interval_of(const GridLine& line) {
  const std::size_t seeds = line.cells.front()->runs.size();
  if (std::ssize(line.cells.front()->runs) < min_seeds_for_bootstrap || !have_equal_seeds(line)) {
    return std::nullopt;
  }
  const auto bounds = [&](std::ptrdiff_t Sides::*side) {
    return bootstrap_rows(
               seeds,
               [&](RunNumbers drawn) { return static_cast<double>(sides_of(line, drawn).*side); })
        .expanded;
  };
  // Quantiles between two cells are rounded outwards.
  const double lo = std::floor(bounds(&Sides::training).lo);
  const double hi = std::ceil(bounds(&Sides::failing).hi);
  RateInterval interval;
  if (lo >= 0) interval.lo = line.rates[static_cast<std::size_t>(lo)];
  if (hi < static_cast<double>(line.rates.size())) {
    interval.hi = line.rates[static_cast<std::size_t>(hi)];
  }
  return interval;
}

bool has_sensitivity(const RunConfig& base, const std::vector<Axis>& axes) {
  return base.loss == Loss::cross_entropy && std::ranges::none_of(axes, [](const Axis& axis) {
           return axis.key == "loss" || axis.key == "label_smoothing";  // losses of another scale
         });
}

std::vector<double> sensitivities_of(const std::vector<GridLine>& lines, const RunConfig& base,
                                     RunNumbers runs) {
  const double worst = chance_loss(base.loss, facts(base.data.dataset).classes);
  double least = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> losses;  // of the cells of each line
  for (const GridLine& line : lines) {
    std::vector<double>& of_line = losses.emplace_back();
    for (const ArmResult* cell : line.cells) of_line.push_back(mean_loss(*cell, runs, worst));
    least = std::min(least, std::ranges::min(of_line));
  }
  std::vector<double> sensitivities(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    for (std::size_t k = 0; k < losses[i].size(); ++k) {
      sensitivities[i] += lines[i].weights[k] * (losses[i][k] - least);
    }
  }
  return sensitivities;
}

std::vector<Boundary> boundaries_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells, const RunConfig& base) {
  const std::vector<GridLine> lines = lines_along_rate(axes, cells);
  std::vector<Boundary> boundaries;
  if (lines.empty()) return boundaries;
  for (const GridLine& line : lines) boundaries.push_back(boundary_of(line));
  // If no cell trains, all losses are alike, which does not mean low sensitivity.
  const bool any_trains =
      std::ranges::any_of(cells, [](const ArmResult& cell) { return !fails(cell, std::nullopt); });
  if (has_sensitivity(base, axes) && any_trains) {
    const std::vector<double> sensitivities = sensitivities_of(lines, base);
    for (std::size_t i = 0; i < lines.size(); ++i) boundaries[i].sensitivity = sensitivities[i];
  }
  return boundaries;
}

SweepResult sweep(const Document& document, Backend& backend, const std::filesystem::path& folder,
                  bool resume, const RunsListener& listener) {
  const RunConfig base = read_config(document);
  if (!base.sweep) {
    throw ConfigError(base.where("sweep"), "is missing",
                      "write sweep: {seeds: 3, axes: {schedule.base_lr: {log: [0.01, 1, 5]}, "
                      "schedule.warmup.length: [0 steps, 100 steps]}}");
  }
  check_values_differ(base.sweep->axes);
  const std::vector<Arm> cells = cells_of(base.sweep->axes);
  const std::vector<RunConfig> configs = arm_configs(document, cells);
  for (const RunConfig& config : configs) check_precision(config, backend);
  check_sweep_claims(base);
  SweepResult result;
  result.axes = base.sweep->axes;
  for (const Arm& cell : cells) result.cells.push_back({cell, {}});
  result.planned = std::ssize(result.cells) * std::ssize(base.sweep->seeds);
  Runs runs(base, backend, listener);
  if (!resume) runs.load(configs);
  const FolderLock folder_lock = prepare_folder(folder, ExperimentKind::sweep, base, resume, [&] {
    require_same_runs(configs, base.sweep->seeds, folder, result.cells);
  });
  const auto count = [&] {
    result.paired = neighbours_of(result.axes, result.cells);
    result.boundaries = boundaries_of(result.axes, result.cells, base);
  };
  const auto save = [&] {
    write_atomically(folder / result_file(ExperimentKind::sweep), to_json(result).dump(2) + "\n");
  };
  const auto write = [&] {
    count();
    save();
  };
  result.interrupted =
      !run_arms(runs, configs, base.sweep->seeds, folder, Checkpoints::drop, result.cells, write);
  count();
  const std::vector<GridLine> lines = lines_along_rate(result.axes, result.cells);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    result.boundaries[i].interval = interval_of(lines[i]);
  }
  save();  // also if judging fails
  result.claims = judge_sweep(base, result);
  if (!result.claims.empty()) save();
  return result;
}

nlohmann::ordered_json to_json(const SweepResult& result) {
  using Json = nlohmann::ordered_json;
  Json json = {{"axes", Json::array()},
               {"cells", Json::array()},
               {"paired", Json::array()},
               {"boundaries", Json::array()}};
  for (const Axis& axis : result.axes) {
    Json values = Json::array();
    for (const Node& value : axis.values) values.push_back(to_json(value));
    json["axes"].push_back({{"key", axis.key}, {"values", values}});
  }
  for (const ArmResult& cell : result.cells) {
    Json entry = to_json(cell);
    entry["point"] = to_json(cell.arm.overrides);
    json["cells"].push_back(entry);
  }
  for (const CellPair& p : result.paired) {
    Json entry = to_json(p.pair, "cells");
    entry["along"] = p.along;
    json["paired"].push_back(entry);
  }
  for (const Boundary& b : result.boundaries) {
    Json interval;
    if (b.interval) interval = {or_null(b.interval->lo), or_null(b.interval->hi)};
    json["boundaries"].push_back({{"point", to_json(b.point)},
                                  {"n", b.runs},
                                  {"largest_training", or_null(b.largest_training)},
                                  {"smallest_failing", or_null(b.smallest_failing)},
                                  {"violations", b.violations},
                                  {"sensitivity", or_null(b.sensitivity)},
                                  {"interval", interval}});
  }
  if (!result.claims.empty()) json["claims"] = to_json(result.claims);
  if (result.interrupted) json["interrupted"] = true;
  add_incomplete(json, count_runs(result.cells), result.planned);
  return json;
}

}  // namespace preheat
