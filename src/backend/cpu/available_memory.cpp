#include "backend/cpu/available_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "config/split.h"

namespace preheat::cpu {
namespace {

namespace fs = std::filesystem;

// The number with which a file begins; none if it says "max".
std::optional<std::size_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::size_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

// The number behind `name`, with which a line begins.
std::optional<std::size_t> number_in(const fs::path& path, std::string_view name) {
  std::ifstream file(path);
  std::string word;
  std::size_t number = 0;
  while (file >> word >> number) {
    if (word == name) return number;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return std::nullopt;
}

// The files of a control group, and the line of memory.stat with the file pages that the kernel
// takes back first.
struct GroupFiles {
  const char* limit;
  const char* used;
  const char* inactive_file;
};
constexpr GroupFiles version_1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file"};
constexpr GroupFiles version_2{"memory.max", "memory.current", "inactive_file"};

std::size_t left_in(const fs::path& group, const GroupFiles& files) {
  const std::optional<std::size_t> limit = number_in(group / files.limit);
  if (!limit) return std::numeric_limits<std::size_t>::max();
  const std::size_t used = number_in(group / files.used).value_or(0);
  const std::size_t cache = number_in(group / "memory.stat", files.inactive_file).value_or(0);
  return *limit - std::min(*limit, used - std::min(used, cache));
}

// The least that a group and those above it leave. In a container, `root` may be the process's own
// group, and `group` a path from the machine's root that is not there.
std::size_t left_along(const fs::path& root, const fs::path& group, const GroupFiles& files) {
  fs::path folder = root;
  std::size_t least = left_in(folder, files);
  for (const fs::path& part : group.relative_path()) {
    folder /= part;
    least = std::min(least, left_in(folder, files));
  }
  return least;
}

}  // namespace

std::size_t available_memory(const fs::path& proc, const fs::path& groups) {
  const std::optional<std::size_t> kib = number_in(proc / "meminfo", "MemAvailable:");
  std::size_t least =
      kib ? *kib << 10 : static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream own(proc / "self/cgroup");
  for (std::string line; std::getline(own, line);) {  // number:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) {
      least = std::min(least, left_along(groups, group, version_2));
    } else if (std::ranges::count(split(controllers, ','), "memory") > 0) {
      least = std::min(least, left_along(groups / "memory", group, version_1));
    }
  }
  return least;
}

}  // namespace preheat::cpu
