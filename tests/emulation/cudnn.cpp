// cuDNN's graph API for one convolution: descriptors that check what is set on them, heuristics
// that offer engines of every kind, only some of which preheat may take, and plain loops.
#include <cudnn.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string>

#include "emulation/numbers.h"
#include "emulation/order.h"

namespace emulation {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

struct Handle {
  cudaStream_t stream = nullptr;
};

struct Attribute {
  cudnnBackendAttributeType_t type{};
  std::vector<char> bytes;
  std::int64_t count = 0;
};

struct Descriptor {
  cudnnBackendDescriptorType_t type{};
  std::map<cudnnBackendAttributeName_t, Attribute> attributes;
  bool final = false;

  bool has(cudnnBackendAttributeName_t name) const { return attributes.contains(name); }
  template <class T>
  T get(cudnnBackendAttributeName_t name, std::size_t i = 0) const {
    T value{};
    const auto found = attributes.find(name);
    if (found == attributes.end() || (i + 1) * sizeof value > found->second.bytes.size()) {
      return value;
    }
    std::memcpy(&value, found->second.bytes.data() + i * sizeof value, sizeof value);
    return value;
  }
  const Descriptor* part(cudnnBackendAttributeName_t name) const {
    return reinterpret_cast<const Descriptor*>(get<cudnnBackendDescriptor_t>(name));
  }
  template <class T>
  void put(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t kind,
           const std::vector<T>& values) {
    Attribute& a = attributes[name];
    a.type = kind;
    a.count = static_cast<std::int64_t>(values.size());
    a.bytes.assign(reinterpret_cast<const char*>(values.data()),
                   reinterpret_cast<const char*>(values.data() + values.size()));
  }
};

std::set<const Descriptor*> descriptors;

bool is_final(const Descriptor* d, cudnnBackendDescriptorType_t type) {
  return d != nullptr && descriptors.contains(d) && d->type == type && d->final;
}

struct Engine {
  std::int64_t index;
  bool fallback = false;
  bool small = false;  // for 16 bits; otherwise for fp32
  std::vector<cudnnBackendNumericalNote_t> numerics = {};
  std::vector<cudnnBackendBehaviorNote_t> behavior = {};
  std::int64_t workspace = 0;
  std::int64_t knob = 0;  // the value of its only knob; 0: it has none
  bool can_be_planned = true;
  bool can_be_run = true;

  bool has(cudnnBackendNumericalNote_t note) const {
    return std::find(numerics.begin(), numerics.end(), note) != numerics.end();
  }
};

const std::vector<Engine>& engines() {
  static const std::vector<Engine> all = {
      {.index = 1, .numerics = {CUDNN_NUMERICAL_NOTE_WINOGRAD}},
      {.index = 2, .numerics = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, .workspace = 512},
      {.index = 3,
       .numerics = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS},
       .workspace = 8192},
      {.index = 4, .can_be_run = false},
      {.index = 5, .workspace = std::int64_t{1} << 30},
      {.index = 6, .can_be_planned = false},
      {.index = 7, .behavior = {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION}},
      {.index = 8, .workspace = 4096, .knob = 2},
      {.index = 9, .fallback = true},
      {.index = 11,
       .small = true,
       .numerics = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}},
      {.index = 12,
       .small = true,
       .numerics = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE},
       .workspace = 16384},
      {.index = 13, .small = true, .workspace = 256},
  };
  return all;
}

const Engine* engine_of(const Descriptor* configuration) {
  if (!is_final(configuration, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)) return nullptr;
  const Descriptor* engine = configuration->part(CUDNN_ATTR_ENGINECFG_ENGINE);
  const auto index = engine->get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  for (const Engine& e : engines()) {
    if (e.index == index) return &e;
  }
  return nullptr;
}

enum class Pass { forward, data, weights };

