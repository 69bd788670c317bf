// Shared by the tests of the kernels: device memory between guard words, poisoned with NaN until a
// kernel writes it, and comparisons with a reference in double. Random data differ in every run;
// the seed is in the message of a failure.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/launch.h"

namespace preheat::kernels {

inline void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(cudaGetErrorName(status)) + ": " +
                           cudaGetErrorString(status));
}

/// Whether new memory is left as it is, without guards: for tools that look at every access, and
/// for which it must be seen what no kernel has written.
inline const bool memory_is_watched = std::getenv("PREHEAT_LEAVE_UNWRITTEN") != nullptr;

/// Bytes on the device between two guards. New memory has all bits set: NaN in every
/// floating-point type.
class DeviceBytes {
 public:
  explicit DeviceBytes(std::size_t size) : size_(size) {
    check(cudaMalloc(&memory_, std::max<std::size_t>(1, size + 2 * guard)));
    if (!memory_is_watched) check(cudaMemset(memory_, 0xff, size + 2 * guard));
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  ~DeviceBytes() {
    EXPECT_TRUE(guards_hold()) << "a kernel wrote outside of its output";
    cudaFree(memory_);
  }
  void* data() const { return static_cast<std::uint8_t*>(memory_) + guard; }
  std::size_t size() const { return size_; }

 private:
  inline static const std::size_t guard = memory_is_watched ? 0 : 256;
  bool guards_hold() const {
    if (guard == 0) return true;
    std::vector<std::uint8_t> all(size_ + 2 * guard);
    if (cudaMemcpy(all.data(), memory_, all.size(), cudaMemcpyDeviceToHost) != cudaSuccess) {
      return false;
    }
    const auto untouched = [](std::uint8_t byte) { return byte == 0xff; };
    return std::all_of(all.begin(), all.begin() + guard, untouched) &&
           std::all_of(all.end() - guard, all.end(), untouched);
  }
  std::size_t size_;
  void* memory_ = nullptr;
};

/// An array of plain values on the device.
template <class T>
class Device {
 public:
  explicit Device(std::size_t count) : bytes_(count * sizeof(T)), count_(count) {}
  explicit Device(const std::vector<T>& values) : Device(values.size()) {
    check(cudaMemcpy(data(), values.data(), bytes_.size(), cudaMemcpyHostToDevice));
  }
  explicit Device(const T& value) requires(!std::is_integral_v<T> || sizeof(T) < 8)
      : Device(std::vector<T>{value}) {}
  T* data() const { return static_cast<T*>(bytes_.data()); }
  std::span<T> span() const { return {data(), count_}; }
  /// Waits for the kernels launched before.
  std::vector<T> values() const {
    std::vector<T> values(count_);
    check(cudaMemcpy(values.data(), data(), bytes_.size(), cudaMemcpyDeviceToHost));
    return values;
  }
  T value() const { return values().front(); }

 private:
  DeviceBytes bytes_;
  std::size_t count_;
};

/// A float as it is after storing it in an Element.
inline float rounded(Element element, float x) {
  switch (element) {
    case Element::f32:
      return x;
    case Element::bf16:
      return __bfloat162float(__float2bfloat16_rn(x));
    case Element::f16:
      return __half2float(__float2half_rn(x));
  }
  return x;
}

/// The relative error of storing a number in an Element: half a unit in the last place.
inline double unit_roundoff(Element element) {
  switch (element) {
    case Element::f32:
      return 0x1p-24;
    case Element::bf16:
      return 0x1p-8;
    case Element::f16:
      return 0x1p-11;
  }
  return 0;
}

/// The absolute error of storing x in an Element: below 2^-14 fp16 is subnormal, with fixed steps.
inline double storage_error(Element element, double x) {
  return unit_roundoff(element) * std::abs(x) + (element == Element::f16 ? 0x1p-25 : 0);
}

/// An array of Elements on the device, filled from floats and read back as floats.
class DeviceElements {
 public:
  DeviceElements(Element element, std::size_t count)
      : element_(element), count_(count), bytes_(count * bytes_of(element)) {}
  DeviceElements(Element element, const std::vector<float>& values)
      : DeviceElements(element, values.size()) {
    std::vector<std::uint8_t> stored(bytes_.size());
    for (std::size_t i = 0; i < count_; ++i) {
      if (element == Element::f32) {
        std::memcpy(&stored[4 * i], &values[i], 4);
      } else if (element == Element::bf16) {
        const __nv_bfloat16 x = __float2bfloat16_rn(values[i]);
        std::memcpy(&stored[2 * i], &x, 2);
      } else {
        const __half x = __float2half_rn(values[i]);
        std::memcpy(&stored[2 * i], &x, 2);
      }
    }
    check(cudaMemcpy(bytes_.data(), stored.data(), stored.size(), cudaMemcpyHostToDevice));
  }
  void* data() const { return bytes_.data(); }
  std::vector<float> values() const {
    std::vector<std::uint8_t> stored(bytes_.size());
    check(cudaMemcpy(stored.data(), bytes_.data(), stored.size(), cudaMemcpyDeviceToHost));
    std::vector<float> values(count_);
    for (std::size_t i = 0; i < count_; ++i) {
      if (element_ == Element::f32) {
        std::memcpy(&values[i], &stored[4 * i], 4);
      } else if (element_ == Element::bf16) {
        __nv_bfloat16 x;
        std::memcpy(&x, &stored[2 * i], 2);
        values[i] = __bfloat162float(x);
      } else {
        __half x;
        std::memcpy(&x, &stored[2 * i], 2);
        values[i] = __half2float(x);
      }
    }
    return values;
  }

