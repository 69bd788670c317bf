#include "experiment/runs.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <nlohmann/json.hpp>

#include "config/atomic_file.h"
#include "config/values.h"
#include "data/dataset.h"
#include "experiment/thread_group.h"
#include "train/fingerprint.h"
#include "train/json_file.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

// Whether the folder has what the configuration's diagnostics ask for. They do not change the run,
// so that it may have been made without them, or with others.
bool has_diagnostics(const fs::path& folder, const DiagnosticsConfig& wanted) {
  if (!wanted.sharpness && !wanted.gradient_noise && !wanted.layers_every) return true;
  const DiagnosticsConfig made = config_in(folder).diagnostics;
  const auto has = [&](const auto& want, const auto& is, const char* file) {
    return !want || (want == is && fs::exists(folder / file));
  };
  return has(wanted.sharpness, made.sharpness, "sharpness.csv") &&
         has(wanted.gradient_noise, made.gradient_noise, "gradients.csv") &&
         has(wanted.layers_every, made.layers_every, "layers.csv") &&
         has(wanted.layers_every, made.layers_every, "activations.csv");
}

// Throws ConfigError unless the summary in the folder is of a run of this configuration.
void require_same(const RunSummary& summary, const fs::path& folder, const RunConfig& config) {
  if (summary.fingerprint == fingerprint(config)) return;
  const auto differs = first_difference(config_in(folder), config);
  throw ConfigError({(folder / "config.yaml").string(), 0, 0, ""},
                    differs ? mismatch_text("run", *differs)
                            : "the run was made with another configuration, or another preheat",
                    "begin another experiment without --resume, or name the arm differently");
}

// Whether a run was begun in the folder: there is a configuration, or nothing but the files that a
// run opens first.
bool is_begun(const fs::path& folder) {
  std::error_code none;
  if (!fs::is_directory(folder, none)) return false;
  if (fs::exists(folder / "config.yaml")) return true;
  return std::ranges::all_of(fs::directory_iterator(folder), [](const auto& entry) {
    const std::string name = entry.path().filename();
    return name_before_temporary(name) == "config.yaml" ||
           ((name == "metrics.csv" || name == "eval.csv") && fs::is_empty(entry.path()));
  });
}

// The files of a run that is made again; none if no run was begun there. Throws Error if anybody
// else has put a file there.
std::vector<fs::path> unfinished_files(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!is_begun(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (!is_of_run(name)) {
      throw Error(fmt::format("{}: is not empty: a run does not write '{}'; move that elsewhere",
                              folder.string(), one_line(name)));
    }
    files.push_back(entry.path());
  }
  return files;
}

// Holds one unit of a semaphore during its lifetime.
class SemaphoreGuard {
 public:
  explicit SemaphoreGuard(std::counting_semaphore<>& semaphore) : semaphore_(semaphore) {
    semaphore_.acquire();
  }
  ~SemaphoreGuard() { semaphore_.release(); }
  SemaphoreGuard(const SemaphoreGuard&) = delete;
  SemaphoreGuard& operator=(const SemaphoreGuard&) = delete;

 private:
  std::counting_semaphore<>& semaphore_;
};

}  // namespace

double chance_accuracy(const RunConfig& config) {
  return 1.0 / static_cast<double>(facts(config.data.dataset).classes);
}

double counted_accuracy(const RunResult& run, const RunConfig& config) {
  return is_failure(run.outcome) ? chance_accuracy(config) : *run.test_accuracy;
}

std::int64_t ArmResult::count(Outcome outcome) const {
  return std::ranges::count_if(runs, [&](const SeedResult& r) { return r.run.outcome == outcome; });
}

std::int64_t ArmResult::failures() const {
  return std::ranges::count_if(runs, [](const SeedResult& r) { return is_failure(r.run.outcome); });
}

Interval ArmResult::failure_interval() const {
  return clopper_pearson(failures(), static_cast<std::int64_t>(runs.size()));
}

std::vector<double> ArmResult::of_survivors(std::optional<double> RunResult::*value) const {
  std::vector<double> values;
  for (const SeedResult& r : runs) {
    if (!is_failure(r.run.outcome) && r.run.*value) values.push_back(*(r.run.*value));
  }
  return values;
}

