// How many threads OpenMP, and with it oneDNN, works with.
#pragma once

#include <omp.h>

namespace preheat::cpu {

/// In the calling thread, for as long as this is there; what was before comes back. oneDNN plans
/// for as many threads as OpenMP says there may be, and waits for all of them when the plan is
/// carried out: so a primitive is made and executed under the same number, and OpenMP must not hand
/// out fewer.
class ThreadCount {
 public:
  explicit ThreadCount(int threads)
      : threads_before_(omp_get_max_threads()), dynamic_before_(omp_get_dynamic()) {
    omp_set_dynamic(0);
    omp_set_num_threads(threads);
  }
  ~ThreadCount() {
    omp_set_num_threads(threads_before_);
    omp_set_dynamic(dynamic_before_);
  }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  const int threads_before_;
  const int dynamic_before_;
};

}  // namespace preheat::cpu
