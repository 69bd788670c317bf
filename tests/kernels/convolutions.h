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

/// Calls work(y, x, w) for every product of the convolution, with the indices of its elements in
/// y, x and w.
template <class Work>
void for_all_products(const Convolution3x3& c, const Work& work) {
  for (std::int64_t pixel = 0; pixel < c.x.rows(); ++pixel) {
    const std::int64_t column = pixel % c.x.width;
    const std::int64_t row = pixel / c.x.width % c.x.height;
    for (int tap = 0; tap < 9; ++tap) {
      const int down = tap / 3 - 1;
      const int right = tap % 3 - 1;
      if (row + down < 0 || row + down >= c.x.height) continue;
      if (column + right < 0 || column + right >= c.x.width) continue;
      const std::int64_t other = pixel + down * c.x.width + right;
      for (std::int64_t k = 0; k < c.out; ++k) {
        for (std::int64_t i = 0; i < c.x.channels; ++i) {
          work(pixel * c.out + k, other * c.x.channels + i, (k * 9 + tap) * c.x.channels + i);
        }
      }
    }
  }
}

inline Sums convolution_of(const Convolution3x3& c, const std::vector<float>& x,
                           const std::vector<float>& w) {
  Sums y(c.y_size());
  for_all_products(c, [&](std::int64_t to, std::int64_t from, std::int64_t weight) {
    y.add(to, double{x[from]} * w[weight]);
  });
  return y;
}

inline Sums data_gradient_of(const Convolution3x3& c, const std::vector<float>& dy,
                             const std::vector<float>& w) {
  Sums dx(c.x_size());
  for_all_products(c, [&](std::int64_t from, std::int64_t to, std::int64_t weight) {
    dx.add(to, double{dy[from]} * w[weight]);
  });
  return dx;
}

inline Sums weight_gradient_of(const Convolution3x3& c, const std::vector<float>& x,
                               const std::vector<float>& dy) {
  Sums dw(c.weights());
  for_all_products(c, [&](std::int64_t of_dy, std::int64_t of_x, std::int64_t to) {
    dw.add(to, double{dy[of_dy]} * x[of_x]);
  });
  return dw;
}

}  // namespace preheat::kernels
