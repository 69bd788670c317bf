#include "backend/cuda/dataset.h"

#include <atomic>
#include <span>
#include <stdexcept>
#include <vector>

#include "backend/inspect.h"

namespace preheat::cuda {
namespace {

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

DeviceDataset::DeviceDataset(const Dataset& dataset)
    : number_(next_number()),
      size_(dataset.size()),
      shape_(dataset.shape),
      pixels_(dataset.pixels.size()),
      labels_(dataset.labels.size()) {
  PREHEAT_CHECK(
      cudaMemcpy(pixels_.data(), dataset.pixels.data(), pixels_.bytes(), cudaMemcpyHostToDevice));
  PREHEAT_CHECK(
      cudaMemcpy(labels_.data(), dataset.labels.data(), labels_.bytes(), cudaMemcpyHostToDevice));
  // A copy from pageable memory may return before the device has all of it, and the streams that
  // read it do not wait for this one.
  PREHEAT_CHECK(cudaStreamSynchronize(nullptr));
}

kernels::ImageSource DeviceDataset::source(const float* table) const {
  return {pixels_.data(),
          labels_.data(),
          table,
          size_,
          static_cast<std::int32_t>(shape_.height),
          static_cast<std::int32_t>(shape_.width),
          static_cast<std::int32_t>(shape_.channels)};
}

const DeviceDataset& device_dataset(const ResidentDataset& dataset) {
  const auto* on_device = dynamic_cast<const DeviceDataset*>(&dataset);
  if (on_device == nullptr) throw std::logic_error("a dataset of another backend");
  return *on_device;
}

std::shared_ptr<const DeviceDataset> device_dataset(
    std::shared_ptr<const ResidentDataset> dataset) {
  const DeviceDataset& on_device = device_dataset(*dataset);
  return {std::move(dataset), &on_device};
}

Buffer<float> upload_table(const Normalize& normalize, const Stream& stream) {
  const std::vector<float> table = normalization_table(normalize);
  Buffer<float> buffer(table.size());
  upload(std::span<const float>(table), buffer.data(), stream);
  wait(stream);
  return buffer;
}

}  // namespace preheat::cuda
