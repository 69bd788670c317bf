// Runs and experiments as a page to look at: one HTML file that needs nothing but itself.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "report/report_data.h"

namespace preheat {

/// What a page is called in the folder of a run or an experiment.
inline constexpr const char* report_name = "report.html";

/// The page of all of `data`. Tables are in its HTML; charts are drawn by its scripts. Throws Error
/// where what an experiment says of itself is not as it was written.
std::string report_page(const ReportData& data);

/// Whether it is one of preheat's pages, of a bench's too.
bool is_page(std::string_view html);

/// Reads the folders (read_report_data) and writes their page. Throws Error.
void write_report(const std::vector<std::filesystem::path>& folders,
                  const std::filesystem::path& file);

/// The same of one folder, into it; where the page is.
std::filesystem::path write_report(const std::filesystem::path& folder);

}  // namespace preheat
