// Decode attention over ragged pages. Memory-bound: every slot of the step is read once, 4 D bytes (512 at D = 128), and costs 4 D G
// useful FLOPs; queries and outputs are nothing beside them. At 3 TB/s and 132 multiprocessors an SM must swallow 13 B a cycle.
//
// A warp is a worker. It walks the tiles (16 slots) of its range of the plan and needs no shared memory: each lane loads 16-byte pieces
// of keys and values straight into the fragments of m16n8k16 products. The order of components within a product is free as long as
// both operands agree, so component and register are matched to the loads, not the loads to the components:
//   scores   A = queries, row g = lane / 4; B = keys, slot lane / 4 of 8. Lane holds components 32 i + 8 (lane % 4) + 0..7 of both.
//   output   A = weights, as the scores came out; B = values, slots 2 (lane % 4) + {0, 1, 8, 9}, pairs of slots packed in a register.
//            Column n of product (c, e) is component 64 c + 8 n + e, so a lane ends up with runs of 8 components: 16-byte stores.
// Keys of the next tile are loaded as soon as the scores are done with theirs, values likewise: 8 KB a warp are always in flight.
#include <bit>
#include <cfloat>

#include "kernels/attention/attention_decode.cuh"
#include "kernels/attention/decode_merge.cuh"
#include "kernels/cuda.h"
#include "kernels/dependent_launch.cuh"
#include "kernels/mma.cuh"

namespace accrete {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kBlocksPerMultiprocessor = kWorkersPerMultiprocessor / kWarpsPerBlock;
constexpr float kLog2e = 1.4426950408889634f;
// So few that all blocks of the update before start together. Waiting beside them then hides a launch: 1 µs a layer. Waiting beside the last
// of many, whose ring reads it slows, costs 17 µs a layer at 233 sequences of 32 heads.
constexpr int kItemsOfOneWave = 2048;

struct DecodeArgs {
  DecodePlan plan;
  const int32_t* prefix;      // of the layer
  const int32_t* first_item;  // of the layer
  const int32_t* range;       // of the layer
  const int32_t* row;         // [decodes]
  const int32_t* slots;       // [B, Hkv] of the layer
  const int32_t* page_rows;   // [B, Hkv, max_pages] of the layer
  const bf16* pages;          // [N, 2, S, D]
  const bf16* q;              // [T, Hq, D]
  bf16* out;                  // [T, Hq, D]
  int max_pages;
  int page_tiles;             // tiles of a page
  int page_shift;             // log2 of page_tiles
  int items;                  // of the step
  int kv_heads;
  int group;                  // G
  int chunks;                 // of the group
  float scale;                // log2(e) / sqrt(D)
  bool beside_prompts;        // prompt attention is under way, which does not concern it
};

// One worker's part of one item.
struct Part {
  int sequence, head, chunk;  // KV head
  int slots;                  // of the item
  int begin, end;             // tiles
  int index, count;           // this part of how many
  int first_worker;
};

// A tile's keys and values in this lane.
template <int kSize>
struct Tile {
  uint4 k[2][kSize / 32];  // slots lane / 4 and + 8
  uint4 v[4][kSize / 64];  // slots 2 (lane % 4) + {0, 1, 8, 9}

  __device__ void load_keys(const bf16* keys) {
    const int lane = threadIdx.x % 32;
    const bf16* from = keys + lane / 4 * kSize + lane % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kSize / 32; ++i) k[half][i] = load_once(from + half * 8 * kSize + i * 32);
    }
  }
  __device__ void load_values(const bf16* values) {
    const int lane = threadIdx.x % 32;
    const bf16* from = values + lane % 4 * 2 * kSize + lane / 4 * 8;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int c = 0; c < kSize / 64; ++c) v[s][c] = load_once(from + (s % 2 + s / 2 * 8) * kSize + c * 64);
    }
  }
  // Slots that hold nothing may hold NaN, and 0 * NaN is NaN.
  __device__ void drop_values(int valid) {
    const int first = threadIdx.x % 4 * 2;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if (first + s % 2 + s / 2 * 8 < valid) continue;
#pragma unroll
      for (int c = 0; c < kSize / 64; ++c) v[s][c] = make_uint4(0, 0, 0, 0);
    }
  }
};

