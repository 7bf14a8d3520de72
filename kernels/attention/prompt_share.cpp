#include "kernels/attention/prompt_share.h"

#include <algorithm>
#include <cmath>

namespace accrete {
namespace {

// Times in units of what an item takes for a tile: 1.7 µs at D = 128 on an H200, in which the GPU reads this many slots of decodes.
constexpr double kSlotsInTileTime = 13000.0;
constexpr double kStartTiles = 6.0;          // what prompt attention takes beside its tiles
constexpr double kEnoughToRead = 2.0 / 3.0;  // of the multiprocessors: measured, 3/4 take 1.06 times as long as all, 1/2 1.28 times
constexpr double kWorthIt = 0.95;            // of the time one after the other: they disturb each other a little

struct PromptWork {
  double tiles = 0.0;    // of all items
  double longest = 0.0;  // of one item
  int64_t items = 0;

  double time_on(int multiprocessors) const { return kStartTiles + longest * std::ceil(tiles / (longest * multiprocessors) - 1e-6); }
};

PromptWork work_of(const DecodePlanShape& shape, const AttentionLoad& load) {
  const int64_t item_tokens = std::max<int64_t>(1, kPromptItemRows / 2 / shape.group * 2);
  PromptWork work;
  for (const AttentionLoad::Prompt& prompt : load.prompts) {
    for (int64_t end = prompt.tokens; end > 0; end -= item_tokens) {
      const double tiles = 1.0 + static_cast<double>((prompt.earlier + end + kPromptTileSlots - 1) / kPromptTileSlots);
      work.tiles += tiles * shape.kv_heads;
      work.longest = std::max(work.longest, tiles);
      work.items += shape.kv_heads;
    }
  }
  return work;
}

}  // namespace

int prompt_share(const DecodePlanShape& shape, const AttentionLoad& load) {
  const PromptWork prompts = work_of(shape, load);
  if (prompts.items == 0 || load.decode_tokens == 0) return 0;
  const double decodes = static_cast<double>(load.decode_tokens * shape.kv_heads * shape.chunks()) / kSlotsInTileTime;
  double best = kWorthIt * (prompts.time_on(shape.multiprocessors) + decodes);
  int share = 0;
  const auto most = static_cast<int>(std::min<int64_t>(prompts.items, shape.multiprocessors - 1));
  for (int mine = 1; mine <= most; ++mine) {
    const double reading = decodes * std::max(1.0, shape.multiprocessors * kEnoughToRead / (shape.multiprocessors - mine));
    const double both = std::max(prompts.time_on(mine), reading);
    if (both < best) best = both, share = mine;
  }
  return share;
}

}  // namespace accrete
