#include "report/label_text.h"

#include <array>
#include <cstdint>

namespace preheat {
namespace {

constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> result;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80             ? 1
                               : (lead & 0xE0) == 0xC0 ? 2
                               : (lead & 0xF0) == 0xE0 ? 3
                               : (lead & 0xF8) == 0xF0 ? 4
                                                       : 0;
    std::uint32_t code = length < 2 ? lead : lead & (0x7Fu >> length);
    bool valid = length != 0 && i + length <= text.size();
    for (std::size_t k = 1; valid && k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      valid = (next & 0xC0) == 0x80;
      code = code << 6 | (next & 0x3Fu);
    }
    constexpr std::array<std::uint32_t, 5> smallest{0, 0, 0x80, 0x800, 0x10000};
    valid = valid && code >= smallest[length] && code <= 0x10FFFF && code != 0xFFFE &&
            code != 0xFFFF && (code < 0xD800 || code > 0xDFFF);
    const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    result.push_back(valid && !control ? text.substr(i, length) : replacement_character);
    i += valid ? length : 1;
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
