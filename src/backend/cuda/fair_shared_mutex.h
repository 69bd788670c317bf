// A shared mutex that a writer gets however busy its readers are.
#pragma once

#include <mutex>
#include <shared_mutex>

namespace preheat::cuda {

/// For std::unique_lock and std::shared_lock. libstdc++'s own lets readers in while a writer waits,
/// so that readers that overlap keep it out for good. Here whoever comes takes a turn first, which
/// a waiting writer keeps until it is in.
class FairSharedMutex {
 public:
  void lock() {
    const std::lock_guard turn(turn_);
    mutex_.lock();
  }
  void unlock() { mutex_.unlock(); }
  void lock_shared() {
    const std::lock_guard turn(turn_);
    mutex_.lock_shared();
  }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  std::mutex turn_;
  std::shared_mutex mutex_;
};

}  // namespace preheat::cuda
