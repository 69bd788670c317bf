#include "backend/backend.h"

#include "backend/cpu/cpu_backend.h"
#include "config/error.h"

namespace preheat {

std::unique_ptr<Backend> make_backend(DeviceChoice choice) {
  if (choice == DeviceChoice::cuda) {
    throw Error("this preheat was built without a CUDA backend; use --device cpu");
  }
  return make_cpu_backend();
}

}  // namespace preheat
