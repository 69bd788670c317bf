#include "experiment/thread_group.h"

#include <utility>

namespace preheat {

void ThreadGroup::start(std::function<void()> work) {
  try {
    threads_.emplace_back([this, work = std::move(work)] {
      try {
        work();
      } catch (...) {
        fail();
      }
    });
  } catch (...) {
    fail();
  }
}

std::exception_ptr ThreadGroup::join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return failure_;
}

void ThreadGroup::fail() {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::current_exception();
  failed_ = true;
}

}  // namespace preheat
