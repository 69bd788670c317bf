// The arithmetic of a network in double precision and plain loops: the reference for the backends.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "nn/network.h"

namespace preheat::reference {

using Values = std::vector<double>;

// |a - b| / |b| in L2, of numbers of any kind.
template <class Numbers>
double relative_difference(const Numbers& a, const Values& b) {
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

inline double activation(const Activation& a, double z) {
  if (a.kind == ActivationKind::tanh) return std::tanh(z);
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

inline double slope(const Activation& a, double y) {
  if (a.kind == ActivationKind::tanh) return 1 - y * y;
  if (y > 0 || a.kind == ActivationKind::none) return 1;
  return a.kind == ActivationKind::relu ? 0 : a.slope;
}

// Add the gradient with respect to w, bias and, unless dx is null, x to what is there.
inline void conv_gradient(const Op& op, std::int64_t batch, const Values& x, const double* w,
                          const Values& dy, double* dw, double* dbias, double* dx) {
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t oy = 0; oy < op.out.height; ++oy)
      for (std::int64_t ox = 0; ox < op.out.width; ++ox)
        for (std::int64_t k = 0; k < op.out.channels; ++k) {
          const double d = dy[((n * op.out.height + oy) * op.out.width + ox) * op.out.channels + k];
          dbias[k] += d;
          for (std::int64_t r = 0; r < op.kernel; ++r)
            for (std::int64_t s = 0; s < op.kernel; ++s) {
              const std::int64_t iy = oy * op.stride + r - op.padding;
              const std::int64_t ix = ox * op.stride + s - op.padding;
              if (iy < 0 || iy >= op.in.height || ix < 0 || ix >= op.in.width) continue;
              const std::int64_t i = ((n * op.in.height + iy) * op.in.width + ix) * op.in.channels;
              const std::int64_t j = ((k * op.kernel + r) * op.kernel + s) * op.in.channels;
              for (std::int64_t c = 0; c < op.in.channels; ++c) dw[j + c] += d * x[i + c];
              if (dx == nullptr) continue;
              for (std::int64_t c = 0; c < op.in.channels; ++c) dx[i + c] += d * w[j + c];
            }
        }
}

// Of several maxima the first in reading order takes it.
inline void max_pool_gradient(const Op& op, std::int64_t batch, const Values& x, const Values& dy,
                              double* dx) {
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t oy = 0; oy < op.out.height; ++oy)
      for (std::int64_t ox = 0; ox < op.out.width; ++ox)
        for (std::int64_t c = 0; c < op.out.channels; ++c) {
          std::int64_t largest = -1;
          for (std::int64_t i = 0; i < op.kernel * op.kernel; ++i) {
            const std::int64_t iy = oy * op.stride + i / op.kernel;
            const std::int64_t ix = ox * op.stride + i % op.kernel;
            const std::int64_t at =
                ((n * op.in.height + iy) * op.in.width + ix) * op.in.channels + c;
            if (largest < 0 || x[at] > x[largest]) largest = at;
          }
          dx[largest] += dy[((n * op.out.height + oy) * op.out.width + ox) * op.out.channels + c];
        }
}

inline void linear_gradient(const Op& op, std::int64_t batch, const Values& x, const double* w,
                            const Values& dy, double* dw, double* dbias, double* dx) {
  for (std::int64_t n = 0; n < batch; ++n)
    for (std::int64_t k = 0; k < op.out.channels; ++k) {
      const double d = dy[n * op.out.channels + k];
      dbias[k] += d;
      for (std::int64_t i = 0; i < op.in.size(); ++i) {
        dw[k * op.in.size() + i] += d * x[n * op.in.size() + i];
        if (dx != nullptr) dx[n * op.in.size() + i] += d * w[k * op.in.size() + i];
      }
    }
}

/// The mean cross entropy of a batch, of natural logarithms. Writes its gradient to `gradient`, an
/// arena of zeros. For a network of conv, max_pool, global_avg_pool and linear in a row, without
/// batch norm.
inline double cross_entropy(const Network& network, const Values& arena, std::int64_t batch,
                            const Values& images, const std::vector<std::uint8_t>& labels,
                            Values& gradient) {
  const std::vector<Values> y = outputs(network, arena, batch, images);
  const auto classes = static_cast<std::size_t>(network.classes);
  Values d(y.back().size());
  double loss = 0;
  for (std::size_t n = 0; n < static_cast<std::size_t>(batch); ++n) {
    const double* z = y.back().data() + n * classes;
    const double largest = *std::max_element(z, z + classes);
    double sum = 0;
    for (std::size_t k = 0; k < classes; ++k) sum += std::exp(z[k] - largest);
    loss += (largest + std::log(sum) - z[labels[n]]) / static_cast<double>(batch);
    for (std::size_t k = 0; k < classes; ++k) {
      const double expected = k == labels[n] ? 1 : 0;
      d[n * classes + k] = (std::exp(z[k] - largest) / sum - expected) / static_cast<double>(batch);
    }
  }
  for (int i = static_cast<int>(network.ops.size()) - 1; i >= 0; --i) {
    const Op& op = network.ops[i];
    for (std::size_t k = 0; k < d.size(); ++k) d[k] *= slope(op.activation, y[i][k]);
    const Values& x = op.input < 0 ? images : y[op.input];
    Values before(x.size(), 0.0);
    double* dx = op.input < 0 ? nullptr : before.data();
    const auto at = [&](int parameter) { return network.parameters[parameter].offset; };
    switch (op.kind) {
      case OpKind::conv:
        conv_gradient(op, batch, x, arena.data() + at(op.weight), d,
                      gradient.data() + at(op.weight), gradient.data() + at(op.bias), dx);
        break;
      case OpKind::max_pool:
        max_pool_gradient(op, batch, x, d, dx);
        break;
      case OpKind::global_avg_pool: {
        const std::int64_t positions = op.in.height * op.in.width;
        for (std::int64_t k = 0; k < batch * op.in.size(); ++k) {
          const std::int64_t n = k / op.in.size();
          dx[k] += d[n * op.in.channels + k % op.in.channels] / static_cast<double>(positions);
        }
        break;
      }
      case OpKind::linear:
        linear_gradient(op, batch, x, arena.data() + at(op.weight), d,
                        gradient.data() + at(op.weight), gradient.data() + at(op.bias), dx);
        break;
    }
    d = std::move(before);
  }
  return loss;
}

}  // namespace preheat::reference
