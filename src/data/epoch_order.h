// The order of the examples in an epoch, and their augmentation.
#pragma once

#include <cstdint>
#include <vector>

#include "data/random.h"
#include "host_device.h"

namespace preheat {

/// A random permutation of 0..examples-1: a Fisher-Yates shuffle driven by Philox, and a pure
/// function of its arguments.
std::vector<std::uint32_t> epoch_order(std::uint64_t seed, std::uint32_t epoch,
                                       std::uint32_t examples);

/// A random crop of the padded image as an offset in pixels: output (y, x) reads input
/// (y + dy, x + dx), which outside the image is zero (after normalisation). Then the result is
/// mirrored left-right if `flip`.
struct CropFlip {
  std::int32_t dy = 0;
  std::int32_t dx = 0;
  bool flip = false;
};

/// The augmentation of one example in one epoch: dy and dx uniform in -crop_padding..crop_padding,
/// mirrored with probability 1/2 if `flip`.
PREHEAT_HD inline CropFlip crop_flip(std::uint64_t seed, std::uint32_t epoch, std::uint32_t example,
                                     std::int32_t crop_padding, bool flip) {
  const Random4 r = philox(seed, RandomStream::augmentation, epoch, example);
  const auto span = static_cast<std::uint32_t>(2 * crop_padding + 1);
  return {static_cast<std::int32_t>(below(r.value[0], span)) - crop_padding,
          static_cast<std::int32_t>(below(r.value[1], span)) - crop_padding,
          flip && (r.value[2] & 1) != 0};
}

}  // namespace preheat
