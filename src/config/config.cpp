#include "config/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "config/describe.h"
#include "config/nearest.h"

namespace preheat {
namespace {

// Lists the keys of one section or, if `deep`, of everything below it.
class KeyLister {
 public:
  KeyLister(std::vector<std::string>& keys, std::string section, bool deep)
      : keys_(keys), section_(std::move(section)), deep_(deep) {}

  template <class T, class... Rule>
  void field(std::string_view key, T&, const Rule&...) {
    keys_.push_back(child_key(section_, key));
  }
  template <class T, class... Rule>
  void required(std::string_view key, T& value, const Rule&...) {
    field(key, value);
  }
  template <class Visit>
  void section(std::string_view key, Visit visit) {
    keys_.push_back(child_key(section_, key));
    if (!deep_) return;
    KeyLister inner(keys_, child_key(section_, key), true);
    visit(inner);
  }
  template <class T>
  void optional_section(std::string_view key, std::optional<T>&) {
    section(key, [value = T{}](KeyLister& inner) mutable { describe(inner, value); });
  }
  template <class T, class Visit>
  void list(std::string_view key, std::vector<T>&, const ListSize&, Visit visit) {
    keys_.push_back(child_key(section_, key));
    if (!deep_) return;
    T item;
    KeyLister inner(keys_, child_key(section_, key) + "[]", true);
    visit(inner, item, 0);
  }
  template <class... Kind>
  void one_of(std::string_view, std::variant<Kind...>&) {
    (section(Kind::section, [item = Kind{}](KeyLister& inner) mutable { describe(inner, item); }),
     ...);
  }
  void lr(std::string_view absolute, std::string_view factor, std::optional<LrValue>& value,
          MayBeAuto) {
    field(absolute, value);
    field(factor, value);
  }
  void excludes(std::string_view, std::initializer_list<std::string_view>) {}
  void check(bool, std::string_view, std::string_view, std::string_view) {}

 private:
  std::vector<std::string>& keys_;
  std::string section_;
  bool deep_;
};

template <class T>
constexpr bool may_be_null = false;
template <class T>
constexpr bool may_be_null<std::optional<T>> = true;
template <class T>
constexpr bool may_be_null<std::vector<T>> = true;

// Reads one section: each key that is given replaces the default in the value.
class Reader {
 public:
  // Unknown keys are refused first, since a misspelt one explains most other errors.
  template <class Visit>
  static void read(const RunConfig& config, const Node& node, Visit visit) {
    if (node.kind != Node::Kind::map && node.kind != Node::Kind::null) {
      throw ConfigError(node.where, shown(node) + " where a section of keys is expected",
                        "write key: value pairs below it");
    }
    std::vector<std::string> known;
    KeyLister lister(known, "", false);
    visit(lister);
    for (const auto& [key, value] : node.keys) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        throw ConfigError(value.where, "unknown key", remedy_for_unknown(key, known));
      }
    }
    Reader reader(config, node);
    visit(reader);
  }