// The operation of a graph, read from its descriptors.
struct Convolution {
  Pass pass{};
  Type type{};
  std::int64_t x_id, w_id, y_id;
  std::int64_t batch, height, width, channels;  // of x
  std::int64_t out, out_height, out_width, kernel_height, kernel_width;
  std::int64_t stride[2], before[2];
  std::size_t x_size() const { return static_cast<std::size_t>(batch * height * width * channels); }
  std::size_t y_size() const {
    return static_cast<std::size_t>(batch * out_height * out_width * out);
  }
  std::size_t w_size() const {
    return static_cast<std::size_t>(out * kernel_height * kernel_width * channels);
  }
};

bool is_nhwc(const Descriptor& tensor) {
  const auto dim = [&](std::size_t i) {
    return tensor.get<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i);
  };
  const auto stride = [&](std::size_t i) {
    return tensor.get<std::int64_t>(CUDNN_ATTR_TENSOR_STRIDES, i);
  };
  return stride(1) == 1 && stride(3) == dim(1) && stride(2) == dim(1) * dim(3) &&
         stride(0) == dim(1) * dim(2) * dim(3);
}

// False if anything is missing or does not fit.
bool read(const Descriptor& operation, Convolution& c) {
  cudnnBackendAttributeName_t convolution{}, x{}, w{}, y{}, alpha{}, beta{};
  switch (operation.type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      c.pass = Pass::forward;
      convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC;
      x = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X;
      w = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W;
      y = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y;
      alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA;
      beta = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA;
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      c.pass = Pass::data;
      convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC;
      x = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX;
      w = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W;
      y = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY;
      alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA;
      beta = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA;
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      c.pass = Pass::weights;
      convolution = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC;
      x = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X;
      w = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW;
      y = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY;
      alpha = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA;
      beta = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA;
      break;
    default:
      return false;
  }
  const Descriptor* const parts[] = {operation.part(x), operation.part(w), operation.part(y)};
  const Descriptor* const d = operation.part(convolution);
  for (const Descriptor* tensor : parts) {
    if (!is_final(tensor, CUDNN_BACKEND_TENSOR_DESCRIPTOR) || !is_nhwc(*tensor)) return false;
  }
  if (!is_final(d, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)) return false;
  if (operation.get<float>(alpha) != 1 || !operation.has(beta) || operation.get<float>(beta) != 0) {
    return false;
  }
  const auto dim = [&](int tensor, std::size_t i) {
    return parts[tensor]->get<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i);
  };
  const auto id = [&](int tensor) {
    return parts[tensor]->get<std::int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  };
  const auto type = parts[0]->get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  for (const Descriptor* tensor : parts) {
    if (tensor->get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE) != type) return false;
  }
  c.type = type == CUDNN_DATA_FLOAT ? Type::f32 : type == CUDNN_DATA_HALF ? Type::f16 : Type::bf16;
  c.x_id = id(0), c.w_id = id(1), c.y_id = id(2);
  c.batch = dim(0, 0), c.channels = dim(0, 1), c.height = dim(0, 2), c.width = dim(0, 3);
  c.out = dim(1, 0), c.kernel_height = dim(1, 2), c.kernel_width = dim(1, 3);
  c.out_height = dim(2, 2), c.out_width = dim(2, 3);
  std::int64_t ends[2];
  const std::int64_t in[2] = {c.height, c.width};
  const std::int64_t kernel[2] = {c.kernel_height, c.kernel_width};
  for (std::size_t i = 0; i < 2; ++i) {
    c.stride[i] = d->get<std::int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
    c.before[i] = d->get<std::int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
    const auto behind = d->get<std::int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i);
    if (c.stride[i] < 1 || c.before[i] < 0 || behind < 0) return false;
    if (d->get<std::int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS, i) != 1) return false;
    ends[i] = (in[i] + c.before[i] + behind - kernel[i]) / c.stride[i] + 1;
  }
  return dim(1, 1) == c.channels && dim(2, 0) == c.batch && dim(2, 1) == c.out &&
         ends[0] == c.out_height && ends[1] == c.out_width;
}

const Descriptor* operation_of(const Descriptor* graph) {
  return graph->part(CUDNN_ATTR_OPERATIONGRAPH_OPS);
}

