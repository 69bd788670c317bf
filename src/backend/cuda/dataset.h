// A dataset on the GPU, shared by all replicas and probes.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "data/dataset.h"
#include "kernels/launch.h"

namespace preheat::cuda {

/// A dataset in the device's memory.
class DeviceDataset : public ResidentDataset {
 public:
  explicit DeviceDataset(const Dataset& dataset);
  std::int64_t size() const override { return size_; }
  std::uint64_t number() const { return number_; }  // unique, never reused

  /// The kernels' view of it, with a table of its normalised values on the device.
  kernels::ImageSource source(const float* table) const;

 private:
  const std::uint64_t number_;
  std::int64_t size_;
  ImageShape shape_;
  Buffer<std::uint8_t> pixels_;
  Buffer<std::uint8_t> labels_;
};

/// Both throw std::logic_error if it belongs to another backend.
const DeviceDataset& device_dataset(const ResidentDataset& dataset);
std::shared_ptr<const DeviceDataset> device_dataset(std::shared_ptr<const ResidentDataset> dataset);

/// The table that source() takes: [channels, 256].
Buffer<float> upload_table(const Normalize& normalize, const Stream& stream);

}  // namespace preheat::cuda
