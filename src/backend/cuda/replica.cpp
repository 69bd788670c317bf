#include "backend/cuda/replica.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "backend/cuda/float_16bit.h"
#include "backend/inspect.h"
#include "config/error.h"

namespace preheat::cuda {
namespace {

static_assert(arena_floats(1) == kernels::chunk_floats, "a chunk is of one tensor");

// A tensor whose rows (last dimension) are longer or shorter in another layout: added elements are
// zero.
std::vector<float> relayout(const Parameter& to, std::span<const float> values,
                            const Parameter& from) {
  const std::int64_t from_row = from.shape.back();
  const std::int64_t to_row = to.shape.back();
  std::vector<float> result(to.size, 0.0f);
  for (std::int64_t row = 0; row < to.size / to_row; ++row) {
    std::copy_n(values.data() + row * from_row, std::min(from_row, to_row),
                result.data() + row * to_row);
  }
  return result;
}

void finish_part(StepMeter* meter, const char* pass, const char* work, double bytes) {
  if (meter != nullptr) meter->finish_part({pass, "", work, {bytes, 0}});
}

}  // namespace

CudaReplica::CudaReplica(std::shared_ptr<Libraries> libraries, const Network& network,
                         const ReplicaOptions& options, std::span<const float> initial,
                         std::shared_ptr<const ResidentDataset> train)
    : libraries_(std::move(libraries)),
      network_(network),
      padded_(padded_network(network, options.precision)),
      options_(options),
      train_(device_dataset(std::move(train))),
      steps_per_epoch_(train_->size() / options.batch_size),
      table_(upload_table(options.normalize, stream_)),
      parameters_(padded_, options.precision, use_of(options)),
      statistics_(make_statistics(padded_, stream_)),
      state_(1),
      loss_(1),
      evaluation_loss_(1),
      loss_partials_(kernels::loss_partials(options.examples_per_pass())),
      position_(1),
      segment_of_(padded_.arena_size / kernels::chunk_floats),
      segment_of_mean_(in_passes() ? segment_of_.size() : 0),
      segments_(padded_.parameters.size()),
      norm_partials_(std::max(kernels::update_blocks(padded_.arena_size),
                              kernels::check_blocks(padded_.arena_size))),
      non_finite_(1),
      check_(1),
      counters_(2),
      device_records_(record_capacity),
      records_(record_capacity),
      orders_(2 * train_->size()),
      staged_orders_{PinnedBuffer<std::uint32_t>(train_->size()),
                     PinnedBuffer<std::uint32_t>(train_->size())} {
  if (static_cast<std::int64_t>(initial.size()) != network_.arena_size) {
    throw std::logic_error("initial: not an arena");
  }
  if (options_.parameters.size() != network_.parameters.size() || options_.stages.empty()) {
    throw std::logic_error("options: not of this network");
  }
  if (network_.parameters.size() >= kernels::has_16bit_gradient) {
    throw Error("the network has more tensors than the GPU's update supports; use --device cpu");
  }
  {
    const std::lock_guard lock(libraries_->mutex);
    program_ =
        std::make_unique<Program>(padded_, options_.examples_per_pass(), options_.precision,
                                  options_.deterministic, parameters_, statistics_, *libraries_);
  }
  const auto upload_segments = [&](const std::vector<bool>& is_16bit, Buffer<std::uint16_t>& to) {
    std::vector<std::uint16_t> segment_of(to.size());
    for (std::size_t i = 0; i < padded_.parameters.size(); ++i) {
      const Parameter& p = padded_.parameters[i];
      const auto entry =
          static_cast<std::uint16_t>(i | (is_16bit[i] ? kernels::has_16bit_gradient : 0));
      std::fill_n(segment_of.begin() + p.offset / kernels::chunk_floats,
                  arena_floats(p.size) / kernels::chunk_floats, entry);
    }
    upload(std::span<const std::uint16_t>(segment_of), to.data(), stream_);
    wait(stream_);
  };
  upload_segments(parameters_.gradient_is_16bit, segment_of_);
  if (in_passes()) {
    upload_segments(std::vector<bool>(padded_.parameters.size()), segment_of_mean_);
  }
  clear(parameters_.weights, stream_);
  clear(parameters_.velocity, stream_);
  clear(parameters_.gradients, stream_);
  clear(parameters_.mean_gradients, stream_);
  clear(parameters_.weights_16bit, stream_);
  clear(parameters_.gradients_16bit, stream_);
  clear(counters_, stream_);
  for (std::size_t i = 0; i < padded_.parameters.size(); ++i) {
    const Parameter& p = network_.parameters[i];
    const std::vector<float> tensor =
        relayout(padded_.parameters[i], initial.subspan(p.offset, p.size), p);
    upload(std::span(tensor), parameters_.weights.data() + padded_.parameters[i].offset, stream_);
    wait(stream_);
  }
  refresh_16bit_weights();
  StepState state = first_step(options_.schedule);
  if (options_.precision == Precision::fp16) state.loss_scale = initial_loss_scale;
  const kernels::NonFinite nothing;
  upload(std::span<const StepState>(&state, 1), state_.data(), stream_);
  upload(std::span<const kernels::NonFinite>(&nothing, 1), non_finite_.data(), stream_);
  PREHEAT_CHECK(cudaEventRecord(boundary_.get(), stream_.get()));
  wait(stream_);
}

// Buffers must not be freed while the device still works on them: freeing is not ordered after
// these streams.
CudaReplica::~CudaReplica() {
  cudaStreamSynchronize(upload_stream_.get());
  cudaStreamSynchronize(stream_.get());
}

// Makes the 16-bit weights from the current ones; updates keep them in sync.
void CudaReplica::refresh_16bit_weights() {
  if (parameters_.weights_16bit.size() == 0) return;
  const std::vector<float> weights = read(parameters_.weights.data(), parameters_.weights.size());
  std::vector<std::uint16_t> rounded(weights.size());
  std::ranges::transform(weights, rounded.begin(),
                         [&](float w) { return to_16bit(parameters_.element, w); });
  upload(std::span<const std::uint16_t>(rounded), parameters_.weights_16bit.data(), stream_);
  wait(stream_);
}

void CudaReplica::set_epoch_order(std::span<const std::uint32_t> permutation) {
  if (static_cast<std::int64_t>(permutation.size()) != train_->size()) {
    throw std::logic_error("set_epoch_order: not a permutation of the training examples");
  }
  const std::int64_t epoch = enqueued_ / steps_per_epoch_;
  const std::size_t parity = static_cast<std::size_t>(epoch & 1);
  PREHEAT_CHECK(cudaEventSynchronize(uploaded_[parity].get()));  // the staging buffer is free again
  std::ranges::copy(permutation, staged_orders_[parity].data());
  // The steps that may still read the order being overwritten are those of two epochs ago, which
  // `boundary_` follows; or, if this epoch's order is set again, steps of this epoch.
  if (epoch != ordered_epoch_ + 1) {
    PREHEAT_CHECK(cudaEventRecord(boundary_.get(), stream_.get()));
  }
  PREHEAT_CHECK(cudaStreamWaitEvent(upload_stream_.get(), boundary_.get()));
  upload(std::span<const std::uint32_t>(staged_orders_[parity].data(), permutation.size()),
         orders_.data() + static_cast<std::int64_t>(parity) * train_->size(), upload_stream_);
  PREHEAT_CHECK(cudaEventRecord(uploaded_[parity].get(), upload_stream_.get()));
  PREHEAT_CHECK(cudaEventRecord(boundary_.get(), stream_.get()));
  PREHEAT_CHECK(cudaStreamWaitEvent(stream_.get(), uploaded_[parity].get()));
  ordered_epoch_ = epoch;
}

// Applies the changes of the next update's stage, once per stage.
void CudaReplica::enter_stage() {
  const std::size_t stage = stage_at(options_.stages, enqueued_);
  if (stage == stage_) return;
  stage_ = stage;
  const TrainingStage& s = options_.stages[stage];
  std::vector<kernels::Segment> segments;
  for (std::size_t i = 0; i < padded_.parameters.size(); ++i) {
    const ParameterRule& rule = options_.parameters[i];
    segments.push_back({rule.lr_scale, rule.weight_decay, s.trained[i] ? 1 : 0});
  }
  upload(std::span<const kernels::Segment>(segments), segments_.data(), stream_);
  wait(stream_);
  program_->train_only(TrainedOps(padded_, s.trained, s.fixed_statistics));
  // A state saved at this step precedes this reset, so a resumed run does it as well.
  if (s.fresh_velocity && enqueued_ == s.begin) clear(parameters_.velocity, stream_);
  graphs_.clear();
  has_run_ = false;
}

double CudaReplica::gradient_bytes() const {
  double bytes = sizeof(float) * static_cast<double>(padded_.arena_size);
  for (std::size_t i = 0; i < padded_.parameters.size(); ++i) {
    if (!parameters_.gradient_is_16bit[i]) continue;
    bytes -= 2 * static_cast<double>(padded_.parameters[i].size);
  }
  return bytes;
}

double CudaReplica::update_gradient_bytes() const {
  return in_passes() ? sizeof(float) * static_cast<double>(padded_.arena_size) : gradient_bytes();
}

double CudaReplica::update_bytes() const {
  // w and v both ways, and w in 16 bits.
  const double others = parameters_.weights_16bit.size() > 0 ? 18 : 16;
  return others * static_cast<double>(padded_.arena_size) + update_gradient_bytes();
}

// With the gradients as a pass writes them.
kernels::Arena CudaReplica::arena_of_pass() const {
  kernels::Arena a;
  a.weights = parameters_.weights.data();
  a.velocity = parameters_.velocity.data();
  a.gradients = parameters_.gradients.data();
  if (parameters_.weights_16bit.size() > 0) {
    a.weights_16bit = parameters_.weights_16bit.data();
    a.gradients_16bit = parameters_.gradients_16bit.data();
    a.element_16bit = parameters_.element;
  }
  a.size = padded_.arena_size;
  a.segment_of = segment_of_.data();
  a.segments = segments_.data();
  return a;
}

// With the gradients that an update takes.
kernels::Arena CudaReplica::arena_of_update() const {
  kernels::Arena a = arena_of_pass();
  if (!in_passes()) return a;
  a.gradients = parameters_.mean_gradients.data();
  a.gradients_16bit = nullptr;
  a.segment_of = segment_of_mean_.data();
  return a;
}

// The caller holds the libraries' mutex.
void CudaReplica::enqueue_step(StepMeter* meter) {
  if (meter != nullptr) meter->begin();
  const std::int64_t passes = options_.passes();
  for (std::int64_t pass = 0; pass < passes; ++pass) {
    if (meter != nullptr) meter->begin_pass();
    enqueue_pass(pass, meter);
    if (in_passes()) {
      PREHEAT_CHECK(kernels::accumulate_gradients(arena_of_pass(), 1 / static_cast<float>(passes),
                                                  pass > 0, parameters_.mean_gradients.data(),
                                                  stream_.get()));
      finish_part(meter, "backward", "mean over the passes",
                  gradient_bytes() + (pass > 0 ? 2 : 1) * update_gradient_bytes());
    }
  }
  enqueue_update(meter);
}

// The loss of a pass, added to that of the passes before it, and its gradients.
void CudaReplica::enqueue_pass(std::int64_t index, StepMeter* meter) const {
  const auto batch = static_cast<double>(options_.examples_per_pass());
  const auto element = static_cast<double>(bytes_of(program_->element()));
  const kernels::BatchAugment augment{static_cast<std::int32_t>(options_.augment.crop_padding),
                                      options_.augment.flip, options_.seed};
  const cudaStream_t stream = stream_.get();
  PREHEAT_CHECK(kernels::gather_batch(train_->source(table_.data()), augment, orders_.data(),
                                      state_.data(), steps_per_epoch_, {index, options_.passes()},
                                      program_->element(), program_->batch(), stream));
  finish_part(meter, "forward", "gathering the batch",
              batch * (static_cast<double>(network_.input.size()) +
                       element * static_cast<double>(padded_.input.size())));
  program_->forward(Mode::training, state_.data(), stream_, meter);
  const kernels::Logits logits = program_->logits();
  PREHEAT_CHECK(kernels::softmax_xent(loss_options(options_, options_.label_smoothing), logits,
                                      scales_loss() ? state_.data() : nullptr, program_->element(),
                                      program_->d_logits(), index > 0, loss_.data(),
                                      {loss_partials_.data(), counters_.data()}, stream));
  finish_part(meter, "forward", "loss and its gradient",
              batch * static_cast<double>(network_.classes) *
                  (element + static_cast<double>(bytes_of(logits.element))));
  program_->backward(stream_, meter);
}

void CudaReplica::enqueue_update(StepMeter* meter) {
  const kernels::Arena parameters = arena_of_update();
  const cudaStream_t stream = stream_.get();
  const kernels::GradientCheck* check = nullptr;
  if (scales_loss() || options_.clip_norm > 0) {
    PREHEAT_CHECK(kernels::check_gradients(parameters, state_.data(), options_.clip_norm,
                                           norm_partials_.data(), counters_.data() + 1,
                                           check_.data(), stream));
    check = check_.data();
    finish_part(meter, "update", "norm of the gradients", update_gradient_bytes());
  }
  PREHEAT_CHECK(kernels::sgd_momentum(options_.rule, parameters, state_.data(), loss_.data(), check,
                                      norm_partials_.data(), non_finite_.data(), stream));
  finish_part(meter, "update", "sgd_momentum", update_bytes());
  const std::span partials(norm_partials_.data(), kernels::update_blocks(padded_.arena_size));
  PREHEAT_CHECK(kernels::advance_step(options_.schedule, state_.data(), loss_.data(), partials,
                                      check, scales_loss(),
                                      std::span(device_records_.data(), record_capacity), stream));
  finish_part(meter, "update", "record and next rate", 0);
}

std::vector<StepPart> CudaReplica::time_parts(std::int64_t updates) {
  check_updates(options_.stages, steps_per_epoch_, ordered_epoch_, enqueued_, updates);
  train(1);
  StepMeter meter(stream_);
  GraphExec graph;
  {
    const std::lock_guard lock(libraries_->mutex);
    const Graph captured = capture(stream_, [&] { enqueue_step(&meter); });
    meter.count_launches(captured);
    graph = instantiate(captured);
  }
  StepParts parts;
  for (std::int64_t i = 1; i < updates; ++i) {
    if (enqueued_ - collected_ == record_capacity) collect();
    if (diverged_) break;
    replay(graph, 1);
    ++enqueued_;
    meter.collect(parts);
  }
  return parts.medians();
}

void CudaReplica::launch_steps(std::int64_t updates) {
  // The first step of a stage runs eagerly to load the code of its kernels, which is not allowed
  // during a capture. It counts like any other step.
  if (!options_.cuda_graph || !has_run_) {
    const std::lock_guard lock(libraries_->mutex);
    const std::int64_t eager = options_.cuda_graph ? 1 : updates;
    for (std::int64_t i = 0; i < eager; ++i) enqueue_step();
    has_run_ = true;
    updates -= eager;
  }
  const std::int64_t many = std::max<std::int64_t>(1, passes_per_graph / options_.passes());
  for (const std::int64_t steps : {many, std::int64_t{1}}) {
    if (updates < steps) continue;
    GraphExec& graph = graphs_[steps];
    if (!graph) {
      const std::lock_guard lock(libraries_->mutex);
      const Graph captured = capture(stream_, [&] {
        for (std::int64_t i = 0; i < steps; ++i) enqueue_step();
      });
      launches_per_update_ = static_cast<std::int64_t>(nodes_of(captured)) / steps;
      graph = instantiate(captured);
    }
    replay(graph, updates / steps);
    updates %= steps;
  }
}

// Lets a trial of plans have the device to itself, also between two launches: one waits as long as
// the queue is full.
void CudaReplica::replay(const GraphExec& graph, std::int64_t times) {
  for (; times > 0; --times) {
    const std::shared_lock shared(libraries_->device);
    PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream_.get()));
  }
}

