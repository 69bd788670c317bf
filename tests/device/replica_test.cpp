// Replicas on the GPU: what every backend guarantees, and a comparison with the CPU's backend.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "backend/backend.h"
#include "backend/reference_network.h"
#include "backend/replica_promises.h"
#include "data/epoch_order.h"
#include "device/leaves.h"
#include "same_state.h"
#include "schedule/schedule.h"
#include "settings.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

// An epoch is 10 updates. Together with `plain` and `smooth`, every kind of layer: poolings of 2
// and of 3, layers with and without batch norm, blocks with both kinds of shortcut, an output that
// two layers read, every activation.
constexpr const char* every_layer = R"(
data: {dataset: synthetic, batch_size: 8, train_limit: 80}
model:
  layers:
    - conv: {out: 8, batch_norm: true}
    - max_pool
    - residual_stage: {blocks: 2, out: 16, stride: 2, activation: leaky_relu(0.2)}
    - conv: {out: 24, activation: leaky_relu(0.1)}
    - max_pool
    - linear: {out: 20, activation: relu}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3}
schedule: {base_lr: 0.05, warmup: {length: 7 steps}}
train: {length: 3 epochs}
)";

constexpr const char* plain = R"(
data: {dataset: synthetic, batch_size: 10, train_limit: 100}
model:
  layers:
    - conv: {out: 12, activation: relu}
    - max_pool: {kernel: 3}
    - conv: {out: 32, kernel: 5, stride: 2, activation: relu}
    - conv: {out: 10, kernel: 1, activation: none}
    - global_avg_pool
schedule: {base_lr: 0.1, warmup: {length: 5 steps}}
train: {length: 3 epochs}
)";

constexpr const char* smooth = R"(
data: {dataset: synthetic, batch_size: 8, train_limit: 80}
model:
  layers:
    - conv: {out: 8, batch_norm: true, activation: tanh}
    - max_pool
    - residual_stage: {blocks: 2, out: 8, activation: tanh}
    - conv: {out: 9, activation: tanh}
    - linear: {out: 20, activation: tanh}
    - linear: {out: 10}
schedule: {base_lr: 0.05, warmup: {length: 7 steps}}
train: {length: 3 epochs}
)";

std::string precision_of(const testing::TestParamInfo<Subject>& info) {
  return info.param.precision;
}
constexpr Subject fp32{DeviceChoice::cuda, "fp32", no_device};
constexpr Subject bf16{DeviceChoice::cuda, "bf16", no_device};
constexpr Subject fp16{DeviceChoice::cuda, "fp16", no_device};
INSTANTIATE_TEST_SUITE_P(Cuda, ReplicaTest, testing::Values(fp32), precision_of);
INSTANTIATE_TEST_SUITE_P(Cuda, ReplicaBits, testing::Values(fp32, bf16, fp16), precision_of);

class CudaReplica : public testing::Test {
 protected:
  void SetUp() override {
    const std::string reason = no_device();
    if (!reason.empty()) GTEST_SKIP() << reason;
    cuda_ = make_backend(DeviceChoice::cuda);
    cpu_ = make_backend(DeviceChoice::cpu);
  }

  void use(const std::string& yaml, const std::vector<std::string>& settings = {}) {
    config_ = read_config(with_settings(parse_document(yaml, "test.yaml"), settings));
    data_ = load_dataset(config_.data);
    keep_first(data_.test, 84);
    network_ = build_network(config_, data_.train.shape, data_.train.classes);
    const std::int64_t steps = data_.train.size() / config_.data.batch_size;
    schedule_ = resolve_schedule(config_, run_length(config_, steps));
    options_ = replica_options(config_, network_, schedule_);
    initial_ = initial_parameters(network_, config_.model, config_.seed);
  }

  std::unique_ptr<Replica> replica(Backend& backend) {
    return backend.compile(network_, options_, initial_, backend.load(data_.train));
  }

