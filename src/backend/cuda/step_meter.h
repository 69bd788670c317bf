// Where the time of a step goes on the GPU.
#pragma once

#include <vector>

#include "backend/cuda/cuda.h"
#include "backend/step_parts.h"

namespace preheat::cuda {

/// Times the parts of a step that is captured into a graph and replayed, by nodes between them that
/// record events: the host and its launches are not in what it measures. Such a node takes time of
/// its own; that of two with nothing in between is taken off every part.
class StepMeter {
 public:
  /// The parts are put on this stream, and nowhere else, while it is captured.
  explicit StepMeter(const Stream& stream) : stream_(stream) {}

  void begin();
  /// All that was put on the stream since the last call.
  void ends(const StepPart& part);

  /// Counts the launches of every part, in the graph that was captured.
  void count_launches(const Graph& graph);

  /// Adds the parts of the step that was replayed last; waits for it.
  void collect(StepParts& parts) const;

 private:
  void record();

  const Stream& stream_;
  std::vector<Event> events_;  // two in front of the first part, one behind each
  std::vector<StepPart> parts_;
};

}  // namespace preheat::cuda
