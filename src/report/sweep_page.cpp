#include "report/experiment_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "experiment/statistics.h"
#include "report/arm_outcomes.h"
#include "report/label_text.h"
#include "train/json_file.h"

namespace preheat {
namespace {

// ---- The stability map --------------------------------------------------------------------------

// The outcome that a cell shows: a failure if at least half of its runs failed, else spiked if half
// of them are.
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
  const std::vector<double> validation = validation_accuracies_of_the_others(cell);
  return {
      Markup{fmt::format(
          "<span title=\"{} not finite, {} stuck, {} spiked, {} ok\">{} {}/{}</span>{}{}",
          count(cell, "non_finite"), count(cell, "stuck"), count(cell, "spiked"), count(cell, "ok"),
          outcome_sign(outcome), failures, n,
          accuracies.empty() ? ""
                             : fmt::format("<br/><small>{:.1f} %</small>", 100 * mean(accuracies)),
          validation.empty()
              ? ""
              : fmt::format("<br/><small>val. {:.1f} %</small>", 100 * mean(validation)))},
      outcome + (failures > 0 && failures < n ? " mixed" : "")};
}

// A value of an axis, by which its cells are found. Those spaced by `log` and `linear` have four
// digits; a list can have all those of a double.
std::string axis_value(const Json& value) {
  constexpr std::size_t max_characters = 8;
  const std::string text = scalar(value);
  return value.is_number_float() && text.size() > max_characters
             ? fmt::format("{:.4g}", value.get<double>())
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
  const bool validated = has_validation(cells);
  add_outcome_heads(heads, validated);
  std::vector<std::vector<Cell>> rows;
  for (const Json& cell : cells) {
    std::vector<Cell>& row = rows.emplace_back();
    for (const Json& axis : axes) {
      row.emplace_back(axis_value(cell.at("point").at(axis.at("key").get<std::string>())));
    }
    add_outcomes(row, cell, validated);
  }
  return table(heads, rows);
}

// Of one combination of the further axes.
struct StabilityMap {
  std::vector<std::string> names;  // of the rows
  std::vector<std::vector<Cell>> rows;
};

// All maps of a grid have the same width. On a narrow screen, a table with more columns than rows
// is transposed by report.css, and with it the arrows in the corner. Its cells are then no boxes of
// a table, whose roles are therefore given.
std::string map_html(const std::string& caption, const StabilityMap& map, const std::string& across,
                     const std::string& down, const std::vector<std::string>& columns) {
  const auto corner = [&](const char* css_class, const char* arrow_down, const char* arrow_across) {
    return fmt::format("<span class=\"{}\">{}{}\u00a0{}</span>", css_class,
                       down.empty() ? "" : fmt::format("{}\u00a0{}<br/>", escape(down), arrow_down),
                       escape(across), arrow_across);
  };
  std::string html = fmt::format(
      "{}<table class=\"map{}\" role=\"table\" style=\"--across: {}; --down: {}\">\n{}"
      "<thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\">{}{}</th>",
      wide_begin(caption.empty() ? "Stability map" : "Stability map, " + caption),
      columns.size() > map.rows.size() ? " turns" : "", columns.size(), map.rows.size(),
      caption.empty() ? "" : "<caption>" + escape(caption) + "</caption>\n",
      corner("as-is", "↓", "→"), corner("turned", "→", "↓"));
  for (const std::string& column : columns) {
    html += fmt::format("<th role=\"columnheader\" scope=\"col\">{}</th>", escape(column));
  }
  html += "</tr></thead>\n<tbody role=\"rowgroup\">\n";
  for (std::size_t i = 0; i < map.rows.size(); ++i) {
    html += fmt::format("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th>",
                        escape(map.names[i]));
    for (const Cell& cell : map.rows[i]) {
      html += fmt::format("<td role=\"cell\" class=\"{}\">{}</td>", cell.css_class, cell.html);
    }
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table></div>\n";
}

// The first axis across, the last down; one map per combination of the further axes.
void add_maps(Page& page, const Json& result) {
  const Json& axes = result.at("axes");
  const Json& cells = result.at("cells");
  const auto across = axes.at(0).at("key").get<std::string>();
  const bool has_rows = axes.size() > 1;
  const auto down = has_rows ? axes.at(axes.size() - 1).at("key").get<std::string>() : "";
  std::vector<std::string> columns;
  for (const Json& value : axes.at(0).at("values")) columns.push_back(axis_value(value));
  nlohmann::ordered_map<std::string, StabilityMap> maps;  // by caption
  const std::size_t per_column = cells.size() / std::max<std::size_t>(1, columns.size());
  for (std::size_t i = 0; i < per_column; ++i) {
    Json further = cells.at(i).at("point");
    further.erase(across);
    const std::string name = has_rows ? axis_value(further.at(down)) : "all";
    if (has_rows) further.erase(down);
    StabilityMap& map = maps[point_text(further)];
    map.names.push_back(name);
    std::vector<Cell>& row = map.rows.emplace_back();
    for (std::size_t c = 0; c < columns.size(); ++c) {
      row.push_back(map_cell(cells.at(c * per_column + i)));
    }
  }
  page.add_heading("Stability map");
  page.add(
      "<p class=\"soft\">Each cell shows how many of its n runs failed and the mean test accuracy "
      "of those that did not" +
      std::string(has_validation(cells) ? ", val.: on the validation set" : "") +
      ". Colour and sign show the more frequent failure if at least half of its runs failed, else "
      "spiked if at least half of them are, else ok:</p>\n<p class=\"signs\"><span class=\"ok\">● "
      "ok</span> <span class=\"spiked\">▲ spiked</span> <span class=\"stuck\">■ stuck</span> <span "
      "class=\"non_finite\">✕ not finite</span> <span class=\"mixed\">hatched: some failed, some "
      "did not</span></p>\n<div "
      "class=\"maps\">\n");
  for (const auto& [caption, map] : maps) {
    page.add(map_html(caption, map, short_key(across), has_rows ? short_key(down) : "", columns));
  }
  page.add("</div>\n" + folded("Every cell", cells_table(axes, cells)));
}

// ---- Along the base rate -----------------------------------------------------------------------

constexpr const char* rate_key = "schedule.base_lr";
constexpr const char* warmup_key = "schedule.warmup.length";

double rate_of(const Json& cell) {
  return cell.at("point").at(rate_key).get<double>();
}

Number mean_of(const std::vector<double>& values) {
  return values.empty() ? Number() : Number(mean(values));
}

// "64 steps" -> 64, "steps"; a number has no unit.
std::pair<double, std::string> length_of(const Json& value) {
  if (value.is_number()) return {value.get<double>(), ""};
  const std::string text = scalar(value);
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return {number, end == text.c_str() ? text : std::string(end)};
}

// From the shortest to the longest, if they are comparable: 0 is less than anything in any unit.
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
  const auto runs_in = [](const Json* cell) { return cell->at("n").get<std::int64_t>(); };
  const auto [fewest, largest] = std::ranges::minmax(cells, {}, runs_in);
  const std::int64_t least = runs_in(fewest);
  const std::int64_t most = runs_in(largest);
  return least == most ? fmt::format("n = {} runs in a cell.", least)
                       : fmt::format("n = {} to {} runs in a cell.", least, most);
}

// The lines of a chart: the values of the axis `key`, each a line of cells along the base rate.
struct RateLines {
  std::string key;                  // "" if the base rate is the only axis
  std::vector<std::string> values;  // in order
  std::vector<const Json*> cells;

