// The kernels of a training step. Each function enqueues one launch on a stream unless it says
// otherwise. All pointers are to device memory, matrices are row-major, images are NHWC. Element is
// the storage type of activations and their gradients; arithmetic is fp32. No function allocates,
// synchronises or takes a value from the host that varies between steps, so every launch can be
// captured into a graph: varying values are read from StepState on the device.
//
// Every function returns the error of its launch. The order of summation depends on the sizes
// alone: the same input gives the same bits.
//
// Elements are read 16 bytes at a time, or one by one if the address is not a multiple of 16 or the
// rows are not a multiple of 16 bytes.
//
// Squares are in fp32: those of numbers above 1.8e19 are infinite, and so is a norm over them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

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

/// The destination of a batch.
struct Batch {
  void* images = nullptr;          // [size, height, width, padded_channels]
  std::int32_t* labels = nullptr;  // [size]; -1 if there is no example
  std::int64_t size = 0;
  std::int32_t padded_channels = 0;  // at least the source's; the extra channels are 0
};

/// One of the passes over the network that share the examples of an update.
struct Pass {
  std::int64_t index = 0;
  std::int64_t count = 1;
};

struct BatchAugment {
  std::int32_t crop_padding = 0;
  bool flip = false;
  std::uint64_t seed = 0;
};

/// Gathers the examples of one pass of update state->step. With epoch e = step / steps_per_epoch,
/// they are orders[e & 1][(step % steps_per_epoch * pass.count + pass.index) * size + i], each
/// augmented by crop_flip. `orders` is [2, examples], so that the next epoch's order can be written
/// while the current one is read. Reads 1 byte per pixel and writes one Element per padded channel.
cudaError_t gather_batch(const ImageSource& source, const BatchAugment& augment,
                         const std::uint32_t* orders, const StepState* state,
                         std::int64_t steps_per_epoch, const Pass& pass, Element element,
                         const Batch& batch, cudaStream_t stream);

/// Gathers examples *position .. *position + size - 1 without augmentation; past the last example
/// the images repeat example 0 and the labels are -1.
cudaError_t gather_in_order(const ImageSource& source, const std::int64_t* position,
                            Element element, const Batch& batch, cudaStream_t stream);

// The moments of a batch, by batch_moments or the convolution that writes it.

/// Scratch memory for sums over a batch: `partials` of channel_sums_floats() floats and a counter
/// that is 0 before and after a launch. Launches on one stream may share it if their images have at
/// most `max_channels` channels. The size is the maximum over all channel counts up to that, since
/// fewer channels can need more floats.
struct SumScratch {
  float* partials = nullptr;
  unsigned* counter = nullptr;
};
std::size_t channel_sums_floats(std::int32_t max_channels);

/// Where the moments of a batch go, one number per channel.
struct BatchMoments {
  float* mean = nullptr;
  float* inv_std = nullptr;       // 1 / sqrt(var + epsilon)
  float* running_mean = nullptr;  // moved by `momentum` if is_alive(*state); null: none are
  float* running_var = nullptr;   // with the unbiased variance, clamped to finite values
  float epsilon = 0;
  float momentum = 0;
  const StepState* state = nullptr;  // null: the running statistics always move
  SumScratch scratch;
};

// few_channel_convolution.cu

/// y = conv(x, w) for images with few channels:
///   y[n, p, q, k] = sum over r, s, c of x[n, p stride + r - padding, q stride + s - padding, c]
///                   w[k, r, s, c],
/// where x is 0 outside the image. w is KRSC, with as many channels as x is stored with.
struct FewChannels {
  Images x;
  Images y;
  std::int32_t channels = 1;  // of x, without padding channels: the first ones
  std::int32_t kernel = 3;
  std::int32_t stride = 1;
  std::int32_t padding = 1;
};

/// Whether the shape is supported: 3 x 3 and 5 x 5 filters at stride 1 and 2, up to 4 input
/// channels and up to 128 output channels, a multiple of 8 (for 5 x 5, as many as a block has
/// threads for).
bool few_channels_supports(const FewChannels& convolution);

/// Whether the forward pass can take the moments of y as well.
bool few_channels_give_moments(Element element, const FewChannels& convolution);

