// Overrides of a document: those of --set and those of an experiment's arms.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/split.h"

namespace preheat {
namespace {

std::string join(const std::vector<std::string_view>& parts, std::size_t begin, std::size_t end) {
  return fmt::format("{}", fmt::join(parts.begin() + static_cast<std::ptrdiff_t>(begin),
                                     parts.begin() + static_cast<std::ptrdiff_t>(end), "."));
}

// Changes the key paths of a subtree; its lines and columns stay those of the place it was written.
void rename(Node& node, const std::string& key) {
  node.where.key = key;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    rename(node.items[i], child_key(key, std::to_string(i)));
  }
  for (auto& [name, value] : node.keys) rename(value, child_key(key, name));
}

Node& find_or_make(Node& map, const std::string& key, const Where& where) {
  for (auto& [name, value] : map.keys) {
    if (name == key) return value;
  }
  Node made;
  made.where = where;
  made.where.key = child_key(map.where.key, key);
  return map.keys.emplace_back(key, std::move(made)).second;
}

Node& item(Node& sequence, std::string_view index, const Where& where) {
  std::size_t i = 0;
  const char* end = index.data() + index.size();
  const auto [stop, error] = std::from_chars(index.data(), end, i);
  const std::size_t size = sequence.items.size();
  if (error != std::errc() || stop != end || i >= size) {
    throw ConfigError(where, fmt::format("{} has no item {}", sequence.where.key, index),
                      size == 0 ? "it is empty" : fmt::format("its items are 0 to {}", size - 1));
  }
  return sequence.items[i];
}

// Whether the keys of a map are dotted paths of a run's keys, as in an arm, in a sweep's axes and
// in the axes that a claim names. `parent` is the node that contains the map.
bool has_dotted_keys(const Node& map, const Node& parent) {
  const std::string& key = map.where.key;
  return parent.where.key == "compare.arms" || parent.where.key == "find_lr.arms" ||
         key == "sweep.axes" ||
         (key.starts_with("expect.") && (key.ends_with(".at") || key.ends_with(".over")));
}

// How many parts of the path form the next key: an arm's name and the keys in it contain dots
// themselves.
std::size_t parts_of_key(const Node& map, const Node& parent,
                         const std::vector<std::string_view>& parts, std::size_t begin) {
  for (std::size_t end = parts.size(); end > begin + 1; --end) {
    if (map.find(join(parts, begin, end))) return end - begin;
  }
  return has_dotted_keys(map, parent) ? parts.size() - begin : 1;
}

Where place_of(const Override& change) {
  Where place = change.value.where;
  place.key = change.key;
  return place;
}

void apply(Node& root, const Override& change) {
  const Where place = place_of(change);
  const std::vector<std::string_view> parts = split(change.key, '.');
  const bool has_gap = std::any_of(parts.begin(), parts.end(), [](auto& p) { return p.empty(); });
  if (has_gap || parts.size() > max_depth) {
    throw ConfigError(place, "not a key", "write names with dots between them, as in train.length");
  }
  Node* node = &root;
  Node* parent = &root;
  for (std::size_t i = 0; i < parts.size();) {
    const bool is_number =
        std::all_of(parts[i].begin(), parts[i].end(), [](char c) { return c >= '0' && c <= '9'; });
    Node* const here = node;
    if (node->kind == Node::Kind::sequence) {
      node = &item(*node, parts[i++], place);
    } else if (node->kind == Node::Kind::scalar) {
      throw ConfigError(place, fmt::format("{} is a single value", node->where.key),
                        "it has no keys of its own");
    } else if (node->kind == Node::Kind::null && is_number) {
      throw ConfigError(place, fmt::format("{} is not given as a list", node->where.key),
                        "give the whole list before changing an item of it");
    } else {
      node->kind = Node::Kind::map;
      const std::size_t count = parts_of_key(*node, *parent, parts, i);
      node = &find_or_make(*node, join(parts, i, i + count), place);
      i += count;
    }
    parent = here;
  }
  const std::string key = node->where.key;
  *node = change.value;
  rename(*node, key);
}

}  // namespace

Override parse_override(std::string_view text) {
  const std::string source = fmt::format("--set {}", shortened(text, 100));
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw ConfigError({source, 0, 0, ""}, "not of the form key=value",
                      "write a key, as in --set schedule.base_lr=0.1");
  }
  const std::string key(text.substr(0, equals));
  Override change{key, parse_value(text.substr(equals + 1), source, key)};
  change.value.where = {source, 0, 0, key};
  return change;
}

void refuse_undoing(const std::string& earlier, const std::string& key, const Where& where) {
  if (earlier.size() <= key.size() || earlier[key.size()] != '.' || !earlier.starts_with(key))
    return;
  throw ConfigError(where, fmt::format("replaces the section of {} before it", earlier),
                    fmt::format("write the section first, then {}", earlier));
}

Document with_overrides(const Document& document, const std::vector<Override>& overrides) {
  Document changed = document;
  for (auto change = overrides.begin(); change != overrides.end(); ++change) {
    const Where place = place_of(*change);
    for (auto earlier = overrides.begin(); earlier != change; ++earlier) {
      refuse_undoing(earlier->key, change->key, place);
    }
    apply(changed.root, *change);
  }
  return changed;
}

}  // namespace preheat
