#include "train/fingerprint.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <vector>

namespace preheat {
namespace {

std::string decisive_text(RunConfig config) {
  const RunConfig defaults;
  config.name = defaults.name;
  config.data.dir = defaults.data.dir;
  config.train.eval_every = defaults.train.eval_every;
  config.train.checkpoint_every = defaults.train.checkpoint_every;
  config.train.cuda_graph = defaults.train.cuda_graph;
  config.diagnostics = defaults.diagnostics;
  config.compare.reset();
  config.sweep.reset();
  config.find_lr.reset();
  config.expect.clear();
  return write_config(config);
}

void add_settings(const Node& node, std::vector<Setting>& settings) {
  const bool is_list_of_sections =
      !node.items.empty() && node.items.front().kind == Node::Kind::map;
  const bool has_sections = !node.keys.empty() || is_list_of_sections;
  if (!has_sections) {
    settings.push_back({node.where.key, to_flow_text(node)});
  }
  for (const auto& [key, value] : node.keys) add_settings(value, settings);
  if (!is_list_of_sections) return;
  for (const Node& item : node.items) add_settings(item, settings);
}

// The setting of a key as "key: value", or "nothing".
std::string line_of(const std::vector<Setting>& settings, const std::string& key) {
  const auto found = std::ranges::find(settings, key, &Setting::key);
  return found == settings.end() ? "nothing" : found->key + ": " + found->value;
}

}  // namespace

std::vector<Setting> settings_of(const RunConfig& config) {
  std::vector<Setting> settings;
  add_settings(parse_document(decisive_text(config), "").root, settings);
  return settings;
}

std::string fingerprint(const RunConfig& config) {
  const std::string text = decisive_text(config);
  return fmt::format("{:08x}",
                     crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
}

std::optional<Difference> first_difference(const RunConfig& before, const RunConfig& now) {
  const std::vector<Setting> was = settings_of(before);
  const std::vector<Setting> is = settings_of(now);
  for (const std::vector<Setting>& keys : {was, is}) {
    for (const auto& [key, value] : keys) {
      Difference lines{line_of(was, key), line_of(is, key)};
      if (lines.before != lines.now) return lines;
    }
  }
  return std::nullopt;
}

std::string mismatch_text(const char* what, const Difference& differs) {
  return fmt::format("the {} was made with '{}', this configuration has '{}'", what, differs.before,
                     differs.now);
}

RunConfig with_schedule_of(const RunConfig& config, const RunConfig& other) {
  RunConfig copy = config;
  copy.schedule = other.schedule;
  copy.train.length = other.train.length;
  copy.train.stages = other.train.stages;
  return copy;
}

}  // namespace preheat
