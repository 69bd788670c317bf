// The claims of compare: what they require before anything runs, and their verdicts. How each kind
// is decided and worded, and what it requires of an arm, is in compare_outcome_claims.cpp,
// compare_curve_claims.cpp and compare_diagnostic_claims.cpp.
#include "experiment/compare_claims.h"

#include <type_traits>

#include "config/error.h"

namespace preheat {
namespace {

template <class Claim>
void check(const Claim&, const ClaimedArm&) {}  // most claims have none

template <class Claim>
constexpr bool is_about_edges = std::is_same_v<std::decay_t<Claim>, EdgeOfStabilityClaim>;

}  // namespace

std::optional<Metrics> ComparedArm::metrics(const SeedResult& r) const {
  std::optional<Metrics> found = file(r, "metrics.csv", read_metrics);
  if (found && std::ssize(found->step) < r.run.steps) {
    throw Error(
        fmt::format("{}: has {} rows, the run did {} updates; remove its folder, and "
                    "--resume trains it again",
                    (folder / std::to_string(r.seed) / "metrics.csv").string(), found->step.size(),
                    r.run.steps));
  }
  return found;
}

Finding too_few(const Pairs& pairs) {
  Finding finding;
  finding.evidence = fmt::format("{}, too few to compare", pairs.n_text());
  return finding;
}

Test smaller_in_first(const Pairs& pairs) {
  const SignedRank found = wilcoxon_signed_rank(paired_differences(pairs.first, pairs.second));
  const std::vector<double> perfect(pairs.first.size(), -1.0);
  return two_sided("Wilcoxon p", found.p, found.w_minus > found.w_plus,
                   wilcoxon_signed_rank(perfect).p);
}

void check_compare_claims(const RunConfig& base, const std::vector<RunConfig>& configs) {
  refuse_foreign_claims(base, ExperimentKind::compare);
  const ClaimableArms arms(base, base.compare->arms, configs);
  for_claims<ExperimentKind::compare>(base, [&](const auto& claim, const std::string& place) {
    std::vector<double> edges;
    arms.check(claim, place, [&](const ClaimedArm& arm) {
      check(claim, arm);
      if constexpr (is_about_edges<decltype(claim)>) edges.push_back(last_edge(arm));
    });
    if constexpr (is_about_edges<decltype(claim)>) require_two_edges(base, place, edges);
  });
}

std::vector<ClaimResult> judge_compare(const RunConfig& base, const std::vector<RunConfig>& configs,
                                       const std::vector<ArmResult>& arms,
                                       const std::filesystem::path& folder, bool interrupted) {
  const Arms compared(configs, arms, folder);
  return judge_claims<ExperimentKind::compare>(
      base, interrupted, [](const auto& claim) { return text_of(claim); },
      [&](const auto& claim) { return judge(claim, compared); });
}

}  // namespace preheat