__device__ inline uint32_t word(const uint4& value, int i) {
  return i == 0 ? value.x : i == 1 ? value.y : i == 2 ? value.z : value.w;
}

// scores[0..1]: slots 2 (lane % 4) + {0, 1}; scores[2..3]: + 8. Row lane / 4.
template <int kSize>
__device__ inline void score(const uint4 (&q)[kSize / 32], const Tile<kSize>& tile, float (&scores)[4]) {
  float half[2][2] = {};
#pragma unroll
  for (int i = 0; i < kSize / 32; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      mma_bf16_upper(half[h], q[i].x, q[i].y, tile.k[h][i].x, tile.k[h][i].y);
      mma_bf16_upper(half[h], q[i].z, q[i].w, tile.k[h][i].z, tile.k[h][i].w);
    }
  }
  scores[0] = half[0][0], scores[1] = half[0][1], scores[2] = half[1][0], scores[3] = half[1][1];
}

// Scores to weights, in place; the softmax's earlier share is scaled when its maximum grew.
template <int kSize>
__device__ inline void weigh(float (&scores)[4], float scale, int valid, Softmax<kSize>& softmax) {
  const int first = threadIdx.x % 4 * 2;
  float top = softmax.top;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    scores[i] = first + i % 2 + i / 2 * 8 < valid ? scores[i] * scale : -FLT_MAX;
    top = fmaxf(top, scores[i]);
  }
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
  top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
  if (__any_sync(0xffffffffu, top > softmax.top)) {
    const float factor = exp2f(softmax.top - top);
    softmax.sum *= factor;
#pragma unroll
    for (auto& pair : softmax.out) pair[0] *= factor, pair[1] *= factor;
    softmax.top = top;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    scores[i] = exp2f(scores[i] - top);
    softmax.sum += scores[i];
  }
}

template <int kSize>
__device__ inline void add_values(const float (&weights)[4], const Tile<kSize>& tile, Softmax<kSize>& softmax) {
  const uint32_t a0 = pack_bf16(weights[0], weights[1]), a2 = pack_bf16(weights[2], weights[3]);
#pragma unroll
  for (int c = 0; c < kSize / 64; ++c) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const unsigned halves = e % 2 == 0 ? 0x5410u : 0x7632u;
      const uint32_t b0 = __byte_perm(word(tile.v[0][c], e / 2), word(tile.v[1][c], e / 2), halves);
      const uint32_t b1 = __byte_perm(word(tile.v[2][c], e / 2), word(tile.v[3][c], e / 2), halves);
      mma_bf16_upper(softmax.out[c * 8 + e], a0, a2, b0, b1);
    }
  }
}

// Where tiles lie; 32 page ids at a time in the lanes of the warp.
struct TileWalk {
  const int32_t* ids;  // the head's page row
  int page_tiles;
  int held = -1;       // which 32 pages
  int32_t mine = 0;

  // First element of a tile's keys. Pages that are missing (a void row) read as page 0: nothing out of bounds.
  template <int kSize>
  __device__ const bf16* keys(const DecodeArgs& a, int tile) {
    const int index = tile >> a.page_shift, within = tile & (page_tiles - 1);
    if (index / 32 != held) {
      held = index / 32;
      const int at = held * 32 + static_cast<int>(threadIdx.x % 32);
      mine = at < a.max_pages ? ids[at] : 0;
    }
    const int64_t page = max(__shfl_sync(0xffffffffu, mine, index % 32), 0);
    return a.pages + (page * 2 * page_tiles + within) * (kTileSlots * kSize);
  }
};

