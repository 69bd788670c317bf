// A grid over any keys: which of its cells train, where the stability boundary lies, and how
// sensitive the loss is to the learning rate.
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
#include "experiment/pairs.h"
#include "experiment/runs.h"

namespace preheat {

/// An interval of rates; std::nullopt for an end that the grid does not have.
struct RateInterval {
  std::optional<double> lo;
  std::optional<double> hi;
};

/// The boundary along schedule.base_lr in one row of the grid, at fixed values of the other axes.
struct Boundary {
  std::vector<Override> point;  // values of the other axes
  std::int64_t runs = 0;        // of all its cells
  // A cell fails if at least half of its runs do. Those at the smallest rates do not count if their
  // failed runs are all stuck and a larger rate trains: they are only too slow.
  std::optional<double> largest_training;  // the largest rate below smallest_failing
  std::optional<double> smallest_failing;  // the smallest rate whose cell fails
  std::int64_t violations = 0;             // cells above smallest_failing that train
  // Wortsman et al. 2023: the mean over the row's rates, weighted by GridLine::weights, of
  // loss - l*. A cell's loss is the mean over seeds of the final training loss, each at most
  // l0 = ln(classes), which is also the loss of a run that is not finite; l* is the least loss of
  // all cells. Only if it is defined (has_sensitivity) and any cell trains.
  std::optional<double> sensitivity;
  std::optional<RateInterval> interval;  // interval_of, once all runs have ended
};

/// Two cells with neighbouring values on one axis and the same values on all others.
struct CellPair {
  std::string along;  // the axis
  PairResult pair;
};

struct SweepResult {
  std::vector<Axis> axes;
  std::vector<ArmResult> cells;      // last axis fastest; an arm's overrides are its point
  std::vector<CellPair> paired;      // of neighbouring cells
  std::vector<Boundary> boundaries;  // if schedule.base_lr is an axis and all cells have runs
  std::vector<ClaimResult> claims;
  std::int64_t planned = 0;  // runs, of all cells
  bool interrupted = false;

  bool validated() const { return any_validated(cells); }
};

/// The cells of a grid, last axis fastest, named by their values: "0.1_16-steps". A long value, a
/// list or a section is named by its number: "layers-2". A name that another cell or a file of the
/// sweep has gets a number added: "0.1.2".
std::vector<Arm> cells_of(const std::vector<Axis>& axes);

/// The axis schedule.base_lr, or null if there is none or one of its values is not a number.
const Axis* rate_axis(const std::vector<Axis>& axes);

/// Whether two values of an axis are equal: numbers by value (1.0 and 1), others by their text.
bool is_same(const Node& a, const Node& b);

/// The index of a cell's value on one of the axes, and the cell's index in the grid without that
/// axis, both with the last axis fastest.
struct PlaceOnAxis {
  std::size_t level = 0;
  std::size_t rest = 0;
};
PlaceOnAxis place_on_axis(std::size_t cell, const std::vector<Axis>& axes, std::string_view key);

/// The indices of the cells along one of the axes, a line for each combination of the others, in
/// the order of the grid without that axis. Numbers are in ascending order, other values in the
/// order given.
std::vector<std::vector<std::size_t>> lines_along(const Axis& axis, const std::vector<Axis>& axes);

/// The pairs of neighbours in the lines along each axis, axis by axis.
std::vector<CellPair> neighbours_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells);

/// A row of cells along schedule.base_lr, in ascending order of rate.
struct GridLine {
  std::vector<Override> point;  // values of the other axes
  std::vector<const ArmResult*> cells;
  std::vector<double> rates;
  std::vector<double> weights;  // log_weights(rates)
};

/// The share of each rate in a mean over the logarithm of the rate; they sum to 1. A rate stands
/// for the logarithms from halfway to one neighbour to halfway to the other, and at an end for as
/// much outwards as inwards: this is the trapezoid rule, with half a step more at both ends, where
/// the value of the end is kept. So rates that are spaced evenly in the logarithm have equal
/// weights. `rates` ascend and are above 0.
std::vector<double> log_weights(const std::vector<double>& rates);

/// The lines of a grid, in the order of the grid without the rate axis. Empty without
/// schedule.base_lr, or if a cell has no runs. The cells must outlive the lines.
std::vector<GridLine> lines_along_rate(const std::vector<Axis>& axes,
                                       const std::vector<ArmResult>& cells);

/// Whether the final losses of all cells are cross entropies with the same label smoothing, which
/// may be compared.
bool has_sensitivity(const RunConfig& base, const std::vector<Axis>& axes);

/// A selection of each cell's runs, by index and possibly with repetition, as a bootstrap draws
/// them; std::nullopt for all runs, of which the cells of an unfinished sweep differ in number.
using RunNumbers = std::optional<std::span<const std::size_t>>;

/// Boundary and sensitivities from these runs. boundary_of leaves sensitivity and interval empty:
/// they depend on all lines and on all runs.
Boundary boundary_of(const GridLine& line, RunNumbers runs = std::nullopt);
std::vector<double> sensitivities_of(const std::vector<GridLine>& lines, const RunConfig& base,
                                     RunNumbers runs = std::nullopt);

/// Where the boundary of a line may lie, at 95 %: from the lower end of the expanded bootstrap
/// interval over seeds of the largest rate that trains, to the upper end of that of the smallest
/// that fails. The grid does not tell where between these two the boundary is, so around the middle
/// of its step, in log rate, half a step is added on both sides to what the seeds leave open. Ends
/// are rates of the grid. std::nullopt for fewer than min_seeds_for_bootstrap, or unless all cells
/// have the same seeds. It is of one line: of many, one in twenty may miss its boundary.
std::optional<RateInterval> interval_of(const GridLine& line);

/// One boundary per combination of the other axes, in the order of the cells; without intervals,
/// which take longer.
std::vector<Boundary> boundaries_of(const std::vector<Axis>& axes,
                                    const std::vector<ArmResult>& cells, const RunConfig& base);

/// Runs every cell at every seed, seed by seed, into <folder>/<cell>/<seed>, and writes sweep.json.
/// Writes no checkpoints. Otherwise like compare().
SweepResult sweep(const Document& document, Backend& backend, const std::filesystem::path& folder,
                  bool resume, const RunsListener& listener);

nlohmann::ordered_json to_json(const SweepResult& result);

}  // namespace preheat
