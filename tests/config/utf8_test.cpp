#include "config/utf8.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

namespace preheat {
namespace {

// As the standard's table of bit distributions has it, also for what UTF-8 excludes.
std::string encoded(std::uint32_t c, int bytes) {
  if (bytes == 1) return {static_cast<char>(c)};
  std::string text;
  for (int i = 1; i < bytes; ++i, c >>= 6) text.insert(0, 1, static_cast<char>(0x80 | (c & 0x3f)));
  return static_cast<char>(0xff00 >> bytes | c) + text;
}

int bytes_of(std::uint32_t c) {
  return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
}

TEST(Utf8, EveryCharacterIsDecodedAndNothingElse) {
  for (std::uint32_t c = 0; c < 0x200000; ++c) {
    const int bytes = bytes_of(c);
    const bool is_character = c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
    const std::string text = encoded(c, bytes);
    const CodePoint read = decode_utf8(text + "x");
    ASSERT_EQ(static_cast<int>(read.bytes), is_character ? bytes : 0) << fmt::format("U+{:04X}", c);
    ASSERT_EQ(read.value, is_character ? c : 0);
    if (bytes > 1) {
      ASSERT_EQ(decode_utf8(text.substr(0, bytes - 1)).bytes, 0u) << "cut off";
      ASSERT_EQ(decode_utf8(text.substr(0, bytes - 1) + "x").bytes, 0u) << "cut short";
    }
  }
}

TEST(Utf8, OverlongFormsAndStrayBytesAreNone) {
  for (std::uint32_t c = 0; c < 0x10000; ++c) {
    for (int bytes = bytes_of(c) + 1; bytes <= 4; ++bytes) {
      ASSERT_EQ(decode_utf8(encoded(c, bytes)).bytes, 0u) << fmt::format("U+{:04X} {}", c, bytes);
    }
  }
  for (unsigned lead = 0x80; lead < 0x100; ++lead) {
    if (lead >= 0xc2 && lead <= 0xf4) continue;
    EXPECT_EQ(decode_utf8(static_cast<char>(lead) + std::string(3, '\x80')).bytes, 0u) << lead;
  }
}

}  // namespace
}  // namespace preheat
