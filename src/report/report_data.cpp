#include "report/report_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "config/atomic_file.h"
#include "config/values.h"
#include "experiment/find_lr.h"
#include "report/html.h"
#include "report/label_text.h"
#include "train/json_file.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t max_points = 400;    // per series of a run
constexpr std::size_t min_points = 60;     // likewise
constexpr std::size_t all_points = 24000;  // about, per quantity over all runs of a page

// The text of a folder's config.yaml; its document is passed to `take`. The user did not type it,
// so an error in it is reported as a damaged file.
template <class Take>
std::string read_config_file(const fs::path& folder, const Take& take) {
  const fs::path path = folder / "config.yaml";
  std::string text = read_file(path);
  try {
    take(parse_document(text, path.string()));
  } catch (const ConfigError& e) {
    throw Error(e.what());
  }
  return text;
}

double momentum_of(const Document& document) {
  const Node* const optimizer = document.root.find("optimizer");
  const Node* const momentum = optimizer ? optimizer->find("momentum") : nullptr;
  return momentum ? as_number(*momentum).value_or(0) : 0;
}

std::vector<PhaseFacts> phases_of(const Metrics& m) {
  std::vector<PhaseFacts> phases;
  for (const PhaseRows& rows : m.phases) {
    const auto [least, largest] =
        std::ranges::minmax(std::span(m.lr).subspan(rows.first, rows.last - rows.first + 1));
    phases.push_back({rows.name, m.step[rows.first], m.step[rows.last], least, largest});
  }
  return phases;
}

// Indices that means must not be taken across, as an event must not show before it happens.
std::vector<std::size_t> events_of(const Metrics& m) {
  std::vector<std::size_t> events = jumps(m.lr);
  for (const PhaseRows& rows : m.phases) events.push_back(rows.first);
  std::ranges::sort(events);
  events.erase(std::unique(events.begin(), events.end()), events.end());
  return events;
}

// Extracts what is needed from metrics.csv, so that only one file is held in full at a time. The
// evaluations have been read.
void add_metrics(RunData& run, std::size_t points) {
  const Metrics m = read_metrics(run.folder / "metrics.csv");
  const std::vector<std::size_t> events = events_of(m);
  run.points = points;
  run.updates = m.step.size();
  run.loss = make_series(m.step, m.loss, points, events);
  if (!run.lost_at) run.lost_at = run.loss.facts.not_finite_at;  // without a summary
  run.accuracy = make_series(m.step, m.accuracy, points, events);
  run.lr = make_series(m.step, m.lr, points);
  run.grad_norm = make_series(m.step, m.grad_norm, points, events);
  run.update_norm = make_series(m.step, m.update_norm, points, events);
  run.weight_norm = make_series(m.step, m.weight_norm, points, events);
  run.rates.assign(m.lr.begin(), m.lr.end());
  run.phases = phases_of(m);
  run.losses = loss_curve(m, run.evaluations);
}

// False also of what cannot be read, such as a link to itself.
bool is_there(const fs::path& path) {
  std::error_code none;
  return fs::exists(path, none);
}

template <class Rows>
std::optional<Rows> if_there(const fs::path& path, Rows (*read)(const fs::path&)) {
  if (!is_there(path)) return std::nullopt;
  return read(path);
}

enum class Depth { without_curves, without_layers, with_layers };

// The noise scale of the whole network is a curve, those of its parameters are of its layers.
void add_gradients(RunData& run, Depth depth) {
  std::optional<GradientRows> rows = if_there(run.folder / "gradients.csv", read_gradients);
  if (!rows) return;
  for (std::size_t i = 0; i < rows->step.size(); ++i) {
    if (rows->parameter[i] == whole_network) {
      run.noise_scale.add(rows->step[i], rows->noise_scale[i]);
    }
  }
  run.has_layers = true;
  if (depth == Depth::with_layers) run.gradients = std::move(rows);
}

void read_run(RunData& run, std::size_t points, Depth depth) {
  const fs::path summary = run.folder / "summary.json";
  if (is_there(summary)) {
    read_json(summary, [&](const Json& json) {
      run.outcome = optional_at<std::string>(json, "outcome").value_or("");
      run.lost_at = optional_at<double>(json, "first_non_finite_step");
      run.updates_done = optional_at<std::size_t>(json, "steps");
      if (depth == Depth::without_curves) run.updates = get_as<std::size_t>(json.at("steps"));
      run.summary = json;
    });
  }
  run.config = read_config_file(run.folder, [&](const Document& document) {
    const Node* const name = document.root.find("name");
    const Node* const seed = document.root.find("seed");
    run.name = name ? name->scalar : "run";
    run.seed = seed ? seed->scalar : "0";
    run.momentum = momentum_of(document);
  });
  if (depth == Depth::without_curves) {
    if (run.summary.is_null()) run.updates = read_metrics(run.folder / "metrics.csv").step.size();
    return;
  }
  run.evaluations = read_evaluations(run.folder / "eval.csv");
  add_metrics(run, points);
  run.sharpness = if_there(run.folder / "sharpness.csv", read_sharpness);
  const fs::path layers = run.folder / "layers.csv";
  const fs::path activations = run.folder / "activations.csv";
  run.has_layers = is_there(layers) || is_there(activations);
  add_gradients(run, depth);
  if (depth == Depth::without_layers) return;
  run.layers = if_there(layers, read_layers);
  run.activations = if_there(activations, read_activations);
}

