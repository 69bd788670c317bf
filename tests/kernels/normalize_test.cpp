#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/device_test.h"
#include "kernels/moments.h"

namespace preheat::kernels {
namespace {

// Error bounds of the results, in units of 2^-24, the roundoff of fp32, of the magnitudes that go
// into them (not of the result, which may have cancelled). Storing a result in an Element is extra.
// x - mean, inv_std (4: sum, root, quotient of the running variance), times weight, the sum with
// the bias, that with the residual, and the product with slope.
constexpr double z_bound = 10 * fp32;
// dy + extra and the product with slope.
constexpr double dz_bound = 3 * fp32;
// dz; the two sums over n, xhat and its product; their sum, the difference and inv_std weight.
constexpr double dx_bound = 16 * fp32;

// Half the least distance between two numbers of a type.
double underflow(Element element) {
  return element == Element::f16 ? 0x1p-25 : 0;
}

enum class Kind { nothing, bias, batch, running };

struct Setting {
  Element element = Element::f32;
  Images shape;
  Kind kind = Kind::batch;
  float slope = 0;
  bool pooled = false;
  bool residual = false;
  bool extra = false;
  bool in_place = false;
  bool misaligned = false;

  Fusion fusion() const { return {slope, pooled, residual}; }
  std::string name() const {
    const auto flag = [](bool on, const char* what) { return on ? std::string(" ") + what : ""; };
    return "element " + std::to_string(static_cast<int>(element)) + " [" +
           std::to_string(shape.batch) + " " + std::to_string(shape.height) + " " +
           std::to_string(shape.width) + " " + std::to_string(shape.channels) + "] kind " +
           std::to_string(static_cast<int>(kind)) + " slope " + std::to_string(slope) +
           flag(pooled, "pooled") + flag(residual, "residual") + flag(extra, "extra") +
           flag(in_place, "in place") + flag(misaligned, "misaligned");
  }
};

Images pooled_shape(const Images& shape) {
  return {shape.batch, shape.height / 2, shape.width / 2, shape.channels};
}

// An array that may begin at an odd multiple of its element's size; what precedes it must not
// change.
class Tensor {
 public:
  Tensor(Element element, const std::vector<float>& values, bool misaligned)
      : element_(element), skip_(misaligned), elements_(element, with_front(values, misaligned)) {}
  Tensor(Element element, std::int64_t count, bool misaligned)
      : Tensor(element,
               std::vector<float>(static_cast<std::size_t>(count),
                                  std::numeric_limits<float>::quiet_NaN()),
               misaligned) {}
  void* data() const {
    return static_cast<std::uint8_t*>(elements_.data()) + (skip_ ? bytes_of(element_) : 0);
  }
  std::vector<float> values() const {
    std::vector<float> all = elements_.values();
    if (skip_) {
      EXPECT_TRUE(std::isnan(all.front())) << "a kernel wrote in front of its output";
      all.erase(all.begin());
    }
    return all;
  }

 private:
  static std::vector<float> with_front(std::vector<float> values, bool misaligned) {
    if (misaligned) values.insert(values.begin(), std::numeric_limits<float>::quiet_NaN());
    return values;
  }
  Element element_;
  bool skip_;
  DeviceElements elements_;
};

// The inputs of a layer, and its results by plain loops in double.
class Layer {
 public:
  Layer(std::mt19937& random, const Setting& setting) : s(setting) {
    const auto size = static_cast<std::size_t>(s.shape.size());
    const auto out = static_cast<std::size_t>(s.pooled ? pooled_shape(s.shape).size() : size);
    const auto channels = static_cast<std::size_t>(s.shape.channels);
    x = random_values(random, s.element, size, 1, 0.25f);
    // Serves as the residual, and as the y whose signs the backward pass reads.
    if (s.residual) residual = random_values(random, s.element, size);
    if (s.residual) residual[0] = 0;
    dy = random_values(random, s.element, out);
    if (s.extra) extra = random_values(random, s.element, out);
    std::uniform_real_distribution<float> positive(0.5f, 2);
    std::normal_distribution<float> normal;
    weight = bias = mean = var = inv_std = d_weight = d_bias = std::vector<float>(channels);
    const auto rows = static_cast<float>(s.shape.rows());
    for (std::size_t c = 0; c < channels; ++c) {
      weight[c] = normal(random);  // if negative, the maximum is where x is smallest
      bias[c] = 0.3f * normal(random);
      mean[c] = 0.5f * normal(random);
      var[c] = positive(random);
      inv_std[c] = positive(random);
      d_weight[c] = 0.2f * rows * normal(random);
      d_bias[c] = 0.2f * rows * normal(random);
    }
  }

