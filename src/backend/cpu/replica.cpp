#include "backend/cpu/replica.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "backend/cpu/dataset.h"
#include "backend/cpu/thread_count.h"
#include "backend/inspect.h"
#include "config/clock.h"
#include "data/epoch_order.h"

namespace preheat::cpu {
namespace {

std::span<const float> part(const Buffer<float>& arena, const Parameter& p) {
  return {arena.data() + p.offset, static_cast<std::size_t>(p.size)};
}

NamedTensor tensor_of(const Parameter& p, const Buffer<float>& arena) {
  const std::span<const float> values = part(arena, p);
  return {p.name, p.shape, {values.begin(), values.end()}};
}

void finish_part(StepParts* parts, const char* pass, const char* work, double bytes,
                 Clock::time_point start) {
  if (parts != nullptr) parts->add({pass, "", work, {bytes, 0}}, start);
}

}  // namespace

CpuReplica::CpuReplica(const Network& network, const ReplicaOptions& options, int threads,
                       std::span<const float> initial, std::shared_ptr<const ResidentDataset> train)
    : network_(network),
      options_(options),
      threads_(threads),
      train_(std::move(train)),
      dataset_(data_of(*train_)),
      steps_per_epoch_(dataset_.size() / options.batch_size),
      table_(normalization_table(options.normalize)),
      weights_(network.arena_size),
      gradients_(network.arena_size),
      mean_gradients_(options.passes() > 1 ? network.arena_size : 0),
      velocity_(network.arena_size),
      statistics_(make_statistics(network)),
      program_(network_, options.examples_per_pass(), weights_.data(), gradients_.data(),
               statistics_),
      picks_(options.examples_per_pass()),
      labels_(options.examples_per_pass()) {
  if (initial.size() != weights_.size()) throw std::logic_error("initial: not an arena");
  if (options_.parameters.size() != network_.parameters.size() || options_.stages.empty()) {
    throw std::logic_error("options: not of this network");
  }
  std::copy(initial.begin(), initial.end(), weights_.data());
}

void CpuReplica::set_epoch_order(std::span<const std::uint32_t> permutation) {
  if (static_cast<std::int64_t>(permutation.size()) != dataset_.size()) {
    throw std::logic_error("set_epoch_order: not a permutation of the training examples");
  }
  order_.assign(permutation.begin(), permutation.end());
  ordered_epoch_ = state_.step / steps_per_epoch_;
}

std::vector<StepPart> CpuReplica::time_parts(std::int64_t updates) {
  check_updates(options_.stages, steps_per_epoch_, ordered_epoch_, state_.step, updates);
  train(1);
  StepParts parts;
  train(updates - 1, &parts);
  return parts.medians();
}

std::vector<StepRecord> CpuReplica::drain() {
  std::vector<StepRecord> drained = records_;
  records_.clear();  // keeps the memory for the next ones
  return drained;
}

Evaluation CpuReplica::evaluate(const ResidentDataset& test) {
  const ThreadCount count(threads_);
  const Dataset& dataset = data_of(test);
  Evaluation result;
  result.examples = dataset.size();
  const std::int64_t batch = options_.examples_per_pass();
  for (std::int64_t begin = 0; begin < dataset.size(); begin += batch) {
    const std::int64_t valid = std::min(batch, dataset.size() - begin);
    for (std::int64_t i = 0; i < batch; ++i) {
      // The last batch is padded with its first example, which is computed but not counted.
      const std::int64_t example = begin + (i < valid ? i : 0);
      picks_[i] = {static_cast<std::uint32_t>(example), {}};
      labels_[i] = dataset.labels[example];
    }
    gather(network_.input, dataset.pixels.data(), picks_, table_.data(), program_.images());
    program_.forward(Mode::evaluation);
    const auto loss = loss_of({labels_.data(), static_cast<std::size_t>(valid)}, 0, nullptr);
    result.loss += loss.sum;
    result.correct += loss.correct;
  }
  result.loss /= static_cast<double>(result.examples);
  return result;
}

ReplicaState CpuReplica::save() const {
  ReplicaState state;
  state.step = state_;
  for (const Parameter& p : network_.parameters) {
    state.parameters.push_back(tensor_of(p, weights_));
    state.velocity.push_back(tensor_of(p, velocity_));
  }
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    const Statistic& s = network_.statistics[i];
    state.statistics.push_back(
        {s.name, {s.size}, {statistics_[i].data(), statistics_[i].data() + s.size}});
  }
  return state;
}

