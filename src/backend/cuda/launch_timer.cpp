#include "backend/cuda/launch_timer.h"

#include <utility>
#include <vector>

namespace preheat::cuda {

Spread time_launches(const Stream& stream, int rounds, std::int64_t steps,
                     const std::function<void()>& enqueue) {
  std::vector<Event> ends;  // of a warm-up round and of each round
  for (int i = 0; i <= rounds; ++i) ends.push_back(make_timer());
  enqueue();
  for (const Event& end : ends) {
    enqueue();
    PREHEAT_CHECK(cudaEventRecord(end.get(), stream.get()));
  }
  wait(stream);
  std::vector<double> times;
  for (std::size_t i = 1; i < ends.size(); ++i) {
    times.push_back(1e3 * static_cast<double>(milliseconds(ends[i - 1], ends[i])) /
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
