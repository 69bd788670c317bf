#include "report/chart.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <utility>

#include "report/label_text.h"

namespace preheat {
namespace {

// Six digits are more than a screen shows and half the size of full precision.
Json short_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

Json short_numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(short_number(value));
  return list;
}

const char* name_of(Chart::Kind kind) {
  switch (kind) {
    case Chart::Kind::raw:
      return "raw";
    case Chart::Kind::mean:
      return "mean";
    case Chart::Kind::line:
      return "line";
    case Chart::Kind::median:
      return "median";
    case Chart::Kind::dots:
      return "dots";
    case Chart::Kind::limit:
      return "limit";
  }
  return "";
}

Cell value_at(Number value, Number at) {
  if (!value) return "–";
  return Markup{fmt::format("{:.4g} <small>at {:.10g}</small>", *value, *at)};
}

}  // namespace

Style style_of(std::size_t i) {
  return {fmt::format("c{}", i % 7), static_cast<int>(i % 35)};
}

Chart::Chart(std::string title, std::string x, std::string y) {
  json_ = {{"title", std::move(title)},
           {"x", std::move(x)},
           {"y", std::move(y)},
           {"series", Json::array()}};
}

Chart& Chart::log_y() {
  json_["log"] = true;
  return *this;
}

Chart& Chart::log_x() {
  json_["xlog"] = true;
  return *this;
}

Chart& Chart::path() {
  json_["path"] = true;
  return *this;
}

Chart& Chart::cap_y(double most) {
  json_["cap"] = short_number(most);
  return *this;
}

Chart& Chart::span_x(double least, double largest) {
  json_["xspan"] = {short_number(least), short_number(largest)};
  return *this;
}

Chart& Chart::span_y(double least, double largest) {
  json_["span"] = {short_number(least), short_number(largest)};
  return *this;
}

Chart& Chart::rows(const std::vector<std::string>& names) {
  for (const std::string& name : names) json_["rows"].push_back(clean(name));
  return *this;
}

Chart& Chart::band(const std::string& name, double from, double to) {
  json_["bands"].push_back({{"label", clean(name)}, {"from", from}, {"to", to}});
  return *this;
}

Chart& Chart::mark(const std::string& label, const Style& style, double at,
                   const std::vector<int>& facets) {
  json_["marks"].push_back({{"label", clean(label)},
                            {"color", style.color},
                            {"pattern", style.pattern},
                            {"at", short_number(at)},
                            {"facets", facets}});
  return *this;
}

Chart& Chart::legend() {
  json_["legend"] = true;
  return *this;
}

Chart& Chart::caption(const std::string& text) {
  caption_ += (caption_.empty() ? "" : " ") + text;
  return *this;
}

Chart& Chart::fold(std::string summary) {
  fold_ = std::move(summary);
  return *this;
}

Chart& Chart::numbers(std::string html) {
  numbers_ = std::move(html);
  return *this;
}

void Chart::add(const std::string& label, Kind kind, const Style& style, const Points& points,
                const std::vector<int>& facets) {
  json_["series"].push_back({{"label", clean(label)},
                             {"kind", name_of(kind)},
                             {"color", style.color},
                             {"pattern", style.pattern},
                             {"facets", facets},
                             {"x", short_numbers(points.x)},
                             {"y", short_numbers(points.y)}});
}

void Chart::add(const std::string& label, const Style& style, const Series& series,
                const std::vector<int>& facets, Kind kind) {
  add(label, kind, style, series.points, facets);
  if (kind == Kind::raw && !series.means.x.empty()) {
    add(fmt::format("{}, mean of {}", label, series.window), Kind::mean, style, series.means,
        facets);
    json_["series"].back()["of"] = clean(label);
  }
  const SeriesFacts& f = series.facts;
  facts_.push_back({label, std::to_string(f.values), plain(f.first), value_at(f.least, f.least_at),
                    value_at(f.largest, f.largest_at), plain(f.last),
                    f.not_finite_at ? fmt::format("from {:.10g}", *f.not_finite_at) : "–"});
}

void Chart::add(const std::string& label, const Style& style, const SeedSpread& spread,
                std::size_t most, const std::vector<int>& facets) {
  const SeedSpread drawn = thinned(spread, most);
  Series median;
  median.points = {drawn.x, drawn.median};
  median.facts = facts_of(spread.x, spread.median);
  add(label, style, median, facets, Kind::median);
  Json& series = json_.at("series").back();
  series["least"] = short_numbers(drawn.least);
  series["largest"] = short_numbers(drawn.largest);
  series["finite"] = short_numbers(drawn.finite);
}

void Chart::add(const std::string& label, const Style& style, double x, std::size_t row,
                const Interval& bar) {
  add(label, Kind::dots, style, Points{{x}, {static_cast<double>(row)}});
  Json& series = json_.at("series").back();
  series["least"] = short_numbers({bar.lo});
  series["largest"] = short_numbers({bar.hi});
}

std::string Chart::figure(std::size_t index) const {
  const std::string table_html =
      numbers_.empty()
          ? table({"series", "values", "first", "least", "largest", "last", "not finite"}, facts_)
          : numbers_;
  return fmt::format(
      "<figure data-chart=\"{}\">\n<figcaption><strong>{}</strong> {}</figcaption>\n"
      "<div class=\"plot\"></div>\n{}</figure>\n",
      index, escape(json_.at("title").get<std::string>()), escape(caption_),
      folded("Numbers", table_html));
}

}  // namespace preheat
