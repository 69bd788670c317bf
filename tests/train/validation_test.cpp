// A run with data.validation: what it trains on, what it measures, and which weights it keeps.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "same_state.h"
#include "temporary_folder.h"
#include "train/checkpoint.h"
#include "train/replica_options.h"
#include "train/run_files.h"
#include "train/small_run.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// 335 examples to train on, as without a validation set, and 65 held out: two batches and a rest.
const std::vector<std::string> split = {"data.train_limit=400", "data.validation=65",
                                        "train.eval_every=5 steps"};
const std::vector<std::string> whole = {"train.eval_every=5 steps"};

constexpr const char* validated_header =
    "step,epoch,test_loss,test_accuracy,validation_loss,validation_accuracy";

nlohmann::json summary_in(const std::filesystem::path& folder) {
  return nlohmann::json::parse(bytes_of(folder / "summary.json"));
}

// The examples from `first` on of the dataset as it is.
Dataset slice_of(const Dataset& all, std::int64_t first, std::int64_t count) {
  const std::int64_t size = all.shape.size();
  const std::uint8_t* pixels = all.pixels.data() + first * size;
  const std::uint8_t* labels = all.labels.data() + first;
  return {all.shape, all.classes, {pixels, pixels + count * size}, {labels, labels + count}};
}

TEST(Validation, IsNotTrainedOn) {
  const TemporaryFolder folder;
  run_into(folder / "split", config_of(split));
  run_into(folder / "fewer", config_of(whole));
  EXPECT_EQ(bytes_of(folder / "split/metrics.csv"), bytes_of(folder / "fewer/metrics.csv"));
  EXPECT_TRUE(same(read_checkpoint(folder / "split/checkpoints/last.ckpt").state,
                   read_checkpoint(folder / "fewer/checkpoints/last.ckpt").state));
  auto rows = rows_of(folder / "split/eval.csv");
  for (auto& row : rows) row.resize(4);  // the columns of the test set
  EXPECT_EQ(rows, rows_of(folder / "fewer/eval.csv"));
  EXPECT_EQ(rows.size(), 7u);
}

TEST(Validation, IsMeasuredWhereTheTestSetIs) {
  const TemporaryFolder folder;
  const RunConfig config = config_of(split);
  std::vector<Evaluated> told;
  RunListener listener;
  listener.on_evaluation = [&](std::int64_t, const Evaluated& e) { told.push_back(e); };
  const RunResult result = run_into(folder / "run", config, listener);

  // The weights of the end, on each of the examples alone.
  const Dataset all = load_dataset(config_of({"data.train_limit=null"}).data).train;
  const Network network = build_network(config, all.shape, all.classes);
  const auto replica = shared_backend().compile(
      network, replica_options(config, network, schedule_of(config)),
      initial_parameters(network, config.model, config.seed), shared_backend().load(all));
  replica->load(read_checkpoint(folder / "run/checkpoints/last.ckpt").state);
  double loss = 0;
  std::int64_t correct = 0;
  for (std::int64_t i = 335; i < 400; ++i) {
    const Evaluation one = replica->evaluate(*shared_backend().load(slice_of(all, i, 1)));
    loss += one.loss / 65;
    correct += one.correct;
  }

  ASSERT_EQ(told.size(), 6u);
  for (const Evaluated& e : told) {
    EXPECT_EQ(e.test.examples, 1024);
    ASSERT_TRUE(e.validation);
    EXPECT_EQ(e.validation->examples, 65);
  }
  EXPECT_NEAR(told.back().validation->loss, loss, 1e-5);
  EXPECT_EQ(told.back().validation->correct, correct);
  EXPECT_EQ(result.validation_accuracy, static_cast<double>(correct) / 65);
  EXPECT_EQ(bytes_of(folder / "run/eval.csv").find(std::string(validated_header) + "\n"), 0u);
  const Evaluations columns = read_evaluations(folder / "run/eval.csv");
  ASSERT_EQ(columns.validation_accuracy.size(), told.size());
  for (std::size_t i = 0; i < told.size(); ++i) {
    EXPECT_EQ(columns.loss[i], told[i].test.loss);
    EXPECT_EQ(columns.accuracy[i], told[i].test.accuracy());
    EXPECT_EQ(columns.validation_loss[i], told[i].validation->loss);
    EXPECT_EQ(columns.validation_accuracy[i], told[i].validation->accuracy());
  }
  const auto summary = summary_in(folder / "run");
  EXPECT_EQ(summary.at("best_by"), "validation");
  EXPECT_EQ(summary.at("validation_loss"), told.back().validation->loss);
  EXPECT_EQ(summary.at("validation_accuracy"), told.back().validation->accuracy());
  EXPECT_EQ(summary.at("test_accuracy"), told.back().test.accuracy());
}