fs::path arm_folder(const Experiment& experiment, const std::string& arm) {
  if (arm.empty() || arm.starts_with('.') || arm.find('/') != std::string::npos) {
    throw Error(fmt::format("{}: is damaged: '{}' cannot be an arm's folder",
                            experiment.file.string(), clean(arm, 40)));
  }
  return experiment.folder / arm;
}

// Throws Error unless an arm's counts are of the runs that it lists.
void check_counts(const Experiment& experiment, const Json& arm, const std::string& name) {
  const auto n = get_as<std::int64_t>(arm.at("n"));
  const auto failures = get_as<std::int64_t>(arm.at("failures"));
  const std::size_t listed = arm.at("runs").size();
  if (!std::cmp_equal(n, listed) || failures < 0 || failures > n) {
    throw Error(fmt::format("{}: is damaged: '{}' has {} failures of {} runs and lists {}",
                            experiment.file.string(), clean(name, 40), failures, n, listed));
  }
}

// The name of a run's folder in that of its arm. Text could lead out of the experiment's folder.
std::string seed_at(const Json& object) {
  return std::to_string(get_as<std::uint64_t>(object.at("seed")));
}

// The keys of a grid's axes.
std::vector<std::string> axis_keys(const Experiment& e) {
  std::vector<std::string> keys;
  for (const Json& axis : e.result.at("axes")) {
    const auto key = axis.at("key").get<std::string>();
    if (std::ranges::find(keys, key) != keys.end()) {
      throw Error(fmt::format("{}: is damaged: '{}' is the key of two axes", e.file.string(),
                              clean(key, 40)));
    }
    keys.push_back(key);
  }
  return keys;
}

// Throws Error unless a grid lists all its cells: the maps find them by their order.
void check_cells(const Experiment& e) {
  std::size_t cells = 1;
  for (const Json& axis : e.result.at("axes")) cells *= axis.at("values").size();
  const std::size_t listed = e.result.at("cells").size();
  if (listed != cells) {
    throw Error(fmt::format("{}: is damaged: lists {} of the {} cells of its grid", e.file.string(),
                            listed, cells));
  }
}

// The runs that an arm of a comparison or a cell of a grid lists.
void list_runs_of_arms(Experiment& e, const char* arms, const std::vector<std::string>& axes) {
  for (const Json& arm : e.result.at(arms)) {
    const auto name = arm.at("name").get<std::string>();
    check_counts(e, arm, name);
    for (const Json& r : arm.at("runs")) {
      RunData run;
      const std::string seed = seed_at(r);
      run.folder = arm_folder(e, name) / seed;
      run.arm = name;
      if (e.kind == Experiment::Kind::compare) {
        run.facets = {name, seed};
      } else {
        run.facets = {outcome_words(r.at("outcome").get<std::string>())};
        for (const std::string& key : axes) {
          run.facets.push_back(scalar(arm.at("point").at(key)));
        }
        run.facets.push_back(seed);
      }
      e.runs.push_back(std::move(run));
    }
  }
}

// The runs that a search lists as tried.
void list_runs_of_searches(Experiment& e) {
  for (const Json& arm : e.result.at("arms")) {
    const auto name = arm.at("name").get<std::string>();
    for (const Json& search : arm.at("searches")) {
      const std::string seed = seed_at(search);
      for (const Json& trial : search.at("tried")) {
        RunData run;
        run.folder = arm_folder(e, name) / seed / rate_name(trial.at("lr").get<double>());
        run.arm = name;
        run.facets = {name, trial.at("trained").get<bool>() ? "yes" : "no", seed};
        e.runs.push_back(std::move(run));
      }
    }
  }
}

std::size_t seeds_of(const RunConfig& config, Experiment::Kind kind) {
  switch (kind) {
    case Experiment::Kind::compare:
      return config.compare ? config.compare->seeds.size() : 0;
    case Experiment::Kind::sweep:
      return config.sweep ? config.sweep->seeds.size() : 0;
    case Experiment::Kind::find_lr:
      return config.find_lr.value_or(FindLrConfig{}).seeds.size();
  }
  return 0;
}

