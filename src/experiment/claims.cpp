#include "experiment/claims.h"

#include <nlohmann/json.hpp>

namespace preheat {

nlohmann::ordered_json to_json(const std::vector<ClaimResult>& claims) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ClaimResult& c : claims) {
    json.push_back({{"claim", c.claim},
                    {"text", c.text},
                    {"verdict", to_string(c.verdict)},
                    {"evidence", c.evidence}});
  }
  return json;
}

}  // namespace preheat
