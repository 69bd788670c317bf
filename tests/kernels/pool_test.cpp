// Maxima bit for bit, averages against sums in double.
#include <limits>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

constexpr double u = 0x1p-24;  // of fp32 arithmetic

// A lane adds up to 13 values here (20 x 20 positions over 32 lanes); 5 rounds over the lanes and a
// division follow. Relative to the mean of the absolute values.
constexpr double average_error = 24 * u;

// The sum with extra and the division.
constexpr double spread_error = 4 * u;

// 16, 32, 64 and 2056 channels are read 16 bytes at a time, 300 only in fp32; 1, 3 and 10 never.
const Images all_shapes[] = {{3, 8, 8, 16},   {2, 7, 5, 32}, {2, 6, 9, 64},  {4, 9, 9, 1},
                             {3, 6, 7, 3},    {2, 5, 5, 10}, {2, 3, 5, 300}, {1, 4, 4, 2056},
                             {5, 20, 20, 16}, {2, 20, 3, 3}, {1, 3, 3, 16}};

Images pooled(const Images& shape, std::int32_t kernel) {
  return {shape.batch, shape.height / kernel, shape.width / kernel, shape.channels};
}

// The index in x of place `at` in the window of element o of the pooled images.
std::int64_t element_at(const Images& shape, std::int32_t kernel, std::int64_t o, int at) {
  const Images out = pooled(shape, kernel);
  const std::int64_t c = o % out.channels;
  const std::int64_t column = o / out.channels % out.width * kernel + at % kernel;
  const std::int64_t row = o / out.channels / out.width % out.height * kernel + at / kernel;
  const std::int64_t image = o / out.channels / out.width / out.height;
  return ((image * shape.height + row) * shape.width + column) * shape.channels + c;
}

struct Maxima {
  std::vector<float> y;
  std::vector<std::uint8_t> at;
};

// The first of the largest values; a NaN is larger than everything.
Maxima maxima_of(const Images& shape, std::int32_t kernel, const std::vector<float>& x) {
  Maxima maxima;
  for (std::int64_t o = 0; o < pooled(shape, kernel).size(); ++o) {
    int at = 0;
    float largest = x[element_at(shape, kernel, o, 0)];
    for (int i = 1; i < kernel * kernel; ++i) {
      const float value = x[element_at(shape, kernel, o, i)];
      if (std::isnan(largest) || !(std::isnan(value) || value > largest)) continue;
      largest = value;
      at = i;
    }
    maxima.y.push_back(largest);
    maxima.at.push_back(static_cast<std::uint8_t>(at));
  }
  return maxima;
}

class KernelsPool : public KernelTest {
 protected:
  void expect_maxima(Element element, const Images& shape, std::int32_t kernel,
                     const std::vector<float>& x) {
    const Maxima expected = maxima_of(shape, kernel, x);
    const DeviceElements device_x(element, x);
    for (int launch = 0; launch < 2; ++launch) {
      const DeviceElements y(element, expected.y.size());
      const Device<std::uint8_t> at(expected.at.size());
      check(max_pool(element, shape, kernel, device_x.data(), y.data(), at.data(), nullptr));
      const std::vector<float> found = y.values();
      for (std::size_t o = 0; o < found.size(); ++o) {
        if (std::isnan(expected.y[o])) {
          ASSERT_TRUE(std::isnan(found[o])) << o;
        } else {
          ASSERT_EQ(found[o], expected.y[o]) << o;
        }
      }
      EXPECT_EQ(at.values(), expected.at);
    }
  }
};

TEST_F(KernelsPool, Maxima) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const std::int32_t kernel : {1, 2, 3}) {
      expect_maxima(element, shape, kernel, random_values(random_, element, shape.size()));
    }
  });
}

TEST_F(KernelsPool, OfEqualValuesTheFirst) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    std::vector<float> x(shape.size());
    for (float& v : x) v = static_cast<float>(random_() % 3);
    for (const std::int32_t kernel : {2, 3}) expect_maxima(element, shape, kernel, x);
  });
}

