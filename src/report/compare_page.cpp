#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "config/document.h"
#include "report/label_text.h"
#include "report/page.h"
#include "report/page_parts.h"

namespace preheat {
namespace {

using Path = std::filesystem::path;

struct ComparedRun {
  std::uint64_t seed = 0;
  std::string outcome;
  std::optional<std::int64_t> first_non_finite_step;
  Number final_train_loss;
  Number test_accuracy;

  bool failed() const { return outcome == "non_finite" || outcome == "stuck"; }
};

struct ComparedArm {
  std::string name;
  std::vector<std::pair<std::string, std::string>> overrides;
  std::int64_t failures = 0;
  std::string interval;
  std::vector<ComparedRun> runs;

  auto count(std::string_view outcome) const {
    return std::ranges::count(runs, outcome, &ComparedRun::outcome);
  }
};

struct ComparedPair {
  std::string first;
  std::string second;
  Number mcnemar_p;
};

struct Comparison {
  std::vector<ComparedArm> arms;
  std::vector<ComparedPair> pairs;
  bool interrupted = false;
};

ComparedArm read_arm(const Json& json) {
  ComparedArm arm;
  arm.name = json.at("name").get<std::string>();
  for (const auto& [key, value] : json.at("overrides").items()) {
    arm.overrides.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  arm.failures = json.at("failures").get<std::int64_t>();
  const Json& interval = json.at("failure_interval");
  arm.interval = interval.is_null() ? "–"
                                    : fmt::format("[{:.2f}, {:.2f}]", interval.at(0).get<double>(),
                                                  interval.at(1).get<double>());
  for (const Json& run : json.at("runs")) {
    arm.runs.push_back({run.at("seed").get<std::uint64_t>(), run.at("outcome").get<std::string>(),
                        optional_at<std::int64_t>(run, "first_non_finite_step"),
                        optional_at<double>(run, "final_train_loss"),
                        optional_at<double>(run, "test_accuracy")});
  }
  return arm;
}

Comparison read_comparison(const Path& path) {
  Comparison result = read_json(path, [](const Json& json) {
    Comparison c;
    for (const Json& arm : json.at("arms")) c.arms.push_back(read_arm(arm));
    for (const Json& pair : json.at("paired")) {
      c.pairs.push_back({pair.at("arms").at(0).get<std::string>(),
                         pair.at("arms").at(1).get<std::string>(),
                         optional_at<double>(pair, "mcnemar_p")});
    }
    c.interrupted = json.value("interrupted", false);
    return c;
  });
  for (const ComparedArm& arm : result.arms) {
    if (arm.name.empty() || arm.name.starts_with('.') || arm.name.find('/') != std::string::npos) {
      throw Error(fmt::format("{}: is damaged: '{}' cannot be an arm's folder", path.string(),
                              clean(arm.name, 40)));
    }
  }
  for (const ComparedPair& pair : result.pairs) {
    for (const std::string& name : {pair.first, pair.second}) {
      if (std::ranges::find(result.arms, name, &ComparedArm::name) == result.arms.end()) {
        throw Error(
            fmt::format("{}: is damaged: there is no arm '{}'", path.string(), clean(name, 40)));
      }
    }
  }
  return result;
}

// "85.02 % (84.10 .. 85.90), n = 7" over the runs that did not fail.
std::string accuracy_of_the_others(const ComparedArm& arm) {
  std::vector<double> accuracies;
  for (const ComparedRun& run : arm.runs) {
    if (!run.failed() && run.test_accuracy) accuracies.push_back(*run.test_accuracy);
  }
  if (accuracies.empty()) return "– (n = 0)";
  std::ranges::sort(accuracies);
  const std::size_t n = accuracies.size();
  return fmt::format("{} ({:.2f} .. {:.2f}), n = {}",
                     percent((accuracies[(n - 1) / 2] + accuracies[n / 2]) / 2),
                     100 * accuracies.front(), 100 * accuracies.back(), n);
}

std::string arms_table(const Comparison& c) {
  std::vector<std::vector<Cell>> rows;
  for (const ComparedArm& arm : c.arms) {
    std::string changes;
    for (const auto& [key, value] : arm.overrides) {
      changes += fmt::format("{}<code>{}: {}</code>", changes.empty() ? "" : "<br/>", escape(key),
                             escape(value));
    }
    rows.push_back({escape(arm.name),
                    std::to_string(arm.runs.size()),
                    {std::to_string(arm.failures), arm.failures > 0 ? "stuck" : ""},
                    arm.interval,
                    std::to_string(arm.count("non_finite")),
                    std::to_string(arm.count("stuck")),
                    accuracy_of_the_others(arm),
                    changes.empty() ? "as configured" : changes});
  }
  return table({"arm", "n runs", "failed", "95 % interval", "not finite", "stuck",
                "test accuracy of the others: median (range)", "overrides"},
               rows);
}

std::string in_words(const ComparedPair& pair, const Comparison& c) {
  const auto& first = *std::ranges::find(c.arms, pair.first, &ComparedArm::name);
  const auto& second = *std::ranges::find(c.arms, pair.second, &ComparedArm::name);
  int n = 0;
  int only_first = 0;
  int only_second = 0;
  for (const ComparedRun& run : first.runs) {
    const auto other = std::ranges::find(second.runs, run.seed, &ComparedRun::seed);
    if (other == second.runs.end()) continue;
    ++n;
    only_first += run.failed() && !other->failed() ? 1 : 0;
    only_second += other->failed() && !run.failed() ? 1 : 0;
  }
  return fmt::format(
      "<strong>{0}</strong> against <strong>{1}</strong>: n = {2} seeds, {3} failed only under "
      "{0}, {4} only under {1}; exact McNemar p = {5}",
      escape(pair.first), escape(pair.second), n, only_first, only_second,
      pair.mcnemar_p ? fmt::format("{:.2g}", *pair.mcnemar_p) : "–");
}

// A folder's name as a part of a link.
std::string link_part(const std::string& name) {
  std::string part;
  for (const char c : name) {
    const bool safe = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_' || c == '.';
    part += safe ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return part;
}

std::string runs_table(const Comparison& c) {
  std::vector<std::vector<Cell>> rows;
  for (const ComparedArm& arm : c.arms) {
    for (const ComparedRun& run : arm.runs) {
      const bool known = run.outcome == "ok" || run.outcome == "spiked" || run.failed();
      rows.push_back({escape(arm.name),
                      fmt::format("<a href=\"{}/{}/report.html\">seed {}</a>", link_part(arm.name),
                                  run.seed, run.seed),
                      {run.outcome == "non_finite" ? not_finite_at(run.first_non_finite_step)
                                                   : escape(run.outcome),
                       known ? run.outcome : ""},
                      plain(run.final_train_loss),
                      percent(run.test_accuracy)});
    }
  }
  return table({"arm", "run", "outcome", "training loss, last 50", "test accuracy"}, rows);
}

std::string comparison_figures(const Comparison& c, const Path& folder) {
  LinePlot loss;
  loss.title = "Training loss, one line a run";
  loss.x_label = "update";
  loss.y_label = "loss";
  loss.log_y = true;
  LinePlot rate;
  rate.title = "Learning rate";
  rate.x_label = "update";
  rate.y_label = "learning rate";
  std::vector<std::string> counts;
  std::size_t runs = 0;
  for (std::size_t i = 0; i < c.arms.size(); ++i) {
    const ComparedArm& arm = c.arms[i];
    const int color = static_cast<int>(i);
    Curve longest{arm.name, {}, {}, color, false};
    for (const ComparedRun& run : arm.runs) {
      Metrics m = read_metrics(folder / arm.name / std::to_string(run.seed) / "metrics.csv");
      // At most some 200 points a run, so that a page of many runs stays small.
      loss.curves.push_back(
          means(arm.name, color, m.step, m.loss, std::max<std::size_t>(1, m.step.size() / 200)));
      loss.curves.back().faint = true;
      if (m.step.size() > longest.x.size()) {
        longest.x = std::move(m.step);
        longest.y = std::move(m.lr);
      }
    }
    runs += arm.runs.size();
    counts.push_back(fmt::format("{} {}", arm.runs.size(), arm.name));
    if (!longest.x.empty()) rate.curves.push_back(std::move(longest));
  }
  const std::string capped = cap_losses(loss, 20);
  return "<div class=\"panels\">\n" +
         figure(loss, fmt::format("n = {} runs: {}. Means over 1/200 of a run's updates; a cross: "
                                  "not finite from there on.{}",
                                  runs, fmt::join(counts, ", "), capped)) +
         figure(rate, "Of the longest run of each arm (n = 1 each).") + "</div>\n";
}

std::string experiment_name(const Path& config) {
  try {
    const Document document = load_document(config);
    const Node* const name = document.root.find("name");
    return name != nullptr ? name->scalar : "";
  } catch (const ConfigError& e) {
    throw Error(e.what());
  }
}

}  // namespace

std::string compare_page(const Path& folder) {
  const Comparison c = read_comparison(folder / "compare.json");
  const std::string name = experiment_name(folder / "config.yaml");
  std::size_t runs = 0;
  std::int64_t failures = 0;
  for (const ComparedArm& arm : c.arms) {
    runs += arm.runs.size();
    failures += arm.failures;
  }
  std::string body = fmt::format(
      "<h1>{} <small>{} arms</small></h1>\n<p class=\"outcome\">{}{} of n = {} runs failed: not "
      "finite, or stuck</p>\n",
      escape(name), c.arms.size(),
      c.interrupted ? "interrupted, and only the runs that had finished count; " : "", failures,
      runs);
  body += arms_table(c);
  body +=
      "<p class=\"soft\">The interval is Clopper and Pearson's, for the share of runs that fail "
      "under "
      "an arm, from its n runs.</p>\n";
  if (!c.pairs.empty()) {
    body += "<h2>The same seeds under two arms</h2>\n<ul>\n";
    for (const ComparedPair& pair : c.pairs) body += "<li>" + in_words(pair, c) + "</li>\n";
    body += fmt::format(
        "</ul>\n<p class=\"soft\">n = {} comparisons; the p-values are not corrected for their "
        "number.</p>\n",
        c.pairs.size());
  }
  body += comparison_figures(c, folder);
  body += "<h2>Runs</h2>\n" + runs_table(c) + configuration(folder);
  return page(name, body);
}

}  // namespace preheat
