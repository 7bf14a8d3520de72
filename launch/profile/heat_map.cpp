#include "launch/profile/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/bench/svg_plot.h"

namespace accrete::launch {
namespace {

// Pixels.
constexpr double kLeft = 56, kTop = 106, kBottom = 58, kLegend = 92, kLeast = 640;
constexpr double kMostCellWidth = 96, kLeastCellWidth = 14, kCellHeight = 20;
constexpr int kLegendSteps = 32;
constexpr double kWritable = 40;  // cells at least so wide have their ratio written in them

struct Picture {
  const SlotProfile& profile;
  double cell_width;
  double least, most;  // ratios at the ends of the colours
  double width() const { return std::max(kLeast, kLeft + cell_width * static_cast<double>(profile.kv_heads) + kLegend); }
  double height() const { return kTop + kCellHeight * static_cast<double>(profile.layers) + kBottom; }
  double right() const { return kLeft + cell_width * static_cast<double>(profile.kv_heads); }
  // Ratios are compared by their logarithm: 2 to 4 is as far as 4 to 8.
  double shade(double ratio) const { return most > least ? std::log(ratio / least) / std::log(most / least) : 0.0; }
};

double ratio_of(const SlotProfile& p, int64_t head) { return static_cast<double>(p.longest()) / expected_slots(p, head, p.longest()); }

Picture picture_of(const SlotProfile& p) {
  Picture picture{p, std::clamp(360.0 / static_cast<double>(p.kv_heads), kLeastCellWidth, kMostCellWidth), 1.0, 1.0};
  picture.least = picture.most = ratio_of(p, 0);
  for (int64_t head = 1; head < p.heads(); ++head) {
    picture.least = std::min(picture.least, ratio_of(p, head));
    picture.most = std::max(picture.most, ratio_of(p, head));
  }
  return picture;
}

std::string cell(const Picture& picture, int64_t layer, int64_t head) {
  const SlotProfile& p = picture.profile;
  const int64_t index = layer * p.kv_heads + head;
  const double ratio = ratio_of(p, index), x = kLeft + picture.cell_width * static_cast<double>(head), y = kTop + kCellHeight * static_cast<double>(layer);
  const auto most = p.most_slots[(p.lengths.size() - 1) * static_cast<size_t>(p.heads()) + static_cast<size_t>(index)];
  std::string svg = fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' fill='{}'><title>layer {}, KV head {}: {:.1f} slots of {} tokens, ratio {:.2f}, at most {} slots</title></rect>",
                                x, y, picture.cell_width - 1, kCellHeight - 1, heat_colour(picture.shade(ratio)), layer, head,
                                expected_slots(p, index, p.longest()), p.longest(), ratio, most);
  if (picture.cell_width >= kWritable) {
    svg += fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='middle' fill='{}' pointer-events='none'>{:.2f}</text>", x + picture.cell_width / 2, y + 14,
                       picture.shade(ratio) > 0.55 ? "#1c2430" : "#ffffff", ratio);
  }
  return svg + "\n";
}

// Every layer or head has its number, or as many as have room.
std::string numbers(const Picture& picture) {
  const SlotProfile& p = picture.profile;
  std::string svg;
  for (int64_t layer = 0; layer < p.layers; ++layer) {
    svg += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{}</text>", kLeft - 6, kTop + kCellHeight * static_cast<double>(layer) + 14, layer);
  }
  const double bottom = picture.height() - kBottom + 15;
  const int64_t every = std::max<int64_t>(1, static_cast<int64_t>(std::ceil(20.0 / picture.cell_width)));
  for (int64_t head = 0; head < p.kv_heads; head += every) {
    svg += fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>{}</text>", kLeft + picture.cell_width * (static_cast<double>(head) + 0.5), bottom, head);
  }
  svg += fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>KV head</text>", (kLeft + picture.right()) / 2, bottom + 20);
  const double middle = (kTop + picture.height() - kBottom) / 2;
  return svg + fmt::format("<text transform='translate(18 {:.1f}) rotate(-90)' text-anchor='middle'>layer</text>\n", middle);
}

std::string legend(const Picture& picture) {
  const double x = picture.right() + 22, height = std::min(220.0, picture.height() - kTop - kBottom), step = height / kLegendSteps;
  std::string svg;
  for (int i = 0; i < kLegendSteps; ++i) {
    svg += fmt::format("<rect x='{:.1f}' y='{:.1f}' width='14' height='{:.1f}' fill='{}'/>", x, kTop + height - step * (i + 1), step + 0.5, heat_colour((i + 0.5) / kLegendSteps));
  }
  for (int i = 0; i <= 4; ++i) {
    const double t = i / 4.0, ratio = picture.least * std::pow(picture.most / picture.least, t);
    if (i > 0 && picture.most <= picture.least) break;
    svg += fmt::format("<text x='{:.1f}' y='{:.1f}'>{:.2f}</text>", x + 20, kTop + height * (1 - t) + 4, ratio);
  }
  return svg + fmt::format("<text x='{:.1f}' y='{:.1f}'>tokens per slot</text>\n", x - 4, kTop - 10);
}

}  // namespace

std::string heat_colour(double t) {
  struct Stop {
    double r, g, b;
  };
  static constexpr Stop kStops[] = {{44, 18, 84}, {56, 79, 138}, {38, 132, 141}, {78, 187, 108}, {246, 228, 66}};
  const double at = std::clamp(t, 0.0, 1.0) * 4.0;
  const auto below = std::min(3, static_cast<int>(at));
  const double share = at - below;
  const auto mix = [&](double low, double high) { return static_cast<int>(std::lround(low + share * (high - low))); };
  const Stop &low = kStops[below], &high = kStops[below + 1];
  return fmt::format("#{:02x}{:02x}{:02x}", mix(low.r, high.r), mix(low.g, high.g), mix(low.b, high.b));
}

std::string heat_map_svg(const SlotProfile& p) {
  const Picture picture = picture_of(p);
  std::string svg = fmt::format("<svg xmlns='http://www.w3.org/2000/svg' width='{0:.0f}' height='{1:.0f}' viewBox='0 0 {0:.0f} {1:.0f}' font-family='sans-serif' font-size='11' fill='#1c2430'>\n",
                                picture.width(), picture.height());
  svg += "<rect width='100%' height='100%' fill='#ffffff'/>\n";
  const auto line = [&](int y, const std::string& how, const std::string& words) { svg += fmt::format("<text x='{}' y='{}'{}>{}</text>\n", kLeft, y, how, escape_html(words)); };
  line(22, " font-size='14' font-weight='600'", fmt::format("Compression of each head: {}", p.provenance.model));
  line(40, "", fmt::format("tokens per slot after {} tokens, {:.2f} over all heads; {} of {}", p.longest(), expected_ratio(p, p.longest()), windows_text(p), p.text));
  line(56, "", p.provenance.line());
  if (p.provenance.synthetic_cr > 0.0) line(72, " fill='#a35c00'", "Synthetic decisions: forced, not the model's.");
  for (int64_t layer = 0; layer < p.layers; ++layer) {
    for (int64_t head = 0; head < p.kv_heads; ++head) svg += cell(picture, layer, head);
  }
  return svg + numbers(picture) + legend(picture) + "</svg>\n";
}

}  // namespace accrete::launch
