// What the emulated libraries share: arrays of the three types, and workspaces that are really
// used.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "emulation/device.h"
#include "emulation/memory.h"

namespace emulation {

enum class Type { f32, bf16, f16 };

inline std::size_t bytes_of(Type type) {
  return type == Type::f32 ? 4 : 2;
}

/// tf32 keeps ten bits of the mantissa.
inline float to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const bool is_finite = (bits & 0x7f800000u) != 0x7f800000u;
  return is_finite ? std::bit_cast<float>((bits + 0x1000u) & ~0x1fffu) : x;
}

inline std::vector<float> read(Type type, const void* from, std::size_t count, bool as_tf32) {
  reads(from, count * bytes_of(type));
  std::vector<float> values(count);
  const auto* const small = static_cast<const std::uint16_t*>(from);
  for (std::size_t i = 0; i < count; ++i) {
    switch (type) {
      case Type::f32:
        values[i] = static_cast<const float*>(from)[i];
        if (as_tf32) values[i] = to_tf32(values[i]);
        break;
      case Type::bf16:
        values[i] = std::bit_cast<float>(std::uint32_t{small[i]} << 16);
        break;
      case Type::f16:
        values[i] = __half2float(std::bit_cast<__half_raw>(small[i]));
        break;
    }
  }
  return values;
}

inline void write(Type type, void* to, const std::vector<float>& values) {
  writes(to, values.size() * bytes_of(type));
  if (type == Type::f32) {
    std::memcpy(to, values.data(), values.size() * sizeof(float));
    return;
  }
  auto* const small = static_cast<std::uint16_t*>(to);
  for (std::size_t i = 0; i < values.size(); ++i) {
    small[i] =
        type == Type::bf16
            ? std::bit_cast<std::uint16_t>(
                  static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(values[i])))
            : std::bit_cast<std::uint16_t>(static_cast<__half_raw>(__float2half_rn(values[i])));
  }
}

/// Puts a computation on the stream as two kernels. The first fills the workspace with a mark, and
/// the second aborts if the mark is gone, which detects concurrent use of one workspace.
inline bool put_with_workspace(cudaStream_t stream, void* workspace, std::size_t bytes, Work work,
                               std::int64_t cost = kernel_cost) {
  static std::uint64_t computations = 0;
  const std::uint64_t mark = ++computations;
  const std::size_t words = bytes / sizeof mark;
  if (words == 0) return put(stream, std::move(work), cudaGraphNodeTypeKernel, cost);
  auto* const marks = static_cast<std::uint64_t*>(workspace);
  return put(stream,
             [=] {
               writes(marks, bytes);
               std::fill_n(marks, words, mark);
             }) &&
         put(
             stream,
             [=, work = std::move(work)] {
               reads(marks, bytes);
               for (std::size_t i = 0; i < words; ++i) {
                 if (marks[i] != mark) stop("a workspace was written while a computation used it");
               }
               work();
             },
             cudaGraphNodeTypeKernel, cost);
}

}  // namespace emulation
