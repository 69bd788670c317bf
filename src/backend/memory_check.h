// Whether a network fits into what memory is free.
#pragma once

#include <cstddef>
#include <string_view>

namespace preheat {

/// Remedies: what lowers the activations of a run, and of a probe.
inline constexpr const char* smaller_passes = "lower data.batch_size or data.micro_batch";
inline constexpr const char* fewer_examples = "use fewer examples";

/// Throws OutOfMemory, with all three figures, unless `parameters` + `activations` bytes, which a
/// network needs, are at most the `available` ones. `memory` is what the error calls it ("GPU
/// memory"); `remedy` is what would lower the activations, where they are the larger part.
void check_memory(std::string_view memory, std::size_t parameters, std::size_t activations,
                  std::size_t available, std::string_view remedy);

}  // namespace preheat
