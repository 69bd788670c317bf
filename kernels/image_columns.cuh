// Tiles of images for tensor cores. The columns of all images of a batch lie side by side and a
// tile is some neighbouring columns, so no image width leaves part of a tile empty. A tile passes
// through shared memory row by row.
#pragma once

#include "async_copy.cuh"
#include "device.cuh"

namespace preheat::kernels {

/// A divisor of ints that are not negative. The quotient is a product and a shift, where the
/// hardware has no division.
class Divisor {
 public:
  explicit Divisor(int value) : value_(value), shift_(31) {
    while (std::int64_t{1} << (shift_ - 31) < value) ++shift_;
    multiplier_ = static_cast<unsigned>(((std::uint64_t{1} << shift_) + value - 1) / value);
  }
  __device__ operator int() const { return value_; }
  __device__ friend int operator/(int a, const Divisor& b) {
    return static_cast<int>((std::uint64_t{static_cast<unsigned>(a)} * b.multiplier_) >> b.shift_);
  }
  __device__ friend int operator%(int a, const Divisor& b) { return a - a / b * b.value_; }

 private:
  int value_;
  int shift_;
  unsigned multiplier_;  // 2^shift / value, rounded up
};

/// The columns of all images.
struct Extent {
  int columns;
  Divisor width;  // of an image
  Divisor height;

  explicit Extent(const Images& images)
      : columns(static_cast<int>(images.batch) * images.width),
        width(images.width),
        height(images.height) {}
  __device__ std::int64_t pixels() const { return std::int64_t{columns} * height; }
};

/// The byte offset of a chunk of 8 channels of a column in a row of a tile. The chunks within 128
/// bytes are swizzled so that the same chunk of 8 neighbouring columns is in different banks; the
/// next 16 channels are at the offset ^ 32.
template <int channels>
__device__ unsigned swizzled_offset(int column, int chunk) {
  constexpr int chunks = channels / 8;
  return static_cast<unsigned>((column * chunks + (chunk ^ column * chunks / 8 % chunks)) * 16);
}

/// Copies the same chunk of the same column of one row after another into shared memory.
template <class T, int channels>
class ColumnCopy {
 public:
  /// The next row is `row`. Returns the column's place in its image; -1 outside of the images,
  /// where everything is zero.
  __device__ int start(const Extent& extent, const T* images, int column, int chunk, int row) {
    inside_ = column >= 0 && column < extent.columns;
    const int image = inside_ ? column / extent.width : 0;
    const int x = inside_ ? column % extent.width : 0;
    const int pixel = (image * extent.height + row) * extent.width + x;
    from_ = images + std::int64_t{pixel} * channels + chunk * 8;
    return inside_ ? x : -1;
  }

  /// The same chunk of a column beside this one in the same image, or zeros. Before the copy.
  __device__ void copy_neighbour(int right, bool inside, unsigned to) const {
    copy_async(to, from_ + right * channels, inside);
  }

  __device__ void copy(const Extent& extent, unsigned to) {
    copy_async(to, from_, inside_);
    from_ += extent.width * channels;
  }

 private:
  const T* from_ = nullptr;
  bool inside_ = false;
};

/// Calls work.template operator()<channels>().
template <class Work>
cudaError_t with_channels(int channels, Work&& work) {
  switch (channels) {
    case 16:
      return work.template operator()<16>();
    case 32:
      return work.template operator()<32>();
    case 64:
      return work.template operator()<64>();
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace preheat::kernels
