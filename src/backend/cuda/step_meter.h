// Breaks down the time of a step on the GPU.
#pragma once

#include <vector>

#include "backend/cuda/cuda.h"
#include "backend/step_parts.h"

namespace preheat::cuda {

/// Times the parts of a step that is captured into a graph and replayed, with event-record nodes
/// between the parts: host and launch overhead are excluded. Such a node takes time of its own; the
/// time between two adjacent ones is subtracted from every part.
class StepMeter {
 public:
  /// During the capture all parts are put on this stream, and on no other.
  explicit StepMeter(const Stream& stream) : stream_(stream) {}

  void begin();
  void begin_pass() { passes_.push_back(parts_.size()); }
  /// Attributes everything put on the stream since the last call to `part`.
  void finish_part(const StepPart& part);

  /// Counts the launches of every part in the captured graph.
  void count_launches(const Graph& graph);

  /// Waits for the last replayed step and adds its parts.
  void collect(StepParts& parts) const;

 private:
  void record();

  const Stream& stream_;
  std::vector<Event> events_;  // two before the first part, one after each
  std::vector<StepPart> parts_;
  std::vector<std::size_t> passes_;  // the first part of each
};

}  // namespace preheat::cuda
