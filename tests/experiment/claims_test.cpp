// Every kind of claim on results made by hand, with the arithmetic beside them.
#include "experiment/claims.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "config/error.h"
#include "config/values.h"
#include "experiment/compare.h"
#include "experiment/find_lr.h"
#include "experiment/sweep.h"
#include "shared_backend.h"
#include "temporary_folder.h"
#include "train/run_files.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// Ten classes; 200 updates, 10 per epoch.
constexpr const char* experiment = R"(
name: claims
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model:
  layers:
    [{conv: {out: 4, batch_norm: true}}, {max_pool: {kernel: 4}}, {conv: {out: 4}}, {linear: {out: 10}}]
schedule:
  base_lr: 0.1
  warmup: {length: 100 steps, until: {train_error_below: 0.5}}
train: {length: 200 steps}
diagnostics: {layers_every: 10 steps, sharpness: {every: 10 steps}}
compare:
  seeds: 5
  arms:
    a: {}
    b: {schedule.base_lr: 0.2}
    c: {schedule.base_lr: 0.3}
    twin: {}
    plain: {schedule.warmup.until: null, diagnostics: null}
    flat: {model.layers: [{linear: {out: 10}}]}
    half: {train.length: 150 steps}
    short: {train.length: 49 steps, schedule.warmup.length: 9 steps, schedule.warmup.until: null}
)";

std::string with(const std::string& claims, const std::string& base = experiment) {
  return base + "expect:\n" + claims;
}

RunResult ended(double accuracy) {
  RunResult run;
  run.test_accuracy = accuracy;
  return run;
}

RunResult stuck() {
  RunResult run = ended(0.12);  // not the accuracy that it counts with
  run.outcome = Outcome::stuck;
  return run;
}

RunResult died(std::int64_t step) {
  RunResult run;
  run.outcome = Outcome::non_finite;
  run.first_non_finite_step = step;
  return run;
}

ArmResult arm_of(const std::string& name, const std::vector<RunResult>& runs) {
  ArmResult arm;
  arm.arm.name = name;
  for (const RunResult& run : runs) arm.runs.push_back({arm.runs.size(), run});
  return arm;
}

// `failed` of n runs fail, those of the lowest seeds.
ArmResult failing(const std::string& name, std::size_t failed, std::size_t n) {
  std::vector<RunResult> runs(n, ended(0.5));
  for (std::size_t i = 0; i < failed; ++i) runs[i] = i % 2 == 0 ? stuck() : died(3);
  return arm_of(name, runs);
}

ArmResult accurate(const std::string& name, const std::vector<double>& accuracies) {
  std::vector<RunResult> runs;
  for (const double a : accuracies) runs.push_back(ended(a));
  return arm_of(name, runs);
}

std::vector<ClaimResult> judge(const std::string& claims, const std::vector<ArmResult>& arms,
                               const std::filesystem::path& folder = "nowhere",
                               bool interrupted = false) {
  const Document document = parse_document(with(claims), "f.yaml");
  const RunConfig base = read_config(document);
  std::vector<Arm> used;
  for (const ArmResult& arm : arms) {
    used.push_back(*std::ranges::find(base.compare->arms, arm.arm.name, &Arm::name));
  }
  return judge_compare(base, arm_configs(document, used), arms, folder, interrupted);
}

ClaimResult judge_one(const std::string& claim, const std::vector<ArmResult>& arms,
                      const std::filesystem::path& folder = "nowhere") {
  const auto results = judge("  - " + claim, arms, folder);
  EXPECT_EQ(results.size(), 1u);
  return results.at(0);
}

void expect_verdict(const std::string& verdict, const std::string& claim,
                    const std::vector<ArmResult>& arms,
                    const std::filesystem::path& folder = "nowhere") {
  const ClaimResult result = judge_one(claim, arms, folder);
  EXPECT_EQ(to_string(result.verdict), verdict) << claim << ": " << result.evidence;
}

TEST(Claims, Failures) {
  // 20 of 20: 0.025^(1/20) = 0.8316; 0 of 20: 1 minus that, 0.1684.
  const std::vector<ArmResult> all = {failing("a", 20, 20)};
  expect_verdict("PASS", "failures: {arm: a, above: 0.83}", all);
  expect_verdict("INCONCLUSIVE", "failures: {arm: a, above: 0.84}", all);
  expect_verdict("FAIL", "failures: {arm: a, below: 0.83}", all);
  expect_verdict("INCONCLUSIVE", "failures: {arm: a, below: 0.84}", all);
  const std::vector<ArmResult> none = {failing("a", 0, 20)};
  expect_verdict("PASS", "failures: {arm: a, below: 0.17}", none);
  expect_verdict("INCONCLUSIVE", "failures: {arm: a, below: 0.16}", none);
  expect_verdict("FAIL", "failures: {arm: a, above: 0.17}", none);
  EXPECT_THAT(judge_one("failures: {arm: a, above: 0.5}", all).evidence,
              AllOf(HasSubstr("20 of 20"), HasSubstr("[0.83, 1.00]")));
}

TEST(Claims, FailsMore) {
  // 7 against 0: 2 / 2^7 = 0.0156, which is also the smallest p that 7 seeds can give.
  const std::vector<ArmResult> clear = {failing("a", 7, 7), failing("b", 0, 7)};
  expect_verdict("PASS", "fails_more: {arms: [a, b], p_below: 0.016}", clear);
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [a, b], p_below: 0.015}", clear);
  expect_verdict("FAIL", "fails_more: {arms: [b, a], p_below: 0.016}", clear);
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [b, a], p_below: 0.015}", clear);
  // A p equal to the level is not below it, and 7 seeds cannot give a smaller one.
  EXPECT_THAT(judge_one("fails_more: {arms: [a, b], p_below: 0.015625}", clear).evidence,
              HasSubstr("p = 0.016, not below 0.015625, which so few could not show"));
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [a, b], p_below: 0.015625}", clear);
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [b, a], p_below: 0.015625}", clear);
  const std::vector<ArmResult> alike = {failing("a", 3, 7), failing("b", 3, 7)};
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [a, b], p_below: 0.016}", alike);
  // 5 against 0 of 7: 2 / 2^5.
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [a, b], p_below: 0.05}",
                 {failing("a", 5, 7), failing("b", 0, 7)});
  EXPECT_THAT(judge_one("fails_more: {arms: [a, b]}", clear).evidence,
              AllOf(StartsWith("7 of 7 against 0 of 7"), HasSubstr("7 failed only in the first"),
                    HasSubstr("p = 0.016, below 0.05")));
}

// Twins and convictions: 10 of 13 against 2 of 17 has p = 0.0005367 (R's ?fisher.test). Both fail
// at the two lowest seeds; of the 13 common ones 8 fail only in the first: 2 / 2^8 = 0.0078.
TEST(Claims, FailsMoreSaysWhatTheCountsAloneShow) {
  const std::vector<ArmResult> twins = {failing("a", 10, 13), failing("b", 2, 17)};
  EXPECT_THAT(judge_one("fails_more: {arms: [a, b]}", twins).evidence,
              StartsWith("10 of 13 against 2 of 17 (Fisher's exact p = 0.00054, which does not use "
                         "the pairs); of 13 seeds 8 failed only in the first, 0 only in the "
                         "second; exact McNemar p = 0.0078, below 0.05"));
  // It does not decide.
  expect_verdict("INCONCLUSIVE", "fails_more: {arms: [a, b], p_below: 0.001}", twins);
  EXPECT_THAT(judge_one("fails_alike: {arms: [a, b]}", twins).evidence, Not(HasSubstr("Fisher")));
  EXPECT_THAT(judge_one("fails_more: {arms: [a, b]}", {arm_of("a", {}), arm_of("b", {})}).evidence,
              StartsWith("0 of 0 against 0 of 0 (Fisher's exact p = 1,"));
}

TEST(Claims, FailsAlike) {
  const auto arms = [](std::size_t a, std::size_t b, std::size_t n) {
    return std::vector{failing("a", a, n), failing("b", b, n)};
  };
  // 0 of 20: at most 0.1684 at 95 %. 20 of 20: at least 0.8316.
  const auto claim = [](double within) {
    return fmt::format("fails_alike: {{arms: [a, b], within: {}}}", within);
  };
  for (const std::size_t failed : {0, 7, 20}) {
    expect_verdict("PASS", claim(0.17), arms(failed, failed, 20));
    expect_verdict("INCONCLUSIVE", claim(0.16), arms(failed, failed, 20));
  }
  expect_verdict("PASS", "fails_alike: {arms: [a, b]}", arms(0, 0, 20));
  expect_verdict("INCONCLUSIVE", "fails_alike: {arms: [a, b]}", arms(1, 0, 20));
  for (const auto& [a, b] : {std::pair(20, 0), std::pair(0, 20)}) {
    expect_verdict("FAIL", claim(0.66), arms(a, b, 20));  // 0.8316 - 0.1684
    expect_verdict("INCONCLUSIVE", claim(0.67), arms(a, b, 20));
  }
  expect_verdict("INCONCLUSIVE", claim(0.99), arms(0, 0, 0));
  EXPECT_THAT(judge_one(claim(0.2), arms(0, 20, 20)).evidence,
              HasSubstr("90 % interval of the difference of shares [-1.00, -0.66]"));
}

TEST(Claims, Accuracy) {
  // Differences of 1, 2, 3 points: 2 +- 4.3027 / sqrt(3) = [-0.484, 4.484].
  const std::vector<ArmResult> arms = {accurate("a", {0.51, 0.62, 0.73}),
                                       accurate("b", {0.50, 0.60, 0.70})};
  expect_verdict("PASS", "accuracy: {arms: [a, b], at_least: -0.005}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy: {arms: [a, b], at_least: -0.0048}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy: {arms: [a, b], at_least: 0.0448}", arms);
  expect_verdict("FAIL", "accuracy: {arms: [a, b], at_least: 0.045}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy: {arms: [a, b], at_least: -0.99}",
                 {accurate("a", {0.9}), accurate("b", {0.1})});
  EXPECT_THAT(judge_one("accuracy: {arms: [a, b]}", arms).evidence,
              AllOf(HasSubstr("3 seeds"), HasSubstr("+2.00 points"), HasSubstr("[-0.48, 4.48]"),
                    // All three are positive, as they are in 1 of the 2^3 ways to sign them: 2 / 8.
                    HasSubstr(", Wilcoxon p = 0.25 against no difference"),
                    Not(HasSubstr("trained in both"))));
  // Of the ranks 1 to 5, 2 is negative; {}, {1} and {2} sum to at most that: 2 x 3 / 2^5 = 0.1875.
  EXPECT_THAT(judge_one("accuracy: {arms: [a, b]}", {accurate("a", {0.51, 0.48, 0.53, 0.54, 0.55}),
                                                     accurate("b", {0.50, 0.50, 0.50, 0.50, 0.50})})
                  .evidence,
              HasSubstr("Wilcoxon p = 0.19 against no difference"));
}

TEST(Claims, AFailedRunHasTheAccuracyOfChance) {
  // 0.5 - 0.3 and 0.1 - 0.3, for both ways to fail; seeds that one arm lacks are left out.
  for (const RunResult& run : {stuck(), died(3)}) {
    const std::vector<ArmResult> arms = {arm_of("a", {ended(0.5), run, ended(0.9)}),
                                         accurate("b", {0.3, 0.3})};
    EXPECT_THAT(judge_one("accuracy: {arms: [a, b]}", arms).evidence,
                AllOf(StartsWith("30.00 % against 30.00 % over 2 seeds"),
                      HasSubstr("failed runs (1, 0) count with 10 %")));
  }
}

