#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"
#include "config/error.h"
#ifdef PREHEAT_HAS_CUDA
#include "backend/cuda/cuda_backend.h"
#endif

namespace preheat {

std::unique_ptr<Backend> make_backend(DeviceChoice choice) {
  if (choice == DeviceChoice::cpu) return make_cpu_backend();
#ifdef PREHEAT_HAS_CUDA
  try {
    return make_cuda_backend();
  } catch (const Error&) {
    if (choice == DeviceChoice::cuda) throw;
  }
#else
  if (choice == DeviceChoice::cuda) {
    throw Error("this preheat was built without CUDA; use --device cpu");
  }
#endif
  return make_cpu_backend();
}

}  // namespace preheat
