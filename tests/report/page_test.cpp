#include "report/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "config/error.h"
#include "report/xml.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using Path = std::filesystem::path;

constexpr const char* metrics_header =
    "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm\n";
constexpr const char* evaluations_header = "step,epoch,test_loss,test_accuracy\n";

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// A page is XML but for its first line.
Xml parse_page(const std::string& page) {
  const std::string doctype = "<!doctype html>\n";
  EXPECT_TRUE(page.starts_with(doctype));
  return parse(std::string_view(page).substr(doctype.size()));
}

void expect_self_contained(const std::string& page) {
  const Xml xml = parse_page(page);
  EXPECT_EQ(xml.error, "");
  EXPECT_THAT(page, AllOf(Not(HasSubstr("url(")), Not(HasSubstr("@import")),
                          HasSubstr("name=\"viewport\""), HasSubstr("prefers-color-scheme:dark"),
                          HasSubstr("@media print"), HasSubstr("<details>")));
  for (const Element& element : xml.elements) {
    for (const char* name : {"script", "link", "img", "iframe", "object", "image", "use"}) {
      EXPECT_NE(element.name, name);
    }
    for (const auto& [name, value] : element.attributes) {
      EXPECT_FALSE(name.starts_with("on")) << name;
      EXPECT_NE(name, "src");
      if (name == "href") {
        EXPECT_THAT(value, AllOf(Not(HasSubstr(":")), Not(HasSubstr(".."))));
      }
      if (name == "d" || name == "x" || name == "y") {
        EXPECT_THAT(value, AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
      }
    }
  }
}

// Curves of one label, told from the swatches of the legend, which are drawn by relative commands.
int lines_titled(const std::string& page, const std::string& label) {
  int found = 0;
  std::string title;
  for (const Element& element : parse_page(page).elements) {
    if (element.name == "g") title.clear();
    if (element.name == "title") title = element.text;
    if (element.name != "path" || title != label) continue;
    const auto style = element.attributes.find("class");
    if (style == element.attributes.end() || !style->second.starts_with("lp-line")) continue;
    found += element.attributes.at("d").find('h') == std::string::npos ? 1 : 0;
  }
  return found;
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

std::string row(int step, const std::string& phase, double lr, const std::string& loss) {
  return std::to_string(step) + ",0," + phase + "," + std::to_string(lr) + "," + loss +
         ",0.25,1.5,0.0625,12\n";
}

class Page : public testing::Test {
 protected:
  static std::string summary(const std::string& name, const std::string& outcome,
                             const std::string& more = "") {
    return "{\"name\": \"" + name + "\", \"seed\": 18446744073709551615, \"outcome\": " + outcome +
           ", \"steps\": 30, \"steps_planned\": 40, \"steps_per_epoch\": 13,"
           "\"first_non_finite_step\": null, \"first_non_finite_tensor\": null,"
           "\"final_train_loss\": 0.0625, \"final_train_accuracy\": 0.75, \"test_loss\": null,"
           "\"test_accuracy\": 0.8125, \"best_test_accuracy\": 0.9, \"best_step\": 26,"
           "\"wall_seconds\": 12.34, \"images_per_second\": 987.6, \"parameters\": 330154,"
           "\"memory_bytes\": {\"a\": 1048576, \"b\": 524288}, \"data\": \"generated\","
           "\"backend\": \"cpu\", \"device\": \"Quick CPU\", \"library\": \"oneLib 9.8\"," +
           more +
           "\"preheat\": \"0.1.0\", \"interrupted\": " + (outcome == "null" ? "true" : "false") +
           "}";
  }

  // A folder of 30 updates: 10 of warmup, 20 of decay.
  void write_run(const Path& folder, const std::string& summary_json) const {
    std::filesystem::create_directories(folder);
    std::string metrics = metrics_header;
    for (int i = 0; i < 30; ++i) {
      metrics += row(i, i < 10 ? "warmup" : "decay", 0.001 * (i < 10 ? i + 1 : 30 - i),
                     std::to_string(2.5 / (i + 1)));
    }
    put_bytes(folder / "metrics.csv", metrics);
    put_bytes(folder / "eval.csv",
              std::string(evaluations_header) + "13,1,1.5,0.5\n26,2,1.25,0.9\n");
    put_bytes(folder / "config.yaml", "name: x\n# <script>alert(1)</script> & more\n");
    put_bytes(folder / "summary.json", summary_json);
  }

  TemporaryFolder folder_;
};

TEST_F(Page, OfARunHasItsNumbersCurvesPhasesAndConfiguration) {
  write_run(folder_.path(), summary("small-cnn", "\"ok\""));
  const std::string page = run_page(folder_.path());
  expect_self_contained(page);
  EXPECT_THAT(
      page, AllOf(HasSubstr("<title>small-cnn, seed 18446744073709551615</title>"),
                  HasSubstr("outcome ok\">ok: the network learned"), HasSubstr("<dd>30 of 40</dd>"),
                  HasSubstr("<dd>0.06250</dd>"), HasSubstr("<dd>75.00 %</dd>"),
                  HasSubstr("<dd>81.25 %</dd>"), HasSubstr("<dd>90.00 % after 26</dd>"),
                  HasSubstr("<dt>test loss</dt><dd>–</dd>"), HasSubstr("<dd>12.3 s</dd>"),
                  HasSubstr("<dd>988 images/s</dd>"), HasSubstr("<dd>1.5 MiB</dd>"),
                  HasSubstr("Quick CPU, oneLib 9.8; preheat 0.1.0; data: generated")));
  EXPECT_THAT(page, AllOf(HasSubstr("<th scope=\"row\">warmup</th><td>0 .. 9</td><td>1.00e-03</td>"
                                    "<td>1.00e-02</td>"),
                          HasSubstr("<th scope=\"row\">decay</th><td>10 .. 29</td>"
                                    "<td>2.00e-02</td><td>1.00e-03</td>")));
  EXPECT_EQ(count(page, "<svg "), 4);
  EXPECT_EQ(lines_titled(page, "training"), 2);  // loss, accuracy
  EXPECT_EQ(lines_titled(page, "gradient"), 1);
  EXPECT_EQ(lines_titled(page, "update"), 1);
  EXPECT_EQ(lines_titled(page, "weights"), 1);
  EXPECT_EQ(count(page, "<circle "), 4);  // two evaluations, in two panels
  EXPECT_THAT(page, HasSubstr("# &lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n"));
  EXPECT_EQ(page, run_page(folder_.path()));
}

TEST_F(Page, SaysHowARunEnded) {
  const auto words = [&](const std::string& outcome) {
    write_run(folder_.path(), summary("n", outcome));
    const std::string page = run_page(folder_.path());
    expect_self_contained(page);
    for (const Element& element : parse_page(page).elements) {
      const auto style = element.attributes.find("class");
      if (style != element.attributes.end() && style->second.starts_with("outcome")) {
        return element.text;
      }
    }
    return std::string("no outcome");
  };
  EXPECT_THAT(words("\"spiked\""), HasSubstr("spiked: the loss went over 3 times"));
  EXPECT_THAT(words("\"stuck\""), HasSubstr("stuck: "));
  EXPECT_THAT(words("null"), HasSubstr("interrupted after 30 of 40 updates"));
  EXPECT_EQ(words("\"<b>\""), "&lt;b&gt;");
}

TEST_F(Page, OfADivergedRunNamesTheStepAndTheTensorAndMarksTheLoss) {
  std::string json = summary("n", "\"non_finite\"");
  const auto set = [&](const std::string& key, const std::string& value) {
    const std::size_t begin = json.find("\"" + key + "\": ") + key.size() + 4;
    json.replace(begin, json.find(',', begin) - begin, value);
  };
  set("first_non_finite_step", "3");
  set("first_non_finite_tensor", "\"layers.0.<i>\"");
  for (const char* key : {"final_train_loss", "final_train_accuracy", "test_accuracy",
                          "best_test_accuracy", "best_step"}) {
    set(key, "null");
  }
  write_run(folder_.path(), json);
  put_bytes(folder_ / "eval.csv", evaluations_header);
  for (const char* lost : {"nan", "-nan", "inf"}) {
    put_bytes(folder_ / "metrics.csv",
              metrics_header + row(0, "decay", 0.1, "2.5") + row(1, "decay", 0.1, "1e30") +
                  row(2, "decay", 0.1, "1e38") + row(3, "decay", 0.1, lost));
    const std::string page = run_page(folder_.path());
    expect_self_contained(page);
    EXPECT_THAT(page, AllOf(HasSubstr("not finite at step 3, first in layers.0.&lt;i&gt;"),
                            HasSubstr("<title>training: not finite at 3</title>"),
                            HasSubstr("Losses over 2.5e+03 are drawn at the upper edge"),
                            HasSubstr("The run was not tested.")));
  }
  // Lost at once: there is nothing to draw a line through.
  put_bytes(folder_ / "metrics.csv", metrics_header + row(0, "decay", 0.1, "nan"));
  expect_self_contained(run_page(folder_.path()));
  put_bytes(folder_ / "metrics.csv", metrics_header);
  expect_self_contained(run_page(folder_.path()));
}

TEST_F(Page, EscapesWhatComesFromFiles) {
  const std::string evil = R"(</title><script>alert(1)</script>\" onload=\"x)";
  write_run(folder_.path(), summary(evil, "\"" + evil + "\""));
  put_bytes(folder_ / "metrics.csv", metrics_header +
                                         row(0, "<script>alert(2)</script>", 0.1, "1") +
                                         row(1, "b\x01\xff", 0.1, "1"));
  const std::string page = run_page(folder_.path());
  expect_self_contained(page);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), HasSubstr("&lt;script&gt;alert(2)")));
}