  // Trains updates from .. to - 1 of the run, at most `at_once` at a time, and returns their
  // records.
  std::vector<StepRecord> train(Replica& r, std::int64_t from, std::int64_t to,
                                std::int64_t at_once = 1) const {
    const std::int64_t per_epoch = data_.train.size() / config_.data.batch_size;
    std::vector<StepRecord> all;
    for (std::int64_t step = from; step < to;) {
      if (step == from || step % per_epoch == 0) {
        r.set_epoch_order(epoch_order(config_.seed, static_cast<std::uint32_t>(step / per_epoch),
                                      static_cast<std::uint32_t>(data_.train.size())));
      }
      std::int64_t n = std::min({at_once, to - step, per_epoch - step % per_epoch});
      for (const TrainingStage& stage : options_.stages) {
        if (stage.begin > step) n = std::min(n, stage.begin - step);
      }
      r.train(n);
      step += n;
      const std::vector<StepRecord> records = r.drain();
      all.insert(all.end(), records.begin(), records.end());
      if (records.empty() || !records.back().finite) break;
    }
    return all;
  }

  std::unique_ptr<Backend> cuda_;
  std::unique_ptr<Backend> cpu_;
  RunConfig config_;
  TrainTest data_;
  Network network_;
  Schedule schedule_;
  ReplicaOptions options_;
  std::vector<float> initial_;
};

// ||a - b|| / ||b|| over all tensors: alone, a bias that was 0 a step ago is mostly rounding error.
double distance(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t t = 0; t < a.size(); ++t) {
    for (std::size_t i = 0; i < a[t].values.size(); ++i) {
      difference += std::pow(double{a[t].values[i]} - double{b[t].values[i]}, 2);
      norm += std::pow(double{b[t].values[i]}, 2);
    }
  }
  if (norm == 0) return difference == 0 ? 0 : INFINITY;
  const double relative = std::sqrt(difference / norm);
  return std::isnan(relative) ? INFINITY : relative;
}

TEST_F(CudaReplica, ComputesInFp32WhatTheCpuDoes) {
  for (const char* yaml : {every_layer, plain, smooth}) {
    for (const std::vector<std::string>& settings :
         {std::vector<std::string>{},
          {"data.augment={crop_padding: 2, flip: true}", "optimizer.nesterov=true"},
          {"optimizer.clip_norm=0.5", "label_smoothing=0.1", "optimizer.momentum_form=folded"},
          {"loss=mse"}}) {
      SCOPED_TRACE(settings.empty() ? "as it is" : settings.front());
      use(yaml, settings);
      auto gpu = replica(*cuda_);
      auto cpu = replica(*cpu_);
      const auto a = train(*gpu, 0, 4);
      const auto b = train(*cpu, 0, 4);
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].step, b[i].step);
        EXPECT_EQ(a[i].lr, b[i].lr);
        EXPECT_EQ(a[i].phase, b[i].phase);
        EXPECT_TRUE(a[i].finite);
        EXPECT_NEAR(a[i].loss, b[i].loss, 2e-4 * (1 + std::abs(b[i].loss)));
        EXPECT_NEAR(a[i].grad_norm, b[i].grad_norm, 2e-3 * b[i].grad_norm);
        EXPECT_NEAR(a[i].update_norm, b[i].update_norm, 2e-3 * b[i].update_norm);
        EXPECT_NEAR(a[i].weight_norm, b[i].weight_norm, 1e-5 * b[i].weight_norm);
        EXPECT_NEAR(static_cast<double>(a[i].correct), static_cast<double>(b[i].correct), 1);
      }
      EXPECT_LT(distance(gpu->save().parameters, cpu->save().parameters), 1e-3);
      EXPECT_LT(distance(gpu->save().statistics, cpu->save().statistics), 1e-3);
      // From the same state, evaluation gives the same numbers.
      cpu->load(gpu->save());
      const auto on_gpu = gpu->evaluate(*cuda_->load(data_.test));
      const auto on_cpu = cpu->evaluate(*cpu_->load(data_.test));
      EXPECT_EQ(on_gpu.examples, on_cpu.examples);
      EXPECT_NEAR(on_gpu.loss, on_cpu.loss, 1e-4 * (1 + on_cpu.loss));
      EXPECT_NEAR(static_cast<double>(on_gpu.correct), static_cast<double>(on_cpu.correct), 2);
    }
  }
}

