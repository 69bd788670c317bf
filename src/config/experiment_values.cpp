#include "config/experiment_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include "config/atomic_file.h"
#include "config/error.h"
#include "config/experiments.h"

namespace preheat {
namespace {

constexpr std::int64_t max_seeds = 10'000;
constexpr std::size_t max_arms = 100;
constexpr std::size_t max_arm_keys = 1000;
constexpr std::size_t max_axes = 4;
constexpr std::size_t max_axis_values = 200;
constexpr std::int64_t max_cells = 10'000;

void take_seeds(const Node& node, std::uint64_t first, std::uint64_t last,
                std::vector<std::uint64_t>& seeds) {
  if (last < first) wrong(node, "counts down", "write the smaller seed first, as in 0..9");
  if (last - first >= max_seeds) {
    wrong(node, "is too many seeds", fmt::format("write at most {}", max_seeds));
  }
  for (std::uint64_t i = 0; i <= last - first; ++i) seeds.push_back(first + i);
}

// Throws if the key is one that all runs of an experiment share.
void refuse_shared_key(const std::string& key, const Node& value) {
  const std::string_view section = std::string_view(key).substr(0, key.find('.'));
  if (section == "name" || section == "seed" || is_of_experiments(section)) {
    throw ConfigError(value.where, "an arm cannot change this",
                      "arms share the name and the seeds of their experiment");
  }
}

// Four digits tell neighbouring values apart and keep names readable. Whole numbers, which rounding
// may have missed, are written as such: the key may take no others.
std::string spaced_text(double value) {
  const double whole = std::round(value);
  const bool is_whole = std::fabs(value - whole) <= 1e-9 * std::fabs(value);
  return is_whole && std::fabs(whole) < 1e15 ? fmt::format("{:.0f}", whole)
                                             : fmt::format("{:.4g}", value);
}

// {log: [from, to, n]} or {linear: [from, to, n]}: n values including both ends.
std::vector<Node> spaced_values(const Node& node) {
  const std::string remedy = "write {log: [from, to, how many]} or {linear: [...]}";
  const bool is_spaced = node.keys.size() == 1 &&
                         (node.keys.front().first == "log" || node.keys.front().first == "linear");
  if (!is_spaced) wrong(node, "is not a row of values", remedy);
  const bool is_log = node.keys.front().first == "log";
  const Node& list = node.keys.front().second;
  check_list(list, {3, 3});
  double from = 0;
  double to = 0;
  std::int64_t count = 0;
  const Range range = is_log ? Range{0, largest_value, true} : Range{-largest_value, largest_value};
  read_value(list.items[0], from, range);
  read_value(list.items[1], to, range);
  read_value(list.items[2], count, IntegerRange{2, static_cast<std::int64_t>(max_axis_values)});
  std::vector<Node> values;
  values.push_back(to_node(from));
  for (std::int64_t i = 1; i < count - 1; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(count - 1);
    // Not from * (to / from)^share: the quotient may overflow.
    values.push_back(to_node(spaced_text(is_log ? std::pow(from, 1 - share) * std::pow(to, share)
                                                : from + (to - from) * share)));
  }
  values.push_back(to_node(to));
  return values;
}

}  // namespace

void read_value(const Node& node, std::vector<std::uint64_t>& seeds) {
  const std::string remedy = "write a range such as 0..9, a list such as [3, 5], or how many";
  seeds.clear();
  if (node.kind == Node::Kind::sequence) {
    check_list(node, {1, max_seeds});
    std::set<std::uint64_t> seen;
    for (const Node& item : node.items) {
      read_value(item, seeds.emplace_back());
      if (!seen.insert(seeds.back()).second) wrong(item, "appears twice", "give each seed once");
    }
  } else if (!is_plain(node)) {
    wrong(node, "is not a set of seeds", remedy);
  } else if (const std::size_t dots = node.scalar.find(".."); dots != std::string::npos) {
    const std::string_view text = node.scalar;
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    if (parse_integer(text.substr(0, dots), first) != Parsed::ok ||
        parse_integer(text.substr(dots + 2), last) != Parsed::ok) {
      wrong(node, "is not a range of seeds", remedy);
    }
    take_seeds(node, first, last, seeds);
  } else {
    std::uint64_t count = 0;
    const Parsed parsed = parse_integer(node.scalar, count);
    if (parsed == Parsed::not_a_number) wrong(node, "is not a set of seeds", remedy);
    if (parsed == Parsed::ok && count == 0) wrong(node, "leaves no seed", remedy);
    take_seeds(node, 0, parsed == Parsed::ok ? count - 1 : max_seeds, seeds);
  }
}

void read_value(const Node& node, std::vector<Override>& changes) {
  if (node.kind != Node::Kind::map) {
    wrong(node, "is not a set of keys", "write {} or {schedule.warmup.length: 0 steps}");
  }
  if (node.keys.size() > max_arm_keys) {
    wrong(node, "has too many keys", fmt::format("write at most {}", max_arm_keys));
  }
  changes.clear();
  for (const auto& [key, value] : node.keys) {
    refuse_shared_key(key, value);
    for (const Override& change : changes) refuse_undoing(change.key, key, value.where);
    changes.push_back({key, value});
  }
}

void read_value(const Node& node, std::vector<Arm>& arms) {
  const std::string remedy =
      "write names with keys below them, as in {short: {train.length: 10 steps}}";
  if (node.kind != Node::Kind::map) wrong(node, "is not a set of arms", remedy);
  if (node.keys.empty()) wrong(node, "has no arm", remedy);
  if (node.keys.size() > max_arms) {
    wrong(node, "has too many arms", fmt::format("write at most {}", max_arms));
  }
  arms.clear();
  for (const auto& [name, changes] : node.keys) {
    Node label = to_node(name);
    label.where = changes.where;
    Arm& arm = arms.emplace_back();
    read_value(label, arm.name, TextRule::run_name);
    if (is_file_beside_arms(arm.name)) {
      wrong(label, "is the name of a file in an experiment's folder", "choose another name");
    }
    if (changes.kind != Node::Kind::null) read_value(changes, arm.overrides);
  }
}

void read_value(const Node& node, std::vector<Axis>& axes) {
  const std::string remedy =
      "write keys with their values, as in {schedule.base_lr: {log: [0.01, 1, 5]}}";
  if (node.kind != Node::Kind::map) wrong(node, "is not a set of axes", remedy);
  if (node.keys.empty()) wrong(node, "has no axis", remedy);
  if (node.keys.size() > max_axes) {
    wrong(node, "has too many axes", fmt::format("write at most {}", max_axes));
  }
  axes.clear();
  for (const auto& [key, values] : node.keys) {
    refuse_shared_key(key, values);
    for (const Axis& axis : axes) refuse_undoing(axis.key, key, values.where);
    Axis& axis = axes.emplace_back(Axis{key, {}});
    if (values.kind == Node::Kind::map) {
      axis.values = spaced_values(values);
    } else {
      check_list(values, {1, max_axis_values});
      axis.values = values.items;
    }
    for (Node& value : axis.values) {
      value.where = values.where;
      value.where.key = key;
    }
  }
  if (const std::int64_t cells = cells_in(axes); cells > max_cells) {
    wrong(node, fmt::format("of {} cells is too large a grid", cells),
          fmt::format("write axes of at most {} together", max_cells));
  }
}

bool is_file_beside_arms(std::string_view name) {
  const std::string_view written = name_before_temporary(name);
  if (!written.empty()) name = written;
  return name == "config.yaml" || name == "report.html" ||
         std::ranges::any_of(all_values<ExperimentKind>(),
                             [&](ExperimentKind kind) { return result_file(kind) == name; });
}

std::int64_t cells_in(const std::vector<Axis>& axes) {
  std::int64_t cells = 1;
  for (const Axis& axis : axes) cells *= std::ssize(axis.values);
  return cells;
}

Node to_node(const std::vector<std::uint64_t>& seeds) {
  // The last is below the first where the numbers wrap around.
  bool is_range = seeds.size() > 1 && seeds.front() < seeds.back();
  for (std::size_t i = 1; i < seeds.size(); ++i) is_range &= seeds[i] == seeds[0] + i;
  if (is_range) return to_node(fmt::format("{}..{}", seeds.front(), seeds.back()));
  return to_node<std::uint64_t>(seeds);
}

Node to_node(const std::vector<Override>& changes) {
  Node node;
  node.kind = Node::Kind::map;
  for (const Override& change : changes) node.keys.emplace_back(change.key, change.value);
  return node;
}

Node to_node(const std::vector<Arm>& arms) {
  Node node;
  node.kind = Node::Kind::map;
  for (const Arm& arm : arms) {
    node.keys.emplace_back(arm.name, to_node(arm.overrides));
  }
  return node;
}

Node to_node(const std::vector<Axis>& axes) {
  Node node;
  node.kind = Node::Kind::map;
  for (const Axis& axis : axes) {
    Node values;
    values.kind = Node::Kind::sequence;
    values.items = axis.values;
    node.keys.emplace_back(axis.key, std::move(values));
  }
  return node;
}

}  // namespace preheat
