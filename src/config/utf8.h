// Decodes UTF-8, and tells which characters are no text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace preheat {

struct CodePoint {
  std::uint32_t value;
  std::size_t bytes;  // 0: not UTF-8
};

/// The first character of a text, which must not be empty. Overlong forms, surrogates and what is
/// beyond U+10FFFF are not UTF-8.
CodePoint decode_utf8(std::string_view text);

/// Whether a code point is a control character, other than tab, line feed and carriage return.
bool is_control(std::uint32_t c);

}  // namespace preheat
