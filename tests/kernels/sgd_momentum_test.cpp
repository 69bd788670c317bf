// The update of all parameters against sgd_momentum() of optim/sgd_momentum.h on the host, bit for
// bit, and its norms against sums in double.
#include <limits>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

// Squares are added in fp32 within a block: in a chain of at most 8 (update) or 72 (check) per
// thread and 21 more over lanes and warps, each rounding to 2^-24. That is 5.6e-6 of the square and
// half as much of the norm; partials are added in double.
constexpr double norm_error = 1e-5;

// The tensors of a network in one arena, on the host.
struct HostArena {
  std::vector<Segment> segments;
  std::vector<std::uint16_t> segment_of;
  std::vector<float> weights;
  std::vector<float> velocity;
  std::vector<float> gradients;
  std::vector<std::int64_t> begins;  // of the tensors

  std::int64_t size() const { return static_cast<std::int64_t>(weights.size()); }
  std::uint16_t number(std::int64_t i) const {
    return segment_of[i / chunk_floats] & static_cast<std::uint16_t>(~has_16bit_gradient);
  }
  const Segment& segment(std::int64_t i) const { return segments[number(i)]; }
  bool gradient_is_16bit(std::int64_t i) const {
    return (segment_of[i / chunk_floats] & has_16bit_gradient) != 0;
  }
};

HostArena make_arena(std::mt19937& random, const std::vector<std::int64_t>& sizes) {
  HostArena arena;
  std::normal_distribution<float> normal;
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    constexpr float lr_scales[] = {1, 0.1f, 2};
    constexpr float decays[] = {0, 5e-4f, 1e-2f, 0.3f};
    arena.segments.push_back({lr_scales[s % 3], decays[s % 4], s % 5 == 2 ? 0 : 1});
    arena.begins.push_back(arena.size());
    const std::int64_t chunks = (sizes[s] + chunk_floats - 1) / chunk_floats;
    arena.segment_of.insert(arena.segment_of.end(), chunks, static_cast<std::uint16_t>(s));
    for (std::int64_t i = 0; i < chunks * chunk_floats; ++i) {
      const bool padding = i >= sizes[s];
      arena.weights.push_back(padding ? 0 : normal(random));
      arena.velocity.push_back(padding ? 0 : 0.1f * normal(random));
      arena.gradients.push_back(padding ? 0 : 0.5f * normal(random));
    }
  }
  return arena;
}

// Gives every third chunk its gradient in 16 bits.
void make_16bit(HostArena& arena, Element element) {
  for (std::size_t chunk = 0; chunk < arena.segment_of.size(); chunk += 3) {
    arena.segment_of[chunk] |= has_16bit_gradient;
    for (std::size_t i = chunk * chunk_floats; i < (chunk + 1) * chunk_floats; ++i) {
      arena.gradients[i] = rounded(element, arena.gradients[i]);
    }
  }
}

struct Norms {
  double gradient = 0;
  double taken = 0;
  double weight = 0;
};

// The same update on the host.
Norms update_on_host(const SgdMomentum& rule, const StepState& state, float scale, bool applied,
                     HostArena& arena) {
  Norms norms;
  for (std::int64_t i = 0; i < arena.size(); ++i) {
    const Segment& segment = arena.segment(i);
    if (segment.trained != 0) {
      const float g = arena.gradients[i];
      norms.gradient += double{g} * double{g};
      if (applied) {
        UpdateScalars scalars = update_scalars(rule, state.lr, state.previous_lr, 0, 0);
        scalars.scale = scale;
        scalars.lr *= segment.lr_scale;
        const float taken = preheat::sgd_momentum(rule, scalars, segment.weight_decay, g,
                                                  arena.weights[i], arena.velocity[i]);
        norms.taken += double{taken} * double{taken};
      }
    }
    norms.weight += double{arena.weights[i]} * double{arena.weights[i]};
  }
  return norms;
}