// The seeds at which both trained have differences of 1, 2 and 3 points, whose intervals are in the
// tests beside this one. They are said, and do not decide.
TEST(Claims, AccuracyIsAlsoSaidOverTheSeedsThatTrainedInBoth) {
  const std::vector<ArmResult> arms = {
      arm_of("a", {ended(0.51), died(3), ended(0.62), ended(0.73), ended(0.9)}),
      arm_of("b", {ended(0.50), ended(0.6), ended(0.60), ended(0.70), stuck()})};
  expect_verdict("INCONCLUSIVE", "accuracy: {arms: [a, b], at_least: -0.005}", arms);
  EXPECT_THAT(
      judge_one("accuracy: {arms: [a, b], at_least: -0.005}", arms).evidence,
      // (1 + 2 + 3 - 50 + 80) / 5
      AllOf(HasSubstr("over 5 seeds, mean difference +7.20 points"),
            HasSubstr("failed runs (1, 1) count with 10 %; over the 3 seeds that trained in "
                      "both: +2.00 points, t interval at 95 % [-0.48, 4.48]")));
  expect_verdict("INCONCLUSIVE", "accuracy_alike: {arms: [a, b], within: 0.0369}", arms);
  EXPECT_THAT(judge_one("accuracy_alike: {arms: [a, b], within: 0.0369}", arms).evidence,
              HasSubstr("; over the 3 seeds that trained in both: +2.00 points, t interval at 90 % "
                        "[0.31, 3.69]"));
  // A single seed has no interval, and equal differences show no spread.
  const auto evidence_over = [&](std::size_t seeds) {
    const auto cut = [&](std::vector<RunResult> runs) {
      runs.resize(seeds);
      return runs;
    };
    return judge_one("accuracy: {arms: [a, b]}",
                     {arm_of("a", cut({died(3), ended(0.51), ended(0.61)})),
                      arm_of("b", cut({ended(0.6), ended(0.50), ended(0.60)}))})
        .evidence;
  };
  EXPECT_THAT(evidence_over(2), Not(HasSubstr("trained in both")));
  EXPECT_THAT(evidence_over(3),
              HasSubstr("; over the 2 seeds that trained in both: +1.00 points, all equal"));
}

TEST(Claims, AccuracyAlike) {
  // 90 %: 2 +- 2.91999 / sqrt(3) = [0.314, 3.686].
  const std::vector<ArmResult> arms = {accurate("a", {0.51, 0.62, 0.73}),
                                       accurate("b", {0.50, 0.60, 0.70})};
  for (const char* pair : {"[a, b]", "[b, a]"}) {
    const auto claim = [&](double within) {
      return fmt::format("accuracy_alike: {{arms: {}, within: {}}}", pair, within);
    };
    expect_verdict("PASS", claim(0.0369), arms);
    expect_verdict("INCONCLUSIVE", claim(0.0368), arms);
    expect_verdict("INCONCLUSIVE", claim(0.0032), arms);
    expect_verdict("FAIL", claim(0.0031), arms);
  }
  expect_verdict("INCONCLUSIVE", "accuracy_alike: {arms: [a, b], within: 0.5}",
                 {accurate("a", {0.5}), accurate("b", {0.5})});
}

// Where nothing trains all runs have the accuracy of chance, which shows nothing about the arms.
TEST(Claims, EqualDifferencesOfAccuracyShowNoSpread) {
  const std::vector<ArmResult> nothing_trains = {arm_of("a", {died(3), stuck(), died(3)}),
                                                 arm_of("b", {died(3), died(3), stuck()})};
  const std::vector<ArmResult> coarse = {accurate("a", {0.51, 0.62, 0.73}),
                                         accurate("b", {0.50, 0.61, 0.72})};
  for (const std::vector<ArmResult>& arms : {nothing_trains, coarse}) {
    for (const char* claim :
         {"accuracy: {arms: [a, b], at_least: -0.02}", "accuracy: {arms: [a, b], at_least: 0.02}",
          "accuracy_alike: {arms: [a, b], within: 0.02}",
          "accuracy_alike: {arms: [a, b], within: 0.002}"}) {
      expect_verdict("INCONCLUSIVE", claim, arms);
      EXPECT_THAT(judge_one(claim, arms).evidence,
                  HasSubstr("; the differences are all equal, which shows no spread"));
    }
  }
}

// The bootstrap interval beside the t interval needs five seeds, as all do.
TEST(Claims, AccuracyHasABootstrapIntervalFromFiveSeedsOn) {
  const auto evidence = [](std::vector<double> first) {
    const std::vector<double> second(first.size(), 0.5);
    return judge_one("accuracy: {arms: [a, b]}", {accurate("a", first), accurate("b", second)})
        .evidence;
  };
  EXPECT_THAT(evidence({0.5, 0.6, 0.7, 0.8}), Not(HasSubstr("bootstrap")));
  EXPECT_THAT(evidence({0.5, 0.6, 0.7, 0.8, 0.9}), HasSubstr("] (bootstrap ["));
}

TEST(Claims, AccuracyGap) {
  // Gaps of about 0.1 and 0.4: 0.1 is less than half of 0.4, more than a fifth.
  const std::vector<ArmResult> arms = {
      accurate("a", {0.5, 0.6, 0.7, 0.6, 0.5}), accurate("b", {0.41, 0.49, 0.6, 0.5, 0.4}),
      accurate("c", {0.9, 0.8, 0.7, 0.8, 0.9}), accurate("twin", {0.5, 0.4, 0.3, 0.4, 0.5})};
  const auto claim = [](const char* limit) {
    return fmt::format("accuracy_gap: {{arms: [a, b], than: [c, twin], {}}}", limit);
  };
  expect_verdict("PASS", claim("below: 0.5"), arms);
  expect_verdict("FAIL", claim("above: 0.5"), arms);
  expect_verdict("PASS", claim("above: 0.2"), arms);
  expect_verdict("FAIL", claim("below: 0.2"), arms);
  EXPECT_THAT(judge_one(claim("below: 0.5"), arms).evidence,
              AllOf(StartsWith("5 seeds"), HasSubstr("mean gaps 10.00 and 40.00 points"),
                    HasSubstr("-10.00")));
  // A failed run counts with 0.1: the gap of its seed is 0.4, and so the interval spans zero.
  std::vector<ArmResult> one_failed = arms;
  one_failed[1].runs[0].run = stuck();
  expect_verdict("INCONCLUSIVE", claim("below: 0.5"), one_failed);
  std::vector<ArmResult> four = arms;
  for (ArmResult& arm : four) arm.runs.resize(4);
  expect_verdict("INCONCLUSIVE", claim("below: 0.5"), four);
  EXPECT_THAT(judge_one(claim("below: 0.5"), four).evidence,
              HasSubstr("4 seeds that all arms have, too few"));
  // Of six seeds five trained in all arms: the five above. Of five, four are too few to say.
  std::vector<ArmResult> six = arms;
  const double sixth[] = {0.6, 0.5, 0.8, 0.4};
  for (std::size_t i = 0; i < six.size(); ++i) six[i].runs.push_back({5, ended(sixth[i])});
  six[1].runs[5].run = died(3);
  expect_verdict("INCONCLUSIVE", claim("below: 0.5"), six);
  EXPECT_THAT(judge_one(claim("below: 0.5"), six).evidence,
              HasSubstr("; over the 5 seeds that trained in all: mean gaps 10.00 and 40.00 points; "
                        "first less 0.5 x second -10.00, bootstrap at 95 % [-10.80, -9.20]"));
  EXPECT_THAT(judge_one(claim("below: 0.5"), one_failed).evidence,
              Not(HasSubstr("trained in all")));
}

TEST(Claims, EqualDifferencesOfGapsShowNoSpread) {
  const std::vector<double> high(6, 0.6);
  const std::vector<double> low(6, 0.5);
  const std::vector<ArmResult> arms = {accurate("a", high), accurate("b", low), accurate("c", high),
                                       accurate("twin", low)};
  for (const char* limit : {"above: 0.5", "below: 0.5"}) {
    const ClaimResult result =
        judge_one(fmt::format("accuracy_gap: {{arms: [a, b], than: [c, twin], {}}}", limit), arms);
    EXPECT_EQ(result.verdict, Verdict::inconclusive);
    EXPECT_THAT(result.evidence, HasSubstr("; the differences are all equal"));
  }
}

// A verdict by the opposite test stands beside the p that decided it.
TEST(Claims, AFailShowsThePOfTheOpposite) {
  // Three seeds in perfect order: 1 / 6^3 = 0.0046; the opposite order is certain to be as good.
  const std::vector<ArmResult> arms = {accurate("a", {0.5, 0.5, 0.5}),
                                       accurate("b", {0.6, 0.6, 0.6}),
                                       accurate("c", {0.7, 0.7, 0.7})};
  const ClaimResult fails = judge_one("accuracy_falls: {arms: [a, b, c], p_below: 0.05}", arms);
  EXPECT_EQ(fails.verdict, Verdict::fail);
  EXPECT_THAT(fails.evidence, HasSubstr("Page p = 1, not below 0.05; the opposite has p = 0.0046"));
  const ClaimResult holds = judge_one("accuracy_falls: {arms: [c, b, a], p_below: 0.05}", arms);
  EXPECT_EQ(holds.verdict, Verdict::pass);
  EXPECT_THAT(holds.evidence, Not(HasSubstr("the opposite")));
}

TEST(Claims, AccuracyFalls) {
  // Two seeds in perfect order: 1 / 6^2 = 0.0278; the third seed is not in all arms.
  const std::vector<ArmResult> arms = {accurate("a", {0.9, 0.8, 0.1}), accurate("b", {0.7, 0.6}),
                                       accurate("c", {0.5, 0.55, 0.9})};
  expect_verdict("PASS", "accuracy_falls: {arms: [a, b, c], p_below: 0.028}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy_falls: {arms: [a, b, c], p_below: 0.027}", arms);
  expect_verdict("FAIL", "accuracy_falls: {arms: [c, b, a], p_below: 0.028}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy_falls: {arms: [c, b, a], p_below: 0.027}", arms);
  expect_verdict("INCONCLUSIVE", "accuracy_falls: {arms: [a, b, c]}",
                 {accurate("a", {}), accurate("b", {0.5}), accurate("c", {0.5})});
  EXPECT_THAT(
      judge_one("accuracy_falls: {arms: [a, b, c]}", arms).evidence,
      AllOf(HasSubstr("means 85.00, 65.00, 52.50 % over 2 seeds, mean rank correlation -1.00"),
            Not(HasSubstr("trained in all"))));
  // A third seed, which failed in c, has the ranks 2, 3, 1: rho = 1 - 6 (1 + 1 + 4) / (3 (9 - 1)) =
  // -0.5 along the arms.
  EXPECT_THAT(
      judge_one("accuracy_falls: {arms: [a, b, c]}",
                {accurate("a", {0.9, 0.8, 0.5}), accurate("b", {0.7, 0.6, 0.6}),
                 arm_of("c", {ended(0.5), ended(0.55), stuck()})})
          .evidence,
      AllOf(StartsWith("means 73.33, 63.33, 38.33 % over 3 seeds, mean rank correlation -0.83"),
            HasSubstr("; over the 2 seeds that trained in all: means 85.00, 65.00, 52.50 %, mean "
                      "rank correlation -1.00")));
}

// Files of runs, made by hand.
class ClaimsOfFiles : public testing::Test {
 protected:
  void put(const std::string& arm, std::size_t seed, const std::string& name,
           const std::string& text) {
    const auto path = folder_ / arm / std::to_string(seed) / name;
    std::filesystem::create_directories(path.parent_path());
    put_bytes(path, text);
  }

  // `steps` updates with loss(step) and accuracy(step).
  void put_metrics(
      const std::string& arm, std::size_t seed, int steps, const std::function<double(int)>& loss,
      const std::function<double(int)>& accuracy,
      const std::function<double(int)>& lr = [](int) { return 0.1; }) {
    std::string text = std::string(metrics_header) + "\n";
    for (int i = 0; i < steps; ++i) {
      text += fmt::format("{},{},warmup,{},{},{},1,1,1\n", i, i / 10, lr(i), loss(i), accuracy(i));
    }
    put(arm, seed, "metrics.csv", text);
  }

  TemporaryFolder folder_;
};

double one(int) {
  return 1;
}

