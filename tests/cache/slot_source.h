// Slots for tests of caches: what a head appends, and what its slots and DMC state then hold, are functions of a key alone, so a cache on
// the host and one on a GPU can be told the same step and must hold the same bits. All values are bf16 numbers but the weights.
#pragma once

#include <cstdint>

#include "kernels/paging/cache_ref.h"
#include "kernels/paging/row_image.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete::cache {

// One step: row i appends between 0 and tokens(i) slots in each of its heads. On CUDA the views are device memory.
struct AppendSlots {
  CacheRef cache;
  View<const int32_t, 1> rows;    // [R] distinct
  View<const int32_t, 1> tokens;  // [R]
  View<const uint64_t, 1> keys;   // [R]
  bool bulk = false;              // on CUDA a head takes its pages at once
};
void append_slots_cpu(const AppendSlots& op);
void append_slots_cuda(const AppendSlots& op, Stream& stream);

// Every thread takes: thread i with i % 3 == 0 one page into ids(i, 0), others i % 5 at once into ids(i, 0 .. 3); kNoPage where there is none.
void take_many_cuda(const PagePoolRef& pool, View<int32_t, 2> ids, Stream& stream);

// The plain form of AppendSlots that kernels are given.
struct SlotSource {
  RowImage image;  // its row is set for each item
  PagePoolRef pool;
  bool narrow = false;  // pages are bf16
  bool bulk = false;
  const int32_t* rows = nullptr;
  const int32_t* tokens = nullptr;
  const uint64_t* keys = nullptr;
};
SlotSource slot_source(const AppendSlots& op);

ACCRETE_HD inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9E3779B97F4A7C15ull + b + 0x7F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// Integers up to 256: bf16 numbers.
ACCRETE_HD inline float value_of(uint64_t key) { return static_cast<float>(static_cast<int32_t>(key % 513) - 256); }

struct Growth {
  int32_t before, after;       // slots
  int32_t held, wanted;        // pages
};
ACCRETE_HD inline Growth growth_of(const SlotSource& source, int32_t item, int32_t index, int32_t slots) {
  const int32_t more = static_cast<int32_t>(mix(source.keys[item], 77 + index) % (source.tokens[item] + 1));
  const int32_t size = source.image.page_slots;
  return {slots, slots + more, (slots + size - 1) / size, (slots + more + size - 1) / size};
}

// One of the workers that write a head together.
struct Worker {
  int32_t lane = 0, lanes = 1;
};

// Slots [before, after) and the DMC state of a head whose pages are there: the worker's part. image: the source's, with its row set.
ACCRETE_HD inline void write_head(bool narrow, const RowImage& image, int32_t index, Growth grown, Worker worker) {
  const int32_t lane = worker.lane, lanes = worker.lanes;
  const uint64_t key = mix(image.row, index);
  const int64_t table = image.table(index), size = image.head_size;
  for (int64_t i = lane; i < (grown.after - grown.before) * 2 * size; i += lanes) {
    const int64_t slot = grown.before + i / (2 * size), which = i / size % 2, d = i % size;
    const int64_t page = image.page_rows[table * image.max_pages + slot / image.page_slots];
    const int64_t at = ((page * 2 + which) * image.page_slots + slot % image.page_slots) * size + d;
    const float value = value_of(mix(mix(key, slot), which * size + d));
    if (narrow) reinterpret_cast<bf16*>(image.pages)[at] = bf16(value);
    else reinterpret_cast<float*>(image.pages)[at] = value;
  }
  const uint64_t state = mix(key, grown.after);
  if (image.segment && lane == 0) image.segment[table] = static_cast<int32_t>(state % 30);
  const int64_t vectors = image.ring_entries * size;
  for (int64_t i = lane; i < 2 * vectors; i += lanes) {
    void* ring = i < vectors ? image.ring_k : image.ring_v;
    const int64_t at = table * vectors + i % vectors;
    if (image.ring_narrow) static_cast<bf16*>(ring)[at] = bf16(value_of(mix(state, i)));
    else static_cast<float*>(ring)[at] = value_of(mix(state, i));
  }
  for (int64_t i = lane; i < image.ring_entries; i += lanes) {
    image.ring_w[table * image.ring_entries + i] = static_cast<float>(mix(state, ~i) % 1000003) / 1000003.0f;
  }
}

}  // namespace accrete::cache
