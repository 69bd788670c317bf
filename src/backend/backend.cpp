#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"
#include "config/error.h"
#ifdef PREHEAT_HAS_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

namespace preheat {
namespace {

std::unique_ptr<Backend> make_cuda() {
#ifdef PREHEAT_HAS_CUDA
  return make_cuda_backend();
#else
  throw Error("this preheat was built without CUDA");
#endif
}

}  // namespace

std::unique_ptr<Backend> make_backend(DeviceChoice choice, std::string* why_not) {
  if (choice == DeviceChoice::cpu) return make_cpu_backend();
  try {
    return make_cuda();
  } catch (const Error& error) {
    if (choice == DeviceChoice::cuda) throw Error(error.what() + std::string("; use --device cpu"));
    if (why_not != nullptr) *why_not = error.what();
  }
  return make_cpu_backend();
}

}  // namespace preheat
