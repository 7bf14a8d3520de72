#include "launch/bench/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace accrete::launch {
namespace {

// Pixels of the view box; the page scales it.
constexpr double kWidth = 480, kHeight = 280, kLeft = 62, kRight = 14, kTop = 30, kBottom = 44;
constexpr int kTicks = 5;
constexpr size_t kMostPoints = 600;  // more are thinned out: the eye sees no difference, the file does

struct Scale {
  double x_limit, y_limit;
  double x(double value) const { return kLeft + value / x_limit * (kWidth - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - value / y_limit * (kHeight - kTop - kBottom); }
};

std::string axes(const SvgPlot& plot, const Scale& scale) {
  std::string svg;
  for (int i = 0; i <= kTicks; ++i) {
    const double x = scale.x_limit * i / kTicks, y = scale.y_limit * i / kTicks;
    svg += fmt::format("<line class='grid' x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/>", kLeft, kWidth - kRight, scale.y(y), scale.y(y));
    svg += fmt::format("<text class='tick' x='{}' y='{:.1f}' text-anchor='end'>{:g}</text>", kLeft - 6, scale.y(y) + 4, y);
    svg += fmt::format("<text class='tick' x='{:.1f}' y='{}' text-anchor='middle'>{:g}</text>", scale.x(x), kHeight - kBottom + 16, x);
  }
  svg += fmt::format("<text class='label' x='{}' y='{}' text-anchor='middle'>{}</text>", (kLeft + kWidth - kRight) / 2, kHeight - 8,
                     escape_html(plot.x_label));
  svg += fmt::format("<text class='label' transform='translate(14 {}) rotate(-90)' text-anchor='middle'>{}</text>",
                     (kTop + kHeight - kBottom) / 2, escape_html(plot.y_label));
  return svg;
}

std::string path_of(const SvgPlot& plot, const Scale& scale) {
  std::string path;
  const size_t stride = std::max<size_t>(1, plot.points.size() / kMostPoints);
  for (size_t i = 0; i < plot.points.size(); i += stride) {
    if (i + stride >= plot.points.size()) i = plot.points.size() - 1;
    const auto& [x, y] = plot.points[i];
    if (path.empty()) path = fmt::format("M{:.1f} {:.1f}", scale.x(x), scale.y(y));
    else if (plot.steps) path += fmt::format("H{:.1f}V{:.1f}", scale.x(x), scale.y(y));
    else path += fmt::format("L{:.1f} {:.1f}", scale.x(x), scale.y(y));
  }
  return path;
}

}  // namespace

double nice_limit(double value) {
  if (!(value > 0)) return 1.0;
  const double power = std::pow(10.0, std::floor(std::log10(value)));
  for (double step : {1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0}) {
    if (step * power >= value * (1 - 1e-12)) return step * power;
  }
  return 10.0 * power;
}

std::string escape_html(const std::string& text) {
  std::string safe;
  for (char c : text) {
    switch (c) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '"': safe += "&quot;"; break;
      case '\'': safe += "&#39;"; break;
      default: safe += c;
    }
  }
  return safe;
}

std::string to_svg(const SvgPlot& plot) {
  double x_most = 0, y_most = 0;
  for (const auto& [x, y] : plot.points) {
    x_most = std::max(x_most, x);
    y_most = std::max(y_most, y);
  }
  const Scale scale{nice_limit(x_most), nice_limit(y_most)};
  std::string svg = fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}'>", kWidth, kHeight, escape_html(plot.title));
  svg += fmt::format("<text class='title' x='{}' y='18'>{}</text>", kLeft, escape_html(plot.title));
  svg += axes(plot, scale);
  svg += fmt::format("<path class='curve' d='{}'/></svg>\n", path_of(plot, scale));
  return svg;
}

}  // namespace accrete::launch
