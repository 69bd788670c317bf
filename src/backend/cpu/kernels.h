// The CPU backend's own kernels: the element-wise passes between convolutions, fused into as few
// passes over memory as possible, and the update. All matrices are rows x channels, row-major (a
// batch in NHWC), all memory is 64-byte aligned, all results are the same for any number of
// threads. An activation is y = z > 0 ? z : slope z (relu 0, none 1), so a NaN stays a NaN.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "data/epoch_order.h"
#include "optim/sgd_momentum.h"

namespace preheat::cpu {

/// Number of row blocks that sums over a batch are split into, whatever the number of threads: the
/// order of summation, and so the bits, do not depend on it.
inline constexpr std::int64_t sum_blocks = 32;

struct Matrix {
  std::int64_t rows = 0;
  std::int64_t channels = 0;
};

/// One example of a batch: which image, and how it is augmented.
struct Pick {
  std::uint32_t example = 0;
  CropFlip augmentation;
};

/// batch[i] = (pixel / 255 - mean) / std of the picked image, NHWC. `table` holds the 256 values of
/// each channel, channel-major. Reads 1 byte and writes 4 per pixel.
void gather(const ImageShape& shape, const std::uint8_t* pixels, std::span<const Pick> picks,
            const float* table, float* batch);

/// In place: z = activation(z).
void activate(Matrix size, float slope, float* z);

/// In place: dy = (dy + extra) * activation'(z), with the sign of z read from y. `extra` may be
/// null.
void activate_backward(Matrix size, float slope, const float* y, const float* extra, float* dy);

/// In place: dy = (dy + extra) (1 - y^2), the gradient of z where y = tanh(z). `extra` may be null.
void tanh_backward(Matrix size, const float* y, const float* extra, float* dy);

/// Mean and 1 / sqrt(var + epsilon) of each channel, summed in double; the running statistics move
/// by batch_norm_momentum, with the unbiased variance as in PyTorch. `sums`: 2 x sum_blocks x
/// channels.
void batch_norm_statistics(Matrix size, const float* x, float* mean, float* inv_std,
                           float* running_mean, float* running_var, double* sums);

/// mean and inv_std from running statistics.
void batch_norm_frozen(std::int64_t channels, const float* running_mean, const float* running_var,
                       float* mean, float* inv_std);

struct BatchNorm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  const float* mean = nullptr;
  const float* inv_std = nullptr;
};

/// y = activation((x - mean) inv_std weight + bias + residual); `residual` may be null.
void batch_norm_forward(Matrix size, float slope, const BatchNorm& norm, const float* x,
                        const float* residual, float* y);

/// The gradient of batch_norm_forward. First dz = (dy + extra) activation'(z) with its sums over
/// the batch, which are the gradients of weight and bias; then
///   dx = weight inv_std (dz - mean(dz) - xhat mean(dz xhat)).
/// dz is written to d_residual if the layer has a residual (its gradient is dz); dx overwrites dy.
/// `extra` and `d_residual` may be null. `sums`: 2 x sum_blocks x channels. If mean and inv_std are
/// not the batch's own (`fixed`), dx = weight inv_std dz.
void batch_norm_backward(Matrix size, float slope, const BatchNorm& norm, bool fixed,
                         const float* x, const float* y, const float* extra, float* dy,
                         float* d_residual, float* d_weight, float* d_bias, double* sums);

/// The shapes of a pooling with stride = kernel: x [batch, in, channels] -> y [batch, out,
/// channels], in.height / kernel rows and in.width / kernel columns; the remainder is not read.
struct Pooling {
  std::int64_t batch = 0;
  ImageShape in;
  ImageShape out;
  std::int64_t kernel = 2;
};

/// y is the maximum of each window and `at` its position in the window, in row-major order. A NaN
/// is larger than everything: oneDNN's pooling would drop it, and with it the first sign of a
/// failed run.
void max_pool(const Pooling& pooling, const float* x, float* y, std::uint8_t* at);

/// dx is dy (+ extra, may be null) at the maxima, and 0 elsewhere.
void max_pool_backward(const Pooling& pooling, const float* dy, const float* extra,
                       const std::uint8_t* at, float* dx);

/// Means over the spatial positions: x [batch, positions, channels] -> y [batch, channels].
void global_avg_pool(std::int64_t batch, std::int64_t positions, std::int64_t channels,
                     const float* x, float* y);

/// dx = (dy + extra) / positions at every position; `extra` may be null.
void global_avg_pool_backward(std::int64_t batch, std::int64_t positions, std::int64_t channels,
                              const float* dy, const float* extra, float* dx);

struct LossResult {
  double sum = 0;            // over the examples
  std::int64_t correct = 0;  // the first of the largest logits is the label; a NaN is never right
};

/// Cross entropy with label smoothing, -sum_k q_k log softmax(z)_k with q = (1-s) onehot + s / K,
/// over logits [labels.size(), classes]. dlogits (may be null) is the gradient of the mean.
LossResult cross_entropy(std::span<const std::uint8_t> labels, std::int64_t classes,
                         double label_smoothing, const float* logits, float* dlogits);

/// Half the squared distance from the one-hot label, sum_k (z_k - onehot_k)^2 / 2.
LossResult squared_error(std::span<const std::uint8_t> labels, std::int64_t classes,
                         const float* logits, float* dlogits);

/// sum = scale gradients, or sum += scale gradients if it `adds`, over an arena of `size` floats.
/// Moves 8 bytes per parameter, 12 if it adds.
void accumulate_gradients(std::int64_t size, float scale, bool adds, const float* gradients,
                          float* sum);

/// A range of the arena that one task of the update covers, within one parameter.
struct UpdateBlock {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  float lr_scale = 1;
  float weight_decay = 0;
};

/// Appends the blocks of `size` floats from `offset` on, each sized so that its three arrays fit
/// into a core's own cache.
void add_update_blocks(std::int64_t offset, std::int64_t size, float lr_scale, float weight_decay,
                       std::vector<UpdateBlock>& blocks);

/// Squared L2 norms.
struct UpdateNorms {
  double gradient = 0;  // without decay, unscaled
  double taken = 0;     // of what was subtracted from the weights
  double weight = 0;
};

/// One sgd_momentum over all blocks, with its norms reduced in the same pass in a fixed order.
/// `partial` holds one UpdateNorms per block; if it is null, no norms are taken and zeros returned.
/// Moves 20 bytes per parameter.
UpdateNorms update(const SgdMomentum& rule, const UpdateScalars& scalars,
                   std::span<const UpdateBlock> blocks, const float* gradients, float* weights,
                   float* velocity, UpdateNorms* partial);

/// The squared norm over the blocks of one array, summed in the order of update(). Reads 4 bytes
/// per parameter.
double squared_norm(std::span<const UpdateBlock> blocks, const float* values, UpdateNorms* partial);

}  // namespace preheat::cpu
