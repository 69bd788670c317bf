#include "train/sharpness.h"

#include <cmath>
#include <limits>
#include <utility>

#include "data/random.h"
#include "train/replica_options.h"

namespace preheat {
namespace {

constexpr double agreement = 0.2;
constexpr std::size_t max_basis = 30;  // Lanczos vectors in memory; then Lanczos restarts

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
    constexpr int max_sweeps = 30;  // converges quadratically, in fewer than ten
    for (int sweep = 0; sweep < max_sweeps; ++sweep) {
      for (std::size_t p = 0; p + 1 < n; ++p) {
        for (std::size_t q = p + 1; q < n; ++q) rotate(a, vectors, p, q);
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
  // Rotates a[p][q] to zero. Golub and Van Loan 2013, "Matrix computations", section 8.5.2.
  static void rotate(std::vector<std::vector<double>>& a, std::vector<std::vector<double>>& vectors,
                     std::size_t p, std::size_t q) {
    if (a[p][q] == 0) return;
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

Hessian::Hessian(GradientFunction gradient, std::span<const float> weights)
    : gradient_(std::move(gradient)),
      weights_(weights),
      weight_norm_(norm(weights)),
      moved_(weights.size()),
      above_(weights.size()),
      below_(weights.size()) {}

// The gradient at w + distance v.
void Hessian::take_gradient(std::span<const float> v, double distance,
                            std::vector<float>& gradient) {
  for (std::size_t i = 0; i < v.size(); ++i) {
    moved_[i] = static_cast<float>(double{weights_[i]} + distance * double{v[i]});
  }
  gradient_(moved_, gradient);
  ++gradients_;
}

std::vector<float> Hessian::times(std::span<const float> v, double step) {
  if (at_weights_.empty()) {
    at_weights_.resize(weights_.size());
    take_gradient(v, 0, at_weights_);
  }
  const double e = step * weight_norm_;
  take_gradient(v, e, above_);
  std::vector<float> product(v.size());
  for (std::size_t i = 0; i < v.size(); ++i) {
    product[i] = static_cast<float>((double{above_[i]} - double{at_weights_[i]}) / e);
  }
  return product;
}

double Hessian::along(std::span<const float> v, double step) {
  const double e = step * weight_norm_;
  take_gradient(v, e, above_);
  take_gradient(v, -e, below_);
  return (dot(v, above_) - dot(v, below_)) / (2 * e);
}

bool Sharpness::agrees() const {
  return std::fabs(wide - value) <= agreement * std::fabs(value);
}

Sharpness measure_sharpness(Hessian& hessian, std::vector<float>& direction, double tolerance,
                            std::int64_t max_iterations, bool checks_step) {
  Sharpness result;
  std::vector<std::vector<float>> basis = {direction};
  Tridiagonal projected;
  while (true) {
    const bool is_above = basis.size() % 2 == 1;  // the sign of e alternates
    std::vector<float> rest = hessian.times(basis.back(), is_above ? narrow_step : -narrow_step);
    ++result.iterations;
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
      result.value = result.wide = result.residual = std::numeric_limits<double>::quiet_NaN();
      return result;
    }
    projected.add_row(diagonal, beside);
    const auto [value, vector] = projected.largest_pair();
    const double off = beside * vector.back();
    result.value = value;
    result.residual = off == 0 ? 0 : std::fabs(off / value);
    const bool settled = 2 * result.residual * result.residual <= tolerance;
    const bool ends = settled || beside == 0 || result.iterations >= max_iterations;
    if (!ends && basis.size() < max_basis) {
      basis.push_back(scaled(rest, 1 / beside));
      continue;
    }
    std::vector<float> estimate(direction.size(), 0.0f);
    for (std::size_t i = 0; i < basis.size(); ++i) subtract(estimate, -vector[i], basis[i]);
    estimate = scaled(estimate, 1 / norm(estimate));
    if (!ends) {
      basis = {std::move(estimate)};
      projected = {};
      continue;
    }
    if (checks_step) result.wide = hessian.along(estimate, wide_step);
    if (value == 0) return result;
    // One step of power iteration, H estimate, adds the component outside the basis, so that later
    // calls find an eigenvector whose eigenvalue overtakes this one.
    if (beside > 0) subtract(estimate, -off / value / beside, rest);
    direction = scaled(estimate, 1 / norm(estimate));
    return result;
  }
}

std::vector<float> random_direction(const Network& network, std::uint64_t seed) {
  std::vector<float> direction(network.arena_size, 0.0f);
  for (std::size_t i = 0; i < network.parameters.size(); ++i) {
    const Parameter& p = network.parameters[i];
    for_words(seed, RandomStream::sharpness_direction, static_cast<std::uint32_t>(i), p.size,
              [&](std::int64_t k, std::uint32_t word) {
                direction[p.offset + k] = static_cast<float>(normal_quantile(unit(word)));
              });
  }
  return scaled(direction, 1 / norm(direction));
}

SharpnessMeter::SharpnessMeter(const RunConfig& config, Backend& backend, const Network& network,
                               const Schedule& schedule,
                               std::shared_ptr<const ResidentDataset> train)
    : settings_(config.diagnostics.sharpness.value_or(SharpnessConfig{})),
      probe_(backend.probe(network, replica_options(config, network, schedule), std::move(train),
                           settings_.examples)),
      direction_(random_direction(network, config.seed)) {}

Hessian SharpnessMeter::hessian(std::span<const float> weights) {
  return {[this](std::span<const float> at, std::span<float> gradient) {
            probe_->gradient(at, gradient);
          },
          weights};
}

Sharpness SharpnessMeter::measure(Hessian& hessian, bool checks_step) {
  return measure_sharpness(hessian, direction_, settings_.tolerance, settings_.iterations,
                           checks_step);
}

Sharpness initial_sharpness(const RunConfig& config, Backend& backend, const Network& network,
                            const Schedule& schedule,
                            std::shared_ptr<const ResidentDataset> train) {
  SharpnessMeter meter(config, backend, network, schedule, std::move(train));
  const std::vector<float> weights = initial_parameters(network, config.model, config.seed);
  Hessian hessian = meter.hessian(weights);
  return meter.measure(hessian, false);
}

}  // namespace preheat
