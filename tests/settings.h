// A document with settings, as --set gives them.
#pragma once

#include <string>
#include <vector>

#include "config/document.h"

namespace preheat {

inline Document with_settings(const Document& document, const std::vector<std::string>& settings) {
  std::vector<Override> overrides;
  for (const std::string& setting : settings) overrides.push_back(parse_override(setting));
  return with_overrides(document, overrides);
}

}  // namespace preheat
