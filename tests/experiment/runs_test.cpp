// An experiment is resumed where it stopped.
#include "experiment/runs.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "config/error.h"
#include "experiment/compare.h"
#include "experiment/small_experiment.h"
#include "settings.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;

RunConfig config_with(const std::vector<std::string>& settings) {
  return read_config(with_settings(parse_document(small_run, "f.yaml"), settings));
}

class RunsTest : public testing::Test {
 protected:
  RunResult run(const RunConfig& config, Counter& counter,
                Checkpoints checkpoints = Checkpoints::keep) {
    Runs runs(config, shared_backend(), counter.listener);
    return runs.run("label", config, path_, checkpoints);
  }
  std::string error(const RunConfig& config) {
    Counter counter;
    try {
      run(config, counter);
    } catch (const std::runtime_error& e) {
      return e.what();
    }
    return "";
  }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "run";
};

void expect_same(const RunResult& a, const RunResult& b) {
  EXPECT_EQ(a.outcome, b.outcome);
  EXPECT_EQ(a.interrupted, b.interrupted);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.first_non_finite_step, b.first_non_finite_step);
  EXPECT_EQ(a.first_non_finite_tensor, b.first_non_finite_tensor);
  EXPECT_EQ(a.gate_opened_at, b.gate_opened_at);
  EXPECT_EQ(a.final_train_loss, b.final_train_loss);
  EXPECT_EQ(a.final_train_accuracy, b.final_train_accuracy);
  EXPECT_EQ(a.test_loss, b.test_loss);
  EXPECT_EQ(a.test_accuracy, b.test_accuracy);
  EXPECT_EQ(a.best_test_accuracy, b.best_test_accuracy);
  EXPECT_EQ(a.validation_loss, b.validation_loss);
  EXPECT_EQ(a.validation_accuracy, b.validation_accuracy);
  EXPECT_EQ(a.best_by, b.best_by);
  EXPECT_EQ(a.best_validation_accuracy, b.best_validation_accuracy);
  EXPECT_EQ(a.best_step, b.best_step);
  EXPECT_EQ(a.initial_sharpness, b.initial_sharpness);
  EXPECT_EQ(a.last_sharpness, b.last_sharpness);
  EXPECT_EQ(a.seconds, b.seconds);
  EXPECT_EQ(a.images_per_second, b.images_per_second);
}

TEST_F(RunsTest, OneThatHasEndedIsReadToWhatItWas) {
  for (const auto& settings : std::vector<std::vector<std::string>>{
           {},
           {"data.validation=64"},
           {"schedule.base_lr=1e12", "schedule.warmup.length=0 steps"},
           {"schedule.base_lr=1e-7"},
           {"diagnostics.sharpness={every: 30 steps, examples: 20}",
            "schedule.warmup={length: 40 steps, until: {train_error_below: 0.99, window: 3 "
            "steps}}"}}) {
    Counter first;
    const RunResult made = run(config_with(settings), first);
    EXPECT_EQ(first.ran, 1);
    const std::string metrics = bytes_of(path_ / "metrics.csv");
    const auto written = std::filesystem::last_write_time(path_ / "metrics.csv");
    Counter again;
    expect_same(run(config_with(settings), again), made);
    EXPECT_EQ(again.read, 1);
    EXPECT_EQ(again.started, 0);
    EXPECT_EQ(std::filesystem::last_write_time(path_ / "metrics.csv"), written);
    EXPECT_TRUE(std::filesystem::exists(path_ / "checkpoints/last.ckpt"));
    std::filesystem::remove_all(path_);
  }
}

// The numbers stay the same, but the files would not be what the configuration says.
TEST_F(RunsTest, OneOfOtherDiagnosticsIsRunAgain) {
  const auto ran = [&](const std::vector<std::string>& settings) {
    Counter counter;
    run(config_with(settings), counter);
    return counter.ran;
  };
  const std::string noise = "diagnostics.gradient_noise={every: 30 steps, batches: 3}";
  const std::string layers = "diagnostics.layers_every=30 steps";
  EXPECT_EQ(ran({noise}), 1);
  EXPECT_EQ(ran({noise}), 0);
  EXPECT_EQ(ran({}), 0);  // what is not asked for may be there
  EXPECT_EQ(ran({"diagnostics.gradient_noise={every: 30 steps, batches: 2}"}), 1);
  EXPECT_EQ(ran({noise, layers}), 1);
  EXPECT_EQ(ran({noise}), 0);
  EXPECT_EQ(ran({noise, "diagnostics.layers_every=15 steps"}), 1);
  EXPECT_EQ(ran({noise, "diagnostics.sharpness={every: 30 steps, examples: 20}"}), 1);
  EXPECT_EQ(ran({"diagnostics.sharpness={every: 30 steps, examples: 21}"}), 1);
}

