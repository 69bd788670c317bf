#include "experiment/sweep.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "config/error.h"
#include "config/values.h"
#include "experiment/small_experiment.h"

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* grid = R"(
sweep:
  seeds: [3, 11]
  axes:
    schedule.base_lr: [0.05, 1e12]
    schedule.warmup.length: [0 steps, 4 steps]
)";

std::vector<Axis> axes_of(const std::string& axes) {
  return read_config(parse_document("sweep:\n  axes:\n" + axes, "a.yaml")).sweep->axes;
}

std::vector<std::string> names_of(const std::vector<Arm>& cells) {
  std::vector<std::string> names;
  for (const Arm& cell : cells) names.push_back(cell.name);
  return names;
}

TEST(CellsOf, TheLastAxisIsTheFastest) {
  const auto cells = cells_of(axes_of(
      "    schedule.base_lr: [0.1, 1e-3]\n    schedule.warmup.length: [0 steps, 5%, 1 epochs]\n"));
  EXPECT_THAT(names_of(cells), ElementsAre("0.1_0-steps", "0.1_5p", "0.1_1-epochs", "1e-3_0-steps",
                                           "1e-3_5p", "1e-3_1-epochs"));
  for (const Arm& cell : cells) {
    ASSERT_EQ(cell.overrides.size(), 2u);
    EXPECT_EQ(cell.overrides[0].key, "schedule.base_lr");
    EXPECT_EQ(cell.overrides[1].key, "schedule.warmup.length");
  }
  EXPECT_EQ(cells[4].overrides[0].value.scalar, "1e-3");
  EXPECT_EQ(cells[4].overrides[1].value.scalar, "5%");
}

// Cell names are safe as names of folders, whatever the values are.
TEST(CellsOf, NamesDifferAndAreThoseOfFolders) {
  const auto names =
      names_of(cells_of(axes_of("    optimizer.momentum: [0.1, 0.12]\n    data.dir: [a/b, a-b, a "
                                "b, ../.., .., 'x.2', x]\n")));
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 14u);
  for (const std::string& name : names) {
    EXPECT_EQ(name.find_first_of("/\\ {}[]'\"*?~$"), std::string::npos) << name;
    EXPECT_FALSE(name.starts_with('.')) << name;
    EXPECT_FALSE(name.empty());
  }
  EXPECT_THAT(names_of(cells_of(axes_of("    data.dir: [a b, a-b, a/b]\n"))),
              ElementsAre("a-b", "a-b.2", "a-b.3"));
  // Nor are they those of the sweep's own files.
  EXPECT_THAT(
      names_of(cells_of(axes_of("    data.dir: [sweep.json, config.yaml, sweep.json.2]\n"))),
      ElementsAre("sweep.json.2", "config.yaml.2", "sweep.json.2.2"));
}

TEST(CellsOf, WhatIsNoShortWordIsNamedByItsNumber) {
  EXPECT_THAT(names_of(cells_of(axes_of(
                  "    model.layers: [[{linear: {out: 10}}], [{conv: {out: 2}}]]\n"
                  "    schedule.decay.lower: [-6, 6]\n"
                  "    data.dir: [a/very/long/path/that/no/folder/could/be/called/by, b, .]\n"))),
              ElementsAre("layers-1_lower-1_dir-1", "layers-1_lower-1_b", "layers-1_lower-1_dir-3",
                          "layers-1_6_dir-1", "layers-1_6_b", "layers-1_6_dir-3",
                          "layers-2_lower-1_dir-1", "layers-2_lower-1_b", "layers-2_lower-1_dir-3",
                          "layers-2_6_dir-1", "layers-2_6_b", "layers-2_6_dir-3"));
  const std::string longest(40, 'a');
  EXPECT_THAT(
      names_of(cells_of(axes_of(fmt::format("    data.dir: [{}, {}a]\n", longest, longest)))),
      ElementsAre(longest, "dir-2"));
}

