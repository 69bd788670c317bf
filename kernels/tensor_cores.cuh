// The instructions that feed tensor cores, one function each: matrices from shared memory into the
// registers of a warp, products of them. For compute capability 8.0 and later. Shared memory goes
// by its own addresses of 32 bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

namespace preheat::kernels {

/// A 16 x 16 matrix of 16-bit elements in a warp, a quarter of 8 x 8 in each register. A lane holds
/// elements of row lane / 4 of the quarter as it lies in memory, those in columns lane % 4 * 2
/// (lower half of the register) and the next. Loaded transposed: of column lane / 4, in rows lane %
/// 4 * 2 and the next.
struct Fragment {
  unsigned quarter[4];
};

/// Lane 8 q + i gives the address of the 16 bytes that are row i of quarter q.
__device__ inline void load(Fragment& to, unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to.quarter[0]), "=r"(to.quarter[1]), "=r"(to.quarter[2]), "=r"(to.quarter[3])
               : "r"(address)
               : "memory");
}

/// Addresses as for load().
__device__ inline void load_transposed(Fragment& to, unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to.quarter[0]), "=r"(to.quarter[1]), "=r"(to.quarter[2]), "=r"(to.quarter[3])
               : "r"(address)
               : "memory");
}

/// sums [16, 8] += a b, where lanes hold rows of a and columns of b. The quarters of a are in the
/// order of its columns, top left first. Those of b are in the order of its columns too, of which
/// `half` says the left 8 or the right ones. A lane's sums are in row lane / 4, columns lane % 4 *
/// 2 and the next, and the same 8 rows below.
template <class T>
__device__ inline void multiply_add(float (&sums)[4], const Fragment& a, const Fragment& b,
                                    int half) {
  const unsigned* q = a.quarter;
  const unsigned upper = b.quarter[2 * half];
  const unsigned lower = b.quarter[2 * half + 1];
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "r"(upper), "r"(lower));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "r"(upper), "r"(lower));
  }
}

}  // namespace preheat::kernels
