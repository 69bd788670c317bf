// Files that are embedded in the program and go into every page.
#pragma once

#include <string_view>

namespace preheat {

std::string_view chart_js();    // Chart.js as packaged by the system, with its licence
std::string_view report_js();   // src/report/report.js
std::string_view report_css();  // src/report/report.css

}  // namespace preheat