void CudaReplica::train(std::int64_t updates) {
  if (diverged_) return;
  check_updates(options_.stages, steps_per_epoch_, ordered_epoch_, enqueued_, updates);
  enter_stage();
  while (updates > 0) {
    if (enqueued_ - collected_ == record_capacity) collect();
    if (diverged_) return;
    const std::int64_t now = std::min(updates, record_capacity - (enqueued_ - collected_));
    launch_steps(now);
    enqueued_ += now;
    updates -= now;
  }
}

// Waits, and copies the records of all steps so far to the host.
void CudaReplica::collect() {
  for (std::int64_t at = collected_; at < enqueued_;) {
    const std::int64_t begin = at % record_capacity;
    const std::int64_t count = std::min(enqueued_ - at, record_capacity - begin);
    download(device_records_.data() + begin,
             std::span(records_.data() + begin, static_cast<std::size_t>(count)), stream_);
    at += count;
  }
  wait(stream_);
  for (; collected_ < enqueued_ && !diverged_; ++collected_) {
    const kernels::DeviceRecord& r = records_.data()[collected_ % record_capacity];
    last_record_ = {r.step,        r.lr,          r.loss,        r.correct, r.grad_norm,
                    r.update_norm, r.weight_norm, r.finite != 0, r.phase};
    drained_.push_back(last_record_);
    diverged_ = r.finite == 0;
  }
  if (diverged_) enqueued_ = --collected_;  // the device has stayed at the non-finite step
}

