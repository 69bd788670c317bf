#include "backend/cuda/benches.h"

#include "backend/cuda/ceilings.h"
#include "backend/cuda/condition.h"
#include "backend/cuda/launch_timer.h"
#include "backend/cuda/update_arenas.h"
#include "backend/cuda/update_bench.h"
#include "kernels/launch.h"

namespace preheat::cuda {

Condition CudaBenches::condition() const {
  return cuda::condition();
}

std::int64_t CudaBenches::max_update_floats() const {
  constexpr std::size_t bytes_of_float = 3 * sizeof(float) + 2 * sizeof(std::uint16_t) + 1;
  std::size_t free = 0;
  std::size_t total = 0;
  PREHEAT_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<std::int64_t>(free / bytes_of_float);
}

std::vector<UpdateTiming> CudaBenches::time_launch() {
  constexpr int rounds = 7;
  constexpr std::int64_t launches = 64;
  const Stream stream = make_stream();
  UpdateTiming t;
  t.microseconds = time_in_graph(stream, rounds, launches, [&] {
    for (std::int64_t i = 0; i < launches; ++i) PREHEAT_CHECK(kernels::empty(stream.get()));
  });
  t.set = "nothing";
  t.variant = "empty kernel";
  t.way = SubmitMode::graph;
  t.launches = 1;
  return {t};
}

std::vector<UpdateTiming> CudaBenches::time_updates(const UpdateSet& set, bool quick,
                                                    const BetweenRounds& between_rounds) {
  return with_remedy("use fewer parameters",
                     [&] { return cuda::time_updates(set, quick, between_rounds); });
}

std::vector<std::vector<double>> CudaBenches::time_schedules(
    const UpdateSet& set, const std::vector<NamedSchedule>& schedules, bool quick,
    const BetweenRounds& between_rounds) {
  const int rounds = quick ? 3 : 15;
  constexpr std::int64_t steps = 32;
  const UpdatePattern pattern;
  const UpdateArenas arenas(set, pattern, schedules.front().schedule);
  const Stream& stream = arenas.stream;
  std::vector<GraphExec> graphs;
  for (const NamedSchedule& named : schedules) {
    const auto enqueue = [&] {
      for (std::int64_t i = 0; i < steps; ++i) {
        arenas.update(arenas.instances.front(), {});
        arenas.advance(named.schedule);
      }
    };
    enqueue();  // loads the code
    graphs.push_back(instantiate(capture(stream, enqueue)));
  }
  std::vector<std::vector<double>> times(schedules.size());
  for (int round = 0; round < rounds; ++round) {
    between_rounds();
    for (std::size_t i = 0; i < schedules.size(); ++i) {
      StepState state = first_step(schedules[i].schedule);
      state.step = schedules[i].schedule.steps * round / rounds;
      arenas.set_step(state);
      const Spread us = time_launches(
          stream, 1, steps, [&] { PREHEAT_CHECK(cudaGraphLaunch(graphs[i].get(), stream.get())); });
      times[i].push_back(us.median);
    }
  }
  return times;
}

Ceilings CudaBenches::measure_ceilings(Precision precision, int) {
  return cuda::measure_ceilings(*libraries_, precision);
}

}  // namespace preheat::cuda
