// A compiled network against double-precision loops: the forward pass directly, the backward pass
// by finite differences.
#include "backend/cpu/program.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
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

// Odd sizes, every kind of layer, every way two layers can follow each other.
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
    {"residual_leaky",
     {5, 7, 2},
     3,
     "[conv: {out: 6, batch_norm: true}, residual_stage: {blocks: 2, out: 6, activation: "
     "leaky_relu(0.3)}, residual_stage: {blocks: 1, out: 9, stride: 2, activation: none}, "
     "global_avg_pool, linear: {out: 4}]"},
    {"tanh_with_bias",
     {6, 5, 2},
     3,
     "[conv: {out: 7, activation: tanh}, max_pool, linear: {out: 5, activation: tanh}, linear: "
     "{out: 4, activation: tanh}]"},
    {"tanh_with_norm_and_residual",
     {5, 7, 2},
     3,
     "[conv: {out: 6, batch_norm: true, activation: tanh}, residual_stage: {blocks: 2, out: 6, "
     "activation: tanh}, global_avg_pool, linear: {out: 4}]"},
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

// Whether some activation input is so close to its kink, or some pooling maximum so close to the
// runner-up, that single precision or a finite difference may land on the other side.
bool near_a_kink(const Network& network, const reference::Values& arena, std::int64_t batch,
                 const reference::Values& images) {
  constexpr double near = 2e-5;
  const auto output = [&](int op, bool activated) {
    Network upper = network;
    upper.ops.resize(op + 1);
    if (!activated) upper.ops[op].activation = {};
    return reference::logits(upper, arena, batch, images);
  };
  for (int i = 0; i < static_cast<int>(network.ops.size()); ++i) {
    const Op& op = network.ops[i];
    if (op.activation.kind != ActivationKind::none) {
      for (const double z : output(i, false)) {
        if (std::fabs(z) < near) return true;
      }
    }
    if (op.kind != OpKind::max_pool) continue;
    const reference::Values x = output(op.input, true);
    const reference::Values y = output(i, true);
    for (std::size_t o = 0; o < y.size(); ++o) {
      if (y[o] == 0) continue;  // the output of a ReLU, which passes no gradient there
      const auto c = static_cast<std::int64_t>(o) % op.out.channels;
      const auto column = static_cast<std::int64_t>(o) / op.out.channels % op.out.width;
      const auto row = static_cast<std::int64_t>(o) / (op.out.channels * op.out.width);
      const std::int64_t n = row / op.out.height;
      int largest = 0;
      for (std::int64_t k = 0; k < op.kernel * op.kernel; ++k) {
        const std::int64_t iy = row % op.out.height * op.kernel + k / op.kernel;
        const std::int64_t ix = column * op.kernel + k % op.kernel;
        const double v = x[((n * op.in.height + iy) * op.in.width + ix) * op.in.channels + c];
        largest += v > y[o] - near ? 1 : 0;
      }
      if (largest > 1) return true;
    }
  }
  return false;
}

// A compiled case with random weights, statistics and images, and a loss that is a random linear
// function of the logits.
class RandomProgram {
 public:
  RandomProgram(const Case& test, unsigned seed)
      : random(seed),
        network(build_network(read_config(parse_document(
                                  fmt::format("model: {{layers: {}}}", test.layers), test.name)),
                              test.image, 4)),
        batch(test.batch),
        weights(network.arena_size, 0.0f),
        gradients(network.arena_size, std::nanf("")),
        slopes(batch * 4),
        images(batch * test.image.size()) {
    for (const Parameter& p : network.parameters) {
      const float scale = p.fan_in > 0 ? std::sqrt(2.0f / static_cast<float>(p.fan_in)) : 0.5f;
      for (std::int64_t i = 0; i < p.size; ++i) {
        weights[p.offset + i] = (p.init == Init::one ? 1.0f : 0.0f) + scale * normal(random);
      }
    }
    for (const Statistic& s : network.statistics) {
      statistics.emplace_back(s.size);
      for (std::int64_t i = 0; i < s.size; ++i) {
        const float draw = normal(random);
        statistics.back()[i] = s.init == Init::one ? 0.5f + draw * draw : draw;
      }
    }
    for (float& s : slopes) s = normal(random);
    program = std::make_unique<cpu::Program>(network, batch, weights.data(), gradients.data(),
                                             statistics);
    draw_images();
  }

  void draw_images() {
    for (std::size_t i = 0; i < images.size(); ++i) {
      images[i] = program->images()[i] = normal(random);
    }
  }

