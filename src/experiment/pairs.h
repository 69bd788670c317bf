// Two arms of a comparison, or two cells of a grid, compared over the seeds that both have.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "experiment/runs.h"

namespace preheat {

/// Two arms compared over the seeds at which both have ended.
struct PairResult {
  std::string first;
  std::string second;
  std::int64_t pairs = 0;
  std::int64_t only_first_failed = 0;
  std::int64_t only_second_failed = 0;
  double mcnemar_p = 1;  // exact, two-sided
};

/// Pairs the runs of two arms by seed, in whatever order they are.
PairResult pair_of(const ArmResult& a, const ArmResult& b);

/// {<names>: [first, second], "n", "only_first_failed", "only_second_failed", "mcnemar_p"}, where
/// `names` says what is paired: "arms" or "cells". The p-value is null without a common seed.
nlohmann::ordered_json to_json(const PairResult& pair, const char* names);

}  // namespace preheat
