// A dataset in the machine's memory, shared by all replicas and probes.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "backend/backend.h"
#include "data/dataset.h"

namespace preheat::cpu {

/// A copy of a dataset, as bytes.
class CpuDataset : public ResidentDataset {
 public:
  explicit CpuDataset(const Dataset& dataset) : data(dataset) {}
  std::int64_t size() const override { return data.size(); }
  const Dataset data;
};

/// Throws std::logic_error if it belongs to another backend.
inline const Dataset& data_of(const ResidentDataset& dataset) {
  const auto* on_cpu = dynamic_cast<const CpuDataset*>(&dataset);
  if (on_cpu == nullptr) throw std::logic_error("a dataset of another backend");
  return on_cpu->data;
}

}  // namespace preheat::cpu