  std::string value_of(const Json& cell) const {
    return key.empty() ? "all" : axis_value(cell.at("point").at(key));
  }
  std::string label(const std::string& value) const {
    return key.empty() ? value : short_key(key) + " " + value;
  }
};

// One line per value, coloured by its position among them; `value_of` returns null if a cell has no
// value.
template <class ValueOf>
void add_lines(Chart& chart, const RateLines& lines, const ValueOf& value_of) {
  for (std::size_t i = 0; i < lines.values.size(); ++i) {
    std::map<double, double> by_rate;
    for (const Json* cell : lines.cells) {
      const Number value = value_of(*cell);
      if (lines.value_of(*cell) != lines.values[i] || !value) continue;
      by_rate[rate_of(*cell)] = *value;
    }
    Points points;
    for (const auto& [lr, value] : by_rate) points.add(lr, value);
    if (points.x.empty()) continue;
    const auto last = static_cast<double>(std::max<std::size_t>(1, lines.values.size() - 1));
    chart.add(lines.label(lines.values[i]), Chart::Kind::line,
              {fmt::format("order:{:.3f}", static_cast<double>(i) / last), static_cast<int>(i)},
              points);
  }
  const auto [first, last] =
      std::ranges::minmax(lines.cells, {}, [](const Json* cell) { return rate_of(*cell); });
  chart.log_x().span_x(rate_of(*first), rate_of(*last)).legend();
}

// The table behind the charts: their numbers, and how many runs they are based on.
std::string rate_table(const RateLines& lines) {
  const bool validated = std::ranges::any_of(lines.cells, [](const Json* cell) {
    return !validation_accuracies_of_the_others(*cell).empty();
  });
  std::vector<std::vector<Cell>> rows;
  for (const std::string& value : lines.values) {
    for (const Json* cell : lines.cells) {
      if (lines.value_of(*cell) != value) continue;
      const auto interval = interval_at(*cell, "failure_interval");
      const std::vector<double> accuracies = accuracies_of_the_others(*cell);
      rows.push_back({value, rate(rate_of(*cell)),
                      std::to_string(cell->at("n").get<std::int64_t>()),
                      std::to_string(cell->at("failures").get<std::int64_t>()),
                      interval ? to_string(*interval) : "–", percent(mean_of(accuracies)),
                      accuracies.empty() ? "–" : percent(std::ranges::min(accuracies)),
                      accuracies.empty() ? "–" : percent(std::ranges::max(accuracies))});
      if (!validated) continue;
      rows.back().emplace_back(percent(mean_of(validation_accuracies_of_the_others(*cell))));
    }
  }
  std::vector<std::string> heads = {lines.key.empty() ? "" : short_key(lines.key),
                                    "base rate",
                                    "n",
                                    "failed",
                                    "share that fails, 95 %",
                                    "mean accuracy",
                                    "least",
                                    "largest"};
  if (validated) heads.emplace_back("mean validation accuracy");
  return table(heads, rows);
}

// The lines of charts, by the values of the axes that are neither the rate nor the lines.
using RateLinesByCaption = nlohmann::ordered_map<std::string, RateLines>;

// One line per warmup length (or per value of the last axis, if warmup does not vary), in charts
// per combination of the other axes. Empty if there are too few rates or too many lines for a
// chart.
RateLinesByCaption rate_lines(const Json& result) {
  constexpr std::size_t max_lines = 24;
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
  if (rates < 2 || lines.values.size() > max_lines) return {};
  RateLinesByCaption all;
  for (const Json& cell : result.at("cells")) {
    Json further = cell.at("point");
    if (!further.at(rate_key).is_number()) return {};
    further.erase(rate_key);
    if (!lines.key.empty()) further.erase(lines.key);
    all.emplace(point_text(further), RateLines(lines)).first->second.cells.push_back(&cell);
  }
  return all;
}

// Accuracy and failures along the base rate.
std::vector<Chart> rate_charts(const RateLines& lines, const std::string& caption) {
  const std::string where = caption.empty() ? "" : ", " + caption;
  const std::string n = runs_in_a_cell(lines.cells);
  const std::string numbers = rate_table(lines);
  const auto chart = [&](const char* title, const char* y, const char* words,
                         const auto& value_of) {
    Chart drawn(title + where, "base learning rate", y);
    add_lines(drawn, lines, value_of);
    return drawn.caption(words + n).numbers(numbers);
  };
  const auto accuracy_chart = [&](const char* title, const auto& accuracies_of) {
    return chart(title, "accuracy, %",
                 "Mean over the runs of a cell that did not fail: read it together with the "
                 "failures. ",
                 [&](const Json& cell) {
                   const Number accuracy = mean_of(accuracies_of(cell));
                   return accuracy ? Number(100 * *accuracy) : Number();
                 });
  };
  std::vector<Chart> charts = {
      accuracy_chart("Validation accuracy by base rate", validation_accuracies_of_the_others),
      accuracy_chart("Test accuracy by base rate", accuracies_of_the_others),
      chart("Failed runs by base rate", "failed, % of runs", "Not finite, or stuck. ",
            [](const Json& cell) {
              const auto runs = cell.at("n").get<double>();
              return runs > 0 ? Number(100 * cell.at("failures").get<double>() / runs) : Number();
            })};
  charts.back().span_y(0, 100);
  std::erase_if(charts, [](const Chart& each) { return each.empty(); });
  return charts;
}

void add_rate_charts(Page& page, const Json& result) {
  constexpr std::size_t max_combinations = 4;
  RateLinesByCaption all = rate_lines(result);
  if (all.size() > max_combinations) {
    page.add(
        fmt::format("<p class=\"soft\">Charts of {} of {} combinations; the table of every cell "
                    "has them all.</p>\n",
                    max_combinations, all.size()));
    all.resize(max_combinations);
  }
  for (const auto& [caption, lines] : all) page.add_charts(rate_charts(lines, caption));
}

// "[5.00e-03, 2.00e-02]", with – for an end outside of the grid.
std::string interval_text(const Json& boundary) {
  if (!boundary.contains("interval") || boundary.at("interval").is_null()) return "–";
  const auto end = [&](std::size_t i) {
    const Json& value = boundary.at("interval").at(i);
    return rate(value.is_null() ? Number() : Number(get_as<double>(value)));
  };
  return fmt::format("[{}, {}]", end(0), end(1));
}

void add_boundaries(Page& page, const Json& result) {
  const Json& boundaries = result.at("boundaries");
  if (boundaries.empty()) return;
  std::vector<std::string> heads;
  for (const auto& [key, value] : boundaries.front().at("point").items()) heads.push_back(key);
  const bool is_one = heads.empty();
  if (is_one) heads.emplace_back();
  for (const char* head : {"runs", "largest that trains", "first that fails", "violations",
                           "sensitivity", "95 % interval"}) {
    heads.emplace_back(head);
  }
  std::vector<std::vector<Cell>> rows;
  for (const Json& b : boundaries) {
    std::vector<Cell>& row = rows.emplace_back();
    for (const Json& value : b.at("point")) row.emplace_back(scalar(value));
    if (is_one) row.emplace_back("all");
    row.emplace_back(b.contains("n") ? scalar(b.at("n")) : "–");
    row.emplace_back(rate(optional_at<double>(b, "largest_training")));
    row.emplace_back(rate(optional_at<double>(b, "smallest_failing")));
    row.emplace_back(std::to_string(get_as<std::int64_t>(b.at("violations"))));
    row.emplace_back(plain(optional_at<double>(b, "sensitivity")));
    row.emplace_back(interval_text(b));
  }
  page.add_heading("The boundary along the base rate");
  page.add(table(heads, rows));
  page.add(
      "<p class=\"soft\">A cell fails if at least half of its runs do; those that are stuck below "
      "all rates that train are only too slow. Violations are rates above the first failing one at "
      "which it still trains. Sensitivity is the mean over the row's rates of how far the final "
      "loss, at most that of chance, is above the least of all cells; rates that are not spaced "
      "evenly in the logarithm count by their shares of its range. The interval is where the "
      "boundary may lie, from "
      "a bootstrap over the seeds of the row, which needs five, and the step of the grid: from the "
      "lower end for the largest rate that trains to the upper end for the first that fails; – is "
      "an end outside of the grid.</p>\n");
}

}  // namespace

void add_sweep(Page& page, const Experiment& e) {
  add_maps(page, e.result);
  add_rate_charts(page, e.result);
  add_boundaries(page, e.result);
}

}  // namespace preheat
