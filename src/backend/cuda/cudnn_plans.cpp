#include "backend/cuda/cudnn_plans.h"

#include <fmt/format.h>

#include <algorithm>

namespace preheat::cuda {
namespace {

using Shared = std::shared_ptr<Descriptor>;

constexpr std::int64_t x_id = 'x';
constexpr std::int64_t w_id = 'w';
constexpr std::int64_t y_id = 'y';

Shared make(cudnnBackendDescriptorType_t type) {
  return std::make_shared<Descriptor>(type);
}

void set_reference(Descriptor& descriptor, cudnnBackendAttributeName_t name,
                   const Descriptor& value) {
  const cudnnBackendDescriptor_t raw = value.get();
  descriptor.set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
}

cudnnDataType_t data_type(kernels::Element element) {
  switch (element) {
    case kernels::Element::f32:
      return CUDNN_DATA_FLOAT;
    case kernels::Element::bf16:
      return CUDNN_DATA_BFLOAT16;
    case kernels::Element::f16:
      return CUDNN_DATA_HALF;
  }
  return CUDNN_DATA_FLOAT;
}

// cuDNN names dimensions n, c, h, w whatever their order in memory; the strides give that order.
Shared tensor(std::int64_t id, cudnnDataType_t type, std::int64_t n, std::int64_t c, std::int64_t h,
              std::int64_t w) {
  const std::int64_t dims[] = {n, c, h, w};
  const std::int64_t strides[] = {h * w * c, 1, w * c, c};
  const std::int64_t alignment = 16;
  Shared t = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  t->set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
  t->set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  t->set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
  t->set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
  t->set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  t->finalize();
  return t;
}

Shared tensor(std::int64_t id, cudnnDataType_t type, const kernels::Images& images) {
  return tensor(id, type, images.batch, images.channels, images.height, images.width);
}

Shared convolution_descriptor(const Convolution& c) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const std::int64_t spatial = 2;
  const std::int64_t ones[] = {1, 1};
  const std::int64_t strides[] = {c.stride, c.stride};
  const std::int64_t before[] = {c.padding, c.padding};
  // Symmetric padding if that gives the output its size, as it does for odd kernels.
  const auto after = [&](std::int64_t in, std::int64_t out) {
    const bool symmetric = (in + 2 * c.padding - c.kernel) / c.stride + 1 == out;
    return symmetric ? c.padding : (out - 1) * c.stride + c.kernel - in - c.padding;
  };
  const std::int64_t behind[] = {after(c.x.height, c.y.height), after(c.x.width, c.y.width)};
  Shared d = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  d->set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  d->set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  d->set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
  d->set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
  d->set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
  d->set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
  d->set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, behind);
  d->finalize();
  return d;
}

struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
};

OperationNames names_of(Pass pass) {
  switch (pass) {
    case Pass::forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case Pass::data_gradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Pass::weight_gradient:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

// An attribute of a configuration or of its engine.
template <class Value>
std::vector<Value> attribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                             cudnnBackendAttributeType_t type, std::size_t most) {
  std::vector<Value> found(most);
  std::int64_t count = 0;
  PREHEAT_CHECK(cudnnBackendGetAttribute(descriptor, name, type, static_cast<std::int64_t>(most),
                                         &count, found.data()));
  found.resize(std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(most)));
  return found;
}

Descriptor engine_of(const Descriptor& configuration) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  std::int64_t count = 0;
  PREHEAT_CHECK(cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw));
  return engine;
}

std::string name_of(const Descriptor& configuration, const Descriptor& engine) {
  const auto index =
      attribute<std::int64_t>(engine.get(), CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1);
  std::string name = fmt::format("cudnn {}", index.at(0));
  std::vector<Descriptor> knobs;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i) {
    raw.push_back(knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR).get());
  }
  std::int64_t count = 0;
  PREHEAT_CHECK(cudnnBackendGetAttribute(
      configuration.get(), CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
      static_cast<std::int64_t>(raw.size()), &count, raw.data()));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto type = attribute<cudnnBackendKnobType_t>(raw[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                                        CUDNN_TYPE_KNOB_TYPE, 1);
    const auto value =
        attribute<std::int64_t>(raw[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1);
    name += fmt::format(" k{}={}", static_cast<int>(type.at(0)), value.at(0));
  }
  return name;
}

bool has(const std::vector<cudnnBackendNumericalNote_t>& all, cudnnBackendNumericalNote_t note) {
  return std::ranges::find(all, note) != all.end();
}

}  // namespace

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t raw = nullptr;
  PREHEAT_CHECK(cudnnBackendCreateDescriptor(type, &raw));
  descriptor_ = decltype(descriptor_)(raw);
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     std::int64_t count, const void* values) {
  PREHEAT_CHECK(cudnnBackendSetAttribute(get(), name, type, count, values));
}

void Descriptor::finalize() {
  PREHEAT_CHECK(cudnnBackendFinalize(get()));
}

CudnnPlan::CudnnPlan(std::string name, Descriptor plan, std::vector<Shared> parts,
                     bool tensor_cores, bool deterministic)
    : ConvolutionPlan(std::move(name),
                      attribute<std::int64_t>(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                              CUDNN_TYPE_INT64, 1)
                          .at(0)),
      plan_(std::move(plan)),
      parts_(std::move(parts)),
      tensor_cores_(tensor_cores),
      deterministic_(deterministic) {}