template <int kSize>
__device__ void attend(const DecodeArgs& a, const Part& part, Softmax<kSize>& softmax) {
  const int lane = threadIdx.x % 32, g = part.chunk * kGroupRows + lane / 4;
  const bool there = g < a.group;
  const bf16* from = a.q + ((static_cast<int64_t>(part.sequence) * a.kv_heads + part.head) * a.group + (there ? g : 0)) * kSize + lane % 4 * 8;
  uint4 q[kSize / 32];
#pragma unroll
  for (int i = 0; i < kSize / 32; ++i) q[i] = there ? *reinterpret_cast<const uint4*>(from + i * 32) : make_uint4(0, 0, 0, 0);
  const int64_t table = static_cast<int64_t>(a.row[part.sequence]) * a.kv_heads + part.head;
  TileWalk walk{a.page_rows + table * a.max_pages, a.page_tiles};
  const int64_t values_after = static_cast<int64_t>(a.page_tiles) * kTileSlots * kSize;
  softmax.clear();
  Tile<kSize> tile;
  const bf16* keys = walk.keys<kSize>(a, part.begin);
  tile.load_keys(keys);
  tile.load_values(keys + values_after);
  for (int i = part.begin; i < part.end; ++i) {
    float weights[4];
    score(q, tile, weights);
    if (i + 1 < part.end) {
      keys = walk.keys<kSize>(a, i + 1);
      tile.load_keys(keys);
    }
    const int valid = part.slots - i * kTileSlots;
    weigh(weights, a.scale, valid, softmax);
    if (valid < kTileSlots) tile.drop_values(valid);
    add_values(weights, tile, softmax);
    if (i + 1 < part.end) tile.load_values(keys + values_after);
  }
  softmax.finish();
}

// out[T, Hq, D] of row lane / 4, whole: every run of 8 components is one 16-byte store.
template <int kSize>
__device__ void write_row(const DecodeArgs& a, const Part& part, const Softmax<kSize>& softmax) {
  const int lane = threadIdx.x % 32, g = part.chunk * kGroupRows + lane / 4;
  if (g >= a.group) return;
  bf16* to = a.out + ((static_cast<int64_t>(part.sequence) * a.kv_heads + part.head) * a.group + g) * kSize;
  const float inverse = 1.0f / softmax.sum;
#pragma unroll
  for (int c = 0; c < kSize / 64; ++c) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      uint32_t packed[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) packed[i] = pack_bf16(softmax.out[c * 8 + 2 * i][b] * inverse, softmax.out[c * 8 + 2 * i + 1][b] * inverse);
      *reinterpret_cast<uint4*>(to + c * 64 + (lane % 4 * 2 + b) * 8) = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
  }
}

template <int kSize>
__device__ void finish_part(const DecodeArgs& a, const Part& part, int item, int worker, const Softmax<kSize>& softmax) {
  if (part.count == 1) return write_row<kSize>(a, part, softmax);
  const Partials partials{a.plan.partial, a.plan.shape.partial_floats(), part.first_worker, min(a.group, kGroupRows)};
  write_partial<kSize>(partials.of_part(part.index), partials.rows, softmax);
  const Merged merged{a.out + ((static_cast<int64_t>(part.sequence) * a.kv_heads + part.head) * a.group + part.chunk * kGroupRows) * kSize,
                      min(a.group - part.chunk * kGroupRows, kGroupRows)};
  const int each = parts_of_group(part.count, partials.rows);
  const int groups = (part.count + each - 1) / each, group = part.index / each, first = group * each;
  int32_t* arrived = a.plan.arrived + item;
  if (groups == 1) {
    if (is_last(arrived, part.count)) merge_parts<kSize>(partials, {0, 1, part.count}, merged);
    return;
  }
  const int members = min(each, part.count - first);
  if (!is_last(a.plan.group_arrived + (part.first_worker + first) * 2 + (group == 0 ? 1 : 0), members)) return;
  merge_parts<kSize>(partials, {first, 1, members}, {nullptr, merged.rows});
  if (is_last(arrived, groups)) merge_parts<kSize>(partials, {0, each, groups}, merged);
}

