#include "report/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "report/label_text.h"
#include "schedule/plan.h"

namespace preheat {
namespace {

struct OutcomeSign {
  std::string_view outcome;
  std::string_view sign;
  std::string_view word;
};
constexpr std::array<OutcomeSign, 5> outcome_signs{{{"ok", "●", "ok"},
                                                    {"spiked", "▲", "spiked"},
                                                    {"stuck", "■", "stuck"},
                                                    {"non_finite", "✕", "not finite"},
                                                    {"", "…", "not ended"}}};

const OutcomeSign* sign_of(std::string_view outcome) {
  const auto* const found = std::ranges::find(outcome_signs, outcome, &OutcomeSign::outcome);
  return found == outcome_signs.end() ? nullptr : found;
}

}  // namespace

std::string plain(Number value) {
  return value ? fmt::format("{:.4g}", *value) : "–";
}

std::string percent(Number share) {
  return share ? fmt::format("{:.2f} %", 100 * *share) : "–";
}

std::string rate(Number lr) {
  return lr ? lr_text(*lr) : "–";
}

std::string scalar(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string short_key(const std::string& key) {
  const auto dot = key.find('.');
  return dot == std::string::npos ? key : key.substr(dot + 1);
}

std::string_view outcome_sign(std::string_view outcome) {
  const OutcomeSign* const known = sign_of(outcome);
  return known ? known->sign : "?";
}

std::string outcome_words(const std::string& outcome) {
  const OutcomeSign* const known = sign_of(outcome);
  return known ? fmt::format("{} {}", known->sign, known->word) : outcome;
}

Cell::Cell(const std::string& text, std::string style_class)
    : html(escape(text)), css_class(std::move(style_class)) {}

Cell outcome_cell(const std::string& outcome, const std::string& more) {
  return {outcome_words(outcome) + more, sign_of(outcome) != nullptr ? outcome : ""};
}

std::string wide_begin(const std::string& name) {
  return fmt::format("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">",
                     escape(name));
}

std::string table(const std::vector<std::string>& heads, const std::vector<std::vector<Cell>>& rows,
                  const std::string& caption) {
  std::vector<std::string> named = heads;
  std::erase(named, "");
  std::string html =
      wide_begin(caption.empty() ? fmt::format("Table of {}", fmt::join(named, ", ")) : caption) +
      "<table>\n";
  if (!caption.empty()) html += "<caption>" + escape(caption) + "</caption>\n";
  html += "<thead><tr>";
  for (const std::string& head : heads) html += "<th scope=\"col\">" + escape(head) + "</th>";
  html += "</tr></thead>\n<tbody>\n";
  for (const std::vector<Cell>& row : rows) {
    html += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      const char* tag = i == 0 ? "th" : "td";
      html += fmt::format(
          "<{}{}{}>{}</{}>", tag, i == 0 ? " scope=\"row\"" : "",
          row[i].css_class.empty() ? "" : fmt::format(" class=\"{}\"", row[i].css_class),
          row[i].html, tag);
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table></div>\n";
}

std::string terms(const std::vector<std::pair<std::string, std::string>>& pairs) {
  std::string html = "<dl>\n";
  for (const auto& [term, text] : pairs) {
    html += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(term), escape(text));
  }
  return html + "</dl>\n";
}

std::string folded(const std::string& summary, const std::string& body) {
  return fmt::format("<details>\n<summary>{}</summary>\n{}</details>\n", escape(summary), body);
}

std::string preformatted(std::string_view text, const std::string& name) {
  std::string html =
      fmt::format("<pre tabindex=\"0\" role=\"region\" aria-label=\"{}\">", escape(name));
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    html += escape(text.substr(begin, end - begin)) + "\n";
    begin = end + 1;
  }
  return html + "</pre>\n";
}

}  // namespace preheat
