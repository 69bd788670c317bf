#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "config/clock.h"
#include "config/error.h"
#include "data/epoch_order.h"
#include "train/checkpoint.h"
#include "train/critical_rate.h"
#include "train/fingerprint.h"
#include "train/json_file.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

// The number of updates between two reads of the records, adapted so that they take a fraction of a
// second.
class Burst {
 public:
  std::int64_t updates() const { return updates_; }

  // A burst cut short at a boundary does not show how long a full one takes.
  void took(std::int64_t updates, double seconds) {
    if (updates == updates_ && seconds < shortest) updates_ *= 2;
    if (updates_ > 1 && seconds > longest) updates_ /= 2;
  }

 private:
  static constexpr double shortest = 0.1;
  static constexpr double longest = 0.4;
  std::int64_t updates_ = 1;
};

RunConfig checked(const RunConfig& config, const Backend& backend) {
  check_precision(config, backend);
  return config;
}

// The start rate for `start_lr: auto`: the critical rate at the initial weights (Kalra and
// Barkeshli 2024, section 6.2) times 1 - momentum, since a constant gradient moves the weights by
// 1 / (1 - momentum) times the rate. It is at most the base rate, and a tenth of that if no rate
// makes the loss rise. std::nullopt if start_lr is a number, and if loss or gradient is not finite:
// then the run diverges, and that is its result, as it would be with a number.
std::optional<double> find_start_lr(const RunConfig& config, Backend& backend,
                                    const Network& network, const ResidentData& data) {
  constexpr double unlimited_share = 0.1;
  const Schedule schedule = schedule_of(config);
  if (!schedule.start_is_automatic) return std::nullopt;
  try {
    const auto critical = critical_rate(config, backend, network, schedule, data.train);
    if (!critical) return unlimited_share * schedule.base_lr;
    return std::min((1 - config.optimizer.momentum) * *critical, schedule.base_lr);
  } catch (const NotFinite&) {
    return std::nullopt;
  }
}

RunConfig with_start_lr(RunConfig config, const std::optional<double>& start) {
  if (start) config.schedule.warmup.from = LrValue{*start};
  return config;
}

std::unique_ptr<Replica> compile(const RunConfig& config, Backend& backend, const Network& network,
                                 const Schedule& schedule, const ResidentData& data) {
  const ReplicaOptions options = replica_options(config, network, schedule);
  backend.require_memory(network, options);
  return backend.compile(network, options, initial_parameters(network, config.model, config.seed),
                         data.train);
}

// Whether there is no best value yet or this one is larger.
bool exceeds(const std::optional<double>& value, const std::optional<double>& best) {
  return !best || *value > *best;
}

// Throws ConfigError unless a run under `before` may continue under `now`.
void require_same_run(const std::filesystem::path& config_path, const RunConfig& before,
                      const RunConfig& now, bool new_schedule) {
  const RunConfig under_old_schedule = with_schedule_of(now, before);
  const auto differs = first_difference(before, new_schedule ? under_old_schedule : now);
  if (!differs) return;
  const bool by_schedule = !first_difference(before, under_old_schedule);
  throw ConfigError({config_path.string(), 0, 0, ""}, mismatch_text("run", *differs),
                    by_schedule ? "--new-schedule continues under the new one"
                                : "begin another run without --resume");
}

