#include "report/page_parts.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "report/label_text.h"

namespace preheat {
namespace {

constexpr std::string_view style =
    R"(:root{color-scheme:light dark;--back:#fff;--ink:#1b1f24;--soft:#5a626b;--line:#d7dbe0;
--link:#0a58a8;--good:#1a7f37;--warn:#9a6700;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--back:#15181c;--ink:#e8eaed;--soft:#a3abb5;
--line:#363c44;--link:#79b8ff;--good:#56c271;--warn:#e3b341;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.25rem 1rem 3rem;background:var(--back);
color:var(--ink);font:1rem/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2rem 0 .5rem}
h1 small,.soft,figcaption,footer{color:var(--soft);font-weight:400}
figcaption,footer,.soft{font-size:.85rem}
.outcome{margin:.75rem 0 1.25rem;padding:.5rem .9rem;border-left:.3rem solid var(--soft)}
.ok{border-color:var(--good)}.spiked{border-color:var(--warn)}
.stuck,.non_finite{border-color:var(--bad)}
td.stuck,td.non_finite{color:var(--bad)}td.spiked{color:var(--warn)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.7rem 1rem;margin:0}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));
gap:1.25rem;margin:1.75rem 0}
figure{margin:0;break-inside:avoid}
svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem 1.1rem .25rem 0;text-align:left;vertical-align:top;white-space:nowrap}
thead th{border-bottom:1px solid var(--line);color:var(--soft);font-size:.85rem;font-weight:400}
tbody th{font-weight:600}
tr{break-inside:avoid}
a{color:var(--link)}
summary{cursor:pointer;font-size:1.1rem;font-weight:600}
details{margin:2rem 0}
pre{overflow-x:auto;padding:.9rem;border:1px solid var(--line);font-size:.85rem;line-height:1.4}
footer{margin-top:2rem;padding-top:.75rem;border-top:1px solid var(--line)}
@media print{html{font-size:11px}body{max-width:none;padding:0}a{color:inherit}
details::details-content{display:block;content-visibility:visible}pre{white-space:pre-wrap}
.panels{grid-template-columns:1fr 1fr}}
)";

}  // namespace

std::string plain(Number value) {
  return value ? fmt::format("{:#.4g}", *value) : "–";
}

std::string percent(Number share) {
  return share ? fmt::format("{:.2f} %", 100 * *share) : "–";
}

std::string not_finite_at(std::optional<std::int64_t> step) {
  return step ? fmt::format("not finite at step {}", *step) : "not finite";
}

std::string page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
      escape(title), style, body);
}

std::string table(const std::vector<std::string>& heads,
                  const std::vector<std::vector<Cell>>& rows) {
  std::string html = "<div class=\"wide\"><table>\n<thead><tr>";
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

std::string figure(const LinePlot& plot, const std::string& caption) {
  return fmt::format("<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n",
                     to_svg({plot}, 480, 330), escape(caption));
}

std::string configuration(const std::filesystem::path& folder) {
  std::string html = "<details>\n<summary>Configuration</summary>\n<pre>";
  const std::string text = read_file(folder / "config.yaml");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    html += escape(std::string_view(text).substr(begin, end - begin)) + "\n";
    begin = end + 1;
  }
  return html + "</pre>\n</details>\n";
}

Curve means(const std::string& label, int color, const std::vector<double>& x,
            const std::vector<double>& y, std::size_t window) {
  Curve curve{label, {}, {}, color, false};
  double sum = 0;
  std::size_t first = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const bool finite = std::isfinite(y[i]);
    if (finite) sum += y[i];
    const std::size_t end = finite ? i + 1 : i;
    if (end > first && (end - first == window || i + 1 == y.size() || !finite)) {
      curve.x.push_back((x[first] + x[end - 1]) / 2);
      curve.y.push_back(sum / static_cast<double>(end - first));
    }
    if (!finite) {
      curve.x.push_back(x[i]);
      curve.y.push_back(y[i]);
    }
    if (!finite || i + 1 - first == window) {
      first = i + 1;
      sum = 0;
    }
  }
  return curve;
}

std::string cap_losses(LinePlot& plot, double times_first) {
  double first = 0;
  double largest = 0;
  for (const Curve& curve : plot.curves) {
    if (!curve.y.empty() && std::isfinite(curve.y[0])) first = std::max(first, curve.y[0]);
    for (const double y : curve.y) {
      if (std::isfinite(y)) largest = std::max(largest, y);
    }
  }
  const double most = times_first * first;
  if (first <= 0 || largest <= most) return "";
  plot.y_max = most;
  return fmt::format(" Losses over {:.3g} are drawn at the upper edge, the largest is {:.2g}.",
                     most, largest);
}

}  // namespace preheat
