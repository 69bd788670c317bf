#include "experiment/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "config/values.h"
#include "train/atomic_file.h"

namespace preheat {
namespace {

PairResult pair(const ArmResult& a, const ArmResult& b) {
  PairResult result;
  result.first = a.arm.name;
  result.second = b.arm.name;
  for (const SeedResult& x : a.runs) {
    const auto y = std::ranges::find(b.runs, x.seed, &SeedResult::seed);
    if (y == b.runs.end()) continue;
    const bool x_failed = is_failure(x.run.outcome);
    const bool y_failed = is_failure(y->run.outcome);
    ++result.pairs;
    result.only_first_failed += x_failed && !y_failed ? 1 : 0;
    result.only_second_failed += y_failed && !x_failed ? 1 : 0;
  }
  result.mcnemar_p = mcnemar_exact(result.only_first_failed, result.only_second_failed);
  return result;
}

// Datasets by what decides their content, so that arms share one copy.
class DataCache {
 public:
  explicit DataCache(Backend& backend) : backend_(backend) {}

  const ResidentData& get(const DataConfig& config) {
    const std::string key = fmt::format("{}|{}|{}", to_string(config.dataset),
                                        config.dir.value_or(""), config.train_limit.value_or(0));
    const auto found = loaded_.find(key);
    return found != loaded_.end() ? found->second
                                  : loaded_.emplace(key, load_data(config, backend_)).first->second;
  }

 private:
  Backend& backend_;
  std::map<std::string, ResidentData> loaded_;
};

// A value as the configuration means it: numbers and truth values are such in JSON as well, the
// rest is text.
nlohmann::ordered_json to_json(const Node& value) {
  if (value.kind == Node::Kind::null) return nullptr;
  if (value.kind != Node::Kind::scalar) return to_flow_text(value);
  if (const auto whole = as_integer(value)) return *whole;
  if (const auto number = as_number(value)) return *number;
  if (const auto truth = as_bool(value)) return *truth;
  return value.scalar;
}

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

}  // namespace

std::int64_t ArmResult::count(Outcome outcome) const {
  return std::ranges::count_if(runs, [&](const SeedResult& r) { return r.run.outcome == outcome; });
}

std::int64_t ArmResult::failures() const {
  return count(Outcome::non_finite) + count(Outcome::stuck);
}

Interval ArmResult::failure_interval() const {
  return clopper_pearson(failures(), static_cast<std::int64_t>(runs.size()));
}

std::vector<RunConfig> arm_configs(const Document& document) {
  const RunConfig base = read_config(document);
  if (!base.compare) {
    throw ConfigError(base.where("compare"), "is missing",
                      "compare: {seeds: 0..9, arms: {no-warmup: {schedule.warmup.length: 0 steps}, "
                      "warmup: {}}}");
  }
  std::vector<RunConfig> configs;
  for (const Arm& arm : base.compare->arms) {
    configs.push_back(read_config(with_overrides(without_experiments(document), arm.overrides)));
    check_run(configs.back());
  }
  return configs;
}

CompareResult compare(const Document& document, Backend& backend,
                      const std::filesystem::path& folder, const CompareListener& listener) {
  const std::vector<RunConfig> configs = arm_configs(document);
  const RunConfig base = read_config(document);
  CompareResult result;
  for (const Arm& arm : base.compare->arms) result.arms.push_back({arm, {}});

  DataCache data(backend);
  make_folder(folder);
  write_atomically(folder / "config.yaml", write_config(base));
  const auto write_result = [&] {
    result.paired.clear();
    for (std::size_t i = 0; i < result.arms.size(); ++i) {
      for (std::size_t j = i + 1; j < result.arms.size(); ++j) {
        result.paired.push_back(pair(result.arms[i], result.arms[j]));
      }
    }
    write_atomically(folder / "compare.json", to_json(result).dump(2) + "\n");
  };
  for (const std::uint64_t seed : base.compare->seeds) {
    for (std::size_t i = 0; i < configs.size(); ++i) {
      RunConfig config = configs[i];
      config.seed = seed;
      Trainer trainer(config, backend, data.get(config.data));
      RunFolder run_folder(folder / result.arms[i].arm.name / std::to_string(seed), config);
      if (listener.on_start) listener.on_start(result.arms[i].arm, seed, trainer);
      const RunResult run =
          trainer.run({listener.on_records, {}, listener.wants_stop}, &run_folder);
      if (listener.on_end) listener.on_end(run);
      result.interrupted = run.interrupted;
      if (!run.interrupted) result.arms[i].runs.push_back({seed, run});
      write_result();
      if (run.interrupted) return result;
    }
  }
  return result;
}

nlohmann::ordered_json to_json(const CompareResult& result) {
  nlohmann::ordered_json json = {{"arms", nlohmann::ordered_json::array()},
                                 {"paired", nlohmann::ordered_json::array()}};
  for (const ArmResult& arm : result.arms) {
    nlohmann::ordered_json overrides = nlohmann::ordered_json::object();
    for (const Override& o : arm.arm.overrides) overrides[o.key] = to_json(o.value);
    nlohmann::ordered_json runs = nlohmann::ordered_json::array();
    for (const SeedResult& r : arm.runs) {
      runs.push_back({{"seed", r.seed},
                      {"outcome", to_string(r.run.outcome)},
                      {"first_non_finite_step", or_null(r.run.first_non_finite_step)},
                      {"final_train_loss", or_null(r.run.final_train_loss)},
                      {"test_accuracy", or_null(r.run.test_accuracy)}});
    }
    nlohmann::ordered_json interval;
    if (!arm.runs.empty()) {
      const Interval ci = arm.failure_interval();
      interval = {ci.lo, ci.hi};
    }
    json["arms"].push_back({{"name", arm.arm.name},
                            {"overrides", overrides},
                            {"n", arm.runs.size()},
                            {"failures", arm.failures()},
                            {"failure_interval", interval},
                            {"runs", runs}});
  }
  for (const PairResult& p : result.paired) {
    nlohmann::ordered_json mcnemar;
    if (p.pairs > 0) mcnemar = p.mcnemar_p;
    json["paired"].push_back({{"arms", {p.first, p.second}}, {"mcnemar_p", mcnemar}});
  }
  if (result.interrupted) json["interrupted"] = true;
  return json;
}

}  // namespace preheat
