#include "train/critical_rate.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "config/error.h"
#include "experiment/small_experiment.h"
#include "schedule/plan.h"
#include "train/checkpoint.h"
#include "train/replica_options.h"
#include "train/small_run.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using LossFunction = std::function<double(std::span<const float>)>;

// A probe with a made-up loss and gradient.
class MadeUpProbe : public Probe {
 public:
  MadeUpProbe(LossFunction loss, std::vector<float> gradient)
      : loss_(std::move(loss)), gradient_(std::move(gradient)) {}

  void use(std::int64_t) override {}
  double loss(std::span<const float> weights) override {
    ++losses;
    return loss_(weights);
  }
  double gradient(std::span<const float> weights, std::span<float> gradient) override {
    ++gradients;
    std::ranges::copy(gradient_, gradient.begin());
    return loss_(weights);
  }
  std::vector<std::vector<float>> outputs(std::span<const float>) override { return {}; }
  MemoryUse memory() const override { return {}; }

  int losses = 0;
  int gradients = 0;

 private:
  LossFunction loss_;
  std::vector<float> gradient_;
};

class CriticalRate : public testing::Test {
 protected:
  const unsigned seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
  std::mt19937_64 random_{seed_};
};

// L = sum_i h_i w_i^2 / 2 + offset, which along its gradient g_i = h_i w_i is
// L(e) = L - e |g|^2 + e^2 g H g / 2, and crosses (1 + r) L at the larger root of a quadratic.
struct Quadratic {
  std::vector<double> curvatures;
  std::vector<float> weights;
  double offset = 0;

  double loss(std::span<const float> w) const {
    double sum = offset;
    for (std::size_t i = 0; i < w.size(); ++i) sum += curvatures[i] * w[i] * w[i] / 2;
    return sum;
  }
  std::vector<float> gradient() const {
    std::vector<float> g;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      g.push_back(static_cast<float>(curvatures[i] * weights[i]));
    }
    return g;
  }
  double crossing() const {
    double gg = 0;
    double ghg = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double g = curvatures[i] * weights[i];
      gg += g * g;
      ghg += curvatures[i] * g * g;
    }
    return (gg + std::sqrt(gg * gg + 2 * 0.1 * loss(weights) * ghg)) / ghg;
  }
  MadeUpProbe probe() const {
    return {[this](std::span<const float> w) { return loss(w); }, gradient()};
  }
};

// At the answer the loss has not risen by r, and at a rate 5 % above it has: up to rounding the
// answer is in [crossing / 1.05, crossing].
void expect_just_below(std::optional<double> rate, double crossing) {
  ASSERT_TRUE(rate);
  EXPECT_LE(*rate, crossing * (1 + 1e-5));
  EXPECT_GE(*rate, crossing / 1.05 * (1 - 1e-5));
}

TEST_F(CriticalRate, OfAQuadraticIsWhereItsParabolaCrosses) {
  std::normal_distribution<double> normal;
  for (int trial = 0; trial < 40; ++trial) {
    Quadratic q;
    // Crossings from far below the first rate tried to far above it.
    const double scale = std::pow(10.0, std::uniform_real_distribution<>(-2.5, 12)(random_));
    const int size = 1 + trial % 7;
    for (int i = 0; i < size; ++i) {
      q.curvatures.push_back(scale * std::exp(normal(random_)));
      q.weights.push_back(static_cast<float>(normal(random_)) + 0.1f);
    }
    q.offset = trial % 2 == 0 ? 0 : q.loss(q.weights) / 3;
    SCOPED_TRACE(fmt::format("trial {}, crossing {}", trial, q.crossing()));
    MadeUpProbe probe = q.probe();
    expect_just_below(critical_rate(probe, q.weights), q.crossing());
    EXPECT_EQ(probe.gradients, 1);
    EXPECT_LE(probe.losses, 2 + 5 + std::fabs(std::log2(q.crossing() / 1e-4)));
  }
}

// The mean of quadratics with as many weights is one, with the means of their curvatures and
// offsets.
class QuadraticByPass : public Probe {
 public:
  QuadraticByPass(std::vector<Quadratic> of_pass, std::int64_t examples)
      : of_pass_(std::move(of_pass)), examples_(examples) {}

  void use(std::int64_t first) override {
    ASSERT_EQ(first % examples_, 0);
    pass_ = static_cast<std::size_t>(first / examples_);
  }
  double loss(std::span<const float> weights) override { return of_pass_.at(pass_).loss(weights); }
  double gradient(std::span<const float> weights, std::span<float> gradient) override {
    std::ranges::copy(of_pass_.at(pass_).gradient(), gradient.begin());
    return loss(weights);
  }
  std::vector<std::vector<float>> outputs(std::span<const float>) override { return {}; }
  MemoryUse memory() const override { return {}; }

