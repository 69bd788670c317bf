// The verdict on a figure, against a second implementation of the rule, and which files are
// accepted as an earlier run.
#include "commands/bench_beside.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "config/error.h"
#include "report/bench_page.h"
#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Json = nlohmann::json;

// The rounds of one figure on a machine that is disturbed now and then.
std::vector<double> random_rounds(std::mt19937_64& random, double around) {
  std::vector<double> rounds(std::uniform_int_distribution<int>(3, 31)(random));
  for (double& round : rounds) {
    round = around * std::uniform_real_distribution<double>(0.98, 1.02)(random);
    if (random() % 40 == 0) round *= 1.3;
  }
  return rounds;
}

// Whether any two rounds of a run differ by less than `apart`, the distance of the two medians.
bool all_closer_than(const std::vector<double>& rounds, double apart) {
  for (const double a : rounds) {
    for (const double b : rounds) {
      if (std::abs(a - b) >= apart) return false;
    }
  }
  return true;
}

double median_of(std::vector<double> rounds) {
  const auto middle = rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2);
  std::nth_element(rounds.begin(), middle, rounds.end());
  return *middle;
}

TEST(Change, IsWhatIsLargerThanBothSpreads) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  std::map<Change, int> seen;
  for (int i = 0; i < 3000; ++i) {
    const double around = std::exp(std::uniform_real_distribution<double>(-3, 9)(random));
    const double factor = std::exp(std::uniform_real_distribution<double>(-0.15, 0.15)(random));
    const std::vector<double> before = random_rounds(random, around);
    const std::vector<double> now = random_rounds(random, factor * around);
    const double apart = std::abs(median_of(now) - median_of(before));
    const Change expected = !all_closer_than(before, apart) || !all_closer_than(now, apart)
                                ? Change::within_spread
                            : median_of(now) < median_of(before) ? Change::faster
                                                                 : Change::slower;
    EXPECT_EQ(change_of(spread_of(before), spread_of(now)), expected) << i;
    ++seen[expected];
  }
  for (const Change change : {Change::faster, Change::slower, Change::within_spread}) {
    EXPECT_GT(seen[change], 100) << to_string(change);
  }
}

TEST(Change, IsNoneAtTheSpreadItself) {
  EXPECT_EQ(change_of({10, 9, 11}, {12, 12, 12}), Change::within_spread);
  EXPECT_EQ(change_of({10, 9, 11}, {12.001, 12, 12.002}), Change::slower);
  EXPECT_EQ(change_of({12, 12, 12}, {10, 9, 11}), Change::within_spread);
  EXPECT_EQ(change_of({12.001, 12, 12.002}, {10, 9, 11}), Change::faster);
  EXPECT_EQ(change_of({5, 5, 5}, {5, 5, 5}), Change::within_spread);
  EXPECT_EQ(change_of({0, 0, 0}, {0, 0, 0}), Change::within_spread);
}

TEST(PeersFile, GivesEveryModeARowThatSaysWhatIsMissing) {
  const TemporaryFolder folder;
  const std::string file = (folder / "peers.json").string();
  put_bytes(file, R"({"torch": "2.0", "device": "a GPU",
      "modes": ["graph-fp32", "eager-fp32", "compile-fp32", "eager-bf16"], "rows": [
      {"network": "a", "mode": "eager-fp32", "ms": 3},
      {"network": "a", "mode": "compile-fp32", "ms": null, "missing": "no torch.compile"},
      {"network": "a", "mode": "graph-fp32", "ms": null, "error": "more than <memory>"},
      {"network": "b", "mode": "eager-fp32", "ms": 1},
      {"network": "b", "mode": "eager-fp16", "ms": 5}]})");
  const Peers peers(file);
  const auto rows_of = [&](const char* network, const char* suffix) {
    return peers.compare(
        "ms", "ms", 2, [&](const Json& row) { return row["network"] == network; }, suffix);
  };
  const auto a = rows_of("a", "-fp32");
  EXPECT_EQ(Json(a), Json::parse(R"([
      {"name": "PyTorch 2.0, eager-fp32", "ms": 3.0, "ratio": 1.5},
      {"name": "PyTorch 2.0, compile-fp32", "ms": null, "ratio": null, "missing": "no torch.compile"},
      {"name": "PyTorch 2.0, graph-fp32", "ms": null, "ratio": null, "error": "more than <memory>"}])"));
  // Not measured for this network; a mode may be in a row only.
  const auto missing = [&](const char* mode) {
    return Json{{"name", fmt::format("PyTorch 2.0, {}", mode)},
                {"ms", nullptr},
                {"ratio", nullptr},
                {"missing", "not in " + file}};
  };
  EXPECT_EQ(Json(rows_of("b", "-fp32")),
            Json::array({{{"name", "PyTorch 2.0, eager-fp32"}, {"ms", 1.0}, {"ratio", 0.5}},
                         missing("graph-fp32"),
                         missing("compile-fp32")}));
  EXPECT_EQ(Json(rows_of("a", "-fp16")), Json::array({missing("eager-fp16")}));
  Json of_no_mode = missing("");
  of_no_mode["name"] = "PyTorch 2.0";
  EXPECT_EQ(Json(rows_of("a", "-tf32")), Json::array({of_no_mode}));
  EXPECT_EQ(rows_of("a", "").size(), 5u);  // every mode of the file

  const std::string page = bench_page({{"bench", "step"},
                                       {"condition", nlohmann::ordered_json::object()},
                                       {"interrupted", false},
                                       {"first_update_seconds", 1.0},
                                       {"passes", nlohmann::ordered_json::array()},
                                       {"works", nlohmann::ordered_json::array()},
                                       {"parts", nlohmann::ordered_json::array()},
                                       {"replicas", nlohmann::ordered_json::array()},
                                       {"peers", a}});
  EXPECT_THAT(page, AllOf(HasSubstr(">3.0000 ms<"), HasSubstr(">missing: no torch.compile<"),
                          HasSubstr(">failed: more than &lt;memory&gt;<")));
  EXPECT_EQ(Json(Peers("").compare("ms", "ms", 2, [](const Json&) { return true; })),
            Json::array());
}

