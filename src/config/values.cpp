#include "config/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "config/atomic_file.h"
#include "config/config.h"

namespace preheat {
namespace {

constexpr std::int64_t max_seeds = 10'000;
constexpr std::size_t max_arms = 100;
constexpr std::size_t max_arm_keys = 1000;
constexpr std::size_t max_axes = 4;
constexpr std::size_t max_axis_values = 200;
constexpr std::int64_t max_cells = 10'000;
constexpr std::size_t max_name_length = 100;
constexpr double max_length = 1e12;

[[noreturn]] void wrong(const Node& node, std::string_view problem, const std::string& remedy) {
  throw ConfigError(node.where, fmt::format("{} {}", shown(node), problem), remedy);
}

bool is_plain(const Node& node) {
  return node.kind == Node::Kind::scalar && !node.quoted;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

enum class Parsed { ok, not_a_number, too_large };

Parsed parse_number(std::string_view text, double& value) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  const std::size_t first = text.starts_with('-') ? 1 : 0;
  const bool begins_like_one = text.size() > first && (is_digit(text[first]) || text[first] == '.');
  if (!begins_like_one) return Parsed::not_a_number;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::invalid_argument || stop != end) return Parsed::not_a_number;
  if (error == std::errc::result_out_of_range) return Parsed::too_large;
  value += 0.0;  // turns -0 into 0
  return Parsed::ok;
}

template <class Integer>
Parsed parse_integer(std::string_view text, Integer& value) {
  if (text.starts_with("+") && text.size() > 1 && is_digit(text[1])) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc::invalid_argument || stop != end) return Parsed::not_a_number;
  return error == std::errc::result_out_of_range ? Parsed::too_large : Parsed::ok;
}

std::string describe(const Range& range) {
  return fmt::format("a number {} {} and {} {}", range.above_min ? "above" : "of at least",
                     range.min, range.below_max ? "below" : "at most", range.max);
}

std::string describe(const IntegerRange& range) {
  return fmt::format("{} whole number from {} to {}", range.odd ? "an odd" : "a", range.min,
                     range.max);
}

std::optional<std::string> broken_rule(const std::string& text, TextRule rule) {
  if (rule == TextRule::path) {
    const bool has_control = std::any_of(text.begin(), text.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    });
    if (text.empty() || text.size() > 4000 || has_control) return "write the path of a folder";
    return std::nullopt;
  }
  const std::string_view punctuation = rule == TextRule::run_name  ? "._-"
                                       : rule == TextRule::label   ? "_-"
                                       : rule == TextRule::pattern ? "._-*?"
                                                                   : "_";
  const bool made_of = std::all_of(text.begin(), text.end(), [&](char c) {
    return is_alphanumeric(c) || punctuation.find(c) != std::string_view::npos;
  });
  if (!made_of || text.empty() || text.size() > max_name_length) {
    return fmt::format("write 1 to {} letters, digits and {}", max_name_length,
                       rule == TextRule::run_name  ? "any of . _ -"
                       : rule == TextRule::label   ? "any of _ -"
                       : rule == TextRule::pattern ? "any of . _ - * ?"
                                                   : "_");
  }
  if (text.starts_with('.')) return "begin with a letter or a digit";
  if (rule == TextRule::label && std::all_of(text.begin(), text.end(), is_digit)) {
    return "use at least one letter; a number alone is an item's index";
  }
  return std::nullopt;
}

void take_seeds(const Node& node, std::uint64_t first, std::uint64_t last,
                std::vector<std::uint64_t>& seeds) {
  if (last < first) wrong(node, "counts down", "write the smaller seed first, as in 0..9");
  if (last - first >= max_seeds) {
    wrong(node, "is too many seeds", fmt::format("write at most {}", max_seeds));
  }
  for (std::uint64_t i = 0; i <= last - first; ++i) seeds.push_back(first + i);
}

// Optimal string alignment distance: insertions, deletions, substitutions and transpositions of
// adjacent characters.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, substituted});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

Node scalar_node(std::string text, bool quoted = false) {
  Node node;
  node.kind = Node::Kind::scalar;
  node.scalar = std::move(text);
  node.quoted = quoted;
  return node;
}

