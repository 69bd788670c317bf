// cuBLAS is there when it is called, and not before. What needs a device is called without a
// handle.
#include <cublasLt.h>
#include <cublas_v2.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "temporary_folder.h"

namespace preheat::cuda {
namespace {

std::string of_our_version(const std::string& library) {
  return library + ".so." + std::to_string(CUBLAS_VER_MAJOR);
}

bool is_loaded() {
  const std::string name = of_our_version("libcublasLt");
  return dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD) != nullptr;
}

TEST(CublasOnDemand, IsLoadedByItsFirstCall) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // in a process of its own
  EXPECT_EXIT(
      {
        const bool early = is_loaded();
        const bool is_ours = cublasLtGetVersion() / 10000 == CUBLAS_VER_MAJOR;
        std::_Exit(!early && is_ours && is_loaded() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(CublasOnDemand, GpuCheckFindsTheNamesInTheProgram) {
  const std::string program = bytes_of(PREHEAT_BINARY);
  for (const char* library : {"libcublas", "libcublasLt"}) {
    EXPECT_NE(program.find(of_our_version(library) + '\0'), std::string::npos) << library;
  }
}

TEST(CublasOnDemand, DescriptionsOfProductsAreMadeWithoutADevice) {
  cublasLtMatrixLayout_t layout = nullptr;
  ASSERT_EQ(cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, 96, 40, 128), CUBLAS_STATUS_SUCCESS);
  ASSERT_NE(layout, nullptr);
  EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_SUCCESS);

  cublasLtMatmulDesc_t product = nullptr;
  ASSERT_EQ(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
            CUBLAS_STATUS_SUCCESS);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof transposed),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_NE(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, 1),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatmulDescDestroy(product), CUBLAS_STATUS_SUCCESS);

  cublasLtMatmulPreference_t preference = nullptr;
  ASSERT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
  const std::uint64_t bytes = 1 << 20;
  EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(
                preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatmulPreferenceDestroy(preference), CUBLAS_STATUS_SUCCESS);
}

TEST(CublasOnDemand, RefusesWhatNeedsAHandle) {
  const float one = 1;
  float x = 0;
  EXPECT_EQ(cublasSetStream(nullptr, nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(cublasSaxpy(nullptr, 1, &one, &x, 1, &x, 1), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(cublasSscal(nullptr, 1, &one, &x, 1), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_STREQ(cublasLtGetStatusName(CUBLAS_STATUS_ALLOC_FAILED), "CUBLAS_STATUS_ALLOC_FAILED");
  EXPECT_STRNE(cublasLtGetStatusString(CUBLAS_STATUS_ALLOC_FAILED),
               cublasLtGetStatusString(CUBLAS_STATUS_SUCCESS));
}

}  // namespace
}  // namespace preheat::cuda
