#include "experiment/ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <utility>
#include <vector>

#include "config/error.h"
#include "data/random.h"

namespace preheat {
namespace {

constexpr std::size_t max_exact_signs = 500;
constexpr std::size_t max_exact_levels = 10;

// Twice the mid-ranks, which are integers. A value counts as equal to the next smaller one if it
// exceeds that by at most `tolerance` times itself.
std::vector<std::int64_t> doubled_mid_ranks(std::span<const double> values, double tolerance = 0) {
  for (const double value : values) {
    if (!std::isfinite(value)) throw Error(fmt::format("{} has no rank", value));
  }
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<std::int64_t> ranks(values.size());
  for (std::size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    for (end = begin + 1; end < order.size(); ++end) {
      const double value = values[order[end]];
      if (value - values[order[end - 1]] > tolerance * value) break;
    }
    // The mean of the ranks begin + 1 .. end, doubled.
    for (std::size_t i = begin; i < end; ++i) {
      ranks[order[i]] = static_cast<std::int64_t>(begin + 1 + end);
    }
  }
  return ranks;
}

// P(W <= w), where W is the sum of a subset of the ranks that contains each with probability 1/2.
double subset_sum_at_most(std::int64_t w, std::span<const std::int64_t> ranks) {
  std::vector<double> probability(static_cast<std::size_t>(w) + 1);
  probability[0] = 1;
  for (const std::int64_t rank : ranks) {
    for (std::int64_t sum = w; sum >= 0; --sum) {
      const double with = sum >= rank ? probability[sum - rank] : 0;
      probability[sum] = (probability[sum] + with) / 2;
    }
  }
  return std::accumulate(probability.begin(), probability.end(), 0.0);
}

// Doubled mid-ranks minus their mean: integers that sum to 0.
struct Scores {
  std::vector<std::int64_t> value;
  std::int64_t squares = 0;

  explicit Scores(std::span<const double> values) : value(doubled_mid_ranks(values)) {
    for (std::int64_t& v : value) {
      v -= static_cast<std::int64_t>(value.size()) + 1;
      squares += v * v;
    }
  }
};

std::int64_t product(const Scores& x, const Scores& y) {
  return std::inner_product(x.value.begin(), x.value.end(), y.value.begin(), std::int64_t{0});
}

double correlation(const Scores& x, const Scores& y) {
  if (x.squares == 0 || y.squares == 0) return 0;
  return static_cast<double>(product(x, y)) /
         std::sqrt(static_cast<double>(x.squares) * static_cast<double>(y.squares));
}

// The number of ways, up to a common factor, to obtain each of -reach..reach.
struct Distribution {
  std::int64_t reach = 0;
  std::vector<double> ways = {1};
};

// The distribution of product(x, y) over all orders of y, by dynamic programming over subsets of y:
// a subset of i elements is paired with the first i of x.
Distribution of_products(const Scores& x, const Scores& y) {
  Distribution result;
  // By Cauchy-Schwarz no sum, nor any partial sum, is further from 0.
  result.reach = static_cast<std::int64_t>(
      std::sqrt(static_cast<double>(x.squares) * static_cast<double>(y.squares)));
  const std::size_t width = 2 * static_cast<std::size_t>(result.reach) + 1;
  const std::size_t count = x.value.size();
  const std::size_t subsets = std::size_t{1} << count;
  std::vector<double> ways(width * subsets);
  ways[result.reach] = 1;
  for (std::size_t subset = 0; subset + 1 < subsets; ++subset) {
    const double* const from = &ways[subset * width];
    const std::int64_t met = x.value[static_cast<std::size_t>(std::popcount(subset))];
    for (std::size_t next = 0; next < count; ++next) {
      if ((subset >> next & 1) != 0) continue;
      const std::int64_t step = met * y.value[next];
      double* const to = &ways[(subset | std::size_t{1} << next) * width];
      for (std::size_t sum = 0; sum < width; ++sum) {
        if (from[sum] > 0) to[sum + step] += from[sum];
      }
    }
  }
  result.ways.assign(ways.end() - static_cast<std::ptrdiff_t>(width), ways.end());
  return result;
}

// The distribution of the sum of two independent numbers. A power of two keeps its total near 1, so
// that counts stay exact and those of the sum of thousands finite.
Distribution of_sum(const Distribution& a, const Distribution& b) {
  Distribution result;
  result.reach = a.reach + b.reach;
  result.ways.assign(a.ways.size() + b.ways.size() - 1, 0);
  for (std::size_t i = 0; i < a.ways.size(); ++i) {
    for (std::size_t j = 0; j < b.ways.size(); ++j) result.ways[i + j] += a.ways[i] * b.ways[j];
  }
  const double total = std::accumulate(result.ways.begin(), result.ways.end(), 0.0);
  const double scale = std::ldexp(1.0, -std::ilogb(total));
  for (double& ways : result.ways) ways *= scale;
  return result;
}

// The share of orders within blocks whose sum of products is at least as extreme as the one found.
double permutation_p(const Scores& x, std::vector<Scores> blocks, Alternative alternative,
                     int permutations, std::uint64_t seed) {
  if (permutations < 1) throw Error(fmt::format("{} permutations are too few", permutations));
  const auto sum_of_products = [&] {
    std::int64_t sum = 0;
    for (const Scores& block : blocks) sum += product(x, block);
    return sum;
  };
  const std::int64_t found = sum_of_products();
  const auto as_extreme = [&](std::int64_t sum) {
    if (alternative == Alternative::increasing) return sum >= found;
    if (alternative == Alternative::decreasing) return sum <= found;
    return std::abs(sum) >= std::abs(found);
  };

  if (x.value.size() <= max_exact_levels) {
    Distribution all;
    for (const Scores& block : blocks) all = of_sum(all, of_products(x, block));
    double total = 0;
    double extreme = 0;
    for (std::int64_t sum = -all.reach; sum <= all.reach; ++sum) {
      const double ways = all.ways[sum + all.reach];
      total += ways;
      if (as_extreme(sum)) extreme += ways;
    }
    return extreme / total;
  }
  int hits = 0;
  for (int r = 0; r < permutations; ++r) {
    std::uint64_t drawn = 0;
    Random4 words{};
    for (Scores& block : blocks) {
      for (std::size_t i = block.value.size(); i-- > 1; ++drawn) {
        if (drawn % 4 == 0) {
          words = philox(seed, RandomStream::permutation, static_cast<std::uint32_t>(r), drawn / 4);
        }
        const std::uint32_t j = below(words.value[drawn % 4], static_cast<std::uint32_t>(i + 1));
        std::swap(block.value[i], block.value[j]);
      }
    }
    if (as_extreme(sum_of_products())) ++hits;
  }
  return (1.0 + hits) / (1.0 + permutations);
}

}  // namespace

SignedRank wilcoxon_signed_rank(std::span<const double> differences) {
  std::vector<double> sizes;
  std::vector<bool> positive;
  for (const double difference : differences) {
    if (difference == 0) continue;
    sizes.push_back(std::abs(difference));
    positive.push_back(difference > 0);
  }
  const std::vector<std::int64_t> ranks = doubled_mid_ranks(sizes, 1e-9);
  std::int64_t plus = 0;
  std::int64_t minus = 0;
  double squares = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    (positive[i] ? plus : minus) += ranks[i];
    squares += static_cast<double>(ranks[i]) * static_cast<double>(ranks[i]);
  }
  SignedRank result{.n = static_cast<std::int64_t>(ranks.size()),
                    .w_plus = static_cast<double>(plus) / 2,
                    .w_minus = static_cast<double>(minus) / 2,
                    .p = 1};
  if (ranks.size() <= max_exact_signs) {
    result.p = std::min(1.0, 2 * subset_sum_at_most(std::min(plus, minus), ranks));
  } else {
    // Each rank r adds 0 or r with equal probability, so the variance is sum r^2 / 4.
    const double distance = std::abs(result.w_plus - result.w_minus) / 2;
    const double deviation = std::sqrt(squares) / 4;
    result.p = std::erfc(std::max(0.0, distance - 0.5) / deviation / std::sqrt(2.0));
  }
  return result;
}