TEST_F(ClaimsOfFiles, Sooner) {
  // Every update from `begin` on is right, so 26 of the last 50 are right after begin + 26 updates.
  // Before 50 updates there is no mean.
  const auto put_step = [&](const std::string& arm, std::size_t seed, int begin) {
    put_metrics(arm, seed, 200, one, [&](int i) { return i >= begin ? 1.0 : 0.0; });
  };
  for (std::size_t seed = 0; seed < 6; ++seed) {
    put_step("a", seed, seed == 0 ? 0 : 100);                             // 50, 126
    put_step("b", seed, seed == 0 ? 180 : 110 + static_cast<int>(seed));  // never, 137 .. 141
  }
  const auto arms = [](std::size_t n) {
    return std::vector{failing("a", 0, n), failing("b", 0, n)};
  };
  // Six of six: 2 / 2^6 = 0.03125.
  const std::string claim = "sooner: {arms: [a, b], train_error: 0.5, p_below: 0.032}";
  expect_verdict("PASS", claim, arms(6), folder_.path());
  expect_verdict("INCONCLUSIVE", claim, arms(5), folder_.path());
  const std::string opposite = "sooner: {arms: [b, a], train_error: 0.5, p_below: 0.032}";
  expect_verdict("FAIL", opposite, arms(6), folder_.path());
  expect_verdict("INCONCLUSIVE", opposite, arms(5), folder_.path());
  EXPECT_THAT(judge_one(claim, arms(6), folder_.path()).evidence,
              AllOf(StartsWith("median 126 updates against 139.5 over 6 seeds; 0 and 1 never"),
                    HasSubstr("p = 0.031")));
  EXPECT_THAT(
      judge_one(claim, arms(1), folder_.path()).evidence,
      HasSubstr("median 50 updates against 201 over 1 seed; 0 and 1 never, which count as 201"));
  // 49 of 50 right, after 199 updates, is an error of 0.02 and not below it.
  put_step("a", 0, 150);
  EXPECT_THAT(
      judge_one("sooner: {arms: [a, b], train_error: 0.02}", arms(1), folder_.path()).evidence,
      HasSubstr("median 200 updates against 201 over 1 seed; 0 and 1 never"));
  // Nor are 40 of 50 below 0.2 or 45 below 0.1, although in double precision 1 - 0.8 < 0.2.
  for (const auto& [begin, error] : {std::pair(160, "0.2"), std::pair(155, "0.1")}) {
    put_step("a", 0, begin);
    const std::string at_bound = fmt::format("sooner: {{arms: [a, b], train_error: {}}}", error);
    EXPECT_THAT(judge_one(at_bound, arms(1), folder_.path()).evidence,
                HasSubstr("median 201 updates against 201 over 1 seed; 1 and 1 never"));
  }
  EXPECT_THAT(judge_one(claim, arms(7), folder_.path()).evidence,
              HasSubstr("6 seeds (1 more without data)"));
}

// A run whose file has lost its last rows would count as never there.
TEST_F(ClaimsOfFiles, SoonerNeedsTheWholeRun) {
  std::vector<ArmResult> arms = {failing("a", 0, 1), failing("b", 0, 1)};
  for (const char* arm : {"a", "b"}) {
    put_metrics(arm, 0, 200, one, [](int i) { return i >= 160 ? 1.0 : 0.0; });
  }
  const std::string claim = "sooner: {arms: [a, b], train_error: 0.5}";
  arms[1].runs[0].run.steps = 199;  // and its last row is of the update that was not finite
  EXPECT_THAT(judge_one(claim, arms, folder_.path()).evidence, HasSubstr("0 and 0 never"));
  arms[1].runs[0].run.steps = 201;
  std::string error;
  try {
    judge_one(claim, arms, folder_.path());
  } catch (const Error& e) {
    error = e.what();
  }
  EXPECT_THAT(error, StartsWith((folder_ / "b/0/metrics.csv").string() +
                                ": has 200 rows, the run did 201 updates; "));
}

// An arm that never gets there is not sooner for being shorter.
TEST_F(ClaimsOfFiles, SoonerThanAShorterArmThatNeverGetsThere) {
  for (std::size_t seed = 0; seed < 6; ++seed) {
    put_metrics("a", seed, 200, one, [](int i) { return i >= 160 ? 1.0 : 0.0; });
    put_metrics("half", seed, 150, one, [](int) { return 0.0; });
  }
  const std::vector<ArmResult> arms = {failing("a", 0, 6), failing("half", 0, 6)};
  const std::string claim = "sooner: {arms: [a, half], train_error: 0.5, p_below: 0.032}";
  expect_verdict("PASS", claim, arms, folder_.path());
  EXPECT_THAT(judge_one(claim, arms, folder_.path()).evidence,
              StartsWith("median 186 updates against 201 over 6 seeds; 0 and 6 never"));
}

TEST_F(ClaimsOfFiles, SmallerSpike) {
  // A loss of 1 in updates 10 .. 59, and the spike at the first or the last update of the window;
  // the losses before and after do not matter.
  const auto put_spike = [&](const std::string& arm, std::size_t seed, double spike) {
    put_metrics(
        arm, seed, 200,
        [&](int i) {
          return i < 10 || i >= 70 ? 99.0 : i == (seed % 2 == 0 ? 60 : 69) ? spike : 1.0;
        },
        one);
  };
  std::vector<RunResult> b(6, ended(0.5));
  for (std::size_t seed = 0; seed < 6; ++seed) {
    put_spike("a", seed, 2);
    put_spike("b", seed, 4 + static_cast<double>(seed));
  }
  put_metrics("b", 5, 68, one, one);
  b[5] = died(67);
  const auto arms = [&](std::size_t n) {
    return std::vector{failing("a", 0, n),
                       arm_of("b", {b.begin(), b.begin() + static_cast<std::ptrdiff_t>(n)})};
  };
  const auto claim = [](const char* pair) {
    return fmt::format(
        "smaller_spike: {{arms: {}, after: [60 steps, 60 steps], within: 1 epochs, p_below: "
        "0.032}}",
        pair);
  };
  expect_verdict("PASS", claim("[a, b]"), arms(6), folder_.path());
  expect_verdict("INCONCLUSIVE", claim("[a, b]"), arms(5), folder_.path());
  expect_verdict("FAIL", claim("[b, a]"), arms(6), folder_.path());
  EXPECT_THAT(judge_one(claim("[a, b]"), arms(6), folder_.path()).evidence,
              // The sixth counts too, as the largest: the square root of 6 x 7.
              StartsWith("median factor 2 against 6.48 over 6 seeds; 0 and 1 were not finite"));
  // After the window it does not matter if a run is not finite.
  b[5] = died(70);
  put_spike("b", 5, 9);
  EXPECT_THAT(judge_one(claim("[a, b]"), arms(6), folder_.path()).evidence,
              HasSubstr("0 and 0 were not finite"));
  // Each arm has its own restart: that of the first is 20 updates later, with a spike of 3.
  for (std::size_t seed = 0; seed < 6; ++seed) {
    put_metrics(
        "a", seed, 200, [](int i) { return i == 85   ? 3.0
                                           : i == 69 ? 8.0
                                                     : 1.0; }, one);
  }
  EXPECT_THAT(
      judge_one("smaller_spike: {arms: [a, b], after: [80 steps, 60 steps], within: 1 epochs}",
                arms(6), folder_.path())
          .evidence,
      StartsWith("median factor 2.63 against"));  // 3 / (57 / 50): the 8 is before the restart
  EXPECT_THAT(
      judge_one("smaller_spike: {arms: [b, a], after: [60 steps, 80 steps], within: 1 epochs}",
                arms(6), folder_.path())
          .evidence,
      HasSubstr("against 2.63 over 6 seeds"));
}

// Before the restart at `after` 50 losses of 1, and earlier ones that do not count. From it on 3 in
// some updates and 0.5 in the others: the mean of 50 is 1 with 10 of the former, so a spike of d
// updates is over after d + 40. A run that ends early ends with a loss that is not finite.
TEST_F(ClaimsOfFiles, SmallerSpikeSaysWhenTheLossIsBack) {
  const auto put_restart = [&](const std::string& arm, std::size_t seed, int after,
                               const std::function<bool(int)>& is_high, int steps = 200) {
    put_metrics(
        arm, seed, steps,
        [&](int i) {
          if (i == steps - 1 && steps < 200) return std::nan("");
          if (i < after) return i < after - 50 ? 0.25 : 1.0;
          return is_high(i - after) ? 3.0 : 0.5;
        },
        one);
  };
  const auto first = [](int d) { return [d](int i) { return i < d; }; };
  const auto evidence = [&](std::size_t n, const char* pair = "[a, b]",
                            const char* after = "[100 steps, 100 steps]") {
    const std::vector<ArmResult> arms = {failing("a", 0, n), failing("b", 0, n)};
    return judge_one(
               fmt::format("smaller_spike: {{arms: {}, after: {}, within: 10 steps}}", pair, after),
               arms, folder_.path())
        .evidence;
  };
  put_restart("a", 0, 100, first(30));
  put_restart("b", 0, 100, first(60));
  EXPECT_THAT(evidence(1),
              HasSubstr("(recovery, not tested: median 70 updates against 100 updates, "
                        "0 and 0 never); Wilcoxon p = 1, not below"));
  // Losses from before do not count: without a spike it is 50, and so it is if all losses are
  // equal.
  put_restart("a", 1, 100, first(0));
  put_metrics("b", 1, 200, one, one);
  EXPECT_THAT(evidence(2), HasSubstr("median 60 updates against 75 updates, 0 and 0 never"));
  // 61 updates, one too many to be over by the end; and a run that ends 40 updates later.
  put_restart("a", 2, 100, first(60));
  put_restart("b", 2, 100, first(61));
  EXPECT_THAT(evidence(3), HasSubstr("median 70 updates against 100 updates, 0 and 1 never"));
  put_restart("a", 3, 100, first(20));
  put_restart("b", 3, 100, first(30), 140);
  EXPECT_THAT(evidence(4), HasSubstr("median 65 updates against never, 0 and 2 never"));
  // It is not finite after 75 updates: before the spike was over, or after.
  put_restart("a", 3, 100, first(60), 176);
  put_restart("b", 3, 100, first(20), 176);
  EXPECT_THAT(evidence(4), HasSubstr("median 85 updates against 80 updates, 1 and 1 never"));
  // A second restart at 145, before the first is over: [150, 200) has the last 10 of its 15.
  put_restart("a", 0, 100, [](int i) { return i < 30 || (i >= 45 && i < 60); });
  EXPECT_THAT(evidence(1), HasSubstr("median 100 updates against 100 updates, 0 and 0 never"));
  // No run can recover in the 49 updates that are left of 200.
  EXPECT_THAT(evidence(1, "[a, b]", "[100 steps, 151 steps]"), Not(HasSubstr("recovery")));
  EXPECT_THAT(evidence(1, "[a, b]", "[100 steps, 150 steps]"), HasSubstr("recovery"));
  // Each arm has its own restart.
  put_restart("a", 0, 120, first(30));
  EXPECT_THAT(evidence(1, "[a, b]", "[120 steps, 100 steps]"),
              HasSubstr("median 70 updates against 100 updates"));
  EXPECT_THAT(evidence(1, "[b, a]", "[100 steps, 120 steps]"),
              HasSubstr("median 100 updates against 70 updates"));
  // Ten losses of 2 before it. From it on the mean is 2 with 20 of 3.5 and 30 of 1.
  put_metrics(
      "a", 0, 200, [](int i) { return i < 10   ? 2.0
                                      : i < 40 ? 3.5
                                               : 1.0; }, one);
  EXPECT_THAT(evidence(1, "[a, b]", "[10 steps, 100 steps]"),
              HasSubstr("median 60 updates against 100 updates"));
}