TEST_F(KernelsPool, ANaNIsLargerThanEverything) {
  const float infinity = std::numeric_limits<float>::infinity();
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const std::int32_t kernel : {2, 3}) {
      std::vector<float> x = random_values(random_, element, shape.size());
      // At most one NaN in a window: which of two counts is not specified.
      for (std::int64_t o = 0; o < pooled(shape, kernel).size(); ++o) {
        const auto place = static_cast<int>(random_() % static_cast<unsigned>(kernel * kernel));
        const auto other = static_cast<int>(random_() % static_cast<unsigned>(kernel * kernel));
        if (o % 3 == 0) x[element_at(shape, kernel, o, other)] = o % 2 == 0 ? infinity : -infinity;
        if (o % 4 == 0) x[element_at(shape, kernel, o, place)] = std::nanf("");
      }
      expect_maxima(element, shape, kernel, x);
    }
  });
}

TEST_F(KernelsPool, FromMemoryThatIsNotAligned) {
  for (const Element element : all_elements) {
    const Images shape{2, 7, 6, 32};
    const std::vector<float> x = random_values(random_, element, shape.size());
    const Placed device_x(element, x, true);
    const Maxima expected = maxima_of(shape, 2, x);
    const DeviceElements y(element, expected.y.size());
    const Device<std::uint8_t> at(expected.at.size());
    check(max_pool(element, shape, 2, device_x.data(), y.data(), at.data(), nullptr));
    EXPECT_TRUE(same_bits(y.values(), expected.y));
    EXPECT_EQ(at.values(), expected.at);
  }
}

TEST_F(KernelsPool, GradientsAndAveragesInMemoryThatIsNotAligned) {
  // -1: all pointers are aligned. One that is not must not be read 16 bytes at a time.
  const Images shape{2, 7, 6, 32};
  const std::size_t size = pooled(shape, 2).size();
  const std::size_t means = shape.batch * shape.channels;
  for (const Element element : all_elements) {
    const std::vector<float> x = random_values(random_, element, shape.size());
    const std::vector<float> dy = random_values(random_, element, size);
    const std::vector<float> extra = random_values(random_, element, size);
    std::vector<std::uint8_t> places(size + 1);
    for (std::uint8_t& place : places) place = static_cast<std::uint8_t>(random_() % 4);
    std::vector<std::vector<float>> found[3];
    for (const int shifted : {-1, 0, 1, 2, 3}) {
      const Placed device_x(element, x, shifted == 0);
      const Placed device_dy(element, dy, shifted == 0), device_extra(element, extra, shifted == 1);
      const Placed dx(element, static_cast<std::size_t>(shape.size()), shifted == 2);
      std::vector<std::uint8_t> stored(places.begin() + 1, places.end());
      if (shifted == 3) stored = places;
      const Device<std::uint8_t> at(stored);
      check(max_pool_backward(element, shape, 2, device_dy.data(), device_extra.data(),
                              at.data() + (shifted == 3 ? 1 : 0), dx.data(), nullptr));
      found[0].push_back(dx.values());
      const Placed y(element, means, shifted == 2);
      check(global_avg_pool(element, shape, device_x.data(), y.data(), nullptr));
      found[1].push_back(y.values());
      const Placed spread(element, static_cast<std::size_t>(shape.size()), shifted == 2);
      check(global_avg_pool_backward(element, shape, device_dy.data(), device_extra.data(),
                                     spread.data(), nullptr));
      found[2].push_back(spread.values());
    }
    for (const auto& launches : found) {
      for (const std::vector<float>& values : launches) {
        EXPECT_TRUE(same_bits(values, launches.front())) << name_of(element);
      }
    }
  }
}

TEST_F(KernelsPool, GradientsOfMaxima) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const std::int32_t kernel : {1, 2, 3}) {
      for (const bool with_extra : {false, true}) {
        const std::int64_t size = pooled(shape, kernel).size();
        const std::vector<float> dy = random_values(random_, element, size);
        const std::vector<float> extra = random_values(random_, element, size);
        std::vector<std::uint8_t> at(size);
        for (std::uint8_t& place : at) {
          place = static_cast<std::uint8_t>(random_() % static_cast<unsigned>(kernel * kernel));
        }
        std::vector<float> expected(shape.size(), 0.0f);
        for (std::int64_t o = 0; o < size; ++o) {
          expected[element_at(shape, kernel, o, at[o])] =
              rounded(element, with_extra ? dy[o] + extra[o] : dy[o]);
        }
        const DeviceElements device_dy(element, dy), device_extra(element, extra);
        const Device<std::uint8_t> device_at(at);
        for (int launch = 0; launch < 2; ++launch) {
          const DeviceElements dx(element, shape.size());
          check(max_pool_backward(element, shape, kernel, device_dy.data(),
                                  with_extra ? device_extra.data() : nullptr, device_at.data(),
                                  dx.data(), nullptr));
          EXPECT_EQ(dx.values(), expected) << "kernel " << kernel;
        }
      }
    }
  });
}

