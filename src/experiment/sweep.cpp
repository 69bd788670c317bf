#include "experiment/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "config/values.h"
#include "data/dataset.h"
#include "train/atomic_file.h"

namespace preheat {
namespace {

constexpr const char* rate_key = "schedule.base_lr";

// Of the values of a point; folders are called so.
std::string name_of(const std::vector<Override>& point) {
  std::string name;
  for (const Override& o : point) {
    if (!name.empty()) name += '_';
    for (const char c : to_flow_text(o.value)) {
      const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                            (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '+';
      name += is_plain ? c : c == '%' ? 'p' : '-';
    }
  }
  return name.starts_with('.') ? "0" + name : name;
}

bool fails(const ArmResult& cell) {
  return 2 * cell.failures() >= static_cast<std::int64_t>(cell.runs.size());
}

// Mean over seeds of what a run ended with, at most `worst`.
double mean_loss(const ArmResult& cell, double worst) {
  double sum = 0;
  for (const SeedResult& r : cell.runs) {
    sum += std::min(r.run.final_train_loss.value_or(worst), worst);
  }
  return sum / static_cast<double>(cell.runs.size());
}

double rate_of(const ArmResult& cell) {
  const auto rate = std::ranges::find(cell.arm.overrides, rate_key, &Override::key);
  return *as_number(rate->value);
}

std::vector<Override> without_rate(const std::vector<Override>& point) {
  std::vector<Override> rest = point;
  std::erase_if(rest, [](const Override& o) { return o.key == rate_key; });
  return rest;
}

Boundary boundary_of(std::vector<const ArmResult*> row) {
  std::ranges::sort(row, {}, [](const ArmResult* cell) { return rate_of(*cell); });
  Boundary boundary;
  boundary.point = without_rate(row.front()->arm.overrides);
  for (const ArmResult* cell : row) {
    const double rate = rate_of(*cell);
    if (fails(*cell)) {
      if (!boundary.smallest_failing) boundary.smallest_failing = rate;
    } else if (boundary.smallest_failing) {
      ++boundary.violations;
    } else {
      boundary.largest_training = rate;
    }
  }
  return boundary;
}

nlohmann::ordered_json point_json(const std::vector<Override>& point) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const Override& o : point) json[o.key] = to_json(o.value);
  return json;
}

}  // namespace

std::vector<Arm> cells_of(const std::vector<Axis>& axes) {
  std::vector<Arm> cells = {{}};
  for (const Axis& axis : axes) {
    std::vector<Arm> finer;
    for (const Arm& cell : cells) {
      for (const Node& value : axis.values) {
        finer.push_back(cell);
        finer.back().overrides.push_back({axis.key, value});
      }
    }
    cells = std::move(finer);
  }
  std::set<std::string> names;
  for (Arm& cell : cells) {
    cell.name = name_of(cell.overrides);
    for (int i = 2; !names.insert(cell.name).second; ++i) {
      cell.name = fmt::format("{}.{}", name_of(cell.overrides), i);
    }
  }
  return cells;
}

std::vector<Boundary> boundaries_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells, const RunConfig& base) {
  const auto is_rate = [](const Axis& axis) {
    return axis.key == rate_key && std::ranges::all_of(axis.values, [](const Node& value) {
             return as_number(value).has_value();
           });
  };
  const bool complete =
      std::ranges::all_of(cells, [](const ArmResult& cell) { return !cell.runs.empty(); });
  if (!complete || std::ranges::none_of(axes, is_rate)) return {};
  std::vector<std::pair<std::string, std::vector<const ArmResult*>>> rows;
  for (const ArmResult& cell : cells) {
    const std::string name = point_json(without_rate(cell.arm.overrides)).dump();
    auto row = std::ranges::find(rows, name, &decltype(rows)::value_type::first);
    if (row == rows.end()) row = rows.insert(row, {name, {}});
    row->second.push_back(&cell);
  }
  const double worst = std::log(static_cast<double>(facts(base.data.dataset).classes));
  double least = std::numeric_limits<double>::infinity();
  for (const ArmResult& cell : cells) least = std::min(least, mean_loss(cell, worst));
  std::vector<Boundary> boundaries;
  for (const auto& [name, row] : rows) {
    boundaries.push_back(boundary_of(row));
    if (base.loss != Loss::cross_entropy) continue;
    double sum = 0;
    for (const ArmResult* cell : row) sum += mean_loss(*cell, worst) - least;
    boundaries.back().sensitivity = sum / static_cast<double>(row.size());
  }
  return boundaries;
}

SweepResult sweep(const Document& document, Backend& backend, const std::filesystem::path& folder,
                  bool resume, const RunsListener& listener) {
  const RunConfig base = read_config(document);
  if (!base.sweep) {
    throw ConfigError(base.where("sweep"), "is missing",
                      "sweep: {seeds: 3, axes: {schedule.base_lr: {log: [0.01, 1, 5]}, "
                      "schedule.warmup.length: [0 steps, 100 steps]}}");
  }
  const std::vector<Arm> cells = cells_of(base.sweep->axes);
  const std::vector<RunConfig> configs = arm_configs(document, cells);
  SweepResult result;
  result.axes = base.sweep->axes;
  for (const Arm& cell : cells) result.cells.push_back({cell, {}});
  prepare_folder(folder, base, resume);
  const auto write = [&] {
    result.boundaries = boundaries_of(result.axes, result.cells, base);
    write_atomically(folder / "sweep.json", to_json(result).dump(2) + "\n");
  };
  Runs runs(backend, listener);
  result.interrupted =
      !run_arms(runs, configs, base.sweep->seeds, folder, Checkpoints::drop, result.cells, write);
  write();
  return result;
}

nlohmann::ordered_json to_json(const SweepResult& result) {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
  Json json = {{"axes", Json::array()}, {"cells", Json::array()}, {"boundaries", Json::array()}};
  for (const Axis& axis : result.axes) {
    Json values = Json::array();
    for (const Node& value : axis.values) values.push_back(to_json(value));
    json["axes"].push_back({{"key", axis.key}, {"values", values}});
  }
  for (const ArmResult& cell : result.cells) {
    Json entry = to_json(cell);
    entry["point"] = point_json(cell.arm.overrides);
    json["cells"].push_back(entry);
  }
  for (const Boundary& b : result.boundaries) {
    json["boundaries"].push_back({{"point", point_json(b.point)},
                                  {"largest_training", or_null(b.largest_training)},
                                  {"smallest_failing", or_null(b.smallest_failing)},
                                  {"violations", b.violations},
                                  {"sensitivity", or_null(b.sensitivity)}});
  }
  if (result.interrupted) json["interrupted"] = true;
  return json;
}

}  // namespace preheat