TEST(Claims, GateOpens) {
  const auto arms = [](const std::vector<std::int64_t>& opened) {
    std::vector<RunResult> runs(10, ended(0.5));
    for (std::size_t i = 0; i < opened.size(); ++i) runs[i].gate_opened_at = opened[i];
    return std::vector{arm_of("a", runs)};
  };
  const auto claim = [](double share) {
    return fmt::format("gate_opens: {{arm: a, from: 20 steps, to: 50%, share: {}}}", share);
  };
  // 8 and 3 of 10: 95 % intervals [0.444, 0.975] and [0.067, 0.652].
  const std::vector<ArmResult> eight = arms({20, 20, 30, 40, 50, 60, 99, 99, 19, 100});
  const std::vector<ArmResult> three = arms({20, 20, 99, 19, 100});
  expect_verdict("PASS", claim(0.44), eight);
  expect_verdict("INCONCLUSIVE", claim(0.45), eight);
  expect_verdict("INCONCLUSIVE", claim(0.65), three);
  expect_verdict("FAIL", claim(0.66), three);
  expect_verdict("INCONCLUSIVE", claim(0.5), {arm_of("a", {})});
  EXPECT_THAT(judge_one(claim(0.5), three).evidence,
              AllOf(StartsWith("3 of 10 in [20, 100)"), HasSubstr("0.65]"),
                    HasSubstr("opened in 5, at a median of 20")));
}

TEST_F(ClaimsOfFiles, SharpnessFalls) {
  const auto put_sharpness = [&](std::size_t seed, double first, double last, bool first_agrees,
                                 bool last_agrees) {
    std::string text = std::string(sharpness_header) + "\n";
    text += fmt::format("0,0.1,{},1,0,1,1,{},1\n", first, first_agrees ? 1 : 0);
    text += "10,0.1,1000,1,0,1,1,0,1\n";
    text += fmt::format("20,0.1,{},1,0,1,1,{},1\n", last, last_agrees ? 1 : 0);
    text += "30,0.1,nan,nan,nan,1,1,0,1\n";
    put("a", seed, "sharpness.csv", text);
  };
  const auto arms = [](std::size_t n) { return std::vector{failing("a", 0, n)}; };
  const std::string claim = "sharpness_falls: {arm: a, by: 5, p_below: 0.032}";
  for (std::size_t seed = 0; seed < 5; ++seed)
    put_sharpness(seed, 100, seed == 4 ? -20 : 20, true, true);
  put_sharpness(5, 100, 90, false, true);
  put_sharpness(6, 100, 90, true, false);
  put("a", 7, "sharpness.csv", std::string(sharpness_header) + "\n");
  // A sharpness that was measured once has neither fallen nor stayed.
  put("a", 9, "sharpness.csv", std::string(sharpness_header) + "\n0,0.1,9,9,0,1,1,1,1\n");
  // Five of five: 1 / 2^5 = 0.03125.
  expect_verdict("PASS", claim, arms(9), folder_.path());
  EXPECT_THAT(judge_one(claim, arms(9), folder_.path()).evidence,
              AllOf(StartsWith("5 of 5 runs, median 100 to 20"), HasSubstr("2 without"),
                    HasSubstr("2 whose step sizes disagree"), HasSubstr("p = 0.031")));
  // The sign test is about no more than this.
  EXPECT_EQ(judge_one(claim, arms(9), folder_.path()).text,
            "the sharpness falls 5-fold in more than half of the runs of a");
  EXPECT_THAT(judge_one(claim, arms(10), folder_.path()).evidence,
              AllOf(StartsWith("5 of 5 runs"), HasSubstr("3 without")));
  expect_verdict("INCONCLUSIVE", claim, arms(4), folder_.path());
  expect_verdict("FAIL", "sharpness_falls: {arm: a, by: 5.01, p_below: 0.032}", arms(9),
                 folder_.path());
  expect_verdict("INCONCLUSIVE", claim, {failing("a", 0, 0)}, folder_.path());
  // A negative curvature counts with its magnitude.
  put_sharpness(0, 100, -90, true, true);
  EXPECT_THAT(judge_one(claim, arms(1), folder_.path()).evidence, StartsWith("0 of 1 runs"));
}

// A file of two rows: the sharpness and the curvature along the random direction, first and last.
std::string sharpness_file(double first, double last, double random_first, double random_last) {
  return fmt::format("{}\n0,0.1,{},1,0,1,1,1,{}\n10,0.1,{},1,0,1,1,1,{}\n", sharpness_header, first,
                     random_first, last, random_last);
}

TEST_F(ClaimsOfFiles, SharpnessStays) {
  // Falls 2-fold and 8-fold: the mean of the logarithms is log 4, and its standard error is half of
  // log 4. With one degree of freedom t = 12.7062, so the interval is 4 x 2^(-+12.7062).
  put("a", 0, "sharpness.csv", sharpness_file(2, 1, 1, 1));
  put("a", 1, "sharpness.csv", sharpness_file(8, 1, 1, 1.01));
  put("a", 2, "sharpness.csv", sharpness_file(-8, 1, 4, 4));  // has no logarithm
  const std::vector<ArmResult> arms = {failing("a", 0, 3)};
  const ClaimResult wide = judge_one("sharpness_stays: {arm: a, within: 2}", arms, folder_.path());
  EXPECT_EQ(wide.verdict, Verdict::inconclusive);
  EXPECT_THAT(wide.evidence, AllOf(StartsWith("2 runs"), HasSubstr("1 where it is not above zero"),
                                   HasSubstr("falls 4.00-fold")));
  put("a", 2, "sharpness.csv", sharpness_file(std::nan(""), 1, 4, 4));
  EXPECT_THAT(judge_one("sharpness_stays: {arm: a, within: 2}", arms, folder_.path()).evidence,
              AllOf(StartsWith("2 runs"), HasSubstr("1 without measurements"),
                    HasSubstr("falls 4.00-fold")));
  put("a", 2, "sharpness.csv", sharpness_file(-8, 1, 4, 4));
  // 4 x 2^12.7062 = 26730, and 4 / 2^12.7062 = 0.0006.
  expect_verdict("PASS", "sharpness_stays: {arm: a, within: 26800}", arms, folder_.path());
  expect_verdict("INCONCLUSIVE", "sharpness_stays: {arm: a, within: 26600}", arms, folder_.path());
  expect_verdict("PASS", "sharpness_stays: {arm: a, within: 2, random_direction: true}", arms,
                 folder_.path());
  for (std::size_t seed = 0; seed < 3; ++seed) {
    put("a", seed, "sharpness.csv", sharpness_file(100 + static_cast<double>(seed), 10, 1, 1));
  }
  expect_verdict("FAIL", "sharpness_stays: {arm: a, within: 2}", arms, folder_.path());
  expect_verdict("INCONCLUSIVE", "sharpness_stays: {arm: a, within: 2}", {failing("a", 0, 1)},
                 folder_.path());
}

TEST_F(ClaimsOfFiles, EqualFallsOfTheSharpnessShowNoSpread) {
  for (std::size_t seed = 0; seed < 3; ++seed) {
    put("a", seed, "sharpness.csv", sharpness_file(10, 10, 1, 1));
  }
  for (const char* within : {"2", "1.1"}) {
    const ClaimResult result =
        judge_one(fmt::format("sharpness_stays: {{arm: a, within: {}}}", within),
                  {failing("a", 0, 3)}, folder_.path());
    EXPECT_EQ(result.verdict, Verdict::inconclusive);
    EXPECT_THAT(result.evidence, HasSubstr("; the differences are all equal"));
  }
}

TEST_F(ClaimsOfFiles, EdgeOfStability) {
  // Momentum is 0.9, so the edge 2 (1 + m) / rate is 3.8 / 0.1 = 38 and 3.8 / 0.2 = 19: a slope of
  // (late - 19) / 19. The last quarter of seven measurements is two of them, of which the median
  // counts.
  const auto put_late = [&](const char* arm, std::size_t seed, double rate, double late) {
    std::string text = std::string(sharpness_header) + "\n";
    for (int i = 0; i < 7; ++i) {
      text += fmt::format("{},{},{},1,0,1,1,1,1\n", i, rate,
                          i < 5    ? 999
                          : i == 5 ? late - 1
                                   : late + 1);
    }
    put(arm, seed, "sharpness.csv", text);
  };
  const auto arms = [](std::size_t n) {
    return std::vector{failing("a", 0, n), failing("b", 0, n)};
  };
  const auto claim = [](double from, double to) {
    return fmt::format("edge_of_stability: {{arms: [a, b], slope: [{}, {}]}}", from, to);
  };
  for (const std::size_t seed : {0u, 1u}) {
    put_late("a", seed, 0.1, 38);
    put_late("b", seed, 0.2, 19);
  }
  const ClaimResult equal = judge_one(claim(0.5, 1.5), arms(2), folder_.path());
  EXPECT_EQ(equal.verdict, Verdict::inconclusive);
  EXPECT_THAT(equal.evidence,
              AllOf(StartsWith("4 runs, sharpness over 2 (1 + momentum) / rate "
                               "1.00 to 1.00, median 1.00; mean slope 1.000 over 2"),
                    HasSubstr("equal in all seeds")));
  // Slopes of 0.99 and 1.01: the standard error is 0.01, and 1 -+ 12.7062 x 0.01 the interval.
  put_late("a", 0, 0.1, 37.81);
  put_late("a", 1, 0.1, 38.19);
  expect_verdict("PASS", claim(0.87, 1.13), arms(2), folder_.path());
  expect_verdict("INCONCLUSIVE", claim(0.88, 1.13), arms(2), folder_.path());
  expect_verdict("INCONCLUSIVE", claim(0.87, 1.12), arms(2), folder_.path());
  expect_verdict("FAIL", claim(0.8, 0.87), arms(2), folder_.path());
  expect_verdict("FAIL", claim(1.13, 1.2), arms(2), folder_.path());
  EXPECT_THAT(judge_one(claim(0.8, 1.2), arms(2), folder_.path()).evidence,
              HasSubstr("; mean slope 1.000 over 2 seeds, t interval at 95 % [0.87, 1.13]"));
  // One seed has no interval, however many arms there are.
  const ClaimResult one_seed = judge_one(claim(0.5, 1.5), arms(1), folder_.path());
  EXPECT_EQ(one_seed.verdict, Verdict::inconclusive);
  EXPECT_THAT(one_seed.evidence,
              HasSubstr("mean slope 0.990 over 1 seed, too few for an interval"));
  expect_verdict("INCONCLUSIVE", claim(0.5, 1.5), arms(3), folder_.path());
  expect_verdict("INCONCLUSIVE", claim(0.5, 1.5), {failing("a", 1, 2), failing("b", 0, 2)},
                 folder_.path());
  // Two arms at one edge have no slope, and that is said.
  put_late("b", 0, 0.1, 38);
  put_late("b", 1, 0.1, 38);
  const ClaimResult one_edge = judge_one(claim(0.5, 1.5), arms(2), folder_.path());
  EXPECT_EQ(one_edge.verdict, Verdict::inconclusive);
  EXPECT_THAT(one_edge.evidence, HasSubstr("4 runs, at one edge in each seed, which has no slope"));
  put_late("b", 0, 0.2, 19);
  put_late("b", 1, 0.2, 19);
  // A run whose sharpness is no number, or whose rate of 0 has no edge, is left out.
  for (const auto& [rate, late] : {std::pair(0.1, std::nan("")), std::pair(0.0, 38.0)}) {
    put_late("a", 0, rate, late);
    const ClaimResult left = judge_one(claim(0.5, 1.5), arms(2), folder_.path());
    EXPECT_EQ(left.verdict, Verdict::inconclusive);
    EXPECT_THAT(left.evidence, HasSubstr("3 runs, 1 more failed or are without measurements"));
  }
}

