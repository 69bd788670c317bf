// A convolution in fp32 and its gradients: with small integers, whose sums are exact in any order,
// bit for bit; with normal numbers, against sums in double.
#include "kernels/convolutions.h"
#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

using Case = Convolution3x3;

// Images of one pixel, of single rows and columns; strips of 7 and of 8, full and partial; tiles
// that end within a row, within an image and after several images; few blocks, which are cut into
// slices, and enough that need no slices; all ways of splitting the channels.
const Case all_cases[] = {{{1, 1, 1, 16}, 16},   {{1, 7, 7, 64}, 64},     {{2, 7, 7, 32}, 64},
                          {{3, 5, 13, 16}, 32},  {{1, 13, 5, 32}, 16},    {{1, 28, 28, 32}, 32},
                          {{5, 28, 28, 32}, 32}, {{2, 14, 14, 64}, 64},   {{2, 14, 14, 32}, 64},
                          {{9, 3, 2, 64}, 32},   {{2, 9, 33, 64}, 16},    {{2, 6, 20, 16}, 64},
                          {{40, 1, 3, 32}, 32},  {{33, 16, 32, 16}, 16},  {{2, 8, 8, 48}, 96},
                          {{1, 3, 4, 128}, 128}, {{76, 28, 28, 16}, 32},  {{3, 4, 100, 16}, 16},
                          {{19, 1, 1, 64}, 32},  {{171, 14, 14, 16}, 32}, {{1, 6, 33, 32}, 32}};

struct Tensors {
  std::vector<float> x, w, dy;
};

Sums output_of(const Case& c, const Tensors& t) {
  return convolution_of(c, t.x, t.w);
}

Sums data_gradient_of(const Case& c, const Tensors& t) {
  return data_gradient_of(c, t.dy, t.w);
}

Sums weight_gradient_of(const Case& c, const Tensors& t) {
  return weight_gradient_of(c, t.x, t.dy);
}

/// One of the three computations, on the device and in double.
struct Pass {
  std::string name;
  Sums (*expected)(const Case& c, const Tensors& t);
  std::vector<float> (*found)(const Case& c, const Tensors& t);
  std::int64_t (*terms)(const Case& c);  // the number of terms of a sum
};

std::vector<float> run_convolution(const Case& c, const Tensors& t) {
  EXPECT_TRUE(fp32_convolution_supports(c.x, c.out));
  const Device<float> x(t.x), w(t.w), y(c.y_size());
  check(fp32_convolution(c.x, c.out, x.data(), w.data(), y.data(), nullptr));
  return y.values();
}

std::vector<float> run_data_gradient(const Case& c, const Tensors& t) {
  const Device<float> dy(t.dy), w(t.w), dx(c.x_size());
  check(fp32_data_gradient(c.x, c.out, dy.data(), w.data(), dx.data(), nullptr));
  return dx.values();
}

std::vector<float> run_weight_gradient(const Case& c, const Tensors& t) {
  EXPECT_TRUE(fp32_weight_gradient_supports(c.x, c.out));
  const Device<float> x(t.x), dy(t.dy), dw(c.weights());
  const DeviceBytes workspace(fp32_weight_gradient_workspace_bytes(c.x, c.out));
  check(
      fp32_weight_gradient(c.x, c.out, x.data(), dy.data(), dw.data(), workspace.data(), nullptr));
  return dw.values();
}

const Pass passes[] = {
    {"y", output_of, run_convolution, [](const Case& c) { return std::int64_t{9} * c.x.channels; }},
    {"dx", data_gradient_of, run_data_gradient,
     [](const Case& c) { return std::int64_t{9} * c.out; }},
    {"dw", weight_gradient_of, run_weight_gradient, [](const Case& c) { return c.x.rows(); }}};

class KernelsFp32Convolution : public AsyncCopyTest {
 protected:
  // Calls work(case, pass) for all cases and passes.
  template <class Work>
  void for_all(const Work& work) {
    for (const Case& c : all_cases) {
      for (const Pass& pass : passes) {
        SCOPED_TRACE(pass.name + " of " + c.name());
        work(c, pass);
      }
    }
  }

  template <class Number>
  Tensors tensors(const Case& c, const Number& number) {
    Tensors t{std::vector<float>(c.x_size()), std::vector<float>(c.weights()),
              std::vector<float>(c.y_size())};
    for (auto* values : {&t.x, &t.w, &t.dy}) {
      for (float& v : *values) v = number();
    }
    return t;
  }
};

TEST_F(KernelsFp32Convolution, OfSmallIntegersIsExact) {
  for_all([&](const Case& c, const Pass& pass) {
    const Tensors t = tensors(c, [&] { return static_cast<float>(random_() % 5) - 2; });
    const Sums sums = pass.expected(c, t);
    EXPECT_EQ(pass.found(c, t), std::vector<float>(sums.values.begin(), sums.values.end()));
  });
}