std::optional<NonFiniteSteps> ArmResult::non_finite_steps() const {
  std::vector<double> steps;
  for (const SeedResult& r : runs) {
    if (r.run.first_non_finite_step) {
      steps.push_back(static_cast<double>(*r.run.first_non_finite_step));
    }
  }
  if (steps.empty()) return std::nullopt;
  const auto [least, largest] = std::ranges::minmax(steps);
  return NonFiniteSteps{median(steps), static_cast<std::int64_t>(least),
                        static_cast<std::int64_t>(largest)};
}

bool any_validated(const std::vector<ArmResult>& arms) {
  return std::ranges::any_of(arms, [](const ArmResult& arm) {
    return std::ranges::any_of(
        arm.runs, [](const SeedResult& r) { return r.run.best_by == ChosenBy::validation; });
  });
}

Runs::Runs(const RunConfig& base, Backend& backend, const RunsListener& listener)
    : backend_(backend),
      listener_(listener),
      concurrent_(backend.concurrent_replicas(cpu_threads(base))),
      replicas_(concurrent_) {}

std::optional<RunResult> ended_run(const fs::path& folder, const RunConfig& config) {
  const std::optional<RunSummary> summary = read_summary(folder);
  if (!summary) return std::nullopt;
  require_same(*summary, folder, config);
  if (!has_diagnostics(folder, config.diagnostics)) return std::nullopt;
  return summary->result;
}

std::optional<RunResult> Runs::read(const std::string& label, const RunConfig& config,
                                    const fs::path& folder) {
  std::optional<RunResult> ended = ended_run(folder, config);
  if (ended) tell_end(label, *ended, true);
  return ended;
}

RunResult Runs::run(const std::string& label, const RunConfig& config, const fs::path& folder,
                    Checkpoints checkpoints) {
  {
    const FolderLock lock(folder);  // another process may have resumed what is to be removed
    if (const auto ended = read(label, config, folder)) return *ended;
    std::error_code ignored;
    for (const fs::path& file : unfinished_files(folder)) fs::remove_all(file, ignored);
  }
  const SemaphoreGuard replica(replicas_);
  const std::shared_ptr<Trainer> trainer = make_trainer(config);
  if (!trainer) {  // the experiment stopped during the wait
    RunResult none;
    none.interrupted = true;
    return none;
  }
  RunFolder run_folder(folder, config, checkpoints);
  if (listener_.on_start) {
    const std::lock_guard lock(mutex_);
    listener_.on_start(label, *trainer);
  }
  const auto on_records = [&](std::span<const StepRecord> records) {
    const std::lock_guard lock(mutex_);
    if (listener_.on_records) listener_.on_records(label, records);
  };
  RunResult run = trainer->run({on_records, {}, [this] { return wants_stop(); }}, &run_folder);
  tell_end(label, run, false);
  return run;
}

// Null if the experiment stops during the wait.
std::shared_ptr<Trainer> Runs::make_trainer(const RunConfig& config) {
  std::shared_ptr<Trainer> made;
  when_memory_suffices([&] {
    auto trainer = std::make_unique<Trainer>(config, backend_, data(config.data));
    ++trainers_;
    made = std::shared_ptr<Trainer>(trainer.release(), [this](Trainer* ended) {
      delete ended;
      --trainers_;
      trainers_.notify_all();
    });
  });
  return made;
}

// As many replicas as train concurrently may not fit into memory. Alone, so that those being made
// do not take from each other what either needs.
bool Runs::when_memory_suffices(const std::function<void()>& make) {
  try {
    const std::shared_lock together(making_);
    if (wants_stop()) return false;
    make();
    return true;
  } catch (const OutOfMemory&) {
  }
  const std::unique_lock alone(making_);
  while (!wants_stop()) {
    const int others = trainers_;
    try {
      make();
      return true;
    } catch (const OutOfMemory&) {
      if (others == 0) throw;
    }
    trainers_.wait(others);
  }
  return false;
}

void Runs::plan(std::int64_t count) {
  if (listener_.on_plan) listener_.on_plan(count);
}

void Runs::plan_initial_weights(std::int64_t count) {
  if (listener_.on_initial_weights) listener_.on_initial_weights(count);
}

void Runs::tell(const Arm& arm, const Search& search) {
  const std::lock_guard lock(mutex_);
  if (listener_.on_search) listener_.on_search(arm, search);
}