TEST_F(Page, OfALongRunIsSmallAndQuick) {
  write_run(folder_.path(), summary("long", "\"ok\""));
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::lognormal_distribution<> noise;
  std::string metrics = metrics_header;
  for (int i = 0; i < 10007; ++i) {
    metrics += row(i, "decay", noise(random), std::to_string(noise(random)));
  }
  put_bytes(folder_ / "metrics.csv", metrics);
  const auto start = std::chrono::steady_clock::now();
  const std::string page = run_page(folder_.path());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_LT(page.size(), 2u << 20);
  EXPECT_THAT(page, HasSubstr("Faint: every update; strong: means of 100."));
  EXPECT_EQ(lines_titled(page, "training"), 4);
}

TEST_F(Page, DoesWithoutATornLastRow) {
  write_run(folder_.path(), summary("n", "\"ok\""));
  const std::string whole = run_page(folder_.path());
  put_bytes(folder_ / "metrics.csv", bytes_of(folder_ / "metrics.csv") + "30,2,deca");
  EXPECT_EQ(run_page(folder_.path()), whole);
}

TEST_F(Page, ErrorsNameTheFile) {
  const auto message = [&] { return message_of([&] { run_page(folder_.path()); }); };
  for (const char* name : {"config.yaml", "metrics.csv", "eval.csv", "summary.json"}) {
    write_run(folder_.path(), summary("n", "\"ok\""));
    std::filesystem::remove(folder_ / name);
    EXPECT_THAT(message(), HasSubstr((folder_ / name).string() + ": "));
  }
  const auto damaged = [&](const char* name, const std::string& bytes) {
    write_run(folder_.path(), summary("n", "\"ok\""));
    put_bytes(folder_ / name, bytes);
    std::string text = message();
    EXPECT_THAT(text, HasSubstr((folder_ / name).string()));
    EXPECT_EQ(count(text, "\n"), 0) << text;
    return text;
  };
  EXPECT_THAT(damaged("metrics.csv", ""), HasSubstr("has lost its header"));
  EXPECT_THAT(damaged("eval.csv", "a,b\n1,2\n"), HasSubstr("has lost its header"));
  EXPECT_THAT(damaged("metrics.csv", metrics_header + row(0, "a", 1, "1") + "1,2\n"),
              HasSubstr("metrics.csv:3: is damaged"));
  EXPECT_THAT(damaged("metrics.csv", metrics_header + row(0, "a", 1, "1x")),
              HasSubstr("metrics.csv:2: is damaged"));
  EXPECT_THAT(damaged("metrics.csv", metrics_header + row(0, "a", NAN, "1")),
              HasSubstr("metrics.csv:2: is damaged"));
  EXPECT_THAT(damaged("eval.csv", std::string(evaluations_header) + "1,,2,3\n"),
              HasSubstr("eval.csv:2: is damaged"));
  EXPECT_THAT(damaged("summary.json", "{\"name\": "), HasSubstr("is damaged"));
  EXPECT_THAT(damaged("summary.json", "{}"), HasSubstr("is damaged"));
  EXPECT_THAT(damaged("summary.json", "[]"), HasSubstr("is damaged"));
  EXPECT_THAT(damaged("summary.json", summary("n", "17")), HasSubstr("is damaged"));
}

