// Philox4x32-10, the counter-based generator behind every random choice. Each number is a pure
// function of (seed, stream, substream, position), so initial weights, epoch orders and
// augmentation are bit-identical on every machine and backend, and none depends on how many numbers
// another one drew.
// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace preheat {

/// What a number is drawn for. The values are fixed: changing one changes every run.
enum class RandomStream : std::uint32_t {
  initial_weights = 1,
  epoch_order = 2,
  augmentation = 3,
  synthetic_data = 4,
  sharpness_direction = 5,
  singular_vector = 6,
  bootstrap = 100,
  permutation = 101,
};

struct Random4 {
  std::uint32_t value[4];
};

/// Four uniform 32-bit words at `position` of the stream. `substream` separates the draws for
/// different tensors or epochs.
PREHEAT_HD inline Random4 philox(std::uint64_t seed, RandomStream stream, std::uint32_t substream,
                                 std::uint64_t position) {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(position),
                        static_cast<std::uint32_t>(position >> 32), substream,
                        static_cast<std::uint32_t>(stream)};
  std::uint32_t key[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key[0];
    c[1] = static_cast<std::uint32_t>(b);
    c[2] = static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key[1];
    c[3] = static_cast<std::uint32_t>(a);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

/// Calls visit(k, word) for the first `count` words of a substream, in order: word k % 4 at
/// position k / 4.
template <class Visit>
void for_words(std::uint64_t seed, RandomStream stream, std::uint32_t substream, std::int64_t count,
               const Visit& visit) {
  Random4 words{};
  for (std::int64_t k = 0; k < count; ++k) {
    if (k % 4 == 0) words = philox(seed, stream, substream, static_cast<std::uint64_t>(k / 4));
    visit(k, words.value[k % 4]);
  }
}

/// Maps a uniform word to 0..n-1 by multiply and shift, with a bias of at most n / 2^32.
PREHEAT_HD inline std::uint32_t below(std::uint32_t word, std::uint32_t n) {
  return static_cast<std::uint32_t>((std::uint64_t{word} * n) >> 32);
}

/// Uniform in (0, 1), never 0 or 1.
PREHEAT_HD inline double unit(std::uint32_t word) {
  return (word + 0.5) * 0x1p-32;
}

/// The standard normal quantile of u in (0, 1). Uses only +, -, *, /, sqrt and frexp, so that its
/// bits do not depend on the math library. Relative error below 1e-14.
/// Wichura 1988, "Algorithm AS 241: The percentage points of the normal distribution".
double normal_quantile(double u);

}  // namespace preheat
