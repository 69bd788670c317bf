// The kernels of a training step, each as a plain function that puts one launch on a stream, or as
// many as it says. All pointers are device memory, all matrices row-major, all images NHWC. Element
// is the type that activations and their gradients are stored in; arithmetic is fp32. Nothing here
// allocates, waits or reads a value that varies from step to step from the host, so every launch
// can be captured into a graph: what varies is read from StepState, on the device.
//
// Every function returns the error of its launch. Sums are taken in an order that depends on the
// sizes alone: the same input gives the same bits.
//
// A pointer to memory of Elements that begins at an address that is no multiple of 16, or whose
// rows are no multiple of 16 bytes, is read element by element; otherwise 16 bytes at a time.
//
// Squares are in fp32: of numbers above 1.8e19 they are infinite, and so is a norm.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "data/epoch_order.h"
#include "optim/sgd_momentum.h"
#include "optim/step_state.h"
#include "schedule/lr_schedule.h"

namespace preheat::kernels {

enum class Element { f32, bf16, f16 };

constexpr std::size_t bytes_of(Element element) {
  return element == Element::f32 ? 4 : 2;
}

/// The shape of a batch of images, or of a matrix of `batch` rows (height = width = 1).
struct Images {
  std::int64_t batch = 0;
  std::int32_t height = 1;
  std::int32_t width = 1;
  std::int32_t channels = 1;
  PREHEAT_HD constexpr std::int64_t rows() const { return batch * height * width; }
  PREHEAT_HD constexpr std::int64_t size() const { return rows() * channels; }
};

// gather_batch.cu

/// A dataset on the device.
struct ImageSource {
  const std::uint8_t* pixels = nullptr;  // [examples, height, width, channels]
  const std::uint8_t* labels = nullptr;  // [examples]
  const float* table = nullptr;          // [channels, 256]: the normalised value of each byte
  std::int64_t examples = 0;
  std::int32_t height = 0;
  std::int32_t width = 0;
  std::int32_t channels = 0;
};

/// Where a batch goes.
struct Batch {
  void* images = nullptr;          // [size, height, width, padded_channels]
  std::int32_t* labels = nullptr;  // [size]; -1 where there is no example
  std::int64_t size = 0;
  std::int32_t padded_channels = 0;  // at least the source's; those beyond are 0
};

struct BatchAugment {
  std::int32_t crop_padding = 0;
  bool flip = false;
  std::uint64_t seed = 0;
};

/// The batch of update state->step: with epoch e = step / steps_per_epoch its examples are
/// orders[e & 1][step % steps_per_epoch * size + i], each augmented by crop_flip. `orders` is
/// [2, examples]: the order of the next epoch is written while this one's is read. 1 byte in per
/// pixel, an Element out per padded channel.
cudaError_t gather_batch(const ImageSource& source, const BatchAugment& augment,
                         const std::uint32_t* orders, const StepState* state,
                         std::int64_t steps_per_epoch, Element element, const Batch& batch,
                         cudaStream_t stream);

/// Examples *position .. *position + size - 1, not augmented; beyond the last example the images
/// are those of example 0 and the labels -1.
cudaError_t gather_in_order(const ImageSource& source, const std::int64_t* position,
                            Element element, const Batch& batch, cudaStream_t stream);

// few_channel_convolution.cu

/// y = conv(x, w) of images with few channels:
///   y[n, p, q, k] = sum over r, s, c of x[n, p stride + r - padding, q stride + s - padding, c]
///                   w[k, r, s, c],
/// x being 0 outside of the image. w is KRSC, with as many channels as x is stored with.
struct FewChannels {
  Images x;
  Images y;
  std::int32_t channels = 1;  // of x that are not padding: the first ones
  std::int32_t kernel = 3;
  std::int32_t stride = 1;
  std::int32_t padding = 1;
};

/// Whether they compute it: 3 x 3 and 5 x 5 at stride 1 and 2, with up to 4 channels in and up to
/// 128 out, a multiple of 8 (with 5 x 5 as many as a block has threads for).
bool few_channels_supports(const FewChannels& convolution);

/// Reads x with its padding (rows where two tiles meet again, from the cache) and writes y once. y
/// begins at a multiple of 16 bytes.
cudaError_t few_channels_forward(Element element, const FewChannels& convolution, const void* x,
                                 const void* w, void* y, cudaStream_t stream);

/// dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] times the x that w[k, r, s, c] meets there,
/// and 0 in channels that are padding. Reads x and dy as forward moves x and y; dy begins at a
/// multiple of 16 bytes. Two launches: the second adds up the partial sums that the first leaves in
/// `workspace`.
std::size_t few_channels_workspace_bytes(const FewChannels& convolution);
cudaError_t few_channels_weight_gradient(Element element, const FewChannels& convolution,
                                         const void* x, const void* dy, void* dw, void* workspace,
                                         cudaStream_t stream);

// normalize.cu: what follows a convolution or a matrix product,
//   y = max_pool(activation((x - mean) * inv_std * weight + bias + residual))
// in as few trips through memory as there can be. An activation is z > 0 ? z : slope * z (relu 0,
// none 1), so a NaN stays a NaN. The pooling takes windows of 2 x 2 at stride 2; a last odd row or
// column is left out. Of equal values the first in the window is the maximum, and a NaN is larger
// than everything; of several the last one counts.

/// Per channel; which of them there are says what is meant.
struct Norm {
  const float* weight = nullptr;   // null: no batch norm, z = x + bias
  const float* bias = nullptr;     // null: 0
  const float* mean = nullptr;     // with a weight
  const float* inv_std = nullptr;  // of the batch; null: 1 / sqrt(var + epsilon)
  const float* var = nullptr;      // running
  float epsilon = 0;
};

/// What lies around the batch norm.
struct Around {
  float slope = 1;
  bool pooled = false;
  bool residual = false;  // backward only; forward looks at its pointer
};

/// Memory that sums over a batch go through: `partials` of channel_sums_floats() floats and a
/// counter that is 0 before the launch and after it. Launches on one stream may share it, whose
/// images have at most so many channels: fewer can need more than a certain number of more does.
struct SumScratch {
  float* partials = nullptr;
  unsigned* counter = nullptr;
};
std::size_t channel_sums_floats(std::int32_t most_channels);

/// Mean and 1 / sqrt(var + epsilon) of each channel of x. Where `running_mean` is not null and
/// updates(*state), the running statistics move by `momentum`; the variance that goes into them is
/// unbiased and kept finite. Sums of a thread in fp32, shifted by the channel's first value, which
/// keeps E[x^2] - E[x]^2 from cancelling; sums of blocks in double. Reads x once.
cudaError_t batch_moments(Element element, const Images& shape, const void* x, float epsilon,
                          float momentum, const StepState* state, float* mean, float* inv_std,
                          float* running_mean, float* running_var, const SumScratch& scratch,
                          cudaStream_t stream);

/// x, `residual` (may be null; not with pooling) [shape] -> y [shape, pooled]. Where nothing is
/// pooled y may be x. Reads x (and residual) once and writes y once.
cudaError_t normalize_forward(Element element, const Images& shape, const Around& around,
                              const Norm& norm, const void* x, const void* residual, void* y,
                              cudaStream_t stream);

/// First pass of the gradient. With dy [shape, pooled] (+ extra, may be null, as dy), dz = dy *
/// activation'(z) at the maximum of each window and 0 elsewhere:
///   d_bias = sum dz,  d_weight = sum dz xhat  over the batch (d_weight only with norm.weight).
/// dz [shape] is written where it is asked for (not null): it is the gradient of x where there is
/// no batch norm, and of the residual. dz may be dy where nothing is pooled. The sign of z is
/// computed again from x; with around.residual it is read off y instead (else y is not read, may be
/// null). d_bias may be null where only dz is asked for.
cudaError_t normalize_backward_sums(Element element, const Images& shape, const Around& around,
                                    const Norm& norm, const void* x, const void* y, const void* dy,
                                    const void* extra, void* dz, float* d_weight, float* d_bias,
                                    const SumScratch& scratch, cudaStream_t stream);

/// Second pass, with batch norm: with n rows of x,
///   dx = weight inv_std (dz - (d_bias + xhat d_weight) / n), or weight inv_std dz where `fixed`
///   (mean and var are constants).
/// dz is computed again from x and dy, extra; where the first pass has written it, pass it as dy
/// with around {slope 1}. dx may be dy where nothing is pooled.
cudaError_t normalize_backward(Element element, const Images& shape, const Around& around,
                               const Norm& norm, bool fixed, const void* x, const void* dy,
                               const void* extra, const float* d_weight, const float* d_bias,
                               void* dx, cudaStream_t stream);

// pool.cu

/// The maximum of windows of kernel x kernel at that stride, and its position in the window, row by
/// row; what is left over at the right and bottom is not read. Ties and NaN as above.
cudaError_t max_pool(Element element, const Images& shape, std::int32_t kernel, const void* x,
                     void* y, std::uint8_t* at, cudaStream_t stream);

/// dx [shape] is dy (+ extra, may be null) where the maximum was, else 0; all of it is written.
cudaError_t max_pool_backward(Element element, const Images& shape, std::int32_t kernel,
                              const void* dy, const void* extra, const std::uint8_t* at, void* dx,
                              cudaStream_t stream);

/// Means over height and width, summed in fp32: x [shape] -> y [batch, channels].
cudaError_t global_avg_pool(Element element, const Images& shape, const void* x, void* y,
                            cudaStream_t stream);

/// dx = (dy + extra) / (height width), spread over the positions; `extra` may be null.
cudaError_t global_avg_pool_backward(Element element, const Images& shape, const void* dy,
                                     const void* extra, void* dx, cudaStream_t stream);

// weight_gradient.cu

/// The gradient of the filters of a convolution with 3 x 3 kernels at stride 1, zeros one pixel
/// wide around x [shape] and as many pixels in dy [shape, but out channels]:
///   dw[k][r][s][c] = sum dy[n][i][j][k] x[n][i + r - 1][j + s - 1][c]  over n, i, j.
/// On tensor cores, summed in fp32. Reads dy and x once, and two columns of x more for every 16 to
/// 64; writes and reads the filters in fp32 at most 132 times, for which there is `workspace`, and
/// writes dw once, in two launches. All pointers are multiples of 16.
cudaError_t weight_gradient(Element element, const Images& shape, std::int32_t out, const void* x,
                            const void* dy, void* dw, void* workspace, cudaStream_t stream);

/// For 16-bit elements, 16, 32 or 64 channels on either side and devices of compute capability 8.0
/// and later; elsewhere weight_gradient returns cudaErrorNotSupported.
bool weight_gradient_supports(Element element, const Images& shape, std::int32_t out);

std::size_t weight_gradient_workspace_bytes(const Images& shape, std::int32_t out);

// tensor_core_convolution.cu: the convolution whose filters that is the gradient of,
//   y[n][i][j][k] = sum x[n][i + r - 1][j + s - 1][c] w[k][r][s][c]  over r, s, c,
// and its data gradient. On tensor cores, summed in fp32 and rounded once. All pointers are
// multiples of 16.

/// Reads x once for every 32 channels of y, and two rows of it more for every 3 or more that a
/// block computes; reads the filters of 32 channels once for each of at most 264 blocks; writes y
/// once.
cudaError_t tensor_core_convolution(Element element, const Images& shape, std::int32_t out,
                                    const void* x, const void* w, void* y, cudaStream_t stream);

/// dx[n][i][j][c] = sum dy[n][i + 1 - r][j + 1 - s][k] w[k][r][s][c]  over r, s, k.
cudaError_t tensor_core_data_gradient(Element element, const Images& shape, std::int32_t out,
                                      const void* dy, const void* w, void* dx, cudaStream_t stream);

/// Of both, where weight_gradient_supports() the same; elsewhere they return cudaErrorNotSupported.
bool tensor_core_convolution_supports(Element element, const Images& shape, std::int32_t out);

// fp32_convolution.cu and fp32_weight_gradient.cu: a convolution with 3 x 3 filters at stride 1,
// zeros one pixel wide around x [shape] and as many pixels in y [shape, but out channels],
//   y[n][i][j][k] = sum x[n][i + r - 1][j + s - 1][c] w[k][r][s][c]  over r, s, c,
// and its gradients, in fp32 with fp32's multiply-adds. Channels on either side are multiples of
// 16, all pointers too. For devices of compute capability 8.0 and later; elsewhere, and where a few
// rows of an image do not fit into shared memory, they return cudaErrorNotSupported.

/// Reads x about twice for every 32 channels of y, and w for every 200 pixels or so; writes y once.
cudaError_t fp32_convolution(const Images& shape, std::int32_t out, const float* x, const float* w,
                             float* y, cudaStream_t stream);

/// dx[n][i][j][c] = sum dy[n][i + 1 - r][j + 1 - s][k] w[k][r][s][c]  over r, s, k.
cudaError_t fp32_data_gradient(const Images& shape, std::int32_t out, const float* dy,
                               const float* w, float* dx, cudaStream_t stream);

/// Of both.
bool fp32_convolution_supports(const Images& shape, std::int32_t out);

/// dw[k][r][s][c] = sum dy[n][i][j][k] x[n][i + r - 1][j + s - 1][c]  over n, i, j. Reads x two or
/// three times and dy once, for every 32 channels of the other; writes and reads 10 MB of sums in
/// `workspace` at most, in two launches.
cudaError_t fp32_weight_gradient(const Images& shape, std::int32_t out, const float* x,
                                 const float* dy, float* dw, void* workspace, cudaStream_t stream);

bool fp32_weight_gradient_supports(const Images& shape, std::int32_t out);

std::size_t fp32_weight_gradient_workspace_bytes(const Images& shape, std::int32_t out);

// loss.cu

/// Sums over the examples that have a label.
struct BatchLoss {
  double sum = 0;
  std::int64_t correct = 0;  // the first of the largest logits is the label; a NaN is never right
  std::int64_t examples = 0;
};

struct LossOptions {
  bool squared_error = false;  // half the squared distance from one-hot; else cross entropy
  double label_smoothing = 0;
};

/// Memory that the sums over a batch go through: loss_partials() of them, and a counter that is 0
/// before the launch and after it.
struct LossScratch {
  BatchLoss* partials = nullptr;
  unsigned* counter = nullptr;
};
std::int64_t loss_partials(std::int64_t batch);

/// Loss, hits and gradient in one pass over logits [batch, classes]. d_logits [batch, classes] (may
/// be null) is the gradient of the mean over `batch`, times state->loss_scale (state may be null:
/// times 1). *result is written, or with `accumulate` added to.
cudaError_t softmax_xent(const LossOptions& options, std::int64_t batch, std::int32_t classes,
                         Element logits_element, const void* logits, const std::int32_t* labels,
                         const StepState* state, Element element, void* d_logits, BatchLoss* result,
                         bool accumulate, const LossScratch& scratch, cudaStream_t stream);

// sgd_momentum.cu

/// Floats of the arena that one entry of Arena::segment_of stands for: tensors begin on 256 bytes.
inline constexpr std::int64_t chunk_floats = 64;

/// Added to an entry of Arena::segment_of whose gradients are in Arena::small_gradients, at the
/// same index. There are at most as many segments.
inline constexpr std::uint16_t has_small_gradient = 0x8000;

/// How one tensor is updated.
struct alignas(16) Segment {
  float lr_scale = 1;
  float weight_decay = 0;
  std::int32_t trained = 1;  // 0: weights and velocity keep their bits
};

/// All tensors of a network, one after the other; `size` is a multiple of chunk_floats, padding is
/// 0 and stays 0.
struct Arena {
  float* weights = nullptr;
  float* velocity = nullptr;
  const float* gradients = nullptr;
  const void* small_gradients = nullptr;  // those in `small`; may be null, where there are none
  void* copy = nullptr;                   // of the weights in `small`, written along; may be null
  Element small = Element::bf16;
  std::int64_t size = 0;
  const std::uint16_t* segment_of = nullptr;  // [size / chunk_floats], with has_small_gradient
  const Segment* segments = nullptr;
};

/// Squared norms over the floats of one block.
struct alignas(16) NormPartial {
  float gradient = 0;  // of what is in training, as it lies in memory: times the loss scale
  float taken = 0;     // off the weights
  float weight = 0;    // of all
  std::uint32_t finite = 1;
};

/// Which tensor was the first not to be finite in an update that was applied all the same. Where it
/// was left out gradients and weights are still there to be looked at.
struct NonFinite {
  std::int32_t last_gradient = -1;  // the last segment with such a gradient: the first in
                                    // the order of computation
  std::int32_t first_weight = 0x7fffffff;
};

/// What a pass over the gradients before the update finds, for clipping and loss scaling.
struct GradientCheck {
  double norm = 0;  // not scaled; over what is in training
  float scale = 1;  // of the gradient: 1 / loss scale, and the clipping
  std::int32_t finite = 1;
};

std::int64_t update_blocks(std::int64_t arena_size);  // NormPartials that an update writes
std::int64_t check_blocks(std::int64_t arena_size);   // and check_gradients

/// The norm of the gradients in training and what follows from it. 4 bytes per parameter, in front
/// of those of the update.
cudaError_t check_gradients(const Arena& arena, const StepState* state, double clip_norm,
                            NormPartial* partials, unsigned* counter, GradientCheck* result,
                            cudaStream_t stream);

/// One update of the whole arena, at the rate state->lr, whatever the number of tensors. 20 bytes
/// per parameter, 22 with a 16-bit copy, 20 with 16-bit gradients as well; one partial per block in
/// `partials` (may be null: no norms). Nothing is written where !updates(*state), where *loss (may
/// be null) is not finite, or where *check (may be null) is not: partials then have the norms of
/// gradients and weights as they are.
cudaError_t sgd_momentum(const SgdMomentum& rule, const Arena& arena, const StepState* state,
                         const BatchLoss* loss, const GradientCheck* check, NormPartial* partials,
                         NonFinite* non_finite, cudaStream_t stream);

// advance_step.cu

/// One update as the device records it.
struct DeviceRecord {
  std::int64_t step = 0;
  double loss = 0;
  std::int64_t correct = 0;
  double grad_norm = 0;
  double update_norm = 0;
  double weight_norm = 0;
  float lr = 0;
  std::int32_t phase = 0;
  std::int32_t finite = 1;
};

/// Ends a step, once after everything of it: records it at records[step % capacity], moves the gate
/// and the loss scale and takes the next learning rate (advance() of step_state.h). Does nothing
/// from the first step that was not finite on. `check` as for sgd_momentum; with `scales_loss` a
/// gradient that is not finite is an overflow, after which the loss scale is halved, as long as it
/// is above 1.
cudaError_t advance_step(const LrSchedule& schedule, StepState* state, const BatchLoss* loss,
                         const NormPartial* partials, std::int64_t partial_count,
                         const GradientCheck* check, bool scales_loss, DeviceRecord* records,
                         std::int64_t capacity, cudaStream_t stream);

/// *position += by; after a batch of an evaluation.
cudaError_t move_position(std::int64_t* position, std::int64_t by, cudaStream_t stream);

// update_variants.cu: what sgd_momentum is measured against. Training uses none of it.

/// Where a variant has the rate of a step from. The host's value is fixed where a launch is
/// captured.
struct Rate {
  float value = 0;                   // of the host
  const StepState* state = nullptr;  // else the device's,
  const float* table = nullptr;      // or, with a table, table[state->step]
};

/// to = from, 8 bytes per float: what the memory can do.
cudaError_t copy(const float* from, float* to, std::int64_t size, cudaStream_t stream);

/// Reads three arrays and writes two, 20 bytes per float, and adds once: what an update could do.
cudaError_t read_three_write_two(float* weights, float* velocity, const float* gradients,
                                 std::int64_t size, cudaStream_t stream);

/// What the kernel of update_flat takes, and which of it the rate is: for a host that sets the rate
/// in the node of a graph.
inline constexpr int update_flat_arguments = 7;
inline constexpr int update_flat_rate_argument = 1;

/// The update of one array by one rule, without segments and norms: 20 bytes per float.
cudaError_t update_flat(const SgdMomentum& rule, const Rate& rate, float weight_decay,
                        std::int64_t size, const float* gradients, float* weights, float* velocity,
                        cudaStream_t stream);

/// g += weight_decay w; v = momentum v + g; w -= rate v, each a pass of 12 bytes per float, as
/// Caffe does them.
cudaError_t add_decay(float weight_decay, std::int64_t size, const float* weights, float* gradients,
                      cudaStream_t stream);
cudaError_t add_momentum(float momentum, std::int64_t size, const float* gradients, float* velocity,
                         cudaStream_t stream);
cudaError_t take_off(const Rate& rate, std::int64_t size, const float* velocity, float* weights,
                     cudaStream_t stream);

/// Nothing: what a launch costs by itself.
cudaError_t empty(cudaStream_t stream);

}  // namespace preheat::kernels
