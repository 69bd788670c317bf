// The parts of a page that depend on the kind of experiment: tables, charts and their captions. The
// result is JSON as the experiment wrote it; a missing entry throws nlohmann::json::exception.
#pragma once

#include "report/page.h"
#include "report/report_data.h"

namespace preheat {

/// The arms, the share of each one's runs that failed, and for each pair of arms the seeds that
/// failed under only one. Throws Error, naming the file, if a pair refers to an unknown arm.
void add_compare(Page& page, const Experiment& e);

/// The stability map, accuracy and failures along the base rate, and the boundaries.
void add_sweep(Page& page, const Experiment& e);

/// The largest rate of each arm and seed, the ratios of arms, and every rate that was tried.
void add_search(Page& page, const Experiment& e);

}  // namespace preheat
