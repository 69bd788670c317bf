#include "backend/cuda/launch_timer.h"

#include <utility>

namespace preheat::cuda {

std::vector<double> time_rounds(const Stream& stream, int rounds,
                                const std::function<void()>& enqueue) {
  std::vector<Event> ends;  // of the warm-up round and of each round
  for (int i = 0; i <= rounds; ++i) ends.push_back(make_timer());
  for (const Event& end : ends) {
    enqueue();
    PREHEAT_CHECK(cudaEventRecord(end.get(), stream.get()));
  }
  wait(stream);
  std::vector<double> times;
  for (std::size_t i = 1; i < ends.size(); ++i) {
    times.push_back(1e3 * static_cast<double>(milliseconds(ends[i - 1], ends[i])));
  }
  return times;
}

Spread time_launches(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue) {
  enqueue();
  std::vector<double> times = time_rounds(stream, rounds, enqueue);
  for (double& time : times) time /= static_cast<double>(steps);
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