  // Redraws the images until the reference network is smooth at them: then every gradient must
  // match.
  void draw_images_off_the_kinks(const Network& net, const reference::Values& net_arena) {
    for (int draws = 0; near_a_kink(net, net_arena, batch, images); ++draws) {
      ASSERT_LT(draws, 100);
      draw_images();
    }
  }

  reference::Values arena() const { return {weights.begin(), weights.end()}; }

  void backward() {
    std::copy(slopes.begin(), slopes.end(), program->d_logits());
    program->backward();
  }

  // A random subset of the parameters, never empty.
  std::vector<bool> some_parameters() {
    std::vector<bool> some(network.parameters.size());
    for (std::size_t i = 0; i < some.size(); ++i) some[i] = random() % 2 == 0;
    some[random() % some.size()] = true;
    return some;
  }

  std::vector<std::vector<float>> statistics_now() const {
    std::vector<std::vector<float>> copies;
    for (const auto& s : statistics) copies.emplace_back(s.data(), s.data() + s.size());
    return copies;
  }

  void expect_logits(const reference::Values& expected) const {
    double largest = 0;
    for (const double z : expected) largest = std::max(largest, std::fabs(z));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      // Sums of at most a few hundred products in fp32, through at most seven layers.
      EXPECT_NEAR(program->logits()[i], expected[i], 2e-5 * largest) << "logit " << i;
    }
  }

  // Compares the gradient with finite differences of the loss at random elements of a parameter.
  // `logits_of` is the network as a function of the arena.
  template <class LogitsOf>
  void expect_gradient(const Parameter& p, std::size_t max_picks, const LogitsOf& logits_of) {
    SCOPED_TRACE(p.name);
    const auto loss = [&](const reference::Values& moved) {
      const reference::Values z = logits_of(moved);
      double sum = 0;
      for (std::size_t i = 0; i < z.size(); ++i) sum += z[i] * double{slopes[i]};
      return sum;
    };
    std::vector<std::int64_t> picks(p.size);
    std::iota(picks.begin(), picks.end(), 0);
    std::shuffle(picks.begin(), picks.end(), random);
    picks.resize(std::min(picks.size(), max_picks));
    const float* gradient = gradients.data() + p.offset;
    double scale = 0;
    for (std::int64_t i = 0; i < p.size; ++i) {
      ASSERT_TRUE(std::isfinite(gradient[i])) << "not written: element " << i;
      scale = std::max(scale, std::fabs(double{gradient[i]}));
    }
    for (const std::int64_t i : picks) {
      reference::Values moved = arena();
      constexpr double h = 1e-6;
      moved[p.offset + i] += h;
      const double above = loss(moved);
      moved[p.offset + i] -= 2 * h;
      const double difference = (above - loss(moved)) / (2 * h);
      EXPECT_NEAR(gradient[i], difference, 2e-4 * scale + 1e-5) << "element " << i;
    }
  }

  std::mt19937 random;
  std::normal_distribution<float> normal;
  const Network network;
  const std::int64_t batch;
  std::vector<float> weights;
  std::vector<float> gradients;
  std::vector<cpu::Buffer<float>> statistics;
  std::vector<float> slopes;
  reference::Values images;
  std::unique_ptr<cpu::Program> program;
};

class CpuProgram : public testing::TestWithParam<Case> {};

TEST_P(CpuProgram, MatchesDoublePrecision) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomProgram r(GetParam(), seed);
  r.draw_images_off_the_kinks(r.network, r.arena());
  const auto logits = [&](const reference::Values& arena) {
    return reference::logits(r.network, arena, r.batch, r.images);
  };
  r.program->forward(cpu::Mode::training);
  r.expect_logits(logits(r.arena()));
  r.backward();
  for (const Parameter& p : r.network.parameters) r.expect_gradient(p, 24, logits);
}

// A run that is lost is seen by its loss, so no layer may turn a NaN into a number.
TEST_P(CpuProgram, AnImageOfNaNsHasLogitsOfNaN) {
  RandomProgram r(GetParam(), std::random_device{}());
  std::fill_n(r.program->images(), r.network.input.size(), std::nanf(""));
  r.program->forward(cpu::Mode::training);
  for (int k = 0; k < 4; ++k) EXPECT_TRUE(std::isnan(r.program->logits()[k])) << k;
}

