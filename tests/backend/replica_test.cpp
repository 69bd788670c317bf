// What every backend promises of a replica, and what only the CPU's does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "backend/backend.h"
#include "config/error.h"
#include "data/epoch_order.h"
#include "schedule/schedule.h"

// Counts what a step asks of the heap. Not under sanitizers, which have a malloc of their own.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
#define PREHEAT_COUNTS_ALLOCATIONS
namespace {
constexpr std::size_t buffer_bytes = 4096;  // oneDNN's bookkeeping of a call is far below
std::atomic<bool> counting{false};
std::atomic<int> buffers_allocated{0};
void count(std::size_t bytes) {
  if (counting && bytes >= buffer_bytes) ++buffers_allocated;
}
}  // namespace
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) {
  count(bytes);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t n, std::size_t bytes) {
  count(n * bytes);
  return __libc_calloc(n, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  count(bytes);
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t bytes) {
  count(bytes);
  *p = __libc_memalign(alignment, bytes);
  return *p == nullptr ? ENOMEM : 0;
}
}
#endif

namespace preheat {
namespace {

using testing::HasSubstr;

class ReplicaTest : public testing::Test {
 protected:
  ReplicaTest() {
    use(R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model:
  layers:
    - conv: {out: 8, batch_norm: true}
    - max_pool
    - residual_stage: {blocks: 1, out: 12, stride: 2}
    - conv: {out: 6, activation: leaky_relu(0.1)}
    - linear: {out: 10}
optimizer: {weight_decay: 1e-3}
schedule: {base_lr: 0.05, warmup: {length: 7 steps}}
train: {length: 3 epochs}
)");
  }

  void use(const std::string& yaml) {
    config_ = read_config(parse_document(yaml, "test.yaml"));
    const TrainTest data = load_dataset(config_.data);
    train_ = backend_->load(data.train);
    test_data_ = data.test;
    test_ = backend_->load(data.test);
    network_ = build_network(config_, data.train.shape, data.train.classes);
    schedule_ =
        resolve_schedule(config_, run_length(config_, train_->size() / config_.data.batch_size));
  }

  std::unique_ptr<Replica> replica() const {
    ReplicaOptions options;
    options.batch_size = config_.data.batch_size;
    options.normalize = normalization(config_);
    options.augment = config_.data.augment;
    options.loss = config_.loss;
    options.rule = {static_cast<float>(config_.optimizer.momentum), config_.optimizer.nesterov};
    options.weight_decay = config_.optimizer.weight_decay;
    options.schedule = schedule_.lr;
    options.seed = config_.seed;
    return backend_->compile(network_, options,
                             initial_parameters(network_, config_.model, config_.seed), train_);
  }

  std::vector<std::uint32_t> order(std::uint32_t epoch = 0) const {
    return epoch_order(config_.seed, epoch, static_cast<std::uint32_t>(train_->size()));
  }

