// Pages against the files they are made from, which the tests read independently.
#include "report/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "config/error.h"
#include "experiment/find_lr.h"
#include "report/xml.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Path = std::filesystem::path;
using Json = nlohmann::ordered_json;

constexpr const char* header =
    "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm\n";

struct Row {
  std::string phase;
  double lr;
  double loss;
  double accuracy;
};

Json summary_of(const std::string& outcome, std::size_t steps) {
  return {{"outcome", outcome.empty() ? Json() : Json(outcome)},
          {"steps", steps},
          {"steps_planned", 10000},
          {"steps_per_epoch", 13},
          {"first_non_finite_step", outcome == "non_finite" ? Json(steps - 1) : Json()},
          {"first_non_finite_tensor", outcome == "non_finite" ? Json("loss") : Json()},
          {"gate_opened_at", nullptr},
          {"final_train_loss", 0.0625},
          {"final_train_accuracy", 0.75},
          {"test_loss", nullptr},
          {"test_accuracy", 0.8125},
          {"best_test_accuracy", 0.9},
          {"best_step", 26},
          {"wall_seconds", 12.34},
          {"images_per_second", 987.6},
          {"parameters", 330154},
          {"memory_bytes", {{"a", 1048576}, {"b", 524288}}},
          {"data", "generated"},
          {"device", "Quick <CPU>"},
          {"library", "oneLib 9.8"},
          {"preheat", "0.1.0"}};
}

void write_run(const Path& folder, const std::vector<Row>& rows, const std::string& outcome = "ok",
               const std::string& name = "small-cnn", const std::string& seed = "7") {
  std::filesystem::create_directories(folder);
  std::string metrics = header;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    metrics += fmt::format("{},0,{},{},{},{},1.5,0.0625,12\n", i, rows[i].phase, rows[i].lr,
                           rows[i].loss, rows[i].accuracy);
  }
  put_bytes(folder / "metrics.csv", metrics);
  put_bytes(folder / "eval.csv",
            "step,epoch,test_loss,test_accuracy\n13,1,1.5,0.5\n26,2,1.25,0.9\n");
  put_bytes(folder / "config.yaml", "name: \"" + name + "\"\nseed: " + seed +
                                        "\noptimizer: {momentum: 0.75}\n# <b> & more\n");
  put_bytes(folder / "summary.json", summary_of(outcome, rows.size()).dump());
}

std::string page_of(const std::vector<Path>& folders) {
  return report_page(read_report_data(folders));
}

std::string between(const std::string& text, const std::string& begin, const std::string& end) {
  const auto from = text.find(begin);
  if (from == std::string::npos) return "";
  return text.substr(from + begin.size(), text.find(end, from) - from - begin.size());
}

// The page without its first line and the contents of its scripts and style: the rest is XML.
std::string without_scripts(std::string page) {
  for (const std::string tag : {"script", "style"}) {
    for (auto at = page.find("<" + tag); at != std::string::npos; at = page.find("<" + tag, at)) {
      const auto body = page.find('>', at) + 1;
      const auto end = page.find("</" + tag + ">", body);
      page.erase(body, end - body);
      at = body;
    }
  }
  return page.substr(page.find('\n') + 1);
}

Json data_of(const std::string& page) {
  return Json::parse(between(page, "id=\"data\">", "</script>"));
}

// The section of an experiment's runs, after those of its results.
Json curves_of(const std::string& page) {
  return data_of(page).at("sections").back();
}

// The series of a chart with this label.
Json series_of(const Json& section, const std::string& chart, const std::string& label) {
  for (const Json& c : section.at("charts")) {
    if (c.at("title") != chart) continue;
    for (const Json& s : c.at("series")) {
      if (s.at("label") == label) return s;
    }
  }
  ADD_FAILURE() << "no series " << label << " in a chart " << chart;
  return {{"x", Json::array()}, {"y", Json::array()}, {"facets", Json::array()}};
}

// The labels of all series of a chart.
std::vector<std::string> labels_of(const Json& section, const std::string& chart) {
  std::vector<std::string> labels;
  for (const Json& c : section.at("charts")) {
    if (c.at("title") != chart) continue;
    for (const Json& s : c.at("series")) labels.push_back(s.at("label"));
  }
  return labels;
}

void expect_well_formed(const std::string& page) {
  ASSERT_THAT(page, StartsWith("<!doctype html>\n"));
  const Xml xml = parse(without_scripts(page));
  EXPECT_EQ(xml.error, "");
  std::size_t figures = 0;
  int scripts = 0;
  for (const Element& element : xml.elements) {
    scripts += element.name == "script" ? 1 : 0;
    figures += element.attributes.contains("data-chart") ? 1 : 0;
    for (const char* name : {"link", "img", "iframe", "object", "base"}) {
      EXPECT_NE(element.name, name);
    }
    if (element.attributes.contains("tabindex")) {  // what keys scroll has a name
      ASSERT_TRUE(element.attributes.contains("role"));
      EXPECT_EQ(element.attributes.at("role"), "region");
      EXPECT_NE(element.attributes.at("aria-label"), "");
    }
    for (const auto& [name, value] : element.attributes) {
      EXPECT_FALSE(name.starts_with("on") || name == "src" || name == "href") << name;
    }
  }
  EXPECT_EQ(scripts, 3);
  std::size_t charts = 0;
  const Json data = data_of(page);
  for (const Json& section : data.at("sections")) charts += section.at("charts").size();
  EXPECT_EQ(charts, figures);
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

class Report : public testing::Test {
 protected:
  std::vector<Row> random_rows(std::size_t n) {
    std::lognormal_distribution<double> loss(0, 1.5);
    std::uniform_real_distribution<double> share(0, 1);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < n; ++i) {
      const bool warm = i < n / 4;
      const float lr = warm ? 0.1f * static_cast<float>(i + 1) / static_cast<float>(n) : 0.125f;
      rows.push_back({warm ? "warmup" : "decay", lr, loss(random_), share(random_)});
    }
    return rows;
  }

  // Two arms over the seeds 0 and 1; "cold" is not finite at seed 1.
  void write_compare(const std::function<void(Json&)>& change = [](Json&) {}) {
    const Path folder = folder_ / "c";
    std::filesystem::create_directories(folder);
    put_bytes(folder / "config.yaml",
              "name: pair\ndata: {dataset: synthetic}\ncompare:\n  seeds: 0..1\n  arms:\n"
              "    cold: {schedule.base_lr: 1}\n    warm: {}\n");
    Json json = {{"arms", Json::array()},
                 {"paired", {{{"arms", {"cold", "warm"}}, {"mcnemar_p", 0.625}}}}};
    for (const std::string arm : {"cold", "warm"}) {
      Json runs = Json::array();
      for (int seed = 0; seed < 2; ++seed) {
        const bool lost = arm == "cold" && seed == 1;
        rows_[arm + std::to_string(seed)] = random_rows(lost ? 20 : 40);
        write_run(folder / arm / std::to_string(seed), rows_[arm + std::to_string(seed)],
                  lost ? "non_finite" : "ok", "pair", std::to_string(seed));
        runs.push_back({{"seed", seed},
                        {"outcome", lost ? "non_finite" : "ok"},
                        {"first_non_finite_step", lost ? Json(19) : Json()},
                        {"final_train_loss", 0.5},
                        {"test_accuracy", lost ? Json() : Json(0.8 + 0.1 * seed)}});
      }
      json["arms"].push_back({{"name", arm},
                              {"overrides", {{"schedule.base_lr", "<1>"}}},
                              {"n", 2},
                              {"failures", arm == "cold" ? 1 : 0},
                              {"failure_interval", {0.0126, 0.9874}},
                              {"runs", runs}});
    }
    change(json);
    put_bytes(folder / "compare.json", json.dump());
  }

  // One arm, "a", with these runs of the seeds 0 to 4.
  void write_one_arm(const Path& folder, const Json& runs, int failures) {
    put_bytes(folder / "config.yaml",
              "name: many\ndata: {dataset: synthetic}\ncompare: {seeds: 0..4, arms: {a: {}}}\n");
    const Json arm = {{"name", "a"},          {"overrides", Json::object()}, {"n", runs.size()},
                      {"failures", failures}, {"failure_interval", nullptr}, {"runs", runs}};
    put_bytes(folder / "compare.json",
              Json{{"arms", Json::array({arm})}, {"paired", Json::array()}}.dump());
  }

  const std::uint32_t seed_ = std::random_device{}();
  const testing::ScopedTrace trace_{__FILE__, __LINE__, testing::Message() << "seed " << seed_};
  std::mt19937_64 random_{seed_};
  TemporaryFolder folder_;
  std::map<std::string, std::vector<Row>> rows_;
};

TEST_F(Report, OfARunHasEveryValueOfAShortOne) {
  const std::vector<Row> rows = random_rows(80);
  write_run(folder_ / "run", rows);
  const std::string page = page_of({folder_ / "run"});
  expect_well_formed(page);
  const Json section = data_of(page).at("sections").at(0);
  EXPECT_TRUE(section.at("facets").empty());
  const Json loss = series_of(section, "Training loss", "training");
  const Json accuracy = series_of(section, "Accuracy", "training");
  const Json rate = series_of(section, "Learning rate", "learning rate");
  ASSERT_EQ(loss.at("y").size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(loss.at("x").at(i), i);
    EXPECT_NEAR(loss.at("y").at(i).get<double>(), rows[i].loss, 1e-5 * rows[i].loss);
    EXPECT_NEAR(accuracy.at("y").at(i).get<double>(), 100 * rows[i].accuracy, 1e-3);
    EXPECT_NEAR(rate.at("y").at(i).get<double>(), rows[i].lr, 1e-5 * rows[i].lr);
  }
  EXPECT_EQ(series_of(section, "Accuracy", "test").at("y").dump(), "[50,90]");
  const auto norm = [&](const char* of) {
    return series_of(section, "Norms over all parameters", of).at("y").back();
  };
  EXPECT_EQ(norm("gradient"), 1.5);
  EXPECT_EQ(norm("update"), 0.0625);
  EXPECT_EQ(norm("weights"), 12);
  EXPECT_EQ(section.at("charts").at(0).at("bands").dump(),
            R"([{"label":"warmup","from":0.0,"to":20.0},{"label":"decay","from":20.0,"to":80.0}])");
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("<title>small-cnn, seed 7</title>"),
            HasSubstr("outcome ok\">● ok: the network learned"), HasSubstr("<dd>80 of 10000</dd>"),
            HasSubstr("<dd>0.0625</dd>"), HasSubstr("<dd>75.00 %</dd>"),
            HasSubstr("<dd>90.00 % after 26, chosen by test accuracy</dd>"),
            HasSubstr("<dt>test loss</dt><dd>–</dd>"), HasSubstr("<dd>Quick &lt;CPU&gt;</dd>"),
            HasSubstr("<dd>1.5 MiB</dd>"), HasSubstr("# &lt;b&gt; &amp; more")));
}

TEST_F(Report, OfARunWithAValidationSetShowsItsNumbers) {
  write_run(folder_ / "run", random_rows(30));
  EXPECT_THAT(page_of({folder_ / "run"}), Not(HasSubstr("alidation accuracy")));
  put_bytes(folder_ / "run/eval.csv",
            "step,epoch,test_loss,test_accuracy,validation_loss,validation_accuracy\n"
            "13,1,1.5,0.5,1.75,0.25\n26,2,1.25,0.9,nan,0.375\n");
  Json summary = summary_of("ok", 30);
  summary["best_by"] = "validation";
  summary["validation_loss"] = nullptr;
  summary["validation_accuracy"] = 0.375;
  summary["best_validation_accuracy"] = 0.4375;
  put_bytes(folder_ / "run/summary.json", summary.dump());
  const std::string page = page_of({folder_ / "run"});
  expect_well_formed(page);
  const Json section = data_of(page).at("sections").at(0);
  EXPECT_EQ(series_of(section, "Accuracy", "validation").at("y").dump(), "[25,37.5]");
  EXPECT_EQ(series_of(section, "Accuracy", "test").at("y").dump(), "[50,90]");
  EXPECT_EQ(series_of(section, "Training loss", "validation").at("y").at(0), 1.75);
  EXPECT_THAT(
      page,
      AllOf(
          HasSubstr("<dt>validation loss</dt><dd>–</dd>"),
          HasSubstr("<dt>validation accuracy</dt><dd>37.50 %</dd>"),
          HasSubstr("<dt>best validation accuracy</dt><dd>43.75 % after 26, chosen by validation "
                    "accuracy</dd>"),
          HasSubstr("<dt>test accuracy of the best</dt><dd>90.00 % after 26, chosen by validation "
                    "accuracy</dd>"),
          HasSubstr("Test and validation: after that many updates.")));
  // Beside a run without one, which has none in its row.
  write_run(folder_ / "plain", random_rows(30), "ok", "plain");
  EXPECT_THAT(page_of({folder_ / "run", folder_ / "plain"}),
              AllOf(HasSubstr("<th scope=\"col\">validation accuracy</th>"),
                    HasSubstr("<td>81.25 %</td><td>37.50 %</td>"),
                    HasSubstr("<td>81.25 %</td><td>–</td>")));
}

