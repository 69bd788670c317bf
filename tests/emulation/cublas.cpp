// cuBLAS and cuBLASLt as plain loops.
#include <cublasLt.h>
#include <cublas_v2.h>

#include <algorithm>
#include <cstring>

#include "emulation/numbers.h"

namespace emulation {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

constexpr std::size_t workspace_bytes = 4096;
constexpr std::uint32_t workspace_alignment = 256;
constexpr std::uint64_t algorithm_mark = 0x5eed;
// Larger products are skipped: the ones that measure a bench's ceiling would take hours.
constexpr std::int64_t max_multiply_adds = std::int64_t{1} << 36;

struct Operation {
  cublasComputeType_t compute;
  cublasOperation_t a = CUBLAS_OP_N;
  cublasOperation_t b = CUBLAS_OP_N;
};

struct Layout {
  Type type;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t pitch;
  std::size_t bytes() const { return static_cast<std::size_t>(pitch * columns) * bytes_of(type); }
};

struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment_a = 256;
  std::uint32_t alignment_b = 256;
  std::uint32_t alignment_c = 256;
  std::uint32_t alignment_d = 256;
};

struct Algorithm {
  std::uint64_t mark;
  std::uint64_t workspace;
  std::uint32_t alignment[4];
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct Blas {
  cudaStream_t stream = nullptr;
};

bool type_of(cudaDataType_t from, Type& to) {
  switch (from) {
    case CUDA_R_32F:
      to = Type::f32;
      return true;
    case CUDA_R_16BF:
      to = Type::bf16;
      return true;
    case CUDA_R_16F:
      to = Type::f16;
      return true;
    default:
      return false;
  }
}

bool is_aligned(const void* memory, std::uint32_t alignment) {
  return reinterpret_cast<std::uintptr_t>(memory) % alignment == 0;
}

bool fit(const Operation& o, const Layout& a, const Layout& b, const Layout& c) {
  const std::int64_t a_rows = o.a == CUBLAS_OP_N ? a.rows : a.columns;
  const std::int64_t a_columns = o.a == CUBLAS_OP_N ? a.columns : a.rows;
  const std::int64_t b_rows = o.b == CUBLAS_OP_N ? b.rows : b.columns;
  const std::int64_t b_columns = o.b == CUBLAS_OP_N ? b.columns : b.rows;
  return a_rows == c.rows && b_columns == c.columns && a_columns == b_rows && a.type == b.type;
}

// d = a b, column by column.
void multiply(const Operation& o, const Layout& la, const Layout& lb, const Layout& ld,
              const void* a, const void* b, void* d) {
  const bool tf32 = o.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const std::int64_t inner = o.a == CUBLAS_OP_N ? la.columns : la.rows;
  if (ld.rows * ld.columns * inner > max_multiply_adds) return;
  const std::vector<float> left = read(la.type, a, la.bytes() / bytes_of(la.type), tf32);
  const std::vector<float> right = read(lb.type, b, lb.bytes() / bytes_of(lb.type), tf32);
  std::vector<float> result(static_cast<std::size_t>(ld.pitch * ld.columns));
  for (std::int64_t j = 0; j < ld.columns; ++j) {
    for (std::int64_t k = 0; k < inner; ++k) {
      const float factor = right[o.b == CUBLAS_OP_N ? j * lb.pitch + k : k * lb.pitch + j];
      if (o.a == CUBLAS_OP_N) {
        for (std::int64_t i = 0; i < ld.rows; ++i) {
          result[j * ld.pitch + i] += left[k * la.pitch + i] * factor;
        }
      } else {
        for (std::int64_t i = 0; i < ld.rows; ++i) {
          result[j * ld.pitch + i] += left[i * la.pitch + k] * factor;
        }
      }
    }
  }
  write(ld.type, d, result);
}

}  // namespace
}  // namespace emulation

using namespace emulation;

