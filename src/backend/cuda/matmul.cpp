#include "backend/cuda/matmul.h"

#include <fmt/format.h>

#include "config/error.h"

namespace preheat::cuda {
namespace {

cudaDataType_t data_type(kernels::Element element) {
  switch (element) {
    case kernels::Element::f32:
      return CUDA_R_32F;
    case kernels::Element::bf16:
      return CUDA_R_16BF;
    case kernels::Element::f16:
      return CUDA_R_16F;
  }
  return CUDA_R_32F;
}

using Preference = Owned<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>;

}  // namespace

// Row-major [rows, columns] is column-major [columns, rows].
Matmul::Layout Matmul::layout(kernels::Element element, std::int64_t rows, std::int64_t columns) {
  cublasLtMatrixLayout_t raw = nullptr;
  PREHEAT_CHECK(cublasLtMatrixLayoutCreate(&raw, data_type(element),
                                           static_cast<std::uint64_t>(columns),
                                           static_cast<std::uint64_t>(rows), columns));
  return Layout(raw);
}

// cuBLAS is column-major, so it computes c^T = b^T a^T.
Matmul::Matmul(cublasLtHandle_t handle, const Product& p) {
  cublasLtMatmulDesc_t raw = nullptr;
  PREHEAT_CHECK(cublasLtMatmulDescCreate(
      &raw, p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  operation_ = Operation(raw);
  const cublasOperation_t first = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  PREHEAT_CHECK(
      cublasLtMatmulDescSetAttribute(raw, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first));
  PREHEAT_CHECK(
      cublasLtMatmulDescSetAttribute(raw, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second));
  a_ = p.a_transposed ? layout(p.operands, p.k, p.m) : layout(p.operands, p.m, p.k);
  b_ = p.b_transposed ? layout(p.operands, p.n, p.k) : layout(p.operands, p.k, p.n);
  c_ = layout(p.result, p.m, p.n);

  cublasLtMatmulPreference_t raw_preference = nullptr;
  PREHEAT_CHECK(cublasLtMatmulPreferenceCreate(&raw_preference));
  const Preference preference(raw_preference);
  PREHEAT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(),
                                                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                     &workspace_limit, sizeof workspace_limit));
  // Without in-place split-k reduction, which is atomic and in no fixed order.
  const std::uint32_t reductions =
      CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  PREHEAT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(),
                                                     CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                     &reductions, sizeof reductions));
  // 16-bit weights lie at half the byte offsets of those in fp32: at multiples of 128 bytes, where
  // cuBLAS would assume 256.
  constexpr std::uint32_t alignment = 128;
  for (const auto operand :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    PREHEAT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference.get(), operand, &alignment,
                                                       sizeof alignment));
  }
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, operation_.get(), b_.get(), a_.get(), c_.get(),
                                     c_.get(), preference.get(), 1, &result, &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) PREHEAT_CHECK(status);
  if (found == 0 || result.state != CUBLAS_STATUS_SUCCESS) {
    throw Error(fmt::format("cuBLAS {} has no algorithm for a product of {} x {} x {}",
                            cublasLtGetVersion(), p.m, p.n, p.k));
  }
  algorithm_ = result.algo;
  workspace_bytes_ = result.workspaceSize;
}

void Matmul::run(cublasLtHandle_t handle, const void* a, const void* b, void* c, void* workspace,
                 cudaStream_t stream) const {
  const float one = 1;
  const float zero = 0;
  PREHEAT_CHECK(cublasLtMatmul(handle, operation_.get(), &one, b, b_.get(), a, a_.get(), &zero, c,
                               c_.get(), c, c_.get(), &algorithm_, workspace, workspace_bytes_,
                               stream));
}

}  // namespace preheat::cuda