TEST_F(RunsTest, OneThatWasInterruptedOrKilledIsRunAgain) {
  Counter whole;
  const RunResult expected = run(config_with({}), whole);
  const std::string metrics = bytes_of(path_ / "metrics.csv");
  std::filesystem::remove_all(path_);
  Counter cut;
  cut.stop_after = 0;
  EXPECT_TRUE(run(config_with({}), cut).interrupted);
  for (const bool killed : {false, true}) {
    if (killed) {  // no summary, a torn row, a half-written file, a page
      std::filesystem::remove(path_ / "summary.json");
      put_bytes(path_ / "metrics.csv", metrics.substr(0, 300));
      put_bytes(path_ / "summary.json.1.tmp", "{");
      put_bytes(path_ / "report.html", "x");
    }
    Counter again;
    const RunResult result = run(config_with({}), again);
    EXPECT_EQ(again.ran, 1);
    EXPECT_FALSE(result.interrupted);
    EXPECT_EQ(result.final_train_loss, expected.final_train_loss);
    EXPECT_EQ(bytes_of(path_ / "metrics.csv"), metrics);
    EXPECT_FALSE(std::filesystem::exists(path_ / "report.html"));
  }
  // One whose turn comes after the interruption is not begun.
  std::filesystem::remove_all(path_);
  cut.stop_after = -1;
  EXPECT_TRUE(run(config_with({}), cut).interrupted);
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// A run that was killed while its folder was being made starts again.
TEST_F(RunsTest, OneThatWasKilledBeforeItHadAConfigurationIsRunAgain) {
  for (const char* left : {"", "config.yaml.3.tmp", "metrics.csv"}) {
    SCOPED_TRACE(left);
    std::filesystem::create_directory(path_);
    if (*left != '\0') put_bytes(path_ / left, "");
    Counter counter;
    EXPECT_FALSE(run(config_with({}), counter).interrupted);
    EXPECT_EQ(counter.ran, 1);
    std::filesystem::remove_all(path_);
  }
  std::filesystem::create_directory(path_);
  put_bytes(path_ / "metrics.csv", "of somebody else");
  EXPECT_THAT(error(config_with({})), HasSubstr("is not empty"));
}

// By `preheat train --resume`, for example.
TEST_F(RunsTest, OneThatAnotherProcessIsMakingIsLeftAlone) {
  Counter cut;
  cut.stop_after = 0;
  EXPECT_TRUE(run(config_with({}), cut).interrupted);
  const std::string metrics = bytes_of(path_ / "metrics.csv");
  {
    const FolderLock lock(path_);
    EXPECT_THAT(error(config_with({})), HasSubstr("run: another preheat process is using it"));
  }
  EXPECT_EQ(bytes_of(path_ / "metrics.csv"), metrics);
  EXPECT_TRUE(std::filesystem::exists(path_ / "checkpoints/last.ckpt"));
  Counter again;
  EXPECT_FALSE(run(config_with({}), again).interrupted);
}

TEST_F(RunsTest, WhatIsNoRunIsLeftAlone) {
  std::filesystem::create_directory(path_);
  put_bytes(path_ / "precious.csv", "x");
  EXPECT_THAT(error(config_with({})), HasSubstr("is not empty"));
  EXPECT_EQ(bytes_of(path_ / "precious.csv"), "x");
  // A file of another kind beside a run's own files stays too, and the folder is refused.
  put_bytes(path_ / "config.yaml", "x");
  put_bytes(path_ / "precious.txt", "x");
  EXPECT_THAT(error(config_with({})), HasSubstr("is not empty"));
  EXPECT_EQ(bytes_of(path_ / "precious.txt"), "x");
}

// Not even one that ends as ours do; and until it is moved, nothing of the run goes either.
TEST_F(RunsTest, ANoteBesideARunIsLeftAlone) {
  Counter counter;
  run(config_with({}), counter);
  const std::string metrics = bytes_of(path_ / "metrics.csv");
  const auto again = config_with({"diagnostics.layers_every=30 steps"});  // has to be made again
  for (const char* note : {"notes.csv", "config-before-me.yaml", "plot.html", "data.json"}) {
    put_bytes(path_ / note, "mine");
    EXPECT_THAT(error(again), AllOf(HasSubstr("is not empty"), HasSubstr(note)));
    EXPECT_EQ(bytes_of(path_ / note), "mine");
    EXPECT_EQ(bytes_of(path_ / "metrics.csv"), metrics);
    EXPECT_TRUE(std::filesystem::exists(path_ / "summary.json"));
    std::filesystem::remove(path_ / note);
  }
  put_bytes(path_ / "config-before-20.yaml", "ours");
  EXPECT_EQ(error(again), "");
  EXPECT_FALSE(std::filesystem::exists(path_ / "config-before-20.yaml"));
}

TEST_F(RunsTest, OneOfAnotherConfigurationIsRefused) {
  Counter counter;
  run(config_with({}), counter);
  const std::string summary = bytes_of(path_ / "summary.json");
  EXPECT_THAT(error(config_with({"seed=9"})),
              AllOf(HasSubstr((path_ / "config.yaml").string()),
                    HasSubstr("was made with 'seed: 0', this configuration has 'seed: 9'")));
  EXPECT_THAT(error(config_with({"schedule.base_lr=0.2"})), HasSubstr("'schedule.base_lr: 0.1'"));
  EXPECT_EQ(bytes_of(path_ / "summary.json"), summary);
  // Keys that its numbers do not depend on may differ.
  EXPECT_EQ(error(config_with({"name=other", "train.eval_every=20 steps"})), "");
  put_bytes(path_ / "summary.json", summary.substr(0, summary.size() / 2));
  EXPECT_THAT(error(config_with({})), AllOf(HasSubstr("summary.json"), HasSubstr("is damaged")));
}

// A summary must have the numbers of its outcome: none is made up in its place.
TEST_F(RunsTest, ASummaryWithoutTheNumbersOfItsOutcomeIsDamaged) {
  const struct {
    std::vector<std::string> settings;
    std::vector<const char*> keys;
  } cases[] = {{{},
                {"final_train_loss", "final_train_accuracy", "test_accuracy", "best_test_accuracy",
                 "best_step"}},
               {{"data.validation=64"},
                {"test_accuracy", "validation_accuracy", "best_validation_accuracy", "best_step"}},
               {{"schedule.base_lr=1e12", "schedule.warmup.length=0 steps"},
                {"first_non_finite_step", "first_non_finite_tensor"}}};
  for (const auto& [settings, keys] : cases) {
    Counter counter;
    run(config_with(settings), counter);
    const auto summary = nlohmann::json::parse(bytes_of(path_ / "summary.json"));
    for (const char* key : keys) {
      auto damaged = summary;
      damaged[key] = nullptr;
      put_bytes(path_ / "summary.json", damaged.dump());
      EXPECT_THAT(error(config_with(settings)),
                  AllOf(HasSubstr((path_ / "summary.json").string() + ": is damaged: "),
                        HasSubstr(fmt::format("and has no {}", key))));
    }
    std::filesystem::remove_all(path_);
  }
  // A test loss that was not finite is null in JSON, and the run is still a result.
  Counter counter;
  run(config_with({}), counter);
  auto summary = nlohmann::json::parse(bytes_of(path_ / "summary.json"));
  summary["test_loss"] = nullptr;
  summary.erase("best_by");  // as in those of earlier versions
  put_bytes(path_ / "summary.json", summary.dump());
  EXPECT_EQ(error(config_with({})), "");
  summary["best_by"] = "train";
  put_bytes(path_ / "summary.json", summary.dump());
  EXPECT_THAT(error(config_with({})), HasSubstr("is damaged: it has an unknown best_by"));
}

TEST_F(RunsTest, CheckpointsAreDroppedHoweverARunEnds) {
  for (const std::string rate : {"0.1", "1e12"}) {
    Counter counter;
    counter.listener.on_records = [&](const std::string&, std::span<const StepRecord>) {
      expect_no_checkpoints(path_);  // nor are there any during the run
    };
    run(config_with({"schedule.base_lr=" + rate, "train.checkpoint_every=5 steps"}), counter,
        Checkpoints::drop);
    expect_no_checkpoints(path_);
    EXPECT_TRUE(std::filesystem::exists(path_ / "summary.json"));
    std::filesystem::remove_all(path_);
  }
}

TEST_F(RunsTest, ThatShareTheirDataLoadThemOnce) {
  const RunConfig config = config_with({});
  const RunsListener listener;
  Runs runs(config, shared_backend(), listener);
  const ResidentData& data = runs.data(config.data);
  EXPECT_EQ(&runs.data(config_with({"seed=9"}).data), &data);
  const ResidentData& fewer = runs.data(config_with({"data.train_limit=64"}).data);
  EXPECT_EQ(data.train->size(), 320);
  EXPECT_EQ(fewer.train->size(), 64);
  const ResidentData& split = runs.data(config_with({"data.validation=64"}).data);
  EXPECT_EQ(split.train->size(), 256);
  EXPECT_EQ(split.validation->size(), 64);
  EXPECT_EQ(data.validation, nullptr);
  EXPECT_EQ(&runs.data(config_with({"data.validation=0"}).data), &data);
  EXPECT_NE(&runs.data(config_with({"data.dir=elsewhere"}).data), &data);
}

// Three at a time of so many that all of them would take a minute.
class SideBySide : public testing::Test {
 protected:
  static constexpr std::int64_t many = 60'000;

  static void sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
  // Whether it does so within ten seconds.
  static bool becomes_true(const std::function<bool()>& condition) {
    for (int i = 0; i < 10'000 && !condition(); ++i) sleep();
    return condition();
  }

  AtATime backend_{3};
  RunsListener listener_;
  Runs runs_{RunConfig{}, backend_, listener_};
};

TEST_F(SideBySide, NoneIsBegunAfterOneThatReturnedFalse) {
  std::atomic<std::int64_t> begun{0};
  runs_.run_concurrently(many, [&](std::int64_t i) {
    ++begun;
    sleep();
    return i != 3;
  });
  EXPECT_GE(begun, 4);
  EXPECT_LT(begun, many / 2);
}

TEST_F(SideBySide, WhatIsThrownFirstEndsTheOthersAndIsThrownAgain) {
  std::atomic<std::int64_t> begun{0};
  try {
    runs_.run_concurrently(many, [&](std::int64_t i) {
      ++begun;
      if (i == 0) {
        EXPECT_TRUE(becomes_true([&] { return begun == 3; }));
        throw Error("first");
      }
      EXPECT_TRUE(becomes_true([&] { return runs_.wants_stop(); }));
      if (i == 1) throw Error("second");
      return true;
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "first");
  }
  EXPECT_EQ(begun, 3);
  EXPECT_FALSE(runs_.wants_stop());  // of what comes next
}

TEST_F(SideBySide, AnErrorOutlastsWhatOthersCallMeanwhile) {
  std::atomic<bool> both{false};
  const auto run = [&](std::int64_t i) {
    if (i == 0) {
      EXPECT_TRUE(becomes_true([&] { return both.load(); }));
      throw Error("first");
    }
    both = true;
    EXPECT_TRUE(becomes_true([&] { return runs_.wants_stop(); }));
    runs_.run_concurrently(2, [](std::int64_t) { return true; });
    EXPECT_TRUE(runs_.wants_stop());
    return true;
  };
  EXPECT_THROW(runs_.run_concurrently(2, run), Error);
}

// Memory for some replicas, though four may train at a time. The one that takes the last of it goes
// on once another has been refused.
class ShortOfMemory : public AtATime {
 public:
  explicit ShortOfMemory(int room) : AtATime(4), room_(room) {
    listener.on_start = [this](const std::string&, const Trainer&) { ++started; };
    listener.on_end = [this](const std::string&, const RunResult&, bool) { ++room_; };
    listener.wants_stop = [this] { return stops && refused > 0; };
  }
  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    if (--room_ < 0) {
      ++room_;
      ++refused;
      throw OutOfMemory("out of memory");
    }
    while (room_ == 0 && refused == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return AtATime::compile(network, options, initial, std::move(train));
  }

  std::atomic<int> started{0};
  std::atomic<int> refused{0};
  bool stops = false;  // at the first replica that is refused
  RunsListener listener;

 private:
  std::atomic<int> room_;
};

class RunsOfMuchMemory : public testing::Test {
 protected:
  CompareResult run(ShortOfMemory& backend) {
    const std::string arms = "compare: {seeds: 0..3, arms: {a: {}, b: {label_smoothing: 0.1}}}";
    const Document document = with_overrides(parse_document(small_run + arms, "f.yaml"),
                                             {parse_override("train.cpu_threads=1")});
    return compare(document, backend, folder_ / std::to_string(++runs_), false, backend.listener);
  }
  TemporaryFolder folder_;
  int runs_ = 0;
};

TEST_F(RunsOfMuchMemory, WaitForThoseThatHaveIt) {
  ShortOfMemory enough(5);
  const nlohmann::ordered_json expected = to_json(run(enough));
  EXPECT_EQ(enough.refused, 0);
  for (const int room : {1, 2}) {
    ShortOfMemory backend(room);
    EXPECT_EQ(to_json(run(backend)), expected);
    EXPECT_EQ(backend.started, 8);
    EXPECT_GT(backend.refused, 0);
  }
}

TEST_F(RunsOfMuchMemory, FailWhereNotEvenOneFits) {
  ShortOfMemory backend(0);
  EXPECT_THROW(run(backend), OutOfMemory);
  EXPECT_EQ(backend.started, 0);
}

TEST_F(RunsOfMuchMemory, AreNotBegunAfterAnInterruption) {
  ShortOfMemory backend(1);
  backend.stops = true;
  EXPECT_TRUE(run(backend).interrupted);
  EXPECT_EQ(backend.started, 1);
}

constexpr const char* arms = R"(
compare:
  seeds: [3, 11]
  arms:
    absurd: {schedule.base_lr: 1e12}
    sane: {}
)";

class ResumedCompare : public testing::Test {
 protected:
  static Document document(const std::vector<std::string>& settings = {}) {
    return with_settings(parse_document(std::string(small_run) + arms, "f.yaml"), settings);
  }
  std::string error(const std::filesystem::path& path, const Document& d) {
    try {
      compare(d, shared_backend(), path, true, {});
    } catch (const std::runtime_error& e) {
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

TEST_F(ResumedCompare, GoesOnAndMayGrow) {
  compare(document(), shared_backend(), folder_ / "whole", false, {});
  Counter first;
  first.stop_after = 2;
  EXPECT_TRUE(
      compare(document(), shared_backend(), folder_ / "cut", false, first.listener).interrupted);
  put_bytes(folder_ / "cut/compare.json.1.tmp", "what a killed program left");
  Counter rest;
  EXPECT_FALSE(
      compare(document(), shared_backend(), folder_ / "cut", true, rest.listener).interrupted);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "cut/compare.json.1.tmp"));
  EXPECT_EQ(rest.read, 2);
  EXPECT_EQ(rest.ran, 2);
  EXPECT_EQ(bytes_of(folder_ / "cut/compare.json"), bytes_of(folder_ / "whole/compare.json"));
  Counter more;
  compare(document({"compare.seeds=[3, 11, 12]"}), shared_backend(), folder_ / "cut", true,
          more.listener);
  EXPECT_EQ(more.read, 4);
  EXPECT_EQ(more.ran, 2);
  EXPECT_EQ(nlohmann::json::parse(bytes_of(folder_ / "cut/compare.json"))["arms"][1]["n"], 3);
}

// Diagnostics change no bit of a run; what they record is missing from one made without them.
TEST_F(ResumedCompare, MakesRunsAgainThatLackDiagnostics) {
  const auto path = folder_ / "out";
  compare(document(), shared_backend(), path, false, {});
  const std::string before = bytes_of(path / "compare.json");
  const Document diagnosed =
      document({"diagnostics={layers_every: 10 steps, sharpness: {every: 20 steps, examples: 32}, "
                "gradient_noise: {every: 30 steps, batches: 2}}"});
  Counter again;
  compare(diagnosed, shared_backend(), path, true, again.listener);
  EXPECT_EQ(again.read, 0);
  EXPECT_EQ(again.ran, 4);
  for (const char* file : {"layers.csv", "activations.csv", "sharpness.csv", "gradients.csv"}) {
    EXPECT_TRUE(std::filesystem::exists(path / "absurd" / "3" / file)) << file;
  }
  EXPECT_EQ(bytes_of(path / "compare.json"), before);
  for (const Document& complete : {diagnosed, document()}) {
    Counter then;
    compare(complete, shared_backend(), path, true, then.listener);
    EXPECT_EQ(then.read, 4);
  }
  // One file is enough.
  std::filesystem::remove(path / "absurd/3/gradients.csv");
  Counter one;
  compare(diagnosed, shared_backend(), path, true, one.listener);
  EXPECT_EQ(one.read, 3);
  EXPECT_EQ(one.ran, 1);
}

// The listener stops one run, whose thread would be free for more, before the other ends.
TEST_F(ResumedCompare, OneInterruptedRunBesideOthersInterruptsIt) {
  static thread_local bool stops = false;
  std::atomic<int> started{0};
  std::atomic<bool> stopped{false};
  RunsListener listener;
  listener.on_start = [&](const std::string& label, const Trainer&) {
    ++started;
    stops = label.find("sane") != std::string::npos;
  };
  listener.wants_stop = [&] {
    for (int i = 0; i < 10'000 && !stops && started == 2 && !stopped; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return stops;
  };
  listener.on_end = [&](const std::string&, const RunResult& run, bool) {
    stopped = stopped || run.interrupted;
    stops = false;
  };
  AtATime backend(2);
  const CompareResult result = compare(document({"compare.arms.absurd={optimizer.momentum: 0.5}"}),
                                       backend, folder_ / "cut", false, listener);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(started, 2);
  EXPECT_EQ(count_runs(result.arms), 1);
}

// The file as it is during an experiment is what a killed one leaves.
TEST_F(ResumedCompare, TheFileSaysHowManyRunsAreMissing) {
  const auto path = folder_ / "out" / "compare.json";
  std::vector<nlohmann::json> seen;
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) {
    if (!std::filesystem::exists(path)) return;
    seen.push_back(nlohmann::json::parse(bytes_of(path)).at("incomplete"));
    std::this_thread::sleep_for(std::chrono::milliseconds(1010));  // this run ends after a second
  };
  compare(document(), shared_backend(), folder_ / "out", false, listener);
  ASSERT_EQ(seen.size(), 3u);
  for (int k = 0; k < 3; ++k) {
    EXPECT_EQ(seen[k], nlohmann::json({{"ended", k + 1}, {"planned", 4}}));
  }
  EXPECT_FALSE(nlohmann::json::parse(bytes_of(path)).contains("incomplete"));
}

// Writing after each of thousands of short runs would take longer than the runs.
TEST_F(ResumedCompare, TheFileIsWrittenAtMostOnceASecondAndInTheEnd) {
  const auto path = folder_ / "out" / "compare.json";
  std::set<int> seen;
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) {
    if (!std::filesystem::exists(path)) return;
    seen.insert(nlohmann::json::parse(bytes_of(path)).at("incomplete").at("ended").get<int>());
  };
  const Document many = document({"compare.seeds=0..19", "train.length=10 steps"});
  const auto begin = std::chrono::steady_clock::now();
  compare(many, shared_backend(), folder_ / "out", false, listener);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(*seen.begin(), 1);
  EXPECT_LE(static_cast<double>(seen.size()), 1 + seconds.count());
  const auto written = nlohmann::json::parse(bytes_of(path));
  for (const auto& arm : written["arms"]) EXPECT_EQ(arm["n"], 20);
}

TEST_F(ResumedCompare, OneThatFailsHasWrittenWhatEnded) {
  int started = 0;
  RunsListener listener;
  listener.on_start = [&](const std::string&, const Trainer&) {
    if (++started == 12) throw Error("no more");
  };
  const Document many = document({"compare.seeds=0..19", "train.length=10 steps"});
  EXPECT_THROW(compare(many, shared_backend(), folder_ / "out", false, listener), Error);
  int ended = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / "out")) {
    if (entry.path().filename() != "summary.json") continue;
    ended += nlohmann::json::parse(bytes_of(entry.path())).at("interrupted") == false ? 1 : 0;
  }
  EXPECT_GT(ended, 2);
  const auto written = nlohmann::json::parse(bytes_of(folder_ / "out" / "compare.json"));
  EXPECT_EQ(written.at("incomplete").at("ended"), ended);
}

