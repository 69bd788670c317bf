// Builds a page section by section: its HTML, and the JSON that its scripts read.
#pragma once

#include <string>
#include <vector>

#include "report/chart.h"
#include "report/html.h"

namespace preheat {

/// The first line of every page, and the start of the footer that names the program.
inline constexpr const char* page_begin = "<!doctype html>\n";
inline constexpr const char* page_footer = "<footer>preheat ";

class Page {
 public:
  void add(const std::string& html) { body_ += html; }

  /// Headings are of this level from here on: 2 under the page's own, 3 under that of a part.
  void set_heading_level(int level) { heading_level_ = level; }
  /// `text` is plain text.
  void add_heading(const std::string& text);

  /// Charts that share their switches and their zoom. `heading` is text; "": none. `facets` is
  /// Facets::json(), the switches between runs; without them there are none.
  void add_charts(const std::vector<Chart>& charts, const std::string& heading = "",
                  const Json& facets = Json::array());

  /// One self-contained HTML file. `title` is text.
  std::string document(const std::string& title) const;

 private:
  std::string body_;
  int heading_level_ = 2;
  Json sections_ = Json::array();
};

}  // namespace preheat
