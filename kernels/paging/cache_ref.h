// One rank's compressed caches as ops see them. The owner is cache::KvCache.
#pragma once

#include "kernels/paging/page_pool_ref.h"
#include "kernels/view.h"

namespace accrete {

// A page holds S slots of one (sequence, layer, KV head): S keys, then S values, contiguous.
struct CacheRef {
  AnyView<4> pages;              // [N, 2, S, D] f32 or bf16: K at index 0, V at 1
  View<int32_t, 3> slots;        // [L_local, B, Hkv_local] slot counts
  View<int32_t, 4> page_rows;    // [L_local, B, Hkv_local, max_pages] page ids, kNoPage beyond ceil(slots / S)
  // DMC state of the open slot, unrotated (dmc window W > 0: a ring of the newest W tokens of the segment; W == 0: sums).
  AnyView<4> ring_k;             // [L_local, B, Hkv_local, max(W,1) * D] keys as they came, component D-1 zeroed; W == 0: Sk (f32)
  AnyView<4> ring_v;             // the same for values; W == 0: Sv
  View<float, 4> ring_w;         // [L_local, B, Hkv_local, max(W,1)] weights; W == 0: Sw
  View<int32_t, 3> segment;      // [L_local, B, Hkv_local] tokens in the open segment
  PagePoolRef pool;
  int32_t page_slots = 16;       // S
};

}  // namespace accrete
