// Conversion of single values between YAML and C++: types, accepted ranges, error messages, and
// writing them back.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/spelling.h"

namespace preheat {

enum class LengthUnit { steps, epochs, percent };

/// A duration in training: "400 steps", "1.5 epochs" or "10%" of the run.
struct Length {
  double value = 0;
  LengthUnit unit = LengthUnit::steps;

  bool operator==(const Length&) const = default;
};

/// Text as a user would write it: "400 steps".
std::string to_string(const Length& length);

enum class ActivationKind { none, relu, leaky_relu, tanh };

struct Activation {
  ActivationKind kind = ActivationKind::none;
  double slope = 0;  // of leaky_relu, for negative inputs
};

/// "none", "relu", "leaky_relu(0.1)" or "tanh".
std::string to_string(const Activation& activation);

enum class LrKind {
  absolute,    // the value itself
  times_base,  // the value times base_lr
  last,        // the rate of the update before
  automatic,   // derived from the sharpness at the initial weights
};

/// A learning rate.
struct LrValue {
  double value = 0;
  LrKind kind = LrKind::absolute;
};

/// The numbers a key accepts. Every range is finite, so that sums and products of a few accepted
/// numbers are finite too.
struct Range {
  double min = 0;
  double max = 0;
  bool above_min = false;  // excludes min
  bool below_max = false;  // excludes max
};
constexpr double largest_value = 1e12;
constexpr Range at_least(double min) {
  return {min, largest_value, false, false};
}
constexpr Range above(double min) {
  return {min, largest_value, true, false};
}

constexpr Range any_sign{-1e6, 1e6};

struct IntegerRange {
  std::int64_t min = 0;
  std::int64_t max = 0;
  bool odd = false;
};

/// The numbers of items a list may have.
struct ListSize {
  std::size_t min = 1;
  std::size_t max = 1000;
};

enum class TextRule {
  run_name,  // a folder name: letters, digits, . _ -, not starting with a dot
  label,     // letters, digits, _ -, not only digits
  word,      // letters, digits, _
  pattern,   // as run_name, and the wildcards * ?
  path,      // anything without control characters
};

struct LengthRule {
  bool zero = true;     // accepts "0 steps"
  bool percent = true;  // accepts "10%" of the run
};

// Each throws ConfigError at the node's place if the value is of the wrong type or out of range.
void read_value(const Node& node, double& value, const Range& range);
void read_value(const Node& node, std::int64_t& value, const IntegerRange& range);
void read_value(const Node& node, std::uint64_t& value);
void read_value(const Node& node, bool& value);
void read_value(const Node& node, std::string& value, TextRule rule);
void read_value(const Node& node, Length& value, const LengthRule& rule);
void read_value(const Node& node, LrValue& value);
void read_value(const Node& node, Activation& value);

/// The index of the node's text among `names`. Throws ConfigError ("is not `what`") if it is none
/// of them.
std::size_t read_name(const Node& node, std::string_view what,
                      std::span<const std::string_view> names);

template <Spelled Enum>
void read_value(const Node& node, Enum& value) {
  const auto known = spelling(value);
  value = static_cast<Enum>(read_name(node, known.what, known.names));
}

enum class Parsed { ok, not_a_number, too_large };

/// Reads a text that is a whole number and nothing else: "12", "+12". `value` counts only if ok.
Parsed parse_integer(std::string_view text, std::int64_t& value);
Parsed parse_integer(std::string_view text, std::uint64_t& value);

/// Whether the node is a scalar without quotes, the only one that may be a number.
bool is_plain(const Node& node);

/// The value of a scalar by the rules of the readers above; std::nullopt if it is of another type.
std::optional<std::int64_t> as_integer(const Node& node);
std::optional<double> as_number(const Node& node);
std::optional<bool> as_bool(const Node& node);

/// Throws ConfigError unless the node is a list of that size.
void check_list(const Node& node, const ListSize& size);

template <class T, class Rule>
void read_value(const Node& node, std::vector<T>& values, const ListSize& size, const Rule& rule) {
  check_list(node, size);
  values.clear();
  for (const Node& item : node.items) read_value(item, values.emplace_back(), rule);
}

Node to_node(double value);
Node to_node(std::int64_t value);
Node to_node(std::uint64_t value);
Node to_node(bool value);
Node to_node(const std::string& value);
Node to_node(const Length& value);
Node to_node(const LrValue& value);
Node to_node(const Activation& value);

template <Spelled Enum>
Node to_node(Enum value) {
  return to_node(std::string(to_string(value)));
}

template <class T>
Node to_node(const std::vector<T>& values) {
  Node node;
  node.kind = Node::Kind::sequence;
  for (const T& value : values) node.items.push_back(to_node(value));
  return node;
}

/// A value as messages show it: its text, shortened, or "a list", "a section", "null".
std::string shown(const Node& node);

/// Throws ConfigError at the node's place: the value as messages show it, then `problem`.
[[noreturn]] void wrong(const Node& node, std::string_view problem, const std::string& remedy);

}  // namespace preheat
