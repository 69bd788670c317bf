// How long work on a stream takes by the device's clock.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/cuda/cuda.h"
#include "backend/spread.h"

namespace preheat::cuda {

/// Microseconds of one step, where `enqueue` puts `steps` steps of something on the stream: over so
/// many rounds, after two that are not counted.
Spread time_launches(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue);

/// The same of a graph that holds what `enqueue` puts on the stream, `steps` steps, which is called
/// once in front of the capture: that loads the code of its kernels.
Spread time_in_graph(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue);

}  // namespace preheat::cuda
