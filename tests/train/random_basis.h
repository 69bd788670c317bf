#pragma once

#include <cmath>
#include <cstddef>
#include <numeric>
#include <random>
#include <vector>

namespace preheat {

/// `count` random orthonormal vectors, count <= size, by Gram-Schmidt in two passes.
inline std::vector<std::vector<double>> random_basis(std::mt19937_64& random, std::size_t count,
                                                     std::size_t size) {
  std::normal_distribution<double> normal;
  std::vector<std::vector<double>> basis;
  while (basis.size() < count) {
    std::vector<double> v(size);
    for (double& x : v) x = normal(random);
    for (int pass = 0; pass < 2; ++pass) {
      for (const auto& u : basis) {
        const double share = std::inner_product(u.begin(), u.end(), v.begin(), 0.0);
        for (std::size_t i = 0; i < size; ++i) v[i] -= share * u[i];
      }
    }
    const double length = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
    for (double& x : v) x /= length;
    basis.push_back(v);
  }
  return basis;
}

}  // namespace preheat
