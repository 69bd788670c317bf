// Threads that work on one thing, and the first error among them.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace preheat {

class ThreadGroup {
 public:
  /// `failed` is set to true at the first exception, so that the other threads can end early.
  explicit ThreadGroup(std::atomic<bool>& failed) : failed_(failed) {}

  /// Waits for all threads.
  ~ThreadGroup() { join(); }
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  /// Starts a thread. Its exception is kept, and so is the one if no more threads are available.
  void start(std::function<void()> work);

  /// Waits for all threads, and returns the first exception of any, or null.
  std::exception_ptr join();

 private:
  void fail();

  std::atomic<bool>& failed_;
  std::mutex mutex_;  // guards failure_
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace preheat
