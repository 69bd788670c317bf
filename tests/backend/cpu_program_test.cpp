// A compiled network against double-precision loops: forward directly, backward by finite
// differences.
#include "backend/cpu/program.h"

#include <gtest/gtest.h>

#include <random>

#include "backend/reference_network.h"
#include "config/config.h"

namespace preheat {
namespace {

struct Case {
  const char* name;
  ImageShape image;
  std::int64_t batch;
  const char* layers;
};

// Odd sizes, every kind of layer, every way two layers meet.
const Case cases[] = {
    {"conv_bias_none", {7, 9, 3}, 3, "[conv: {out: 5, activation: none}, linear: {out: 4}]"},
    {"conv_relu_stride", {9, 7, 1}, 2, "[conv: {out: 17, stride: 2}, linear: {out: 4}]"},
    {"two_convs_leaky",
     {6, 5, 2},
     3,
     "[conv: {out: 8, kernel: 5, activation: leaky_relu(0.1)}, conv: {out: 3, kernel: 1, stride: 2,"
     " activation: leaky_relu(0.3)}, linear: {out: 4}]"},
    {"norm_relu", {8, 8, 1}, 4, "[conv: {out: 16, batch_norm: true}, linear: {out: 4}]"},
    {"norm_leaky_odd_channels",
     {5, 7, 3},
     3,
     "[conv: {out: 19, batch_norm: true, activation: leaky_relu(0.2)}, conv: {out: 6, batch_norm: "
     "true, activation: none}, linear: {out: 4}]"},
    {"pools",
     {11, 11, 2},
     3,
     "[conv: {out: 6}, max_pool: {kernel: 2}, conv: {out: 16, batch_norm: true}, max_pool: "
     "{kernel: "
     "3}, linear: {out: 4}]"},
    {"linear_only",
     {5, 5, 2},
     4,
     "[linear: {out: 13, activation: relu}, linear: {out: 9, activation: leaky_relu(0.1)}, linear: "
     "{out: 4}]"},
    {"average", {6, 5, 3}, 3, "[conv: {out: 9}, global_avg_pool, linear: {out: 4}]"},
    {"residual_identity",
     {5, 5, 1},
     3,
     "[conv: {out: 16, batch_norm: true}, residual_stage: {blocks: 2, out: 16}, global_avg_pool, "
     "linear: {out: 4}]"},
    {"residual_projection",
     {9, 9, 2},
     3,
     "[conv: {out: 5, batch_norm: true}, residual_stage: {blocks: 2, out: 7, stride: 2}, "
     "residual_stage: {blocks: 1, out: 18}, global_avg_pool, linear: {out: 4}]"},
    {"residual_on_images", {6, 6, 3}, 3, "[residual_stage: {blocks: 1, out: 3}, linear: {out: 4}]"},
    {"residual_after_pool",
     {8, 8, 3},
     3,
     "[conv: {out: 16}, max_pool, residual_stage: {blocks: 1, out: 16}, linear: {out: 4}]"},
    {"residual_into_average",
     {4, 4, 3},
     4,
     "[conv: {out: 8, activation: none}, residual_stage: {blocks: 1, out: 8}, global_avg_pool, "
     "linear: {out: 4}]"},
};

class CpuProgram : public testing::TestWithParam<Case> {};

TEST_P(CpuProgram, MatchesDoublePrecision) {
  const Case& test = GetParam();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;

  const RunConfig config =
      read_config(parse_document(fmt::format("model: {{layers: {}}}", test.layers), test.name));
  const Network network = build_network(config, test.image, 4);

  std::vector<float> weights(network.arena_size, 0.0f);
  for (const Parameter& p : network.parameters) {
    const float scale = p.fan_in > 0 ? std::sqrt(2.0f / static_cast<float>(p.fan_in)) : 0.5f;
    for (std::int64_t i = 0; i < p.size; ++i) {
      weights[p.offset + i] = (p.init == Init::one ? 1.0f : 0.0f) + scale * normal(random);
    }
  }
  std::vector<cpu::Buffer<float>> statistics;
  for (const Statistic& s : network.statistics) statistics.emplace_back(s.size);
  std::vector<float> gradients(network.arena_size);
  cpu::Program program(network, test.batch, weights.data(), gradients.data(), statistics);

  reference::Values images(test.batch * test.image.size());
  for (std::size_t i = 0; i < images.size(); ++i) {
    images[i] = program.images()[i] = normal(random);
  }
  // The loss is a random linear function of the logits.
  std::vector<float> slopes(test.batch * 4);
  for (float& s : slopes) s = normal(random);
  const auto loss = [&](const reference::Values& arena) {
    const reference::Values z = reference::logits(network, arena, test.batch, images);
    double sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) sum += z[i] * double{slopes[i]};
    return sum;
  };