 private:
  const std::vector<Quadratic> of_pass_;
  const std::int64_t examples_;
  std::size_t pass_ = 17;  // none until use()
};

TEST_F(CriticalRate, OfSeveralPassesIsThatOfTheirMean) {
  std::normal_distribution<double> normal;
  for (const std::size_t passes : {2, 3, 5}) {
    SCOPED_TRACE(passes);
    const std::vector<float> weights = {1.5f, -0.3f, 0.7f};
    Quadratic mean{{0, 0, 0}, weights, 0};
    std::vector<Quadratic> of_pass;
    for (std::size_t pass = 0; pass < passes; ++pass) {
      Quadratic& q = of_pass.emplace_back(Quadratic{{}, weights, std::exp(normal(random_))});
      for (double& curvature : mean.curvatures) {
        q.curvatures.push_back(20 * std::exp(normal(random_)));
        curvature += q.curvatures.back() / static_cast<double>(passes);
      }
      mean.offset += q.offset / static_cast<double>(passes);
    }
    QuadraticByPass probe(of_pass, 7);
    expect_just_below(critical_rate(probe, weights, Passes{7, static_cast<std::int64_t>(passes)}),
                      mean.crossing());
  }
}

TEST_F(CriticalRate, OfOneWeightIsKnownByHeart) {
  const Quadratic q{{50}, {1}, 0};
  MadeUpProbe probe = q.probe();
  expect_just_below(critical_rate(probe, q.weights), (1 + std::sqrt(1.1)) / 50);
}

TEST_F(CriticalRate, ALossThatIsNotFiniteHasRisen) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const double limit : {3.0, 0.02, 3e-6}) {
      SCOPED_TRACE(limit);
      // The loss falls until it overflows; the gradient of the one weight is 1.
      MadeUpProbe probe(
          [&](std::span<const float> w) { return -double{w[0]} > limit ? bad : 2 + 1e-4 * w[0]; },
          {1});
      expect_just_below(critical_rate(probe, std::vector<float>{0}), limit);
    }
  }
}

TEST_F(CriticalRate, IsNoneWhereNothingRises) {
  MadeUpProbe flat([](std::span<const float>) { return 2.3; }, {1});
  EXPECT_FALSE(critical_rate(flat, std::vector<float>{0.5f}));
  // Rises by less than a tenth, and no further.
  MadeUpProbe bounded([](std::span<const float> w) { return w[0] < -1 ? 2 * 1.09 : 2.0; }, {1});
  EXPECT_FALSE(critical_rate(bounded, std::vector<float>{0}));
  MadeUpProbe crossed([](std::span<const float> w) { return w[0] < -1 ? 2 * 1.11 : 2.0; }, {1});
  expect_just_below(critical_rate(crossed, std::vector<float>{0}), 1);
  // A crossing just below the largest rate is found, one above it is not.
  const Quadratic below{{(1 + std::sqrt(1.1)) / 6000}, {1}, 0};
  MadeUpProbe last = below.probe();
  expect_just_below(critical_rate(last, below.weights), 6000);
  const Quadratic above{{(1 + std::sqrt(1.1)) / 14000}, {1}, 0};
  MadeUpProbe beyond = above.probe();
  EXPECT_FALSE(critical_rate(beyond, above.weights));
}

// A step so small that no weight moves cannot raise a loss, so the search ends.
TEST_F(CriticalRate, ALossThatRisesHoweverSmallTheStepIsEnds) {
  MadeUpProbe cliff([](std::span<const float> w) { return w[0] == 1 ? 1.0 : 5.0; }, {1});
  const auto rate = critical_rate(cliff, std::vector<float>{1});
  ASSERT_TRUE(rate);
  EXPECT_GT(*rate, 0);
  EXPECT_EQ(static_cast<float>(1 - *rate), 1.0f);
}