  bool has_norm() const { return s.kind == Kind::batch || s.kind == Kind::running; }
  std::size_t channel(std::size_t i) const {
    return i % static_cast<std::size_t>(s.shape.channels);
  }
  double inverse(std::size_t c) const {
    if (!has_norm()) return 1;
    return s.kind == Kind::batch ? double{inv_std[c]}
                                 : 1 / std::sqrt(double{var[c]} + double{epsilon});
  }
  double scale(std::size_t c) const { return has_norm() ? inverse(c) * double{weight[c]} : 1; }
  double centered(std::size_t i) const {
    return double{x[i]} - (has_norm() ? double{mean[channel(i)]} : 0);
  }
  double xhat(std::size_t i) const { return centered(i) * inverse(channel(i)); }
  double z(std::size_t i, bool with_residual) const {
    const std::size_t c = channel(i);
    return centered(i) * scale(c) + (s.kind == Kind::nothing ? 0 : double{bias[c]}) +
           (with_residual ? double{residual[i]} : 0);
  }
  double z_error(std::size_t i, bool with_residual) const {
    if (std::isinf(z(i, with_residual))) return 0;
    const std::size_t c = channel(i);
    return z_bound *
           (std::abs((std::abs(double{x[i]}) + (has_norm() ? std::abs(double{mean[c]}) : 0)) *
                     scale(c)) +
            (s.kind == Kind::nothing ? 0 : std::abs(double{bias[c]})) +
            (with_residual ? std::abs(double{residual[i]}) : 0));
  }
  double activation(double value) const { return value > 0 ? value : double{s.slope} * value; }
  double gradient(std::size_t i) const { return double{dy[i]} + (s.extra ? double{extra[i]} : 0); }
  double gradient_size(std::size_t i) const {
    return std::abs(double{dy[i]}) + (s.extra ? std::abs(double{extra[i]}) : 0);
  }

  // Calls work(index in y, the elements of its window, row by row).
  template <class Work>
  void over_windows(const Work& work) const {
    const Images out = pooled_shape(s.shape);
    std::size_t o = 0;
    for (std::int64_t n = 0; n < out.batch; ++n) {
      for (std::int64_t r = 0; r < out.height; ++r) {
        for (std::int64_t q = 0; q < out.width; ++q) {
          for (std::int64_t c = 0; c < out.channels; ++c, ++o) {
            std::size_t at[4];
            for (std::int64_t k = 0; k < 4; ++k) {
              at[k] = static_cast<std::size_t>(
                  ((n * s.shape.height + 2 * r + k / 2) * s.shape.width + 2 * q + k % 2) *
                      s.shape.channels +
                  c);
            }
            work(o, at);
          }
        }
      }
    }
  }

  Setting s;
  static constexpr float epsilon = 1e-3f;
  std::vector<float> x, residual, dy, extra;
  std::vector<float> weight, bias, mean, var, inv_std, d_weight, d_bias;
};

// The per-channel arrays of a layer on the device.
class DeviceNorm {
 public:
  explicit DeviceNorm(const Layer& layer)
      : kind_(layer.s.kind),
        weight_(layer.weight),
        bias_(layer.bias),
        mean_(layer.mean),
        var_(layer.var),
        inv_std_(layer.inv_std) {}
  Norm norm() const {
    Norm n;
    if (kind_ == Kind::nothing) return n;
    n.bias = bias_.data();
    if (kind_ == Kind::bias) return n;
    n.weight = weight_.data();
    n.mean = mean_.data();
    if (kind_ == Kind::batch) n.inv_std = inv_std_.data();
    if (kind_ == Kind::running) n.var = var_.data();
    n.epsilon = Layer::epsilon;
    return n;
  }