TEST_P(CpuProgram, GradientsOfSomeAreThoseOfAllAndTheOthersStand) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomProgram r(GetParam(), seed);
  const auto count = static_cast<int>(r.network.parameters.size());
  r.program->forward(cpu::Mode::training);
  r.backward();
  const std::vector<float> all = r.gradients;

  std::vector<std::vector<bool>> choices;
  for (int i = 0; i < count; ++i) {  // each alone
    choices.emplace_back(count, false);
    choices.back()[i] = true;
  }
  for (int i = 0; i < 6; ++i) choices.push_back(r.some_parameters());
  choices.emplace_back(count, true);  // and all of them again

  for (const std::vector<bool>& trained : choices) {
    std::string names;
    for (int i = 0; i < count; ++i) names += trained[i] ? r.network.parameters[i].name + " " : "";
    SCOPED_TRACE(names);
    constexpr float poison = 12345.678f;
    std::fill(r.gradients.begin(), r.gradients.end(), poison);
    r.program->train_only(TrainedOps(r.network, trained, false));
    r.program->forward(cpu::Mode::training);
    r.backward();

    // One primitive computes the gradients of a weight and its bias, and the gradient of a batch
    // norm's input needs those of its two parameters: these may be written although not trained.
    std::vector<bool> may_be_written = trained;
    bool below = false;  // is an op in training below this one?
    for (const Op& op : r.network.ops) {
      const auto either = [&](int a, int b) {
        return (a >= 0 && trained[a]) || (b >= 0 && trained[b]);
      };
      const bool product = either(op.weight, op.bias);
      const bool norm = either(op.norm_weight, op.norm_bias);
      for (const int p : {op.weight, op.bias}) {
        if (p >= 0 && product) may_be_written[p] = true;
      }
      for (const int p : {op.norm_weight, op.norm_bias}) {
        if (p >= 0 && (norm || product || below)) may_be_written[p] = true;
      }
      below |= product || norm;
    }
    for (int i = 0; i < count; ++i) {
      const Parameter& p = r.network.parameters[i];
      const auto begin = r.gradients.begin() + p.offset;
      if (trained[i]) {
        EXPECT_TRUE(std::equal(begin, begin + p.size, all.begin() + p.offset)) << p.name;
      } else if (!may_be_written[i]) {
        EXPECT_EQ(std::count(begin, begin + p.size, poison), p.size) << p.name;
      }
    }
    for (const Parameter& p : r.network.parameters) {  // nothing writes the arena's padding
      const std::int64_t end = (p.offset + p.size + 63) / 64 * 64;
      for (std::int64_t i = p.offset + p.size; i < end; ++i) EXPECT_EQ(r.gradients[i], poison);
    }
  }
}

std::vector<Case> cases_with_batch_norm() {
  std::vector<Case> some;
  for (const Case& c : cases) {
    const std::string layers = c.layers;
    const bool normalized = layers.find("batch_norm") != std::string::npos ||
                            layers.find("residual") != std::string::npos;
    if (normalized) some.push_back(c);
  }
  return some;
}

class CpuProgramWithBatchNorm : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Networks, CpuProgramWithBatchNorm,
                         testing::ValuesIn(cases_with_batch_norm()),
                         [](const auto& test) { return std::string(test.param.name); });

// A batch norm with fixed moments is affine and folds into the convolution before it: the weights
// are scaled by weight / std and the bias becomes (bias - mean weight / std). Ops that are not
// fixed are unchanged. The folded network reads an arena converted by fold().
struct Folded {
  Folded(const RandomProgram& from, std::vector<bool> fixed_ops)
      : before(from.network), network(from.network), fixed(std::move(fixed_ops)) {
    for (const auto& s : from.statistics) {
      statistics.emplace_back(s.data(), s.data() + s.size());
    }
    for (std::size_t i = 0; i < network.ops.size(); ++i) {
      Op& op = network.ops[i];
      if (!fixed[i]) continue;
      op.bias = op.norm_bias;
      op.norm_weight = op.norm_bias = -1;
    }
  }

  reference::Values fold(reference::Values arena) const {
    for (std::size_t i = 0; i < network.ops.size(); ++i) {
      if (!fixed[i]) continue;
      const Op& op = before.ops[i];
      double* w = arena.data() + network.parameters[op.weight].offset;
      double* bias = arena.data() + network.parameters[op.norm_bias].offset;
      const double* gamma = arena.data() + network.parameters[op.norm_weight].offset;
      const std::int64_t taps = network.parameters[op.weight].size / op.out.channels;
      for (std::int64_t k = 0; k < op.out.channels; ++k) {
        const double scale = gamma[k] / std::sqrt(double{statistics[op.running_var][k]} + 1e-5);
        for (std::int64_t t = 0; t < taps; ++t) w[k * taps + t] *= scale;
        bias[k] -= double{statistics[op.running_mean][k]} * scale;
      }
    }
    return arena;
  }

