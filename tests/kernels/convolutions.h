// Shared by the tests of convolutions: sums in double, and 3 x 3 filters as plain loops.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/launch.h"

namespace preheat::kernels {

/// Sums of products, and of the absolute values of the products.
struct Sums {
  explicit Sums(std::size_t count) : values(count), sizes(count) {}
  void add(std::size_t at, double product) {
    values[at] += product;
    sizes[at] += std::abs(product);
  }
  std::vector<double> values, sizes;
};

/// A convolution with 3 x 3 filters at stride 1 and zero padding of one pixel.
struct Convolution3x3 {
  Images x;
  std::int32_t out;
  std::size_t x_size() const { return x.size(); }
  std::size_t y_size() const { return x.rows() * out; }
  std::size_t weights() const { return std::size_t{9} * out * x.channels; }
  std::string name() const {
    return std::to_string(x.batch) + "x" + std::to_string(x.height) + "x" +
           std::to_string(x.width) + "x" + std::to_string(x.channels) + " -> " +
           std::to_string(out);
  }
};

/// Calls work(pixel, tap, other) for every pixel of y and tap of a filter, `other` being the pixel
/// of x that the tap reads there.
template <class Work>
void for_all_taps(const Images& shape, const Work& work) {
  for (std::int64_t pixel = 0; pixel < shape.rows(); ++pixel) {
    const std::int64_t column = pixel % shape.width;
    const std::int64_t row = pixel / shape.width % shape.height;
    for (int tap = 0; tap < 9; ++tap) {
      const int down = tap / 3 - 1;
      const int right = tap % 3 - 1;
      if (row + down < 0 || row + down >= shape.height) continue;
      if (column + right < 0 || column + right >= shape.width) continue;
      work(pixel, tap, pixel + down * shape.width + right);
    }
  }
}

inline Sums convolution_of(const Convolution3x3& c, const std::vector<float>& x,
                           const std::vector<float>& w) {
  Sums y(c.y_size());
  for_all_taps(c.x, [&](std::int64_t pixel, int tap, std::int64_t other) {
    for (std::int32_t k = 0; k < c.out; ++k) {
      for (std::int32_t i = 0; i < c.x.channels; ++i) {
        y.add(pixel * c.out + k, double{x[other * c.x.channels + i]} *
                                     w[(std::int64_t{k} * 9 + tap) * c.x.channels + i]);
      }
    }
  });
  return y;
}

inline Sums data_gradient_of(const Convolution3x3& c, const std::vector<float>& dy,
                             const std::vector<float>& w) {
  Sums dx(c.x_size());
  for_all_taps(c.x, [&](std::int64_t pixel, int tap, std::int64_t other) {
    for (std::int32_t k = 0; k < c.out; ++k) {
      for (std::int32_t i = 0; i < c.x.channels; ++i) {
        dx.add(other * c.x.channels + i,
               double{dy[pixel * c.out + k]} * w[(std::int64_t{k} * 9 + tap) * c.x.channels + i]);
      }
    }
  });
  return dx;
}

inline Sums weight_gradient_of(const Convolution3x3& c, const std::vector<float>& x,
                               const std::vector<float>& dy) {
  Sums dw(c.weights());
  for_all_taps(c.x, [&](std::int64_t pixel, int tap, std::int64_t other) {
    for (std::int32_t k = 0; k < c.out; ++k) {
      for (std::int32_t i = 0; i < c.x.channels; ++i) {
        dw.add((std::int64_t{k} * 9 + tap) * c.x.channels + i,
               double{dy[pixel * c.out + k]} * x[other * c.x.channels + i]);
      }
    }
  });
  return dw;
}

}  // namespace preheat::kernels