void Runs::tell_end(const std::string& label, const RunResult& run, bool was_read) {
  const std::lock_guard lock(mutex_);
  if (listener_.on_end) listener_.on_end(label, run, was_read);
}

void Runs::load(const std::vector<RunConfig>& configs) {
  for (const RunConfig& config : configs) data(config.data);
}

const ResidentData& Runs::data(const DataConfig& config) {
  const std::lock_guard lock(mutex_);
  const std::string key =
      fmt::format("{}|{}|{}|{}", to_string(config.dataset), config.dir.value_or(""),
                  config.train_limit.value_or(0), config.validation.value_or(0));
  const auto found = data_.find(key);
  return found != data_.end() ? found->second
                              : data_.emplace(key, load_data(config, backend_)).first->second;
}

void Runs::run_concurrently(std::int64_t count, const std::function<bool(std::int64_t)>& run) {
  const std::int64_t threads = std::min<std::int64_t>(concurrent_, count);
  if (threads <= 1) {
    for (std::int64_t i = 0; i < count && run(i); ++i) {
    }
    return;
  }
  ++side_by_side_;
  std::atomic<std::int64_t> next{0};
  ThreadGroup group(failed_);  // failed_ makes the other runs stop as if interrupted
  for (std::int64_t thread = 0; thread < threads; ++thread) {
    group.start([&] {
      for (std::int64_t i = next++; i < count && !failed_; i = next++) {
        if (!run(i)) next = count;
      }
    });
  }
  const std::exception_ptr failure = group.join();
  if (--side_by_side_ == 0) failed_ = false;
  if (failure) std::rethrow_exception(failure);
}

void OnceASecond::operator()() {
  is_due_ = true;
  if (written_ && seconds_since(*written_) < 1) return;
  write_due();
}

void OnceASecond::during(const std::function<void()>& work) {
  try {
    work();
  } catch (...) {
    write_due();
    throw;
  }
}

void OnceASecond::write_due() {
  if (!is_due_) return;
  write_();
  is_due_ = false;
  written_ = Clock::now();
}

std::vector<RunConfig> arm_configs(const Document& document, const std::vector<Arm>& arms) {
  const Document base = without_experiments(document);
  std::vector<RunConfig> configs;
  for (const Arm& arm : arms) {
    configs.push_back(read_config(with_overrides(base, arm.overrides)));
    check_run(configs.back());
  }
  return configs;
}

bool run_arms(Runs& runs, const std::vector<RunConfig>& configs,
              const std::vector<std::uint64_t>& seeds, const fs::path& folder,
              Checkpoints checkpoints, std::vector<ArmResult>& results,
              const std::function<void()>& write) {
  std::size_t width = 0;
  for (const ArmResult& result : results) width = std::max(width, result.arm.name.size());
  const std::size_t arms = configs.size();
  std::vector<std::optional<SeedResult>> ended(arms * seeds.size());
  runs.plan(std::ssize(ended));
  // Calls act(label, configuration, folder) for the run of a task.
  const auto with_run = [&](std::int64_t task, const auto& act) {
    const std::size_t arm = task % arms;
    const std::uint64_t seed = seeds[task / arms];
    RunConfig config = configs[arm];
    config.seed = seed;
    const std::string& name = results[arm].arm.name;
    return act(fmt::format("seed {:<4} {:<{}}", seed, name, width), config,
               folder / name / std::to_string(seed));
  };
  const auto add = [&](std::int64_t task, RunResult run) {
    ended[task] = SeedResult{seeds[task / arms], std::move(run)};
    results[task % arms].runs = ended_of(ended, task % arms, arms);
  };
  // All that have ended are read before the first write, so that a resumed experiment's file never
  // has fewer runs than before.
  std::vector<std::int64_t> left;
  for (std::int64_t task = 0; task < std::ssize(ended); ++task) {
    auto read = with_run(task, [&](const auto&... its) { return runs.read(its...); });
    if (read) {
      add(task, *std::move(read));
    } else {
      left.push_back(task);
    }
  }
  bool all = true;
  OnceASecond once_a_second(write);
  std::mutex mutex;
  const auto run_one = [&](std::int64_t k) {
    RunResult run =
        with_run(left[k], [&](const auto&... its) { return runs.run(its..., checkpoints); });
    const std::lock_guard lock(mutex);
    const bool interrupted = run.interrupted;
    if (!interrupted) add(left[k], std::move(run));
    all = all && !interrupted;
    once_a_second();
    return !interrupted;
  };
  once_a_second.during([&] { runs.run_concurrently(std::ssize(left), run_one); });
  return all;
}