TEST_F(KernelsPool, Averages) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const float mean : {0.0f, 100.0f}) {
      const std::vector<float> x = random_values(random_, element, shape.size(), 1, mean);
      const std::int64_t positions = std::int64_t{shape.height} * shape.width;
      const std::size_t size = shape.batch * shape.channels;
      std::vector<double> expected(size), sizes(size);
      for (std::int64_t i = 0; i < shape.size(); ++i) {
        const std::int64_t image = i / shape.channels / positions;
        const std::int64_t o = image * shape.channels + i % shape.channels;
        expected[o] += double{x[i]} / static_cast<double>(positions);
        sizes[o] += std::abs(double{x[i]}) / static_cast<double>(positions);
      }
      const DeviceElements device_x(element, x);
      std::vector<std::vector<float>> found;
      for (int launch = 0; launch < 2; ++launch) {
        const DeviceElements y(element, size);
        check(global_avg_pool(element, shape, device_x.data(), y.data(), nullptr));
        found.push_back(y.values());
      }
      expect_close(
          found[0], expected,
          [&](std::size_t o) {
            const double error = average_error * sizes[o];
            return error + storage_error(element, std::abs(expected[o]) + error);
          },
          "average");
      EXPECT_TRUE(same_bits(found[0], found[1]));
    }
  });
}

TEST_F(KernelsPool, AnAverageWithANaNIsOne) {
  for (const Element element : all_elements) {
    const Images shape{3, 5, 9, 16};
    std::vector<float> x = random_values(random_, element, shape.size());
    x[(45 + 40) * 16 + 3] = std::nanf("");  // of image 1
    const DeviceElements device_x(element, x), y(element, std::size_t{3} * 16);
    check(global_avg_pool(element, shape, device_x.data(), y.data(), nullptr));
    const std::vector<float> found = y.values();
    for (std::size_t o = 0; o < found.size(); ++o) EXPECT_EQ(std::isnan(found[o]), o == 16 + 3);
  }
}

TEST_F(KernelsPool, GradientsOfAverages) {
  for_all(all_shapes, [&](Element element, const Images& shape) {
    for (const bool with_extra : {false, true}) {
      const std::int64_t positions = std::int64_t{shape.height} * shape.width;
      const std::size_t size = shape.batch * shape.channels;
      const std::vector<float> dy = random_values(random_, element, size);
      const std::vector<float> extra = random_values(random_, element, size);
      std::vector<double> expected(shape.size()), sizes(shape.size());
      for (std::int64_t i = 0; i < shape.size(); ++i) {
        const std::int64_t o = i / shape.channels / positions * shape.channels + i % shape.channels;
        const double more = with_extra ? double{extra[o]} : 0;
        expected[i] = (double{dy[o]} + more) / static_cast<double>(positions);
        sizes[i] = (std::abs(double{dy[o]}) + std::abs(more)) / static_cast<double>(positions);
      }
      const DeviceElements device_dy(element, dy), device_extra(element, extra);
      const DeviceElements dx(element, shape.size());
      check(global_avg_pool_backward(element, shape, device_dy.data(),
                                     with_extra ? device_extra.data() : nullptr, dx.data(),
                                     nullptr));
      expect_close(
          dx.values(), expected,
          [&](std::size_t i) {
            const double error = spread_error * sizes[i];
            return error + storage_error(element, std::abs(expected[i]) + error);
          },
          "dx");
    }
  });
}

TEST_F(KernelsPool, RefusesAWindowThatDoesNotFit) {
  const DeviceElements x(Element::f32, std::size_t{2} * 3 * 4 * 16);
  const Device<std::uint8_t> at(std::size_t{2} * 3 * 4 * 16);
  for (const std::int32_t kernel : {0, 4, 17}) {
    EXPECT_EQ(max_pool(Element::f32, {2, 3, 4, 16}, kernel, x.data(), x.data(), at.data(), nullptr),
              cudaErrorInvalidValue)
        << kernel;
  }
  // Only the width is too small.
  EXPECT_EQ(max_pool(Element::f32, {2, 4, 3, 16}, 4, x.data(), x.data(), at.data(), nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace preheat::kernels