// What sums in any order may round another way each time: mostly by a last bit, here and there.
void round_in_any_way(Type type, std::vector<float>& values) {
  const float last_bit = type == Type::f32 ? 0x1p-23f : type == Type::f16 ? 0x1p-10f : 0x1p-7f;
  for (float& v : values) {
    if (any_below(8) == 0) v *= 1 + last_bit;
  }
}

void compute(const Convolution& c, const Engine& engine, void* x_data, void* w_data, void* y_data) {
  const bool tf32 = engine.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
  const bool reads_x = c.pass != Pass::data;
  const bool reads_w = c.pass != Pass::weights;
  const bool reads_y = c.pass != Pass::forward;
  const auto values = [&](bool reads, const void* data, std::size_t size) {
    return reads ? emulation::read(c.type, data, size, tf32) : std::vector<float>(size);
  };
  std::vector<float> x = values(reads_x, x_data, c.x_size());
  std::vector<float> w = values(reads_w, w_data, c.w_size());
  std::vector<float> y = values(reads_y, y_data, c.y_size());
  const std::int64_t channels = c.channels;
  for (std::int64_t pixel = 0; pixel < c.batch * c.out_height * c.out_width; ++pixel) {
    const std::int64_t n = pixel / c.out_width / c.out_height;
    const std::int64_t p = pixel / c.out_width % c.out_height;
    const std::int64_t q = pixel % c.out_width;
    for (std::int64_t r = 0; r < c.kernel_height; ++r) {
      const std::int64_t row = p * c.stride[0] + r - c.before[0];
      if (row < 0 || row >= c.height) continue;
      for (std::int64_t s = 0; s < c.kernel_width; ++s) {
        const std::int64_t column = q * c.stride[1] + s - c.before[1];
        if (column < 0 || column >= c.width) continue;
        float* const x_at = &x[((n * c.height + row) * c.width + column) * channels];
        for (std::int64_t k = 0; k < c.out; ++k) {
          float* const w_at = &w[((k * c.kernel_height + r) * c.kernel_width + s) * channels];
          float& y_at = y[pixel * c.out + k];
          switch (c.pass) {
            case Pass::forward: {
              float sum = 0;
              for (std::int64_t i = 0; i < channels; ++i) sum += x_at[i] * w_at[i];
              y_at += sum;
              break;
            }
            case Pass::data:
              for (std::int64_t i = 0; i < channels; ++i) x_at[i] += y_at * w_at[i];
              break;
            case Pass::weights:
              for (std::int64_t i = 0; i < channels; ++i) w_at[i] += y_at * x_at[i];
              break;
          }
        }
      }
    }
  }
  if (engine.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) {
    round_in_any_way(c.type, !reads_x ? x : !reads_w ? w : y);
  }
  if (!reads_x) write(c.type, x_data, x);
  if (!reads_w) write(c.type, w_data, w);
  if (!reads_y) write(c.type, y_data, y);
}

// A made-up cost, less or more than that of our own kernels.
std::int64_t cost_of(const Convolution& c) {
  const std::size_t shape = c.x_size() + 3 * c.y_size() + 5 * c.w_size();
  return (shape / 16 + static_cast<std::size_t>(c.pass) + any_decision()) % 2 == 0
             ? kernel_cost / 4
             : kernel_cost * 4;
}

// Copies `from` into an empty descriptor of the caller.
void give(const Descriptor& from, cudnnBackendDescriptor_t to) {
  auto* const d = reinterpret_cast<Descriptor*>(to);
  if (!descriptors.contains(d) || d->type != from.type || d->final) {
    stop("cuDNN was given a descriptor to fill that is none of that type");
  }
  d->attributes = from.attributes;
  d->final = true;
}

