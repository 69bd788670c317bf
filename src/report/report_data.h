// The contents of a page, collected from the folders of runs and experiments.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "report/series.h"
#include "train/loss_curve.h"
#include "train/run_files.h"

namespace preheat {

/// A range of updates in one phase of the schedule.
struct PhaseFacts {
  std::string name;
  double first = 0;  // updates, inclusive
  double last = 0;
  double least_lr = 0;
  double largest_lr = 0;
};

// Moving an ordered_json cannot throw, but does not say so.
// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON is noexcept in all but name.
struct RunData {  // NOLINT(bugprone-exception-escape)
  std::filesystem::path folder;
  std::string name;
  std::string seed;                // as text: a double cannot hold every 64-bit number
  std::string arm;                 // of an experiment; "" for a single run
  std::string outcome;             // "" if the run has not ended
  nlohmann::ordered_json summary;  // null if the run has not ended or was killed
  std::string config;              // the text of config.yaml
  double momentum = 0;
  std::vector<std::string> facets;  // in the order of Experiment::facet_names

  std::size_t points = 0;                   // about, that are drawn of each quantity
  std::size_t updates = 0;                  // that are recorded
  std::optional<std::size_t> updates_done;  // as the summary says
  std::optional<double> lost_at;  // the first update that was not finite, weights included
  Series loss, accuracy, lr, grad_norm, update_norm, weight_norm;
  std::vector<float> rates;  // the learning rate of every update
  std::vector<PhaseFacts> phases;
  Evaluations evaluations;
  LossCurve losses;
  // If the run recorded them.
  std::optional<SharpnessRows> sharpness;
  Points noise_scale;       // of the whole network's gradient; no points if there are none
  bool has_layers = false;  // or activations or gradients; they may not have been read
  std::optional<LayerRows> layers;
  std::optional<ActivationRows> activations;
  std::optional<GradientRows> gradients;
};

// NOLINTNEXTLINE(bugprone-exception-escape): as above.
struct Experiment {  // NOLINT(bugprone-exception-escape)
  using Kind = ExperimentKind;
  Kind kind = Kind::compare;
  std::filesystem::path folder;
  std::filesystem::path file;  // path of result_file(), and its content:
  nlohmann::ordered_json result;
  std::string name;
  std::string config;
  std::size_t seeds = 0;  // planned, per arm
  // What tells its runs apart. compare: arm, seed; sweep: outcome, the axes, seed; find-lr: arm,
  // trained, seed.
  std::vector<std::string> facet_names;
  std::vector<RunData> runs;
};

/// The most arms (or cells, or single runs) and seeds of each whose layers are read: reading all of
/// them would make writing a page as slow as the files are large.
inline constexpr std::size_t max_layer_arms = 12;
inline constexpr std::size_t max_layer_seeds = 10;

/// The most runs with curves: a page of ten times as many would be slow to open.
inline constexpr std::size_t max_runs_with_curves = 3000;

struct ReportData {
  std::vector<Experiment> experiments;
  std::vector<RunData> runs;  // given individually
  bool has_curves = true;     // else runs have only what their summary and configuration say
};

/// Reads folders, each of a run or of an experiment, in the order given; for any other folder reads
/// those directly below it, by name. The more runs there are, the fewer points are drawn of each
/// quantity that is recorded at every update or evaluation, from 400 down to 60; of more than
/// `max_curves` runs none are. Throws Error, naming the file and if possible the line, for a folder
/// that is neither and for files that are missing or damaged.
ReportData read_report_data(const std::vector<std::filesystem::path>& folders,
                            std::size_t max_curves = max_runs_with_curves);

}  // namespace preheat
