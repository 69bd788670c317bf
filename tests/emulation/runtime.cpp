// The functions of the CUDA runtime that preheat and its tests call. What is an error in CUDA is an
// error here.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "emulation/device.h"
#include "emulation/memory.h"
#include "emulation/order.h"

namespace emulation {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

constexpr unsigned max_threads = 1024;
constexpr std::size_t shared_without_asking = std::size_t{48} << 10;
// The least of all devices from compute capability 8.0 on; 9.0 has 227 KiB.
constexpr std::size_t shared_when_asked = std::size_t{99} << 10;

Stream legacy_stream;  // all others are non-blocking, so it does not synchronise with them
std::set<Stream*> streams;
std::set<Event*> events;
std::set<Graph*> graphs;
std::set<Exec*> execs;
std::map<std::uintptr_t, std::size_t> pinned;
std::vector<TaskPointer> orphans;  // last tasks of streams that were destroyed
std::unordered_map<const void*, std::size_t> shared_allowed;
std::unordered_set<const void*> loaded;  // kernels that have been launched
int chains = 0;
Clock host_clock;  // what the host has waited for
std::int64_t now = 0;
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::set<Capture*> captures_of_thread;

cudaError_t tell(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

template <class Object, class Handle>
Object* known(const std::set<Object*>& all, Handle handle) {
  auto* const object = reinterpret_cast<Object*>(handle);
  return all.contains(object) ? object : nullptr;
}

// Executes a task and all tasks that it depends on. Each time every chain gets a random rank, and
// mostly the lowest-ranked ready task is next: whole streams run ahead of others, or lag behind.
void run_up_to(const TaskPointer& wanted) {
  struct Pending {
    TaskPointer task;
    std::size_t missing = 0;
    std::vector<std::size_t> next;
  };
  std::vector<Pending> pending{{wanted, 0, {}}};
  std::unordered_map<Task*, std::size_t> number{{wanted.get(), 0}};
  for (std::size_t i = 0; i < pending.size(); ++i) {
    const TaskPointer task = pending[i].task;
    for (const TaskPointer& before : task->after) {
      if (before->done) continue;
      const auto [at, is_new] = number.try_emplace(before.get(), pending.size());
      if (is_new) pending.push_back({before, 0, {}});
      pending[at->second].next.push_back(i);
      ++pending[i].missing;
    }
  }
  std::unordered_map<int, std::size_t> ranks;
  // Within a chain the task that was enqueued first comes first: the search found it last.
  std::set<std::pair<std::pair<std::size_t, std::size_t>, std::size_t>> ready;
  const auto add = [&](std::size_t i) {
    const auto [rank, is_new] = ranks.try_emplace(pending[i].task->chain, 0);
    if (is_new) rank->second = any_below(1000);
    ready.insert({{rank->second, pending.size() - i}, i});
  };
  for (std::size_t i = 0; i < pending.size(); ++i) {
    if (pending[i].missing == 0) add(i);
  }
  while (!ready.empty()) {
    auto next_one = ready.begin();
    if (any_below(8) == 0) std::advance(next_one, any_below(ready.size()));
    const std::size_t i = next_one->second;
    ready.erase(next_one);
    Task& task = *pending[i].task;
    for (const TaskPointer& before : task.after) merge(task.clock, before->clock);
    task_begins(task.chain, task.clock);
    if (task.work) task.work();
    task.at = now += task.cost;
    task.done = true;
    task.work = nullptr;
    task.after.clear();
    for (const std::size_t next : pending[i].next) {
      if (--pending[next].missing == 0) add(next);
    }
  }
}

// The host waits for a task.
void complete(const TaskPointer& wanted) {
  if (!wanted) return;
  if (!wanted->done) run_up_to(wanted);
  merge(host_clock, wanted->clock);
}

void complete_all() {
  for (Stream* stream : streams) complete(stream->last);
  complete(legacy_stream.last);
  for (const TaskPointer& task : orphans) complete(task);
  orphans.clear();
}

TaskPointer put_task(Stream& stream, Work work, std::int64_t cost = 1) {
  auto task = std::make_shared<Task>();
  task->work = std::move(work);
  task->after = std::move(stream.waits);
  stream.waits.clear();
  if (stream.last) task->after.push_back(stream.last);
  task->clock = host_clock;
  task->chain = stream.chain;
  task->cost = cost;
  stream.last = task;
  return task;
}

void put_node(Stream& stream, Node node) {
  node.chain = stream.chain;
  node.after.assign(stream.frontier.begin(), stream.frontier.end());
  std::vector<NodePointer>& nodes = stream.capture->graph->nodes;
  stream.frontier = {nodes.size()};
  nodes.push_back(std::make_shared<const Node>(std::move(node)));
}

// For calls that a thread may not make while it captures.
cudaError_t unsafe() {
  if (captures_of_thread.empty()) return cudaSuccess;
  for (Capture* capture : captures_of_thread) capture->invalid = true;
  return tell(cudaErrorStreamCaptureUnsupported);
}

cudaError_t check_launch(const Launch& launch) {
  const dim3& grid = launch.grid;
  const dim3& block = launch.block;
  constexpr unsigned most = 65535;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > most ||
      grid.z > most) {
    return cudaErrorInvalidConfiguration;
  }
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.z > 64 ||
      std::uint64_t{block.x} * block.y * block.z > max_threads) {
    return cudaErrorInvalidConfiguration;
  }
  const auto asked = shared_allowed.find(launch.kernel);
  const std::size_t allowed = asked == shared_allowed.end()
                                  ? shared_without_asking
                                  : std::max(asked->second, shared_without_asking);
  return launch.shared_bytes > allowed ? cudaErrorInvalidValue : cudaSuccess;
}

