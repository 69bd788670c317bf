// Reads JSON files, and values that may be null.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "config/atomic_file.h"
#include "config/error.h"

namespace preheat {

/// A short, one-line description of a JSON error.
std::string problem_of(const nlohmann::json::exception& error);

/// Returns take(), which reads JSON from the file at `path`. Turns a missing key or wrong type into
/// an Error naming the file.
template <class Take>
auto with_json_errors(const std::filesystem::path& path, const Take& take) {
  try {
    return take();
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: is damaged: {}", path.string(), problem_of(e)));
  }
}

inline constexpr int max_json_depth = 64;

/// Parses JSON that is nested at most max_json_depth deep: the library copies, compares and writes
/// values recursively, so that a file of brackets would overflow the stack. Throws its exception.
template <class Json>
Json parse_json(std::string_view text) {
  return Json::parse(text, [](int depth, auto, auto&) {
    if (depth <= max_json_depth) return true;
    throw Json::other_error::create(501, fmt::format("nested more than {} deep", max_json_depth),
                                    nullptr);
  });
}

/// The value as a T. Throws the JSON library's exception for any other type, and for a number that
/// T cannot hold; get() converts numbers and truth values into each other.
template <class T, class Json>
T get_as(const Json& value) {
  const auto require = [&](bool is_right, const char* what) {
    if (is_right) return;
    throw Json::type_error::create(
        302, fmt::format("type must be {}, but is {}", what, value.dump()), &value);
  };
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    const bool fits =
        value.is_number_unsigned()
            ? std::in_range<T>(value.template get<std::uint64_t>())
            : value.is_number_integer() && std::in_range<T>(value.template get<std::int64_t>());
    require(fits || !(value.is_number() || value.is_boolean()), "a whole number in range");
  } else if constexpr (std::is_floating_point_v<T>) {
    require(!value.is_boolean(), "a number");
    constexpr auto max = double{std::numeric_limits<T>::max()};
    require(!value.is_number() || std::abs(value.template get<double>()) <= max,
            "a number in range");
  }
  return value.template get<T>();
}

/// Reads the file, parses it and returns make(json). Throws Error naming the file.
template <class Make>
auto read_json(const std::filesystem::path& path, const Make& make) {
  const std::string text = read_file(path);
  return with_json_errors(path, [&] { return make(parse_json<nlohmann::ordered_json>(text)); });
}

/// The value, or null if there is none. optional_at reads it back.
template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

/// The value of a key that may be null.
template <class T>
std::optional<T> optional_at(const nlohmann::ordered_json& object, const char* key) {
  const nlohmann::ordered_json& value = object.at(key);
  return value.is_null() ? std::nullopt : std::optional<T>(get_as<T>(value));
}

}  // namespace preheat
