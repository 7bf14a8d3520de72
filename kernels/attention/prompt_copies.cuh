// The copying side of prompt attention: one warp brings an item's queries, its tokens' own entries and the tiles of slots that they see
// into shared memory, as far ahead of the computing warpgroups as there is room.
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
// Queries and own entries: all rows of the first 64 elements, then of the next.
constexpr int kRowsHalf = kRows * 128;

template <int kSize>
struct PromptShared {
  static constexpr int kStages = kSize == 128 ? 3 : 6;
  static constexpr int kTileBytes = TileLayout<kSize>::kBytes;
  static_assert(kTileBytes == kRows * kSize * 2);  // own entries take a tile's place
  alignas(1024) uint8_t q[kTileBytes];
  alignas(1024) uint8_t k[kStages][kTileBytes];
  alignas(1024) uint8_t v[kStages][kTileBytes];
  uint64_t q_full, q_empty;
  uint64_t k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
  Item item;  // whose queries are in q
  UnitOrder order;
  float unread;  // hold_wait's

  __device__ void init_barriers() {
    constexpr int kReaders = kGroupWarps * kRowGroups;
    init_barrier(&q_full, 1);
    init_barrier(&q_empty, kReaders);
    for (int i = 0; i < kStages; ++i) {
      init_barrier(&k_full[i], 1);
      init_barrier(&k_empty[i], kReaders);
      init_barrier(&v_full[i], 1);
      init_barrier(&v_empty[i], kReaders);
    }
    publish_barriers();
  }
};

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

// All lanes of one warp call its functions.
template <int kSize>
class PromptCopies {
 public:
  using Shared = PromptShared<kSize>;
  static constexpr int kHalves = kSize / 64;

  __device__ PromptCopies(const PromptArgs& args, Shared& shared) : a_(args), s_(shared), queue_(args, shared.order, 4 * kSize), lane_(threadIdx.x % 32) {}

  __device__ void run() {
    for (int number = blockIdx.x;;) {
      const Item item = queue_.find(number);
      wait_phase(&s_.q_empty, q_parity_ ^ 1);
      q_parity_ ^= 1;
      if (lane_ == 0) s_.item = item;
      if (item.tokens == 0) break;
      copy_rows(item);
      number = copy_tiles(item);
    }
    if (lane_ == 0) arrive(&s_.q_full);
    leave();
  }

 private:
  // Items beyond each block's first are claimed; late, so that what is left goes to who is free.
  __device__ int claim() {
    int number = 0;
    if (lane_ == 0) number = static_cast<int>(gridDim.x + atomicAdd(&a_.claims[0], 1u));
    return number;
  }
  // The last block to find none left leaves the counters as they were.
  __device__ void leave() {
    if (lane_ != 0) return;
    __threadfence();
    if (atomicInc(&a_.claims[1], gridDim.x - 1) == gridDim.x - 1) a_.claims[0] = 0;
  }

  // Queries, and own entries in the place of a tile.
  __device__ void copy_rows(const Item& item) {
    const int tokens = a_.item_tokens, own_bytes = tokens * kSize * 2;
    const int half = lane_ % kHalves;
    if (lane_ == 0) arrive_expecting(&s_.q_full, own_bytes * a_.group);
    if (lane_ < kHalves) copy_box(s_.q + half * kRowsHalf, a_.q, &s_.q_full, {0, 0, item.head * a_.group * kHalves + half, item.token});
    const int4 at{0, 0, item.head * kHalves + half, item.token};
    wait_phase(&s_.k_empty[k_.stage], k_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.k_full[k_.stage], own_bytes);
    if (lane_ < kHalves) copy_box(s_.k[k_.stage] + half * kRowsHalf, a_.own_k, &s_.k_full[k_.stage], at);
    k_.advance();
    wait_phase(&s_.v_empty[v_.stage], v_.parity ^ 1);
    if (lane_ == 0) arrive_expecting(&s_.v_full[v_.stage], own_bytes);
    if (lane_ < kHalves) copy_box(s_.v[v_.stage] + half * kRowsHalf, a_.own_v, &s_.v_full[v_.stage], at);
    v_.advance();
  }

  // From the last tile to the first, values one behind the keys, as they are read. The number of the block's next item.
  __device__ int copy_tiles(const Item& item) {
    const int tiles = item.tiles();
    int number = 0, page = page_of(item, tiles - 1), blocks = 0;
    if (tiles < 2) number = claim();
    for (int tile = tiles - 1; tile >= 0; --tile) {
      if (tile == 1) number = claim();
      const int below = page_of(item, tile - 1);
      const int values = blocks;
      blocks = block_of(item, tile, page);
      page = below;
      copy_keys(blocks);
      if (tile < tiles - 1) copy_values(values);
    }
    if (tiles > 0) copy_values(blocks);
    return __shfl_sync(kAllLanes, number, 0);
  }

  // Lane i < kTile / kBoxSlots has the i-th box of a tile. Its page:
  __device__ int page_of(const Item& item, int tile) const {
    const int slot = tile * kTile + lane_ * kBoxSlots;
    if (tile < 0 || lane_ >= kTile / kBoxSlots || slot >= item.held) return 0;
    return a_.page_rows[static_cast<int64_t>(item.table) * a_.max_pages + slot / a_.page_slots];
  }
  // And its keys' first block of eight; past the end of the pages, where copies find zeros, for slots that the head does not have.
  __device__ int block_of(const Item& item, int tile, int page) const {
    const int slot = tile * kTile + lane_ * kBoxSlots;
    if (slot >= item.held) return a_.page_blocks;
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
  ItemQueue queue_;
  int lane_;
  uint32_t q_parity_ = 0;
  RingPlace<Shared::kStages> k_, v_;
};

}  // namespace accrete