// What the updates moved is compared tensor by tensor, as the weights themselves hardly move in
// three updates. Biases and batch norms are left out: theirs is mostly rounding error. The bounds
// are two to three times what was seen; a tensor whose gradient is lost is at 1, half of it at 0.5
// or more.
TEST_F(CudaReplica, ComputesInLessThanFp32NearlyWhatTheCpuDoes) {
  struct Bound {
    const char* precision;
    double loss;
    double moved;
  };
  constexpr Bound bounds[] = {{"tf32", 5e-3, 0.2}, {"bf16", 5e-2, 0.4}, {"fp16", 2e-2, 0.25}};
  for (const char* yaml : {every_layer, plain, smooth}) {
    use(yaml);
    auto cpu = replica(*cpu_);
    const std::vector<NamedTensor> initial = cpu->save().parameters;
    const auto moved_in = [&](const Replica& r) {
      std::vector<NamedTensor> moved = r.save().parameters;
      for (std::size_t t = 0; t < moved.size(); ++t) {
        std::ranges::transform(moved[t].values, initial[t].values, moved[t].values.begin(),
                               std::minus());
      }
      return moved;
    };
    const auto b = train(*cpu, 0, 3);
    const std::vector<NamedTensor> on_cpu = moved_in(*cpu);
    for (const auto& [precision, loss, moved] : bounds) {
      SCOPED_TRACE(precision);
      use(yaml, {std::string("train.precision=") + precision});
      auto gpu = replica(*cuda_);
      ReplicaState state = gpu->save();
      state.step.loss_scale = std::min(state.step.loss_scale, 128.0f);  // no step is skipped
      gpu->load(state);
      const auto a = train(*gpu, 0, 3);
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_NEAR(a[i].loss, b[i].loss, loss * (1 + b[i].loss));
        EXPECT_NEAR(a[i].grad_norm, b[i].grad_norm, 5 * loss * b[i].grad_norm);
      }
      const std::vector<NamedTensor> on_gpu = moved_in(*gpu);
      for (std::size_t t = 0; t < on_gpu.size(); ++t) {
        if (!network_.parameters[t].decayed) continue;
        EXPECT_LT(distance({on_gpu[t]}, {on_cpu[t]}), moved) << on_gpu[t].name;
      }
      EXPECT_LT(distance(gpu->save().parameters, cpu->save().parameters), loss);
    }
  }
}

TEST_F(CudaReplica, ReplayedStepsHaveTheBitsOfEagerOnes) {
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    const std::string key = std::string("train.precision=") + precision;
    use(every_layer, {key, "data.augment={crop_padding: 2, flip: true}"});
    auto replayed = replica(*cuda_);
    auto grouped = replica(*cuda_);
    const auto a = train(*replayed, 0, 30, 10);
    const auto b = train(*grouped, 0, 30, 3);
    use(every_layer, {key, "data.augment={crop_padding: 2, flip: true}", "train.cuda_graph=false"});
    auto eager = replica(*cuda_);
    const auto c = train(*eager, 0, 30, 10);
    EXPECT_TRUE(same(replayed->save(), grouped->save())) << precision;
    EXPECT_TRUE(same(replayed->save(), eager->save())) << precision;
    ASSERT_EQ(a.size(), 30u);
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].loss, c[i].loss);
      EXPECT_EQ(a[i].grad_norm, b[i].grad_norm);
      EXPECT_EQ(a[i].step, static_cast<std::int64_t>(i));
      EXPECT_NEAR(a[i].lr, lr_at(schedule_.lr, a[i].step), 1e-7 * schedule_.base_lr);
    }
    EXPECT_LT(a.back().loss, a.front().loss);
    EXPECT_NEAR(replayed->evaluate(*cuda_->load(data_.test)).loss,
                eager->evaluate(*cuda_->load(data_.test)).loss, 0);
  }
}

