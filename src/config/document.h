// A YAML text as a tree whose nodes know their place in the source. All YAML enters preheat here,
// and only a strict subset is accepted: one document, no anchors, no tags, no duplicate keys,
// bounded depth and size.
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
  std::string scalar;       // as written, without quotes
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

/// A new value for a key: `--set train.length=400 steps`, or an entry of an arm.
struct Override {
  std::string key;  // dotted path; a number selects an item of a sequence
  Node value;
};

struct Document {
  Node root;  // a map
};

/// The most that sections and lists may be nested in each other, and names in a dotted key.
inline constexpr std::size_t max_depth = 32;

/// The path of a key, or of an item's index, in a section: "train.length"; the key alone in the
/// root.
std::string child_key(const std::string& section, std::string_view key);

/// Parses a file of at most 1 MiB. Throws ConfigError, also if the file cannot be read.
Document load_document(const std::filesystem::path& path);

/// Parses a text of at most 1 MiB. Throws ConfigError, with `source` in place of a file name.
Document parse_document(std::string_view text, const std::string& source);

/// Parses a value that is given outside of a file, for `key`: the places in it have that source, no
/// line, and key paths that begin with `key`. Throws ConfigError.
Node parse_value(std::string_view text, const std::string& source, const std::string& key);

/// Parses "key=value"; the value is YAML. Throws ConfigError.
Override parse_override(std::string_view text);

/// Throws ConfigError at `where` if `key` is a section of the key `earlier`: an override gives a
/// section as a whole, and what an earlier one set in it would be lost. The section comes first and
/// then the change.
void refuse_undoing(const std::string& earlier, const std::string& key, const Where& where);

/// A copy with the overrides applied in order. Missing sections are created. Throws ConfigError at
/// the override's place if a path goes through a scalar or past the end of a sequence, and as
/// refuse_undoing() does.
Document with_overrides(const Document& document, const std::vector<Override>& overrides);

/// A user's text for a message: cut to at most `most` bytes at a UTF-8 boundary, with "..." added
/// if anything was cut off.
std::string shortened(std::string_view text, std::size_t most);

/// A value as one line of YAML, as tables and files show an arm's override.
std::string to_flow_text(const Node& node);

/// A map as lines of YAML: sections indented, lists of plain values on one line.
std::string to_block_text(const Node& map);

}  // namespace preheat