// Of the arms that come first nothing is read or written either.
TEST_F(ResumedCompare, UnderAnotherArmIsRefusedBeforeAnythingIsWritten) {
  const auto path = folder_ / "out";
  compare(document(), shared_backend(), path, false, {});
  const std::string config = bytes_of(path / "config.yaml");
  const std::string json = bytes_of(path / "compare.json");
  Counter refused;
  try {
    compare(document({"compare.arms.sane={schedule.base_lr: 0.2}"}), shared_backend(), path, true,
            refused.listener);
    FAIL() << "no error";
  } catch (const ConfigError& e) {  // exit code 2
    EXPECT_THAT(e.what(), AllOf(HasSubstr("sane/3/config.yaml: the run was made with "
                                          "'schedule.base_lr: 0.1', this configuration has "
                                          "'schedule.base_lr: 0.2'"),
                                HasSubstr("; begin another experiment")));
  }
  EXPECT_EQ(refused.read + refused.started, 0);
  EXPECT_EQ(bytes_of(path / "config.yaml"), config);
  EXPECT_EQ(bytes_of(path / "compare.json"), json);
  Counter again;
  compare(document(), shared_backend(), path, true, again.listener);
  EXPECT_EQ(again.read, 4);
}

TEST_F(ResumedCompare, WhatAClaimCannotReadDoesNotCostTheResults) {
  const auto path = folder_ / "out";
  const Document judged =
      parse_document(std::string(small_run) + arms +
                         "expect:\n  - sooner: {arms: [sane, absurd], train_error: 0.5}\n",
                     "f.yaml");
  int ended = 0;
  RunsListener listener;
  listener.on_end = [&](const std::string&, const RunResult&, bool) {
    if (++ended == 4) put_bytes(path / "sane/3/metrics.csv", "damaged");
  };
  EXPECT_THROW(compare(judged, shared_backend(), path, false, listener), Error);
  const auto json = nlohmann::json::parse(bytes_of(path / "compare.json"));
  EXPECT_FALSE(json.contains("incomplete"));
  EXPECT_FALSE(json.contains("claims"));
  for (const auto& arm : json.at("arms")) EXPECT_EQ(arm.at("n"), 2);
}