// An arena on the device. The gradients of a chunk are in the array that it names; the other has
// NaN.
class DeviceArena {
 public:
  DeviceArena(const HostArena& host, Element element, bool with_weights, bool with_gradients)
      : weights(host.weights),
        velocity(host.velocity),
        gradients(of_chunks(host, false)),
        gradients_16bit(element, of_chunks(host, true)),
        weights_16bit(element, host.weights),
        segment_of(host.segment_of),
        segments(host.segments),
        partials(static_cast<std::size_t>(update_blocks(host.size()))),
        non_finite(NonFinite{}) {
    arena.weights = weights.data();
    arena.velocity = velocity.data();
    arena.gradients = gradients.data();
    arena.gradients_16bit = with_gradients ? gradients_16bit.data() : nullptr;
    arena.weights_16bit = with_weights ? weights_16bit.data() : nullptr;
    arena.element_16bit = element;
    arena.size = host.size();
    arena.segment_of = segment_of.data();
    arena.segments = segments.data();
  }

  Norms norms() const {
    Norms sum;
    for (const NormPartial& p : partials.values()) {
      sum.gradient += double{p.gradient};
      sum.taken += double{p.taken};
      sum.weight += double{p.weight};
    }
    return sum;
  }
  bool all_finite() const {
    const std::vector<NormPartial> values = partials.values();
    return std::all_of(values.begin(), values.end(),
                       [](const NormPartial& p) { return p.finite == 1; });
  }

  Device<float> weights;
  Device<float> velocity;
  Device<float> gradients;
  DeviceElements gradients_16bit;
  DeviceElements weights_16bit;
  Device<std::uint16_t> segment_of;
  Device<Segment> segments;
  Device<NormPartial> partials;
  Device<NonFinite> non_finite;
  Arena arena;

 private:
  static std::vector<float> of_chunks(const HostArena& host, bool in_16_bits) {
    std::vector<float> values = host.gradients;
    for (std::int64_t i = 0; i < host.size(); ++i) {
      if (host.gradient_is_16bit(i) != in_16_bits) values[i] = std::nanf("");
    }
    return values;
  }
};

void expect_norms(const Norms& actual, const Norms& expected) {
  EXPECT_NEAR(std::sqrt(actual.gradient), std::sqrt(expected.gradient),
              norm_error * std::sqrt(expected.gradient));
  EXPECT_NEAR(std::sqrt(actual.taken), std::sqrt(expected.taken),
              norm_error * std::sqrt(expected.taken));
  EXPECT_NEAR(std::sqrt(actual.weight), std::sqrt(expected.weight),
              norm_error * std::sqrt(expected.weight));
}

void expect_same(const DeviceArena& device, const HostArena& host) {
  EXPECT_TRUE(same_bits(device.weights.values(), host.weights));
  EXPECT_TRUE(same_bits(device.velocity.values(), host.velocity));
}

void expect_16bit_weights(const DeviceArena& device, Element element) {
  std::vector<float> expected = device.weights.values();
  for (float& w : expected) w = rounded(element, w);
  EXPECT_TRUE(same_bits(device.weights_16bit.values(), expected));
}

StepState state_at(float lr, float previous_lr) {
  StepState state;
  state.step = 17;
  state.lr = lr;
  state.previous_lr = previous_lr;
  return state;
}

const std::vector<std::int64_t> some_sizes = {1, 63, 64, 65, 1000, 4097, 10, 300, 27, 2056};

class KernelsSgdMomentum : public KernelTest {};