// Throws if the key is one that all runs of an experiment share.
void refuse_shared_key(const std::string& key, const Node& value) {
  const std::string_view section = std::string_view(key).substr(0, key.find('.'));
  if (section == "name" || section == "seed" || is_of_experiments(section)) {
    throw ConfigError(value.where, "an arm cannot change this",
                      "arms share the name and the seeds of their experiment");
  }
}

// Throws if `key` is the section of an earlier key: it replaces the whole section, and what the
// earlier one set would be lost. The other way round the section comes first and then the change.
template <class Changes>
void refuse_section_of_earlier(const std::string& key, const Node& value, const Changes& earlier) {
  for (const auto& change : earlier) {
    if (change.key.starts_with(key + ".")) {
      throw ConfigError(value.where, "replaces the section of " + change.key + " before it",
                        "write the section first, then " + change.key);
    }
  }
}

// Whether an experiment's folder has a file of that name next to the folders of its arms, counting
// the temporary names under which each file is written first.
bool is_file_beside_arms(std::string_view name) {
  const std::string_view written = name_before_temporary(name);
  if (!written.empty()) name = written;
  return name == "config.yaml" || name == "report.html" ||
         std::ranges::any_of(all_values<ExperimentKind>(),
                             [&](ExperimentKind kind) { return result_file(kind) == name; });
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
  values.push_back(scalar_node(fmt::format("{}", from)));
  for (std::int64_t i = 1; i < count - 1; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(count - 1);
    // Not from * (to / from)^share: the quotient may overflow.
    values.push_back(scalar_node(spaced_text(
        is_log ? std::pow(from, 1 - share) * std::pow(to, share) : from + (to - from) * share)));
  }
  values.push_back(scalar_node(fmt::format("{}", to)));
  return values;
}

}  // namespace

std::optional<std::int64_t> as_integer(const Node& node) {
  std::int64_t number = 0;
  if (!is_plain(node) || parse_integer(node.scalar, number) != Parsed::ok) return std::nullopt;
  return number;
}

std::optional<double> as_number(const Node& node) {
  double number = 0;
  if (!is_plain(node) || parse_number(node.scalar, number) != Parsed::ok) return std::nullopt;
  return number;
}

std::optional<bool> as_bool(const Node& node) {
  if (!is_plain(node) || (node.scalar != "true" && node.scalar != "false")) return std::nullopt;
  return node.scalar == "true";
}

void read_value(const Node& node, double& value, const Range& range) {
  double number = 0;
  const Parsed parsed = is_plain(node) ? parse_number(node.scalar, number) : Parsed::not_a_number;
  if (parsed == Parsed::not_a_number) {
    wrong(node, "is not a number", "write " + describe(range));
  }
  const bool fits = (range.above_min ? number > range.min : number >= range.min) &&
                    (range.below_max ? number < range.max : number <= range.max);
  if (parsed == Parsed::too_large || !fits) {
    wrong(node, "is out of range", "write " + describe(range));
  }
  value = number;
}

void read_value(const Node& node, std::int64_t& value, const IntegerRange& range) {
  std::int64_t number = 0;
  const Parsed parsed = is_plain(node) ? parse_integer(node.scalar, number) : Parsed::not_a_number;
  if (parsed == Parsed::not_a_number) {
    wrong(node, "is not a whole number", "write " + describe(range));
  }
  if (parsed == Parsed::too_large || number < range.min || number > range.max) {
    wrong(node, "is out of range", "write " + describe(range));
  }
  if (range.odd && number % 2 == 0) wrong(node, "is even", "write " + describe(range));
  value = number;
}

void read_value(const Node& node, std::uint64_t& value) {
  const std::string remedy =
      fmt::format("write a whole number from 0 to {}", std::numeric_limits<std::uint64_t>::max());
  std::uint64_t number = 0;
  const Parsed parsed = is_plain(node) ? parse_integer(node.scalar, number) : Parsed::not_a_number;
  if (parsed == Parsed::not_a_number) wrong(node, "is not a whole number from 0 up", remedy);
  if (parsed == Parsed::too_large) wrong(node, "is out of range", remedy);
  value = number;
}

void read_value(const Node& node, bool& value) {
  const std::optional<bool> truth = as_bool(node);
  if (!truth) wrong(node, "is neither true nor false", "write true or false");
  value = *truth;
}