// A cell of made-up runs by their final losses: NaN for a run that was not finite, above 2.3 for
// one that is stuck.
ArmResult cell_of(const Arm& arm, const std::vector<double>& losses) {
  ArmResult cell{arm, {}};
  for (const double loss : losses) {
    SeedResult r;
    r.seed = cell.runs.size();
    if (std::isnan(loss)) {
      r.run.outcome = Outcome::non_finite;
    } else {
      r.run.final_train_loss = loss;
      r.run.outcome = loss > 2.3 ? Outcome::stuck : Outcome::ok;
    }
    cell.runs.push_back(r);
  }
  return cell;
}

TEST(BoundariesOf, AreWhereHalfOfTheRunsFail) {
  // Rates out of order, on purpose.
  const auto axes = axes_of(
      "    schedule.base_lr: [0.4, 0.1, 0.2, 0.8]\n    schedule.warmup.length: [0 steps, 9 "
      "steps]\n");
  const auto arms = cells_of(axes);
  // By rate as given, then by warmup.
  const std::vector<double> losses[] = {{NAN, 0.5}, {0.6, 0.6},   // 0.4
                                        {0.9, 0.8}, {0.8, 0.8},   // 0.1
                                        {0.7, NAN}, {NAN, NAN},   // 0.2
                                        {0.4, 0.3}, {2.9, 9e9}};  // 0.8
  std::vector<ArmResult> cells;
  for (std::size_t i = 0; i < arms.size(); ++i) cells.push_back(cell_of(arms[i], losses[i]));
  const RunConfig base;
  const auto boundaries = boundaries_of(axes, cells, base);
  ASSERT_EQ(boundaries.size(), 2u);
  EXPECT_EQ(boundaries[0].point.at(0).value.scalar, "0 steps");
  EXPECT_EQ(boundaries[0].point.size(), 1u);
  EXPECT_EQ(boundaries[0].largest_training, 0.1);
  EXPECT_EQ(boundaries[0].smallest_failing, 0.2);  // one of two is half
  EXPECT_EQ(boundaries[0].violations, 1);          // 0.8
  EXPECT_EQ(boundaries[1].largest_training, 0.1);
  EXPECT_EQ(boundaries[1].smallest_failing, 0.2);
  EXPECT_EQ(boundaries[1].violations, 1);  // 0.4

  // Wortsman et al. 2023: E[min(loss, l0) - l*], l0 = ln 10, l* = 0.35.
  const double l0 = std::log(10.0);
  const double least = 0.35;
  EXPECT_NEAR(*boundaries[0].sensitivity,
              ((l0 + 0.5) / 2 + 0.85 + (0.7 + l0) / 2 + 0.35) / 4 - least, 1e-12);
  EXPECT_NEAR(*boundaries[1].sensitivity, (0.6 + 0.8 + l0 + l0) / 4 - least, 1e-12);
}

// The integral over the logarithm of the rate of a function that keeps each rate's value up to
// halfway to its neighbours, and half a step beyond the ends.
TEST(LogWeights, AreTheSharesOfTheRangeOfLogRates) {
  const std::vector<double> even = log_weights({0.01, 0.02, 0.04, 0.08, 0.16});
  for (const double weight : even) EXPECT_NEAR(weight, 0.2, 1e-14);
  // Decades: 0.5 .. -0.5, -0.5 .. -2, -2 .. -5.
  const std::vector<double> uneven = log_weights({1e-4, 1e-1, 1});
  ASSERT_EQ(uneven.size(), 3u);
  EXPECT_NEAR(uneven[0], 3.0 / 6, 1e-14);
  EXPECT_NEAR(uneven[1], 2.0 / 6, 1e-14);
  EXPECT_NEAR(uneven[2], 1.0 / 6, 1e-14);
  EXPECT_THAT(log_weights({0.3}), ElementsAre(1));
  // What splits a step changes no weight but those of its ends.
  const std::vector<double> finer = log_weights({1e-3, 1e-2, 0.03, 0.1, 1});
  EXPECT_NEAR(finer[1] + finer[2] + finer[3], 2.0 / 4, 1e-14);
  EXPECT_NEAR(finer[0], 1.0 / 4, 1e-14);
}

