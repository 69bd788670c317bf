// Loss, hits and the gradient of the logits, one thread per example: each has few numbers, and
// there are far fewer examples than the device has threads, so what counts is that it is one
// launch.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 128;

template <class Z>
__device__ BatchLoss example_loss(const LossOptions& options, std::int32_t classes, const Z* logits,
                                  std::int32_t label, float* largest_out, float* sum_out) {
  const auto z = [&](std::int32_t k) { return to_float(logits[k]); };
  float largest = z(0);
  std::int32_t first_of_largest = 0;
  bool ordered = z(0) == z(0);
  for (std::int32_t k = 1; k < classes; ++k) {
    ordered = ordered && z(k) == z(k);
    if (z(k) > largest) {
      largest = z(k);
      first_of_largest = k;
    }
  }
  BatchLoss loss;
  loss.examples = 1;
  loss.correct = ordered && first_of_largest == label ? 1 : 0;
  if (options.squared_error) {
    for (std::int32_t k = 0; k < classes; ++k) {
      const float error = z(k) - (k == label ? 1.0f : 0.0f);
      loss.sum += 0.5 * double{error} * double{error};
    }
    return loss;
  }
  // -sum_k q_k log softmax(z)_k with q = (1 - s) onehot + s / K, the largest logit subtracted
  // first.
  const float smoothing = static_cast<float>(options.label_smoothing);
  const float share = smoothing / static_cast<float>(classes);
  float sum = 0;
  float linear = 0;
  for (std::int32_t k = 0; k < classes; ++k) {
    const float shifted = z(k) - largest;
    const float q = share + (k == label ? 1 - smoothing : 0.0f);
    sum += expf(shifted);
    if (q != 0) linear = fmaf(q, shifted, linear);
  }
  loss.sum = double{logf(sum)} - double{linear};
  if (!ordered) loss.sum = nan("");  // whatever the comparisons above gave
  *largest_out = ordered ? largest : nanf("");
  *sum_out = sum;
  return loss;
}

template <class Z, class T>
__global__ void __launch_bounds__(threads)
    loss_kernel(const LossOptions options, const Logits logits, const StepState* state, T* d_logits,
                BatchLoss* result, bool adds, const LossScratch scratch) {
  const std::int64_t batch = logits.batch;
  const std::int32_t classes = logits.classes;
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  BatchLoss loss;
  if (i < batch) {
    const Z* z = static_cast<const Z*>(logits.values) + i * classes;
    const std::int32_t label = logits.labels[i];
    float largest = 0;
    float sum = 1;
    if (label >= 0) loss = example_loss(options, classes, z, label, &largest, &sum);
    if (d_logits != nullptr) {
      const float scale = (state != nullptr ? state->loss_scale : 1.0f) / static_cast<float>(batch);
      const float smoothing = static_cast<float>(options.label_smoothing);
      const float share = smoothing / static_cast<float>(classes);
      for (std::int32_t k = 0; k < classes; ++k) {
        const float target = k == label ? 1.0f : 0.0f;
        const float zk = to_float(z[k]);
        float d = zk - target;
        if (!options.squared_error) {
          d = expf(zk - largest) / sum - (share + target * (1 - smoothing));
        }
        d_logits[i * classes + k] = from_float<T>(label >= 0 ? d * scale : 0.0f);
      }
    }
  }
  const double sum = block_sum(loss.sum);
  const auto correct = block_sum(static_cast<int>(loss.correct));
  const auto examples = block_sum(static_cast<int>(loss.examples));
  if (threadIdx.x == 0) scratch.partials[blockIdx.x] = {sum, correct, examples};
  if (!is_last_block(scratch.counter, gridDim.x) || threadIdx.x != 0) return;
  BatchLoss total = adds ? *result : BatchLoss{};
  for (unsigned block = 0; block < gridDim.x; ++block) {
    const BatchLoss& partial = scratch.partials[block];
    total.sum += __ldcg(&partial.sum);
    total.correct += __ldcg(reinterpret_cast<const long long*>(&partial.correct));
    total.examples += __ldcg(reinterpret_cast<const long long*>(&partial.examples));
  }
  *result = total;
}

template <class T>
cudaError_t launch(const LossOptions& options, const Logits& logits, const StepState* state,
                   T* d_logits, BatchLoss* result, bool adds, const LossScratch& scratch,
                   cudaStream_t stream) {
  if (logits.batch < 1 || logits.classes < 1) return cudaErrorInvalidValue;
  return with_type(logits.element, [&]<class Z>() {
    loss_kernel<Z, T><<<static_cast<unsigned>(loss_partials(logits.batch)), threads, 0, stream>>>(
        options, logits, state, d_logits, result, adds, scratch);
    return cudaGetLastError();
  });
}

}  // namespace

std::int64_t loss_partials(std::int64_t batch) {
  return (batch + threads - 1) / threads;
}

cudaError_t softmax_xent(const LossOptions& options, const Logits& logits, const StepState* state,
                         Element element, void* d_logits, bool adds, BatchLoss* result,
                         const LossScratch& scratch, cudaStream_t stream) {
  return with_type(element, [&]<class T>() {
    return launch(options, logits, state, static_cast<T*>(d_logits), result, adds, scratch, stream);
  });
}

}  // namespace preheat::kernels
