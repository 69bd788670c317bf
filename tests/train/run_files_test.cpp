#include "train/run_files.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "config/error.h"
#include "temporary_folder.h"
#include "train/json_file.h"
#include "train/run_folder.h"

namespace preheat {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Read = std::function<std::size_t(const std::filesystem::path&)>;

struct Kind {
  const char* name;
  const char* header;
  const char* row;    // a valid one
  std::size_t words;  // the column that is no number; beyond the last if there is none
  Read rows;          // how many were read
};

const Kind kinds[] = {
    {"metrics", "step,epoch,phase,lr,train_loss,train_accuracy,grad_norm,update_norm,weight_norm",
     "3,0,warmup,0.1,2.25,0.125,1e-07,nan,inf", 2,
     [](const auto& path) { return read_metrics(path).weight_norm.size(); }},
    {"eval", "step,epoch,test_loss,test_accuracy", "3,1,2.25,0.125", 9,
     [](const auto& path) { return read_evaluations(path).accuracy.size(); }},
    {"eval_with_validation",
     "step,epoch,test_loss,test_accuracy,validation_loss,validation_accuracy",
     "3,1,2.25,0.125,2.5,0.25", 9,
     [](const auto& path) { return read_evaluations(path).validation_accuracy.size(); }},
    {"layers", "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance,stable_rank",
     "3,0.conv.weight,1.5,0.25,0.125,nan,1e-300,2.5", 1,
     [](const auto& path) { return read_layers(path).stable_rank.size(); }},
    {"layers_without_rank", "step,parameter,weight_norm,velocity_norm,update_norm,angle,distance",
     "3,0.conv.weight,1.5,0.25,0.125,nan,1e-300", 1,
     [](const auto& path) { return read_layers(path).distance.size(); }},
    {"activations", "step,layer,largest,dead,change", "3,0.conv,nan,0.5,0.25", 1,
     [](const auto& path) { return read_activations(path).change.size(); }},
    {"activations_without_change", "step,layer,largest,dead", "3,0.conv,nan,0.5", 1,
     [](const auto& path) { return read_activations(path).dead.size(); }},
    {"sharpness",
     "step,lr,sharpness,sharpness_wide,residual,iterations,gradients,agrees,random_direction",
     "3,0.1,-25.5,nan,0.01,3,6,nan,nan", 9,
     [](const auto& path) { return read_sharpness(path).random_direction.size(); }},
    {"gradients", "step,parameter,signal,noise,noise_scale", "3,0.conv.weight,-1e-07,0.25,nan", 1,
     [](const auto& path) { return read_gradients(path).noise_scale.size(); }},
};

class RunFiles : public testing::TestWithParam<Kind> {
 protected:
  std::size_t rows(const std::string& text) {
    put_bytes(path_, text);
    return GetParam().rows(path_);
  }
  std::string error(const std::string& text) {
    try {
      rows(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  const TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file.csv";
  const std::string header_ = std::string(GetParam().header) + "\n";
  const std::string row_ = std::string(GetParam().row) + "\n";
};
INSTANTIATE_TEST_SUITE_P(Each, RunFiles, testing::ValuesIn(kinds),
                         [](const auto& test) { return test.param.name; });

TEST_P(RunFiles, RowsAreReadButATornLastOne) {
  EXPECT_EQ(rows(header_), 0u);
  EXPECT_EQ(rows(header_ + row_ + row_), 2u);
  for (std::size_t kept = 0; kept < row_.size(); ++kept) {
    EXPECT_EQ(rows(header_ + row_ + row_.substr(0, kept)), 1u) << kept;
  }
}

TEST_P(RunFiles, ADamagedRowIsNamed) {
  const std::string damaged = path_.string() + ":3: is damaged";
  const std::string row = GetParam().row;
  EXPECT_EQ(error(header_ + row_ + "\n" + row_), damaged);
  EXPECT_EQ(error(header_ + row_ + row + ",1\n"), damaged);
  EXPECT_EQ(error(header_ + row_ + row.substr(0, row.rfind(',')) + "\n"), damaged);
  // Each number in turn becomes a letter, is missing, is followed by a letter, or is larger than
  // any double.
  std::size_t column = 0;
  for (std::size_t begin = 0; begin <= row.size(); ++column) {
    const std::size_t end = std::min(row.find(',', begin), row.size());
    for (const std::string& field : {std::string("x"), std::string(),
                                     row.substr(begin, end - begin) + "x", std::string("1e999")}) {
      const std::string changed = row.substr(0, begin) + field + row.substr(end) + "\n";
      EXPECT_EQ(error(header_ + row_ + changed + row_), column == GetParam().words ? "" : damaged)
          << changed;
    }
    begin = end + 1;
  }
}

TEST_P(RunFiles, AHeaderThatIsLostIsNamed) {
  const std::string lost =
      path_.string() + ": has no header, or that of another version of preheat";
  EXPECT_EQ(error(""), lost);
  EXPECT_EQ(error(row_), lost);
  EXPECT_EQ(error(header_.substr(1) + row_), lost);
  EXPECT_EQ(error(header_.substr(0, header_.size() - 1)), lost);
  std::filesystem::remove(path_);
  EXPECT_THROW(GetParam().rows(path_), Error);
}

TEST(RunFilesOfMetrics, HavePhasesAsStretchesOfRows) {
  const TemporaryFolder folder;
  std::string text = std::string(metrics_header) + "\n";
  const char* phases[] = {"warmup", "warmup", "hold", "decay", "decay", "decay"};
  for (int k = 0; k < 6; ++k) {
    text += fmt::format("{},{},{},0.{},{},0.5,1,2,3\n", k, k / 4, phases[k], k + 1, 2.5 - k);
  }
  put_bytes(folder / "m.csv", text);
  const Metrics m = read_metrics(folder / "m.csv");
  EXPECT_THAT(m.step, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(m.epoch, ElementsAre(0, 0, 0, 0, 1, 1));
  EXPECT_THAT(m.lr, ElementsAre(0.1, 0.2, 0.3, 0.4, 0.5, 0.6));
  EXPECT_THAT(m.loss, ElementsAre(2.5, 1.5, 0.5, -0.5, -1.5, -2.5));
  EXPECT_THAT(m.accuracy, testing::Each(0.5));
  EXPECT_THAT(m.grad_norm, testing::Each(1));
  EXPECT_THAT(m.update_norm, testing::Each(2));
  EXPECT_THAT(m.weight_norm, testing::Each(3));
  ASSERT_EQ(m.phases.size(), 3u);
  EXPECT_EQ(m.phases[0].name, "warmup");
  EXPECT_EQ(m.phases[0].last, 1u);
  EXPECT_EQ(m.phases[1].first, 2u);
  EXPECT_EQ(m.phases[2].first, 3u);
  EXPECT_EQ(m.phases[2].last, 5u);
  // Rows are sorted and drawn by these two columns.
  for (const char* row : {"nan,1,decay,0.1,1,1,1,1,1\n", "6,1,decay,nan,1,1,1,1,1\n"}) {
    put_bytes(folder / "m.csv", text + row);
    EXPECT_THROW(read_metrics(folder / "m.csv"), Error) << row;
  }
}

// The library would overflow the stack where it copies such a file's values.
TEST(JsonOfARun, IsReadUpToADepth) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "summary.json";
  const auto error_at = [&](std::size_t depth, const std::string& open, const std::string& close) {
    std::string text;
    for (std::size_t i = 0; i < depth; ++i) text += open;
    text += "1";
    for (std::size_t i = 0; i < depth; ++i) text += close;
    put_bytes(path, text);
    try {
      read_json(path, [](const nlohmann::ordered_json& json) { return json; });
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  for (const auto& [open, close] : {std::pair("[", "]"), std::pair("{\"a\":", "}")}) {
    EXPECT_EQ(error_at(64, open, close), "");
    for (const std::size_t depth : {65, 200'000}) {
      EXPECT_EQ(error_at(depth, open, close),
                path.string() + ": is damaged: nested more than 64 deep");
    }
  }
  EXPECT_EQ(error_at(200'000, "[", ""), path.string() + ": is damaged: nested more than 64 deep");
}

// Whether the library would convert it or not.
TEST(JsonOfARun, HasNumbersOfTheirType) {
  using Json = nlohmann::json;
  const auto is = [](const char* text, auto expected) {
    using T = decltype(expected);
    EXPECT_EQ(get_as<T>(Json::parse(text)), expected) << text;
    EXPECT_EQ(get_as<T>(nlohmann::ordered_json::parse(text)), expected) << text;
  };
  is("-9223372036854775808", std::int64_t{-9223372036854775807 - 1});
  is("9223372036854775807", std::int64_t{9223372036854775807});
  is("4294967295", std::uint32_t{4294967295});
  is("-2147483648", std::int32_t{-2147483647 - 1});
  is("18446744073709551615", std::uint64_t{18446744073709551615u});
  is("1.5", 1.5);
  is("-3", -3.0);
  is("0.1", 0.1f);
  is("true", true);
  is("\"x\"", std::string("x"));
  const auto throws = [](const char* text, auto unused) {
    EXPECT_THROW(get_as<decltype(unused)>(Json::parse(text)), Json::type_error) << text;
  };
  for (const char* text : {"9223372036854775808", "18446744073709551615", "1e300", "-1e300", "1.0",
                           "1.5", "true", "null", "\"1\"", "[1]", "{}"}) {
    throws(text, std::int64_t{});
  }
  for (const char* text : {"4294967296", "-1", "1.0", "false"}) throws(text, std::uint32_t{});
  for (const char* text : {"2147483648", "-2147483649", "1e3"}) throws(text, std::int32_t{});
  for (const char* text : {"true", "null", "\"1\"", "[1]"}) throws(text, double{});
  for (const char* text : {"1", "null"}) throws(text, bool{});
}

// What a run folder writes is what the readers read.
TEST(RunFilesOfARunFolder, SayWhatWasAdded) {
  const TemporaryFolder folder;
  const double nan = std::nan("");
  {
    RunFolder run(folder / "run", RunConfig{});
    EXPECT_FALSE(std::filesystem::exists(folder / "run/layers.csv"));
    run.add(std::vector<ParameterRecord>{{7, "0.conv.weight", 1.5, 0.1, 1e-9, nan, 3e8, 2.5},
                                         {7, "0.conv.bias", 0, 0, 0, -nan, 0, -nan}});
    run.add(7, std::vector<ActivationRecord>{{"0.conv", INFINITY, 0.25}, {"1", -nan, 1}},
            std::vector<double>{0.125, -nan});
    SharpnessRecord record;
    record.step = 7;
    record.lr = 0.1f;
    record.sharpness.value = -12.5;
    record.sharpness.residual = 0.03;
    record.sharpness.iterations = 2;
    record.gradients = 4;
    run.add(record);
    record.step = 8;
    record.sharpness.wide = -12;
    record.random_direction = 0.5;
    run.add(record);
    record.sharpness.wide = -1;
    run.add(record);
    run.add(std::vector<GradientRecord>{{7, "0.conv.weight", {-0.5, 2}, -nan},
                                        {7, "all", {1e-9, 3e8}, 0.25}});
  }
  const LayerRows layers = read_layers(folder / "run/layers.csv");
  EXPECT_THAT(layers.step, ElementsAre(7, 7));
  EXPECT_THAT(layers.parameter, ElementsAre("0.conv.weight", "0.conv.bias"));
  EXPECT_THAT(layers.weight_norm, ElementsAre(1.5, 0));
  EXPECT_THAT(layers.velocity_norm, ElementsAre(0.1, 0));
  EXPECT_THAT(layers.update_norm, ElementsAre(1e-9, 0));
  EXPECT_THAT(layers.angle, testing::Each(testing::IsNan()));
  EXPECT_THAT(layers.distance, ElementsAre(3e8, 0));
  EXPECT_THAT(layers.stable_rank, ElementsAre(2.5, testing::IsNan()));
  const ActivationRows activations = read_activations(folder / "run/activations.csv");
  EXPECT_THAT(activations.step, ElementsAre(7, 7));
  EXPECT_THAT(activations.layer, ElementsAre("0.conv", "1"));
  EXPECT_THAT(activations.largest, ElementsAre(INFINITY, testing::IsNan()));
  EXPECT_THAT(activations.dead, ElementsAre(0.25, 1));
  EXPECT_THAT(activations.change, ElementsAre(0.125, testing::IsNan()));
  const SharpnessRows s = read_sharpness(folder / "run/sharpness.csv");
  EXPECT_THAT(s.step, ElementsAre(7, 8, 8));
  EXPECT_THAT(s.lr, testing::Each(0.1));
  EXPECT_THAT(s.sharpness, testing::Each(-12.5));
  EXPECT_THAT(s.wide, ElementsAre(testing::IsNan(), -12, -1));
  EXPECT_THAT(s.residual, testing::Each(0.03));
  EXPECT_THAT(s.iterations, testing::Each(2));
  EXPECT_THAT(s.gradients, testing::Each(4));
  EXPECT_THAT(s.agrees, ElementsAre(testing::IsNan(), 1, 0));
  EXPECT_THAT(s.random_direction, ElementsAre(testing::IsNan(), 0.5, 0.5));
  const GradientRows gradients = read_gradients(folder / "run/gradients.csv");
  EXPECT_THAT(gradients.step, ElementsAre(7, 7));
  EXPECT_THAT(gradients.parameter, ElementsAre("0.conv.weight", whole_network));
  EXPECT_THAT(gradients.signal, ElementsAre(-0.5, 1e-9));
  EXPECT_THAT(gradients.noise, ElementsAre(2, 3e8));
  EXPECT_THAT(gradients.noise_scale, ElementsAre(testing::IsNan(), 0.25));
  for (const char* file : {"layers", "activations", "sharpness", "gradients"}) {
    EXPECT_THAT(bytes_of(folder / fmt::format("run/{}.csv", file)),
                testing::Not(HasSubstr("-nan")));
  }
}

}  // namespace
}  // namespace preheat
