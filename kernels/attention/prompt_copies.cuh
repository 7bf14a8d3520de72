// The side of prompt attention that moves data: one warp claims items, another brings an item's queries, its tokens' own entries and the tiles
// of slots that they see into shared memory, as far ahead of the computing warpgroups as there is room.
#pragma once

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
  static constexpr int kStages = kSize == 128 ? 3 : 6;
  static constexpr int kTileBytes = TileLayout<kSize>::kBytes;
  static_assert(kTileBytes == kRows * kSize * 2);  // own entries take a tile's place
  alignas(1024) uint8_t q[kTileBytes];
  alignas(1024) uint8_t k[kStages][kTileBytes];
  alignas(1024) uint8_t v[kStages][kTileBytes];
  uint64_t next_full, next_wanted;
  uint64_t q_full[kRowGroups], q_empty[kRowGroups];
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
  Item next;              // claimed, not yet copied
  Item item[kRowGroups];  // whose queries each warpgroup has in q
  UnitOrder order;
  float unread;  // hold_wait's

  __device__ void init_barriers() {
    constexpr int kReaders = kGroupWarps * kRowGroups;
    init_barrier(&next_full, 1);
    init_barrier(&next_wanted, 1);
    for (int i = 0; i < kRowGroups; ++i) {
      init_barrier(&q_full[i], 1);
      init_barrier(&q_empty[i], kGroupWarps);
    }
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&k_full[i], 1);
      init_barrier(&k_empty[i], kReaders);
      init_barrier(&v_full[i], 1);
      init_barrier(&v_empty[i], kReaders);
    }
    publish_barriers();
  }
};

constexpr int kTilesAhead = 1;  // that an item has left to copy when the next one is claimed

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
    for (;; parity_ ^= 1) {
      wait_phase(&s_.next_full, parity_);
      const Item item = take_item(s_.next);
      if (item.tokens == 0) break;
      copy_own(item);
      copy_tiles(item);
    }
    for (int i = 0; i < kRowGroups; ++i) hand_over({}, i, 0);
  }

 private:
  // In the place of a tile.
  __device__ void copy_own(const Item& item) {
    const int bytes = a_.item_tokens * kSize * 2, half = lane_;
    wait_phase(&s_.k_empty[k_.stage], k_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.k_full[k_.stage], bytes);
    if (half < kHalves) copy_box(s_.k[k_.stage] + half * kRowsHalf, a_.own_k, &s_.k_full[k_.stage], box_of_rows<kSize>(item.head, half, item.token));
    k_.advance();
    wait_phase(&s_.v_empty[v_.stage], v_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.v_full[v_.stage], bytes);
    if (half < kHalves) copy_box(s_.v[v_.stage] + half * kRowsHalf, a_.own_v, &s_.v_full[v_.stage], box_of_rows<kSize>(item.head, half, item.token));
    v_.advance();
  }

  // Each warpgroup gets the item when it is through with the queries of the one before.
  __device__ void copy_queries(const Item& item) {
    const int bytes = a_.part_tokens * a_.group * kSize * 2, half = lane_;
    for (int i = 0; i < kRowGroups; ++i) {
      hand_over(item, i, bytes);
      if (half >= kHalves) continue;
      copy_box(s_.q + half * kRowsHalf + i * kPartBytes, a_.q, &s_.q_full[i], box_of_rows<kSize>(item.head * a_.group, half, item.token + i * a_.part_tokens));
    }
  }
  __device__ void hand_over(const Item& item, int part, int bytes) {
    wait_phase(&s_.q_empty[part], parity_ ^ 1);
    if (lane_ != 0) return;
    s_.item[part] = item;
    arrive_expecting(&s_.q_full[part], bytes);
  }

  // From the last tile to the first, values one behind the keys, as they are read.
  __device__ void copy_tiles(const Item& item) {
    const int tiles = item.tiles();
    int page = page_of(item, tiles - 1), block = 0;
    for (int tile = tiles - 1; tile >= 0; --tile) {
      if (tile == min(kTilesAhead, tiles - 1)) want_next();
      const int below = page_of(item, tile - 1), before = block;
      block = block_of(item, tile, page);
      page = below;
      copy_keys(block);
      if (tile == tiles - 1) copy_queries(item);
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
  uint32_t parity_ = 0;  // of the item
  RingPlace<Shared::kStages> k_, v_;
};

}  // namespace accrete
