// The work plan of decode attention: who of the GPU's workers (warps) reads which tiles of which heads. Heads differ in length by
// orders of magnitude and only the device knows how long they are, so the plan is made there, once a step for all layers: the tiles of
// all heads of a layer, laid end to end, are cut into equal ranges, one a worker. A head that lies in several ranges is merged by the
// worker that finishes it last, in the order of the ranges. All memory is fixed: the plan and the kernels can be captured in a graph.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/paging/cache_ref.h"
#include "kernels/paging/step_batch.h"
#include "kernels/stream.h"

namespace accrete {

inline constexpr int kTileSlots = 16;     // slots that a worker takes at a time
inline constexpr int kGroupRows = 8;      // query heads that share a read of a head's slots; more are more items
inline constexpr int kItemOverhead = 2;   // what an item costs beside its tiles, in tiles: start, write-out
inline constexpr int kWorkersPerMultiprocessor = 12;  // warps that fit beside each other with a tile in registers each
// Short ranges cost more in merging than they save: when there is little to read, 8 workers of a multiprocessor have something to do, of 4 to
// 12 tiles each.
ACCRETE_HD constexpr int least_tiles(int total, int multiprocessors) {
  const int even = total / (8 * multiprocessors);
  return even < 4 ? 4 : even > 12 ? 12 : even;
}
inline constexpr int kGroupParts = 32;    // parts of an item that one warp merges at most; an item of more is merged group by group, then over groups

struct DecodePlanShape {
  int layers = 0;          // L_local
  int kv_heads = 0;        // Hkv_local
  int group = 1;           // G
  int head_size = 128;     // D
  int max_sequences = 0;   // decodes of a step at most
  int multiprocessors = 0;
  ACCRETE_HD int workers() const { return multiprocessors * kWorkersPerMultiprocessor; }  // warps of the attention kernel
  ACCRETE_HD int chunks() const { return (group + kGroupRows - 1) / kGroupRows; }
  ACCRETE_HD int items(int sequences) const { return sequences * kv_heads * chunks(); }
  // O [rows, D], m [rows], l [rows] of a part of an item, rows = min(G, 8); a multiple of 16 bytes.
  ACCRETE_HD int partial_floats() const {
    const int rows = group < kGroupRows ? group : kGroupRows;
    return rows * head_size + (2 * rows + 3) / 4 * 4;
  }
  size_t bytes() const;    // of device memory
};

// Views into the owner's memory; plain, passed to kernels by value. An item is (sequence, KV head, chunk of the query group).
struct DecodePlan {
  DecodePlanShape shape;
  int32_t* prefix = nullptr;      // [L, items + 1] costs of the items before
  int32_t* first_item = nullptr;  // [L, workers + 1] item in which a worker's range begins
  int32_t* range = nullptr;       // [L] cost units of a worker's range
  // How many have finished; zero between launches. Of an item: parts, or groups of parts. Of a group of parts, by the worker of its
  // first part: [0] later groups, [1] an item's first group. A worker may have one of each.
  int32_t* arrived = nullptr;        // [items]
  int32_t* group_arrived = nullptr;  // [workers, 2]
  float* partial = nullptr;       // [workers, 2, partial_floats] O, m, l of a range's first and last item
  uint32_t* claims = nullptr;     // [2] of prompt attention, which shares out its items as it runs (prompt_items.cuh); zero between launches

  // For the multiprocessors that the step's prompts leave.
  DecodePlan beside(const StepBatch& batch) const {
    DecodePlan mine = *this;
    mine.shape.multiprocessors -= batch.prompt_share;
    return mine;
  }
};

// Lays the plan out in `memory` of shape.bytes(), which must be zeroed once before the first step.
DecodePlan decode_plan(const DecodePlanShape& shape, void* memory);
// Before the first layer's update of a step: lengths are planned one longer than they are.
void plan_decode_cuda(const DecodePlan& plan, const StepBatch& batch, const CacheRef& cache, Stream& stream);

}  // namespace accrete