TEST_F(Report, OfAnExperimentShowsTheValidationAccuracyBesideThatOfTheTest) {
  const std::string head = "validation accuracy of the others";
  write_compare();
  EXPECT_THAT(page_of({folder_ / "c"}), Not(HasSubstr(head)));
  write_compare([](Json& json) {  // of the second arm alone
    for (Json& run : json["arms"][1]["runs"]) {
      run["validation_accuracy"] = 0.7 + 0.1 * run.at("seed").get<double>();
    }
  });
  EXPECT_THAT(page_of({folder_ / "c"}),
              AllOf(HasSubstr(head),
                    HasSubstr("<td>85.00 % (80.00 .. 90.00), n = 2</td>"
                              "<td>75.00 % (70.00 .. 80.00), n = 2</td>"),
                    HasSubstr("<td>80.00 % (80.00 .. 80.00), n = 1</td><td>– (n = 0)</td>")));

  const Path folder = folder_ / "s";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: map\ndata: {dataset: synthetic, validation: 96}\n"
            "sweep: {seeds: 1, axes: {schedule.base_lr: [0.25, 0.5]}}\n");
  Json cells = Json::array();
  for (const double lr : {0.25, 0.5}) {
    const std::string name = fmt::format("{}", lr);
    write_run(folder / name / "0", random_rows(8), "ok", "map");
    const Json run = {{"seed", 0},
                      {"outcome", "ok"},
                      {"test_accuracy", 0.875},
                      {"validation_accuracy", 0.25 + lr}};
    cells.push_back({{"name", name},
                     {"n", 1},
                     {"failures", 0},
                     {"failure_interval", nullptr},
                     {"runs", Json::array({run})},
                     {"point", {{"schedule.base_lr", lr}}}});
  }
  Json axis = {{"key", "schedule.base_lr"}, {"values", {0.25, 0.5}}};
  const Json json = {
      {"axes", Json::array({axis})}, {"cells", cells}, {"boundaries", Json::array()}};
  put_bytes(folder / "sweep.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(page, AllOf(HasSubstr("0/1</span><br/><small>87.5 %</small><br/><small>val. 75.0 %"),
                          HasSubstr("val.: on the validation set"), HasSubstr(head),
                          HasSubstr("mean validation accuracy")));
  const Json sections = data_of(page).at("sections");
  EXPECT_EQ(series_of(sections.at(0), "Validation accuracy by base rate", "all").at("y").dump(),
            "[50,75]");
  EXPECT_EQ(series_of(sections.at(0), "Test accuracy by base rate", "all").at("y").dump(),
            "[87.5,87.5]");
}

TEST_F(Report, OfALongRunKeepsItsExtremes) {
  std::vector<Row> rows = random_rows(20000);
  rows[11111].loss = 4e6;
  rows[4444].loss = 1e-9;
  write_run(folder_ / "run", rows);
  const std::string page = page_of({folder_ / "run"});
  const Json loss = series_of(data_of(page).at("sections").at(0), "Training loss", "training");
  EXPECT_LE(loss.at("x").size(), 402);
  std::map<int, Json> y;
  for (std::size_t i = 0; i < loss.at("x").size(); ++i) y[loss.at("x").at(i)] = loss.at("y").at(i);
  EXPECT_EQ(y[11111], 4000000);
  EXPECT_EQ(y[4444], 1e-9);
  EXPECT_THAT(page,
              AllOf(HasSubstr("4e+06 <small>at 11111</small>"),
                    HasSubstr("1e-09 <small>at 4444</small>"), HasSubstr("the largest is 4e+06")));
  EXPECT_LT(page.size(), 500'000);
}

TEST_F(Report, OfALongRunTakesNoMeanAcrossTheEndOfAPhase) {
  std::vector<Row> rows(20000, {"warmup", 0.125, 2, 0.25});
  for (std::size_t i = 5077; i < rows.size(); ++i) rows[i] = {"decay", 0.125, 1, 0.75};
  write_run(folder_ / "run", rows);
  const Json section = data_of(page_of({folder_ / "run"})).at("sections").at(0);
  const auto means = [&](const char* chart) {
    return series_of(section, chart, "training, mean of 200").at("y");
  };
  EXPECT_GE(means("Training loss").size(), 100u);
  for (const Json& y : means("Training loss")) EXPECT_TRUE(y == 2 || y == 1) << y;
  for (const Json& y : means("Accuracy")) EXPECT_TRUE(y == 25 || y == 75) << y;
}

TEST_F(Report, SaysWhereARunIsLostAndWhenOneHasNotEnded) {
  std::vector<Row> rows = random_rows(30);
  rows[29].loss = std::nan("");
  write_run(folder_ / "lost", rows, "non_finite");
  std::string page = page_of({folder_ / "lost"});
  expect_well_formed(page);
  EXPECT_THAT(page, AllOf(HasSubstr("✕ not finite at step 29, first in loss"),
                          HasSubstr("<td>from 29</td>")));
  const Json loss = series_of(data_of(page).at("sections").at(0), "Training loss", "training");
  EXPECT_EQ(loss.at("y").at(29), Json());

  write_run(folder_ / "cut", random_rows(30), "");
  EXPECT_THAT(page_of({folder_ / "cut"}), HasSubstr("interrupted after 30 of 10000 updates"));
  std::filesystem::remove(folder_ / "cut/summary.json");
  page = page_of({folder_ / "cut"});
  expect_well_formed(page);
  EXPECT_THAT(page, HasSubstr("still running, or killed: 30 updates recorded"));
}

// A file cut off at the end of a row looks whole but for the summary.
TEST_F(Report, SaysWhereRowsAreLost) {
  const auto put = [&](const std::string& name, std::size_t rows, std::size_t updates) {
    write_run(folder_ / name, random_rows(rows), "ok", name);
    put_bytes(folder_ / name / "summary.json", summary_of("ok", updates).dump());
    return folder_ / name;
  };
  const std::string lost =
      "Rows of metrics.csv are lost, and missing in the charts. What is left: ";
  const Path whole = put("whole", 30, 30);
  EXPECT_THAT(page_of({whole}), Not(HasSubstr(lost)));
  // The update at which a run was lost has a row, and does not count as done.
  EXPECT_THAT(page_of({put("diverged", 30, 29)}), Not(HasSubstr(lost)));
  const Path cut = put("cut", 30, 31);
  std::string page = page_of({cut});
  expect_well_formed(page);
  EXPECT_THAT(page, HasSubstr(lost + "30 of 31 updates.</p>"));
  page = page_of({cut, whole, put("empty", 0, 1)});
  expect_well_formed(page);
  EXPECT_THAT(page,
              HasSubstr(lost + "cut, seed 7: 30 of 31 updates; empty, seed 7: 0 of 1 update."));
  // Only so many are named.
  std::vector<Path> many;
  for (int i = 0; i < 14; ++i) many.push_back(put(fmt::format("n{}", i), 3, 4));
  EXPECT_THAT(page_of(many), HasSubstr("n11, seed 7: 3 of 4 updates; and 2 runs more."));
}

TEST_F(Report, OfARunSaysHowItEndedAndWhatItTook) {
  const std::vector<Row> rows = {
      {"warmup", 0.25, 2, 0.1}, {"warmup", 0.5, 2, 0.1}, {"decay", 0.5, 2, 0.1},
      {"decay", 0.125, 1, 0.1}, {"decay", 0.25, 1, 0.1},
  };
  const auto page_of_one = [&](const std::string& outcome) {
    write_run(folder_ / "run", rows, outcome);
    Json summary = summary_of(outcome, rows.size());
    summary["gate_opened_at"] = 2;
    put_bytes(folder_ / "run/summary.json", summary.dump());
    return page_of({folder_ / "run"});
  };
  EXPECT_THAT(page_of_one("stuck"),
              HasSubstr("■ stuck: the loss stayed finite, but the network did not learn</p>"));
  EXPECT_THAT(
      page_of_one("spiked"),
      AllOf(HasSubstr("▲ spiked: the loss exceeded 3 times its first value, but the network"),
            HasSubstr("<dt>warmup ended early</dt><dd>before update 2</dd>"),
            HasSubstr("<dt>wall time</dt><dd>12.3 s</dd>"),
            HasSubstr("<dt>training speed</dt><dd>988 images/s</dd>"),
            HasSubstr("<th scope=\"row\">warmup</th><td>0 – 1</td><td>2.50e-01</td><td>5.00e-01"),
            HasSubstr("<th scope=\"row\">decay</th><td>2 – 4</td><td>1.25e-01</td><td>5.00e-01")));
}

TEST_F(Report, NothingInAFileBecomesMarkup) {
  std::vector<Row> rows = random_rows(12);
  rows[3].phase = "</script><script>alert(1)</script>";
  write_run(folder_ / "a", rows, "ok", "</script><!--<img src=x>");
  write_run(folder_ / "b", rows, "<b>odd</b>", "</script><!--<img src=x>", "8");
  for (const std::string& page :
       {page_of({folder_ / "a"}), page_of({folder_ / "a", folder_ / "b"})}) {
    expect_well_formed(page);
    const std::string json = between(page, "id=\"data\">", "</script>");
    EXPECT_THAT(json, Not(HasSubstr("<")));
    EXPECT_NO_THROW(Json::parse(json));
    EXPECT_THAT(page, Not(HasSubstr("<img")));
  }
}

TEST_F(Report, OfSeveralRunsTellsThemApart) {
  write_run(folder_ / "a", random_rows(10));
  write_run(folder_ / "b", random_rows(10), "stuck", "other", "18446744073709551615");
  write_run(folder_ / "d", random_rows(10));
  const std::string page = page_of({folder_ / "a", folder_ / "b", folder_ / "d"});
  expect_well_formed(page);
  const Json facet = data_of(page).at("sections").at(0).at("facets").at(0);
  EXPECT_EQ(facet.at("name"), "run");
  EXPECT_THAT(facet.at("values").at(0).at("label").get<std::string>(), HasSubstr("/a"));
  EXPECT_EQ(facet.at("values").at(1).at("label"), "other, seed 18446744073709551615");
  EXPECT_THAT(page, HasSubstr("1 of n = 3 runs failed"));
}

TEST_F(Report, OfSeveralRunsCountsThoseThatHaveEnded) {
  const std::vector<Path> folders = {folder_ / "a", folder_ / "b", folder_ / "d"};
  for (const Path& folder : folders) {
    write_run(folder, random_rows(10), folder == folders[0] ? "stuck" : "ok");
  }
  EXPECT_THAT(page_of(folders), HasSubstr(">1 of n = 3 runs failed: not finite, or stuck</p>"));
  std::filesystem::remove(folders[1] / "summary.json");  // as if killed
  EXPECT_THAT(page_of(folders),
              HasSubstr(">1 of n = 2 runs failed: not finite, or stuck; 1 more has not ended</p>"));
  put_bytes(folders[2] / "summary.json", summary_of("", 10).dump());  // interrupted
  EXPECT_THAT(
      page_of(folders),
      HasSubstr(">1 of n = 1 runs failed: not finite, or stuck; 2 more have not ended</p>"));
  std::filesystem::remove(folders[0] / "summary.json");
  EXPECT_THAT(page_of(folders), HasSubstr(">… none of 3 runs has ended</p>"));
}

TEST_F(Report, OfTooManyRunsHasTheirResultsWithoutCurves) {
  write_compare();
  write_run(folder_ / "run", random_rows(9), "stuck");
  // A run that was killed has only its rows to tell how far it came.
  std::filesystem::remove(folder_ / "c/cold/0/summary.json");
  const std::vector<Path> folders = {folder_ / "c", folder_ / "run"};
  const auto page_with = [&](std::size_t max_curves) {
    std::string page = report_page(read_report_data(folders, max_curves));
    expect_well_formed(page);
    return page;
  };
  const std::string without = page_with(4);
  const Json sections = data_of(without).at("sections");
  ASSERT_EQ(sections.size(), 1u);
  EXPECT_EQ(sections.at(0).at("charts").at(0).at("title"), "Failed runs by arm");
  EXPECT_THAT(without, AllOf(HasSubstr("1 of n = 4 runs failed"),
                             HasSubstr("Curves are left out, as the page is of too many runs"),
                             HasSubstr("<th scope=\"row\">cold/0</th><td>… not ended</td><td>40<"),
                             HasSubstr("<th scope=\"row\">cold/1</th><td class=\"non_finite\">✕ "
                                       "not finite at 19</td><td>20</td>"),
                             HasSubstr("■ stuck: the loss stayed finite")));
  const std::string with = page_with(5);
  EXPECT_EQ(data_of(with).at("sections").size(), 3u);
  EXPECT_THAT(with, Not(HasSubstr("Curves are left out")));
}

TEST_F(Report, OfAFolderOfRunsHasThemByName) {
  for (const char* name : {"d", "b", "e", "a", "c"}) {
    write_run(folder_ / "runs" / name, random_rows(8), "ok", name);
  }
  std::vector<std::string> order;
  const Json data = data_of(page_of({folder_ / "runs"}));
  for (const Json& value : data.at("sections").at(0).at("facets").at(0).at("values")) {
    order.push_back(value.at("label"));
  }
  EXPECT_THAT(order, ElementsAre("a, seed 7", "b, seed 7", "c, seed 7", "d, seed 7", "e, seed 7"));
}

TEST_F(Report, OfManyRunsHasARowForEachAndTwentyConfigurations) {
  std::vector<Path> folders;
  for (int i = 0; i < 21; ++i) {
    folders.push_back(folder_ / fmt::format("{:02}", i));
    write_run(folders.back(), random_rows(8), i == 3 ? "non_finite" : "ok", "many",
              std::to_string(i));
  }
  const std::string page = page_of(folders);
  expect_well_formed(page);
  EXPECT_THAT(page,
              AllOf(HasSubstr("<th scope=\"row\">many, seed 3</th><td class=\"non_finite\">✕ not "
                              "finite at 7</td><td>8</td><td>0.0625</td><td>81.25 %</td>"),
                    HasSubstr("<th scope=\"row\">many, seed 20</th><td class=\"ok\">● ok</td>"),
                    HasSubstr("environment of many, seed 19<"),
                    Not(HasSubstr("environment of many, seed 20<"))));
  // Beside an experiment the runs are one part of the page.
  write_compare();
  const std::string both = page_of({folder_ / "c", folders[0], folders[1]});
  EXPECT_THAT(both, AllOf(HasSubstr("<title>pair, 2 runs</title>"),
                          HasSubstr("<tr><th scope=\"row\">cold/1</th>")));
  std::vector<std::string> headings;
  for (const Element& e : parse(without_scripts(both)).elements) {
    if (e.name.size() == 2 && e.name[0] == 'h') headings.push_back(e.name + " " + e.text);
  }
  EXPECT_THAT(headings, ElementsAre("h1 Runs and experiments", "h2 pair ", "h3 The arms",
                                    "h3 The same seeds under two arms", "h3 Curves", "h2 2 runs"));
}

TEST_F(Report, OfAComparisonCountsAndDrawsEveryRun) {
  write_compare();
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  EXPECT_THAT(page,
              AllOf(HasSubstr("1 of n = 4 runs failed"),
                    HasSubstr("<td class=\"non_finite\">1</td><td>[0.01, 0.99]</td>"),
                    HasSubstr("80.00 % (80.00 .. 80.00), n = 1"),
                    HasSubstr("85.00 % (80.00 .. 90.00), n = 2"),
                    HasSubstr("of n = 2 seeds 1 failed only under cold, 0 only under warm; "
                              "exact McNemar p = 0.62"),
                    HasSubstr("schedule.base_lr: &lt;1&gt;"), Not(HasSubstr("incomplete")),
                    HasSubstr("<th scope=\"col\">first step not finite: median (range)</th>"),
                    HasSubstr("<td>19 (19 .. 19)</td>"), Not(HasSubstr("sum of learning rates")),
                    Not(HasSubstr("class=\"claims\""))));
  const Json section = curves_of(page);
  for (int arm = 0; arm < 2; ++arm) {
    for (int seed = 0; seed < 2; ++seed) {
      const std::string name = arm == 0 ? "cold" : "warm";
      const Json s = series_of(section, "Training loss", fmt::format("{}, seed {}", name, seed));
      EXPECT_EQ(s.at("facets"), Json({arm, seed}));
      const std::vector<Row>& rows = rows_[name + std::to_string(seed)];
      // The last loss of the lost run is finite, but its line has to end with a cross.
      const bool is_lost = name == "cold" && seed == 1;
      ASSERT_EQ(s.at("y").size(), rows.size() + (is_lost ? 1 : 0));
      if (is_lost) {
        EXPECT_EQ(s.at("x").back(), 19);
        EXPECT_TRUE(s.at("y").back().is_null());
      }
      for (std::size_t i = 0; i < rows.size(); ++i) {
        EXPECT_NEAR(s.at("y").at(i).get<double>(), rows[i].loss, 1e-5 * rows[i].loss);
      }
    }
  }
  // Both seeds of "warm" share one schedule, which no choice of seeds hides.
  EXPECT_EQ(series_of(section, "Learning rate", "warm").at("facets"), Json({1, -1}));
  EXPECT_THAT(page, HasSubstr("Runs of an arm that have the same rates share a line."));
}

// The intervals are those of table I in Newcombe: "Two-sided confidence intervals for the single
// proportion: comparison of seven methods", Stat. Med. 17, 1998 (score method without correction).
TEST_F(Report, OfAComparisonDrawsTheShareOfEachArmThatFailedWithWilsonsInterval) {
  struct Arm {
    std::string name;
    int failures, n;
    double lo, hi;
  };
  const std::vector<Arm> drawn = {{"cold & <dry>", 1, 29, 0.0061, 0.1718},
                                  {"warm", 0, 20, 0.0, 0.1611}};
  const Path folder = folder_ / "w";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: shares\ndata: {dataset: synthetic}\ncompare:\n  seeds: 0..28\n  arms:\n"
            "    cold: {schedule.base_lr: 1}\n    none: {}\n    warm: {}\n");
  const auto arm_with = [&](const std::string& name, int failures, int n) {
    Json runs = Json::array();
    for (int seed = 0; seed < n; ++seed) {
      const std::string outcome = seed < failures ? "stuck" : "ok";
      write_run(folder / name / std::to_string(seed), random_rows(4), outcome, "shares",
                std::to_string(seed));
      runs.push_back({{"seed", seed}, {"outcome", outcome}, {"test_accuracy", 0.5}});
    }
    return Json{{"name", name},
                {"overrides", Json::object()},
                {"n", n},
                {"failures", failures},
                {"failure_interval", n > 0 ? Json({0.03125, 0.96875}) : Json()},
                {"runs", runs}};
  };
  const auto write = [&](const Json& arms) {
    put_bytes(folder / "compare.json", Json{{"arms", arms}, {"paired", Json::array()}}.dump());
    std::string page = page_of({folder});
    expect_well_formed(page);
    return page;
  };
  const Json first = arm_with(drawn[0].name, drawn[0].failures, drawn[0].n);
  const Json last = arm_with(drawn[1].name, drawn[1].failures, drawn[1].n);
  const std::string page = write({first, arm_with("none", 0, 0), last});
  const Json sections = data_of(page).at("sections");
  ASSERT_EQ(sections.size(), 2u);
  ASSERT_EQ(sections.at(0).at("charts").size(), 1u);
  const Json chart = sections.at(0).at("charts").at(0);
  EXPECT_EQ(chart.at("title"), "Failed runs by arm");
  EXPECT_EQ(chart.at("rows"), Json({"cold & <dry>", "none", "warm"}));
  EXPECT_EQ(chart.at("xspan"), Json({0, 1}));
  ASSERT_EQ(chart.at("series").size(), drawn.size());
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    SCOPED_TRACE(drawn[i].name);
    const Json& series = chart.at("series").at(i);
    EXPECT_EQ(series.at("label"), fmt::format("{} of n = {}", drawn[i].failures, drawn[i].n));
    EXPECT_EQ(series.at("kind"), "dots");
    EXPECT_EQ(series.at("y"), Json({i == 0 ? 0 : 2}));  // the arm without runs has no dot
    ASSERT_EQ(series.at("x").size(), 1u);
    EXPECT_NEAR(series.at("x").at(0).get<double>(),
                static_cast<double>(drawn[i].failures) / drawn[i].n, 1e-6);
    ASSERT_EQ(series.at("least").size(), 1u);
    EXPECT_NEAR(series.at("least").at(0).get<double>(), drawn[i].lo, 5e-5);
    ASSERT_EQ(series.at("largest").size(), 1u);
    EXPECT_NEAR(series.at("largest").at(0).get<double>(), drawn[i].hi, 5e-5);
  }
  // Each arm has the colour of its curves.
  const Json arms = sections.at(1).at("facets").at(0).at("values");
  ASSERT_EQ(arms.size(), drawn.size());
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    EXPECT_EQ(arms.at(i).at("label"), drawn[i].name);
    EXPECT_EQ(arms.at(i).at("color"), chart.at("series").at(i).at("color"));
  }
  EXPECT_NE(arms.at(0).at("color"), arms.at(1).at("color"));
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("<th scope=\"col\">share</th><th scope=\"col\">Wilson interval, 95 %</th>"),
            HasSubstr("<th scope=\"row\">cold &amp; &lt;dry&gt;</th><td>29</td><td>1</td>"
                      "<td>0.03</td><td>[0.01, 0.17]</td></tr>"),
            HasSubstr("<th scope=\"row\">none</th><td>0</td><td>0</td><td>–</td><td>–</td></tr>"),
            HasSubstr("<th scope=\"row\">warm</th><td>20</td><td>0</td><td>0.00</td>"
                      "<td>[0.00, 0.16]</td></tr>"),
            HasSubstr("<td>[0.03, 0.97]</td>"),  // the table of arms has the interval of the file
            HasSubstr("interval at 95 %, which keeps its confidence on average"),
            HasSubstr("that in the table of arms is Clopper-Pearson")));

  // One run says next to nothing about an arm, but is drawn beside an arm of two.
  const auto has_chart = [&](const Json& arms_of_page) {
    return write(arms_of_page).find("Failed runs by arm") != std::string::npos;
  };
  const Json one = arm_with("one", 1, 1);
  EXPECT_FALSE(has_chart(Json::array({one, arm_with("other", 0, 1)})));
  EXPECT_TRUE(has_chart(Json::array({one, arm_with("two", 1, 2)})));
}

