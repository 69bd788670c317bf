// The claims of find_lr, as claims.h says.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiment/find_lr.h"
#include "experiment/findings.h"

namespace preheat {

std::vector<ClaimResult> judge_find_lr(const RunConfig& base, const FindLrResult& result) {
  const auto arm = [&](const std::string& name) -> const SearchArm& {
    return *std::ranges::find(result.arms, name, [](const SearchArm& a) { return a.arm.name; });
  };
  const auto judge = [&](const RateRatioClaim& c, const std::string&) {
    const SearchArm& first = arm(c.arms[0]);
    const RateRatio ratio = ratio_of(first, arm(c.arms[1]));
    Finding finding;
    finding.evidence =
        fmt::format("{} of {} seeds have an answer in both", ratio.seeds, first.searches.size());
    if (ratio.log2_mean) {
      finding.evidence += fmt::format(", {:.2f} times the rate in the geometric mean, log2 {:.2f}",
                                      std::exp2(*ratio.log2_mean), *ratio.log2_mean);
    }
    if (ratio.log2_interval) {
      finding.evidence += fmt::format(", bootstrap at 95 % {}", to_string(*ratio.log2_interval));
      finding.verdict = c.log2_above ? verdict_above(*ratio.log2_interval, *c.log2_above)
                                     : verdict_below(*ratio.log2_interval, *c.log2_below);
    }
    return finding;
  };
  return judge_claims<Experiment::find_lr>(base, result.interrupted, judge);
}

}  // namespace preheat
