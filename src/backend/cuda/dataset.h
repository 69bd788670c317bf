// A dataset on the GPU, shared by all who read it.
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
  std::uint64_t number() const { return number_; }  // of no other, also not of one that is gone

  /// As the kernels read it, with a table of its normalised values on the device.
  kernels::ImageSource source(const float* table) const;

 private:
  const std::uint64_t number_;
  std::int64_t size_;
  ImageShape shape_;
  Buffer<std::uint8_t> pixels_;
  Buffer<std::uint8_t> labels_;
};

/// Throws std::logic_error where it is of another backend.
std::shared_ptr<const DeviceDataset> device_dataset(std::shared_ptr<const ResidentDataset> dataset);

/// The table that source() wants: [channels, 256].
Buffer<float> upload_table(const Normalize& normalize, const Stream& stream);

}  // namespace preheat::cuda
