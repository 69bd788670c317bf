// The one interface between preheat and the devices it trains on. Code above this folder works with
// any backend; it asks for the name of one only for what it says and what it offers to measure.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/benches.h"
#include "backend/step_parts.h"
#include "data/dataset.h"
#include "nn/network.h"
#include "optim/sgd_momentum.h"
#include "optim/step_state.h"
#include "schedule/lr_schedule.h"

namespace preheat {

/// A dataset in memory that a backend can read during a step; shared by all replicas.
class ResidentDataset {
 public:
  virtual ~ResidentDataset() = default;
  virtual std::int64_t size() const = 0;
};

/// What one update did.
struct StepRecord {
  std::int64_t step = 0;     // updates completed before this one
  float lr = 0;              // the learning rate it used
  double loss = 0;           // mean over the batch, before the update
  std::int64_t correct = 0;  // of the batch
  double grad_norm = 0;      // L2 norms: of the loss's gradient, before decay and clipping,
  double update_norm = 0;    // of what the update subtracted from the weights, both over trained
                             // parameters,
  double weight_norm = 0;    // and of all weights after it
  bool finite = true;        // loss, gradient and weights are
  int phase = 0;             // of the schedule
};

struct Evaluation {
  double loss = 0;  // mean over all examples
  std::int64_t correct = 0;
  std::int64_t examples = 0;
  double accuracy() const { return static_cast<double>(correct) / static_cast<double>(examples); }
};

/// One tensor of a state, with its name in the network.
struct NamedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// The complete state of a replica besides its configuration: enough to resume bit for bit.
struct ReplicaState {
  std::vector<NamedTensor> parameters;
  std::vector<NamedTensor> velocity;    // like the parameters
  std::vector<NamedTensor> statistics;  // running means and variances of batch norm
  StepState step;
};

/// How one parameter is updated.
struct ParameterRule {
  float lr_scale = 1;
  float weight_decay = 0;
};

/// A part of the run, starting at update `begin`, in which some parameters may be frozen: their
/// weights and velocities keep their bits.
struct TrainingStage {
  std::int64_t begin = 0;
  std::vector<bool> trained;      // by parameter
  bool fresh_velocity = false;    // all velocities are zero before its first update
  bool fixed_statistics = false;  // a frozen batch norm uses its running statistics unchanged;
                                  // otherwise it uses the batch's, as a trained one does
};

struct ReplicaOptions {
  std::int64_t batch_size = 0;
  // Examples per forward and backward pass, a divisor of batch_size; 0: all of them. An update is
  // by the mean of the gradients of its passes, each of which is a batch of its own to batch norm.
  std::int64_t micro_batch = 0;
  Normalize normalize;
  Augment augment;
  Loss loss = Loss::cross_entropy;
  double label_smoothing = 0;
  SgdMomentum rule;
  double clip_norm = 0;  // of the gradient of the trained parameters; 0: not clipped
  std::vector<ParameterRule> parameters;  // like Network::parameters
  std::vector<TrainingStage> stages;      // in order; the first begins at 0
  LrSchedule schedule;
  std::uint64_t seed = 0;  // of the augmentation
  Precision precision = Precision::fp32;
  bool deterministic = true;
  bool cuda_graph = true;
  int cpu_threads = 0;  // 0: all; the bits of the result depend on their number

  std::int64_t examples_per_pass() const { return micro_batch > 0 ? micro_batch : batch_size; }
  std::int64_t passes() const { return batch_size / examples_per_pass(); }
};

/// The output of one layer for the last pass of the last update.
struct ActivationRecord {
  std::string layer;   // the op's name
  double largest = 0;  // absolute value; NaN if any value is
  double dead = 0;     // share of its channels that were not above zero anywhere, in any example
};

/// In bytes.
struct MemoryUse {
  std::size_t parameters = 0;   // weights, gradients and their mean over passes, velocity
  std::size_t activations = 0;  // kept by forward for backward, and gradients of activations
  std::size_t workspace = 0;    // packed weights and the libraries' scratch memory

  std::size_t total() const { return parameters + activations + workspace; }
};

/// The loss of a network on one fixed batch, chosen by use(), and the outputs of its layers, as
/// functions of its weights alone: batch norms use the batch's own moments and keep no statistics,
/// images are not augmented, weight decay is excluded.
class Probe {
 public:
  virtual ~Probe() = default;

  /// Makes the batch that of the dataset's examples from `first` on, as many as it is of; at first
  /// it is that from 0 on. Throws std::logic_error if the dataset ends before.
  virtual void use(std::int64_t first) = 0;

  /// `weights` is an arena of Network::arena_size floats with zero padding.
  virtual double loss(std::span<const float> weights) = 0;

