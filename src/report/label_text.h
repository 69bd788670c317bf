// Text that came from a file or a user, made fit for a page or a terminal. What is not UTF-8, or a
// control character, which XML forbids and a terminal obeys, becomes U+FFFD.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

/// The UTF-8 characters, one by one; they point into `text` or at a constant.
std::vector<std::string_view> characters(std::string_view text);

/// How many characters there are.
int width_of(std::string_view text);

/// The first `most` characters.
std::string clean(std::string_view text, int most = std::numeric_limits<int>::max());

/// For XML and HTML: between tags, or in a quoted attribute.
std::string escape(std::string_view text);

}  // namespace preheat
