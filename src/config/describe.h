// The keys of the configuration; those of experiments are in experiments.h. Reading, writing and
// listing the keys are three visitors of this one description (see config.cpp). A visitor has
// - field(key, value, rule...): a value, possibly optional; required() if it has no default
// - section(key, visit): keys below a key; optional_section(key, value) if it may be absent
// - list(key, items, size, visit): a list of sections
// - one_of(noun, variant): exactly one of several sections, named by their types' `section`
// - lr(absolute, factor, value, may_be_auto): a learning rate under one of two keys
// - excludes(key, others): the first may not be given together with any of the others
// - check(ok, key, ...): a rule that involves several keys
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "config/config.h"
#include "config/values.h"

namespace preheat {

enum class MayBeAuto { no, yes };

constexpr IntegerRange width_range{1, 65536};
constexpr IntegerRange stride_range{1, 8};

template <class Io>
void describe(Io& io, DataConfig& c) {
  io.field("dataset", c.dataset);
  io.field("dir", c.dir, TextRule::path);
  io.field("batch_size", c.batch_size, IntegerRange{1, 65536});
  io.field("micro_batch", c.micro_batch, IntegerRange{1, 65536});
  io.check(!c.micro_batch || c.batch_size % *c.micro_batch == 0, "micro_batch",
           std::to_string(c.micro_batch.value_or(0)) + " does not divide the batch_size of " +
               std::to_string(c.batch_size),
           "give a divisor of it, or null for the whole batch");
  io.field("train_limit", c.train_limit, IntegerRange{1, 1'000'000'000});
  io.field("validation", c.validation, IntegerRange{0, 1'000'000'000});
  io.optional_section("normalize", c.normalize);
  io.section("augment", [&](auto& augment) {
    augment.field("crop_padding", c.augment.crop_padding, IntegerRange{0, 16});
    augment.field("flip", c.augment.flip);
  });
}

template <class Io>
void describe(Io& io, Normalize& c) {
  io.required("mean", c.mean, ListSize{1, 16}, Range{-1e6, 1e6});
  io.required("std", c.std, ListSize{1, 16}, Range{1e-6, 1e6});  // quotients are floats
  io.check(c.mean.size() == c.std.size(), "std", "mean and std have different numbers of values",
           "give one of each per channel");
}

template <class Io>
void describe(Io& io, ConvLayer& c) {
  io.required("out", c.out, width_range);
  io.field("kernel", c.kernel, IntegerRange{1, 15, true});
  io.field("stride", c.stride, stride_range);
  io.field("batch_norm", c.batch_norm);
  io.field("activation", c.activation);
}

template <class Io>
void describe(Io& io, MaxPoolLayer& c) {
  io.field("kernel", c.kernel, IntegerRange{2, 16});
}

template <class Io>
void describe(Io& io, ResidualStageLayer& c) {
  io.field("blocks", c.blocks, IntegerRange{1, 1000});
  io.required("out", c.out, width_range);
  io.field("stride", c.stride, stride_range);
  io.field("activation", c.activation);
}

template <class Io>
void describe(Io&, GlobalAvgPoolLayer&) {}

template <class Io>
void describe(Io& io, LinearLayer& c) {
  io.required("out", c.out, width_range);
  io.field("activation", c.activation);
}

template <class Io>
void describe(Io& io, ModelConfig& c) {
  io.list("layers", c.layers, ListSize{1, 1000}, [](auto& item, LayerConfig& layer, std::size_t) {
    item.one_of("layer", layer.layer);
    item.field("name", layer.name, TextRule::label);
  });
  std::set<std::string> names;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    const auto& name = c.layers[i].name;
    io.check(!name || names.insert(*name).second, "layers." + std::to_string(i) + ".name",
             "another layer has this name", "give each layer its own");
  }
  io.section("init", [&](auto& init) {
    init.field("scheme", c.init_scheme);
    init.field("gain", c.init_gain, Range{0, 1e6, true});
  });
}

template <class Io>
void describe(Io& io, OptimizerConfig& c) {
  io.field("momentum", c.momentum, Range{0, 1, false, true});
  io.check(static_cast<float>(c.momentum) < 1, "momentum", "is 1 in single precision",
           "write at most 0.9999999");
  io.field("nesterov", c.nesterov);
  io.check(!c.nesterov || c.momentum > 0, "nesterov", "needs a momentum above 0",
           "write momentum: 0.9 or nesterov: false");
  io.field("weight_decay", c.weight_decay, at_least(0));
  io.field("momentum_form", c.momentum_form);
  io.field("momentum_correction", c.momentum_correction);
  io.check(!c.momentum_correction || c.momentum_form == MomentumForm::folded, "momentum_correction",
           "the separate form needs none", "write false, or momentum_form: folded");
  io.field("clip_norm", c.clip_norm, above(0));
  io.list("groups", c.groups, ListSize{0, 100}, [](auto& item, GroupConfig& group, std::size_t) {
    item.required("match", group.match, TextRule::pattern);
    item.field("lr_scale", group.lr_scale, at_least(0));
    item.field("weight_decay", group.weight_decay, at_least(0));
  });
}

constexpr Range positive_range{0, 1e6, true};

// Optional keys of a phase. schedule/ knows which shape takes which.
template <class Io>
void describe_shape_keys(Io& io, PhaseConfig& c) {
  io.field("power", c.power, Range{0, 1000, true});
  io.field("gamma", c.gamma, any_sign);
  io.field("over", c.over, LengthRule{.zero = false});
  io.field("staircase", c.staircase);
  io.field("at", c.at, ListSize{1, 1000}, LengthRule{});
  io.field("cycles", c.cycles, positive_range);
  io.field("period", c.period, LengthRule{.zero = false});
  io.field("multiply", c.multiply, Range{1, 1000});
  io.field("peak_factor", c.peak_factor, Range{0, 1, true});
  io.field("rewarmup", c.rewarmup, LengthRule{});
  io.field("timescale", c.timescale, LengthRule{.zero = false});
  io.field("center", c.center, LengthRule{});
  io.field("lower", c.lower, any_sign);
  io.field("upper", c.upper, any_sign);
}

template <class Io>
void describe(Io& io, ScaleConfig& c) {
  io.field("rule", c.rule);
  io.required("reference_batch", c.reference_batch, IntegerRange{1, 1'000'000'000});
}

template <class Io>
void describe(Io& io, UntilConfig& c) {
  io.required("train_error_below", c.train_error_below, Range{0, 1, true});
  io.field("window", c.window, LengthRule{.zero = false});
  io.field("at_most", c.at_most, LengthRule{.zero = false});
}

template <class Io>
void describe(Io& io, ScheduleConfig& c) {
  io.field("base_lr", c.base_lr, above(0));
  io.optional_section("scale", c.scale);
  io.field("min_lr", c.min_lr, at_least(0));
  io.list("phases", c.phases, ListSize{1, 1000},
          [](auto& item, PhaseConfig& phase, std::size_t index) {
            phase.key = "schedule.phases." + std::to_string(index);
            if (phase.name.empty()) phase.name = "phase-" + std::to_string(index);
            item.field("name", phase.name, TextRule::label);
            item.required("shape", phase.shape, TextRule::word);
            item.field("from", phase.from);
            item.field("to", phase.to);
            item.field("endpoints", phase.endpoints, TextRule::word);
            item.field("length", phase.length, LengthRule{});
            item.field("every", phase.every);
            item.field("min_lr", phase.min_lr, at_least(0));
            describe_shape_keys(item, phase);
          });
  io.excludes("phases", {"warmup", "hold", "decay"});
  if (!c.phases.empty()) return;
  io.section("warmup", [&](auto& warmup) {
    warmup.field("shape", c.warmup.shape, TextRule::word);
    warmup.field("length", c.warmup.length, LengthRule{});
    warmup.lr("start_lr", "start_factor", c.warmup.from, MayBeAuto::yes);
    warmup.field("power", c.warmup.power, Range{0, 1000, true});
    warmup.field("timescale", c.warmup.timescale, LengthRule{.zero = false});
    warmup.field("endpoints", c.warmup.endpoints, TextRule::word);
    warmup.field("every", c.warmup.every);
    warmup.field("min_lr", c.warmup.min_lr, at_least(0));
    warmup.field("overlap", c.overlap);
    warmup.field("toward", c.toward);
    warmup.check(c.overlap || c.toward == Toward::base, "toward",
                 "only a warmup that overlaps the decay can follow its curve",
                 "write overlap: true, or toward: base");
    warmup.optional_section("until", c.until);
  });
  io.field("hold", c.hold, LengthRule{});
  io.section("decay", [&](auto& decay) {
    decay.field("shape", c.decay.shape, TextRule::word);
    decay.lr("final_lr", "final_factor", c.decay.to, MayBeAuto::no);
    decay.field("endpoints", c.decay.endpoints, TextRule::word);
    decay.field("length", c.decay.length, LengthRule{});
    decay.field("every", c.decay.every);
    decay.field("min_lr", c.decay.min_lr, at_least(0));
    describe_shape_keys(decay, c.decay);
  });
}

template <class Io>
void describe(Io& io, TrainConfig& c) {
  io.field("length", c.length, LengthRule{.zero = false, .percent = false});
  io.field("eval_every", c.eval_every, LengthRule{.zero = false});
  io.field("checkpoint_every", c.checkpoint_every, LengthRule{.zero = false});
  io.field("precision", c.precision);
  io.field("deterministic", c.deterministic);
  io.field("cuda_graph", c.cuda_graph);
  io.field("cpu_threads", c.cpu_threads, IntegerRange{1, 1024});
  io.list("stages", c.stages, ListSize{0, 100}, [](auto& item, StageConfig& stage, std::size_t) {
    item.field("length", stage.length, LengthRule{.zero = false});
    item.field("train_only", stage.train_only, ListSize{1, 1000}, TextRule::pattern);
    item.field("velocity", stage.velocity);
    item.field("frozen_batch_norm", stage.frozen_batch_norm);
  });
}

template <class Io>
void describe(Io& io, SharpnessConfig& c) {
  io.field("every", c.every, LengthRule{.zero = false});
  io.field("examples", c.examples, IntegerRange{1, 1'000'000});
  io.field("tolerance", c.tolerance, Range{0, 1, true});
  io.field("iterations", c.iterations, IntegerRange{1, 1000});
}

template <class Io>
void describe(Io& io, GradientNoiseConfig& c) {
  io.field("every", c.every, LengthRule{.zero = false});
  io.field("batches", c.batches, IntegerRange{2, 1000});
}

template <class Io>
void describe(Io& io, DiagnosticsConfig& c) {
  io.field("layers_every", c.layers_every, LengthRule{.zero = false});
  io.optional_section("sharpness", c.sharpness);
  io.optional_section("gradient_noise", c.gradient_noise);
}

template <class Io>
void describe(Io& io, RunConfig& c) {
  io.field("name", c.name, TextRule::run_name);
  io.field("seed", c.seed);
  io.section("data", [&](auto& data) { describe(data, c.data); });
  io.section("model", [&](auto& model) { describe(model, c.model); });
  io.field("loss", c.loss);
  io.field("label_smoothing", c.label_smoothing, Range{0, 1, false, true});
  io.check(c.loss == Loss::cross_entropy || c.label_smoothing == 0, "label_smoothing",
           "only cross_entropy smooths labels", "write 0, or loss: cross_entropy");
  io.section("optimizer", [&](auto& optimizer) { describe(optimizer, c.optimizer); });
  io.section("schedule", [&](auto& schedule) { describe(schedule, c.schedule); });
  io.section("train", [&](auto& train) { describe(train, c.train); });
  io.section("diagnostics", [&](auto& section) { describe(section, c.diagnostics); });
  io.optional_section("compare", c.compare);
  io.optional_section("sweep", c.sweep);
  io.optional_section("find_lr", c.find_lr);
  io.list("expect", c.expect, ListSize{0, 100},
          [](auto& item, Claim& claim, std::size_t) { item.one_of("claim", claim); });
}

}  // namespace preheat
