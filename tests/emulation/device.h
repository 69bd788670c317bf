// The emulated device's work: tasks that streams, events and graphs put in an order. Nothing is
// done before somebody waits for it, and then in any order that was not ruled out: what lacks a
// dependency goes wrong, as it does on a GPU on a bad day.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "emulation/launch.h"

namespace emulation {

using Work = std::function<void()>;

/// Time is made up, in microseconds that nobody should believe: the trials that choose among our
/// kernels and the libraries' come out one way or the other, not always for what a CPU does faster.
inline constexpr std::int64_t kernel_cost = 4;

/// Of its compute capability. Tests may set it.
inline int major_version = 9;

struct Task {
  Work work;                                 // none: only an order
  std::vector<std::shared_ptr<Task>> after;  // until it is done
  int chain = 0;                             // the stream that it was put on first
  bool done = false;
  std::int64_t cost = 1;  // in time
  std::int64_t at = 0;    // when it was done
};
using TaskPointer = std::shared_ptr<Task>;

struct Node {
  cudaGraphNodeType type = cudaGraphNodeTypeKernel;
  std::optional<Launch> launch;  // of a kernel of ours; the libraries' are work
  Work work;
  cudaEvent_t event = nullptr;
  std::vector<std::size_t> after;
  int chain = 0;
  std::int64_t cost = kernel_cost;
};
using NodePointer = std::shared_ptr<const Node>;

struct Graph {
  std::vector<NodePointer> nodes;
};

/// Graph nodes are handed out as where they stand in their graph.
struct Exec {
  std::vector<NodePointer> nodes;
  const Graph* graph = nullptr;  // that it was made of
  TaskPointer last;              // one launch of it after the other
};

struct Stream;
struct Capture {
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
  Stream* origin = nullptr;
  std::set<Stream*> streams;
  bool invalid = false;
};

struct Stream {
  int chain = 0;
  TaskPointer last;
  std::vector<TaskPointer> waits;  // for the next task
  std::shared_ptr<Capture> capture;
  std::set<std::size_t> frontier;  // nodes that the next one comes after
};

struct Event {
  bool timed = false;
  TaskPointer record;
  std::weak_ptr<Capture> capture;  // that it was recorded in
  bool captured = false;           // last recorded in one
  std::set<std::size_t> frontier;
};

/// Every call of an emulated library holds it; the device is one.
std::recursive_mutex& device_mutex();

/// The stream behind a handle; null where it is none.
Stream* stream_of(cudaStream_t stream);

/// Puts work on a stream, or a node into the graph that is captured from it. False where that
/// is not allowed; what is wrong is the error that cudaGetLastError tells.
bool put(cudaStream_t stream, Work work, cudaGraphNodeType type = cudaGraphNodeTypeKernel,
         std::int64_t cost = kernel_cost);

}  // namespace emulation
