// The number of threads of OpenMP, and so of oneDNN.
#pragma once

#include <omp.h>

#include <algorithm>

namespace preheat::cpu {

/// The threads of a replica with train.cpu_threads: `all` if that is 0, otherwise as many of them
/// as OpenMP supplies.
inline int threads_of(int cpu_threads, int all) {
  return cpu_threads == 0 ? all : std::min(cpu_threads, omp_get_thread_limit());
}

/// Sets the thread count of the calling thread for the lifetime of this object, then restores the
/// old one. oneDNN plans for as many threads as OpenMP reports, and waits for all of them when the
/// plan is executed. So a primitive must be created and executed under the same number, and OpenMP
/// must not supply fewer, as it would with OMP_DYNAMIC or with OMP_MAX_ACTIVE_LEVELS=0.
class ThreadCount {
 public:
  explicit ThreadCount(int threads)
      : threads_before_(omp_get_max_threads()),
        dynamic_before_(omp_get_dynamic()),
        levels_before_(omp_get_max_active_levels()) {
    omp_set_dynamic(0);
    omp_set_max_active_levels(std::max(1, levels_before_));
    omp_set_num_threads(threads);
  }
  ~ThreadCount() {
    omp_set_num_threads(threads_before_);
    omp_set_max_active_levels(levels_before_);
    omp_set_dynamic(dynamic_before_);
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  const int threads_before_;
  const int dynamic_before_;
  const int levels_before_;
};

}  // namespace preheat::cpu