// Short, for tools that watch every access to memory.
TEST_F(CudaReplica, AFewSmallStepsHaveTheSameBitsInAGraph) {
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    for (const char* network : {every_layer, plain, smooth}) {
      const std::vector<std::string> base = {"data.batch_size=3", "data.train_limit=9",
                                             std::string("train.precision=") + precision};
      use(network, base);
      auto in_graph = replica(*cuda_);
      train(*in_graph, 0, 3, 3);
      std::vector<std::string> settings = base;
      settings.push_back("train.cuda_graph=false");
      use(network, settings);
      auto eager = replica(*cuda_);
      train(*eager, 0, 3, 3);
      EXPECT_TRUE(same(in_graph->save(), eager->save())) << precision;
      const auto images = cuda_->load(data_.train);
      EXPECT_EQ(in_graph->evaluate(*images).loss, eager->evaluate(*images).loss) << precision;
    }
  }
}

TEST_F(CudaReplica, StandsStillWhereAStageSaysSo) {
  for (const char* precision : {"fp32", "bf16"}) {
    use(every_layer,
        {std::string("train.precision=") + precision,
         "train.stages=[{length: 5 steps}, {length: 7 steps, train_only: ['*linear*'], velocity: "
         "fresh, frozen_batch_norm: fixed}, {}]"});
    auto r = replica(*cuda_);
    train(*r, 0, 5, 5);
    const ReplicaState before = r->save();
    const auto records = train(*r, 5, 12, 7);
    const ReplicaState after = r->save();
    for (std::size_t i = 0; i < before.parameters.size(); ++i) {
      const bool linear = before.parameters[i].name.find("linear") != std::string::npos;
      EXPECT_EQ(before.parameters[i].values == after.parameters[i].values, !linear)
          << before.parameters[i].name;
    }
    EXPECT_TRUE(same_tensors(before.statistics, after.statistics));
    EXPECT_EQ(records.size(), 7u);
    train(*r, 12, 30, 10);
    EXPECT_FALSE(same_tensors(after.statistics, r->save().statistics));
    if (std::string(precision) == "bf16") continue;
    auto cpu = replica(*cpu_);
    cpu->load(before);
    const auto expected = train(*cpu, 5, 12, 7);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(records[i].loss, expected[i].loss, 1e-3);
      EXPECT_NEAR(records[i].grad_norm, expected[i].grad_norm, 1e-2 * expected[i].grad_norm);
    }
  }
}

TEST_F(CudaReplica, StopsAtTheFirstStepThatIsNotFinite) {
  for (const std::vector<std::string>& settings :
       {std::vector<std::string>{"train.precision=fp32"},
        {"train.precision=bf16"},
        {"train.precision=fp32", "optimizer.clip_norm=1e9"}}) {
    std::vector<std::string> all = settings;
    all.insert(all.end(), {"schedule.base_lr=1e12", "schedule.warmup.length=0 steps",
                           "data.batch_size=50", "data.train_limit=500"});
    use(plain, all);
    auto gpu = replica(*cuda_);
    const auto records = train(*gpu, 0, 30, 10);
    ASSERT_FALSE(records.empty());
    const StepRecord& last = records.back();
    EXPECT_FALSE(last.finite);
    EXPECT_EQ(gpu->save().step.first_non_finite, last.step);
    EXPECT_EQ(gpu->save().step.step, last.step);
    const std::string tensor = gpu->first_non_finite_tensor();
    EXPECT_TRUE(gpu->drain().empty());
    const ReplicaState state = gpu->save();
    gpu->train(1);
    EXPECT_TRUE(gpu->drain().empty());
    EXPECT_TRUE(same(gpu->save(), state));
    if (settings.front() != "train.precision=fp32") continue;
    auto cpu = replica(*cpu_);
    const auto expected = train(*cpu, 0, 30, 10);
    EXPECT_EQ(last.step, expected.back().step);
    // Near the largest float the two need not overflow at the same layer.
    EXPECT_EQ(tensor.substr(0, 10), cpu->first_non_finite_tensor().substr(0, 10));
  }
}

