// The arithmetic of a network in double precision and plain loops: the reference for the backends.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "nn/network.h"

namespace preheat::reference {

using Values = std::vector<double>;

inline double activation(const Activation& a, double z) {
  if (z > 0 || a.kind == ActivationKind::none) return z;
  return a.kind == ActivationKind::relu ? 0 : a.slope * z;
}

inline Values conv(const Op& op, std::int64_t batch, const Values& x, const double* w,
                   const double* bias) {
  Values y(batch * op.out.size(), 0.0);
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t oy = 0; oy < op.out.height; ++oy)
      for (std::int64_t ox = 0; ox < op.out.width; ++ox)
        for (std::int64_t k = 0; k < op.out.channels; ++k) {
          double sum = bias ? bias[k] : 0.0;
          for (std::int64_t r = 0; r < op.kernel; ++r)
            for (std::int64_t s = 0; s < op.kernel; ++s) {
              const std::int64_t iy = oy * op.stride + r - op.padding;
              const std::int64_t ix = ox * op.stride + s - op.padding;
              if (iy < 0 || iy >= op.in.height || ix < 0 || ix >= op.in.width) continue;
              for (std::int64_t c = 0; c < op.in.channels; ++c)
                sum += x[((n * op.in.height + iy) * op.in.width + ix) * op.in.channels + c] *
                       w[((k * op.kernel + r) * op.kernel + s) * op.in.channels + c];
            }
          y[((n * op.out.height + oy) * op.out.width + ox) * op.out.channels + k] = sum;
        }
  return y;
}

// Batch statistics, as in training.
inline void batch_norm(const Op& op, std::int64_t batch, Values& z, const double* weight,
                       const double* bias) {
  const std::int64_t channels = op.out.channels;
  const std::int64_t rows = batch * op.out.height * op.out.width;
  for (std::int64_t c = 0; c < channels; ++c) {
    double mean = 0;
    for (std::int64_t r = 0; r < rows; ++r) mean += z[r * channels + c];
    mean /= static_cast<double>(rows);
    double var = 0;
    for (std::int64_t r = 0; r < rows; ++r) var += std::pow(z[r * channels + c] - mean, 2);
    var /= static_cast<double>(rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      double& v = z[r * channels + c];
      v = (v - mean) / std::sqrt(var + double{batch_norm_epsilon}) * weight[c] + bias[c];
    }
  }
}

inline Values max_pool(const Op& op, std::int64_t batch, const Values& x) {
  Values y(batch * op.out.size(), -INFINITY);
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t oy = 0; oy < op.out.height; ++oy)
      for (std::int64_t ox = 0; ox < op.out.width; ++ox)
        for (std::int64_t i = 0; i < op.kernel * op.kernel; ++i)
          for (std::int64_t c = 0; c < op.out.channels; ++c) {
            const std::int64_t iy = oy * op.stride + i / op.kernel;
            const std::int64_t ix = ox * op.stride + i % op.kernel;
            double& v = y[((n * op.out.height + oy) * op.out.width + ox) * op.out.channels + c];
            v = std::max(v, x[((n * op.in.height + iy) * op.in.width + ix) * op.in.channels + c]);
          }
  return y;
}

inline Values global_avg_pool(const Op& op, std::int64_t batch, const Values& x) {
  Values y(batch * op.out.size(), 0.0);
  const std::int64_t positions = op.in.height * op.in.width;
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t p = 0; p < positions; ++p)
      for (std::int64_t c = 0; c < op.in.channels; ++c)
        y[n * op.in.channels + c] +=
            x[(n * positions + p) * op.in.channels + c] / static_cast<double>(positions);
  return y;
}

inline Values linear(const Op& op, std::int64_t batch, const Values& x, const double* w,
                     const double* bias) {
  Values y(batch * op.out.channels);
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t k = 0; k < op.out.channels; ++k) {
      double sum = bias[k];
      for (std::int64_t i = 0; i < op.in.size(); ++i)
        sum += w[k * op.in.size() + i] * x[n * op.in.size() + i];
      y[n * op.out.channels + k] = sum;
    }
  return y;
}

/// The output of every op for a batch in training mode; the last one is the logits, [batch,
/// classes].
inline std::vector<Values> outputs(const Network& network, const Values& arena, std::int64_t batch,
                                   const Values& images) {
  std::vector<Values> outputs;
  const auto parameter = [&](int index) {
    return index < 0 ? nullptr : arena.data() + network.parameters[index].offset;
  };
  for (const Op& op : network.ops) {
    const Values& x = op.input < 0 ? images : outputs[op.input];
    Values y;
    switch (op.kind) {
      case OpKind::conv:
        y = conv(op, batch, x, parameter(op.weight), parameter(op.bias));
        break;
      case OpKind::max_pool:
        y = max_pool(op, batch, x);
        break;
      case OpKind::global_avg_pool:
        y = global_avg_pool(op, batch, x);
        break;
      case OpKind::linear:
        y = linear(op, batch, x, parameter(op.weight), parameter(op.bias));
        break;
    }
    if (op.normalized()) {
      batch_norm(op, batch, y, parameter(op.norm_weight), parameter(op.norm_bias));
    }
    if (op.residual >= 0) {
      for (std::size_t i = 0; i < y.size(); ++i) y[i] += outputs[op.residual][i];
    }
    for (double& v : y) v = activation(op.activation, v);
    outputs.push_back(std::move(y));
  }
  return outputs;
}

inline Values logits(const Network& network, const Values& arena, std::int64_t batch,
                     const Values& images) {
  return outputs(network, arena, batch, images).back();
}

}  // namespace preheat::reference