std::vector<Descriptor> configurations(const Descriptor& heuristics) {
  static std::map<std::int64_t, Descriptor> engine_descriptors;
  Convolution c{};
  const Descriptor* graph = heuristics.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  if (!read(*operation_of(graph), c)) return {};
  const bool fallback = heuristics.get<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE) ==
                        CUDNN_HEUR_MODE_FALLBACK;
  std::vector<Descriptor> found;
  for (const Engine& e : engines()) {
    if (e.fallback != fallback || e.small != (c.type != Type::f32)) continue;
    Descriptor& engine = engine_descriptors[e.index];
    engine.type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
    engine.put<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, {e.index});
    engine.put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, e.numerics);
    engine.put(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, e.behavior);
    engine.final = true;
    descriptors.insert(&engine);
    Descriptor configuration;
    configuration.type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
    configuration.put<const void*>(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   {&engine});
    configuration.put<const void*>(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   {graph});
    found.push_back(std::move(configuration));
  }
  return found;
}

cudnnStatus_t finalize(Descriptor& d) {
  constexpr cudnnStatus_t bad = CUDNN_STATUS_BAD_PARAM;
  Convolution c{};
  switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      for (const auto name :
           {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_DIMENSIONS,
            CUDNN_ATTR_TENSOR_STRIDES, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT}) {
        if (!d.has(name)) return bad;
      }
      for (std::size_t i = 0; i < 4; ++i) {
        if (d.get<std::int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i) < 1) return bad;
      }
      break;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
      if (d.get<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
          d.get<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) !=
              CUDNN_CROSS_CORRELATION ||
          d.get<std::int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2) {
        return bad;
      }
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      if (!read(d, c)) return bad;
      break;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: {
      const Descriptor* operation = operation_of(&d);
      if (operation == nullptr || !descriptors.contains(operation) || !operation->final) return bad;
      if (!d.has(CUDNN_ATTR_OPERATIONGRAPH_HANDLE)) return bad;
      break;
    }
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      if (!is_final(d.part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH),
                    CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) ||
          !d.has(CUDNN_ATTR_ENGINEHEUR_MODE)) {
        return bad;
      }
      break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: {
      const Engine* engine = engine_of(d.part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG));
      if (engine == nullptr || !d.has(CUDNN_ATTR_EXECUTION_PLAN_HANDLE)) return bad;
      if (!engine->can_be_planned) return CUDNN_STATUS_NOT_SUPPORTED;
      d.put<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                          {engine->workspace});
      break;
    }
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      if (d.attributes[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS].count !=
          d.attributes[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].count) {
        return bad;
      }
      break;
    default:
      return CUDNN_STATUS_NOT_SUPPORTED;
  }
  d.final = true;
  return CUDNN_STATUS_SUCCESS;
}

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
    case CUDNN_TYPE_DOUBLE:
      return 8;
    case CUDNN_TYPE_CHAR:
      return 1;
    default:  // float and enumerations
      return 4;
  }
}

}  // namespace
}  // namespace emulation

using namespace emulation;

