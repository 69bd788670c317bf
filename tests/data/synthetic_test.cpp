#include "data/synthetic.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace preheat {
namespace {

unsigned long checksum(const Dataset& data) {
  return crc32(0, data.pixels.data(), static_cast<unsigned>(data.pixels.size()));
}

const Dataset& train() {
  static const Dataset data = generate_synthetic(0, synthetic_train_size);
  return data;
}

const Dataset& test() {
  static const Dataset data = generate_synthetic(synthetic_train_size, synthetic_test_size);
  return data;
}

// Recorded from an implementation in Python that shares no code with this one.
TEST(Synthetic, HasTheRecordedBits) {
  EXPECT_EQ(checksum(train()), 0xc9ca6c3fU);
  EXPECT_EQ(checksum(test()), 0x8f1db0f9U);
}

TEST(Synthetic, AnExampleDependsOnItsNumberOnly) {
  const Dataset one = generate_synthetic(4095, 1);
  EXPECT_EQ(one.labels[0], train().labels[4095]);
  EXPECT_TRUE(std::equal(one.pixels.begin(), one.pixels.end(), train().pixels.end() - 256));
}

TEST(Synthetic, HasEveryClassEquallyOften) {
  std::array<int, 10> counts{};
  for (const std::uint8_t label : train().labels) ++counts.at(label);
  for (const int count : counts) EXPECT_NEAR(count, 409.5, 0.6);
}

TEST(Synthetic, CannotBeToldFromAnyOnePixel) {
  double best = 0;
  for (std::size_t pixel = 0; pixel < 256; ++pixel) {
    std::array<std::array<int, 10>, 16> counts{};
    for (std::size_t i = 0; i < train().labels.size(); ++i) {
      ++counts[train().pixels[i * 256 + pixel] / 16U][train().labels[i]];
    }
    int correct = 0;
    for (std::size_t i = 0; i < test().labels.size(); ++i) {
      const auto& bin = counts[test().pixels[i * 256 + pixel] / 16U];
      correct += std::max_element(bin.begin(), bin.end()) - bin.begin() == test().labels[i];
    }
    best = std::max(best, correct / double(synthetic_test_size));
  }
  EXPECT_LT(best, 0.3);
}

// Takes the class whose mean image correlates best over all shifts: a network can do at least that.
TEST(Synthetic, CanBeToldByComparingShiftedPictures) {
  std::vector<std::array<double, 256>> means(10);
  for (std::size_t i = 0; i < train().labels.size(); ++i) {
    for (std::size_t p = 0; p < 256; ++p) {
      means[train().labels[i]][p] += (train().pixels[i * 256 + p] - 128.0) / 409;
    }
  }
  for (auto& mean : means) {
    double square = 0;
    for (const double value : mean) square += value * value;
    for (double& value : mean) value /= std::sqrt(square);
  }
  int correct = 0;
  for (std::size_t i = 0; i < test().labels.size(); ++i) {
    double best = -1e300;
    std::size_t guess = 0;
    for (std::size_t label = 0; label < 10; ++label) {
      for (std::size_t shift = 0; shift < 49; ++shift) {
        const std::size_t dy = 13 + shift / 7;
        const std::size_t dx = 13 + shift % 7;
        double sum = 0;
        for (std::size_t y = 0; y < 16; ++y) {
          for (std::size_t x = 0; x < 16; ++x) {
            sum += means[label][(y + dy) % 16 * 16 + (x + dx) % 16] *
                   (test().pixels[i * 256 + y * 16 + x] - 128.0);
          }
        }
        if (sum > best) {
          best = sum;
          guess = label;
        }
      }
    }
    correct += guess == test().labels[i];
  }
  EXPECT_GT(correct / double(synthetic_test_size), 0.9);
}

}  // namespace
}  // namespace preheat
