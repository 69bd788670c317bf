#include "backend/memory_check.h"

#include <fmt/format.h>

#include "config/error.h"

namespace preheat {

void check_memory(std::string_view memory, std::size_t parameters, std::size_t activations,
                  std::size_t available, std::string_view remedy) {
  if (parameters + activations <= available) return;
  throw OutOfMemory(
      fmt::format("out of {}: the network needs {} MiB and its activations {} MiB; {} MiB are "
                  "free; {}",
                  memory, parameters >> 20, activations >> 20, available >> 20,
                  activations > parameters ? remedy : "use a smaller network"));
}

}  // namespace preheat