TEST_F(ClaimsOfFiles, UnstableStart) {
  std::vector<RunResult> runs(10, ended(0.5));
  const auto set = [&](std::size_t n, double sharp) {
    for (std::size_t i = 0; i < n; ++i) {
      runs[i] = died(3);
      runs[i].initial_sharpness = sharp;
      put_metrics("a", i, 3, one, one, [](int step) { return step == 1 ? 0.1 : 0.01; });
    }
  };
  const auto claim = [](double share) {
    return fmt::format("unstable_start: {{arm: a, share: {}}}", share);
  };
  set(5, 20.2);  // 20.2 x 0.1 / 2 = 1.01; 5 of 5: at least 0.025^(1/5) = 0.478
  expect_verdict("PASS", claim(0.47), {arm_of("a", runs)}, folder_.path());
  expect_verdict("INCONCLUSIVE", claim(0.48), {arm_of("a", runs)}, folder_.path());
  EXPECT_THAT(judge_one(claim(0.9), {arm_of("a", runs)}, folder_.path()).evidence,
              AllOf(StartsWith("5 of 5 runs"), HasSubstr("median 1.01")));
  set(5, 19.8);  // 0 of 5: at most 1 - 0.478
  expect_verdict("FAIL", claim(0.53), {arm_of("a", runs)}, folder_.path());
  expect_verdict("INCONCLUSIVE", claim(0.52), {arm_of("a", runs)}, folder_.path());
  set(5, 20.2);
  runs[4].initial_sharpness.reset();
  EXPECT_THAT(judge_one(claim(0.9), {arm_of("a", runs)}, folder_.path()).evidence,
              AllOf(StartsWith("4 of 4 runs"), HasSubstr("1 more without")));
  expect_verdict("INCONCLUSIVE", claim(0.5), {failing("a", 0, 0)}, folder_.path());
}

TEST_F(ClaimsOfFiles, DeepLayersMoveMore) {
  // By depth, velocity over weight is 1, 2, 3 or 3, 2, 1. Other rows say the opposite, with larger
  // values.
  const auto put_layers = [&](const std::string& arm, std::size_t seed, bool deep) {
    const char* names[] = {"0.conv.weight", "2.conv.weight", "3.linear.weight"};
    std::string text = std::string(layers_header) + "\n";
    for (const int step : {0, 10, 20}) {
      for (int i = 0; i < 3; ++i) {
        const int move = ((deep == (step < 20)) ? i + 1 : 3 - i) * (step < 20 ? 1 : 100);
        text += fmt::format("{},{},2,{},1,1,1,1\n", step, names[i], 2 * move);
        text += fmt::format("{},{}.batch_norm.weight,1,{},1,1,1,nan\n", step, i, 100 - i);
      }
    }
    text += "15,0.conv.weight,nan,1,1,1,1,nan\n";
    put(arm, seed, "layers.csv", text);
  };
  for (std::size_t seed = 0; seed < 6; ++seed) {
    put_layers("a", seed, true);
    put_layers("b", seed, false);
  }
  const auto arms = [](std::size_t n) {
    return std::vector{failing("a", 0, n), failing("b", 0, n)};
  };
  const auto claim = [](const char* pair) {
    return fmt::format("deep_layers_move_more: {{arms: {}, within: 20 steps, p_below: 0.032}}",
                       pair);
  };
  expect_verdict("PASS", claim("[a, b]"), arms(6), folder_.path());
  expect_verdict("FAIL", claim("[b, a]"), arms(6), folder_.path());
  expect_verdict("INCONCLUSIVE", claim("[a, b]"), arms(5), folder_.path());
  EXPECT_THAT(judge_one(claim("[a, b]"), arms(7), folder_.path()).evidence,
              StartsWith("mean rho of depth 1.00 against -1.00 over 6 seeds (1 more without"));
}

constexpr const char* grid = R"(
name: grid
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
train: {length: 200 steps}
sweep:
  seeds: 2
  axes:
    schedule.base_lr: [0.4, 0.1, 0.2]
    schedule.warmup.length: [0 steps, 10 steps, 20 steps]
)";

// Judges loss(rate, level, seed), or the accuracy, of each run; std::nullopt if the run failed.
ClaimResult judge_grid(
    const std::string& claim, std::size_t seeds,
    const std::function<std::optional<double>(double, std::size_t, std::size_t)>& loss,
    bool is_accuracy = false) {
  const RunConfig base = read_config(parse_document(with("  - " + claim, grid), "f.yaml"));
  SweepResult result;
  result.axes = base.sweep->axes;
  const double rates[] = {0.4, 0.1, 0.2};
  std::size_t i = 0;
  for (const Arm& cell : cells_of(result.axes)) {
    ArmResult arm{cell, {}};
    for (std::size_t seed = 0; seed < seeds; ++seed) {
      RunResult run = died(3);
      if (const auto l = loss(rates[i / 3], i % 3, seed)) {
        run = ended(is_accuracy ? *l : 0.5);
        run.final_train_loss = is_accuracy ? 1.0 : *l;
      }
      arm.runs.push_back({seed, run});
    }
    result.cells.push_back(arm);
    ++i;
  }
  const auto claims = judge_sweep(base, result);
  EXPECT_EQ(claims.size(), 1u);
  return claims.at(0);
}

// Every run trains at rates up to the boundary of its level.
ClaimResult judge_boundaries(const std::string& options, std::size_t seeds,
                             std::vector<double> boundaries) {
  return judge_grid("boundary_rises: {along: schedule.warmup.length, " + options + "}", seeds,
                    [&](double rate, std::size_t level, std::size_t) {
                      return rate <= boundaries[level] ? std::optional(1.0) : std::nullopt;
                    });
}

