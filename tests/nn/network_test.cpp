#include "nn/network.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "data/random.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr ImageShape fashion{28, 28, 1};
constexpr ImageShape cifar{32, 32, 3};

RunConfig config_of(const std::string& text) {
  return read_config(parse_document(text, "f.yaml"));
}

Network network_of(const std::string& text, ImageShape input = fashion, std::int64_t classes = 10) {
  return build_network(config_of(text), input, classes);
}

std::string error_of(const std::string& text, ImageShape input = fashion,
                     std::int64_t classes = 10) {
  try {
    network_of(text, input, classes);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> parameter_names(const Network& network) {
  std::vector<std::string> names;
  for (const Parameter& p : network.parameters) names.push_back(p.name);
  return names;
}

const Parameter& parameter(const Network& network, const std::string& name) {
  const auto found = std::ranges::find(network.parameters, name, &Parameter::name);
  if (found == network.parameters.end()) throw std::runtime_error("no parameter " + name);
  return *found;
}

std::string resnet(int depth) {
  const int blocks = (depth - 2) / 6;
  return fmt::format(R"(
model:
  layers:
    - conv: {{out: 16, batch_norm: true}}
      name: stem
    - residual_stage: {{blocks: {0}, out: 16}}
    - residual_stage: {{blocks: {0}, out: 32, stride: 2}}
    - residual_stage: {{blocks: {0}, out: 64, stride: 2}}
    - global_avg_pool
    - linear: {{out: 10}}
)",
                     blocks);
}

// He et al. 2015, section 4.2, counted by hand; each 1x1 projection has a batch norm.
std::int64_t resnet_parameters(int depth, std::int64_t channels) {
  const std::int64_t blocks = (depth - 2) / 6;
  const auto conv = [](std::int64_t kernel, std::int64_t in, std::int64_t out) {
    return kernel * kernel * in * out + 2 * out;
  };
  std::int64_t sum = conv(3, channels, 16);
  std::int64_t in = 16;
  for (const std::int64_t out : {16, 32, 64}) {
    sum += conv(3, in, out) + conv(3, out, out) + (blocks - 1) * 2 * conv(3, out, out);
    if (in != out) sum += conv(1, in, out);
    in = out;
  }
  return sum + 64 * 10 + 10;
}

TEST(Network, TheDefaultCnn) {
  const Network n = network_of("");
  // 3x3 convolutions with two batch norm parameters per channel, and two linear layers.
  EXPECT_EQ(n.parameter_count, 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64) +
                                   2 * (32 + 32 + 64 + 64) + (7 * 7 * 64 * 256 + 256) +
                                   (256 * 10 + 10));
  EXPECT_EQ(n.parameter_count, 870'826);
  const ImageShape expected[] = {{28, 28, 32}, {28, 28, 32}, {14, 14, 32}, {14, 14, 64},
                                 {14, 14, 64}, {7, 7, 64},   {1, 1, 256},  {1, 1, 10}};
  ASSERT_EQ(n.ops.size(), 8u);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(n.ops[i].out, expected[i]) << i;
    EXPECT_EQ(n.ops[i].in, i == 0 ? fashion : expected[i - 1]) << i;
    EXPECT_EQ(n.ops[i].input, i - 1);
    EXPECT_EQ(n.ops[i].residual, -1);
  }
  EXPECT_THAT(
      parameter_names(n),
      testing::ElementsAre("0.conv.weight", "0.batch_norm.weight", "0.batch_norm.bias",
                           "1.conv.weight", "1.batch_norm.weight", "1.batch_norm.bias",
                           "3.conv.weight", "3.batch_norm.weight", "3.batch_norm.bias",
                           "4.conv.weight", "4.batch_norm.weight", "4.batch_norm.bias",
                           "6.linear.weight", "6.linear.bias", "7.linear.weight", "7.linear.bias"));
  EXPECT_THAT(parameter(n, "3.conv.weight").shape, testing::ElementsAre(64, 3, 3, 32));
  EXPECT_THAT(parameter(n, "6.linear.weight").shape, testing::ElementsAre(256, 3136));
  EXPECT_EQ(parameter(n, "3.conv.weight").fan_in, 9 * 32);
  EXPECT_EQ(parameter(n, "3.conv.weight").fan_out, 9 * 64);
  EXPECT_EQ(parameter(n, "6.linear.weight").fan_in, 3136);
}