bool is_pinned(const void* memory, std::size_t bytes) {
  const auto at = reinterpret_cast<std::uintptr_t>(memory);
  auto found = pinned.upper_bound(at);
  if (found == pinned.begin()) return false;
  --found;
  return at + bytes <= found->first + found->second;
}

// Checks both pointers, also that the host's is not device memory.
cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t handle, bool waits) {
  if (bytes == 0) return cudaSuccess;
  const bool to_device = kind != cudaMemcpyDeviceToHost;
  const bool from_device = kind != cudaMemcpyHostToDevice;
  if (kind != cudaMemcpyDeviceToHost && kind != cudaMemcpyHostToDevice &&
      kind != cudaMemcpyDeviceToDevice) {
    return tell(cudaErrorInvalidMemcpyDirection);
  }
  if (is_device_memory(to, bytes) != to_device || is_device_memory(from, bytes) != from_device) {
    return tell(cudaErrorInvalidValue);
  }
  Stream* const stream = stream_of(handle);
  if (stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  const void* const host = !from_device ? from : !to_device ? to : nullptr;
  const bool is_direct = host != nullptr && is_pinned(host, bytes);
  const auto move = [=](const void* source) {
    if (is_direct && !is_pinned(host, bytes)) stop("pinned memory was freed before it was copied");
    if (from_device) reads(from, bytes);
    if (to_device) writes(to, bytes);
    std::memmove(to, source, bytes);
  };
  Work work = [=] { move(from); };
  if (stream->capture) {
    if (host != nullptr && !is_direct) return tell(cudaErrorStreamCaptureUnsupported);
  } else if (!from_device && !is_direct) {
    // Staged: the caller may reuse its memory at once, but the copy need not have arrived.
    work = [move, staged = std::vector<char>(static_cast<const char*>(from),
                                             static_cast<const char*>(from) + bytes)] {
      move(staged.data());
    };
    waits = false;
  } else if (!to_device && !is_direct) {
    waits = true;
  } else if (kind == cudaMemcpyDeviceToDevice) {
    waits = false;
  }
  if (!put(handle, std::move(work), cudaGraphNodeTypeMemcpy)) return last_error;
  if (waits) complete(stream->last);
  return cudaSuccess;
}

cudaError_t record(cudaEvent_t handle, cudaStream_t stream_handle, bool external) {
  Event* const event = known(events, handle);
  Stream* const stream = stream_of(stream_handle);
  if (event == nullptr || stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  if (external && !stream->capture) return tell(cudaErrorIllegalState);
  if (external) {
    Node node;
    node.type = cudaGraphNodeTypeEventRecord;
    node.event = handle;
    node.cost = 1;
    put_node(*stream, std::move(node));
    return cudaSuccess;
  }
  event->captured = stream->capture != nullptr;
  event->capture = stream->capture;
  if (stream->capture) {
    event->frontier = stream->frontier;
    event->record = nullptr;
  } else {
    event->record = put_task(*stream, nullptr);
  }
  return cudaSuccess;
}

cudaError_t wait(cudaStream_t stream_handle, cudaEvent_t handle) {
  Stream* const stream = stream_of(stream_handle);
  const Event* const event = known(events, handle);
  if (event == nullptr || stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  if (event->captured) {
    const std::shared_ptr<Capture> capture = event->capture.lock();
    if (!capture) return tell(cudaErrorCapturedEvent);
    if (stream->capture && stream->capture != capture) return tell(cudaErrorStreamCaptureMerge);
    if (stream == &legacy_stream) return tell(cudaErrorStreamCaptureImplicit);
    stream->capture = capture;
    capture->streams.insert(stream);
    stream->frontier.insert(event->frontier.begin(), event->frontier.end());
    return cudaSuccess;
  }
  if (stream->capture) {
    stream->capture->invalid = true;
    return tell(cudaErrorStreamCaptureIsolation);
  }
  if (event->record) stream->waits.push_back(event->record);
  return cudaSuccess;
}

// Whether the next node of the origin would come after all captured nodes.
bool is_joined(const Capture& capture) {
  const std::vector<NodePointer>& nodes = capture.graph->nodes;
  std::vector<bool> reached(nodes.size());
  std::vector<std::size_t> open(capture.origin->frontier.begin(), capture.origin->frontier.end());
  while (!open.empty()) {
    const std::size_t i = open.back();
    open.pop_back();
    if (reached[i]) continue;
    reached[i] = true;
    open.insert(open.end(), nodes[i]->after.begin(), nodes[i]->after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](bool r) { return r; });
}

cudaError_t end_capture(Stream& stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::shared_ptr<Capture> capture = stream.capture;
  if (!capture) return tell(cudaErrorIllegalState);
  if (capture->origin != &stream) return tell(cudaErrorStreamCaptureUnmatched);
  const bool joined = is_joined(*capture);
  for (Stream* member : capture->streams) {
    member->capture = nullptr;
    member->frontier.clear();
  }
  captures_of_thread.erase(capture.get());
  if (capture->invalid) return tell(cudaErrorStreamCaptureInvalidated);
  if (!joined) return tell(cudaErrorStreamCaptureUnjoined);
  graphs.insert(capture->graph.get());
  *graph = reinterpret_cast<cudaGraph_t>(capture->graph.release());
  return cudaSuccess;
}

cudaError_t launch_graph(Exec& exec, Stream& stream) {
  if (stream.capture) return tell(cudaErrorStreamCaptureUnsupported);
  const TaskPointer begin = put_task(stream, nullptr);
  if (exec.last) begin->after.push_back(exec.last);
  std::vector<TaskPointer> tasks;
  std::vector<bool> is_last(exec.nodes.size(), true);
  for (const NodePointer& node : exec.nodes) {
    auto task = std::make_shared<Task>();
    if (node->event != nullptr) {
      Event* const event = known(events, node->event);
      if (event == nullptr) return tell(cudaErrorInvalidResourceHandle);
      event->captured = false;
      event->record = task;
    } else {
      task->work = [node] {
        if (node->launch) {
          run(*node->launch);
        } else if (node->work) {
          node->work();
        }
      };
    }
    task->chain = node->chain;
    task->cost = node->cost;
    for (const std::size_t before : node->after) {
      task->after.push_back(tasks[before]);
      is_last[before] = false;
    }
    if (node->after.empty()) task->after.push_back(begin);
    tasks.push_back(std::move(task));
  }
  exec.last = put_task(stream, nullptr);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (is_last[i]) exec.last->after.push_back(tasks[i]);
  }
  return cudaSuccess;
}

// The handle of a node is its address in the graph.
struct NodePlace {
  const Graph* graph;
  std::size_t index;
};
NodePlace place_of(cudaGraphNode_t node) {
  const auto* const at = reinterpret_cast<const NodePointer*>(node);
  for (const Graph* graph : graphs) {
    const NodePointer* const first = graph->nodes.data();
    if (at >= first && at < first + graph->nodes.size()) {
      return {graph, static_cast<std::size_t>(at - first)};
    }
  }
  return {nullptr, 0};
}

}  // namespace

std::recursive_mutex& device_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

Stream* stream_of(cudaStream_t stream) {
  return stream == nullptr ? &legacy_stream : known(streams, stream);
}

bool put(cudaStream_t handle, Work work, cudaGraphNodeType type, std::int64_t cost) {
  Stream* const stream = stream_of(handle);
  if (stream == nullptr) {
    tell(cudaErrorInvalidResourceHandle);
    return false;
  }
  if (stream->capture) {
    Node node;
    node.type = type;
    node.work = std::move(work);
    node.cost = cost;
    put_node(*stream, std::move(node));
  } else {
    put_task(*stream, std::move(work), cost);
  }
  return true;
}

void enqueue(Launch launch, cudaStream_t handle) {
  const Lock lock(device_mutex());
  Stream* const stream = stream_of(handle);
  cudaError_t error = check_launch(launch);
  if (stream == nullptr) error = cudaErrorInvalidResourceHandle;
  launch.shared_limit =
      shared_allowed.contains(launch.kernel) ? shared_when_asked : shared_without_asking;
  // CUDA loads a kernel's code at its first launch, which may synchronise with the device.
  const bool is_first = loaded.insert(launch.kernel).second;
  if (error == cudaSuccess && is_first && !captures_of_thread.empty()) error = unsafe();
  if (tell(error) != cudaSuccess) return;
  if (stream->capture) {
    Node node;
    node.launch = std::move(launch);
    put_node(*stream, std::move(node));
  } else {
    put_task(
        *stream, [launch = std::move(launch)] { run(launch); }, kernel_cost);
  }
}

}  // namespace emulation

