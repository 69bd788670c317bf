// The values of an experiment's keys: seeds, arms and axes. They are read and written as those in
// values.h are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/values.h"

namespace preheat {

/// One arm of an experiment: the same keys a user can --set.
struct Arm {
  std::string name;
  std::vector<Override> overrides;
};

/// One axis of a grid: a key and the values it takes.
struct Axis {
  std::string key;
  std::vector<Node> values;
};

/// Whether an experiment's folder has a file of that name next to the folders of its arms or cells,
/// counting the temporary names under which each file is written first.
bool is_file_beside_arms(std::string_view name);

/// The number of cells in the grid of these axes.
std::int64_t cells_in(const std::vector<Axis>& axes);

// Each throws ConfigError at the node's place if the value is of the wrong type or out of range.
/// Seeds: "0..9", [3, 5] or a count.
void read_value(const Node& node, std::vector<std::uint64_t>& seeds);
/// Dotted keys with their values.
void read_value(const Node& node, std::vector<Override>& changes);
/// Arms: a map of names to maps of dotted keys. The values are checked when the arm is applied.
void read_value(const Node& node, std::vector<Arm>& arms);
/// Axes: a map of dotted keys to lists of values, or to {log: [from, to, n]} or {linear: [..]}; at
/// most 10'000 cells in total.
void read_value(const Node& node, std::vector<Axis>& axes);

Node to_node(const std::vector<std::uint64_t>& seeds);
Node to_node(const std::vector<Override>& changes);
Node to_node(const std::vector<Arm>& arms);
Node to_node(const std::vector<Axis>& axes);

}  // namespace preheat