Correlation spearman(std::span<const double> x, std::span<const double> y, Alternative alternative,
                     int permutations, std::uint64_t seed) {
  if (x.size() != y.size()) {
    throw Error(fmt::format("{} values cannot be paired with {}", x.size(), y.size()));
  }
  const Scores x_scores(x);
  const Scores y_scores(y);
  return {.rho = correlation(x_scores, y_scores),
          .p = permutation_p(x_scores, {y_scores}, alternative, permutations, seed)};
}

PageTrend page_trend(std::span<const double> levels, std::span<const double> outcomes,
                     Alternative alternative, int permutations, std::uint64_t seed) {
  const std::size_t width = levels.size();
  if (width == 0 ? !outcomes.empty() : outcomes.size() % width != 0) {
    throw Error(fmt::format("{} outcomes are not blocks of {} levels", outcomes.size(), width));
  }
  const Scores level_scores(levels);
  std::vector<Scores> blocks;
  double sum_of_rho = 0;
  std::int64_t sum_of_products = 0;
  for (std::size_t begin = 0; begin < outcomes.size(); begin += width) {
    blocks.emplace_back(outcomes.subspan(begin, width));
    sum_of_rho += correlation(level_scores, blocks.back());
    sum_of_products += product(level_scores, blocks.back());
  }
  PageTrend result;
  result.blocks = static_cast<std::int64_t>(blocks.size());
  // Scores are 2 rank - (k + 1), so their products sum to 4 L - k (k + 1)^2 per block.
  const auto k = static_cast<double>(width);
  const auto n = static_cast<double>(blocks.size());
  result.l = (static_cast<double>(sum_of_products) + n * k * (k + 1) * (k + 1)) / 4;
  result.rho = blocks.empty() ? 0 : sum_of_rho / n;
  result.p = permutation_p(level_scores, std::move(blocks), alternative, permutations, seed);
  return result;
}

}  // namespace preheat
