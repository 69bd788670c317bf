#include "report/assets.h"

// CMake passes the paths, and rebuilds this file when the assets change. The assembler embeds them
// verbatim: no generated source, and no limit on the length of a literal.
#define PREHEAT_FILE(name, path)                                             \
  asm(".pushsection .rodata\n" #name "_begin:\n.incbin \"" path "\"\n" #name \
      "_end:\n.byte 0\n.popsection\n");                                      \
  extern "C" const char name##_begin[];                                      \
  extern "C" const char name##_end[]

PREHEAT_FILE(preheat_chart_js, PREHEAT_CHART_JS);
PREHEAT_FILE(preheat_report_js, PREHEAT_REPORT_JS);
PREHEAT_FILE(preheat_report_css, PREHEAT_REPORT_CSS);

namespace preheat {

std::string_view chart_js() {
  return {preheat_chart_js_begin, preheat_chart_js_end};
}
std::string_view report_js() {
  return {preheat_report_js_begin, preheat_report_js_end};
}
std::string_view report_css() {
  return {preheat_report_css_begin, preheat_report_css_end};
}

}  // namespace preheat
