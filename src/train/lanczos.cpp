#include "train/lanczos.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

namespace preheat {
namespace {

// Lanczos vectors in memory; then Lanczos restarts. Even, so that a product that alternates goes on
// alternating from one basis to the next.
constexpr std::size_t max_basis = 30;
static_assert(max_basis % 2 == 0);

void subtract(std::vector<float>& v, double factor, std::span<const float> other) {
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = static_cast<float>(double{v[i]} - factor * double{other[i]});
  }
}

// A symmetric tridiagonal matrix and its eigenvalues.
class Tridiagonal {
 public:
  void add_row(double diagonal, double beside) {
    diagonal_.push_back(diagonal);
    off_diagonal_.push_back(beside);
  }
  std::size_t size() const { return diagonal_.size(); }

  struct Pair {
    double value;
    std::vector<double> vector;
  };

  // The eigenvalue largest in magnitude and its eigenvector, by Jacobi's method, which is fast
  // enough for at most a few dozen rows.
  Pair largest_pair() const {
    const std::size_t n = size();
    std::vector<std::vector<double>> a(n, std::vector<double>(n));
    std::vector<std::vector<double>> vectors = a;
    for (std::size_t i = 0; i < n; ++i) {
      a[i][i] = diagonal_[i];
      vectors[i][i] = 1;
      if (i + 1 < n) a[i][i + 1] = a[i + 1][i] = off_diagonal_[i];
    }
    // Rotations by less are lost in rounding: squares of their angles are.
    double largest = 0;
    for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(a[i][i]));
    const double negligible = 1e-30 * largest;
    constexpr int max_sweeps = 30;  // converges quadratically, in fewer than ten
    bool rotated = true;
    for (int sweep = 0; rotated && sweep < max_sweeps; ++sweep) {
      rotated = false;
      for (std::size_t p = 0; p + 1 < n; ++p) {
        for (std::size_t q = p + 1; q < n; ++q) {
          if (std::fabs(a[p][q]) <= negligible) continue;
          rotate(a, vectors, p, q);
          rotated = true;
        }
      }
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < n; ++i) {
      if (std::fabs(a[i][i]) > std::fabs(a[best][best])) best = i;
    }
    Pair pair{a[best][best], {}};
    for (std::size_t i = 0; i < n; ++i) pair.vector.push_back(vectors[i][best]);
    return pair;
  }

 private:
  // Rotates a[p][q], which is not zero, to zero. Golub and Van Loan 2013, "Matrix computations",
  // section 8.5.2.
  static void rotate(std::vector<std::vector<double>>& a, std::vector<std::vector<double>>& vectors,
                     std::size_t p, std::size_t q) {
    const double tau = (a[q][q] - a[p][p]) / (2 * a[p][q]);
    const double t = std::copysign(1 / (std::fabs(tau) + std::hypot(1, tau)), tau);
    const double c = 1 / std::hypot(1, t);
    const double s = t * c;
    const auto turn = [&](double& x, double& y) {
      const double was = x;
      x = c * was - s * y;
      y = s * was + c * y;
    };
    for (std::vector<double>& row : a) turn(row[p], row[q]);
    for (std::size_t i = 0; i < a.size(); ++i) turn(a[p][i], a[q][i]);
    for (std::vector<double>& row : vectors) turn(row[p], row[q]);
  }

  std::vector<double> diagonal_;
  std::vector<double> off_diagonal_;
};

}  // namespace

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double norm(std::span<const float> v) {
  return std::sqrt(dot(v, v));
}

std::vector<float> scaled(std::span<const float> v, double factor) {
  std::vector<float> result(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) result[i] = static_cast<float>(factor * double{v[i]});
  return result;
}

void fill_with_normals(std::uint64_t seed, RandomStream stream, std::uint32_t substream,
                       std::span<float> to) {
  for_words(seed, stream, substream, std::ssize(to), [&](std::int64_t k, std::uint32_t word) {
    to[k] = static_cast<float>(normal_quantile(unit(word)));
  });
}

Eigenpair largest_eigenpair(const MatrixProduct& times, std::vector<float> start, double tolerance,
                            std::int64_t max_products) {
  Eigenpair result;
  std::vector<std::vector<float>> basis = {std::move(start)};
  Tridiagonal projected;
  while (true) {
    std::vector<float> rest = times(basis.back(), result.products);
    ++result.products;
    double diagonal = 0;
    for (int pass = 0; pass < 2; ++pass) {  // reorthogonalise: one pass leaves rounding errors
      for (std::size_t i = basis.size(); i-- > 0;) {
        const double share = dot(basis[i], rest);
        subtract(rest, share, basis[i]);
        if (i + 1 == basis.size()) diagonal += share;
      }
    }
    const double beside = norm(rest);
    if (!std::isfinite(diagonal) || !std::isfinite(beside)) {
      result.value = result.residual = std::numeric_limits<double>::quiet_NaN();
      return result;
    }
    projected.add_row(diagonal, beside);
    const auto [value, vector] = projected.largest_pair();
    const double off = beside * vector.back();
    result.value = value;
    result.residual = off == 0 ? 0 : std::fabs(off / value);
    const bool settled = 2 * result.residual * result.residual <= tolerance;
    const bool ends = settled || beside == 0 || result.products >= max_products;
    if (!ends && basis.size() < max_basis) {
      basis.push_back(scaled(rest, 1 / beside));
      continue;
    }
    std::vector<float> estimate(rest.size(), 0.0f);
    for (std::size_t i = 0; i < basis.size(); ++i) subtract(estimate, -vector[i], basis[i]);
    estimate = scaled(estimate, 1 / norm(estimate));
    if (!ends) {
      basis = {std::move(estimate)};
      projected = {};
      continue;
    }
    if (value != 0) {
      result.next = estimate;
      if (beside > 0) subtract(result.next, -off / value / beside, rest);
      result.next = scaled(result.next, 1 / norm(result.next));
    }
    result.vector = std::move(estimate);
    return result;
  }
}

}  // namespace preheat
