// One plot as inline SVG: a line through points over two labelled axes that start at zero. No scripts, no external files.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace accrete::launch {

struct SvgPlot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<std::pair<double, double>> points;  // in order of x, none negative
  bool steps = false;                             // hold y until the next x
};

std::string to_svg(const SvgPlot& plot);

// A round number at or above `value` whose fifth is round too: axis limits.
double nice_limit(double value);

// "&", "<", ">" and quotes as entities.
std::string escape_html(const std::string& text);

}  // namespace accrete::launch
