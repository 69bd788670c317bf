// 16-bit floats on the host, as stored on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>

#include "kernels/launch.h"

namespace preheat::cuda {

/// Rounds to nearest, ties to even; NaN stays NaN. `element` is one of the 16-bit ones.
inline std::uint16_t to_16bit(kernels::Element element, float value) {
  return element == kernels::Element::bf16
             ? std::bit_cast<std::uint16_t>(
                   static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(value)))
             : std::bit_cast<std::uint16_t>(static_cast<__half_raw>(__float2half_rn(value)));
}

inline float from_16bit(kernels::Element element, std::uint16_t bits) {
  return element == kernels::Element::bf16 ? std::bit_cast<float>(std::uint32_t{bits} << 16)
                                           : __half2float(std::bit_cast<__half_raw>(bits));
}

}  // namespace preheat::cuda
