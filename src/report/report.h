// Runs and experiments as a page: one self-contained HTML file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "report/report_data.h"

namespace preheat {

/// The file name of the page in the folder of a run or an experiment.
inline constexpr const char* report_name = "report.html";

/// The page for all of `data`. Tables are static HTML; charts are drawn by scripts. Throws Error if
/// an experiment's result is damaged.
std::string report_page(const ReportData& data);

/// Whether it is a page made by preheat, including those of benches.
bool is_page(std::string_view html);

/// Reads the folders (read_report_data) and writes their page. Throws Error.
void write_report(const std::vector<std::filesystem::path>& folders,
                  const std::filesystem::path& file);

/// The same for one folder, into that folder; returns the path of the page.
std::filesystem::path write_report(const std::filesystem::path& folder);

}  // namespace preheat
