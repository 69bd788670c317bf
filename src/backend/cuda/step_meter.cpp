#include "backend/cuda/step_meter.h"

#include <algorithm>
#include <stdexcept>

namespace preheat::cuda {

void StepMeter::record() {
  events_.push_back(make_timer());
  // External: a node of the graph that records, not an edge of the capture.
  PREHEAT_CHECK(
      cudaEventRecordWithFlags(events_.back().get(), stream_.get(), cudaEventRecordExternal));
}

void StepMeter::begin() {
  record();
  record();
}

void StepMeter::finish_part(const StepPart& part) {
  parts_.push_back(part);
  record();
}

// Nodes of one stream are sequential and listed in the order of creation.
void StepMeter::count_launches(const Graph& graph) {
  std::size_t count = nodes_of(graph);
  std::vector<cudaGraphNode_t> nodes(count);
  PREHEAT_CHECK(cudaGraphGetNodes(graph.get(), nodes.data(), &count));
  std::size_t recorded = 0;
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    PREHEAT_CHECK(cudaGraphNodeGetType(node, &type));
    if (type == cudaGraphNodeTypeEventRecord) {
      ++recorded;
    } else if (recorded >= 2 && recorded - 2 < parts_.size()) {
      ++parts_[recorded - 2].launches;
    }
  }
  if (recorded != events_.size()) throw std::logic_error("the graph does not have its events");
}

void StepMeter::collect(StepParts& parts) const {
  wait(stream_);
  const float nothing = milliseconds(events_[0], events_[1]);
  parts.begin_step();
  auto pass = passes_.begin();
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    if (pass != passes_.end() && *pass == i) {
      parts.begin_pass();
      ++pass;
    }
    StepPart part = parts_[i];
    part.microseconds = 1e3 * static_cast<double>(std::max(
                                  0.0f, milliseconds(events_[i + 1], events_[i + 2]) - nothing));
    parts.add(part);
  }
}

}  // namespace preheat::cuda
