#include "train/replica_options.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "config/counted.h"
#include "data/dataset.h"

namespace preheat {
namespace {

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// A pattern that matches nothing is taken for a misspelt one.
void require_match(const RunConfig& config, const std::string& key, const std::string& pattern,
                   const Network& network) {
  const auto& parameters = network.parameters;
  if (std::ranges::any_of(parameters, [&](const auto& p) { return matches(pattern, p.name); })) {
    return;
  }
  constexpr std::size_t most = 6;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(most, parameters.size()); ++i) {
    names.push_back(parameters[i].name);
  }
  throw ConfigError(
      config.where(key), fmt::format("'{}' matches no parameter", pattern),
      fmt::format(
          "there are {}{}", fmt::join(names, ", "),
          parameters.size() > most ? fmt::format(" and {} more", parameters.size() - most) : ""));
}

// optimizer.weight_decay and optimizer.groups, resolved per parameter.
std::vector<ParameterRule> parameter_rules(const RunConfig& config, const Network& network) {
  const std::vector<GroupConfig>& groups = config.optimizer.groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    require_match(config, fmt::format("optimizer.groups.{}.match", i), groups[i].match, network);
  }
  std::vector<ParameterRule> rules;
  std::vector<bool> is_used(groups.size());
  for (const Parameter& p : network.parameters) {
    const auto group = std::ranges::find_if(
        groups, [&](const GroupConfig& g) { return matches(g.match, p.name); });
    if (group != groups.end()) is_used[group - groups.begin()] = true;
    double decay = p.decayed ? config.optimizer.weight_decay : 0.0;
    if (group != groups.end()) decay = group->weight_decay.value_or(decay);
    rules.push_back({group == groups.end() ? 1.0f : static_cast<float>(group->lr_scale),
                     static_cast<float>(decay)});
  }
  if (const auto unused = std::ranges::find(is_used, false); unused != is_used.end()) {
    const auto i = unused - is_used.begin();
    throw ConfigError(
        config.where(fmt::format("optimizer.groups.{}.match", i)),
        fmt::format("everything that '{}' matches belongs to an earlier group", groups[i].match),
        "put it first");
  }
  return rules;
}

// train.stages laid out over the updates of the run.
std::vector<TrainingStage> training_stages(const RunConfig& config, const Network& network,
                                           const RunLength& run) {
  const std::vector<StageConfig>& given = config.train.stages;
  if (given.empty()) return {{0, std::vector<bool>(network.parameters.size(), true)}};
  std::vector<TrainingStage> stages;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::string key = fmt::format("train.stages.{}", i);
    const StageConfig& stage = given[i];
    const bool is_last = i + 1 == given.size();
    if (!stage.length && !is_last) {
      throw ConfigError(config.where(key + ".length"), "is missing",
                        "only the last stage may leave it out");
    }
    std::vector<bool> trained;
    for (std::size_t j = 0; j < stage.train_only.size(); ++j) {
      require_match(config, fmt::format("{}.train_only.{}", key, j), stage.train_only[j], network);
    }
    for (const Parameter& p : network.parameters) {
      trained.push_back(stage.train_only.empty() ||
                        std::ranges::any_of(stage.train_only, [&](const std::string& pattern) {
                          return matches(pattern, p.name);
                        }));
    }
    stages.push_back({begin, std::move(trained), stage.velocity == VelocityAtStage::fresh,
                      stage.frozen_batch_norm == FrozenBatchNorm::fixed});
    const std::int64_t left = run.steps - begin;
    const std::int64_t length =
        stage.length ? updates_of(*stage.length, run, config, key + ".length") : left;
    if (left == 0) {
      throw ConfigError(config.where(key), "has no updates left",
                        "shorter stages before it, or a longer train.length");
    }
    begin += length;
    if (begin > run.steps || length == 0 || (is_last && begin != run.steps)) {
      throw ConfigError(config.where(key + ".length"),
                        fmt::format("the stages so far take {}, the run has {}",
                                    counted(begin, "update"), run.steps),
                        is_last ? "leave it out for the rest of the run, or change train.length"
                                : "shorter stages, or a longer train.length");
    }
  }
  return stages;
}

// A single value per channel has no variance: its normalised value is 0, and so is its gradient.
void require_batch_norm_batches(const RunConfig& config, const Network& network) {
  for (const Op& op : network.ops) {
    if (!op.normalized() || op.out.height * op.out.width * config.data.examples_per_pass() > 1) {
      continue;
    }
    throw ConfigError(
        config.where(config.data.micro_batch ? "data.micro_batch" : "data.batch_size"),
        fmt::format("the batch norm of {} would have one value per channel to normalise", op.name),
        "at least 2");
  }
}

}  // namespace

int cpu_threads(const RunConfig& config) {
  return static_cast<int>(config.train.cpu_threads.value_or(0));
}

ReplicaOptions replica_options(const RunConfig& config, const Network& network,
                               const Schedule& schedule) {
  require_batch_norm_batches(config, network);
  const OptimizerConfig& optimizer = config.optimizer;
  ReplicaOptions options;
  options.batch_size = config.data.batch_size;
  options.micro_batch = config.data.micro_batch.value_or(0);
  options.normalize = normalization(config);
  options.augment = config.data.augment;
  options.loss = config.loss;
  options.label_smoothing = config.label_smoothing;
  options.rule = {static_cast<float>(optimizer.momentum), optimizer.nesterov,
                  optimizer.momentum_form == MomentumForm::folded, optimizer.momentum_correction};
  options.clip_norm = optimizer.clip_norm.value_or(0);
  options.parameters = parameter_rules(config, network);
  options.stages = training_stages(config, network, schedule.run);
  options.schedule = schedule.lr;
  options.seed = config.seed;
  options.precision = config.train.precision;
  options.deterministic = config.train.deterministic;
  options.cuda_graph = config.train.cuda_graph;
  options.cpu_threads = cpu_threads(config);
  return options;
}

}  // namespace preheat