TEST_F(CudaReplica, AnOverflowHalvesTheLossScaleAndGoesOn) {
  use(every_layer, {"train.precision=fp16"});
  auto r = replica(*cuda_);
  ReplicaState state = r->save();
  EXPECT_EQ(state.step.loss_scale, initial_loss_scale);
  state.step.loss_scale = 0x1p24f;  // overflows for sure
  r->load(state);
  const auto records = train(*r, 0, 30, 10);
  EXPECT_EQ(records.size(), 30u);
  EXPECT_EQ(records.front().update_norm, 0);
  EXPECT_TRUE(records.back().finite);
  EXPECT_GT(records[28].update_norm, 0);  // the last one's rate is 0
  EXPECT_LT(r->save().step.loss_scale, 0x1p24f);
}

TEST_F(CudaReplica, ReplicasSideBySideHaveTheBitsOfOneAlone) {
  use(every_layer, {"train.precision=bf16"});
  const auto data = cuda_->load(data_.train);
  auto alone = cuda_->compile(network_, options_, initial_, data);
  train(*alone, 0, 30, 10);
  std::vector<std::unique_ptr<Replica>> many;
  for (int i = 0; i < 4; ++i) many.push_back(cuda_->compile(network_, options_, initial_, data));
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    for (auto& r : many) {
      r->set_epoch_order(epoch_order(config_.seed, static_cast<std::uint32_t>(epoch), 80));
      r->train(10);
    }
  }
  for (auto& r : many) {
    EXPECT_EQ(r->drain().size(), 30u);
    EXPECT_TRUE(same(r->save(), alone->save()));
  }
}

// Each dataset is freed before the next one is loaded, which may then get the same memory.
TEST_F(CudaReplica, EvaluatesTheDatasetThatItIsGiven) {
  use(plain);
  auto r = replica(*cuda_);
  const Evaluation expected = r->evaluate(*cuda_->load(data_.test));
  Dataset wrong = data_.test;
  for (std::uint8_t& label : wrong.labels) label = static_cast<std::uint8_t>((label + 1) % 10);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NE(r->evaluate(*cuda_->load(wrong)).loss, expected.loss);
    EXPECT_EQ(r->evaluate(*cuda_->load(data_.test)).loss, expected.loss);
  }
}

TEST_F(CudaReplica, UpdatesWhosePartsAreTimedHaveTheSameBits) {
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    SCOPED_TRACE(precision);
    use(every_layer, {std::string("train.precision=") + precision});
    auto plain_one = replica(*cuda_);
    const auto records = train(*plain_one, 0, 5);
    auto timed = replica(*cuda_);
    timed->set_epoch_order(
        epoch_order(config_.seed, 0, static_cast<std::uint32_t>(data_.train.size())));
    const std::vector<StepPart> parts = timed->time_parts(5);
    const auto timed_records = timed->drain();
    ASSERT_EQ(timed_records.size(), records.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
      EXPECT_EQ(timed_records[i].loss, records[i].loss);
    }
    EXPECT_TRUE(same(timed->save(), plain_one->save()));
    std::int64_t launches = 0;
    std::int64_t kernels = 0;  // all but the products, for which a library may launch several
    for (const StepPart& part : parts) {
      EXPECT_GT(part.launches, 0) << part.layer << " " << part.work;
      launches += part.launches;
      if (part.cost.operations > 0) continue;
      EXPECT_EQ(part.launches, 1) << part.layer << " " << part.work;
      ++kernels;
    }
    EXPECT_EQ(launches, plain_one->launches_per_update());
    // In fp32, where no convolution takes the moments on its way: four of each batch norm, two of
    // each bias and of the pooling that is not fused; the batch, the loss, the update, the next
    // rate.
    if (std::string(precision) == "fp32") {
      EXPECT_EQ(kernels, 4 * 6 + 2 * 3 + 2 + 4);
    }
    EXPECT_EQ(std::ranges::count(parts, "sgd_momentum", &StepPart::work), 1);
  }
}

