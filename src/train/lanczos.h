// The eigenvalue of a symmetric matrix that is largest in magnitude, with its sign, by the Lanczos
// method: Golub and Van Loan 2013, "Matrix computations", section 10.1. The matrix is known only
// through its products with vectors. Vectors are fp32, sums over them double.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/random.h"

namespace preheat {

/// Of vectors of one size.
double dot(std::span<const float> a, std::span<const float> b);

/// In L2.
double norm(std::span<const float> v);

/// factor v.
std::vector<float> scaled(std::span<const float> v, double factor);

/// Fills `to` with standard normal numbers, bit-identical on every machine: a random start, but for
/// its norm.
void fill_with_normals(std::uint64_t seed, RandomStream stream, std::uint32_t substream,
                       std::span<float> to);

/// A v, for a v of norm 1. `number` counts the products from 0.
using MatrixProduct =
    std::function<std::vector<float>(std::span<const float> v, std::int64_t number)>;

struct Eigenpair {
  double value = 0;           // the Ritz value v A v; NaN if a product was not finite
  double residual = 0;        // |A v - value v| / |value|, bounds the relative error
  std::int64_t products = 0;  // that were taken
  std::vector<float> vector;  // v, the estimated eigenvector, of norm 1
  // After one more step of power iteration, which takes no more products: A v / value, scaled to
  // norm 1. It has the component outside the vectors tried, so that a search that starts from it
  // finds an eigenvector whose eigenvalue overtakes this one. Empty if `value` is 0.
  std::vector<float> next;
};

/// Starts from `start`, of norm 1, and stops when one more step of power iteration would change the
/// value by a relative `tolerance` at most, or after `max_products`. That change is at most twice
/// the residual squared: for v at a small angle a from u1 towards u2, residual = a (1 - l2/l1), and
/// change = a^2 (1 - l2/l1)(1 - (l2/l1)^2), where u1, u2 are the eigenvectors of l1, l2. So a start
/// that is still accurate costs one product.
Eigenpair largest_eigenpair(const MatrixProduct& times, std::vector<float> start, double tolerance,
                            std::int64_t max_products);

}  // namespace preheat
