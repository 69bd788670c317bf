// A YAML text as a tree that remembers where everything stood. This is the only door through which
// YAML enters preheat, and it is narrow on purpose: one document, no anchors, no tags, no duplicate
// keys, bounded depth and size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/error.h"

namespace preheat {

struct Node {
  struct Key;
  enum class Kind { null, scalar, sequence, map };
  Kind kind = Kind::null;
  std::string scalar;       // as written, quotes removed
  bool quoted = false;      // "10" is text, 10 is a number
  std::vector<Node> items;  // of a sequence
  std::vector<Key> keys;    // of a map, in file order
  Where where;              // where.key is the full path

  const Node* find(std::string_view key) const;
};

struct Node::Key {
  Key(std::string_view name, Node node) : first(name), second(std::move(node)) {}
  std::string first;
  Node second;
};

/// One value to put in place of another: `--set train.length=400 steps`, or an entry of an arm.
struct Override {
  std::string key;  // dotted path; a number selects an item of a sequence
  Node value;
};

struct Document {
  Node root;  // a map
};

/// Reads a file of at most 1 MiB. Throws ConfigError; a file that cannot be opened is one too.
Document load_document(const std::filesystem::path& path);

/// The same for a text; `source` stands for the file name in errors.
Document parse_document(std::string_view text, const std::string& source);

/// Parses "key=value"; the value is YAML. Throws ConfigError.
Override parse_override(std::string_view text);

/// A copy with the overrides applied in order. Sections that do not exist are made; a path that
/// goes through a scalar or past the end of a sequence is a ConfigError at the override's place.
Document with_overrides(const Document& document, const std::vector<Override>& overrides);

/// At most that many bytes of a user's text, for a message.
std::string shortened(std::string_view text, std::size_t most);

/// One line of YAML for a value, as an arm's override is shown in tables and files.
std::string to_flow_text(const Node& node);

/// Lines of YAML for a map: sections indented, lists of plain values on one line.
std::string to_block_text(const Node& map);

}  // namespace preheat
