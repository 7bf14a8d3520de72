#include "launch/bench/html_page.h"

#include "launch/bench/svg_plot.h"

namespace accrete::launch {
namespace {

constexpr const char* kStyle = R"(
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } p.where { color: #52606d; margin: .2rem 0 1.4rem; }
p.synthetic { background: #fff4d6; border-left: 4px solid #d99a00; padding: .4rem .8rem; }
table { border-collapse: collapse; margin-bottom: 1.5rem; } td, th { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e4e8ee; }
td:first-child, th:first-child { text-align: left; } .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; } .grid { stroke: #e4e8ee; } .tick { font-size: 10px; fill: #52606d; }
.label { font-size: 11px; fill: #52606d; } .title { font-size: 13px; font-weight: 600; fill: #1c2430; }
.curve { fill: none; stroke: #1769aa; stroke-width: 1.8; stroke-linejoin: round; }
h2 { font-size: 1.1rem; } .bar { background: #1769aa; height: .7rem; }
</style></head><body>
)";

}  // namespace

std::string html_head(const std::string& title) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>" + escape_html(title) +
         "</title>" + kStyle;
}

}  // namespace accrete::launch