// "warmup 0 10, decay 10 40".
std::string bands_of(const Json& chart) {
  std::string text;
  for (const Json& band : chart.value("bands", Json::array())) {
    text += fmt::format("{}{} {} {}", text.empty() ? "" : ", ", band.at("label").get<std::string>(),
                        band.at("from").get<double>(), band.at("to").get<double>());
  }
  return text;
}

TEST_F(Report, OfSeveralRunsShadesThePhasesThatTheyShareAndMarksOtherEndsOfWarmup) {
  write_compare();
  const auto write_phases = [&](const std::string& run, std::size_t warmup, std::size_t updates) {
    std::vector<Row> rows = random_rows(updates);
    for (std::size_t i = 0; i < updates; ++i) rows[i].phase = i < warmup ? "warmup" : "decay";
    write_run(folder_ / "c" / run, rows, "ok", "pair", run.substr(run.size() - 1));
  };
  const auto expect = [&](const std::string& bands, const std::map<std::string, Json>& marks) {
    const std::string page = page_of({folder_ / "c"});
    expect_well_formed(page);
    const Json section = curves_of(page);
    EXPECT_GE(section.at("charts").size(), 5u);
    for (const Json& chart : section.at("charts")) {
      if (chart.at("x") != "step") continue;  // one point per run
      EXPECT_EQ(bands_of(chart), bands) << chart.at("title");
      std::map<std::string, Json> found;
      for (const Json& mark : chart.value("marks", Json::array())) {
        found[fmt::format("{} {}", mark.at("label").get<std::string>(),
                          mark.at("color").get<std::string>())] =
            Json::array({mark.at("at"), mark.at("facets")});
      }
      EXPECT_EQ(found, marks) << chart.at("title");
    }
    return page;
  };
  // Cold has no warmup, and one of its seeds is lost; those of warm end at the same update.
  write_phases("cold/0", 0, 40);
  write_phases("cold/1", 0, 20);
  write_phases("warm/0", 10, 40);
  write_phases("warm/1", 10, 40);
  EXPECT_THAT(expect("decay 10 40", {{"warm: warmup ends after 10 updates c1",
                                      Json::array({10, Json::array({1, -1})})}}),
              AllOf(HasSubstr("Shaded: the updates at which all runs, as far as each goes, are in "
                              "the same phase."),
                    HasSubstr("Vertical lines: where warmup ends, warm: after 10 updates.")));
  // As behind a gate each seed has its own end.
  write_phases("cold/0", 10, 40);
  write_phases("cold/1", 4, 20);
  EXPECT_THAT(
      expect("warmup 0 4, decay 10 40",
             {{"cold: warmup ends after 10 updates c0", Json::array({10, Json::array({0, 0})})},
              {"cold: warmup ends after 4 updates c0", Json::array({4, Json::array({0, 1})})},
              {"warm: warmup ends after 10 updates c1", Json::array({10, Json::array({1, -1})})}}),
      HasSubstr("where warmup ends, cold: after 4 to 10 updates; warm: after 10 updates."));
  // A run that is lost in its warmup does not differ, and all phases are shared.
  write_phases("cold/1", 6, 6);
  EXPECT_THAT(expect("warmup 0 10, decay 10 40", {}), Not(HasSubstr("Vertical lines")));
}

TEST_F(Report, OfAComparisonPairsRunsByTheirSeeds) {
  // Seed 1 fails under both arms, seed 0 under "warm" alone. Seed 2 of "warm" has no partner, and
  // comes first.
  write_compare([](Json& json) {
    json["arms"][1]["runs"][0]["outcome"] = "stuck";
    json["arms"][1]["runs"][1]["outcome"] = "stuck";
    Json other = json["arms"][1]["runs"][1];
    other["seed"] = 2;
    other["outcome"] = "ok";
    json["arms"][1]["runs"].insert(json["arms"][1]["runs"].begin(), other);
    json["arms"][1]["n"] = 3;
    json["arms"][1]["failures"] = 2;
    json["arms"][1]["overrides"] = Json::object();
  });
  write_run(folder_ / "c/warm/2", random_rows(8), "ok", "pair", "2");
  EXPECT_THAT(page_of({folder_ / "c"}),
              AllOf(HasSubstr("of n = 2 seeds 0 failed only under cold, 1 only under warm;"),
                    HasSubstr("<td>as configured</td>"), Not(HasSubstr("comparisons;"))));
  const auto page_of_pairs = [&](std::size_t pairs) {
    write_compare([&](Json& json) {
      const Json pair = json["paired"][0];
      json["paired"] = Json::array();
      for (std::size_t i = 0; i < pairs; ++i) json["paired"].push_back(pair);
    });
    return page_of({folder_ / "c"});
  };
  EXPECT_THAT(page_of_pairs(0), Not(HasSubstr("The same seeds under two arms")));
  EXPECT_THAT(page_of_pairs(2), HasSubstr("2 comparisons; the p-values are not corrected"));
  EXPECT_THAT(page_of_pairs(6), Not(HasSubstr("<summary>6 pairs</summary>")));
  EXPECT_THAT(page_of_pairs(7), HasSubstr("<summary>7 pairs</summary>"));
}

TEST_F(Report, OfAComparisonSaysWhatEachArmIs) {
  const auto page_with = [&](const Json& cold, const Json& warm) {
    write_compare([&](Json& json) {
      json["arms"][0]["budget"] = cold;
      json["arms"][1]["budget"] = warm;
    });
    return page_of({folder_ / "c"});
  };
  const Json usual = {{"updates", 200}, {"batch_size", 32}, {"sum_of_rates", 20.0}};
  const Json gated = {{"updates", 200}, {"batch_size", 32}, {"sum_of_rates", nullptr}};
  const std::string page = page_with(usual, gated);
  expect_well_formed(page);
  const auto row = [](const char* arm, const char* cells) {
    return HasSubstr(
        fmt::format("<th scope=\"row\">{}</th><td><code>schedule.base_lr: &lt;1&gt;"
                    "</code></td>{}</tr>",
                    arm, cells));
  };
  EXPECT_THAT(
      page, AllOf(HasSubstr("<h2>The arms</h2>"), row("cold", "<td>200</td><td>32</td><td>20</td>"),
                  row("warm", "<td>200</td><td>32</td><td>–</td>"),
                  Not(HasSubstr("The arms differ in updates")), Not(HasSubstr("per pass"))));
  const Json in_passes = {
      {"updates", 200}, {"batch_size", 32}, {"micro_batch", 8}, {"sum_of_rates", 20.0}};
  EXPECT_THAT(page_with(usual, in_passes),
              AllOf(HasSubstr("<th scope=\"col\">images per pass</th>"),
                    row("cold", "<td>200</td><td>32</td><td>32</td><td>20</td>"),
                    row("warm", "<td>200</td><td>32</td><td>8</td><td>20</td>")));
  const Json longer = {{"updates", 300}, {"batch_size", 32}, {"sum_of_rates", 20.0}};
  const Json larger = {{"updates", 200}, {"batch_size", 64}, {"sum_of_rates", 20.0}};
  for (const Json& other : {longer, larger}) {
    EXPECT_THAT(page_with(usual, other), HasSubstr("The arms differ in updates or in images"));
  }
  const Json half = {{"updates", 200}};
  EXPECT_THAT(message_of([&] { page_with(usual, half); }), HasSubstr("compare.json: is damaged"));
}