TEST(BoundariesOf, HaveASensitivityThatDoesNotDependOnWhereTheGridIsFine) {
  const auto sensitivity = [](const char* rates, const std::vector<double>& losses) {
    const auto axes = axes_of(fmt::format("    schedule.base_lr: {}\n", rates));
    std::vector<ArmResult> cells;
    for (const Arm& arm : cells_of(axes)) cells.push_back(cell_of(arm, {losses[cells.size()]}));
    return boundaries_of(axes, cells, {}).at(0).sensitivity.value();
  };
  EXPECT_NEAR(sensitivity("[0.001, 0.01, 0.1, 1]", {1.5, 0.5, 0.5, 2}), (1 + 1.5) / 4, 1e-12);
  // Three more rates on the flat stretch; a plain mean would be 2.5 / 7.
  EXPECT_NEAR(
      sensitivity("[0.001, 0.01, 0.02, 0.03, 0.05, 0.1, 1]", {1.5, 0.5, 0.5, 0.5, 0.5, 0.5, 2}),
      (1 + 1.5) / 4, 1e-12);
}

// Rates so small that a run does not get anywhere are not beyond the boundary.
TEST(BoundariesOf, AreAboveRatesThatAreOnlyTooSlow) {
  const auto axes = axes_of("    schedule.base_lr: [0.1, 0.2, 0.4, 0.8]\n");
  const auto arms = cells_of(axes);
  const auto boundary = [&](const std::vector<std::vector<double>>& losses) {
    std::vector<ArmResult> cells;
    for (std::size_t i = 0; i < arms.size(); ++i) cells.push_back(cell_of(arms[i], losses[i]));
    return boundaries_of(axes, cells, {}).at(0);
  };
  constexpr double stuck = 2.9;
  const Boundary slow = boundary({{stuck, stuck}, {1, stuck}, {1, 1}, {NAN, NAN}});
  EXPECT_EQ(slow.largest_training, 0.4);
  EXPECT_EQ(slow.smallest_failing, 0.8);
  EXPECT_EQ(slow.violations, 0);
  EXPECT_EQ(slow.runs, 8);
  // A run that is not finite was not too slow, nor is a cell above one that trains.
  const Boundary lost = boundary({{stuck, NAN}, {1, 1}, {1, 1}, {NAN, NAN}});
  EXPECT_FALSE(lost.largest_training);
  EXPECT_EQ(lost.smallest_failing, 0.1);
  EXPECT_EQ(lost.violations, 2);
  const Boundary above = boundary({{1, 1}, {stuck, stuck}, {1, 1}, {NAN, NAN}});
  EXPECT_EQ(above.largest_training, 0.1);
  EXPECT_EQ(above.smallest_failing, 0.2);
  // Where no rate trains, none is known to be too slow.
  EXPECT_EQ(boundary({{stuck, stuck}, {stuck}, {stuck}, {NAN}}).smallest_failing, 0.1);
}

TEST(BoundariesOf, HaveNoSideThatTheGridDoesNotHave) {
  const auto axes = axes_of("    schedule.base_lr: [0.1, 0.2]\n");
  const auto arms = cells_of(axes);
  const auto good = boundaries_of(axes, {cell_of(arms[0], {1}), cell_of(arms[1], {1})}, {});
  ASSERT_EQ(good.size(), 1u);
  EXPECT_TRUE(good[0].point.empty());
  EXPECT_EQ(good[0].largest_training, 0.2);
  EXPECT_FALSE(good[0].smallest_failing);
  EXPECT_EQ(good[0].sensitivity, 0);
  const auto bad = boundaries_of(axes, {cell_of(arms[0], {NAN}), cell_of(arms[1], {NAN})}, {});
  EXPECT_FALSE(bad[0].largest_training);
  EXPECT_EQ(bad[0].smallest_failing, 0.1);
  EXPECT_EQ(bad[0].violations, 0);
  EXPECT_EQ(bad[0].runs, 2);
  EXPECT_FALSE(bad[0].sensitivity);  // nothing trains, so the rate has no effect on it
  // No boundary for a grid that is not complete or has no rates; no sensitivity without cross
  // entropy.
  EXPECT_TRUE(boundaries_of(axes, {cell_of(arms[0], {1}), cell_of(arms[1], {})}, {}).empty());
  const auto others = axes_of("    optimizer.momentum: [0.1, 0.2]\n");
  const auto cells = cells_of(others);
  EXPECT_TRUE(boundaries_of(others, {cell_of(cells[0], {1}), cell_of(cells[1], {1})}, {}).empty());
  const auto losses = axes_of("    schedule.base_lr: [0.1]\n    loss: [cross_entropy, mse]\n");
  const auto both = cells_of(losses);
  EXPECT_FALSE(
      boundaries_of(losses, {cell_of(both[0], {1}), cell_of(both[1], {1})}, {})[0].sensitivity);
  RunConfig mse;
  mse.loss = Loss::mse;
  EXPECT_FALSE(
      boundaries_of(axes, {cell_of(arms[0], {1}), cell_of(arms[1], {1})}, mse)[0].sensitivity);
}

