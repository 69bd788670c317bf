// Convolutions of few channels against loops in double. Sums of integers are exact in fp32 in any
// order, so a pixel that is left out or added twice cannot go unnoticed.
#include <limits>

#include "kernels/convolutions.h"
#include "kernels/device_test.h"
#include "kernels/moments.h"

namespace preheat::kernels {
namespace {

constexpr double u = 0x1p-24;  // of fp32 arithmetic

// A thread sums at most 200 products here; the sums over slots and blocks follow.
constexpr double gradient_error = 300 * u;

FewChannels convolution(std::int64_t batch, std::int32_t height, std::int32_t width,
                        std::int32_t channels, std::int32_t stored, std::int32_t outputs,
                        std::int32_t kernel, std::int32_t stride, std::int32_t padding) {
  const auto size = [&](std::int32_t n) { return (n + 2 * padding - kernel) / stride + 1; };
  return {{batch, height, width, stored},
          {batch, size(height), size(width), outputs},
          channels,
          kernel,
          stride,
          padding};
}

// The first layers of the networks; sizes that do not fill strips, tiles or blocks; more columns
// than a tile has; numbers of channels that leave threads idle; and enough images for several
// strips in a tile, several such tiles in an image and several tiles in a block.
const FewChannels all_convolutions[] = {
    convolution(3, 28, 28, 1, 1, 32, 3, 1, 1),  convolution(2, 28, 28, 1, 8, 32, 3, 1, 1),
    convolution(3, 32, 32, 3, 8, 16, 3, 1, 1),  convolution(2, 32, 32, 3, 3, 16, 3, 1, 1),
    convolution(2, 13, 7, 2, 8, 24, 3, 1, 1),   convolution(1, 9, 45, 1, 4, 8, 3, 1, 0),
    convolution(1, 6, 70, 4, 8, 64, 3, 2, 1),   convolution(2, 17, 33, 1, 8, 32, 3, 2, 1),
    convolution(2, 15, 14, 1, 1, 40, 5, 1, 2),  convolution(1, 12, 37, 3, 8, 64, 5, 2, 2),
    convolution(1, 11, 10, 4, 4, 128, 3, 1, 1), convolution(1, 7, 9, 1, 8, 128, 5, 1, 0),
    convolution(1, 3, 3, 1, 1, 8, 3, 1, 0),     convolution(2, 1, 1, 1, 8, 8, 3, 1, 1),
    convolution(290, 9, 6, 2, 2, 16, 3, 2, 1),  convolution(1600, 34, 2, 1, 1, 8, 3, 1, 1),
    convolution(3200, 6, 3, 1, 8, 8, 5, 1, 2),  convolution(3200, 9, 2, 2, 2, 8, 3, 2, 1),
};

std::string name_of(const FewChannels& c) {
  const auto text = [](const Images& i) {
    return std::to_string(i.batch) + "x" + std::to_string(i.height) + "x" +
           std::to_string(i.width) + "x" + std::to_string(i.channels);
  };
  return text(c.x) + " (" + std::to_string(c.channels) + ") -> " + text(c.y) + ", kernel " +
         std::to_string(c.kernel) + " stride " + std::to_string(c.stride) + " padding " +
         std::to_string(c.padding);
}

std::size_t weights_of(const FewChannels& c) {
  return std::size_t{1} * c.y.channels * c.kernel * c.kernel * c.x.channels;
}

bool is_padding(const FewChannels& c, std::size_t i) {
  return static_cast<std::int32_t>(i % c.x.channels) >= c.channels;
}

// Calls work(element of x, of w, of y) for every product of the convolution.
template <class Work>
void for_all_products(const FewChannels& c, const Work& work) {
  for (std::int64_t pixel = 0; pixel < c.y.rows(); ++pixel) {
    const std::int64_t q = pixel % c.y.width;
    const std::int64_t p = pixel / c.y.width % c.y.height;
    const std::int64_t n = pixel / c.y.width / c.y.height;
    for (int r = 0; r < c.kernel; ++r) {
      for (int s = 0; s < c.kernel; ++s) {
        const std::int64_t row = p * c.stride + r - c.padding;
        const std::int64_t column = q * c.stride + s - c.padding;
        if (row < 0 || row >= c.x.height || column < 0 || column >= c.x.width) continue;
        const std::int64_t x = ((n * c.x.height + row) * c.x.width + column) * c.x.channels;
        for (std::int64_t k = 0; k < c.y.channels; ++k) {
          const std::int64_t w = ((k * c.kernel + r) * c.kernel + s) * c.x.channels;
          for (std::int32_t i = 0; i < c.channels; ++i) {
            work(x + i, w + i, pixel * c.y.channels + k);
          }
        }
      }
    }
  }
}

Sums forward_of(const FewChannels& c, const std::vector<float>& x, const std::vector<float>& w) {
  Sums y(c.y.size());
  for_all_products(c, [&](std::size_t i, std::size_t j, std::size_t k) {
    y.add(k, double{x[i]} * double{w[j]});
  });
  return y;
}

Sums gradient_of(const FewChannels& c, const std::vector<float>& x, const std::vector<float>& dy) {
  Sums dw(weights_of(c));
  for_all_products(c, [&](std::size_t i, std::size_t j, std::size_t k) {
    dw.add(j, double{x[i]} * double{dy[k]});
  });
  return dw;
}

class KernelsFewChannels : public KernelTest {
 protected:
  // Calls work(element, convolution) for all elements and convolutions.
  template <class Work>
  void for_all(const Work& work) {
    for (const Element element : all_elements) {
      for (const FewChannels& c : all_convolutions) {
        SCOPED_TRACE(kernels::name_of(element) + " " + name_of(c));
        work(element, c);
      }
    }
  }