TEST(Claims, BoundaryRises) {
  // Two seeds in perfect order: 1 / 6^2 = 0.0278; one: 1 / 6.
  const ClaimResult rises = judge_boundaries("p_below: 0.028", 2, {0.1, 0.2, 0.4});
  EXPECT_EQ(rises.verdict, Verdict::pass) << rises.evidence;
  EXPECT_THAT(
      rises.evidence,
      AllOf(StartsWith("boundary 0.1, 0.2, 0.4; mean rank correlation 1.00 over 2 seeds"),
            HasSubstr("all rates train in 2 of 6 rows, none in 0"), HasSubstr("p = 0.028")));
  EXPECT_EQ(judge_boundaries("p_below: 0.027", 2, {0.1, 0.2, 0.4}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_boundaries("p_below: 0.05", 1, {0.1, 0.2, 0.4}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_boundaries("p_below: 0.05", 2, {0.2, 0.2, 0.2}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_boundaries("p_below: 0.05", 2, {0.4, 0.2, 0.1}).verdict, Verdict::fail);
  // If no rate trains, the boundary is half the smallest rate.
  EXPECT_THAT(judge_boundaries("p_below: 0.05", 2, {0, 0.2, 0.4}).evidence,
              AllOf(StartsWith("boundary 0.05, 0.2, 0.4"), HasSubstr("none in 2")));
  // The boundary falls back by an octave at the end.
  EXPECT_EQ(judge_boundaries("p_below: 0.05, octaves_back: 1", 2, {0.1, 0.4, 0.2}).verdict,
            Verdict::inconclusive);
  EXPECT_EQ(judge_boundaries("p_below: 0.05, octaves_back: 0.9", 2, {0.1, 0.4, 0.2}).verdict,
            Verdict::fail);
}

TEST(Claims, BoundaryMoves) {
  const auto judge_moves = [](const std::string& limit, std::size_t seeds,
                              std::vector<double> first_of_seed) {
    return judge_grid("boundary_moves: {along: schedule.warmup.length, " + limit + "}", seeds,
                      [&](double rate, std::size_t level, std::size_t seed) {
                        const double boundary = level == 0 ? first_of_seed[seed] : 0.4;
                        return rate <= boundary ? std::optional(1.0) : std::nullopt;
                      });
  };
  // From 0.1 to 0.4 is two octaves, from 0.2 one. The boundary at 0.1 may be as high as 0.2, so two
  // may be one; all rates train at the last value, so that the boundary there may be higher.
  const std::vector<double> two(5, 0.1);
  EXPECT_EQ(judge_moves("octaves_above: 0.9", 5, two).verdict, Verdict::pass);
  EXPECT_EQ(judge_moves("octaves_below: 0.9", 5, two).verdict, Verdict::fail);
  for (const char* limit :
       {"octaves_above: 1.1", "octaves_below: 1.1", "octaves_above: 2.1", "octaves_below: 2.1"}) {
    const ClaimResult bounded = judge_moves(limit, 5, two);
    EXPECT_EQ(bounded.verdict, Verdict::inconclusive);
    EXPECT_THAT(bounded.evidence,
                HasSubstr("; of 5 movements 5 may be larger and 0 smaller: a row trains at all "
                          "rates or at none; bootstrap at 95 % [2.00, 2.00], with the steps of "
                          "the grid [1.00, inf]"));
  }
  EXPECT_EQ(judge_moves("octaves_above: 0.9", 4, two).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_moves("octaves_above: 0.9", 1, two).verdict, Verdict::inconclusive);
  EXPECT_THAT(judge_moves("octaves_above: 1.5", 4, {0.1, 0.2, 0.1, 0.2}).evidence,
              StartsWith("1.50 octaves from 0 steps to 20 steps, the mean of 4 seeds "
                         "(2.00, 1.00, 2.00, 1.00), too few"));
  // Even (2/5)^5 = 0.010 is more than the 0.00095 that the expanded interval leaves out.
  const ClaimResult mixed = judge_moves("octaves_above: 0.5", 5, {0.1, 0.2, 0.1, 0.2, 0.1});
  EXPECT_EQ(mixed.verdict, Verdict::inconclusive);
  EXPECT_THAT(mixed.evidence, HasSubstr("bootstrap at 95 % [1.00, 2.00], with the steps of the "
                                        "grid [0.00, inf]"));
}

// A boundary outside the grid is a bound, and a verdict stands only where the true boundary could
// not contradict it.
TEST(Claims, BoundaryMovesBeyondTheGrid) {
  // The boundaries of the first and the last value: 0 if no rate trains, 0.4 if all do.
  const auto judge_ends = [](const std::string& limit, double first, double last) {
    return judge_grid("boundary_moves: {along: schedule.warmup.length, " + limit + "}", 5,
                      [&](double rate, std::size_t level, std::size_t) {
                        return rate <= (level == 0 ? first : last) ? std::optional(1.0)
                                                                   : std::nullopt;
                      });
  };
  const ClaimResult nothing = judge_ends("octaves_below: 1", 0, 0);
  EXPECT_EQ(nothing.verdict, Verdict::inconclusive);
  EXPECT_THAT(nothing.evidence, HasSubstr("5 may be larger and 5 smaller"));
  EXPECT_EQ(judge_ends("octaves_below: 1", 0.4, 0.4).verdict, Verdict::inconclusive);
  // From less than 0.4 to at least 0.4, and from less than 0.1 to at least 0.1: up by any amount.
  for (const auto& [first, last] : {std::pair(0.2, 0.4), std::pair(0.0, 0.1)}) {
    EXPECT_EQ(judge_ends("octaves_above: -0.1", first, last).verdict, Verdict::pass);
    EXPECT_EQ(judge_ends("octaves_below: -0.1", first, last).verdict, Verdict::fail);
    EXPECT_EQ(judge_ends("octaves_below: 0.9", first, last).verdict, Verdict::inconclusive);
    EXPECT_EQ(judge_ends("octaves_above: 0.1", first, last).verdict, Verdict::inconclusive);
  }
  // The other way round: down by any amount.
  for (const auto& [first, last] : {std::pair(0.4, 0.2), std::pair(0.1, 0.0)}) {
    EXPECT_EQ(judge_ends("octaves_below: 0.1", first, last).verdict, Verdict::pass);
    EXPECT_EQ(judge_ends("octaves_above: 0.1", first, last).verdict, Verdict::fail);
    EXPECT_EQ(judge_ends("octaves_below: -0.1", first, last).verdict, Verdict::inconclusive);
  }
  EXPECT_THAT(judge_ends("octaves_above: 0", 0.4, 0.2).evidence,
              HasSubstr("with the steps of the grid [-inf, 0.00]"));
}

// Seeds that all move by one step of the grid have moved by more than none and less than two.
TEST(Claims, BoundaryMovesAreKnownToAStepOfTheGrid) {
  const auto judge_step = [](const std::string& limit) {
    return judge_grid("boundary_moves: {along: schedule.warmup.length, " + limit + "}", 6,
                      [](double rate, std::size_t level, std::size_t) {
                        return rate <= (level == 0 ? 0.1 : 0.2) ? std::optional(1.0) : std::nullopt;
                      });
  };
  const ClaimResult fine = judge_step("octaves_below: 1.5");
  EXPECT_EQ(fine.verdict, Verdict::inconclusive);
  EXPECT_THAT(fine.evidence,
              AllOf(HasSubstr("[1.00, 1.00], with the steps of the grid [0.00, 2.00]"),
                    Not(HasSubstr("may be larger"))));
  EXPECT_EQ(judge_step("octaves_above: 0.5").verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_step("octaves_below: 2.1").verdict, Verdict::pass);
  EXPECT_EQ(judge_step("octaves_above: 2.1").verdict, Verdict::fail);
  EXPECT_EQ(judge_step("octaves_above: -0.1").verdict, Verdict::pass);
}

// Judges the accuracy by (rate, level, seed); std::nullopt if the run failed.
ClaimResult judge_accuracies(
    const std::string& options, std::size_t seeds,
    const std::function<std::optional<double>(double, std::size_t, std::size_t)>& accuracy) {
  return judge_grid("accuracy_moves: {" + options + "}", seeds, accuracy, true);
}

TEST(Claims, AccuracyMovesAlongAnAxisByLessThanAMargin) {
  // All runs train at 0.1 and 0.2, so only 0.1 is an octave below the boundary. The accuracies at
  // the boundary do not count.
  const auto judge_levels = [](const std::string& options, std::vector<double> of_level,
                               std::vector<double> of_seed) {
    return judge_accuracies(
        "along: schedule.warmup.length, octaves_from_boundary: 1, " + options, of_seed.size(),
        [&](double rate, std::size_t level, std::size_t seed) -> std::optional<double> {
          if (rate > 0.3) return std::nullopt;
          if (rate > 0.15) return 0.3 + 0.2 * static_cast<double>(level);
          // Differences between seeds do not count either.
          return 0.5 + 0.1 * static_cast<double>(seed) + of_level[level] * of_seed[seed];
        });
  };
  const ClaimResult alike = judge_levels("within: 0.02", {0, 0.01, -0.01}, {1, 1.1, 0.9});
  EXPECT_EQ(alike.verdict, Verdict::pass) << alike.evidence;
  // t of 2 degrees of freedom at 0.95 is 2.920: 1 +- 2.920 x 0.1 / sqrt(3).
  EXPECT_THAT(alike.evidence,
              AllOf(StartsWith("1 of 3 rates are at most 0.1, the least boundary is 0.2; 3 seeds, "
                               "1 cell at each value; 60.00 % at 0 steps"),
                    HasSubstr("+1.00 at 10 steps [0.83, 1.17]; -1.00 at 20 steps [-1.17, -0.83]"),
                    HasSubstr("t intervals at 90 %")));
  // One value is enough to contradict the claim, also one in the middle, in either direction.
  EXPECT_EQ(judge_levels("within: 0.02", {0, 0.03, 0}, {1, 1.1, 0.9}).verdict, Verdict::fail);
  EXPECT_EQ(judge_levels("within: 0.02", {0, 0, -0.03}, {1, 1.1, 0.9}).verdict, Verdict::fail);
  // An interval wider than the margin shows nothing, nor does one seed.
  EXPECT_EQ(judge_levels("within: 0.02", {0, 0.01, 0}, {1, -4, 3}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_levels("within: 0.02", {0, 0, 0}, {1}).verdict, Verdict::inconclusive);
  // Of two seeds t at 0.95 is 6.314: 1.05 +- 6.314 x 0.05.
  EXPECT_EQ(judge_levels("within: 0.014", {0, 0.01, 0.01}, {1, 1.1}).verdict, Verdict::pass);
  EXPECT_EQ(judge_levels("within: 0.013", {0, 0.01, 0.01}, {1, 1.1}).verdict,
            Verdict::inconclusive);
  // A value whose differences are all equal is no evidence of equality.
  const ClaimResult equal = judge_levels("within: 0.02", {0, 0.01, 0}, {1, 1.1, 0.9});
  EXPECT_EQ(equal.verdict, Verdict::inconclusive);
  EXPECT_THAT(equal.evidence, HasSubstr("; +0.00 at 20 steps [0.00, 0.00], equal in all seeds, t"));
  // `beyond` is about the last value alone.
  EXPECT_EQ(judge_levels("beyond: 0.02", {0, 0, 0.03}, {1, 1.1, 0.9}).verdict, Verdict::pass);
  EXPECT_EQ(judge_levels("beyond: 0.02", {0, 0, -0.03}, {1, 1.1, 0.9}).verdict, Verdict::pass);
  EXPECT_EQ(judge_levels("beyond: 0.02", {0, 0.03, 0.01}, {1, 1.1, 0.9}).verdict, Verdict::fail);
  EXPECT_EQ(judge_levels("beyond: 0.02", {0, 0, 0.03}, {1, -4, 3}).verdict, Verdict::inconclusive);
  // Values that `over` leaves out are ignored.
  EXPECT_EQ(judge_levels("within: 0.02, over: {schedule.warmup.length: [0 steps, 20 steps]}",
                         {0, 0.03, 0.01}, {1, 1.1, 0.9})
                .verdict,
            Verdict::pass);
}

TEST(Claims, AccuracyMovesAlongTheRate) {
  const auto judge_rates = [](const std::string& options, double boundary) {
    return judge_accuracies(
        "along: schedule.base_lr, octaves_from_boundary: 1, " + options, 3,
        [&](double rate, std::size_t level, std::size_t seed) -> std::optional<double> {
          if (level == 1 && rate > boundary) return std::nullopt;
          return 0.5 + rate * (0.95 + 0.05 * static_cast<double>(seed));
        });
  };
  // All runs train up to the largest rate of the grid: 0.1 and 0.2 are at least an octave below.
  EXPECT_EQ(judge_rates("beyond: 0.05", 0.4).verdict, Verdict::pass);
  EXPECT_EQ(judge_rates("within: 0.05", 0.4).verdict, Verdict::fail);
  EXPECT_EQ(judge_rates("within: 0.2", 0.4).verdict, Verdict::pass);
  // One rate has nothing to be compared with, and without a boundary there is no rate below it.
  EXPECT_EQ(judge_rates("beyond: 0.05", 0.2).verdict, Verdict::inconclusive);
  EXPECT_THAT(judge_rates("beyond: 0.05", 0).evidence,
              StartsWith("0 of 3 rates are at most 0, the least boundary is 0"));
  // The boundary is that of the lines in `over`.
  EXPECT_EQ(
      judge_rates("beyond: 0.05, over: {schedule.warmup.length: [20 steps, 0 steps]}", 0.2).verdict,
      Verdict::pass);
}

// A failed run has the accuracy of chance, and the evidence says so.
TEST(Claims, AccuracyMovesWithFailedRuns) {
  const ClaimResult claim = judge_accuracies(
      "along: schedule.warmup.length, octaves_from_boundary: 0, within: 0.02", 5,
      [](double rate, std::size_t level, std::size_t seed) -> std::optional<double> {
        if (rate > 0.15 || (level == 2 && (seed == 1 || seed == 2))) return std::nullopt;
        return 0.4;
      });
  EXPECT_THAT(claim.evidence, AllOf(HasSubstr("2 failed runs with the accuracy of chance"),
                                    HasSubstr("-12.00 at 20 steps")));
  EXPECT_EQ(claim.verdict, Verdict::inconclusive);
}

// Claims about a slice of a grid see that slice alone.
TEST(Claims, AtAValueOfAnotherAxis) {
  const std::string text = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
train: {length: 200 steps}
sweep:
  seeds: 5
  axes:
    model.init.gain: [1.0, 2]
    schedule.base_lr: [0.1, 0.2, 0.4]
    schedule.warmup.length: [0 steps, 20 steps]
)";
  const auto verdicts = [&](const std::string& gain) {
    std::string claims;
    for (const char* claim : {"boundary_rises: {p_below: 0.3, ",
                              "boundary_moves: {octaves_above: 0.9, ", "sensitivity_falls: {"}) {
      claims += fmt::format("  - {}along: schedule.warmup.length, at: {{model.init.gain: {}}}}}\n",
                            claim, gain);
    }
    const RunConfig base = read_config(parse_document(with(claims, text), "f.yaml"));
    SweepResult result;
    result.axes = base.sweep->axes;
    for (const Arm& cell : cells_of(result.axes)) {
      // With gain 2 the boundary is 0.1 without warmup and 0.4 with it; with gain 1 the other way
      // round.
      const double rate = *as_number(cell.overrides[1].value);
      const bool rises = *as_number(cell.overrides[0].value) == 2;
      const bool warms = cell.overrides[2].value.scalar == "20 steps";
      ArmResult arm{cell, {}};
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        RunResult run = died(3);
        if (rate < 0.15 || rises == warms) {
          run = ended(0.5);
          run.final_train_loss = 1.0 + 0.01 * static_cast<double>(seed);
        }
        arm.runs.push_back({seed, run});
      }
      result.cells.push_back(arm);
    }
    std::vector<Verdict> found;
    for (const ClaimResult& c : judge_sweep(base, result)) found.push_back(c.verdict);
    return found;
  };
  // 1.0 and 1, 2 and 2.0 are the same values.
  EXPECT_EQ(verdicts("2.0"), std::vector<Verdict>(3, Verdict::pass));
  EXPECT_EQ(verdicts("1"), std::vector<Verdict>(3, Verdict::fail));
}

TEST(Claims, OverAllValuesOfAnotherAxis) {
  const std::string text = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
train: {length: 200 steps}
sweep:
  seeds: 5
  axes:
    model.init.gain: [1, 2]
    schedule.base_lr: [0.05, 0.1, 0.3]
    schedule.warmup.length: [0 steps, 10 steps, 20 steps]
)";
  const double boundaries[2][3] = {{0.05, 0.1, 0.3}, {0.1, 0.05, 0.3}};
  const double rates[] = {0.05, 0.1, 0.3};
  const auto judge_claim = [&](const std::string& claim) {
    const RunConfig base = read_config(parse_document(with("  - " + claim, text), "f.yaml"));
    SweepResult result;
    result.axes = base.sweep->axes;
    for (const Arm& cell : cells_of(result.axes)) {
      const std::size_t i = result.cells.size();
      const bool trains = rates[i / 3 % 3] <= boundaries[i / 9][i % 3];
      result.cells.push_back(arm_of(cell.name, std::vector(5, trains ? ended(0.5) : died(3))));
      result.cells.back().arm = cell;
    }
    return judge_sweep(base, result).at(0);
  };
  // With gain 2 the boundary steps back by an octave, which is 1 in doubles but for the last bit.
  // It does not step back from gain 1 to gain 2.
  const ClaimResult rises =
      judge_claim("boundary_rises: {along: schedule.warmup.length, octaves_back: 1}");
  EXPECT_EQ(rises.verdict, Verdict::pass);
  // Each seed is one block, however many combinations share its data: the means of the first two
  // levels tie, so the rank correlation is that of 1.5, 1.5, 3 with 1, 2, 3, and p = 1 / 3^5.
  EXPECT_THAT(rises.evidence, AllOf(StartsWith("boundary 0.05, 0.1, 0.3; 0.1, 0.05, 0.3; "),
                                    HasSubstr("correlation 0.87 over 5 seeds; all rates train in "
                                              "10 of 30 rows"),
                                    HasSubstr("Page p = 0.0041, below 0.05"),
                                    HasSubstr("largest step back 1 octaves, 1 are let pass")));
  // The mean of log2 6 and log2 3.
  EXPECT_THAT(
      judge_claim("boundary_moves: {along: schedule.warmup.length, octaves_above: 2}").evidence,
      StartsWith("2.08 octaves from 0 steps to 20 steps"));
  // 0.3 / 2^(log2 3) is 0.1 but for the last bit.
  EXPECT_THAT(judge_claim("accuracy_moves: {along: schedule.base_lr, within: 0.1, "
                          "octaves_from_boundary: 1.5849625007211563, "
                          "over: {schedule.warmup.length: [20 steps]}}")
                  .evidence,
              StartsWith("2 of 3 rates are at most 0.1, the least boundary is 0.3"));
}

TEST(Claims, SensitivityFalls) {
  const auto judge_losses = [](std::size_t seeds, std::vector<double> at_largest) {
    return judge_grid("sensitivity_falls: {along: schedule.warmup.length}", seeds,
                      [&](double rate, std::size_t level, std::size_t seed) {
                        const auto s = static_cast<double>(seed);
                        const double of_seed =
                            level == 0 ? 0.1 + 0.05 * s : 0.1 * s;  // 0.2 on average
                        return std::optional(rate == 0.4 ? at_largest[level] + of_seed : 1.0);
                      });
  };
  // The mean of five seeds is that of seed 2: (0 + 0 + 1.1) / 3 against 0.2 / 3.
  const ClaimResult falls = judge_losses(5, {1.9, 9, 1.0});
  EXPECT_EQ(falls.verdict, Verdict::pass) << falls.evidence;
  EXPECT_THAT(
      falls.evidence,
      AllOf(StartsWith("0.3667 at 0 steps against 0.0667 at 20 steps, 5 seeds;"),
            HasSubstr("difference 0.3000, bootstrap at 95 % [0.2"), Not(HasSubstr("equal"))));
  EXPECT_EQ(judge_losses(5, {1.0, 9, 1.9}).verdict, Verdict::fail);
  EXPECT_EQ(judge_losses(5, {1.5, 9, 1.5}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_losses(4, {1.9, 9, 1.0}).verdict, Verdict::inconclusive);
  EXPECT_THAT(judge_losses(4, {1.9, 9, 1.0}).evidence, HasSubstr("4 seeds, too few"));
}

// Sensitivities that differ by the same at every seed show no spread.
TEST(Claims, SensitivityFallsByTheSame) {
  const ClaimResult equal =
      judge_grid("sensitivity_falls: {along: schedule.warmup.length}", 5,
                 [](double rate, std::size_t level, std::size_t) {
                   return std::optional(rate == 0.4 && level == 0 ? 2.0 : 1.0);
                 });
  EXPECT_EQ(equal.verdict, Verdict::inconclusive);
  EXPECT_THAT(equal.evidence,
              AllOf(HasSubstr("difference 0.3333, bootstrap at 95 % [0.3333, 0.3333]"),
                    HasSubstr("; the differences are all equal")));
}

// No-warmup trains up to 0.1 and warmup up to 0.4, but for what `change` does to their searches.
ClaimResult judge_ratio(
    const std::string& claim, std::size_t seeds,
    const std::function<void(Search& no_warmup, Search& warmup)>& change = [](Search&, Search&) {
    }) {
  const RunConfig base = read_config(
      parse_document(with("  - rate_ratio: " + claim, "find_lr: {seeds: 3}\n"), "f.yaml"));
  FindLrResult result;
  result.arms = {{{"no-warmup", {}}, {}}, {{"warmup", {}}, {}}};
  for (std::size_t seed = 0; seed < seeds; ++seed) {
    Search& no_warmup = result.arms[0].searches.emplace_back();
    Search& warmup = result.arms[1].searches.emplace_back();
    no_warmup.seed = warmup.seed = seed;
    no_warmup.largest = 0.1;
    no_warmup.smallest_failing = 0.11;
    warmup.largest = 0.4;
    warmup.smallest_failing = 0.44;
    change(no_warmup, warmup);
  }
  return judge_find_lr(base, result).at(0);
}

TEST(Claims, RateRatio) {
  const auto verdict = [&](const std::string& claim) { return judge_ratio(claim, 5).verdict; };
  // log2 of 0.4 / 0.1 is 2 for every seed, but the ratio may be as little as 0.4 / 0.11 and as much
  // as 0.44 / 0.1, whose log2 are 1.86 and 2.14.
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_above: 1.86}"), Verdict::pass);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_above: 1.87}"), Verdict::inconclusive);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_above: 2.13}"), Verdict::inconclusive);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_above: 2.14}"), Verdict::fail);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_below: 2.14}"), Verdict::pass);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_below: 2.13}"), Verdict::inconclusive);
  EXPECT_EQ(verdict("{arms: [no-warmup, warmup], log2_below: 1.86}"), Verdict::fail);
  EXPECT_EQ(verdict("{arms: [warmup, no-warmup], log2_above: -1.8}"), Verdict::fail);
  EXPECT_EQ(verdict("{arms: [warmup, no-warmup], log2_above: -2.2}"), Verdict::pass);
  // 2^1.9 is 3.73.
  const ClaimResult five_seeds = judge_ratio("{arms: [no-warmup, warmup], log2_above: 1.9}", 5);
  EXPECT_EQ(five_seeds.text, "warmup trains at more than 3.73 times the rate of no-warmup");
  EXPECT_THAT(five_seeds.evidence,
              HasSubstr(", 4.00 times the rate in the geometric mean, log2 2.00, bootstrap at 95 % "
                        "[2.00, 2.00], with the steps between rates tried [1.86, 2.14]"));
  const ClaimResult one_seed = judge_ratio("{arms: [no-warmup, warmup], log2_above: 1.9}", 1);
  EXPECT_EQ(one_seed.verdict, Verdict::inconclusive);
  EXPECT_THAT(one_seed.evidence, StartsWith("1 of 1 seeds"));
  const ClaimResult four_seeds = judge_ratio("{arms: [no-warmup, warmup], log2_above: 1.9}", 4);
  EXPECT_EQ(four_seeds.verdict, Verdict::inconclusive);
  EXPECT_THAT(four_seeds.evidence, HasSubstr("log2 2.00, too few for a bootstrap, which needs 5"));
}

