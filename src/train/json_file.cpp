#include "train/json_file.h"

namespace preheat {

std::string problem_of(const nlohmann::json::exception& error) {
  if (const auto* parse = dynamic_cast<const nlohmann::json::parse_error*>(&error)) {
    return fmt::format("byte {} is not as JSON has it", parse->byte);
  }
  const std::string text = error.what();  // "[json.exception.out_of_range.403] key 'n' not found"
  const auto begin = text.find("] ");
  return begin == std::string::npos ? text : text.substr(begin + 2);
}

}  // namespace preheat
