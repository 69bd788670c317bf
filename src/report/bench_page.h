// The figures of a bench as a page to look at.
#pragma once

#include <string>

#include "report/html.h"

namespace preheat {

/// Of what `preheat bench` writes as JSON; "bench" in it says which: of "update" the scaling, the
/// roofline and what each feature costs, of "step" what it is made of, of "schedule" what each
/// shape costs. One HTML file that needs nothing but itself. Throws Error where the JSON is of no
/// bench.
std::string bench_page(const Json& results);

}  // namespace preheat
