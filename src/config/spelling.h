// The spelling of an enumeration's values, given once next to the enumeration. Its values must be
// 0, 1, 2 and so on.
//
//   enum class Loss { cross_entropy, mse };
//   constexpr auto spelling(Loss) {
//     return Spelling{"a loss", {"cross_entropy", "mse"}};
//   }
#pragma once

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string_view>

namespace preheat {

/// What a message calls any one of the values ("a loss"), and the name of each, in enum order.
template <std::size_t n>
struct Spelling {
  std::string_view what;
  std::string_view names[n];
};
template <std::size_t n>
Spelling(const char*, const char* const (&)[n]) -> Spelling<n>;

template <class T>
concept Spelled = requires(T value) {
  spelling(value).names;
};

template <Spelled Enum>
constexpr std::string_view to_string(Enum value) {
  return spelling(value).names[static_cast<std::size_t>(value)];
}

/// The value with that name, or std::nullopt.
template <Spelled Enum>
constexpr std::optional<Enum> value_named(std::string_view name) {
  const auto known = spelling(Enum{});
  const auto* const found = std::ranges::find(known.names, name);
  if (found == std::end(known.names)) return std::nullopt;
  return static_cast<Enum>(found - std::begin(known.names));
}

/// Every value, in order.
template <Spelled Enum>
constexpr auto all_values() {
  std::array<Enum, std::size(decltype(spelling(Enum{}).names){})> values{};
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<Enum>(i);
  return values;
}

}  // namespace preheat
