#include "config/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cerrno>
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
constexpr std::size_t max_nodes = 100'000;
constexpr std::size_t max_key_length = 200;

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

}  // namespace

std::string child_key(const std::string& section, std::string_view key) {
  return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
}

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

Node parse_value(std::string_view text, const std::string& source, const std::string& key) {
  return parse(text, {source, false}, key);
}

}  // namespace preheat
