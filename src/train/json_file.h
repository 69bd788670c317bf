// Reads JSON files, and values that may be null.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

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

/// Reads the file, parses it and returns make(json). Throws Error naming the file.
template <class Make>
auto read_json(const std::filesystem::path& path, const Make& make) {
  const std::string text = read_file(path);
  return with_json_errors(path, [&] { return make(nlohmann::ordered_json::parse(text)); });
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
  return value.is_null() ? std::nullopt : std::optional<T>(value.get<T>());
}

}  // namespace preheat