// What launch.h says that the kernels read and write: passes in arrays of the size of the layer's
// output before its pooling.
TEST_F(CudaReplica, CountsTheBytesThatItsKernelsMove) {
  constexpr const char* norms = R"(
data: {dataset: synthetic, batch_size: 4, train_limit: 40}
model:
  layers:
    - {name: norm, conv: {out: 8, batch_norm: true, activation: relu}}
    - {name: identity_norm, conv: {out: 8, batch_norm: true, activation: none}}
    - {name: pooled_norm, conv: {out: 8, batch_norm: true, activation: relu}}
    - max_pool
    - {name: shared, conv: {out: 8, batch_norm: true, activation: relu}}
    - max_pool
    - {name: stage, residual_stage: {blocks: 2, out: 8}}
    - global_avg_pool
    - linear: {out: 10}
train: {length: 1 epochs}
)";
  constexpr const char* biases = R"(
data: {dataset: synthetic, batch_size: 4, train_limit: 40}
model:
  layers:
    - {name: bias, conv: {out: 8, activation: relu}}
    - {name: plain, conv: {out: 8, activation: none}}
    - {name: pooled, conv: {out: 8, activation: relu}}
    - max_pool
    - {name: shared, conv: {out: 8, activation: none}}
    - {name: stage, residual_stage: {blocks: 1, out: 8}}
    - {name: hidden, linear: {out: 20, activation: relu}}
    - {name: last, linear: {out: 10}}
)";
  const std::string fixed =
      "train.stages=[{train_only: ['*conv.weight', '*linear*'], frozen_batch_norm: fixed}]";
  std::vector<StepPart> parts;
  const auto run = [&](const char* yaml, const std::vector<std::string>& settings) {
    use(yaml, settings);
    auto r = replica(*cuda_);
    r->set_epoch_order(
        epoch_order(config_.seed, 0, static_cast<std::uint32_t>(data_.train.size())));
    parts = r->time_parts(2);
  };
  const auto cost_of = [&](const std::string& work, const std::string& layer) {
    for (const StepPart& part : parts) {
      if (part.work == work && part.layer == layer) return part.cost;
    }
    ADD_FAILURE() << "no " << work << " of " << layer;
    return Cost{};
  };
  const auto arrays = [&](const std::string& work, const std::string& layer, double element) {
    const auto op = std::ranges::find(network_.ops, layer, &Op::name);
    EXPECT_NE(op, network_.ops.end()) << layer;
    return cost_of(work, layer).bytes / (element * static_cast<double>(4 * op->out.size()));
  };
  const auto sums = [&](const char* layer) {
    return arrays("batch norm's gradient, sums", layer, 2);
  };
  const auto second = [&](const char* layer) { return arrays("batch norm's gradient", layer, 2); };
  const auto bias = [&](const char* layer) {
    return arrays("bias's and activation's gradient", layer, 2);
  };
  for (const bool is_fixed : {false, true}) {
    SCOPED_TRACE(is_fixed ? fixed : "trained");
    run(norms, {"train.precision=bf16", is_fixed ? fixed : "seed=0"});
    EXPECT_EQ(sums("norm"), 2);  // x, dy
    EXPECT_EQ(sums("identity_norm"), 2);
    EXPECT_EQ(sums("pooled_norm"), 1.25);
    EXPECT_EQ(sums("shared"), 1.5);
    EXPECT_EQ(sums("stage.block0.first"), 2);
    EXPECT_EQ(sums("stage.block0.second"), 5);  // x, y, dy of both readers, the residual's gradient
    EXPECT_EQ(sums("stage.block1.second"), 4);
    EXPECT_EQ(second("norm"), 3);  // x, dy, dx
    EXPECT_EQ(second("identity_norm"), is_fixed ? 2 : 3);
    EXPECT_EQ(second("pooled_norm"), 2.25);
    EXPECT_EQ(second("shared"), 2.5);
    EXPECT_EQ(second("stage.block0.second"), is_fixed ? 2 : 3);
    EXPECT_EQ(second("stage.block1.second"), is_fixed ? 2 : 3);
  }
  run(biases, {"train.precision=bf16"});
  EXPECT_EQ(bias("bias"), 3);   // x, dy, dz
  EXPECT_EQ(bias("plain"), 1);  // dy
  EXPECT_EQ(bias("pooled"), 2.25);
  EXPECT_EQ(bias("shared"), 3);  // dy of both readers, dz
  EXPECT_EQ(bias("hidden"), 3);
  EXPECT_EQ(bias("last"), 1);
  EXPECT_EQ(arrays("bias, activation", "bias", 2), 2);
  EXPECT_EQ(arrays("bias, activation", "pooled", 2), 1.25);
  EXPECT_EQ(arrays("bias, activation", "last", 4), 2);  // logits are fp32

  // Seven of the eight channels are padding; the weights' gradient of a matrix is fp32.
  constexpr double pixels = 4 * 16 * 16;
  const Cost first = cost_of("weight gradient", "bias");
  EXPECT_EQ(first.operations, 2 * 9 * 1 * 8 * pixels);
  EXPECT_EQ(first.bytes, 2 * (8 * pixels + 9 * 8 * 8 + 8 * pixels));
  EXPECT_EQ(cost_of("weight gradient", "plain").operations, 2 * 9 * 8 * 8 * pixels);
  EXPECT_EQ(cost_of("weight gradient", "hidden").bytes,
            2 * 4 * (8 * 8 * 8 + 20) + 4 * 8 * 8 * 8 * 20);
  EXPECT_EQ(cost_of("data gradient", "last").bytes, 2 * (4 * 20 + 20 * 10 + 4 * 10));
  EXPECT_EQ(cost_of("matrix product", "last").bytes, 2 * (4 * 20 + 20 * 10) + 4 * 4 * 10);
}

