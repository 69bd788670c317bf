// What a page says of an experiment by what is in its result: tables, charts and the words under
// them. The result is JSON as the experiment wrote it; what is missing in it throws
// nlohmann::json::exception.
#pragma once

#include "report/page.h"
#include "report/report_data.h"

namespace preheat {

/// The arms, and the seeds that failed under one of two alone. Throws Error, naming the file, where
/// a pair is of an arm that is not there.
void add_compare(Page& page, const Experiment& e);

/// The stability map, accuracy and failures along the base rate, and the boundaries.
void add_sweep(Page& page, const Experiment& e);

/// The largest rate of each arm and seed, the ratios of arms, and every rate that was tried.
void add_search(Page& page, const Experiment& e);

}  // namespace preheat
