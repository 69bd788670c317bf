// With small integers, whose sums are exact in fp32 in any order, bit for bit; with normal numbers,
// against sums in double.
#include "kernels/convolutions.h"
#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

constexpr Element small_elements[] = {Element::bf16, Element::f16};

using Case = Convolution3x3;

// All pairs of channels; images of one pixel, narrower and wider than a tile of 64, 32 or 16
// columns, and such that blocks begin in the middle of them. The last case has work for every
// possible block.
const Case all_cases[] = {{{1, 1, 1, 16}, 16},   {{1, 7, 7, 64}, 64},   {{2, 7, 7, 32}, 64},
                          {{3, 5, 13, 16}, 32},  {{1, 13, 5, 32}, 16},  {{1, 28, 28, 32}, 32},
                          {{5, 28, 28, 32}, 32}, {{2, 14, 14, 64}, 64}, {{2, 14, 14, 32}, 64},
                          {{9, 3, 2, 64}, 32},   {{3, 9, 33, 64}, 16},  {{2, 6, 20, 16}, 64},
                          {{40, 1, 3, 32}, 32},  {{1, 50, 65, 16}, 16}, {{136, 28, 28, 16}, 16}};

class KernelsTensorCoreWeightGradient : public AsyncCopyTest {
 protected:
  // Calls work(element, case) for all elements and cases.
  template <class Work>
  void for_all(const Work& work) {
    for (const Element element : small_elements) {
      for (const Case& c : all_cases) {
        SCOPED_TRACE(name_of(element) + " " + c.name());
        work(element, c);
      }
    }
  }

  static std::vector<float> gradient_of(Element element, const Case& c, const std::vector<float>& x,
                                        const std::vector<float>& dy) {
    EXPECT_TRUE(tensor_cores_support(element, c.x, c.out));
    const DeviceElements device_x(element, x), device_dy(element, dy);
    const DeviceElements dw(element, c.weights());
    const DeviceBytes workspace(tensor_core_weight_gradient_workspace_bytes(c.x, c.out));
    check(tensor_core_weight_gradient(element, c.x, c.out, device_x.data(), device_dy.data(),
                                      dw.data(), workspace.data(), nullptr));
    return dw.values();
  }

  std::vector<float> small_integers(std::int64_t count) {
    std::vector<float> values(count);
    for (float& v : values) v = static_cast<float>(random_() % 5) - 2;
    return values;
  }
};

TEST_F(KernelsTensorCoreWeightGradient, OfSmallIntegersIsExact) {
  for_all([&](Element element, const Case& c) {
    const std::vector<float> x = small_integers(c.x_size());
    const std::vector<float> dy = small_integers(c.y_size());
    std::vector<float> expected;
    for (const double sum : weight_gradient_of(c, x, dy).values) {
      expected.push_back(rounded(element, static_cast<float>(sum)));
    }
    EXPECT_EQ(gradient_of(element, c, x, dy), expected);
  });
}

TEST_F(KernelsTensorCoreWeightGradient, SumsInFp32AndInTheSameOrderEveryTime) {
  for_all([&](Element element, const Case& c) {
    const std::vector<float> x = random_values(random_, element, c.x_size(), 1, 0.5f);
    const std::vector<float> dy = random_values(random_, element, c.y_size());
    const Sums sums = weight_gradient_of(c, x, dy);
    const std::vector<float> found = gradient_of(element, c, x, dy);
    // Tensor cores truncate: each addition of a sum costs a unit in the last place. There is one
    // addition for 16 pixels, at most 3 for each row of a tile, and some for the units, blocks and
    // sharers.
    const double additions = static_cast<double>(c.x.rows()) / 16 + 3.0 * c.x.height + 150;
    expect_close(
        found, sums.values,
        [&](std::size_t i) {
          const double error = additions * 0x1p-23 * sums.sizes[i];
          return error + storage_error(element, std::abs(sums.values[i]) + error);
        },
        "dw");
    EXPECT_TRUE(same_bits(gradient_of(element, c, x, dy), found));
  });
}

TEST_F(KernelsTensorCoreWeightGradient, WhatIsOutsideOfAnImageIsZero) {
  for_all([&](Element element, const Case& c) {
    const std::vector<float> found = gradient_of(element, c, std::vector<float>(c.x_size(), 1.0f),
                                                 std::vector<float>(c.y_size(), 1.0f));
    for (std::int64_t i = 0; i < std::ssize(found); ++i) {
      const std::int64_t tap = i / c.x.channels % 9;
      const std::int64_t rows = c.x.height - (tap / 3 != 1);
      const std::int64_t columns = c.x.width - (tap % 3 != 1);
      const auto pixels = static_cast<float>(c.x.batch * rows * columns);
      ASSERT_EQ(found[i], rounded(element, pixels)) << i;
    }
  });
}

TEST_F(KernelsTensorCoreWeightGradient, SaysWhatItDoesNotSupport) {
  const Images x{2, 4, 4, 32};
  EXPECT_FALSE(tensor_cores_support(Element::f32, x, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {2, 4, 4, 8}, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, x, 48));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {0, 4, 4, 32}, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {1 << 20, 64, 64, 32}, 32));
  const DeviceElements images(Element::bf16, x.size() + 8);
  const DeviceBytes workspace(tensor_core_weight_gradient_workspace_bytes(x, 32));
  const DeviceElements dw(Element::bf16, std::size_t{32} * 9 * 32);
  const void* shifted = static_cast<const std::uint8_t*>(images.data()) + 2;
  EXPECT_EQ(tensor_core_weight_gradient(Element::bf16, x, 48, images.data(), images.data(),
                                        dw.data(), workspace.data(), nullptr),
            cudaErrorNotSupported);
  EXPECT_EQ(tensor_core_weight_gradient(Element::bf16, x, 32, shifted, images.data(), dw.data(),
                                        workspace.data(), nullptr),
            cudaErrorInvalidValue);
}

TEST(TensorCoreWeightGradientWorkspace, StaysSmallForEveryBatch) {
  for (const std::int64_t batch : {1, 128, 1024, 100'000}) {
    EXPECT_LE(tensor_core_weight_gradient_workspace_bytes({batch, 28, 28, 64}, 64),
              std::size_t{20} << 20);
  }
}

}  // namespace
}  // namespace preheat::kernels
