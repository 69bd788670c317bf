// SGD with momentum, the rate outside the velocity (Sutskever et al. 2013; PyTorch, optax, TF1):
//   g' = g + weight_decay w
//   v  = momentum v + g'
//   w -= lr v                          nesterov: w -= lr (g' + momentum v)
// With a zero velocity to start from, the first update needs no branch. The form that folds the
// rate into the velocity (Caffe, Keras) is another rule as soon as the rate moves.
#pragma once

#include <cmath>

#include "host_device.h"

namespace preheat {

struct SgdMomentum {
  float momentum = 0.9f;
  bool nesterov = false;
};

/// Updates one weight and its velocity in fp32 and returns the direction d of w -= lr d. Each line
/// rounds once; host and device agree to the bit. 20 bytes move: w, v and g in, w and v out.
PREHEAT_HD inline float sgd_momentum(const SgdMomentum& rule, float lr, float weight_decay, float g,
                                     float& w, float& v) {
  const float decayed = fmaf(weight_decay, w, g);
  v = fmaf(rule.momentum, v, decayed);
  const float direction = rule.nesterov ? fmaf(rule.momentum, v, decayed) : v;
  w = fmaf(-lr, direction, w);
  return direction;
}

}  // namespace preheat