// Smoothed labels have a least loss of their own.
TEST(BoundariesOf, HaveNoSensitivityOverDifferentLabels) {
  const auto axes = axes_of("    schedule.base_lr: [0.1]\n    label_smoothing: [0, 0.1]\n");
  const auto arms = cells_of(axes);
  EXPECT_FALSE(
      boundaries_of(axes, {cell_of(arms[0], {1}), cell_of(arms[1], {1})}, {}).at(0).sensitivity);
  const auto alike = axes_of("    schedule.base_lr: [0.1]\n    optimizer.momentum: [0, 0.1]\n");
  const auto cells = cells_of(alike);
  EXPECT_TRUE(
      boundaries_of(alike, {cell_of(cells[0], {1}), cell_of(cells[1], {1})}, {}).at(0).sensitivity);
}

// Of one odd seed of n, the middle of n drawn is at its boundary with the probability that more
// than half of the draws are of it: 0.0102 for n = 7 and 0.0014 for n = 9. The interval leaves out
// Phi(-sqrt(n / (n - 1)) t): 0.0041 and 0.0072 (Hesterberg 2015).
TEST(IntervalOf, IsWhatSeedsAndGridLeaveOpen) {
  const auto axes = axes_of("    schedule.base_lr: [0.8, 0.1, 0.2, 0.4]\n");
  const auto cells_up_to = [&](const std::vector<double>& largest_of_seed) {
    std::vector<ArmResult> cells;
    for (const Arm& arm : cells_of(axes)) {
      const double rate = *as_number(arm.overrides[0].value);
      std::vector<double> losses;
      for (const double largest : largest_of_seed) losses.push_back(rate <= largest ? 1 : NAN);
      cells.push_back(cell_of(arm, losses));
    }
    return cells;
  };
  using Ends = std::pair<std::optional<double>, std::optional<double>>;
  const auto ends = [&](const std::vector<double>& largest_of_seed) {
    const std::vector<ArmResult> cells = cells_up_to(largest_of_seed);
    const auto interval = interval_of(lines_along_rate(axes, cells).at(0));
    return interval ? Ends{interval->lo, interval->hi} : Ends{-1, -1};
  };
  EXPECT_EQ(ends({0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2}), Ends(0.1, 0.4));
  EXPECT_EQ(ends({0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2}), Ends(0.2, 0.4));
  EXPECT_EQ(ends({0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.2}), Ends(0.2, 0.8));
  EXPECT_EQ(ends({0.2, 0.2, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2}), Ends(0.2, 0.4));
  // Seeds that agree leave the step of the grid open.
  EXPECT_EQ(ends(std::vector(5, 0.4)), Ends(0.4, 0.8));
  // The grid does not have these ends.
  EXPECT_EQ(ends(std::vector(5, 0.8)), Ends(0.8, std::nullopt));
  EXPECT_EQ(ends(std::vector(5, 0.0)), Ends(std::nullopt, 0.1));
  EXPECT_EQ(ends({0, 0, 0, 0.2, 0.2, 0.2}), Ends(std::nullopt, 0.4));
  // Too few seeds, or not the same ones.
  EXPECT_EQ(ends(std::vector(4, 0.4)), Ends(-1, -1));
  std::vector<ArmResult> cells = cells_up_to(std::vector(6, 0.4));
  cells[1].runs[5].seed = 9;
  EXPECT_FALSE(interval_of(lines_along_rate(axes, cells).at(0)));
  cells[1].runs.pop_back();
  EXPECT_FALSE(interval_of(lines_along_rate(axes, cells).at(0)));

  SweepResult result;
  result.boundaries.resize(2);
  result.boundaries[0].interval = RateInterval{0.1, std::nullopt};
  const nlohmann::json json = to_json(result)["boundaries"];
  EXPECT_EQ(json[0]["interval"], nlohmann::json::parse("[0.1, null]"));
  EXPECT_TRUE(json[1]["interval"].is_null());
}