class EarlierRun : public testing::Test {
 protected:
  Earlier read(const Json& json) {
    put_bytes(folder_ / "before.json", json.dump());
    return Earlier((folder_ / "before.json").string(), "update");
  }

  static Json valid() {
    return {{"bench", "update"},
            {"preheat", "0.1.0"},
            {"date", "2026-11-28 03:00 UTC"},
            {"interrupted", false},
            {"device", "A processor, 2 threads"},
            {"library", "oneDNN 2.6.3"},
            {"options", {{"--quick", true}}},
            {"clocks_mhz", {{"processor", 2000}}},
            {"ceilings", {{"bytes_per_second", 4e10}}},
            {"figures",
             {{{"key", "a"}, {"unit", "us"}, {"median", 2}, {"least", 1}, {"largest", 3}},
              {{"key", "b"}, {"unit", "us"}, {"median", 9}, {"least", 8.5}, {"largest", 9.5}}}}};
  }

  TemporaryFolder folder_;
};

TEST_F(EarlierRun, IsLookedUpByKey) {
  const Earlier earlier = read(valid());
  const auto b = earlier.beside("b", {4.5, 4.4, 4.6});
  ASSERT_TRUE(b);
  EXPECT_EQ(b->earlier.median, 9);
  EXPECT_EQ(b->ratio, 2);
  EXPECT_EQ(b->change, Change::faster);
  EXPECT_EQ(earlier.beside("a", {2.5, 2.4, 2.6})->change, Change::within_spread);
  EXPECT_FALSE(earlier.beside("c", {1, 1, 1}));
  EXPECT_THAT(earlier.missing_from({"b", "c"}), ElementsAre("a"));
  EXPECT_THAT(earlier.missing_from({"a", "b"}), IsEmpty());
  EXPECT_FALSE(Earlier("", "update").beside("a", {1, 1, 1}));
}

TEST_F(EarlierRun, SaysWhatDiffers) {
  nlohmann::ordered_json now = valid();
  EXPECT_THAT(read(valid()).notes_before(now), IsEmpty());
  EXPECT_THAT(read(valid()).notes_after(now), IsEmpty());
  now["clocks_mhz"]["processor"] = 2099;  // a boost that comes and goes
  now["ceilings"]["bytes_per_second"] = 3.9e10;
  EXPECT_THAT(read(valid()).notes_after(now), IsEmpty());

  now["device"] = "Another processor, 2 threads";
  now["preheat"] = "0.2.0";
  now["library"] = "oneDNN 2.7.1";
  now["options"] = {{"--seconds", 2}};
  now["clocks_mhz"]["processor"] = 2200;
  now["ceilings"]["bytes_per_second"] = 3e10;
  Json was = valid();
  was["interrupted"] = true;
  EXPECT_THAT(read(was).notes_before(now),
              ElementsAre(HasSubstr("was measured on A processor"),
                          "another version: preheat 0.2.0 (was 0.1.0)",
                          "another version: library oneDNN 2.7.1 (was oneDNN 2.6.3)",
                          "other options: --seconds 2 (was nothing), --quick nothing (was true)",
                          HasSubstr("was interrupted")));
  EXPECT_THAT(read(was).notes_after(now),
              ElementsAre("other clocks: processor 2200 MHz (was 2000)",
                          HasSubstr("bytes_per_second 3e+10 (was 4e+10)")));
  now["clocks_mhz"] = Json::object();
  EXPECT_THAT(read(was).notes_after(now),
              testing::Contains("the clocks of this run are not known"));
}

