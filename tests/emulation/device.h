// The emulated device's work: tasks that streams, events and graphs order. No task runs before
// something waits for it, and then tasks run in any order that the dependencies allow: code that
// lacks a dependency goes wrong here, as it may on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "emulation/accesses.h"
#include "emulation/launch.h"

namespace emulation {

using Work = std::function<void()>;

/// Times are made up, in microseconds. The trials between our own kernels and the libraries' come
/// out either way, not always in favour of what a CPU computes faster.
inline constexpr std::int64_t kernel_cost = 4;

/// Of its compute capability. Tests may set it.
inline int major_version = 9;

/// What waiting for a stream returns: an error in a kernel would stay. Tests may set it.
inline cudaError_t device_error = cudaSuccess;

/// Of graphs, so far.
inline std::int64_t instantiations = 0;

struct Task {
  Work work;                                 // empty: the task only orders others
  std::vector<std::shared_ptr<Task>> after;  // what it comes after; cleared when it is done
  Clock clock;                               // when it is done, of all that came before
  int chain = 0;                             // the stream that it was first put on
  bool done = false;
  std::int64_t cost = 1;  // in made-up microseconds
  std::int64_t at = 0;    // the time when it was done
};
using TaskPointer = std::shared_ptr<Task>;

struct Node {
  cudaGraphNodeType type = cudaGraphNodeTypeKernel;
  std::optional<Launch> launch;  // if it is one of our kernels; library calls are `work`
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

/// An instantiated graph.
struct Exec {
  std::vector<NodePointer> nodes;
  const Graph* graph = nullptr;  // that it was instantiated from
  TaskPointer last;              // its last launch: launches run one after the other
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
  std::vector<TaskPointer> waits;  // before the next task
  std::shared_ptr<Capture> capture;
  std::set<std::size_t> frontier;  // nodes that the next node depends on
};

struct Event {
  bool timed = false;
  TaskPointer record;
  std::weak_ptr<Capture> capture;  // that it was last recorded in
  bool captured = false;           // whether it was last recorded in a capture
  std::set<std::size_t> frontier;
};

/// Held by every call into an emulated library: there is one device.
std::recursive_mutex& device_mutex();

/// The stream of a handle; null if the handle is not one.
Stream* stream_of(cudaStream_t stream);

/// Puts work on a stream, or a node into the graph that is captured from it. False if that is not
/// allowed; cudaGetLastError() then returns why.
bool put(cudaStream_t stream, Work work, cudaGraphNodeType type = cudaGraphNodeTypeKernel,
         std::int64_t cost = kernel_cost);

}  // namespace emulation