TEST(Validation, LeavesTheFilesOfARunWithoutItAsTheyWere) {
  const TemporaryFolder folder;
  run_into(folder / "none", config_of({"data.validation=0"}));
  run_into(folder / "absent", config_of());
  expect_same_run(folder / "none", folder / "absent");
  const auto summary = summary_in(folder / "none");
  EXPECT_EQ(summary.at("best_by"), "test");
  for (const char* key : {"validation_loss", "validation_accuracy", "best_validation_accuracy"}) {
    EXPECT_FALSE(summary.contains(key)) << key;
  }
  EXPECT_THAT(bytes_of(folder / "none/config.yaml"), Not(HasSubstr("validation")));
}

// In this memory estimate are the bytes of all three sets.
TEST(Validation, CountsAmongTheBytesOfTheData) {
  const ResidentData split_data = load_data(config_of(split).data, shared_backend());
  const ResidentData fewer = load_data(config_of(whole).data, shared_backend());
  EXPECT_EQ(split_data.train->size(), 335);
  EXPECT_EQ(split_data.validation->size(), 65);
  EXPECT_EQ(fewer.validation, nullptr);
  EXPECT_EQ(split_data.bytes, fewer.bytes + 65 * (16 * 16 + 1));
}

// ---- The best weights ---------------------------------------------------------------------------

// Accuracies, in hundredths, of the evaluations of a run, in their order.
struct Script {
  std::vector<std::int64_t> test;
  std::vector<std::int64_t> validation;
};

// The CPU's replica, whose evaluations are made up.
class ScriptedReplica : public Replica {
 public:
  ScriptedReplica(std::unique_ptr<Replica> one, Script script)
      : one_(std::move(one)), script_(std::move(script)) {}
  void set_epoch_order(std::span<const std::uint32_t> order) override {
    one_->set_epoch_order(order);
  }
  void train(std::int64_t updates) override { one_->train(updates); }
  std::vector<StepRecord> drain() override { return one_->drain(); }
  Evaluation evaluate(const ResidentDataset& set) override {
    const bool is_test = set.size() == 1024;
    const auto& accuracies = is_test ? script_.test : script_.validation;
    return {1, accuracies.at(is_test ? tests_++ : validations_++), 100};
  }
  ReplicaState save() const override { return one_->save(); }
  void load(const ReplicaState& state) override { one_->load(state); }
  std::string first_non_finite_tensor() const override { return one_->first_non_finite_tensor(); }
  std::vector<ActivationRecord> activations() const override { return one_->activations(); }
  MemoryUse memory() const override { return one_->memory(); }
  std::int64_t launches_per_update() const override { return one_->launches_per_update(); }
  std::vector<StepPart> time_parts(std::int64_t updates) override {
    return one_->time_parts(updates);
  }

 private:
  std::unique_ptr<Replica> one_;
  Script script_;
  std::size_t tests_ = 0;
  std::size_t validations_ = 0;
};

class ScriptedBackend : public ForwardingBackend {
 public:
  explicit ScriptedBackend(Script script) : script_(std::move(script)) {}
  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    return std::make_unique<ScriptedReplica>(
        ForwardingBackend::compile(network, options, initial, std::move(train)), script_);
  }

 private:
  Script script_;
};

struct Scripted {
  RunResult result;
  std::int64_t step_of_best = 0;  // of the weights that were kept
};

// A run of 30 updates, evaluated after every fifth, or the rest of one if its folder exists.
Scripted scripted_run(const std::filesystem::path& path, const std::vector<std::string>& settings,
                      const Script& script, const RunListener& listener = {}) {
  ScriptedBackend backend(script);
  const RunConfig config = config_of(settings);
  Trainer trainer(config, backend, load_data(config.data, backend));
  RunFolder folder =
      std::filesystem::exists(path) ? trainer.resume(path).folder : RunFolder(path, config);
  const RunResult result = trainer.run(listener, &folder);
  return {result, read_checkpoint(path / "checkpoints/best.ckpt").state.step.step};
}

const Script disagreeing = {{20, 30, 90, 40, 50, 60}, {20, 70, 60, 80, 80, 30}};

TEST(Validation, ChoosesTheBestWeightsWhereTheTestSetWouldChooseOthers) {
  const TemporaryFolder folder;
  const Scripted by_validation = scripted_run(folder / "split", split, disagreeing);
  EXPECT_EQ(by_validation.result.best_step, 20);  // of equally good ones the first
  EXPECT_EQ(by_validation.result.best_validation_accuracy, 0.8);
  EXPECT_EQ(by_validation.result.best_test_accuracy, 0.4);
  EXPECT_EQ(by_validation.step_of_best, 20);
  const auto summary = summary_in(folder / "split");
  EXPECT_EQ(summary.at("best_by"), "validation");
  EXPECT_EQ(summary.at("best_step"), 20);
  EXPECT_EQ(summary.at("best_validation_accuracy"), 0.8);
  EXPECT_EQ(summary.at("best_test_accuracy"), 0.4);
  EXPECT_EQ(summary.at("validation_accuracy"), 0.3);

  const Scripted by_test = scripted_run(folder / "whole", whole, disagreeing);
  EXPECT_EQ(by_test.result.best_step, 15);
  EXPECT_EQ(by_test.result.best_test_accuracy, 0.9);
  EXPECT_EQ(by_test.step_of_best, 15);
  EXPECT_EQ(summary_in(folder / "whole").at("best_by"), "test");
}

