#include "backend/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "config/error.h"

namespace preheat {
namespace {

std::vector<std::int64_t> shape_of(const Parameter& p) {
  return p.shape;
}
std::vector<std::int64_t> shape_of(const Statistic& s) {
  return {s.size};
}

template <class Expected>
void check(const char* what, const std::vector<NamedTensor>& given,
           const std::vector<Expected>& expected) {
  for (std::size_t i = 0; i < std::max(given.size(), expected.size()); ++i) {
    if (i >= given.size()) {
      throw Error(
          fmt::format("the state has no {} {}, which the network has", what, expected[i].name));
    }
    if (i >= expected.size() || given[i].name != expected[i].name) {
      throw Error(fmt::format("the state has a {} {} where the network has {}", what, given[i].name,
                              i < expected.size() ? expected[i].name : std::string("no more")));
    }
    if (given[i].shape != shape_of(expected[i])) {
      throw Error(fmt::format("{} {} is [{}] in the state and [{}] in the network", what,
                              given[i].name, fmt::join(given[i].shape, ", "),
                              fmt::join(shape_of(expected[i]), ", ")));
    }
  }
}

}  // namespace

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::isfinite(v); });
}

ActivationRecord activation_record(const Op& op, std::span<const float> y) {
  const auto channels = static_cast<std::size_t>(op.out.channels);
  std::vector<float> highest(channels, 0.0f);
  std::vector<float> lowest(channels, 0.0f);
  int unordered = 0;  // whether any is NaN, which the comparisons below skip
  for (std::size_t row = 0; row < y.size(); row += channels) {
    for (std::size_t c = 0; c < channels; ++c) {
      const float v = y[row + c];
      highest[c] = std::max(highest[c], v);
      lowest[c] = std::min(lowest[c], v);
      unordered |= std::isnan(v) ? 1 : 0;
    }
  }
  const float largest =
      std::max(*std::ranges::max_element(highest), -*std::ranges::min_element(lowest));
  const auto dead = static_cast<double>(std::ranges::count(highest, 0.0f));
  return {op.name, unordered != 0 ? std::nan("") : largest, dead / static_cast<double>(channels)};
}

void check_state(const Network& network, const ReplicaState& state) {
  check("parameter", state.parameters, network.parameters);
  check("velocity of", state.velocity, network.parameters);
  check("statistic", state.statistics, network.statistics);
}

}  // namespace preheat
