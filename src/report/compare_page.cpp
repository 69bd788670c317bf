#include "report/experiment_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "experiment/statistics.h"
#include "report/arm_outcomes.h"
#include "report/label_text.h"
#include "train/json_file.h"
#include "train/outcome.h"

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

// The first steps that were not finite, of the runs that have one.
std::vector<double> non_finite_steps(const Json& arm) {
  std::vector<double> steps;
  for (const Json& run : arm.at("runs")) {
    if (run.at("outcome") != to_string(Outcome::non_finite)) continue;
    if (const auto step = optional_at<double>(run, "first_non_finite_step")) steps.push_back(*step);
  }
  return steps;
}

// "7 (5 .. 12)": median and range.
std::string steps_text(const std::vector<double>& steps) {
  if (steps.empty()) return "–";
  const auto [least, largest] = std::ranges::minmax(steps);
  return fmt::format("{:.10g} ({:.10g} .. {:.10g})", median(steps), least, largest);
}

void add_losses(std::vector<Cell>& row, const Json& losses) {
  for (const char* key : {"final_train", "test_minus_train"}) {
    row.emplace_back(plain(losses.is_null() ? std::nullopt : optional_at<double>(losses, key)));
  }
}

void add_results(Page& page, const Json& result) {
  const Json& arms = result.at("arms");
  const bool some_not_finite =
      std::ranges::any_of(arms, [](const Json& arm) { return !non_finite_steps(arm).empty(); });
  const bool validated = has_validation(arms);
  // Not in a compare.json of a version that did not say it.
  const bool has_losses =
      std::ranges::all_of(arms, [](const Json& arm) { return arm.contains("median_losses"); });
  std::vector<std::vector<Cell>> rows;
  for (const Json& arm : arms) {
    std::vector<Cell>& row = rows.emplace_back();
    row.emplace_back(arm.at("name").get<std::string>());
    add_outcomes(row, arm, validated);
    if (has_losses) add_losses(row, arm.at("median_losses"));
    if (some_not_finite) row.emplace_back(steps_text(non_finite_steps(arm)));
  }
  std::vector<std::string> heads = {"arm"};
  add_outcome_heads(heads, validated);
  if (has_losses) {
    heads.emplace_back("training loss");
    heads.emplace_back("test loss above it");
  }
  if (some_not_finite) heads.emplace_back("first step not finite: median (range)");
  page.add(table(heads, rows));
  if (has_losses) {
    page.add(
        "<p class=\"soft\">Losses are medians over the runs that did not fail. The training loss "
        "is of the last batches as they were trained on, with augmentation and label smoothing if "
        "there are any. What the test loss is above it tells arms apart in generalisation only "
        "where their training losses are alike.</p>\n");
  }
  page.add(
      "<p class=\"soft\">The interval is the Clopper-Pearson interval for an arm's failure "
      "rate.</p>\n");
}

// The share of each arm's runs that failed; nothing if no arm has two, as the interval of one run
// covers most shares.
void add_shares(Page& page, const Json& arms) {
  Chart chart("Failed runs by arm", "share of runs that failed", "");
  std::vector<std::string> names;
  std::vector<std::vector<Cell>> rows;
  std::int64_t most_runs = 0;
  std::size_t drawn = 0;  // arms with runs, which are those with a colour in the curves
  for (const Json& arm : arms) {
    const auto n = arm.at("n").get<std::int64_t>();
    const auto failures = arm.at("failures").get<std::int64_t>();
    const std::size_t row = names.size();
    names.push_back(arm.at("name").get<std::string>());
    rows.push_back({names.back(), std::to_string(n), std::to_string(failures)});
    most_runs = std::max(most_runs, n);
    if (n == 0) {
      rows.back().insert(rows.back().end(), 2, "–");
      continue;
    }
    const double share = static_cast<double>(failures) / static_cast<double>(n);
    const Interval interval = wilson(failures, n);
    // Always a dot: a bar hides some of the shapes, and the rows tell the arms apart.
    chart.add(fmt::format("{} of n = {}", failures, n), {style_of(drawn++).color, 0}, share, row,
              interval);
    rows.back().emplace_back(fmt::format("{:.2f}", share));
    rows.back().emplace_back(to_string(interval));
  }
  if (most_runs < 2) return;
  chart.rows(names)
      .span_x(0, 1)
      .numbers(table({"arm", "n", "failed", "share", "Wilson interval, 95 %"}, rows))
      .caption(
          "Not finite, or stuck. The bar is Wilson's interval at 95 %, which keeps its confidence "
          "on average over failure rates, enough for a picture; that in the table of arms is "
          "Clopper-Pearson's, mostly wider, which keeps it at every rate, as a claim needs.");
  page.add_charts({chart});
}