std::vector<StepRecord> CudaReplica::drain() {
  if (!diverged_) collect();
  return std::exchange(drained_, {});
}

void CudaReplica::enqueue_evaluation(const DeviceDataset& test) {
  const cudaStream_t stream = stream_.get();
  PREHEAT_CHECK(kernels::gather_in_order(test.source(table_.data()), position_.data(),
                                         program_->element(), program_->batch(), stream));
  program_->forward(Mode::evaluation, nullptr, stream_);
  PREHEAT_CHECK(kernels::softmax_xent(loss_options(options_, 0), program_->logits(), nullptr,
                                      program_->element(), nullptr, true, evaluation_loss_.data(),
                                      {loss_partials_.data(), counters_.data()}, stream));
  PREHEAT_CHECK(kernels::move_position(position_.data(), program_->batch().size, stream));
}

Evaluation CudaReplica::evaluate(const ResidentDataset& test) {
  const DeviceDataset& dataset = device_dataset(test);
  clear(evaluation_loss_, stream_);
  clear(position_, stream_);
  const std::int64_t batch = options_.examples_per_pass();
  std::int64_t batches = (dataset.size() + batch - 1) / batch;
  GraphExec& graph = evaluation_graphs_[dataset.number()];
  if (!options_.cuda_graph || !graph) {
    const std::lock_guard lock(libraries_->mutex);
    const std::int64_t eager = options_.cuda_graph ? 1 : batches;
    for (std::int64_t i = 0; i < eager; ++i) enqueue_evaluation(dataset);
    batches -= eager;
    if (options_.cuda_graph) {
      graph = instantiate(capture(stream_, [&] { enqueue_evaluation(dataset); }));
    }
  }
  replay(graph, batches);
  kernels::BatchLoss loss;
  download(evaluation_loss_.data(), std::span(&loss, 1), stream_);
  wait(stream_);
  return {loss.sum / static_cast<double>(dataset.size()), loss.correct, dataset.size()};
}

