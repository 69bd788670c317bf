#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "report/label_text.h"
#include "report/page.h"
#include "report/page_parts.h"

namespace preheat {
namespace {

using Path = std::filesystem::path;

std::string lr_text(double lr) {
  return fmt::format("{:.2e}", lr);
}

struct Summary {
  std::string name;
  std::uint64_t seed = 0;
  std::string outcome;  // "" for a run that was interrupted
  std::optional<std::int64_t> first_non_finite_step;
  std::string first_non_finite_tensor;
  std::int64_t steps = 0;
  std::int64_t steps_planned = 0;
  std::vector<std::pair<std::string, std::string>> numbers;
  std::string footer;
};

Summary read_summary(const Path& path) {
  return read_json(path, [](const Json& json) {
    const auto text = [&](const char* key) {
      return json.at(key).is_null() ? "" : json.at(key).get<std::string>();
    };
    Summary s;
    s.name = text("name");
    s.seed = json.at("seed").get<std::uint64_t>();
    s.outcome = text("outcome");
    s.first_non_finite_step = optional_at<std::int64_t>(json, "first_non_finite_step");
    s.first_non_finite_tensor = text("first_non_finite_tensor");
    s.steps = json.at("steps").get<std::int64_t>();
    s.steps_planned = json.at("steps_planned").get<std::int64_t>();
    const auto best_step = optional_at<std::int64_t>(json, "best_step");
    double memory = 0;
    for (const Json& bytes : json.at("memory_bytes")) memory += bytes.get<double>();
    s.numbers = {
        {"updates", fmt::format("{} of {}", s.steps, s.steps_planned)},
        {"updates in an epoch", std::to_string(json.at("steps_per_epoch").get<std::int64_t>())},
        {"training loss, last 50", plain(optional_at<double>(json, "final_train_loss"))},
        {"training accuracy, last 50", percent(optional_at<double>(json, "final_train_accuracy"))},
        {"test loss", plain(optional_at<double>(json, "test_loss"))},
        {"test accuracy", percent(optional_at<double>(json, "test_accuracy"))},
        {"best test accuracy",
         best_step
             ? fmt::format("{} after {}", percent(optional_at<double>(json, "best_test_accuracy")),
                           *best_step)
             : "–"},
        {"wall time", fmt::format("{:.1f} s", json.at("wall_seconds").get<double>())},
        {"training speed",
         fmt::format("{:.0f} images/s", json.at("images_per_second").get<double>())},
        {"parameters", std::to_string(json.at("parameters").get<std::int64_t>())},
        {"memory", fmt::format("{:.1f} MiB", memory / (1 << 20))}};
    s.footer = fmt::format("{}, {}; preheat {}; data: {}", text("device"), text("library"),
                           text("preheat"), text("data"));
    return s;
  });
}

std::string in_words(const Summary& s) {
  if (s.outcome.empty()) {
    return fmt::format("interrupted after {} of {} updates: how it would have ended is open",
                       s.steps, s.steps_planned);
  }
  if (s.outcome == "non_finite") {
    return not_finite_at(s.first_non_finite_step) +
           (s.first_non_finite_tensor.empty() ? "" : ", first in " + s.first_non_finite_tensor);
  }
  if (s.outcome == "stuck") {
    return "stuck: the loss stayed finite, and the network did not learn";
  }
  if (s.outcome == "spiked") {
    return "spiked: the loss went over 3 times its first value, and the network learned all the "
           "same";
  }
  return s.outcome == "ok" ? "ok: the network learned, and the loss did not spike" : s.outcome;
}

class RunFigures {
 public:
  RunFigures(const Metrics& m, const Evaluations& e)
      : metrics_(m), evaluations_(e), window_(std::max<std::size_t>(1, m.step.size() / 100)) {}

  std::string html() const {
    LinePlot loss = empty_plot("Loss", "loss", true);
    add_batches(loss, "training", 0, metrics_.loss);
    add_tests(loss, evaluations_.loss);
    const std::string capped = cap_losses(loss, 1000);

    LinePlot accuracy = empty_plot("Accuracy", "accuracy, %", false);
    add_batches(accuracy, "training", 0, in_percent(metrics_.accuracy));
    add_tests(accuracy, in_percent(evaluations_.accuracy));

    LinePlot rate = empty_plot("Learning rate", "learning rate", false);
    rate.curves.push_back({"", metrics_.step, metrics_.lr});

    LinePlot norms = empty_plot("Norms over all parameters", "norm", true);
    add_batches(norms, "weights", 2, metrics_.weight_norm);
    add_batches(norms, "gradient", 0, metrics_.grad_norm);
    add_batches(norms, "update", 1, metrics_.update_norm);

    const std::string lines =
        window_ == 1 ? "Every update."
                     : fmt::format("Faint: every update; strong: means of {}.", window_);
    const std::string tests =
        evaluations_.step.empty() ? " The run was not tested." : " Dots: the test set.";
    return "<div class=\"panels\">\n" + figure(loss, lines + tests + capped) +
           figure(accuracy, lines + tests) + figure(rate, "Every update, with its phases.") +
           figure(norms, lines) + "</div>\n";
  }