TEST_F(Report, OfAComparisonHasTheMedianLossesOfEachArm) {
  const std::string head = "<th scope=\"col\">test loss above it</th>";
  write_compare([](Json& json) {  // of a version that did not say it
    json["arms"][0]["median_losses"] = nullptr;
  });
  EXPECT_THAT(page_of({folder_ / "c"}), Not(HasSubstr(head)));
  write_compare([](Json& json) {
    json["arms"][0]["median_losses"] = nullptr;
    json["arms"][1]["median_losses"] = {{"final_train", 0.25}, {"test_minus_train", -0.0625}};
  });
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  EXPECT_THAT(page,
              AllOf(HasSubstr("<th scope=\"col\">training loss</th>" + head),
                    HasSubstr("80.00 % (80.00 .. 80.00), n = 1</td><td>–</td><td>–</td>"),
                    HasSubstr("85.00 % (80.00 .. 90.00), n = 2</td><td>0.25</td><td>-0.0625</td>"),
                    HasSubstr("only where their training losses are alike")));
}

TEST_F(Report, OfAComparisonHasTheTestLossesAtEqualTrainingLoss) {
  const std::string words = "test loss at equal training loss";
  const auto page_with = [&](const Json& matched) {
    write_compare(
        [&](Json& json) { json["paired"][0]["test_loss_at_matched_training_loss"] = matched; });
    std::string page = page_of({folder_ / "c"});
    expect_well_formed(page);
    return page;
  };
  EXPECT_THAT(page_with({{"mean_difference", 0.125}, {"interval", {-0.0625, 0.375}}, {"n", 2}}),
              AllOf(HasSubstr("exact McNemar p = 0.62; " + words +
                              ", the first minus the second: 0.125 [-0.0625, 0.375], n = 2</li>"),
                    HasSubstr("where each first reached it")));
  EXPECT_THAT(page_with({{"mean_difference", -0.125}, {"interval", nullptr}, {"n", 1}}),
              HasSubstr(words + ", the first minus the second: -0.125, n = 1</li>"));
  EXPECT_THAT(page_with(nullptr),
              AllOf(Not(HasSubstr(words)), Not(HasSubstr("where each first reached it"))));
  EXPECT_THAT(message_of([&] { page_with({{"n", 1}}); }), HasSubstr("compare.json: is damaged"));
}

TEST_F(Report, OfAComparisonHasTheStepsThatWereNotFinite) {
  write_compare([&](Json& json) {
    Json& runs = json["arms"][0]["runs"];
    for (const int step : {7, 5}) {
      Json run = runs[1];
      run["seed"] = 100 + step;
      run["first_non_finite_step"] = step;
      runs.push_back(run);
      const std::string seed = std::to_string(100 + step);
      write_run(folder_ / "c/cold" / seed, random_rows(8), "non_finite", "pair", seed);
    }
    json["arms"][0]["n"] = 4;
    json["arms"][0]["failures"] = 3;
  });
  EXPECT_THAT(page_of({folder_ / "c"}), HasSubstr("<td>7 (5 .. 19)</td>"));
  write_compare([](Json& json) {
    Json& run = json["arms"][0]["runs"][1];
    run["outcome"] = "stuck";
    run["first_non_finite_step"] = nullptr;
  });
  EXPECT_THAT(page_of({folder_ / "c"}), Not(HasSubstr("first step not finite")));
}

// With five seeds or more: compared with medians of the rows that were written to the files.
TEST_F(Report, OfManySeedsIsTheMedianAndTheRangeOfEachArm) {
  const Path folder = folder_ / "m";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: many\ndata: {dataset: synthetic}\ncompare:\n  seeds: 0..4\n  arms:\n"
            "    cold: {schedule.base_lr: 1}\n    warm: {}\n");
  Json json = {{"arms", Json::array()}, {"paired", Json::array()}};
  std::map<std::string, std::vector<std::vector<Row>>> rows;
  for (const std::string arm : {"cold", "warm"}) {
    Json runs = Json::array();
    for (std::size_t seed = 0; seed < 5; ++seed) {
      rows[arm].push_back(random_rows(40));
      // Three seeds of "cold" stop being finite, one after the other; then there is no finite
      // median. One of them does so by its gradient, with a finite loss in its file.
      const bool is_lost = arm == "cold" && seed < 3;
      const bool by_gradient = is_lost && seed == 1;
      if (is_lost) rows[arm].back().resize(10 * (seed + 1));
      double& last = rows[arm].back().back().loss;
      if (is_lost && !by_gradient) last = std::nan("");
      write_run(folder / arm / std::to_string(seed), rows[arm].back(),
                by_gradient ? "non_finite" : "ok", "many", std::to_string(seed));
      if (by_gradient) last = std::nan("");
      runs.push_back({{"seed", seed}, {"outcome", "ok"}, {"test_accuracy", 0.5}});
    }
    json["arms"].push_back({{"name", arm},
                            {"overrides", Json::object()},
                            {"n", 5},
                            {"failures", 0},
                            {"failure_interval", nullptr},
                            {"runs", runs}});
  }
  put_bytes(folder / "compare.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  const Json section = curves_of(page);
  for (const std::string arm : {"cold", "warm"}) {
    const Json line = series_of(section, "Training loss", arm + ", median of 5");
    EXPECT_EQ(line.at("kind"), "median");
    EXPECT_EQ(line.at("facets"), Json({arm == "cold" ? 0 : 1, -1}));
    ASSERT_EQ(line.at("x").size(), 40);
    for (std::size_t step = 0; step < 40; ++step) {
      std::vector<double> losses;
      for (const std::vector<Row>& seed : rows[arm]) {
        if (step < seed.size() && std::isfinite(seed[step].loss)) {
          losses.push_back(seed[step].loss);
        }
      }
      std::ranges::sort(losses);
      EXPECT_EQ(line.at("finite").at(step), losses.size());
      EXPECT_NEAR(line.at("least").at(step).get<double>(), losses.front(), 1e-5 * losses.front());
      EXPECT_NEAR(line.at("largest").at(step).get<double>(), losses.back(), 1e-5 * losses.back());
      if (losses.size() < 3) {
        EXPECT_TRUE(line.at("y").at(step).is_null());
      } else {
        EXPECT_NEAR(line.at("y").at(step).get<double>(), losses[2], 1e-5 * losses[2]);
      }
    }
  }
  const Json arms = section.at("facets").at(0).at("values");
  EXPECT_EQ(arms.at(0).at("n"), 5);
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">cold, median of 5</th>"));
  write_compare();  // two seeds are drawn as lines only
  EXPECT_THAT(page_of({folder_ / "c"}), Not(HasSubstr("\"kind\":\"median\"")));
}

// Their last means stand before the update at which they are lost, and all losses are finite.
TEST_F(Report, OfSeedsThatAreAllLostByTheirGradientsEndsThere) {
  const Path folder = folder_ / "m";
  Json runs = Json::array();
  for (int seed = 0; seed < 5; ++seed) {
    write_run(folder / "a" / std::to_string(seed),
              std::vector<Row>(1000, {"decay", 0.125, 1.0 + seed, 0.25}), "non_finite", "many",
              std::to_string(seed));
    runs.push_back({{"seed", seed},
                    {"outcome", "non_finite"},
                    {"first_non_finite_step", 999},
                    {"test_accuracy", nullptr}});
  }
  write_one_arm(folder, runs, 5);
  const Json section = curves_of(page_of({folder}));
  for (const auto& [chart, median] : {std::pair("Training loss", 3), {"Training accuracy", 25}}) {
    const Json line = series_of(section, chart, "a, median of 5");
    EXPECT_GE(line.at("x").size(), 100u);
    EXPECT_EQ(line.at("x").back(), 999);
    EXPECT_EQ(line.at("finite").back(), 0);
    for (std::size_t i = 0; i < line.at("x").size(); ++i) {
      EXPECT_EQ(line.at("y").at(i), line.at("x").at(i) == 999 ? Json() : Json(median)) << chart;
    }
  }
}

constexpr const char* losses_chart = "Test loss over training loss";

void write_evaluations(const Path& run, const std::vector<std::pair<int, double>>& evaluations) {
  std::string text = "step,epoch,test_loss,test_accuracy\n";
  for (const auto& [step, loss] : evaluations) text += fmt::format("{},0,{},0.5\n", step, loss);
  put_bytes(run / "eval.csv", text);
}

TEST_F(Report, OfRunsDrawsTheTestLossOverTheTrainingLoss) {
  std::vector<Row> rows(12, {"decay", 0.125, 0, 0.5});
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].loss = i < 4 ? 3 : i < 8 ? 1 : 2;
  const Path one = folder_ / "one";
  write_run(one, rows);
  EXPECT_THAT(page_of({one}), Not(HasSubstr(losses_chart)));  // of two evaluations
  // The training loss goes down and up, as does the line.
  write_evaluations(one, {{4, 2.5}, {8, 0.5}, {12, 1.5}});
  std::string page = page_of({one});
  expect_well_formed(page);
  const Json line = series_of(data_of(page).at("sections").at(0), losses_chart, "run");
  EXPECT_EQ(line.at("x"), Json({3, 1, 2}));
  EXPECT_EQ(line.at("y"), Json({2.5, 0.5, 1.5}));
  EXPECT_EQ(line.at("kind"), "line");
  EXPECT_THAT(page, AllOf(HasSubstr("\"path\":true"), HasSubstr("Each point is an evaluation"),
                          Not(HasSubstr("Lines that lie on each other")),
                          HasSubstr("<th scope=\"row\">run</th><td>3</td><td>3</td><td>1</td>"
                                    "<td>2</td><td>2.5</td><td>0.5</td><td>1.5</td></tr>")));
  // Of several runs those that were evaluated often enough, before they were lost.
  const Path two = folder_ / "two";
  write_run(two, rows, "ok", "two");
  write_evaluations(two, {{4, 2}, {8, 1}, {12, 0.25}});
  const Path lost = folder_ / "lost";
  rows[9].loss = std::nan("");
  write_run(lost, rows, "ok", "lost");
  write_evaluations(lost, {{4, 2}, {8, 1}, {12, 0.25}});
  page = page_of({one, two, lost});
  expect_well_formed(page);
  EXPECT_THAT(page, HasSubstr("Lines that lie on each other"));
  const Json section = data_of(page).at("sections").at(0);
  EXPECT_EQ(series_of(section, losses_chart, "small-cnn, seed 7").at("facets"), Json::array({0}));
  EXPECT_EQ(series_of(section, losses_chart, "two, seed 7").at("y"), Json({2, 1, 0.25}));
  for (const Json& chart : section.at("charts")) {
    if (chart.at("title") == losses_chart) {
      EXPECT_EQ(chart.at("series").size(), 2u);
    }
  }
}

// 5000 evaluations with one spike upwards and one downwards.
TEST_F(Report, OfManyEvaluationsDrawsTheExtremes) {
  constexpr const char* note = "Of many evaluations the minimum and maximum of several are drawn.";
  constexpr int updates = 5000;
  const Path run = folder_ / "run";
  std::vector<Row> rows(updates, {"decay", 0.125, 2, 0.5});
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].loss = 2 + 0.1 * static_cast<double>(i % 2);
  write_run(run, rows);
  EXPECT_THAT(page_of({run}), Not(HasSubstr(note)));
  std::vector<std::pair<int, double>> evaluations;
  for (int i = 1; i <= updates; ++i) evaluations.emplace_back(i, 1 + 0.001 * (i % 7));
  evaluations[1234].second = 9;
  evaluations[3456].second = 0.25;
  write_evaluations(run, evaluations);
  const std::string page = page_of({run});
  expect_well_formed(page);
  EXPECT_THAT(page, AllOf(HasSubstr(note), HasSubstr("<th scope=\"row\">test</th><td>5000</td>"),
                          HasSubstr("<td>9 <small>at 1235</small></td>"),
                          HasSubstr("<td>0.25 <small>at 3457</small></td>"),
                          HasSubstr("<th scope=\"row\">run</th><td>5000</td>")));
  const Json section = data_of(page).at("sections").at(0);
  const Json test = series_of(section, "Training loss", "test");
  const Json line = series_of(section, losses_chart, "run");
  for (const Json& y : {test.at("y"), line.at("y")}) {
    EXPECT_GE(y.size(), 300u);
    EXPECT_LE(y.size(), 900u);
    EXPECT_EQ(std::ranges::count(y, Json(9)), 1);
    EXPECT_EQ(std::ranges::count(y, Json(0.25)), 1);
  }
  EXPECT_EQ(test.at("x").front(), 1);
  EXPECT_EQ(test.at("x").back(), updates);
  EXPECT_LE(series_of(section, "Accuracy", "test").at("y").size(), 900u);
}