// Two values that give the same name are still two rows.
TEST(BoundariesOf, RowsAreToldApartByTheirValues) {
  const auto axes = axes_of("    schedule.base_lr: [0.1, 0.2]\n    data.dir: [a b, a-b]\n");
  const auto arms = cells_of(axes);
  std::vector<ArmResult> cells;
  for (const Arm& arm : arms) cells.push_back(cell_of(arm, {1}));
  EXPECT_EQ(boundaries_of(axes, cells, {}).size(), 2u);
}

// Neighbours along an axis have the same values on the others. Rates are neighbours by size,
// whatever the order in the file.
TEST(NeighboursOf, ArePairedByTheSeedsThatBothHave) {
  SweepResult result;
  result.axes = axes_of(
      "    schedule.base_lr: [0.4, 0.1, 0.2]\n    schedule.warmup.length: [0 steps, 9 steps]\n");
  const std::vector<double> losses[] = {{NAN, NAN, NAN, NAN, NAN, NAN},
                                        {NAN, NAN, NAN, NAN, NAN, 1},  // 0.4
                                        {1, 1, 1, 1, 1, 1},
                                        {1, 1, 1, 1, 1, NAN},  // 0.1
                                        {1, 1, 1, 1, 1, 1},
                                        {NAN, 1, 1}};  // 0.2
  for (const Arm& arm : cells_of(result.axes)) {
    result.cells.push_back(cell_of(arm, losses[result.cells.size()]));
  }
  result.paired = neighbours_of(result.axes, result.cells);
  const nlohmann::json paired = to_json(result)["paired"];
  struct Expected {
    const char* along;
    const char* first;
    const char* second;
    int n;
    int only_first;
    int only_second;
    double p;  // twice the smaller tail of a fair coin, at most 1
  };
  const char* rate = "schedule.base_lr";
  const char* warmup = "schedule.warmup.length";
  const Expected expected[] = {{rate, "0.1_0-steps", "0.2_0-steps", 6, 0, 0, 1},
                               {rate, "0.2_0-steps", "0.4_0-steps", 6, 0, 6, 2.0 / 64},
                               {rate, "0.1_9-steps", "0.2_9-steps", 3, 0, 1, 1},
                               {rate, "0.2_9-steps", "0.4_9-steps", 3, 0, 2, 2.0 / 4},
                               {warmup, "0.4_0-steps", "0.4_9-steps", 6, 1, 0, 1},
                               {warmup, "0.1_0-steps", "0.1_9-steps", 6, 0, 1, 1},
                               {warmup, "0.2_0-steps", "0.2_9-steps", 3, 0, 1, 1}};
  ASSERT_EQ(paired.size(), std::size(expected));
  for (std::size_t i = 0; i < paired.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(paired[i]["along"], expected[i].along);
    EXPECT_EQ(paired[i]["cells"],
              (std::vector<std::string>{expected[i].first, expected[i].second}));
    EXPECT_EQ(paired[i]["n"], expected[i].n);
    EXPECT_EQ(paired[i]["only_first_failed"], expected[i].only_first);
    EXPECT_EQ(paired[i]["only_second_failed"], expected[i].only_second);
    EXPECT_DOUBLE_EQ(paired[i]["mcnemar_p"].get<double>(), expected[i].p);
  }
  // Without a seed that both have there is no p-value.
  result.cells[0].runs.clear();
  result.paired = neighbours_of(result.axes, result.cells);
  const nlohmann::json without = to_json(result)["paired"][1];
  EXPECT_EQ(without["n"], 0);
  EXPECT_TRUE(without["mcnemar_p"].is_null());
}

