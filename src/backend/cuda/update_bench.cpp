#include "backend/cuda/update_bench.h"

#include <algorithm>
#include <functional>

#include "backend/cuda/launch_timer.h"
#include "backend/cuda/update_variants.h"

namespace preheat::cuda {
namespace {

constexpr std::int64_t cold_bytes = std::int64_t{256} << 20;  // several times the L2 cache

LrSchedule constant_schedule() {
  LrSchedule schedule;
  schedule.steps = 1 << 20;
  schedule.phase_count = 1;
  schedule.phases[0].shape = Shape::constant;
  schedule.phases[0].length = schedule.phases[0].span = schedule.steps;
  schedule.phases[0].from = double{bench_rate};
  return schedule;
}

class Bench {
 public:
  Bench(const UpdateSet& set, const UpdatePattern& pattern, bool quick,
        const BetweenRounds& between_rows)
      : set_(set), quick_(quick), between_rows_(between_rows), arenas_(set, pattern, schedule_) {}

  std::vector<UpdateTiming> run() {
    // The ceilings first: everything else is reported as a share of them.
    const auto [copied, traffic] = add_ceilings(false);
    for (const UpdateVariant& v : variants_.all()) {
      variants_.verify(v);
      arenas_.fill(arenas_.instances.front());
      if (v.in_graph) add_row(v, SubmitMode::graph, false);
      if (!v.in_graph || !quick_) add_row(v, SubmitMode::launches, false);
    }
    add_shares(0, copied, traffic);
    const std::int64_t bytes_of_instance = 3 * size() * static_cast<std::int64_t>(sizeof(float));
    if (bytes_of_instance >= cold_bytes) return rows_;
    constexpr std::int64_t max_instances = 4096;  // so many fit into a graph
    const std::int64_t instances = (cold_bytes + bytes_of_instance - 1) / bytes_of_instance;
    if (instances > max_instances) return rows_;
    arenas_.add_instances(instances);
    const std::size_t first_cold = rows_.size();
    const auto [cold_copied, cold_traffic] = add_ceilings(true);
    add_row(variants_.fused(), SubmitMode::graph, true);
    add_shares(first_cold, cold_copied, cold_traffic);
    return rows_;
  }

 private:
  struct MeasuredCeilings {
    double gigabytes_of_copy;  // per second
    double microseconds_of_traffic;
  };
  MeasuredCeilings add_ceilings(bool cold) {
    const double copied = add_row(variants_.copy(), SubmitMode::ceiling, cold).gigabytes;
    return {
        copied,
        add_row(variants_.read_three_write_two(), SubmitMode::ceiling, cold).microseconds.median};
  }

  // Fills in the rows from `first` on; the ceilings must be as warm or cold as the rows.
  void add_shares(std::size_t first, double gigabytes_of_copy, double microseconds_of_traffic) {
    for (std::size_t i = first; i < rows_.size(); ++i) {
      rows_[i].share_of_copy = rows_[i].gigabytes / gigabytes_of_copy;
      rows_[i].share_of_traffic = microseconds_of_traffic / rows_[i].microseconds.median;
    }
  }

  std::int64_t size() const { return arenas_.layout.size; }

  const UpdateTiming& add_row(const UpdateVariant& v, SubmitMode way, bool cold) {
    between_rows_();
    const std::int64_t instances = cold ? static_cast<std::int64_t>(arenas_.instances.size()) : 1;
    const std::int64_t at_once = std::clamp<std::int64_t>((std::int64_t{1} << 27) / size(), 4, 64);
    const std::int64_t steps =
        std::max(at_once / std::max<std::int64_t>(1, v.launches / 16), instances);
    const auto enqueue = [&] {
      for (std::int64_t i = 0; i < steps; ++i) v.step(arenas_.instances[i % instances]);
    };
    const int rounds = quick_ ? 3 : 7;
    UpdateTiming t;
    t.microseconds = way == SubmitMode::launches
                         ? time_launches(arenas_.stream, rounds, steps, enqueue)
                         : time_in_graph(arenas_.stream, rounds, steps, enqueue);
    t.set = set_.name;
    t.variant = v.name;
    t.way = way;
    t.cold = cold;
    t.parameters = set_.parameters();
    t.tensors = static_cast<std::int64_t>(set_.tensors.size());
    t.launches = v.launches;
    // A ceiling moves the padding too; an update only needs to move its parameters.
    t.bytes = v.bytes * static_cast<double>(way == SubmitMode::ceiling ? size() : t.parameters);
    t.gigabytes = t.bytes / (1e3 * t.microseconds.median);
    rows_.push_back(std::move(t));
    return rows_.back();
  }

  const UpdateSet& set_;
  const bool quick_;
  const BetweenRounds& between_rows_;
  const LrSchedule schedule_ = constant_schedule();
  UpdateArenas arenas_;
  const UpdateVariants variants_{set_, arenas_, schedule_};
  std::vector<UpdateTiming> rows_;
};

}  // namespace

std::vector<UpdateTiming> time_updates(const UpdateSet& set, bool quick,
                                       const BetweenRounds& between_rounds) {
  const UpdatePattern pattern;
  return Bench(set, pattern, quick, between_rounds).run();
}

}  // namespace preheat::cuda
