#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <utility>

#include "experiment/statistics.h"
#include "report/label_text.h"
#include "report/page.h"
#include "report/run_charts.h"
#include "train/atomic_file.h"
#include "train/outcome.h"

namespace preheat {
namespace {

constexpr std::size_t most_configurations = 20;  // of runs by themselves, shown

// ---- Runs --------------------------------------------------------------------------------------

bool is_failure(const std::string& name) {
  const auto outcome = value_named<Outcome>(name);
  return outcome && is_failure(*outcome);
}
bool failed(const Json& run) {
  return is_failure(scalar(run.at("outcome")));
}

std::string text_at(const Json& summary, const char* key) {
  return optional_at<std::string>(summary, key).value_or("–");
}

std::string outcome_sentence(const RunData& run) {
  const Json& s = run.summary;
  if (s.is_null()) {
    return fmt::format("… has not ended, or was killed: {} updates are recorded", run.updates);
  }
  const std::string words = outcome_words(run.outcome);
  if (run.outcome.empty()) {
    return fmt::format("… interrupted after {} of {} updates: how it would have ended is open",
                       s.at("steps").get<std::int64_t>(),
                       s.at("steps_planned").get<std::int64_t>());
  }
  if (run.outcome == "non_finite") {
    return fmt::format("{} at step {}, first in {}", words,
                       s.at("first_non_finite_step").get<std::int64_t>(),
                       text_at(s, "first_non_finite_tensor"));
  }
  if (run.outcome == "stuck") {
    return words + ": the loss stayed finite, and the network did not learn";
  }
  if (run.outcome == "spiked") {
    return words +
           ": the loss went over 3 times its first value, and the network learned all the same";
  }
  return run.outcome == "ok" ? words + ": the network learned, and the loss did not spike" : words;
}

std::string numbers_of(const RunData& run) {
  const Json& s = run.summary;
  if (s.is_null()) return "";
  const auto best_step = optional_at<std::int64_t>(s, "best_step");
  std::vector<std::pair<std::string, std::string>> numbers = {
      {"updates", fmt::format("{} of {}", s.at("steps").get<std::int64_t>(),
                              s.at("steps_planned").get<std::int64_t>())},
      {"updates in an epoch", std::to_string(s.at("steps_per_epoch").get<std::int64_t>())},
      {"training loss, last 50", plain(optional_at<double>(s, "final_train_loss"))},
      {"training accuracy, last 50", percent(optional_at<double>(s, "final_train_accuracy"))},
      {"test loss", plain(optional_at<double>(s, "test_loss"))},
      {"test accuracy", percent(optional_at<double>(s, "test_accuracy"))},
      {"best test accuracy",
       best_step ? fmt::format("{} after {}", percent(optional_at<double>(s, "best_test_accuracy")),
                               *best_step)
                 : "–"}};
  if (const auto gate = optional_at<std::int64_t>(s, "gate_opened_at")) {
    numbers.emplace_back("warmup ended early", fmt::format("before update {}", *gate));
  }
  return terms(numbers);
}

std::string environment_of(const Json& s) {
  if (s.is_null()) return "";
  double memory = 0;
  for (const Json& bytes : s.at("memory_bytes")) memory += bytes.get<double>();
  return terms({{"device", text_at(s, "device")},
                {"library", text_at(s, "library")},
                {"preheat", text_at(s, "preheat")},
                {"data", text_at(s, "data")},
                {"parameters", std::to_string(s.at("parameters").get<std::int64_t>())},
                {"memory", fmt::format("{:.1f} MiB", memory / (1 << 20))},
                {"wall time", fmt::format("{:.1f} s", s.at("wall_seconds").get<double>())},
                {"training speed",
                 fmt::format("{:.0f} images/s", s.at("images_per_second").get<double>())}});
}

std::string phases_table(const RunData& run) {
  std::vector<std::vector<Cell>> rows;
  for (const PhaseFacts& p : run.phases) {
    rows.push_back({escape(p.name), fmt::format("{} – {}", p.first, p.last), rate(p.least_lr),
                    rate(p.largest_lr)});
  }
  return table({"phase", "updates", "least rate", "largest rate"}, rows);
}

// The last of what a run recorded, where its summary says less or is not there.
std::vector<Cell> row_of(const RunData& run, const std::string& heading) {
  const auto number = [&](const char* key) {
    return run.summary.is_null() ? Number() : optional_at<double>(run.summary, key);
  };
  const auto step = run.summary.is_null()
                        ? std::nullopt
                        : optional_at<std::int64_t>(run.summary, "first_non_finite_step");
  return {escape(heading), outcome_cell(run.outcome, step ? fmt::format(" at {}", *step) : ""),
          std::to_string(run.updates), plain(number("final_train_loss")),
          percent(number("test_accuracy"))};
}
const std::vector<std::string> run_heads = {"run", "outcome", "updates", "training loss, last 50",
                                            "test accuracy"};

void add_run_charts(Page& page, const std::vector<RunData>& runs, const Facets& facets) {
  std::vector<Chart> charts = curve_charts(runs, facets);
  for (Chart& chart : sharpness_charts(runs, facets)) charts.push_back(std::move(chart));
  for (Chart& chart : layer_charts(runs, facets)) charts.push_back(std::move(chart));
  page.add_charts(charts, facets, "");
}

void add_run(Page& page, const RunData& run, const std::string& heading) {
  page.add(fmt::format("<{0}>{1} <small>seed {2}</small></{0}>\n<p class=\"outcome {3}\">{4}</p>\n",
                       heading, escape(run.name), escape(run.seed),
                       outcome_cell(run.outcome).css_class, escape(outcome_sentence(run))));
  page.add(numbers_of(run));
  add_run_charts(page, {run}, Facets({}, {}));
  page.add("<h2>Phases of the schedule</h2>\n" + phases_table(run));
  page.add(folded("Configuration", preformatted(run.config)));
  const std::string environment = environment_of(run.summary);
  if (!environment.empty()) page.add(folded("Environment", environment));
}

void add_runs(Page& page, const std::vector<RunData>& runs, const std::string& heading) {
  const auto failures =
      std::ranges::count_if(runs, [](const RunData& run) { return is_failure(run.outcome); });
  page.add(
      fmt::format("<{0}>{1} runs</{0}>\n<p class=\"outcome\">{2} of n = {1} runs failed: not "
                  "finite, or stuck</p>\n",
                  heading, runs.size(), failures));
  std::vector<std::vector<Cell>> rows;
  for (const RunData& run : runs) rows.push_back(row_of(run, run.facets.front()));
  page.add(table(run_heads, rows));
  add_run_charts(page, runs, Facets({"run"}, runs));
  for (std::size_t i = 0; i < std::min(runs.size(), most_configurations); ++i) {
    page.add(folded("Configuration and environment of " + runs[i].facets.front(),
                    environment_of(runs[i].summary) + preformatted(runs[i].config)));
  }
}

// ---- Experiments -------------------------------------------------------------------------------

std::string claims(const Json& result) {
  if (!result.contains("claims") || result.at("claims").empty()) return "";
  std::string html = "<h2>What it was to show</h2>\n<ul class=\"claims\">\n";
  for (const Json& claim : result.at("claims")) {
    const auto verdict = claim.at("verdict").get<std::string>();
    const char* sign = verdict == "PASS" ? "●" : verdict == "FAIL" ? "✕" : "?";
    const char* style = verdict == "PASS" ? "ok" : verdict == "FAIL" ? "non_finite" : "spiked";
    html += fmt::format(
        "<li><strong class=\"verdict {}\">{} {}</strong> {}<br/><small>{}</small>"
        "</li>\n",
        style, sign, escape(verdict), escape(scalar(claim.at("text"))),
        escape(scalar(claim.at("evidence"))));
  }
  return html + "</ul>\n";
}

std::int64_t count(const Json& arm, const char* outcome) {
  return std::ranges::count_if(arm.at("runs"),
                               [&](const Json& run) { return run.at("outcome") == outcome; });
}

std::optional<Interval> interval_at(const Json& object, const char* key) {
  const Json& ends = object.at(key);
  if (ends.is_null()) return std::nullopt;
  return Interval{ends.at(0).get<double>(), ends.at(1).get<double>()};
}

std::string overrides_html(const Json& overrides) {
  std::string html;
  for (const auto& [key, value] : overrides.items()) {
    html += fmt::format("{}<code>{}: {}</code>", html.empty() ? "" : "<br/>", escape(key),
                        escape(scalar(value)));
  }
  return html.empty() ? "as configured" : html;
}

// Test accuracies of the runs that did not fail.
std::vector<double> accuracies_of_the_others(const Json& arm) {
  std::vector<double> accuracies;
  for (const Json& run : arm.at("runs")) {
    const Number accuracy = optional_at<double>(run, "test_accuracy");
    if (!failed(run) && accuracy) accuracies.push_back(*accuracy);
  }
  return accuracies;
}

// "85.02 % (84.10 .. 85.90), n = 7".
std::string accuracy_of_the_others(const Json& arm) {
  const std::vector<double> accuracies = accuracies_of_the_others(arm);
  if (accuracies.empty()) return "– (n = 0)";
  const auto [least, largest] = std::ranges::minmax(accuracies);
  return fmt::format("{} ({:.2f} .. {:.2f}), n = {}", percent(median(accuracies)), 100 * least,
                     100 * largest, accuracies.size());
}

const std::vector<std::string> outcome_heads = {
    "runs",    "failed",   "95 % interval", "✕ not finite",
    "■ stuck", "▲ spiked", "● ok",          "test accuracy of the others: median (range)"};

// How the runs of an arm or a cell ended.
void add_outcomes(std::vector<Cell>& row, const Json& arm) {
  const auto failures = arm.at("failures").get<std::int64_t>();
  const auto interval = interval_at(arm, "failure_interval");
  row.emplace_back(std::to_string(arm.at("n").get<std::int64_t>()));
  row.emplace_back(std::to_string(failures), failures > 0 ? "stuck" : "");
  row.emplace_back(interval ? to_string(*interval) : "–");
  for (const char* outcome : {"non_finite", "stuck", "spiked", "ok"}) {
    row.emplace_back(std::to_string(count(arm, outcome)));
  }
  row.emplace_back(accuracy_of_the_others(arm));
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
      "<p class=\"soft\">The interval is Clopper and Pearson's, for the share of runs that fail "
      "under an arm.</p>\n");
}

const Json& arm_named(const Experiment& e, const Json& name) {
  for (const Json& arm : e.result.at("arms")) {
    if (arm.at("name") == name) return arm;
  }
  throw Error(fmt::format("{}: is damaged: there is no arm '{}'", e.file.string(),
                          clean(scalar(name), 40)));
}

// Who failed alone, over the seeds that both arms have.
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
  // Ten arms make 45 pairs, which few want to read.
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

// ---- Grids -------------------------------------------------------------------------------------

// What a cell shows: the outcome that most of its runs had, a failure where half failed.
std::string outcome_of_cell(const Json& cell) {
  const auto n = cell.at("n").get<std::int64_t>();
  if (2 * cell.at("failures").get<std::int64_t>() >= n) {
    return count(cell, "non_finite") >= count(cell, "stuck") ? "non_finite" : "stuck";
  }
  return 2 * count(cell, "spiked") >= n ? "spiked" : "ok";
}

Cell map_cell(const Json& cell) {
  const auto n = cell.at("n").get<std::int64_t>();
  if (n == 0) return {"–", "empty"};
  const std::string outcome = outcome_of_cell(cell);
  const auto failures = cell.at("failures").get<std::int64_t>();
  const std::vector<double> accuracies = accuracies_of_the_others(cell);
  return {fmt::format("<span title=\"{} not finite, {} stuck, {} spiked, {} ok\">{} {}/{}</span>{}",
                      count(cell, "non_finite"), count(cell, "stuck"), count(cell, "spiked"),
                      count(cell, "ok"), outcome_sign(outcome), failures, n,
                      accuracies.empty()
                          ? ""
                          : fmt::format("<br/><small>{:.1f} %</small>", 100 * mean(accuracies))),
          outcome + (failures > 0 && failures < n ? " mixed" : "")};
}

// A value of an axis. Those of a logarithmic axis have as many digits as a double.
std::string axis_value(const Json& value) {
  constexpr std::size_t most_characters = 8;
  const std::string text = scalar(value);
  return value.is_number_float() && text.size() > most_characters
             ? fmt::format("{:.3g}", value.get<double>())
             : text;
}

std::string point_text(const Json& point) {
  std::string text;
  for (const auto& [key, value] : point.items()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", key, axis_value(value));
  }
  return text;
}

std::string cells_table(const Json& axes, const Json& cells) {
  std::vector<std::string> heads;
  for (const Json& axis : axes) heads.push_back(short_key(axis.at("key").get<std::string>()));
  heads.insert(heads.end(), outcome_heads.begin(), outcome_heads.end());
  std::vector<std::vector<Cell>> rows;
  for (const Json& cell : cells) {
    std::vector<Cell>& row = rows.emplace_back();
    for (const Json& axis : axes) {
      row.emplace_back(escape(axis_value(cell.at("point").at(axis.at("key").get<std::string>()))));
    }
    add_outcomes(row, cell);
  }
  return table(heads, rows);
}

struct StabilityMap {
  std::string caption;             // the further axes' values
  std::vector<std::string> names;  // of the rows
  std::vector<std::vector<Cell>> rows;
};

// All maps of a grid are as wide. Where a screen is narrow and there are more columns than rows,
// report.css turns the table by its diagonal, and with it the arrows of the corner.
std::string map_html(const StabilityMap& map, const std::string& across, const std::string& down,
                     const std::vector<std::string>& columns) {
  const auto corner = [&](const char* css_class, const char* arrow_down, const char* arrow_across) {
    return fmt::format("<span class=\"{}\">{}{}\u00a0{}</span>", css_class,
                       down.empty() ? "" : fmt::format("{}\u00a0{}<br/>", escape(down), arrow_down),
                       escape(across), arrow_across);
  };
  std::string html = fmt::format(
      "<div class=\"wide\" tabindex=\"0\"><table class=\"map{}\" style=\"--across: {}; --down: "
      "{}\">"
      "\n{}<thead><tr><th>{}{}</th>",
      columns.size() > map.rows.size() ? " turns" : "", columns.size(), map.rows.size(),
      map.caption.empty() ? "" : "<caption>" + escape(map.caption) + "</caption>\n",
      corner("as-is", "↓", "→"), corner("turned", "→", "↓"));
  for (const std::string& column : columns) {
    html += fmt::format("<th scope=\"col\">{}</th>", escape(column));
  }
  html += "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < map.rows.size(); ++i) {
    html += fmt::format("<tr><th scope=\"row\">{}</th>", escape(map.names[i]));
    for (const Cell& cell : map.rows[i]) {
      html += fmt::format("<td class=\"{}\">{}</td>", cell.css_class, cell.html);
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table></div>\n";
}

// The first axis across, the last down; further axes make a map for each of their combinations.
void add_maps(Page& page, const Json& result) {
  const Json& axes = result.at("axes");
  const Json& cells = result.at("cells");
  const auto across = axes.at(0).at("key").get<std::string>();
  const bool has_rows = axes.size() > 1;
  const auto down = has_rows ? axes.at(axes.size() - 1).at("key").get<std::string>() : "";
  std::vector<std::string> columns;
  for (const Json& value : axes.at(0).at("values")) columns.push_back(axis_value(value));
  std::vector<StabilityMap> maps;
  const std::size_t per_column = cells.size() / std::max<std::size_t>(1, columns.size());
  for (std::size_t i = 0; i < per_column; ++i) {
    Json further = cells.at(i).at("point");
    further.erase(across);
    const std::string name = has_rows ? axis_value(further.at(down)) : "all";
    if (has_rows) further.erase(down);
    const std::string caption = point_text(further);
    auto map = std::ranges::find(maps, caption, &StabilityMap::caption);
    if (map == maps.end()) {
      maps.push_back({caption, {}, {}});
      map = maps.end() - 1;
    }
    map->names.push_back(name);
    std::vector<Cell>& row = map->rows.emplace_back();
    for (std::size_t c = 0; c < columns.size(); ++c) {
      row.push_back(map_cell(cells.at(c * per_column + i)));
    }
  }
  page.add(
      "<h2>Stability map</h2>\n<p class=\"soft\">In a cell: how many of its n runs failed, and the "
      "mean test accuracy of those that did not. Colour and sign are what most of its runs "
      "did:</p>\n<p class=\"signs\"><span class=\"ok\">● ok</span> <span class=\"spiked\">▲ spiked "
      "</span> <span class=\"stuck\">■ stuck</span> <span class=\"non_finite\">✕ not finite</span> "
      "<span class=\"mixed\">hatched: some failed, some did not</span></p>\n<div "
      "class=\"maps\">\n");
  for (const StabilityMap& map : maps) {
    page.add(map_html(map, short_key(across), has_rows ? short_key(down) : "", columns));
  }
  page.add("</div>\n" + folded("Every cell", cells_table(axes, cells)));
}

// ---- Along the base rate -----------------------------------------------------------------------

constexpr const char* rate_key = "schedule.base_lr";
constexpr const char* warmup_key = "schedule.warmup.length";

// "64 steps" -> 64, "steps"; a number has no unit.
std::pair<double, std::string> length_of(const Json& value) {
  if (value.is_number()) return {value.get<double>(), ""};
  const std::string text = scalar(value);
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return {number, end == text.c_str() ? text : std::string(end)};
}

// From the shortest to the longest, if they can be told: 0 is less than anything in any unit.
std::vector<std::string> by_length(const Json& values) {
  std::vector<Json> sorted(values.begin(), values.end());
  std::string unit;
  bool comparable = true;
  for (const Json& value : sorted) {
    const auto [number, its_unit] = length_of(value);
    if (number == 0 && its_unit != scalar(value)) continue;
    comparable &= unit.empty() || unit == its_unit;
    unit = its_unit;
  }
  if (comparable) {
    std::ranges::stable_sort(sorted, {}, [](const Json& value) { return length_of(value).first; });
  }
  std::vector<std::string> names;
  for (const Json& value : sorted) names.push_back(axis_value(value));
  return names;
}

std::string runs_in_a_cell(const std::vector<const Json*>& cells) {
  std::vector<std::int64_t> n;
  for (const Json* cell : cells) n.push_back(cell->at("n").get<std::int64_t>());
  const auto [least, most] = std::ranges::minmax(n);
  return least == most ? fmt::format("n = {} runs in a cell.", least)
                       : fmt::format("n = {} to {} runs in a cell.", least, most);
}

// What a line of a chart is: a value of the axis `key`, at which the cells go along the base rate.
struct RateLines {
  std::string key;                  // "" where the base rate is the only axis
  std::vector<std::string> values;  // in order
  std::vector<const Json*> cells;

  std::string value_of(const Json& cell) const {
    return key.empty() ? "all" : axis_value(cell.at("point").at(key));
  }
  std::string label(const std::string& value) const {
    return key.empty() ? value : short_key(key) + " " + value;
  }
};

// A line for each value, coloured by its place among them; `value_of` is null where a cell has
// none.
template <class ValueOf>
void add_lines(Chart& chart, const RateLines& lines, const ValueOf& value_of) {
  for (std::size_t i = 0; i < lines.values.size(); ++i) {
    std::map<double, double> by_rate;
    for (const Json* cell : lines.cells) {
      const Number value = value_of(*cell);
      if (lines.value_of(*cell) != lines.values[i] || !value) continue;
      by_rate[cell->at("point").at(rate_key).get<double>()] = *value;
    }
    Points points;
    for (const auto& [lr, value] : by_rate) {
      points.x.push_back(lr);
      points.y.push_back(value);
    }
    if (points.x.empty()) continue;
    const auto last = static_cast<double>(std::max<std::size_t>(1, lines.values.size() - 1));
    chart.add(lines.label(lines.values[i]), Chart::Kind::line,
              {fmt::format("order:{:.3f}", static_cast<double>(i) / last), static_cast<int>(i)},
              points);
  }
  std::vector<double> rates;
  for (const Json* cell : lines.cells)
    rates.push_back(cell->at("point").at(rate_key).get<double>());
  const auto [least, largest] = std::ranges::minmax(rates);
  chart.log_x().span_x(least, largest).legend();
}

// The table behind the charts: their numbers, and of how many runs they are.
std::string rate_table(const RateLines& lines) {
  std::vector<std::vector<Cell>> rows;
  for (const std::string& value : lines.values) {
    for (const Json* cell : lines.cells) {
      if (lines.value_of(*cell) != value) continue;
      const auto interval = interval_at(*cell, "failure_interval");
      const std::vector<double> accuracies = accuracies_of_the_others(*cell);
      rows.push_back({escape(value), rate(cell->at("point").at(rate_key).get<double>()),
                      std::to_string(cell->at("n").get<std::int64_t>()),
                      std::to_string(cell->at("failures").get<std::int64_t>()),
                      interval ? to_string(*interval) : "–",
                      accuracies.empty() ? "–" : percent(mean(accuracies)),
                      accuracies.empty() ? "–" : percent(std::ranges::min(accuracies)),
                      accuracies.empty() ? "–" : percent(std::ranges::max(accuracies))});
    }
  }
  return table({lines.key.empty() ? "" : short_key(lines.key), "base rate", "n", "failed",
                "share that fails, 95 %", "mean accuracy", "least", "largest"},
               rows);
}

// Accuracy and failures along the base rate, a line for each warmup length (or each value of the
// last axis, where no warmup is varied), and a pair of charts for each combination of the others.
void add_rate_charts(Page& page, const Json& result) {
  constexpr std::size_t most_lines = 24;
  constexpr std::size_t most_pairs = 4;
  RateLines lines;
  std::size_t rates = 0;
  for (const Json& axis : result.at("axes")) {
    const auto key = axis.at("key").get<std::string>();
    if (key == rate_key) {
      rates = axis.at("values").size();
    } else if (lines.key != warmup_key) {
      lines.key = key;
      lines.values = by_length(axis.at("values"));
    }
  }
  if (lines.key.empty()) lines.values = {"all"};
  if (rates < 2 || lines.values.size() > most_lines) return;
  std::vector<std::pair<std::string, RateLines>> pairs;
  for (const Json& cell : result.at("cells")) {
    Json further = cell.at("point");
    if (!further.at(rate_key).is_number()) return;
    further.erase(rate_key);
    if (!lines.key.empty()) further.erase(lines.key);
    const std::string caption = point_text(further);
    auto pair = std::ranges::find(pairs, caption, &std::pair<std::string, RateLines>::first);
    if (pair == pairs.end()) pair = pairs.insert(pair, {caption, lines});
    pair->second.cells.push_back(&cell);
  }
  if (pairs.size() > most_pairs) {
    page.add(
        fmt::format("<p class=\"soft\">Charts of {} of {} combinations; the table of every cell "
                    "has them all.</p>\n",
                    most_pairs, pairs.size()));
    pairs.resize(most_pairs);
  }
  for (const auto& [caption, of] : pairs) {
    std::vector<Chart> charts;
    const std::string where = caption.empty() ? "" : ", " + caption;
    const std::string n = runs_in_a_cell(of.cells);
    Chart accuracy("Test accuracy by base rate" + where, "base learning rate", "accuracy, %");
    add_lines(accuracy, of, [](const Json& cell) {
      const std::vector<double> accuracies = accuracies_of_the_others(cell);
      return accuracies.empty() ? Number() : Number(100 * mean(accuracies));
    });
    accuracy.caption(
        "Mean over the runs of a cell that did not fail, so it is to be read with the "
        "failures beside it. " +
        n);
    Chart failures("Failed runs by base rate" + where, "base learning rate", "failed, % of runs");
    add_lines(failures, of, [](const Json& cell) {
      const auto runs = cell.at("n").get<double>();
      return runs > 0 ? Number(100 * cell.at("failures").get<double>() / runs) : Number();
    });
    failures.span_y(0, 100).caption("Not finite, or stuck. " + n);
    for (Chart* chart : {&accuracy, &failures}) {
      if (chart->empty()) continue;
      chart->numbers(rate_table(of));
      charts.push_back(std::move(*chart));
    }
    page.add_charts(charts, Facets({}, {}), "");
  }
}

void add_boundaries(Page& page, const Json& result) {
  const Json& boundaries = result.at("boundaries");
  if (boundaries.empty()) return;
  std::vector<std::string> heads;
  for (const auto& [key, value] : boundaries.front().at("point").items()) heads.push_back(key);
  const bool is_one = heads.empty();
  if (is_one) heads.emplace_back();
  for (const char* head :
       {"runs", "largest that trains", "first that fails", "violations", "sensitivity"}) {
    heads.emplace_back(head);
  }
  std::vector<std::vector<Cell>> rows;
  for (const Json& b : boundaries) {
    std::vector<Cell>& row = rows.emplace_back();
    for (const Json& value : b.at("point")) row.emplace_back(escape(scalar(value)));
    if (is_one) row.emplace_back("all");
    row.emplace_back(b.contains("n") ? scalar(b.at("n")) : "–");
    row.emplace_back(rate(optional_at<double>(b, "largest_training")));
    row.emplace_back(rate(optional_at<double>(b, "smallest_failing")));
    row.emplace_back(std::to_string(b.at("violations").get<std::int64_t>()));
    row.emplace_back(plain(optional_at<double>(b, "sensitivity")));
  }
  page.add("<h2>The boundary along the base rate</h2>\n" + table(heads, rows));
  page.add(
      "<p class=\"soft\">A cell fails where at least half of its runs do; violations are rates "
      "above the first that fails at which it trains all the same. Sensitivity is the mean over "
      "the row's rates of how far the final loss, at most that of chance, is above the least of "
      "all cells.</p>\n");
}

// ---- Searches ----------------------------------------------------------------------------------

// The largest rate of an arm at a seed; nothing where the search did not get there.
Number largest_rate(const Json& arm, const Json& seed) {
  for (const Json& search : arm.at("searches")) {
    if (search.at("seed") == seed) return optional_at<double>(search, "largest");
  }
  return std::nullopt;
}

void add_search_chart(Page& page, const Experiment& e, const std::string& numbers) {
  Chart chart("The largest base rate that trains", "base learning rate", "");
  const Json& arms = e.result.at("arms");
  std::vector<std::string> seeds;
  std::vector<Points> links;
  std::vector<Points> dots(arms.size());
  Points critical;
  for (const Json& r : e.result.at("critical_rates")) {
    const auto row = static_cast<double>(seeds.size());
    seeds.push_back("seed " + scalar(r.at("seed")));
    Points& link = links.emplace_back();
    for (std::size_t i = 0; i < arms.size(); ++i) {
      const Number largest = largest_rate(arms.at(i), r.at("seed"));
      if (!largest) continue;
      for (Points* points : {&dots[i], &link}) {
        points->x.push_back(*largest);
        points->y.push_back(row);
      }
    }
    if (const Number rate_here = optional_at<double>(r, "rate")) {
      critical.x.push_back(*rate_here);
      critical.y.push_back(row);
    }
  }
  for (Points& link : links) {
    if (link.x.size() > 1) chart.add("", Chart::Kind::limit, {"soft", 3}, link);
  }
  for (std::size_t i = 0; i < arms.size(); ++i) {
    chart.add(arms.at(i).at("name").get<std::string>(), Chart::Kind::dots, style_of(i), dots[i]);
  }
  if (!critical.x.empty()) {
    chart.add("critical rate of the initial weights", Chart::Kind::dots, {"soft", 3}, critical);
  }
  chart.log_x().rows(seeds).legend().numbers(numbers).caption(
      "A line joins the arms of a seed. The critical rate is the step along the gradient from the "
      "initial weights that raises the loss by a tenth. A seed has no point of an arm, and – in "
      "the "
      "table, where its search found no rate that trains.");
  page.add_charts({chart}, Facets({}, {}), "");
}

std::string search_table(const Experiment& e) {
  std::vector<std::string> heads = {"seed"};
  for (const Json& arm : e.result.at("arms")) heads.push_back(arm.at("name").get<std::string>());
  heads.emplace_back("critical rate");
  std::vector<std::vector<Cell>> rows;
  std::vector<std::vector<double>> all(e.result.at("arms").size());
  for (const Json& r : e.result.at("critical_rates")) {
    std::vector<Cell> row = {escape(scalar(r.at("seed")))};
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Number largest = largest_rate(e.result.at("arms").at(i), r.at("seed"));
      if (largest) all[i].push_back(*largest);
      row.emplace_back(rate(largest));
    }
    row.emplace_back(rate(optional_at<double>(r, "rate")));
    rows.push_back(std::move(row));
  }
  std::vector<Cell> medians = {"median"};
  for (const std::vector<double>& rates : all) {
    medians.emplace_back(fmt::format("{}<br/><small>n = {}</small>",
                                     rates.empty() ? "–" : rate(median(rates)), rates.size()));
  }
  medians.emplace_back("");
  rows.push_back(std::move(medians));
  return table(heads, rows);
}

void add_ratios(Page& page, const Json& result) {
  if (result.at("ratios").empty()) return;
  std::vector<std::vector<Cell>> rows;
  for (const Json& r : result.at("ratios")) {
    const Number mean = optional_at<double>(r, "log2_mean");
    const auto octaves = interval_at(r, "interval");
    rows.push_back(
        {escape(fmt::format("{} over {}", scalar(r.at("arms").at(1)), scalar(r.at("arms").at(0)))),
         mean ? fmt::format("{:.2f}", std::exp2(*mean)) : "–",
         octaves ? to_string(Interval{std::exp2(octaves->lo), std::exp2(octaves->hi)}) : "–",
         std::to_string(r.at("n").get<std::int64_t>())});
  }
  page.add("<h2>How many times the rate</h2>\n" +
           table({"arms", "ratio", "95 % interval", "seeds"}, rows) +
           "<p class=\"soft\">Geometric mean over seeds; the interval is a bootstrap over them."
           "</p>\n");
}

std::string tried_table(const Json& result) {
  std::vector<std::vector<Cell>> rows;
  for (const Json& arm : result.at("arms")) {
    for (const Json& search : arm.at("searches")) {
      for (const Json& trial : search.at("tried")) {
        rows.push_back({escape(arm.at("name").get<std::string>()),
                        escape(scalar(search.at("seed"))), rate(trial.at("lr").get<double>()),
                        trial.at("trained").get<bool>() ? "yes" : "no",
                        outcome_cell(trial.at("outcome").get<std::string>()),
                        plain(optional_at<double>(trial, "final_train_loss")),
                        percent(optional_at<double>(trial, "test_accuracy"))});
      }
    }
  }
  return table(
      {"arm", "seed", "base rate", "trained", "outcome", "training loss, last 50", "test accuracy"},
      rows);
}

// ---- All of it ---------------------------------------------------------------------------------

// "16 of 20 runs", and whether more is to be expected.
std::string progress_of(const Experiment& e) {
  const bool is_search = e.kind == Experiment::Kind::find_lr;
  const Json& arms = e.result.at(e.kind == Experiment::Kind::sweep ? "cells" : "arms");
  std::size_t done = 0;
  for (const Json& arm : arms) done += arm.at(is_search ? "searches" : "runs").size();
  const std::size_t planned = std::max(done, e.seeds * arms.size());
  const char* what = is_search ? "searches" : "runs";
  if (e.result.value("interrupted", false)) {
    return fmt::format("… interrupted: {} of {} {} have ended, and only they count. ", done,
                       planned, what);
  }
  if (done < planned) {
    return fmt::format("… incomplete: {} of {} {} have ended, and only they count. ", done, planned,
                       what);
  }
  return "";
}

std::string outcome_sentence(const Experiment& e) {
  if (e.kind == Experiment::Kind::find_lr) {
    std::size_t searches = 0;
    std::string medians;
    for (const Json& arm : e.result.at("arms")) {
      std::vector<double> rates;
      for (const Json& search : arm.at("searches")) {
        const Number largest = optional_at<double>(search, "largest");
        if (largest) rates.push_back(*largest);
      }
      searches += arm.at("searches").size();
      medians += fmt::format(
          "<br/><strong>{}</strong>: {}", escape(arm.at("name").get<std::string>()),
          rates.empty()
              ? fmt::format("no rate that was tried trains, n = {} seeds",
                            arm.at("searches").size())
              : fmt::format("trains up to a base rate of {}, the median of the {} of n = {} seeds "
                            "that have one",
                            rate(median(rates)), rates.size(), arm.at("searches").size()));
    }
    return fmt::format("{} searches, {} runs{}", searches, e.runs.size(), medians);
  }
  std::int64_t failures = 0;
  for (const Json& arm : e.result.at(e.kind == Experiment::Kind::sweep ? "cells" : "arms")) {
    failures += arm.at("failures").get<std::int64_t>();
  }
  return fmt::format("{} of n = {} runs failed: not finite, or stuck", failures, e.runs.size());
}

std::string size_of(const Experiment& e) {
  const bool is_sweep = e.kind == Experiment::Kind::sweep;
  return fmt::format("{} {}, {} seeds", e.result.at(is_sweep ? "cells" : "arms").size(),
                     is_sweep ? "cells" : "arms", e.seeds);
}

std::string runs_table(const Experiment& e) {
  std::vector<std::vector<Cell>> rows;
  for (const RunData& run : e.runs) {
    rows.push_back(row_of(run, run.folder.lexically_relative(e.folder).string()));
  }
  return table(run_heads, rows);
}

void add_experiment(Page& page, const Experiment& e, const std::string& heading) {
  page.add(fmt::format("<{0}>{1} <small>{2}</small></{0}>\n<p class=\"outcome\">{3}{4}</p>\n",
                       heading, escape(e.name), size_of(e), progress_of(e), outcome_sentence(e)));
  page.add(claims(e.result));
  switch (e.kind) {
    case Experiment::Kind::compare:
      add_arms(page, e.result);
      add_pairs(page, e);
      break;
    case Experiment::Kind::sweep:
      add_maps(page, e.result);
      add_rate_charts(page, e.result);
      add_boundaries(page, e.result);
      break;
    case Experiment::Kind::find_lr: {
      const std::string numbers = search_table(e);
      page.add("<div class=\"beside\">\n<div>\n" + numbers + "</div>\n");
      add_search_chart(page, e, numbers);
      page.add("</div>\n");
      add_ratios(page, e.result);
      page.add(folded("Every rate that was tried", tried_table(e.result)));
      break;
    }
  }
  if (!e.runs.empty()) {
    page.add("<h2>Curves</h2>\n");
    add_run_charts(page, e.runs, Facets(e.facet_names, e.runs));
    page.add(folded("Runs", runs_table(e)));
  }
  page.add(folded("Configuration", preformatted(e.config)));
  if (!e.runs.empty() && !e.runs.front().summary.is_null()) {
    page.add(folded("Environment of the first run", environment_of(e.runs.front().summary)));
  }
}

// What the files of ours hold that were read whole is only looked at here, and may not be there.
template <class Act>
void reading(const std::filesystem::path& file, const Act& act) {
  try {
    act();
  } catch (const nlohmann::json::exception& error) {
    throw Error(fmt::format("{}: is damaged: {}", file.string(), problem_of(error)));
  }
}

}  // namespace

