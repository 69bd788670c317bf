#include "backend/cuda/convolution.h"

#include <fmt/format.h>

#include <functional>

namespace preheat::cuda {
namespace {

// Deterministic, as all of our kernels are.
class KernelPlan : public ConvolutionPlan {
 public:
  using Launch = std::function<cudaError_t(const ConvolutionArrays& arrays, cudaStream_t stream)>;
  KernelPlan(const char* name, Launch launch, std::size_t workspace_bytes, bool gives_moments)
      : ConvolutionPlan(name, workspace_bytes, gives_moments), launch_(std::move(launch)) {}
  void run(cudnnHandle_t, cudaStream_t stream, const ConvolutionArrays& arrays) const override {
    PREHEAT_CHECK(launch_(arrays, stream));
  }

 private:
  Launch launch_;
};

using Plan = std::shared_ptr<const ConvolutionPlan>;
using Arrays = ConvolutionArrays;

Plan plan_of(const char* name, KernelPlan::Launch launch, std::size_t workspace_bytes = 0,
             bool gives_moments = false) {
  return std::make_shared<const KernelPlan>(name, std::move(launch), workspace_bytes,
                                            gives_moments);
}

Plan few_channel_plan(const Convolution& c) {
  constexpr const char* name = "few channels";
  const kernels::Element element = element_of(c.precision);
  const kernels::FewChannels few{.x = c.x,
                                 .y = c.y,
                                 .channels = c.x.channels - c.zero_channels,
                                 .kernel = static_cast<std::int32_t>(c.kernel),
                                 .stride = static_cast<std::int32_t>(c.stride),
                                 .padding = static_cast<std::int32_t>(c.padding)};
  if (!kernels::few_channels_supports(few)) return nullptr;
  switch (c.pass) {
    case Pass::forward:
      return plan_of(
          name,
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::few_channels_forward(element, few, a.x, a.w, a.y, a.moments, stream);
          },
          0, kernels::few_channels_give_moments(element, few));
    case Pass::weight_gradient:
      return plan_of(
          name,
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::few_channels_weight_gradient(element, few, a.x, a.y, a.w, a.workspace,
                                                         stream);
          },
          kernels::few_channels_workspace_bytes(few));
    case Pass::data_gradient:
      break;
  }
  return nullptr;
}

bool is_3x3(const Convolution& c) {
  return c.kernel == 3 && c.stride == 1 && c.padding == 1;
}

Plan tensor_core_plan(const Convolution& c) {
  constexpr const char* name = "tensor cores";
  const kernels::Element element = element_of(c.precision);
  const kernels::Images x = c.x;
  const std::int32_t out = c.y.channels;
  if (!is_3x3(c) || !kernels::tensor_cores_support(element, x, out)) return nullptr;
  switch (c.pass) {
    case Pass::forward:
      return plan_of(
          name,
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::tensor_core_convolution(element, x, out, a.x, a.w, a.y, a.moments,
                                                    stream);
          },
          0, true);
    case Pass::data_gradient:
      return plan_of(name, [=](const Arrays& a, cudaStream_t stream) {
        return kernels::tensor_core_data_gradient(element, x, out, a.y, a.w, a.x, stream);
      });
    case Pass::weight_gradient:
      break;
  }
  return plan_of(
      name,
      [=](const Arrays& a, cudaStream_t stream) {
        return kernels::tensor_core_weight_gradient(element, x, out, a.x, a.y, a.w, a.workspace,
                                                    stream);
      },
      kernels::tensor_core_weight_gradient_workspace_bytes(x, out));
}

float* floats(void* data) {
  return static_cast<float*>(data);
}

Plan fp32_plan(const Convolution& c) {
  constexpr const char* name = "fp32";
  const kernels::Images x = c.x;
  const std::int32_t out = c.y.channels;
  if (!is_3x3(c) || element_of(c.precision) != kernels::Element::f32) return nullptr;
  if (c.pass == Pass::weight_gradient) {
    if (!kernels::fp32_weight_gradient_supports(x, out)) return nullptr;
    return plan_of(
        name,
        [=](const Arrays& a, cudaStream_t stream) {
          return kernels::fp32_weight_gradient(x, out, floats(a.x), floats(a.y), floats(a.w),
                                               a.workspace, stream);
        },
        kernels::fp32_weight_gradient_workspace_bytes(x, out));
  }
  if (!kernels::fp32_convolution_supports(x, out)) return nullptr;
  if (c.pass == Pass::forward) {
    return plan_of(name, [=](const Arrays& a, cudaStream_t stream) {
      return kernels::fp32_convolution(x, out, floats(a.x), floats(a.w), floats(a.y), stream);
    });
  }
  return plan_of(name, [=](const Arrays& a, cudaStream_t stream) {
    return kernels::fp32_data_gradient(x, out, floats(a.y), floats(a.w), floats(a.x), stream);
  });
}

}  // namespace

std::string to_string(const Convolution& c) {
  const auto text = [](const kernels::Images& i, std::int32_t zero_channels) {
    return fmt::format("{}x{}x{}x{}{}", i.batch, i.height, i.width, i.channels - zero_channels,
                       zero_channels > 0 ? fmt::format("+{}", zero_channels) : "");
  };
  const char* pass = c.pass == Pass::forward         ? "forward"
                     : c.pass == Pass::data_gradient ? "data gradient"
                                                     : "weight gradient";
  return fmt::format("{} {} {}x{}/{}+{} -> {} {}{}{}", pass, text(c.x, c.zero_channels), c.kernel,
                     c.kernel, c.stride, c.padding, text(c.y, 0), preheat::to_string(c.precision),
                     c.deterministic ? "" : " any order", c.moments ? " with moments" : "");
}

kernels::Element element_of(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return kernels::Element::bf16;
    case Precision::fp16:
      return kernels::Element::f16;
    case Precision::fp32:
    case Precision::tf32:
      break;
  }
  return kernels::Element::f32;
}

std::vector<std::shared_ptr<const ConvolutionPlan>> kernel_plans(const Convolution& c) {
  std::vector<std::shared_ptr<const ConvolutionPlan>> plans;
  for (const auto& plan : {few_channel_plan(c), tensor_core_plan(c), fp32_plan(c)}) {
    if (plan) plans.push_back(plan);
  }
  return plans;
}

}  // namespace preheat::cuda