  // "" where there is no update.
  std::string phases() const {
    if (metrics_.phases.empty()) return "";
    std::vector<std::vector<Cell>> rows;
    for (const PhaseRows& phase : metrics_.phases) {
      const auto [least, most] =
          std::minmax_element(metrics_.lr.begin() + static_cast<std::ptrdiff_t>(phase.first),
                              metrics_.lr.begin() + static_cast<std::ptrdiff_t>(phase.last) + 1);
      rows.push_back(
          {escape(phase.name),
           fmt::format("{:.0f} .. {:.0f}", metrics_.step[phase.first], metrics_.step[phase.last]),
           lr_text(metrics_.lr[phase.first]), lr_text(metrics_.lr[phase.last]), lr_text(*least),
           lr_text(*most)});
    }
    return "<h2>Phases</h2>\n" +
           table({"phase", "updates", "learning rate at first", "at last", "least", "largest"},
                 rows);
  }

 private:
  LinePlot empty_plot(const std::string& title, const std::string& y_label, bool log_y) const {
    LinePlot plot;
    plot.title = title;
    plot.x_label = "update";
    plot.y_label = y_label;
    plot.log_y = log_y;
    for (const PhaseRows& phase : metrics_.phases) {
      plot.bands.push_back({metrics_.step[phase.first], metrics_.step[phase.last] + 1, phase.name});
    }
    return plot;
  }

  void add_batches(LinePlot& plot, const std::string& label, int color,
                   const std::vector<double>& values) const {
    plot.curves.push_back({label, metrics_.step, values, color, window_ > 1});
    if (window_ == 1) return;
    Curve strong = means(label, color, metrics_.step, values, window_);
    // The faint line has the mark already.
    for (std::size_t i = 0; i < strong.y.size(); ++i) {
      if (!std::isfinite(strong.y[i])) strong.x[i] = strong.y[i];
    }
    plot.curves.push_back(std::move(strong));
  }

  void add_tests(LinePlot& plot, const std::vector<double>& values) const {
    constexpr double gap = std::numeric_limits<double>::quiet_NaN();
    Curve dots{"test", {}, {}, 1, false};
    for (std::size_t i = 0; i < values.size(); ++i) {
      dots.x.insert(dots.x.end(), {evaluations_.step[i], gap});
      dots.y.insert(dots.y.end(), {values[i], gap});
    }
    if (!values.empty()) plot.curves.push_back(std::move(dots));
  }

  static std::vector<double> in_percent(std::vector<double> shares) {
    for (double& share : shares) share *= 100;
    return shares;
  }

  const Metrics& metrics_;
  const Evaluations& evaluations_;
  const std::size_t window_;
};

}  // namespace

std::string run_page(const Path& run_folder) {
  const Summary summary = read_summary(run_folder / "summary.json");
  const Metrics metrics = read_metrics(run_folder / "metrics.csv");
  const Evaluations evaluations = read_evaluations(run_folder / "eval.csv");
  const std::string seed = fmt::format("seed {}", summary.seed);
  const bool known =
      std::ranges::count(std::vector<std::string_view>{"ok", "spiked", "stuck", "non_finite"},
                         summary.outcome) > 0;

  std::string body = fmt::format("<h1>{} <small>{}</small></h1>\n<p class=\"outcome {}\">{}</p>\n",
                                 escape(summary.name), seed, known ? summary.outcome : "",
                                 escape(in_words(summary)));
  body += "<dl>\n";
  for (const auto& [name, value] : summary.numbers) {
    body += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
  }
  body += "</dl>\n";
  const RunFigures figures(metrics, evaluations);
  body += figures.html() + figures.phases() + configuration(run_folder);
  body += fmt::format("<footer>{}</footer>\n", escape(summary.footer));
  return page(summary.name + ", " + seed, body);
}

}  // namespace preheat
