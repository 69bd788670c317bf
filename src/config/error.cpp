#include "config/error.h"

#include <fmt/format.h>

namespace preheat {
namespace {

std::string message(const Where& where, const std::string& problem, const std::string& remedy) {
  std::string text = where.source;
  if (where.line > 0) {
    text += fmt::format(":{}", where.line);
    if (where.column > 0) text += fmt::format(":{}", where.column);
  }
  for (const std::string& part : {where.key, problem}) {
    if (part.empty()) continue;
    if (!text.empty()) text += ": ";
    text += part;
  }
  if (!remedy.empty()) text.append("; ").append(remedy);
  return one_line(text);
}

}  // namespace

std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += c;
    }
  }
  return line;
}

ConfigError::ConfigError(const Where& where, const std::string& problem, const std::string& remedy)
    : std::runtime_error(message(where, problem, remedy)) {}

}  // namespace preheat
