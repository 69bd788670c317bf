// What backends say and ask of tensors alike, once these are on the host.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace preheat {

bool all_finite(std::span<const float> values);

/// A pixel's normalised value by channel and byte: [channels, 256].
std::vector<float> normalization_table(const Normalize& normalize);

/// Of what an op put out: values [.., channels].
ActivationRecord activation_record(const Op& op, std::span<const float> values);

/// Throws Error naming the first tensor that the network does not have in that shape.
void check_state(const Network& network, const ReplicaState& state);

}  // namespace preheat