void read_value(const Node& node, std::string& value, TextRule rule) {
  if (node.kind != Node::Kind::scalar) {
    wrong(node, "is not a text", rule == TextRule::path ? "write a path" : "write a name");
  }
  if (const auto remedy = broken_rule(node.scalar, rule))
    wrong(node, "is not allowed here", *remedy);
  value = node.scalar;
}

void read_value(const Node& node, Length& value, const LengthRule& rule) {
  const std::string units =
      rule.percent ? "steps, epochs or a percentage of the run" : "steps or epochs";
  const std::string example =
      fmt::format("write a length such as 400 steps{} 2.5 epochs{}", rule.percent ? "," : " or",
                  rule.percent ? " or 10%" : "");
  if (node.kind != Node::Kind::scalar) wrong(node, "is not a length", example);
  const std::string_view text = node.scalar;
  const std::size_t digits = std::min(text.find_first_of(" %"), text.size());
  const std::string_view number = text.substr(0, digits);
  std::string_view unit = text.substr(digits);
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));

  Length length;
  const Parsed parsed = parse_number(number, length.value);
  if (parsed == Parsed::not_a_number) wrong(node, "is not a length", example);
  if (unit.empty()) {
    wrong(node, "has no unit",
          fmt::format("write {0} steps{1} {0} epochs{2}", number, rule.percent ? "," : " or",
                      rule.percent ? " or a percentage of the run" : ""));
  }
  if (unit == "step" || unit == "steps") {
    length.unit = LengthUnit::steps;
  } else if (unit == "epoch" || unit == "epochs") {
    length.unit = LengthUnit::epochs;
  } else if (unit == "%" && rule.percent) {
    length.unit = LengthUnit::percent;
  } else {
    wrong(node, "has an unknown unit", "the units are " + units);
  }
  const double most = length.unit == LengthUnit::percent ? 100 : max_length;
  if (parsed == Parsed::too_large || length.value > most || length.value < 0) {
    wrong(node, "is out of range",
          fmt::format("write from 0 to {}", to_string({most, length.unit})));
  }
  if (length.value == 0 && !rule.zero) wrong(node, "is too short", "write more than 0");
  if (length.unit == LengthUnit::steps && length.value != std::floor(length.value)) {
    wrong(node, "is not a whole number of steps", "a step is one update of the weights");
  }
  value = length;
}

void read_value(const Node& node, LrValue& value) {
  const std::string remedy = "write a number of at least 0, base, or a factor such as 0.1x";
  std::string_view text = node.kind == Node::Kind::scalar ? node.scalar : std::string_view();
  if (text == "last") {
    value = {0, LrKind::last};
    return;
  }
  if (text == "base") {
    value = {1, LrKind::times_base};
    return;
  }
  LrValue read;
  if (text.ends_with('x')) {
    read.kind = LrKind::times_base;
    text.remove_suffix(1);
  } else if (!is_plain(
                 node)) {  // a number in quotes is none; a word or a factor may be, as in JSON
    wrong(node, "is not a learning rate", remedy);
  }
  const Parsed parsed = parse_number(text, read.value);
  if (parsed == Parsed::not_a_number) wrong(node, "is not a learning rate", remedy);
  if (parsed == Parsed::too_large || read.value < 0 || read.value > largest_value) {
    wrong(node, "is out of range", fmt::format("write from 0 to {}", largest_value));
  }
  value = read;
}

void read_value(const Node& node, Activation& value) {
  constexpr std::string_view leaky = "leaky_relu(";
  const std::string_view text = node.kind == Node::Kind::scalar ? node.scalar : std::string_view();
  if (text == "none") {
    value = {ActivationKind::none};
  } else if (text == "relu") {
    value = {ActivationKind::relu};
  } else if (text.starts_with(leaky) && text.ends_with(')')) {
    Node slope = node;
    slope.scalar = text.substr(leaky.size(), text.size() - leaky.size() - 1);
    slope.quoted = false;
    Activation read{ActivationKind::leaky_relu};
    read_value(slope, read.slope, Range{0, 1, true, true});
    value = read;
  } else {
    wrong(node, "is not an activation", "write none | relu | leaky_relu(0.1)");
  }
}

