// Shared by the files that judge the claims of compare, compare_*_claims.cpp: the arms with the
// values of their runs, and what compare_claims.cpp asks of each kind of claim.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/counted.h"
#include "data/dataset.h"
#include "experiment/compare.h"
#include "experiment/findings.h"
#include "schedule/schedule.h"
#include "train/run_files.h"

namespace preheat {

// ---- Arms and the values of their runs ---------------------------------------------------------

/// One arm, its runs and their files.
struct ComparedArm {
  const RunConfig& config;
  const ArmResult& result;
  std::filesystem::path folder;

  const std::vector<SeedResult>& runs() const { return result.runs; }
  std::int64_t n() const { return std::ssize(result.runs); }

  RunLength length() const { return run_length(config); }
  std::int64_t updates(const Length& of) const {  // `of` has been checked
    return updates_of(of, length(), config, "expect");
  }

  // std::nullopt if the run has no such file.
  template <class Read>
  auto file(const SeedResult& r, const char* name, const Read& read) const
      -> std::optional<decltype(read(std::filesystem::path()))> {
    const auto path = folder / std::to_string(r.seed) / name;
    if (!std::filesystem::exists(path)) return std::nullopt;
    return read(path);
  }

  // metrics.csv as above. Throws Error also if it has fewer rows than the run did updates.
  std::optional<Metrics> metrics(const SeedResult& r) const;
};

/// The arms of a comparison, by name.
class Arms {
 public:
  Arms(const std::vector<RunConfig>& configs, const std::vector<ArmResult>& results,
       const std::filesystem::path& folder) {
    for (std::size_t i = 0; i < results.size(); ++i) {
      arms_.push_back({configs[i], results[i], folder / results[i].arm.name});
    }
  }

  const ComparedArm& operator[](const std::string& name) const {
    return *std::ranges::find(arms_, name,
                              [](const ComparedArm& arm) { return arm.result.arm.name; });
  }

 private:
  std::vector<ComparedArm> arms_;
};

/// One number per arm and seed, over the seeds at which both arms have one.
struct Pairs {
  std::vector<double> first;
  std::vector<double> second;
  std::int64_t missing = 0;  // seeds at which both have a run, but not both a number

  std::int64_t n() const { return std::ssize(first); }
  std::string n_text() const {
    return counted(n(), "seed") +
           (missing > 0 ? fmt::format(" ({} more without data)", missing) : "");
  }
};

/// Pairs value(arm, run), which may be std::nullopt.
template <class Value>
Pairs paired(const ComparedArm& a, const ComparedArm& b, const Value& value) {
  Pairs pairs;
  for (const SeedResult& x : a.runs()) {
    const auto y = std::ranges::find(b.runs(), x.seed, &SeedResult::seed);
    if (y == b.runs().end()) continue;
    const std::optional<double> first = value(a, x);
    const std::optional<double> second = value(b, *y);
    if (first && second) {
      pairs.first.push_back(*first);
      pairs.second.push_back(*second);
    } else {
      ++pairs.missing;
    }
  }
  return pairs;
}

/// INCONCLUSIVE, with the remark that there are too few pairs.
Finding too_few(const Pairs& pairs);

/// Two-sided test for the claim that the first is smaller.
Test smaller_in_first(const Pairs& pairs);

// ---- What each kind of claim defines -----------------------------------------------------------
// text_of: how it is worded. judge: how it is decided. check, where it has one: what it requires of
// an arm, thrown as ConfigError at the claim's place.

// compare_outcome_claims.cpp: whether runs fail, and their test accuracy.
std::string text_of(const FailuresClaim& c);
Finding judge(const FailuresClaim& c, const Arms& arms);
std::string text_of(const FailsMoreClaim& c);
Finding judge(const FailsMoreClaim& c, const Arms& arms);
std::string text_of(const FailsAlikeClaim& c);
Finding judge(const FailsAlikeClaim& c, const Arms& arms);
std::string text_of(const AccuracyClaim& c);
Finding judge(const AccuracyClaim& c, const Arms& arms);
std::string text_of(const AccuracyAlikeClaim& c);
Finding judge(const AccuracyAlikeClaim& c, const Arms& arms);
std::string text_of(const AccuracyFallsClaim& c);
Finding judge(const AccuracyFallsClaim& c, const Arms& arms);
std::string text_of(const AccuracyGapClaim& c);
Finding judge(const AccuracyGapClaim& c, const Arms& arms);

// compare_curve_claims.cpp: the course of the training.
std::string text_of(const SoonerClaim& c);
void check(const SoonerClaim& c, const ClaimedArm& arm);
Finding judge(const SoonerClaim& c, const Arms& arms);
std::string text_of(const SmallerSpikeClaim& c);
void check(const SmallerSpikeClaim& c, const ClaimedArm& arm);
Finding judge(const SmallerSpikeClaim& c, const Arms& arms);
std::string text_of(const GateClaim& c);
void check(const GateClaim& c, const ClaimedArm& arm);
Finding judge(const GateClaim& c, const Arms& arms);

// compare_diagnostic_claims.cpp: what diagnostics measure.
std::string text_of(const SharpnessFallsClaim& c);
void check(const SharpnessFallsClaim& c, const ClaimedArm& arm);
Finding judge(const SharpnessFallsClaim& c, const Arms& arms);
std::string text_of(const SharpnessStaysClaim& c);
void check(const SharpnessStaysClaim& c, const ClaimedArm& arm);
Finding judge(const SharpnessStaysClaim& c, const Arms& arms);
std::string text_of(const UnstableStartClaim& c);
void check(const UnstableStartClaim& c, const ClaimedArm& arm);
Finding judge(const UnstableStartClaim& c, const Arms& arms);
std::string text_of(const EdgeOfStabilityClaim& c);
void check(const EdgeOfStabilityClaim& c, const ClaimedArm& arm);
Finding judge(const EdgeOfStabilityClaim& c, const Arms& arms);
std::string text_of(const DeepLayersClaim& c);
void check(const DeepLayersClaim& c, const ClaimedArm& arm);
Finding judge(const DeepLayersClaim& c, const Arms& arms);

/// The edge of stability of an arm, 2 (1 + momentum) / rate, at its last measurement; NaN if a gate
/// or the initial weights decide about it.
double last_edge(const ClaimedArm& arm);

/// Throws ConfigError at the arms of the claim if their edges are all one: a slope needs two.
void require_two_edges(const RunConfig& base, const std::string& place,
                       const std::vector<double>& edges);

}  // namespace preheat
