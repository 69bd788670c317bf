// Inspection of tensors on the host, shared by the backends.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace preheat {

bool all_finite(std::span<const float> values);

/// The record of an op's output: values [.., channels].
ActivationRecord activation_record(const Op& op, std::span<const float> values);

/// Throws Error naming the first tensor that is not of the same name and shape in both, in their
/// order.
void check_state(const Network& network, const ReplicaState& state);

}  // namespace preheat
