#include "report/page.h"

#include <fmt/format.h>

#include <utility>

#include "report/assets.h"
#include "report/label_text.h"

namespace preheat {

void Page::add_heading(const std::string& text) {
  add(fmt::format("<h{0}>{1}</h{0}>\n", heading_level_, escape(text)));
}

void Page::add_charts(const std::vector<Chart>& charts, const std::string& heading,
                      const Json& facets) {
  if (charts.empty()) return;
  Json list = Json::array();
  if (!heading.empty()) add_heading(heading);
  add(fmt::format("<section data-section=\"{}\">\n<div class=\"controls\"></div>\n",
                  sections_.size()));
  for (std::size_t i = 0; i < charts.size();) {
    const std::string& fold = charts[i].folded_under();
    std::string panels = "<div class=\"panels\">\n";
    for (; i < charts.size() && charts[i].folded_under() == fold; ++i) {
      panels += charts[i].figure(i);
      list.push_back(charts[i].json());
    }
    panels += "</div>\n";
    add(fold.empty() ? panels : folded(fold, panels));
  }
  add("</section>\n");
  sections_.push_back({{"facets", facets}, {"charts", std::move(list)}});
}

std::string Page::document(const std::string& title) const {
  // A "<" could end the script element early; a JSON string may escape it.
  std::string json =
      Json{{"sections", sections_}}.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (auto at = json.find('<'); at != std::string::npos; at = json.find('<', at)) {
    json.replace(at, 1, "\\u003c");
  }
  return fmt::format(
      "{}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{}</main>\n"
      "{}{}</footer>\n"
      "<script type=\"application/json\" id=\"data\">{}</script>\n"
      "<script>{}</script>\n<script>\n{}</script>\n</body>\n</html>\n",
      page_begin, escape(title), report_css(), body_, page_footer, PREHEAT_VERSION, json,
      chart_js(), report_js());
}

}  // namespace preheat
