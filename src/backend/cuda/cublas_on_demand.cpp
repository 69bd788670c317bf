// The functions of cuBLAS that preheat calls, for the linker in place of the library's own: each
// loads the library when it is first called, and calls the function of its name there. Linked as
// usual, the 540 MB of libcublasLt cost every start of the program 0.16 s and 100 MB for their
// 390,000 relocations, `preheat schedule` on a machine without a GPU too. (cuDNN loads its parts on
// demand by itself.)
#include <cublasLt.h>
#include <cublas_v2.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "config/error.h"

// The name of a shared library of the major version whose headers this is compiled with. It is a
// literal because scripts/gpu_check.sh reads it in the program.
#define TEXT(token) #token
#define OF_VERSION(library, major) library ".so." TEXT(major)

namespace preheat::cuda {
namespace {

class Library {
 public:
  /// Throws Error if it is not found or cannot be loaded.
  explicit Library(const char* name) : library_(dlopen(name, RTLD_NOW)) {
    if (library_ == nullptr) throw Error(fmt::format("cuBLAS: {}", dlerror()));
  }

  /// Throws Error if the library has no such function.
  template <class Function>
  Function* function(const char* name) const {
    void* const address = dlsym(library_, name);
    if (address == nullptr) throw Error(fmt::format("cuBLAS: {}", dlerror()));
    return reinterpret_cast<Function*>(address);
  }

 private:
  void* library_;  // never closed: handles and kernels live in it
};

const Library& cublas() {
  static const Library library(OF_VERSION("libcublas", CUBLAS_VER_MAJOR));
  return library;
}

const Library& cublas_lt() {
  static const Library library(OF_VERSION("libcublasLt", CUBLAS_VER_MAJOR));
  return library;
}

}  // namespace
}  // namespace preheat::cuda

// A definition that differs from the header's declaration does not compile.
#define ON_DEMAND(library, result, name, parameters, arguments)                             \
  result name parameters {                                                                  \
    static auto* const function = preheat::cuda::library().function<decltype(name)>(#name); \
    return function arguments;                                                              \
  }
#define CUBLAS(name, parameters, arguments) \
  ON_DEMAND(cublas, cublasStatus_t, name, parameters, arguments)
#define CUBLAS_LT(name, parameters, arguments) \
  ON_DEMAND(cublas_lt, cublasStatus_t, name, parameters, arguments)

extern "C" {

CUBLAS(cublasCreate_v2, (cublasHandle_t * handle), (handle))
CUBLAS(cublasDestroy_v2, (cublasHandle_t handle), (handle))
CUBLAS(cublasSetStream_v2, (cublasHandle_t handle, cudaStream_t stream), (handle, stream))
CUBLAS(cublasSaxpy_v2,
       (cublasHandle_t handle, int n, const float* alpha, const float* x, int x_stride, float* y,
        int y_stride),
       (handle, n, alpha, x, x_stride, y, y_stride))
CUBLAS(cublasSscal_v2, (cublasHandle_t handle, int n, const float* alpha, float* x, int x_stride),
       (handle, n, alpha, x, x_stride))

ON_DEMAND(cublas_lt, std::size_t, cublasLtGetVersion, (), ())
ON_DEMAND(cublas_lt, const char*, cublasLtGetStatusName, (cublasStatus_t status), (status))
ON_DEMAND(cublas_lt, const char*, cublasLtGetStatusString, (cublasStatus_t status), (status))
CUBLAS_LT(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
CUBLAS_LT(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
CUBLAS_LT(cublasLtMatrixLayoutCreate,
          (cublasLtMatrixLayout_t * layout, cudaDataType type, std::uint64_t rows,
           std::uint64_t columns, std::int64_t pitch),
          (layout, type, rows, columns, pitch))
CUBLAS_LT(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
CUBLAS_LT(cublasLtMatmulDescCreate,
          (cublasLtMatmulDesc_t * product, cublasComputeType_t compute, cudaDataType_t scale),
          (product, compute, scale))
CUBLAS_LT(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t product), (product))
CUBLAS_LT(cublasLtMatmulDescSetAttribute,
          (cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
           const void* value, std::size_t bytes),
          (product, attribute, value, bytes))
CUBLAS_LT(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), (preference))
CUBLAS_LT(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))
CUBLAS_LT(cublasLtMatmulPreferenceSetAttribute,
          (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
           const void* value, std::size_t bytes),
          (preference, attribute, value, bytes))
CUBLAS_LT(cublasLtMatmulAlgoGetHeuristic,
          (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
           cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
           cublasLtMatmulPreference_t preference, int most, cublasLtMatmulHeuristicResult_t* found,
           int* count),
          (handle, product, a, b, c, d, preference, most, found, count))
CUBLAS_LT(cublasLtMatmul,
          (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void* alpha, const void* a,
           cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
           const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
           cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
           std::size_t workspace_bytes, cudaStream_t stream),
          (handle, product, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
           algorithm, workspace, workspace_bytes, stream))

}  // extern "C"
