// The work of prompt attention and who takes it. An item is up to kRows rows, row = (token, query of the group), of one sequence and KV
// head, a unit. Heads differ in length by an order of magnitude and only the device knows it, so blocks claim items there: units in order
// of their slots, most first, in groups whose slots fit the level-two cache together. In a group, items that are long beside a block's share
// come first, the longest before all, so that what is left at the end is small; the others by their place in the text, last tokens first,
// for what heads have of the same tokens lies side by side in memory.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarpRows = 16;
constexpr int kGroupWarps = 4;     // of a warpgroup
constexpr int kRowGroups = 2;      // warpgroups that compute
constexpr int kPartRows = kWarpRows * kGroupWarps;
constexpr int kRows = kPartRows * kRowGroups;
constexpr int kPromptThreads = 32 * kGroupWarps * (1 + kRowGroups);  // a warpgroup more, of which one warp claims items and one copies
constexpr int kTile = 128;         // slots
constexpr int kBoxSlots = 16;      // that one copy brings; pages are multiples of it
constexpr int kSortedUnits = 256;  // of more units, there are so many items that their order hardly matters
constexpr int kLongShare = 4;      // of a block's share
constexpr int kCachedBytes = 32 << 20;  // slots of a group, which has at most a unit for each lane of a warp

struct PromptArgs {
  CUtensorMap pages;          // [2 N S / 8, D / 64, 8, 64], boxes of kBoxSlots slots of D
  CUtensorMap q;              // [T, Hq D / 64, G, 64], boxes of a warpgroup's tokens, all queries of the group
  CUtensorMap own_k, own_v;   // [T, Hkv D / 64, 1, 64], boxes of an item's tokens
  const int32_t* row;         // [B_step]
  const int32_t* begin;       // [B_step + 1]
  const int32_t* own_slot;    // [T, Hkv]
  const int32_t* slots;       // [B, Hkv] of the layer
  const int32_t* page_rows;   // [B, Hkv, max_pages] of the layer
  const bf16* q_rows;         // [T, Hq, D]
  const bf16* own_k_rows;     // [T, Hkv, D]
  const bf16* own_v_rows;     // [T, Hkv, D]
  bf16* out;                  // [T, Hq, D]
  uint32_t* claims;           // [2] items claimed beyond the first of each block, blocks that found none left; zero between launches
  int first_sequence;
  int sequences;
  int max_pages;
  int page_slots;
  int page_blocks;            // of eight slots: 2 N S / 8
  int kv_heads;
  int group;                  // G
  int part_tokens;            // of an item that a warpgroup takes: as many as fit its rows with G each
  int item_tokens;
  float scale;                // log2(e) / sqrt(D)
  __device__ int units() const { return sequences * kv_heads; }
};

struct Item {
  int32_t token;   // the first, of the step
  int32_t tokens;  // 0: no item is left
  int32_t head;
  int32_t table;   // (cache row, head) in the tables
  int32_t slots;   // that the last token sees, closed ones below its own; the others of the item see no more
  int32_t held;    // slots of the head
  // At least one, which then is masked.
  __device__ int tiles() const { return max((slots + kTile - 1) / kTile, 1); }
};

// Units by their slots, most first, in shared memory. All threads of the block, a barrier behind it.
struct UnitOrder {
  int32_t slots[kSortedUnits];
  uint16_t unit[kSortedUnits];

  __device__ void sort(const PromptArgs& a) {
    const int units = a.units();
    if (units <= kSortedUnits) {
      for (int i = threadIdx.x; i < units; i += kPromptThreads) {
        const int row = a.row[a.first_sequence + i / a.kv_heads];
        slots[i] = row < 0 ? 0 : a.slots[row * a.kv_heads + i % a.kv_heads];
      }
      __syncthreads();
      for (int i = threadIdx.x; i < units; i += kPromptThreads) {
        int before = 0;
        for (int j = 0; j < units; ++j) before += slots[j] > slots[i] || (slots[j] == slots[i] && j < i) ? 1 : 0;
        unit[before] = static_cast<uint16_t>(i);
      }
    }
    __syncthreads();
  }
};

// One warp's view: lane i has unit i of the group that its last claim lay in. Claims come in rising order.
class ItemQueue {
 public:
  __device__ ItemQueue(const PromptArgs& args, const UnitOrder& order, int slot_bytes) : a_(args), order_(order), most_slots_(kCachedBytes / slot_bytes) { load(); }

