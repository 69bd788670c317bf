// A strict reader of small XML documents: what the program writes must be well-formed.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace preheat {

struct Element {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;
};

struct Xml {
  std::vector<Element> elements;  // in the order of their start tags
  std::string error;              // "" if the document is well-formed
};

// Reads the XML of plots and pages: elements, quoted attributes, predefined entities.
inline Xml parse(std::string_view rest) {
  Xml xml;
  std::vector<std::size_t> open;
  const auto fail = [&](const std::string& why) {
    xml.error = why + " before: " + std::string(rest.substr(0, 60));
    return xml;
  };
  const auto plain = [](std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '<' || (static_cast<unsigned char>(text[i]) < 0x20 && text[i] != '\n')) {
        return false;
      }
      if (text[i] != '&') continue;
      const std::string_view entity = text.substr(i, text.find(';', i) - i + 1);
      if (entity != "&amp;" && entity != "&lt;" && entity != "&gt;" && entity != "&quot;") {
        return false;
      }
    }
    return true;
  };
  while (true) {
    const std::string_view text = rest.substr(0, rest.find('<'));
    if (!plain(text)) return fail("bare character");
    if (open.empty()) {
      if (text.find_first_not_of(" \n") != std::string_view::npos) return fail("text outside");
    } else {
      xml.elements[open.back()].text += text;
    }
    rest.remove_prefix(text.size());
    if (rest.empty()) return open.empty() ? xml : fail("missing end tag");
    const std::size_t end = rest.find('>');
    if (end == std::string_view::npos) return fail("unfinished tag");
    std::string_view tag = rest.substr(1, end - 1);
    if (tag.substr(0, 1) == "/") {
      if (open.empty() || xml.elements[open.back()].name != tag.substr(1)) return fail("stray end");
      open.pop_back();
    } else {
      if (open.empty() && !xml.elements.empty()) return fail("second root");
      const bool closed = !tag.empty() && tag.back() == '/';
      if (closed) tag.remove_suffix(1);
      Element element;
      element.name = tag.substr(0, tag.find(' '));
      tag.remove_prefix(element.name.size());
      while (!tag.empty()) {
        const std::size_t equals = tag.find("=\"");
        if (tag[0] != ' ' || equals == std::string_view::npos) return fail("bad attribute");
        const std::size_t quote = tag.find('"', equals + 2);
        if (quote == std::string_view::npos) return fail("open quote");
        const std::string_view value = tag.substr(equals + 2, quote - equals - 2);
        if (!plain(value)) return fail("bare character in an attribute");
        if (!element.attributes.emplace(tag.substr(1, equals - 1), value).second) {
          return fail("twin attribute");
        }
        tag.remove_prefix(quote + 1);
      }
      if (!closed) open.push_back(xml.elements.size());
      xml.elements.push_back(element);
    }
    rest.remove_prefix(end + 1);
  }
}

inline std::string xml_error(std::string_view text) {
  return parse(text).error;
}

}  // namespace preheat
