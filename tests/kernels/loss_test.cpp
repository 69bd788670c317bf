// Loss, hits and the gradient of the logits against loops in double.
#include <limits>

#include "kernels/device_test.h"

namespace preheat::kernels {
namespace {

constexpr double u = 0x1p-24;  // of fp32 arithmetic

// The error of the loss of one example with K classes whose logits are at most s below the largest.
// Cross entropy: each e^(z - largest) is off by 2 units and s u (its argument is rounded) and their
// sum by K more; these errors are relative, and so absolute in the logarithm, which rounds once
// more. The linear part, at most s, is off by K + 4 roundings. Squared error: each z - onehot
// rounds once.
double loss_error(bool squared, double loss, std::int32_t classes, double spread) {
  if (squared) return 4 * u * loss;
  return u * (classes + 8) * (1 + spread) + u * spread + 2 * u * std::abs(loss);
}

// The error of its gradient before it is stored: the softmax as above with a division, the target
// and the scale (which includes 1 / batch) with 4 roundings each. Subnormal numbers have fewer
// bits.
double gradient_error(double softmax, double target, double scale, std::int32_t classes,
                      double spread) {
  return u * scale * (softmax * (classes + 12 + spread) + 6 * std::abs(target)) + 0x1p-126;
}

struct Expected {
  double sum = 0;
  double sum_error = 0;
  std::int64_t correct = 0;
  std::int64_t examples = 0;
  std::vector<double> d_logits;
  std::vector<double> d_error;
};

Expected expected_of(const LossOptions& options, std::int32_t classes,
                     const std::vector<float>& logits, const std::vector<std::int32_t>& labels,
                     double loss_scale) {
  Expected e;
  const double scale = loss_scale / static_cast<double>(labels.size());
  for (std::size_t n = 0; n < labels.size(); ++n) {
    const float* z = &logits[n * classes];
    if (labels[n] < 0) {
      e.d_logits.insert(e.d_logits.end(), classes, 0.0);
      e.d_error.insert(e.d_error.end(), classes, 0.0);
      continue;
    }
    bool ordered = true;
    double largest = -std::numeric_limits<double>::infinity();
    double smallest = -largest;
    std::int32_t first = 0;
    for (std::int32_t k = 0; k < classes; ++k) {
      ordered = ordered && !std::isnan(z[k]);
      if (double{z[k]} > largest) {
        largest = z[k];
        first = k;
      }
      smallest = std::min(smallest, double{z[k]});
    }
    ++e.examples;
    e.correct += ordered && first == labels[n] ? 1 : 0;
    if (!ordered) largest = std::nan("");
    double sum = 0;
    double linear = 0;
    double squares = 0;
    const double share = options.label_smoothing / classes;
    for (std::int32_t k = 0; k < classes; ++k) {
      const double one_hot = k == labels[n] ? 1 : 0;
      const double q = share + one_hot * (1 - options.label_smoothing);
      sum += std::exp(z[k] - largest);
      if (q != 0) linear += q * (z[k] - largest);
      squares += 0.5 * (z[k] - one_hot) * (z[k] - one_hot);
    }
    const double loss = options.squared_error ? squares
                        : ordered             ? std::log(sum) - linear
                                              : std::nan("");
    e.sum += loss;
    e.sum_error += loss_error(options.squared_error, loss, classes, largest - smallest);
    for (std::int32_t k = 0; k < classes; ++k) {
      const double one_hot = k == labels[n] ? 1 : 0;
      const double q = share + one_hot * (1 - options.label_smoothing);
      const double softmax = std::exp(z[k] - largest) / sum;
      if (options.squared_error) {
        e.d_logits.push_back(scale * (z[k] - one_hot));
        e.d_error.push_back(6 * u * scale * (std::abs(z[k]) + one_hot));
      } else {
        e.d_logits.push_back(scale * (softmax - q));
        e.d_error.push_back(gradient_error(softmax, q, scale, classes, largest - smallest));
      }
    }
  }
  return e;
}

// One launch with its inputs and outputs.
class Launch {
 public:
  Launch(const LossOptions& options, std::int32_t classes, Element logits_element,
         const std::vector<float>& logits, const std::vector<std::int32_t>& labels,
         const StepState* state, Element element, bool with_gradient = true,
         const BatchLoss* added_to = nullptr)
      : d_logits(element, logits.size()), result_(added_to ? *added_to : poison()) {
    const auto batch = static_cast<std::int64_t>(labels.size());
    const DeviceElements device_logits(logits_element, logits);
    const Device<std::int32_t> device_labels(labels);
    const Device<BatchLoss> partials(static_cast<std::size_t>(loss_partials(batch)));
    const Device<unsigned> counter(0u);
    const Device<StepState> device_state(state ? *state : StepState{});
    const Logits of{logits_element, device_logits.data(), batch, classes, device_labels.data()};
    const LossScratch scratch{partials.data(), counter.data()};
    check(softmax_xent(options, of, state ? device_state.data() : nullptr, element,
                       with_gradient ? d_logits.data() : nullptr, added_to != nullptr,
                       result_.data(), scratch, nullptr));
    EXPECT_EQ(counter.value(), 0u);
    loss = result_.value();
  }
  BatchLoss loss;
  DeviceElements d_logits;