void require_same_run(const fs::path& folder, const RunConfig& config) {
  if (!ended_run(folder, config)) unfinished_files(folder);
}

void require_same_runs(const std::vector<RunConfig>& configs,
                       const std::vector<std::uint64_t>& seeds, const fs::path& folder,
                       const std::vector<ArmResult>& arms) {
  for (std::size_t i = 0; i < arms.size(); ++i) {
    RunConfig config = configs[i];
    for (const std::uint64_t seed : seeds) {
      config.seed = seed;
      require_same_run(folder / arms[i].arm.name / std::to_string(seed), config);
    }
  }
}

void refuse_others(const fs::path& folder, std::optional<ExperimentKind> own) {
  for (const ExperimentKind other : all_values<ExperimentKind>()) {
    if (other != own && fs::exists(folder / result_file(other))) {
      throw Error(fmt::format("{}: belongs to another command: it has a {}", folder.string(),
                              result_file(other)));
    }
  }
}

FolderLock prepare_folder(const fs::path& folder, ExperimentKind kind, const RunConfig& config,
                          bool resume, const std::function<void()>& require_runs) {
  if (!resume) make_folder(folder);
  FolderLock lock(folder);
  const auto before = resume ? std::optional(config_in(folder)) : std::nullopt;
  if (resume) refuse_others(folder, kind);
  const fs::path path = folder / "config.yaml";
  const auto differs = before ? first_difference(*before, config) : std::nullopt;
  if (differs) {
    throw ConfigError({path.string(), 0, 0, ""}, mismatch_text("experiment", *differs),
                      "begin another experiment without --resume");
  }
  if (resume) {
    require_runs();
    remove_temporaries(folder);
  }
  write_atomically(path, write_config(config));
  return lock;
}

std::int64_t count_runs(const std::vector<ArmResult>& arms) {
  std::int64_t count = 0;
  for (const ArmResult& arm : arms) count += std::ssize(arm.runs);
  return count;
}

void add_incomplete(nlohmann::ordered_json& json, std::int64_t ended, std::int64_t planned) {
  if (ended < planned) json["incomplete"] = {{"ended", ended}, {"planned", planned}};
}

nlohmann::ordered_json to_json(const Node& value) {
  if (value.kind == Node::Kind::null) return nullptr;
  if (value.kind != Node::Kind::scalar) return to_flow_text(value);
  if (const auto whole = as_integer(value)) return *whole;
  if (const auto number = as_number(value)) return *number;
  if (const auto truth = as_bool(value)) return *truth;
  return value.scalar;
}

nlohmann::ordered_json to_json(const std::vector<Override>& changes) {
  auto json = nlohmann::ordered_json::object();
  for (const Override& o : changes) json[o.key] = to_json(o.value);
  return json;
}

nlohmann::ordered_json to_json(const ArmResult& arm) {
  using Json = nlohmann::ordered_json;
  Json runs = Json::array();
  for (const SeedResult& r : arm.runs) {
    Json& run = runs.emplace_back();
    run = {{"seed", r.seed},
           {"outcome", to_string(r.run.outcome)},
           {"first_non_finite_step", or_null(r.run.first_non_finite_step)},
           {"final_train_loss", or_null(r.run.final_train_loss)},
           {"test_accuracy", or_null(r.run.test_accuracy)}};
    if (r.run.best_by == ChosenBy::validation) {
      run["validation_accuracy"] = or_null(r.run.validation_accuracy);
    }
  }
  Json interval;
  if (!arm.runs.empty()) {
    const Interval ci = arm.failure_interval();
    interval = {ci.lo, ci.hi};
  }
  Json non_finite;
  if (const auto steps = arm.non_finite_steps()) {
    non_finite = {{"median", steps->median}, {"range", {steps->least, steps->largest}}};
  }
  return {{"name", arm.arm.name},
          {"overrides", to_json(arm.arm.overrides)},
          {"n", arm.runs.size()},
          {"failures", arm.failures()},
          {"failure_interval", interval},
          {"first_non_finite", non_finite},
          {"runs", runs}};
}

}  // namespace preheat