 private:
  Kind kind_;
  Device<float> weight_, bias_, mean_, var_, inv_std_;
};

// dz of a layer. If rounding decides a sign or a maximum, all elements that the gradient could go
// to are in doubt: they are not compared, and sums may be off by what they could have added.
struct Gradient {
  explicit Gradient(const Layer& layer) {
    const auto size = static_cast<std::size_t>(layer.s.shape.size());
    dz.assign(size, 0);
    dz_size.assign(size, 0);
    doubtful.assign(size, false);
    const auto channels = static_cast<std::size_t>(layer.s.shape.channels);
    sum.assign(channels, 0);
    product = sum_size = product_size = sum_slack = product_slack = sum;
    const double slope = layer.s.slope;
    if (layer.s.pooled) {
      layer.over_windows([&](std::size_t o, const std::size_t(&at)[4]) {
        int max = 0;
        double y[4];
        for (int k = 0; k < 4; ++k) {
          y[k] = layer.activation(layer.z(at[k], false));
          if (y[k] > y[max] || std::isnan(y[k])) max = k;
        }
        const double z = layer.z(at[max], false);
        const double error = layer.z_error(at[max], false);
        dz[at[max]] = z > 0 ? layer.gradient(o) : slope * layer.gradient(o);
        dz_size[at[max]] = layer.gradient_size(o);
        bool doubt = slope != 1 && std::abs(z) <= error;
        for (int k = 0; k < 4; ++k) {
          // Equal values stay equal under rounding, and so do all that ReLU cuts off.
          const double other = layer.z(at[k], false);
          const double both = error + layer.z_error(at[k], false);
          const bool equal =
              layer.x[at[k]] == layer.x[at[max]] || (slope == 0 && z < -error && other < -both);
          if (!equal && std::abs(y[k] - y[max]) <= both) doubt = true;
        }
        if (!doubt) return;
        ++doubts;
        for (const std::size_t i : at) put_in_doubt(layer, i, layer.gradient_size(o));
      });
    } else {
      for (std::size_t i = 0; i < size; ++i) {
        const double z = layer.s.residual ? double{layer.residual[i]} : layer.z(i, false);
        dz[i] = z > 0 ? layer.gradient(i) : slope * layer.gradient(i);
        dz_size[i] = layer.gradient_size(i);
        if (layer.s.residual || slope == 1 || !(std::abs(z) <= layer.z_error(i, false))) continue;
        ++doubts;
        put_in_doubt(layer, i, dz_size[i]);
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t c = layer.channel(i);
      const double xhat_size =
          (std::abs(double{layer.x[i]}) + std::abs(double{layer.mean[c]})) * layer.inverse(c);
      sum[c] += dz[i];
      sum_size[c] += dz_size[i];
      product[c] += dz[i] == 0 ? 0 : dz[i] * layer.xhat(i);
      product_size[c] += dz_size[i] == 0 ? 0 : dz_size[i] * xhat_size;
    }
    // Random values are rarely so close to each other.
    EXPECT_LE(doubts, 2 + size / 1000);
  }

  std::vector<double> dz, dz_size;
  std::vector<char> doubtful;
  std::vector<double> sum, product, sum_size, product_size, sum_slack, product_slack;
  std::size_t doubts = 0;

 private:
  void put_in_doubt(const Layer& layer, std::size_t i, double size) {
    doubtful[i] = true;
    const std::size_t c = layer.channel(i);
    sum_slack[c] += 2 * size;
    product_slack[c] += 2 * size * std::abs(layer.xhat(i));
  }
};

constexpr double infinity = std::numeric_limits<double>::infinity();

void check_forward(const Layer& layer) {
  const Setting& s = layer.s;
  SCOPED_TRACE(s.name());
  const DeviceNorm norm(layer);
  const Tensor x(s.element, layer.x, s.misaligned);
  const Tensor y(s.element, s.pooled ? pooled_shape(s.shape).size() : s.shape.size(), s.misaligned);
  std::vector<float> actual;
  {
    const std::vector<float> one{0};
    const Tensor residual(s.element, s.residual ? layer.residual : one, s.misaligned);
    const Tensor& out = s.in_place ? x : y;
    check(normalize_forward(s.element, s.shape, s.fusion(), norm.norm(), x.data(),
                            s.residual ? residual.data() : nullptr, out.data(), nullptr));
    actual = out.values();
  }
  std::vector<double> expected(actual.size());
  std::vector<double> bound(actual.size());
  const auto set = [&](std::size_t o, double value, double error) {
    expected[o] = value;
    bound[o] = error + unit_roundoff(s.element) * std::abs(value) * 1.01 + underflow(s.element);
  };
  if (s.pooled) {
    layer.over_windows([&](std::size_t o, const std::size_t(&at)[4]) {
      double largest = -infinity;
      double error = 0;
      for (const std::size_t i : at) {
        const double value = layer.activation(layer.z(i, false));
        if (value > largest || std::isnan(value)) largest = value;
        error = std::max(error, layer.z_error(i, false));
      }
      set(o, largest, error);
    });
  } else {
    for (std::size_t i = 0; i < actual.size(); ++i) {
      set(i, layer.activation(layer.z(i, s.residual)), layer.z_error(i, s.residual));
    }
  }
  expect_close(
      actual, expected, [&](std::size_t i) { return bound[i]; }, "y");
}

// `with_dz`: with the gradient itself; `with_sums`: with the sums.
void check_backward_sums(const Layer& layer, bool with_dz, bool with_sums = true) {
  const Setting& s = layer.s;
  SCOPED_TRACE(s.name() + (with_dz ? " dz" : "") + (with_sums ? " sums" : ""));
  const DeviceNorm norm(layer);
  const Scratch scratch(s.shape.channels);
  const auto channels = static_cast<std::size_t>(s.shape.channels);
  const Tensor x(s.element, layer.x, s.misaligned);
  const std::vector<float> one{0};
  const Tensor y(s.element, s.residual ? layer.residual : one, s.misaligned);
  const Tensor dy(s.element, layer.dy, s.misaligned);
  const Tensor extra(s.element, s.extra ? layer.extra : one, s.misaligned);
  const Tensor fresh(s.element, with_dz ? s.shape.size() : 1, s.misaligned);
  const Tensor& dz = s.in_place ? dy : fresh;
  const Device<float> d_weight(channels);
  const Device<float> d_bias(channels);
  check(normalize_backward_sums({s.element, s.shape, s.fusion(), norm.norm(), x.data(), dy.data(),
                                 s.extra ? extra.data() : nullptr},
                                s.residual ? y.data() : nullptr, with_dz ? dz.data() : nullptr,
                                with_sums && layer.has_norm() ? d_weight.data() : nullptr,
                                with_sums ? d_bias.data() : nullptr, scratch.get(), nullptr));
  const Gradient expected(layer);
  if (with_dz) {
    const auto bound = [&](std::size_t i) {
      if (expected.doubtful[i]) return infinity;
      return dz_bound * expected.dz_size[i] +
             1.01 * unit_roundoff(s.element) * std::abs(expected.dz[i]) +
             (expected.dz[i] == 0 ? 0 : underflow(s.element));
    };
    expect_close(dz.values(), expected.dz, bound, "dz");
  }
  EXPECT_EQ(scratch.counter(), 0u);
  if (!with_sums) return;
  const double per_term = sum_bound(static_cast<double>(s.shape.rows()));
  expect_close(
      d_bias.values(), expected.sum,
      [&](std::size_t c) { return per_term * expected.sum_size[c] + expected.sum_slack[c]; },
      "d_bias");
  if (!layer.has_norm()) return;
  expect_close(
      d_weight.values(), expected.product,
      [&](std::size_t c) {
        return per_term * expected.product_size[c] + expected.product_slack[c];
      },
      "d_weight");
}

void check_backward(const Layer& layer, bool fixed) {
  const Setting& s = layer.s;
  SCOPED_TRACE(s.name() + (fixed ? " fixed" : ""));
  const DeviceNorm norm(layer);
  const std::vector<float> one{0};
  const Tensor x(s.element, layer.x, s.misaligned);
  const Tensor dy(s.element, layer.dy, s.misaligned);
  const Tensor extra(s.element, s.extra ? layer.extra : one, s.misaligned);
  const Tensor fresh(s.element, s.shape.size(), s.misaligned);
  const Tensor& dx = s.in_place ? dy : fresh;
  const Device<float> d_weight(layer.d_weight);
  const Device<float> d_bias(layer.d_bias);
  check(normalize_backward({s.element, s.shape, s.fusion(), norm.norm(), x.data(), dy.data(),
                            s.extra ? extra.data() : nullptr},
                           fixed, d_weight.data(), d_bias.data(), dx.data(), nullptr));
  const Gradient gradient(layer);
  std::vector<double> expected(layer.x.size());
  std::vector<double> bound(layer.x.size());
  const auto n = static_cast<double>(s.shape.rows());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::size_t c = layer.channel(i);
    double size = gradient.dz_size[i];
    expected[i] = gradient.dz[i];
    if (!fixed) {
      const double of_weight = double{layer.d_weight[c]} / n;
      expected[i] -= double{layer.d_bias[c]} / n + layer.xhat(i) * of_weight;
      size += std::abs(double{layer.d_bias[c]}) / n +
              (std::abs(double{layer.x[i]}) + std::abs(double{layer.mean[c]})) * layer.inverse(c) *
                  std::abs(of_weight);
    }
    expected[i] *= layer.scale(c);
    bound[i] = gradient.doubtful[i]
                   ? infinity
                   : dx_bound * size * std::abs(layer.scale(c)) + underflow(s.element) +
                         1.01 * unit_roundoff(s.element) * std::abs(expected[i]);
  }
  expect_close(
      dx.values(), expected, [&](std::size_t i) { return bound[i]; }, "dx");
}

class KernelsNormalize : public KernelTest {
 protected:
  // Calls work(setting) for all shapes and types with some of the operations around a batch norm,
  // and for two shapes, one read in packs and one in single elements, with all of them.
  template <class Work>
  void over_settings(const Work& work) {
    const Images shapes[] = {{37, 7, 7, 16},  {3, 6, 5, 64},    {2, 9, 4, 32},  {5, 3, 3, 10},
                             {1, 1, 1, 3},    {4, 2, 2, 1},     {2, 5, 5, 300}, {3, 2, 3, 72},
                             {2, 3, 2, 2056}, {37, 1, 1, 24},   {9, 16, 16, 8}, {1, 1, 1, 512},
                             {2, 2, 2, 65},   {40, 13, 11, 128}};
    const struct {
      Kind kind;
      float slope;
      bool residual;
    } some[] = {{Kind::batch, 0, true},
                {Kind::batch, 0, false},
                {Kind::running, 0.1f, false},
                {Kind::bias, 0, false},
                {Kind::nothing, 1, true}};
    int count = 0;
    const auto try_one = [&](Setting s) {
      ++count;
      s.extra = count % 2 == 0;
      s.misaligned = count % 3 == 0;
      s.pooled = false;
      s.in_place = count % 4 < 2;
      work(s);
      if (s.residual || s.shape.height < 2 || s.shape.width < 2) return;
      s.pooled = true;
      s.in_place = false;
      work(s);
    };
    for (const Element element : all_elements) {
      for (const Images& shape : shapes) {
        for (const auto& o : some) {
          Setting s;
          s.element = element;
          s.shape = shape;
          s.kind = o.kind;
          s.slope = o.slope;
          s.residual = o.residual;
          try_one(s);
        }
      }
      for (const Images& shape : {Images{3, 6, 5, 64}, Images{5, 3, 3, 10}}) {
        for (const Kind kind : {Kind::nothing, Kind::bias, Kind::batch, Kind::running}) {
          for (const float slope : {0.0f, 0.1f, 1.0f}) {
            for (const bool residual : {false, true}) {
              Setting s;
              s.element = element;
              s.shape = shape;
              s.kind = kind;
              s.slope = slope;
              s.residual = residual;
              try_one(s);
            }
          }
        }
      }
    }
  }
};

TEST_F(KernelsNormalize, ForwardIsThePlainLoop) {
  over_settings([&](const Setting& s) { check_forward(Layer(random_, s)); });
}

TEST_F(KernelsNormalize, FirstPassOfTheGradientIsThePlainLoop) {
  int count = 0;
  over_settings([&](const Setting& s) {
    check_backward_sums(Layer(random_, s), s.in_place || ++count % 2 == 0);
  });
}

TEST_F(KernelsNormalize, SecondPassOfTheGradientIsThePlainLoop) {
  int count = 0;
  over_settings([&](Setting s) {
    if (s.kind == Kind::nothing || s.kind == Kind::bias) return;
    // With a residual the first pass has written dz already.
    if (s.residual) s.slope = 1;
    s.residual = false;
    check_backward(Layer(random_, s), ++count % 3 == 0);
  });
}

TEST_F(KernelsNormalize, GradientAloneNeedsNoScratch) {
  for (const Element element : all_elements) {
    Setting s;
    s.element = element;
    s.shape = {7, 5, 5, 48};
    s.kind = Kind::nothing;
    check_backward_sums(Layer(random_, s), true, false);
    s.pooled = true;
    check_backward_sums(Layer(random_, s), true, false);
  }
}

// Many blocks, and threads that walk over many rows.
TEST_F(KernelsNormalize, LargeBatches) {
  for (const Element element : all_elements) {
    Setting s;
    s.element = element;
    s.shape = {128, 16, 17, 64};
    check_forward(Layer(random_, s));
    check_backward_sums(Layer(random_, s), false);
    check_backward(Layer(random_, s), false);
    s.pooled = true;
    check_forward(Layer(random_, s));
    check_backward_sums(Layer(random_, s), true);
    check_backward(Layer(random_, s), false);
  }
}

void check_moments(std::mt19937& random, Element element, const Images& shape, float center,
                   float std_dev, bool misaligned) {
  SCOPED_TRACE(name_of(element) + (misaligned ? " misaligned" : ""));
  const std::vector<float> values =
      random_values(random, element, static_cast<std::size_t>(shape.size()), std_dev, center);
  const Tensor x(element, values, misaligned);
  expect_moments(random, shape, true, [&](const BatchMoments& moments) {
    check(batch_moments(element, shape, x.data(), moments, nullptr));
    return values;
  });
}

// Two sums per channel of each of the 396 blocks of a convolution, or of 264 blocks and 64
// channels; 65 to 128 channels are two groups of half as many blocks.
TEST(KernelsNormalizeScratch, WhatSufficesForManyChannelsSufficesForFewer) {
  EXPECT_EQ(channel_sums_floats(64), 2u * 396 * 64);
  EXPECT_EQ(channel_sums_floats(128), 2u * 396 * 128);
  EXPECT_GE(channel_sums_floats(192), 2u * 264 * 64);
  for (int channels = 2; channels <= 2048; ++channels) {
    ASSERT_GE(channel_sums_floats(channels), channel_sums_floats(channels - 1)) << channels;
  }
}

TEST_F(KernelsNormalize, MomentsArePlainSums) {
  const Images shapes[] = {{37, 7, 7, 16},  {3, 6, 5, 64},   {5, 3, 3, 10},     {1, 1, 1, 3},
                           {500, 1, 1, 1},  {2, 5, 5, 300},  {2, 3, 2, 2056},   {37, 1, 1, 24},
                           {1, 1, 1, 512},  {2, 2, 2, 65},   {128, 16, 17, 64}, {300, 10, 9, 3},
                           {65, 9, 9, 512}, {100, 9, 7, 12}, {2, 1, 1, 8},      {3, 1, 1, 136}};
  bool misaligned = false;
  for (const Element element : all_elements) {
    for (const Images& shape : shapes) {
      check_moments(random_, element, shape, 0.5f, 2, misaligned);
      misaligned = !misaligned;
    }
  }
}

// Where E[x^2] - E[x]^2 in fp32 would cancel completely.
TEST_F(KernelsNormalize, VarianceFarFromZero) {
  for (const Element element : all_elements) {
    const float std_dev = element == Element::bf16 ? 20 : 1;  // bf16 has steps of 4 there
    check_moments(random_, element, {64, 9, 9, 16}, 1000, std_dev, false);
    check_moments(random_, element, {64, 9, 9, 3}, -1000, std_dev, false);
  }
}

TEST_F(KernelsNormalize, MomentsOfAConstant) {
  const Images shape{5, 4, 4, 8};
  const std::vector<float> values(static_cast<std::size_t>(shape.size()), 3);
  const Tensor x(Element::bf16, values, false);
  const Scratch scratch(8);
  const Device<float> mean(std::size_t{8});
  const Device<float> inv_std(std::size_t{8});
  check(batch_moments(
      Element::bf16, shape, x.data(),
      {.mean = mean.data(), .inv_std = inv_std.data(), .epsilon = 0.25f, .scratch = scratch.get()},
      nullptr));
  EXPECT_EQ(mean.values(), std::vector<float>(8, 3));
  EXPECT_EQ(inv_std.values(), std::vector<float>(8, 2));
}

TEST_F(KernelsNormalize, RunningStatisticsStayOnceAStepWasNotFinite) {
  const Images shape{5, 4, 4, 8};
  const auto size = static_cast<std::size_t>(shape.size());
  const Tensor x(Element::f32, random_values(random_, Element::f32, size), false);
  const std::vector<float> before = random_values(random_, Element::f32, 8);
  for (const std::int64_t first_non_finite : {-1, 3}) {
    StepState state;
    state.first_non_finite = first_non_finite;
    const Device<StepState> on_device(state);
    const Scratch scratch(8);
    const Device<float> mean(std::size_t{8});
    const Device<float> inv_std(std::size_t{8});
    const Device<float> running_mean(before);
    const Device<float> running_var(before);
    check(batch_moments(Element::f32, shape, x.data(),
                        {mean.data(), inv_std.data(), running_mean.data(), running_var.data(),
                         1e-5f, 0.1f, on_device.data(), scratch.get()},
                        nullptr));
    EXPECT_EQ(running_mean.values() == before, first_non_finite >= 0);
    EXPECT_EQ(running_var.values() == before, first_non_finite >= 0);
    for (const float value : mean.values()) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_F(KernelsNormalize, MomentsOfWhatIsNotFinite) {
  for (const Images& shape : {Images{6, 5, 5, 8}, Images{6, 5, 5, 3}}) {
    const auto channels = static_cast<std::size_t>(shape.channels);
    std::vector<float> values =
        random_values(random_, Element::f32, static_cast<std::size_t>(shape.size()));
    values[0] = std::numeric_limits<float>::quiet_NaN();  // channel 0, the shift itself
    values[5 * channels + 1] = std::numeric_limits<float>::infinity();
    values[6 * channels + 2] = 3e30f;  // its square overflows
    const Tensor x(Element::f32, values, false);
    const Scratch scratch(shape.channels);
    const Device<float> mean(channels);
    const Device<float> inv_std(channels);
    const Device<float> running_mean(std::vector<float>(channels, 0));
    const Device<float> running_var(std::vector<float>(channels, 1));
    check(batch_moments(Element::f32, shape, x.data(),
                        {mean.data(), inv_std.data(), running_mean.data(), running_var.data(),
                         1e-5f, 0.1f, nullptr, scratch.get()},
                        nullptr));
    EXPECT_TRUE(std::isnan(mean.values()[0]));
    EXPECT_TRUE(std::isnan(inv_std.values()[0]));
    EXPECT_TRUE(std::isnan(running_var.values()[0]));
    EXPECT_FALSE(std::isfinite(mean.values()[1]));
    EXPECT_TRUE(std::isnan(inv_std.values()[1]));
    EXPECT_TRUE(std::isfinite(mean.values()[2]));
    EXPECT_TRUE(std::isfinite(running_var.values()[2]));
  }
}

// A NaN and infinities in a residual block, and in the windows of a pooling.
TEST_F(KernelsNormalize, WhatIsNotFiniteStaysSo) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (const Element element : all_elements) {
    for (const int channels : {16, 3}) {
      for (const bool pooled : {false, true}) {
        for (const float slope : {0.1f, 1.0f}) {
          Setting s;
          s.element = element;
          s.shape = {3, 4, 5, channels};
          s.kind = Kind::bias;  // a negative weight would change the sign of an infinity
          s.slope = slope;
          s.pooled = pooled;
          Layer layer(random_, s);
          const auto at = [&](int row, int column, int c) {
            return static_cast<std::size_t>((row * 5 + column) * channels + c);
          };
          layer.x[at(0, 0, 0)] = nan;   // first in its window
          layer.x[at(1, 3, 1)] = nan;   // last in its window
          layer.x[at(0, 1, 2)] = inf;   // the maximum
          layer.x[at(2, 0, 0)] = -inf;  // not the maximum
          layer.x[at(2, 2, 1)] = inf;   // a NaN is larger
          layer.x[at(2, 3, 1)] = nan;
          layer.x[at(3, 2, 1)] = inf;
          check_forward(layer);
          check_backward_sums(layer, true);
        }
      }
    }
  }
}

// Equal values in all of a window, or in its last three.
TEST_F(KernelsNormalize, TheFirstOfEqualValuesIsTheMaximum) {
  for (const Element element : all_elements) {
    for (const int channels : {16, 3}) {
      for (const float first : {1.0f, 0.5f, -1.0f}) {
        for (const Kind kind : {Kind::nothing, Kind::batch}) {
          Setting s;
          s.element = element;
          s.shape = {2, 5, 4, channels};
          s.kind = kind;
          s.slope = 0.1f;
          s.pooled = true;
          Layer layer(random_, s);
          layer.over_windows([&](std::size_t, const std::size_t(&at)[4]) {
            layer.x[at[0]] = first;
            for (int k = 1; k < 4; ++k) layer.x[at[k]] = 1;
          });
          check_forward(layer);
          check_backward_sums(layer, true);
          if (kind == Kind::batch) check_backward(layer, false);
        }
      }
    }
  }
}

TEST_F(KernelsNormalize, TheSameInputGivesTheSameBits) {
  Setting s;
  s.element = Element::bf16;
  s.shape = {128, 16, 16, 64};
  s.kind = Kind::batch;
  const std::size_t channels = 64;
  const Layer layer(random_, s);
  const DeviceNorm norm(layer);
  const Scratch scratch(64);
  const Tensor x(s.element, layer.x, false);
  const Tensor dy(s.element, layer.dy, false);
  std::vector<float> first;
  for (int repetition = 0; repetition < 5; ++repetition) {
    const Device<float> sums[4] = {Device<float>(channels), Device<float>(channels),
                                   Device<float>(channels), Device<float>(channels)};
    check(batch_moments(s.element, s.shape, x.data(),
                        {.mean = sums[0].data(),
                         .inv_std = sums[1].data(),
                         .epsilon = 1e-5f,
                         .scratch = scratch.get()},
                        nullptr));
    check(normalize_backward_sums(
        {s.element, s.shape, s.fusion(), norm.norm(), x.data(), dy.data()}, nullptr, nullptr,
        sums[2].data(), sums[3].data(), scratch.get(), nullptr));
    std::vector<float> all;
    for (const auto& sum : sums) {
      const std::vector<float> values = sum.values();
      all.insert(all.end(), values.begin(), values.end());
    }
    EXPECT_EQ(scratch.counter(), 0u);
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << "repetition " << repetition;
  }
}

// Where the forward pass gives 0 no gradient comes back, and elsewhere all of it, to the maximum if
// it pools: both passes compute the same z, so no element is in doubt.
TEST_F(KernelsNormalize, BackwardSeesTheMaximaAndSignsOfForward) {
  for (const Element element : {Element::f32, Element::bf16}) {
    Setting s;
    s.element = element;
    s.shape = {64, 8, 8, 32};
    s.kind = Kind::running;
    const Layer layer(random_, s);
    const DeviceNorm norm(layer);
    const Tensor x(element, layer.x, false);
    const auto forward = [&](const Images& out) {
      const Tensor y(element, out.size(), false);
      check(normalize_forward(element, s.shape, s.fusion(), norm.norm(), x.data(), nullptr,
                              y.data(), nullptr));
      return y.values();
    };
    const auto backward = [&](const Images& out) {
      const Tensor ones(element, std::vector<float>(static_cast<std::size_t>(out.size()), 1),
                        false);
      const Tensor dz(element, s.shape.size(), false);
      check(normalize_backward_sums(
          {element, s.shape, s.fusion(), norm.norm(), x.data(), ones.data()}, nullptr, dz.data(),
          nullptr, nullptr, {}, nullptr));
      return dz.values();
    };
    const std::vector<float> out = forward(s.shape);
    const std::vector<float> back = backward(s.shape);
    std::int64_t different = 0;
    for (std::size_t i = 0; i < out.size(); ++i) different += back[i] != (out[i] > 0 ? 1 : 0);
    EXPECT_EQ(different, 0);

    s.pooled = true;
    const Images small = pooled_shape(s.shape);
    const std::vector<float> maxima = forward(small);
    const std::vector<float> routed = backward(small);
    std::int64_t wrong = 0;
    std::int64_t positive = 0;
    for (std::int64_t i = 0; i < small.size(); ++i) {
      const std::int64_t channel = i % small.channels;
      const std::int64_t column = i / small.channels % small.width * 2;
      const std::int64_t row = i / small.channels / small.width * 2;  // of all images
      float most = 0;
      int taken = 0;
      for (const int k : {0, 1, 2, 3}) {
        const std::int64_t pixel = (row + k / 2) * s.shape.width + column + k % 2;
        const auto at = static_cast<std::size_t>(pixel * s.shape.channels + channel);
        most = std::max(most, out[at]);
        if (routed[at] == 0) continue;
        ++taken;
        wrong += routed[at] != 1 || out[at] != maxima[static_cast<std::size_t>(i)];
      }
      wrong += maxima[static_cast<std::size_t>(i)] != most;
      wrong += taken != (most > 0 ? 1 : 0);
      positive += most > 0;
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(positive, small.size() / 4);
    EXPECT_LT(positive, small.size());
  }
}

TEST_F(KernelsNormalize, WhatIsImpossibleIsAnError) {
  const Device<float> memory(std::size_t{64});
  const Scratch scratch(8);
  float* const p = memory.data();
  Norm norm;
  norm.weight = norm.bias = norm.mean = norm.inv_std = p;
  const auto moments = [&](const Images& shape) {
    return batch_moments(Element::f32, shape, p,
                         {.mean = p, .inv_std = p, .scratch = scratch.get()}, nullptr);
  };
  const auto forward = [&](const Images& shape, bool pooled, const void* residual) {
    return normalize_forward(Element::f32, shape, {0, pooled, false}, norm, p, residual, p,
                             nullptr);
  };
  const auto sums = [&](const Images& shape, const Fusion& fusion) {
    return normalize_backward_sums({Element::f32, shape, fusion, norm, p, p}, nullptr, nullptr, p,
                                   p, scratch.get(), nullptr);
  };
  for (const Images& none : {Images{0, 2, 2, 8}, Images{1, 0, 2, 8}, Images{1, 2, 0, 8},
                             Images{1, 2, 2, 0}, Images{-1, 2, 2, 8}}) {
    EXPECT_EQ(moments(none), cudaErrorInvalidValue);
    EXPECT_EQ(forward(none, false, nullptr), cudaErrorInvalidValue);
    EXPECT_EQ(sums(none, {}), cudaErrorInvalidValue);
  }
  EXPECT_EQ(forward({1, 1, 2, 8}, true, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(forward({1, 2, 2, 8}, true, p), cudaErrorInvalidValue);
  EXPECT_EQ(sums({1, 2, 1, 8}, {0, true, false}), cudaErrorInvalidValue);
  EXPECT_EQ(sums({1, 2, 2, 8}, {0, true, true}), cudaErrorInvalidValue);
  EXPECT_EQ(sums({1, 2, 2, 8}, {0, false, true}), cudaErrorInvalidValue);  // without y
  EXPECT_EQ(normalize_backward({Element::f32, {1, 2, 2, 8}, {}, {}, p, p}, false, p, p, p, nullptr),
            cudaErrorInvalidValue);  // without a batch norm
}

}  // namespace
}  // namespace preheat::kernels