// Values that are no numbers are neighbours in the order of the file, in each row of three axes.
TEST(NeighboursOf, AreInEveryRowOfEveryAxis) {
  const auto axes = axes_of(
      "    optimizer.momentum: [0.5, 0.9]\n    model.init.scheme: [he_uniform, he_normal, "
      "lecun_normal]\n    schedule.base_lr: [2, 1]\n");
  std::vector<ArmResult> cells;
  for (const Arm& arm : cells_of(axes)) cells.push_back(cell_of(arm, {1}));
  std::vector<std::string> found;
  for (const CellPair& p : neighbours_of(axes, cells)) {
    found.push_back(p.pair.first + " " + p.pair.second);
  }
  EXPECT_THAT(
      found,
      ElementsAre("0.5_he-uniform_2 0.9_he-uniform_2", "0.5_he-uniform_1 0.9_he-uniform_1",
                  "0.5_he-normal_2 0.9_he-normal_2", "0.5_he-normal_1 0.9_he-normal_1",
                  "0.5_lecun-normal_2 0.9_lecun-normal_2", "0.5_lecun-normal_1 0.9_lecun-normal_1",
                  "0.5_he-uniform_2 0.5_he-normal_2", "0.5_he-normal_2 0.5_lecun-normal_2",
                  "0.5_he-uniform_1 0.5_he-normal_1", "0.5_he-normal_1 0.5_lecun-normal_1",
                  "0.9_he-uniform_2 0.9_he-normal_2", "0.9_he-normal_2 0.9_lecun-normal_2",
                  "0.9_he-uniform_1 0.9_he-normal_1", "0.9_he-normal_1 0.9_lecun-normal_1",
                  "0.5_he-uniform_1 0.5_he-uniform_2", "0.5_he-normal_1 0.5_he-normal_2",
                  "0.5_lecun-normal_1 0.5_lecun-normal_2", "0.9_he-uniform_1 0.9_he-uniform_2",
                  "0.9_he-normal_1 0.9_he-normal_2", "0.9_lecun-normal_1 0.9_lecun-normal_2"));
}

TEST(Sweep, CountsWhatTheRunFoldersSay) {
  const TemporaryFolder folder;
  const auto place = folder / "out";
  const Document document = parse_document(std::string(small_run) + grid, "f.yaml");
  const SweepResult result = sweep(document, shared_backend(), place, false, {});
  EXPECT_FALSE(result.interrupted);
  const auto json = nlohmann::json::parse(bytes_of(place / "sweep.json"));
  EXPECT_EQ(json.size(), 4u);
  EXPECT_EQ(json["axes"], nlohmann::json::parse(R"([
      {"key": "schedule.base_lr", "values": [0.05, 1e12]},
      {"key": "schedule.warmup.length", "values": ["0 steps", "4 steps"]}])"));
  const char* names[] = {"0.05_0-steps", "0.05_4-steps", "1e12_0-steps", "1e12_4-steps"};
  ASSERT_EQ(json["cells"].size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto& cell = json["cells"][i];
    EXPECT_EQ(cell["name"], names[i]);
    EXPECT_EQ(cell["point"], cell["overrides"]);
    EXPECT_EQ(cell["point"]["schedule.base_lr"], i < 2 ? 0.05 : 1e12);
    EXPECT_EQ(cell["point"]["schedule.warmup.length"], i % 2 == 0 ? "0 steps" : "4 steps");
    EXPECT_EQ(cell["n"], 2);
    EXPECT_EQ(cell["failures"], i < 2 ? 0 : 2);
    ASSERT_EQ(cell["runs"].size(), 2u);
    for (const auto& run : cell["runs"]) {
      expect_as_in_summary(run, place / names[i] / std::to_string(run["seed"].get<int>()));
    }
  }
  // Both seeds fail at the larger rate alone: 2 / 2^2.
  ASSERT_EQ(json["paired"].size(), 4u);
  EXPECT_EQ(json["paired"][0], nlohmann::json::parse(R"({
      "cells": ["0.05_0-steps", "1e12_0-steps"], "n": 2, "only_first_failed": 0,
      "only_second_failed": 2, "mcnemar_p": 0.5, "along": "schedule.base_lr"})"));
  EXPECT_EQ(json["paired"][2], nlohmann::json::parse(R"({
      "cells": ["0.05_0-steps", "0.05_4-steps"], "n": 2, "only_first_failed": 0,
      "only_second_failed": 0, "mcnemar_p": 1.0, "along": "schedule.warmup.length"})"));
  ASSERT_EQ(json["boundaries"].size(), 2u);
  EXPECT_EQ(json["boundaries"][1]["point"]["schedule.warmup.length"], "4 steps");
  EXPECT_EQ(json["boundaries"][1]["largest_training"], 0.05);
  EXPECT_EQ(json["boundaries"][1]["smallest_failing"], 1e12);
  EXPECT_EQ(json["boundaries"][1]["violations"], 0);
  expect_no_checkpoints(place);

  // Resumed when complete: all runs are read, none is made, and the same file is written.
  const std::string before = bytes_of(place / "sweep.json");
  Counter counter;
  sweep(document, shared_backend(), place, true, counter.listener);
  EXPECT_EQ(counter.read, 8);
  EXPECT_EQ(counter.ran, 0);
  EXPECT_EQ(bytes_of(place / "sweep.json"), before);
}