template <int kSize>
__device__ void run_range(const DecodeArgs& a) {
  // Neighbours lie in different blocks: when there is little to do, all multiprocessors have some of it.
  const int worker = threadIdx.x / 32 * gridDim.x + blockIdx.x, range = *a.range;
  const int begin = worker * range, end = begin + range;
  for (int item = a.first_item[worker]; item < a.items; ++item) {
    const int base = a.prefix[item] + kItemOverhead;  // where its tiles begin
    if (base - kItemOverhead >= end) return;
    Part part;
    part.chunk = item % a.chunks;
    part.head = item / a.chunks % a.kv_heads;
    part.sequence = item / a.chunks / a.kv_heads;
    const int row = a.row[part.sequence];  // padding has no slots
    part.slots = row < 0 ? 0 : a.slots[static_cast<int64_t>(row) * a.kv_heads + part.head];
    const int tiles = (part.slots + kTileSlots - 1) / kTileSlots;
    part.begin = max(0, begin - base);
    part.end = min(tiles, end - base);
    if (part.begin >= part.end) continue;
    part.first_worker = base / range;
    part.count = (base + tiles - 1) / range - part.first_worker + 1;
    part.index = worker - part.first_worker;
    Softmax<kSize> softmax;
    attend<kSize>(a, part, softmax);
    finish_part<kSize>(a, part, item, worker, softmax);
  }
}

// Grid: a fixed number of blocks, so that a captured launch serves any lengths.
template <int kSize>
__global__ void __launch_bounds__(32 * kWarpsPerBlock, kBlocksPerMultiprocessor) decode_kernel(const DecodeArgs a) {
  if (!a.beside_prompts) wait_for_previous();
  run_range<kSize>(a);
  wait_for_previous();  // whoever follows this kernel follows prompt attention too
}

}  // namespace

void launch_decode_attention(const Attention& op, cudaStream_t stream) {
  const DecodePlan plan = op.plan->beside(op.batch);
  const int items = plan.shape.items(plan.shape.max_sequences), workers = plan.shape.workers();
  DecodeArgs a{};
  a.plan = plan;
  a.prefix = plan.prefix + static_cast<int64_t>(op.layer) * (items + 1);
  a.first_item = plan.first_item + static_cast<int64_t>(op.layer) * (workers + 1);
  a.range = plan.range + op.layer;
  a.row = op.batch.row.data;
  a.slots = op.cache.slots.data + op.layer * op.cache.slots.stride[0];
  a.page_rows = op.cache.page_rows.data + op.layer * op.cache.page_rows.stride[0];
  a.pages = op.cache.pages.as<bf16>().data;
  a.q = op.q.as<bf16>().data;
  a.out = op.out.as<bf16>().data;
  a.max_pages = static_cast<int>(op.cache.page_rows.shape[3]);
  a.page_tiles = op.cache.page_slots / kTileSlots;
  CHECK(std::has_single_bit(static_cast<unsigned>(a.page_tiles)), a.page_tiles);
  a.page_shift = std::countr_zero(static_cast<unsigned>(a.page_tiles));
  a.items = plan.shape.items(static_cast<int>(op.batch.decodes));
  a.kv_heads = plan.shape.kv_heads;
  a.group = plan.shape.group;
  a.chunks = plan.shape.chunks();
  const int size = plan.shape.head_size;
  a.scale = kLog2e / sqrtf(static_cast<float>(size));
  a.beside_prompts = op.batch.prompt_share > 0;
  const int blocks = workers / kWarpsPerBlock;
  const LaunchShape shape{dim3(blocks), 32 * kWarpsPerBlock, 0, stream, a.beside_prompts || a.items <= kItemsOfOneWave};
  if (size == 64) launch_dependent(decode_kernel<64>, shape, a);
  else launch_dependent(decode_kernel<128>, shape, a);
}

}  // namespace accrete
