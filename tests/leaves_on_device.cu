// The functions that host and device share, instantiated in a kernel for every architecture: that
// this compiles is the test. What they compute is tested on the host.
#include "data/epoch_order.h"
#include "optim/sgd_momentum.h"
#include "optim/step_state.h"
#include "schedule/lr_schedule.h"

namespace preheat {

__global__ void one_update(LrSchedule schedule, SgdMomentum rule, StepState* state,
                           CropFlip* augmentation, float* weights, float* velocity,
                           const float* gradients) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  augmentation[i] = crop_flip(0, 0, i, 4, true);
  if (!updates(*state)) return;
  sgd_momentum(rule, state->lr, 0.0f, gradients[i], weights[i], velocity[i]);
  __syncthreads();
  if (i == 0) advance(*state, isfinite(weights[0]), lr_at(schedule, state->step + 1));
}

}  // namespace preheat