// The facts in the table are those of all points of the median, of which fewer are drawn.
TEST_F(Report, OfManyEvaluationsOfManySeedsTellsOfAll) {
  constexpr int updates = 3000;
  const Path folder = folder_ / "m";
  std::vector<std::pair<int, double>> evaluations;
  for (int i = 1; i <= updates; ++i) evaluations.emplace_back(i, 1);
  Json runs = Json::array();
  for (int seed = 0; seed < 5; ++seed) {
    const Path run = folder / "a" / std::to_string(seed);
    write_run(run, std::vector<Row>(updates, {"decay", 0.125, 2, 0.5}), "ok", "many",
              std::to_string(seed));
    write_evaluations(run, evaluations);
    runs.push_back({{"seed", seed},
                    {"outcome", "ok"},
                    {"first_non_finite_step", nullptr},
                    {"test_accuracy", 0.5}});
  }
  write_one_arm(folder, runs, 0);
  const std::string page = page_of({folder});
  expect_well_formed(page);
  const Json line = series_of(curves_of(page), "Test accuracy", "a, median of 5");
  EXPECT_LE(line.at("x").size(), 1300u);
  EXPECT_EQ(line.at("x").back(), updates);
  for (const char* key : {"y", "least", "largest", "finite"}) {
    EXPECT_EQ(line.at(key).size(), line.at("x").size()) << key;
  }
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">a, median of 5</th><td>3000</td><td>50</td>"));
}

TEST_F(Report, OfManySeedsDrawsTheMediansOfBothLosses) {
  const Path folder = folder_ / "m";
  struct Seed {
    std::size_t updates;
    double train, test;
  };
  // Each has one training loss throughout; its test loss grows by 1 per evaluation. Two seeds are
  // lost after their second evaluation, another after its third.
  const std::vector<Seed> seeds = {{10, 5, 1}, {10, 1, 5}, {14, 4, 2}, {16, 2, 4}, {16, 3, 3}};
  Json runs = Json::array();
  for (std::size_t seed = 0; seed < seeds.size(); ++seed) {
    const auto& [updates, train, test] = seeds[seed];
    std::vector<Row> rows(updates, {"decay", 0.125, train, 0.5});
    const bool is_lost = updates < 16;
    if (is_lost) rows.back().loss = std::nan("");
    const Path run = folder / "a" / std::to_string(seed);
    const std::string outcome = is_lost ? "non_finite" : "ok";
    write_run(run, rows, outcome, "many", std::to_string(seed));
    std::vector<std::pair<int, double>> evaluations;
    for (int i = 1; 4 * i <= static_cast<int>(updates); ++i) {
      evaluations.emplace_back(4 * i, test + i - 1);
    }
    write_evaluations(run, evaluations);
    const Json lost_at = is_lost ? Json(updates - 1) : Json();
    runs.push_back({{"seed", seed},
                    {"outcome", outcome},
                    {"first_non_finite_step", lost_at},
                    {"test_accuracy", 0.5}});
  }
  write_one_arm(folder, runs, 3);
  const std::string page = page_of({folder});
  expect_well_formed(page);
  const Json line = series_of(curves_of(page), losses_chart, "a, median of 5");
  // At the third evaluation two are lost and count as the largest: 2, 3, 4 and 4, 5, 6 are finite.
  // At the fourth three are.
  EXPECT_EQ(line.at("x"), Json({3, 3, 4}));
  EXPECT_EQ(line.at("y"), Json({3, 4, 6}));
  EXPECT_EQ(line.at("facets"), Json({0, -1}));
  EXPECT_THAT(page, HasSubstr("the medians of both losses over the arm"));
}

TEST_F(Report, ShowsClaimsFirstByWordAndColour) {
  write_compare([](Json& json) {
    json["claims"] = Json::array();
    for (const char* verdict : {"PASS", "FAIL", "INCONCLUSIVE"}) {
      json["claims"].push_back({{"claim", "failures"},
                                {"text", "cold <fails>"},
                                {"verdict", verdict},
                                {"evidence", "1 & 2"}});
    }
  });
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  EXPECT_THAT(page, AllOf(HasSubstr("verdict ok\">● PASS</strong> cold &lt;fails&gt;"),
                          HasSubstr("verdict non_finite\">✕ FAIL"),
                          HasSubstr("verdict spiked\">? INCONCLUSIVE"), HasSubstr("1 &amp; 2")));
  EXPECT_LT(page.find("class=\"claims\""), page.find("<table>"));
}

// The points of runs that were evaluated once would all have the same update.
TEST_F(Report, OfRunsThatWereEvaluatedOnceShowsArmByArmWhereTheyEnded) {
  write_compare();
  for (const std::string run : {"cold/0", "warm/0", "warm/1"}) {
    const double accuracy = run == "cold/0" ? 0.25 : 0.75;
    put_bytes(folder_ / "c" / run / "eval.csv",
              fmt::format("step,epoch,test_loss,test_accuracy\n40,1,1.5,{}\n", accuracy));
  }
  put_bytes(folder_ / "c/cold/1/eval.csv", "step,epoch,test_loss,test_accuracy\n");  // not finite
  const std::string page = page_of({folder_ / "c"});
  EXPECT_THAT(page,
              AllOf(HasSubstr("<th scope=\"row\">cold, seed 0</th><td>25.00 %</td><td>40</td>"),
                    HasSubstr("<th scope=\"row\">cold, seed 1</th><td>–</td><td>–</td>"),
                    HasSubstr("<th scope=\"row\">warm, seed 1</th><td>75.00 %</td><td>40</td>")));
  const Json section = curves_of(page);
  const Json& charts = section.at("charts");
  const auto chart = std::ranges::find(charts, "Test accuracy",
                                       [](const Json& c) -> std::string { return c.at("title"); });
  ASSERT_NE(chart, charts.end());
  EXPECT_EQ(chart->at("rows"), Json({"cold", "warm"}));
  EXPECT_EQ(chart->at("series").size(), 3u);
  const Json cold = series_of(section, "Test accuracy", "cold, seed 0");
  EXPECT_EQ(cold.at("x"), Json({25}));
  EXPECT_EQ(cold.at("y"), Json({0}));
  EXPECT_EQ(series_of(section, "Test accuracy", "warm, seed 1").at("y"), Json({1}));
}

TEST_F(Report, SaysThatAnExperimentIsNotDone) {
  write_compare([](Json& json) {
    json["arms"][1]["runs"].erase(1);
    json["arms"][1]["n"] = 1;
  });
  EXPECT_THAT(page_of({folder_ / "c"}), HasSubstr("incomplete: 3 of 4 runs have ended"));
  write_compare([](Json& json) { json["interrupted"] = true; });
  EXPECT_THAT(page_of({folder_ / "c"}), HasSubstr("interrupted: 4 of 4 runs have ended"));
  // A folder may have more seeds than the configuration it was last resumed with.
  put_bytes(folder_ / "c/config.yaml",
            "data: {dataset: synthetic}\ncompare: {seeds: 1, arms: {cold: {}, warm: {}}}\n");
  EXPECT_THAT(page_of({folder_ / "c"}), HasSubstr("interrupted: 4 of 4 runs have ended"));
}

TEST_F(Report, OfAGridIsAMapOfOutcomes) {
  const Path folder = folder_ / "s";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: map\ndata: {dataset: synthetic}\nsweep:\n  seeds: 2\n  axes:\n"
            "    schedule.base_lr: [0.1, 0.2]\n    optimizer.momentum: [0, 0.5]\n"
            "    schedule.warmup.length: [0 steps, 9 steps]\n");
  Json cells = Json::array();
  const std::vector<std::vector<std::string>> outcomes{
      {"ok", "ok"}, {"ok", "stuck"}, {"non_finite", "stuck"}, {"spiked", "spiked"},
      {"ok", "ok"}, {"ok", "ok"},    {"stuck", "stuck"},      {}};
  std::size_t i = 0;
  for (const double lr : {0.1, 0.2}) {
    for (const double momentum : {0.0, 0.5}) {
      for (const char* warmup : {"0 steps", "9 steps"}) {
        const std::string name = fmt::format("cell{}", i);
        Json runs = Json::array();
        int failures = 0;
        for (std::size_t seed = 0; seed < outcomes[i].size(); ++seed) {
          const std::string& outcome = outcomes[i][seed];
          write_run(folder / name / std::to_string(seed), random_rows(8), outcome, "map");
          failures += outcome == "stuck" || outcome == "non_finite" ? 1 : 0;
          runs.push_back({{"seed", seed}, {"outcome", outcome}, {"test_accuracy", 0.5 + lr}});
        }
        cells.push_back({{"name", name},
                         {"n", runs.size()},
                         {"failures", failures},
                         {"failure_interval", nullptr},
                         {"runs", runs},
                         {"point",
                          {{"schedule.base_lr", lr},
                           {"optimizer.momentum", momentum},
                           {"schedule.warmup.length", warmup}}}});
        ++i;
      }
    }
  }
  const Json json = {{"axes",
                      {{{"key", "schedule.base_lr"}, {"values", {0.1, 0.2}}},
                       {{"key", "optimizer.momentum"}, {"values", {0.0, 0.5}}},
                       {{"key", "schedule.warmup.length"}, {"values", {"0 steps", "9 steps"}}}}},
                     {"cells", cells},
                     {"boundaries",
                      {{{"point", {{"schedule.warmup.length", "9 steps"}}},
                        {"n", 7},
                        {"largest_training", 0.1},
                        {"smallest_failing", nullptr},
                        {"violations", 3},
                        {"sensitivity", 0.25}}}}};
  put_bytes(folder / "sweep.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(page, HasSubstr("<summary>Every cell</summary>"));
  // The last axis varies fastest among the cells; each momentum has a map, with the rates across.
  std::vector<std::string> shown;
  std::map<std::string, int> roles;  // without which the map is no table where it is transposed
  for (const Element& e : parse(without_scripts(page)).elements) {
    if (e.attributes.contains("role")) ++roles[e.attributes.at("role")];
    if (e.name == "caption") shown.push_back(e.text);
    if (e.name == "span" && e.attributes.contains("title")) shown.push_back(e.text);
    if (e.name == "td" && e.attributes.contains("class") && e.attributes.at("class") == "empty") {
      shown.push_back(e.text);
    }
  }
  EXPECT_THAT(shown, ElementsAre("optimizer.momentum 0.0", "● 0/2", "● 0/2", "■ 1/2", "● 0/2",
                                 "optimizer.momentum 0.5", "✕ 2/2", "■ 2/2", "▲ 0/2", "–"));
  roles.erase("region");
  const std::map<std::string, int> expected_roles = {{"table", 2},     {"rowgroup", 4},
                                                     {"row", 6},       {"columnheader", 6},
                                                     {"rowheader", 4}, {"cell", 8}};
  EXPECT_EQ(roles, expected_roles);
  EXPECT_THAT(page, AllOf(HasSubstr("class=\"stuck mixed\""),
                          HasSubstr("<th scope=\"col\">schedule.warmup.length</th>"),
                          HasSubstr("<th scope=\"row\">9 steps</th><td>7</td><td>1.00e-01</td>"
                                    "<td>–</td>"
                                    "<td>3</td><td>0.25</td><td>–</td>"),
                          // The accuracy of the runs that did not fail.
                          HasSubstr("■ 1/2</span><br/><small>60.0 %</small>"),
                          HasSubstr("✕ 2/2</span></td>"),
                          // The row of a cell in the table of every cell: 0.1, 0.0, 9 steps.
                          HasSubstr("<th scope=\"row\">0.1</th><td>0.0</td><td>9 steps</td>"
                                    "<td>2</td><td class=\"stuck\">1</td><td>–</td><td>0</td>"
                                    "<td>1</td><td>0</td><td>1</td><td>60.00 %"),
                          HasSubstr("incomplete: 14 of 16 runs")));
  // The corner names the axis that goes down and the one that goes across.
  EXPECT_THAT(page, HasSubstr("<th role=\"columnheader\"><span "
                              "class=\"as-is\">warmup.length\u00a0↓<br/>base_lr\u00a0→</span>"));
  // Each map has two charts along the rate, with a line for each warmup length.
  const Json sections = data_of(page).at("sections");
  const auto line = [&](const std::string& chart, const std::string& warmup) {
    const Json& section = sections.at(chart.ends_with("0.0") ? 0 : 1);
    EXPECT_EQ(section.at("charts").size(), 2);
    return series_of(section, chart, "warmup.length " + warmup);
  };
  const Json accuracy = line("Test accuracy by base rate, optimizer.momentum 0.0", "0 steps");
  EXPECT_EQ(accuracy.at("x"), Json({0.1, 0.2}));
  EXPECT_EQ(accuracy.at("y"), Json({60, 70}));
  EXPECT_EQ(accuracy.at("color"), "order:0.000");
  const Json failed = line("Failed runs by base rate, optimizer.momentum 0.0", "9 steps");
  EXPECT_EQ(failed.at("x"), Json({0.1, 0.2}));
  EXPECT_EQ(failed.at("y"), Json({50, 0}));
  EXPECT_EQ(failed.at("color"), "order:1.000");
  // A cell without runs has no share, and one where all failed has no accuracy.
  EXPECT_EQ(line("Failed runs by base rate, optimizer.momentum 0.5", "9 steps").at("x"),
            Json({0.1}));
  EXPECT_THAT(page,
              AllOf(HasSubstr("n = 0 to 2 runs in a cell."), HasSubstr("n = 2 runs in a cell."),
                    HasSubstr("<th scope=\"row\">9 steps</th><td>1.00e-01</td><td>2</td>"
                              "<td>1</td><td>–</td><td>60.00 %</td><td>60.00 %</td>")));
  const Json facets = sections.at(2).at("facets");
  ASSERT_EQ(facets.size(), 5);
  std::vector<std::string> order;
  for (const Json& value : facets.at(0).at("values")) order.push_back(value.at("label"));
  EXPECT_THAT(order, ElementsAre("● ok", "▲ spiked", "■ stuck", "✕ not finite"));
}

