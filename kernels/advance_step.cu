// The end of a step, the only writer of StepState. One block: it reads only a few partial sums, and
// the whole next step waits for its result.
#include "device.cuh"

namespace preheat::kernels {
namespace {

constexpr int threads = 512;

__global__ void __launch_bounds__(threads)
    advance_kernel(const __grid_constant__ LrSchedule schedule, StepState* state,
                   const BatchLoss* loss, const NormPartial* partials, std::int64_t partial_count,
                   const GradientCheck* check, bool scales_loss, DeviceRecord* records,
                   std::int64_t capacity) {
  // The loads that every step needs, before the first wait: one trip to memory in place of three.
  const bool goes_on = is_alive(*state);
  const BatchLoss batch_loss = *loss;
  double squares[3] = {};  // of the gradient, of what was subtracted and of the weights
  bool finite = true;
  for (std::int64_t i = threadIdx.x; i < partial_count; i += threads) {
    const NormPartial partial = partials[i];
    squares[0] += double{partial.gradient};
    squares[1] += double{partial.taken};
    squares[2] += double{partial.weight};
    finite = finite && partial.finite != 0;
  }
  if (!goes_on) return;
  block_sums(squares);
  finite = __syncthreads_and(finite ? 1 : 0) != 0;
  if (threadIdx.x != 0) return;

  DeviceRecord record;
  record.step = state->step;
  record.phase = phase_at(schedule, state->step, state->gate_opened_at);
  record.lr = state->lr;
  record.loss = batch_loss.sum / static_cast<double>(batch_loss.examples);
  record.correct = batch_loss.correct;
  record.grad_norm = check != nullptr ? check->norm : sqrt(squares[0]);
  record.update_norm = sqrt(squares[1]);
  record.weight_norm = sqrt(squares[2]);
  const bool has_loss = isfinite(record.loss);
  const bool has_gradient = check == nullptr || check->finite != 0;
  const bool overflowed = scales_loss && has_loss && !has_gradient && state->loss_scale > 1;
  const bool is_finite = has_loss && (overflowed || (has_gradient && finite));
  record.finite = is_finite ? 1 : 0;
  records[state->step % capacity] = record;
  advance(*state, schedule, is_finite, record.correct, !overflowed);
  if (scales_loss && is_finite) update_loss_scale(*state, overflowed);
}

__global__ void move_kernel(std::int64_t* position, std::int64_t by) {
  *position += by;
}

}  // namespace

cudaError_t advance_step(const LrSchedule& schedule, StepState* state, const BatchLoss* loss,
                         std::span<const NormPartial> partials, const GradientCheck* check,
                         bool scales_loss, std::span<DeviceRecord> records, cudaStream_t stream) {
  if (records.empty()) return cudaErrorInvalidValue;
  advance_kernel<<<1, threads, 0, stream>>>(
      schedule, state, loss, partials.data(), static_cast<std::int64_t>(partials.size()), check,
      scales_loss, records.data(), static_cast<std::int64_t>(records.size()));
  return cudaGetLastError();
}

cudaError_t move_position(std::int64_t* position, std::int64_t by, cudaStream_t stream) {
  move_kernel<<<1, 1, 0, stream>>>(position, by);
  return cudaGetLastError();
}

}  // namespace preheat::kernels