// Where an arm trains at no rate, or at all, the ratio of its seed is only bounded.
TEST(Claims, RateRatioOfSeedsWithoutABoundary) {
  const std::string above = "{arms: [no-warmup, warmup], log2_above: 1.8}";
  const std::string below = "{arms: [no-warmup, warmup], log2_below: 2.2}";
  const auto at_five_of_ten = [](const std::string& claim, auto change) {
    return judge_ratio(claim, 10, [&](Search& no_warmup, Search& warmup) {
      if (no_warmup.seed < 5) change(no_warmup, warmup);
    });
  };
  const auto expect = [&](Verdict of_above, Verdict of_below, auto change) {
    EXPECT_EQ(at_five_of_ten(above, change).verdict, of_above);
    EXPECT_EQ(at_five_of_ten(below, change).verdict, of_below);
  };
  expect(Verdict::pass, Verdict::pass, [](Search&, Search&) {});
  // Larger by any factor, or by at least this one.
  expect(Verdict::pass, Verdict::inconclusive, [](Search& a, Search&) { a.largest.reset(); });
  expect(Verdict::pass, Verdict::inconclusive,
         [](Search&, Search& b) { b.smallest_failing.reset(); });
  expect(Verdict::inconclusive, Verdict::pass, [](Search&, Search& b) { b.largest.reset(); });
  expect(Verdict::inconclusive, Verdict::pass,
         [](Search& a, Search&) { a.smallest_failing.reset(); });
  const auto in_neither = [](Search& a, Search& b) {
    a.largest.reset();
    b.largest.reset();
  };
  expect(Verdict::inconclusive, Verdict::inconclusive, in_neither);
  EXPECT_THAT(at_five_of_ten(above, in_neither).evidence,
              AllOf(StartsWith("5 of 10 seeds have an answer in both, 4.00 times"),
                    HasSubstr("[2.00, 2.00], with the steps between rates tried [-inf, inf]; at 5 "
                              "seeds the ratio may be larger and at 5 smaller: "
                              "an arm trains at no rate or at all")));
}

TEST(Claims, HoldsBelow) {
  // Of each seed, how many runs were tried below its answer and how many of them do not train. The
  // other arm must not count.
  const auto judge_below = [](const char* share,
                              const std::vector<std::pair<std::int64_t, std::int64_t>>& seeds) {
    const std::string claim = fmt::format("  - holds_below: {{arm: warmup{}}}", share);
    const RunConfig base =
        read_config(parse_document(with(claim, "find_lr: {seeds: 3}\n"), "f.yaml"));
    FindLrResult result;
    result.arms = {{{"no-warmup", {}}, {}}, {{"warmup", {}}, {}}};
    for (const auto& [tried, violations] : seeds) {
      result.arms[0].searches.emplace_back().tried_below = 100;
      Search& search = result.arms[1].searches.emplace_back();
      search.seed = result.arms[1].searches.size();
      search.tried_below = tried;
      search.violations = violations;
      if (tried > 0) search.largest = 0.1;
    }
    return judge_find_lr(base, result).at(0);
  };
  // The lower end for n of n is 0.025^(1 / n): 0.9026 for 36, 0.89997 for 35.
  const ClaimResult holds = judge_below("", {{18, 0}, {0, 0}, {18, 0}});
  EXPECT_EQ(holds.verdict, Verdict::pass);
  EXPECT_EQ(holds.text, "warmup trains in more than 90 % of the runs below its largest rates");
  EXPECT_EQ(holds.evidence,
            "36 of 36 runs train, 95 % interval [0.90, 1.00] as if they were independent; they are "
            "of 2 seeds, 0 of which have runs that do not");
  EXPECT_EQ(judge_below("", {{18, 0}, {17, 0}}).verdict, Verdict::inconclusive);
  EXPECT_EQ(judge_below(", share: 0.899", {{18, 0}, {17, 0}}).verdict, Verdict::pass);
  // 30 of 40 have the interval [0.588, 0.873].
  const ClaimResult below = judge_below("", {{20, 10}, {15, 0}, {5, 0}});
  EXPECT_EQ(below.verdict, Verdict::fail);
  EXPECT_THAT(below.evidence, AllOf(StartsWith("30 of 40 runs train, 95 % interval [0.59, 0.87]"),
                                    HasSubstr("3 seeds, 1 of which have")));
  EXPECT_EQ(judge_below(", share: 0.87", {{20, 10}, {20, 0}}).verdict, Verdict::inconclusive);
  // Nothing was tried below an answer, or there is none.
  EXPECT_EQ(judge_below(", share: 0", {{0, 0}}).verdict, Verdict::inconclusive);
}

TEST(Claims, HolmIsOverTheClaimsOfTheCommandThatHaveALevel) {
  // 2 / 2^7 = 0.0156, and 1 / 6^7 for the trend: Holm takes the smaller twice, the larger once.
  std::vector<ArmResult> arms = {failing("a", 7, 7), failing("b", 0, 7), failing("c", 0, 7)};
  for (SeedResult& r : arms[2].runs) r.run.test_accuracy = 0.7;
  const std::string of_others =
      "  - failures: {arm: a, above: 0.5}\n  - fails_alike: {arms: [a, b]}\n"
      "  - boundary_rises: {along: schedule.warmup.length}\n"
      "  - fails_more: {arms: [a, b], p_below: 0.02}\n";
  EXPECT_THAT(judge(of_others, arms).at(2).evidence, HasSubstr("p = 0.016, below 0.02"));
  const auto two = judge(of_others + "  - fails_more: {arms: [a, c], p_below: 0.02}\n", arms);
  ASSERT_EQ(two.size(), 4u);
  for (const std::size_t i : {2u, 3u}) {
    EXPECT_EQ(two[i].verdict, Verdict::inconclusive);
    EXPECT_THAT(two[i].evidence, HasSubstr("p = 0.031 (Holm over 2), not below 0.02"));
  }
  // Had every test its smallest possible p-value, none would be below 0.02 after Holm.
  EXPECT_THAT(two[2].evidence, HasSubstr("not below 0.02, which so few could not show"));
  const auto trend = judge(of_others + "  - accuracy_falls: {arms: [c, b, a]}\n", arms);
  EXPECT_EQ(trend.at(2).verdict, Verdict::pass);
  EXPECT_THAT(trend.at(2).evidence, HasSubstr("p = 0.016 (Holm over 2), below 0.02"));
  EXPECT_THAT(trend.at(3).evidence, HasSubstr("p = 7.1e-06 (Holm over 2)"));
  // A claim without data counts as one of them.
  const auto missing = judge(of_others + "  - sooner: {arms: [a, b], train_error: 0.5}\n", arms);
  EXPECT_THAT(missing.at(2).evidence, HasSubstr("p = 0.031 (Holm over 2)"));
  EXPECT_EQ(missing.at(3).verdict, Verdict::inconclusive);
}