  template <class T, class... Rule>
  void field(std::string_view key, T& value, const Rule&... rule) {
    const Node* node = node_.find(key);
    if (!node || (may_be_null<T> && node->kind == Node::Kind::null)) return;
    read_value(*node, value, rule...);
  }
  template <class T, class... Rule>
  void field(std::string_view key, std::optional<T>& value, const Rule&... rule) {
    const Node* node = node_.find(key);
    if (!node) return;
    value.reset();
    if (node->kind != Node::Kind::null) read_value(*node, value.emplace(), rule...);
  }
  template <class T, class... Rule>
  void required(std::string_view key, T& value, const Rule&... rule) {
    check(given(key) != nullptr, key, "missing", "give it a value, it has no default");
    field(key, value, rule...);
  }
  template <class Visit>
  void section(std::string_view key, Visit visit) {
    Node absent;
    absent.where = config_.where(child_key(node_.where.key, key));
    const Node* node = node_.find(key);
    read(config_, node ? *node : absent, visit);
  }
  template <class T>
  void optional_section(std::string_view key, std::optional<T>& value) {
    if (!given(key)) return;
    section(key, [&value, read = T{}](auto& io) mutable {
      describe(io, read);
      value = read;
    });
  }
  template <class T, class Visit>
  void list(std::string_view key, std::vector<T>& values, const ListSize& size, Visit visit) {
    const Node* node = given(key);
    if (!node) return;
    check_list(*node, size);
    values.clear();
    for (const Node& item : node->items) {
      T value;
      const bool is_word = item.kind == Node::Kind::scalar && item.scalar.size() < 100;
      const Node section = is_word ? as_section(item) : item;
      read(config_, section, [&](auto& io) { visit(io, value, values.size()); });
      values.push_back(std::move(value));
    }
  }
  template <class... Kind>
  void one_of(std::string_view noun, std::variant<Kind...>& value) {
    int found = 0;
    (read_kind<Kind>(value, found), ...);
    if (found == 1) return;
    const auto kinds = {Kind::section...};
    throw ConfigError(node_.where,
                      found == 0 ? fmt::format("an item without a {}", noun)
                                 : fmt::format("two {}s in one item", noun),
                      fmt::format("after each dash write one of {}", fmt::join(kinds, " | ")));
  }
  void lr(std::string_view absolute, std::string_view factor, std::optional<LrValue>& value,
          MayBeAuto may_be_auto) {
    check(!given(absolute) || !given(factor), factor, fmt::format("{} is given too", absolute),
          "keep one of the two");
    for (const LrKind kind : {LrKind::absolute, LrKind::times_base}) {
      const std::string_view key = kind == LrKind::times_base ? factor : absolute;
      const Node* node = given(key);
      if (!node) continue;
      value = LrValue{0, kind};
      const bool is_auto = node->kind == Node::Kind::scalar && node->scalar == "auto";
      if (is_auto && kind == LrKind::absolute && may_be_auto == MayBeAuto::yes) {
        value->kind = LrKind::automatic;
        continue;
      }
      field(key, value->value, at_least(0));
    }
  }
  void excludes(std::string_view key, std::initializer_list<std::string_view> others) {
    for (const std::string_view other : others) {
      check(!given(key) || !given(other), key, fmt::format("{} is given too", other),
            fmt::format("{} stand in place of {}", key, fmt::join(others, ", ")));
    }
  }
  void check(bool ok, std::string_view key, const std::string& problem, const std::string& remedy) {
    if (!ok) throw ConfigError(config_.where(child_key(node_.where.key, key)), problem, remedy);
  }

 private:
  Reader(const RunConfig& config, const Node& node) : config_(config), node_(node) {}

  static std::string remedy_for_unknown(const std::string& key,
                                        const std::vector<std::string>& known) {
    std::vector<std::string> likely = nearest(key, known);
    if (likely.empty()) {
      // The right key in the wrong section, or only its last part: lr for schedule.base_lr.
      for (const bool half : {false, true}) {
        for (const std::string& path : known_keys()) {
          const std::string name = path.substr(path.rfind('.') + 1);
          const bool fits = half ? key.size() > 1 && name.ends_with("_" + key) : name == key;
          if (fits && likely.size() < 3) likely.push_back(path);
        }
        if (!likely.empty()) break;
      }
    }
    if (!likely.empty()) return did_you_mean(likely);
    return known.empty() ? "there are no keys here"
                         : fmt::format("the keys here are {}", fmt::join(known, ", "));
  }

  // A list item without keys may be a bare word: global_avg_pool.
  static Node as_section(const Node& word) {
    Node section;
    section.kind = Node::Kind::map;
    section.where = word.where;
    Node nothing;
    nothing.where = word.where;
    nothing.where.key = child_key(word.where.key, word.scalar);
    section.keys.emplace_back(word.scalar, std::move(nothing));
    return section;
  }

  const Node* given(std::string_view key) const {
    const Node* node = node_.find(key);
    return node && node->kind != Node::Kind::null ? node : nullptr;
  }

  template <class Kind, class Variant>
  void read_kind(Variant& value, int& found) {
    const std::string_view name = Kind::section;
    if (!node_.find(name)) return;
    ++found;
    Kind item;
    section(name, [&](auto& io) { describe(io, item); });
    value = item;
  }

  const RunConfig& config_;
  const Node& node_;
};

// Builds the tree from which Reader reads the same values.
class Writer {
 public:
  Writer() { node_.kind = Node::Kind::map; }
  Node take() { return std::move(node_); }