TEST_F(CriticalRate, NotFiniteFromTheStartIsAnError) {
  const auto error_of = [](double loss, std::vector<float> gradient) -> std::string {
    MadeUpProbe probe([loss](std::span<const float>) { return loss; }, std::move(gradient));
    try {
      critical_rate(probe, std::vector<float>{1, 2});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(error_of(nan, {1, 1}), HasSubstr("loss is not finite"));
  EXPECT_THAT(error_of(inf, {1, 1}), HasSubstr("loss is not finite"));
  EXPECT_THAT(error_of(1, {1, nan}), HasSubstr("gradient is not finite"));
  EXPECT_THAT(error_of(1, {-inf, 1}), HasSubstr("gradient is not finite"));
  EXPECT_EQ(error_of(1, {1, 1}), "");
}

// The tests below go through the trainer: schedule.warmup.start_lr: auto.

const std::string automatic = "schedule.warmup.start_lr=auto";

RunConfig automatic_with(std::vector<std::string> settings = {}) {
  settings.push_back(automatic);
  return config_of(settings);
}

nlohmann::json summary_of(const std::filesystem::path& folder) {
  return nlohmann::json::parse(bytes_of(folder / "summary.json"));
}

// Whether a step at this rate along the gradient of the run's first examples, from its initial
// weights, raises their loss by more than a tenth.
bool loss_rises(const RunConfig& config, double rate) {
  const TrainTest data = load_dataset(config.data);
  const Network network = build_network(config, data.train.shape, data.train.classes);
  const ReplicaOptions options =
      replica_options(config, network, resolve_schedule(config, {30, 10}));
  const auto probe = shared_backend().probe(network, options, shared_backend().load(data.train),
                                            config.data.batch_size);
  std::vector<float> weights = initial_parameters(network, config.model, config.seed);
  std::vector<float> gradient(weights.size());
  const double before = probe->gradient(weights, gradient);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] = static_cast<float>(weights[i] - rate * gradient[i]);
  }
  return !(probe->loss(weights) <= 1.1 * before);
}

std::optional<double> critical_rate_of(const RunConfig& config) {
  const Dataset train = load_dataset(config.data).train;
  return critical_rate(config, shared_backend(), build_network(config, train.shape, train.classes),
                       resolve_schedule(config, {30, 10}), shared_backend().load(train));
}

void expect_linear_warmup(const std::filesystem::path& folder, double start, double base) {
  const auto rows = rows_of(folder / "metrics.csv");
  ASSERT_GT(rows.size(), 8u);
  for (int k = 0; k < 8; ++k) {
    EXPECT_EQ(std::strtof(rows[k + 1][3].c_str(), nullptr),
              static_cast<float>(start + (base - start) * (k + 1) / 8.0))
        << k;
  }
}

// At momentum 0.75 the start is a quarter of the critical rate: a constant gradient then moves the
// weights by four times the rate.
TEST(AutomaticStart, IsTheCriticalRateOfTheInitialWeightsForTheMomentum) {
  const TemporaryFolder folder;
  for (const std::string seed : {"0", "3"}) {
    for (const double momentum : {0.0, 0.75}) {
      const RunConfig config =
          automatic_with({"seed=" + seed, "schedule.base_lr=5", "label_smoothing=0.1",
                          "model.init.gain=4", fmt::format("optimizer.momentum={}", momentum)});
      const auto path = folder / fmt::format("{}-{}", seed, momentum);
      run_into(path, config);
      const double start = summary_of(path).at("start_lr");
      const double critical = start / (1 - momentum);
      EXPECT_FALSE(loss_rises(config, critical)) << critical;
      EXPECT_TRUE(loss_rises(config, 1.05 * critical)) << critical;
      EXPECT_LT(start, 5);
      expect_linear_warmup(path, start, 5);
      EXPECT_EQ(critical_rate_of(config), critical);
    }
  }
  EXPECT_NE(summary_of(folder / "0-0").at("start_lr"), summary_of(folder / "3-0").at("start_lr"));
}

TEST(AutomaticStart, IsNeverAboveTheBaseRate) {
  const TemporaryFolder folder;
  run_into(folder / "run", automatic_with({"optimizer.momentum=0"}));
  EXPECT_EQ(summary_of(folder / "run").at("start_lr"), 0.05);
  expect_linear_warmup(folder / "run", 0.05, 0.05);
}

// One example and one layer: along the gradient the loss keeps falling.
TEST(AutomaticStart, IsATenthOfTheBaseRateWhereNoRateRaisesTheLoss) {
  const RunConfig config =
      automatic_with({"schedule.base_lr=0.3", "data.train_limit=1", "data.batch_size=1",
                      "model.layers=[{linear: {out: 10}}]"});
  EXPECT_FALSE(critical_rate_of(config));
  const Trainer trainer = trainer_of(config);
  EXPECT_DOUBLE_EQ(lr_at(trainer.schedule().lr, 0), 0.03 + 0.27 / 8);
}