// The page of a grid with these axes. The runs of a cell are outcomes with accuracies.
using CellRuns = std::vector<std::pair<std::string, double>>;
std::string page_of_grid(const Path& folder, const std::vector<std::pair<std::string, Json>>& axes,
                         const std::vector<CellRuns>& runs_of_cells,
                         const Json& boundaries = Json::array()) {
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: grid\ndata: {dataset: synthetic}\nsweep:\n  seeds: 1\n  axes:\n"
            "    schedule.base_lr: [0.1, 0.2]\n");
  std::vector<Json> points = {Json::object()};
  Json json = {{"axes", Json::array()}, {"cells", Json::array()}, {"boundaries", boundaries}};
  for (const auto& [key, values] : axes) {
    json["axes"].push_back({{"key", key}, {"values", values}});
    std::vector<Json> finer;
    for (const Json& point : points) {
      for (const Json& value : values) finer.emplace_back(point)[key] = value;
    }
    points = finer;
  }
  const std::vector<Row> rows = {{"warmup", 0.125, 2, 0.25}, {"decay", 0.25, 1, 0.5}};
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::string name = fmt::format("cell{}", i);
    Json runs = Json::array();
    int failures = 0;
    for (const auto& [outcome, accuracy] : runs_of_cells[i % runs_of_cells.size()]) {
      write_run(folder / name / std::to_string(runs.size()), rows, outcome, "grid");
      failures += outcome == "stuck" || outcome == "non_finite" ? 1 : 0;
      runs.push_back({{"seed", runs.size()}, {"outcome", outcome}, {"test_accuracy", accuracy}});
    }
    json["cells"].push_back({{"name", name},
                             {"n", runs.size()},
                             {"failures", failures},
                             {"failure_interval", {0.25, 0.75}},
                             {"runs", runs},
                             {"point", points[i]}});
  }
  put_bytes(folder / "sweep.json", json.dump());
  return page_of({folder});
}

TEST_F(Report, OfAGridTellsRunsApartByTheKeysOfItsAxes) {
  const std::vector<std::pair<std::string, Json>> axes = {{"schedule.base_lr", {0.1, 0.2}},
                                                          {"optimizer.momentum", {0.5}}};
  page_of_grid(folder_ / "s", axes, {{{"ok", 0.5}}});
  const std::string file = bytes_of(folder_ / "s/sweep.json");
  // The order within a point is not that of the axes, and it has a key that is no axis.
  Json json = Json::parse(file);
  for (Json& cell : json["cells"]) {
    cell["point"] = {{"a", 1}, {"optimizer.momentum", 0.5}, {"schedule.base_lr", 0.1}};
  }
  put_bytes(folder_ / "s/sweep.json", json.dump());
  const ReportData data = read_report_data({folder_ / "s"});
  EXPECT_THAT(data.experiments.at(0).facet_names,
              ElementsAre("outcome", "schedule.base_lr", "optimizer.momentum", "seed"));
  EXPECT_THAT(data.experiments.at(0).runs.at(0).facets, ElementsAre("● ok", "0.1", "0.5", "0"));
  json = Json::parse(file);
  json["axes"].push_back(json["axes"][1]);
  put_bytes(folder_ / "s/sweep.json", json.dump());
  EXPECT_THAT(message_of([&] { page_of({folder_ / "s"}); }),
              HasSubstr("sweep.json: is damaged: 'optimizer.momentum' is the key of two axes"));
  json["axes"][2]["key"] = "data.batch_size";  // the points have no such key
  put_bytes(folder_ / "s/sweep.json", json.dump());
  EXPECT_THAT(message_of([&] { page_of({folder_ / "s"}); }), HasSubstr("sweep.json: is damaged: "));
  json = Json::parse(file);
  json["cells"].erase(0);
  put_bytes(folder_ / "s/sweep.json", json.dump());
  EXPECT_THAT(message_of([&] { page_of({folder_ / "s"}); }),
              HasSubstr("sweep.json: is damaged: lists 1 of the 2 cells of its grid"));
}

TEST_F(Report, OfAGridCountsInEachCell) {
  const std::string page = page_of_grid(
      folder_ / "s",
      {{"schedule.base_lr", {0.123457, 0.2345678}}, {"data.train_limit", {1000000000, 0.7234567}}},
      {{{"spiked", 0.5}, {"ok", 0.5}, {"ok", 0.9}, {"spiked", 0.9}},
       {{"stuck", 0.1}, {"stuck", 0.1}},
       {{"ok", 0.5}, {"ok", 0.5}, {"ok", 0.8}},
       {{"non_finite", 0.1}, {"ok", 0.4}, {"ok", 0.5}}},
      Json::array({{{"point", Json::object()},
                    {"n", 12},
                    {"largest_training", nullptr},
                    {"smallest_failing", 0.5},
                    {"violations", 1},
                    {"sensitivity", nullptr},
                    {"interval", {0.25, nullptr}}}}));
  expect_well_formed(page);
  // A cell is spiked if half of its runs are. A cell where all runs failed is not mixed. The
  // numbers of a logarithmic axis are shortened, but not whole ones.
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("4 cells, 1 seed"), HasSubstr("else spiked if at least half of them are"),
            HasSubstr("class=\"spiked\"><span title=\"0 not finite, 0 stuck, 2 spiked, 2 ok\">"
                      "▲ 0/4</span><br/><small>70.0 %</small>"),
            HasSubstr("class=\"stuck\"><span title=\"0 not finite, 2 stuck, 0 spiked, 0 ok\">"
                      "■ 2/2"),
            HasSubstr("<small>60.0 %</small>"), HasSubstr("<td role=\"cell\" class=\"ok mixed\">"),
            HasSubstr("<table class=\"map\""),
            HasSubstr("<th role=\"columnheader\" scope=\"col\">0.123457</th>"),
            HasSubstr("<th role=\"columnheader\" scope=\"col\">0.2346</th>"),
            HasSubstr("<th role=\"rowheader\" scope=\"row\">1000000000</th>"),
            HasSubstr("<th role=\"rowheader\" scope=\"row\">0.7235</th>"),
            Not(HasSubstr("scope=\"row\">0.7234567</th>")),
            HasSubstr("<span title=\"0 not finite, 0 stuck, 0 spiked, 3 ok\">"),
            HasSubstr("<td>50.00 % (50.00 .. 80.00), n = 3</td>"),
            // The table behind the charts: n, failed, interval, mean, least and largest.
            HasSubstr("<td>1.23e-01</td><td>4</td><td>0</td><td>[0.25, 0.75]</td><td>70.00 %</td>"
                      "<td>50.00 %</td><td>90.00 %</td>"),
            HasSubstr("<th scope=\"row\">all</th><td>12</td><td>–</td><td>5.00e-01</td><td>1</td>"
                      "<td>–</td><td>[2.50e-01, –]</td>")));
  EXPECT_THAT(page_of_grid(folder_ / "wide", {{"schedule.base_lr", {0.1, 0.2}}}, {{{"ok", 0.5}}}),
              HasSubstr("<table class=\"map turns\""));
}

// Lines are by warmup length wherever that axis comes, from the shortest to the longest.
TEST_F(Report, OfAGridDrawsALineForEachLengthInOrder) {
  const std::pair<std::string, Json> rates = {"schedule.base_lr", {0.1, 0.2}};
  const auto lines_of = [&](const std::vector<std::pair<std::string, Json>>& axes) {
    std::vector<std::string> labels;
    const Json sections =
        data_of(page_of_grid(folder_ / "s", axes, {{{"ok", 0.5}}})).at("sections");
    for (const Json& s : sections.at(0).at("charts").at(0).at("series")) {
      labels.push_back(s.at("label"));
    }
    return labels;
  };
  const auto by_warmup = [&](const Json& lengths) {
    return lines_of({rates, {"schedule.warmup.length", lengths}, {"optimizer.momentum", {0.5}}});
  };
  EXPECT_THAT(
      by_warmup({"16 steps", "0 epochs", "4 steps"}),
      ElementsAre("warmup.length 0 epochs", "warmup.length 4 steps", "warmup.length 16 steps"));
  // Lengths that cannot be compared stay in the order of the file.
  EXPECT_THAT(by_warmup({"16 steps", "5%"}),
              ElementsAre("warmup.length 16 steps", "warmup.length 5%"));
  EXPECT_THAT(lines_of({rates, {"optimizer.momentum", {0.5, 0.25}}}),
              ElementsAre("momentum 0.25", "momentum 0.5"));
  // Neighbours that `log` makes have four digits.
  EXPECT_THAT(lines_of({rates, {"optimizer.weight_decay", {0.0001231, 0.0001233}}}),
              ElementsAre("weight_decay 0.0001231", "weight_decay 0.0001233"));
}

TEST_F(Report, OfALargeGridDrawsWhatCanBeRead) {
  const auto numbers = [](int count) {
    Json values = Json::array();
    for (int i = 1; i <= count; ++i) values.push_back(i);
    return values;
  };
  const auto page = [&](int pairs, int lines) {
    return page_of_grid(folder_ / fmt::format("{}-{}", pairs, lines),
                        {{"schedule.base_lr", {0.1, 0.2}},
                         {"data.batch_size", numbers(pairs)},
                         {"data.train_limit", numbers(lines)}},
                        {{{"ok", 0.5}}});
  };
  const std::string chart = "\"Test accuracy by base rate";
  const std::string norms = "Norms of the gradient have no chart, as there are more than 24 runs";
  EXPECT_THAT(page(1, 12), Not(HasSubstr(norms)));
  EXPECT_THAT(page(1, 24), AllOf(HasSubstr(chart), HasSubstr(norms)));
  EXPECT_THAT(page(1, 25), Not(HasSubstr(chart)));
  EXPECT_THAT(page(4, 1), Not(HasSubstr("Charts of 4 of")));
  EXPECT_THAT(page(5, 1), HasSubstr("Charts of 4 of 5 combinations"));
}

TEST_F(Report, OfASearchPairsTheArmsOfASeed) {
  const Path folder = folder_ / "f";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: search\ndata: {dataset: synthetic}\nfind_lr: {seeds: [3, 5]}\n");
  Json arms = Json::array();
  for (const std::string arm : {"cold", "warm"}) {
    Json searches = Json::array();
    for (const int seed : {3, 5}) {
      write_run(folder / arm / std::to_string(seed) / "0.025", random_rows(8), "ok", "search");
      searches.push_back({{"seed", seed},
                          {"largest", arm == "cold" && seed == 5 ? Json() : Json(0.025)},
                          {"smallest_failing", 0.05},
                          {"not_finite_at_start", arm == "cold" && seed == 5},
                          {"violations", 0},
                          {"tried",
                           {{{"lr", 0.025},
                             {"trained", true},
                             {"outcome", "ok"},
                             {"final_train_loss", 0.5},
                             {"test_accuracy", nullptr},
                             {"first_non_finite_step", nullptr}}}}});
    }
    arms.push_back({{"name", arm}, {"overrides", Json::object()}, {"searches", searches}});
  }
  const Json json = {
      {"arms", arms},
      {"critical_rates", {{{"seed", 3}, {"rate", 0.0625}}, {{"seed", 5}, {"rate", nullptr}}}},
      {"ratios",
       {{{"arms", {"cold", "warm"}}, {"log2_mean", 1.0}, {"interval", {0.0, 3.0}}, {"n", 5}},
        {{"arms", {"cold", "hot"}}, {"log2_mean", 2.0}, {"interval", nullptr}, {"n", 4}},
        {{"arms", {"hot", "warm"}}, {"log2_mean", nullptr}, {"interval", nullptr}, {"n", 0}}}}};
  put_bytes(folder / "find_lr.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(page,
              AllOf(HasSubstr("warm over cold</th><td>2.00</td><td>[1.00, 8.00]</td>"),
                    HasSubstr("hot over cold</th><td>4.00</td><td>too few seeds</td><td>4</td>"),
                    HasSubstr("warm over hot</th><td>–</td><td>–</td><td>0</td>"),
                    HasSubstr("4 searches, 4 runs"), HasSubstr("initial weights of cold that"),
                    HasSubstr("<strong>cold</strong>: trains up to a base rate of 2.50e-02, "
                              "the median of the 1 of n = 2 seeds that have one"),
                    HasSubstr("2.50e-02<br/><small>n = 1</small>"), Not(HasSubstr("incomplete")),
                    HasSubstr("<th scope=\"row\">3</th><td>2.50e-02</td><td>2.50e-02</td>"),
                    HasSubstr("<th scope=\"row\">5</th><td>not finite</td><td>2.50e-02</td>"),
                    // The file is from before the sharpness was measured.
                    HasSubstr("<th scope=\"col\">critical rate</th></tr>"),
                    Not(HasSubstr("2 / sharpness")), Not(HasSubstr("rank correlation"))));
  const Json chart = data_of(page).at("sections").at(0).at("charts").at(0);
  EXPECT_EQ(chart.at("rows"), Json({"seed 3", "seed 5"}));
  std::map<std::string, Json> dots;
  for (const Json& s : chart.at("series")) dots[s.at("label")] = Json({s.at("x"), s.at("y")});
  EXPECT_EQ(dots["cold"].dump(), "[[0.025],[0]]");
  EXPECT_EQ(dots["warm"].dump(), "[[0.025,0.025],[0,1]]");
  EXPECT_EQ(dots["critical rate of the initial weights"].dump(), "[[0.0625],[0]]");
  EXPECT_EQ(dots[""].dump(), "[[0.025,0.025],[0,0]]");  // only seed 3 has both arms
}