extern "C" {

size_t cudnnGetVersion() {
  return CUDNN_VERSION;
}
const char* cudnnGetErrorString(cudnnStatus_t) {
  return "a status";
}
void cudnnGetLastErrorString(char* message, size_t size) {
  std::snprintf(message, size, "of the emulated cuDNN");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new Handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete reinterpret_cast<Handle*>(handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  const Lock lock(device_mutex());
  if (stream_of(stream) == nullptr) return CUDNN_STATUS_BAD_PARAM;
  reinterpret_cast<Handle*>(handle)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t* made) {
  const Lock lock(device_mutex());
  auto* const d = new Descriptor;
  d->type = type;
  descriptors.insert(d);
  *made = reinterpret_cast<cudnnBackendDescriptor_t>(d);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  const Lock lock(device_mutex());
  auto* const d = reinterpret_cast<Descriptor*>(descriptor);
  if (descriptors.erase(d) == 0) stop("a cuDNN descriptor was destroyed twice");
  delete d;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void* values) {
  const Lock lock(device_mutex());
  auto& d = *reinterpret_cast<Descriptor*>(descriptor);
  if (d.final || count < 1 || values == nullptr) return CUDNN_STATUS_BAD_PARAM;
  const auto* const bytes = static_cast<const char*>(values);
  d.attributes[name] = {
      type, std::vector<char>(bytes, bytes + static_cast<std::size_t>(count) * size_of(type)),
      count};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  const Lock lock(device_mutex());
  return finalize(*reinterpret_cast<Descriptor*>(descriptor));
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t most,
                                       int64_t* count, void* values) {
  const Lock lock(device_mutex());
  const auto& d = *reinterpret_cast<const Descriptor*>(descriptor);
  if (!d.final) return CUDNN_STATUS_NOT_INITIALIZED;
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    const std::vector<Descriptor> found = configurations(d);
    *count = static_cast<std::int64_t>(found.size());
    if (most == 0) return CUDNN_STATUS_SUCCESS;
    *count = std::min(*count, most);
    for (std::int64_t i = 0; i < *count; ++i) {
      give(found[i], static_cast<cudnnBackendDescriptor_t*>(values)[i]);
    }
    return CUDNN_STATUS_SUCCESS;
  }
  if (name == CUDNN_ATTR_ENGINECFG_KNOB_CHOICES) {
    const std::int64_t choice = engine_of(&d)->knob;
    *count = choice == 0 ? 0 : 1;
    if (*count == 0 || most < 1) return CUDNN_STATUS_SUCCESS;
    Descriptor knob;
    knob.type = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
    knob.put(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE,
             std::vector{CUDNN_KNOB_TYPE_TILE_SIZE});
    knob.put(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, std::vector{choice});
    give(knob, *static_cast<cudnnBackendDescriptor_t*>(values));
    return CUDNN_STATUS_SUCCESS;
  }
  const auto found = d.attributes.find(name);
  if (found == d.attributes.end() || found->second.type != type) return CUDNN_STATUS_BAD_PARAM;
  *count = std::min(found->second.count, most);
  if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    give(*d.part(name), *static_cast<cudnnBackendDescriptor_t*>(values));
  } else if (*count > 0) {
    std::memcpy(values, found->second.bytes.data(),
                static_cast<std::size_t>(*count) * size_of(type));
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_descriptor,
                                  cudnnBackendDescriptor_t pack_descriptor) {
  const Lock lock(device_mutex());
  const auto* const plan = reinterpret_cast<const Descriptor*>(plan_descriptor);
  const auto* const pack = reinterpret_cast<const Descriptor*>(pack_descriptor);
  if (!is_final(plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) ||
      !is_final(pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)) {
    return CUDNN_STATUS_BAD_PARAM;
  }
  const Descriptor* configuration = plan->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  const Engine* engine = engine_of(configuration);
  if (engine == nullptr || !engine->can_be_run) return CUDNN_STATUS_EXECUTION_FAILED;
  const Descriptor* graph = configuration->part(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
  Convolution c{};
  if (!is_final(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) || !read(*operation_of(graph), c)) {
    return CUDNN_STATUS_BAD_PARAM;
  }
  const std::int64_t ids[] = {c.x_id, c.w_id, c.y_id};
  const std::size_t sizes[] = {c.x_size(), c.w_size(), c.y_size()};
  void* pointers[3] = {};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t k = 0; k < 3; ++k) {
      if (pack->get<std::int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, k) != ids[i]) continue;
      pointers[i] = pack->get<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, k);
    }
    if (reinterpret_cast<std::uintptr_t>(pointers[i]) % 16 != 0 ||
        !is_device_memory(pointers[i], sizes[i] * bytes_of(c.type))) {
      return CUDNN_STATUS_BAD_PARAM;
    }
  }
  auto* const workspace = pack->get<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  const auto bytes = static_cast<std::size_t>(engine->workspace);
  if (bytes > 0 && !is_device_memory(workspace, bytes)) return CUDNN_STATUS_BAD_PARAM;
  const cudaStream_t stream = reinterpret_cast<Handle*>(handle)->stream;
  return put_with_workspace(
             stream, workspace, bytes,
             [=] { compute(c, *engine, pointers[0], pointers[1], pointers[2]); }, cost_of(c))
             ? CUDNN_STATUS_SUCCESS
             : CUDNN_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
