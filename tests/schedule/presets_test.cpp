// The schedules of other systems: the presets of configs/schedules, adapted to the case that was
// recorded, against the rates that the systems returned, and the table of docs/schedules.md against
// the program.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "schedule/schedule.h"
#include "settings.h"
#include "temporary_folder.h"
#include "train/trainer.h"

namespace preheat {
namespace {

namespace fs = std::filesystem;

const fs::path root = PREHEAT_SOURCE_DIR;

// The recorded case: base rate 0.1, 5 updates of warmup, 20 updates in all, 0.001 at the end, and
// epochs of 5 updates if the system counts epochs.
constexpr std::int64_t epoch = 5;

Document load_preset(const std::string& name) {
  return load_document(root / "configs/schedules" / (name + ".yaml"));
}

Schedule preset(const std::string& name, const std::vector<std::string>& settings) {
  const Document document = name.empty() ? parse_document("", "none") : load_preset(name);
  const Document sized = with_settings(document, {"train.length=20 steps", "schedule.base_lr=0.1"});
  const RunConfig config = read_config(with_settings(sized, settings));
  return resolve_schedule(config, run_length(config, epoch));
}

// Settings that adapt one key to the case.
const std::string warmup = "schedule.warmup.length=5 steps";
const std::string end = "schedule.decay.final_lr=0.001";
const std::string end_zero = "schedule.decay.final_lr=0";
const std::string start_at_end = "schedule.warmup.start_lr=0.001";
const std::string milestones = "schedule.decay.at=[10 steps, 15 steps]";
const std::string unscaled = "schedule.scale=null";
const std::string by_step = "schedule.decay.every=step";
const std::string warmup_by_step = "schedule.warmup.every=step";
const std::string after =
    "schedule.warmup.overlap=false";  // the decay counts from the warmup's end

struct Row {
  std::string recorded;  // in recorded_rates.json
  std::string preset;    // of configs/schedules; "" if settings alone are enough
  std::vector<std::string> settings;
};

std::string phases(const std::string& list) {
  return "schedule.phases=[" + list + "]";
}

std::vector<Row> rows() {
  const std::string no_warmup = "schedule.warmup.length=0 steps";
  const auto wsd = [&](const std::string& ramp, const std::string& decay) {
    const std::map<std::string, std::string> shapes = {
        {"linear", "linear"}, {"cosine", "cosine"}, {"1-sqrt", "one_minus_sqrt"}};
    return Row{fmt::format("hf/wsd_{}_warmup_{}", decay, ramp),
               "",
               {phases(fmt::format("{{shape: {}, from: 0.001, length: 5 steps, endpoints: start}}, "
                                   "{{shape: constant, length: 10 steps}}, "
                                   "{{shape: {}, to: 0.001, endpoints: start}}",
                                   shapes.at(ramp), shapes.at(decay)))}};
  };
  const auto plain_wsd = [&](const std::string& recorded, const std::string& shape) {
    return Row{recorded,
               "transformers-warmup-stable-decay",
               {warmup, "schedule.warmup.start_factor=0.01", "schedule.hold=10 steps",
                "schedule.decay.shape=" + shape, "schedule.decay.final_factor=0.01"}};
  };
  const std::string thousandth = "schedule.warmup.start_factor=0.001";
  const std::string tenth = "schedule.warmup.start_factor=0.1";
  const std::string constant = "schedule.warmup.shape=constant";
  const std::string no_ends = "schedule.warmup.endpoints=end";
  const std::string to_base = "schedule.warmup.toward=base";
  const std::string overlap = "schedule.warmup.overlap=true";
  return {
      {"hf/constant", "transformers-constant", {}},
      {"hf/constant_with_warmup", "transformers-constant-with-warmup", {warmup}},
      {"hf/linear", "transformers-linear", {warmup}},
      {"hf/cosine", "transformers-cosine", {warmup}},
      {"hf/cosine_restarts2", "transformers-cosine-with-restarts", {warmup}},
      {"hf/cosine_restarts3",
       "transformers-cosine-with-restarts",
       {warmup, "schedule.decay.cycles=3"}},
      {"hf/cosine_restarts4",
       "transformers-cosine-with-restarts",
       {warmup, "schedule.decay.cycles=4"}},
      {"hf/polynomial", "transformers-polynomial", {warmup}},
      {"hf/polynomial_p2", "transformers-polynomial", {warmup, "schedule.decay.power=2", end}},
      {"hf/inverse_sqrt", "transformers-inverse-sqrt", {warmup}},
      {"hf/cosine_min_lr",
       "transformers-cosine-with-min-lr",
       {warmup, "schedule.decay.final_factor=0.01"}},
      {"hf/cosine_warmup_min_lr",
       "transformers-cosine-warmup-with-min-lr",
       {warmup, "schedule.decay.final_factor=0.01"}},
      {"hf/cosine_warmup_min_lr_start",
       "transformers-cosine-warmup-with-min-lr",
       {warmup, tenth, "schedule.warmup.endpoints=both", "schedule.decay.final_factor=0.01"}},
      plain_wsd("hf/wsd_linear", "linear"),
      plain_wsd("hf/wsd_cosine", "cosine"),
      plain_wsd("hf/wsd_1-sqrt", "one_minus_sqrt"),
      wsd("cosine", "linear"),
      wsd("cosine", "cosine"),
      wsd("cosine", "1-sqrt"),

      {"timm/cosine_noprefix", "timm-cosine", {unscaled, warmup, warmup_by_step, by_step, end}},
      {"timm/cosine_prefix",
       "timm-cosine-prefix",
       {unscaled, warmup, warmup_by_step, by_step, end}},
      {"timm/cosine_epochs", "timm-cosine-prefix", {unscaled, warmup, end}},
      {"timm/cosine_epochs_t4",
       "timm-cosine-prefix",
       {unscaled, warmup, end, "schedule.decay.period=4 epochs"}},
      {"timm/cosine_cycles",
       "timm-cosine-restarts",
       {warmup, "schedule.decay.period=3 steps", end}},
      {"timm/tanh_noprefix", "timm-tanh", {warmup, end}},
      {"timm/tanh_prefix", "timm-tanh", {warmup, to_base, after, end}},
      {"timm/poly_p2_prefix",
       "timm-poly",
       {unscaled, warmup, warmup_by_step, by_step, after, "schedule.decay.power=2", end}},
      {"timm/step_prefix",
       "timm-step",
       {unscaled, warmup, warmup_by_step, after, "schedule.decay.over=5 steps"}},
      {"timm/multistep_prefix",
       "timm-multistep",
       {unscaled, warmup, warmup_by_step, after, "schedule.decay.at=[14 steps, 19 steps]"}},
      {"timm/multistep_noprefix",
       "timm-multistep",
       {unscaled, warmup, warmup_by_step, "schedule.decay.at=[9 steps, 14 steps]"}},

      {"optax/warmup_cosine", "optax-warmup-cosine", {warmup, end}},
      {"optax/warmup_cosine_init", "optax-warmup-cosine", {warmup, start_at_end, end}},
      {"optax/warmup_exponential",
       "optax-warmup-exponential",
       {warmup, "schedule.decay.over=5 steps"}},
      {"optax/warmup_constant", "optax-warmup-constant", {warmup}},
      {"optax/linear_onecycle", "optax-linear-onecycle", {}},
      {"optax/cosine_onecycle", "optax-cosine-onecycle", {}},
      {"optax/join_linear_poly3",
       "",
       {warmup, "schedule.warmup.endpoints=start",
        "schedule.decay={shape: power, power: 3, final_lr: 0.001, endpoints: start}"}},
      {"optax/sgdr",
       "optax-sgdr",
       {"schedule.phases.0.length=2 steps", "schedule.phases.1.length=6 steps",
        "schedule.phases.2.length=3 steps"}},
      {"optax/exponential",
       "optax-exponential",
       {"schedule.hold=5 steps", "schedule.decay.over=4 steps", "schedule.decay.staircase=false"}},
      {"optax/exponential_staircase",
       "optax-exponential",
       {"schedule.hold=5 steps", "schedule.decay.over=4 steps"}},
      {"optax/piecewise_constant",
       "",
       {no_warmup, "schedule.decay={shape: multistep, at: [10 steps, 15 steps]}"}},
      {"optax/polynomial", "optax-polynomial", {}},

      {"keras/cosine_warmup", "keras-cosine", {warmup}},
      {"keras/cosine_restarts_alpha0", "keras-cosine-restarts", {"schedule.decay.period=3 steps"}},
      {"keras/exponential", "keras-exponential", {"schedule.decay.staircase=false"}},
      {"keras/exponential_staircase", "keras-exponential", {}},
      {"keras/inverse_time", "keras-inverse-time", {"schedule.decay.staircase=false"}},
      {"keras/inverse_time_staircase", "keras-inverse-time", {}},
      {"keras/polynomial_p2", "keras-polynomial", {}},
      {"keras/piecewise_constant",
       "keras-piecewise-constant",
       {"schedule.decay.at=[11 steps, 16 steps]"}},

      {"detectron2/cosine", "detectron2-cosine", {warmup}},
      {"detectron2/cosine_end", "detectron2-cosine", {warmup, end}},
      {"detectron2/cosine_constant",
       "detectron2-cosine",
       {warmup, constant, no_ends, to_base, tenth, end}},
      {"detectron2/cosine_rescale", "detectron2-cosine-rescale", {warmup}},
      {"detectron2/cosine_end_rescale", "detectron2-cosine-rescale", {warmup, end}},
      {"detectron2/cosine_constant_rescale",
       "detectron2-cosine-rescale",
       {warmup, constant, no_ends, tenth, end}},
      {"detectron2/multistep", "detectron2-multistep", {warmup, milestones}},
      {"detectron2/WarmupMultiStepLR", "detectron2-multistep", {warmup, milestones}},
      {"detectron2/multistep_constant",
       "detectron2-multistep",
       {warmup, constant, no_ends, tenth, milestones}},
      {"detectron2/multistep_rescale",
       "detectron2-multistep",
       {warmup, "schedule.decay.at=[13 steps, 17 steps]"}},
      {"detectron2/multistep_constant_rescale",
       "detectron2-multistep",
       {warmup, constant, no_ends, tenth, "schedule.decay.at=[13 steps, 17 steps]"}},
      {"detectron2/WarmupCosineLR",
       "detectron2-cosine",
       {warmup, "schedule.warmup.toward=multiply"}},

      {"mmengine/linear_then_cosine", "mmengine-linear-cosine", {}},
      {"mmengine/linear_multistep", "mmengine-linear-multistep", {warmup, milestones}},
      {"mmengine/linear_then_poly", "mmengine-poly", {end}},
      {"mmengine/poly_p2", "mmengine-poly", {no_warmup, "schedule.decay.power=2", end}},
      {"mmengine/cosine_restart",
       "",
       {phases("{shape: cosine, from: base, to: 0.001, length: 6 steps, endpoints: start}, "
               "{shape: cosine, from: 0.5x, to: 0.001, endpoints: start}")}},
      {"mmengine/constant",
       "",
       {phases("{shape: constant, from: 0.1x, length: 4 steps}, {shape: constant, from: base}")}},

      {"torch/linear_then_cosine", "torch-linear-cosine", {warmup, end}},
      {"torch/constant_then_multistep", "torch-constant-multistep", {warmup, milestones}},
      {"torch/chained_constant_exponential",
       "torch-constant-exponential",
       {warmup, "schedule.decay.over=1 step"}},
      {"torch/onecycle", "torch-one-cycle", {"schedule.phases.0.length=4 steps"}},
      {"torch/onecycle_linear",
       "torch-one-cycle",
       {"schedule.phases.0.length=5 steps", "schedule.phases.0.shape=linear",
        "schedule.phases.1.shape=linear"}},
      {"torch/onecycle_three_phase",
       "",
       {phases("{shape: cosine, from: 0.04x, length: 4 steps, endpoints: start}, "
               "{shape: cosine, to: 0.04x, length: 4 steps, endpoints: start}, "
               "{shape: cosine, to: 4e-7, endpoints: both}")}},
      {"torch/cosine_warm_restarts",
       "torch-cosine-warm-restarts",
       {"schedule.decay.period=2 steps", end}},
      {"torch/cosine_warm_restarts_30",
       "torch-cosine-warm-restarts",
       {"train.length=30 steps", "schedule.decay.period=2 steps", end}},
      {"torch/polynomial", "torch-polynomial", {}},
      {"torch/polynomial_p1",
       "torch-polynomial",
       {"schedule.decay.power=1", "schedule.decay.length=16 steps",
        "schedule.decay.endpoints=both"}},
      {"torch/exponential", "torch-exponential", {"schedule.decay.gamma=0.97"}},
      {"torch/step", "torch-step", {"schedule.decay.over=7 steps", "schedule.decay.gamma=0.5"}},
      {"torch/cyclic_triangular",
       "",
       {phases("{shape: linear, from: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, endpoints: start}")}},
      {"torch/cyclic_triangular2",
       "",
       {phases("{shape: linear, from: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.0505, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.001, length: 4 steps, endpoints: start}, "
               "{shape: linear, to: 0.02575, endpoints: start}")}},

      {"pytorch_warmup/linear_cosine", "pytorch-warmup-linear", {warmup}},
      {"pytorch_warmup/untuned_linear_cosine",
       "pytorch-warmup-linear",
       {"schedule.warmup.length=8 steps"}},
      {"pytorch_warmup/linear_cosine_delayed",
       "",
       {warmup, "schedule.decay={shape: cosine, endpoints: end}"}},
      {"pytorch_warmup/exponential_cosine",
       "pytorch-warmup-exponential",
       {"schedule.warmup.timescale=5 steps"}},

      {"paddle/warmup_cosine", "paddle-cosine", {warmup, end}},
      {"paddle/noam", "paddle-noam", {warmup}},
      {"paddle/polynomial_p2", "keras-polynomial", {}},
      {"paddle/inverse_time",
       "keras-inverse-time",
       {"schedule.decay.gamma=0.1", "schedule.decay.over=1 step"}},

      {"composer/cosine_warmup",
       "composer-cosine",
       {"schedule.phases.1.length=5 steps", "schedule.phases.2.period=15 steps",
        "schedule.phases.2.to=0.001"}},
      {"katsura/cycles_mult1",
       "cosine-warmup-restarts",
       {"schedule.decay.period=5 steps", "schedule.decay.rewarmup=5 steps"}},
      {"katsura/cycles_mult2",
       "cosine-warmup-restarts",
       {"schedule.decay.period=5 steps", "schedule.decay.rewarmup=5 steps",
        "schedule.decay.multiply=2"}},
      {"ildoonet/cosine", "gradual-warmup-lr", {warmup, "schedule.decay.period=15 steps", end}},
  };
}

// Recorded schedules that preheat does not offer.
const std::map<std::string, std::string> not_offered = {
    {"hf/wsd_linear_warmup_1-sqrt", "a ramp of 1 - sqrt(1 - p)"},
    {"hf/wsd_cosine_warmup_1-sqrt", "likewise"},
    {"hf/wsd_1-sqrt_warmup_1-sqrt", "likewise"},
    {"keras/cosine_restarts", "peaks that fall towards a floor above 0, not in proportion"},
    {"composer/linear_warmup", "a line cut off one update before its end"},
    {"ildoonet/cosine_readme", "a cosine without its second value"},
};

double tolerance_of(const std::string& recorded) {
  if (recorded.starts_with("optax/")) return 2e-6;        // computed in fp32
  if (recorded.starts_with("keras/cosine")) return 1e-6;  // likewise
  return 1e-9;
}

nlohmann::ordered_json recorded_rates() {
  std::ifstream file(root / "tests/schedule/recorded_rates.json");
  return nlohmann::ordered_json::parse(file)["lr"];
}

TEST(Presets, EveryUpdateOfEveryLibrary) {
  const auto recorded = recorded_rates();
  std::set<std::string> seen;
  for (const Row& row : rows()) {
    SCOPED_TRACE(fmt::format("{}: {} {}", row.recorded, row.preset, fmt::join(row.settings, " ")));
    ASSERT_TRUE(recorded.contains(row.recorded));
    EXPECT_TRUE(seen.insert(row.recorded).second);
    const std::vector<double> rates = recorded[row.recorded];
    Schedule schedule;
    ASSERT_NO_THROW(schedule = preset(row.preset, row.settings));
    ASSERT_EQ(static_cast<std::size_t>(schedule.run.steps), rates.size());
    for (std::size_t u = 0; u < rates.size(); ++u) {
      // At the end of a cosine 1 - cos cancels: an absolute 1e-16 besides the relative tolerance.
      EXPECT_NEAR(lr_at(schedule.lr, static_cast<std::int64_t>(u)), rates[u],
                  tolerance_of(row.recorded) * rates[u] + 1e-16)
          << "update " << u;
    }
  }
  for (const auto& [name, rates] : recorded.items()) {
    EXPECT_TRUE(seen.contains(name) != not_offered.contains(name)) << name;
  }
  EXPECT_EQ(seen.size() + not_offered.size(), recorded.size());
}

// Systems whose source was read: their rates in the same case at updates 0, 1, 3, 4, 5, 6, 18, 19,
// to five digits.
TEST(Presets, SystemsReadFromTheirSource) {
  struct Source {
    std::string preset;
    std::vector<std::string> settings;
    std::array<double, 8> lr;
  };
  const std::string burn_in = "schedule.warmup.length=4 steps";
  const Source sources[] = {
      {"tensorflow-resnet",
       {unscaled, warmup, "schedule.decay.at=[1000 steps]"},
       {0, 0.02, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1}},
      {"yolov3",
       {"train.stages=[]", warmup, end},
       {0.02, 0.04, 0.08, 0.1, 0.098918, 0.095721, 0.0020817, 0.001}},
      {"darknet-steps",
       {warmup, "schedule.decay.at=[1000 steps]"},
       {0.00016, 0.00256, 0.04096, 0.1, 0.1, 0.1, 0.1, 0.1}},
      {"darknet-poly",
       {burn_in},
       {0.00016, 0.00256, 0.04096, 0.031641, 0.02401, 0.017851, 6.25e-07, 0}},
      {"intel-caffe",
       {warmup, start_at_end, "schedule.decay.power=1"},
       {0.001, 0.0208, 0.0604, 0.0802, 0.075, 0.07, 0.01, 0.005}},
      {"nvcaffe",
       {warmup, start_at_end, end, "schedule.min_lr=0.001"},
       {0.001, 0.00496, 0.03664, 0.06436, 0.056688, 0.04951, 0.00199, 0.0012475}},
      {"llm.c-cosine", {warmup, end}, {0.02, 0.04, 0.08, 0.1, 0.1, 0.098918, 0.0052795, 0.0020817}},
      {"llm.c-wsd",
       {warmup, "schedule.hold=11 steps", end},
       {0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.029996, 0.014263}},
      {"nanogpt",
       {warmup, end},
       {0.016667, 0.033333, 0.066667, 0.083333, 0.1, 0.098918, 0.0052795, 0.0020817}},
      {"gradual-warmup-lr",
       {warmup, "schedule.decay={shape: constant}"},
       {0, 0.02, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1}},
  };
  constexpr std::int64_t updates[] = {0, 1, 3, 4, 5, 6, 18, 19};
  for (const Source& source : sources) {
    const Schedule s = preset(source.preset, source.settings);
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(lr_at(s.lr, updates[i]), source.lr[i], 5e-5 * source.lr[i])
          << source.preset << ", update " << updates[i];
    }
  }
}

// A system whose loop is rewritten here from its source, with its own numbers.
struct Loop {
  std::string preset;
  std::vector<std::string> settings;
  std::function<double(std::int64_t)> rate;  // called for one update after the other
  std::int64_t gate_opens = -1;
};

constexpr std::int64_t es = 7;  // updates per epoch

std::vector<Loop> loops() {
  const double pi = std::acos(-1.0);
  return {
      {"asff",
       {},
       [=, last = 0.0](std::int64_t u) mutable {  // tmp_lr keeps its last value
         const std::int64_t e = u / es;
         if (e < 5) {
           last = 0.001 * std::pow(static_cast<double>(u) / (5.0 * es), 4);
         } else if (e > 20 && e <= 300 - 30) {
           last =
               1e-5 + (0.001 - 1e-5) * 0.5 * (1 + std::cos(pi * static_cast<double>(e - 20) / 250));
         } else if (e > 300 - 30) {
           last = 1e-5;
         }
         return last;
       }},
      {"rfbnet",
       {},
       [](std::int64_t u) {
         if (u < 5 * es) return 1e-6 + (4e-3 - 1e-6) * static_cast<double>(u) / (es * 5.0);
         return 4e-3 * std::pow(0.1, (u >= 150 * es) + (u >= 200 * es) + (u >= 250 * es));
       }},
      {"darknet-sgdr",
       {"train.length=1000 steps", "schedule.warmup.length=29 steps",
        "schedule.decay.period=60 steps"},
       [=, low = 0.0, cycle = 60.0](std::int64_t u) mutable {  // it walks through its cycles
         const auto b = static_cast<double>(u + 1);
         while (low + cycle < b) {
           low += cycle;
           cycle *= 2;
         }
         if (b < 30) return 0.001 * std::pow(b / 30, 4);
         return 1e-5 + 0.5 * (0.001 - 1e-5) * (1 + std::cos((b - low) * pi / cycle));
       }},
      {"darknet-steps",
       {"train.length=450500 steps"},
       [](std::int64_t u) {
         const std::int64_t b = u + 1;
         if (b < 1000) return 0.001 * std::pow(static_cast<double>(b) / 1000, 4);
         return 0.001 * (b >= 400000 ? 0.1 : 1) * (b >= 450000 ? 0.1 : 1);
       }},
      {"darknet-poly",
       {"train.length=8000 steps"},
       [](std::int64_t u) {
         const auto b = static_cast<double>(u + 1);
         return 0.1 * std::pow(b < 1000 ? b / 1000 : 1 - b / 8000, 4);
       }},
      {"caffe-inv",
       {},
       [](std::int64_t u) { return 0.01 * std::pow(1 + 1e-4 * static_cast<double>(u), -0.75); }},
      {"caffe-sigmoid",
       {},
       [](std::int64_t u) { return 0.01 / (1 + std::exp(0.001 * static_cast<double>(u - 5000))); }},
      {"intel-caffe",
       {},
       [](std::int64_t u) {
         const auto iter = static_cast<double>(u);
         constexpr double ramp = 5 * es;
         if (iter < ramp) return (iter * 3.2 + (ramp - iter) * 0.1) / ramp;
         return 3.2 * std::pow(1 - iter / (90 * es), 2);
       }},
      {"nvcaffe",
       {},
       [](std::int64_t u) {
         const auto iter = static_cast<double>(u);
         constexpr double ramp = 5 * es;
         if (iter < ramp) return 0.01 + (0.1 - 0.01) * std::pow(iter / ramp, 2);
         return (0.1 - 1e-5) * std::pow(1 - iter / (90 * es), 2) + 1e-5;
       }},
      {"goyal",
       {},
       [](std::int64_t u) {
         const double kn = 0.1 * 8192 / 256;
         if (u < 5 * es) return 0.1 + (kn - 0.1) * static_cast<double>(u) / (5.0 * es);
         return kn * std::pow(0.1, (u >= 30 * es) + (u >= 60 * es) + (u >= 80 * es));
       }},
      {"resnet-110",
       {},
       [](std::int64_t u) {
         return u < 400 ? 0.01 : 0.1 * std::pow(0.1, (u >= 32000) + (u >= 48000));
       },
       400},
      {"yolov3",
       {},
       [=](std::int64_t u) {
         const auto g = static_cast<double>(u + 1);
         constexpr double ramp = 2 * es;
         constexpr double all = 50 * es;
         if (g < ramp) return 1e-4 * g / ramp;
         return 1e-6 + (1e-4 - 1e-6) * 0.5 * (1 + std::cos(pi * (g - ramp) / (all - ramp)));
       }},
      {"timm-cosine",
       {"data.batch_size=512"},
       [=](std::int64_t u) {
         const auto t = static_cast<double>(u / es);
         if (t < 5) return 1e-5 + t * (0.2 - 1e-5) / 5;
         return 0.5 * 0.2 * (1 + std::cos(pi * t / 300));
       }},
      {"timm-multistep",
       {unscaled},
       [](std::int64_t u) {
         const std::int64_t t = u / es;
         if (t < 5) return 1e-5 + static_cast<double>(t) * (0.1 - 1e-5) / 5;
         return 0.1 * std::pow(0.1, (t + 1 >= 90) + (t + 1 >= 180) + (t + 1 >= 270));
       }},
      // TensorFlow's piecewise_constant keeps the old value at the boundary; boundaries and warmup
      // are epochs of 50,000 / 128 updates, truncated.
      {"tensorflow-resnet",
       {},
       [](std::int64_t g) {
         const double batches = 50000.0 / 128;
         const auto boundary = [&](int e) { return g > static_cast<std::int64_t>(batches * e); };
         const auto steps = static_cast<std::int64_t>(batches * 5);
         if (g < steps) return 0.1 * static_cast<double>(g) / static_cast<double>(steps);
         return 0.1 * std::pow(0.1, boundary(100) + boundary(150) + boundary(200));
       }},
      {"nanogpt",
       {},
       [=](std::int64_t it) {
         if (it < 2000) return 6e-4 * static_cast<double>(it + 1) / 2001;
         const double ratio = static_cast<double>(it - 2000) / (600000 - 2000);
         return 6e-5 + 0.5 * (1 + std::cos(pi * ratio)) * (6e-4 - 6e-5);
       }},
      {"llm.c-cosine",
       {"train.length=2000 steps"},
       [=](std::int64_t step) {
         if (step < 700) return 6e-4 * static_cast<double>(step + 1) / 700;
         const double ratio = static_cast<double>(step - 700) / (2000 - 700);
         return 6e-4 * 0.5 * (1 + std::cos(pi * ratio));
       }},
      {"llm.c-wsd",
       {},
       [](std::int64_t step) {
         if (step < 978) return 6e-4 * static_cast<double>(step + 1) / 978;
         const auto decay_point = static_cast<std::int64_t>(0.8 * 19560);
         if (step < decay_point) return 6e-4;
         const auto ratio =
             static_cast<double>(step - decay_point) / static_cast<double>(19560 - decay_point);
         return 6e-4 * (1 - std::sqrt(ratio));
       }},
  };
}

TEST(Presets, LoopsOfTheirSources) {
  for (const Loop& loop : loops()) {
    const RunConfig config = read_config(with_settings(load_preset(loop.preset), loop.settings));
    const Schedule s = resolve_schedule(config, run_length(config, es));
    for (std::int64_t u = 0; u < s.run.steps; ++u) {
      const double expected = loop.rate(u);
      ASSERT_NEAR(lr_at(s.lr, u, u < loop.gate_opens ? -1 : loop.gate_opens), expected,
                  1e-9 * expected)
          << loop.preset << ", update " << u;
    }
  }
}

// A system's row in the table of docs/schedules.md, computed from its preset in the case above.
struct System {
  std::string preset;
  std::string total;  // whether the total that a user gives it includes the warmup
  std::vector<std::string> settings;
};

std::string axes_row(const System& system) {
  const Schedule s = preset(system.preset, system.settings);
  const LrSchedule& lr = s.lr;
  const Phase& last = lr.phases[lr.phase_count - 1];
  const double base = 0.1;
  const double end_rate = lr_at(lr, 19);
  const bool has_end = (shape_facts[static_cast<int>(last.shape)].keys & takes_to) != 0 &&
                       last.over == 0 && last.to != last.from;
  const bool by_epoch = std::any_of(lr.phases, lr.phases + lr.phase_count,
                                    [](const Phase& phase) { return phase.every > 1; });
  const char* clock = lr.overlap == Overlap::none      ? "after W"
                      : lr.overlap == Overlap::replace ? "at 0"
                                                       : "at 0, multiplied";
  return fmt::format("| `{}` | {:.4g} | {:.4g} | {:.4g} | {:.4g} | {} | {} | {:.4g} | {} | {} |",
                     system.preset, lr_at(lr, 0) / base, lr_at(lr, 1) / base, lr_at(lr, 4) / base,
                     lr_at(lr, 5) / base, clock, system.total, end_rate,
                     has_end ? std::fabs(end_rate - last.to) < 1e-12 ? "yes" : "no" : "-",
                     by_epoch ? "epoch" : "update");
}

TEST(Presets, TheTableOfTheDocsIsTrue) {
  const std::string burn_in = "schedule.warmup.length=4 steps";
  const System systems[] = {
      {"tensorflow-resnet", "in T", {unscaled, warmup, milestones}},
      {"yolov3", "in T", {"train.stages=[]", warmup, end}},
      {"resnet-110", "in T", {"schedule.warmup.until=null", warmup, milestones}},
      {"goyal", "in T", {unscaled, warmup, "schedule.warmup.start_lr=0.01", milestones}},
      {"rfbnet", "in T", {warmup, milestones}},
      {"darknet-steps", "in T", {warmup, milestones}},
      {"darknet-poly", "in T", {burn_in, end_zero}},
      {"darknet-sgdr", "in T", {burn_in, end, "schedule.decay.period=20 steps"}},
      {"intel-caffe", "in T", {warmup, start_at_end, end_zero}},
      {"nvcaffe", "in T", {warmup, start_at_end, end, "schedule.min_lr=0.001"}},
      {"timm-cosine", "in T", {unscaled, warmup, end}},
      {"timm-cosine-prefix", "on top", {unscaled, warmup, end}},
      {"timm-tanh", "in T", {warmup, end}},
      {"timm-poly", "in T", {unscaled, warmup, end}},
      {"timm-step", "in T", {unscaled, warmup, "schedule.decay.over=5 steps"}},
      {"timm-multistep", "in T", {unscaled, warmup, "schedule.decay.at=[9 steps, 14 steps]"}},
      {"transformers-constant-with-warmup", "no total", {warmup}},
      {"transformers-linear", "in T", {warmup}},
      {"transformers-cosine", "in T", {warmup}},
      {"transformers-cosine-with-restarts", "in T", {warmup}},
      {"transformers-polynomial", "in T", {warmup}},
      {"transformers-inverse-sqrt", "no total", {warmup}},
      {"transformers-cosine-with-min-lr", "in T", {warmup, "schedule.decay.final_factor=0.01"}},
      {"transformers-cosine-warmup-with-min-lr",
       "in T",
       {warmup, "schedule.decay.final_factor=0.01"}},
      {"transformers-warmup-stable-decay",
       "in T",
       {warmup, "schedule.warmup.start_factor=0.01", "schedule.hold=10 steps",
        "schedule.decay.final_factor=0.01"}},
      {"optax-warmup-cosine", "in T", {warmup, end}},
      {"optax-warmup-exponential", "on top", {warmup, "schedule.decay.over=5 steps"}},
      {"optax-linear-onecycle", "in T", {}},
      {"keras-cosine", "on top", {warmup}},
      {"detectron2-multistep", "in T", {warmup, milestones}},
      {"detectron2-cosine", "in T", {warmup, end}},
      {"detectron2-cosine-rescale", "in T", {warmup, end}},
      {"mmengine-linear-multistep", "own ranges", {warmup, milestones}},
      {"mmengine-linear-cosine", "own ranges", {}},
      {"mmengine-poly", "own ranges", {end}},
      {"torch-linear-cosine", "on top", {warmup, end}},
      {"torch-constant-multistep", "on top", {warmup, milestones}},
      {"torch-one-cycle", "in T", {"schedule.phases.0.length=4 steps"}},
      {"pytorch-warmup-linear", "in T", {warmup}},
      {"pytorch-warmup-exponential", "in T", {"schedule.warmup.timescale=5 steps"}},
      {"gradual-warmup-lr", "on top", {warmup, "schedule.decay.period=15 steps", end}},
      {"cosine-warmup-restarts",
       "in T",
       {"schedule.decay.period=5 steps", "schedule.decay.rewarmup=5 steps"}},
      {"llm.c-cosine", "in T", {warmup, end}},
      {"llm.c-wsd", "in T", {warmup, "schedule.hold=11 steps", end}},
      {"nanogpt", "in T", {warmup, end}},
      {"paddle-cosine", "on top", {warmup, end}},
      {"paddle-noam", "no total", {warmup}},
      {"composer-cosine",
       "in T",
       {"schedule.phases.1.length=5 steps", "schedule.phases.2.period=15 steps",
        "schedule.phases.2.to=0.001"}},
  };
  std::string table;
  for (const System& system : systems) table += axes_row(system) + "\n";
  EXPECT_THAT(bytes_of(root / "docs/schedules.md"), testing::HasSubstr(table)) << table;
}

TEST(Presets, EveryFileSaysWhereItIsFromAndCanRun) {
  std::set<std::string> tested;  // at every update
  for (const Row& row : rows()) tested.insert(row.preset);
  for (const Loop& loop : loops()) tested.insert(loop.preset);
  int count = 0;
  for (const auto& entry : fs::directory_iterator(root / "configs/schedules")) {
    const fs::path& path = entry.path();
    SCOPED_TRACE(path.string());
    std::ifstream file(path);
    std::string first;
    std::getline(file, first);
    EXPECT_THAT(first, testing::StartsWith("# "));
    const RunConfig config = read_config(load_document(path));
    EXPECT_EQ(config.name, path.stem().string());
    EXPECT_NO_THROW(check_run(config));
    EXPECT_TRUE(tested.contains(path.stem().string()));
    ++count;
  }
  EXPECT_GE(count, 60);
}

}  // namespace
}  // namespace preheat