TEST_F(KernelsSgdMomentum, EveryRuleAgreesWithTheHostToTheBit) {
  for (int bits = 0; bits < 8; ++bits) {
    const SgdMomentum rule{0.9f, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    for (const float previous_lr : {0.0f, 0.07f}) {
      SCOPED_TRACE("rule " + std::to_string(bits) + " after " + std::to_string(previous_lr));
      HostArena host = make_arena(random_, some_sizes);
      const DeviceArena device(host, Element::bf16, false, false);
      const StepState state = state_at(0.1f, previous_lr);
      const Device<StepState> device_state(state);
      for (int update = 0; update < 3; ++update) {
        check(sgd_momentum(rule, device.arena, device_state.data(), nullptr, nullptr,
                           device.partials.data(), device.non_finite.data(), nullptr));
        const Norms expected = update_on_host(rule, state, 1, true, host);
        expect_same(device, host);
        expect_norms(device.norms(), expected);
        EXPECT_TRUE(device.all_finite());
      }
      EXPECT_EQ(device.non_finite.value().last_gradient, NonFinite{}.last_gradient);
      EXPECT_EQ(device.non_finite.value().first_weight, NonFinite{}.first_weight);
    }
  }
}

TEST_F(KernelsSgdMomentum, FrozenTensorsKeepTheirBitsAndPaddingStaysZero) {
  const HostArena before = make_arena(random_, some_sizes);
  const DeviceArena device(before, Element::bf16, false, false);
  const Device<StepState> state(state_at(0.1f, 0.1f));
  check(sgd_momentum({}, device.arena, state.data(), nullptr, nullptr, device.partials.data(),
                     device.non_finite.data(), nullptr));
  const std::vector<float> weights = device.weights.values();
  const std::vector<float> velocity = device.velocity.values();
  for (std::size_t s = 0; s < some_sizes.size(); ++s) {
    const std::int64_t begin = before.begins[s];
    const std::int64_t next = s + 1 < some_sizes.size() ? before.begins[s + 1] : before.size();
    for (std::int64_t i = begin; i < next; ++i) {
      if (i >= begin + some_sizes[s]) {
        EXPECT_EQ(weights[i], 0) << i;
        EXPECT_EQ(velocity[i], 0) << i;
      } else if (before.segments[s].trained == 0) {
        EXPECT_EQ(weights[i], before.weights[i]) << i;
        EXPECT_EQ(velocity[i], before.velocity[i]) << i;
      }
    }
  }
}

TEST_F(KernelsSgdMomentum, WritesWeightsAndTakesGradientsIn16Bits) {
  for (const Element element : all_elements) {
    for (const bool weights_16bit : {false, true}) {
      for (const bool gradients_16bit : {false, true}) {
        SCOPED_TRACE(name_of(element) + (weights_16bit ? ", 16-bit weights" : "") +
                     (gradients_16bit ? ", 16-bit gradients" : ""));
        HostArena host = make_arena(random_, some_sizes);
        if (gradients_16bit) make_16bit(host, element);
        const DeviceArena device(host, element, weights_16bit, gradients_16bit);
        const StepState state = state_at(0.1f, 0.1f);
        const Device<StepState> device_state(state);
        const SgdMomentum rule{0.9f, true, false, false};
        check(sgd_momentum(rule, device.arena, device_state.data(), nullptr, nullptr,
                           device.partials.data(), device.non_finite.data(), nullptr));
        const Norms expected = update_on_host(rule, state, 1, true, host);
        expect_same(device, host);
        expect_norms(device.norms(), expected);
        if (weights_16bit) expect_16bit_weights(device, element);
      }
    }
  }
}

TEST_F(KernelsSgdMomentum, ALargeArena) {
  // Not a whole number of blocks, and chunks of all kinds.
  HostArena host = make_arena(random_, {5'000'000, 1, 100'000, 3'900'000, 77});
  make_16bit(host, Element::f16);
  const DeviceArena device(host, Element::f16, true, true);
  StepState state = state_at(0.1f, 0.2f);
  state.loss_scale = 16;
  const Device<StepState> device_state(state);
  const Device<NormPartial> check_partials(static_cast<std::size_t>(check_blocks(host.size())));
  const Device<unsigned> counter(0u);
  const Device<GradientCheck> result(GradientCheck{});
  check(check_gradients(device.arena, device_state.data(), 0.5, check_partials.data(),
                        counter.data(), result.data(), nullptr));
  const SgdMomentum rule{0.9f, false, true, true};
  check(sgd_momentum(rule, device.arena, device_state.data(), nullptr, result.data(),
                     device.partials.data(), device.non_finite.data(), nullptr));
  const GradientCheck found = result.value();
  const Norms expected = update_on_host(rule, state, found.scale, true, host);
  const double norm = std::sqrt(expected.gradient) / 16;
  EXPECT_NEAR(found.norm, norm, norm_error * norm);
  EXPECT_NEAR(found.scale, 0.5 / norm / 16, norm_error * 0.5 / norm / 16);
  EXPECT_EQ(found.finite, 1);
  EXPECT_EQ(counter.value(), 0u);
  expect_same(device, host);
  expect_norms(device.norms(), expected);
  expect_16bit_weights(device, Element::f16);
}

TEST_F(KernelsSgdMomentum, OneChunk) {
  HostArena host = make_arena(random_, {40});
  const DeviceArena device(host, Element::bf16, false, false);
  const StepState state = state_at(0.1f, 0);
  const Device<StepState> device_state(state);
  check(sgd_momentum({}, device.arena, device_state.data(), nullptr, nullptr,
                     device.partials.data(), device.non_finite.data(), nullptr));
  const Norms expected = update_on_host({}, state, 1, true, host);
  expect_same(device, host);
  expect_norms(device.norms(), expected);
}

TEST_F(KernelsSgdMomentum, WithoutNormsTheUpdateIsTheSame) {
  HostArena host = make_arena(random_, some_sizes);
  const DeviceArena device(host, Element::f16, true, false);
  const StepState state = state_at(0.1f, 0.1f);
  const Device<StepState> device_state(state);
  check(sgd_momentum({}, device.arena, device_state.data(), nullptr, nullptr, nullptr, nullptr,
                     nullptr));
  update_on_host({}, state, 1, true, host);
  expect_same(device, host);
  expect_16bit_weights(device, Element::f16);
}

TEST_F(KernelsSgdMomentum, AFiniteLossAndCheckLetItThrough) {
  HostArena host = make_arena(random_, some_sizes);
  const DeviceArena device(host, Element::bf16, false, false);
  const StepState state = state_at(0.1f, 0.1f);
  const Device<StepState> device_state(state);
  const Device<BatchLoss> loss(BatchLoss{1e300, 3, 128});
  const Device<GradientCheck> gradient(GradientCheck{2, 0.37f, 1});
  check(sgd_momentum({}, device.arena, device_state.data(), loss.data(), gradient.data(),
                     device.partials.data(), device.non_finite.data(), nullptr));
  const Norms expected = update_on_host({}, state, 0.37f, true, host);
  expect_same(device, host);
  expect_norms(device.norms(), expected);
}

TEST_F(KernelsSgdMomentum, WritesNothingInAStepThatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  struct Cause {
    const char* name;
    std::int64_t first_non_finite;
    double loss;
    std::int32_t finite_gradient;
  };
  for (const Cause& cause :
       {Cause{"an earlier step", 3, 1, 1}, Cause{"step 0", 0, 1, 1},
        Cause{"a loss of NaN", -1, std::nan(""), 1}, Cause{"an infinite loss", -1, infinity, 1},
        Cause{"a loss of -infinity", -1, -infinity, 1}, Cause{"an infinite gradient", -1, 1, 0}}) {
    SCOPED_TRACE(cause.name);
    HostArena host = make_arena(random_, some_sizes);
    const DeviceArena device(host, Element::bf16, true, false);
    StepState state = state_at(0.1f, 0.1f);
    state.first_non_finite = cause.first_non_finite;
    const Device<StepState> device_state(state);
    const Device<BatchLoss> loss(BatchLoss{cause.loss, 3, 128});
    const Device<GradientCheck> gradient(GradientCheck{2, 1, cause.finite_gradient});
    check(sgd_momentum({}, device.arena, device_state.data(), loss.data(), gradient.data(),
                       device.partials.data(), device.non_finite.data(), nullptr));
    const Norms expected = update_on_host({}, state, 1, false, host);
    expect_same(device, host);
    expect_16bit_weights(device, Element::bf16);  // as it was initialised
    expect_norms(device.norms(), expected);
    EXPECT_EQ(device.norms().taken, 0);
  }
}

TEST_F(KernelsSgdMomentum, NamesTheTensorsThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  HostArena host = make_arena(random_, some_sizes);  // the tensors 2 and 7 are frozen
  host.gradients[host.begins[3] + 64] = infinity;
  host.gradients[host.begins[5] + 4000] = std::nanf("");
  host.gradients[host.begins[7] + 1] = std::nanf("");  // frozen: not checked
  const DeviceArena device(host, Element::bf16, false, false);
  const StepState state = state_at(0.1f, 0.1f);
  const Device<StepState> device_state(state);
  check(sgd_momentum({}, device.arena, device_state.data(), nullptr, nullptr,
                     device.partials.data(), device.non_finite.data(), nullptr));
  EXPECT_FALSE(device.all_finite());
  EXPECT_EQ(device.non_finite.value().last_gradient, 5);
  EXPECT_EQ(device.non_finite.value().first_weight, 3);
  update_on_host({}, state, 1, true, host);
  const std::vector<float> weights = device.weights.values();
  for (std::int64_t i = 0; i < host.size(); ++i) {
    if (std::isnan(host.weights[i])) {
      EXPECT_TRUE(std::isnan(weights[i])) << i;
    } else {
      EXPECT_EQ(weights[i], host.weights[i]) << i;
    }
  }
}

TEST_F(KernelsSgdMomentum, AWeightThatIsNotFiniteCountsWhereItIsFrozenToo) {
  HostArena host = make_arena(random_, some_sizes);
  host.weights[host.begins[2] + 5] = std::nanf("");
  const DeviceArena device(host, Element::bf16, false, false);
  const Device<StepState> state(state_at(0.1f, 0.1f));
  check(sgd_momentum({}, device.arena, state.data(), nullptr, nullptr, device.partials.data(),
                     device.non_finite.data(), nullptr));
  EXPECT_FALSE(device.all_finite());
  EXPECT_EQ(device.non_finite.value().last_gradient, -1);
  EXPECT_EQ(device.non_finite.value().first_weight, 2);
}

// Each product and sum is rounded once.
TEST_F(KernelsSgdMomentum, AccumulatesGradientsOfBothTypesInFp32) {
  for (const Element element : {Element::f32, Element::bf16, Element::f16}) {
    HostArena host = make_arena(random_, some_sizes);
    if (element != Element::f32) make_16bit(host, element);
    const DeviceArena device(host, element, false, element != Element::f32);
    const Device<float> sum(static_cast<std::size_t>(host.size()));  // NaN until it is written
    constexpr float scale = 1.0f / 3;
    check(accumulate_gradients(device.arena, scale, false, sum.data(), nullptr));
    std::vector<float> expected = host.gradients;
    for (float& g : expected) g *= scale;
    EXPECT_TRUE(same_bits(sum.values(), expected));
    check(accumulate_gradients(device.arena, scale, true, sum.data(), nullptr));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] = std::fma(scale, host.gradients[i], expected[i]);
    }
    EXPECT_TRUE(same_bits(sum.values(), expected));
  }
}

TEST_F(KernelsSgdMomentum, ChecksTheGradients) {
  for (const bool with_gradients : {false, true}) {
    for (const float loss_scale : {1.0f, 1024.0f}) {
      HostArena host = make_arena(random_, some_sizes);
      if (with_gradients) make_16bit(host, Element::bf16);
      const DeviceArena device(host, Element::bf16, false, with_gradients);
      StepState state = state_at(0.1f, 0.1f);
      state.loss_scale = loss_scale;
      const Device<StepState> device_state(state);
      const double norm = std::sqrt(update_on_host({}, state, 1, false, host).gradient);
      const double true_norm = norm / double{loss_scale};
      const Device<NormPartial> partials(static_cast<std::size_t>(check_blocks(host.size())));
      const Device<unsigned> counter(0u);
      // No clipping, clipping, and a clip norm that is not reached.
      for (const double clip_norm : {0.0, true_norm / 3, true_norm * 2}) {
        SCOPED_TRACE("clipped at " + std::to_string(clip_norm));
        const double clip = clip_norm > 0 && clip_norm < true_norm ? clip_norm / true_norm : 1;
        const double scale = clip / double{loss_scale};
        std::vector<GradientCheck> found;
        for (int launch = 0; launch < 2; ++launch) {
          const Device<GradientCheck> result(std::size_t{1});
          check(check_gradients(device.arena, device_state.data(), clip_norm, partials.data(),
                                counter.data(), result.data(), nullptr));
          found.push_back(result.value());
          EXPECT_EQ(counter.value(), 0u);
        }
        EXPECT_NEAR(found[0].norm, true_norm, norm_error * true_norm);
        EXPECT_NEAR(found[0].scale, scale, norm_error * scale);
        EXPECT_EQ(found[0].finite, 1);
        EXPECT_EQ(found[0].norm, found[1].norm);
        EXPECT_EQ(found[0].scale, found[1].scale);
      }
    }
  }
}

TEST_F(KernelsSgdMomentum, ChecksForGradientsThatAreNotFinite) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const std::size_t tensor : {std::size_t{1}, std::size_t{7}, std::size_t{9}}) {
      HostArena host = make_arena(random_, some_sizes);
      host.gradients[host.begins[tensor] + some_sizes[tensor] - 1] = bad;
      const DeviceArena device(host, Element::bf16, false, false);
      const Device<StepState> state(state_at(0.1f, 0.1f));
      const Device<NormPartial> partials(static_cast<std::size_t>(check_blocks(host.size())));
      const Device<unsigned> counter(0u);
      const Device<GradientCheck> result(std::size_t{1});
      check(check_gradients(device.arena, state.data(), 0, partials.data(), counter.data(),
                            result.data(), nullptr));
      EXPECT_EQ(result.value().finite, tensor == 7 ? 1 : 0) << tensor;  // 7 is frozen
      EXPECT_EQ(counter.value(), 0u);
    }
  }
}