TEST_F(KernelsFp32Convolution, SumsInFp32AndInTheSameOrderEveryTime) {
  for_all([&](const Case& c, const Pass& pass) {
    std::normal_distribution<float> normal(0.25f, 1);
    const Tensors t = tensors(c, [&] { return normal(random_); });
    const Sums sums = pass.expected(c, t);
    const std::vector<float> found = pass.found(c, t);
    const double bound = static_cast<double>(pass.terms(c)) * 0x1p-24;
    expect_close(
        found, sums.values, [&](std::size_t i) { return bound * sums.sizes[i]; }, pass.name);
    EXPECT_TRUE(same_bits(pass.found(c, t), found));
  });
}

TEST_F(KernelsFp32Convolution, KeepsWhatIsNotFiniteWhereItIs) {
  const Case c{{2, 9, 9, 16}, 16};
  Tensors t = tensors(c, [] { return 1.0f; });
  t.x[(40 * 16) + 3] = INFINITY;  // in the middle of the first image
  const std::vector<float> y = run_convolution(c, t);
  for (std::int64_t pixel = 0; pixel < c.x.rows(); ++pixel) {
    const std::int64_t row = pixel / 9;
    const std::int64_t column = pixel % 9;
    const bool near = row >= 3 && row <= 5 && column >= 3 && column <= 5;
    ASSERT_EQ(std::isinf(y[pixel * 16]), near) << pixel;
  }
}

TEST_F(KernelsFp32Convolution, SaysWhatItDoesNotSupport) {
  const Images x{2, 4, 4, 32};
  EXPECT_TRUE(fp32_convolution_supports(x, 32));
  for (const auto& supports : {fp32_convolution_supports, fp32_weight_gradient_supports}) {
    EXPECT_FALSE(supports({2, 4, 4, 8}, 32));
    EXPECT_FALSE(supports(x, 40));
    EXPECT_FALSE(supports(x, 0));
    EXPECT_FALSE(supports({0, 4, 4, 32}, 32));
    EXPECT_FALSE(supports({1 << 20, 64, 64, 32}, 32));
    EXPECT_FALSE(supports({1, 4, 4000, 32}, 32));
  }
  const Device<float> images(std::size_t{2} * 4 * 4 * 32 + 8), w(std::size_t{32} * 9 * 32);
  const DeviceBytes workspace(fp32_weight_gradient_workspace_bytes(x, 32));
  const float* const shifted = images.data() + 1;
  EXPECT_EQ(fp32_convolution(x, 40, images.data(), w.data(), images.data(), nullptr),
            cudaErrorNotSupported);
  EXPECT_EQ(fp32_convolution(x, 32, shifted, w.data(), images.data(), nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(fp32_data_gradient(x, 32, shifted, w.data(), images.data(), nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(
      fp32_weight_gradient(x, 32, shifted, images.data(), w.data(), workspace.data(), nullptr),
      cudaErrorInvalidValue);
}

// The rows that a tile sees must fit into 99 KiB twice, with their lists: tiles of 16 strips of 7
// or 8 pixels and 16 channels, or of 8 strips and 32 channels.
TEST_F(KernelsFp32Convolution, TheWeightGradientSupportsImagesUpToAWidth) {
  struct Limit {
    std::int32_t channels, out, width;
  };
  for (const Limit& limit :
       {Limit{16, 16, 119}, {48, 96, 119}, {256, 16, 119}, {32, 32, 63}, {256, 256, 63}}) {
    for (const std::int32_t height : {2, 28}) {
      for (std::int32_t width = 1; width <= 1000; ++width) {
        EXPECT_EQ(fp32_weight_gradient_supports({3, height, width, limit.channels}, limit.out),
                  width <= limit.width)
            << height << " x " << width << " x " << limit.channels << " -> " << limit.out;
      }
    }
  }
  EXPECT_FALSE(fp32_weight_gradient_supports({3, 8, 8, 272}, 32));
  EXPECT_FALSE(fp32_weight_gradient_supports({3, 8, 8, 32}, 272));
}

TEST(Fp32WeightGradientWorkspace, StaysSmallForEveryBatch) {
  for (const std::int64_t batch : {1, 128, 1024, 100'000}) {
    for (const std::int32_t channels : {16, 48, 64, 256}) {
      EXPECT_LE(fp32_weight_gradient_workspace_bytes({batch, 28, 28, channels}, channels),
                std::size_t{10} << 20);
    }
  }
}

}  // namespace
}  // namespace preheat::kernels
