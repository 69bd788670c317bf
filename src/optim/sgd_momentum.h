// SGD with momentum in its two forms, which are equivalent only while the learning rate is
// constant. With g' = g + weight_decay w:
//   separate  v = m v + g',      w -= lr v          PyTorch, optax, TF1
//             nesterov:          w -= lr (g' + m v)
//   folded    v = m v + lr g',   w -= v             Sutskever et al. 2013; Caffe, Keras, MXNet
//             nesterov:          w -= lr g' + m v
// With momentum correction (Goyal et al. 2017, section 3) the folded form updates v with
// m lr_t / lr_(t-1) instead of m. Its v is then lr_t times that of the separate form, up to
// rounding, as long as no rate is 0. The velocity starts at zero, so the first update needs no
// branch.
#pragma once

#include <cmath>

#include "host_device.h"

namespace preheat {

struct SgdMomentum {
  float momentum = 0.9f;
  bool nesterov = false;
  bool folded = false;
  bool correction = false;  // momentum correction, folded form only
};

/// The parts of an update that are the same for all weights.
struct UpdateScalars {
  float lr = 0;
  float on_velocity = 0;  // the momentum, corrected if the rule says so
  float scale = 1;        // multiplies the gradient: clipping
};

/// The scalars of the update at rate `lr` that follows one at `previous_lr`. After a rate of 0,
/// where the ratio is undefined, the momentum is not corrected: the folded velocity is then 0 or
/// holds only older gradients. If `clip_norm` is above 0, a gradient whose norm `gradient_norm`
/// exceeds it is scaled down to it.
PREHEAT_HD inline UpdateScalars update_scalars(const SgdMomentum& rule, float lr, float previous_lr,
                                               double gradient_norm, double clip_norm) {
  const bool corrected = rule.correction && previous_lr > 0;
  const bool clipped = clip_norm > 0 && gradient_norm > clip_norm;
  return {lr, corrected ? rule.momentum * (lr / previous_lr) : rule.momentum,
          clipped ? static_cast<float>(clip_norm / gradient_norm) : 1.0f};
}

/// Updates one weight and its velocity in fp32 and returns what was subtracted from the weight. The
/// fused multiply-adds are explicit, so host and device agree to the bit. Moves 20 bytes: w, v and
/// g in, w and v out.
PREHEAT_HD inline float sgd_momentum(const SgdMomentum& rule, const UpdateScalars& s,
                                     float weight_decay, float g, float& w, float& v) {
  const float decayed = fmaf(weight_decay, w, s.scale * g);
  if (rule.folded) {
    const float step = s.lr * decayed;
    v = fmaf(s.on_velocity, v, step);
    const float taken = rule.nesterov ? fmaf(rule.momentum, v, step) : v;
    w -= taken;
    return taken;
  }
  v = fmaf(s.on_velocity, v, decayed);
  const float direction = rule.nesterov ? fmaf(rule.momentum, v, decayed) : v;
  w = fmaf(-s.lr, direction, w);
  return s.lr * direction;
}

}  // namespace preheat