  std::unique_ptr<Backend> backend_ = make_backend(DeviceChoice::cpu);
  RunConfig config_;
  Dataset test_data_;
  std::shared_ptr<ResidentDataset> train_;
  std::shared_ptr<ResidentDataset> test_;
  Network network_;
  Schedule schedule_;
};

bool same(const ReplicaState& a, const ReplicaState& b) {
  const auto same_tensors = [](const auto& x, const auto& y) {
    return std::ranges::equal(x, y, [](const NamedTensor& s, const NamedTensor& t) {
      return s.name == t.name && s.shape == t.shape && s.values == t.values;
    });
  };
  return same_tensors(a.parameters, b.parameters) && same_tensors(a.velocity, b.velocity) &&
         same_tensors(a.statistics, b.statistics) && a.step.step == b.step.step &&
         a.step.lr == b.step.lr && a.step.first_non_finite == b.step.first_non_finite;
}

TEST_F(ReplicaTest, SameSeedSameBitsHoweverTheUpdatesAreGrouped) {
  auto a = replica();
  auto b = replica();
  a->set_epoch_order(order());
  b->set_epoch_order(order());
  a->train(10);
  for (const int n : {1, 4, 2, 3}) {
    b->train(n);
    b->evaluate(*test_);  // leaves no trace in the training
  }
  EXPECT_TRUE(same(a->save(), b->save()));
  const auto x = a->drain();
  const auto y = b->drain();
  ASSERT_EQ(x.size(), 10u);
  ASSERT_EQ(y.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(x[i].step, i);
    EXPECT_EQ(x[i].loss, y[i].loss);
    EXPECT_EQ(x[i].grad_norm, y[i].grad_norm);
    EXPECT_EQ(x[i].lr, static_cast<float>(lr_at(schedule_.lr, i)));
  }
  EXPECT_TRUE(a->drain().empty());
}

TEST_F(ReplicaTest, SavedStateGoesOnToTheSameBits) {
  auto whole = replica();
  whole->set_epoch_order(order());
  whole->train(10);
  whole->set_epoch_order(order(1));
  whole->train(10);

  auto first = replica();
  first->set_epoch_order(order());
  first->train(6);
  auto second = replica();
  second->load(first->save());
  second->set_epoch_order(order());
  second->train(4);
  second->set_epoch_order(order(1));
  second->train(10);
  EXPECT_TRUE(same(whole->save(), second->save()));
}

TEST_F(ReplicaTest, TheStepCounterDecidesTheRate) {
  for (const std::int64_t step : {0, 3, 9}) {
    auto r = replica();
    ReplicaState state = r->save();
    state.step.step = step;
    state.step.lr = static_cast<float>(lr_at(schedule_.lr, step));
    r->load(state);
    r->set_epoch_order(order());
    r->train(1);
    const auto records = r->drain();
    ASSERT_EQ(records.size(), 1u);
    EXPECT_EQ(records[0].step, step);
    EXPECT_EQ(records[0].lr, static_cast<float>(lr_at(schedule_.lr, step)));
    EXPECT_EQ(r->save().step.lr, static_cast<float>(lr_at(schedule_.lr, step + 1)));
  }
}

TEST_F(ReplicaTest, RecordsAreWhatTheUpdateDid) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(3);
  const ReplicaState before = r->save();
  r->drain();
  r->train(1);
  const StepRecord record = r->drain().at(0);
  const ReplicaState after = r->save();
  double moved = 0;
  double weight = 0;
  for (std::size_t i = 0; i < after.parameters.size(); ++i) {
    for (std::size_t k = 0; k < after.parameters[i].values.size(); ++k) {
      const double w = after.parameters[i].values[k];
      moved += std::pow(w - double{before.parameters[i].values[k]}, 2);
      weight += w * w;
    }
  }
  EXPECT_NEAR(record.update_norm / std::sqrt(moved), 1, 1e-4);  // the difference is rounded
  EXPECT_NEAR(record.weight_norm / std::sqrt(weight), 1, 1e-12);
  EXPECT_GT(record.grad_norm, 0);
  EXPECT_TRUE(record.finite);
}

TEST_F(ReplicaTest, WeightDecayLeavesBiasesAndNormsAlone) {
  for (const Parameter& p : network_.parameters) {
    const bool is_weight = p.name.ends_with("conv.weight") || p.name.ends_with("linear.weight");
    EXPECT_EQ(p.decayed, is_weight) << p.name;
  }
}

TEST_F(ReplicaTest, EvaluationCountsTheLastShortBatchOnceAndIsTheSameForEveryBatchSize) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(5);
  const ReplicaState state = r->save();
  const Evaluation a = r->evaluate(*test_);  // 1024 = 32 x 32
  EXPECT_EQ(a.examples, test_data_.size());
  for (const int batch : {7, 100, 320}) {
    config_.data.batch_size = batch;
    auto other = replica();
    other->load(state);
    const Evaluation b = other->evaluate(*test_);
    EXPECT_EQ(b.examples, a.examples);
    EXPECT_EQ(b.correct, a.correct) << batch;
    EXPECT_NEAR(b.loss / a.loss, 1, 1e-5) << batch;
  }
}