// The same listener, but what it throws, for example because the disk behind standard output is
// full, is kept in `failure` and stops the run as an interrupt does.
RunListener that_only_stops(const RunListener& listener, std::exception_ptr& failure) {
  const auto tell = [&failure](const auto& call) {
    if (failure) return;
    try {
      call();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  RunListener safe;
  safe.on_records = [&listener, tell](std::span<const StepRecord> records) {
    if (listener.on_records) tell([&] { listener.on_records(records); });
  };
  safe.on_evaluation = [&listener, tell](std::int64_t step, const Evaluated& evaluated) {
    if (listener.on_evaluation) tell([&] { listener.on_evaluation(step, evaluated); });
  };
  safe.wants_stop = [&listener, tell, &failure] {
    bool stops = false;
    if (listener.wants_stop) tell([&] { stops = listener.wants_stop(); });
    return stops || failure;
  };
  return safe;
}

// Continues from the same step under another schedule. A gate keeps its window only if it is the
// same gate and its warmup has the same length.
void take_schedule(StepState& state, const Schedule& before, const Schedule& now) {
  const bool same_gate = before.lr.gate.window == now.lr.gate.window &&
                         before.lr.gate.correct_above == now.lr.gate.correct_above &&
                         before.lr.phases[0].length == now.lr.phases[0].length;
  if (!same_gate) {
    state.gate_opened_at = -1;
    state.window_correct = 0;
    std::fill(std::begin(state.hits), std::end(state.hits), 0u);
  }
  state.lr = static_cast<float>(lr_at(now.lr, state.step, state.gate_opened_at));
}

}  // namespace

Schedule schedule_of(const RunConfig& config) {
  return resolve_schedule(config, run_length(config));
}

void check_run(const RunConfig& config) {
  const DatasetFacts& data = facts(config.data.dataset);
  const double smallest = smallest_loss(config.label_smoothing, data.classes);
  const double chance = chance_loss(Loss::cross_entropy, data.classes);
  if (chance - smallest < chance_margin) {
    throw ConfigError(
        config.where("label_smoothing"),
        fmt::format("{} leaves a loss of {:.3f} at least, too close to chance, {:.3f}, "
                    "to tell whether a run has learned",
                    config.label_smoothing, smallest, chance),
        "a smaller one, such as 0.1");
  }
  const Schedule schedule = schedule_of(config);
  const Network network = build_network(config, data.shape, data.classes);
  replica_options(config, network, schedule);
  record_intervals(config, schedule.run);
}

void check_precision(const RunConfig& config, const Backend& backend) {
  const Precision asked = config.train.precision;
  if (backend.computes_in(asked)) return;
  std::vector<std::string_view> possible;
  for (const Precision p : all_values<Precision>()) {
    if (backend.computes_in(p)) possible.push_back(to_string(p));
  }
  const bool on_cpu = backend.name() == "cpu";
  throw ConfigError(
      config.where("train.precision"),
      fmt::format("the {} computes in {}", on_cpu ? "CPU" : "GPU", fmt::join(possible, ", ")),
      fmt::format("{} needs {}", to_string(asked), on_cpu ? "--device cuda" : "a newer one"));
}

ResidentData load_data(const DataConfig& config, Backend& backend) {
  const TrainTest files = load_dataset(config);
  ResidentData data;
  const auto load = [&](const Dataset& set) {
    data.bytes += set.pixels.size() + set.labels.size();
    return backend.load(set);
  };
  data.train = load(files.train);
  if (files.validation.size() > 0) data.validation = load(files.validation);
  data.test = load(files.test);
  data.shape = files.train.shape;
  data.classes = files.train.classes;
  data.origin = files.origin;
  return data;
}

Trainer::Trainer(const RunConfig& config, Backend& backend, const ResidentData& data)
    : config_(checked(config, backend)),
      backend_(backend),
      data_(data),
      network_(build_network(config_, data.shape, data.classes)),
      start_lr_(find_start_lr(config_, backend, network_, data)),
      schedule_(schedule_of(with_start_lr(config_, start_lr_))),
      every_(record_intervals(config_, schedule_.run)),
      replica_(compile(config_, backend, network_, schedule_, data)),
      diagnostics_(config_, backend, network_, schedule_, data.train) {
  for (const TrainingStage& stage : replica_options(config_, network_, schedule_).stages) {
    stage_begins_.push_back(stage.begin);
  }
}

Resumed Trainer::resume(const std::filesystem::path& folder, bool new_schedule) {
  const std::filesystem::path config_path = folder / "config.yaml";
  const std::filesystem::path checkpoint_path = folder / "checkpoints" / "last.ckpt";
  FolderLock lock(folder);
  std::error_code none;
  if (std::filesystem::exists(folder / "metrics.csv", none) &&
      std::filesystem::status(checkpoint_path, none).type() ==
          std::filesystem::file_type::not_found) {
    throw Error(checkpoint_path.string() +
                ": No such file: the run stopped before its first checkpoint, or makes none; begin "
                "it again without --resume");
  }
  Checkpoint checkpoint = read_checkpoint(checkpoint_path);
  StepState& step = checkpoint.state.step;
  const float lr_before = step.lr;
  const RunConfig before = config_in(folder);
  require_same_run(config_path, before, config_, new_schedule);
  const bool changes = new_schedule && first_difference(before, config_).has_value();
  if (changes) take_schedule(step, schedule_of(before), schedule_);
  try {
    replica_->load(checkpoint.state);
    diagnostics_.set_direction(checkpoint.direction);
  } catch (const Error& e) {
    throw Error(
        fmt::format("{}: belongs to another network: {}", checkpoint_path.string(), e.what()));
  }
  if (!is_alive(step)) {
    throw Error(fmt::format("{}: the run diverged at step {} and cannot be continued",
                            folder.string(), step.first_non_finite));
  }
  if (checkpoint.fingerprint != fingerprint(before) &&
      checkpoint.fingerprint != fingerprint(config_)) {
    throw Error(fmt::format("{}: was saved under a configuration other than the one in {}",
                            checkpoint_path.string(), config_path.string()));
  }
  if (step.step < 0 || step.step > schedule_.run.steps) {
    throw Error(fmt::format("{}: is at step {}, beyond the run's {} steps",
                            checkpoint_path.string(), step.step, schedule_.run.steps));
  }
  const double planned = lr_at(schedule_.lr, step.step, step.gate_opened_at);
  if (start_lr_ && step.lr != static_cast<float>(planned)) {
    throw Error(fmt::format(
        "{}: update {} was to have the rate {} and has {} on this machine, where "
        "schedule.warmup.start_lr: auto finds {}; give it a number and continue with "
        "--new-schedule",
        checkpoint_path.string(), step.step, step.lr, static_cast<float>(planned), *start_lr_));
  }
  step_ = step.step;
  note_gate(step);
  // Weights that the old schedule reached later do not belong to this run.
  const std::filesystem::path best = folder / "checkpoints" / "best.ckpt";
  const bool best_is_later =
      changes && std::filesystem::exists(best) && read_checkpoint(best).state.step.step > step_;
  RunFolder run_folder = RunFolder::reopen(folder, std::move(lock), config_, step_, past_);
  if (changes) {
    // The checkpoint first: resume() accepts it with the old config.yaml if we stop in between.
    save_last(&run_folder);
    if (best_is_later) std::filesystem::remove(best);
    run_folder.replace_config(config_, step_);
  } else {
    run_folder.update_config(config_);
  }
  return {std::move(run_folder), step_, lr_before, step.lr};
}

// The end of the epoch or the stage of an update, whichever comes first.
std::int64_t Trainer::next_boundary(std::int64_t step) const {
  const std::int64_t per_epoch = schedule_.run.steps_per_epoch;
  std::int64_t boundary = (step / per_epoch + 1) * per_epoch;
  for (const std::int64_t begin : stage_begins_) {
    if (begin > step) boundary = std::min(boundary, begin);
  }
  return boundary;
}

// The next step at which a burst has to end.
std::int64_t Trainer::next_stop(std::int64_t step) const {
  const auto next_multiple = [&](std::int64_t n) { return (step / n + 1) * n; };
  std::int64_t stop = std::min({schedule_.run.steps, next_boundary(step),
                                next_multiple(every_.evaluation), diagnostics_.next_stop(step)});
  if (every_.checkpoint > 0) stop = std::min(stop, next_multiple(every_.checkpoint));
  return stop;
}

void Trainer::evaluate(std::int64_t step, const RunListener& listener, RunFolder* folder,
                       RunResult& result) {
  Evaluated evaluated{replica_->evaluate(*data_.test), {}};
  result.test_loss = evaluated.test.loss;
  result.test_accuracy = evaluated.test.accuracy();
  if (data_.validation) {
    evaluated.validation = replica_->evaluate(*data_.validation);
    result.validation_loss = evaluated.validation->loss;
    result.validation_accuracy = evaluated.validation->accuracy();
  }
  const bool best = data_.validation
                        ? exceeds(result.validation_accuracy, result.best_validation_accuracy)
                        : exceeds(result.test_accuracy, result.best_test_accuracy);
  if (best) {
    result.best_test_accuracy = result.test_accuracy;
    result.best_validation_accuracy = result.validation_accuracy;
    result.best_step = step;
  }
  if (folder != nullptr) {
    folder->add(step, step / schedule_.run.steps_per_epoch, evaluated);
    if (best && folder->checkpoints() == Checkpoints::keep) save(*folder, "best");
  }
  if (listener.on_evaluation) listener.on_evaluation(step, evaluated);
}

// Returns false if the listener stopped it: then it is as if it had not begun.
bool Trainer::measure_sharpness(const ReplicaState& state, const RunListener& listener,
                                RunFolder* folder, RunResult& result) {
  const std::optional<SharpnessRecord> record = diagnostics_.measure(state, listener.wants_stop);
  if (!record) return false;
  if (record->step == 0) result.initial_sharpness = record->sharpness.value;
  result.last_sharpness = record->sharpness.value;
  if (folder != nullptr) folder->add(*record);
  return true;
}

// Syncs the rows first: a checkpoint on disk is useful only with the rows before it.
void Trainer::save_last(RunFolder* folder) {
  if (folder == nullptr) return;
  folder->sync();
  if (folder->checkpoints() == Checkpoints::keep) {
    save(*folder, "last");
  } else if (schedule_.lr.gate.window > 0) {  // saving copies all weights
    note_gate(replica_->save().step);
  }
}

void Trainer::save(const RunFolder& folder, const std::string& which) {
  const Checkpoint checkpoint{replica_->save(), fingerprint(config_), diagnostics_.direction()};
  note_gate(checkpoint.state.step);
  write_checkpoint(folder.checkpoint(which), checkpoint);
}

// Records where the gate ended this schedule's warmup early, if it did.
void Trainer::note_gate(const StepState& state) {
  const std::int64_t planned = schedule_.lr.phases[0].length;
  const std::int64_t end = end_of_first_phase(schedule_.lr, state.gate_opened_at);
  if (end < planned) gate_opened_at_ = end;
}

// Sets the order of the epoch that contains the next update.
void Trainer::set_epoch_order() {
  replica_->set_epoch_order(
      epoch_order(config_.seed, static_cast<std::uint32_t>(step_ / schedule_.run.steps_per_epoch),
                  static_cast<std::uint32_t>(data_.train->size())));
}

// Counts updates that were only timed. Throws Error if the run diverged.
void Trainer::count_timed(const std::vector<StepRecord>& records) {
  if (!records.back().finite) {
    throw Error(fmt::format("the run diverged at step {}; use a lower schedule.base_lr",
                            records.back().step));
  }
  step_ += static_cast<std::int64_t>(records.size());
}

UpdateTime Trainer::time_updates(std::int64_t most) {
  if (step_ % schedule_.run.steps_per_epoch == 0) set_epoch_order();
  UpdateTime time;
  time.updates = std::min(most, next_boundary(step_) - step_);
  const auto start = Clock::now();
  replica_->train(time.updates);
  time.host = seconds_since(start);
  const std::vector<StepRecord> records = replica_->drain();
  time.total = seconds_since(start);
  count_timed(records);
  return time;
}

std::vector<StepPart> Trainer::time_parts(std::int64_t updates) {
  const std::int64_t per_epoch = schedule_.run.steps_per_epoch;
  if (per_epoch < 2) throw Error("an epoch has only one update; lower data.batch_size");
  updates = std::min(updates, per_epoch);
  while (next_boundary(step_) - step_ < updates) time_updates(updates);  // to the boundary
  if (step_ % per_epoch == 0) set_epoch_order();
  std::vector<StepPart> parts = replica_->time_parts(updates);
  count_timed(replica_->drain());
  return parts;
}

void Trainer::count(std::span<const StepRecord> records, LossHistory& history, RunResult& result) {
  const auto batch_size = static_cast<double>(config_.data.batch_size);
  for (const StepRecord& r : records) {
    const bool planned = r.step >= schedule_.lr.phases[0].length;
    if (r.phase > 0 && !planned && !gate_opened_at_) gate_opened_at_ = r.step;
    if (r.finite) {
      history.add(r.loss, static_cast<double>(r.correct) / batch_size);
      ++step_;
    } else {
      result.first_non_finite_step = r.step;
      result.first_non_finite_tensor = replica_->first_non_finite_tensor();
    }
  }
}

// The evaluation of a run that did not reach its end is dropped: it is of an earlier step.
void Trainer::conclude(const LossHistory& history, RunResult& result) const {
  result.steps = step_;
  result.gate_opened_at = gate_opened_at_;
  if (result.first_non_finite_step || result.interrupted) {
    result.test_loss.reset();
    result.test_accuracy.reset();
    result.validation_loss.reset();
    result.validation_accuracy.reset();
  }
  if (result.first_non_finite_step) {
    result.outcome = Outcome::non_finite;
  } else if (!history.empty()) {
    result.final_train_loss = history.final_loss();
    result.final_train_accuracy = history.final_accuracy();
    result.outcome = outcome_of(history, result.test_accuracy, data_.classes, config_.loss);
  }
}

RunResult Trainer::run(const RunListener& given, RunFolder* folder) {
  std::exception_ptr failure;
  const RunListener listener = that_only_stops(given, failure);
  const auto start = Clock::now();
  const std::int64_t first_step = step_;
  LossHistory history = past_.history;
  RunResult result;
  result.best_by = data_.validation ? ChosenBy::validation : ChosenBy::test;
  result.best_test_accuracy = past_.best_test_accuracy;
  result.best_validation_accuracy = past_.best_validation_accuracy;
  result.best_step = past_.best_step;
  result.initial_sharpness = past_.initial_sharpness;
  result.last_sharpness = past_.last_sharpness;
  double training_seconds = 0;
  Burst burst;

  while (step_ < schedule_.run.steps && !result.first_non_finite_step && !result.interrupted) {
    if (step_ == first_step || step_ % schedule_.run.steps_per_epoch == 0) set_epoch_order();
    const bool layers_due = folder != nullptr && diagnostics_.layers_due(step_);
    const bool sharpness_due = diagnostics_.sharpness_due(step_);
    const bool gradients_due = folder != nullptr && diagnostics_.gradients_due(step_);
    const ReplicaState before =
        layers_due || sharpness_due || gradients_due ? replica_->save() : ReplicaState();
    if (sharpness_due && !measure_sharpness(before, listener, folder, result)) {
      result.interrupted = true;
      save_last(folder);
      break;
    }
    if (gradients_due) folder->add(diagnostics_.gradients(before));
    const auto burst_start = Clock::now();
    const std::int64_t updates = std::min(burst.updates(), next_stop(step_) - step_);
    replica_->train(updates);
    const std::vector<StepRecord> records = replica_->drain();
    const double seconds = seconds_since(burst_start);
    training_seconds += seconds;
    burst.took(updates, seconds);
    count(records, history, result);
    if (folder != nullptr) folder->add(records, schedule_, config_.data.batch_size);
    if (layers_due) {
      const ReplicaState after = replica_->save();
      folder->add(diagnostics_.layers(before, after));
      folder->add(before.step.step, replica_->activations(), diagnostics_.changes(before, after));
    }
    if (listener.on_records) listener.on_records(records);
    if (result.first_non_finite_step) {
      save_last(folder);
      break;
    }

    const bool at_end = step_ == schedule_.run.steps;
    if (at_end || step_ % every_.evaluation == 0) evaluate(step_, listener, folder, result);
    const bool checkpoint_due = every_.checkpoint > 0 && step_ % every_.checkpoint == 0;
    result.interrupted = !at_end && listener.wants_stop && listener.wants_stop();
    if (at_end || checkpoint_due || result.interrupted) save_last(folder);
  }
  if (step_ == schedule_.run.steps && !result.test_accuracy) {  // resumed at its end
    // Its last checkpoint may be of a step that was not evaluated, under a longer schedule.
    evaluate(step_, {}, past_.last_evaluated == step_ ? nullptr : folder, result);
  }

  conclude(history, result);
  result.seconds = seconds_since(start);
  const auto trained = static_cast<double>((step_ - first_step) * config_.data.batch_size);
  result.images_per_second = training_seconds > 0 ? trained / training_seconds : 0;
  result.environment = environment_in(environment());
  if (folder != nullptr) write_summary(*folder, result);
  if (failure) std::rethrow_exception(failure);
  return result;
}

nlohmann::json Trainer::environment() const {
  return {
      {"device", backend_.device()}, {"library", backend_.library()}, {"preheat", PREHEAT_VERSION}};
}

void Trainer::write_summary(const RunFolder& folder, const RunResult& result) const {
  const MemoryUse memory = replica_->memory();
  nlohmann::json summary = summary_of(result, fingerprint(config_));
  summary.update({
      {"name", config_.name},
      {"seed", config_.seed},
      {"steps_planned", schedule_.run.steps},
      {"steps_per_epoch", schedule_.run.steps_per_epoch},
      {"start_lr", or_null(start_lr_)},
      {"parameters", network_.parameter_count},
      {"memory_bytes",
       {{"parameters", memory.parameters},
        {"activations", memory.activations},
        {"workspace", memory.workspace},
        {"diagnostics", diagnostics_.memory()},
        {"data", data_.bytes}}},
      {"data", data_.origin},
      {"backend", backend_.name()},
  });
  summary.update(environment());
  folder.write_summary(summary);
}

}  // namespace preheat
