// Whether the states of two replicas are equal bit for bit.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/backend.h"

namespace preheat {

inline bool same_tensors(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  return std::ranges::equal(a, b, [](const NamedTensor& s, const NamedTensor& t) {
    return s.name == t.name && s.shape == t.shape && s.values.size() == t.values.size() &&
           std::memcmp(s.values.data(), t.values.data(), s.values.size() * sizeof(float)) == 0;
  });
}

inline bool same(const StepState& a, const StepState& b) {
  return a.step == b.step && a.first_non_finite == b.first_non_finite &&
         a.gate_opened_at == b.gate_opened_at && a.lr == b.lr && a.previous_lr == b.previous_lr &&
         a.window_correct == b.window_correct && std::ranges::equal(a.hits, b.hits) &&
         a.loss_scale == b.loss_scale && a.updates_at_scale == b.updates_at_scale;
}

inline bool same(const ReplicaState& a, const ReplicaState& b) {
  return same_tensors(a.parameters, b.parameters) && same_tensors(a.velocity, b.velocity) &&
         same_tensors(a.statistics, b.statistics) && same(a.step, b.step);
}

}  // namespace preheat
