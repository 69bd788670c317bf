// A grid over any keys: which of its cells train, where the boundary runs, how much the rate
// matters.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "config/config.h"
#include "experiment/claims.h"
#include "experiment/runs.h"

namespace preheat {

/// A row of the grid along schedule.base_lr: one value for each other axis.
struct Boundary {
  std::vector<Override> point;  // the other axes
  std::int64_t runs = 0;        // of all its cells
  // A cell fails where at least half of its runs do. The largest rate below the first that fails;
  // the first that fails; how many above it train all the same.
  std::optional<double> largest_training;
  std::optional<double> smallest_failing;
  std::int64_t violations = 0;
  // Wortsman et al. 2023: the mean over the row's rates of loss - l*, loss the mean over seeds of
  // the final training loss, each at most l0 = ln(classes), which a run that is not finite counts
  // as, l* the least loss of all cells. Over rates that are spaced evenly in the logarithm it is
  // their expectation. Only with cross entropy, and where any cell trains.
  std::optional<double> sensitivity;
};

struct SweepResult {
  std::vector<Axis> axes;
  std::vector<ArmResult> cells;      // the last axis fastest; an arm's overrides are its point
  std::vector<Boundary> boundaries;  // where schedule.base_lr is an axis and all cells have runs
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // runs, of all cells
  bool interrupted = false;
};

/// The cells of a grid, named by their values, "0.1_16-steps"; a value that is long, a list or a
/// section by its number, "layers-2".
std::vector<Arm> cells_of(const std::vector<Axis>& axes);

/// schedule.base_lr among the axes, if it is one; null else.
const Axis* rate_axis(const std::vector<Axis>& axes);

/// Whether two values of an axis are one: numbers by their value, 1.0 and 1, all else by its text.
bool is_same(const Node& a, const Node& b);

/// Where a cell of a grid, its last axis fastest, is on one of the axes, and its number in the grid
/// without that axis.
struct PlaceOnAxis {
  std::size_t level = 0;
  std::size_t rest = 0;
};
PlaceOnAxis place_on_axis(std::size_t cell, const std::vector<Axis>& axes, std::string_view key);

/// The cells of a grid in a line along schedule.base_lr, and their rates, which ascend.
struct GridLine {
  std::vector<Override> point;  // the other axes
  std::vector<const ArmResult*> cells;
  std::vector<double> rates;
};

/// The lines of a grid: the cells of a grid without the rate. None without schedule.base_lr, and
/// where a cell has no runs. The cells must outlive them.
std::vector<GridLine> lines_along_rate(const std::vector<Axis>& axes,
                                       const std::vector<ArmResult>& cells);

/// What some of the runs of each cell would say, those of these numbers, of which one may be there
/// several times; without any all of them. The boundary is without its sensitivity, which depends
/// on all lines.
Boundary boundary_of(const GridLine& line, std::span<const std::size_t> runs);
std::vector<double> sensitivities_of(const std::vector<GridLine>& lines, const RunConfig& base,
                                     std::span<const std::size_t> runs);

/// One for each combination of the other axes, in the order of the cells.
std::vector<Boundary> boundaries_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells, const RunConfig& base);

/// Runs every cell at every seed, seed by seed, into <folder>/<cell>/<seed>, and writes sweep.json
/// after each; like compare() in all else. Checkpoints are not kept.
SweepResult sweep(const Document& document, Backend& backend, const std::filesystem::path& folder,
                  bool resume, const RunsListener& listener);

nlohmann::ordered_json to_json(const SweepResult& result);

}  // namespace preheat