/// Reads x including its padding channels (rows shared by two tiles are read again, from the cache)
/// and writes y once. y must be 16-byte aligned. `moments` as for tensor_core_convolution.
cudaError_t few_channels_forward(Element element, const FewChannels& convolution, const void* x,
                                 const void* w, void* y, const BatchMoments* moments,
                                 cudaStream_t stream);

/// dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] times the x that w[k, r, s, c] multiplies
/// there, and 0 in padding channels. Reads x and dy with the traffic that forward has for x and y;
/// dy must be 16-byte aligned. Two launches: the second adds up the partial sums that the first
/// leaves in `workspace`.
std::size_t few_channels_workspace_bytes(const FewChannels& convolution);
cudaError_t few_channels_weight_gradient(Element element, const FewChannels& convolution,
                                         const void* x, const void* dy, void* dw, void* workspace,
                                         cudaStream_t stream);

// batch_moments.cu, normalize_forward.cu and normalize_backward.cu: the element-wise passes after a
// convolution or a matrix product,
//   y = max_pool(activation((x - mean) * inv_std * weight + bias + residual))
// in as few passes over memory as possible. An activation is z > 0 ? z : slope * z (relu 0, none
// 1; tanh is in tanh.cu), so a NaN stays a NaN. Pooling takes 2 x 2 windows at stride 2; an odd
// last row or column is dropped. Among equal values the first in the window is the maximum. A NaN
// is larger than everything; among several the last one counts.

/// Per-channel arrays; null pointers select the variant.
struct Norm {
  const float* weight = nullptr;   // null: no batch norm, z = x + bias
  const float* bias = nullptr;     // null: 0
  const float* mean = nullptr;     // required with a weight
  const float* inv_std = nullptr;  // of the batch; null: 1 / sqrt(var + epsilon)
  const float* var = nullptr;      // running
  float epsilon = 0;
};

/// The operations fused with the batch norm.
struct Fusion {
  float slope = 1;
  bool pooled = false;
  bool residual = false;  // backward only; forward goes by its pointer
};

/// The moments of each channel of x. Each thread sums in fp32, shifted by the channel's first value
/// to keep E[x^2] - E[x]^2 from cancelling; sums across blocks are in double. Reads x once.
cudaError_t batch_moments(Element element, const Images& shape, const void* x,
                          const BatchMoments& moments, cudaStream_t stream);

/// x, `residual` (may be null; not with pooling) [shape] -> y [shape, pooled]. Without pooling y
/// may be x. Reads x (and residual) once and writes y once.
cudaError_t normalize_forward(Element element, const Images& shape, const Fusion& fusion,
                              const Norm& norm, const void* x, const void* residual, void* y,
                              cudaStream_t stream);

/// What the gradient is of, and what both of its passes read. With dy [shape, pooled] (+ extra, may
/// be null, shaped like dy), dz = dy * activation'(z) at the maximum of each window and 0
/// elsewhere. The sign of z is recomputed from x.
struct NormBackward {
  Element element = Element::f32;
  Images shape;
  Fusion fusion;
  Norm norm;
  const void* x = nullptr;  // [shape]
  const void* dy = nullptr;
  const void* extra = nullptr;
};

/// First pass:
///   d_bias = sum dz,  d_weight = sum dz xhat  over the batch (d_weight only with norm.weight).
/// dz [shape] is written if not null: it is the gradient of x without batch norm, and of the
/// residual. Without pooling dz may be dy. With fusion.residual the sign of z is read from y
/// (otherwise y is not read and may be null). d_bias may be null if only dz is requested.
cudaError_t normalize_backward_sums(const NormBackward& of, const void* y, void* dz,
                                    float* d_weight, float* d_bias, const SumScratch& scratch,
                                    cudaStream_t stream);

/// Second pass, with batch norm. For n rows of x,
///   dx = weight inv_std (dz - (d_bias + xhat d_weight) / n), or weight inv_std dz if `fixed`
///   (mean and var are constants).
/// If the first pass has written dz, pass it as dy with fusion {slope 1}. Without pooling dx may be
/// dy.
cudaError_t normalize_backward(const NormBackward& of, bool fixed, const float* d_weight,
                               const float* d_bias, void* dx, cudaStream_t stream);

// tanh.cu

