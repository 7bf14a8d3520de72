// The image of a row: all that a cache holds of one sequence as one run of 32-bit words, as cache/snapshot.h lays it out after its header.
// Heads layer-major, and of each:
//
//   slots, segment | K [slots, D], V [slots, D] in the pages' type | ring_k, ring_v [max(W, 1) * D], ring_w [max(W, 1)] as f32
//
// The ring part is there only where the cache keeps DMC state. A ring kept in bf16 is widened on the way out and rounded on the way in.
#pragma once

#include "kernels/paging/cache_ref.h"

namespace accrete {

// One head of an image. An array of them has L * Hkv + 1: the last one holds the totals and no head.
struct RowHead {
  int64_t word_begin = 0;  // first word of the head
  int64_t page_begin = 0;  // pages of the heads before
  int32_t slots = 0;
  int32_t segment = 0;
};

// Which cache, which row, and how its image is laid out. Plain, passed by value; pointers are the device's or the host's.
struct RowImage {
  int32_t* slots = nullptr;          // [L, B, Hkv]
  int32_t* segment = nullptr;        // [L, B, Hkv]; null without DMC state
  int32_t* page_rows = nullptr;      // [L, B, Hkv, max_pages]
  uint32_t* pages = nullptr;         // [N, 2, S, slot_words]
  void* ring_k = nullptr;            // [L, B, Hkv, ring_entries, D]
  void* ring_v = nullptr;            // the same
  float* ring_w = nullptr;           // [L, B, Hkv, ring_entries]
  const RowHead* heads = nullptr;    // [L * Hkv + 1]
  int32_t head_count = 0;            // L * Hkv
  int32_t kv_heads = 0;              // Hkv
  int32_t rows = 0;                  // B
  int32_t row = 0;
  int32_t max_pages = 0;
  int32_t page_slots = 0;            // S
  int32_t slot_words = 0;            // words of one key: D f32 or D / 2 pairs of bf16
  int32_t ring_entries = 0;          // max(W, 1); 0 without DMC state
  int32_t head_size = 0;             // D
  bool ring_narrow = false;          // ring_k and ring_v are bf16

  // Index of head `index` of the image in the tables.
  ACCRETE_HD int64_t table(int32_t index) const {
    return (static_cast<int64_t>(index / kv_heads) * rows + row) * kv_heads + index % kv_heads;
  }
  ACCRETE_HD int32_t pages_of(int32_t index) const { return static_cast<int32_t>(heads[index + 1].page_begin - heads[index].page_begin); }
};

RowImage row_image(const CacheRef& cache, int32_t row, View<const RowHead, 1> heads);

// Where a word of the image lives.
struct ImageWord {
  enum Kind : uint8_t {
    kNowhere,  // no page holds it
    kSlots,
    kSegment,  // at may be null: the cache keeps none
    kWord,     // 32 bits of a page or of an f32 ring
    kNarrow,   // a bf16 that stands for an f32
  };
  Kind kind = kNowhere;
  void* at = nullptr;
};

// Of the ring of table entry `table`, its word `word`.
ACCRETE_HD inline ImageWord ring_word(const RowImage& image, int64_t table, int64_t word) {
  const int64_t vectors = static_cast<int64_t>(image.ring_entries) * image.head_size;
  if (word >= 2 * vectors) return {ImageWord::kWord, image.ring_w + table * image.ring_entries + (word - 2 * vectors)};
  void* ring = word < vectors ? image.ring_k : image.ring_v;
  const int64_t at = table * vectors + (word < vectors ? word : word - vectors);
  if (image.ring_narrow) return {ImageWord::kNarrow, static_cast<bf16*>(ring) + at};
  return {ImageWord::kWord, static_cast<float*>(ring) + at};
}

// Word `word` of head `index`, counted from the head's first.
ACCRETE_HD inline ImageWord image_word(const RowImage& image, int32_t index, int64_t word) {
  const int64_t table = image.table(index);
  if (word == 0) return {ImageWord::kSlots, image.slots + table};
  if (word == 1) return {ImageWord::kSegment, image.segment ? image.segment + table : nullptr};
  word -= 2;
  const int64_t half = static_cast<int64_t>(image.heads[index].slots) * image.slot_words;
  if (word >= 2 * half) return ring_word(image, table, word - 2 * half);
  const int64_t which = word >= half ? 1 : 0;
  const auto rest = static_cast<uint32_t>(word - which * half);  // below 2^32: row_image checks it
  const uint32_t slot = rest / image.slot_words, page_slots = image.page_slots;
  const int64_t page = image.page_rows[table * image.max_pages + slot / page_slots];
  if (page < 0) return {};
  return {ImageWord::kWord, image.pages + ((page * 2 + which) * page_slots + slot % page_slots) * image.slot_words + rest % image.slot_words};
}

// The head that holds word `word` of the image.
ACCRETE_HD inline int32_t head_of_word(const RowImage& image, int64_t word) {
  int32_t low = 0, high = image.head_count;  // heads[low].word_begin <= word < heads[high].word_begin
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (image.heads[middle].word_begin <= word) low = middle;
    else high = middle;
  }
  return low;
}

}  // namespace accrete