Experiment read_experiment(const fs::path& folder, Experiment::Kind kind) {
  Experiment e;
  e.kind = kind;
  e.folder = folder;
  e.file = folder / result_file(kind);
  e.config = read_config_file(folder, [&](const Document& document) {
    const RunConfig config = read_config(document);
    e.name = config.name;
    e.seeds = seeds_of(config, kind);
  });
  read_json(e.file, [&](const Json& json) {
    e.result = json;
    if (kind == Experiment::Kind::compare) {
      e.facet_names = {"arm", "seed"};
      list_runs_of_arms(e, "arms", {});
    } else if (kind == Experiment::Kind::sweep) {
      e.facet_names = {"outcome"};
      const std::vector<std::string> axes = axis_keys(e);
      e.facet_names.insert(e.facet_names.end(), axes.begin(), axes.end());
      e.facet_names.emplace_back("seed");
      check_cells(e);
      list_runs_of_arms(e, "cells", axes);
    } else {
      e.facet_names = {"arm", "trained", "seed"};
      list_runs_of_searches(e);
    }
  });
  return e;
}

// Names runs by name and seed, or by folder if that is ambiguous.
void name_runs(std::vector<RunData>& runs) {
  const auto label = [](const RunData& run) {
    return fmt::format("{}, seed {}", run.name, run.seed);
  };
  std::map<std::string, std::size_t> count;
  for (const RunData& run : runs) ++count[label(run)];
  for (RunData& run : runs) {
    const bool is_one = count[label(run)] == 1;
    run.facets = {is_one ? label(run) : run.folder.lexically_normal().string()};
  }
}

// std::nullopt if it is not an experiment's folder.
std::optional<Experiment::Kind> experiment_of(const fs::path& folder) {
  for (const Experiment::Kind kind : all_values<Experiment::Kind>()) {
    if (is_there(folder / result_file(kind))) return kind;
  }
  return std::nullopt;
}

bool is_reported(const fs::path& folder) {
  return experiment_of(folder) || is_there(folder / "metrics.csv");
}

// The folder itself or, if it is neither a run's nor an experiment's, those directly below it that
// are, by name: runs/NAME holds all runs of a configuration.
std::vector<fs::path> reported(const fs::path& folder) {
  if (is_reported(folder)) return {folder};
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw Error(folder.string() +
                ": is not a folder; report takes the folders of runs and experiments");
  }
  const fs::directory_iterator entries(folder, error);
  if (error) throw Error(fmt::format("{}: cannot be read: {}", folder.string(), error.message()));
  std::vector<fs::path> found;
  for (const auto& entry : entries) {
    if (is_reported(entry.path())) found.push_back(entry.path());
  }
  if (found.empty()) {
    throw Error(folder.string() +
                ": neither it nor a folder directly below it is a run or an experiment: there is "
                "no metrics.csv, compare.json, sweep.json or find_lr.json");
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace

ReportData read_report_data(const std::vector<fs::path>& folders, std::size_t max_curves) {
  ReportData data;
  std::size_t runs = 0;
  for (const fs::path& given : folders) {
    for (const fs::path& folder : reported(given)) {
      if (const auto kind = experiment_of(folder)) {
        data.experiments.push_back(read_experiment(folder, *kind));
        runs += data.experiments.back().runs.size();
      } else {
        data.runs.emplace_back().folder = folder;
        ++runs;
      }
    }
  }
  const std::size_t points =
      std::clamp(all_points / std::max<std::size_t>(1, runs), min_points, max_points);
  data.has_curves = runs <= max_curves;
  const auto read = [&](RunData& run, bool with_layers) {
    read_run(run, points,
             !data.has_curves ? Depth::without_curves
             : with_layers    ? Depth::with_layers
                              : Depth::without_layers);
  };
  std::size_t with_layers = 0;
  for (RunData& run : data.runs) {
    read(run, with_layers < max_layer_arms);
    with_layers += run.has_layers ? 1 : 0;
  }
  name_runs(data.runs);
  for (Experiment& e : data.experiments) {
    // The runs of one arm of a search have different rates, so only one per arm is read.
    const std::size_t max_seeds = e.kind == Experiment::Kind::find_lr ? 1 : max_layer_seeds;
    std::map<std::string, std::size_t> seeds;  // seeds with layers, by arm
    for (RunData& run : e.runs) {
      const auto of_arm = seeds.find(run.arm);
      const bool is_read =
          of_arm == seeds.end() ? seeds.size() < max_layer_arms : of_arm->second < max_seeds;
      read(run, is_read);
      if (is_read && run.has_layers) ++seeds[run.arm];
    }
  }
  return data;
}

}  // namespace preheat