  /// Returns the loss and writes its gradient to an arena of the same size, with zero padding.
  virtual double gradient(std::span<const float> weights, std::span<float> gradient) = 0;

  /// Returns the output of each op, [examples, height, width, channels] of Op::out, in the order of
  /// Network::ops. The same weights give the same bits.
  virtual std::vector<std::vector<float>> outputs(std::span<const float> weights) = 0;

  virtual MemoryUse memory() const = 0;
};

/// One network being trained on one device, with its weights, velocity, statistics and step
/// counter.
class Replica {
 public:
  virtual ~Replica() = default;

  /// Sets the order of the epoch of the next update: a permutation of the training examples. Epoch
  /// and position follow from the step counter.
  virtual void set_epoch_order(std::span<const std::uint32_t> permutation) = 0;

  /// Does `updates` more updates, which must not cross the end of the epoch or of the stage.
  /// Enqueues and returns (a GPU still works, a CPU is done). After the first step that is not
  /// finite nothing is updated.
  virtual void train(std::int64_t updates) = 0;

  /// Waits, and returns one record per update since the last call, in order. A record that is not
  /// finite is the last; it may be of the passes up to the one that was not.
  virtual std::vector<StepRecord> drain() = 0;

  /// Loss (without label smoothing) and hits over a whole dataset; batch norm uses its running
  /// statistics, images are not augmented.
  virtual Evaluation evaluate(const ResidentDataset& test) = 0;

  virtual ReplicaState save() const = 0;

  /// Drops the records that were not drained and the epoch's order. Throws Error naming the first
  /// tensor that is not of the same name and shape in the network, in its order.
  virtual void load(const ReplicaState& state) = 0;

  /// After a step that was not finite: the first tensor, in the order of computation, with a value
  /// that is not finite ("activation of 2", "gradient of 0.conv.weight", "2.linear.weight"); of its
  /// passes the first with an activation that is not finite.
  virtual std::string first_non_finite_tensor() const = 0;

  /// One record per op, in order; requires at least one update.
  virtual std::vector<ActivationRecord> activations() const = 0;

  virtual MemoryUse memory() const = 0;

  /// Device launches per update; 0 if there are none, or none have been counted yet.
  virtual std::int64_t launches_per_update() const = 0;

  /// Does `updates` more updates, at least 2, within the epoch and the stage as for train(), and
  /// times the parts of all but the first. The parts run serially, including those that train()
  /// overlaps. Leaves records to drain() as train() does.
  virtual std::vector<StepPart> time_parts(std::int64_t updates) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;     // "cpu" or "cuda"
  virtual std::string device() const = 0;   // the processor's own name
  virtual std::string library() const = 0;  // "oneDNN 2.6.3"

  /// Whether compile() and probe() accept this precision.
  virtual bool computes_in(Precision precision) const = 0;

  /// How many replicas with `cpu_threads` threads each may be compiled and trained concurrently,
  /// each by a thread of its own; more gain nothing.
  virtual int concurrent_replicas(int cpu_threads) const = 0;

  /// Copies the dataset to where replicas read it. Throws OutOfMemory if memory is insufficient.
  virtual std::shared_ptr<ResidentDataset> load(const Dataset& dataset) = 0;

  /// Throws OutOfMemory, naming what is needed and available, if compile() would run out of memory.
  /// Cheap; call it before creating initial parameters.
  virtual void require_memory(const Network& network, const ReplicaOptions& options) const = 0;

  /// The same for probe(), which computes in fp32 whatever the run's precision.
  virtual void require_memory(const Network& network, std::int64_t examples) const = 0;

  /// A replica at step 0 with `initial` parameters (Network::arena_size floats) and zero velocity.
  /// Throws OutOfMemory, leaving none of it taken, if memory is insufficient.
  virtual std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                           std::span<const float> initial,
                                           std::shared_ptr<const ResidentDataset> train) = 0;

  /// A probe on the first `examples` of a dataset (all of them if there are fewer), with the
  /// normalisation, loss and label smoothing of the options. Throws OutOfMemory as compile() does.
  virtual std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                                       std::shared_ptr<const ResidentDataset> data,
                                       std::int64_t examples) = 0;

  virtual Benches& benches() = 0;
};

enum class DeviceChoice { automatic, cpu, cuda };
constexpr auto spelling(DeviceChoice) {
  return Spelling{"a device", {"auto", "cpu", "cuda"}};
}

/// Throws Error if CUDA is requested and unusable. `automatic` takes CUDA if it is usable;
/// otherwise `why_not` receives the reason.
std::unique_ptr<Backend> make_backend(DeviceChoice choice, std::string* why_not = nullptr);

}  // namespace preheat
