// The sizes of a rank's KV cache, and what a row uses of it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace accrete::cache {

struct KvCacheShape {
  int64_t layers = 0;      // L_local
  int64_t kv_heads = 0;    // Hkv_local
  int64_t head_size = 0;   // D
  int64_t sequences = 0;   // B: rows of the tables
  int64_t max_tokens = 0;  // longest sequence: max_pages = ceil(max_tokens / page_slots)
  int64_t pages = 0;       // N
  int32_t page_slots = 16; // S
  int32_t window = 12;     // W of the DMC state
  bool dmc = false;        // false: no ring or sums are kept
  DType dtype = DType::f32;
  bool device = false;     // on a GPU: rings in bf16 (sums of an unlimited window stay f32), and the work space of moving rows

  int64_t page_bytes() const { return 2 * page_slots * head_size * static_cast<int64_t>(size_of(dtype)); }
  int64_t heads() const { return layers * kv_heads; }
  int64_t table_heads() const { return heads() * sequences; }
  int64_t max_pages() const { return (max_tokens + page_slots - 1) / page_slots; }
  int64_t ring_entries() const { return dmc ? std::max(window, 1) : 0; }  // of a head's DMC state
  DType ring_dtype() const { return device && window > 0 ? DType::bf16 : DType::f32; }
  int64_t ring_bytes() const { return 2 * ring_entries() * head_size * static_cast<int64_t>(size_of(ring_dtype())) + ring_entries() * 4; }
  int64_t state_bytes() const;  // all rows' tables and DMC state and the pool: what the memory plan must add to pages * page_bytes()
};

// Pieces in which a GPU's rows move to and from the host; two are in flight.
inline constexpr int64_t kMoveBytes = int64_t{4} << 20;

// Ends in a CHECK when a cache cannot have this shape.
void check_shape(const KvCacheShape& shape);

// One row's use of this rank's memory, as of the last finished step.
struct RowUse {
  int64_t pages = 0;       // held
  int64_t slots = 0;       // sum over layers and KV heads
  int32_t full_heads = 0;      // heads whose next append takes a page (no page yet, or the last one full)
  int32_t last_slot_heads = 0; // heads with room for one more: only the append after the next one takes a page

  void add_head(int32_t head_slots, int32_t page_slots) {
    const int32_t used = head_slots % page_slots;
    pages += (head_slots + page_slots - 1) / page_slots;
    slots += head_slots;
    full_heads += used == 0 ? 1 : 0;
    last_slot_heads += used > 0 && used + 1 == page_slots ? 1 : 0;
  }
};

}  // namespace accrete::cache
