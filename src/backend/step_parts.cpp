#include "backend/step_parts.h"

#include "backend/spread.h"

namespace preheat {

void StepParts::begin_step() {
  ++steps_;
  next_ = 0;
}

void StepParts::add(const StepPart& part) {
  if (next_ == parts_.size()) {
    parts_.push_back(part);
    times_.push_back({part.microseconds});
  } else if (times_[next_].size() < steps_) {
    times_[next_].push_back(part.microseconds);
  } else {
    times_[next_].back() += part.microseconds;
    if (steps_ == 1) {
      parts_[next_].cost += part.cost;
      parts_[next_].launches += part.launches;
    }
  }
  ++next_;
}

void StepParts::add(StepPart part, Clock::time_point start) {
  part.microseconds = 1e6 * seconds_since(start);
  add(part);
}

std::vector<StepPart> StepParts::medians() const {
  std::vector<StepPart> medians = parts_;
  for (std::size_t i = 0; i < medians.size(); ++i) {
    medians[i].microseconds = spread_of(times_[i]).median;
  }
  return medians;
}

double weights_of(const Op& op) {
  const std::int64_t inputs =
      op.kind == OpKind::conv ? op.kernel * op.kernel * op.in.channels : op.in.size();
  return static_cast<double>(inputs * op.out.channels);
}

double operations_of(const Op& op, std::int64_t batch_size) {
  const std::int64_t places = op.kind == OpKind::conv ? op.out.height * op.out.width : 1;
  return 2 * weights_of(op) * static_cast<double>(places * batch_size);
}

}  // namespace preheat