 private:
  Element element_;
  std::size_t count_;
  DeviceBytes bytes_;
};

/// Normally distributed values, rounded to an Element.
inline std::vector<float> random_values(std::mt19937& random, Element element, std::size_t count,
                                        float std_dev = 1, float mean = 0) {
  std::normal_distribution<float> normal(mean, std_dev);
  std::vector<float> values(count);
  for (float& v : values) v = rounded(element, normal(random));
  return values;
}

/// Expects each value within bound(i) of the expected one; NaN equals NaN.
template <class Bound>
void expect_close(const std::vector<float>& actual, const std::vector<double>& expected,
                  const Bound& bound, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  int reported = 0;
  for (std::size_t i = 0; i < actual.size() && reported < 5; ++i) {
    const bool both_nan = std::isnan(actual[i]) && std::isnan(expected[i]);
    const bool same_infinity = std::isinf(expected[i]) && double{actual[i]} == expected[i];
    if (both_nan || same_infinity) continue;
    // If the expected value is infinite, a bound that grows with it would accept anything.
    if (!std::isfinite(expected[i]) || !(std::abs(double{actual[i]} - expected[i]) <= bound(i))) {
      ADD_FAILURE() << what << "[" << i << "] is " << actual[i] << ", expected " << expected[i]
                    << " to within " << bound(i);
      ++reported;
    }
  }
}

/// Whether two arrays are equal bit for bit, NaN included.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// An array on the device that is aligned to 16 bytes, or begins one element later.
class Placed {
 public:
  Placed(Element element, std::vector<float> values, bool shifted)
      : lead_(shifted ? 1 : 0),
        offset_(lead_ * bytes_of(element)),
        has_values_(true),
        elements_(element, [&] {
          values.insert(values.begin(), lead_, 0.0f);
          return values;
        }()) {}
  Placed(Element element, std::size_t size, bool shifted)
      : lead_(shifted ? 1 : 0),
        offset_(lead_ * bytes_of(element)),
        elements_(element, size + lead_) {}
  void* data() const { return static_cast<std::uint8_t*>(elements_.data()) + offset_; }
  std::vector<float> values() const {
    std::vector<float> values = elements_.values();
    if (has_values_ && lead_ > 0) {
      EXPECT_EQ(values.front(), 0) << "written before its begin";
    }
    values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(lead_));
    return values;
  }

 private:
  std::size_t lead_;
  std::size_t offset_;
  bool has_values_ = false;
  DeviceElements elements_;
};

inline constexpr Element all_elements[] = {Element::f32, Element::bf16, Element::f16};

inline std::string name_of(Element element) {
  return element == Element::f32 ? "f32" : element == Element::bf16 ? "bf16" : "f16";
}

/// Calls work(element, shape) for all elements and shapes.
template <class Work>
void for_all(std::span<const Images> shapes, const Work& work) {
  for (const Element element : all_elements) {
    for (const Images& shape : shapes) {
      SCOPED_TRACE(name_of(element) + " " + std::to_string(shape.batch) + "x" +
                   std::to_string(shape.height) + "x" + std::to_string(shape.width) + "x" +
                   std::to_string(shape.channels));
      work(element, shape);
    }
  }
}

/// The fixture of all kernel tests. Skips, visibly, if there is no device.
class KernelTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(status);
    }
  }
  void TearDown() override {
    if (!IsSkipped()) check(cudaDeviceSynchronize());
  }

  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
  testing::ScopedTrace trace_{__FILE__, __LINE__, "seed " + std::to_string(seed_)};
};

/// For kernels that copy asynchronously into shared memory. Skips if the device cannot.
class AsyncCopyTest : public KernelTest {
 protected:
  void SetUp() override {
    KernelTest::SetUp();
    if (IsSkipped()) return;
    int device = 0;
    int major = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major < 8) GTEST_SKIP() << "needs a device of compute capability 8.0 or later";
  }
};

}  // namespace preheat::kernels
