// The page of a bench's figures.
#pragma once

#include <string>

#include "report/html.h"

namespace preheat {

/// Makes the page from the JSON that `preheat bench` writes. Its "bench" entry selects the page:
/// "update" shows scaling, roofline and the cost of each feature, "step" the parts of a step,
/// "schedule" the cost of each shape. One self-contained HTML file. Throws Error if the JSON is not
/// a bench's.
std::string bench_page(const Json& results);

}  // namespace preheat