TEST_F(CudaReplica, SaysOfItsActivationsWhatTheCpuSays) {
  use(every_layer);
  auto gpu = replica(*cuda_);
  auto cpu = replica(*cpu_);
  train(*gpu, 0, 1);
  train(*cpu, 0, 1);
  const auto a = gpu->activations();
  const auto b = cpu->activations();
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].layer, b[i].layer);
    EXPECT_NEAR(a[i].largest, b[i].largest, 1e-3 * b[i].largest) << a[i].layer;
    EXPECT_EQ(a[i].dead, b[i].dead) << a[i].layer;
  }
}

// What the device's pool has handed out. The rest: the epoch's orders, the records, and a quarter
// of a KiB where a buffer's size is rounded up.
TEST_F(CudaReplica, SaysWhatMemoryItTakes) {
  use(R"(
data: {dataset: synthetic, batch_size: 2, train_limit: 20}
model:
  layers:
    - conv: {out: 64, stride: 2}
    - conv: {out: 64}
    - global_avg_pool
    - linear: {out: 10}
)",
      {"train.precision=bf16"});
  const auto used = [] {
    cudaMemPool_t pool = nullptr;
    std::uint64_t bytes = 0;
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // memory is freed in order
    EXPECT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
    EXPECT_EQ(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &bytes), cudaSuccess);
    return static_cast<std::size_t>(bytes);
  };
  const auto data = cuda_->load(data_.train);
  replica(*cuda_);  // what is allocated only once
  const std::size_t before = used();
  const auto r = cuda_->compile(network_, options_, initial_, data);
  const std::size_t taken = used() - before;
  const std::size_t said = r->memory().total();
  constexpr std::size_t rest = std::size_t{768} << 10;
  EXPECT_LE(said, taken);
  EXPECT_GT(said + rest, taken);

  const std::size_t without_probe = used();
  const auto probe = cuda_->probe(network_, options_, data, 2);
  const std::size_t by_probe = used() - without_probe;
  EXPECT_LE(probe->memory().total(), by_probe);
  EXPECT_GT(probe->memory().total() + rest, by_probe);
}

TEST_F(CudaReplica, AProbeIsRefusedWhatTheDeviceHasNoMemoryFor) {
  use(plain);
  const RunConfig huge = read_config(parse_document(R"(
model:
  layers:
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 65536, activation: relu}
    - linear: {out: 10}
)",
                                                    "test.yaml"));
  const Network network = build_network(huge, data_.train.shape, data_.train.classes);
  try {
    cuda_->probe(network, options_, cuda_->load(data_.train), 50);
    FAIL() << "was let pass";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("out of GPU memory: the network needs"));
  }
}