std::vector<float> CudaReplica::read(const float* from, std::size_t size) const {
  std::vector<float> values(size);
  download(from, std::span(values), stream_);
  wait(stream_);
  return values;
}

std::vector<float> CudaReplica::values(const Buffer<float>& arena, std::size_t parameter) const {
  const Parameter& p = padded_.parameters[parameter];
  return relayout(network_.parameters[parameter], read(arena.data() + p.offset, p.size), p);
}

// As an update takes them.
std::vector<float> CudaReplica::gradients(std::size_t parameter) const {
  if (in_passes()) return values(parameters_.mean_gradients, parameter);
  if (!parameters_.gradient_is_16bit[parameter]) return values(parameters_.gradients, parameter);
  const Parameter& p = padded_.parameters[parameter];
  std::vector<std::uint16_t> stored(p.size);
  download(parameters_.gradients_16bit.data() + p.offset, std::span(stored), stream_);
  wait(stream_);
  std::vector<float> result(stored.size());
  std::ranges::transform(stored, result.begin(),
                         [&](std::uint16_t bits) { return from_16bit(parameters_.element, bits); });
  return result;
}

ReplicaState CudaReplica::save() const {
  ReplicaState state;
  download(state_.data(), std::span(&state.step, 1), stream_);
  wait(stream_);
  for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
    const Parameter& p = network_.parameters[i];
    state.parameters.push_back({p.name, p.shape, values(parameters_.weights, i)});
    state.velocity.push_back({p.name, p.shape, values(parameters_.velocity, i)});
  }
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    const Statistic& s = network_.statistics[i];
    state.statistics.push_back({s.name, {s.size}, read(statistics_[i].data(), s.size)});
  }
  return state;
}