/// In place: y [shape] = tanh(y). Reads and writes y once.
cudaError_t tanh_forward(Element element, const Images& shape, void* y, cudaStream_t stream);

/// In place: dy = (dy + extra) (1 - y^2), the gradient of z where y = tanh(z); `extra` may be null.
/// All are [shape]. Reads y, dy (and extra) once and writes dy once.
cudaError_t tanh_backward(Element element, const Images& shape, const void* y, const void* extra,
                          void* dy, cudaStream_t stream);

// pool.cu

/// The maximum over kernel x kernel windows at stride `kernel`, and its position in the window, in
/// row-major order; the remainder at the right and bottom is not read. Ties and NaN as above.
cudaError_t max_pool(Element element, const Images& shape, std::int32_t kernel, const void* x,
                     void* y, std::uint8_t* at, cudaStream_t stream);

/// dx [shape] is dy (+ extra, may be null) at the maxima and 0 elsewhere; all of dx is written.
cudaError_t max_pool_backward(Element element, const Images& shape, std::int32_t kernel,
                              const void* dy, const void* extra, const std::uint8_t* at, void* dx,
                              cudaStream_t stream);

/// Means over height and width, summed in fp32: x [shape] -> y [batch, channels].
cudaError_t global_avg_pool(Element element, const Images& shape, const void* x, void* y,
                            cudaStream_t stream);

/// dx = (dy + extra) / (height width) at every position; `extra` may be null.
cudaError_t global_avg_pool_backward(Element element, const Images& shape, const void* dy,
                                     const void* extra, void* dx, cudaStream_t stream);

// tensor_core_convolution.cu and tensor_core_weight_gradient.cu: a 3 x 3 convolution at stride 1
// with one pixel of zero padding around x [shape]; y is [shape, but out channels],
//   y[n][i][j][k] = sum x[n][i + r - 1][j + s - 1][c] w[k][r][s][c]  over r, s, c,
// and its gradients, on tensor cores, accumulated in fp32 and rounded once. All pointers are
// 16-byte aligned.

/// Whether the shape is supported: 16-bit elements, 16, 32 or 64 channels on either side, compute
/// capability 8.0 and later. Otherwise these functions return cudaErrorNotSupported.
bool tensor_cores_support(Element element, const Images& shape, std::int32_t out);

/// Reads x once per 32 channels of y, plus two rows of x for every 3 or more rows that a block
/// computes. Reads the filters of 32 channels once per block, of which there are at most 264.
/// Writes y once. If `moments` is not null, it also gets those of y, as y is stored, without
/// another pass over y. The sums are not shifted (y's first value is not known when they begin):
/// the variance is wrong by about 2^-24 of the mean of y^2, where storing y in 16 bits changes it
/// by 2^-24 to 2^-18 of that.
cudaError_t tensor_core_convolution(Element element, const Images& shape, std::int32_t out,
                                    const void* x, const void* w, void* y,
                                    const BatchMoments* moments, cudaStream_t stream);

/// dx[n][i][j][c] = sum dy[n][i + 1 - r][j + 1 - s][k] w[k][r][s][c]  over r, s, k.
cudaError_t tensor_core_data_gradient(Element element, const Images& shape, std::int32_t out,
                                      const void* dy, const void* w, void* dx, cudaStream_t stream);

/// dw[k][r][s][c] = sum dy[n][i][j][k] x[n][i + r - 1][j + s - 1][c]  over n, i, j. Reads dy and x
/// once, plus two columns of x for every 16 to 64. Writes and reads the filters in fp32 at most 132
/// times through `workspace`, and writes dw once, in two launches.
cudaError_t tensor_core_weight_gradient(Element element, const Images& shape, std::int32_t out,
                                        const void* x, const void* dy, void* dw, void* workspace,
                                        cudaStream_t stream);
std::size_t tensor_core_weight_gradient_workspace_bytes(const Images& shape, std::int32_t out);

