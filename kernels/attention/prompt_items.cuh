// The work of prompt attention and who takes it. An item is up to kRows rows, row = (token, query of the group), of one sequence and KV
// head, a unit. Heads differ in length by an order of magnitude and only the device knows it, so blocks claim items there: units in order
// of their slots, most first, in groups whose slots fit the level-two cache together; in a group the last rows of every unit first, which
// see most slots.
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
constexpr int kMostGroup = 32;     // units of a group: a lane each
constexpr int64_t kCachedBytes = 32 << 20;  // slots of a group

struct PromptArgs {
  CUtensorMap pages;          // [2 N S / 8, D / 64, 8, 64], boxes of kBoxSlots slots of D
  CUtensorMap q;              // [T, Hq D / 64, G, 64], boxes of a warpgroup's tokens, all queries of the group
  CUtensorMap own_k, own_v;   // [T, Hkv D / 64, 1, 64], boxes of an item's tokens
  const int32_t* row;         // [B_step]
  const int32_t* begin;       // [B_step + 1]
  const int32_t* own_slot;    // [T, Hkv]
  const int32_t* slots;       // [B, Hkv] of the layer
  const int32_t* page_rows;   // [B, Hkv, max_pages] of the layer
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
  bool beside_decodes;        // which are launched right behind
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

// The item that another warp left in shared memory. Lane 0 reads it for its warp, the lane that later arrives at the barrier behind which it
// may be overwritten.
__device__ inline Item take_item(const Item& shared) {
  Item item{};
  if (threadIdx.x % 32 == 0) item = shared;
  for (int32_t* field : {&item.token, &item.tokens, &item.head, &item.table, &item.slots, &item.held}) *field = __shfl_sync(kAllLanes, *field, 0);
  return item;
}

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
  __device__ ItemQueue(const PromptArgs& args, const UnitOrder& order, int slot_bytes) : a_(args), order_(order) {
    if (a_.units() <= kSortedUnits) {
      const int64_t most = static_cast<int64_t>(order.slots[order.unit[0]]) * slot_bytes;
      group_ = static_cast<int>(min(static_cast<int64_t>(kMostGroup), max(int64_t{1}, kCachedBytes / max(most, int64_t{1}))));
    }
    load();
  }

  // What the item of this number is, if there are so many. All lanes get it.
  __device__ Item find(int number) {
    int all = __reduce_add_sync(kAllLanes, items_);
    while (number - passed_ >= all) {
      passed_ += all;
      first_ += group_;
      if (first_ >= a_.units()) return {};
      load();
      all = __reduce_add_sync(kAllLanes, items_);
    }
    // Of the group: level l has the item l before the last of each unit that has more than l. Levels only grow towards the right one.
    const int place = number - passed_;
    int level = 0, below = 0;
    unsigned deep = __ballot_sync(kAllLanes, items_ > 0);
    while (place - below >= __popc(deep)) {
      level += (place - below) / __popc(deep);
      below = __reduce_add_sync(kAllLanes, min(items_, level));
      deep = __ballot_sync(kAllLanes, items_ > level);
    }
    const int lane = threadIdx.x % 32;
    const bool mine = (deep >> lane & 1) && __popc(deep & ((1u << lane) - 1)) == place - below;
    return item_of(__ffs(__ballot_sync(kAllLanes, mine)) - 1, level);
  }

 private:
  __device__ void load() {
    const int i = first_ + static_cast<int>(threadIdx.x % 32);
    items_ = 0;
    if (static_cast<int>(threadIdx.x % 32) >= group_ || i >= a_.units()) return;
    const int unit = a_.units() <= kSortedUnits ? order_.unit[i] : i, sequence = a_.first_sequence + unit / a_.kv_heads;
    head_ = unit % a_.kv_heads;
    const int row = a_.row[sequence];
    table_ = row * a_.kv_heads + head_;
    begin_ = a_.begin[sequence];
    end_ = a_.begin[sequence + 1];
    if (row >= 0) items_ = (end_ - begin_ + a_.item_tokens - 1) / a_.item_tokens;
  }

  __device__ Item item_of(int lane, int level) const {
    const auto of = [&](int value) { return __shfl_sync(kAllLanes, value, lane); };
    Item item;
    item.token = of(begin_ + (items_ - 1 - level) * a_.item_tokens);
    item.tokens = min(a_.item_tokens, of(end_) - item.token);
    item.head = of(head_);
    item.table = of(table_);
    item.held = a_.slots[item.table];
    // A void row's tokens may believe in slots that no page could be had for.
    item.slots = min(a_.own_slot[static_cast<int64_t>(item.token + item.tokens - 1) * a_.kv_heads + item.head], item.held);
    return item;
  }

  const PromptArgs& a_;
  const UnitOrder& order_;
  int group_ = kMostGroup;
  int first_ = 0;   // of the group, in the order
  int passed_ = 0;  // items of earlier groups
  // Of the lane's unit.
  int items_ = 0, head_ = 0, table_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace accrete
