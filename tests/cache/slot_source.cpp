#include "tests/cache/slot_source.h"

#include <algorithm>

namespace accrete::cache {
namespace {

// Pages taken into ids[0 .. count).
int32_t take_pages(const SlotSource& source, int32_t count, int32_t* ids) {
  for (int32_t i = 0; i < count; ++i) {
    ids[i] = source.pool.take();
    if (ids[i] == kNoPage) return i;
  }
  return count;
}

}  // namespace

SlotSource slot_source(const AppendSlots& op) {
  SlotSource source;
  const int64_t heads = op.cache.slots.shape[0] * op.cache.slots.shape[2];
  source.image = row_image(op.cache, 0, View<const RowHead, 1>(nullptr, {heads + 1}));
  source.pool = op.cache.pool;
  source.narrow = op.cache.pages.dtype == DType::bf16;
  source.bulk = op.bulk;
  source.rows = op.rows.data;
  source.tokens = op.tokens.data;
  source.keys = op.keys.data;
  return source;
}

void append_slots_cpu(const AppendSlots& op) {
  const SlotSource source = slot_source(op);
  RowImage image = source.image;
  for (int32_t item = 0; item < op.rows.shape[0]; ++item) {
    image.row = source.rows[item];
    for (int32_t index = 0; index < image.head_count; ++index) {
      const int64_t table = image.table(index);
      Growth grown = growth_of(source, item, index, image.slots[table]);
      const int32_t got = take_pages(source, grown.wanted - grown.held, image.page_rows + table * image.max_pages + grown.held);
      grown.after = std::min(grown.after, std::max(grown.before, (grown.held + got) * image.page_slots));
      image.slots[table] = grown.after;
      write_head(source.narrow, image, index, grown, {});
    }
  }
}

}  // namespace accrete::cache
