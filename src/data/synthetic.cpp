#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <vector>

#include "data/random.h"

namespace preheat {
namespace {

// All arithmetic is on integers. A class is a 4 x 4 grid of random grey values, interpolated
// bilinearly to 16 x 16 pixels, with wrap-around at the edges. An example is its class's picture,
// shifted cyclically by up to `max_shift` pixels each way, at a reduced contrast, with noise on
// every pixel.
constexpr std::uint64_t internal_seed = 0x70726568656174;
constexpr std::uint32_t grids_substream = 0;
constexpr std::uint32_t examples_substream = 1;
constexpr std::uint32_t grid = 4;
constexpr std::uint32_t side = 16;
constexpr std::uint32_t cell = side / grid;
constexpr std::uint32_t max_shift = 3;

using Picture = std::array<std::int32_t, side * side>;  // 0..255

Picture class_picture(std::uint32_t label) {
  std::array<std::int32_t, grid * grid> grey{};
  for (std::uint32_t i = 0; i < grey.size(); ++i) {
    const Random4 r =
        philox(internal_seed, RandomStream::synthetic_data, grids_substream, label * grid + i / 4);
    grey[i] = static_cast<std::int32_t>(r.value[i % 4] >> 24);
  }
  Picture picture{};
  for (std::uint32_t y = 0; y < side; ++y) {
    for (std::uint32_t x = 0; x < side; ++x) {
      std::uint32_t weights = 0;
      std::int32_t sum = 0;
      for (std::uint32_t dy = 0; dy < 2; ++dy) {
        for (std::uint32_t dx = 0; dx < 2; ++dx) {
          const std::uint32_t row = (y / cell + dy) % grid;
          const std::uint32_t column = (x / cell + dx) % grid;
          const std::uint32_t weight =
              (dy != 0 ? y % cell : cell - y % cell) * (dx != 0 ? x % cell : cell - x % cell);
          sum += static_cast<std::int32_t>(weight) * grey[row * grid + column];
          weights += weight;
        }
      }
      picture[y * side + x] = sum / static_cast<std::int32_t>(weights);
    }
  }
  return picture;
}

std::int32_t byte_sum(std::uint32_t word) {
  return static_cast<std::int32_t>((word & 255) + (word >> 8 & 255) + (word >> 16 & 255) +
                                   (word >> 24));
}

}  // namespace

Dataset generate_synthetic(std::int64_t first, std::int64_t count) {
  std::vector<Picture> pictures;
  for (std::uint32_t label = 0; label < synthetic_classes; ++label) {
    pictures.push_back(class_picture(label));
  }
  Dataset dataset{synthetic_shape, synthetic_classes, {}, {}};
  dataset.pixels.reserve(static_cast<std::size_t>(count * synthetic_shape.size()));
  for (std::int64_t example = first; example < first + count; ++example) {
    const auto draw = [&](std::uint32_t k) {
      return philox(internal_seed, RandomStream::synthetic_data, examples_substream,
                    static_cast<std::uint64_t>(example) << 8 | k);
    };
    const auto label = static_cast<std::size_t>(example % synthetic_classes);
    const Random4 whole = draw(0);
    const std::uint32_t dy = below(whole.value[0], 2 * max_shift + 1) + side - max_shift;
    const std::uint32_t dx = below(whole.value[1], 2 * max_shift + 1) + side - max_shift;
    const auto contrast = static_cast<std::int32_t>(128 + below(whole.value[2], 129));  // of 256
    Random4 noise{};
    for (std::uint32_t i = 0; i < side * side; ++i) {
      if (i % 4 == 0) noise = draw(1 + i / 4);
      const std::uint32_t y = (i / side + dy) % side;
      const std::uint32_t x = (i % side + dx) % side;
      const std::int32_t clean = (pictures[label][y * side + x] - 128) * contrast / 256 + 128;
      const std::int32_t noisy = clean + (byte_sum(noise.value[i % 4]) - 510) / 3;
      dataset.pixels.push_back(static_cast<std::uint8_t>(std::clamp(noisy, 0, 255)));
    }
    dataset.labels.push_back(static_cast<std::uint8_t>(label));
  }
  return dataset;
}

}  // namespace preheat