std::size_t read_name(const Node& node, std::string_view what,
                      std::span<const std::string_view> names) {
  const auto found =
      node.kind == Node::Kind::scalar ? std::ranges::find(names, node.scalar) : names.end();
  if (found == names.end()) {
    wrong(node, fmt::format("is not {}", what), fmt::format("write {}", fmt::join(names, " | ")));
  }
  return static_cast<std::size_t>(found - names.begin());
}

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
    refuse_section_of_earlier(key, value, changes);
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
    Node label = scalar_node(name);
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
    refuse_section_of_earlier(key, values, axes);
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

std::int64_t cells_in(const std::vector<Axis>& axes) {
  std::int64_t cells = 1;
  for (const Axis& axis : axes) cells *= std::ssize(axis.values);
  return cells;
}

void check_list(const Node& node, const ListSize& size) {
  if (node.kind != Node::Kind::sequence) {
    wrong(node, "is not a list", "write the items between [ and ], or each after a dash");
  }
  if (size.min == size.max && node.items.size() != size.min) {
    wrong(node, fmt::format("of {}", node.items.size()), fmt::format("write {} items", size.min));
  }
  if (node.items.empty() && size.min > 0) wrong(node, "is empty", "give at least one item");
  if (node.items.size() < size.min) {
    wrong(node, fmt::format("of {} is too short", node.items.size()),
          fmt::format("write at least {} items", size.min));
  }
  if (node.items.size() > size.max) {
    wrong(node, fmt::format("of {} items is too long", node.items.size()),
          fmt::format("write at most {}", size.max));
  }
}

// fmt prints a double with the fewest digits that read back to the same value.
Node to_node(double value) {
  return scalar_node(fmt::format("{}", value));
}
Node to_node(std::int64_t value) {
  return scalar_node(std::to_string(value));
}
Node to_node(std::uint64_t value) {
  return scalar_node(std::to_string(value));
}
Node to_node(bool value) {
  return scalar_node(value ? "true" : "false");
}
Node to_node(const std::string& value) {
  return scalar_node(value);
}
Node to_node(const Length& value) {
  return scalar_node(to_string(value));
}
Node to_node(const LrValue& value) {
  if (value.kind == LrKind::last) return scalar_node("last");
  if (value.kind != LrKind::times_base) return to_node(value.value);
  return scalar_node(value.value == 1 ? "base" : fmt::format("{}x", value.value));
}
Node to_node(const Activation& value) {
  return scalar_node(to_string(value));
}

Node to_node(const std::vector<std::uint64_t>& seeds) {
  bool is_range = seeds.size() > 1;
  for (std::size_t i = 1; i < seeds.size(); ++i) is_range &= seeds[i] == seeds[0] + i;
  if (is_range) return scalar_node(fmt::format("{}..{}", seeds.front(), seeds.back()));
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

std::string to_string(const Length& length) {
  const std::string number = fmt::format("{}", length.value);
  if (length.unit == LengthUnit::percent) return number + "%";
  return fmt::format("{} {}{}", number, length.unit == LengthUnit::steps ? "step" : "epoch",
                     length.value == 1 ? "" : "s");
}

std::string to_string(const Activation& activation) {
  switch (activation.kind) {
    case ActivationKind::none:
      return "none";
    case ActivationKind::relu:
      return "relu";
    case ActivationKind::leaky_relu:
      return fmt::format("leaky_relu({})", activation.slope);
  }
  return "";
}

std::string shown(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::sequence:
      return "a list";
    case Node::Kind::map:
      return "a section";
    case Node::Kind::scalar:
      break;
  }
  return fmt::format("\"{}\"{}", shortened(node.scalar, 60), node.quoted ? " in quotes" : "");
}

std::vector<std::string> nearest(std::string_view name, const std::vector<std::string>& names) {
  std::vector<std::string> best;
  std::size_t least = 2 + name.size() / 6;
  for (const std::string& candidate : names) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance >= least && (best.empty() || distance > least)) continue;
    if (distance < least) best.clear();
    least = distance;
    best.push_back(candidate);
  }
  if (!best.empty() || name.size() < 3) return best;
  for (const std::string& candidate : names) {
    if (candidate.find(name) != std::string::npos) best.push_back(candidate);
  }
  return best;
}

std::string did_you_mean(const std::vector<std::string>& names) {
  return fmt::format("did you mean {}?", fmt::join(names, " or "));
}

}  // namespace preheat