void CpuReplica::load(const ReplicaState& state) {
  check_state(network_, state);
  for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
    const std::int64_t offset = network_.parameters[i].offset;
    std::ranges::copy(state.parameters[i].values, weights_.data() + offset);
    std::ranges::copy(state.velocity[i].values, velocity_.data() + offset);
  }
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    std::ranges::copy(state.statistics[i].values, statistics_[i].data());
  }
  state_ = state.step;
  stage_ = no_stage;
  ordered_epoch_ = -1;
  records_.clear();
}

std::string CpuReplica::first_non_finite_tensor() const {
  for (std::size_t i = 0; i < network_.ops.size(); ++i) {
    const std::span<const float> values = program_.output(static_cast<int>(i));
    if (!all_finite(values)) return "activation of " + network_.ops[i].name;
  }
  for (auto p = network_.parameters.rbegin(); p != network_.parameters.rend(); ++p) {
    if (!all_finite(part(update_gradients(), *p))) return "gradient of " + p->name;
  }
  for (const Parameter& p : network_.parameters) {
    if (!all_finite(part(weights_, p))) return p.name;
  }
  return "loss";
}

std::vector<ActivationRecord> CpuReplica::activations() const {
  std::vector<ActivationRecord> records;
  for (std::size_t i = 0; i < network_.ops.size(); ++i) {
    records.push_back(activation_record(network_.ops[i], program_.output(static_cast<int>(i))));
  }
  return records;
}

MemoryUse CpuReplica::memory() const {
  const std::size_t parameters =
      weights_.bytes() + gradients_.bytes() + mean_gradients_.bytes() + velocity_.bytes();
  return {parameters, program_.activation_bytes(), program_.workspace_bytes()};
}

LossResult CpuReplica::loss_of(std::span<const std::uint8_t> labels, double smoothing,
                               float* d_logits) {
  return cpu::loss_of(options_, network_, labels, smoothing, program_.logits(), d_logits);
}

void CpuReplica::pick_batch(std::int64_t pass) {
  const std::int64_t epoch = state_.step / steps_per_epoch_;
  const auto size = static_cast<std::int64_t>(picks_.size());
  const std::int64_t first = state_.step % steps_per_epoch_ * options_.batch_size + pass * size;
  const Augment& augment = options_.augment;
  const bool augmented = augment.crop_padding > 0 || augment.flip;
  for (std::int64_t i = 0; i < size; ++i) {
    const std::uint32_t example = order_[first + i];
    picks_[i].example = example;
    picks_[i].augmentation =
        augmented ? crop_flip(options_.seed, static_cast<std::uint32_t>(epoch), example,
                              static_cast<std::int32_t>(augment.crop_padding), augment.flip)
                  : CropFlip{};
    labels_[i] = dataset_.labels[example];
  }
  gather(network_.input, dataset_.pixels.data(), picks_, table_.data(), program_.images());
}

void CpuReplica::train(std::int64_t updates, StepParts* parts) {
  const ThreadCount count(threads_);
  check_updates(options_.stages, steps_per_epoch_, ordered_epoch_, state_.step, updates);
  enter_stage();
  records_.reserve(records_.size() + updates);
  for (std::int64_t i = 0; i < updates && is_alive(state_); ++i) step(parts);
}

