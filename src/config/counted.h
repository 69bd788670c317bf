#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace preheat {

/// A number of things, in words: "1 seed", "2 seeds", "0 seeds".
template <class Count>
std::string counted(Count n, std::string_view thing) {
  return fmt::format("{} {}{}", n, thing, n == 1 ? "" : "s");
}

}  // namespace preheat
