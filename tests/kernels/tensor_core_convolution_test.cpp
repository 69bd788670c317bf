// Small integers, whose sums are exact in any order, to the bit; and numbers of all sizes against
// sums in double.
#include "kernels/convolutions.h"
#include "kernels/device_test.h"
#include "kernels/moments.h"

namespace preheat::kernels {
namespace {

constexpr Element small_elements[] = {Element::bf16, Element::f16};

using Case = Convolution3x3;

// All pairs of channels. Images of one pixel, rows and columns alone; tiles of 32, 64 and 128
// columns that images fill, exceed and leave partly empty, and whose edges are within an image and
// between two; blocks that begin and end within an image, and that go on with the next tile.
const Case all_cases[] = {
    {{1, 1, 1, 16}, 16},   {{1, 7, 7, 64}, 64},   {{5, 7, 7, 64}, 64},   {{2, 7, 7, 32}, 64},
    {{3, 5, 13, 16}, 32},  {{1, 13, 5, 32}, 16},  {{2, 28, 28, 16}, 16}, {{1, 28, 28, 32}, 32},
    {{2, 14, 14, 32}, 64}, {{9, 3, 2, 64}, 32},   {{3, 9, 33, 64}, 16},  {{2, 6, 20, 16}, 64},
    {{40, 1, 3, 32}, 32},  {{1, 5, 129, 16}, 16}, {{33, 2, 1, 32}, 32},  {{3, 4, 32, 64}, 64}};

/// One of the two computations, on the device and in double; from x or dy, and w.
struct Pass {
  std::string name;
  std::size_t (*inputs)(const Case& c);
  std::size_t (*outputs)(const Case& c);
  Sums (*expected)(const Case& c, const std::vector<float>& from, const std::vector<float>& w);
  cudaError_t (*run)(Element element, const Images& shape, std::int32_t out, const void* from,
                     const void* w, void* to, cudaStream_t stream);
  std::int32_t (*channels)(const Case& c);  // that are summed over
};

cudaError_t convolution(Element element, const Images& shape, std::int32_t out, const void* x,
                        const void* w, void* y, cudaStream_t stream) {
  return tensor_core_convolution(element, shape, out, x, w, y, nullptr, stream);
}

const Pass passes[] = {
    {"y", [](const Case& c) { return c.x_size(); }, [](const Case& c) { return c.y_size(); },
     convolution_of, convolution, [](const Case& c) { return c.x.channels; }},
    {"dx", [](const Case& c) { return c.y_size(); }, [](const Case& c) { return c.x_size(); },
     data_gradient_of, tensor_core_data_gradient, [](const Case& c) { return c.out; }}};

class KernelsTensorCoreConvolution : public AsyncCopyTest {
 protected:
  // Calls work(element, case, pass) for all of them.
  template <class Work>
  void for_all(const Work& work) {
    for (const Element element : small_elements) {
      for (const Case& c : all_cases) {
        for (const Pass& pass : passes) {
          SCOPED_TRACE(name_of(element) + " " + pass.name + " of " + c.name());
          work(element, c, pass);
        }
      }
    }
  }

  static std::vector<float> result_of(Element element, const Case& c, const Pass& pass,
                                      const std::vector<float>& from, const std::vector<float>& w) {
    EXPECT_TRUE(tensor_cores_support(element, c.x, c.out));
    const DeviceElements device_from(element, from), device_w(element, w);
    const DeviceElements to(element, pass.outputs(c));
    check(pass.run(element, c.x, c.out, device_from.data(), device_w.data(), to.data(), nullptr));
    return to.values();
  }

  void expect_exact(Element element, const Case& c, const Pass& pass) {
    const std::vector<float> from = small_integers(pass.inputs(c));
    const std::vector<float> w = small_integers(c.weights());
    std::vector<float> expected;
    for (const double sum : pass.expected(c, from, w).values) {
      expected.push_back(rounded(element, static_cast<float>(sum)));
    }
    EXPECT_EQ(result_of(element, c, pass, from, w), expected);
  }

