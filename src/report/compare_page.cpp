#include "report/experiment_page.h"

#include <fmt/format.h>

#include "report/arm_outcomes.h"
#include "report/label_text.h"
#include "train/json_file.h"

namespace preheat {
namespace {

std::string overrides_html(const Json& overrides) {
  std::string html;
  for (const auto& [key, value] : overrides.items()) {
    html += fmt::format("{}<code>{}: {}</code>", html.empty() ? "" : "<br/>", escape(key),
                        escape(scalar(value)));
  }
  return html.empty() ? "as configured" : html;
}

void add_arms(Page& page, const Json& result) {
  std::vector<std::vector<Cell>> rows;
  for (const Json& arm : result.at("arms")) {
    std::vector<Cell>& row = rows.emplace_back();
    row.emplace_back(escape(arm.at("name").get<std::string>()));
    add_outcomes(row, arm);
    row.emplace_back(overrides_html(arm.at("overrides")));
  }
  std::vector<std::string> heads = {"arm"};
  heads.insert(heads.end(), outcome_heads.begin(), outcome_heads.end());
  heads.emplace_back("overrides");
  page.add(table(heads, rows));
  page.add(
      "<p class=\"soft\">The interval is the Clopper-Pearson interval for an arm's failure "
      "rate.</p>\n");
}

const Json& arm_named(const Experiment& e, const Json& name) {
  for (const Json& arm : e.result.at("arms")) {
    if (arm.at("name") == name) return arm;
  }
  throw Error(fmt::format("{}: is damaged: there is no arm '{}'", e.file.string(),
                          clean(scalar(name), 40)));
}

// The seeds that failed under one arm only, among those that both arms have.
std::string pair_html(const Experiment& e, const Json& pair) {
  const Json& first = arm_named(e, pair.at("arms").at(0));
  const Json& second = arm_named(e, pair.at("arms").at(1));
  int n = 0;
  int only_first = 0;
  int only_second = 0;
  for (const Json& run : first.at("runs")) {
    for (const Json& other : second.at("runs")) {
      if (other.at("seed") != run.at("seed")) continue;
      ++n;
      only_first += failed(run) && !failed(other) ? 1 : 0;
      only_second += failed(other) && !failed(run) ? 1 : 0;
    }
  }
  const Number p = optional_at<double>(pair, "mcnemar_p");
  return fmt::format(
      "<li><strong>{0}</strong> against <strong>{1}</strong>: of n = {2} seeds {3} failed only "
      "under {0}, {4} only under {1}; exact McNemar p = {5}</li>\n",
      escape(scalar(first.at("name"))), escape(scalar(second.at("name"))), n, only_first,
      only_second, p ? fmt::format("{:.2g}", *p) : "–");
}

void add_pairs(Page& page, const Experiment& e) {
  const Json& pairs = e.result.at("paired");
  if (pairs.empty()) return;
  // Ten arms make 45 pairs, too many to show unfolded.
  const bool many = pairs.size() > 6;
  page.add("<h2>The same seeds under two arms</h2>\n");
  if (many) page.add(fmt::format("<details>\n<summary>{} pairs</summary>\n", pairs.size()));
  page.add("<ul>\n");
  for (const Json& pair : pairs) page.add(pair_html(e, pair));
  page.add(many ? "</ul>\n</details>\n" : "</ul>\n");
  if (pairs.size() > 1) {
    page.add(
        fmt::format("<p class=\"soft\">{} comparisons; the p-values are not corrected for "
                    "their number.</p>\n",
                    pairs.size()));
  }
}

}  // namespace

void add_compare(Page& page, const Experiment& e) {
  add_arms(page, e.result);
  add_pairs(page, e);
}

}  // namespace preheat