extern "C" {

size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}
const char* cublasLtGetStatusName(cublasStatus_t) {
  return "a status";
}
const char* cublasLtGetStatusString(cublasStatus_t) {
  return "of the emulated cuBLAS";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new Blas);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<Blas*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Operation{compute});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete reinterpret_cast<Operation*>(operation);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t size) {
  auto& o = *reinterpret_cast<Operation*>(operation);
  if (size != sizeof o.a) return CUBLAS_STATUS_INVALID_VALUE;
  if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) {
    std::memcpy(&o.a, value, size);
  } else if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) {
    std::memcpy(&o.b, value, size);
  } else {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t pitch) {
  Layout layout{};
  if (!type_of(type, layout.type)) return CUBLAS_STATUS_NOT_SUPPORTED;
  layout.rows = static_cast<std::int64_t>(rows);
  layout.columns = static_cast<std::int64_t>(columns);
  layout.pitch = pitch;
  if (pitch < layout.rows || rows == 0 || columns == 0) return CUBLAS_STATUS_INVALID_VALUE;
  *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout(layout));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<Layout*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<Preference*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t size) {
  auto& p = *reinterpret_cast<Preference*>(preference);
  const auto set = [&](auto& to) {
    if (size != sizeof to) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&to, value, size);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(p.workspace);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(p.reductions);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(p.alignment_a);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(p.alignment_b);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(p.alignment_c);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(p.alignment_d);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t* results,
                                              int* found) {
  *found = 0;
  const auto& p = *reinterpret_cast<const Preference*>(preference);
  if (most < 1 ||
      !fit(*reinterpret_cast<const Operation*>(operation), *reinterpret_cast<const Layout*>(a),
           *reinterpret_cast<const Layout*>(b), *reinterpret_cast<const Layout*>(c))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  results[0] = {};
  results[0].workspaceSize = p.workspace >= workspace_bytes ? workspace_bytes : 0;
  // The workspace that it needs and the alignments that the caller promised, for cublasLtMatmul()
  // to check.
  const Algorithm algorithm{algorithm_mark,
                            results[0].workspaceSize,
                            {p.alignment_a, p.alignment_b, p.alignment_c, p.alignment_d}};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* chosen, void* workspace, size_t bytes,
                              cudaStream_t stream) {
  const Lock lock(device_mutex());
  const Operation& o = *reinterpret_cast<const Operation*>(operation);
  const Layout& la = *reinterpret_cast<const Layout*>(a_layout);
  const Layout& lb = *reinterpret_cast<const Layout*>(b_layout);
  const Layout& ld = *reinterpret_cast<const Layout*>(d_layout);
  Algorithm algorithm{};
  std::memcpy(&algorithm, chosen, sizeof algorithm);
  if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0 ||
      algorithm.mark != algorithm_mark || !fit(o, la, lb, ld)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (bytes < algorithm.workspace || (bytes > 0 && !is_aligned(workspace, workspace_alignment))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const void* const pointers[] = {a, b, c, d};
  for (int i = 0; i < 4; ++i) {
    if (!is_aligned(pointers[i], algorithm.alignment[i])) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (!is_device_memory(a, la.bytes()) || !is_device_memory(b, lb.bytes()) ||
      !is_device_memory(d, ld.bytes()) || (bytes > 0 && !is_device_memory(workspace, bytes))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  return put_with_workspace(stream, workspace, bytes, [=] { multiply(o, la, lb, ld, a, b, d); })
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = reinterpret_cast<cublasHandle_t>(new Blas);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete reinterpret_cast<Blas*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  reinterpret_cast<Blas*>(handle)->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSaxpy(cublasHandle_t handle, int n, const float* alpha, const float* x,
                           int x_step, float* y, int y_step) {
  const Lock lock(device_mutex());
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
  if (x_step != 1 || y_step != 1 || !is_device_memory(x, bytes) || !is_device_memory(y, bytes)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool there = put(reinterpret_cast<Blas*>(handle)->stream, [=, factor = *alpha] {
    reads(x, bytes);
    reads(y, bytes);
    writes(y, bytes);
    for (int i = 0; i < n; ++i) y[i] += factor * x[i];
  });
  return there ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasSscal(cublasHandle_t handle, int n, const float* alpha, float* x, int step) {
  const Lock lock(device_mutex());
  const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(float);
  if (step != 1 || !is_device_memory(x, bytes)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool there = put(reinterpret_cast<Blas*>(handle)->stream, [=, factor = *alpha] {
    reads(x, bytes);
    writes(x, bytes);
    for (int i = 0; i < n; ++i) x[i] *= factor;
  });
  return there ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