  template <class T, class... Rule>
  void field(std::string_view key, const T& value, const Rule&...) {
    if constexpr (may_be_null<T>) {
      if (value.empty()) return;
    }
    node_.keys.emplace_back(key, to_node(value));
  }
  template <class T, class... Rule>
  void field(std::string_view key, const std::optional<T>& value, const Rule&...) {
    if (value) field(key, *value);
  }
  template <class T, class... Rule>
  void required(std::string_view key, const T& value, const Rule&...) {
    field(key, value);
  }
  template <class Visit>
  void section(std::string_view key, Visit visit) {
    Writer inner;
    visit(inner);
    node_.keys.emplace_back(key, inner.take());
  }
  template <class T>
  void optional_section(std::string_view key, std::optional<T>& value) {
    if (value) section(key, [&](Writer& inner) { describe(inner, *value); });
  }
  template <class T, class Visit>
  void list(std::string_view key, std::vector<T>& values, const ListSize&, Visit visit) {
    if (values.empty()) return;
    Node items;
    items.kind = Node::Kind::sequence;
    for (T& value : values) {
      Writer item;
      visit(item, value, items.items.size());
      items.items.push_back(item.take());
    }
    node_.keys.emplace_back(key, std::move(items));
  }
  template <class... Kind>
  void one_of(std::string_view, std::variant<Kind...>& value) {
    std::visit(
        [&](auto& item) { section(item.section, [&](Writer& inner) { describe(inner, item); }); },
        value);
  }
  void lr(std::string_view absolute, std::string_view factor, const std::optional<LrValue>& value,
          MayBeAuto) {
    if (!value) return;
    if (value->kind == LrKind::automatic) {
      field(absolute, std::string("auto"));
    } else {
      field(value->kind == LrKind::times_base ? factor : absolute, value->value);
    }
  }
  void excludes(std::string_view, std::initializer_list<std::string_view>) {}
  void check(bool, std::string_view, std::string_view, std::string_view) {}

 private:
  Node node_;
};

void add_locations(const Node& node, RunConfig& config) {
  config.locations.emplace(node.where.key, node.where);
  for (const Node& item : node.items) add_locations(item, config);
  for (const auto& [key, value] : node.keys) add_locations(value, config);
}

RunConfig read_run(const Document& document) {
  RunConfig config;
  add_locations(document.root, config);
  Reader::read(config, document.root, [&](auto& io) { describe(io, config); });
  // A run without a validation set, or in whole batches, is the same, fingerprint included, whether
  // it says so or not.
  if (config.data.validation == 0) config.data.validation.reset();
  if (config.data.micro_batch == config.data.batch_size) config.data.micro_batch.reset();
  const bool length_given = config.locations.contains("train.length");
  if (config.train.stages.empty()) {
    if (!config.train.length) config.train.length = TrainConfig{}.length;
  } else if (!length_given) {
    config.train.length.reset();
  }
  return config;
}

}  // namespace

std::vector<LayerConfig> default_layers() {
  const LayerConfig pool{MaxPoolLayer{}, std::nullopt};
  const auto conv = [](std::int64_t out) {
    ConvLayer layer;
    layer.out = out;
    layer.batch_norm = true;
    return LayerConfig{layer, std::nullopt};
  };
  const LayerConfig hidden{LinearLayer{256, {ActivationKind::relu}}, std::nullopt};
  const LayerConfig logits{LinearLayer{10, {}}, std::nullopt};
  return {conv(32), conv(32), pool, conv(64), conv(64), pool, hidden, logits};
}

PhaseConfig default_warmup() {
  PhaseConfig phase;
  phase.key = "schedule.warmup";
  phase.name = "warmup";
  phase.shape = "linear";
  return phase;
}

PhaseConfig default_decay() {
  PhaseConfig phase;
  phase.key = "schedule.decay";
  phase.name = "decay";
  phase.shape = "cosine";
  return phase;
}

Where RunConfig::where(std::string_view key) const {
  Where place;
  for (std::string_view nearest_key = key;;) {
    const auto found = locations.find(nearest_key);
    if (found != locations.end()) {
      place = found->second;
      break;
    }
    if (nearest_key.empty()) break;
    const std::size_t dot = nearest_key.rfind('.');
    nearest_key = nearest_key.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  place.key = key;
  return place;
}

RunConfig read_config(const Document& document) {
  RunConfig config = read_run(document);
  // Read each arm and each axis value once now, so that an error in one is reported before any run
  // begins.
  const Document base = without_experiments(document);
  const auto read_arms = [&](const std::vector<Arm>& arms) {
    for (const Arm& arm : arms) read_run(with_overrides(base, arm.overrides));
  };
  if (config.compare) read_arms(config.compare->arms);
  if (config.find_lr) read_arms(config.find_lr->arms);
  if (config.sweep) {
    for (const Axis& axis : config.sweep->axes) {
      for (const Node& value : axis.values) read_run(with_overrides(base, {{axis.key, value}}));
    }
  }
  return config;
}

Document without_experiments(const Document& document) {
  Document base = document;
  std::erase_if(base.root.keys,
                [](const Node::Key& entry) { return is_of_experiments(entry.first); });
  return base;
}

std::string write_config(const RunConfig& config) {
  RunConfig copy = config;
  Writer writer;
  describe(writer, copy);
  return to_block_text(writer.take());
}

std::vector<std::string> known_keys() {
  std::vector<std::string> keys;
  KeyLister lister(keys, "", true);
  RunConfig defaults;
  describe(lister, defaults);
  return keys;
}

}  // namespace preheat
