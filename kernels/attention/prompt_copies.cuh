// The side of prompt attention that moves data: one warp claims items and has the level-two cache fetch what they begin with, another brings
// an item's queries, its tokens' own entries and the tiles of slots that they see into shared memory. Both are as far ahead of the computing
// warpgroups as there is room.
#pragma once
#ifndef PREFETCH
#define PREFETCH 1
#endif
#ifndef AHEAD
#define AHEAD 1
#endif

#include "kernels/async_copy.cuh"
#include "kernels/attention/prompt_items.cuh"

namespace accrete {

// How keys and values of a tile lie in shared memory: rows of 64 elements (128 bytes) in blocks of eight slots, the D / 64 blocks of the
// same slots one after another, and so on for the next eight slots. Swizzled, see TensorBoxes.
template <int kSize>
struct TileLayout {
  static constexpr int kHalves = kSize / 64;
  static constexpr int kBlockBytes = 8 * 128;
  static constexpr int kEightSlots = kHalves * kBlockBytes;
  static constexpr int kBytes = kTile / 8 * kEightSlots;
};
// Queries and own entries: all rows of the first 64 elements, then of the next. Queries of a warpgroup begin at its first row.
constexpr int kRowsHalf = kRows * 128;
constexpr int kPartBytes = kRowsHalf / kRowGroups;

template <int kSize>
struct PromptShared {
  static constexpr int kKeyStages = kSize == 128 ? 3 : 6, kValueStages = kSize == 128 ? 2 : 6, kItemStages = 2;
  static constexpr int kTileBytes = TileLayout<kSize>::kBytes;
  static_assert(kTileBytes == kRows * kSize * 2);  // own entries take a tile's place
  alignas(1024) uint8_t q[kItemStages][kTileBytes];
  alignas(1024) uint8_t k[kKeyStages][kTileBytes];
  alignas(1024) uint8_t v[kValueStages][kTileBytes];
  uint64_t next_full, next_wanted;
  uint64_t q_full[kItemStages], q_empty[kItemStages];
  uint64_t k_full[kKeyStages], k_empty[kKeyStages];
  uint64_t v_full[kValueStages], v_empty[kValueStages];
  Item next;               // claimed, not yet copied
  Item item[kItemStages];  // whose queries are in q
  UnitOrder order;
  float unread;  // hold_wait's

  __device__ void init_barriers() {
    init_barrier(&next_full, 1);
    init_barrier(&next_wanted, 1);
    init_ring(q_full, q_empty);
    init_ring(k_full, k_empty);
    init_ring(v_full, v_empty);
    publish_barriers();
  }

 private:
  // A copying thread says when a stage is being filled, each computing warp when it is through with it.
  template <int kStages>
  __device__ static void init_ring(uint64_t (&full)[kStages], uint64_t (&empty)[kStages]) {
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], kGroupWarps * kRowGroups);
    }
  }
};

constexpr int kTilesAhead = AHEAD;

// A place in a ring of stages and the parity of its phase.
template <int kStages>
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

// Where the rows of a token begin in a map of rows: `head` counts heads of D elements.
template <int kSize>
__device__ inline int4 box_of_rows(int head, int half, int token) {
  return {0, 0, head * (kSize / 64) + half, token};
}

// All lanes of one warp run it.
template <int kSize>
class PromptClaims {
 public:
  using Shared = PromptShared<kSize>;
  __device__ PromptClaims(const PromptArgs& args, Shared& shared) : a_(args), s_(shared), queue_(args, shared.order, 4 * kSize), lane_(threadIdx.x % 32) {}

  __device__ void run() {
    int number = blockIdx.x;
    for (uint32_t parity = 0;; parity ^= 1) {
      const Item item = queue_.find(number);
      if (lane_ == 0) {
        s_.next = item;
        arrive(&s_.next_full);
      }
      if (item.tokens == 0) break;
#if PREFETCH
      fetch(item);
#endif
      wait_phase(&s_.next_wanted, parity);
      number = claim();
    }
    leave();
  }

 private:
  __device__ int claim() {
    int number = 0;
    if (lane_ == 0) number = static_cast<int>(gridDim.x + atomicAdd(&a_.claims[0], 1u));
    return __shfl_sync(kAllLanes, number, 0);
  }
  // What an item begins with lies apart in memory, a head's rows of each token: the level-two cache is asked for it beforehand.
  __device__ void fetch(const Item& item) const {
    fetch_rows(item, a_.q_rows, a_.group);
    fetch_rows(item, a_.own_k_rows, 1);
    fetch_rows(item, a_.own_v_rows, 1);
  }
  // `heads` of each KV head.
  __device__ void fetch_rows(const Item& item, const bf16* rows, int heads) const {
    const int lines = heads * (kSize / 64);  // of a token, side by side
    for (int i = lane_; i < item.tokens * lines; i += 32) {
      const int64_t first = (static_cast<int64_t>(item.token + i / lines) * a_.kv_heads + item.head) * heads * kSize;
      prefetch_line(rows + first + i % lines * 64);
    }
  }
  // The last block to find none left leaves the counters as they were.
  __device__ void leave() {
    if (lane_ != 0) return;
    __threadfence();
    if (atomicInc(&a_.claims[1], gridDim.x - 1) == gridDim.x - 1) a_.claims[0] = 0;
  }