 private:
  static BatchLoss poison() { return {std::nan(""), -77, -77}; }
  Device<BatchLoss> result_;
};

class KernelsLoss : public KernelTest {
 protected:
  std::vector<std::int32_t> random_labels(std::int64_t batch, std::int32_t classes,
                                          bool some_none) {
    std::vector<std::int32_t> labels(batch);
    for (std::int32_t& label : labels) {
      label = static_cast<std::int32_t>(random_() % static_cast<unsigned>(classes));
      if (some_none && random_() % 4 == 0) label = -1;
    }
    return labels;
  }

  void expect_agrees(const LossOptions& options, std::int32_t classes, Element logits_element,
                     Element element, const std::vector<std::int32_t>& labels,
                     const std::vector<float>& logits, float loss_scale) {
    StepState state;
    state.loss_scale = loss_scale;
    const Launch launch(options, classes, logits_element, logits, labels, &state, element);
    const Expected e = expected_of(options, classes, logits, labels, loss_scale);
    EXPECT_NEAR(launch.loss.sum, e.sum, e.sum_error);
    EXPECT_EQ(launch.loss.correct, e.correct);
    EXPECT_EQ(launch.loss.examples, e.examples);
    expect_close(
        launch.d_logits.values(), e.d_logits,
        [&](std::size_t i) {
          return e.d_error[i] + storage_error(element, std::abs(e.d_logits[i]) + e.d_error[i]);
        },
        "d_logits");
  }
};

TEST_F(KernelsLoss, AgreesWithTheFormulas) {
  const LossOptions all_options[] = {{false, 0}, {false, 0.1}, {true, 0}};
  for (const LossOptions& options : all_options) {
    for (const Element logits_element : all_elements) {
      for (const Element element : all_elements) {
        for (const std::int64_t batch : {1, 7, 128, 129, 1000}) {
          for (const std::int32_t classes : {1, 2, 10, 100}) {
            for (const bool some_none : {false, true}) {
              SCOPED_TRACE((options.squared_error ? "squared error" : "cross entropy") +
                           std::string(options.label_smoothing > 0 ? ", smoothed, " : ", ") +
                           name_of(logits_element) + " to " + name_of(element) + ", batch " +
                           std::to_string(batch) + ", classes " + std::to_string(classes));
              const std::vector<float> logits =
                  random_values(random_, logits_element, batch * classes, 3);
              expect_agrees(options, classes, logits_element, element,
                            random_labels(batch, classes, some_none), logits, some_none ? 1024 : 1);
            }
          }
        }
      }
    }
  }
}

TEST_F(KernelsLoss, LargeLogitsDoNotOverflow) {
  const std::vector<std::int32_t> labels = random_labels(50, 10, false);
  const std::vector<float> logits = random_values(random_, Element::f32, 500, 300, 1000);
  expect_agrees({}, 10, Element::f32, Element::f32, labels, logits, 1);
}

TEST_F(KernelsLoss, TheFirstOfTheLargestCounts) {
  // Class 1 and class 2 are both the largest.
  const std::vector<float> logits = {0, 5, 5, 1};
  for (std::int32_t label = 0; label < 4; ++label) {
    const Launch launch({}, 4, Element::bf16, logits, {label}, nullptr, Element::bf16);
    EXPECT_EQ(launch.loss.correct, label == 1 ? 1 : 0) << label;
  }
}

TEST_F(KernelsLoss, WithoutAStateTheScaleIsOne) {
  const std::vector<std::int32_t> labels = random_labels(20, 10, false);
  const std::vector<float> logits = random_values(random_, Element::f32, 200, 2);
  StepState state;
  state.loss_scale = 1;
  const Launch with({}, 10, Element::f32, logits, labels, &state, Element::f32);
  const Launch without({}, 10, Element::f32, logits, labels, nullptr, Element::f32);
  EXPECT_TRUE(same_bits(with.d_logits.values(), without.d_logits.values()));
}

TEST_F(KernelsLoss, AddsUpAndNeedsNoGradient) {
  const std::vector<std::int32_t> labels = random_labels(300, 10, true);
  const std::vector<float> logits = random_values(random_, Element::f32, 3000, 2);
  const BatchLoss before{12.5, 1000, 2000};
  const Launch alone({}, 10, Element::f32, logits, labels, nullptr, Element::f32);
  for (const bool with_gradient : {false, true}) {
    const Launch added({}, 10, Element::f32, logits, labels, nullptr, Element::f32, with_gradient,
                       &before);
    EXPECT_NEAR(added.loss.sum, 12.5 + alone.loss.sum, 1e-12 * added.loss.sum);  // sums of doubles
    EXPECT_EQ(added.loss.correct, 1000 + alone.loss.correct);
    EXPECT_EQ(added.loss.examples, 2000 + alone.loss.examples);
    if (with_gradient) {
      EXPECT_TRUE(same_bits(added.d_logits.values(), alone.d_logits.values()));
    } else {
      for (const float d : added.d_logits.values()) EXPECT_TRUE(std::isnan(d));  // not written
    }
  }
}

TEST_F(KernelsLoss, WithoutLabelsThereIsNothing) {
  const std::vector<float> logits(30, std::nanf(""));
  const Launch launch({}, 10, Element::f16, logits, {-1, -1, -1}, nullptr, Element::f16);
  EXPECT_EQ(launch.loss.sum, 0);
  EXPECT_EQ(launch.loss.correct, 0);
  EXPECT_EQ(launch.loss.examples, 0);
  for (const float d : launch.d_logits.values()) EXPECT_EQ(d, 0);
}

TEST_F(KernelsLoss, LogitsThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Element element : all_elements) {
    for (const bool squared : {false, true}) {
      for (const double smoothing : {0.0, 0.1}) {
        const LossOptions options{squared, squared ? 0 : smoothing};
        for (const std::size_t bad : {0, 1, 4}) {  // the label is 1
          std::vector<float> logits = random_values(random_, element, 3 * 5);
          logits[5 + bad] = std::nanf("");
          const std::vector<std::int32_t> labels = {0, 1, 2};
          const Launch nan(options, 5, element, logits, labels, nullptr, element);
          EXPECT_TRUE(std::isnan(nan.loss.sum));
          EXPECT_EQ(nan.loss.examples, 3);
          const Expected e = expected_of(options, 5, logits, labels, 1);
          EXPECT_EQ(nan.loss.correct, e.correct);
          const std::vector<float> d = nan.d_logits.values();
          for (std::size_t i = 0; i < d.size(); ++i) {
            // The other examples keep their gradients. Of this one all of it is lost or, with the
            // squared error, only that of the logit.
            const bool lost = i / 5 == 1 && (!squared || i == 5 + bad);
            EXPECT_EQ(std::isnan(d[i]), lost) << i;
          }

          logits[5 + bad] = infinity;
          const Launch inf(options, 5, element, logits, labels, nullptr, element);
          EXPECT_FALSE(std::isfinite(inf.loss.sum));

          // A logit of -infinity adds nothing to the loss if its target is 0.
          logits[5 + bad] = -infinity;
          const Launch minus(options, 5, element, logits, labels, nullptr, element);
          if (squared || bad == 1 || smoothing > 0) {
            EXPECT_EQ(minus.loss.sum, std::numeric_limits<double>::infinity());
          } else {
            const double finite_sum = expected_of(options, 5, logits, labels, 1).sum;
            EXPECT_NEAR(minus.loss.sum, finite_sum, 1e-5 * (1 + finite_sum));
          }
        }
      }
    }
  }
}

TEST_F(KernelsLoss, ANaNIsNeverRight) {
  // Also at the label itself, and as the first logit, which the others are compared with.
  for (const bool squared : {false, true}) {
    for (std::int32_t label = 0; label < 4; ++label) {
      for (std::size_t bad = 0; bad < 4; ++bad) {
        std::vector<float> logits(4, 0.0f);
        logits[label] = 5;
        logits[bad] = std::nanf("");
        const Launch launch({squared, 0}, 4, Element::f32, logits, {label}, nullptr, Element::f32);
        EXPECT_EQ(launch.loss.correct, 0) << "label " << label << ", NaN at " << bad;
        EXPECT_TRUE(std::isnan(launch.loss.sum));
      }
    }
  }
}

TEST_F(KernelsLoss, TwoLaunchesGiveTheSameBits) {
  const std::vector<std::int32_t> labels = random_labels(1000, 10, true);
  const std::vector<float> logits = random_values(random_, Element::bf16, 10000, 2);
  const Launch one({}, 10, Element::bf16, logits, labels, nullptr, Element::bf16);
  const Launch two({}, 10, Element::bf16, logits, labels, nullptr, Element::bf16);
  EXPECT_EQ(one.loss.sum, two.loss.sum);
  EXPECT_EQ(one.loss.correct, two.loss.correct);
  EXPECT_TRUE(same_bits(one.d_logits.values(), two.d_logits.values()));
}

TEST_F(KernelsLoss, RefusesWhatIsEmpty) {
  struct Size {
    std::int64_t batch;
    std::int32_t classes;
  };
  for (const Size& size : {Size{0, 10}, Size{10, 0}}) {
    Logits none;
    none.batch = size.batch;
    none.classes = size.classes;
    EXPECT_EQ(softmax_xent({}, none, nullptr, Element::f32, nullptr, false, nullptr, {}, nullptr),
              cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace preheat::kernels