// Arms of one network share what is measured of its initial weights; another network has its own.
TEST_F(Report, OfASearchHasTheInitialWeightsOfEachNetwork) {
  const Path folder = folder_ / "f";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: search\ndata: {dataset: synthetic}\nfind_lr: {seeds: [3, 5]}\n");
  const auto arm = [&](const char* name, const char* network_arm, const Json& rho, const Json& p,
                       int n, const Json& stable_rho = nullptr) {
    Json searches = Json::array();
    for (const int seed : {3, 5}) {
      write_run(folder / name / std::to_string(seed) / "0.025", random_rows(8), "ok", "search");
      const Json trial = {{"lr", 0.025},
                          {"trained", true},
                          {"outcome", "ok"},
                          {"final_train_loss", 0.5},
                          {"test_accuracy", 0.5}};
      searches.push_back({{"seed", seed}, {"largest", 0.025}, {"tried", Json::array({trial})}});
    }
    return Json{
        {"name", name},
        {"overrides", Json::object()},
        {"critical_rate", {{"arm", network_arm}, {"rank_correlation", rho}, {"p", p}, {"n", n}}},
        {"two_over_sharpness",
         {{"arm", network_arm}, {"rank_correlation", stable_rho}, {"p", 0.25}, {"n", 9}}},
        {"searches", searches}};
  };
  const auto at = [](const char* name, int seed, const Json& rate, const Json& sharpness) {
    return Json{{"arm", name}, {"seed", seed}, {"rate", rate}, {"sharpness", sharpness}};
  };
  const Json json = {{"arms", Json::array({arm("sharp-0", "sharp-0", -0.25, 0.625, 7, 0.75),
                                           arm("sharp-9", "sharp-0", 0.5, 0.03125, 6),
                                           arm("flat-0", "flat-0", nullptr, nullptr, 2)})},
                     {"critical_rates",
                      Json::array({at("sharp-0", 3, 0.0625, 40), at("flat-0", 3, 0.5, 10),
                                   at("sharp-0", 5, nullptr, nullptr), at("flat-0", 5, 0.25, 16)})},
                     {"ratios", Json::array()}};
  put_bytes(folder / "find_lr.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("<th scope=\"col\">critical rate, sharp-0</th>"
                      "<th scope=\"col\">2 / sharpness, sharp-0</th>"
                      "<th scope=\"col\">critical rate, flat-0</th>"
                      "<th scope=\"col\">2 / sharpness, flat-0</th>"),
            HasSubstr("<th scope=\"row\">3</th><td>2.50e-02</td><td>2.50e-02</td>"
                      "<td>2.50e-02</td><td>6.25e-02</td><td>5.00e-02</td><td>5.00e-01</td>"
                      "<td>2.00e-01</td>"),
            HasSubstr("<th scope=\"row\">5</th><td>2.50e-02</td><td>2.50e-02</td>"
                      "<td>2.50e-02</td><td>–</td><td>–</td><td>2.50e-01</td><td>1.25e-01</td>"),
            HasSubstr("<th scope=\"row\">sharp-0</th><td>critical rate</td><td>sharp-0</td>"
                      "<td>-0.25</td><td>0.62</td><td>7</td>"),
            HasSubstr("<th scope=\"row\">sharp-0</th><td>2 / sharpness</td><td>sharp-0</td>"
                      "<td>0.75</td><td>0.25</td><td>9</td>"),
            HasSubstr("<th scope=\"row\">sharp-9</th><td>critical rate</td><td>sharp-0</td>"
                      "<td>0.50</td><td>0.031</td><td>6</td>"),
            Not(HasSubstr("<th scope=\"row\">sharp-9</th><td>2 / sharpness</td>")),
            Not(HasSubstr("<th scope=\"row\">flat-0</th><td>critical rate</td>"))));
  // A chart per network, on one axis.
  const Json charts = data_of(page).at("sections").at(0).at("charts");
  ASSERT_EQ(charts.size(), 2u);
  EXPECT_EQ(charts.at(0).at("title"), "sharp-0, sharp-9");
  EXPECT_EQ(charts.at(1).at("title"), "flat-0");
  std::map<std::string, Json> dots[2];
  for (const std::size_t i : {0, 1}) {
    EXPECT_EQ(charts.at(i).at("rows"), Json({"seed 3", "seed 5"}));
    EXPECT_EQ(charts.at(i).at("xspan").dump(), "[0.025,0.5]");
    // No two kinds of dots have the same shape.
    std::set<int> shapes;
    std::size_t kinds = 0;
    for (const Json& s : charts.at(i).at("series")) {
      dots[i][s.at("label")] = Json({s.at("x"), s.at("y")});
      if (s.at("kind") != "dots") continue;
      shapes.insert(s.at("pattern").get<int>() % 7);
      ++kinds;
    }
    EXPECT_EQ(kinds, i == 0 ? 4u : 3u);
    EXPECT_EQ(shapes.size(), kinds);
  }
  EXPECT_EQ(dots[0]["sharp-0"].dump(), "[[0.025,0.025],[0,1]]");
  EXPECT_EQ(dots[0]["critical rate of the initial weights"].dump(), "[[0.0625],[0]]");
  EXPECT_EQ(dots[1]["critical rate of the initial weights"].dump(), "[[0.5,0.25],[0,1]]");
  EXPECT_EQ(dots[0]["2 / sharpness of the initial weights"].dump(), "[[0.05],[0]]");
  EXPECT_EQ(dots[1]["2 / sharpness of the initial weights"].dump(), "[[0.2,0.125],[0,1]]");
}

TEST_F(Report, OfASearchShowsWhatBecameOfEveryRate) {
  const Path folder = folder_ / "f";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: search\ndata: {dataset: synthetic}\nfind_lr: {seeds: [3, 5]}\n");
  const auto trial = [](double lr, bool trained, const char* outcome) {
    return Json{{"lr", lr},
                {"trained", trained},
                {"outcome", outcome},
                {"final_train_loss", nullptr},
                {"test_accuracy", nullptr}};
  };
  const auto search = [](int seed, const Json& tried) {
    return Json{{"seed", seed}, {"largest", 0.25}, {"smallest_failing", 0.5}, {"tried", tried}};
  };
  const Json cold = {search(3, {trial(0.25, true, "ok"), trial(0.5, false, "non_finite"),
                                trial(0.125, false, "stuck")}),
                     search(5, {trial(0.25, true, "spiked"), trial(0.5, false, "spiked"),
                                trial(0.0625, false, "ok")})};
  const Json warm = Json::array(
      {search(3, Json::array({trial(2, true, "ok"), trial(1, true, "ok")}))});  // not seed 5
  const auto arm = [](const char* name, const Json& searches) {
    return Json{{"name", name}, {"overrides", Json::object()}, {"searches", searches}};
  };
  const Json json = {
      {"arms", {arm("cold", cold), arm("warm", warm), arm("not begun", Json::array())}},
      {"critical_rates", {{{"seed", 3}, {"rate", nullptr}}, {{"seed", 5}, {"rate", nullptr}}}},
      {"ratios", Json::array()}};
  for (const Json& of : json.at("arms")) {
    for (const Json& s : of.at("searches")) {
      for (const Json& t : s.at("tried")) {
        write_run(folder / of.at("name").get<std::string>() / s.at("seed").dump() /
                      rate_name(t.at("lr").get<double>()),
                  random_rows(8), t.at("outcome").get<std::string>(), "search");
      }
    }
  }
  put_bytes(folder / "find_lr.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(page, AllOf(HasSubstr("<h2>Every rate that was tried</h2>"),
                          HasSubstr("One point per run, n = 6.")));
  EXPECT_THAT(page, Not(HasSubstr("\"critical rate of the initial weights\"")));  // no seed has one
  EXPECT_THAT(page, HasSubstr("<strong>not begun</strong>: no search has ended</p>"));
  const Json charts = data_of(page).at("sections").at(1).at("charts");
  ASSERT_EQ(charts.size(), 2);
  EXPECT_EQ(charts.at(0).at("title"), "cold");
  EXPECT_EQ(charts.at(1).at("rows"), Json({"seed 3"}));
  std::map<std::string, std::string> dots;
  for (const Json& s : charts.at(0).at("series")) {
    dots[s.at("label")] = s.at("color").get<std::string>() + s.at("x").dump() + s.at("y").dump();
  }
  const std::map<std::string, std::string> expected = {
      {"trains", "ok[0.25,0.25][0,1]"},
      {"finite, its loss too high", "spiked[0.5,0.0625][1,1]"},
      {"stuck", "stuck[0.125][0]"},
      {"not finite", "non_finite[0.5][0]"}};
  EXPECT_EQ(dots, expected);
  // All arms have the same axis.
  EXPECT_EQ(charts.at(0).at("xspan"), Json({0.0625, 2}));
  EXPECT_EQ(charts.at(1).at("xspan"), Json({0.0625, 2}));
}

TEST_F(Report, OfASearchHasTheMedianOfItsSeeds) {
  const Path folder = folder_ / "f";
  std::filesystem::create_directories(folder);
  put_bytes(folder / "config.yaml",
            "name: search\ndata: {dataset: synthetic}\nfind_lr: {seeds: [1, 2, 3, 4]}\n");
  Json json = {{"arms", {{{"name", "cold"}, {"searches", Json::array()}}}},
               {"critical_rates", Json::array()},
               {"ratios", Json::array()}};
  const double largest[] = {0.125, 4, 0.5};
  for (int seed = 1; seed <= 3; ++seed) {
    const Json tried = {{{"lr", 0.5},
                         {"trained", seed != 2},
                         {"outcome", "ok"},
                         {"final_train_loss", 0.75},
                         {"test_accuracy", 0.5}}};
    json["arms"][0]["searches"].push_back(
        {{"seed", seed}, {"largest", largest[seed - 1]}, {"tried", tried}});
    json["critical_rates"].push_back({{"seed", seed}, {"rate", 0.03125}, {"sharpness", 8}});
    const Path run = folder / "cold" / std::to_string(seed) / "0.5";
    write_run(run, random_rows(4), "ok", "search");
    put_bytes(run / "activations.csv", fmt::format("step,layer,largest,dead\n0,a,{},0\n", seed));
  }
  put_bytes(folder / "find_lr.json", json.dump());
  const std::string page = page_of({folder});
  expect_well_formed(page);
  EXPECT_THAT(
      page,
      AllOf(HasSubstr("incomplete: 3 of 4 searches have ended"),
            HasSubstr("<strong>cold</strong>: trains up to a base rate of 5.00e-01, the median of "
                      "the 3 of n = 3 seeds"),
            HasSubstr("<td>5.00e-01<br/><small>n = 3</small></td>"),
            HasSubstr("<th scope=\"row\">2</th><td>4.00e+00</td><td>3.12e-02</td>"
                      "<td>2.50e-01</td>"),
            HasSubstr("above 2 / sharpness, of the same weights,"),
            HasSubstr("\"2 / sharpness of the initial weights\""),
            HasSubstr("<th scope=\"row\">2</th><td>5.00e-01</td><td>no</td><td class=\"ok\">● ok"
                      "</td><td>0.75</td><td>50.00 %</td>")));
  // Runs of different rates have no median: of their layers only one run's are shown.
  std::string activations;
  const Json data = data_of(page);
  for (const Json& section : data.at("sections")) {
    for (const Json& chart : section.at("charts")) {
      if (!chart.at("title").get<std::string>().starts_with("Largest activation")) continue;
      activations += chart.at("series").at(0).at("y").dump();
    }
  }
  EXPECT_EQ(activations, "[1]");
}

TEST_F(Report, DrawsSharpnessBesideWhatTheRateTakes) {
  write_run(folder_ / "run", random_rows(40));
  put_bytes(folder_ / "run/sharpness.csv",
            "step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,"
            "random_direction\n0,0.1,50,50,0,1,1,1,0\n20,0.1,30,90,0,1,1,0,0\n");
  put_bytes(folder_ / "run/layers.csv",
            "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance,stable_rank\n"
            "0,a.weight,4,2,1,30,0.5,1.75\n0,b.bias,0,3,1,nan,0.25,nan\n"
            "20,a.weight,5,1,1,20,1,1.5\n20,b.bias,2,3,1,10,0.75,nan\n");
  put_bytes(folder_ / "run/activations.csv",
            "step,layer,largest,dead,change\n0,a,7,0.5,0.125\n20,a,6,0.25,nan\n");
  const std::string page = page_of({folder_ / "run"});
  expect_well_formed(page);
  const Json section = data_of(page).at("sections").at(0);
  EXPECT_EQ(series_of(section, "Sharpness", "sharpness").at("y").dump(), "[50,30]");
  EXPECT_EQ(series_of(section, "Sharpness", "step sizes disagree").at("x").dump(), "[20]");
  // The last updates have rate 0.125, and the momentum is 0.75.
  EXPECT_EQ(series_of(section, "Sharpness", "2 / lr").at("y").back(), 16);
  EXPECT_EQ(series_of(section, "Sharpness", "2 (1 + m) / lr").at("y").back(), 28);
  EXPECT_EQ(series_of(section, "Sharpness", "2 (1 − m) / lr").at("y").back(), 4);
  EXPECT_EQ(series_of(section, "Velocity over weights", "a.weight").at("y").dump(), "[0.5,0.2]");
  EXPECT_EQ(series_of(section, "Velocity over weights", "b.bias").at("y").dump(), "[null,1.5]");
  EXPECT_EQ(series_of(section, "Update over weights", "a.weight").at("y").dump(), "[0.25,0.2]");
  EXPECT_EQ(series_of(section, "Angle of an update", "a.weight").at("y").dump(), "[30,20]");
  EXPECT_EQ(series_of(section, "Distance from the start", "b.bias").at("y").dump(), "[0.25,0.75]");
  EXPECT_EQ(series_of(section, "Stable rank", "a.weight").at("y").dump(), "[1.75,1.5]");
  EXPECT_EQ(labels_of(section, "Stable rank"), std::vector<std::string>{"a.weight"});
  EXPECT_EQ(series_of(section, "Largest activation", "a").at("y").dump(), "[7,6]");
  EXPECT_EQ(series_of(section, "Dead units", "a").at("y").dump(), "[50,25]");
  EXPECT_EQ(series_of(section, "Representation change", "a").at("y").dump(), "[0.125,null]");
}

// Thirteen of these have a rank, and all thirteen are drawn.
TEST_F(Report, OfManyLayersCountsThoseThatHaveAValue) {
  write_run(folder_ / "run", random_rows(40));
  std::string rows;
  for (int layer = 0; layer < 13; ++layer) {
    rows += fmt::format("0,{0}.weight,4,2,1,30,0.5,{0}\n0,{0}.bias,4,2,1,30,0.5,nan\n", layer);
  }
  put_bytes(folder_ / "run/layers.csv", std::string(layers_header) + "\n" + rows);
  const std::string page = page_of({folder_ / "run"});
  EXPECT_EQ(labels_of(data_of(page).at("sections").at(0), "Stable rank").size(), 13u);
  EXPECT_THAT(page,
              AllOf(HasSubstr("how many directions share their size.<"),
                    HasSubstr("Norm of the velocity over the norm of the weights. 13 of 26.")));
}

