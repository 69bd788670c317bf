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

#include "report/line_plot.h"
#include "train/run_files.h"

namespace preheat {

using Json = nlohmann::ordered_json;
using Number = std::optional<double>;  // null where a value does not exist

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