std::string report_page(const ReportData& data) {
  Page page;
  const bool is_one = data.experiments.size() + (data.runs.empty() ? 0 : 1) == 1;
  const std::string heading = is_one ? "h1" : "h2";
  std::vector<std::string> titles;
  if (!is_one) page.add("<h1>Runs and experiments</h1>\n");
  for (const Experiment& e : data.experiments) {
    reading(e.file, [&] { add_experiment(page, e, heading); });
    titles.push_back(e.name);
  }
  if (data.runs.size() == 1) {
    const RunData& run = data.runs.front();
    reading(run.folder / "summary.json", [&] { add_run(page, run, heading); });
    titles.push_back(fmt::format("{}, seed {}", run.name, run.seed));
  } else if (!data.runs.empty()) {
    reading("summary.json", [&] { add_runs(page, data.runs, heading); });
    titles.push_back(fmt::format("{} runs", data.runs.size()));
  }
  return page.document(fmt::format("{}", fmt::join(titles, ", ")));
}

void write_report(const std::vector<std::filesystem::path>& folders,
                  const std::filesystem::path& file) {
  write_atomically(file, report_page(read_report_data(folders)));
}

std::filesystem::path write_report(const std::filesystem::path& folder) {
  std::filesystem::path file = folder / report_name;
  write_report({folder}, file);
  return file;
}

}  // namespace preheat
