#include "kernels/paging/row_image.h"

#include <limits>

namespace accrete {

RowImage row_image(const CacheRef& cache, int32_t row, View<const RowHead, 1> heads) {
  RowImage image;
  const int64_t size = cache.pages.shape[3], bytes = size * static_cast<int64_t>(size_of(cache.pages.dtype));
  CHECK(bytes % static_cast<int64_t>(sizeof(uint32_t)) == 0, bytes);
  CHECK(row >= 0 && row < cache.slots.shape[1], row, cache.slots.shape[1]);
  image.slots = cache.slots.data;
  image.page_rows = cache.page_rows.data;
  image.pages = static_cast<uint32_t*>(cache.pages.data);
  image.heads = heads.data;
  image.head_count = static_cast<int32_t>(cache.slots.shape[0] * cache.slots.shape[2]);
  CHECK(heads.shape[0] == image.head_count + 1, heads.shape[0], image.head_count);
  image.kv_heads = static_cast<int32_t>(cache.slots.shape[2]);
  image.rows = static_cast<int32_t>(cache.slots.shape[1]);
  image.row = row;
  image.max_pages = static_cast<int32_t>(cache.page_rows.shape[3]);
  image.page_slots = cache.page_slots;
  image.slot_words = static_cast<int32_t>(bytes / static_cast<int64_t>(sizeof(uint32_t)));
  image.head_size = static_cast<int32_t>(size);
  const int64_t most_words = int64_t{image.max_pages} * image.page_slots * image.slot_words;  // of a head's keys
  CHECK(most_words <= std::numeric_limits<uint32_t>::max(), image.max_pages, image.page_slots, image.slot_words);
  if (!cache.segment.data) return image;
  image.segment = cache.segment.data;
  image.ring_k = cache.ring_k.data;
  image.ring_v = cache.ring_v.data;
  image.ring_w = cache.ring_w.data;
  image.ring_entries = static_cast<int32_t>(cache.ring_w.shape[3]);
  image.ring_narrow = cache.ring_k.dtype == DType::bf16;
  return image;
}

}  // namespace accrete