class ComparePage : public Page {
 protected:
  // Two arms over four seeds: cold fails at 0, 1 and 2, warm at 2.
  void write_experiment(const std::string& first = "cold") const {
    const auto run = [](int seed, const char* outcome, const char* step, const char* accuracy) {
      return std::string("{\"seed\": ") + std::to_string(seed) + ", \"outcome\": \"" + outcome +
             "\", \"first_non_finite_step\": " + step +
             ", \"final_train_loss\": 1.5, \"test_accuracy\": " + accuracy + "}";
    };
    put_bytes(folder_ / "compare.json",
              "{\"arms\": [{\"name\": \"" + first +
                  "\", \"overrides\": {\"schedule.warmup.length\": "
                  "\"0 steps <b>\"}, \"n\": 4, \"failures\": 3, "
                  "\"failure_interval\": [0.1941, 0.9937], \"runs\": [" +
                  run(0, "non_finite", "7", "null") + "," + run(1, "stuck", "null", "0.1") + "," +
                  run(2, "stuck", "null", "0.1") + "," + run(3, "ok", "null", "0.5") +
                  "]}, {\"name\": \"warm\", \"overrides\": {}, \"n\": 4, \"failures\": 1, "
                  "\"failure_interval\": [0.0063, 0.8059], \"runs\": [" +
                  run(0, "ok", "null", "0.8") + "," + run(1, "spiked", "null", "0.6") + "," +
                  run(2, "stuck", "null", "0.1") + "," + run(3, "ok", "null", "0.7") +
                  "]}], \"paired\": [{\"arms\": [\"" + first +
                  "\", \"warm\"], \"mcnemar_p\": 0.5}]}");
    put_bytes(folder_ / "config.yaml", "name: wonder\ncompare: {}\n");
    for (const std::string& arm : {first, std::string("warm")}) {
      for (int seed = 0; seed < 4; ++seed) {
        const Path run_folder = folder_ / arm / std::to_string(seed);
        std::filesystem::create_directories(run_folder);
        const bool lost = arm == first && seed == 0;
        std::string metrics = metrics_header;
        for (int i = 0; i < (lost ? 8 : 30); ++i) {
          metrics += row(i, "decay", 0.01, lost && i == 7 ? "nan" : std::to_string(2.5 / (i + 1)));
        }
        put_bytes(run_folder / "metrics.csv", metrics);
      }
    }
  }
};

