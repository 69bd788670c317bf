#include "backend/cuda/convolution.h"

#include <fmt/format.h>

#include <functional>

namespace preheat::cuda {
namespace {

// Deterministic, as all of our kernels are.
class KernelPlan : public ConvolutionPlan {
 public:
  using Launch = std::function<cudaError_t(const ConvolutionArrays& arrays, cudaStream_t stream)>;
  KernelPlan(std::string name, std::size_t workspace_bytes, bool gives_moments, Launch launch)
      : ConvolutionPlan(std::move(name), workspace_bytes, gives_moments),
        launch_(std::move(launch)) {}
  void run(cudnnHandle_t, cudaStream_t stream, const ConvolutionArrays& arrays) const override {
    PREHEAT_CHECK(launch_(arrays, stream));
  }

 private:
  Launch launch_;
};

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
  using Arrays = ConvolutionArrays;
  const auto add = [&](const char* name, std::size_t workspace_bytes, KernelPlan::Launch launch,
                       bool gives_moments = false) {
    plans.push_back(std::make_shared<const KernelPlan>(name, workspace_bytes, gives_moments,
                                                       std::move(launch)));
  };
  const kernels::Element element = element_of(c.precision);
  const kernels::FewChannels few{.x = c.x,
                                 .y = c.y,
                                 .channels = c.x.channels - c.zero_channels,
                                 .kernel = static_cast<std::int32_t>(c.kernel),
                                 .stride = static_cast<std::int32_t>(c.stride),
                                 .padding = static_cast<std::int32_t>(c.padding)};
  if (kernels::few_channels_supports(few)) {
    if (c.pass == Pass::forward) {
      add(
          "few channels", 0,
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::few_channels_forward(element, few, a.x, a.w, a.y, a.moments, stream);
          },
          kernels::few_channels_give_moments(element, few));
    } else if (c.pass == Pass::weight_gradient) {
      add("few channels", kernels::few_channels_workspace_bytes(few),
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::few_channels_weight_gradient(element, few, a.x, a.y, a.w, a.workspace,
                                                         stream);
          });
    }
  }
  if (c.kernel != 3 || c.stride != 1 || c.padding != 1) return plans;
  const kernels::Images images = c.x;
  const std::int32_t out = c.y.channels;
  const bool forward = c.pass == Pass::forward;
  if (c.pass != Pass::weight_gradient &&
      kernels::tensor_core_convolution_supports(element, images, out)) {
    add(
        "tensor cores", 0,
        [=](const Arrays& a, cudaStream_t stream) {
          return forward ? kernels::tensor_core_convolution(element, images, out, a.x, a.w, a.y,
                                                            a.moments, stream)
                         : kernels::tensor_core_data_gradient(element, images, out, a.y, a.w, a.x,
                                                              stream);
        },
        forward);
  }
  if (c.pass == Pass::weight_gradient && kernels::weight_gradient_supports(element, images, out)) {
    add("tensor cores", kernels::weight_gradient_workspace_bytes(images, out),
        [=](const Arrays& a, cudaStream_t stream) {
          return kernels::weight_gradient(element, images, out, a.x, a.y, a.w, a.workspace, stream);
        });
  }
  if (element != kernels::Element::f32) return plans;
  const auto floats = [](void* data) { return static_cast<float*>(data); };
  if (c.pass == Pass::weight_gradient) {
    if (kernels::fp32_weight_gradient_supports(images, out)) {
      add("fp32", kernels::fp32_weight_gradient_workspace_bytes(images, out),
          [=](const Arrays& a, cudaStream_t stream) {
            return kernels::fp32_weight_gradient(images, out, floats(a.x), floats(a.y), floats(a.w),
                                                 a.workspace, stream);
          });
    }
  } else if (kernels::fp32_convolution_supports(images, out)) {
    add("fp32", 0, [=](const Arrays& a, cudaStream_t stream) {
      return forward ? kernels::fp32_convolution(images, out, floats(a.x), floats(a.w), floats(a.y),
                                                 stream)
                     : kernels::fp32_data_gradient(images, out, floats(a.y), floats(a.w),
                                                   floats(a.x), stream);
    });
  }
  return plans;
}

}  // namespace preheat::cuda
