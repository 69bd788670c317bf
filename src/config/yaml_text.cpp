// Writes a document's nodes as YAML.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/utf8.h"

namespace preheat {
namespace {

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