TEST_F(CudaReplica, AProbeHasTheLossAndGradientOfTheCpus) {
  for (const char* yaml : {every_layer, plain, smooth}) {
    use(yaml);
    const auto gpu = cuda_->probe(network_, options_, cuda_->load(data_.train), 30);
    const auto cpu = cpu_->probe(network_, options_, cpu_->load(data_.train), 30);
    std::vector<float> a(initial_.size());
    std::vector<float> b(initial_.size());
    EXPECT_NEAR(gpu->gradient(initial_, a), cpu->gradient(initial_, b), 1e-5);
    EXPECT_NEAR(gpu->loss(initial_), cpu->loss(initial_), 1e-5);
    EXPECT_LT(distance({{"", {}, a}}, {{"", {}, b}}), 1e-4);
  }
}

// As a probe of a dataset that begins there, and back again.
TEST_F(CudaReplica, AProbeIsOfTheExamplesThatItIsToldToUse) {
  use(every_layer);
  constexpr std::int64_t count = 7;
  const auto probe = cuda_->probe(network_, options_, cuda_->load(data_.train), count);
  for (const std::int64_t first : {5, 0, 11}) {
    Dataset rest = data_.train;
    rest.pixels.erase(rest.pixels.begin(), rest.pixels.begin() + first * rest.shape.size());
    rest.labels.erase(rest.labels.begin(), rest.labels.begin() + first);
    const auto other = cuda_->probe(network_, options_, cuda_->load(rest), count);
    probe->use(first);
    std::vector<float> a(initial_.size());
    std::vector<float> b(initial_.size());
    EXPECT_EQ(probe->gradient(initial_, a), other->gradient(initial_, b));
    EXPECT_EQ(a, b) << first;
  }
  EXPECT_THROW(probe->use(data_.train.size() - count + 1), std::logic_error);
}

// Also of convolutions whose kernel writes only what their pooling leaves.
TEST_F(CudaReplica, AProbesOutputsAreThoseOfDouble) {
  constexpr const char* pooled = R"(
data: {dataset: synthetic, batch_size: 5, train_limit: 50}
model:
  layers:
    - conv: {out: 5, batch_norm: true}
    - max_pool
    - conv: {out: 7}
    - max_pool
    - linear: {out: 10}
train: {length: 1 epochs}
)";
  for (const char* yaml : {every_layer, plain, pooled}) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    use(yaml);
    for (const Parameter& p : network_.parameters) {  // the first biases are zero
      for (std::int64_t i = p.offset; i < p.offset + p.size; ++i) {
        initial_[i] += 0.1f * normal(random);
      }
    }
    constexpr std::int64_t examples = 5;
    reference::Values images;
    for (std::int64_t i = 0; i < examples * data_.train.shape.size(); ++i) {
      const Normalize& n = options_.normalize;
      images.push_back((data_.train.pixels[i] / 255.0 - n.mean[0]) / n.std[0]);
    }
    const auto expected = reference::outputs(
        network_, reference::Values(initial_.begin(), initial_.end()), examples, images);

    const auto probe = cuda_->probe(network_, options_, cuda_->load(data_.train), examples);
    std::vector<float> first(initial_.size());
    std::vector<float> again(initial_.size());
    const double loss = probe->gradient(initial_, first);
    const auto outputs = probe->outputs(initial_);
    EXPECT_EQ(probe->gradient(initial_, again), loss);
    EXPECT_EQ(again, first);
    EXPECT_EQ(probe->outputs(initial_), outputs);
    ASSERT_EQ(outputs.size(), expected.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      ASSERT_EQ(outputs[i].size(), expected[i].size()) << network_.ops[i].name;
      EXPECT_LT(reference::relative_difference(outputs[i], expected[i]), 1e-4)
          << network_.ops[i].name;
    }
  }
}

}  // namespace
}  // namespace preheat
