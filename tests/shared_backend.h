// One CPU backend for the tests that make many runs.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace preheat {

inline Backend& shared_backend() {
  static const std::unique_ptr<Backend> backend = make_backend(DeviceChoice::cpu);
  return *backend;
}

}  // namespace preheat
