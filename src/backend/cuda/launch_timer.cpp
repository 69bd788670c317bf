#include "backend/cuda/launch_timer.h"

#include <utility>
#include <vector>

namespace preheat::cuda {

Spread time_launches(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue) {
  const Event start = make_timer();
  const Event end = make_timer();
  enqueue();
  enqueue();
  wait(stream);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    PREHEAT_CHECK(cudaEventRecord(start.get(), stream.get()));
    enqueue();
    PREHEAT_CHECK(cudaEventRecord(end.get(), stream.get()));
    PREHEAT_CHECK(cudaEventSynchronize(end.get()));
    times.push_back(1e3 * static_cast<double>(milliseconds(start, end)) /
                    static_cast<double>(steps));
  }
  return spread_of(std::move(times));
}

Spread time_in_graph(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue) {
  enqueue();
  const GraphExec graph = instantiate(capture(stream, enqueue));
  return time_launches(stream, rounds, steps,
                       [&] { PREHEAT_CHECK(cudaGraphLaunch(graph.get(), stream.get())); });
}

}  // namespace preheat::cuda