  const Network& before;
  Network network;
  std::vector<bool> fixed;                     // by op
  std::vector<std::vector<float>> statistics;  // as they were before any forward
};

TEST_P(CpuProgramWithBatchNorm, FixedStatisticsMatchDoublePrecision) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomProgram r(GetParam(), seed);
  const std::size_t count = r.network.parameters.size();

  // First all batch norms are frozen and everything else trains; then random subsets train.
  std::vector<std::vector<bool>> choices(1, std::vector<bool>(count, true));
  for (const Op& op : r.network.ops) {
    if (op.normalized()) choices[0][op.norm_weight] = choices[0][op.norm_bias] = false;
  }
  for (int i = 0; i < 3; ++i) choices.push_back(r.some_parameters());

  for (const std::vector<bool>& trained : choices) {
    std::vector<bool> fixed;
    for (const Op& op : r.network.ops) {
      fixed.push_back(op.normalized() && !trained[op.norm_weight] && !trained[op.norm_bias]);
    }
    const Folded folded(r, fixed);
    const auto logits = [&](const reference::Values& arena) {
      return reference::logits(folded.network, folded.fold(arena), r.batch, r.images);
    };
    r.draw_images_off_the_kinks(folded.network, folded.fold(r.arena()));
    const auto before = r.statistics_now();
    r.program->train_only(TrainedOps(r.network, trained, true));
    r.program->forward(cpu::Mode::training);
    const auto after = r.statistics_now();
    for (std::size_t i = 0; i < fixed.size(); ++i) {
      const Op& op = r.network.ops[i];
      if (!op.normalized()) continue;
      for (const int s : {op.running_mean, op.running_var}) {
        EXPECT_EQ(before[s] == after[s], fixed[i]) << r.network.statistics[s].name;
      }
    }
    r.expect_logits(logits(r.arena()));
    std::fill(r.gradients.begin(), r.gradients.end(), std::nanf(""));
    r.backward();
    for (std::size_t i = 0; i < count; ++i) {
      if (trained[i]) r.expect_gradient(r.network.parameters[i], 8, logits);
    }
  }
}

TEST_P(CpuProgramWithBatchNorm, EvaluationUsesTheRunningStatisticsAndLeavesThem) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  RandomProgram r(GetParam(), seed);
  std::vector<bool> normalized;
  for (const Op& op : r.network.ops) normalized.push_back(op.normalized());
  const Folded folded(r, normalized);
  const auto before = r.statistics_now();
  r.program->forward(cpu::Mode::evaluation);
  EXPECT_EQ(r.statistics_now(), before);
  r.expect_logits(reference::logits(folded.network, folded.fold(r.arena()), r.batch, r.images));
}

INSTANTIATE_TEST_SUITE_P(Networks, CpuProgram, testing::ValuesIn(cases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(GradientPlan, NoBufferHoldsTwoLiveGradients) {
  const RunConfig config = read_config(parse_document(
      "model: {layers: [conv: {out: 16, batch_norm: true}, residual_stage: {blocks: 9, out: 16}, "
      "residual_stage: {blocks: 9, out: 32, stride: 2}, global_avg_pool, linear: {out: 10}]}",
      "test"));
  const Network network = build_network(config, {32, 32, 3}, 10);
  const GradientPlan plan = plan_gradients(network);
  const auto count = static_cast<int>(network.ops.size());
  // The backward pass runs from the last op to the first. Each op that reads an output writes one
  // share of its gradient, which lives until the backward pass reaches the op that produced the
  // output. The last reader writes the first share, the other one the second.
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
    for (std::size_t i = 0; i < readers.size(); ++i) {
      const bool as_residual = network.ops[readers[i]].residual == op;
      EXPECT_EQ((as_residual ? plan.to_residual : plan.to_input)[readers[i]],
                (i == 0 ? plan.first : plan.second)[op]);
    }
    EXPECT_EQ(plan.to_input[op] < 0, network.ops[op].input < 0);
    EXPECT_EQ(plan.to_residual[op] < 0, network.ops[op].residual < 0);
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
