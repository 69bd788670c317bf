#include "report/experiment_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "experiment/statistics.h"
#include "report/arm_outcomes.h"
#include "train/json_file.h"

namespace preheat {
namespace {

// The search of an arm at a seed; null if it has not ended.
const Json* search_at(const Json& arm, const Json& seed) {
  for (const Json& search : arm.at("searches")) {
    if (search.at("seed") == seed) return &search;
  }
  return nullptr;
}

// Null if the search did not get there.
Number largest_rate(const Json& arm, const Json& seed) {
  const Json* const search = search_at(arm, seed);
  return search != nullptr ? optional_at<double>(*search, "largest") : std::nullopt;
}

// Whether no rate can train. Older files do not say.
bool is_not_finite_at_start(const Json& arm, const Json& seed) {
  const Json* const search = search_at(arm, seed);
  return search != nullptr && search->value("not_finite_at_start", false);
}

// A rate that the initial weights of a network suggest, by seed: those of `arm` and of the arms
// that have the same.
struct InitialRates {
  const char* name;
  std::string arm;
  std::vector<std::pair<Json, Number>> rates;

  Number at(const Json& seed) const {
    const auto found = std::ranges::find(rates, seed, &std::pair<Json, Number>::first);
    return found == rates.end() ? std::nullopt : found->second;
  }
  bool any() const {
    return std::ranges::any_of(rates,
                               [](const auto& of_seed) { return of_seed.second.has_value(); });
  }
};

struct NetworkRates {
  InitialRates critical;
  InitialRates stable;  // 2 / sharpness; older files have none
};

std::vector<NetworkRates> networks_of(const Json& result) {
  std::vector<NetworkRates> networks;
  for (const Json& entry : result.at("critical_rates")) {
    const std::string arm =
        scalar(entry.contains("arm") ? entry.at("arm") : result.at("arms").at(0).at("name"));
    auto network = std::ranges::find_if(
        networks, [&](const NetworkRates& known) { return known.critical.arm == arm; });
    if (network == networks.end()) {
      const NetworkRates none{{"critical rate", arm, {}}, {"2 / sharpness", arm, {}}};
      network = networks.insert(network, none);
    }
    const Json& seed = entry.at("seed");
    network->critical.rates.emplace_back(seed, optional_at<double>(entry, "rate"));
    if (!entry.contains("sharpness")) continue;
    const Number sharpness = optional_at<double>(entry, "sharpness");
    network->stable.rates.emplace_back(
        seed, sharpness && *sharpness > 0 ? Number(2 / *sharpness) : std::nullopt);
  }
  return networks;
}

// The columns of a table: the critical rate of every network, and 2 / sharpness where there is one.
std::vector<const InitialRates*> columns_of(const std::vector<NetworkRates>& networks) {
  std::vector<const InitialRates*> columns;
  for (const NetworkRates& network : networks) {
    columns.push_back(&network.critical);
    if (network.stable.any()) columns.push_back(&network.stable);
  }
  return columns;
}

// The seeds that have a critical rate, or would have one if there were any, in their order.
std::vector<Json> seeds_of(const Json& result) {
  std::vector<Json> seeds;
  for (const Json& entry : result.at("critical_rates")) {
    const Json& seed = entry.at("seed");
    if (std::ranges::find(seeds, seed) == seeds.end()) seeds.push_back(seed);
  }
  return seeds;
}

// The arms of each network, in their order: those with the initial weights of the same arm. One
// list of all arms if there are no networks, or the file does not say whose weights an arm has.
std::vector<std::vector<const Json*>> arms_of(const Json& result,
                                              const std::vector<NetworkRates>& networks) {
  std::vector<std::vector<const Json*>> arms(std::max<std::size_t>(1, networks.size()));
  for (const Json& arm : result.at("arms")) {
    const auto network = std::ranges::find_if(networks, [&](const NetworkRates& one) {
      return arm.contains("critical_rate") &&
             scalar(arm.at("critical_rate").at("arm")) == one.critical.arm;
    });
    arms[network == networks.end() ? 0 : network - networks.begin()].push_back(&arm);
  }
  return arms;
}

void add_points(Chart& chart, const std::string& label, const Style& style, const Points& points) {
  if (!points.x.empty()) chart.add(label, Chart::Kind::dots, style, points);
}

// The largest rates of the arms of a network, a row per seed, and those that its initial weights
// suggest, if there are any. No two kinds of points have the same shape.
Chart search_chart(const std::string& title, const std::vector<const Json*>& arms,
                   const NetworkRates* network, const std::vector<Json>& seeds) {
  Chart chart(title, "base learning rate", "");
  std::vector<std::string> rows;
  std::vector<Points> dots(arms.size());
  Points critical;
  Points stable;
  for (const Json& seed : seeds) {
    const auto row = static_cast<double>(rows.size());
    rows.push_back("seed " + scalar(seed));
    Points link;
    for (std::size_t i = 0; i < arms.size(); ++i) {
      const Number largest = largest_rate(*arms[i], seed);
      if (!largest) continue;
      for (Points* points : {&dots[i], &link}) points->add(*largest, row);
    }
    if (link.x.size() > 1) chart.add("", Chart::Kind::limit, {"soft", 3}, link);
    if (network == nullptr) continue;
    if (const Number rate_here = network->critical.at(seed)) critical.add(*rate_here, row);
    if (const Number rate_here = network->stable.at(seed)) stable.add(*rate_here, row);
  }
  for (std::size_t i = 0; i < arms.size(); ++i) {
    add_points(chart, scalar(arms[i]->at("name")), style_of(i), dots[i]);
  }
  const int pattern = static_cast<int>(std::max<std::size_t>(3, arms.size()));
  add_points(chart, "critical rate of the initial weights", {"soft", pattern}, critical);
  add_points(chart, "2 / sharpness of the initial weights", {"ink", pattern + 1}, stable);
  chart.log_x().rows(rows).legend();
  return chart;
}

// One chart per network, all on one axis.
void add_search_charts(Page& page, const Experiment& e, const std::vector<NetworkRates>& networks,
                       const std::string& numbers) {
  const std::vector<std::vector<const Json*>> arms = arms_of(e.result, networks);
  const std::string heading = "The largest base rate that trains";
  const bool any_stable =
      std::ranges::any_of(networks, [](const NetworkRates& n) { return n.stable.any(); });
  const std::string explanation = fmt::format(
      "A line joins the arms of a seed. The critical rate is the step along the gradient from the "
      "initial weights {}that raises the loss by a tenth{}. Where a search found no rate that "
      "trains, the seed has no point for that arm and – in the table, or “not finite” if the loss "
      "or its gradient is so at the initial weights, where no rate can train.",
      networks.size() == 1 ? fmt::format("of {} ", networks.front().critical.arm) : "",
      any_stable ? "; above 2 / sharpness, of the same weights, gradient descent diverges on a "
                   "quadratic as sharp as the loss there"
                 : "");
  const std::vector<Json> seeds = seeds_of(e.result);
  if (networks.size() < 2) {
    Chart chart =
        search_chart(heading, arms.front(), networks.empty() ? nullptr : &networks.front(), seeds);
    page.add_charts({chart.numbers(numbers).caption(explanation)});
    return;
  }
  std::vector<Chart> charts;
  double least = std::numeric_limits<double>::infinity();
  double largest = 0;
  for (std::size_t i = 0; i < networks.size(); ++i) {
    std::string title;
    for (const Json* arm : arms[i]) title += (title.empty() ? "" : ", ") + scalar(arm->at("name"));
    Chart chart = search_chart(title, arms[i], &networks[i], seeds);
    if (chart.empty()) continue;
    charts.push_back(std::move(chart));
    for (const Json& series : charts.back().json().at("series")) {
      for (const Json& x : series.at("x")) {
        least = std::min(least, get_as<double>(x));
        largest = std::max(largest, get_as<double>(x));
      }
    }
  }
  for (Chart& chart : charts) chart.span_x(least, largest).numbers(numbers);
  page.add_heading(heading);
  page.add(
      fmt::format("<p class=\"soft\">{} Arms with the same network, data and loss share what "
                  "is measured of their initial weights.</p>\n",
                  explanation));
  page.add_charts(charts);
}

std::string search_table(const Experiment& e, const std::vector<NetworkRates>& networks) {
  const std::vector<const InitialRates*> columns = columns_of(networks);
  std::vector<std::string> heads = {"seed"};
  for (const Json& arm : e.result.at("arms")) heads.push_back(arm.at("name").get<std::string>());
  for (const InitialRates* column : columns) {
    heads.push_back(networks.size() > 1 ? fmt::format("{}, {}", column->name, column->arm)
                                        : column->name);
  }
  std::vector<std::vector<Cell>> rows;
  std::vector<std::vector<double>> all(e.result.at("arms").size());
  for (const Json& seed : seeds_of(e.result)) {
    std::vector<Cell> row = {scalar(seed)};
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Json& arm = e.result.at("arms").at(i);
      const Number largest = largest_rate(arm, seed);
      if (largest) all[i].push_back(*largest);
      row.emplace_back(is_not_finite_at_start(arm, seed) ? "not finite" : rate(largest));
    }
    for (const InitialRates* column : columns) row.emplace_back(rate(column->at(seed)));
    rows.push_back(std::move(row));
  }
  std::vector<Cell> medians = {"median"};
  for (const std::vector<double>& rates : all) {
    medians.emplace_back(Markup{fmt::format(
        "{}<br/><small>n = {}</small>", rates.empty() ? "–" : rate(median(rates)), rates.size())});
  }
  medians.insert(medians.end(), columns.size(), "");
  rows.push_back(std::move(medians));
  return table(heads, rows);
}

// Whether the initial weights tell which seed of an arm can take more. Nothing where no arm has
// enough seeds for it.
void add_correlations(Page& page, const Json& result) {
  std::vector<std::vector<Cell>> rows;
  const auto add_row = [&](const Json& arm, const char* key, const char* name) {
    if (!arm.contains(key)) return;
    const Json& found = arm.at(key);
    const Number rho = optional_at<double>(found, "rank_correlation");
    if (!rho) return;
    rows.push_back({scalar(arm.at("name")), name, scalar(found.at("arm")),
                    fmt::format("{:.2f}", *rho),
                    fmt::format("{:.2g}", get_as<double>(found.at("p"))),
                    std::to_string(get_as<std::int64_t>(found.at("n")))});
  };
  for (const Json& arm : result.at("arms")) {
    add_row(arm, "critical_rate", "critical rate");
    add_row(arm, "two_over_sharpness", "2 / sharpness");
  }
  if (rows.empty()) return;
  page.add_heading("The initial weights against the largest rate");
  page.add(table({"arm", "rate", "of", "rank correlation", "p", "seeds"}, rows) +
           "<p class=\"soft\">Spearman's over the seeds that have both rates, with its two-sided "
           "permutation p, not corrected for the number of arms.</p>\n");
}

void add_ratios(Page& page, const Json& result) {
  if (result.at("ratios").empty()) return;
  std::vector<std::vector<Cell>> rows;
  for (const Json& r : result.at("ratios")) {
    const Number mean = optional_at<double>(r, "log2_mean");
    const auto octaves = interval_at(r, "interval");
    rows.push_back(
        {fmt::format("{} over {}", scalar(r.at("arms").at(1)), scalar(r.at("arms").at(0))),
         mean ? fmt::format("{:.2f}", std::exp2(*mean)) : "–",
         octaves ? to_string(Interval{std::exp2(octaves->lo), std::exp2(octaves->hi)})
         : mean  ? "too few seeds"
                 : "–",
         std::to_string(get_as<std::int64_t>(r.at("n")))});
  }
  page.add_heading("Ratio of the largest rates");
  page.add(
      table({"arms", "ratio", "95 % interval", "seeds"}, rows) +
      "<p class=\"soft\">Geometric mean over seeds, with a bootstrap interval over the same seeds, "
      "which needs five.</p>\n");
}

std::string tried_table(const Json& arm) {
  std::vector<std::vector<Cell>> rows;
  for (const Json& search : arm.at("searches")) {
    for (const Json& trial : search.at("tried")) {
      rows.push_back({scalar(search.at("seed")), rate(trial.at("lr").get<double>()),
                      trial.at("trained").get<bool>() ? "yes" : "no",
                      outcome_cell(trial.at("outcome").get<std::string>()),
                      plain(optional_at<double>(trial, "final_train_loss")),
                      percent(optional_at<double>(trial, "test_accuracy"))});
    }
  }
  return table({"seed", "base rate", "trained", "outcome", "final training loss", "test accuracy"},
               rows);
}

// The result of a tried rate, from good to bad.
struct TriedKind {
  const char* label;
  Style style;
};
constexpr std::size_t tried_kinds = 4;
const std::array<TriedKind, tried_kinds> kinds_of_tried{
    {{"trains", {"ok", 0}},
     {"finite, its loss too high", {"spiked", 1}},
     {"stuck", {"stuck", 2}},
     {"not finite", {"non_finite", 5}}}};  // a cross, as elsewhere

std::size_t kind_of(const Json& trial) {
  if (trial.at("trained").get<bool>()) return 0;
  const auto outcome = trial.at("outcome").get<std::string>();
  return outcome == "non_finite" ? 3 : outcome == "stuck" ? 2 : 1;
}

// One chart per arm, all on one axis: where each seed's boundary lies, and how sharp it is.
void add_tried_charts(Page& page, const Json& result) {
  double least = std::numeric_limits<double>::infinity();
  double largest = 0;
  std::vector<Chart> charts;
  for (const Json& arm : result.at("arms")) {
    std::vector<std::string> seeds;
    std::array<Points, tried_kinds> points;
    std::size_t runs = 0;
    for (const Json& search : arm.at("searches")) {
      for (const Json& trial : search.at("tried")) {
        const auto lr = trial.at("lr").get<double>();
        least = std::min(least, lr);
        largest = std::max(largest, lr);
        points[kind_of(trial)].add(lr, static_cast<double>(seeds.size()));
        ++runs;
      }
      seeds.push_back("seed " + scalar(search.at("seed")));
    }
    Chart chart(arm.at("name").get<std::string>(), "base learning rate", "");
    for (std::size_t kind = 0; kind < tried_kinds; ++kind) {
      if (points[kind].x.empty()) continue;
      const auto& [label, style] = kinds_of_tried[kind];
      chart.add(label, Chart::Kind::dots, style, points[kind]);
    }
    if (chart.empty()) continue;
    chart.log_x()
        .rows(seeds)
        .legend()
        .numbers(tried_table(arm))
        .caption(fmt::format("One point per run, n = {}.", runs));
    charts.push_back(std::move(chart));
  }
  if (charts.empty()) return;
  for (Chart& chart : charts) chart.span_x(least, largest);
  page.add_charts(charts, "Every rate that was tried");
}

}  // namespace

void add_search(Page& page, const Experiment& e) {
  const std::vector<NetworkRates> networks = networks_of(e.result);
  const std::string numbers = search_table(e, networks);
  const bool is_one = networks.size() < 2;
  page.add(is_one ? "<div class=\"beside\">\n<div>\n" + numbers + "</div>\n" : numbers);
  add_search_charts(page, e, networks, numbers);
  if (is_one) page.add("</div>\n");
  add_ratios(page, e.result);
  add_correlations(page, e.result);
  add_tried_charts(page, e.result);
}

}  // namespace preheat
