#include "backend/cuda/condition.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <vector>

#include "backend/cuda/cuda.h"

namespace preheat::cuda {
namespace {

// Decodes the bits of NVML's nvmlClocksEventReasons. A driver that does not know them says "[N/A]".
std::string reasons_text(const std::string& field) {
  if (!field.starts_with("0x")) return "what holds them back unknown";
  const unsigned long long bits = std::strtoull(field.c_str(), nullptr, 16);
  constexpr std::pair<unsigned, const char*> names[] = {
      {0x2, "application clocks"}, {0x4, "power cap"},       {0x8, "hardware slowdown"},
      {0x10, "sync boost"},        {0x20, "temperature"},    {0x40, "temperature, hardware"},
      {0x80, "power brake"},       {0x100, "display clocks"}};
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((bits & bit) != 0) text += fmt::format("{}{}", text.empty() ? "" : " and ", name);
  }
  return "held back by " + (text.empty() ? "nothing" : text);
}

}  // namespace

Condition parse_condition(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream text(line);
  for (std::string field; std::getline(text >> std::ws, field, ',');) fields.push_back(field);
  if (fields.size() != 7) {
    return {"clocks, throttling and ECC unknown: nvidia-smi does not report them", {}};
  }
  Condition condition;
  condition.text =
      fmt::format("SM clock {} of {} MHz, memory {} MHz, ECC {}, {} C, {} W, {}", fields[0],
                  fields[1], fields[2], fields[3], fields[4], fields[5], reasons_text(fields[6]));
  const auto add_clock = [&](const char* name, const std::string& field) {
    const double mhz = std::strtod(field.c_str(), nullptr);  // 0 for "[N/A]"
    if (mhz > 0) condition.clocks.emplace_back(name, mhz);
  };
  add_clock("SM", fields[0]);
  add_clock("memory", fields[2]);
  return condition;
}

Condition condition() {
  char bus[32] = "";
  PREHEAT_CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, 0));
  const std::string command = fmt::format(
      "nvidia-smi -i {} --format=csv,noheader,nounits --query-gpu=clocks.sm,clocks.max.sm,"
      "clocks.mem,ecc.mode.current,temperature.gpu,power.draw,clocks_event_reasons.active "
      "2>/dev/null",
      bus);
  std::array<char, 512> line{};
  if (FILE* const pipe = popen(command.c_str(), "r")) {
    if (std::fgets(line.data(), line.size(), pipe) == nullptr) line[0] = '\0';
    pclose(pipe);
  }
  return parse_condition(line.data());
}

}  // namespace preheat::cuda