TEST_F(Report, OfLayersShowsTheMedianOfAnArmsSeeds) {
  write_compare();
  const auto put_layers = [&](const char* run, const std::string& rows) {
    put_bytes(folder_ / "c" / run / "layers.csv",
              "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance\n" + rows);
    put_bytes(folder_ / "c" / run / "activations.csv", "step,layer,largest,dead\n0,a,7,0.5\n");
  };
  put_layers("cold/0",
             "0,a.weight,4,2,1,30,0.5\n20,a.weight,5,1,1,20,1\n30,a.weight,1,nan,1,20,1\n");
  put_layers("cold/1", "0,a.weight,4,1,1,10,0.5\n");  // it stops before update 20
  put_layers("warm/0", "0,a.weight,0,1,1,1,1\n20,a.weight,1,1,1,1,1\n");
  put_layers("warm/1", "0,a.weight,0,1,1,1,1\n20,a.weight,1,3,1,1,1\n");
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  const Json section = curves_of(page);
  const auto moves = [&](const char* arm) {
    return series_of(section, std::string("Velocity over weights, ") + arm, "a.weight")
        .at("y")
        .dump();
  };
  EXPECT_EQ(moves("cold"), "[0.375,0.2,null]");
  EXPECT_EQ(moves("warm"), "[null,2]");
  EXPECT_EQ(series_of(section, "Dead units, cold", "a").at("y").dump(), "[50]");
  EXPECT_THAT(page, AllOf(HasSubstr("Median of n = 2 seeds"), Not(HasSubstr("<summary>Layers")),
                          Not(HasSubstr("Layers:"))));

  // Files of older runs have no ranks and no change, and those that have one need not be of all
  // seeds.
  EXPECT_THAT(page, Not(HasSubstr("Stable rank")));
  EXPECT_THAT(page, Not(HasSubstr("Representation change")));
  put_bytes(folder_ / "c/warm/1/activations.csv",
            "step,layer,largest,dead,change\n0,a,7,0.5,0.25\n");
  const std::string newer = page_of({folder_ / "c"});
  EXPECT_THAT(newer, Not(HasSubstr("Representation change, cold")));
  EXPECT_EQ(series_of(curves_of(newer), "Representation change, warm", "a").at("y").dump(),
            "[0.25]");
}

TEST_F(Report, DrawsTheNoiseScaleOfTheNetworkAndOfItsParameters) {
  write_run(folder_ / "run", random_rows(40));
  EXPECT_THAT(page_of({folder_ / "run"}), Not(HasSubstr("Gradient noise scale")));
  put_bytes(folder_ / "run/gradients.csv",
            "step,parameter,signal,noise,noise_scale\n0,a.weight,2,1,16\n0,b.bias,-1,1,nan\n"
            "0,all,1,2,64\n20,a.weight,1,4,128\n20,b.bias,1,3,96\n20,all,2,7,112\n"
            "30,a.weight,nan,nan,nan\n30,b.bias,1,1,32\n30,all,nan,nan,nan\n");
  const std::string page = page_of({folder_ / "run"});
  expect_well_formed(page);
  const Json section = data_of(page).at("sections").at(0);
  const Json whole = series_of(section, "Gradient noise scale", "noise scale");
  EXPECT_EQ(whole.at("x").dump(), "[0,20,30]");
  EXPECT_EQ(whole.at("y").dump(), "[64,112,null]");
  const char* by_parameter = "Gradient noise scale by parameter";
  EXPECT_EQ(series_of(section, by_parameter, "a.weight").at("y").dump(), "[16,128,null]");
  EXPECT_EQ(series_of(section, by_parameter, "b.bias").at("y").dump(), "[null,96,32]");
  for (const Json& chart : section.at("charts")) {
    const bool is_one = chart.at("title") == by_parameter;
    if (!is_one && chart.at("title") != "Gradient noise scale") continue;
    EXPECT_EQ(chart.at("log"), true);
    EXPECT_EQ(chart.at("series").size(), is_one ? 2u : 1u);
  }
  // Its numbers are in a table, too.
  EXPECT_THAT(page, HasSubstr("<th scope=\"row\">noise scale</th><td>3</td><td>64</td>"));
}

// Where a seed has no signal, its noise scale is the largest.
TEST_F(Report, OfTheNoiseScaleShowsTheMedianOfAnArmsSeeds) {
  const std::vector<std::string> seeds = {"0", "1", "2", "3", "4"};
  write_compare([&](Json& json) {
    for (Json& arm : json["arms"]) {
      for (std::size_t seed = 2; seed < seeds.size(); ++seed) {
        arm["runs"].push_back(arm["runs"][0]);
        arm["runs"].back()["seed"] = seed;
        write_run(folder_ / "c" / arm["name"].get<std::string>() / seeds[seed], random_rows(40),
                  "ok", "pair", seeds[seed]);
      }
      arm["n"] = seeds.size();
    }
  });
  // At update 0 two seeds have no signal, at update 20 three.
  const std::vector<std::pair<const char*, const char*>> scales = {
      {"5", "nan"}, {"nan", "nan"}, {"8", "7"}, {"nan", "nan"}, {"6", "3"}};
  for (std::size_t seed = 0; seed < seeds.size(); ++seed) {
    std::string text = "step,parameter,signal,noise,noise_scale\n";
    const auto& [first, second] = scales[seed];
    for (const auto& [step, scale] : {std::pair{0, first}, std::pair{20, second}}) {
      const int signal = std::string(scale) == "nan" ? -1 : 1;
      for (const char* name : {"a.weight", "all"}) {
        text += fmt::format("{},{},{},1,{}\n", step, name, signal, scale);
      }
    }
    put_bytes(folder_ / "c/warm" / seeds[seed] / "gradients.csv", text);
  }
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  const Json section = curves_of(page);
  const Json median = series_of(section, "Gradient noise scale", "warm, median of 5");
  EXPECT_EQ(median.at("kind"), "median");
  EXPECT_EQ(median.at("x").dump(), "[0,20]");
  EXPECT_EQ(median.at("y").dump(), "[8,null]");
  EXPECT_EQ(series_of(section, "Gradient noise scale", "warm, seed 2").at("y").dump(), "[8,7]");
  EXPECT_EQ(
      series_of(section, "Gradient noise scale by parameter, warm", "a.weight").at("y").dump(),
      "[8,null]");
  EXPECT_THAT(page, Not(HasSubstr("by parameter, cold")));
}

// The limits of the sharpness are far above it where the rate is small.
TEST_F(Report, OfSharpnessLeavesTheCurveVisible) {
  write_run(folder_ / "run", random_rows(40));
  const auto chart_of = [&](double last) {
    put_bytes(folder_ / "run/sharpness.csv",
              fmt::format("step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,"
                          "random_direction\n0,0.1,50,50,0,1,1,1,0\n20,0.1,{},1,0,1,1,1,0\n",
                          last));
    const Json data = data_of(page_of({folder_ / "run"}));
    const Json& charts = data.at("sections").at(0).at("charts");
    return Json(*std::ranges::find(charts, "Sharpness",
                                   [](const Json& c) -> std::string { return c.at("title"); }));
  };
  const Json positive = chart_of(30);
  EXPECT_EQ(positive.at("log"), true);
  EXPECT_EQ(positive.at("cap"), 1000);
  const Json linear = chart_of(-30);
  EXPECT_FALSE(linear.contains("log"));
  EXPECT_EQ(linear.at("cap"), 100);
}

// Any number of arms without layers may come before those that have them. What is left out of many
// arms is said: layers of the thirteenth, and the lines of seeds beside the median of their norms.
TEST_F(Report, OfManyArmsShowsTheLayersOfTwelveCollapsedAndTheMediansOfNorms) {
  std::vector<std::string> more;
  for (const char c : std::string("abcdefghijklmno")) more.emplace_back(1, c);
  write_compare([&](Json& json) {
    for (const std::string& name : more) {
      json["arms"].push_back(json["arms"][1]);
      json["arms"].back()["name"] = name;
    }
  });
  for (const std::string& name : more) {
    for (const std::string seed : {"0", "1"}) {
      const Path run = folder_ / "c" / name / seed;
      write_run(run, random_rows(40), "ok", "pair", seed);
      put_bytes(run / "activations.csv", "step,layer,largest,dead\n0,a,7,0.5\n");
      if (name < "c") std::filesystem::remove(run / "activations.csv");
    }
  }
  std::string metrics = bytes_of(folder_ / "c/d/1/metrics.csv");
  for (auto at = metrics.find(",1.5,"); at != std::string::npos; at = metrics.find(",1.5,", at)) {
    metrics.replace(at, 5, ",4.5,");
  }
  put_bytes(folder_ / "c/d/1/metrics.csv", metrics);
  const std::string page = page_of({folder_ / "c"});
  expect_well_formed(page);
  const Json section = curves_of(page);
  std::vector<std::string> titles;
  for (const Json& chart : section.at("charts")) {
    const auto title = chart.at("title").get<std::string>();
    if (title.starts_with("Dead units")) titles.push_back(title.substr(12));
  }
  EXPECT_THAT(titles, ElementsAre("c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"));
  EXPECT_THAT(page, AllOf(HasSubstr("<p class=\"soft\">Layers: 12 of 13 arms, the first.</p>"),
                          HasSubstr("<summary>Layers, c</summary>\n<div class=\"panels\">"),
                          HasSubstr("<summary>Layers, n</summary>\n<div class=\"panels\">"),
                          Not(HasSubstr("Norms of the gradient have no chart"))));
  const Json norms = series_of(section, "Norm of the gradient", "d, median of 2");
  EXPECT_EQ(norms.at("kind"), "median");
  ASSERT_EQ(norms.at("y").size(), 40u);
  for (const Json& y : norms.at("y")) EXPECT_EQ(y, 3);
  EXPECT_EQ(series_of(section, "Norm of the gradient", "e, median of 2").at("y").at(0), 1.5);
}

TEST_F(Report, NamesWhatIsDamaged) {
  const auto message = [&](const char* folder) {
    return message_of([&] { page_of({folder_ / folder}); });
  };
  std::filesystem::create_directories(folder_ / "empty");
  EXPECT_THAT(message("empty"),
              HasSubstr("empty: neither it nor a folder directly below it is a run"));
  EXPECT_THAT(message("nowhere"), HasSubstr("nowhere: is not a folder"));
  write_run(folder_ / "run", random_rows(5));
  const std::string metrics = bytes_of(folder_ / "run/metrics.csv");
  put_bytes(folder_ / "run/metrics.csv", metrics + "5,0,decay\n");
  EXPECT_THAT(message("run"), HasSubstr("metrics.csv:7: is damaged"));
  put_bytes(folder_ / "run/metrics.csv", metrics);
  put_bytes(folder_ / "run/config.yaml", "name: [\n");
  EXPECT_THAT(message("run"), HasSubstr("config.yaml:"));
  write_run(folder_ / "run", random_rows(5));
  for (const char* summary : {"{\"outcome\": ", "{\"outcome\": \"ok\"}", "[]"}) {
    put_bytes(folder_ / "run/summary.json", summary);
    EXPECT_THAT(message("run"), HasSubstr("summary.json: is damaged")) << summary;
  }
  // Of several runs the damaged one is named; of an experiment its run, not the experiment.
  write_run(folder_ / "sound", random_rows(5));
  EXPECT_THAT(message_of([&] {
                page_of({folder_ / "sound", folder_ / "run"});
              }),
              HasSubstr((folder_ / "run/summary.json").string() + ": is damaged"));
  write_compare();
  put_bytes(folder_ / "c/warm/1/summary.json", "{\"outcome\": \"ok\"}");
  EXPECT_THAT(message("c"),
              HasSubstr((folder_ / "c/warm/1/summary.json").string() + ": is damaged"));
  write_run(folder_ / "half", random_rows(5));
  put_bytes(folder_ / "half/summary.json",
            "{\"outcome\": \"ok\", \"first_non_finite_step\": null, \"final_train_loss\": 1, "
            "\"test_accuracy\": 1}");
  EXPECT_THAT(message_of([&] {
                page_of({folder_ / "sound", folder_ / "half"});
              }),
              HasSubstr((folder_ / "half/summary.json").string() + ": is damaged"));
  for (const char* arm : {"..", "a/b", ".hidden", ""}) {
    write_compare([&](Json& json) { json["arms"][0]["name"] = arm; });
    EXPECT_THAT(message("c"), AllOf(HasSubstr("compare.json: is damaged"), HasSubstr(arm)));
  }
  // A seed is a number, and not the way to another folder.
  write_run(folder_ / "elsewhere", random_rows(5));
  for (const Json& seed : {Json("../../elsewhere"), Json("0"), Json(-1), Json(0.5), Json(true),
                           Json(), Json(Json::array({0}))}) {
    write_compare([&](Json& json) { json["arms"][0]["runs"][0]["seed"] = seed; });
    EXPECT_THAT(message("c"), HasSubstr("compare.json: is damaged")) << seed;
  }
  // Counts that cannot be of the two runs that the arm lists.
  for (const auto& [n, failures] :
       {std::pair<Json, Json>(2, 3), {2, -1}, {3, 0}, {2, 1e300}, {1e300, 0}, {2, true}}) {
    write_compare([&](Json& json) {
      json["arms"][0]["n"] = n;
      json["arms"][0]["failures"] = failures;
    });
    EXPECT_THAT(message("c"), HasSubstr("compare.json: is damaged")) << n << failures;
  }
  write_compare([](Json& json) { json["paired"][0]["arms"][0] = "colt"; });
  EXPECT_THAT(message("c"), HasSubstr("compare.json: is damaged: there is no arm 'colt'"));
  write_compare([](Json& json) { json["arms"][0].erase("failure_interval"); });
  EXPECT_THAT(message("c"), HasSubstr("compare.json: is damaged"));
  write_compare();
  std::filesystem::remove(folder_ / "c/warm/1/metrics.csv");
  EXPECT_THAT(message("c"), HasSubstr("warm/1/metrics.csv"));
}

}  // namespace
}  // namespace preheat
