#include "report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "config/atomic_file.h"
#include "config/counted.h"
#include "experiment/statistics.h"
#include "report/arm_outcomes.h"
#include "report/experiment_page.h"
#include "report/label_text.h"
#include "report/page.h"
#include "report/run_charts.h"
#include "train/json_file.h"
#include "train/outcome.h"
#include "train/summary.h"

namespace preheat {
namespace {

constexpr std::size_t max_configurations = 20;  // shown, of single runs

// ---- Runs --------------------------------------------------------------------------------------

std::string text_at(const Json& summary, const char* key) {
  return optional_at<std::string>(summary, key).value_or("–");
}

std::string outcome_sentence(const RunData& run) {
  const Json& s = run.summary;
  if (s.is_null()) {
    return fmt::format("… still running, or killed: {} updates recorded", run.updates);
  }
  const std::string words = outcome_words(run.outcome);
  if (run.outcome.empty()) {
    return fmt::format("… interrupted after {} of {} updates: its outcome is open",
                       get_as<std::int64_t>(s.at("steps")),
                       get_as<std::int64_t>(s.at("steps_planned")));
  }
  if (run.outcome == "non_finite") {
    return fmt::format("{} at step {}, first in {}", words,
                       get_as<std::int64_t>(s.at("first_non_finite_step")),
                       text_at(s, "first_non_finite_tensor"));
  }
  if (run.outcome == "stuck") {
    return words + ": the loss stayed finite, but the network did not learn";
  }
  if (run.outcome == "spiked") {
    return words + ": the loss exceeded 3 times its first value, but the network still learned";
  }
  return run.outcome == "ok" ? words + ": the network learned, and the loss did not spike" : words;
}

// Whether a run has a validation set. Earlier versions did not write which set chooses.
bool is_validated(const RunData& run) {
  return run.summary.contains("best_by") && run.summary.at("best_by") == "validation";
}

std::string numbers_of(const RunData& run) {
  const Json& s = run.summary;
  if (s.is_null()) return "";
  const auto best_step = optional_at<std::int64_t>(s, "best_step");
  const bool validated = is_validated(run);
  const auto best = [&](const char* key) {
    return best_step ? fmt::format("{} after {}, chosen by {} accuracy",
                                   percent(optional_at<double>(s, key)), *best_step,
                                   validated ? "validation" : "test")
                     : "–";
  };
  std::vector<std::pair<std::string, std::string>> numbers = {
      {"updates", fmt::format("{} of {}", get_as<std::int64_t>(s.at("steps")),
                              get_as<std::int64_t>(s.at("steps_planned")))},
      {"updates in an epoch", std::to_string(get_as<std::int64_t>(s.at("steps_per_epoch")))},
      {"final training loss", plain(optional_at<double>(s, "final_train_loss"))},
      {"final training accuracy", percent(optional_at<double>(s, "final_train_accuracy"))},
      {"test loss", plain(optional_at<double>(s, "test_loss"))},
      {"test accuracy", percent(optional_at<double>(s, "test_accuracy"))},
      {validated ? "test accuracy of the best" : "best test accuracy", best("best_test_accuracy")}};
  if (validated) {
    numbers.emplace_back("validation loss", plain(optional_at<double>(s, "validation_loss")));
    numbers.emplace_back("validation accuracy",
                         percent(optional_at<double>(s, "validation_accuracy")));
    numbers.emplace_back("best validation accuracy", best("best_validation_accuracy"));
  }
  if (const auto gate = optional_at<std::int64_t>(s, "gate_opened_at")) {
    numbers.emplace_back("warmup ended early", fmt::format("before update {}", *gate));
  }
  return terms(numbers);
}

std::string environment_of(const RunData& run) {
  const Json& s = run.summary;
  if (s.is_null()) return "";
  return with_json_errors(run.folder / "summary.json", [&] {
    double memory = 0;
    for (const Json& bytes : s.at("memory_bytes")) memory += get_as<double>(bytes);
    return terms({{"device", text_at(s, "device")},
                  {"library", text_at(s, "library")},
                  {"preheat", text_at(s, "preheat")},
                  {"data", text_at(s, "data")},
                  {"parameters", std::to_string(get_as<std::int64_t>(s.at("parameters")))},
                  {"memory", fmt::format("{:.1f} MiB", memory / (1 << 20))},
                  {"wall time", fmt::format("{:.1f} s", get_as<double>(s.at("wall_seconds")))},
                  {"training speed",
                   fmt::format("{:.0f} images/s", get_as<double>(s.at("images_per_second")))}});
  });
}

std::string phases_table(const RunData& run) {
  std::vector<std::vector<Cell>> rows;
  for (const PhaseFacts& p : run.phases) {
    rows.push_back(
        {p.name, fmt::format("{} – {}", p.first, p.last), rate(p.least_lr), rate(p.largest_lr)});
  }
  return table({"phase", "updates", "least rate", "largest rate"}, rows);
}

// The last recorded values of a run, for what its summary lacks or if there is none. `validated`:
// the table has a column for the validation set.
std::vector<Cell> row_of(const RunData& run, const std::string& heading, bool validated) {
  const auto number = [&](const char* key) {
    return run.summary.is_null() ? Number() : optional_at<double>(run.summary, key);
  };
  return with_json_errors(run.folder / "summary.json", [&] {
    const auto step = run.summary.is_null()
                          ? std::nullopt
                          : optional_at<std::int64_t>(run.summary, "first_non_finite_step");
    std::vector<Cell> row = {heading,
                             outcome_cell(run.outcome, step ? fmt::format(" at {}", *step) : ""),
                             std::to_string(run.updates), plain(number("final_train_loss")),
                             percent(number("test_accuracy"))};
    if (validated) {
      row.emplace_back(percent(is_validated(run) ? number("validation_accuracy") : Number()));
    }
    return row;
  });
}

// `heading_of` makes the text of a run's heading.
template <class HeadingOf>
std::string runs_table(const std::vector<RunData>& runs, const HeadingOf& heading_of) {
  const bool validated = std::ranges::any_of(runs, is_validated);
  std::vector<std::string> heads = {"run", "outcome", "updates", "final training loss",
                                    "test accuracy"};
  if (validated) heads.emplace_back("validation accuracy");
  std::vector<std::vector<Cell>> rows;
  for (const RunData& run : runs) rows.push_back(row_of(run, heading_of(run), validated));
  return table(heads, rows);
}

void add_run_charts(Page& page, const std::vector<RunData>& runs, const Facets& facets,
                    bool has_curves) {
  if (!has_curves) {
    page.add(
        "<p class=\"soft\">Curves are left out, as the page is of too many runs; a report of fewer "
        "folders has them.</p>\n");
    return;
  }
  const PhaseMarks phases(runs, facets);
  for (const std::string& note : chart_notes(runs, facets, phases)) {
    page.add(fmt::format("<p class=\"soft\">{}</p>\n", escape(note)));
  }
  std::vector<Chart> charts = curve_charts(runs, facets, phases);
  for (Chart& chart : sharpness_charts(runs, facets)) charts.push_back(std::move(chart));
  for (Chart& chart : layer_charts(runs, facets)) charts.push_back(std::move(chart));
  page.add_charts(charts, "", facets.json());
}

void add_run(Page& page, const RunData& run, const std::string& heading, bool has_curves) {
  page.add(fmt::format("<{0}>{1} <small>seed {2}</small></{0}>\n<p class=\"outcome {3}\">{4}</p>\n",
                       heading, escape(run.name), escape(run.seed),
                       outcome_cell(run.outcome).css_class, escape(outcome_sentence(run))));
  page.add(numbers_of(run));
  add_run_charts(page, {run}, Facets({}, {}), has_curves);
  if (has_curves) {
    page.add_heading("Phases of the schedule");
    page.add(phases_table(run));
  }
  page.add(folded("Configuration", preformatted(run.config, "Configuration")));
  const std::string environment = environment_of(run);
  if (!environment.empty()) page.add(folded("Environment", environment));
}

// "1 of n = 3 runs failed: not finite, or stuck; 2 more have not ended".
std::string outcome_sentence(const std::vector<RunData>& runs) {
  const auto failures =
      std::ranges::count_if(runs, [](const RunData& run) { return is_failure(run.outcome); });
  const auto open =
      std::ranges::count_if(runs, [](const RunData& run) { return run.outcome.empty(); });
  const auto ended = std::ssize(runs) - open;
  if (ended == 0) return fmt::format("… none of {} runs has ended", runs.size());
  return fmt::format(
      "{} of n = {} runs failed: not finite, or stuck{}", failures, ended,
      open == 0 ? "" : fmt::format("; {} more {} not ended", open, open == 1 ? "has" : "have"));
}

void add_runs(Page& page, const std::vector<RunData>& runs, const std::string& heading,
              bool has_curves) {
  page.add(fmt::format("<{0}>{1} runs</{0}>\n<p class=\"outcome\">{2}</p>\n", heading, runs.size(),
                       outcome_sentence(runs)));
  page.add(runs_table(runs, [](const RunData& run) { return run.facets.front(); }));
  add_run_charts(page, runs, Facets({"run"}, runs), has_curves);
  for (std::size_t i = 0; i < std::min(runs.size(), max_configurations); ++i) {
    page.add(folded("Configuration and environment of " + runs[i].facets.front(),
                    environment_of(runs[i]) + preformatted(runs[i].config, "Configuration")));
  }
}

// ---- Experiments -------------------------------------------------------------------------------

void add_claims(Page& page, const Json& result) {
  if (!result.contains("claims") || result.at("claims").empty()) return;
  page.add_heading("Expected results");
  std::string html = "<ul class=\"claims\">\n";
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
  page.add(html + "</ul>\n");
}

const Json& arms_of(const Experiment& e) {
  return e.result.at(e.kind == Experiment::Kind::sweep ? "cells" : "arms");
}

// "16 of 20 runs", and whether more are to come.
std::string progress_of(const Experiment& e) {
  const bool is_search = e.kind == Experiment::Kind::find_lr;
  const Json& arms = arms_of(e);
  std::size_t done = 0;
  for (const Json& arm : arms) done += arm.at(is_search ? "searches" : "runs").size();
  const std::size_t planned = std::max(done, e.seeds * arms.size());
  const bool is_interrupted = e.result.value("interrupted", false);
  if (!is_interrupted && done >= planned) return "";
  return fmt::format("… {}: {} of {} {} have ended, and only they count. ",
                     is_interrupted ? "interrupted" : "incomplete", done, planned,
                     is_search ? "searches" : "runs");
}

std::string outcome_sentence(const Experiment& e) {
  if (e.kind == Experiment::Kind::find_lr) {
    std::size_t searches = 0;
    std::string medians;
    for (const Json& arm : arms_of(e)) {
      std::vector<double> rates;
      for (const Json& search : arm.at("searches")) {
        const Number largest = optional_at<double>(search, "largest");
        if (largest) rates.push_back(*largest);
      }
      searches += arm.at("searches").size();
      medians += fmt::format(
          "<br/><strong>{}</strong>: {}", escape(arm.at("name").get<std::string>()),
          arm.at("searches").empty() ? "no search has ended"
          : rates.empty()
              ? fmt::format("no rate that was tried trains, n = {} seeds",
                            arm.at("searches").size())
              : fmt::format("trains up to a base rate of {}, the median of the {} of n = {} seeds "
                            "that have one",
                            rate(median(rates)), rates.size(), arm.at("searches").size()));
    }
    return fmt::format("{} searches, {}{}", searches, counted(e.runs.size(), "run"), medians);
  }
  std::int64_t failures = 0;
  for (const Json& arm : arms_of(e)) failures += arm.at("failures").get<std::int64_t>();
  return fmt::format("{} of n = {} runs failed: not finite, or stuck", failures, e.runs.size());
}

std::string size_of(const Experiment& e) {
  return fmt::format("{}, {}",
                     counted(arms_of(e).size(), e.kind == Experiment::Kind::sweep ? "cell" : "arm"),
                     counted(e.seeds, "seed"));
}

// A note if the runs were made on different devices or by different versions, otherwise "".
std::string environments_note(const Experiment& e) {
  std::map<std::string, std::size_t> environments;
  for (const RunData& run : e.runs) {
    if (!run.summary.is_null()) ++environments[environment_in(run.summary)];
  }
  if (environments.size() < 2) return "";
  std::vector<std::string> items;
  for (const auto& [environment, n] : environments) {
    items.push_back(
        fmt::format("{} (n = {})", environment.empty() ? "unknown" : escape(environment), n));
  }
  return fmt::format(
      "<p class=\"soft\">The runs were made in different environments, and differ by that too: "
      "{}.</p>\n",
      fmt::join(items, "; "));
}

void add_experiment(Page& page, const Experiment& e, const std::string& heading, bool has_curves) {
  page.add(fmt::format("<{0}>{1} <small>{2}</small></{0}>\n<p class=\"outcome\">{3}{4}</p>\n",
                       heading, escape(e.name), size_of(e), progress_of(e), outcome_sentence(e)));
  page.add(environments_note(e));
  add_claims(page, e.result);
  switch (e.kind) {
    case Experiment::Kind::compare:
      add_compare(page, e);
      break;
    case Experiment::Kind::sweep:
      add_sweep(page, e);
      break;
    case Experiment::Kind::find_lr:
      add_search(page, e);
      break;
  }
  if (!e.runs.empty()) {
    page.add_heading("Curves");
    add_run_charts(page, e.runs, Facets(e.facet_names, e.runs), has_curves);
    page.add(folded("Runs", runs_table(e.runs, [&](const RunData& run) {
                      return run.folder.lexically_relative(e.folder).string();
                    })));
  }
  page.add(folded("Configuration", preformatted(e.config, "Configuration")));
  if (!e.runs.empty() && !e.runs.front().summary.is_null()) {
    page.add(folded("Environment of the first run", environment_of(e.runs.front())));
  }
}

}  // namespace

std::string report_page(const ReportData& data) {
  Page page;
  const bool is_one = data.experiments.size() + (data.runs.empty() ? 0 : 1) == 1;
  const std::string heading = is_one ? "h1" : "h2";
  std::vector<std::string> titles;
  if (!is_one) {
    page.add("<h1>Runs and experiments</h1>\n");
    page.set_heading_level(3);
  }
  for (const Experiment& e : data.experiments) {
    with_json_errors(e.file, [&] { add_experiment(page, e, heading, data.has_curves); });
    titles.push_back(e.name);
  }
  if (data.runs.size() == 1) {
    const RunData& run = data.runs.front();
    with_json_errors(run.folder / "summary.json",
                     [&] { add_run(page, run, heading, data.has_curves); });
    titles.push_back(fmt::format("{}, seed {}", run.name, run.seed));
  } else if (!data.runs.empty()) {
    add_runs(page, data.runs, heading, data.has_curves);
    titles.push_back(fmt::format("{} runs", data.runs.size()));
  }
  return page.document(fmt::format("{}", fmt::join(titles, ", ")));
}

bool is_page(std::string_view html) {
  return html.starts_with(page_begin) && html.find(page_footer) != std::string_view::npos;
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