// What sets the arms apart, and what each is planned to get unless compare.json is of a version
// that did not say it.
void add_settings(Page& page, const Json& result) {
  const Json& arms = result.at("arms");
  const bool has_budgets =
      std::ranges::all_of(arms, [](const Json& arm) { return arm.contains("budget"); });
  // An older preheat did not say it, and made every update in one pass.
  const auto images_of_pass = [](const Json& budget) {
    return budget.contains("micro_batch") ? budget.at("micro_batch") : budget.at("batch_size");
  };
  const bool in_passes =
      has_budgets && std::ranges::any_of(arms, [&](const Json& arm) {
        return images_of_pass(arm.at("budget")) != arm.at("budget").at("batch_size");
      });
  std::vector<std::string> heads = {"arm", "overrides"};
  if (has_budgets) {
    heads.insert(heads.end(), {"updates", "images per update"});
    if (in_passes) heads.emplace_back("images per pass");
    heads.emplace_back("sum of learning rates");
  }
  std::vector<std::vector<Cell>> rows;
  bool are_alike = true;
  for (const Json& arm : arms) {
    std::vector<Cell>& row = rows.emplace_back();
    row.emplace_back(arm.at("name").get<std::string>());
    row.emplace_back(Markup{overrides_html(arm.at("overrides"))});
    if (!has_budgets) continue;
    const Json& budget = arm.at("budget");
    const Json& first = arms.front().at("budget");
    are_alike = are_alike && budget.at("updates") == first.at("updates") &&
                budget.at("batch_size") == first.at("batch_size");
    row.emplace_back(std::to_string(get_as<std::int64_t>(budget.at("updates"))));
    row.emplace_back(std::to_string(get_as<std::int64_t>(budget.at("batch_size"))));
    if (in_passes) {
      row.emplace_back(std::to_string(get_as<std::int64_t>(images_of_pass(budget))));
    }
    row.emplace_back(plain(optional_at<double>(budget, "sum_of_rates")));
  }
  page.add_heading("The arms");
  page.add(table(heads, rows));
  if (!has_budgets) return;
  if (!are_alike) {
    page.add(
        "<p>The arms differ in updates or in images per update, and their results may differ for "
        "that reason.</p>\n");
  }
  page.add(
      "<p class=\"soft\">As planned: a run that is not finite ends early. The sum over all updates "
      "says how far gradients of unit length could move a weight; –: it depends on the run, with a "
      "gate or start_lr: auto, or there are too many updates to add up.</p>\n");
}

const Json& arm_named(const Experiment& e, const Json& name) {
  for (const Json& arm : e.result.at("arms")) {
    if (arm.at("name") == name) return arm;
  }
  throw Error(fmt::format("{}: is damaged: there is no arm '{}'", e.file.string(),
                          clean(scalar(name), 40)));
}

constexpr const char* matched_key = "test_loss_at_matched_training_loss";

bool has_matched_losses(const Json& pair) {
  return pair.contains(matched_key) && !pair.at(matched_key).is_null();
}

// "; test loss at equal training loss, the first minus the second: 0.12 [0.05, 0.19], n = 8".
std::string matched_text(const Json& pair) {
  if (!has_matched_losses(pair)) return "";
  const Json& matched = pair.at(matched_key);
  const auto interval = interval_at(matched, "interval");
  return fmt::format(
      "; test loss at equal training loss, the first minus the second: {:.3g}{}, n = {}",
      get_as<double>(matched.at("mean_difference")),
      interval ? fmt::format(" [{:.3g}, {:.3g}]", interval->lo, interval->hi) : "",
      get_as<std::int64_t>(matched.at("n")));
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
      "under {0}, {4} only under {1}; exact McNemar p = {5}{6}</li>\n",
      escape(scalar(first.at("name"))), escape(scalar(second.at("name"))), n, only_first,
      only_second, p ? fmt::format("{:.2g}", *p) : "–", matched_text(pair));
}

void add_pairs(Page& page, const Experiment& e) {
  const Json& pairs = e.result.at("paired");
  if (pairs.empty()) return;
  // Ten arms make 45 pairs, too many to show unfolded.
  const bool many = pairs.size() > 6;
  page.add_heading("The same seeds under two arms");
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
  if (std::ranges::any_of(pairs, has_matched_losses)) {
    page.add(
        "<p class=\"soft\">Test losses are compared at the smallest training loss that both runs "
        "of a seed reached, where each first reached it, with straight lines between evaluations: "
        "the mean over the n seeds for which that exists, none of them failed in either arm, and "
        "Student's interval at 95 %.</p>\n");
  }
}

}  // namespace

void add_compare(Page& page, const Experiment& e) {
  add_results(page, e.result);
  add_shares(page, e.result.at("arms"));
  add_settings(page, e.result);
  add_pairs(page, e);
}

}  // namespace preheat
