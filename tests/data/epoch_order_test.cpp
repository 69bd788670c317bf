#include "data/epoch_order.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <map>
#include <random>
#include <tuple>

namespace preheat {
namespace {

// philox() takes the parts of counter and key; the known-answer vectors give them as words.
Random4 philox_words(const std::uint32_t (&c)[4], const std::uint32_t (&key)[2]) {
  return philox(std::uint64_t{key[1]} << 32 | key[0], static_cast<RandomStream>(c[3]), c[2],
                std::uint64_t{c[1]} << 32 | c[0]);
}

void expect_words(const Random4& actual, const std::uint32_t (&expected)[4]) {
  for (int i = 0; i < 4; ++i) EXPECT_EQ(actual.value[i], expected[i]) << i;
}

// The vectors that the authors of the paper publish with their code (philox4x32, 10 rounds).
TEST(Random, GivesTheKnownAnswersOfPhilox) {
  expect_words(philox_words({0, 0, 0, 0}, {0, 0}),
               {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect_words(philox_words({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
               {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect_words(
      philox_words({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(Random, BelowAndUnitCoverTheirRangesAndNoMore) {
  EXPECT_EQ(below(0, 10), 0U);
  EXPECT_EQ(below(~0U, 10), 9U);
  EXPECT_EQ(below(~0U, 1), 0U);
  EXPECT_GT(unit(0), 0.0);
  EXPECT_LT(unit(~0U), 1.0);
}

TEST(EpochOrder, IsAPermutation) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  for (const std::uint32_t n : {0U, 1U, 2U, 3U, 4U, 5U, 17U, 1000U}) {
    std::vector<std::uint32_t> order = epoch_order(seed, 3, n);
    ASSERT_EQ(order.size(), n);
    std::sort(order.begin(), order.end());
    for (std::uint32_t i = 0; i < n; ++i) EXPECT_EQ(order[i], i);
  }
}

// Recorded from an implementation in Python that shares no code with this one.
TEST(EpochOrder, IsTheRecordedOne) {
  EXPECT_EQ(epoch_order(0, 0, 17),
            (std::vector<std::uint32_t>{15, 10, 6, 14, 9, 16, 13, 7, 4, 3, 12, 8, 1, 5, 11, 0, 2}));
  EXPECT_EQ(
      epoch_order(0x123456789abcdef0, 7, 18),
      (std::vector<std::uint32_t>{4, 7, 14, 13, 5, 15, 8, 17, 12, 11, 10, 3, 0, 6, 9, 16, 2, 1}));
  std::vector<std::uint8_t> bytes;  // little-endian
  for (const std::uint32_t value : epoch_order(5, 3, 1000)) {
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<std::uint8_t>(value >> shift));
    }
  }
  EXPECT_EQ(crc32(0, bytes.data(), static_cast<unsigned>(bytes.size())), 2636427538U);
}

TEST(EpochOrder, DiffersByEpochAndBySeed) {
  const auto order = epoch_order(1, 0, 100);
  EXPECT_EQ(order, epoch_order(1, 0, 100));
  EXPECT_NE(order, epoch_order(1, 1, 100));
  EXPECT_NE(order, epoch_order(2, 0, 100));
  EXPECT_NE(order, epoch_order(1 + (std::uint64_t{1} << 32), 0, 100));
}

TEST(EpochOrder, IsUniformOverAllPermutations) {
  const auto seed = std::random_device{}();
  std::map<std::vector<std::uint32_t>, int> counts;
  constexpr int epochs = 24000;
  for (std::uint32_t epoch = 0; epoch < epochs; ++epoch) ++counts[epoch_order(seed, epoch, 4)];
  ASSERT_EQ(counts.size(), 24U);
  double chi_square = 0;
  for (const auto& [order, count] : counts) {
    chi_square += (count - epochs / 24.0) * (count - epochs / 24.0) / (epochs / 24.0);
  }
  // With 23 degrees of freedom it exceeds 70 for one seed in a million.
  EXPECT_LT(chi_square, 70) << "seed " << seed;
}

TEST(CropFlip, StaysInRangeAndUsesAllOfIt) {
  const auto seed = std::random_device{}();
  std::map<int, int> rows;
  std::map<int, int> columns;
  int flips = 0;
  for (std::uint32_t example = 0; example < 2000; ++example) {
    const CropFlip crop = crop_flip(seed, 1, example, 2, true);
    ++rows[crop.dy];
    ++columns[crop.dx];
    flips += crop.flip;
    EXPECT_FALSE(crop_flip(seed, 1, example, 2, false).flip);
    EXPECT_EQ(crop_flip(seed, 1, example, 0, true).dy, 0);
  }
  for (const auto& counts : {rows, columns}) {
    ASSERT_EQ(counts.size(), 5U) << "seed " << seed;
    EXPECT_EQ(counts.begin()->first, -2);
    EXPECT_EQ(counts.rbegin()->first, 2);
    for (const auto& [offset, count] : counts) EXPECT_NEAR(count, 400, 110) << "seed " << seed;
  }
  EXPECT_NEAR(flips, 1000, 140) << "seed " << seed;
}

// Every row offset comes with every column offset, mirrored and not.
TEST(CropFlip, DrawsItsPartsIndependently) {
  const auto seed = std::random_device{}();
  constexpr int examples = 10000;
  std::map<std::tuple<int, int, bool>, int> counts;
  for (std::uint32_t example = 0; example < examples; ++example) {
    const CropFlip crop = crop_flip(seed, 1, example, 2, true);
    ++counts[{crop.dy, crop.dx, crop.flip}];
  }
  ASSERT_EQ(counts.size(), 50U) << "seed " << seed;
  double chi_square = 0;
  for (const auto& [drawn, count] : counts) {
    chi_square += (count - examples / 50.0) * (count - examples / 50.0) / (examples / 50.0);
  }
  // With 49 degrees of freedom it exceeds 112 for one seed in a million.
  EXPECT_LT(chi_square, 112) << "seed " << seed;
}

}  // namespace
}  // namespace preheat
