#include "report/label_text.h"

#include "config/utf8.h"

namespace preheat {
namespace {

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> result;
  for (std::size_t i = 0; i < text.size();) {
    const auto [code, bytes] = decode_utf8(text.substr(i));
    const bool valid = bytes > 0 && code != 0xFFFE && code != 0xFFFF;  // which XML forbids
    const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    result.push_back(valid && !control ? text.substr(i, bytes) : replacement_character);
    i += valid ? bytes : 1;
  }
  return result;
}

int width_of(std::string_view text) {
  return static_cast<int>(characters(text).size());
}

std::string clean(std::string_view text, int most) {
  std::string result;
  for (const std::string_view c : characters(text)) {
    if (most-- <= 0) break;
    result += c;
  }
  return result;
}

std::string escape(std::string_view text) {
  std::string result;
  for (const std::string_view c : characters(text)) {
    if (c == "&") {
      result += "&amp;";
    } else if (c == "<") {
      result += "&lt;";
    } else if (c == ">") {
      result += "&gt;";
    } else if (c == "\"") {
      result += "&quot;";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace preheat