  std::vector<float> normal(Element element, std::size_t size) {
    return random_values(random_, element, size);
  }

  std::vector<float> whole_numbers(std::size_t size) {
    std::vector<float> values(size);
    for (float& v : values) v = static_cast<float>(static_cast<int>(random_() % 5) - 2);
    return values;
  }

  // The padding of x and w is never read, so it may be NaN.
  std::vector<float> with_padding(const FewChannels& c, std::vector<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (is_padding(c, i)) values[i] = std::nanf("");
    }
    return values;
  }

  std::vector<float> run_forward(Element element, const FewChannels& c, const std::vector<float>& x,
                                 const std::vector<float>& w) {
    const DeviceElements device_x(element, with_padding(c, x));
    const DeviceElements device_w(element, with_padding(c, w));
    const DeviceElements y(element, c.y.size());
    check(few_channels_forward(element, c, device_x.data(), device_w.data(), y.data(), nullptr,
                               nullptr));
    return y.values();
  }

  std::vector<float> run_gradient(Element element, const FewChannels& c,
                                  const std::vector<float>& x, const std::vector<float>& dy) {
    const DeviceElements device_x(element, with_padding(c, x));
    const DeviceElements device_dy(element, dy);
    const DeviceElements dw(element, weights_of(c));
    const Device<std::uint8_t> workspace(few_channels_workspace_bytes(c));
    check(few_channels_weight_gradient(element, c, device_x.data(), device_dy.data(), dw.data(),
                                       workspace.data(), nullptr));
    return dw.values();
  }
};

TEST_F(KernelsFewChannels, Forward) {
  for_all([&](Element element, const FewChannels& c) {
    const std::vector<float> x = normal(element, c.x.size()), w = normal(element, weights_of(c));
    const Sums expected = forward_of(c, x, w);
    const std::vector<float> found = run_forward(element, c, x, w);
    expect_close(
        found, expected.values,
        [&](std::size_t i) {
          const double error = c.kernel * c.kernel * c.channels * u * expected.sizes[i];
          return error + storage_error(element, std::abs(expected.values[i]) + error);
        },
        "y");
    EXPECT_TRUE(same_bits(found, run_forward(element, c, x, w)));
  });
}

// Of what is stored in y, which is the same with and without them.
TEST_F(KernelsFewChannels, ForwardTakesTheMomentsOfY) {
  for_all([&](Element element, const FewChannels& c) {
    if (!few_channels_give_moments(element, c)) return;
    const std::vector<float> x = normal(element, c.x.size()), w = normal(element, weights_of(c));
    const std::vector<float> without = run_forward(element, c, x, w);
    const DeviceElements device_x(element, with_padding(c, x));
    const DeviceElements device_w(element, with_padding(c, w));
    const auto run = [&](const BatchMoments& moments) {
      const DeviceElements y(element, c.y.size());
      check(few_channels_forward(element, c, device_x.data(), device_w.data(), y.data(), &moments,
                                 nullptr));
      EXPECT_TRUE(same_bits(y.values(), without));
      return without;
    };
    const std::vector<float> first = expect_moments(random_, c.y, false, run);
    EXPECT_TRUE(same_bits(expect_moments(random_, c.y, false, run), first));
  });
}

TEST_F(KernelsFewChannels, SaysWhereItTakesMoments) {
  const FewChannels c = convolution(2, 9, 8, 1, 8, 16, 3, 1, 1);
  EXPECT_TRUE(few_channels_give_moments(Element::bf16, c));
  EXPECT_TRUE(few_channels_give_moments(Element::f16, c));
  EXPECT_FALSE(few_channels_give_moments(Element::f32, c));
  // The weights, the tile and the sums need more than 48 KiB of shared memory.
  const FewChannels wide = convolution(4000, 32, 32, 4, 8, 128, 3, 1, 1);
  EXPECT_TRUE(few_channels_supports(wide));
  EXPECT_FALSE(few_channels_give_moments(Element::bf16, wide));
  const BatchMoments moments;
  EXPECT_EQ(few_channels_forward(Element::f32, c, nullptr, nullptr, nullptr, &moments, nullptr),
            cudaErrorNotSupported);
}

TEST_F(KernelsFewChannels, WeightGradient) {
  for_all([&](Element element, const FewChannels& c) {
    const std::vector<float> x = normal(element, c.x.size()), dy = normal(element, c.y.size());
    const Sums expected = gradient_of(c, x, dy);
    const std::vector<float> found = run_gradient(element, c, x, dy);
    expect_close(
        found, expected.values,
        [&](std::size_t i) {
          const double error = gradient_error * expected.sizes[i];
          return error + storage_error(element, std::abs(expected.values[i]) + error);
        },
        "dw");
    EXPECT_TRUE(same_bits(found, run_gradient(element, c, x, dy)));
  });
}

TEST_F(KernelsFewChannels, WholeNumbersAreExact) {
  for_all([&](Element element, const FewChannels& c) {
    const std::vector<float> x = whole_numbers(c.x.size()), w = whole_numbers(weights_of(c)),
                             dy = whole_numbers(c.y.size());
    const auto stored = [&](const Sums& sums) {
      std::vector<float> values;
      for (const double v : sums.values) values.push_back(rounded(element, static_cast<float>(v)));
      return values;
    };
    EXPECT_EQ(run_forward(element, c, x, w), stored(forward_of(c, x, w)));
    EXPECT_EQ(run_gradient(element, c, x, dy), stored(gradient_of(c, x, dy)));
  });
}

TEST_F(KernelsFewChannels, TheGradientOfPaddingIsZeroToTheBit) {
  for_all([&](Element element, const FewChannels& c) {
    const std::vector<float> dw =
        run_gradient(element, c, normal(element, c.x.size()), normal(element, c.y.size()));
    for (std::size_t i = 0; i < dw.size(); ++i) {
      if (!is_padding(c, i)) continue;
      ASSERT_EQ(dw[i], 0) << i;
      ASSERT_FALSE(std::signbit(dw[i])) << i;
    }
  });
}

TEST_F(KernelsFewChannels, ANaNIsSeenWhereItIsAndNowhereElse) {
  const FewChannels c = convolution(2, 9, 8, 1, 8, 16, 3, 1, 1);
  for (const Element element : all_elements) {
    std::vector<float> x = normal(element, c.x.size());
    x[((9 + 4) * 8 + 5) * 8] = std::nanf("");  // image 1, row 4, column 5
    const std::vector<float> y = run_forward(element, c, x, normal(element, weights_of(c)));
    for (std::int64_t i = 0; i < c.y.size(); ++i) {
      const std::int64_t column = i / 16 % 8, row = i / 16 / 8 % 9, image = i / 16 / 8 / 9;
      EXPECT_EQ(std::isnan(y[i]),
                image == 1 && std::abs(row - 4) <= 1 && std::abs(column - 5) <= 1);
    }
    std::vector<float> dy = normal(element, c.y.size());
    dy[(8 + 3) * 16 + 7] = std::nanf("");  // channel 7 of an inner pixel of image 0
    const std::vector<float> dw = run_gradient(element, c, normal(element, c.x.size()), dy);
    for (std::size_t i = 0; i < dw.size(); ++i) {
      if (is_padding(c, i)) continue;
      EXPECT_EQ(std::isnan(dw[i]), i / (3 * 3 * 8) == 7) << i;
    }
  }
}

TEST_F(KernelsFewChannels, RefusesWhatItCannotCompute) {
  const FewChannels good = convolution(2, 9, 8, 1, 8, 16, 3, 1, 1);
  EXPECT_TRUE(few_channels_supports(good));
  const DeviceElements x(Element::f32, good.x.size()), w(Element::f32, weights_of(good)),
      y(Element::f32, good.y.size() + 1);
  const Device<std::uint8_t> workspace(few_channels_workspace_bytes(good));
  const auto refused = [&](const FewChannels& c, void* out) {
    return few_channels_forward(Element::f32, c, x.data(), w.data(), out, nullptr, nullptr) ==
               cudaErrorInvalidValue &&
           few_channels_weight_gradient(Element::f32, c, x.data(), out, w.data(), workspace.data(),
                                        nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_TRUE(refused(good, static_cast<float*>(y.data()) + 1));  // not aligned
  for (const auto& change : std::vector<void (*)(FewChannels&)>{
           [](FewChannels& c) { c.channels = 5; }, [](FewChannels& c) { c.channels = 0; },
           [](FewChannels& c) { c.x.channels = 0; }, [](FewChannels& c) { c.y.channels = 12; },
           [](FewChannels& c) { c.y.channels = 136; }, [](FewChannels& c) { c.kernel = 4; },
           [](FewChannels& c) { c.kernel = 7; }, [](FewChannels& c) { c.stride = 3; },
           [](FewChannels& c) { c.padding = -1; }, [](FewChannels& c) { c.y.batch = 1; },
           [](FewChannels& c) { c.x.batch = c.y.batch = 0; }}) {
    FewChannels c = good;
    change(c);
    EXPECT_FALSE(few_channels_supports(c)) << name_of(c);
    EXPECT_TRUE(refused(c, y.data())) << name_of(c);
  }
  // More weights than the threads of a block.
  EXPECT_FALSE(few_channels_supports(convolution(2, 9, 8, 3, 8, 128, 5, 1, 2)));
}

}  // namespace
}  // namespace preheat::kernels