// fp32_convolution.cu and fp32_weight_gradient.cu: a 3 x 3 convolution at stride 1 with one pixel
// of zero padding around x [shape]; y is [shape, but out channels],
//   y[n][i][j][k] = sum x[n][i + r - 1][j + s - 1][c] w[k][r][s][c]  over r, s, c,
// and its gradients, in fp32 with fp32 multiply-adds. Channels on either side are multiples of 16
// up to 256, the larger of the two tensors has fewer than 2^31 elements, and all pointers are
// 16-byte aligned. Requires compute capability 8.0 or later; on older devices, for other shapes, or
// if a few rows of an image do not fit into shared memory, the functions return
// cudaErrorNotSupported.

/// Reads x about twice per 32 channels of y, and w once per 200 pixels or so; writes y once.
cudaError_t fp32_convolution(const Images& shape, std::int32_t out, const float* x, const float* w,
                             float* y, cudaStream_t stream);

/// dx[n][i][j][c] = sum dy[n][i + 1 - r][j + 1 - s][k] w[k][r][s][c]  over r, s, k.
cudaError_t fp32_data_gradient(const Images& shape, std::int32_t out, const float* dy,
                               const float* w, float* dx, cudaStream_t stream);

/// Whether fp32_convolution and fp32_data_gradient both support the shape.
bool fp32_convolution_supports(const Images& shape, std::int32_t out);

/// dw[k][r][s][c] = sum dy[n][i][j][k] x[n][i + r - 1][j + s - 1][c] over n, i, j. Reads x two or
/// three times and dy once, per 32 channels of the other; writes and reads at most 10 MB of partial
/// sums in `workspace`, in two launches.
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

/// Scratch memory for sums over a batch: loss_partials() partials, and a counter that is 0 before
/// and after the launch.
struct LossScratch {
  BatchLoss* partials = nullptr;
  unsigned* counter = nullptr;
};
std::int64_t loss_partials(std::int64_t batch);

struct Logits {
  Element element = Element::f32;
  const void* values = nullptr;  // [batch, classes]
  std::int64_t batch = 0;
  std::int32_t classes = 0;
  const std::int32_t* labels = nullptr;  // [batch]; -1 if there is no example
};

/// Loss, hits and gradient in one pass over the logits. d_logits [batch, classes] (may be null) is
/// the gradient of the mean over `batch`, times state->loss_scale (1 if state is null). Loss and
/// hits are written to *result, or added to it if it `adds`.
cudaError_t softmax_xent(const LossOptions& options, const Logits& logits, const StepState* state,
                         Element element, void* d_logits, bool adds, BatchLoss* result,
                         const LossScratch& scratch, cudaStream_t stream);

// sgd_momentum.cu

/// Floats of the arena covered by one entry of Arena::segment_of: tensors are 256-byte aligned.
inline constexpr std::int64_t chunk_floats = 64;

/// Flag in an entry of Arena::segment_of: the chunk's gradients are in Arena::gradients_16bit, at
/// the same index. It also limits the number of segments.
inline constexpr std::uint16_t has_16bit_gradient = 0x8000;

/// How one tensor is updated.
struct alignas(16) Segment {
  float lr_scale = 1;
  float weight_decay = 0;
  std::int32_t trained = 1;  // 0: weights and velocity keep their bits
};

/// All tensors of a network, back to back; `size` is a multiple of chunk_floats, padding is 0 and
/// stays 0.
struct Arena {
  float* weights = nullptr;
  float* velocity = nullptr;
  const float* gradients = nullptr;
  const void* gradients_16bit = nullptr;  // in `element_16bit`; may be null if there are none
  void* weights_16bit = nullptr;          // in `element_16bit`, kept up to date; may be null
  Element element_16bit = Element::bf16;
  std::int64_t size = 0;
  const std::uint16_t* segment_of = nullptr;  // [size / chunk_floats], with has_16bit_gradient
  const Segment* segments = nullptr;
};

/// Squared norms over the floats of one block.
struct alignas(16) NormPartial {
  float gradient = 0;  // over trained tensors, as stored: times the loss scale
  float taken = 0;     // of what was subtracted from the weights
  float weight = 0;    // over all tensors
  std::uint32_t finite = 1;
};

/// The first tensor that was not finite in an update that was applied nonetheless. If the update
/// was skipped, gradients and weights are still there to be inspected.
struct NonFinite {
  std::int32_t last_gradient = -1;  // the last segment with such a gradient: the first in
                                    // the order of computation
  std::int32_t first_weight = 0x7fffffff;
};