TEST_F(EarlierRun, IsRefusedWhereItIsNone) {
  const auto refused = [&](const Json& json) -> std::string {
    try {
      read(json);
    } catch (const Error& e) {
      return e.what();
    }
    ADD_FAILURE() << json;
    return "";
  };
  Json other = valid();
  other["bench"] = "step";
  EXPECT_THAT(refused(other),
              HasSubstr("before.json: was written by preheat bench step, not by bench update"));
  for (const char* key : {"bench", "preheat", "date", "interrupted", "device", "library", "options",
                          "clocks_mhz", "figures"}) {
    Json without = valid();
    without.erase(key);
    EXPECT_THAT(refused(without),
                HasSubstr("is not what preheat bench update --json of this version writes"))
        << key;
    Json wrong = valid();
    wrong[key] = {5};
    EXPECT_THAT(refused(wrong),
                HasSubstr("is not what preheat bench update --json of this version writes"))
        << key;
  }
  for (const char* figure : {"5", R"({"key": 5, "median": 2, "least": 1, "largest": 3})",
                             R"({"key": "a", "median": 2, "least": 1})",
                             R"({"key": "a", "median": "2", "least": 1, "largest": 3})",
                             R"({"key": "a", "median": null, "least": 1, "largest": 3})",
                             R"({"key": "a", "median": 4, "least": 1, "largest": 3})",
                             R"({"key": "a", "median": 2, "least": -1, "largest": 3})"}) {
    Json wrong = valid();
    wrong["figures"].push_back(Json::parse(figure));
    EXPECT_THAT(refused(wrong), HasSubstr("is not what")) << figure;
  }
  Json deep = valid();
  deep["options"]["batch"] = "DEEP";
  std::string nested = deep.dump();
  nested.replace(nested.find("\"DEEP\""), 6, std::string(200'000, '[') + std::string(200'000, ']'));
  for (const std::string& text :
       {std::string(), std::string("[]"), valid().dump().substr(0, 100), nested}) {
    put_bytes(folder_ / "bad.json", text);
    EXPECT_THROW(Earlier((folder_ / "bad.json").string(), "update"), Error) << text;
  }
  EXPECT_THROW(Earlier((folder_ / "missing.json").string(), "update"), Error);
}

TEST(BenchPage, RowsInAGraphHaveTheirTimeOverAnEmptyNode) {
  nlohmann::ordered_json row = {{"set", "one"},
                                {"variant", "fused"},
                                {"how", "graph"},
                                {"cold", false},
                                {"parameters", 64},
                                {"tensors", 1},
                                {"launches", 1},
                                {"us", 3.5},
                                {"least_us", 3},
                                {"largest_us", 4},
                                {"us_over_empty", 2.64},
                                {"bytes", 1280},
                                {"gigabytes_per_second", 0.4},
                                {"share_of_copy", 0.1},
                                {"share_of_traffic", 0.1}};
  const auto page_of = [&](const nlohmann::ordered_json& rows) {
    return bench_page({{"bench", "update"},
                       {"condition", nlohmann::ordered_json::object()},
                       {"interrupted", false},
                       {"ceilings", {{"bytes_per_second", 3e12}, {"operations_per_second", 6e13}}},
                       {"peers", nlohmann::ordered_json::array()},
                       {"rows", rows}});
  };
  nlohmann::ordered_json launched = row;
  launched["how"] = "launches";
  launched["us_over_empty"] = nullptr;
  EXPECT_THAT(page_of({row, launched}),
              AllOf(HasSubstr(">over an empty node<"), HasSubstr(">2.64 us<")));
  launched["how"] = "calls";
  EXPECT_THAT(page_of({launched, launched}), Not(HasSubstr("over an empty node")));
}

TEST(BenchPage, ATimeTooShortToBeToldFromZeroHasNoRatio) {
  for (const double ratio : {HUGE_VAL, std::nan("")}) {
    const nlohmann::ordered_json spread = {{"median", 0}, {"least", 0}, {"largest", 0}};
    nlohmann::ordered_json figure = spread;
    figure.update({{"key", "gone"},
                   {"unit", "us"},
                   {"earlier", spread},
                   {"ratio", ratio},
                   {"change", "faster"}});
    const std::string page = bench_page({{"bench", "schedule"},
                                         {"condition", nlohmann::ordered_json::object()},
                                         {"interrupted", false},
                                         {"comparison",
                                          {{"notes", nlohmann::ordered_json::array()},
                                           {"only_earlier", nlohmann::ordered_json::array()}}},
                                         {"figures", nlohmann::ordered_json::array({figure})},
                                         {"schedules", nlohmann::ordered_json::array()}});
    EXPECT_THAT(page, AllOf(HasSubstr(">gone<"), Not(HasSubstr(">inf<")), Not(HasSubstr(">nan<"))));
  }
}

}  // namespace
}  // namespace preheat