// The sum of the loss over the batch, and its mean gradient in update_gradients(). Ends with the
// first pass whose loss is not finite, so that what blew up can still be inspected.
LossResult CpuReplica::compute_gradients(StepParts* parts) {
  const auto examples = static_cast<double>(options_.examples_per_pass());
  const double pixels = examples * static_cast<double>(network_.input.size());
  const double logits = examples * static_cast<double>(network_.classes);
  const auto floats = static_cast<double>(network_.parameter_count);
  const std::int64_t passes = options_.passes();
  LossResult total;
  for (std::int64_t pass = 0; pass < passes && std::isfinite(total.sum); ++pass) {
    if (parts != nullptr) parts->begin_pass();
    auto start = Clock::now();
    pick_batch(pass);
    finish_part(parts, "forward", "gathering the batch", (1 + sizeof(float)) * pixels, start);
    program_.forward(Mode::training, parts);
    start = Clock::now();
    const auto loss = loss_of(labels_, options_.label_smoothing, program_.d_logits());
    finish_part(parts, "forward", "loss and its gradient", 2 * sizeof(float) * logits, start);
    program_.backward(parts);
    total.sum += loss.sum;
    total.correct += loss.correct;
    if (passes > 1) {
      start = Clock::now();
      accumulate_gradients(network_.arena_size, 1 / static_cast<float>(passes), pass > 0,
                           gradients_.data(), mean_gradients_.data());
      finish_part(parts, "backward", "mean over the passes", (pass > 0 ? 12 : 8) * floats, start);
    }
  }
  return total;
}

void CpuReplica::step(StepParts* parts) {
  if (parts != nullptr) parts->begin_step();
  const LossResult loss = compute_gradients(parts);
  const auto start = Clock::now();
  const Buffer<float>& gradients = update_gradients();

  StepRecord record;
  record.step = state_.step;
  record.phase = phase_at(options_.schedule, state_.step, state_.gate_opened_at);
  record.lr = state_.lr;
  record.loss = loss.sum / static_cast<double>(options_.batch_size);
  record.correct = loss.correct;
  // A non-finite loss is known before the update, and so is the norm if it is to be clipped: the
  // update is then skipped, so that what blew up can still be inspected.
  record.finite = std::isfinite(record.loss);
  if (!record.finite || options_.clip_norm > 0) {
    record.grad_norm = norm(trained_, gradients);
    record.finite = record.finite && std::isfinite(record.grad_norm);
  }
  if (record.finite) {
    const UpdateScalars scalars = update_scalars(options_.rule, state_.lr, state_.previous_lr,
                                                 record.grad_norm, options_.clip_norm);
    const UpdateNorms squares = update(options_.rule, scalars, trained_, gradients.data(),
                                       weights_.data(), velocity_.data(), partial_norms_.data());
    record.grad_norm = std::sqrt(squares.gradient);
    record.update_norm = std::sqrt(squares.taken);
    record.weight_norm = std::sqrt(squares.weight + frozen_weights_squared_);
    record.finite = std::isfinite(record.grad_norm) && std::isfinite(record.weight_norm);
  } else {
    record.weight_norm = std::hypot(norm(trained_, weights_), std::sqrt(frozen_weights_squared_));
  }
  records_.push_back(record);
  advance(state_, options_.schedule, record.finite, record.correct);
  const double bytes = options_.clip_norm > 0 ? 24 : 20;
  finish_part(parts, "update", "update and the next rate",
              bytes * static_cast<double>(network_.parameter_count), start);
}

// Applies the changes of the next update's stage, once per stage.
void CpuReplica::enter_stage() {
  const std::size_t stage = stage_at(options_.stages, state_.step);
  if (stage == stage_) return;
  stage_ = stage;
  const TrainingStage& s = options_.stages[stage];
  trained_.clear();
  std::vector<UpdateBlock> frozen;
  for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
    const Parameter& p = network_.parameters[i];
    const ParameterRule& rule = options_.parameters[i];
    add_update_blocks(p.offset, p.size, rule.lr_scale, rule.weight_decay,
                      s.trained[i] ? trained_ : frozen);
  }
  partial_norms_.resize(trained_.size() + frozen.size());
  frozen_weights_squared_ = squared_norm(frozen, weights_.data(), partial_norms_.data());
  program_.train_only(TrainedOps(network_, s.trained, s.fixed_statistics));
  // A state saved at this step precedes this reset, so a resumed run does it as well.
  if (s.fresh_velocity && state_.step == s.begin) {
    std::fill_n(velocity_.data(), velocity_.size(), 0.0f);
  }
}

double CpuReplica::norm(std::span<const UpdateBlock> blocks, const Buffer<float>& arena) {
  return std::sqrt(squared_norm(blocks, arena.data(), partial_norms_.data()));
}

}  // namespace preheat::cpu