using namespace emulation;

extern "C" {

// --- Errors and the device

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t error) {
  thread_local std::string name;
  name = "cudaError " + std::to_string(static_cast<int>(error));
  return name.c_str();
}

const char* cudaGetErrorString(cudaError_t) {
  return "of the emulated device";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : tell(cudaErrorInvalidDevice);
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  // preheat remembers plans by the device's name: those of one seed are not another's.
  std::snprintf(properties->name, sizeof properties->name, "an emulated device, seed %zu",
                any_decision());
  properties->major = major_version;
  properties->multiProcessorCount = 132;
  properties->totalGlobalMem = device_bytes;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  if (attribute == cudaDevAttrComputeCapabilityMajor) {
    *value = major_version;
  } else if (attribute == cudaDevAttrMemoryPoolsSupported) {
    *value = 1;
  } else {
    return tell(cudaErrorNotSupported);
  }
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) {
  std::snprintf(id, static_cast<std::size_t>(size), "emulated");
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  complete_all();
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(device_mutex());
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return tell(cudaErrorNotSupported);
  if (value < 0 || static_cast<std::size_t>(value) > shared_when_asked) {
    return tell(cudaErrorInvalidValue);
  }
  shared_allowed[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

// --- Memory

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  *memory = allocate(bytes);
  return *memory == nullptr ? tell(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const Lock lock(device_mutex());
  if (memory == nullptr) return cudaSuccess;
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  complete_all();
  return release(memory) ? cudaSuccess : tell(cudaErrorInvalidValue);
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  *memory = allocate(bytes);
  if (*memory == nullptr) return tell(cudaErrorMemoryAllocation);
  return put(stream, nullptr) ? cudaSuccess : last_error;
}

// Does not check whether other streams still use the memory.
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const Lock lock(device_mutex());
  if (!is_device_memory(memory, 1)) return tell(cudaErrorInvalidValue);
  put(stream, [memory] {
    if (!release(memory)) stop("memory was freed twice");
  });
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  *memory = std::malloc(std::max<std::size_t>(bytes, 1));
  pinned[reinterpret_cast<std::uintptr_t>(*memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(device_mutex());
  if (pinned.erase(reinterpret_cast<std::uintptr_t>(memory)) == 0) {
    return tell(cudaErrorInvalidValue);
  }
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Lock lock(device_mutex());
  *total = device_bytes;
  *free = device_bytes - allocated_bytes();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;
  return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}

// The pool keeps nothing that is freed.
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) {
  return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const Lock lock(device_mutex());
  if (attribute != cudaMemPoolAttrReservedMemCurrent &&
      attribute != cudaMemPoolAttrUsedMemCurrent) {
    return tell(cudaErrorNotSupported);
  }
  *static_cast<std::uint64_t*>(value) = allocated_bytes();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const Lock lock(device_mutex());
  return copy(to, from, bytes, kind, stream, false);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  return copy(to, from, bytes, kind, nullptr, true);
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(device_mutex());
  if (bytes == 0) return cudaSuccess;
  if (!is_device_memory(memory, bytes)) return tell(cudaErrorInvalidValue);
  const Work work = [=] {
    writes(memory, bytes);
    std::memset(memory, value, bytes);
  };
  return put(stream, work, cudaGraphNodeTypeMemset) ? cudaSuccess : last_error;
}

// Returns before the memory is set, as CUDA's does.
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  const Lock lock(device_mutex());
  if (const cudaError_t error = unsafe(); error != cudaSuccess) return error;
  return cudaMemsetAsync(memory, value, bytes, nullptr);
}

// --- Streams and events

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Lock lock(device_mutex());
  if (flags != cudaStreamNonBlocking) return tell(cudaErrorNotSupported);
  auto* const made = new Stream;
  made->chain = ++chains;
  streams.insert(made);
  *stream = reinterpret_cast<cudaStream_t>(made);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const Lock lock(device_mutex());
  Stream* const stream = known(streams, handle);
  if (stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  if (stream->last && !stream->last->done) orphans.push_back(stream->last);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Lock lock(device_mutex());
  Stream* const stream = stream_of(handle);
  if (stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->invalid = true;
    return tell(cudaErrorStreamCaptureUnsupported);
  }
  for (const TaskPointer& task : stream->waits) complete(task);
  complete(stream->last);
  return tell(device_error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(device_mutex());
  return wait(stream, event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Lock lock(device_mutex());
  auto* const made = new Event;
  made->timed = (flags & cudaEventDisableTiming) == 0;
  events.insert(made);
  *event = reinterpret_cast<cudaEvent_t>(made);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  const Lock lock(device_mutex());
  Event* const event = known(events, handle);
  if (event == nullptr) return tell(cudaErrorInvalidResourceHandle);
  events.erase(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(device_mutex());
  return record(event, stream, false);
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  const Lock lock(device_mutex());
  return record(event, stream, (flags & cudaEventRecordExternal) != 0);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const Lock lock(device_mutex());
  const Event* const event = known(events, handle);
  if (event == nullptr) return tell(cudaErrorInvalidResourceHandle);
  if (event->captured) return tell(cudaErrorCapturedEvent);
  complete(event->record);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(device_mutex());
  const Event* const begin = known(events, from);
  const Event* const end = known(events, to);
  for (const Event* event : {begin, end}) {
    if (event == nullptr || !event->timed || !event->record) {
      return tell(cudaErrorInvalidResourceHandle);
    }
    if (!event->record->done) return tell(cudaErrorNotReady);
  }
  *milliseconds = 1e-3f * static_cast<float>(end->record->at - begin->record->at);
  return cudaSuccess;
}

// --- Graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const Lock lock(device_mutex());
  Stream* const stream = known(streams, handle);
  if (stream == nullptr) return tell(cudaErrorStreamCaptureUnsupported);
  if (mode != cudaStreamCaptureModeThreadLocal) return tell(cudaErrorNotSupported);
  if (stream->capture) return tell(cudaErrorIllegalState);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->streams.insert(stream);
  captures_of_thread.insert(stream->capture.get());
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const Lock lock(device_mutex());
  Stream* const stream = known(streams, handle);
  return stream == nullptr ? tell(cudaErrorInvalidResourceHandle) : end_capture(*stream, graph);
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  const Lock lock(device_mutex());
  Graph* const graph = known(graphs, handle);
  if (graph == nullptr) return tell(cudaErrorInvalidValue);
  graphs.erase(graph);
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, std::size_t* count) {
  const Lock lock(device_mutex());
  Graph* const graph = known(graphs, handle);
  if (graph == nullptr) return tell(cudaErrorInvalidValue);
  if (nodes != nullptr) {
    for (std::size_t i = 0; i < *count; ++i) {
      nodes[i] =
          i < graph->nodes.size() ? reinterpret_cast<cudaGraphNode_t>(&graph->nodes[i]) : nullptr;
    }
    *count = std::min(*count, graph->nodes.size());
  } else {
    *count = graph->nodes.size();
  }
  return cudaSuccess;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  const Lock lock(device_mutex());
  const NodePlace at = place_of(node);
  if (at.graph == nullptr) return tell(cudaErrorInvalidValue);
  *type = at.graph->nodes[at.index]->type;
  return cudaSuccess;
}

cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* parameters) {
  const Lock lock(device_mutex());
  const NodePlace at = place_of(node);
  if (at.graph == nullptr || !at.graph->nodes[at.index]->launch) return tell(cudaErrorInvalidValue);
  const Launch& launch = *at.graph->nodes[at.index]->launch;
  thread_local std::vector<void*> arguments;
  arguments.clear();
  for (const auto& argument : launch.arguments) arguments.push_back(argument.get());
  *parameters = {};
  parameters->func = const_cast<void*>(launch.kernel);
  parameters->gridDim = launch.grid;
  parameters->blockDim = launch.block;
  parameters->sharedMemBytes = static_cast<unsigned>(launch.shared_bytes);
  parameters->kernelParams = arguments.data();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t handle, unsigned long long) {
  const Lock lock(device_mutex());
  Graph* const graph = known(graphs, handle);
  if (graph == nullptr) return tell(cudaErrorInvalidValue);
  for (const NodePointer& node : graph->nodes) {  // its kernel's limit may be lower by now
    if (!node->launch) continue;
    if (const cudaError_t error = check_launch(*node->launch); error != cudaSuccess) {
      return tell(error);
    }
  }
  auto* const made = new Exec{graph->nodes, graph, nullptr};
  execs.insert(made);
  ++instantiations;
  *exec = reinterpret_cast<cudaGraphExec_t>(made);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  const Lock lock(device_mutex());
  Exec* const exec = known(execs, handle);
  if (exec == nullptr) return tell(cudaErrorInvalidValue);
  execs.erase(exec);
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  const Lock lock(device_mutex());
  Exec* const exec = known(execs, handle);
  Stream* const stream = stream_of(stream_handle);
  if (exec == nullptr || stream == nullptr) return tell(cudaErrorInvalidResourceHandle);
  return launch_graph(*exec, *stream);
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t handle, cudaGraphNode_t node,
                                             const cudaKernelNodeParams* parameters) {
  const Lock lock(device_mutex());
  Exec* const exec = known(execs, handle);
  const NodePlace at = place_of(node);
  if (exec == nullptr || at.graph == nullptr || at.graph != exec->graph) {
    return tell(cudaErrorInvalidValue);
  }
  Node changed = *exec->nodes[at.index];
  if (!changed.launch || changed.launch->kernel != parameters->func) {
    return tell(cudaErrorInvalidValue);
  }
  Launch launch = *changed.launch;
  launch.grid = parameters->gridDim;
  launch.block = parameters->blockDim;
  launch.shared_bytes = parameters->sharedMemBytes;
  launch.sizes.clear();
  launch.arguments.clear();
  for (std::size_t i = 0; i < changed.launch->sizes.size(); ++i) {
    launch.add(parameters->kernelParams[i], changed.launch->sizes[i]);
  }
  if (const cudaError_t error = check_launch(launch); error != cudaSuccess) return tell(error);
  changed.launch = std::move(launch);
  exec->nodes[at.index] = std::make_shared<const Node>(std::move(changed));
  return cudaSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t handle, cudaGraph_t graph_handle,
                                cudaGraphExecUpdateResultInfo* info) {
  const Lock lock(device_mutex());
  Exec* const exec = known(execs, handle);
  Graph* const graph = known(graphs, graph_handle);
  if (exec == nullptr || graph == nullptr) return tell(cudaErrorInvalidValue);
  *info = {};
  const bool fits = std::equal(exec->nodes.begin(), exec->nodes.end(), graph->nodes.begin(),
                               graph->nodes.end(), [](const NodePointer& a, const NodePointer& b) {
                                 return a->type == b->type && a->after == b->after &&
                                        a->launch.has_value() == b->launch.has_value() &&
                                        (!a->launch || a->launch->kernel == b->launch->kernel);
                               });
  if (!fits) {
    info->result = cudaGraphExecUpdateErrorTopologyChanged;
    return tell(cudaErrorGraphExecUpdateFailure);
  }
  exec->nodes = graph->nodes;
  return cudaSuccess;
}

}  // extern "C"
