// Matrix products through cuBLASLt.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <memory>

#include "backend/cuda/cuda.h"
#include "config/config.h"
#include "kernels/launch.h"

namespace preheat::cuda {

/// c [m, n] = a b, all row-major: a is [m, k], or [k, m] with a_transposed, b likewise.
struct Product {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  kernels::Element operands = kernels::Element::f32;
  kernels::Element result = kernels::Element::f32;
  bool tf32 = false;  // of fp32 operands
};

/// A product with cuBLASLt's first choice among the deterministic algorithms.
class Matmul {
 public:
  static constexpr std::size_t workspace_limit = std::size_t{32} << 20;

  /// Throws Error if there is no algorithm.
  Matmul(cublasLtHandle_t handle, const Product& product);
  std::size_t workspace_bytes() const { return workspace_bytes_; }

  /// Accumulates in fp32. `workspace` holds workspace_bytes().
  void run(cublasLtHandle_t handle, const void* a, const void* b, void* c, void* workspace,
           cudaStream_t stream) const;

 private:
  using Operation = Owned<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>;
  using Layout = Owned<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;
  static Layout layout(kernels::Element element, std::int64_t rows, std::int64_t columns);

  Operation operation_;
  Layout a_;
  Layout b_;
  Layout c_;
  cublasLtMatmulAlgo_t algorithm_{};
  std::size_t workspace_bytes_ = 0;
};

}  // namespace preheat::cuda
