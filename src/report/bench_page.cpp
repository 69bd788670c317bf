#include "report/bench_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "backend/backend.h"
#include "config/error.h"
#include "report/label_text.h"
#include "report/page.h"

namespace preheat {
namespace {

std::string text_at(const Json& object, const char* key) {
  return object.contains(key) ? scalar(object.at(key)) : "–";
}

double number(const Json& row, const char* key) {
  return row.at(key).get<double>();
}

std::string spread_text(const Json& spread) {
  return fmt::format("{:.4g} ({:.4g} .. {:.4g})", number(spread, "median"), number(spread, "least"),
                     number(spread, "largest"));
}

std::string range_text(const Json& row) {
  return fmt::format("{:.2f} .. {:.2f}", number(row, "least_us"), number(row, "largest_us"));
}

// A dash if the time was too short to be told from 0.
std::string ratio_text(const Json& ratio) {
  const bool is_there = ratio.is_number() && std::isfinite(ratio.get<double>());
  return is_there ? fmt::format("{:.2f}", ratio.get<double>()) : "–";
}

// The findings of --compare.
void add_comparison(Page& page, const Json& results) {
  if (!results.contains("comparison")) return;
  const Json& comparison = results.at("comparison");
  page.add(fmt::format(
      "<h2>Compared with {} <small>{}</small></h2>\n<p>{} faster, {} slower, {} within the spread; "
      "{} only here, {} only there. <small>A ratio is the earlier median over this one. A row has "
      "changed if the two are further apart than the least and the largest of either run."
      "</small></p>\n",
      escape(text_at(comparison, "file")), escape(text_at(comparison, "date")),
      text_at(comparison, "faster"), text_at(comparison, "slower"),
      text_at(comparison, "within_spread"), text_at(comparison, "only_now"),
      comparison.at("only_earlier").size()));
  const auto add_list = [&](const char* key) {
    std::string items;
    for (const Json& item : comparison.at(key)) items += "<li>" + escape(scalar(item)) + "</li>\n";
    return items.empty() ? "" : "<ul>\n" + items + "</ul>\n";
  };
  page.add(add_list("notes"));
  std::vector<std::vector<Cell>> rows;
  std::vector<std::vector<Cell>> changed;
  for (const Json& figure : results.at("figures")) {
    const bool is_new = figure.at("earlier").is_null();
    const std::string change = is_new ? "new" : scalar(figure.at("change"));
    const std::string colour = change == "faster" ? "ok" : change == "slower" ? "non_finite" : "";
    rows.push_back({scalar(figure.at("key")), scalar(figure.at("unit")), spread_text(figure),
                    is_new ? "–" : spread_text(figure.at("earlier")),
                    is_new ? "–" : ratio_text(figure.at("ratio")), Cell(change, colour)});
    if (!colour.empty()) changed.push_back(rows.back());
  }
  const std::vector<std::string> heads = {"figure", "unit", "now", "earlier", "earlier / now", ""};
  if (!changed.empty()) page.add(table(heads, changed));
  page.add(folded("every figure and the earlier one", table(heads, rows)));
  const std::string missing = add_list("only_earlier");
  if (!missing.empty()) page.add(folded("only in " + text_at(comparison, "file"), missing));
}

void add_head(Page& page, const std::string& title, const Json& results) {
  page.add(fmt::format("<h1>{} <small>{}</small></h1>\n", escape(title),
                       escape(text_at(results, "device"))));
  page.add(terms({{"device", text_at(results, "device")},
                  {"library", text_at(results, "library")},
                  {"preheat", text_at(results, "preheat")},
                  {"measured", text_at(results, "date")},
                  {"before", text_at(results.at("condition"), "before")},
                  {"afterwards", text_at(results.at("condition"), "after")}}));
  if (results.at("interrupted").get<bool>()) {
    page.add(
        "<p class=\"outcome stuck\">… interrupted and incomplete: later figures are "
        "missing.</p>\n");
  }
  add_comparison(page, results);
}

std::string time_text(double us) {
  return us < 1000 ? fmt::format("{:.2f} us", us) : fmt::format("{:.3f} ms", us / 1000);
}

std::string share_text(double share) {
  return share > 0 ? fmt::format("{:.1f} %", 100 * share) : "–";
}

// `unit` is that of the peer's time, and its key.
void add_peers(Page& page, const Json& peers, const char* unit) {
  if (peers.empty()) return;
  std::vector<std::vector<Cell>> rows;
  for (const Json& peer : peers) {
    const bool has_time = !peer.at(unit).is_null();
    const std::string time = has_time ? fmt::format("{:.4f} {}", number(peer, unit), unit)
                             : peer.contains("missing") ? "missing: " + text_at(peer, "missing")
                                                        : "failed: " + text_at(peer, "error");
    rows.push_back({scalar(peer.at("name")), text_at(peer, "set"), time,
                    has_time ? fmt::format("{:.2f}", number(peer, "ratio")) : "–"});
  }
  page.add_heading("Compared with PyTorch");
  page.add(table({"peer", "tensors", "its time", "times ours"}, rows));
}

// ---- The update --------------------------------------------------------------------------------

bool is_way(const Json& row, SubmitMode way) {
  return row.at("how") == to_string(way);
}

bool is_cold(const Json& row) {
  return row.at("cold").get<bool>();
}

// Whether the variant was measured as training runs it: in a graph, if it can be captured.
bool is_main(const Json& row) {
  if (is_cold(row)) return false;
  if (!is_way(row, SubmitMode::launches)) return true;
  const std::string variant = scalar(row.at("variant"));  // those that cannot be captured
  return variant == "host_rate, in the graph's node" || variant == "recapture";
}

std::string label_of(const Json& row) {
  return scalar(row.at("variant")) + (is_cold(row) ? ", cold" : "");
}

// The curves of a picture, by variant in order of appearance.
using Curves = nlohmann::ordered_map<std::string, Points>;

// `x` and `y` are keys of the rows; the points are of ascending x.
Curves by_variant(std::vector<Json> rows, const char* x, const char* y) {
  std::ranges::stable_sort(rows, {}, [&](const Json& row) { return number(row, x); });
  Curves curves;
  for (const Json& row : rows) curves[label_of(row)].add(number(row, x), number(row, y));
  return curves;
}

std::string points_table(const Curves& curves, const std::string& across) {
  std::set<double> columns;
  for (const auto& [label, points] : curves) columns.insert(points.x.begin(), points.x.end());
  std::vector<std::string> heads = {across};
  for (const double x : columns) heads.push_back(fmt::format("{:.10g}", x));
  std::vector<std::vector<Cell>> rows;
  for (const auto& [label, points] : curves) {
    std::vector<Cell>& row = rows.emplace_back();
    row.emplace_back(label);
    for (const double x : columns) {
      const auto at = std::ranges::find(points.x, x);
      row.emplace_back(
          at == points.x.end() ? "–" : fmt::format("{:.4g}", points.y[at - points.x.begin()]));
    }
  }
  return table(heads, rows);
}

void add_curves(Chart& chart, const Curves& curves, const std::string& across) {
  std::size_t i = 0;
  for (const auto& [label, points] : curves) {
    const bool is_limit = label.starts_with("copy") || label.starts_with("read 3");
    chart.add(label, is_limit ? Chart::Kind::limit : Chart::Kind::line,
              is_limit ? Style{"soft", static_cast<int>(i)} : style_of(i), points);
    ++i;
  }
  chart.legend().numbers(points_table(curves, across));
}

// PyTorch's times, as rows like ours.
std::vector<Json> peer_rows(const Json& results) {
  std::vector<Json> rows;
  for (const Json& peer : results.at("peers")) {
    if (peer.at("us").is_null()) continue;
    const double us = number(peer, "us");
    rows.push_back({{"set", peer.at("set")},
                    {"variant", peer.at("name")},
                    {"how", to_string(SubmitMode::graph)},
                    {"cold", false},
                    {"parameters", peer.at("parameters")},
                    {"tensors", peer.at("tensors")},
                    {"us", us},
                    {"gigabytes_per_second", 20 * number(peer, "parameters") / (1e3 * us)}});
  }
  return rows;
}

// Features of the fused update and the ways of the host are in the table; a picture of all of them
// would be unreadable.
bool in_pictures(const Json& row) {
  const std::string variant = scalar(row.at("variant"));
  return (is_main(row) || is_cold(row)) && !variant.starts_with("fused,") &&
         !variant.starts_with("fused and") && !variant.starts_with("host_rate") &&
         variant != "recapture" && number(row, "parameters") > 0;
}

// Multiplications and additions per parameter: decay, momentum and rate, each a multiply-add;
// cuBLAS scales in a pass of its own.
double operations_of(const Json& row) {
  return row.at("variant") == "cublas" ? 7 : 6;
}

// For the largest set, which no cache holds.
Chart roofline(const Json& results, const std::vector<Json>& rows) {
  Chart chart("Roofline", "operations per byte", "GFLOP/s");
  const Json& ceilings = results.at("ceilings");
  const double bytes = number(ceilings, "bytes_per_second");
  const double operations = number(ceilings, "operations_per_second");
  const double ridge = operations / bytes;
  constexpr double left = 0.05;
  const double right = 4 * ridge;
  chart.add("roof: memory and matrix product", Chart::Kind::limit, {"soft", 0},
            {{left, ridge, right}, {1e-9 * bytes * left, 1e-9 * operations, 1e-9 * operations}});
  double most = 0;
  for (const Json& row : rows) most = std::max(most, number(row, "parameters"));
  std::vector<std::vector<Cell>> numbers;
  std::size_t i = 0;
  for (const Json& row : rows) {
    if (number(row, "parameters") < most || !in_pictures(row) || is_cold(row)) continue;
    if (is_way(row, SubmitMode::ceiling) || !row.contains("bytes")) continue;
    const double per_byte = operations_of(row) * most / number(row, "bytes");
    const double gigaflops = operations_of(row) * most / (1e3 * number(row, "us"));
    const std::string label = label_of(row);
    chart.add(label, Chart::Kind::dots, style_of(i++), {{per_byte}, {gigaflops}});
    numbers.push_back({label, fmt::format("{:.3f}", per_byte), fmt::format("{:.1f}", gigaflops),
                       share_text(1e9 * gigaflops / (bytes * per_byte))});
  }
  chart.log_x().log_y().legend().numbers(
      table({"variant", "operations per byte", "GFLOP/s", "of the roof"}, numbers));
  return chart.caption(fmt::format(
      "The update of {:.0f} parameters. It is bound by memory: {:.1f} operations per byte would be "
      "needed to be bound by arithmetic.",
      most, ridge));
}

void add_sets(Page& page, const std::vector<Json>& all) {
  nlohmann::ordered_map<std::string, std::vector<Json>> sets;
  for (const Json& row : all) sets[scalar(row.at("set"))].push_back(row);
  page.add_heading("Every row");
  for (const auto& [set, rows] : sets) {
    const auto fused = std::ranges::find_if(
        rows, [](const Json& row) { return row.at("variant") == "fused" && is_main(row); });
    const double fused_us = fused == rows.end() ? 0 : number(*fused, "us");
    const bool has_launches = std::ranges::any_of(
        rows, [](const Json& row) { return row.at("us_over_empty").is_number(); });
    std::vector<std::vector<Cell>> cells;
    for (const Json& row : rows) {
      const double us = number(row, "us");
      cells.push_back(
          {label_of(row), scalar(row.at("how")),
           std::to_string(row.at("launches").get<std::int64_t>()), time_text(us), range_text(row),
           fused_us > 0
               ? fmt::format("{:+.2f} us ({:+.1f} %)", us - fused_us, 100 * (us / fused_us - 1))
               : "–",
           fmt::format("{:.1f}", number(row, "gigabytes_per_second")),
           share_text(number(row, "share_of_copy")), share_text(number(row, "share_of_traffic"))});
      if (!has_launches) continue;
      const bool in_graph = row.at("us_over_empty").is_number();
      cells.back().insert(cells.back().begin() + 5,
                          in_graph ? fmt::format("{:.2f} us", number(row, "us_over_empty")) : "–");
    }
    std::vector<std::string> heads = {
        "variant",       "how",  "launches", "median",    "least .. largest, us",
        "against fused", "GB/s", "of copy",  "of 3r + 2w"};
    if (has_launches) heads.insert(heads.begin() + 5, "over an empty node");
    page.add(folded(fmt::format("{}: {:.0f} parameters, {:.0f} tensors", set,
                                number(rows.back(), "parameters"), number(rows.back(), "tensors")),
                    table(heads, cells)));
  }
}

std::string update_page(const Json& results) {
  Page page;
  add_head(page, "The update", results);
  const auto rows = results.at("rows").get<std::vector<Json>>();
  std::vector<Json> pictured = rows;
  for (Json& row : peer_rows(results)) pictured.push_back(std::move(row));
  std::erase_if(pictured, [](const Json& row) { return !in_pictures(row); });

  std::vector<Chart> charts;
  std::vector<Json> single;
  std::set<double> sizes;
  for (const Json& row : pictured) {
    if (number(row, "tensors") != 1) continue;
    single.push_back(row);
    sizes.insert(number(row, "parameters"));
  }
  if (sizes.size() > 1) {
    charts.push_back(
        Chart("One tensor of growing size", "parameters", "GB/s")
            .log_x()
            .caption("Bytes that must be moved, over the time: small sets fit into the cache, very "
                     "small ones are done before the whole device is busy."));
    add_curves(charts.back(), by_variant(single, "parameters", "gigabytes_per_second"),
               "GB/s at parameters");
    charts.push_back(Chart("The same in time", "parameters", "microseconds").log_x().log_y());
    add_curves(charts.back(), by_variant(single, "parameters", "us"), "us at parameters");
  }
  // The sizes for which sets with several numbers of tensors exist.
  std::map<double, std::set<double>> counts;
  for (const Json& row : rows) counts[number(row, "parameters")].insert(number(row, "tensors"));
  for (const auto& [size, tensors] : counts) {
    if (tensors.size() < 2) continue;
    std::vector<Json> of_size;
    for (const Json& row : pictured) {
      if (number(row, "parameters") == size) of_size.push_back(row);
    }
    charts.push_back(Chart(fmt::format("{:.0f} parameters in growing numbers of tensors", size),
                           "tensors", "microseconds")
                         .log_x()
                         .log_y()
                         .caption("A single launch does not depend on their number."));
    add_curves(charts.back(), by_variant(of_size, "tensors", "us"), "us at tensors");
  }
  if (!rows.empty()) charts.push_back(roofline(results, rows));
  page.add_charts(charts);
  add_peers(page, results.at("peers"), "us");
  add_sets(page, rows);
  return page.document("The update");
}

// ---- The step ----------------------------------------------------------------------------------

struct Row {
  std::string name;
  double us = 0;
  double least = 0;  // what the limit allows; 0: no limit is known
};

bool is_on_gpu(const Json& results) {
  return results.at("launches").get<std::int64_t>() > 0;
}

// Dots in rows: the measured time and the limit; in microseconds or a unit that suits them.
Chart rows_chart(const std::string& title, const std::vector<Row>& rows) {
  double most = 0;
  for (const Row& row : rows) most = std::max(most, row.us);
  const auto [unit, name] = most > 1e4 ? std::pair(1e-3, "milliseconds")
                            : most < 1 ? std::pair(1e3, "nanoseconds")
                                       : std::pair(1.0, "microseconds");
  Chart chart(title, name, "");
  std::vector<std::string> names;
  Points measured;
  Points least;
  std::vector<std::vector<Cell>> numbers;
  for (const Row& row : rows) {
    const auto at = static_cast<double>(names.size());
    names.push_back(row.name);
    measured.add(unit * row.us, at);
    if (row.least > 0) {
      least.add(unit * row.least, at);
      chart.add("", Chart::Kind::limit, {"soft", 3}, {{unit * row.least, unit * row.us}, {at, at}});
    }
    numbers.push_back({row.name, fmt::format("{:.2f}", unit * row.us),
                       row.least > 0 ? fmt::format("{:.2f}", unit * row.least) : "–",
                       row.least > 0 ? share_text(row.least / row.us) : "–"});
  }
  chart.add("measured", Chart::Kind::dots, style_of(0), measured);
  if (!least.x.empty()) chart.add("what the limit allows", Chart::Kind::dots, style_of(1), least);
  chart.rows(names).legend().numbers(
      table({"", name, "what the limit allows", "of the limit"}, numbers));
  return chart;
}

// Which of memory and arithmetic would take longer by itself.
std::string limit_of(const Json& part, const Json& ceilings) {
  const double memory = number(part, "bytes") / number(ceilings, "bytes_per_second");
  const double arithmetic = number(part, "operations") / number(ceilings, "operations_per_second");
  return memory + arithmetic == 0 ? "–" : memory > arithmetic ? "memory" : "arithmetic";
}

// What each part, or all parts of each pass, did in which time. `names` are the keys that name it.
std::string parts_table(const Json& parts, const std::vector<std::string>& names,
                        const Json& results) {
  const bool are_single = names.size() > 1;
  std::vector<std::string> heads = names;
  for (const char* head : {"launches", "us", "least .. largest", "MB", "GB/s", "GFLOP/s"}) {
    heads.emplace_back(head);
  }
  if (are_single) heads.emplace_back("limited by");
  heads.emplace_back(are_single ? "of it" : "of its parts' limits");
  std::vector<std::vector<Cell>> rows;
  for (const Json& part : parts) {
    std::vector<Cell>& row = rows.emplace_back();
    for (const std::string& name : names) row.emplace_back(scalar(part.at(name)));
    row.emplace_back(is_on_gpu(results) ? text_at(part, "launches") : "–");
    row.emplace_back(fmt::format("{:.2f}", number(part, "us")));
    row.emplace_back(range_text(part));
    row.emplace_back(fmt::format("{:.2f}", 1e-6 * number(part, "bytes")));
    row.emplace_back(fmt::format("{:.1f}", number(part, "gigabytes_per_second")));
    const bool computes = number(part, "operations") > 0;
    row.emplace_back(computes ? fmt::format("{:.1f}", number(part, "gigaflops")) : "–");
    if (are_single) row.emplace_back(limit_of(part, results.at("ceilings")));
    row.emplace_back(share_text(number(part, "limit_us") / std::max(number(part, "us"), 1e-3)));
  }
  return table(heads, rows);
}

// The measurements of the step as a whole; fewer if it was interrupted.
std::vector<std::pair<std::string, std::string>> step_facts(const Json& results) {
  std::string batch = text_at(results, "batch");
  const std::string pass = text_at(results, "micro_batch");
  if (results.contains("micro_batch") && pass != batch) batch += " in passes of " + pass;
  std::vector<std::pair<std::string, std::string>> facts = {
      {"batch, precision", fmt::format("{}, {}", batch, text_at(results, "precision"))},
      {"first update", fmt::format("{:.2f} s after the start of the program",
                                   number(results, "first_update_seconds"))}};
  if (!results.contains("step_ms")) return facts;
  const Json& ms = results.at("step_ms");
  const double step = number(ms, "median");
  facts.emplace_back("step", spread_text(ms) + " ms");
  facts.emplace_back("images per second",
                     fmt::format("{:.0f}", number(results, "images_per_second")));
  facts.emplace_back("host time of a step", fmt::format("{:.2f} us", number(results, "host_us")));
  if (is_on_gpu(results)) facts.emplace_back("launches of a step", text_at(results, "launches"));
  if (!results.contains("parts_ms")) return facts;
  const auto add_share = [&](const char* name, const char* key) {
    facts.emplace_back(name, fmt::format("{:.4f} ms, {}", number(results, key),
                                         share_text(number(results, key) / step)));
  };
  add_share("traffic alone", "traffic_ms");
  add_share("arithmetic alone", "arithmetic_ms");
  facts.emplace_back("the parts, one after the other",
                     fmt::format("{:.4f} ms", number(results, "parts_ms")));
  return facts;
}

std::string step_page(const Json& results) {
  Page page;
  add_head(page, fmt::format("A step of {}", text_at(results, "network")), results);
  page.add(terms(step_facts(results)));

  if (!results.at("works").empty()) {
    std::vector<Row> works;
    for (const Json& work : results.at("works")) {
      works.push_back({scalar(work.at("work")) + ", " + scalar(work.at("pass")), number(work, "us"),
                       number(work, "limit_us")});
    }
    std::ranges::stable_sort(works, std::ranges::greater(), &Row::us);
    page.add_charts(
        {rows_chart("Where the time goes", works)
             .caption(
                 "The limit of a part is the slower of its bytes at the rate of the memory and its "
                 "operations at the rate of a large matrix product, both measured in this run; "
                 "data in a cache can be faster.")});
  }

  if (!results.at("replicas").empty()) {
    Points factors;
    Points ideal;
    std::vector<std::vector<Cell>> numbers;
    for (const Json& r : results.at("replicas")) {
      factors.add(number(r, "count"), number(r, "times_one"));
      ideal.add(number(r, "count"), number(r, "count"));
      numbers.push_back({text_at(r, "count"),
                         fmt::format("{:.1f}", number(r, "updates_per_second")),
                         fmt::format("{:.0f}", number(r, "images_per_second")),
                         fmt::format("{:.2f}", number(r, "times_one"))});
    }
    Chart chart("Replicas at the same time", "replicas", "times the throughput of one");
    chart.add("measured", Chart::Kind::line, style_of(0), factors);
    chart.add("as many times", Chart::Kind::limit, {"soft", 0}, ideal);
    chart.log_x().log_y().legend().numbers(
        table({"replicas", "updates a second", "images a second", "times one"}, numbers));
    page.add_charts({chart});
  }
  add_peers(page, results.at("peers"), "ms");
  if (const Json& passes = results.at("passes"); !passes.empty()) {
    page.add_heading("Forward, backward, update");
    page.add(parts_table(passes, {"pass"}, results));
  }
  if (const Json& parts = results.at("parts"); !parts.empty()) {
    page.add_heading("Every part");
    page.add(parts_table(parts, {"layer", "pass", "work"}, results));
  }
  return page.document("A step");
}

// ---- The schedule ------------------------------------------------------------------------------

std::string schedule_page(const Json& results) {
  Page page;
  add_head(page, "The schedule", results);
  std::vector<Row> shapes;
  std::vector<std::string> heads = {"schedule", "lr_at on the host, ns", "least .. largest"};
  std::vector<std::vector<Cell>> cells;
  for (const Json& s : results.at("schedules")) {
    shapes.push_back({scalar(s.at("name")), 1e-3 * number(s, "median_ns")});
    std::vector<Cell> row = {
        scalar(s.at("name")), fmt::format("{:.1f}", number(s, "median_ns")),
        fmt::format("{:.1f} .. {:.1f}", number(s, "least_ns"), number(s, "largest_ns"))};
    for (const Json& in_step : s.at("in_step")) {
      if (cells.empty()) {
        heads.push_back(fmt::format("update of {}, us", text_at(in_step, "parameters")));
        heads.emplace_back("more than constant");
      }
      row.emplace_back(fmt::format("{:.2f}", number(in_step, "us")));
      row.emplace_back(fmt::format("{:+.2f} us ({:+.2f} %)",
                                   number(in_step, "more_than_constant_us"),
                                   100 * number(in_step, "more_than_constant_share")));
    }
    cells.push_back(std::move(row));
  }
  if (!shapes.empty()) {
    page.add_charts({rows_chart("One evaluation on the host", shapes)});
    page.add_heading("By shape");
    page.add(table(heads, cells));
  }
  return page.document("The schedule");
}

}  // namespace

std::string bench_page(const Json& results) {
  const std::string bench = text_at(results, "bench");
  if (bench == "update") return update_page(results);
  if (bench == "step") return step_page(results);
  if (bench == "schedule") return schedule_page(results);
  throw Error(fmt::format("'{}' is not a bench", bench));
}

}  // namespace preheat
