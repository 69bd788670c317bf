// Times work on a stream by the device's clock.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend/cuda/cuda.h"
#include "backend/spread.h"

namespace preheat::cuda {

/// Microseconds of each of `rounds` rounds, after a warm-up round; each calls `enqueue`, which puts
/// work on the stream. A round queues behind the one before, so that the host's part of its first
/// launch is not in it.
std::vector<double> time_rounds(const Stream& stream, int rounds,
                                const std::function<void()>& enqueue);

/// Microseconds per step over `rounds` such rounds, after two warm-up rounds; in each `enqueue`
/// puts `steps` steps on the stream.
Spread time_launches(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue);

/// The same for a graph that captures the `steps` steps that `enqueue` puts on the stream.
/// `enqueue` is called once before the capture to load the code of its kernels.
Spread time_in_graph(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue);

}  // namespace preheat::cuda
