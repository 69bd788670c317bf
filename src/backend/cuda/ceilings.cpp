#include "backend/cuda/ceilings.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#include "backend/cuda/float_16bit.h"
#include "backend/cuda/launch_timer.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/matmul.h"
#include "backend/update_check.h"
#include "kernels/launch.h"

namespace preheat::cuda {
namespace {

// Converts numbers to the device's storage type.
std::vector<std::uint8_t> stored(const std::vector<float>& values, kernels::Element element) {
  const std::size_t size = bytes_of(element);
  std::vector<std::uint8_t> bytes(values.size() * size);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t bits = element == kernels::Element::f32
                                   ? std::bit_cast<std::uint32_t>(values[i])
                                   : to_16bit(element, values[i]);
    std::memcpy(bytes.data() + i * size, &bits, size);  // little-endian: the low bytes come first
  }
  return bytes;
}

// Seconds of the fastest round: it is the one that shows a ceiling.
double least_seconds(const Stream& stream, const std::function<void()>& work) {
  constexpr int rounds = 7;
  constexpr std::int64_t steps = 4;
  const auto enqueue = [&] {
    for (std::int64_t i = 0; i < steps; ++i) work();
  };
  return 1e-6 * time_launches(stream, rounds, steps, enqueue).least;
}

double bytes_per_second(const Stream& stream) {
  constexpr std::int64_t size = std::int64_t{64} << 20;
  const Buffer<float> from(size);
  const Buffer<float> to(size);
  clear(from, stream);
  return 2.0 * sizeof(float) * size / least_seconds(stream, [&] {
           PREHEAT_CHECK(kernels::copy(from.data(), to.data(), size, stream.get()));
         });
}

double operations_per_second(const Stream& stream, Libraries& libraries, Precision precision) {
  constexpr std::int64_t n = 8192;
  const kernels::Element element = element_of(precision);
  const std::lock_guard lock(libraries.mutex);
  const Matmul product(libraries.cublas.get(),
                       {n, n, n, false, true, element, element, precision == Precision::tf32});
  const std::size_t bytes = n * n * bytes_of(element);
  const Buffer<std::uint8_t> a(bytes);
  const Buffer<std::uint8_t> b(bytes);
  const Buffer<std::uint8_t> c(bytes);
  const Buffer<std::uint8_t> workspace(product.workspace_bytes());
  // Uniform data toggles few bits, which heats the chip less and may raise its clock.
  const std::vector<std::uint8_t> noise = stored(UpdatePattern().weights, element);
  for (const auto* buffer : {&a, &b}) fill_with(noise, *buffer, stream);
  return 2.0 * n * n * n / least_seconds(stream, [&] {
           product.run(libraries.cublas.get(), a.data(), b.data(), c.data(), workspace.data(),
                       stream.get());
         });
}

}  // namespace

Ceilings measure_ceilings(Libraries& libraries, Precision precision) {
  const Stream stream = make_stream();
  return {bytes_per_second(stream), operations_per_second(stream, libraries, precision)};
}

}  // namespace preheat::cuda
