// Runs and experiments as pages to look at: one HTML file each, without scripts, that needs nothing
// but itself.
#pragma once

#include <filesystem>
#include <string>

namespace preheat {

/// The page of a run from its folder's config.yaml, metrics.csv, eval.csv and summary.json: how it
/// ended, its numbers, its curves, its configuration. Throws Error, naming the file that is missing
/// or damaged.
std::string run_page(const std::filesystem::path& run_folder);

/// The page of an experiment from its folder's config.yaml and compare.json and its runs'
/// <arm>/<seed>/metrics.csv: who failed and how often, with n beside every claim. Links to the
/// runs' own pages, <arm>/<seed>/report.html. Throws Error likewise.
std::string compare_page(const std::filesystem::path& folder);

}  // namespace preheat