void CudnnPlan::run(cudnnHandle_t handle, cudaStream_t stream,
                    const ConvolutionArrays& arrays) const {
  PREHEAT_CHECK(cudnnSetStream(handle, stream));
  void* pointers[] = {arrays.x, arrays.w, arrays.y};
  const std::int64_t ids[] = {x_id, w_id, y_id};
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &arrays.workspace);
  pack.finalize();
  PREHEAT_CHECK(cudnnBackendExecute(handle, plan_.get(), pack.get()));
}

ConvolutionPlanner::ConvolutionPlanner(cudnnHandle_t handle) : handle_(handle) {}

ConvolutionPlanner::ConvolutionPlanner(const std::string& device)
    : device_(make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)) {
  device_->set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               static_cast<std::int64_t>(device.size()), device.c_str());
  device_->finalize();
}

std::vector<Shared> ConvolutionPlanner::configurations(const Shared& graph,
                                                       cudnnBackendHeurMode_t mode) const {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  set_reference(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, *graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (device_) set_reference(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device_);
  if (cudnnBackendFinalize(heuristics.get()) != CUDNN_STATUS_SUCCESS) return {};
  std::int64_t count = 0;
  PREHEAT_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, nullptr));
  std::vector<Shared> results;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i) {
    results.push_back(make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    raw.push_back(results.back()->get());
  }
  if (count == 0) return {};
  PREHEAT_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &count, raw.data()));
  results.resize(static_cast<std::size_t>(count));
  return results;
}

std::shared_ptr<const CudnnPlan> ConvolutionPlanner::plan(const Shared& configuration,
                                                          const std::vector<Shared>& parts,
                                                          const Convolution& c, bool may_compile,
                                                          const std::string& name) const {
  const Descriptor engine = engine_of(*configuration);
  const std::string own_name = name_of(*configuration, engine);
  if (!name.empty() && name != own_name) return nullptr;
  const auto numerical = attribute<cudnnBackendNumericalNote_t>(
      engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
      CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  const auto behavior = attribute<cudnnBackendBehaviorNote_t>(
      engine.get(), CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
      CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
  const bool tensor_cores = has(numerical, CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
  const bool deterministic = !has(numerical, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
  // Transforms that trade accuracy for speed are never wanted: fp32 means fp32.
  if (has(numerical, CUDNN_NUMERICAL_NOTE_FFT) || has(numerical, CUDNN_NUMERICAL_NOTE_WINOGRAD) ||
      has(numerical, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) {
    return nullptr;
  }
  const bool converts = has(numerical, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS);
  if (c.precision == Precision::fp32 && (tensor_cores || converts)) return nullptr;
  if (c.deterministic && !deterministic) return nullptr;
  const bool compiles =
      std::ranges::find(behavior, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != behavior.end();
  if (compiles != may_compile) return nullptr;

  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  set_reference(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, *configuration);
  if (device_) {
    set_reference(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *device_);
  } else {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle_);
  }
  if (cudnnBackendFinalize(plan.get()) != CUDNN_STATUS_SUCCESS) return nullptr;
  std::vector<Shared> kept = parts;
  kept.push_back(configuration);
  auto result = std::make_shared<const CudnnPlan>(own_name, std::move(plan), std::move(kept),
                                                  tensor_cores, deterministic);
  return result->workspace_bytes() <= workspace_limit ? result : nullptr;
}

std::vector<std::shared_ptr<const CudnnPlan>> ConvolutionPlanner::candidates(
    const Convolution& c, std::size_t most, const std::string& name) const {
  const cudnnDataType_t type = data_type(element_of(c.precision));
  const OperationNames names = names_of(c.pass);
  std::vector<Shared> parts = {tensor(x_id, type, c.x),
                               tensor(w_id, type, c.y.channels, c.x.channels, c.kernel, c.kernel),
                               tensor(y_id, type, c.y), convolution_descriptor(c)};
  const float one = 1;
  const float zero = 0;
  Shared operation = make(names.type);
  set_reference(*operation, names.x, *parts[0]);
  set_reference(*operation, names.w, *parts[1]);
  set_reference(*operation, names.y, *parts[2]);
  set_reference(*operation, names.convolution, *parts[3]);
  operation->set(names.alpha, CUDNN_TYPE_FLOAT, 1, &one);
  operation->set(names.beta, CUDNN_TYPE_FLOAT, 1, &zero);
  operation->finalize();
  Shared graph = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  set_reference(*graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, *operation);
  if (handle_ != nullptr) {
    graph->set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle_);
  }
  graph->finalize();
  parts.push_back(operation);
  parts.push_back(graph);

  std::vector<std::shared_ptr<const CudnnPlan>> found;
  const std::vector<Shared> by_mode[] = {configurations(graph, CUDNN_HEUR_MODE_A),
                                         configurations(graph, CUDNN_HEUR_MODE_FALLBACK)};
  for (const bool may_compile : {false, true}) {
    for (const std::vector<Shared>& heuristic : by_mode) {
      for (const Shared& configuration : heuristic) {
        if (found.size() == most) return found;
        auto p = plan(configuration, parts, c, may_compile, name);
        // A heuristic may give one configuration twice.
        const auto is_same = [&](const auto& other) { return other->name() == p->name(); };
        if (p && std::ranges::none_of(found, is_same)) found.push_back(std::move(p));
      }
      if (!found.empty()) return found;
    }
  }
  return found;
}

}  // namespace preheat::cuda
