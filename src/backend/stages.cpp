#include "backend/stages.h"

#include <stdexcept>

namespace preheat {

std::size_t stage_at(const std::vector<TrainingStage>& stages, std::int64_t step) {
  std::size_t stage = 0;
  while (stage + 1 < stages.size() && stages[stage + 1].begin <= step) ++stage;
  return stage;
}

void check_updates(const std::vector<TrainingStage>& stages, std::int64_t steps_per_epoch,
                   std::int64_t ordered_epoch, std::int64_t step, std::int64_t updates) {
  if (step / steps_per_epoch != ordered_epoch ||
      step % steps_per_epoch + updates > steps_per_epoch) {
    throw std::logic_error("train: past the end of the epoch whose order is known");
  }
  const std::size_t next = stage_at(stages, step) + 1;
  if (next < stages.size() && step + updates > stages[next].begin) {
    throw std::logic_error("train: past the end of the stage");
  }
}

TrainedOps::TrainedOps(const Network& network)
    : TrainedOps(network, std::vector<bool>(network.parameters.size(), true), false) {}

TrainedOps::TrainedOps(const Network& network, const std::vector<bool>& trained,
                       bool keep_statistics)
    : lowest(static_cast<int>(network.ops.size())) {
  const auto is_trained = [&](int parameter) { return parameter >= 0 && trained[parameter]; };
  for (const Op& op : network.ops) {
    const bool norm = is_trained(op.norm_weight) || is_trained(op.norm_bias);
    const bool weight = is_trained(op.weight) || is_trained(op.bias);
    const int index = static_cast<int>(weights.size());
    if (index < lowest && (norm || weight)) lowest = index;
    weights.push_back(weight);
    fixed_statistics.push_back(keep_statistics && op.normalized() && !norm);
  }
}

}  // namespace preheat