  const PromptArgs& a_;
  Shared& s_;
  ItemQueue queue_;
  int lane_;
};

// All lanes of one warp run it.
template <int kSize>
class PromptCopies {
 public:
  using Shared = PromptShared<kSize>;
  static constexpr int kHalves = kSize / 64;

  __device__ PromptCopies(const PromptArgs& args, Shared& shared) : a_(args), s_(shared), lane_(threadIdx.x % 32) {}

  __device__ void run() {
    for (uint32_t parity = 0;; parity ^= 1) {
      wait_phase(&s_.next_full, parity);
      const Item item = s_.next;
      hand_over(item);
      if (item.tokens == 0) break;
      copy_tiles(item);
    }
  }

 private:
  // The item and its queries.
  __device__ void hand_over(const Item& item) {
    uint64_t* full = &s_.q_full[q_.stage];
    uint8_t* to = s_.q[q_.stage];
    wait_phase(&s_.q_empty[q_.stage], q_.parity ^ 1);
    const int bytes = item.tokens == 0 ? 0 : a_.item_tokens * a_.group * kSize * 2, half = lane_ % kHalves, part = lane_ / kHalves;
    if (lane_ == 0) {
      s_.item[q_.stage] = item;
      arrive_expecting(full, bytes);
    }
    q_.advance();
    if (item.tokens == 0 || part >= kRowGroups) return;
    copy_box(to + half * kRowsHalf + part * kPartBytes, a_.q, full, box_of_rows<kSize>(item.head * a_.group, half, item.token + part * a_.part_tokens));
  }

  // Own entries take the place of a tile.
  __device__ void copy_own_keys(const Item& item) {
    wait_phase(&s_.k_empty[k_.stage], k_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.k_full[k_.stage], a_.item_tokens * kSize * 2);
    if (lane_ < kHalves) copy_box(s_.k[k_.stage] + lane_ * kRowsHalf, a_.own_k, &s_.k_full[k_.stage], box_of_rows<kSize>(item.head, lane_, item.token));
    k_.advance();
  }
  __device__ void copy_own_values(const Item& item) {
    wait_phase(&s_.v_empty[v_.stage], v_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.v_full[v_.stage], a_.item_tokens * kSize * 2);
    if (lane_ < kHalves) copy_box(s_.v[v_.stage] + lane_ * kRowsHalf, a_.own_v, &s_.v_full[v_.stage], box_of_rows<kSize>(item.head, lane_, item.token));
    v_.advance();
  }

  // Own entries and tiles, the last one first, values one behind the keys, as they are read.
  __device__ void copy_tiles(const Item& item) {
    const int tiles = item.tiles();
    int page = page_of(item, tiles - 1), block = 0;
    copy_own_keys(item);
    for (int tile = tiles - 1; tile >= 0; --tile) {
      if (tile == min(kTilesAhead, tiles - 1)) want_next();
      const int below = page_of(item, tile - 1), before = block;
      block = block_of(item, tile, page);
      page = below;
      copy_keys(block);
      if (tile == tiles - 1) copy_own_values(item);
      else copy_values(before);
    }
    copy_values(block);
  }

  // So late that items go to who is free, so early that the next one's first copies follow this one's last.
  __device__ void want_next() {
    __syncwarp();
    if (lane_ == 0) arrive(&s_.next_wanted);
  }

  // Lane i < kTile / kBoxSlots has the i-th box of a tile. Its page:
  __device__ int page_of(const Item& item, int tile) const {
    const int slot = tile * kTile + lane_ * kBoxSlots;
    if (tile < 0 || lane_ >= kTile / kBoxSlots || slot >= item.slots) return 0;
    return a_.page_rows[static_cast<int64_t>(item.table) * a_.max_pages + slot / a_.page_slots];
  }
  // And its keys' first block of eight; past the end of the pages, where copies find zeros, for slots that nobody sees.
  __device__ int block_of(const Item& item, int tile, int page) const {
    const int slot = tile * kTile + lane_ * kBoxSlots;
    if (slot >= item.slots) return a_.page_blocks;
    return (max(page, 0) * 2 * a_.page_slots + slot % a_.page_slots) / 8;
  }

  __device__ void copy_keys(int block) {
    wait_phase(&s_.k_empty[k_.stage], k_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.k_full[k_.stage], Shared::kTileBytes);
    if (lane_ < kTile / kBoxSlots) copy_box(s_.k[k_.stage] + lane_ * 2 * TileLayout<kSize>::kEightSlots, a_.pages, &s_.k_full[k_.stage], {0, 0, 0, block});
    k_.advance();
  }
  __device__ void copy_values(int block) {
    wait_phase(&s_.v_empty[v_.stage], v_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.v_full[v_.stage], Shared::kTileBytes);
    if (lane_ < kTile / kBoxSlots) {
      copy_box(s_.v[v_.stage] + lane_ * 2 * TileLayout<kSize>::kEightSlots, a_.pages, &s_.v_full[v_.stage], {0, 0, 0, block + a_.page_slots / 8});
    }
    v_.advance();
  }

  const PromptArgs& a_;
  Shared& s_;
  int lane_;
  RingPlace<Shared::kItemStages> q_;
  RingPlace<Shared::kKeyStages> k_;
  RingPlace<Shared::kValueStages> v_;
};

}  // namespace accrete