TEST_F(ComparePage, CountsFailuresWithNBesideEveryClaim) {
  write_experiment();
  const std::string page = compare_page(folder_.path());
  expect_self_contained(page);
  EXPECT_THAT(page,
              AllOf(HasSubstr("<title>wonder</title>"), HasSubstr("4 of n = 8 runs failed"),
                    ContainsRegex("cold</th><td>4</td><td[^>]*>3</td><td>.0.19, 0.99.</td><td>1"
                                  "</td><td>2</td><td>50.00 % .50.00 .. 50.00., n = 1</td>"),
                    ContainsRegex("warm</th><td>4</td><td[^>]*>1</td><td>.0.01, 0.81.</td><td>0"
                                  "</td><td>1</td><td>70.00 % .60.00 .. 80.00., n = 3</td>"),
                    HasSubstr("schedule.warmup.length: 0 steps &lt;b&gt;"),
                    HasSubstr("n = 4 seeds, 2 failed only under cold, 0 only under warm; exact "
                              "McNemar p = 0.5"),
                    HasSubstr("n = 8 runs: 4 cold, 4 warm."), HasSubstr("not finite at step 7")));
  // Every run is a line in the loss; every arm one in the learning rate.
  EXPECT_EQ(lines_titled(page, "cold"), 4 + 1);
  EXPECT_EQ(lines_titled(page, "warm"), 4 + 1);
  EXPECT_EQ(count(page, "<title>cold: not finite at 7</title>"), 1);
  for (const char* run : {"cold/0", "cold/3", "warm/0", "warm/3"}) {
    EXPECT_EQ(count(page, std::string("href=\"") + run + "/report.html\""), 1) << run;
  }
}