void CudaReplica::load(const ReplicaState& state) {
  check_state(network_, state);
  wait(stream_);
  for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
    const Parameter& from = network_.parameters[i];
    const Parameter& to = padded_.parameters[i];
    const std::vector<float> weights = relayout(to, state.parameters[i].values, from);
    const std::vector<float> velocity = relayout(to, state.velocity[i].values, from);
    upload(std::span(weights), parameters_.weights.data() + to.offset, stream_);
    upload(std::span(velocity), parameters_.velocity.data() + to.offset, stream_);
    wait(stream_);
  }
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    upload(std::span(state.statistics[i].values), statistics_[i].data(), stream_);
  }
  upload(std::span<const StepState>(&state.step, 1), state_.data(), stream_);
  const kernels::NonFinite nothing;
  upload(std::span<const kernels::NonFinite>(&nothing, 1), non_finite_.data(), stream_);
  refresh_16bit_weights();
  wait(stream_);
  enqueued_ = collected_ = state.step.step;
  diverged_ = !is_alive(state.step);
  last_record_ = {};
  drained_.clear();
  stage_ = no_stage;
  ordered_epoch_ = -1;
}

// Steps after the first non-finite one change nothing but recompute that step: from the same
// weights if its update was skipped, as it is after a loss or a checked gradient that is not
// finite. Otherwise they compute with weights that are not finite, and only the update's own report
// tells what it saw. Of several passes the activations of the last are there: each is made again.
std::string CudaReplica::first_non_finite_tensor() const {
  kernels::NonFinite seen;
  download(non_finite_.data(), std::span(&seen, 1), stream_);
  wait(stream_);
  if (std::isfinite(last_record_.loss)) {
    if (seen.last_gradient >= 0) {
      return "gradient of " + network_.parameters[seen.last_gradient].name;
    }
    if (seen.first_weight < static_cast<std::int32_t>(network_.parameters.size())) {
      return network_.parameters[seen.first_weight].name;
    }
  }
  for (std::int64_t pass = 0; pass < options_.passes(); ++pass) {
    if (in_passes()) {
      const std::lock_guard lock(libraries_->mutex);
      enqueue_pass(pass, nullptr);
    }
    for (std::size_t i = 0; i < network_.ops.size(); ++i) {
      if (!all_finite(program_->output(static_cast<int>(i), stream_))) {
        return "activation of " + network_.ops[i].name;
      }
    }
  }
  for (std::size_t i = network_.parameters.size(); i-- > 0;) {
    if (!all_finite(gradients(i))) return "gradient of " + network_.parameters[i].name;
  }
  for (std::size_t i = 0; i < network_.parameters.size(); ++i) {
    if (!all_finite(values(parameters_.weights, i))) return network_.parameters[i].name;
  }
  return "loss";
}

std::vector<ActivationRecord> CudaReplica::activations() const {
  std::vector<ActivationRecord> records;
  for (std::size_t i = 0; i < network_.ops.size(); ++i) {
    records.push_back(
        activation_record(network_.ops[i], program_->output(static_cast<int>(i), stream_)));
  }
  return records;
}

MemoryUse CudaReplica::memory() const {
  return {parameters_.bytes(), program_->activation_bytes(), program_->workspace_bytes()};
}

}  // namespace preheat::cuda