// A program killed while it resumes has lost nothing.
TEST_F(ResumedCompare, TheFileNeverHasFewerRunsThanBefore) {
  const auto path = folder_ / "out";
  compare(document(), shared_backend(), path, false, {});
  const std::string before = bytes_of(path / "compare.json");
  std::filesystem::remove(path / "absurd/11/summary.json");
  Counter counter;
  counter.listener.on_start = [&](const std::string&, const Trainer&) {
    ++counter.started;
    EXPECT_EQ(counter.read, 3);
    EXPECT_EQ(bytes_of(path / "compare.json"), before);
  };
  compare(document(), shared_backend(), path, true, counter.listener);
  EXPECT_EQ(counter.started, 1);
  EXPECT_EQ(bytes_of(path / "compare.json"), before);
}

TEST_F(ResumedCompare, UnderAnotherConfigurationIsRefusedBeforeAnythingIsWritten) {
  const auto path = folder_ / "out";
  compare(document(), shared_backend(), path, false, {});
  const std::string config = bytes_of(path / "config.yaml");
  const std::string json = bytes_of(path / "compare.json");
  EXPECT_THAT(
      error(path, document({"optimizer.momentum=0.5"})),
      AllOf(HasSubstr("config.yaml: the experiment was made with 'optimizer.momentum: 0.9'"),
            HasSubstr("'optimizer.momentum: 0.5'")));
  EXPECT_EQ(bytes_of(path / "config.yaml"), config);
  EXPECT_EQ(bytes_of(path / "compare.json"), json);
  // Another arm of the same name.
  EXPECT_THAT(error(path, document({"compare.arms.absurd={schedule.base_lr: 1e11}"})),
              AllOf(HasSubstr("absurd/3"), HasSubstr("'schedule.base_lr: 1")));
  EXPECT_EQ(bytes_of(path / "compare.json"), json);
  EXPECT_THAT(error(folder_ / "nowhere", document()),
              AllOf(HasSubstr("nowhere"), HasSubstr("is not the folder of an experiment")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "nowhere"));
  // A folder that another command made.
  put_bytes(path / "sweep.json", "{}");
  EXPECT_THAT(error(path, document()),
              HasSubstr("belongs to another command: it has a sweep.json"));
  std::filesystem::remove(path / "sweep.json");
  // A folder that another process writes into.
  const FolderLock lock(path);
  EXPECT_THAT(error(path, document()), HasSubstr("out: another preheat process is using it"));
}

}  // namespace
}  // namespace preheat
