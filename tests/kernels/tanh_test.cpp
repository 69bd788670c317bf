// Against double, in place, at the packs that shapes and pointers allow.
#include <limits>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

constexpr double u = 0x1p-24;  // of fp32 arithmetic

// tanhf is within 2 ulp (CUDA C++ Programming Guide, mathematical functions), of 2 u each.
constexpr double forward_error = 4 * u;

// The sum with extra, the multiply-add and the product; the sum is relative to |dy| + |extra|.
constexpr double backward_error = 4 * u;

// 16 and 2056 channels are read 16 bytes at a time, 300 only in fp32; 1, 3 and 10 never.
const Images all_shapes[] = {{3, 8, 8, 16}, {4, 9, 9, 1},   {3, 6, 7, 3},
                             {7, 1, 1, 10}, {2, 3, 5, 300}, {1, 4, 4, 2056}};

class KernelsTanh : public KernelTest {};

TEST_F(KernelsTanh, Forward) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    // From where tanh is its argument to where it is 1.
    std::vector<float> z = random_values(random_, element, shape.size(), 3);
    for (std::size_t i = 0; i < z.size(); i += 5) z[i] = rounded(element, z[i] * 1e-3f);
    std::vector<double> expected(z.size());
    std::ranges::transform(z, expected.begin(), [](float v) { return std::tanh(double{v}); });
    std::vector<std::vector<float>> found;
    for (int launch = 0; launch < 2; ++launch) {
      const DeviceElements y(element, z);
      check(tanh_forward(element, shape, y.data(), nullptr));
      found.push_back(y.values());
    }
    expect_close(
        found[0], expected,
        [&](std::size_t i) {
          return forward_error * std::abs(expected[i]) +
                 storage_error(element, std::abs(expected[i]));
        },
        "tanh");
    EXPECT_TRUE(same_bits(found[0], found[1]));
  });
}

TEST_F(KernelsTanh, Gradient) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const bool with_extra : {false, true}) {
      const std::size_t size = shape.size();
      std::vector<float> y = random_values(random_, element, size);
      for (float& v : y) v = rounded(element, std::tanh(v));
      const std::vector<float> dy = random_values(random_, element, size);
      const std::vector<float> extra = random_values(random_, element, size);
      std::vector<double> expected(size), sizes(size);
      for (std::size_t i = 0; i < size; ++i) {
        const double more = with_extra ? double{extra[i]} : 0;
        const double slope = 1 - double{y[i]} * y[i];
        expected[i] = (dy[i] + more) * slope;
        sizes[i] = (std::abs(double{dy[i]}) + std::abs(more)) * slope;
      }
      const DeviceElements device_y(element, y), device_extra(element, extra), d(element, dy);
      check(tanh_backward(element, shape, device_y.data(),
                          with_extra ? device_extra.data() : nullptr, d.data(), nullptr));
      expect_close(
          d.values(), expected,
          [&](std::size_t i) {
            // 1 - y^2 is rounded once, however small it is.
            const double error = backward_error * sizes[i];
            return error + storage_error(element, std::abs(expected[i]) + error);
          },
          "gradient");
    }
  });
}

TEST_F(KernelsTanh, OfInfinityAndNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Element element : all_elements) {
    const Images shape{2, 1, 1, 16};
    std::vector<float> z(32, 0.0f);
    z[3] = infinity;
    z[9] = -infinity;
    z[20] = std::nanf("");
    const DeviceElements y(element, z);
    check(tanh_forward(element, shape, y.data(), nullptr));
    const std::vector<float> found = y.values();
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (i == 20) {
        EXPECT_TRUE(std::isnan(found[i]));
      } else {
        EXPECT_EQ(found[i], i == 3 ? 1 : i == 9 ? -1 : 0);
      }
    }
    // A saturated unit passes no gradient on, one that is NaN passes on NaN.
    const DeviceElements d(element, std::vector<float>(32, 2.0f));
    check(tanh_backward(element, shape, y.data(), nullptr, d.data(), nullptr));
    const std::vector<float> gradient = d.values();
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      if (i == 20) {
        EXPECT_TRUE(std::isnan(gradient[i]));
      } else {
        EXPECT_EQ(gradient[i], i == 3 || i == 9 ? 0 : 2);
      }
    }
  }
}

TEST_F(KernelsTanh, InMemoryThatIsNotAligned) {
  const Images shape{2, 3, 2, 32};
  for (const Element element : all_elements) {
    const std::vector<float> z = random_values(random_, element, shape.size());
    const DeviceElements y(element, z), d(element, z);
    check(tanh_forward(element, shape, y.data(), nullptr));
    check(tanh_backward(element, shape, y.data(), nullptr, d.data(), nullptr));
    const Placed shifted_y(element, z, true), shifted_d(element, z, true);
    check(tanh_forward(element, shape, shifted_y.data(), nullptr));
    check(tanh_backward(element, shape, shifted_y.data(), nullptr, shifted_d.data(), nullptr));
    EXPECT_TRUE(same_bits(shifted_y.values(), y.values()));
    EXPECT_TRUE(same_bits(shifted_d.values(), d.values()));
  }
}

}  // namespace
}  // namespace preheat::kernels
