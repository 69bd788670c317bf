#include "config/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "config/utf8.h"

namespace preheat {
namespace {

constexpr std::size_t max_bytes = 1 << 20;
constexpr std::size_t max_depth = 32;
constexpr std::size_t max_nodes = 100'000;
constexpr std::size_t max_key_length = 200;

std::string child_key(const std::string& parent, std::string_view key) {
  return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
}

// A place in a file has a line and a column, a place in an override has neither.
struct Source {
  std::string name;
  bool has_lines = true;

  Where at(const YAML::Mark& mark, std::string key) const {
    if (!has_lines || mark.is_null()) return {name, 0, 0, std::move(key)};
    return {name, mark.line + 1, mark.column + 1, std::move(key)};
  }
};

// Builds the tree from yaml-cpp's events and refuses disallowed constructs as soon as they begin,
// so that recursion depth and memory stay bounded whatever the file contains.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(Source source, std::string root_key)
      : source_(std::move(source)), root_key_(std::move(root_key)) {}

  Node take_root() { return root_ ? std::move(*root_) : Node{}; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (begun_) {
      fail(mark, "a second document, or text that belongs to nothing",
           "write one document whose sections all begin in the same column");
    }
    begun_ = true;
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (awaits_key()) fail(mark, "a value without a key", "write key: value");
    add(start(Node::Kind::null, mark));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    fail(mark, "aliases are not accepted", "write the value out, or in quotes");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (awaits_key()) {
      take_key(mark, value);
      return;
    }
    Node node = start(Node::Kind::scalar, mark);
    node.scalar = value;
    node.quoted = tag == "!";
    add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::sequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& problem,
                         const std::string& remedy = "") const {
    throw ConfigError(source_.at(mark, open_.empty() ? root_key_ : open_.back().node.where.key),
                      problem, remedy);
  }

 private:
  struct Open {
    Node node;
    std::optional<std::string> key;  // of a map: the key whose value has not been read yet
    Where key_where;
    std::unordered_map<std::string, int> lines;  // line of each key so far
  };

  bool awaits_key() const {
    return !open_.empty() && open_.back().node.kind == Node::Kind::map && !open_.back().key;
  }

  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) fail(mark, "anchors are not accepted", "write the value out where it is used");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag != "?" && tag != "!" && !tag.empty()) {
      fail(mark, "tags are not accepted", "write the value alone");
    }
  }

  void take_key(const YAML::Mark& mark, const std::string& key) {
    Open& map = open_.back();
    if (key.empty()) fail(mark, "a key without a name", "write key: value");
    if (key.size() > max_key_length) {
      fail(mark, "a key is too long", fmt::format("write at most {} bytes", max_key_length));
    }
    if (key == "<<") fail(mark, "merge keys are not accepted", "write the keys out");
    map.key_where = source_.at(mark, child_key(map.node.where.key, key));
    const auto [first, is_new] = map.lines.emplace(key, map.key_where.line);
    if (!is_new) {
      throw ConfigError(map.key_where,
                        source_.has_lines
                            ? fmt::format("the key was given already in line {}", first->second)
                            : "the key was given already",
                        "keep one of the two");
    }
    map.key = key;
  }

  // A value gets the place of its key, an item of a sequence or the root its own.
  Node start(Node::Kind kind, const YAML::Mark& mark) {
    if (++nodes_ > max_nodes) {
      fail(mark, fmt::format("more than {} values", max_nodes), "write a shorter file");
    }
    Node node;
    node.kind = kind;
    if (open_.empty()) {
      node.where = source_.at(mark, root_key_);
    } else if (const Open& parent = open_.back(); parent.node.kind == Node::Kind::map) {
      node.where = parent.key_where;
    } else {
      node.where = source_.at(
          mark, child_key(parent.node.where.key, std::to_string(parent.node.items.size())));
    }
    return node;
  }

  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (awaits_key()) {
      fail(mark, "a list or a section where a key should be",
           "write key: value, and close every [ and {");
    }
    if (open_.size() >= max_depth) {
      fail(mark, fmt::format("nested more than {} deep", max_depth), "write a flatter file");
    }
    open_.push_back({start(kind, mark), std::nullopt, {}, {}});
  }

  void close() {
    Node node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }

  void add(Node node) {
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (Open& parent = open_.back(); parent.node.kind == Node::Kind::map) {
      parent.node.keys.emplace_back(std::move(*parent.key), std::move(node));
      parent.key.reset();
    } else {
      parent.node.items.push_back(std::move(node));
    }
  }

  Source source_;
  std::string root_key_;
  std::vector<Open> open_;
  std::optional<Node> root_;
  std::size_t nodes_ = 0;
  bool begun_ = false;
};

bool is_control(std::uint32_t c) {
  return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || (c >= 0x7f && c < 0xa0);
}

void refuse_binary(std::string_view text, const Source& source, const std::string& key) {
  YAML::Mark mark;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    if (c.bytes == 0 || is_control(c.value)) {
      throw ConfigError(
          source.at(mark, key),
          c.bytes == 0
              ? fmt::format("byte 0x{:02x} is not UTF-8 text", static_cast<unsigned char>(text[i]))
              : fmt::format("control character U+{:04X} in the text", c.value),
          "write a YAML file in UTF-8");
    }
    i += c.bytes;
    mark.column += static_cast<int>(c.bytes);
    if (c.value == '\n') {
      ++mark.line;
      mark.column = 0;
    }
  }
}

