#include "launch/profile/slot_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace accrete::launch {

double expected_slots(const SlotProfile& p, int64_t head, int64_t length) {
  const auto at = [&](size_t point) { return p.mean_slots[point * static_cast<size_t>(p.heads()) + static_cast<size_t>(head)]; };
  const auto found = std::lower_bound(p.lengths.begin(), p.lengths.end(), length);
  if (found == p.lengths.end()) return at(p.lengths.size() - 1) * static_cast<double>(length) / static_cast<double>(p.longest());
  const auto above = static_cast<size_t>(found - p.lengths.begin());
  const double from = above == 0 ? 0.0 : static_cast<double>(p.lengths[above - 1]);
  const double low = above == 0 ? 0.0 : at(above - 1);
  const double share = (static_cast<double>(length) - from) / (static_cast<double>(*found) - from);
  return low + share * (at(above) - low);
}

double expected_ratio(const SlotProfile& p, int64_t length) {
  double slots = 0.0;
  for (int64_t head = 0; head < p.heads(); ++head) slots += expected_slots(p, head, length);
  return slots > 0.0 ? static_cast<double>(length * p.heads()) / slots : 1.0;
}

std::vector<int64_t> profile_lengths(int64_t longest, int64_t points) {
  std::vector<int64_t> lengths{longest};
  for (int64_t power = 16; power < longest; power *= 2) lengths.push_back(power);
  for (int64_t i = 1; i < points; ++i) lengths.push_back(std::max<int64_t>(1, longest * i / points));
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

namespace {

struct Spread {
  double least = 0.0, mean = 0.0, most = 0.0;
};

// Over heads [begin, end), of their expected slots.
Spread spread_of(const SlotProfile& p, int64_t begin, int64_t end, int64_t length) {
  std::vector<double> slots;
  for (int64_t head = begin; head < end; ++head) slots.push_back(expected_slots(p, head, length));
  const auto [least, most] = std::minmax_element(slots.begin(), slots.end());
  return {*least, std::accumulate(slots.begin(), slots.end(), 0.0) / static_cast<double>(slots.size()), *most};
}

// A character for each head: the fuller its cache relative to its tokens, the taller.
std::string bars(const SlotProfile& p, int64_t layer, int64_t length) {
  static constexpr const char* kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text;
  for (int64_t head = layer * p.kv_heads; head < (layer + 1) * p.kv_heads; ++head) {
    const double share = expected_slots(p, head, length) / static_cast<double>(length);
    text += kBars[std::clamp<int>(static_cast<int>(share * 8.0), 0, 7)];
  }
  return text;
}

}  // namespace

std::string windows_text(const SlotProfile& p) { return p.windows == 1 ? "one window" : fmt::format("mean of {} windows", p.windows); }

std::string to_text(const SlotProfile& p, int64_t length) {
  if (length <= 0) length = p.longest();
  std::string text = fmt::format("{}\n{} of {}\n\n  tokens  mean slots  least head   most head   ratio\n", p.provenance.line(), windows_text(p), p.text);
  for (int64_t point : p.lengths) {
    const Spread s = spread_of(p, 0, p.heads(), point);
    text += fmt::format("{:>8}{:>12.1f}{:>12.1f}{:>12.1f}{:>8.2f}\n", point, s.mean, s.least, s.most, expected_ratio(p, point));
  }
  const char* how = std::binary_search(p.lengths.begin(), p.lengths.end(), length) ? "" : length > p.longest() ? ", extrapolated" : ", interpolated";
  text += fmt::format("\nAfter {} tokens{}\n   layer  mean slots  least head   most head   ratio  slots per token of each KV head\n", length, how);
  for (int64_t layer = 0; layer < p.layers; ++layer) {
    const Spread s = spread_of(p, layer * p.kv_heads, (layer + 1) * p.kv_heads, length);
    text += fmt::format("{:>8}{:>12.1f}{:>12.1f}{:>12.1f}{:>8.2f}  {}\n", layer, s.mean, s.least, s.most, static_cast<double>(length) / s.mean, bars(p, layer, length));
  }
  return text;
}

}  // namespace accrete::launch