TEST_F(ReplicaTest, AfterAStepThatIsNotFiniteNothingMoves) {
  auto r = replica();
  ReplicaState state = r->save();
  // The largest floats there are, so that the first convolution overflows.
  state.parameters[0].values.assign(state.parameters[0].values.size(), 3e38f);
  r->load(state);
  r->set_epoch_order(order());
  r->train(5);
  const auto records = r->drain();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_FALSE(records[0].finite);
  const ReplicaState after = r->save();
  EXPECT_EQ(after.step.first_non_finite, 0);
  EXPECT_EQ(after.step.step, 0);
  for (std::size_t i = 0; i < state.parameters.size(); ++i) {
    EXPECT_EQ(after.parameters[i].values, state.parameters[i].values);
    EXPECT_EQ(after.velocity[i].values, state.velocity[i].values);
  }
  EXPECT_EQ(r->first_non_finite_tensor(), "activation of 0");
  r->train(3);
  EXPECT_TRUE(r->drain().empty());
}

TEST_F(ReplicaTest, AnOverflowInTheUpdateItselfIsFound) {
  use(R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model: {layers: [linear: {out: 10}]}
optimizer: {momentum: 0}
schedule: {base_lr: 1e12, warmup: {length: 0 steps}, decay: {shape: constant}}
train: {length: 20 steps}
)");
  auto r = replica();
  ReplicaState state = r->save();
  state.parameters[0].values[0] = std::numeric_limits<float>::max();
  state.parameters[0].values[1] = std::numeric_limits<float>::infinity();
  r->load(state);
  r->set_epoch_order(order());
  r->train(2);
  const auto records = r->drain();
  ASSERT_FALSE(records.empty());
  EXPECT_FALSE(records.back().finite);
}

TEST_F(ReplicaTest, MisuseIsALogicError) {
  auto r = replica();
  EXPECT_THROW(r->train(1), std::logic_error);  // no order yet
  EXPECT_THROW(r->set_epoch_order(std::vector<std::uint32_t>(3)), std::logic_error);
  r->set_epoch_order(order());
  EXPECT_THROW(r->train(11), std::logic_error);  // an epoch has 10 updates
  r->train(10);
}

TEST_F(ReplicaTest, AStateOfAnotherNetworkIsRefusedByTensor) {
  auto r = replica();
  const auto message = [&](ReplicaState state) -> std::string {
    try {
      r->load(state);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const ReplicaState good = r->save();
  ReplicaState state = good;
  state.parameters[3].shape[0] += 1;
  EXPECT_THAT(message(state), HasSubstr(good.parameters[3].name));
  state = good;
  state.velocity.pop_back();
  EXPECT_THAT(message(state), HasSubstr(good.velocity.back().name));
  state = good;
  state.statistics[0].name = "other";
  EXPECT_THAT(message(state), HasSubstr("other"));
  EXPECT_EQ(message(good), "");
}

TEST_F(ReplicaTest, MoreMemoryThanThereIsIsRefusedBeforeItIsTouched) {
  use(R"(
data: {dataset: synthetic, batch_size: 4096}
model: {layers: [conv: {out: 65536}, global_avg_pool, linear: {out: 10}]}
)");
  try {
    replica();
    FAIL() << "was compiled";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("out of memory"));
    EXPECT_THAT(e.what(), HasSubstr("batch_size"));
  }
}

#ifdef PREHEAT_COUNTS_ALLOCATIONS
TEST_F(ReplicaTest, AStepAllocatesNoBuffers) {
  auto r = replica();
  r->set_epoch_order(order());
  r->train(2);  // the library sets up what it keeps per thread
  r->drain();
  r->train(1);
  counting = true;
  buffers_allocated = 0;
  r->train(5);
  counting = false;
  EXPECT_EQ(buffers_allocated, 0);
  counting = true;
  std::free(std::malloc(buffer_bytes));
  counting = false;
  EXPECT_EQ(buffers_allocated, 1) << "the count itself does not work";
}
#endif

}  // namespace
}  // namespace preheat