Node parse(std::string_view text, const Source& source, const std::string& root_key) {
  if (text.size() > max_bytes) {
    throw ConfigError({source.name, 0, 0, root_key}, "longer than 1 MiB",
                      "a configuration is a short YAML file");
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  refuse_binary(text, source, root_key);
  TreeBuilder builder(source, root_key);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const bool star = error.msg.find("anchor") != std::string::npos ||
                      error.msg.find("alias") != std::string::npos;
    builder.fail(error.mark, "not valid YAML: " + error.msg,
                 star ? "write what begins with * in quotes" : "");
  }
  return builder.take_root();
}

std::vector<std::string> split(std::string_view key) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= key.size();) {
    const std::size_t end = std::min(key.find('.', begin), key.size());
    parts.emplace_back(key.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string join(const std::vector<std::string>& parts, std::size_t begin, std::size_t end) {
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

Node& item(Node& sequence, const std::string& index, const Where& where) {
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
std::size_t parts_of_key(const Node& map, const Node& parent, const std::vector<std::string>& parts,
                         std::size_t begin) {
  for (std::size_t end = parts.size(); end > begin + 1; --end) {
    if (map.find(join(parts, begin, end))) return end - begin;
  }
  return has_dotted_keys(map, parent) ? parts.size() - begin : 1;
}

void apply(Node& root, const Override& change) {
  Where place = change.value.where;
  place.key = change.key;
  const std::vector<std::string> parts = split(change.key);
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

bool means_null(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

bool plain_reads_back(std::string_view text) {
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '/';
  };
  const auto is_inner = [&](char c) {
    return is_word(c) || std::string_view(" +-%()").find(c) != std::string_view::npos;
  };
  if (means_null(text) || text.starts_with("...") || text.back() == ' ') return false;
  const bool is_signed = text.size() > 1 && (text[0] == '-' || text[0] == '+') && is_word(text[1]);
  return (is_word(text[0]) || is_signed) && std::all_of(text.begin(), text.end(), is_inner);
}

std::string scalar_text(std::string_view text, bool quoted) {
  if (!quoted && plain_reads_back(text)) return std::string(text);
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    const std::size_t bytes = std::max<std::size_t>(c.bytes, 1);
    if (text[i] == '"' || text[i] == '\\') {
      out += '\\';
      out += text[i];
    } else if (c.bytes > 0 && (c.value < 0x20 || is_control(c.value))) {
      out += fmt::format("\\u{:04x}", c.value);
    } else {
      out += text.substr(i, bytes);
    }
    i += bytes;
  }
  return out + '"';
}

bool fits_one_line(const Node& node) {
  if (node.kind == Node::Kind::map) return node.keys.empty();
  return std::none_of(node.items.begin(), node.items.end(),
                      [](const Node& i) { return i.kind == Node::Kind::map; });
}

void append_block(const Node& map, const std::string& indent, std::string& out) {
  for (const auto& [key, value] : map.keys) {
    out += indent + scalar_text(key, false) + ":";
    if (fits_one_line(value)) {
      out.append(" ").append(to_flow_text(value)) += '\n';
    } else if (value.kind == Node::Kind::map) {
      out += "\n";
      append_block(value, indent + "  ", out);
    } else {
      out += "\n";
      for (const Node& item : value.items) {
        std::string lead = indent + "  - ";
        if (item.kind != Node::Kind::map || item.keys.empty()) {
          out += lead + to_flow_text(item) + "\n";
          continue;
        }
        for (const auto& [name, field] : item.keys) {
          out += lead + scalar_text(name, false) + ": " + to_flow_text(field) + "\n";
          lead = indent + "    ";
        }
      }
    }
  }
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, value] : keys) {
    if (name == key) return &value;
  }
  return nullptr;
}

Document load_document(const std::filesystem::path& path) {
  const Where where{path.string(), 0, 0, ""};
  const auto unreadable = [&] {
    return ConfigError(where, fmt::format("cannot be read: {}", std::strerror(errno)),
                       "give the path of a YAML file");
  };
  errno = 0;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) throw unreadable();
  std::string text(max_bytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get())) throw unreadable();
  return parse_document(text, path.string());
}

Document parse_document(std::string_view text, const std::string& source) {
  Node root = parse(text, {source, true}, "");
  if (root.kind == Node::Kind::null) {
    root.kind = Node::Kind::map;
  } else if (root.kind != Node::Kind::map) {
    throw ConfigError(root.where, "not a configuration",
                      "write sections such as train: and schedule:");
  }
  root.where = {source, 0, 0, ""};
  return {std::move(root)};
}

Override parse_override(std::string_view text) {
  const Source source{fmt::format("--set {}", shortened(text, 100)), false};
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    throw ConfigError({source.name, 0, 0, ""}, "not of the form key=value",
                      "write a key, as in --set schedule.base_lr=0.1");
  }
  const std::string key(text.substr(0, equals));
  Override change{key, parse(text.substr(equals + 1), source, key)};
  change.value.where = {source.name, 0, 0, key};
  return change;
}

Document with_overrides(const Document& document, const std::vector<Override>& overrides) {
  Document changed = document;
  for (const Override& change : overrides) apply(changed.root, change);
  return changed;
}

std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0u) == 0x80) --most;
  return fmt::format("{}...", text.substr(0, most));
}

std::string to_flow_text(const Node& node) {
  std::vector<std::string> parts;
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::scalar:
      return scalar_text(node.scalar, node.quoted);
    case Node::Kind::sequence:
      for (const Node& item : node.items) parts.push_back(to_flow_text(item));
      return fmt::format("[{}]", fmt::join(parts, ", "));
    case Node::Kind::map:
      for (const auto& [key, value] : node.keys) {
        parts.push_back(scalar_text(key, false) + ": " + to_flow_text(value));
      }
      return fmt::format("{{{}}}", fmt::join(parts, ", "));
  }
  return "";
}

std::string to_block_text(const Node& map) {
  std::string text;
  append_block(map, "", text);
  return text;
}

}  // namespace preheat