/// The result of a pass over the gradients before the update, for clipping and loss scaling.
struct GradientCheck {
  double norm = 0;  // unscaled, over trained tensors
  float scale = 1;  // factor on the gradient: 1 / loss scale, times the clipping
  std::int32_t finite = 1;
};

std::int64_t update_blocks(std::int64_t arena_size);  // NormPartials that an update writes
std::int64_t check_blocks(std::int64_t arena_size);   // and check_gradients

/// sum [arena.size] = scale gradients, or sum += scale gradients if it `adds`, over all tensors.
/// Reads 4 bytes per parameter, 2 where its gradient is 16-bit, and 4 more if it adds; writes 4.
cudaError_t accumulate_gradients(const Arena& arena, float scale, bool adds, float* sum,
                                 cudaStream_t stream);

/// The norm of the trained gradients, and what clipping and loss scaling derive from it. Reads 4
/// bytes per parameter, 2 where its gradient is 16-bit, on top of the update's traffic.
cudaError_t check_gradients(const Arena& arena, const StepState* state, double clip_norm,
                            NormPartial* partials, unsigned* counter, GradientCheck* result,
                            cudaStream_t stream);

/// One update of the whole arena at the rate state->lr, whatever the number of tensors. Moves 20
/// bytes per parameter, 22 with weights_16bit, 20 if the gradients are 16-bit as well. Writes one
/// partial per block to `partials` (may be null: no norms). Writes no parameters if
/// !is_alive(*state), or if *loss or *check is not finite (either may be null); the partials then
/// hold the norms of gradients and weights as they are.
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

/// Ends a step; launched once, after everything else in it. Writes records[step % records.size()],
/// advances the gate and the loss scale and takes the next learning rate (advance() of
/// step_state.h). Does nothing from the first non-finite step on. `check` as for sgd_momentum; with
/// `scales_loss` a gradient that is not finite is an overflow, which halves the loss scale as long
/// as it is above 1.
cudaError_t advance_step(const LrSchedule& schedule, StepState* state, const BatchLoss* loss,
                         std::span<const NormPartial> partials, const GradientCheck* check,
                         bool scales_loss, std::span<DeviceRecord> records, cudaStream_t stream);

/// *position += by; called after each evaluation batch.
cudaError_t move_position(std::int64_t* position, std::int64_t by, cudaStream_t stream);

// update_variants.cu: baselines that sgd_momentum is measured against. Training uses none of them.

/// Where a variant takes a step's learning rate from. A host value is frozen when the launch is
/// captured.
struct Rate {
  float value = 0;                   // from the host
  const StepState* state = nullptr;  // or from the device,
  const float* table = nullptr;      // or, with a table, table[state->step]
};

/// to = from, 8 bytes per float: the memory bandwidth limit.
cudaError_t copy(const float* from, float* to, std::int64_t size, cudaStream_t stream);

/// Reads three arrays and writes two, 20 bytes per float, with one addition: the limit for an
/// update.
cudaError_t read_three_write_two(float* weights, float* velocity, const float* gradients,
                                 std::int64_t size, cudaStream_t stream);

/// The number of arguments of update_flat's kernel and the index of the rate among them, for a host
/// that sets the rate in a graph node.
inline constexpr int update_flat_arguments = 7;
inline constexpr int update_flat_rate_argument = 1;

/// The update of one array by one rule, without segments and norms: 20 bytes per float.
cudaError_t update_flat(const SgdMomentum& rule, const Rate& rate, float weight_decay,
                        std::int64_t size, const float* gradients, float* weights, float* velocity,
                        cudaStream_t stream);

/// g += weight_decay w; v = momentum v + g; w -= rate v: one pass each, 12 bytes per float, as in
/// Caffe.
cudaError_t add_decay(float weight_decay, std::int64_t size, const float* weights, float* gradients,
                      cudaStream_t stream);
cudaError_t add_momentum(float momentum, std::int64_t size, const float* gradients, float* velocity,
                         cudaStream_t stream);
cudaError_t subtract_scaled(const Rate& rate, std::int64_t size, const float* velocity,
                            float* weights, cudaStream_t stream);

/// An empty kernel: the cost of a launch by itself.
cudaError_t empty(cudaStream_t stream);

}  // namespace preheat::kernels
