#include "backend/cuda/cuda_backend.h"

#include <fmt/format.h>

#include <cstdlib>

#include "backend/cuda/benches.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/parameters.h"
#include "backend/cuda/probe.h"
#include "backend/cuda/program.h"
#include "backend/cuda/replica.h"
#include "backend/memory_check.h"
#include "config/error.h"

namespace preheat {
namespace {

using cuda::Libraries;

std::string cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache != '\0') return std::string(cache) + "/preheat";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home != '\0' ? std::string(home) + "/.cache/preheat" : "";
}

std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

class CudaBackend : public Backend {
 public:
  CudaBackend() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      cudaGetLastError();
      int driver = 0;  // without a driver CUDA reports that it is too old
      const bool has_driver = cudaDriverGetVersion(&driver) != cudaSuccess || driver > 0;
      throw Error(fmt::format("no usable CUDA device: {}", !has_driver ? "no driver is installed"
                                                           : status != cudaSuccess
                                                               ? cudaGetErrorString(status)
                                                               : "none was found"));
    }
    PREHEAT_CHECK(cudaSetDevice(0));
    cudaDeviceProp properties{};
    PREHEAT_CHECK(cudaGetDeviceProperties(&properties, 0));
    constexpr int oldest = 75;
    const int capability = 10 * properties.major + properties.minor;
    if (capability < oldest) {
      throw Error(fmt::format("{} has compute capability {}.{}, at least 7.5 is required",
                              properties.name, properties.major, properties.minor));
    }
    device_ = fmt::format("{}, {} multiprocessors, {} GiB", properties.name,
                          properties.multiProcessorCount, properties.totalGlobalMem >> 30);
    int has_pools = 0;
    PREHEAT_CHECK(cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, 0));
    if (has_pools == 0) {
      throw Error(
          fmt::format("{} has no memory pools here (shared GPUs may lack them)", properties.name));
    }
    // The pool keeps all freed memory; allocate() says why.
    std::uint64_t all = UINT64_MAX;
    PREHEAT_CHECK(
        cudaMemPoolSetAttribute(cuda::default_pool(), cudaMemPoolAttrReleaseThreshold, &all));
    libraries_->cudnn = cuda::make_cudnn_handle();
    cublasLtHandle_t cublas = nullptr;
    PREHEAT_CHECK(cublasLtCreate(&cublas));
    libraries_->cublas = cuda::CublasHandle(cublas);
    libraries_->plans = std::make_unique<cuda::ConvolutionPlans>(
        libraries_->cudnn.get(), libraries_->device, properties.name, cache_folder());
  }

  std::string name() const override { return "cuda"; }
  std::string device() const override { return device_; }
  std::string library() const override {
    int runtime = 0;
    PREHEAT_CHECK(cudaRuntimeGetVersion(&runtime));
    return fmt::format("CUDA {}.{}, cuDNN {}, cuBLAS {}", runtime / 1000, runtime / 10 % 100,
                       version_text(cudnnGetVersion()), version_text(cublasLtGetVersion()));
  }
  bool computes_in(Precision) const override { return true; }
  // As many as have been tried; more need more memory.
  int concurrent_replicas(int) const override { return 16; }

  std::shared_ptr<ResidentDataset> load(const Dataset& dataset) override {
    return cuda::with_remedy("lower data.train_limit",
                             [&] { return std::make_shared<cuda::DeviceDataset>(dataset); });
  }

  void require_memory(const Network& network, const ReplicaOptions& options) const override {
    require_free(network, options.examples_per_pass(), options.precision, smaller_passes,
                 cuda::CudaReplica::use_of(options));
  }
  void require_memory(const Network& network, std::int64_t examples) const override {
    require_free(network, examples, Precision::fp32, smaller_passes,
                 cuda::ParameterArena::Use::probing);
  }

  std::unique_ptr<Replica> compile(const Network& network, const ReplicaOptions& options,
                                   std::span<const float> initial,
                                   std::shared_ptr<const ResidentDataset> train) override {
    PREHEAT_CHECK(cudaSetDevice(0));  // of the calling thread
    return cuda::with_remedy(smaller_passes, [&] {
      return std::make_unique<cuda::CudaReplica>(libraries_, network, options, initial,
                                                 std::move(train));
    });
  }

  std::unique_ptr<Probe> probe(const Network& network, const ReplicaOptions& options,
                               std::shared_ptr<const ResidentDataset> data,
                               std::int64_t examples) override {
    PREHEAT_CHECK(cudaSetDevice(0));
    examples = std::min(examples, data->size());
    require_free(network, examples, Precision::fp32, fewer_examples,
                 cuda::ParameterArena::Use::probing);
    return cuda::with_remedy(fewer_examples, [&] {
      return std::make_unique<cuda::CudaProbe>(libraries_, network, options, std::move(data),
                                               examples);
    });
  }

  Benches& benches() override { return benches_; }

 private:
  static void require_free(const Network& network, std::int64_t examples, Precision precision,
                           const char* remedy, cuda::ParameterArena::Use use) {
    const Network padded = cuda::padded_network(network, precision);
    const std::size_t parameters = cuda::ParameterArena::bytes_needed(padded, precision, use);
    const std::size_t activations = cuda::Program::bytes_needed(padded, examples, precision);
    check_memory("GPU memory", parameters, activations, cuda::available_memory(), remedy);
  }

  std::string device_;
  const std::shared_ptr<Libraries> libraries_ = std::make_shared<Libraries>();
  cuda::CudaBenches benches_{libraries_};
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend() {
  return std::make_unique<CudaBackend>();
}

}  // namespace preheat