// What was best before the interruption remains so, unless a later evaluation exceeds it.
TEST(Validation, ChoosesAlsoInARunThatIsResumed) {
  for (const auto& [rest, best] :
       {std::pair{Script{{99, 99}, {70, 60}}, 20}, std::pair{Script{{10, 99}, {81, 60}}, 25}}) {
    SCOPED_TRACE(best);
    const TemporaryFolder folder;
    const StopAfter stopper(20);
    ASSERT_EQ(scripted_run(folder / "run", split, disagreeing, stopper.listener).result.steps, 20);
    const Scripted resumed = scripted_run(folder / "run", split, rest);
    EXPECT_EQ(resumed.result.steps, 30);
    EXPECT_EQ(resumed.result.best_step, best);
    EXPECT_EQ(resumed.step_of_best, best);
    EXPECT_EQ(resumed.result.best_test_accuracy, best == 20 ? 0.4 : 0.1);
  }
}

// ---- Resumed runs -------------------------------------------------------------------------------

void expect_same_validation(const std::filesystem::path& a, const std::filesystem::path& b) {
  expect_same_run(a, b);
  for (const char* key :
       {"best_by", "validation_loss", "validation_accuracy", "best_validation_accuracy"}) {
    EXPECT_EQ(summary_in(a).at(key), summary_in(b).at(key)) << key;
  }
}

TEST(Validation, AResumedRunHasTheSameBits) {
  const TemporaryFolder folder;
  const RunConfig config = config_of(split);
  run_into(folder / "whole", config);
  for (const std::int64_t stop : {3, 10, 17}) {  // before the first evaluation, at one, after one
    SCOPED_TRACE(stop);
    const auto path = folder / fmt::format("cut-{}", stop);
    ASSERT_LT(run_until(stop, path, config).steps, 30);
    const auto cut = summary_in(path);
    EXPECT_TRUE(cut.at("validation_accuracy").is_null());
    resume_in(path, config);
    expect_same_validation(folder / "whole", path);
  }
}

TEST(Validation, ARunResumedAfterACrashHasTheSameBits) {
  const TemporaryFolder folder;
  const RunConfig config = config_of(split);
  run_into(folder / "whole", config);
  const auto path = folder / "crashed";
  RunListener listener;
  listener.on_records = [](std::span<const StepRecord> r) {
    if (r.back().step >= 18) throw std::runtime_error("power cut");
  };
  EXPECT_THROW(run_into(path, config, listener), std::runtime_error);
  std::ofstream(path / "eval.csv", std::ios::app) << "25,2,0.1,0.9,0.1,1\n30,3,0.1,0.9";
  resume_in(path, config);
  expect_same_validation(folder / "whole", path);
}

TEST(Validation, OfAResumedRunMayNotChange) {
  const TemporaryFolder folder;
  const auto path = folder / "run";
  ASSERT_LT(run_until(10, path, config_of(split)).steps, 30);
  auto other = split;
  other[1] = "data.validation=64";
  for (const bool new_schedule : {false, true}) {
    EXPECT_THAT(resume_error(path, config_of(other), new_schedule),
                AllOf(HasSubstr("config.yaml: the run was made with 'data.validation: 65', this "
                                "configuration has 'data.validation: 64'"),
                      Not(HasSubstr("--new-schedule"))));
  }
  other[1] = "data.validation=0";
  EXPECT_THAT(resume_error(path, config_of(other)),
              HasSubstr("'data.validation: 65', this configuration has 'nothing'"));
  // Columns that are lost are damage: the rest of the rows would not fit.
  std::string rows = bytes_of(path / "eval.csv");
  rows.replace(0, std::string(validated_header).size(), "step,epoch,test_loss,test_accuracy");
  put_bytes(path / "eval.csv", rows);
  EXPECT_THAT(resume_error(path, config_of(split)), HasSubstr("eval.csv: has no header"));
}

// A run that did not end has no accuracy of its end, and its keys are there all the same.
TEST(Validation, ADivergedRunHasNoneOfItsNumbers) {
  const TemporaryFolder folder;
  auto settings = split;
  settings.insert(settings.end(), {"schedule.base_lr=1e12", "schedule.warmup.length=0 steps"});
  const RunResult result = run_into(folder / "run", config_of(settings));
  EXPECT_EQ(result.outcome, Outcome::non_finite);
  EXPECT_FALSE(result.validation_accuracy);
  EXPECT_TRUE(summary_in(folder / "run").at("validation_accuracy").is_null());
  EXPECT_TRUE(summary_in(folder / "run").at("validation_loss").is_null());
}

TEST(Validation, HeldOutExamplesShortenTheEpoch) {
  EXPECT_EQ(schedule_of(config_of(split)).run.steps_per_epoch, 10);
  EXPECT_EQ(schedule_of(config_of({"data.train_limit=400"})).run.steps_per_epoch, 12);
}

}  // namespace
}  // namespace preheat
