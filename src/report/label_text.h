// Makes text from a file or a user fit for a page or a terminal. Invalid UTF-8 and control
// characters, which XML forbids and a terminal obeys, become U+FFFD.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

/// The UTF-8 characters one by one, as views into `text` or of a constant.
std::vector<std::string_view> characters(std::string_view text);

/// Number of characters.
int width_of(std::string_view text);

/// The first `most` characters.
std::string clean(std::string_view text, int most = std::numeric_limits<int>::max());

/// For XML and HTML: between tags, or in a quoted attribute.
std::string escape(std::string_view text);

}  // namespace preheat