TEST(Claims, AnInterruptedExperimentShowsNothing) {
  const std::vector<ArmResult> arms = {failing("a", 7, 7), failing("b", 0, 7)};
  const auto results = judge("  - fails_more: {arms: [a, b]}\n  - failures: {arm: a, above: 0}\n",
                             arms, "nowhere", true);
  ASSERT_EQ(results.size(), 2u);
  for (const ClaimResult& r : results) {
    EXPECT_EQ(r.verdict, Verdict::inconclusive);
    EXPECT_EQ(r.evidence, "interrupted");
  }
  const nlohmann::ordered_json expected = {{"claim", "fails_more"},
                                           {"text", "a fails more often than b"},
                                           {"verdict", "INCONCLUSIVE"},
                                           {"evidence", "interrupted"}};
  EXPECT_EQ(to_json(results).at(0), expected);
}

using Command = std::function<void(const Document&, const std::filesystem::path&)>;

std::string error_of(const Command& command, const std::string& text) {
  const TemporaryFolder folder;
  std::string error;
  try {
    command(parse_document(text, "f.yaml"), folder / "out");
  } catch (const ConfigError& e) {
    error = e.what();
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  return error;
}

TEST(Claims, WhatCannotBeJudgedIsSaidBeforeAnythingRuns) {
  const Command run_compare = [](const Document& d, const std::filesystem::path& out) {
    compare(d, shared_backend(), out, false, {});
  };
  const Command run_sweep = [](const Document& d, const std::filesystem::path& out) {
    sweep(d, shared_backend(), out, false, {});
  };
  const Command run_find_lr = [](const Document& d, const std::filesystem::path& out) {
    find_lr(d, shared_backend(), out, false, {});
  };
  // After its warmup the rate of each is 0.1.
  const char* one_edge = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
schedule: {base_lr: 0.1, decay: {shape: constant}}
train: {length: 20 steps}
diagnostics: {sharpness: {every: 10 steps}}
compare: {arms: {a: {}, b: {schedule.warmup.length: 5 steps}}}
)";
  struct Wrong {
    const Command& command;
    const char* base;
    const char* claim;
    const char* key;
    const char* problem;
  };
  const Wrong cases[] = {
      {run_compare, experiment, "failures: {arm: aa, above: 0.5}", "expect.0.failures.arm",
       "no arm aa; did you mean a"},
      {run_compare, experiment, "accuracy_falls: {arms: [a, b, zzzzzz]}",
       "expect.0.accuracy_falls.arms.2", "no arm zzzzzz; the arms are a, b, c"},
      {run_compare, experiment, "fails_more: {arms: [a, a]}", "expect.0.fails_more.arms.1",
       "named twice"},
      {run_compare, experiment, "fails_more: {arms: [a, twin]}", "expect.0.fails_more.arms.1",
       "twin runs the same as a"},
      {run_compare, experiment, "sensitivity_falls: {along: schedule.warmup.length}",
       "expect.0.sensitivity_falls", "about sweep, which this file lacks"},
      {run_compare, experiment, "rate_ratio: {arms: [a, b], log2_above: 1}", "expect.0.rate_ratio",
       "about find_lr, which"},
      {run_compare, experiment, "gate_opens: {arm: plain, from: 1 steps, to: 9 steps}",
       "expect.0.gate_opens.arm", "plain has no gate"},
      {run_compare, experiment, "gate_opens: {arm: a, from: 9 steps, to: 9 steps}",
       "expect.0.gate_opens.to", "9 steps are not after 9 steps"},
      {run_compare, experiment, "sharpness_falls: {arm: plain, by: 2}",
       "expect.0.sharpness_falls.arm", "diagnostics: {sharpness"},
      {run_compare, experiment, "unstable_start: {arm: plain}", "expect.0.unstable_start.arm",
       "diagnostics: {sharpness"},
      {run_compare, experiment, "deep_layers_move_more: {arms: [a, plain], within: 9 steps}",
       "expect.0.deep_layers_move_more.arms.1", "diagnostics: {layers_every"},
      {run_compare, experiment, "deep_layers_move_more: {arms: [a, flat], within: 9 steps}",
       "expect.0.deep_layers_move_more.arms.1", "flat has one layer"},
      {run_compare, experiment,
       "smaller_spike: {arms: [a, b], after: [9 steps, 200 steps], within: 9 steps}",
       "expect.0.smaller_spike.after.1", "not before the end of a run of 200 updates"},
      {run_compare, experiment,
       "smaller_spike: {arms: [a, b], after: [9 steps, 195 steps], within: 6 steps}",
       "expect.0.smaller_spike.within", "6 steps after 195 steps end after the 200 updates of b"},
      {run_compare, one_edge, "edge_of_stability: {arms: [a, b], slope: [0, 1]}",
       "expect.0.edge_of_stability.arms", "one edge, 2 (1 + momentum) / rate = 38, at the end"},
      {run_compare, experiment, "sooner: {arms: [a, short], train_error: 0.5}",
       "expect.0.sooner.arms.1",
       "short trains for 49 updates, and a training error is the mean of 50"},
      {run_sweep, grid, "boundary_rises: {along: schedule.hold}", "expect.0.boundary_rises.along",
       "one of schedule.warmup.length"},
      {run_sweep, grid, "sensitivity_falls: {along: schedule.base_lr}",
       "expect.0.sensitivity_falls.along", "not an axis other"},
      {run_sweep, grid,
       "boundary_moves: {along: schedule.warmup.length, at: {model.init.gain: 1}, octaves_above: "
       "1}",
       "expect.0.boundary_moves.at.model.init.gain", "model.init.gain is not a further axis"},
      {run_sweep, grid,
       "boundary_moves: {along: schedule.warmup.length, at: {schedule.warmup.length: 10 steps}, "
       "octaves_above: 1}",
       "expect.0.boundary_moves.at.schedule.warmup.length", "is not a further axis"},
      {run_sweep, grid,
       "boundary_moves: {along: schedule.warmup.length, at: {schedule.base_lr: 0.1}, "
       "octaves_above: 1}",
       "expect.0.boundary_moves.at.schedule.base_lr", "is not a further axis"},
      {run_sweep, grid, "accuracy_moves: {along: schedule.hold, within: 0.1}",
       "expect.0.accuracy_moves.along", "no axis schedule.hold"},
      {run_sweep, grid,
       "accuracy_moves: {along: schedule.base_lr, over: {schedule.base_lr: [0.1]}, within: 0.1}",
       "expect.0.accuracy_moves.over.schedule.base_lr", "not an axis other"},
      {run_sweep, grid,
       "accuracy_moves: {along: schedule.base_lr, over: {schedule.warmup.length: [9 steps]}, "
       "beyond: 0.1}",
       "expect.0.accuracy_moves.over.schedule.warmup.length", "9 steps is not a value"},
      {run_sweep, grid,
       "accuracy_moves: {along: schedule.warmup.length, over: {schedule.warmup.length: [10 "
       "steps]}, within: 0.1}",
       "expect.0.accuracy_moves.over.schedule.warmup.length", "single value"},
      {run_sweep, grid,
       "accuracy_moves: {along: schedule.base_lr, over: {schedule.warmup.length: [10 steps, 10 "
       "steps]}, within: 0.1}",
       "expect.0.accuracy_moves.over.schedule.warmup.length", "appears twice"},
      {run_compare, experiment, "accuracy_gap: {arms: [a, b], than: [c, d], above: 1}",
       "expect.0.accuracy_gap.than.1", "there is no arm d"},
      {run_compare, experiment, "accuracy_gap: {arms: [a, b], than: [b, a], above: 1}",
       "expect.0.accuracy_gap.than", "are the same two arms"},
      {run_compare, experiment, "sharpness_stays: {arm: plain, within: 2}",
       "expect.0.sharpness_stays.arm", "diagnostics: {sharpness"},
      {run_compare, experiment, "edge_of_stability: {arms: [a, plain], slope: [0, 1]}",
       "expect.0.edge_of_stability.arms.1", "diagnostics: {sharpness"},
      {run_sweep, grid, "failures: {arm: a, above: 0.5}", "expect.0.failures", "about compare"},
      {run_find_lr, "data: {dataset: synthetic}\n",
       "rate_ratio: {arms: [no-warmup, warmpu], log2_above: 1}", "expect.0.rate_ratio.arms.1",
       "did you mean warmup"},
      {run_find_lr, "data: {dataset: synthetic}\n", "holds_below: {arm: warm}",
       "expect.0.holds_below.arm", "no arm warm"},
      {run_compare, experiment, "holds_below: {arm: a}", "expect.0.holds_below",
       "about find_lr, which"},
  };
  for (const Wrong& wrong : cases) {
    SCOPED_TRACE(wrong.claim);
    EXPECT_THAT(error_of(wrong.command, with(std::string("  - ") + wrong.claim, wrong.base)),
                AllOf(StartsWith("f.yaml:"), HasSubstr(std::string(wrong.key) + ": "),
                      HasSubstr(wrong.problem)));
  }
  const std::string without_rate =
      "data: {dataset: synthetic}\nsweep: {axes: {schedule.warmup.length: [0 steps, 9 steps]}}\n";
  EXPECT_THAT(error_of(run_sweep,
                       with("  - boundary_rises: {along: schedule.warmup.length}", without_rate)),
              AllOf(HasSubstr("expect.0.boundary_rises.along"), HasSubstr("schedule.base_lr")));
  for (const std::string& other_loss :
       {std::string("loss: mse\n") + grid, std::string(grid) + "    loss: [cross_entropy, mse]\n",
        std::string(grid) + "    label_smoothing: [0, 0.1]\n"}) {
    EXPECT_THAT(error_of(run_sweep, with("  - sensitivity_falls: {along: schedule.warmup.length}",
                                         other_loss)),
                AllOf(HasSubstr("expect.0.sensitivity_falls.along"), HasSubstr("cross entropy")));
  }
}

// In a file with claims of two experiments each command judges its own.
TEST(Claims, StandInTheJsonOfTheirExperiment) {
  const char* both = R"(
data: {dataset: synthetic, batch_size: 32, train_limit: 320}
model: {layers: [{linear: {out: 10}}]}
train: {length: 20 steps, eval_every: 20 steps}
compare: {seeds: 2, arms: {a: {schedule.base_lr: 0.01}, b: {schedule.base_lr: 0.02}}}
sweep:
  seeds: 1
  axes: {schedule.base_lr: [0.01, 0.02], schedule.warmup.length: [0 steps, 4 steps]}
expect:
  - fails_more: {arms: [a, b]}
  - boundary_rises: {along: schedule.warmup.length}
)";
  const TemporaryFolder folder;
  const Document document = parse_document(both, "f.yaml");
  compare(document, shared_backend(), folder / "c", false, {});
  sweep(document, shared_backend(), folder / "s", false, {});
  const auto of_compare = nlohmann::json::parse(bytes_of(folder / "c/compare.json"));
  const auto of_sweep = nlohmann::json::parse(bytes_of(folder / "s/sweep.json"));
  ASSERT_EQ(of_compare["claims"].size(), 1u);
  EXPECT_EQ(of_compare["claims"][0]["claim"], "fails_more");
  EXPECT_EQ(of_compare["claims"][0]["verdict"], "INCONCLUSIVE");
  ASSERT_EQ(of_sweep["claims"].size(), 1u);
  EXPECT_EQ(of_sweep["claims"][0]["claim"], "boundary_rises");
}

}  // namespace
}  // namespace preheat
