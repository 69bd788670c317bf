// What the pages of runs and experiments are made from: the files they read, the HTML they share.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config/error.h"
#include "report/line_plot.h"
#include "train/atomic_file.h"

namespace preheat {

// ---- Files -------------------------------------------------------------------------------------

/// A stretch of updates in one phase of the schedule, from the row `first` to the row `last`.
struct PhaseRows {
  std::string name;
  std::size_t first;
  std::size_t last;
};

/// The columns of metrics.csv.
struct Metrics {
  std::vector<double> step, epoch, lr, loss, accuracy, grad_norm, update_norm, weight_norm;
  std::vector<PhaseRows> phases;
};

/// The columns of eval.csv.
struct Evaluations {
  std::vector<double> step, epoch, loss, accuracy;
};

/// A last row without its end is left out: a run that was killed may have torn it. Throw Error,
/// naming the file and the line, for anything else that is not as it was written.
Metrics read_metrics(const std::filesystem::path& path);
Evaluations read_evaluations(const std::filesystem::path& path);

using Json = nlohmann::ordered_json;
using Number = std::optional<double>;  // null where a value does not exist

/// What `make` takes from the file; it may ask for keys and types that are not there. Throws Error.
template <class Make>
auto read_json(const std::filesystem::path& path, const Make& make) {
  const std::string text = read_file(path);
  try {
    return make(Json::parse(text));
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: is damaged: {}", path.string(), e.what()));
  }
}

Number number(const Json& object, const char* key);
std::optional<std::int64_t> whole(const Json& object, const char* key);

// ---- Words -------------------------------------------------------------------------------------

std::string plain(Number value);    // "2.303"; "–" for null
std::string percent(Number share);  // "91.23 %"; likewise
std::string not_finite_at(std::optional<std::int64_t> step);

// ---- HTML --------------------------------------------------------------------------------------

/// A whole document; `title` is text, `body` is HTML.
std::string page(const std::string& title, const std::string& body);

struct Cell {
  Cell(std::string inner, std::string style_class = "")
      : html(std::move(inner)), css_class(std::move(style_class)) {}
  std::string html;
  std::string css_class;
};

/// The first cell of a row is its heading.
std::string table(const std::vector<std::string>& heads,
                  const std::vector<std::vector<Cell>>& rows);

std::string figure(const LinePlot& plot, const std::string& caption);

/// config.yaml of a run or an experiment, folded away. Throws Error.
std::string configuration(const std::filesystem::path& folder);

// ---- Curves ------------------------------------------------------------------------------------

/// Each point the mean of `window` values, at their middle. A value that is not finite ends its
/// block and follows as a point of its own.
Curve means(const std::string& label, int color, const std::vector<double>& x,
            const std::vector<double>& y, std::size_t window);

/// Lets an axis of losses end at `times_first` the largest first loss: one up to where a diverging
/// run gets would flatten all else. Returns what the caption has to say about it, or "".
std::string cap_losses(LinePlot& plot, double times_first);

}  // namespace preheat
