#include "config/values.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "config/counted.h"
#include "config/error.h"

namespace preheat {
namespace {

constexpr std::size_t max_name_length = 100;
constexpr double max_length = 1e12;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

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
Parsed parse_whole(std::string_view text, Integer& value) {
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

Node scalar_node(std::string text) {
  Node node;
  node.kind = Node::Kind::scalar;
  node.scalar = std::move(text);
  return node;
}

}  // namespace

Parsed parse_integer(std::string_view text, std::int64_t& value) {
  return parse_whole(text, value);
}

Parsed parse_integer(std::string_view text, std::uint64_t& value) {
  return parse_whole(text, value);
}

bool is_plain(const Node& node) {
  return node.kind == Node::Kind::scalar && !node.quoted;
}

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
  } else if (text == "tanh") {
    value = {ActivationKind::tanh};
  } else if (text.starts_with(leaky) && text.ends_with(')')) {
    Node slope = node;
    slope.scalar = text.substr(leaky.size(), text.size() - leaky.size() - 1);
    slope.quoted = false;
    Activation read{ActivationKind::leaky_relu};
    read_value(slope, read.slope, Range{0, 1, true, true});
    value = read;
  } else {
    wrong(node, "is not an activation", "write none | relu | leaky_relu(0.1) | tanh");
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

std::string to_string(const Length& length) {
  if (length.unit == LengthUnit::percent) return fmt::format("{}%", length.value);
  return counted(length.value, length.unit == LengthUnit::steps ? "step" : "epoch");
}

std::string to_string(const Activation& activation) {
  switch (activation.kind) {
    case ActivationKind::none:
      return "none";
    case ActivationKind::relu:
      return "relu";
    case ActivationKind::leaky_relu:
      return fmt::format("leaky_relu({})", activation.slope);
    case ActivationKind::tanh:
      return "tanh";
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

void wrong(const Node& node, std::string_view problem, const std::string& remedy) {
  throw ConfigError(node.where, fmt::format("{} {}", shown(node), problem), remedy);
}

}  // namespace preheat
