#include "backend/cpu/buffer.h"

#include <unistd.h>

#include <fstream>
#include <string>

namespace preheat::cpu {

std::size_t available_memory() {
  std::ifstream meminfo("/proc/meminfo");
  std::string name;
  std::size_t kib = 0;
  while (meminfo >> name >> kib) {
    if (name == "MemAvailable:") return kib << 10;
    meminfo.ignore(64, '\n');
  }
  return static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

}  // namespace preheat::cpu