  program.forward(cpu::Mode::training);
  const reference::Values arena(weights.begin(), weights.end());
  const reference::Values expected = reference::logits(network, arena, test.batch, images);
  double largest = 0;
  for (const double z : expected) largest = std::max(largest, std::fabs(z));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    // Sums of at most a few hundred products in fp32, through at most seven layers.
    EXPECT_NEAR(program.logits()[i], expected[i], 2e-5 * largest) << "logit " << i;
  }

  std::copy(slopes.begin(), slopes.end(), program.d_logits());
  std::fill(gradients.begin(), gradients.end(), std::nanf(""));
  program.backward();
  for (const Parameter& p : network.parameters) {
    SCOPED_TRACE(p.name);
    std::vector<std::int64_t> picks;
    for (std::int64_t i = 0; i < p.size; ++i) picks.push_back(i);
    std::shuffle(picks.begin(), picks.end(), random);
    double scale = 0;
    for (std::int64_t i = 0; i < p.size; ++i) {
      ASSERT_TRUE(std::isfinite(gradients[p.offset + i])) << "not written: element " << i;
      scale = std::max(scale, std::fabs(double{gradients[p.offset + i]}));
    }
    int outliers = 0;
    const auto count = std::min<std::size_t>(picks.size(), 24);
    for (std::size_t i = 0; i < count; ++i) {
      reference::Values moved = arena;
      constexpr double h = 1e-6;
      moved[p.offset + picks[i]] += h;
      const double above = loss(moved);
      moved[p.offset + picks[i]] -= 2 * h;
      const double difference = (above - loss(moved)) / (2 * h);
      const double error = std::fabs(difference - double{gradients[p.offset + picks[i]]});
      outliers += error > 2e-4 * scale + 1e-5 ? 1 : 0;
    }
    // An activation that fp32 and double see on different sides of zero, or a step of the
    // difference across a kink, is rare and shows in single elements.
    EXPECT_LE(outliers, 1) << "of " << count;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, CpuProgram, testing::ValuesIn(cases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(GradientPlan, NoBufferHoldsTwoLiveGradients) {
  const RunConfig config = read_config(parse_document(
      "model: {layers: [conv: {out: 16, batch_norm: true}, residual_stage: {blocks: 9, out: 16}, "
      "residual_stage: {blocks: 9, out: 32, stride: 2}, global_avg_pool, linear: {out: 10}]}",
      "test"));
  const Network network = build_network(config, {32, 32, 3}, 10);
  const cpu::GradientPlan plan = cpu::plan_gradients(network);
  const auto count = static_cast<int>(network.ops.size());
  // Backward runs from the last op to the first. A share of a gradient lives from the op that
  // writes it, a reader of the output, down to the op whose output it is: the last reader writes
  // the first share, the other one the second.
  struct Life {
    int slot;
    int from;
    int to;
  };
  std::vector<Life> lives;
  for (int op = 0; op < count; ++op) {
    std::vector<int> readers;
    for (int i = count - 1; i > op; --i) {
      if (network.ops[i].residual == op || network.ops[i].input == op) readers.push_back(i);
    }
    if (op == count - 1) readers.push_back(op);  // the gradient of the logits comes from outside
    ASSERT_EQ(readers.size(), plan.second[op] < 0 ? 1u : 2u);
    lives.push_back({plan.first[op], readers[0], op});
    if (readers.size() == 2) lives.push_back({plan.second[op], readers[1], op});
    EXPECT_GE(plan.slot_sizes[plan.first[op]], network.ops[op].out.size());
  }
  for (const Life& a : lives) {
    for (const Life& b : lives) {
      const bool overlap = a.from >= b.to && b.from >= a.to;
      if (&a != &b && overlap) {
        EXPECT_NE(a.slot, b.slot) << a.to << " and " << b.to;
      }
    }
  }
  EXPECT_LE(plan.slot_sizes.size(), 6u);  // 39 ops share them
}

}  // namespace
}  // namespace preheat
