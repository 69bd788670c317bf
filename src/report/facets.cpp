#include "report/facets.h"

#include <algorithm>
#include <array>

namespace preheat {
namespace {

constexpr std::size_t min_seeds = 5;  // per arm, for a median and a range
constexpr std::array<const char*, 5> outcomes{"ok", "spiked", "stuck", "non_finite", ""};

}  // namespace

Facets::Facets(const std::vector<std::string>& names, const std::vector<RunData>& runs)
    : names_(names), values_(names.size()), places_(names.size()) {
  const auto add = [&](std::size_t facet, const std::string& value) {
    const int place = static_cast<int>(values_[facet].size());
    if (places_[facet].try_emplace(value, place).second) values_[facet].push_back(value);
  };
  if (by_outcome()) {  // from good to bad, as in the legend of the map
    for (const char* outcome : outcomes) {
      const std::string words = outcome_words(outcome);
      if (std::ranges::any_of(runs, [&](const RunData& r) { return r.facets[0] == words; })) {
        add(0, words);
      }
    }
  }
  for (const RunData& run : runs) {
    if (!names_.empty()) ++runs_[run.facets[0]];
    for (std::size_t i = 0; i < names_.size(); ++i) add(i, run.facets[i]);
  }
}

std::vector<int> Facets::indices(const RunData& run) const {
  std::vector<int> indices;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    indices.push_back(places_[i].at(run.facets[i]));
  }
  return indices;
}

bool Facets::by_arm_and_seed() const {
  return names_ == std::vector<std::string>{"arm", "seed"};
}

bool Facets::has_spreads() const {
  return by_arm_and_seed() &&
         std::ranges::any_of(runs_, [](const auto& arm) { return arm.second >= min_seeds; });
}

Style Facets::style_of_value(std::size_t i) const {
  if (!by_outcome()) return style_of(i);
  int pattern = 0;
  for (const char* outcome : outcomes) {
    if (values_[0][i] == outcome_words(outcome)) return {outcome, pattern};
    ++pattern;
  }
  return style_of(i);
}

Style Facets::style(const RunData& run) const {
  return names_.empty() ? Style{} : style_of_value(static_cast<std::size_t>(indices(run)[0]));
}

std::string Facets::label(const RunData& run) const {
  std::string label;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (i > 0) label += ", " + short_key(names_[i]) + " ";
    label += run.facets[i];
  }
  return label;
}

Json Facets::json() const {
  Json facets = Json::array();
  for (std::size_t i = 0; i < names_.size(); ++i) {
    Json values = Json::array();
    for (std::size_t k = 0; k < values_[i].size(); ++k) {
      values.push_back({{"label", values_[i][k]}});
      if (i > 0) continue;
      const Style style = style_of_value(k);
      values.back()["color"] = style.color;
      values.back()["pattern"] = style.pattern;
      values.back()["n"] = runs_.at(values_[i][k]);
    }
    facets.push_back({{"name", names_[i]}, {"values", values}});
  }
  return facets;
}

void merge_facets(std::vector<int>& facets, const std::vector<int>& of_other) {
  for (std::size_t i = 0; i < facets.size(); ++i) {
    if (facets[i] != of_other[i]) facets[i] = -1;
  }
}

std::vector<RunGroup> by_arm(const std::vector<RunData>& runs, const Facets& facets,
                             bool (*has)(const RunData&)) {
  std::vector<RunGroup> arms;
  for (const RunData& run : runs) {
    if (!has(run)) continue;
    const std::string name = run.arm.empty() && runs.size() > 1 ? facets.label(run) : run.arm;
    if (arms.empty() || arms.back().name != name) arms.push_back({name, {}});
    arms.back().runs.push_back(&run);
  }
  return arms;
}

}  // namespace preheat