  std::vector<float> small_integers(std::size_t count) {
    std::vector<float> values(count);
    for (float& v : values) v = static_cast<float>(random_() % 5) - 2;
    return values;
  }
};

TEST_F(KernelsTensorCoreConvolution, OfSmallIntegersIsExact) {
  for_all(
      [&](Element element, const Case& c, const Pass& pass) { expect_exact(element, c, pass); });
}

// So many rows that each block has more of them than the ring buffer has stages; some go on with
// the next tile.
TEST_F(KernelsTensorCoreConvolution, OfManyRowsIsExact) {
  const Case c{{22, 265, 3, 64}, 16};
  for (const Pass& pass : passes) expect_exact(Element::bf16, c, pass);
}

TEST_F(KernelsTensorCoreConvolution, SumsInFp32AndInTheSameOrderEveryTime) {
  for_all([&](Element element, const Case& c, const Pass& pass) {
    const std::vector<float> from = random_values(random_, element, pass.inputs(c), 1, 0.5f);
    const std::vector<float> w = random_values(random_, element, c.weights());
    const Sums sums = pass.expected(c, from, w);
    const std::vector<float> found = result_of(element, c, pass, from, w);
    // Tensor cores cut off what does not fit into a sum: a unit in the last place for each of the
    // additions that one sum goes through, one for 16 channels of each tap, and one at the end.
    const double additions = 9.0 * pass.channels(c) / 16 + 1;
    expect_close(
        found, sums.values,
        [&](std::size_t i) {
          const double error = additions * 0x1p-23 * sums.sizes[i];
          return error + storage_error(element, std::abs(sums.values[i]) + error);
        },
        pass.name);
    EXPECT_TRUE(same_bits(result_of(element, c, pass, from, w), found));
  });
}

// Of what is stored in y, which is the same with and without them.
TEST_F(KernelsTensorCoreConvolution, TakesTheMomentsOfY) {
  const Pass& pass = passes[0];
  const auto check_case = [&](Element element, const Case& c) {
    SCOPED_TRACE(name_of(element) + " " + c.name());
    const std::vector<float> x = random_values(random_, element, c.x_size(), 1, 0.5f);
    const std::vector<float> w = random_values(random_, element, c.weights());
    const std::vector<float> without = result_of(element, c, pass, x, w);
    const DeviceElements device_x(element, x), device_w(element, w);
    Images y = c.x;
    y.channels = c.out;
    const auto run = [&](const BatchMoments& moments) {
      const DeviceElements to(element, c.y_size());
      check(tensor_core_convolution(element, c.x, c.out, device_x.data(), device_w.data(),
                                    to.data(), &moments, nullptr));
      EXPECT_TRUE(same_bits(to.values(), without));
      return without;
    };
    const std::vector<float> first = expect_moments(random_, y, false, run);
    EXPECT_TRUE(same_bits(expect_moments(random_, y, false, run), first));
  };
  for (const Element element : small_elements) {
    for (const Case& c : all_cases) check_case(element, c);
  }
  check_case(Element::bf16, {{22, 265, 3, 64}, 16});
}

TEST_F(KernelsTensorCoreConvolution, KeepsWhatIsNotFiniteWhereItIs) {
  const Case c{{3, 9, 9, 16}, 16};
  for (const Pass& pass : passes) {
    // A corner, an edge and the middle of the second image, whose neighbours in memory are in the
    // others.
    for (const std::int64_t pixel : {81, 81 + 40, 81 + 44, 81 + 80}) {
      std::vector<float> from(pass.inputs(c), 1.0f);
      from[pixel * 16 + 3] = INFINITY;
      const std::vector<float> w(c.weights(), 1.0f);
      const std::vector<float> found = result_of(Element::bf16, c, pass, from, w);
      for (std::int64_t at = 0; at < c.x.rows(); ++at) {
        const bool near = at / 81 == 1 && std::abs(at % 81 / 9 - pixel % 81 / 9) <= 1 &&
                          std::abs(at % 9 - pixel % 9) <= 1;
        ASSERT_EQ(std::isinf(found[at * 16]), near) << pass.name << " " << pixel << " " << at;
      }
    }
  }
}

TEST_F(KernelsTensorCoreConvolution, SaysWhatItDoesNotSupport) {
  const Images x{2, 4, 4, 32};
  EXPECT_TRUE(tensor_cores_support(Element::bf16, x, 32));
  EXPECT_FALSE(tensor_cores_support(Element::f32, x, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {2, 4, 4, 8}, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {2, 4, 4, 128}, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, x, 48));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {0, 4, 4, 32}, 32));
  EXPECT_FALSE(tensor_cores_support(Element::bf16, {1 << 20, 64, 64, 32}, 32));
  const DeviceElements images(Element::bf16, x.size() + 8);
  const DeviceElements w(Element::bf16, std::size_t{32} * 9 * 32);
  const void* shifted = static_cast<const std::uint8_t*>(images.data()) + 2;
  for (const Pass& pass : passes) {
    const auto run = [&](std::int32_t out, const void* from) {
      return pass.run(Element::bf16, x, out, from, w.data(), images.data(), nullptr);
    };
    EXPECT_EQ(run(48, images.data()), cudaErrorNotSupported);
    EXPECT_EQ(run(32, shifted), cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace preheat::kernels
