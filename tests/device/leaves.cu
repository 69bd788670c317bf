#include "device/leaves.h"

#include <cuda_runtime.h>

#include <memory>
#include <stdexcept>

namespace preheat {
namespace {

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(cudaGetErrorName(status)) + ": " +
                           cudaGetErrorString(status));
}

/// An array on the device, freed at the end of its scope.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, size * sizeof(T)));
    data_.reset(static_cast<T*>(memory));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    check(cudaMemcpy(data(), values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  T* data() const { return data_.get(); }
  /// Waits for the kernels before it.
  std::vector<T> values() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data(), size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  struct Free {
    void operator()(T* memory) const { cudaFree(memory); }
  };
  std::size_t size_;
  std::unique_ptr<T, Free> data_;
};

constexpr int block = 256;

unsigned blocks(std::size_t n) {
  return static_cast<unsigned>((n + block - 1) / block);
}

__device__ std::size_t thread() {
  return std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

__global__ void rates(const LrSchedule schedule, const std::int64_t* steps, std::size_t n,
                      std::int64_t gate_opened_at, double* lr) {
  const std::size_t i = thread();
  if (i < n) lr[i] = lr_at(schedule, steps[i], gate_opened_at);
}

// One thread, one update after the other, as in training.
__global__ void advances(const LrSchedule schedule, StepState* state, const std::int64_t* correct,
                         std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) advance(*state, schedule, true, correct[i]);
}

__global__ void updates_of_weights(const SgdMomentum rule, const UpdateScalars scalars,
                                   float weight_decay, const float* g, std::size_t n, float* w,
                                   float* v, float* taken) {
  const std::size_t i = thread();
  if (i < n) taken[i] = sgd_momentum(rule, scalars, weight_decay, g[i], w[i], v[i]);
}

__global__ void crops(std::uint64_t seed, std::uint32_t epoch, std::int32_t padding, bool flip,
                      std::size_t n, CropFlip* result) {
  const std::size_t i = thread();
  if (i < n) result[i] = crop_flip(seed, epoch, static_cast<std::uint32_t>(i), padding, flip);
}

}  // namespace

std::string no_device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count == 0 ? "no CUDA device" : "";
}

std::vector<double> rates_on_device(const LrSchedule& schedule,
                                    const std::vector<std::int64_t>& steps,
                                    std::int64_t gate_opened_at) {
  const DeviceArray<std::int64_t> input(steps);
  const DeviceArray<double> lr(steps.size());
  rates<<<blocks(steps.size()), block>>>(schedule, input.data(), steps.size(), gate_opened_at,
                                         lr.data());
  check(cudaGetLastError());
  return lr.values();
}

StepState advanced_on_device(const LrSchedule& schedule, const StepState& state,
                             const std::vector<std::int64_t>& correct) {
  const DeviceArray<StepState> on_device(std::vector<StepState>{state});
  const DeviceArray<std::int64_t> input(correct);
  advances<<<1, 1>>>(schedule, on_device.data(), input.data(), correct.size());
  check(cudaGetLastError());
  return on_device.values().front();
}

Weights updated_on_device(const SgdMomentum& rule, const UpdateScalars& scalars, float weight_decay,
                          const std::vector<float>& g, const Weights& before) {
  const DeviceArray<float> gradients(g);
  const DeviceArray<float> w(before.w);
  const DeviceArray<float> v(before.v);
  const DeviceArray<float> taken(g.size());
  updates_of_weights<<<blocks(g.size()), block>>>(rule, scalars, weight_decay, gradients.data(),
                                                  g.size(), w.data(), v.data(), taken.data());
  check(cudaGetLastError());
  return {w.values(), v.values(), taken.values()};
}

std::vector<CropFlip> crops_on_device(std::uint64_t seed, std::uint32_t epoch, std::int32_t padding,
                                      bool flip, std::size_t n) {
  const DeviceArray<CropFlip> result(n);
  crops<<<blocks(n), block>>>(seed, epoch, padding, flip, n, result.data());
  check(cudaGetLastError());
  return result.values();
}

}  // namespace preheat