TEST(Network, ResNets) {
  for (const int depth : {20, 32, 56, 110}) {
    SCOPED_TRACE(depth);
    for (const ImageShape& input : {fashion, cifar}) {
      const Network n = network_of(resnet(depth), input);
      EXPECT_EQ(n.parameter_count, resnet_parameters(depth, input.channels));
      // The depth of a ResNet counts the layers with weights, without projections.
      const auto deep = std::ranges::count_if(n.ops, [](const Op& op) {
        return op.weight >= 0 && op.name.find("shortcut") == std::string::npos;
      });
      EXPECT_EQ(deep, depth);
      EXPECT_EQ(n.ops.back().out, (ImageShape{1, 1, 10}));
      EXPECT_EQ(n.ops[n.ops.size() - 3].out, (ImageShape{input.height / 4, input.width / 4, 64}));
    }
  }
  EXPECT_NEAR(static_cast<double>(network_of(resnet(20)).parameter_count), 272'000, 1000);
}

TEST(Network, AResidualBlock) {
  const Network n = network_of(resnet(20));
  const auto op = [&](const std::string& name) -> const Op& {
    return *std::ranges::find(n.ops, name, &Op::name);
  };
  const Op& first = op("2.block0.first");
  const Op& shortcut = op("2.block0.shortcut");
  const Op& second = op("2.block0.second");
  EXPECT_EQ(first.stride, 2);
  EXPECT_EQ(first.out, (ImageShape{14, 14, 32}));
  EXPECT_EQ(first.activation.kind, ActivationKind::relu);
  EXPECT_EQ(shortcut.kernel, 1);
  EXPECT_EQ(shortcut.stride, 2);
  EXPECT_EQ(shortcut.padding, 0);
  EXPECT_EQ(shortcut.input, first.input);
  EXPECT_EQ(shortcut.activation.kind, ActivationKind::none);
  EXPECT_EQ(shortcut.out, first.out);
  EXPECT_EQ(&n.ops[second.input], &first);
  EXPECT_EQ(&n.ops[second.residual], &shortcut);
  EXPECT_EQ(second.activation.kind, ActivationKind::relu);
  const Op& plain = op("2.block1.second");
  EXPECT_EQ(&n.ops[plain.residual], &second);
  EXPECT_EQ(std::ranges::find(n.ops, "1.block0.shortcut", &Op::name), n.ops.end());
  EXPECT_THAT(
      parameter_names(n),
      testing::IsSupersetOf({"stem.conv.weight", "stem.batch_norm.bias",
                             "2.block0.first.batch_norm.weight", "2.block0.shortcut.conv.weight",
                             "3.block2.second.conv.weight", "5.linear.weight"}));
  std::vector<std::string> statistics;
  for (const Statistic& s : n.statistics) statistics.push_back(s.name);
  EXPECT_THAT(statistics, testing::IsSupersetOf({"stem.batch_norm.running_mean",
                                                 "2.block0.shortcut.batch_norm.running_var"}));
}

TEST(Network, AResidualBlockWithAnotherActivation) {
  const Network n = network_of(
      "model: {layers: [residual_stage: {blocks: 1, out: 3, activation: leaky_relu(0.3)}, "
      "linear: {out: 10}]}");
  for (const Op& op : n.ops) {
    if (op.kind != OpKind::conv) continue;
    const bool is_shortcut = op.name == "0.block0.shortcut";
    EXPECT_EQ(op.activation.kind, is_shortcut ? ActivationKind::none : ActivationKind::leaky_relu);
    EXPECT_EQ(op.activation.slope, is_shortcut ? 0 : 0.3);
  }
}

TEST(Network, StridesAndKernelsOnOddImages) {
  const Network n = network_of(
      "model: {layers: [{conv: {out: 3, kernel: 5, stride: 3}}, {max_pool: {kernel: 3}},\n"
      "                 {conv: {out: 2, kernel: 1}}, {linear: {out: 7}}]}",
      {23, 17, 2}, 7);
  EXPECT_EQ(n.ops[0].padding, 2);
  EXPECT_EQ(n.ops[0].out, (ImageShape{8, 6, 3}));  // (size + 2 padding - kernel) / stride + 1
  EXPECT_EQ(n.ops[1].out, (ImageShape{2, 2, 3}));  // the remainder is dropped
  EXPECT_EQ(n.ops[2].out, (ImageShape{2, 2, 2}));
  EXPECT_EQ(n.parameter_count, 5 * 5 * 2 * 3 + 3 + 3 * 2 + 2 + 8 * 7 + 7);
}

TEST(Network, TheArenaIsAlignedAndNothingOverlaps) {
  for (const std::string& text : {std::string(), resnet(20)}) {
    const Network n = network_of(text);
    std::int64_t end = 0;
    std::int64_t count = 0;
    for (const Parameter& p : n.parameters) {
      EXPECT_EQ(p.offset * 4 % 256, 0) << p.name;
      EXPECT_GE(p.offset, end) << p.name;
      EXPECT_LT(p.offset - end, 64) << p.name;
      std::int64_t size = 1;
      for (const std::int64_t extent : p.shape) size *= extent;
      EXPECT_EQ(p.size, size) << p.name;
      end = p.offset + p.size;
      count += p.size;
    }
    EXPECT_GE(n.arena_size, end);
    EXPECT_EQ(n.arena_size * 4 % 256, 0);
    EXPECT_EQ(n.parameter_count, count);
  }
}

TEST(Network, OnlyWeightsAreDecayed) {
  for (const Parameter& p : network_of(resnet(20)).parameters) {
    const bool weight = p.name.ends_with(".conv.weight") || p.name.ends_with(".linear.weight");
    EXPECT_EQ(p.decayed, weight) << p.name;
  }
}

TEST(Network, ErrorsNameTheLayer) {
  EXPECT_THAT(
      error_of("model:\n  layers:\n    - max_pool: {kernel: 15}\n    - max_pool\n"
               "    - linear: {out: 10}\n"),
      AllOf(StartsWith("f.yaml:4:"), HasSubstr("model.layers.1: layer '1': max_pool of kernel 2"),
            HasSubstr("1x1x1")));
  EXPECT_THAT(error_of("model:\n  layers:\n    - {conv: {out: 4, stride: 8}, name: eyes}\n"
                       "    - {max_pool: {kernel: 5}, name: squeeze}\n    - linear: {out: 10}\n"),
              AllOf(StartsWith("f.yaml:4:"), HasSubstr("layer 'squeeze'"), HasSubstr("4x4x4"),
                    HasSubstr("a smaller kernel")));
  EXPECT_THAT(error_of("model:\n  layers:\n    - {linear: {out: 9}, name: head}\n"),
              AllOf(StartsWith("f.yaml:3:"), HasSubstr("layer 'head'"), HasSubstr("1x1x9"),
                    HasSubstr("10 classes"), HasSubstr("end with linear: {out: 10}")));
  EXPECT_THAT(error_of("model: {layers: [{conv: {out: 10}}]}"),
              AllOf(HasSubstr("layer '0'"), HasSubstr("28x28x10")));
  EXPECT_THAT(error_of("", fashion, 100), AllOf(HasSubstr("layer '7'"), HasSubstr("{out: 100}")));
}

TEST(Network, AConvolutionAndAPoolMayEndIt) {
  EXPECT_EQ(error_of("model: {layers: [{conv: {out: 10}}, global_avg_pool]}"), "");
}

// Mean 0 and the variance of the scheme, by z-tests at five standard errors with a fixed seed.
TEST(InitialValues, HaveTheMomentsOfTheirScheme) {
  const std::string layers =
      "  layers: [{conv: {out: 48, kernel: 5}}, {conv: {out: 96, batch_norm: true}}, {max_pool: "
      "{kernel: 4}}, {linear: {out: 10}}]\n";
  for (const char* scheme : {"he_normal", "he_uniform", "lecun_normal", "lecun_uniform",
                             "xavier_normal", "xavier_uniform"}) {
    for (const double gain : {1.0, 2.5}) {
      const RunConfig config = config_of(
          fmt::format("model:\n{}  init: {{scheme: {}, gain: {}}}\n", layers, scheme, gain));
      const Network n = build_network(config, fashion, 10);
      const std::vector<float> values = initial_parameters(n, config.model, 12345);
      ASSERT_EQ(values.size(), static_cast<std::size_t>(n.arena_size));
      for (const auto& [name, fan_in, fan_out] : {std::tuple{"0.conv.weight", 25.0, 25.0 * 48},
                                                  std::tuple{"1.conv.weight", 9.0 * 48, 9.0 * 96},
                                                  std::tuple{"3.linear.weight", 49.0 * 96, 10.0}}) {
        SCOPED_TRACE(fmt::format("{} {} {}", scheme, gain, name));
        const std::string_view which = scheme;
        const double variance = gain * gain *
                                (which.starts_with("he")      ? 2 / fan_in
                                 : which.starts_with("lecun") ? 1 / fan_in
                                                              : 2 / (fan_in + fan_out));
        const Parameter& p = parameter(n, name);
        const auto count = static_cast<double>(p.size);
        double sum = 0;
        double squares = 0;
        double most = 0;
        for (std::int64_t k = 0; k < p.size; ++k) {
          const double x = values[p.offset + k];
          sum += x;
          squares += x * x;
          most = std::max(most, std::fabs(x));
        }
        const bool uniform = which.ends_with("uniform");
        EXPECT_LT(std::fabs(sum / count), 5 * std::sqrt(variance / count));
        // The standard error of a variance: sqrt((kurtosis - 1) / n), 3 - 1 and 9/5 - 1.
        EXPECT_LT(std::fabs(squares / count / variance - 1),
                  5 * std::sqrt((uniform ? 0.8 : 2) / count));
        const double bound = std::sqrt(3 * variance);
        if (uniform) {
          EXPECT_LE(most, bound * (1 + 1e-7));
          EXPECT_GT(most, bound * (1 - 20 / count));
        } else {
          EXPECT_GT(most, 3 * std::sqrt(variance));  // a normal distribution has tails
        }
      }
    }
  }
}

TEST(InitialValues, BiasesAreZeroNormsAreOneAndSoIsNothingElse) {
  const RunConfig config = config_of(
      "model: {layers: [{conv: {out: 5}}, {conv: {out: 3, batch_norm: true}}, {linear: {out: "
      "10}}]}");
  const Network n = build_network(config, fashion, 10);
  const std::vector<float> values = initial_parameters(n, config.model, 1);
  std::vector<bool> inside(values.size());
  for (const Parameter& p : n.parameters) {
    for (std::int64_t k = p.offset; k < p.offset + p.size; ++k) {
      inside[k] = true;
      if (p.name.ends_with("batch_norm.weight")) {
        EXPECT_EQ(values[k], 1.0f);
      } else if (p.name.ends_with("bias")) {
        EXPECT_EQ(values[k], 0.0f);
      } else {
        EXPECT_NE(values[k], 0.0f);
      }
    }
  }
  for (std::size_t k = 0; k < values.size(); ++k) {
    if (!inside[k]) {
      EXPECT_EQ(values[k], 0.0f) << "padding at " << k;
    }
  }
}

std::vector<float> weights(const std::string& text, const std::string& name, std::uint64_t seed) {
  const RunConfig config = config_of(text);
  const Network n = build_network(config, fashion, 10);
  const std::vector<float> values = initial_parameters(n, config.model, seed);
  const Parameter& p = parameter(n, name);
  return {values.begin() + p.offset, values.begin() + p.offset + p.size};
}

TEST(InitialValues, DependOnTheSeedAndNotOnOtherLayersSizes) {
  const std::string narrow = "model: {layers: [{conv: {out: 2}}, {linear: {out: 10}}]}";
  const std::string wide = "model: {layers: [{conv: {out: 31}}, {linear: {out: 10}}]}";
  const auto a = weights(narrow, "0.conv.weight", 3);
  const auto b = weights(wide, "0.conv.weight", 3);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
  EXPECT_EQ(a, weights(narrow, "0.conv.weight", 3));
  EXPECT_NE(a, weights(narrow, "0.conv.weight", 4));
  EXPECT_NE(a, weights(narrow, "0.conv.weight", 3 + (std::uint64_t{1} << 32)));
}

// The correlation of two layers of the same size, and of one layer at two seeds.
TEST(InitialValues, AreIndependentOfEachOther) {
  const std::string text =
      "model: {layers: [{conv: {out: 16}}, {conv: {out: 16}}, {conv: {out: 16}}, {linear: {out: "
      "10}}]}";
  const auto correlation = [](const std::vector<float>& x, const std::vector<float>& y) {
    double xy = 0;
    double xx = 0;
    double yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      xy += static_cast<double>(x[i]) * y[i];
      xx += static_cast<double>(x[i]) * x[i];
      yy += static_cast<double>(y[i]) * y[i];
    }
    return xy / std::sqrt(xx * yy);
  };
  const auto one = weights(text, "1.conv.weight", 0);
  const double limit = 5 / std::sqrt(static_cast<double>(one.size()));
  EXPECT_LT(std::fabs(correlation(one, weights(text, "2.conv.weight", 0))), limit);
  EXPECT_LT(std::fabs(correlation(one, weights(text, "1.conv.weight", 1))), limit);
}

// These values are part of the format: changing them changes every run ever made.
TEST(InitialValues, AreTheRecordedOnes) {
  const auto first = weights("", "0.conv.weight", 0);
  const auto last = weights("", "7.linear.weight", 0);
  EXPECT_THAT(
      std::vector<float>(first.begin(), first.begin() + 5),
      testing::ElementsAre(-0.43343046f, -0.6775016f, 1.0666422f, 0.16254653f, 0.63620865f));
  EXPECT_THAT(std::vector<float>(last.end() - 3, last.end()),
              testing::ElementsAre(-0.052133173f, -0.025245717f, 0.099221565f));
}

}  // namespace
}  // namespace preheat