  // What the item of this number is, if there are so many. All lanes get it.
  __device__ Item find(int number) {
    while (number - passed_ >= items_) {
      passed_ += items_;
      first_ += group_;
      if (first_ >= a_.units()) return {};
      load();
    }
    // Of the group. The least rank whose items and those above it are more than `place`:
    const int place = number - passed_;
    int rank = 1, beyond = above_;
    while (beyond - rank > 1) {
      const int middle = (rank + beyond) / 2;
      (__reduce_add_sync(kAllLanes, items_from(middle)) > place ? rank : beyond) = middle;
    }
    const int higher = items_from(rank + 1), here = items_from(rank) - higher;
    const int among = place - __reduce_add_sync(kAllLanes, higher), after = sum_to_lane(here);
    const unsigned mine = __ballot_sync(kAllLanes, after - here <= among && among < after);
    return item_of(__ffs(mine) - 1, higher + among - (after - here));
  }

 private:
  __device__ static int sum_to_lane(int value) {
#pragma unroll
    for (int back = 1; back < 32; back *= 2) {
      const int other = __shfl_up_sync(kAllLanes, value, back);
      if (static_cast<int>(threadIdx.x % 32) >= back) value += other;
    }
    return value;
  }

  // Of the lane's unit, the number of items that see at least `length` tiles, about: their lengths fall evenly from the last item's.
  __device__ int items_of_length(int length) const {
    const float over = static_cast<float>(slots_ - (length - 1) * kTile);
    return over <= 0.0f ? 0 : min(parts_, static_cast<int>(ceilf(over * parts_per_slot_)));
  }
  // And of at least this rank: most_parts_ and the length for long ones, else the place in the text, from 1.
  __device__ int items_from(int rank) const {
    if (rank > most_parts_) return items_of_length(max(rank - most_parts_, long_ + 1));
    return max(items_of_length(long_ + 1), parts_ - (rank - 1));
  }

  __device__ void load() {
    const int lane = threadIdx.x % 32, i = first_ + lane;
    parts_ = slots_ = grown_ = 0;
    if (i < a_.units()) load_unit(a_.units() <= kSortedUnits ? order_.unit[i] : i);
    const int slots = sum_to_lane(slots_);
    const bool fits = i < a_.units() && (lane == 0 || slots <= most_slots_);
    group_ = __popc(__ballot_sync(kAllLanes, fits));
    if (!fits) parts_ = slots_ = grown_ = 0;
    items_ = __reduce_add_sync(kAllLanes, parts_);
    most_parts_ = __reduce_max_sync(kAllLanes, parts_);
    // Slots that the unit's items see together: their mean length times their number.
    const int seen = static_cast<int>((static_cast<float>(slots_) - 0.5f * static_cast<float>(grown_)) * static_cast<float>(parts_) / kTile);
    long_ = __reduce_add_sync(kAllLanes, seen) / static_cast<int>(gridDim.x) / kLongShare;
    above_ = most_parts_ + (__reduce_max_sync(kAllLanes, slots_) + kTile - 1) / kTile + 2;
  }
  __device__ void load_unit(int unit) {
    const int sequence = a_.first_sequence + unit / a_.kv_heads, row = a_.row[sequence];
    head_ = unit % a_.kv_heads;
    table_ = row * a_.kv_heads + head_;
    begin_ = a_.begin[sequence];
    end_ = a_.begin[sequence + 1];
    if (row < 0 || end_ == begin_) return;
    parts_ = (end_ - begin_ + a_.item_tokens - 1) / a_.item_tokens;
    slots_ = a_.slots[table_];
    grown_ = max(slots_ - a_.own_slot[static_cast<int64_t>(begin_) * a_.kv_heads + head_], 1);
    parts_per_slot_ = static_cast<float>(parts_) / static_cast<float>(grown_);
  }

  // The lane's unit, the item `back` before its last.
  __device__ Item item_of(int lane, int back) const {
    const auto of = [&](int value) { return __shfl_sync(kAllLanes, value, lane); };
    Item item;
    item.token = of(begin_ + (parts_ - 1 - back) * a_.item_tokens);
    item.tokens = min(a_.item_tokens, of(end_) - item.token);
    item.head = of(head_);
    item.table = of(table_);
    item.held = of(slots_);
    item.slots = a_.own_slot[static_cast<int64_t>(item.token + item.tokens - 1) * a_.kv_heads + item.head];
    return item;
  }

  const PromptArgs& a_;
  const UnitOrder& order_;
  int most_slots_;
  int first_ = 0;   // of the group, in the order
  int group_ = 0, items_ = 0;
  int most_parts_ = 0;  // items of a unit
  int long_ = 0;        // tiles of an item: what is above is long
  int above_ = 0;       // every rank
  int passed_ = 0;  // items of earlier groups
  // Of the lane's unit.
  int parts_ = 0;  // items
  int slots_ = 0, grown_ = 0;  // at the step's end, and how many of them are new
  float parts_per_slot_ = 0.0f;
  int head_ = 0, table_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace accrete