TEST(AutomaticStart, GoesOnToTheSameBits) {
  const TemporaryFolder folder;
  const RunConfig config = automatic_with({"schedule.base_lr=0.4"});
  run_into(folder / "whole", config);
  for (const std::int64_t stop : {3, 17}) {
    const auto path = folder / std::to_string(stop);
    ASSERT_TRUE(run_until(stop, path, config).interrupted);
    resume_in(path, config);
    expect_same_run(folder / "whole", path);
  }
  // The resolved configuration leaves the start to the network again.
  EXPECT_THAT(bytes_of(folder / "whole/config.yaml"), HasSubstr("start_lr: auto"));
  run_into(folder / "again", read_config(load_document(folder / "whole/config.yaml")));
  expect_same_run(folder / "whole", folder / "again");
  EXPECT_THAT(resume_error(folder / "whole", config_of({"schedule.base_lr=0.4"})),
              AllOf(HasSubstr("start_lr"), HasSubstr("--new-schedule")));
}

// Another machine may find another rate; a run must not continue with a jump.
TEST(AutomaticStart, OfACheckpointThatDiffersIsRefused) {
  const TemporaryFolder folder;
  const RunConfig config = automatic_with({"schedule.base_lr=0.4"});
  ASSERT_TRUE(run_until(3, folder / "run", config).interrupted);
  const auto path = folder / "run/checkpoints/last.ckpt";
  Checkpoint checkpoint = read_checkpoint(path);
  checkpoint.state.step.lr *= 1.01f;
  write_checkpoint(path, checkpoint);
  EXPECT_THAT(resume_error(folder / "run", config),
              AllOf(HasSubstr("last.ckpt: update "), HasSubstr("start_lr: auto"),
                    HasSubstr("--new-schedule")));
}

// A network whose activations overflow.
RunConfig overflowing(std::vector<std::string> settings) {
  settings.push_back(
      "model={layers: [{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, "
      "{conv: {out: 2}}, {conv: {out: 2}}, {conv: {out: 2}}, {linear: {out: 10}}], "
      "init: {gain: 1e6}}");
  return config_of(settings);
}

// A divergence is a result, as with a start that is a number.
TEST(AutomaticStart, OfALossThatIsNotFiniteIsARunThatDiverges) {
  const TemporaryFolder folder;
  const RunResult automatic_start = run_into(folder / "auto", overflowing({automatic}));
  const RunResult number =
      run_into(folder / "number", overflowing({"schedule.warmup.start_factor=0.1"}));
  EXPECT_EQ(automatic_start.outcome, Outcome::non_finite);
  EXPECT_EQ(automatic_start.first_non_finite_step, 0);
  EXPECT_EQ(automatic_start.first_non_finite_tensor, number.first_non_finite_tensor);
  EXPECT_TRUE(summary_of(folder / "auto").at("start_lr").is_null());
  EXPECT_EQ(rows_of(folder / "auto/metrics.csv"), rows_of(folder / "number/metrics.csv"));
}

// The network is not the cause: the device has failed.
TEST(AutomaticStart, AnErrorThatIsNoDivergenceStaysOne) {
  class Failing : public AtATime {
   public:
    Failing() : AtATime(1) {}
    std::unique_ptr<Probe> probe(const Network&, const ReplicaOptions&,
                                 std::shared_ptr<const ResidentDataset>, std::int64_t) override {
      throw Error("out of memory on the device");
    }
  };
  Failing backend;
  const RunConfig config = automatic_with();
  const ResidentData data = load_data(config.data, backend);
  try {
    const Trainer trainer(config, backend, data);
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    FAIL() << error.what();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "out of memory on the device");
  }
}

TEST(AutomaticStart, IsNothingWithoutAWarmup) {
  const TemporaryFolder folder;
  run_into(folder / "auto", automatic_with({"schedule.warmup.length=0 steps"}));
  run_into(folder / "plain", config_of({"schedule.warmup.length=0 steps"}));
  EXPECT_EQ(bytes_of(folder / "auto/metrics.csv"), bytes_of(folder / "plain/metrics.csv"));
  EXPECT_TRUE(summary_of(folder / "auto").at("start_lr").is_null());
  // Not even if the initial loss is not finite.
  EXPECT_NO_THROW(trainer_of(overflowing({automatic, "schedule.warmup.length=0 steps"})));
  EXPECT_TRUE(
      remarks(resolve_schedule(automatic_with({"schedule.warmup.length=0 steps"}), {30, 10}))
          .empty());
}

TEST(AutomaticStart, HasAStandInBeforeTheNetworkIsThere) {
  const Schedule schedule = resolve_schedule(automatic_with(), {30, 10});
  EXPECT_DOUBLE_EQ(lr_at(schedule.lr, 0), 0.005 + 0.045 / 8);
  EXPECT_THAT(remarks(schedule), testing::ElementsAre(AllOf(HasSubstr("found from the network"),
                                                            HasSubstr("a tenth"))));
  // The run has found its start: there is nothing to remark.
  EXPECT_TRUE(remarks(trainer_of(automatic_with()).schedule()).empty());
}

}  // namespace
}  // namespace preheat
