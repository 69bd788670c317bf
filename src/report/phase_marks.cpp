#include "report/phase_marks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace preheat {
namespace {

constexpr std::size_t max_named_arms = 12;  // in one sentence

// More lines than these could not be told apart; the note above the charts then stands alone.
constexpr std::size_t max_warmup_marks = 100;

// The parts of the bands at which the run is in the phase of that name, or to which it does not
// get: a run that was lost early is no reason to hide what the others share.
std::vector<PhaseBand> shared_with(const RunData& run, const std::vector<PhaseBand>& bands) {
  const double end = run.phases.empty() ? 0 : run.phases.back().last + 1;
  std::vector<PhaseBand> shared;
  const auto add = [&](const std::string& name, double from, double to) {
    if (from >= to) return;
    if (!shared.empty() && shared.back().name == name && shared.back().to == from) {
      shared.back().to = to;
    } else {
      shared.push_back({name, from, to});
    }
  };
  for (const PhaseBand& band : bands) {
    for (const PhaseFacts& phase : run.phases) {
      if (phase.name != band.name) continue;
      add(band.name, std::max(band.from, phase.first), std::min(band.to, phase.last + 1));
    }
    add(band.name, std::max(band.from, end), band.to);
  }
  return shared;
}

}  // namespace

std::vector<PhaseBand> shared_phases(const std::vector<const RunData*>& runs) {
  const RunData* const longest = *std::ranges::max_element(runs, {}, &RunData::updates);
  std::vector<PhaseBand> bands;
  for (const PhaseFacts& phase : longest->phases) {
    bands.push_back({phase.name, phase.first, phase.last + 1});
  }
  for (const RunData* run : runs) bands = shared_with(*run, bands);
  return bands;
}

void shade(Chart& chart, const std::vector<PhaseBand>& phases) {
  for (const PhaseBand& band : phases) chart.band(band.name, band.from, band.to);
}

// A run that was lost in its warmup does not say where it ends.
std::vector<PhaseMarks::WarmupEnd> PhaseMarks::warmup_ends(const std::vector<RunData>& runs,
                                                           const Facets& facets) {
  std::map<std::pair<std::string, double>, std::size_t> places;
  std::vector<WarmupEnd> ends;
  bool differ = false;
  for (const RunData& run : runs) {
    if (run.phases.empty()) continue;
    if (run.phases.front().name != "warmup") {
      differ = true;
      continue;
    }
    if (run.phases.size() < 2) continue;
    const double at = run.phases[1].first;
    const std::string arm = facets.by_outcome() ? ""
                            : run.arm.empty()   ? facets.label(run)
                                                : run.arm;
    const auto [place, is_new] = places.try_emplace({arm, at}, ends.size());
    if (is_new) {
      const Style style = facets.by_outcome() ? Style{"soft", 0} : facets.style(run);
      ends.push_back({arm, at, style, facets.indices(run)});
    } else {
      merge_facets(ends[place->second].facets, facets.indices(run));
    }
    differ |= at != ends.front().at;
  }
  if (!differ) ends.clear();
  return ends;
}

PhaseMarks::PhaseMarks(const std::vector<RunData>& runs, const Facets& facets)
    : is_one_run_(runs.size() == 1), ends_(warmup_ends(runs, facets)) {
  std::vector<const RunData*> all;
  for (const RunData& run : runs) all.push_back(&run);
  shared_ = shared_phases(all);
}

void PhaseMarks::draw(Chart& chart) const {
  shade(chart, shared_);
  if (ends_.size() > max_warmup_marks) return;
  for (const WarmupEnd& end : ends_) {
    chart.mark(fmt::format("{}warmup ends after {} updates", end.arm.empty() ? "" : end.arm + ": ",
                           end.at),
               end.style, end.at, end.facets);
  }
}

// "cold: after 20 updates; warm: after 31 to 56 updates".
std::string PhaseMarks::words_for_ends() const {
  std::vector<std::string> arms;  // in the order of the runs
  std::map<std::string, std::vector<double>> of_arm;
  for (const WarmupEnd& end : ends_) {
    const std::string arm = end.arm.empty() ? std::string() : end.arm + ": ";
    if (of_arm[arm].empty()) arms.push_back(arm);
    of_arm[arm].push_back(end.at);
  }
  if (arms.size() > max_named_arms) {
    const auto [least, largest] = std::ranges::minmax(ends_, {}, &WarmupEnd::at);
    return fmt::format("for {} arms or runs after {} to {} updates", arms.size(), least.at,
                       largest.at);
  }
  std::string words;
  for (const std::string& arm : arms) {
    const auto [least, largest] = std::ranges::minmax(of_arm[arm]);
    words += fmt::format("{}{}after {}{} updates", words.empty() ? "" : "; ", arm, least,
                         least == largest ? "" : fmt::format(" to {}", largest));
  }
  return words;
}

std::string PhaseMarks::note() const {
  std::string note;
  if (!is_one_run_ && !shared_.empty()) {
    note = "Shaded: the updates at which all runs, as far as each goes, are in the same phase.";
  }
  if (ends_.empty()) return note;
  return fmt::format(
      "{}{}{} {}.", note, note.empty() ? "" : " ",
      ends_.size() > max_warmup_marks ? "Warmup ends" : "Vertical lines: where warmup ends,",
      words_for_ends());
}

}  // namespace preheat