TEST_F(ComparePage, OfAnExperimentInterruptedBeforeItsFirstRunEnded) {
  put_bytes(folder_ / "config.yaml", "name: wonder\n");
  put_bytes(folder_ / "compare.json",
            "{\"arms\": [{\"name\": \"a\", \"overrides\": {}, \"n\": 0, \"failures\": 0, "
            "\"failure_interval\": null, \"runs\": []}, {\"name\": \"b\", \"overrides\": {}, "
            "\"n\": 0, \"failures\": 0, \"failure_interval\": null, \"runs\": []}], "
            "\"paired\": [{\"arms\": [\"a\", \"b\"], \"mcnemar_p\": null}], "
            "\"interrupted\": true}");
  const std::string page = compare_page(folder_.path());
  expect_self_contained(page);
  EXPECT_THAT(page, AllOf(HasSubstr("interrupted, "), HasSubstr("0 of n = 0 runs"),
                          HasSubstr("n = 0 seeds"), HasSubstr("McNemar p = –")));
}

TEST_F(ComparePage, EscapesNamesInTextAndLinks) {
  write_experiment(R"(<script>\"x: y)");
  const Path made = folder_ / R"(<script>\"x: y)";
  std::filesystem::rename(made, folder_ / R"(<script>"x: y)");
  const std::string page = compare_page(folder_.path());
  expect_self_contained(page);
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), HasSubstr("&lt;script&gt;&quot;x: y"),
                          HasSubstr("href=\"%3Cscript%3E%22x%3A%20y/0/report.html\"")));
}

TEST_F(ComparePage, ErrorsNameTheFile) {
  const auto message = [&] { return message_of([&] { compare_page(folder_.path()); }); };
  for (const char* name : {"config.yaml", "compare.json", "warm/2/metrics.csv"}) {
    write_experiment();
    std::filesystem::remove(folder_ / name);
    EXPECT_THAT(message(), HasSubstr((folder_ / name).string()));
  }
  write_experiment();
  put_bytes(folder_ / "config.yaml", "name: [\n");
  EXPECT_THAT(message(), HasSubstr((folder_ / "config.yaml").string()));
  for (const char* arm : {"..", "a/b", ".hidden"}) {
    write_experiment(arm);
    EXPECT_THAT(message(), AllOf(HasSubstr("compare.json: is damaged"), HasSubstr(arm)));
  }
  write_experiment();
  std::string json = bytes_of(folder_ / "compare.json");
  put_bytes(folder_ / "compare.json", json.replace(json.find("[\"cold\""), 7, "[\"colt\""));
  EXPECT_THAT(message(), HasSubstr("compare.json: is damaged: there is no arm 'colt'"));
}

}  // namespace
}  // namespace preheat