TEST(Sweep, HasAnIntervalFromFiveSeedsOn) {
  const TemporaryFolder folder;
  for (const std::string seeds : {"[1, 2, 3, 11]", "[1, 2, 3, 11, 4]"}) {
    const Document document =
        with_overrides(parse_document(std::string(small_run) + grid, "f.yaml"),
                       {parse_override("sweep.seeds=" + seeds),
                        parse_override("sweep.axes={schedule.base_lr: [0.05, 1e12]}")});
    const auto place = folder / std::to_string(seeds.size());
    sweep(document, shared_backend(), place, false, {});
    const auto boundary = nlohmann::json::parse(bytes_of(place / "sweep.json"))["boundaries"][0];
    // All seeds agree on the boundary.
    EXPECT_EQ(boundary["interval"],
              nlohmann::json::parse(boundary["n"] == 8 ? "null" : "[0.05, 1e12]"));
  }
}

TEST(Sweep, GoesOnWhereItWasInterrupted) {
  const TemporaryFolder folder;
  const Document document = parse_document(std::string(small_run) + grid, "f.yaml");
  sweep(document, shared_backend(), folder / "whole", false, {});
  Counter first;
  first.stop_after = 3;
  EXPECT_TRUE(sweep(document, shared_backend(), folder / "cut", false, first.listener).interrupted);
  const auto cut = nlohmann::json::parse(bytes_of(folder / "cut/sweep.json"));
  EXPECT_EQ(cut["interrupted"], true);
  EXPECT_EQ(cut["cells"][3]["n"], 0);
  EXPECT_TRUE(cut["cells"][3]["failure_interval"].is_null());
  EXPECT_TRUE(cut["boundaries"].empty());
  Counter rest;
  EXPECT_FALSE(sweep(document, shared_backend(), folder / "cut", true, rest.listener).interrupted);
  EXPECT_EQ(rest.read, 3);
  EXPECT_EQ(rest.ran, 5);
  EXPECT_EQ(bytes_of(folder / "cut/sweep.json"), bytes_of(folder / "whole/sweep.json"));
}

TEST(Sweep, AValueThatIsThereTwiceIsAnError) {
  const TemporaryFolder folder;
  for (const char* values : {"[0.1, 0.2, 0.10]", "[1e-1, 0.1]"}) {
    const Document document =
        with_overrides(parse_document(small_run, "f.yaml"),
                       {parse_override(fmt::format("sweep.axes={{schedule.base_lr: {}}}", values)),
                        parse_override("sweep.seeds=1")});
    try {
      sweep(document, shared_backend(), folder / "out", false, {});
      FAIL() << "no error";
    } catch (const ConfigError& e) {
      EXPECT_THAT(e.what(), HasSubstr("appears twice"));
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  }
}

TEST(Sweep, WithoutAGridIsAnErrorThatShowsOne) {
  const TemporaryFolder folder;
  try {
    sweep(parse_document("name: x\n", "f.yaml"), shared_backend(), folder / "out", false, {});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::StartsWith("f.yaml"), HasSubstr("sweep"),
                                             HasSubstr("axes:")));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

}  // namespace
}  // namespace preheat
