// What a misspelt name may stand for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace preheat {

/// The names a misspelt `name` may stand for: those at the smallest edit distance, if that is small
/// enough, otherwise, from three characters on, those that contain it. Empty if there are none.
std::vector<std::string> nearest(std::string_view name, const std::vector<std::string>& names);

/// "did you mean a or b?"
std::string did_you_mean(const std::vector<std::string>& names);

}  // namespace preheat
