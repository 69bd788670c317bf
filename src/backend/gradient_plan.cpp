#include "backend/gradient_plan.h"

#include <algorithm>

namespace preheat {

GradientPlan plan_gradients(const Network& network) {
  const auto count = static_cast<int>(network.ops.size());
  GradientPlan plan;
  plan.first.assign(count, -1);
  plan.second.assign(count, -1);
  plan.to_input.assign(count, -1);
  plan.to_residual.assign(count, -1);
  std::vector<int> free;
  const auto take = [&](std::int64_t size) {
    // The smallest free slot that is large enough, or else the largest, grown.
    auto best = free.end();
    for (auto it = free.begin(); it != free.end(); ++it) {
      if (best == free.end()) {
        best = it;
        continue;
      }
      const std::int64_t a = plan.slot_sizes[*it];
      const std::int64_t b = plan.slot_sizes[*best];
      if (b >= size ? a >= size && a < b : a > b) best = it;
    }
    if (best == free.end()) {
      plan.slot_sizes.push_back(size);
      return static_cast<int>(plan.slot_sizes.size()) - 1;
    }
    const int slot = *best;
    free.erase(best);
    plan.slot_sizes[slot] = std::max(plan.slot_sizes[slot], size);
    return slot;
  };
  const auto give_gradient_to = [&](int op) {
    if (op < 0) return -1;
    int& slot = plan.first[op] < 0 ? plan.first[op] : plan.second[op];
    slot = take(network.ops[op].out.size());
    return slot;
  };
  plan.first[count - 1] = take(network.classes);
  for (int i = count - 1; i >= 0; --i) {
    plan.to_residual[i] = give_gradient_to(network.ops[i].residual);
    plan.to_input[i] = give_gradient_to(network.ops[i].input);
    free.push_back(plan.first[i]);
    if (plan.second[i] >= 0) free.push_back(plan.second[i]);
  }
  return plan;
}

}  // namespace preheat
