// HTML building blocks of a page.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace preheat {

using Json = nlohmann::ordered_json;
using Number = std::optional<double>;  // null if there is no value

// ---- Words -------------------------------------------------------------------------------------

std::string plain(Number value);        // "2.303"; "–" for null
std::string percent(Number share);      // "91.23 %"; likewise
std::string rate(Number lr);            // "1.80e-01"; likewise
std::string scalar(const Json& value);  // text as it is, anything else as JSON

/// "schedule.warmup.length" -> "warmup.length": short, and as spelled in the file.
std::string short_key(const std::string& key);

/// How a run ended, as a sign (readable without its colour) and a word: "✕ not finite". An unknown
/// outcome is shown as it is; an empty one as "… not ended".
std::string_view outcome_sign(std::string_view outcome);
std::string outcome_words(const std::string& outcome);

// ---- HTML --------------------------------------------------------------------------------------

/// HTML, where otherwise text is expected.
struct Markup {
  std::string html;
};

/// Of a table. Text is escaped.
struct Cell {
  Cell(const std::string& text, std::string style_class = "");
  Cell(const char* text) : Cell(std::string(text)) {}
  Cell(Markup markup, std::string style_class = "")
      : html(std::move(markup.html)), css_class(std::move(style_class)) {}
  std::string html;
  std::string css_class;
};

/// The outcome of a run as a cell, coloured if it is known.
Cell outcome_cell(const std::string& outcome, const std::string& more = "");

/// The start tag of a <div> that scrolls what is wider than the page. Keys scroll it too, so it has
/// a name, which is text.
std::string wide_begin(const std::string& name);

/// The first cell of a row is its heading; `heads` and `caption` are text.
std::string table(const std::vector<std::string>& heads, const std::vector<std::vector<Cell>>& rows,
                  const std::string& caption = "");

/// Pairs of a term and its description, both text.
std::string terms(const std::vector<std::pair<std::string, std::string>>& pairs);

/// Collapsed by default; `summary` is text, `body` HTML.
std::string folded(const std::string& summary, const std::string& body);

/// Lines of text, unchanged. `name` is text that says what they are.
std::string preformatted(std::string_view text, const std::string& name);

}  // namespace preheat
