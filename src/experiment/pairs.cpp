#include "experiment/pairs.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiment/statistics.h"

namespace preheat {

PairResult pair_of(const ArmResult& a, const ArmResult& b) {
  PairResult result;
  result.first = a.arm.name;
  result.second = b.arm.name;
  for (const SeedResult& x : a.runs) {
    const auto y = std::ranges::find(b.runs, x.seed, &SeedResult::seed);
    if (y == b.runs.end()) continue;
    const bool x_failed = is_failure(x.run.outcome);
    const bool y_failed = is_failure(y->run.outcome);
    ++result.pairs;
    result.only_first_failed += x_failed && !y_failed ? 1 : 0;
    result.only_second_failed += y_failed && !x_failed ? 1 : 0;
  }
  result.mcnemar_p = mcnemar_exact(result.only_first_failed, result.only_second_failed);
  return result;
}

nlohmann::ordered_json to_json(const PairResult& pair, const char* names) {
  nlohmann::ordered_json mcnemar;
  if (pair.pairs > 0) mcnemar = pair.mcnemar_p;
  return {{names, {pair.first, pair.second}},
          {"n", pair.pairs},
          {"only_first_failed", pair.only_first_failed},
          {"only_second_failed", pair.only_second_failed},
          {"mcnemar_p", mcnemar}};
}

}  // namespace preheat