TEST_F(KernelsSgdMomentum, TwoLaunchesGiveTheSameBits) {
  const HostArena host = make_arena(random_, some_sizes);
  const Device<StepState> state(state_at(0.1f, 0.1f));
  std::vector<std::vector<NormPartial>> partials;
  std::vector<std::vector<float>> weights;
  for (int launch = 0; launch < 2; ++launch) {
    const DeviceArena device(host, Element::bf16, false, false);
    check(sgd_momentum({}, device.arena, state.data(), nullptr, nullptr, device.partials.data(),
                       device.non_finite.data(), nullptr));
    partials.push_back(device.partials.values());
    weights.push_back(device.weights.values());
  }
  EXPECT_TRUE(same_bits(partials[0], partials[1]));
  EXPECT_TRUE(same_bits(weights[0], weights[1]));
}

TEST_F(KernelsSgdMomentum, RefusesAnArenaThatIsNone) {
  const HostArena host = make_arena(random_, {100});
  const DeviceArena device(host, Element::bf16, false, false);
  const Device<StepState> state(state_at(0.1f, 0.1f));
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{63}, std::int64_t{100}}) {
    Arena arena = device.arena;
    arena.size = size;
    EXPECT_EQ(sgd_momentum({}, arena, state.data(), nullptr, nullptr, device.partials.data(),
                           device.non_finite.data(), nullptr),
              cudaErrorInvalidValue);
  }
  expect_same(device, host);
}

}  // namespace
}  // namespace preheat::kernels
